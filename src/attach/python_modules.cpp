// The interpreter is asked by functions of its own that are looked up in the process: this file is built without
// Python. Nothing is imported, put on a path or left behind.
#include <dlfcn.h>

#include <charconv>
#include <cstdint>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

#include "src/attach/module_tree.hpp"

namespace dds::attach {
namespace {

/// Sets `found` to a list of (parameter, layer, kind, name, sequence first) of the network that the leaf at `address`
/// is in, and `network` to its class. A module's class is the first of torch.nn that it descends from. One of the
/// user's own is a layer if it has a single weight; the parameters of others are layers by themselves. What a weight is
/// computed from (torch.nn.utils.parametrizations) belongs to the layer that has the weight.
constexpr const char* kScript = R"python(
def _look(address):
    import gc, sys
    torch = sys.modules.get("torch")
    nn = getattr(torch, "nn", None)
    Module = getattr(nn, "Module", None)
    if Module is None:
        return "", []
    modules = [m for m in gc.get_objects() if issubclass(type(m), Module) and "_modules" in m.__dict__]
    parents, owner = {}, None
    for module in modules:
        for child in module._modules.values():
            if child is not None and child is not module:
                parents.setdefault(id(child), module)
        for parameter in module._parameters.values():
            if owner is None and parameter is not None and parameter._cdata == address:
                owner = module
    if owner is None:
        return "", []
    root, seen = owner, set()
    while id(root) in parents and id(root) not in seen:
        seen.add(id(root))
        root = parents[id(root)]
    found, above = [], set()
    def below(path, name):
        return path + "." + name if path else name
    def walk(module, path, sequence_first, computed=None):
        if id(module) in above:
            return
        above.add(id(module))
        kind = ""
        for base in type(module).__mro__:
            public = getattr(nn, base.__name__, None) is base and base.__module__.startswith("torch.nn.modules.")
            if public and base is not Module and not base.__module__.endswith(".container"):
                kind = base.__name__
                break
        sequence_first = sequence_first or kind in ("MultiheadAttention",) or kind.startswith("Transformer")
        own = [(name, p) for name, p in module._parameters.items() if p is not None]
        if kind == "MultiheadAttention" or (not kind and sum(p.dim() > 1 for _, p in own) > 1):
            layer = None
        else:
            layer = path or "(root)"
            kind = kind or type(module).__name__
        if computed:
            layer, kind = computed
        for name, p in own:
            full = below(path, name)
            found.append((p, layer or full, kind if layer else "Raw", full, sequence_first))
        for name, child in module._modules.items():
            if child is not None:
                of_layer = computed or (layer and name == "parametrizations" and (layer, kind))
                walk(child, below(path, name), sequence_first, of_layer)
        above.discard(id(module))
    walk(root, "", False)
    return type(root).__name__, found

network, found = _look(address)
text = "\n".join("\t".join((str(p._cdata), layer, kind, name, str(int(first)))) for p, layer, kind, name, first in found)
text = network + "\n" + text
)python";

using Object = void*;

/// Functions of the interpreter, by their names in it.
struct Interpreter {
  int (*is_initialized)() = nullptr;
  int (*ensure)() = nullptr;
  void (*release)(int) = nullptr;
  Object (*new_dict)() = nullptr;
  Object (*get_builtins)() = nullptr;
  int (*set_item)(Object, const char*, Object) = nullptr;
  Object (*get_item)(Object, const char*) = nullptr;
  Object (*from_pointer)(void*) = nullptr;
  Object (*run)(const char*, int, Object, Object) = nullptr;
  const char* (*text_of)(Object) = nullptr;
  void (*fetch_error)(Object*, Object*, Object*) = nullptr;
  void (*restore_error)(Object, Object, Object) = nullptr;
  void (*clear_error)() = nullptr;
  void (*drop)(Object) = nullptr;

  static const Interpreter* find() {
    static const Interpreter there = [] {
      Interpreter python;
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
      look_up(python.run, "PyRun_String");
      look_up(python.text_of, "PyUnicode_AsUTF8");
      look_up(python.fetch_error, "PyErr_Fetch");
      look_up(python.restore_error, "PyErr_Restore");
      look_up(python.clear_error, "PyErr_Clear");
      look_up(python.drop, "Py_DecRef");
      look_up(python.is_initialized, "Py_IsInitialized");
      return whole ? python : Interpreter();
    }();
    return there.is_initialized && there.is_initialized() != 0 ? &there : nullptr;
  }
};

/// Holds the interpreter's lock, and whatever exception is under way aside.
class Locked {
 public:
  explicit Locked(const Interpreter& python) : python_(python), state_(python.ensure()) {
    python_.fetch_error(&type_, &value_, &traceback_);
  }
  ~Locked() {
    python_.restore_error(type_, value_, traceback_);
    python_.release(state_);
  }
  Locked(const Locked&) = delete;
  Locked& operator=(const Locked&) = delete;

 private:
  const Interpreter& python_;
  int state_;
  Object type_ = nullptr, value_ = nullptr, traceback_ = nullptr;
};

at::Tensor tensor_at(std::string_view address) {
  std::uintptr_t value = 0;
  std::from_chars(address.data(), address.data() + address.size(), value);
  auto* impl = reinterpret_cast<at::TensorImpl*>(value);
  if (!impl) return {};
  return at::Tensor(c10::intrusive_ptr<at::TensorImpl, at::UndefinedTensorImpl>::unsafe_reclaim_from_nonowning(impl));
}

Network network_from(const std::string& text) {
  Network network;
  std::istringstream lines(text);
  std::getline(lines, network.type);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::string address, first;
    hooks::FoundParameter found;
    std::getline(fields, address, '\t');
    std::getline(fields, found.layer, '\t');
    std::getline(fields, found.kind, '\t');
    std::getline(fields, found.name, '\t');
    std::getline(fields, first, '\t');
    found.sequence_first = first == "1";
    found.tensor = tensor_at(address);
    network.parameters.push_back(std::move(found));
  }
  return network;
}

}  // namespace

std::optional<Network> PythonModules::network_of(const at::Tensor& leaf) {
  const Interpreter* python = Interpreter::find();
  if (!python) return std::nullopt;
  const Locked locked(*python);
  constexpr int kFile = 257;  // Py_file_input: statements
  Object names = python->new_dict(), address = python->from_pointer(leaf.unsafeGetTensorImpl());
  python->set_item(names, "__builtins__", python->get_builtins());
  python->set_item(names, "address", address);
  Object none = python->run(kScript, kFile, names, names);
  Network network;
  if (none) {
    // `found` keeps the parameters until they are held here.
    Object text = python->get_item(names, "text");
    if (const char* characters = text ? python->text_of(text) : nullptr) network = network_from(characters);
    python->drop(none);
  }
  python->clear_error();
  python->drop(address);
  python->drop(names);
  return network.parameters.empty() ? std::nullopt : std::optional(std::move(network));
}

}  // namespace dds::attach
