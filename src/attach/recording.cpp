#include "src/attach/recording.hpp"

#include <sstream>
#include <string>
#include <utility>

#include "src/base/check.hpp"
#include "src/log/file.hpp"
#include "src/monitor/monitor_of.hpp"

namespace dds::attach {
namespace {

/// Half of the memory that was free when this was first asked.
std::size_t most_held() {
  static const std::size_t bytes = [] {
    constexpr std::size_t kKiB = 1024;
    std::istringstream lines(log::read_file("/proc/meminfo"));
    for (std::string name; lines >> name; lines.ignore(256, '\n')) {
      std::size_t size = 0;
      if (name == "MemAvailable:" && lines >> size) return size * kKiB / 2;
    }
    return kKiB * kKiB * kKiB;
  }();
  return bytes;
}

const char* name_of(Recording::State state) {
  switch (state) {
    case Recording::State::Off:
      return "off";
    case Recording::State::ThisStep:
      return "of this step";
    case Recording::State::NextStep:
      return "of the next step";
  }
  return "";
}

}  // namespace

Recording::Recording(const Settings& settings, std::shared_ptr<Leaves> leaves, log::SinkPtr sink,
                     std::function<void(const std::exception&)> on_error) {
  const bool list = !settings.list.empty();
  SignatureOptions reading;
  if (!settings.layers.empty()) reading.layers(settings.layers);
  reading.max_rows(list ? 1 : settings.max_rows);
  if (list) reading.sides({Side::Activation});
  MonitorOptions options;
  options.every(settings.every).signatures(std::move(reading)).on_error(std::move(on_error)).all_threads(true);
  options.due([this](std::int64_t step) { return step == due_; });
  monitor_ = std::make_unique<Monitor>(
      monitor_of(std::move(leaves), std::move(options), list ? std::make_shared<log::Memory>() : std::move(sink)));
}

void Recording::expect(State state, const char* transition) const {
  check(state_ == state, transition, "the recording", name_of(state_), name_of(state));
}

void Recording::begin(State of, std::int64_t step) {
  expect(State::Off, "Recording::begin");
  check(of != State::Off, "Recording::begin", "of", name_of(of), "a step");
  due_ = -1;
  while (monitor_->steps() < step) monitor_->step().finish();
  due_ = monitor_->steps();
  step_.emplace(monitor_->step());
  held_ = 0;
  state_ = of;
}

void Recording::next_step_begins() {
  expect(State::NextStep, "Recording::next_step_begins");
  state_ = State::ThisStep;
}

std::int64_t Recording::read() {
  expect(State::ThisStep, "Recording::read");
  const std::int64_t step = monitor_->steps();
  step_->finish();
  step_.reset();
  state_ = State::Off;
  return step;
}

void Recording::abandon() {
  if (step_) step_->abandon();
  step_.reset();
  state_ = State::Off;
}

bool Recording::holds_too_much(std::size_t more) {
  held_ += more;
  return on() && held_ >= most_held();
}

}  // namespace dds::attach
