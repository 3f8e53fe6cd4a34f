#include <ATen/Parallel.h>
#include <ATen/ops/full.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <dds/dead_axes_tracker.hpp>
#include <dds/directions.hpp>
#include <dds/error.hpp>
#include <dds/monitor.hpp>
#include <dds/recorder.hpp>
#include <dds/window.hpp>
#include <deque>
#include <limits>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <utility>

#include "hooks/layers.hpp"
#include "hooks/recorder_of.hpp"
#include "src/base/logger.hpp"
#include "src/log/json.hpp"
#include "src/model/cancellation.hpp"
#include "src/monitor/reading_thread.hpp"
#include "src/monitor/saved_state.hpp"
#include "src/ranks/exchange.hpp"
#include "src/ranks/tree.hpp"
#include "src/reading/layer_reading.hpp"
#include "src/reading/read.hpp"

namespace dds {

Reduction::Reduction(double terms) : kind_(Scale), terms_(terms) {
  if (!(terms > 0) || !std::isfinite(terms)) {
    throw InvalidArgument(fmt::format("Reduction: the loss is divided by {}, expected a positive number", terms));
  }
}

namespace {

/// How the gradients of one call are put back to those of per-sample losses.
struct Scaling {
  at::Tensor factor;  ///< 0-d; undefined: 1
  std::string name;   ///< for the record; empty if nothing is known
  StatusSet status;
  std::int64_t targets = 0;  ///< over how many a mean was taken; 0: it was not, or nobody knows
};

/// The losses that a call's output may have gone into: those that ran after it and before its layer did again.
std::vector<const CapturedLoss*> losses_of(const CapturedCall& call, const CapturedLayer& layer,
                                           const Captured& captured) {
  std::int64_t next = std::numeric_limits<std::int64_t>::max();
  for (const CapturedCall& other : layer.calls) {
    if (other.order > call.order) next = std::min(next, other.order);
  }
  std::vector<const CapturedLoss*> all, own;
  for (const CapturedLoss& loss : captured.losses) {
    if (loss.order < call.order) continue;
    all.push_back(&loss);
    if (loss.order < next) own.push_back(&loss);
  }
  return own.empty() ? all : own;  // a layer that runs twice in one forward has the losses of its last run
}

/// What cancels in the gradients that came out of one loss operator.
Cancellation cancellation_of(const CapturedLoss& loss) {
  using Difference = CapturedLoss::Difference;
  const at::NoGradGuard no_grad;
  const at::Tensor difference = loss.logits_gradient(), incoming = loss.result_gradient();
  if (loss.difference == Difference::Unknown || !loss.logits_intact()) return Cancellation::unknown();
  if (!difference.defined() || !incoming.defined()) return {};  // no backward pass came through it
  at::Tensor weight = incoming;
  if (loss.reduction == CapturedLoss::Reduction::Mean) {
    if (!loss.terms.defined()) return Cancellation::unknown();
    weight = incoming.to(at::kDouble).div(loss.terms.to(incoming.device()));
  }
  switch (loss.difference) {
    case Difference::Softmax:
      return {softmax_terms(loss.logits, loss.classes, weight), norm_of(difference)};
    case Difference::Logistic:
      return {logistic_terms(loss.logits, weight), norm_of(difference)};
    default:
      return {square_terms(loss.logits, weight).mul(loss.slope), norm_of(difference)};
  }
}

/// The same for each loss of a recording, by its order: the losses are fewer than the layers.
using Cancellations = std::map<std::int64_t, Cancellation>;

Cancellations cancellations_of(const Captured& captured) {
  Cancellations all;
  for (const CapturedLoss& loss : captured.losses) all.emplace(loss.order, cancellation_of(loss));
  return all;
}

Cancellation joined(const Cancellations& all, const std::vector<const CapturedLoss*>& losses) {
  Cancellation result;
  for (const CapturedLoss* loss : losses) result.add(all.at(loss->order));
  return result;
}

Scaling scaling_of(const Reduction& reduction, const std::vector<const CapturedLoss*>& losses) {
  using Observed = CapturedLoss::Reduction;
  const auto any = [&](Observed observed) {
    return std::any_of(losses.begin(), losses.end(),
                       [&](const CapturedLoss* loss) { return loss->reduction == observed; });
  };
  switch (reduction.kind()) {
    case Reduction::Sum:
      return {{}, "sum", any(Observed::Mean) ? StatusSet(Status::ReductionMismatch) : StatusSet()};
    case Reduction::Scale:
      return {at::full({}, reduction.terms(), at::kDouble), fmt::format("scale:{}", reduction.terms()), {}};
    case Reduction::Mean:
      break;
  }
  if (any(Observed::Sum)) return {{}, "mean", Status::ReductionMismatch};
  const bool agree = std::all_of(losses.begin(), losses.end(), [&](const CapturedLoss* loss) {
    return loss->reduction == Observed::Mean && loss->terms.defined() && loss->targets == losses.front()->targets &&
           loss->op == losses.front()->op;
  });
  if (losses.empty() || !agree) return {{}, "mean", Status::ReductionUnknown};
  return {losses.front()->terms, "mean", {}, losses.front()->targets};
}

/// What ranks other than the first log to.
class Nowhere final : public log::Sink {
 public:
  void write(const Signature&) override {}
  void write(const LlcEstimate&) override {}
  void write(const Metric&) override {}
  void describe(const std::string&, const std::string&) override {}
};

}  // namespace

class Monitor::State {
 public:
  /// `model` is null where the parameters are no model's.
  State(torch::nn::Module* model, std::shared_ptr<hooks::ParameterSource> parameters, MonitorOptions options,
        log::SinkPtr sink)
      : model_(model),
        options_(std::move(options)),
        ranks_(options_.reading().ranks()),
        tree_(ranks_ ? std::optional<Tree>(*ranks_) : std::nullopt),
        sink_(ranks_ && ranks_->rank() != 0 ? std::make_shared<Nowhere>() : std::move(sink)),
        recorder_(hooks::recorder_of(parameters, recorder_options(options_))),
        decay_(options_.decay()) {
    if (!sink_) throw InvalidArgument("Monitor: sink is null, expected dds::log::directory(...) or another sink");
    if (options_.every() < 0)
      throw InvalidArgument(fmt::format("Monitor: every is {}, expected 0 or more", options_.every()));
    if (options_.reading().sides().empty())
      throw InvalidArgument("Monitor: sides is empty, expected at least one Side");
    if (options_.reading().max_rows() < 1 || options_.reading().max_width() < 1) {
      throw InvalidArgument(fmt::format("Monitor: max_rows is {} and max_width {}, expected at least 1",
                                        options_.reading().max_rows(), options_.reading().max_width()));
    }
    if (options_.queue() < 1 || options_.window() < 1) {
      throw InvalidArgument(
          fmt::format("Monitor: queue is {} and window {}, expected at least 1", options_.queue(), options_.window()));
    }
    if (ranks_ && options_.worker() == Worker::Skip) {
      throw InvalidArgument(
          "Monitor: Worker::Skip with several ranks, which would skip different steps; expected Worker::Wait or "
          "Worker::Off");
    }
    describe(parameters->name());
    if (options_.worker() != Worker::Off) worker_.emplace(static_cast<std::size_t>(options_.queue()));
  }

