#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <dds/monitor.hpp>
#include <dds/recorder.hpp>
#include <exception>
#include <optional>
#include <utility>

#include "hooks/layers.hpp"
#include "hooks/recorder_of.hpp"
#include "src/base/check.hpp"
#include "src/base/logger.hpp"
#include "src/base/message.hpp"
#include "src/base/stopwatch.hpp"
#include "src/monitor/errors.hpp"
#include "src/monitor/identity.hpp"
#include "src/monitor/monitor_of.hpp"
#include "src/monitor/options.hpp"
#include "src/monitor/reading_thread.hpp"
#include "src/monitor/readings.hpp"
#include "src/monitor/saved_state.hpp"
#include "src/reading/step_rows.hpp"

namespace dds {

class Monitor::State {
 public:
  /// `model` is null where the parameters are no model's.
  State(torch::nn::Module* model, const std::shared_ptr<hooks::ParameterSource>& parameters, MonitorOptions options,
        log::SinkPtr sink)
      : model_(model),
        options_(std::move(options)),
        errors_(options_.on_error()),
        log_(options_, std::move(sink), errors_),
        identity_(identity_of(*parameters)),
        recorder_(hooks::recorder_of(parameters, recorder_options(options_))),
        step_rows_(options_.signatures(), options_.reduction()) {
    check(options_);
    log_.describe("monitor", description_of(options_, parameters->name(), identity_, recorder_.layers()));
    log_.describe("threads", std::to_string(at::get_num_threads()));
    if (options_.worker() != Worker::Off) worker_.emplace(static_cast<std::size_t>(options_.queue()));
  }

