// The recorder: the input, the output and the output's gradient of every layer of an unmodified torch::nn model.
//
// The recorder watches the operators that the dispatcher runs. An operator that takes a registered parameter, or a view
// of one, in the place of a weight is a run of that parameter's layer. Its other operand is the layer's input. Its
// output is the layer's output. A hook on the output receives delta, the gradient there. The model is not changed, and
// inherits from nothing.
//
// Threads: a recorder watches the thread that called start(), or all threads (RecorderOptions::all_threads). Gradients
// arrive on autograd's threads. Calls without grad mode, and operators inside built-in backward nodes, are not runs of
// layers.
//
// Cost: while nothing records, nothing is installed. While it records, each operator of the thread costs a lookup of
// its name and of the memory of its operands. Nothing is copied and nothing waits for a device, but for a tensor that
// the program overwrites in place: that one is copied before.
//
// Lifetime: a CapturedCall keeps the tensors of one forward pass alive, detached from the graph. Gradients go on
// arriving in it after stop() and take(), for as long as it and the graph live.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/export.hpp>
#include <dds/signature.hpp>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace torch::nn {
class Module;
}

namespace DDS_EXPORT dds {

class Recorder;
struct RecorderOptions;

namespace hooks {
struct CapturedAccess;
struct CapturedOperator;
class GradientSlot;
class ParameterSource;
Recorder recorder_of(std::shared_ptr<ParameterSource> parameters, RecorderOptions options);
}  // namespace hooks

/// One run of a layer. Its tensors are those of the model's own passes, detached, not copies.
class CapturedCall {
 public:
  std::string op;                  ///< the operator that ran: "aten::addmm"
  at::Tensor output;               ///< of the layer, bias included
  std::vector<at::Tensor> inputs;  ///< as the operator took them: the layer's input first, without parameters

  /// The dimensions of `output` that count features, in order. All others count rows. The features of a product are the
  /// dimensions that the weight brings in: the last for x @ w.t(), both h and o for einsum("bi,hio->bho", x, w).
  std::vector<std::int64_t> output_features;
  /// The same of inputs[0]. Empty where the input has no features (token indices).
  std::vector<std::int64_t> input_features;
  bool expanded = false;            ///< a row is one position of a sample; otherwise it is a sample
  bool coupled = false;             ///< the operator mixes samples: batch norm in training
  std::int64_t output_bound = 0;    ///< rank(output rows) is at most this, by this layer's shape and those before it
  std::int64_t gradient_bound = 0;  ///< rank(gradient rows) is at most this, by the layers after it
  bool wants_gradient = false;      ///< the output takes part in the graph
  std::int64_t order = 0;           ///< place among all calls and losses of the recording

  /// delta: the gradient at `output`, summed over the backward passes so far. Undefined before the first.
  at::Tensor gradient() const;
  /// How many backward passes have come through.
  std::int64_t backwards() const;
  /// gradient(), and starts from nothing again: the next backward pass is kept apart.
  at::Tensor take_gradient();

  /// False if the program wrote into the tensor after the call: it no longer holds the layer's rows.
  bool output_intact() const;
  bool input_intact() const;

  /// The operator itself, for per_sample_gradients. Null without RecorderOptions::operators.
  const std::shared_ptr<hooks::CapturedOperator>& captured_operator() const { return operator_; }

 private:
  friend struct hooks::CapturedAccess;
  std::shared_ptr<hooks::GradientSlot> slot_;
  std::shared_ptr<hooks::CapturedOperator> operator_;
  std::uint32_t output_version_ = 0;
  std::uint32_t input_version_ = 0;
};

/// All runs of one layer in a recording.
struct CapturedLayer {
  std::string layer;  ///< as in Signature::layer
  std::string kind;   ///< as in Signature::kind
  std::vector<CapturedCall> calls;
  /// Calls that are left out because no backward pass came through them while one came through others: roll-outs,
  /// validation passes.
  std::int64_t dropped = 0;
  StatusSet status;    ///< NotRun, NotObservable, NoGradient or CaptureFailed
  std::string detail;  ///< the reason of `status` in words
};

/// A loss operator that ran in the recording: how it reduced, and what its gradient is.
class CapturedLoss {
 public:
  std::string op;  ///< "aten::cross_entropy_loss"
  enum class Reduction { None, Mean, Sum } reduction = Reduction::None;
  /// How many terms count, without ignored targets: 0-d, fp64, on the device of the targets. Undefined where the
  /// operator does not tell (weights of classes).
  at::Tensor terms;
  std::int64_t targets = 0;  ///< number of targets, with ignored ones
  std::int64_t order = 0;    ///< place among all calls and losses of the recording

  /// The gradient of one term at `logits`. Where the network fits its data, it is a small difference of large numbers.
  enum class Difference {
    Unknown,   ///< none of the following, or weighted by class
    Softmax,   ///< p - y, where p is the softmax of `logits` over dimension `classes`
    Logistic,  ///< p - y, where p is the logistic function of each entry
    Squares,   ///< slope (logits - y), where it is not cut off
  } difference = Difference::Unknown;
  /// What the network gave, before a softmax or a logistic function; detached. Undefined for Unknown.
  at::Tensor logits;
  std::int64_t classes = 0;  ///< Softmax: the dimension
  double slope = 0;          ///< Squares: the factor

