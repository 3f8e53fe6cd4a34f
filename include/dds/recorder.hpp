// The recorder captures the input, the output and the output's gradient of every layer of a torch::nn model. The model
// is not changed, and needs no base class.
//
// The recorder watches the operators that the dispatcher runs. If an operator takes a registered parameter, or a view
// of one, as its weight, it is a run of that parameter's layer. Its other operand is the layer's input, its result the
// layer's output. A hook on the output receives delta, the gradient there.
//
// Threads: a recorder watches the thread that called start(), or all threads (RecorderOptions::all_threads). Gradients
// arrive on autograd's threads. Operators without grad mode, and those inside built-in backward nodes, are not runs of
// layers.
//
// Cost: while nothing records, nothing is installed. During a recording, each operator of the thread costs a lookup of
// its name and of the memory of its operands. Nothing waits for a device. Only a tensor that the program is about to
// overwrite in place is copied.
//
// Lifetime: a CapturedCall keeps the tensors of one forward pass alive, detached from the graph. After stop() and
// take() it still receives gradients, for as long as it and the graph live.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <dds/export.hpp>
#include <dds/patterns.hpp>
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

/// What a rank cannot exceed, by the operators of the pass, their shapes and the probe.
struct RankBound {
  std::int64_t rank = 0;   ///< for the rows of this recording
  std::int64_t shape = 0;  ///< for any number of samples
  /// False: rows of other recordings may lie in the same directions, so that bounds of several do not add up.
  bool adds = true;
  /// The operator behind which a smaller bound may hold. Empty: the bound is what the shapes allow.
  std::string unknown = {};

  /// Takes in rows of another recording of the same network.
  void add(const RankBound& other);
  /// For `count` independent gradients of each sample instead of one.
  RankBound times(std::int64_t count) const;
};

/// One run of a layer. Its tensors are the model's own, detached, not copied.
class CapturedCall {
 public:
  std::string op;                  ///< the operator that ran: "aten::addmm"
  at::Tensor output;               ///< of the layer, bias included
  std::vector<at::Tensor> inputs;  ///< the operator's operands, without parameters: the layer's input first

  /// The dimensions of `output` that count features, in order. All others count rows. For a product these are the
  /// dimensions that come from the weight: the last for x @ w.t(), both h and o for einsum("bi,hio->bho", x, w).
  std::vector<std::int64_t> output_features;
  /// The same for inputs[0]. Empty if the input has no features (token indices).
  std::vector<std::int64_t> input_features;
  bool expanded = false;        ///< true: a row is a position of a sample; false: a row is a sample
  bool coupled = false;         ///< the operator mixes samples: batch norm in training
  bool wants_gradient = false;  ///< the output is part of the autograd graph
  std::int64_t order = 0;       ///< position in the sequence of all calls and losses of the recording

  /// The losses that were computed from `output`, as places in Captured::losses. The autograd graph tells them. It does
  /// not show what a checkpoint recomputes in the backward pass: such a run has all losses before it, and what ran
  /// before such a loss has that loss too.
  std::vector<std::size_t> losses;

  /// delta: the gradient at `output`, summed over the backward passes so far. Undefined before the first.
  at::Tensor gradient() const;
  /// Number of backward passes that reached this call.
  std::int64_t backwards() const;
  /// Returns gradient(), and resets it: the next backward pass is not added to this one.
  at::Tensor take_gradient();

  /// False if the program wrote into the tensor after the call, so that it does not hold the layer's rows.
  bool output_intact() const;
  bool input_intact() const;

  /// All arguments of the operator, for per_sample_gradients. Null without RecorderOptions::operators.
  const std::shared_ptr<hooks::CapturedOperator>& captured_operator() const { return operator_; }

 private:
  friend struct hooks::CapturedAccess;
  std::shared_ptr<hooks::GradientSlot> slot_;
  std::shared_ptr<hooks::CapturedOperator> operator_;
  std::uint32_t output_version_ = 0;
  std::uint32_t input_version_ = 0;
};

