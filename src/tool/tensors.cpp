#include "src/tool/tensors.hpp"

#include <c10/util/Exception.h>
#include <caffe2/serialize/inline_container.h>
#include <fmt/format.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/csrc/jit/serialization/pickle.h>

#include <algorithm>
#include <dds/error.hpp>

#include "src/log/file.hpp"

namespace dds::tool {
namespace {

/// C++ `torch::save` writes a TorchScript archive without code, Python's a pickle.
bool is_archive(const std::filesystem::path& path) {
  return caffe2::serialize::PyTorchStreamReader(path.string()).hasRecord("constants.pkl");
}

bool is_number(const std::string& name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) { return c >= '0' && c <= '9'; });
}

NamedTensors of_archive(const std::filesystem::path& path) {
  NamedTensors found;
  const torch::jit::Module archive = torch::jit::load(path.string(), at::Device(at::kCPU));
  for (const auto& attribute : archive.named_attributes(/*recurse=*/false)) {
    if (attribute.value.isTensor()) found.tensors.emplace_back(attribute.name, attribute.value.toTensor().detach());
  }
  found.numbered =
      std::all_of(found.tensors.begin(), found.tensors.end(), [](const auto& one) { return is_number(one.first); });
  return found;
}

NamedTensors of_pickle(const std::filesystem::path& path) {
  const std::string bytes = log::read_file(path);
  const c10::IValue value = torch::jit::pickle_load({bytes.begin(), bytes.end()});
  NamedTensors found;
  if (value.isGenericDict()) {
    for (const auto& entry : value.toGenericDict()) {
      if (entry.key().isString() && entry.value().isTensor())
        found.tensors.emplace_back(entry.key().toStringRef(), entry.value().toTensor().detach());
    }
    return found;
  }
  found.numbered = true;
  const auto add = [&](const c10::IValue& one) {
    const std::string name = std::to_string(found.tensors.size());
    if (!one.isTensor()) throw InvalidArgument(fmt::format("entry {} is a {}, not a tensor", name, one.tagKind()));
    found.tensors.emplace_back(name, one.toTensor().detach());
  };
  if (value.isTuple()) {
    for (const c10::IValue& one : value.toTupleRef().elements()) add(one);
  } else if (value.isTensorList()) {
    for (const at::Tensor& one : value.toTensorVector()) add(one);
  } else if (value.isList()) {
    for (const c10::IValue& one : value.toListRef()) add(one);
  } else {
    add(value);
  }
  return found;
}

}  // namespace

std::string NamedTensors::names() const {
  std::string text;
  for (const auto& [name, tensor] : tensors) text += (text.empty() ? "" : ", ") + name;
  return text;
}

const at::Tensor& NamedTensors::at(const std::string& name) const {
  const auto found = std::find_if(tensors.begin(), tensors.end(), [&](const auto& one) { return one.first == name; });
  if (found == tensors.end())
    throw InvalidArgument(fmt::format("there is no tensor '{}'; there are: {}", name, names()));
  return found->second;
}

NamedTensors load_tensors(const std::filesystem::path& path) {
  NamedTensors found;
  try {
    if (!std::filesystem::is_regular_file(path)) throw InvalidArgument("there is no such file");
    found = is_archive(path) ? of_archive(path) : of_pickle(path);
    if (found.tensors.empty()) throw InvalidArgument("no tensor is in it");
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    throw IoError(fmt::format("{}: no file of tensors: {}", path.string(), what.substr(0, what.find('\n'))));
  } catch (const InvalidArgument& error) {
    throw IoError(fmt::format("{}: no file of tensors: {}", path.string(), error.what()));
  }
  return found;
}

}  // namespace dds::tool
