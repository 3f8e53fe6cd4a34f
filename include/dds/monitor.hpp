// A Monitor belongs to a training loop. On the steps that are due it captures, reads and logs.
//
//   dds::Monitor monitor(*model, dds::MonitorOptions().every(100), dds::log::directory("runs/a"));
//   for (auto& batch : *loader) {
//     auto step = monitor.step();
//     optimizer.zero_grad();
//     loss_fn(model->forward(batch.data), batch.target).backward();
//     optimizer.step();
//   }
#pragma once

#include <torch/arg.h>

#include <cstdint>
#include <dds/decay.hpp>
#include <dds/export.hpp>
#include <dds/llc.hpp>
#include <dds/log.hpp>
#include <dds/problem.hpp>
#include <dds/read.hpp>
#include <dds/recorder.hpp>
#include <dds/reduction.hpp>
#include <dds/signature.hpp>
#include <dds/signature_options.hpp>
#include <exception>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace DDS_EXPORT dds {

/// Where the spectral work of a due step runs, and what happens when it falls behind.
enum class Worker {
  Off,   ///< on the training thread, at the end of the step
  Wait,  ///< on a thread of the monitor's, in order. If the queue is full, a due step waits at its end
  Skip,  ///< the same, but if the queue is full, a due step is not captured: Monitor::skipped counts it
};

struct MonitorOptions {
  /// A step is due if its number is a multiple of this. At least 1. Empty: no step is due.
  TORCH_ARG(std::optional<std::int64_t>, every) = 100;
  /// If set, this decides which steps are due, and `every` does not count.
  TORCH_ARG(std::function<bool(std::int64_t step)>, due) = nullptr;
  /// How the loss that the loop differentiates is reduced over the samples. Each layer has the losses that were
  /// computed from its output and that a backward pass came through. If they do not fit, the layer has no Fisher side:
  ///   Status::ReductionMismatch   one of them reduces in another way;
  ///   Status::ReductionUnknown    with Reduction::Mean there is none that the library knows, or several operators; or
  ///                               the losses count differently. Use Reduction(divisor).
  TORCH_ARG(Reduction, reduction) = Reduction(Reduction::Mean);
  /// What the signatures are read from, and what they keep.
  /// With `ranks`, each rank has a Monitor, and all take part in every due step. Rank 0 reads and logs. The other sinks
  /// get nothing, and may be null.
  /// If a rank is lost, readings end on the ranks that would wait for it, and on all above them in the tree: with a
  /// RankError, and `lost_rank` in run.json. Their training goes on (src/docs/several_processes.md).
  TORCH_ARG(SignatureOptions, signatures) = SignatureOptions();
  /// Worker::Wait and Worker::Skip take the readings off the training thread. The end of a due step then only copies
  /// its rows (at most max_rows). One other thread does the rest, on side streams if the tensors are on an accelerator.
  /// The log is the same: to the bit if LibTorch runs on one thread.
  /// Everything logged reaches the sink through that thread, in order, so a slow sink does not hold up the training.
  /// on_error may be called from that thread too, but never from two threads at once. Neither the sink nor on_error may
  /// call the monitor.
  TORCH_ARG(Worker, worker) = Worker::Off;
  /// The most readings that may be with the worker: those that wait and the one that it works on. At least 1.
  TORCH_ARG(std::int64_t, queue) = 2;
  /// A reading joins the rows of the layer's last `window` due steps (TriangularWindow). At least 1.
  /// Use it where a mini-batch has fewer rows than columns. The weights move from step to step, so the rows belong to a
  /// stretch of training, not to one point. load_state begins the window anew, and so does a change of the layer's
  /// width or of the dtype of its rows.
  TORCH_ARG(std::int64_t, window) = 1;
  /// How Monitor::decay_counts() counts.
  TORCH_ARG(DecayOptions, decay) = DecayOptions();
  /// Capture what all threads run during the step, not only the thread that opened it.
  TORCH_ARG(bool, all_threads) = false;
  /// If set, it gets the errors of capturing, reading and logging, on the thread where they happen. Otherwise the
  /// monitor's next call throws them. Errors of writing the log count once per text: on_error gets only the first.
  TORCH_ARG(std::function<void(const std::exception&)>, on_error) = nullptr;
};

