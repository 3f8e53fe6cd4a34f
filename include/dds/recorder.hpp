// The recorder: what every layer of an unmodified torch::nn model takes in, gives out and is told by a backward pass.
//
// It watches the operators that the dispatcher runs (at::RecordFunction). An operator with an operand that shares
// storage with a registered parameter *is* a run of that parameter's layer: its other operand is the layer's input, its
// output the layer's output, and a hook on the output receives delta, the gradient there. The model is neither changed
// nor inherited from, and nothing is installed outside a recording.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/export.hpp>
#include <dds/signature.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace torch::nn {
class Module;
}

namespace DDS_EXPORT dds {

namespace hooks {
struct CapturedOperator;
class ParameterSource;
}  // namespace hooks

/// One run of a layer. Tensors are references to those of the model's own forward and backward pass, detached.
class CapturedCall {
 public:
  std::string op;                  ///< operator that ran: "aten::addmm"
  at::Tensor output;               ///< as the layer gave it, bias included
  std::vector<at::Tensor> inputs;  ///< as the operator took them: the layer's input first, without parameters

  /// Dimensions of `output` that are features, in order; all others count rows. For a contraction those that the weight
  /// brings in: for x @ w.t() the last one; for einsum("bi,hio->bho", x, w) both h and o.
  std::vector<std::int64_t> output_features;
  /// The same for inputs[0]; empty where the input has no rows of features (token indices).
  std::vector<std::int64_t> input_features;
  bool expanded = false;  ///< a row is a sample and a position, not a sample
  bool coupled = false;   ///< the operator mixes samples: batch norm in training
  std::int64_t output_bound =
      0;  ///< bound on the rank of the output's rows by the shapes of this layer and those chained before it
  std::int64_t gradient_bound = 0;  ///< the same for the gradient's rows, by the layers chained after it
  bool wants_gradient = false;      ///< the output takes part in the graph
  std::int64_t order = 0;           ///< place among all calls and losses of the recording

  /// delta: the gradient at `output` summed over the backward passes so far; undefined if there was none.
  at::Tensor gradient() const;
  std::int64_t backwards() const;
  /// The same, and forgets it, so that the next backward pass is kept apart.
  at::Tensor take_gradient();

  /// False if the tensor was written to in place after the call; what it holds then are no longer the layer's rows.
  bool output_intact() const;
  bool input_intact() const;

  /// The operator itself, for per_sample_gradients; null unless RecorderOptions::operators asked for it.
  const std::shared_ptr<hooks::CapturedOperator>& captured_operator() const { return operator_; }

 private:
  friend class RecorderState;
  friend class CapturedLoss;
  struct GradientSlot;
  std::shared_ptr<GradientSlot> slot_;
  std::shared_ptr<hooks::CapturedOperator> operator_;
  std::uint32_t output_version_ = 0;
  std::uint32_t input_version_ = 0;
};

/// All runs of one layer in a recording.
struct CapturedLayer {
  std::string layer;  ///< as in Signature::layer
  std::string kind;   ///< as in Signature::kind
  std::vector<CapturedCall> calls;
  std::int64_t dropped =
      0;               ///< calls that wanted a gradient and got none while others did: roll-outs, validation passes
  StatusSet status;    ///< NotRun, NotObservable or CaptureFailed
  std::string detail;  ///< in words, where there is a status: the operators that were seen instead
};

/// A loss operator that ran in the recording: how it reduced, and what its gradient is a difference of.
class CapturedLoss {
 public:
  std::string op;  ///< "aten::cross_entropy_loss"
  enum class Reduction { None, Mean, Sum } reduction = Reduction::None;
  at::Tensor
      terms;  ///< 0-d, fp64: how many terms count, ignored targets left out; undefined where the operator does not tell
  std::int64_t targets = 0;  ///< number of targets, ignored ones included
  std::int64_t order = 0;    ///< place among all calls and losses of the recording

  /// The gradient of one term at `logits`. Where the network fits, it is a small difference of large numbers.
  enum class Difference {
    Unknown,   ///< not one of these, or weighted by class
    Softmax,   ///< p - y, p the softmax of `logits` over dimension `classes`
    Logistic,  ///< p - y, p the logistic function of each entry
    Squares,   ///< slope * (logits - y), where it is not cut off
  } difference = Difference::Unknown;
  at::Tensor logits;  ///< what the network gave, before a softmax or logistic function; detached. Undefined: Unknown
  std::int64_t classes = 0;
  double slope = 0;

  /// Gradients at `logits` and at the operator's own result, summed over the backward passes; undefined if there were
  /// none.
  at::Tensor logits_gradient() const;
  at::Tensor result_gradient() const;
  /// False if `logits` was written to in place after the operator ran.
  bool logits_intact() const;

