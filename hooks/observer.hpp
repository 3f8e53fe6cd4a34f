// The ear at the dispatcher: tells listeners of every operator that runs. observer.cpp alone touches
// at::RecordFunction.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/util/ArrayRef.h>

#include <memory>
#include <string_view>
#include <vector>

namespace dds::hooks {

/// What a listener leaves at the start of an operator for its end.
struct OperatorNote {
  virtual ~OperatorNote() = default;
};

/// Nesting of operators on one thread, for one listener.
struct Nesting {
  int inside = 0;  ///< operators under way within which nothing is listened to
  int known = 0;   ///< those of which the graph of the pass knows what they give
};

/// Who wants to know of operators. It is told of those that run between listen() and stop_listening() while listening()
/// is true, except of what a built-in backward node runs, on whichever thread runs them, without grad mode, and unseen
/// itself. What it throws goes to failed().
class Listener {
 public:
  virtual ~Listener() = default;
  virtual bool all_threads() const = 0;  ///< or only the thread that called listen()
  virtual bool exclusive() const = 0;    ///< while it listens, no other listener of the thread does
  virtual bool listening() const = 0;

  /// `args` are good during the call only. `grad_mode` is that of the operator. Without a note the end is not told.
  virtual std::unique_ptr<OperatorNote> operator_starts(std::string_view name, c10::ArrayRef<const c10::IValue> args,
                                                        bool grad_mode, Nesting& nesting) = 0;
  /// `outputs` are undefined if the operator threw.
  virtual void operator_ends(std::string_view name, OperatorNote& note, const std::vector<c10::IValue>& outputs,
                             Nesting& nesting) = 0;
  /// dds::tap was called.
  virtual void tapped(std::string_view name, const at::Tensor& tensor) = 0;
  virtual void failed(std::string_view where, const char* what) = 0;
};

void listen(const std::shared_ptr<Listener>& listener);
/// On another thread than listen() it only tidies up: listening() must be false by then.
void stop_listening(const std::shared_ptr<Listener>& listener);

/// True if a SuspendRecording, or another listener that is exclusive, keeps this thread from `listener`.
bool silenced(const Listener& listener);

/// Tells of a tap those who would be told of an operator that ran here and now.
void tell_of_tap(std::string_view name, const at::Tensor& tensor);

/// Hides what runs in its scope from every observer of the thread, the profiler's included.
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
