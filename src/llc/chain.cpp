#include "src/llc/chain.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <dds/error.hpp>

#include "src/model/random.hpp"

namespace dds {

void Chain::Trace::clear() {
  for (auto* values : {&excess, &bias, &distance, &along}) values->clear();
}

Chain::Chain(const Objective& objective, std::uint64_t seed, std::uint64_t number)
    : objective_(objective), key_(mixed(seed, number)), weights_(objective.start().clone()) {}

void Chain::advance(const Replica& replica, const Dynamics& dynamics, std::int64_t steps, Keep keep,
                    const std::function<bool()>& stop) {
  if (diverged_ || steps <= 0) return;
  replica.weights().copy_(weights_);
  policy_of(dynamics.sampler).advance(*this, {replica, dynamics, steps, keep, stop});
  weights_.copy_(replica.weights());
}

Objective::Value Chain::look(const Replica& replica, const Batch& batch) {
  gradients_ += objective_.passes();
  return objective_.at(replica, batch);
}

WeightPass Chain::pass_at(const Walk& walk, const Objective::Value& value) const {
  WeightPass pass;
  pass.gradient = value.gradient;
  pass.weights = walk.replica.weights();
  pass.start = objective_.start();
  pass.slope = value.slope;
  pass.scale = walk.dynamics.scale;
  pass.n_beta = walk.dynamics.n_beta;
  pass.gamma = walk.dynamics.gamma;
  pass.eps = walk.dynamics.eps;
  return pass;
}

void Chain::record(const Objective::Value& value, double excess, const kernels::Sums& sums, double eps) {
  trace_.excess.push_back(excess);
  trace_.bias.push_back(eps / 8 * sums.bias);
  trace_.distance.push_back(sums.distance);
  trace_.along.push_back(sums.along - eps / 4 * sums.drift);
  const auto draw = static_cast<std::int64_t>(trace_.excess.size()) - 1;
  if (objective_.full_batch() && !value.slope.defined() && draw % kLossesEvery == 0) {
    // Not in place: of an fp64 model these are the losses that the next draw has too, if its proposal is refused.
    const auto excesses = value.losses.to(at::kDouble).sub(objective_.all().start_losses);
    if (losses_.count++ == 0) losses_ = {at::zeros_like(excesses), at::zeros_like(excesses), 1};
    losses_.sum.add_(excesses);
    losses_.squares.addcmul_(excesses, excesses);
  }
}

void Chain::add_moment(const at::Tensor& drift) {
  if (!moments_.defined()) moments_ = at::zeros_like(weights_);
  moments_.addcmul_(drift, drift);
  ++moments_count_;
}

void Chain::count_proposal(double probability) {
  for (double* sum : {&accepted_, &asked_accepted_}) *sum += probability;
  for (std::int64_t* count : {&proposals_, &asked_proposals_}) ++*count;
}

void Chain::keep_weights_of(const Replica& replica) {
  if (weights_to_keep_ == 0) return;
  const auto draw = static_cast<std::int64_t>(trace_.excess.size());
  if (draw % weights_stride_ != 0) return;
  if (static_cast<std::int64_t>(kept_weights_.size()) == weights_to_keep_) {
    // Every other one goes, and from now on every other one comes.
    for (std::size_t i = 0; 2 * i < kept_weights_.size(); ++i) kept_weights_[i] = kept_weights_[2 * i];
    kept_weights_.resize((kept_weights_.size() + 1) / 2);
    weights_stride_ *= 2;
    if (draw % weights_stride_ != 0) return;
  }
  kept_weights_.push_back(replica.weights().clone());
}

void Chain::clear_draws() {
  trace_.clear();
  losses_ = {};
  kept_weights_.clear();
  weights_stride_ = 1;
  accepted_ = 0;
  proposals_ = 0;
}

at::Tensor Chain::moments() const {
  return moments_count_ > 0 ? moments_ / static_cast<double>(moments_count_) : at::Tensor();
}

template <class Self, class Visitor>
void Chain::visit(Self& self, const Visitor& visitor) {
  for (auto* values : {&self.trace_.excess, &self.trace_.bias, &self.trace_.distance, &self.trace_.along}) {
    visitor(*values);
  }
  for (auto* tensor : {&self.weights_, &self.memory_, &self.losses_.sum, &self.losses_.squares, &self.moments_}) {
    visitor(*tensor);
  }
  visitor(self.kept_weights_);
  for (auto* count : {&self.losses_.count, &self.moments_count_, &self.weights_to_keep_, &self.weights_stride_,
                      &self.gradients_, &self.proposals_, &self.asked_proposals_}) {
    visitor(*count);
  }
  for (auto* sum : {&self.accepted_, &self.asked_accepted_}) visitor(*sum);
  visitor(self.step_);
  visitor(self.diverged_);
}

// The kernels go by the number of weights, and loops over draws by that of `excess`.
void Chain::check_what_came() const {
  const auto check = [](bool holds, const char* what) {
    if (!holds) throw RankError(fmt::format("a chain came with {}; expected one of the same weights and data", what));
  };
  const auto like = [](const at::Tensor& tensor, const at::Tensor& other) {
    return tensor.defined() && tensor.sizes() == other.sizes() && tensor.scalar_type() == other.scalar_type();
  };
  const at::Tensor& start = objective_.start();
  check(like(weights_, start), "other weights");
  for (const at::Tensor& weights : kept_weights_) check(like(weights, start), "draws of other weights");
  check(moments_count_ >= 0 && (moments_.defined() ? like(moments_, start) : moments_count_ == 0), "other moments");
  check(!memory_.defined() || memory_.sizes() == start.sizes(), "the memory of other weights");
  const at::Tensor& losses = objective_.all().start_losses;
  const bool no_losses = losses_.count == 0 && !losses_.sum.defined() && !losses_.squares.defined();
  check(no_losses || (losses_.count > 0 && like(losses_.sum, losses) && like(losses_.squares, losses)),
        "losses of other samples");
  for (const auto* values : {&trace_.bias, &trace_.distance, &trace_.along}) {
    check(values->size() == trace_.excess.size(), "traces of different lengths");
  }
  // Twice: of one draw that is kept the second may have been called off by a divergence.
  check(weights_stride_ >= 1 && weights_stride_ <= 2 * std::max<std::int64_t>(1, std::ssize(trace_.excess)),
        "a stride that its draws do not have");
  constexpr std::int64_t kMost = std::int64_t{1} << 48;
  for (const std::int64_t count : {losses_.count, moments_count_, gradients_, proposals_, asked_proposals_}) {
    check(count >= 0 && count <= kMost, "counts that cannot be");
  }
  check(weights_to_keep_ >= 0, "a negative number of draws to keep");
}

void Chain::pack(Parcel& parcel) const {
  visit(*this, [&](const auto& member) { parcel.put(member); });
}

void Chain::unpack(Parcel& parcel) {
  const at::Device device = weights_.device();
  visit(*this, [&](auto& member) { parcel.take(member); });
  check_what_came();
  for (at::Tensor* tensor : {&weights_, &memory_, &losses_.sum, &losses_.squares, &moments_}) {
    if (tensor->defined()) *tensor = tensor->to(device);
  }
  for (at::Tensor& weights : kept_weights_) weights = weights.to(device);
}

double Chain::take_acceptance() {
  const double share = asked_accepted_ / static_cast<double>(asked_proposals_);
  asked_accepted_ = 0;
  asked_proposals_ = 0;
  return share;
}

}  // namespace dds
