// Convolutions: products of delta with the windows of the input. A transposed one is the product of its input with the
// windows of delta.
#include <ATen/TensorOperators.h>

#include "src/per_sample/operator_uses.hpp"

namespace dds::hooks {
namespace {

struct Geometry {
  Windows windows;
  std::int64_t groups = 1;
  bool transposed = false;
};

/// (input, weight, bias, stride, padding, ...): the rest by the table of operators.
Geometry read_geometry(const kind::Convolution& op, Arguments args, at::IntArrayRef kernel) {
  const std::size_t dims = kernel.size();
  Geometry result;
  Windows& windows = result.windows;
  windows.kernel = kernel.vec();
  windows.stride = ints_at(args, 3, dims);
  windows.dilation = ints_at(args, op.dilation, dims);
  result.transposed = bool_at(args, op.is_transposed, op.transposed);
  result.groups = int_at(args, op.groups, 1);
  windows.before = ints_at(args, 4, dims);
  if (windows.before.empty()) {  // "same" or "valid"
    windows.before.assign(dims, 0);
    windows.after.assign(dims, 0);
    if (args[4].toStringRef() == "same") {
      for (std::size_t i = 0; i < dims; ++i) {
        const std::int64_t total = windows.dilation[i] * (kernel[i] - 1);
        windows.before[i] = total / 2;
        windows.after[i] = total - total / 2;
      }
    }
  } else {
    windows.after = windows.before;
  }
  return result;
}

}  // namespace

void add_uses(const kind::Convolution& op, const Run& run, Uses& uses) {
  const at::Tensor& weight = run.op.weight;
  Geometry geometry = read_geometry(op, run.op.args(), weight.sizes().slice(2));
  const std::int64_t groups = geometry.groups;
  // (n, k, channels, space...)
  const auto images = [&](const at::Tensor& tensor) {
    const bool batched = tensor.dim() == weight.dim();
    if (run.rows.order != SampleRows::Order::Whole) return by_sample(tensor, 0, run.rows);
    return batched ? by_sample(tensor, 0, run.rows).flatten(1, 2) : by_sample(tensor, 0, run.rows);
  };
  // (n, k, channels, space...) as (n, g, positions, channels / g)
  const auto by_position = [&](const at::Tensor& image) {
    return image.flatten(3).unflatten(2, {groups, image.size(2) / groups}).permute({0, 2, 1, 4, 3}).flatten(2, 3);
  };
  const at::Tensor input = images(run.call.inputs.front()), delta = images(run.delta);
  const at::Tensor& coarse = geometry.transposed ? input : delta;
  geometry.windows.positions = coarse.sizes().slice(3).vec();
  const at::Tensor left = by_position(coarse);
  uses.add_product(weight,
                   Product{Factor(left), Factor(geometry.transposed ? delta : input, groups, geometry.windows)});
  const at::Tensor bias = tensor_at(run.op.args(), 2);
  uses.add(bias, Sum{geometry.transposed ? by_position(delta) : left});
}

}  // namespace dds::hooks
