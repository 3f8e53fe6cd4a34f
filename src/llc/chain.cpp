#include "src/llc/chain.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/dot.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/zeros_like.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <dds/error.hpp>
#include <utility>

#include "src/model/random.hpp"

namespace dds {
namespace {

/// What the random numbers of a step are for.
enum Purpose : std::uint32_t { kNoise, kBatch, kAcceptance };

double product(const at::Tensor& a, const at::Tensor& b) { return at::dot(a, b).item<double>(); }

bool within(const at::Tensor& w, const at::Tensor& start, double box) {
  return box <= 0 || w.sub(start).abs_().max().item<double>() <= box;
}

}  // namespace

void Chain::Trace::clear() {
  for (auto* values : {&excess, &bias, &distance, &along}) values->clear();
}

Chain::Chain(const Objective& objective, std::uint64_t seed, std::uint64_t number)
    : objective_(objective), key_(mixed(seed, number)), weights_(objective.start().clone()) {}

void Chain::advance(const Replica& replica, const Dynamics& dynamics, std::int64_t steps, Keep keep,
                    const std::function<bool()>& stop) {
  if (diverged_ || steps <= 0) return;
  replica.weights().copy_(weights_);
  if (dynamics.sampler == Sampler::Mala) {
    metropolis(replica, dynamics, steps, keep, stop);
  } else {
    langevin(replica, dynamics, steps, keep, stop);
  }
  weights_.copy_(replica.weights());
}

Objective::Value Chain::look(const Replica& replica, const Batch& batch) {
  gradients_ += objective_.passes();
  return objective_.at(replica, batch);
}

WeightPass Chain::pass_at(const Replica& replica, const Dynamics& dynamics, const Objective::Value& value) const {
  WeightPass pass;
  pass.gradient = value.gradient;
  pass.weights = replica.weights();
  pass.start = objective_.start();
  pass.slope = value.slope;
  pass.scale = dynamics.scale;
  pass.n_beta = dynamics.n_beta;
  pass.gamma = dynamics.gamma;
  pass.eps = dynamics.eps;
  return pass;
}

void Chain::langevin(const Replica& replica, const Dynamics& dynamics, std::int64_t steps, Keep keep,
                     const std::function<bool()>& stop) {
  const bool averaged = dynamics.sampler == Sampler::AveragedNoise;
  at::Tensor drift;
  if (keep.moments) {
    drift = at::empty_like(weights_);
    if (!moments_.defined()) moments_ = at::zeros_like(weights_);
  }
  for (std::int64_t i = 0; i < steps && !stop(); ++i, ++step_) {
    const auto value = look(replica, objective_.next(key(kBatch)));
    if (!std::isfinite(value.excess)) {
      diverged_ = true;
      return;
    }
    auto pass = pass_at(replica, dynamics, value);
    // Before the pass, which moves these very weights.
    if (keep.draws) keep_weights_of(replica);
    pass.drift = drift;
    pass.moved = replica.weights();
    pass.box = dynamics.box;
    pass.noise = key(kNoise);
    if (averaged) {
      if (!carried_.defined()) carried_ = carried_noise_like(weights_, {key_, ~std::uint64_t{0}, kNoise});
      pass.carried = carried_;
    }
    const auto sums = run(pass);
    if (!std::isfinite(sums.distance)) {
      diverged_ = true;
      return;
    }
    if (keep.draws) {
      record(value, dynamics.n_beta * value.excess, sums, averaged ? 0 : dynamics.eps);
    }
    if (keep.moments) {
      moments_.addcmul_(drift, drift);
      ++moments_count_;
    }
  }
}

void Chain::metropolis(const Replica& replica, const Dynamics& dynamics, std::int64_t steps, Keep keep,
                       const std::function<bool()>& stop) {
  const auto& w = replica.weights();
  const auto& all = objective_.all();
  auto proposal = at::empty_like(weights_), from_drift = at::empty_like(weights_), to_drift = at::empty_like(weights_);
  auto from = look(replica, all);
  if (!std::isfinite(from.excess)) {
    diverged_ = true;
    return;
  }
  auto look_pass = pass_at(replica, dynamics, from);
  look_pass.drift = from_drift;
  auto from_sums = run(look_pass);
  for (std::int64_t i = 0; i < steps && !stop(); ++i, ++step_) {
    if (keep.draws) {
      keep_weights_of(replica);
      record(from, dynamics.n_beta * from.excess, from_sums, 0);
    }
    auto move = pass_at(replica, dynamics, from);
    move.moved = proposal;
    move.noise = key(kNoise);
    run(move);
    weights_.copy_(w);
    w.copy_(proposal);
    auto to = look(replica, all);
    auto pass = pass_at(replica, dynamics, to);
    pass.drift = to_drift;
    const auto to_sums = run(pass);

    // log [p(w') q(w|w') / (p(w) q(w'|w))] with q(w'|w) = N(w - (eps/2) grad U(w), eps).
    const auto step = proposal.sub_(weights_);
    const double energy =
        dynamics.n_beta * (from.excess - to.excess) + dynamics.gamma / 2 * (from_sums.distance - to_sums.distance);
    const double along = product(step, from_drift) + product(step, to_drift);
    const double log_ratio = energy + along / 2 - dynamics.eps / 8 * (to_sums.drift - from_sums.drift);
    const double probability = std::isfinite(log_ratio) && within(w, objective_.start(), dynamics.box)
                                   ? std::exp(std::min(0.0, log_ratio))
                                   : 0;
    for (double* sum : {&accepted_, &asked_accepted_}) *sum += probability;
    for (std::int64_t* count : {&proposals_, &asked_proposals_}) ++*count;
    if (kernels::uniform(key(kAcceptance)) < probability) {
      from = std::move(to);
      from_sums = to_sums;
      std::swap(from_drift, to_drift);
    } else {
      w.copy_(weights_);
    }
  }
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
  for (auto* tensor : {&self.weights_, &self.carried_, &self.losses_.sum, &self.losses_.squares, &self.moments_}) {
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
  check(!carried_.defined() || carried_.sizes() == start.sizes(), "the noise of other weights");
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
  for (at::Tensor* tensor : {&weights_, &carried_, &losses_.sum, &losses_.squares, &moments_}) {
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
