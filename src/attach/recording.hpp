// The Monitor of a program that is attached to, and the step that it records.
#pragma once

#include <cstddef>
#include <cstdint>
#include <dds/log.hpp>
#include <dds/monitor.hpp>
#include <exception>
#include <functional>
#include <memory>
#include <optional>

#include "src/attach/leaves.hpp"
#include "src/attach/settings.hpp"

namespace dds::attach {

/// At most one step is recorded at a time:
///
///              begin(ThisStep)                read(), abandon()
///        Off ------------------> ThisStep ----------------------> Off
///         |                         ^
///         | begin(NextStep)         | next_step_begins()
///         +--------> NextStep ------+
///                       | abandon()
///                       +-----------> Off
///
/// Every other transition throws InvalidArgument, but for abandon() where nothing is recorded.
class Recording {
 public:
  enum class State {
    Off,
    ThisStep,  ///< of the step under way
    NextStep,  ///< of what may be the step after it; the update between them has not been seen
  };

  /// `on_error` gets what the Monitor has to say. With `settings.list` the layers are found, and nothing is read.
  Recording(const Settings& settings, std::shared_ptr<Leaves> leaves, log::SinkPtr sink,
            std::function<void(const std::exception&)> on_error);
  Recording(const Recording&) = delete;
  Recording& operator=(const Recording&) = delete;

  State state() const { return state_; }
  bool on() const { return state_ != State::Off; }
  bool of_this_step() const { return state_ == State::ThisStep; }
  const Monitor& monitor() const { return *monitor_; }

  /// Steps before number `step` count as steps that were not due.
  void begin(State of, std::int64_t step);
  void next_step_begins();
  /// Reads and logs the step; returns its number.
  std::int64_t read();
  void abandon();

  /// Counts memory that the recording keeps alive. True once that is more than half of what was free at first.
  bool holds_too_much(std::size_t more);
  std::size_t held() const { return held_; }

 private:
  /// Throws InvalidArgument in another state.
  void expect(State state, const char* transition) const;

  std::unique_ptr<Monitor> monitor_;
  State state_ = State::Off;
  std::optional<Monitor::Step> step_;  ///< set unless Off
  std::int64_t due_ = -1;              ///< the one step that the Monitor is told is due
  std::size_t held_ = 0;               ///< bytes, about
};

}  // namespace dds::attach
