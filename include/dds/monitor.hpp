// The object that a training loop holds: it captures on the steps that are due, reads, and logs.
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

/// Where the spectral work of a due step is done, and what happens when it falls behind.
enum class Worker {
  Off,   ///< on the training thread, at the end of the step
  Wait,  ///< on a thread of the monitor's, in order. A due step that finds the queue full waits at its end
  Skip,  ///< the same, but a due step that finds the queue full is not captured: Monitor::skipped counts it
};

struct MonitorOptions {
  /// A step is due if its number is a multiple of this, at least 1. Empty: none is.
  TORCH_ARG(std::optional<std::int64_t>, every) = 100;
  /// If set, decides instead of `every`.
  TORCH_ARG(std::function<bool(std::int64_t step)>, due) = nullptr;
  /// What the loop differentiates. Status::ReductionMismatch: the loss operator that ran reduces otherwise.
  /// Status::ReductionUnknown: Reduction::Mean, and no loss operator that the library knows ran in the step; then use
  /// Reduction(divisor).
  TORCH_ARG(Reduction, reduction) = Reduction(Reduction::Mean);
  /// What the signatures are read from, and what they keep.
  /// With `ranks` a Monitor on each of them takes part in every due step. That of rank 0 reads, logs and follows; the
  /// sink of the others gets nothing, and may be null. A rank that is lost ends the readings of those that would wait
  /// for it, and of all above them in the tree of the ranks: with a RankError, and `lost_rank` in run.json. Their
  /// training goes on.
  TORCH_ARG(SignatureOptions, signatures) = SignatureOptions();
  /// Readings behind the training. At the end of a due step its rows are copied (max_rows bounds them). All else is
  /// done by one thread, on side streams where the tensors live on an accelerator. The log is the same, to the bit if
  /// LibTorch runs on one thread.
  /// All that is logged then reaches the sink in order through that thread, so that a slow sink holds nobody up.
  /// on_error may be called from it too, never from two threads at once. Neither may call the monitor.
  TORCH_ARG(Worker, worker) = Worker::Off;
  /// Readings that may wait for the worker, the one that it works on included. At least 1.
  TORCH_ARG(std::int64_t, queue) = 2;
  /// Due steps whose rows one reading joins: the last so many of the layer (TriangularWindow), at least 1. It serves
  /// mini-batches of fewer rows than columns. The weights move meanwhile, so these are the rows of a stretch of
  /// training, not of a point. A window begins anew when the layer's width or the dtype of its rows changes, and with
  /// load_state.
  TORCH_ARG(std::int64_t, window) = 1;
  /// How Monitor::decay_counts() counts.
  TORCH_ARG(DecayOptions, decay) = DecayOptions();
  /// Capture what all threads run in the step, not only the one that opened it.
  TORCH_ARG(bool, all_threads) = false;
  /// Gets errors of capturing, reading and logging, on the thread where they happen, in place of the next call's
  /// throwing them. Of errors of writing the log that say the same it gets the first.
  TORCH_ARG(std::function<void(const std::exception&)>, on_error) = nullptr;
};

/// Attaches to a model for as long as it lives. Training is bit for bit what it is without. A step that is not due
/// costs a comparison. The model must outlive the monitor.
///
/// A log that cannot be written (a sink's IoError: the disk is full, the folder is gone) ends no training: step, log
/// and read go on without it. Each such error is counted. The first of those that say the same goes to on_error, or
/// else to the logger (Level::Error) and to the next finish() or flush(), which throws it. log::directory keeps what it
/// could not write, and writes it when it can.
class Monitor {
  class State;

 public:
  /// The scope of one training step: everything from the forward pass to the update, all micro-batches included.
  class Step {
   public:
    Step(Step&&) noexcept;
    Step& operator=(Step&&) = delete;
    /// Ends the step as finish() does; an error surfaces from the monitor's next call. A step that is left by an
    /// exception is dropped and does not count.
    ~Step();
    /// True if this step is captured.
    bool due() const;
    /// Ends the step: reads what was captured and logs it, or hands it to the worker. Throws what went wrong so far,
    /// unless on_error takes it.
    void finish();
    /// Ends the step without reading it; it does not count.
    void abandon();

   private:
    friend class Monitor;
    explicit Step(State* state);
    State* state_;
    int exceptions_;  ///< under way when the step began
  };

  /// Throws InvalidArgument for a model without parameters, a pattern that matches no layer, options out of range, no
  /// sink where one is needed, and Worker::Skip with several ranks.
  Monitor(torch::nn::Module& model, MonitorOptions options, log::SinkPtr sink);
  Monitor(Monitor&&) noexcept;
  /// Waits for the readings that are under way.
  ~Monitor();

  /// Begins the next training step. Throws InvalidArgument if the last one has not ended, and whatever an earlier step
  /// left (but for what the log could not take).
  [[nodiscard]] Step step();

  /// Training steps that have ended; the weights now are those after so many updates.
  std::int64_t steps() const;
  /// Names of the layers that are read.
  const std::vector<std::string>& layers() const;

  /// What became of every operator that took a parameter in the last step that was captured; empty before one was.
  const std::vector<Attribution>& attribution() const;

  /// Waits until every reading so far is logged, and throws what went wrong, unless on_error took it. The calls below
  /// that need the readings (read, decay_counts, state, load_state) wait too.
  void flush();
  /// Due steps that were not captured because the worker was behind (Worker::Skip); each is a metric `skipped_reading`
  /// of the log besides.
  std::int64_t skipped() const;
  /// Errors of capturing, reading and logging so far, each row that could not be written being one.
  std::int64_t errors() const;

  /// A checkpoint read (dds::read) at the present step, logged and returned. Where the options name no layers or no
  /// ranks, it takes the monitor's. With several ranks all call it at once.
  /// Throws InvalidArgument if the problem is of another model, and what dds::read throws.
  std::vector<Signature> read(const Problem& problem, ReadOptions options = {});

  /// Logs an estimate, or a number of the caller's, at the present step. With a worker it is handed over, whatever
  /// waits there.
  void log(LlcEstimate estimate);
  void log(std::string_view name, double value);

  /// What the readings so far say of the directions that die, one count per series: what dds::decay_counts(folder) says
  /// of the finished log. Needs no SignatureOptions::spectra. A resumed monitor counts from where it resumed; the log
  /// has it all.
  std::vector<DecayCount> decay_counts() const;

  /// What a resumed training needs: the step count and the ranks that fixed-rank volumes are taken over, as text to
  /// keep in the caller's own checkpoint.
  std::string state() const;
  /// Continues from such a text; what was followed so far (windows, decay_counts, dead axes) begins anew. Throws
  /// InvalidArgument if it is none, or a step has not ended.
  void load_state(const std::string& text);

 private:
  friend Monitor monitor_of(std::shared_ptr<hooks::ParameterSource>, MonitorOptions, log::SinkPtr);
  explicit Monitor(std::unique_ptr<State> state);

  std::unique_ptr<State> state_;
};

}  // namespace dds
