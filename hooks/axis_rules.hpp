// What becomes of axes in the operators that are followed.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <optional>
#include <string_view>

#include "hooks/arguments.hpp"
#include "hooks/axes.hpp"
#include "hooks/axis_tracker.hpp"

namespace dds::hooks {

/// The axes of `output`, which is at `place` among the outputs. Joins axes of the operands that the operator makes one.
/// Empty for an operator that is not followed. `name` without its namespace, and without the underscore behind.
std::optional<Axes::Ids> axes_by_rule(std::string_view name, Arguments args, const at::Tensor& output,
                                      std::size_t place, AxisTracker& tracker);

/// Those of a view of `whole`.
Axes::Ids axes_of_view(std::string_view name, const at::Tensor& whole, const at::Tensor& view, AxisTracker& tracker);

}  // namespace dds::hooks