/// What stands around a layer in the pass, as far as it is the same in all of its calls. Empty: not known.
struct Surroundings {
  std::string taken_by;  ///< the one operator that takes the output: "relu"
  /// The one layer that reads the output, with at most operators in between that keep each feature by itself.
  std::string read_by;
  bool read_directly = false;  ///< no operator is in between
  std::string input_of;        ///< the layer of whose output inputs[0] is made, feature by feature and of nothing else
  std::string made_by;         ///< the operator that gave inputs[0]; empty with `input_of`: inputs[0] is its output
  std::int64_t taps = 0;       ///< rank(outputs) <= taps rank(inputs) + 1 for the bias; 0: not known
  bool pads = false;           ///< zeros may stand beside the input: a unit that is constant is not so at the edges
  at::Tensor unfed;            ///< bool, a unit of the output each: all weights into it are zero
  at::Tensor unread;           ///< bool, a feature of the input each: all weights out of it are zero
  at::Tensor gain;             ///< of a norm over the features alone: gamma when it ran
};

/// All runs of one layer in a recording.
struct CapturedLayer {
  std::string layer;  ///< as in Signature::layer
  std::string kind;   ///< as in Signature::kind
  std::vector<CapturedCall> calls;
  /// Number of calls left out: no backward pass reached them, though one reached other calls of the layer. Examples are
  /// roll-outs and validation passes.
  std::int64_t dropped = 0;
  /// Bounds on the ranks of the rows of all `calls` together: of outputs, of inputs[0], of gradients at the outputs.
  RankBound output_bound, input_bound, gradient_bound;
  Surroundings around;
  StatusSet status;    ///< NotRun, NotObservable, NoGradient or CaptureFailed
  std::string detail;  ///< the reason of `status` in words
};

/// A loss operator that ran in the recording: its reduction and its gradient.
class CapturedLoss {
 public:
  std::string op;  ///< "aten::cross_entropy_loss"
  enum class Reduction { None, Mean, Sum } reduction = Reduction::None;
  /// What a mean divides by: the number of terms without ignored targets, or with class weights the sum of the targets'
  /// weights. 0-d, fp64, on the device of the targets.
  at::Tensor terms;
  std::int64_t targets = 0;  ///< number of targets, ignored ones included
  std::int64_t order = 0;    ///< position in the sequence of all calls and losses of the recording

  /// The gradient of one term at `logits`: a difference. Where the network fits its data, its terms
  /// nearly cancel.
  enum class Difference {
    Unknown,   ///< none of the following, or weighted by class
    Softmax,   ///< p - y, where p is the softmax of `logits` over dimension `classes`
    Logistic,  ///< p - y, where p is the logistic function of each entry
    Squares,   ///< slope (logits - y), except where a Huber or smooth L1 loss clips it
  } difference = Difference::Unknown;
  /// The network's output before a softmax or a logistic function, detached. Undefined for Unknown.
  at::Tensor logits;
  std::int64_t classes = 0;  ///< Softmax: the dimension of the classes
  double slope = 0;          ///< Squares: the factor of (logits - y)

  /// The gradient at `logits`, summed over the backward passes so far. Undefined before the first.
  at::Tensor logits_gradient() const;
  /// The same at the operator's result: what the program multiplied it with on the way to its backward passes.
  at::Tensor result_gradient() const;
  /// Number of backward passes that came through the operator. 0: the loss was only looked at.
  std::int64_t backwards() const;
  /// False if the program wrote into `logits` after the operator ran.
  bool logits_intact() const;

 private:
  friend struct hooks::CapturedAccess;
  std::shared_ptr<hooks::GradientSlot> at_logits_, at_result_;
  std::uint32_t version_ = 0;
};

/// What became of the operators of one name that took a parameter of one layer, or a weight computed from a parameter.
/// An operator that runs inside an attributed one has no entry of its own.
struct Attribution {
  enum class Outcome {
    Captured,      ///< is a run of the site
    Bias,          ///< added the parameter to the output of the site, in its run or after it
    Input,         ///< took the parameter as the input of a run of the site (learned queries)
    View,          ///< made a view of the parameter; the view is followed
    Weight,        ///< computed a weight from the parameter (masks, norms, low-rank products); the weight is followed
    NotSelected,   ///< is a run of a layer that the options leave out
    NoGradMode,    ///< ran without grad mode: validation, roll-outs, the optimiser, the forward of a custom function
    Unregistered,  ///< took a leaf that requires grad but is not registered in the model: a tensor of the user's, or a
                   ///< parameter of another model or of a ScriptModule
    NotCaptured,   ///< is not known to run a layer, or did not take the parameter as its weight
  };
  std::string layer;  ///< the layer of the parameter; "leaf [sizes]" for an unregistered leaf
  std::string op;     ///< "aten::addmm"
  Outcome outcome;
  std::string site;        ///< for Captured, Bias and Input: CapturedLayer::layer of the site
  std::int64_t count = 0;  ///< number of times in the recording

