// Chains spread over several processes: chain i runs on rank i modulo their number. Rank 0 alone decides, so that
// nothing hangs on two machines agreeing in the last bit, or on their clocks; the others run what they are asked to,
// for as long as rank 0's watch has left, and any of them can call it off.
#pragma once

#include <cstdint>
#include <dds/ranks.hpp>
#include <functional>
#include <string>
#include <vector>

#include "src/llc/chain.hpp"
#include "src/llc/objective.hpp"
#include "src/llc/workers.hpp"

namespace dds {

/// Runs work(i) for each of the chains given, in whatever threads.
using RunChains = std::function<void(const std::vector<std::size_t>& chains,
                                     const std::function<void(std::size_t, const Replica&)>& work)>;

/// Advances all chains, those of other ranks over there, where `serve` waits for it; on rank 0. `ranks` null: all here.
/// Throws RankError for a rank that fails, or has another model or other data.
void advance(Ranks* ranks, std::vector<Chain>& chains, const Objective& objective, const Dynamics& dynamics,
             std::int64_t steps, Keep keep, Watch& watch, const RunChains& run);

/// Ends `serve` on all other ranks; with an error, by a RankError there. Never throws: they may be gone.
void dismiss(Ranks& ranks, const std::string& error) noexcept;

/// Does what rank 0 asks for until it dismisses. An error of this rank's is told there, and thrown here when rank 0 has
/// dismissed.
void serve(Ranks& ranks, std::vector<Chain>& chains, const Objective& objective, Watch& watch, const RunChains& run);

/// In the place of `serve` where there is nothing to serve with: tells `error` when rank 0 first asks, and returns when
/// it dismisses.
void refuse(Ranks& ranks, const std::string& error);

}  // namespace dds
