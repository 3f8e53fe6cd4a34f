// An operator whose axes are followed (hooks/axes.hpp), as rules see it; and the rules of products.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "hooks/arguments.hpp"
#include "hooks/axes.hpp"
#include "hooks/axis_tracker.hpp"

namespace dds::hooks {

/// An operator that ended, and one of its outputs.
struct AxisOperator {
  using Ids = Axes::Ids;
  using Tensors = std::vector<at::Tensor>;

  std::string_view name;
  Arguments args;
  const at::Tensor& out;
  std::size_t place;
  AxisTracker& tracker;

  at::Tensor tensor(std::size_t i) const { return tensor_at(args, i); }
  Ids ids(const at::Tensor& tensor) const { return tracker.axes_of(tensor); }
  void join(Axes::Id a, Axes::Id b) const { tracker.axes().join(a, b); }
  Tensors operands() const {
    Tensors all;
    for_each_tensor(args, [&](const at::Tensor& tensor) { all.push_back(tensor); });
    return all;
  }
  bool has_data() const {
    const Tensors all = operands();
    return std::any_of(all.begin(), all.end(), [&](const at::Tensor& t) { return tracker.axes().have_data(ids(t)); });
  }
  Ids fresh() const { return tracker.axes().add(out.dim(), has_data()); }
  /// The axes of dimensions that these operands share by LibTorch's rules of broadcasting: from the last one on.
  Ids broadcast(const Tensors& operands) const;
};

// Each gives the axes of the output, and joins those of operands that are one.

/// left @ right, with matmul's rules.
Axes::Ids axes_of_product(const AxisOperator& op);
/// (summand, left, right)
Axes::Ids axes_of_product_and_summand(const AxisOperator& op);
Axes::Ids axes_of_linear(const AxisOperator& op);
Axes::Ids axes_of_bilinear(const AxisOperator& op);
Axes::Ids axes_of_einsum(const AxisOperator& op);
/// softmax(query @ key^T) @ value
Axes::Ids axes_of_attention(const AxisOperator& op);

}  // namespace dds::hooks