  /// An error that is left can surface from no later call.
  ~State() {
    try {
      drain();
      rethrow(error_);
    } catch (const std::exception& error) {
      log::tell(Level::Error, fmt::format("Monitor: when it ended: {}", error.what()));
    } catch (...) {
      log::tell(Level::Error, "Monitor: when it ended: an exception of a type of its own");
    }
    if (errors_ > 1) log::tell(Level::Error, fmt::format("Monitor: {} errors in all", errors_.load()));
  }
  State(const State&) = delete;
  State& operator=(const State&) = delete;

  static RecorderOptions recorder_options(const MonitorOptions& options) {
    RecorderOptions recorder;
    recorder.layers = options.reading().layers();
    recorder.all_threads = options.all_threads();
    return recorder;
  }

  void begin_step() {
    if (open_)
      throw InvalidArgument(fmt::format("Monitor::step: step {} has not ended, expected its scope to be left", steps_));
    rethrow(error_);
    const bool due = options_.due() ? options_.due()(steps_) : options_.every() > 0 && steps_ % options_.every() == 0;
    passes_on_ = due && alone_;
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
    if (due_) {
      guarded([this] { worker_ ? hand_over(collect()) : read(collect()); });
    } else if (passes_on_) {
      guarded([this] {
        if (!worker_) return pass_on_loss();
        worker_->post([this] { guarded([this] { pass_on_loss(); }); });
      });
    }
    due_ = passes_on_ = false;
    ++steps_;
  }

