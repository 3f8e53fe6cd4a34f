// Which dimensions of a tensor those of a view of it are.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string_view>

#include "hooks/axes.hpp"

namespace dds::hooks {

/// The axes of all entries of a tensor of these sizes and axes, in their order, in `others`. Empty where dimensions are
/// cut in a way that has no factors.
std::optional<Axes::Ids> axes_of_reshaped(at::IntArrayRef sizes, at::IntArrayRef others, const Axes::Ids& ids,
                                          Axes& axes);
/// `ids`: of the whole.
Axes::Ids axes_of_view(std::string_view name, const at::Tensor& whole, const at::Tensor& view, const Axes::Ids& ids,
                       Axes& axes);

}  // namespace dds::hooks
