// The Python interpreter that runs in this process, if there is one. Its functions are looked up in the process, so
// that the plugin is built without Python. What runs here has a namespace of its own.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
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
  /// The value of a name in that namespace; empty if there is none, or it is no text (no bytes).
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