  /// Ends a step without reading it: what was captured is dropped, and the step does not count.
  void abandon_step() noexcept {
    guarded([this] { recorder_.take(); });
    open_ = due_ = passes_on_ = false;
  }

  /// Throws what went wrong since the last call, unless the user's handler took it: also what the log could not take.
  void rethrow() {
    rethrow(error_);
    rethrow(log_error_);
  }

  /// Waits for the worker: what it works on is then as if it had been read in place.
  void drain() const {
    if (worker_) worker_->drain();
  }

  void flush() {
    drain();
    rethrow();
  }

  std::int64_t skipped() const { return skipped_; }
  std::int64_t errors() const { return errors_; }

  std::vector<Signature> read(const Problem& problem, ReadOptions options) {
    if (!model_) throw InvalidArgument("Monitor::read: there is no model, expected a monitor of one");
    if (&problem.model != model_) {
      throw InvalidArgument("Monitor::read: the problem is of another model, expected the one that is monitored");
    }
    drain();
    const std::exception_ptr pending = taken(error_);
    if (options.reading().layers().empty()) options.reading().layers(options_.reading().layers());
    if (!options.reading().ranks()) options.reading().ranks(ranks_);
    const bool spectra = options.reading().spectra() || options_.reading().spectra();
    options.reading(counted(std::move(options.reading())));
    const auto start = std::chrono::steady_clock::now();
    std::vector<Signature> signatures = read_over_ranks(problem, options, pending);
    for (Signature& signature : signatures) {
      signature.step = steps_;
      write(signature, spectra);
    }
    put(Metric{steps_, "read_seconds", seconds_since(start)});
    return signatures;
  }

  void log(LlcEstimate estimate) {
    rethrow(error_);
    estimate.step = steps_;
    hand_to_sink(std::move(estimate));
  }

  void log(std::string_view name, double value) {
    rethrow(error_);
    hand_to_sink(Metric{steps_, std::string(name), value});
  }

  std::string state() const {
    drain();
    return text_of({steps_, fixed_ranks_});
  }

  void load_state(const std::string& text) {
    if (open_) throw InvalidArgument(fmt::format("Monitor::load_state: step {} has not ended", steps_));
    drain();
    SavedState state = saved_state(text);
    steps_ = state.steps;
    fixed_ranks_ = std::move(state.fixed_ranks);
    decay_ = DecayCounter(options_.decay());
    dead_axes_ = DeadAxesTracker();
    windows_.clear();
  }

  std::vector<DecayCount> decay_counts() const {
    drain();
    return decay_.counts();
  }
  bool due() const { return due_; }
  std::int64_t steps() const { return steps_; }
  const std::vector<std::string>& layers() const { return recorder_.layers(); }
  const std::vector<Attribution>& attribution() const { return attribution_; }

