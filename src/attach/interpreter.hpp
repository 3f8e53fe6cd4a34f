// The Python interpreter that runs in this process, if there is one. Its functions are looked up in the process, so
// that the plugin is built without Python. What runs here has a namespace of its own.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

namespace dds::attach {

/// Holds the interpreter's lock for as long as it lives, and keeps an exception that is under way.
class Interpreter {
 public:
  /// Empty where there is none, or none any more.
  static std::optional<Interpreter> lock();
  /// lock() gives nothing from now on: the process ends, perhaps on a thread that keeps the interpreter's lock.
  static void leave();
  Interpreter(Interpreter&&) = default;

  /// Runs statements in the plugin's namespace; false if they raised something.
  bool run(const char* statements);
  void set(const char* name, const at::Tensor& tensor);  ///< to its address, as Tensor._cdata
  void set(const char* name, std::int64_t value);
  /// To the object itself that the program has of the tensor; false if it cannot be had.
  bool set_object(const char* name, const at::Tensor& tensor);
  /// The value of a name in that namespace; empty if there is none, or it is no text (no bytes).
  std::string text(const char* name);
  std::string bytes(const char* name);

 private:
  friend class WithoutInterpreter;
  struct Functions;
  struct Release {
    const Functions* python;
    int lock;
    void *type, *value, *traceback;
    void operator()(void* names) const;
  };
  explicit Interpreter(const Functions& python);

  const Functions* python_;
  std::unique_ptr<void, Release> names_;  ///< a dict, never dropped
};

/// Lets go of the interpreter's lock, if this thread has it, for as long as it lives.
class WithoutInterpreter {
 public:
  WithoutInterpreter();
  ~WithoutInterpreter();
  WithoutInterpreter(const WithoutInterpreter&) = delete;
  WithoutInterpreter& operator=(const WithoutInterpreter&) = delete;

 private:
  void* state_ = nullptr;
};

/// Nobody waits for a mutex with the interpreter's lock in his hands: who has the mutex may want the interpreter.
template <class Mutex>
std::unique_lock<Mutex> locked(Mutex& mutex) {
  std::unique_lock lock(mutex, std::try_to_lock);
  if (!lock) {
    const WithoutInterpreter released;
    lock.lock();
  }
  return lock;
}

/// The tensor whose Tensor._cdata is written there in decimal digits; undefined for 0.
at::Tensor tensor_at(std::string_view address);

}  // namespace dds::attach