  /// The gradient at `logits`, summed over the backward passes so far. Undefined before the first.
  at::Tensor logits_gradient() const;
  /// The same at the operator's result.
  at::Tensor result_gradient() const;
  /// False if the program wrote into `logits` after the operator ran.
  bool logits_intact() const;

 private:
  friend struct hooks::CapturedAccess;
  std::shared_ptr<hooks::GradientSlot> at_logits_, at_result_;
  std::uint32_t version_ = 0;
};

/// What became of the operators of one name that took a parameter of one layer, or a weight computed from one. An
/// operator that runs inside an attributed one is part of that.
struct Attribution {
  enum class Outcome {
    Captured,      ///< a run of the site
    Bias,          ///< added to the output of the site, by its run or after it
    Input,         ///< the input of a run of the site (learned queries)
    View,          ///< made a view of the parameter; the view is followed
    Weight,        ///< computed a weight from it, which is followed (masks, norms, low-rank products)
    NotSelected,   ///< a run of a layer that the options leave out
    NoGradMode,    ///< ran without grad mode: validation, roll-outs, the optimiser, the forward of a custom function
    Unregistered,  ///< took a leaf that wants a gradient and that the model has not registered: a tensor of the user's,
                   ///< another model's parameter, a ScriptModule's
    NotCaptured,   ///< no operator that is known to run a layer, or the parameter is not in the place of a weight
  };
  std::string layer;  ///< whose parameter; "leaf [sizes]" for an unregistered one
  std::string op;     ///< "aten::addmm"
  Outcome outcome;
  std::string site;        ///< of Captured, Bias and Input: CapturedLayer::layer
  std::int64_t count = 0;  ///< how often in the recording

  /// "aten::addmm x 2: a run of fc1".
  std::string statement() const;
};
std::string_view to_string(Attribution::Outcome outcome);  ///< "captured", "no_grad_mode", ...

/// What a recording brought.
struct Captured {
  std::vector<CapturedLayer> layers;  ///< in the order of their first run, then those that did not run
  std::vector<CapturedLoss> losses;
  std::vector<Attribution> attribution;  ///< by layer, unregistered leaves last
  std::vector<std::string> errors;       ///< messages of what was thrown while recording: rows may be missing
};

struct RecorderOptions {
  /// Patterns on the names of layers: '*' any text, '?' one character. Empty: all layers and all taps. A pattern that
  /// starts with "tap:" selects taps by the name after it. With patterns, a tap is recorded only if one selects it.
  std::vector<std::string> layers = {};
  /// If set: only those of the selected layers for which it returns true.
  std::function<bool(const std::string& layer)> select = {};
  /// Record what all threads run, not only the thread that called start().
  bool all_threads = false;
  /// While this recorder records, no other recorder of the thread does.
  bool exclusive = false;
  /// Called with the layer's name at each captured call, on the thread that runs it. What it throws becomes an error of
  /// the recording.
  std::function<void(const std::string& layer)> on_call = {};
  /// Keep all arguments of the operators: per_sample_gradients needs them.
  bool operators = false;
  /// With `operators`: keep the graph, for gradients that are asked for later, instead of waiting for a backward pass.
  bool graph = false;
};

/// Records the layers of one model between start() and stop().
///
/// Threads: start(), stop(), take() and the destructor on one thread at a time. The passes may run on other threads.
/// Lifetime: the model must outlive a recording; after stop() it need not.
class Recorder {
 public:
  /// Throws InvalidArgument if the model has no parameters, or if a pattern or the predicate selects none of its
  /// layers. The message lists the names that there are.
  explicit Recorder(torch::nn::Module& model, RecorderOptions options = {});
  ~Recorder();
  Recorder(Recorder&&) noexcept;
  Recorder& operator=(Recorder&&) noexcept;

  /// Names of the layers that are selected, in the order of named_modules().
  const std::vector<std::string>& layers() const;

  /// Begins a recording. Looks parameters up anew: they may have been replaced, moved or loaded since the last.
  /// Throws InvalidArgument if a recording is under way.
  void start();
  /// Ends the recording and takes off what was installed. Gradients of captured calls still arrive. Does nothing if no
  /// recording is under way.
  void stop() noexcept;
  bool recording() const;

  /// Stops the recording and hands over what was captured since start(). Later backward passes still reach the calls.
  Captured take();

 private:
  friend Recorder hooks::recorder_of(std::shared_ptr<hooks::ParameterSource>, RecorderOptions);
  explicit Recorder(std::shared_ptr<class RecorderState> state);
  std::shared_ptr<class RecorderState> state_;
};

/// Calls `step` once, say a forward and backward pass, and tells what a recorder would capture of it.
/// Throws what Recorder and `step` throw.
std::vector<Attribution> attribute(torch::nn::Module& model, const std::function<void()>& step,
                                   RecorderOptions options = {});

/// Returns `tensor`, and makes it a site of its own. A model's forward may call it on a residual stream or an attention
/// pattern. The last dimension counts features, all others rows. Costs nothing while nobody records.
/// Throws nothing: a tensor that cannot be captured becomes an error of the recording.
at::Tensor tap(std::string_view name, const at::Tensor& tensor);

/// `tensor` as a matrix: the dimensions in `features` are its columns, all others its rows. A view where the strides
/// allow it.
at::Tensor as_rows(const at::Tensor& tensor, const std::vector<std::int64_t>& features);

}  // namespace dds
