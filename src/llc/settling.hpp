// The way down from a checkpoint, for a model that is guarded already.
#pragma once

#include <dds/llc.hpp>
#include <dds/settle.hpp>
#include <functional>
#include <string>
#include <vector>

#include "src/model/replica.hpp"

namespace dds {

/// Throws InvalidArgument for what <dds/settle.hpp> says is no valid input.
void check(const SettleOptions& options, std::int64_t samples, const char* function);

/// The options of a call of `settle` in its place, from those of an estimate that settles first.
SettleOptions settle_options(const LlcOptions& options);

/// See `settle`. `cancelled` may be null. `first` is the model at the checkpoint, and is left at the point. `problem`
/// has its data in the dtype of the model.
Settled go_down(const Problem& problem, const Replica& first, const std::vector<std::string>& names,
                const SettleOptions& options, std::function<bool()> cancelled);

}  // namespace dds
