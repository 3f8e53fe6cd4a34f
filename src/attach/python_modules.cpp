#include <sstream>
#include <string>
#include <string_view>
#include <utility>

#include "src/attach/interpreter.hpp"
#include "src/attach/module_tree.hpp"

namespace dds::attach {
namespace asset {

std::string_view python_modules();  // python_modules.py, with a zero behind it

}  // namespace asset

namespace {

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

/// A module's parameters are objects of the class Parameter, which few other tensors are.
bool PythonModules::may_have(const at::Tensor& leaf, bool again) {
  std::optional<Interpreter> python = Interpreter::lock();
  if (!python || again) return false;
  if (!python->set_object("_leaf", leaf)) return true;
  python->run(
      "import sys\n"
      "_is = '1' if isinstance(_leaf, sys.modules['torch'].nn.Parameter) else ''\n"
      "_leaf = None");
  return !python->text("_is").empty();
}

std::optional<Network> PythonModules::network_of(const at::Tensor& leaf) {
  std::optional<Interpreter> python = Interpreter::lock();
  if (!python) return std::nullopt;
  static const bool defined = python->run(asset::python_modules().data());
  if (!defined) return std::nullopt;
  python->set("_address", leaf);
  Network network;
  if (python->run(kAsk)) network = network_from(python->text("_text"));
  python->run("_network = _found = _buffers = _text = None");
  return network.parameters.empty() ? std::nullopt : std::optional(std::move(network));
}

}  // namespace dds::attach
