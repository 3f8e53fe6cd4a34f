// The affine part of a normalisation, the slope of a PReLU, and the product of two inputs.
#include <ATen/TensorOperators.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/instance_norm.h>
#include <ATen/ops/layer_norm.h>

#include <numeric>

#include "src/base/dtype.hpp"
#include "src/per_sample/operator_uses.hpp"

namespace dds::hooks {
namespace {

using Dims = std::vector<std::int64_t>;

/// The input as the affine part of a normalisation sees it.
at::Tensor normalised(const kind::Norm& op, const Run& run) {
  using Over = kind::Norm::Over;
  const Arguments args = run.op.args();
  const at::Tensor x = run.call.inputs.front();
  const double epsilon = number_at(args, op.epsilon, 1e-5);
  switch (op.over) {
    case Over::Group:
      return at::group_norm(x, int_at(args, 1, 1), {}, {}, epsilon, false);
    case Over::Batch: {
      const bool training = bool_at(args, 5, false);
      // Without the running means, so that they are not updated again.
      return at::batch_norm(x, {}, {}, training ? at::Tensor() : tensor_at(args, 3),
                            training ? at::Tensor() : tensor_at(args, 4), training, 0, epsilon, false);
    }
    case Over::Instance: {
      const bool own = bool_at(args, 5, true);
      return at::instance_norm(x, {}, {}, own ? at::Tensor() : tensor_at(args, 3),
                               own ? at::Tensor() : tensor_at(args, 4), own, 0, epsilon, false);
    }
    case Over::RootMeanSquare: {
      Dims last(ints_at(args, 1, 1).size());
      std::iota(last.begin(), last.end(), x.dim() - std::ssize(last));
      const double smallest = machine_epsilon(x.scalar_type(), "per_sample_gradients");
      return x * x.square().mean(last, true).add(number_at(args, op.epsilon, smallest)).rsqrt();
    }
    case Over::Layer:
      break;
  }
  return at::layer_norm(x, ints_at(args, 1, 1), {}, {}, epsilon, false);
}

}  // namespace

void add_uses(const kind::Norm& op, const Run& run, Uses& uses) {
  const at::Tensor weight = tensor_at(run.op.args(), op.weight), bias = tensor_at(run.op.args(), op.bias);
  const auto summed = [&](const at::Tensor& rows) {
    return Dense{rows_of(rows, run.rows, run.call.output_features).sum(2).squeeze(1)};
  };
  if (weight.defined()) uses.add(weight, summed(run.delta * normalised(op, run)));
  if (bias.defined()) uses.add(bias, summed(run.delta));
}

void add_uses(const kind::Bilinear&, const Run& run, Uses& uses) {
  const Dims last{run.delta.dim() - 1};
  const at::Tensor left = rows_of(run.delta, run.rows, last);
  const at::Tensor a = rows_of(run.call.inputs[0], run.rows, last), b = rows_of(run.call.inputs[1], run.rows, last);
  uses.add_product(run.op.weight, Product{Factor(left), Factor((a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(3))});
  uses.add(tensor_at(run.op.args(), 3), Sum{left});
}

void add_uses(const kind::Prelu&, const Run& run, Uses& uses) {
  const at::Tensor& weight = run.op.weight;
  const Dims features = weight.numel() > 1 ? run.call.output_features : Dims{};
  const at::Tensor rows = run.delta * run.call.inputs.front().clamp_max(0);
  uses.add(weight, Dense{rows_of(rows, run.rows, features).sum(2).squeeze(1)});
}

}  // namespace dds::hooks
