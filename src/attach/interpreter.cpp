#include "src/attach/interpreter.hpp"

#include <dlfcn.h>
#include <sys/types.h>

#include <atomic>
#include <charconv>
#include <cstdint>
#include <type_traits>

#include "src/attach/names.hpp"

namespace dds::attach {
namespace {

using Object = void*;

std::atomic<bool> left = false;

}  // namespace

/// By their names in the interpreter.
struct Interpreter::Functions {
  int (*is_initialized)() = nullptr;
  int (*ensure)() = nullptr;
  void (*release)(int) = nullptr;
  Object (*new_dict)() = nullptr;
  Object (*get_builtins)() = nullptr;
  int (*set_item)(Object, const char*, Object) = nullptr;
  Object (*get_item)(Object, const char*) = nullptr;
  Object (*from_pointer)(void*) = nullptr;
  Object (*from_integer)(long long) = nullptr;
  Object (*run)(const char*, int, Object, Object) = nullptr;
  const char* (*text_of)(Object) = nullptr;
  int (*bytes_of)(Object, char**, ssize_t*) = nullptr;
  void (*fetch_error)(Object*, Object*, Object*) = nullptr;
  void (*restore_error)(Object, Object, Object) = nullptr;
  void (*clear_error)() = nullptr;
  void (*drop)(Object) = nullptr;
  int (*has_lock)() = nullptr;
  void* (*save_thread)() = nullptr;
  void (*restore_thread)(void*) = nullptr;

  static const Functions* find() {
    static const Functions there = [] {
      Functions python;
      bool whole = true;
      const auto look_up = [&](auto& function, const char* name) {
        function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(::dlsym(RTLD_DEFAULT, name));
        whole = whole && function;
      };
      look_up(python.ensure, "PyGILState_Ensure");
      look_up(python.release, "PyGILState_Release");
      look_up(python.new_dict, "PyDict_New");
      look_up(python.get_builtins, "PyEval_GetBuiltins");
      look_up(python.set_item, "PyDict_SetItemString");
      look_up(python.get_item, "PyDict_GetItemString");
      look_up(python.from_pointer, "PyLong_FromVoidPtr");
      look_up(python.from_integer, "PyLong_FromLongLong");
      look_up(python.run, "PyRun_String");
      look_up(python.text_of, "PyUnicode_AsUTF8");
      look_up(python.bytes_of, "PyBytes_AsStringAndSize");
      look_up(python.fetch_error, "PyErr_Fetch");
      look_up(python.restore_error, "PyErr_Restore");
      look_up(python.clear_error, "PyErr_Clear");
      look_up(python.drop, "Py_DecRef");
      look_up(python.has_lock, "PyGILState_Check");
      look_up(python.save_thread, "PyEval_SaveThread");
      look_up(python.restore_thread, "PyEval_RestoreThread");
      look_up(python.is_initialized, "Py_IsInitialized");
      return whole ? python : Functions();
    }();
    return there.is_initialized && there.is_initialized() != 0 ? &there : nullptr;
  }

  void set(Object names, const char* name, Object value) const {
    set_item(names, name, value);
    drop(value);
  }
};

void Interpreter::Release::operator()(void*) const {
  python->clear_error();
  python->restore_error(type, value, traceback);
  python->release(lock);
}

Interpreter::Interpreter(const Functions& python) : python_(&python), names_(nullptr, Release{}) {
  Release release{&python, python.ensure(), nullptr, nullptr, nullptr};
  python.fetch_error(&release.type, &release.value, &release.traceback);
  static Object names = nullptr;  // guarded by the interpreter's lock
  if (!names) {
    names = python.new_dict();
    python.set_item(names, "__builtins__", python.get_builtins());
  }
  names_ = std::unique_ptr<void, Release>(names, release);
}

std::optional<Interpreter> Interpreter::lock() {
  const Functions* python = left ? nullptr : Functions::find();
  return python ? std::optional(Interpreter(*python)) : std::nullopt;
}

void Interpreter::leave() { left = true; }

bool Interpreter::run(const char* statements) {
  constexpr int kFile = 257;  // Py_file_input: statements
  Object none = python_->run(statements, kFile, names_.get(), names_.get());
  if (none) python_->drop(none);
  python_->clear_error();
  return none != nullptr;
}

void Interpreter::set(const char* name, const at::Tensor& tensor) {
  python_->set(names_.get(), name, python_->from_pointer(tensor.unsafeGetTensorImpl()));
}

void Interpreter::set(const char* name, std::int64_t value) {
  python_->set(names_.get(), name, python_->from_integer(value));
}

std::string Interpreter::text(const char* name) {
  Object object = python_->get_item(names_.get(), name);
  const char* characters = object ? python_->text_of(object) : nullptr;
  python_->clear_error();
  return characters ? characters : "";
}

std::string Interpreter::bytes(const char* name) {
  Object object = python_->get_item(names_.get(), name);
  char* data = nullptr;
  ssize_t size = 0;
  const bool there = object && python_->bytes_of(object, &data, &size) == 0;
  python_->clear_error();
  return there ? std::string(data, static_cast<std::size_t>(size)) : std::string();
}

bool Interpreter::set_object(const char* name, const at::Tensor& tensor) {
  using Wrap = Object (*)(const at::Tensor*);
  static const auto wrap = [] {
    void* library = ::dlopen(kTorchPythonLibrary, RTLD_LAZY | RTLD_NOLOAD);
    if (!library) library = RTLD_DEFAULT;
    for (const char* symbol : {"_Z16THPVariable_WrapRKN2at10TensorBaseE", "_Z16THPVariable_WrapN2at10TensorBaseE"}) {
      if (void* found = ::dlsym(library, symbol)) return reinterpret_cast<Wrap>(found);
    }
    return Wrap(nullptr);
  }();
  if (!wrap) return false;
  const at::Tensor copy = tensor;  // one of the two takes it by value, which is an address as well
  Object object = wrap(&copy);
  python_->clear_error();
  if (!object) return false;
  python_->set(names_.get(), name, object);
  return true;
}

WithoutInterpreter::WithoutInterpreter() {
  const Interpreter::Functions* python = left ? nullptr : Interpreter::Functions::find();
  if (python && python->has_lock() != 0) state_ = python->save_thread();
}

WithoutInterpreter::~WithoutInterpreter() {
  if (state_) Interpreter::Functions::find()->restore_thread(state_);
}

at::Tensor tensor_at(std::string_view address) {
  std::uintptr_t value = 0;
  std::from_chars(address.data(), address.data() + address.size(), value);
  auto* impl = reinterpret_cast<at::TensorImpl*>(value);
  if (!impl) return {};
  return at::Tensor(c10::intrusive_ptr<at::TensorImpl, at::UndefinedTensorImpl>::unsafe_reclaim_from_nonowning(impl));
}

}  // namespace dds::attach