  /// The entry in words: "aten::addmm x 2: a run of fc1".
  std::string statement() const;
};
std::string_view to_string(Attribution::Outcome outcome);  ///< "captured", "no_grad_mode", ...

/// The result of a recording.
struct Captured {
  std::vector<CapturedLayer> layers;  ///< in the order of their first run, then those that did not run
  std::vector<CapturedLoss> losses;
  std::vector<Attribution> attribution;  ///< by layer, unregistered leaves last
  std::vector<std::string> errors;       ///< messages of exceptions during the recording: rows may be missing
};

struct RecorderOptions {
  /// The names of the layers to record. All: every layer and every tap. Otherwise a tap needs a pattern of its own,
  /// which begins with "tap:": "tap:NAME".
  Patterns layers = std::nullopt;
  /// If set, only selected layers for which it returns true are recorded.
  std::function<bool(const std::string& layer)> select = {};
  /// Record what all threads run, not only the thread that called start().
  bool all_threads = false;
  /// While this recorder records, no other recorder of the thread does.
  bool exclusive = false;
  /// Called with the layer's name at each captured call, on the thread that runs it. An exception from it goes to
  /// Captured::errors.
  std::function<void(const std::string& layer)> on_call = {};
  /// Keep all arguments of the operators, which per_sample_gradients needs.
  bool operators = false;
  /// With `operators`: keep the autograd graph, so that gradients can be computed later without a backward pass of the
  /// caller's.
  bool graph = false;
};

/// Records the layers of one model between start() and stop().
///
/// Threads: call start(), stop(), take() and the destructor from one thread at a time. The passes may run on others.
/// Lifetime: the model must outlive a recording; after stop() it need not.
class Recorder {
 public:
  /// Throws InvalidArgument if the model has no parameters, or if a pattern or `select` selects no layer. The message
  /// lists the names of the layers.
  explicit Recorder(torch::nn::Module& model, RecorderOptions options = {});
  ~Recorder();
  Recorder(Recorder&&) noexcept;
  Recorder& operator=(Recorder&&) noexcept;

  /// Names of the layers that are selected, in the order of named_modules().
  const std::vector<std::string>& layers() const;

  /// Begins a recording. Looks up the model's parameters each time: they may have been replaced, moved or loaded.
  /// Throws InvalidArgument if a recording is under way.
  void start();
  /// Ends the recording and removes what start() installed. Captured calls still receive gradients. Does nothing if no
  /// recording is under way.
  void stop() noexcept;
  bool recording() const;

  /// Stops the recording and returns what was captured since start(). Captured calls still receive gradients.
  Captured take();

 private:
  friend Recorder hooks::recorder_of(std::shared_ptr<hooks::ParameterSource>, RecorderOptions);
  explicit Recorder(std::shared_ptr<class RecorderState> state);
  std::shared_ptr<class RecorderState> state_;
};

/// Runs `step` once (a forward and backward pass, say), and returns what a recorder captures of it.
/// Throws what Recorder and `step` throw.
std::vector<Attribution> attribute(torch::nn::Module& model, const std::function<void()>& step,
                                   RecorderOptions options = {});

/// Returns `tensor`, and records it as a site named `name`. Call it in a model's forward, on a residual stream or an
/// attention pattern for example. The last dimension counts features, all others count rows. It costs nothing while
/// nothing records.
/// Throws nothing: an error goes to Captured::errors.
at::Tensor tap(std::string_view name, const at::Tensor& tensor);

/// `tensor` as a matrix: the dimensions in `features` become the columns, all others the rows. A view if the strides
/// allow it, else a copy.
at::Tensor as_rows(const at::Tensor& tensor, const std::vector<std::int64_t>& features);

}  // namespace dds
