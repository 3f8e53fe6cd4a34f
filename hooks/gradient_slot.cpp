#include "hooks/gradient_slot.hpp"

#include <ATen/ops/add.h>
#include <c10/core/GradMode.h>

#include <atomic>
#include <utility>

#include "hooks/observer.hpp"
#include "hooks/transforms.hpp"

namespace dds::hooks {
namespace {

std::atomic<std::uint64_t> era = 0;
std::atomic<int> ignored = 0;

}  // namespace

std::shared_ptr<GradientSlot> GradientSlot::of(const at::Tensor& tensor, std::shared_ptr<const Trained> trained) {
  auto slot = std::make_shared<GradientSlot>(std::move(trained));
  if (tensor.requires_grad()) {
    tensor.register_hook([weak = std::weak_ptr(slot)](at::TensorBase gradient) {
      if (const auto kept = weak.lock()) kept->add(at::Tensor(std::move(gradient)));
    });
  }
  return slot;
}

bool GradientSlot::current() const { return era_ == era; }

bool GradientSlot::counts() const {
  return current() && (kind_ != PassKind::Beside || !trained_ || !trained_->reached);
}

void GradientSlot::add(const at::Tensor& incoming) {
  if (ignored > 0 || !incoming.defined() || is_stand_in(incoming)) return;  // a vectorised pass beside the training
  const PassKind kind = trained_ ? kind_of_pass(*trained_) : PassKind::Accumulates;
  if (trained_ && kind != PassKind::Beside) trained_->reached = true;
  const Unseen unseen;
  const at::NoGradGuard no_grad;
  const std::lock_guard lock(mutex_);
  if (current() && kind < kind_) return;
  if (!current() || kind > kind_) {
    gradient_.reset();
    backwards_ = 0;
  }
  era_ = era;
  kind_ = kind;
  gradient_ = gradient_.defined() ? at::add(gradient_, incoming) : incoming.detach();
  ++backwards_;
}

at::Tensor GradientSlot::gradient() const {
  const std::lock_guard lock(mutex_);
  return counts() ? gradient_ : at::Tensor();
}

at::Tensor GradientSlot::take() {
  const std::lock_guard lock(mutex_);
  at::Tensor taken = std::exchange(gradient_, {});
  return counts() ? taken : at::Tensor();
}

std::int64_t GradientSlot::backwards() const {
  const std::lock_guard lock(mutex_);
  return counts() ? backwards_ : 0;
}

void forget_gradients() { ++era; }

GradientsIgnored::GradientsIgnored() { ++ignored; }
GradientsIgnored::~GradientsIgnored() { --ignored; }

}  // namespace dds::hooks