 private:
  static double seconds_since(std::chrono::steady_clock::time_point start) {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  void describe(const std::string& model) {
    std::vector<std::string> sides;
    for (const Side side : options_.reading().sides()) sides.emplace_back(to_string(side));
    const nlohmann::json monitor{
        {"layers", recorder_.layers()},
        {"model", model},
        {"every", options_.every()},
        {"sides", sides},
        {"max_rows", options_.reading().max_rows()},
        {"max_width", options_.reading().max_width()},
        {"window", options_.window()},
        {"worker", options_.worker() == Worker::Off    ? "off"
                   : options_.worker() == Worker::Wait ? "wait"
                                                       : "skip"},
        {"seed", options_.reading().seed()},
        {"ranks", ranks_ ? ranks_->size() : 1},
    };
    sink_->describe("monitor", log::json_text(monitor));
    sink_->describe("threads", log::json_text(nlohmann::json(at::get_num_threads())));
  }

  std::exception_ptr taken(std::exception_ptr& kept) {
    const std::lock_guard lock(mutex_);
    return std::exchange(kept, nullptr);
  }

  void rethrow(std::exception_ptr& kept) {
    if (const std::exception_ptr error = taken(kept)) std::rethrow_exception(error);
  }

  /// Gives a row to the sink. What cannot be written is counted, reported once, and harms nobody's training.
  template <class Row>
  void put(const Row& row) {
    try {
      sink_->write(row);
    } catch (const IoError& error) {
      ++errors_;
      if (unwritable_.insert(error.what()).second) report(error);
    }
  }

  void report(const IoError& error) {
    if (options_.on_error()) return handle(error);
    log::tell(Level::Error, fmt::format("Monitor: {}; the training goes on", error.what()));
    const std::lock_guard lock(mutex_);
    if (!log_error_) log_error_ = std::make_exception_ptr(error);
  }

  void handle(const std::exception& error) {
    const std::lock_guard lock(handler_mutex_);
    options_.on_error()(error);
  }

  template <class Work>
  void guarded(const Work& work) {
    try {
      try {
        work();
      } catch (const std::exception& error) {
        ++errors_;
        if (!options_.on_error()) throw;
        handle(error);
      }
    } catch (...) {
      const std::lock_guard lock(mutex_);
      if (!error_) error_ = std::current_exception();
    }
  }

  /// The rows of one step, on their way to its signatures.
  struct StepRows {
    struct Layer {
      LayerReading reading;
      std::string reduction;
      std::int64_t targets = 0;  ///< as Scaling has them
      Cancellation cancellation;
    };
    std::int64_t step = 0;
    std::vector<Layer> layers;
    std::exception_ptr error;                 ///< the first
    bool incomplete = false;                  ///< rows are missing, of which layers nobody knows
    double seconds = 0;                       ///< spent so far
    std::optional<double> handed_over_after;  ///< seconds of the training thread, where a worker does the rest

    /// Within a catch.
    void fail() {
      if (!error) error = std::current_exception();
      incomplete = true;
    }
  };

  /// Takes what the recorder has. Never throws: other ranks wait for a message even if there is nothing in it.
  StepRows collect() {
    const auto start = std::chrono::steady_clock::now();
    StepRows rows;
    rows.step = steps_;
    try {
      collect(recorder_.take(), rows);
    } catch (...) {
      rows.fail();
    }
    rows.seconds = seconds_since(start);
    return rows;
  }

  /// An error in one layer leaves the others to be read.
  void collect(Captured captured, StepRows& rows) {
    attribution_ = std::move(captured.attribution);
    const Cancellations cancellations = wanted(Side::Fisher) ? cancellations_of(captured) : Cancellations();
    for (const CapturedLayer& layer : captured.layers) {
      try {
        if (layer.calls.empty() && !first_time(layer)) continue;
        rows.layers.push_back(collect(layer, captured, cancellations));
      } catch (...) {
        if (!rows.error) rows.error = std::current_exception();
        LayerReading failed(layer, options_.reading());
        failed.mark(Status::CaptureFailed);
        rows.layers.push_back({.reading = std::move(failed), .reduction = {}, .cancellation = {}});
      }
    }
    if (!captured.errors.empty() && !rows.error) {
      rows.error = std::make_exception_ptr(
          CaptureError(fmt::format("step {}: {} errors while capturing, rows may be missing; the first: {}", steps_,
                                   captured.errors.size(), captured.errors.front())));
    }
  }

  bool wanted(Side side) const {
    const std::vector<Side>& sides = options_.reading().sides();
    return std::find(sides.begin(), sides.end(), side) != sides.end();
  }

  StepRows::Layer collect(const CapturedLayer& layer, const Captured& captured,
                          const Cancellations& cancellations) const {
    LayerReading reading(layer, options_.reading());
    if (!captured.errors.empty()) reading.mark(Status::CaptureFailed);
    std::string reduction;
    std::int64_t targets = 0;
    Cancellation cancellation;
    const std::int64_t budget = std::max<std::int64_t>(
        1, own_max_rows(options_.reading()) / std::max<std::int64_t>(1, std::ssize(layer.calls)));
    for (const CapturedCall& call : layer.calls) {
      reading.add_forward(call, std::ssize(layer.calls), budget);
      if (coupled_downstream(call, captured)) reading.mark(Side::Fisher, Status::Coupled);
      const std::vector<const CapturedLoss*> losses = losses_of(call, layer, captured);
      const Scaling scaling = scaling_of(options_.reduction(), losses);
      const at::Tensor gradient = call.gradient();
      reading.add_gradient(call, gradient, call.backwards(), scaling.factor, std::ssize(layer.calls), budget);
      if (gradient.defined() && gradient.numel() == 0) continue;  // no row, and so no scale: the mean of none is 0 / 0
      reading.mark(Side::Fisher, scaling.status);
      reduction = scaling.name;
      targets = scaling.targets;
      if (!wanted(Side::Fisher) || call.backwards() == 0) continue;
      const Cancellation of_call = joined(cancellations, losses).scaled(scaling.factor);
      cancellation.add(of_call.factor().defined() ? of_call : Cancellation::unknown());
    }
    return {std::move(reading), std::move(reduction), targets, std::move(cancellation)};
  }

  /// A due step that is not captured.
  void skip() {
    ++skipped_;
    log::tell(Level::Warning,
              fmt::format("Monitor: step {} is not read, the worker is behind ({} so far)", steps_, skipped_));
    hand_to_sink(Metric{steps_, "skipped_reading", 1});
  }

  /// Gives the rows to the worker, who must not see what the training writes into its tensors from now on.
  void hand_over(StepRows rows) {
    const auto start = std::chrono::steady_clock::now();
    std::vector<at::Tensor> tensors;
    try {
      for (StepRows::Layer& layer : rows.layers) {
        layer.reading.own();
        const std::vector<at::Tensor> pending = layer.reading.pending();
        tensors.insert(tensors.end(), pending.begin(), pending.end());
      }
    } catch (...) {
      rows.fail();
      rows.layers.clear();
      tensors.clear();
    }
    struct Job {
      StepRows rows;
      StreamHandover streams;
    };
    const auto job = std::make_shared<Job>(Job{std::move(rows), StreamHandover(tensors)});
    job->rows.handed_over_after = job->rows.seconds + seconds_since(start);
    worker_->post([this, job] { guarded([&] { job->streams.run([&] { read(std::move(job->rows)); }); }); });
  }

  /// From rows to the log, on whichever thread.
  void read(StepRows rows) {
    const auto start = std::chrono::steady_clock::now();
    const auto attempt = [&](const auto& work) {
      try {
        work();
      } catch (...) {
        if (!rows.error) rows.error = std::current_exception();
      }
    };
    for (StepRows::Layer& layer : rows.layers) {
      attempt([&] {
        try {
          layer.reading.reduce();
        } catch (...) {
          layer.reading.mark(Status::CaptureFailed);
          throw;
        }
      });
    }
    bool first = !ranks_;
    if (ranks_) {
      try {
        first = join_ranks(rows);
      } catch (...) {  // a loss, which is more than what else went wrong
        rows.error = std::current_exception();
      }
    }
    if (rows.incomplete) {
      for (StepRows::Layer& layer : rows.layers) layer.reading.mark(Status::CaptureFailed);
    }
    if (!first) {
      if (rows.error) std::rethrow_exception(rows.error);
      return;
    }
    const ReadingOptions options = counted(options_.reading());
    SignatureBatch batch(options);
    for (StepRows::Layer& layer : rows.layers) {
      attempt([&] {
        for (const Side side : options.sides()) {
          Cancellation cancellation = side == Side::Fisher ? layer.cancellation : Cancellation();
          if (options_.window() > 1) join(layer.reading, side, cancellation);
          Signature like;
          like.step = rows.step;
          like.source = Source::Step;
          if (side == Side::Fisher) {
            like.fisher_kind = FisherKind::Empirical;
            like.reduction = layer.targets > 0 ? fmt::format("{}:{}", layer.reduction, layer.targets) : layer.reduction;
          }
          batch.add(layer.reading, side, std::move(like), /*terms=*/1, cancellation);
        }
      });
    }
    for (Signature& signature : batch.read()) {
      attempt([&] { write(signature, options_.reading().spectra()); });
    }
    const double seconds = rows.seconds + seconds_since(start);
    log::tell(Level::Debug, fmt::format("step {}: {} {} read in {:.3g} s", rows.step, rows.layers.size(),
                                        rows.layers.size() == 1 ? "layer" : "layers", seconds));
    attempt([&] {
      put(Metric{rows.step, "step_reading_seconds", seconds});
      if (rows.handed_over_after) put(Metric{rows.step, "step_capture_seconds", *rows.handed_over_after});
    });
    if (rows.error) std::rethrow_exception(rows.error);
  }

  // ---- several processes ----

  static void pack(const StepRows::Layer& layer, Parcel& parcel) {
    layer.reading.pack(parcel);
    parcel.put(layer.reduction);
    parcel.put(layer.targets);
    dds::pack(layer.cancellation, parcel);
  }

  void join(StepRows& rows, Parcel& parcel) const {
    for (auto left = parcel.take<std::size_t>(); left > 0; --left) {
      StepRows::Layer theirs{.reading = LayerReading::unpack(parcel, options_.reading()),
                             .reduction = parcel.take<std::string>(),
                             .targets = parcel.take_tally(),
                             .cancellation = unpack_cancellation(parcel)};
      const auto own = std::find_if(rows.layers.begin(), rows.layers.end(), [&](const StepRows::Layer& layer) {
        return layer.reading.layer() == theirs.reading.layer();
      });
      if (own == rows.layers.end()) {
        rows.layers.push_back(std::move(theirs));
        continue;
      }
      own->reading.merge(theirs.reading);
      if (own->reduction.empty()) {  // of no rows
        own->reduction = theirs.reduction;
        own->targets = theirs.targets;
      } else if (!theirs.reduction.empty()) {
        own->targets = own->targets > 0 && theirs.targets > 0 ? own->targets + theirs.targets : 0;
      }
      own->cancellation.add(theirs.cancellation);
    }
  }

  /// Joins the rows of all ranks on the first, where it is true. An error of theirs becomes one of these rows; a rank
  /// that is lost ends the readings.
  bool join_ranks(StepRows& rows) {
    std::string error;
    const auto note = [&](const std::exception_ptr& own) {
      if (error.empty()) error = fmt::format("rank {}: {}", ranks_->rank(), text_of(own));
    };
    if (rows.error) note(rows.error);
    const auto pack_all = [&] {
      Parcel parcel;
      parcel.put(rows.step);
      parcel.put(error);
      parcel.put(rows.incomplete);
      parcel.put(rows.layers.size());
      for (const StepRows::Layer& layer : rows.layers) pack(layer, parcel);
      return parcel;
    };
    const auto join_theirs = [&](Parcel parcel) {
      const auto step = parcel.take<std::int64_t>();
      if (step != rows.step) {
        throw RankError(fmt::format(
            "rank {} reads step {} while another one reads step {}; expected all ranks to read the same steps",
            ranks_->rank(), rows.step, step));
      }
      const auto their_error = parcel.take<std::string>();
      if (error.empty()) error = their_error;
      rows.incomplete = parcel.take<bool>() || rows.incomplete;
      try {
        join(rows, parcel);
      } catch (const RankError&) {
        throw;
      } catch (...) {
        rows.incomplete = true;
        note(std::current_exception());
      }
    };
    bool first = false;
    try {
      first = tree_->gather(pack_all, join_theirs);
    } catch (const RankError&) {
      throw RankError(end_readings(rows.step));
    }
    if (first && !rows.error && !error.empty()) {
      rows.error = std::make_exception_ptr(CaptureError(fmt::format("step {}: {}", rows.step, error)));
    }
    return first;
  }

  /// After a loss: the log tells of it, and nothing is captured any more. Returns what is to be told.
  std::string end_readings(std::int64_t step) {
    alone_ = true;
    const std::string what = fmt::format("step {} and those after it are not read: {}", step, tree_->loss());
    try {
      sink_->describe("lost_rank", log::json_text(nlohmann::json(what)));
    } catch (const IoError& error) {
      report(error);
    }
    return "Monitor: " + what;
  }

  /// In the place of a reading after a loss, for the ranks that know of none: they send as ever.
  void pass_on_loss() {
    tree_->gather([] { return Parcel(); }, [](Parcel) {});
  }

  std::vector<Signature> read_over_ranks(const Problem& problem, const ReadOptions& options,
                                         const std::exception_ptr& pending) {
    const RanksPtr& ranks = options.reading().ranks();
    if (!ranks || ranks != ranks_) {
      if (pending) std::rethrow_exception(pending);
      return dds::read(problem, options);
    }
    const bool known = alone_;
    const auto lost_here = [&] { return !known && !tree_->loss().empty(); };
    try {
      return dds::read(*tree_, problem, options, pending);
    } catch (const RankError&) {
      if (!lost_here()) throw;
    } catch (...) {  // of this rank's own, beside which there may be a loss
      if (lost_here()) log::tell(Level::Error, end_readings(steps_));
      throw;
    }
    throw RankError(end_readings(steps_));
  }

  /// Rows of the last steps of one layer and side, and what cancelled in their losses.
  struct Window {
    TriangularWindow rows;
    std::optional<c10::ScalarType> dtype;
    std::deque<Cancellation> cancellations;
  };

  /// Lets the rows of the last steps stand for those of this one.
  void join(LayerReading& reading, Side side, Cancellation& cancellation) {
    if (!reading.whole(side)) return;
    const std::pair key{reading.layer(), side};
    const auto known = windows_.find(key);
    if (known != windows_.end() && known->second.dtype != reading.dtype(side)) windows_.erase(known);
    Window& window =
        windows_.try_emplace(key, Window{TriangularWindow(options_.window()), reading.dtype(side), {}}).first->second;
    window.rows.push(*reading.factor(side));
    window.cancellations.push_back(cancellation);
    while (std::ssize(window.cancellations) > window.rows.size()) window.cancellations.pop_front();
    reading.replace(side, window.rows.all());
    cancellation = {};
    for (const Cancellation& step : window.cancellations) cancellation.add(step);
  }

  /// True if an operator that mixes samples ran at or after this call: the rows of its gradient mix them too.
  static bool coupled_downstream(const CapturedCall& call, const Captured& captured) {
    return std::any_of(captured.layers.begin(), captured.layers.end(), [&](const CapturedLayer& layer) {
      return std::any_of(layer.calls.begin(), layer.calls.end(),
                         [&](const CapturedCall& other) { return other.coupled && other.order >= call.order; });
    });
  }

  /// A layer that does not run, or cannot be observed, is reported once.
  bool first_time(const CapturedLayer& layer) { return reported_.insert({layer.layer, layer.detail}).second; }

  /// What a reading needs besides to be a member of its series: the rank of the first one, and the spectrum to count
  /// on.
  ReadingOptions counted(ReadingOptions options) const {
    return options.spectra(true).fixed_rank([this](const SeriesId& series) -> std::optional<std::int64_t> {
      const auto known = fixed_ranks_.find(series);
      return known == fixed_ranks_.end() ? std::nullopt : std::optional(known->second);
    });
  }

  void write(Signature& signature, bool spectra) {
    if (signature.fixed_rank) fixed_ranks_.try_emplace(series_of(signature), *signature.fixed_rank);
    decay_.add(signature);
    if (signature.dead_axes.defined()) {
      if (const std::optional<DeadAxesChange> change = dead_axes_.add(signature)) {
        signature.born = change->born;
        signature.revived = change->revived;
      }
    }
    if (!signature.status.empty() && told_.emplace(series_of(signature), to_string(signature.status)).second) {
      log::tell(Level::Warning, fmt::format("{}, step {}: {}", to_string(series_of(signature)), signature.step,
                                            to_string(signature.status)));
    }
    if (!spectra) signature.spectrum.clear();
    put(signature);
  }

  /// A row of the training thread: through the worker if there is one, so that nobody waits for a slow sink.
  template <class Row>
  void hand_to_sink(Row row) {
    if (!worker_) return put(row);
    worker_->post_beside([this, row = std::move(row)] { guarded([&] { put(row); }); });
  }

  torch::nn::Module* model_;
  MonitorOptions options_;
  RanksPtr ranks_;
  std::optional<Tree> tree_;         ///< of ranks_; the worker's, if there is one; for others after drain()
  std::atomic<bool> alone_ = false;  ///< another rank is lost
  log::SinkPtr sink_;                ///< as tree_
  Recorder recorder_;
  bool open_ = false;
  bool due_ = false;
  bool passes_on_ = false;  ///< would be due if no rank were lost
  std::int64_t steps_ = 0;
  std::int64_t skipped_ = 0;
  std::mutex handler_mutex_;  ///< on_error is called by one thread at a time
  std::vector<Attribution> attribution_;
  std::mutex mutex_;
  std::exception_ptr error_;      ///< the first that nobody was told of; under mutex_
  std::exception_ptr log_error_;  ///< the same of the sink's; under mutex_
  std::atomic<std::int64_t> errors_ = 0;
  std::set<std::pair<std::string, std::string>> reported_;
  // The worker's while it works; for others after drain().
  std::map<SeriesId, std::int64_t> fixed_ranks_;
  DecayCounter decay_;
  DeadAxesTracker dead_axes_;
  std::map<std::pair<std::string, Side>, Window> windows_;
  std::set<std::pair<SeriesId, std::string>> told_;  ///< statuses that the logger knows of
  std::set<std::string> unwritable_;                 ///< what the sink said of rows that it could not write
  std::optional<ReadingThread> worker_;              ///< the last: it ends before what it works on
};

// ---- the public face ----

Monitor::Monitor(torch::nn::Module& model, MonitorOptions options, log::SinkPtr sink)
    : state_(std::make_unique<State>(&model, hooks::parameters_of(model), std::move(options), std::move(sink))) {}
Monitor::Monitor(std::shared_ptr<hooks::ParameterSource> parameters, MonitorOptions options, log::SinkPtr sink)
    : state_(std::make_unique<State>(nullptr, std::move(parameters), std::move(options), std::move(sink))) {}
Monitor::Monitor(Monitor&&) noexcept = default;
Monitor::~Monitor() = default;

Monitor::Step Monitor::step() {
  state_->begin_step();
  return Step(state_.get());
}

Monitor::Step::Step(State* state) : state_(state), exceptions_(std::uncaught_exceptions()) {}

Monitor::Step::Step(Step&& other) noexcept
    : state_(std::exchange(other.state_, nullptr)), exceptions_(other.exceptions_) {}

Monitor::Step::~Step() {
  if (!state_) return;
  if (std::uncaught_exceptions() > exceptions_) {
    state_->abandon_step();
  } else {
    state_->end_step();
  }
}

bool Monitor::Step::due() const { return state_ && state_->due(); }

void Monitor::Step::finish() {
  if (State* state = std::exchange(state_, nullptr)) {
    state->end_step();
    state->rethrow();
  }
}

void Monitor::Step::abandon() {
  if (State* state = std::exchange(state_, nullptr)) state->abandon_step();
}

std::int64_t Monitor::steps() const { return state_->steps(); }

const std::vector<std::string>& Monitor::layers() const { return state_->layers(); }
const std::vector<Attribution>& Monitor::attribution() const { return state_->attribution(); }

std::vector<Signature> Monitor::read(const Problem& problem, ReadOptions options) {
  return state_->read(problem, std::move(options));
}

void Monitor::log(LlcEstimate estimate) { state_->log(std::move(estimate)); }
void Monitor::log(std::string_view name, double value) { state_->log(name, value); }

void Monitor::flush() { state_->flush(); }
std::int64_t Monitor::skipped() const { return state_->skipped(); }
std::int64_t Monitor::errors() const { return state_->errors(); }

std::vector<DecayCount> Monitor::decay_counts() const { return state_->decay_counts(); }

std::string Monitor::state() const { return state_->state(); }
void Monitor::load_state(const std::string& text) { state_->load_state(text); }

}  // namespace dds
