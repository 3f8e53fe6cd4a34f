#include "src/llc/objective.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/randperm.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <utility>

#include "hooks/memory.hpp"
#include "src/base/check.hpp"
#include "src/base/dtype.hpp"
#include "src/llc/streams.hpp"
#include "src/model/guard.hpp"
#include "src/model/problem.hpp"
#include "src/model/random.hpp"

namespace dds {
namespace {

/// How often data were written to in place.
std::uint64_t writes_to(const Data& data) {
  std::uint64_t writes = hooks::version_of(data.targets);
  for (const auto& input : data.inputs) writes += hooks::version_of(input);
  return writes;
}

/// Gradients of the batches at w* are kept up to this size.
constexpr std::int64_t kMostBytes = std::int64_t{1} << 28;

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
                     const Replica& start, std::optional<std::uint64_t> dealt_by)
    : likelihood_(std::move(likelihood)), kind_(kind), batch_size_(batch_size), samples_(data.size()) {
  if (batch_size_ == samples_) batch_size_.reset();
  all_.data = std::move(data);
  start_ = start.weights().clone();
  if (dealt_by && !full_batch()) deal(*dealt_by);
  measure_start(start);
}

void Objective::deal(std::uint64_t seed) {
  const std::int64_t batches = (samples_ + *batch_size_ - 1) / *batch_size_;
  for (std::int64_t i = 0; i <= batches; ++i) edges_.push_back(samples_ * i / batches);
  order_ = at::randperm(samples_, generator_for(at::kCPU, seed, kDealStream), at::kLong).to(start_.device());
  if (batches * start_.numel() * static_cast<std::int64_t>(start_.element_size()) <= kMostBytes) {
    slopes_ = at::empty({batches, start_.numel()}, start_.options());
  }
}

void Objective::measure_start(const Replica& replica) {
  // In pieces of the batch's size: all samples at once may not fit the memory.
  const auto piece = batch_size_.value_or(samples_);
  const std::int64_t pieces = order_.defined() ? std::ssize(edges_) - 1 : (samples_ + piece - 1) / piece;
  std::vector<at::Tensor> losses_at_start;
  slope_ = at::zeros_like(start_);
  for (std::int64_t i = 0; i < pieces; ++i) {
    // A selection is a copy already.
    const Data copy = order_.defined() ? all_.data.select(numbers_dealt(i))
                                       : copy_of(all_.data.slice(i * piece, std::min((i + 1) * piece, samples_)));
    const auto before = writes_to(copy);
    const auto part = losses_of(replica, copy);
    writes_ = writes_ || writes_to(copy) != before;
    const auto gradient = replica.gradient(part);
    slope_.add_(gradient, 1.0 / static_cast<double>(samples_));
    if (slopes_.defined()) slopes_.select(0, i).copy_(gradient).div_(part.size(0));
    losses_at_start.push_back(part.detach().to(at::kDouble));
    ++start_passes_;
  }
  all_.start_losses = at::cat(losses_at_start);
  if (order_.defined()) all_.start_losses = at::empty_like(all_.start_losses).index_copy_(0, order_, all_.start_losses);
  start_loss_ = all_.start_losses.mean().item<double>();
  if (slopes_.defined() && kind_ == LlcKind::Plain) slopes_.sub_(slope_);
}

double Objective::n_beta(std::optional<double> given) const {
  const auto n = static_cast<double>(samples_);
  return given.value_or(n / std::log(n));
}

at::Tensor Objective::numbers_dealt(std::int64_t batch) const {
  const auto i = static_cast<std::size_t>(batch);
  return order_.slice(0, edges_[i], edges_[i + 1]);
}

Objective::Sum Objective::sum(const Replica& replica, std::int64_t begin, std::int64_t end) const {
  Sum sum{0, at::zeros_like(start_)};
  for (const auto piece = batch_size_.value_or(samples_); begin < end; begin += piece) {
    const auto part = losses(replica, all_.data.slice(begin, std::min(begin + piece, end)));
    sum.loss += part.detach().sum(at::kDouble).item<double>();
    sum.gradient.add_(replica.gradient(part));
  }
  return sum;
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
  return pick(indices.to(all_.start_losses.device()));
}

Batch Objective::pick(const at::Tensor& numbers) const {
  return {all_.data.select(numbers), all_.start_losses.index_select(0, numbers)};
}

Batch Objective::next(const kernels::RandomKey& key) const {
  if (!batch_size_) return all_;
  if (!order_.defined()) return draw(*batch_size_, key);
  // The batch of a sample that is drawn from all.
  std::int64_t place = 0;
  kernels::indices(key, samples_, 1, &place);
  const auto number = std::upper_bound(edges_.begin(), edges_.end(), place) - edges_.begin() - 1;
  Batch batch = pick(numbers_dealt(number));
  batch.number = number;
  return batch;
}

at::Tensor Objective::gradient(const Replica& replica, const Batch& batch, Replica::Graph graph) const {
  const auto values = losses(replica, batch.data);
  return replica.gradient(values, 1.0 / static_cast<double>(values.size(0)), graph);
}

at::Tensor Objective::slope(const Replica& replica, const Batch& batch) const {
  if (full_batch()) return kind_ == LlcKind::Tilted ? slope_ : at::Tensor();
  if (!has_slopes()) return {};
  if (slopes_.defined()) return slopes_.select(0, batch.number);
  const auto here = replica.weights().clone();
  replica.weights().copy_(start_);
  auto slope = gradient(replica, batch);
  replica.weights().copy_(here);
  return kind_ == LlcKind::Plain ? slope.sub_(slope_) : slope;
}

at::Tensor Objective::gradient_of(const Value& value) const {
  std::vector<at::Tensor> parts;
  for (const auto& part : value.gradient) {
    parts.push_back(part.gradient.defined() ? part.gradient.reshape({-1}) : at::zeros({part.size}, start_.options()));
  }
  auto gradient = at::cat(parts);
  return value.slope.defined() ? gradient.sub_(value.slope) : gradient;
}

Objective::Noise Objective::noise(const Replica& replica, const at::Tensor& scale, std::int64_t batches,
                                  kernels::RandomKey key) const {
  Noise noise;
  double squares = 0;
  auto sum = at::zeros_like(start_);
  const auto count = static_cast<double>(batches);
  for (std::int64_t i = 0; i < batches; ++i, ++key.step) {
    const auto value = at(replica, next(key));
    auto gradient = gradient_of(value);
    if (scale.defined()) gradient.mul_(scale);
    noise.excess += value.excess / count;
    squares += std::pow(gradient.norm().item<double>(), 2) / count;
    sum.add_(gradient, 1 / count);
  }
  noise.trace = std::max(0.0, squares - std::pow(sum.norm().item<double>(), 2)) * count / (count - 1);
  return noise;
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
  value.slope = slope(replica, batch);
  if (value.slope.defined()) value.excess -= at::dot(value.slope, replica.weights() - start_).item<double>();
  return value;
}

}  // namespace dds