 private:
  friend class RecorderState;
  std::shared_ptr<CapturedCall::GradientSlot> at_logits_, at_result_;
  std::uint32_t version_ = 0;
};

/// What became of the operators of one name that took a parameter of a layer, or a weight computed from one. Those
/// that run inside an operator that is itself attributed are part of it.
struct Attribution {
  enum class Outcome {
    Captured,      ///< a run of the site
    Bias,          ///< added to the output of the site, by its run or after it
    Input,         ///< went into a run of the site as its input (learned queries)
    View,          ///< made a view of it, which is followed
    Weight,        ///< computed a weight from it, which is followed (masks, norms, low-rank products)
    NotSelected,   ///< a run of a layer that the options leave out
    NoGradMode,    ///< ran without grad mode: validation, roll-outs, the optimiser, the forward of a custom function
    Unregistered,  ///< took a leaf that wants a gradient and that the model has not registered: a tensor of the user's,
                   ///< another model's parameter, a ScriptModule's
    NotCaptured,   ///< no operator that is known to run a layer, or not with the parameter in a weight's place
  };
  std::string layer;  ///< whose parameter; "leaf [sizes]" for an unregistered one
  std::string op;     ///< "aten::addmm"
  Outcome outcome;
  std::string site;        ///< CapturedLayer::layer of Captured, Bias and Input
  std::int64_t count = 0;  ///< times in the recording

  /// "aten::addmm x 2: a run of fc1".
  std::string statement() const;
};
std::string_view to_string(Attribution::Outcome outcome);  ///< "captured", "no_grad_mode", ...

/// What a recording brought.
struct Captured {
  std::vector<CapturedLayer> layers;  ///< in the order of their first run, then those that did not run
  std::vector<CapturedLoss> losses;
  std::vector<Attribution> attribution;  ///< by layer, unregistered leaves last: shows that nothing was missed
  std::vector<std::string> errors;       ///< messages of what was thrown while capturing; rows may be missing
};

struct RecorderOptions {
  /// Glob patterns ('*' any text, '?' one character) on the names of layers; empty: all. A pattern that starts with
  /// "tap:" selects taps by the name after it, and with patterns given taps need one.
  std::vector<std::string> layers = {};
  /// If set, keeps only those selected layers for which it returns true.
  std::function<bool(const std::string& layer)> select = {};
  /// Record what all threads run, not only the thread that called start().
  bool all_threads = false;
  /// While it records, no other recorder of the thread does.
  bool exclusive = false;
  /// Called with the layer's name at each captured call, on the thread that runs it. What it throws becomes an error of
  /// the recording.
  std::function<void(const std::string& layer)> on_call = {};
  /// Keep the operators' other arguments too: what per_sample_gradients needs of a recording.
  bool operators = false;
  /// With `operators`: keep the graph instead of waiting for a backward pass, for gradients that are asked for later.
  bool graph = false;
};

/// Records the layers of one model. Between start() and stop() the forward and backward passes of the calling thread
/// are watched; calls made without grad mode are ignored. Tensors are kept by reference until take().
///
/// Thread safety: start, stop, take and the destructor from one thread at a time; the passes may run on others.
/// The model must outlive the recorder only while it is recording.
class Recorder {
 public:
  /// Throws InvalidArgument if the model has no parameters, or a pattern or the predicate selects none of its layers
  /// (the message lists the names there are).
  explicit Recorder(torch::nn::Module& model, RecorderOptions options = {});
  /// The library's own: of parameters that no model of this program has registered (`dds attach`).
  explicit Recorder(std::shared_ptr<hooks::ParameterSource> parameters, RecorderOptions options = {});
  ~Recorder();
  Recorder(Recorder&&) noexcept;
  Recorder& operator=(Recorder&&) noexcept;

  /// Names of the layers that are selected, in the order of named_modules().
  const std::vector<std::string>& layers() const;

  /// Begins a recording. Parameters are looked up anew: they may have been replaced, moved or loaded since. Throws
  /// InvalidArgument if one is under way.
  void start();
  /// Ends it; from then on nothing is installed. Gradients of what was captured still arrive. Harmless if none is under
  /// way.
  void stop() noexcept;
  bool recording() const;

  /// What was captured since start(), handed over; stops the recording. Later backward passes still reach the calls.
  Captured take();

 private:
  std::shared_ptr<class RecorderState> state_;
};

/// The attribution of one call of `step`, say a forward and backward pass: a dry run of what a recorder would capture.
/// Throws what Recorder and `step` throw.
std::vector<Attribution> attribute(torch::nn::Module& model, const std::function<void()>& step,
                                   RecorderOptions options = {});

/// Keeps all recorders of this thread from seeing what runs in its scope.
class SuspendRecording {
 public:
  SuspendRecording();
  ~SuspendRecording();
  SuspendRecording(const SuspendRecording&) = delete;
  SuspendRecording& operator=(const SuspendRecording&) = delete;
};

/// An identity that makes any tensor a site: a model's own forward may call it on a residual stream or an attention
/// pattern. The last dimension counts the features, all others the rows. Costs nothing while nobody records.
/// Throws nothing: a tensor that cannot be captured is an error of the recording.
at::Tensor tap(std::string_view name, const at::Tensor& tensor);

/// `tensor` as a matrix: the dimensions in `features` flattened into columns, all others into rows. A view where the
/// strides allow it.
at::Tensor as_rows(const at::Tensor& tensor, const std::vector<std::int64_t>& features);

}  // namespace dds
