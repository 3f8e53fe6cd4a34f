// Tells listeners of every operator that the dispatcher runs. observer.cpp is the only file that touches
// at::RecordFunction.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

namespace dds::hooks {

/// What a listener notes when an operator starts. It gets the note back when the operator ends.
struct OperatorNote {
  virtual ~OperatorNote() = default;
};

/// How deep a thread is in operators, counted by one listener: those that have started and not ended.
struct Nesting {
  int inside = 0;   ///< which it does not want to hear the inside of
  int depth = 0;    ///< all of which it has a note, for a listener that counts them
  int known = 0;    ///< those of which the graph of the pass knows the results
  int graphed = 0;  ///< those that the graph of the pass has at all
};

/// An object that is told of operators, from listen() to stop_listening(), while its listening() is true.
///
/// It is not told of operators that run inside a built-in backward node, or inside a transform of torch.func
/// (hooks/transforms.hpp).
///
/// It is called on the thread that runs the operator. Grad mode is off during the call. No listener is told of the
/// operators that it runs itself. What it throws goes to its failed().
class Listener {
 public:
  virtual ~Listener() = default;
  virtual bool all_threads() const = 0;  ///< false: it is told of the thread that called listen() only
  virtual bool exclusive() const = 0;    ///< while it listens, no other listener is told of the same thread
  virtual bool listening() const = 0;

  /// An operator starts. `args` are valid during this call only. `grad_mode`: that of the program. If this returns
  /// null, operator_ends() is not called.
  virtual std::unique_ptr<OperatorNote> operator_starts(std::string_view name, c10::ArrayRef<const c10::IValue> args,
                                                        bool grad_mode, Nesting& nesting) = 0;
  /// The operator ends. If it threw, the tensors in `outputs` are undefined.
  virtual void operator_ends(std::string_view name, OperatorNote& note, const std::vector<c10::IValue>& outputs,
                             Nesting& nesting) = 0;
  /// The backward pass of a custom function runs.
  virtual void custom_function_runs(std::string_view) {}
  /// A node of a backward pass runs, on the thread of this listener.
  virtual void backward_node_runs(std::string_view, std::int64_t /*sequence*/) {}
  /// dds::tap was called.
  virtual void tapped(std::string_view name, const at::Tensor& tensor) = 0;
  /// One of the functions above threw an exception that says `what`. `where`: the operator's name.
  virtual void failed(std::string_view where, std::string_view what) = 0;
};

void listen(const std::shared_ptr<Listener>& listener);
/// On another thread than that of listen(), listening() must be false before the call.
void stop_listening(const std::shared_ptr<Listener>& listener);

/// True if `listener` is not told of this thread now: because of a SuspendRecording, or of another listener that is
/// exclusive.
bool silenced(const Listener& listener);

/// True inside the backward pass of a custom function on this thread, while somebody listens: what runs there may
/// compute a forward pass again (a checkpoint).
bool recomputing();

/// Calls tapped() of every listener that would be told of an operator that ran here and now.
void tell_of_tap(std::string_view name, const at::Tensor& tensor);

/// No observer of this thread is told of what runs in the scope of an Unseen. That includes the profiler.
class Unseen {
 public:
  Unseen();
  ~Unseen();
  Unseen(const Unseen&) = delete;
  Unseen& operator=(const Unseen&) = delete;

 private:
  bool before_;
};

}  // namespace dds::hooks
