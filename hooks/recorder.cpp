#include <fmt/format.h>

#include <algorithm>
#include <dds/error.hpp>
#include <dds/recorder.hpp>
#include <mutex>
#include <utility>

#include "hooks/layers.hpp"
#include "hooks/observer.hpp"
#include "hooks/recorder_state.hpp"

namespace dds {

// ---- what was captured ----

at::Tensor CapturedCall::GradientSlot::read() {
  const std::lock_guard lock(mutex);
  return gradient;
}

at::Tensor CapturedCall::gradient() const { return slot_ ? slot_->read() : at::Tensor(); }

std::int64_t CapturedCall::backwards() const {
  if (!slot_) return 0;
  const std::lock_guard lock(slot_->mutex);
  return slot_->backwards;
}

at::Tensor CapturedCall::take_gradient() {
  if (!slot_) return {};
  const std::lock_guard lock(slot_->mutex);
  return std::exchange(slot_->gradient, {});
}

bool CapturedCall::output_intact() const { return hooks::version_of(output) == output_version_; }
bool CapturedCall::input_intact() const {
  return inputs.empty() || hooks::version_of(inputs.front()) == input_version_;
}

at::Tensor CapturedLoss::logits_gradient() const { return at_logits_ ? at_logits_->read() : at::Tensor(); }
at::Tensor CapturedLoss::result_gradient() const { return at_result_ ? at_result_->read() : at::Tensor(); }
bool CapturedLoss::logits_intact() const { return hooks::version_of(logits) == version_; }

// ---- the recorder ----

Recorder::Recorder(torch::nn::Module& model, RecorderOptions options)
    : Recorder(hooks::parameters_of(model), std::move(options)) {}

Recorder::Recorder(std::shared_ptr<hooks::ParameterSource> parameters, RecorderOptions options)
    : state_(std::make_shared<RecorderState>(std::move(parameters), std::move(options))) {}

Recorder::Recorder(Recorder&&) noexcept = default;

Recorder& Recorder::operator=(Recorder&& other) noexcept {
  if (this != &other) {
    stop();
    state_ = std::move(other.state_);
  }
  return *this;
}

Recorder::~Recorder() { stop(); }

const std::vector<std::string>& Recorder::layers() const { return state_->names(); }

bool Recorder::recording() const { return state_ && state_->listening(); }

void Recorder::start() {
  if (recording()) throw InvalidArgument("Recorder::start: a recording is under way, expected stop() before");
  state_->begin();
  hooks::listen(state_);
}

void Recorder::stop() noexcept {
  if (!recording()) return;
  state_->end();
  hooks::stop_listening(state_);
}

Captured Recorder::take() {
  stop();
  return state_->take();
}

// ---- attribution ----

std::string_view to_string(Attribution::Outcome outcome) {
  using Outcome = Attribution::Outcome;
  switch (outcome) {
    case Outcome::Captured:
      return "captured";
    case Outcome::Bias:
      return "bias";
    case Outcome::Input:
      return "input";
    case Outcome::View:
      return "view";
    case Outcome::Weight:
      return "weight";
    case Outcome::NotSelected:
      return "not_selected";
    case Outcome::NoGradMode:
      return "no_grad_mode";
    case Outcome::Unregistered:
      return "unregistered";
    case Outcome::NotCaptured:
      return "not_captured";
  }
  return "unknown";
}

std::string Attribution::statement() const {
  const auto what = [&]() -> std::string {
    switch (outcome) {
      case Outcome::Captured:
        return fmt::format("a run of {}", site);
      case Outcome::Bias:
        return fmt::format("added to the output of {}", site);
      case Outcome::Input:
        return fmt::format("an input of {}", site);
      case Outcome::View:
        return "a view, which is followed";
      case Outcome::Weight:
        return "computes a weight, which is followed";
      case Outcome::NotSelected:
        return "a run of a layer that is not selected";
      case Outcome::NoGradMode:
        return "not captured: without grad mode";
      case Outcome::Unregistered:
        return "not captured: the model has not registered this leaf";
      case Outcome::NotCaptured:
        return "not captured: not known to run a layer with it";
    }
    return "unknown";
  };
  return fmt::format("{} x {}: {}", op, count, what());
}

std::vector<Attribution> attribute(torch::nn::Module& model, const std::function<void()>& step,
                                   RecorderOptions options) {
  Recorder recorder(model, std::move(options));
  recorder.start();
  step();
  return recorder.take().attribution;
}

// ---- taps and rows ----

at::Tensor tap(std::string_view name, const at::Tensor& tensor) {
  hooks::tell_of_tap(name, tensor);
  return tensor;
}

at::Tensor as_rows(const at::Tensor& tensor, const std::vector<std::int64_t>& features) {
  std::vector<std::int64_t> order;
  std::int64_t rows = 1;
  for (std::int64_t dim = 0; dim < tensor.dim(); ++dim) {
    if (std::find(features.begin(), features.end(), dim) != features.end()) continue;
    order.push_back(dim);
    rows *= tensor.size(dim);
  }
  order.insert(order.end(), features.begin(), features.end());
  return tensor.permute(order).reshape({rows, width_of(tensor, features)});
}

}  // namespace dds
