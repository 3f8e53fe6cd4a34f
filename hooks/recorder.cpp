#include <algorithm>
#include <dds/recorder.hpp>
#include <utility>

#include "hooks/features.hpp"
#include "hooks/layers.hpp"
#include "hooks/observer.hpp"
#include "hooks/recorder_of.hpp"
#include "hooks/recorder_state.hpp"
#include "src/base/check.hpp"

namespace dds {

Recorder::Recorder(torch::nn::Module& model, RecorderOptions options)
    : state_(std::make_shared<RecorderState>(hooks::parameters_of(model), std::move(options))) {}

Recorder::Recorder(std::shared_ptr<RecorderState> state) : state_(std::move(state)) {}

Recorder hooks::recorder_of(std::shared_ptr<ParameterSource> parameters, RecorderOptions options) {
  return Recorder(std::make_shared<RecorderState>(std::move(parameters), std::move(options)));
}

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
  if (recording()) throw_invalid("Recorder::start", "a recording", "under way", "stop() before");
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

std::vector<Attribution> attribute(torch::nn::Module& model, const std::function<void()>& step,
                                   RecorderOptions options) {
  check_given("attribute", "step", step, "a function that runs a step");
  Recorder recorder(model, std::move(options));
  recorder.start();
  step();
  return recorder.take().attribution;
}

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
  return tensor.permute(order).reshape({rows, hooks::width_of(tensor, features)});
}

}  // namespace dds
