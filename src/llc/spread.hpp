// Chains spread over several processes (ranks): of R ranks, rank i mod R runs chain i.
//
// Rank 0 alone decides what is run. Two machines may differ in the last bit or in their clocks. If each decided for
// itself, one could wait for a step that the other never takes. The other ranks run what rank 0 asks for, until the
// time that it has left is over. Any rank can end the run.
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

/// Runs work(i, replica) for each chain i that is given, in any threads.
using RunChains = std::function<void(const std::vector<std::size_t>& chains,
                                     const std::function<void(std::size_t, const Replica&)>& work)>;

/// For rank 0: advances all chains. Those of other ranks are advanced there, where `serve` waits for the request.
/// `ranks` null: all chains are run here.
/// Throws RankError if a rank fails, or has another model or other data.
void advance(Ranks* ranks, std::vector<Chain>& chains, const Objective& objective, const Dynamics& dynamics,
             std::int64_t steps, Keep keep, Watch& watch, const RunChains& run);

/// For rank 0: ends `serve` on all other ranks. If `error` is not empty, `serve` throws it there as a RankError. Never
/// throws: the other ranks may be gone.
void dismiss(Ranks& ranks, const std::string& error) noexcept;

/// For the other ranks: does what rank 0 asks for, until rank 0 dismisses this rank. An error here is sent to rank 0,
/// and thrown once rank 0 has dismissed all ranks.
void serve(Ranks& ranks, std::vector<Chain>& chains, const Objective& objective, Watch& watch, const RunChains& run);

/// For the other ranks, in place of `serve` if this rank has nothing to run: answers the first request of rank 0 with
/// `error`, and returns when rank 0 dismisses this rank.
void refuse(Ranks& ranks, const std::string& error);

}  // namespace dds