/// Watches one model for as long as the monitor lives. Training gives bit for bit the same result as without a monitor.
/// A step that is not due costs one comparison.
///
/// Lifetime: the model must outlive the monitor's last step. A model that was held by a shared_ptr and is gone makes
/// the next due step throw InvalidArgument.
///
/// A monitor that reads nothing says so, to the logger (Level::Warning) and under `notes` in run.json: if it ends
/// without a step, if none of its steps was due, if all due ones were abandoned or skipped, if no layer runs in a due
/// step, or if it ends within a step, which is then not read.
///
/// A log that cannot be written (a sink's IoError: the disk is full, the folder is gone) does not end the training:
/// step, log and read go on. errors() counts each such error. Of those with the same text, the first goes to on_error;
/// without on_error it goes to the logger (Level::Error), and the next finish() or flush() throws it. log::directory
/// keeps the rows that it could not write, and writes them when it can.
class Monitor {
  class State;

 public:
  /// The scope of one training step: everything from the forward pass to the update, all micro-batches included.
  class Step {
   public:
    Step(Step&&) noexcept;
    Step& operator=(Step&&) = delete;
    /// Ends the step as finish() does, but throws nothing: the monitor's next call throws the error. If an exception
    /// leaves the scope, the step is dropped, as by abandon(). The logger is told if it was due.
    ~Step();
    /// True if this step is captured.
    bool due() const;
    /// Ends the step: reads what was captured and logs it, or hands it to the worker.
    /// Throws what went wrong so far, unless on_error took it, and InvalidArgument if the monitor is gone.
    void finish();
    /// Ends the step without reading it. It does not count in steps().
    void abandon();

   private:
    friend class Monitor;
    explicit Step(std::weak_ptr<State> state);
    std::weak_ptr<State> state_;
    bool open_ = true;
    int exceptions_;  ///< in flight when the step began
  };

  /// Throws InvalidArgument for a model without parameters, a pattern that matches no layer, options out of range, a
  /// null sink where one is needed, Worker::Skip with `ranks`, and a sink that resumes the run of another model (whose
  /// parameters have other names or shapes).
  Monitor(torch::nn::Module& model, MonitorOptions options, log::SinkPtr sink);
  Monitor(Monitor&&) noexcept;
  /// Waits for the readings that are under way.
  ~Monitor();

  /// Begins the next training step.
  /// Throws InvalidArgument if the last one has not ended, or if the step is due and the model is gone. Throws any
  /// error that an earlier step left, except errors of writing the log.
  [[nodiscard]] Step step();

  /// Number of training steps that have ended, which is the number of updates behind the present weights.
  std::int64_t steps() const;
  /// Names of the layers that are read.
  const std::vector<std::string>& layers() const;

  /// What became of each operator that took a parameter, in the last step that was captured. Empty before the first.
  const std::vector<Attribution>& attribution() const;

  /// Waits until every reading so far is logged. read, decay_counts, state and load_state wait too.
  /// Throws what went wrong, unless on_error took it.
  void flush();
  /// Number of due steps that were not captured because the worker was behind (Worker::Skip). The log has a metric
  /// `skipped_reading` for each.
  std::int64_t skipped() const;
  /// Number of errors of capturing, reading and logging so far. Each row that could not be written counts as one.
  std::int64_t errors() const;

  /// A checkpoint read (dds::read) at the present step, logged and returned. If the options name no layers, or no
  /// ranks, the monitor's own are used. With several ranks, all call it at once.
  /// Throws InvalidArgument if the problem is of another model, and what dds::read throws.
  std::vector<Signature> read(const Problem& problem, ReadOptions options = {});

  /// Logs an estimate, or a number of the caller's, at the present step. With a worker it is handed over, even if the
  /// queue is full.
  void log(LlcEstimate estimate);
  void log(std::string_view name, double value);

  /// How many directions die in each series, from the readings so far. dds::decay_counts(folder) gives the same from
  /// the finished log. This one does not need SignatureOptions::spectra. After a resume it counts from there on only;
  /// the log has the whole run.
  std::vector<DecayCount> decay_counts() const;

  /// What a resumed training needs, as text for the caller's own checkpoint: the step count, and the fixed rank of each
  /// series (SignatureOptions::fixed_rank).
  std::string state() const;
  /// Continues from such a text. Windows, decay_counts and dead axes begin anew.
  /// Throws InvalidArgument if the text is not from state() or is from a monitor of another model (whose parameters
  /// have other names or shapes), or if a step has not ended.
  void load_state(const std::string& text);

 private:
  friend Monitor monitor_of(std::shared_ptr<hooks::ParameterSource>, MonitorOptions, log::SinkPtr);
  explicit Monitor(std::shared_ptr<State> state);

  std::shared_ptr<State> state_;
};

}  // namespace dds
