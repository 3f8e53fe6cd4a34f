// The Python interpreter that runs in this process, if there is one: asked by functions of its own that are looked up
// in the process, so that the plugin is built without Python. What is run here has a namespace of its own, and leaves
// nothing behind elsewhere.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace dds::attach {

/// Holds the interpreter's lock, and whatever exception is under way aside, for as long as it lives.
class Interpreter {
 public:
  /// Empty where there is none, or none any more.
  static std::optional<Interpreter> lock();
  /// It is asked no more: the process ends, perhaps on a thread that keeps its lock.
  static void leave();
  Interpreter(Interpreter&&) = default;

  /// Runs statements in the plugin's namespace; false if they raised something.
  bool run(const char* statements);
  void set(const char* name, const at::Tensor& tensor);  ///< to its address, as Tensor._cdata
  void set(const char* name, std::int64_t value);
  /// What a name stands for there; empty if it is none, or no text (no bytes).
  std::string text(const char* name);
  std::string bytes(const char* name);

 private:
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

/// The tensor whose Tensor._cdata is written there in decimal digits; undefined for 0.
at::Tensor tensor_at(std::string_view address);

}  // namespace dds::attach