  /// An error that is left can surface from no later call.
  ~State() {
    try {
      say_what_was_not_read();
      drain();
      errors_.rethrow();
    } catch (const std::exception& error) {
      log::tell(Level::Error, fmt::format("Monitor: when it ended: {}", plain_message(error)));
    } catch (...) {
      log::tell(Level::Error, "Monitor: when it ended: an exception of a type of its own");
    }
    if (errors_.count() > 1) log::tell(Level::Error, fmt::format("Monitor: {} errors in all", errors_.count()));
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  void begin_step() {
    check_no_step("Monitor::step");
    errors_.rethrow();
    ++begun_;
    const bool due = is_due();
    due_steps_ += due;
    passes_on_ = due && log_.lost();
    due_ = due && !passes_on_;
    if (due_ && options_.worker() == Worker::Skip && worker_->full()) {
      due_ = false;
      skip();
    }
    if (due_) recorder_.start();
    open_ = true;
  }

  void end_step() {
    if (!open_) return;
    open_ = false;
    read_ = read_ || due_ || passes_on_;
    if (due_) {
      errors_.guard([this] { worker_ ? hand_over(collected()) : log_.read(collected()); });
    } else if (passes_on_) {
      errors_.guard([this] {
        if (!worker_) return log_.pass_on_loss();
        worker_->post([this] { errors_.guard([this] { log_.pass_on_loss(); }); });
      });
    }
    due_ = passes_on_ = false;
    ++steps_;
  }

  /// Ends a step without reading it: what was captured is dropped, and the step does not count. `why`: for the logger.
  void abandon_step(Level level, const char* why) noexcept {
    errors_.guard([&] {
      recorder_.take();
      if (due_ && model_) log::tell(level, fmt::format("Monitor: step {} is due and not read: {}", steps_, why));
    });
    open_ = due_ = passes_on_ = false;
  }

  /// Throws what went wrong since the last call, unless the user's handler took it: also what the log could not take.
  void rethrow() { errors_.rethrow_all(); }

  /// Waits for the worker: what it works on is then as if it had been read in place.
  void drain() const {
    if (worker_) worker_->drain();
  }

  void flush() {
    drain();
    rethrow();
  }

  std::vector<Signature> read(const Problem& problem, ReadOptions options) {
    check_given("Monitor::read", "the monitor's model", model_, "one: this monitor is of parameters alone");
    if (&problem.model != model_)
      throw_invalid("Monitor::read", "the problem's model", "another one", "the one that is monitored");
    read_ = true;
    drain();
    return log_.read(problem, std::move(options), steps_, errors_.take());
  }

  void log(LlcEstimate estimate) {
    errors_.rethrow();
    estimate.step = steps_;
    hand_to_sink(std::move(estimate));
  }

  void log(std::string_view name, double value) {
    errors_.rethrow();
    hand_to_sink(Metric{steps_, std::string(name), value});
  }

  std::string state() const {
    drain();
    return text_of({identity_, steps_, log_.follower().fixed_ranks().all()});
  }

  void load_state(const std::string& text) {
    check_no_step("Monitor::load_state");
    SavedState state = saved_state(text);
    check(state.parameters == identity_ || state.parameters.empty() || identity_.empty(), "Monitor::load_state",
          "the state's model", state.parameters, "this monitor's: {}", identity_);
    drain();
    steps_ = state.steps;
    log_.restart(FixedRanks(std::move(state.fixed_ranks)));
  }

  std::vector<DecayCount> decay_counts() const {
    drain();
    return log_.follower().decay_counts();
  }
  bool due() const { return due_; }
  std::int64_t steps() const { return steps_; }
  std::int64_t skipped() const { return skipped_; }
  std::int64_t errors() const { return errors_.count(); }
  const std::vector<std::string>& layers() const { return recorder_.layers(); }
  const std::vector<Attribution>& attribution() const { return attribution_; }

 private:
  void check_no_step(const char* function) const {
    if (open_) throw_invalid(function, fmt::format("step {}", steps_), "under way", "a step whose scope was left");
  }

  /// At the end there is no call left that could throw it.
  void say_what_was_not_read() {
    const bool reads_steps = options_.due() || options_.every();
    if (open_) {
      open_ = false;
      recorder_.take();
      note(fmt::format("the monitor ended within step {}, which is not read", steps_));
    } else if (!read_ && reads_steps) {
      note(why_nothing_was_read());
    }
  }

  std::string why_nothing_was_read() const {
    if (begun_ == 0) {
      return "the monitor ended without a step, so nothing was read: a training loop calls Monitor::step()";
    }
    if (due_steps_ == 0) return fmt::format("nothing was read: steps {}, due 0: see MonitorOptions::every", begun_);
    return fmt::format("nothing was read: steps {}, due {}, all of them abandoned or skipped", begun_, due_steps_);
  }

  /// What the user should know though nothing failed: to the logger, and into the log.
  void note(const std::string& what) {
    if (!model_) return;  // whose program knows of no monitor
    log::tell(Level::Warning, "Monitor: " + what);
    if (!worker_) return errors_.guard([&] { log_.note(what); });
    worker_->post_beside([this, what] { errors_.guard([&] { log_.note(what); }); });
  }

  void note_if_nothing_ran(const Captured& captured) {
    const bool ran =
        !captured.attribution.empty() || std::any_of(captured.layers.begin(), captured.layers.end(),
                                                     [](const CapturedLayer& layer) { return !layer.calls.empty(); });
    if (ran || std::exchange(noted_empty_step_, true)) return;
    note(fmt::format("no layer ran within step {}: what Monitor::step() returns has to live until the update", steps_));
  }

  bool is_due() const {
    if (options_.due()) return options_.due()(steps_);
    return options_.every() && steps_ % *options_.every() == 0;
  }

  /// A due step that is not captured.
  void skip() {
    ++skipped_;
    log::tell(Level::Warning,
              fmt::format("Monitor: step {} is not read, the worker is behind ({} so far)", steps_, skipped_));
    hand_to_sink(Metric{steps_, "skipped_reading", 1});
  }

  /// Takes what the recorder has. Never throws: other ranks wait for a message even if there is nothing in it.
  StepJob collected() {
    const Stopwatch watch;
    StepJob job;
    job.rows.step = steps_;
    try {
      Captured captured = recorder_.take();
      note_if_nothing_ran(captured);
      attribution_ = std::move(captured.attribution);
      job.rows = step_rows_.rows_of(captured, steps_);
    } catch (...) {
      job.rows.fail();
    }
    job.seconds = watch.seconds();
    return job;
  }

  /// Gives the rows to the worker, who must not see what the training writes into its tensors from now on.
  void hand_over(StepJob job) {
    const Stopwatch watch;
    std::vector<at::Tensor> tensors;
    try {
      for (ReadingRows::Layer& layer : job.rows.layers) layer.rows.own();
      tensors = job.rows.tensors();
    } catch (...) {
      job.rows.fail();
      job.rows.layers.clear();
      tensors.clear();
    }
    const auto streams = std::make_shared<StreamHandover>(tensors, side_streams_);
    const auto shared = std::make_shared<StepJob>(std::move(job));
    shared->handed_over_after = shared->seconds + watch.seconds();
    worker_->post(
        [this, shared, streams] { errors_.guard([&] { streams->run([&] { log_.read(std::move(*shared)); }); }); });
  }

  /// A row of the training thread: through the worker if there is one, so that nobody waits for a slow sink.
  template <class Row>
  void hand_to_sink(Row row) {
    if (!worker_) return log_.put(row);
    worker_->post_beside([this, row = std::move(row)] { errors_.guard([&] { log_.put(row); }); });
  }

  torch::nn::Module* model_;
  MonitorOptions options_;
  MonitorErrors errors_;
  Readings log_;              ///< the worker's, if there is one; for others after drain()
  std::string identity_;      ///< of the model
  SideStreams side_streams_;  ///< of the worker
  Recorder recorder_;
  StepRows step_rows_;
  std::vector<Attribution> attribution_;
  bool read_ = false;           ///< a step or a checkpoint
  std::int64_t begun_ = 0;      ///< steps, those that were abandoned too
  std::int64_t due_steps_ = 0;  ///< of these
  bool noted_empty_step_ = false;
  bool open_ = false;
  bool due_ = false;
  bool passes_on_ = false;  ///< would be due if no rank were lost
  std::int64_t steps_ = 0;
  std::int64_t skipped_ = 0;
  std::optional<ReadingThread> worker_;  ///< the last: it ends before what it works on
};

// ---- the public face ----

namespace {

template <class State>
State& held(const std::shared_ptr<State>& state, const char* function) {
  check_given(function, "the monitor", state, "one that was not moved from");
  return *state;
}

}  // namespace

Monitor::Monitor(torch::nn::Module& model, MonitorOptions options, log::SinkPtr sink)
    : state_(std::make_shared<State>(&model, hooks::parameters_of(model), std::move(options), std::move(sink))) {}
Monitor::Monitor(std::shared_ptr<State> state) : state_(std::move(state)) {}
Monitor::Monitor(Monitor&&) noexcept = default;
Monitor::~Monitor() = default;

Monitor monitor_of(std::shared_ptr<hooks::ParameterSource> parameters, MonitorOptions options, log::SinkPtr sink) {
  return Monitor(std::make_shared<Monitor::State>(nullptr, parameters, std::move(options), std::move(sink)));
}

Monitor::Step Monitor::step() {
  held(state_, "Monitor::step").begin_step();
  return Step(state_);
}

Monitor::Step::Step(std::weak_ptr<State> state) : state_(std::move(state)), exceptions_(std::uncaught_exceptions()) {}

Monitor::Step::Step(Step&& other) noexcept
    : state_(std::move(other.state_)), open_(std::exchange(other.open_, false)), exceptions_(other.exceptions_) {}

Monitor::Step::~Step() {
  const std::shared_ptr<State> state = state_.lock();
  if (!open_ || !state) return;
  if (std::uncaught_exceptions() > exceptions_) {
    state->abandon_step(Level::Warning, "an exception left it");
  } else {
    state->end_step();
  }
}

bool Monitor::Step::due() const {
  const std::shared_ptr<State> state = state_.lock();
  return open_ && state && state->due();
}

void Monitor::Step::finish() {
  if (!std::exchange(open_, false)) return;
  const std::shared_ptr<State> state = state_.lock();
  if (!state) throw_invalid("Monitor::Step::finish", "the monitor", "gone", "one that outlives its steps");
  state->end_step();
  state->rethrow();
}

void Monitor::Step::abandon() {
  const std::shared_ptr<State> state = state_.lock();
  if (std::exchange(open_, false) && state) state->abandon_step(Level::Info, "it was abandoned");
}

std::int64_t Monitor::steps() const { return held(state_, "Monitor::steps").steps(); }

const std::vector<std::string>& Monitor::layers() const { return held(state_, "Monitor::layers").layers(); }
const std::vector<Attribution>& Monitor::attribution() const {
  return held(state_, "Monitor::attribution").attribution();
}

std::vector<Signature> Monitor::read(const Problem& problem, ReadOptions options) {
  return held(state_, "Monitor::read").read(problem, std::move(options));
}

void Monitor::log(LlcEstimate estimate) { held(state_, "Monitor::log").log(std::move(estimate)); }
void Monitor::log(std::string_view name, double value) { held(state_, "Monitor::log").log(name, value); }

void Monitor::flush() { held(state_, "Monitor::flush").flush(); }
std::int64_t Monitor::skipped() const { return held(state_, "Monitor::skipped").skipped(); }
std::int64_t Monitor::errors() const { return held(state_, "Monitor::errors").errors(); }

std::vector<DecayCount> Monitor::decay_counts() const { return held(state_, "Monitor::decay_counts").decay_counts(); }

std::string Monitor::state() const { return held(state_, "Monitor::state").state(); }
void Monitor::load_state(const std::string& text) { held(state_, "Monitor::load_state").load_state(text); }

}  // namespace dds
