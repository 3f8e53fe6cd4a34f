#include "src/attach/python_model.hpp"

#include <charconv>
#include <iterator>
#include <optional>
#include <sstream>
#include <string_view>

#include "src/attach/interpreter.hpp"

namespace dds::attach {
namespace asset {

std::string_view python_model();  // python_model.py, with a zero behind it

}  // namespace asset

namespace {

std::optional<Interpreter> lock() {
  std::optional<Interpreter> python = Interpreter::lock();
  if (!python) return std::nullopt;
  static const bool defined = python->run(asset::python_model().data());
  return defined ? std::move(python) : std::nullopt;
}

/// Numbers that blanks separate.
std::vector<std::string> words(const std::string& text) {
  std::istringstream stream(text);
  return {std::istream_iterator<std::string>(stream), {}};
}

std::int64_t number(std::string_view text) {
  std::int64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

bool PythonModel::there() { return Interpreter::lock().has_value(); }

void PythonModel::watch() {
  if (auto python = lock()) python->run("_try(lambda: (_watch(), ''), None)");
}

void PythonModel::stop() {
  if (auto python = lock()) python->run("_stop()");
}

std::vector<PythonModel::Output> PythonModel::outputs() {
  auto python = lock();
  if (!python) return {};
  python->run(
      "_text = ' '.join(f'{i} {j} {x._cdata}' for i, c in enumerate(_calls) for j, (_, x) in enumerate(c.outputs))");
  const std::vector<std::string> found = words(python->text("_text"));
  std::vector<Output> outputs;
  for (std::size_t i = 0; i + 2 < found.size(); i += 3) {
    outputs.push_back({number(found[i]), number(found[i + 1]), tensor_at(found[i + 2])});
  }
  return outputs;
}

std::vector<at::Tensor> PythonModel::choose(const Output& output, std::int64_t rows, bool classes_second) {
  auto python = lock();
  if (!python) return {};
  python->set("_number", output.call);
  python->set("_place", output.place);
  python->set("_rows", rows);
  python->set("_classes_second", classes_second ? 1 : 0);
  python->run(
      "_text = ' '.join(str(x._cdata) for x in _try(lambda: _choose(_number, _place, _rows, _classes_second), []))");
  std::vector<at::Tensor> inputs;
  for (const std::string& address : words(python->text("_text"))) inputs.push_back(tensor_at(address));
  return inputs;
}

std::string PythonModel::trace() {
  auto python = lock();
  if (!python) return "";
  python->run("_archive = _try(_trace, b'')\n_chosen = None");
  std::string archive = python->bytes("_archive");
  python->run("_archive = None");
  return archive;
}

std::string PythonModel::error() {
  auto python = lock();
  return python ? python->text("_error") : "the interpreter has ended";
}

}  // namespace dds::attach
