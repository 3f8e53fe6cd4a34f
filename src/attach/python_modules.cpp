#include <sstream>
#include <string>
#include <utility>

#include "src/attach/interpreter.hpp"
#include "src/attach/module_tree.hpp"

namespace dds::attach {
namespace {

/// _look(address) gives the class of the network that the leaf at `address` is in, its parameters as a list of
/// (parameter, layer, kind, name, sequence first), and its buffers with their names; it also keeps a weak reference to
/// the network in
/// `_networks`. A module's class is the first of torch.nn that it descends from. One of the user's own is a layer if it
/// has a single weight; the parameters of others are layers by themselves. What a weight is computed from
/// (torch.nn.utils.parametrizations) belongs to the layer that has the weight.
constexpr const char* kDefinitions = R"python(
_networks = []
def _look(address):
    import gc, sys, weakref
    torch = sys.modules.get("torch")
    nn = getattr(torch, "nn", None)
    Module = getattr(nn, "Module", None)
    if Module is None:
        return "", [], []
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
        return "", [], []
    root, seen = owner, set()
    while id(root) in parents and id(root) not in seen:
        seen.add(id(root))
        root = parents[id(root)]
    found, buffers, above = [], [], set()
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
        buffers.extend((b, below(path, name)) for name, b in module._buffers.items() if b is not None)
        for name, child in module._modules.items():
            if child is not None:
                of_layer = computed or (layer and name == "parametrizations" and (layer, kind))
                walk(child, below(path, name), sequence_first, of_layer)
        above.discard(id(module))
    walk(root, "", False)
    if not any(known() is root for known in _networks):
        _networks.append(weakref.ref(root))
    return type(root).__name__, found, buffers
)python";

/// `found` and `buffers` keep the tensors until they are held here.
constexpr const char* kAsk = R"python(
_network, _found, _buffers = _look(_address)
_text = "\n".join([_network] +
    ["\t".join((str(p._cdata), layer, kind, name, str(int(first)))) for p, layer, kind, name, first in _found] +
    ["\t".join((str(b._cdata), name)) for b, name in _buffers])
)python";

/// A parameter has five fields in its line, a buffer two.
Network network_from(const std::string& text) {
  Network network;
  network.language = "Python";
  std::istringstream lines(text);
  std::getline(lines, network.type);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream text_fields(line);
    std::vector<std::string> fields;
    for (std::string field; std::getline(text_fields, field, '\t');) fields.push_back(std::move(field));
    if (fields.size() == 2) network.buffers.emplace_back(fields[1], tensor_at(fields[0]));
    if (fields.size() != 5) continue;
    network.parameters.push_back({fields[1], fields[2], fields[3], tensor_at(fields[0]), fields[4] == "1"});
  }
  return network;
}

}  // namespace

std::optional<Network> PythonModules::network_of(const at::Tensor& leaf) {
  std::optional<Interpreter> python = Interpreter::lock();
  if (!python) return std::nullopt;
  static const bool defined = python->run(kDefinitions);
  if (!defined) return std::nullopt;
  python->set("_address", leaf);
  Network network;
  if (python->run(kAsk)) network = network_from(python->text("_text"));
  python->run("_network = _found = _buffers = _text = None");
  return network.parameters.empty() ? std::nullopt : std::optional(std::move(network));
}

}  // namespace dds::attach
