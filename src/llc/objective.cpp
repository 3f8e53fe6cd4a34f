#include "src/llc/objective.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "hooks/memory.hpp"
#include "src/base/check.hpp"
#include "src/base/dtype.hpp"
#include "src/model/guard.hpp"
#include "src/model/problem.hpp"

namespace dds {
namespace {

/// How often data were written to in place.
std::uint64_t writes_to(const Data& data) {
  std::uint64_t writes = hooks::version_of(data.targets);
  for (const auto& input : data.inputs) writes += hooks::version_of(input);
  return writes;
}

}  // namespace

Data in_fp64(const Data& data) {
  const auto convert = [](const at::Tensor& t) {
    return t.defined() ? t.to(at_precision(t.scalar_type(), at::kDouble)) : t;
  };
  Data result;
  for (const auto& input : data.inputs) result.inputs.push_back(convert(input));
  result.targets = convert(data.targets);
  return result;
}

Objective::Objective(LikelihoodPtr likelihood, Data data, LlcKind kind, std::optional<std::int64_t> batch_size,
                     const Replica& start)
    : likelihood_(std::move(likelihood)), kind_(kind), batch_size_(batch_size), samples_(data.size()) {
  if (batch_size_ == samples_) batch_size_.reset();
  all_.data = std::move(data);
  start_ = start.weights().clone();
  measure_start(start);
}

void Objective::measure_start(const Replica& replica) {
  // In pieces of the batch's size: all samples at once may not fit the memory.
  const auto piece = batch_size_.value_or(samples_);
  std::vector<at::Tensor> losses_at_start;
  slope_ = at::zeros_like(start_);
  for (std::int64_t begin = 0; begin < samples_; begin += piece) {
    const Data copy = copy_of(all_.data.slice(begin, std::min(begin + piece, samples_)));
    const auto before = writes_to(copy);
    const auto part = losses_of(replica, copy);
    writes_ = writes_ || writes_to(copy) != before;
    slope_.add_(replica.gradient(part), 1.0 / static_cast<double>(samples_));
    losses_at_start.push_back(part.detach().to(at::kDouble));
    ++start_passes_;
  }
  all_.start_losses = at::cat(losses_at_start);
  start_loss_ = all_.start_losses.mean().item<double>();
}

double Objective::sum_of_losses(const Replica& replica, const Data& data) const {
  const c10::NoGradGuard no_grad;
  const auto piece = batch_size_.value_or(samples_);
  double sum = 0;
  for (std::int64_t begin = 0; begin < samples_; begin += piece) {
    sum += losses(replica, data.slice(begin, std::min(begin + piece, samples_))).sum(at::kDouble).item<double>();
  }
  return sum;
}

double Objective::excess(const Replica& replica) const {
  return sum_of_losses(replica, all_.data) / static_cast<double>(samples_) - start_loss_;
}

double Objective::excess_in_fp64(const Replica& replica) const {
  const Data data = in_fp64(all_.data);
  const auto here = replica.weights().clone();
  const auto sum_at = [&](const at::Tensor& weights) {
    replica.weights().copy_(weights);
    const ModelGuard guard(replica.module(), {.dtype = at::kDouble, .require_grad = false});
    return sum_of_losses(replica, data);
  };
  double excess = (sum_at(here) - sum_at(start_)) / static_cast<double>(samples_);
  replica.weights().copy_(here);
  if (kind_ == LlcKind::Tilted)
    excess -= at::dot(slope_.to(at::kDouble), (here - start_).to(at::kDouble)).item<double>();
  return excess;
}

/// The data stay as they are.
at::Tensor Objective::losses(const Replica& replica, const Data& data) const {
  if (writes_) return losses_of(replica, copy_of(data));
  const auto before = writes_to(data);
  auto losses = losses_of(replica, data);
  if (writes_to(data) != before) {
    throw_invalid("estimate_llc", "forward", "one that wrote into its inputs at some weights and not at the start",
                  "one that copies what it changes");
  }
  return losses;
}

at::Tensor Objective::losses_of(const Replica& replica, const Data& data) const {
  const auto output = replica.output(data.inputs);
  check_output(output, data.inputs[0].size(0), "estimate_llc");
  auto losses = likelihood_->loss(output, data.targets);
  if (losses.dim() != 1 || losses.size(0) != data.inputs[0].size(0)) {
    throw_invalid("estimate_llc", "the loss", text_of(losses),
                  fmt::format("[{}], one number a sample", data.inputs[0].size(0)));
  }
  return losses;
}

Batch Objective::draw(std::int64_t size, const kernels::RandomKey& key) const {
  auto indices = at::empty({size}, at::kLong);
  kernels::indices(key, samples_, size, indices.data_ptr<std::int64_t>());
  indices = indices.to(all_.start_losses.device());
  return {all_.data.select(indices), all_.start_losses.index_select(0, indices)};
}

at::Tensor Objective::gradient(const Replica& replica, const Batch& batch, Replica::Graph graph) const {
  const auto values = losses(replica, batch.data);
  return replica.gradient(values, 1.0 / static_cast<double>(values.size(0)), graph);
}

at::Tensor Objective::slope(const Replica& replica, const Batch& batch) const {
  if (full_batch()) return slope_;
  const auto here = replica.weights().clone();
  replica.weights().copy_(start_);
  auto slope = gradient(replica, batch);
  replica.weights().copy_(here);
  return slope;
}

Objective::Value Objective::at(const Replica& replica, const Batch& batch) const {
  const auto values = losses(replica, batch.data);
  const auto size = static_cast<double>(values.size(0));
  Value value;
  value.losses = values.detach();
  // Summed in fp64: it is a small difference of large sums that counts.
  const double start = full_batch() ? start_loss_ : batch.start_losses.mean().item<double>();
  value.excess = value.losses.sum(at::kDouble).item<double>() / size - start;
  auto parts = replica.gradient_parts(values, 1 / size);
  for (std::size_t i = 0; i < parts.size(); ++i)
    value.gradient.push_back({std::move(parts[i]), replica.part_sizes()[i]});
  if (kind_ == LlcKind::Tilted) {
    value.slope = slope(replica, batch);
    value.excess -= at::dot(value.slope, replica.weights() - start_).item<double>();
  }
  return value;
}

}  // namespace dds
