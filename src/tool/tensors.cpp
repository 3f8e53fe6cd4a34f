#include "src/tool/tensors.hpp"

#include <c10/util/Exception.h>
#include <caffe2/serialize/inline_container.h>
#include <fmt/format.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/csrc/jit/serialization/pickle.h>

#include <algorithm>
#include <dds/error.hpp>

#include "src/base/check.hpp"
#include "src/log/file.hpp"
#include "src/model/file_kind.hpp"

namespace dds::tool {
namespace {

/// C++ `torch::save` writes a TorchScript archive without code, Python's a pickle.
bool is_archive(const std::filesystem::path& path) {
  return caffe2::serialize::PyTorchStreamReader(path.string()).hasRecord("constants.pkl");
}

bool is_number(const std::string& name) {
  return !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char c) { return c >= '0' && c <= '9'; });
}

std::string kind_of(const c10::IValue& value) {
  if (value.isTensor()) return "a tensor";
  if (value.isList()) return "a list";
  if (value.isTuple()) return "a tuple";
  if (value.isGenericDict()) return "a dict";
  return value.isNone() ? "None" : fmt::format("of type {}", value.tagKind());
}

void add(NamedTensors& found, const std::string& name, const c10::IValue& value) {
  if (value.isTensor()) {
    found.tensors.emplace_back(name, value.toTensor().detach());
  } else {
    found.passed_over.emplace_back(name, kind_of(value));
  }
}

NamedTensors of_archive(const std::filesystem::path& path) {
  NamedTensors found;
  const torch::jit::Module archive = torch::jit::load(path.string(), at::Device(at::kCPU));
  if (archive.find_method("forward")) throw InvalidArgument("a network: TorchScript with a forward");
  for (const auto& attribute : archive.named_attributes(/*recurse=*/false)) {
    if (attribute.name != "training") add(found, attribute.name, attribute.value);
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
      const c10::IValue& key = entry.key();
      if (key.isString() || key.isInt()) {
        add(found, key.isInt() ? std::to_string(key.toInt()) : key.toStringRef(), entry.value());
      } else {
        found.passed_over.emplace_back(fmt::format("a key {}", kind_of(key)), kind_of(entry.value()));
      }
    }
    return found;
  }
  found.numbered = true;
  const auto add_next = [&](const c10::IValue& one) {
    const std::string place = std::to_string(found.tensors.size());
    if (!one.isTensor()) throw InvalidArgument(fmt::format("a list whose entry {} is {}", place, kind_of(one)));
    add(found, place, one);
  };
  if (value.isTuple()) {
    for (const c10::IValue& one : value.toTupleRef().elements()) add_next(one);
  } else if (value.isTensorList()) {
    for (const at::Tensor& one : value.toTensorVector()) add_next(one);
  } else if (value.isList()) {
    for (const c10::IValue& one : value.toListRef()) add_next(one);
  } else {
    add_next(value);
  }
  return found;
}

}  // namespace

std::string NamedTensors::names() const {
  std::string text;
  for (const auto& [name, tensor] : tensors) text += (text.empty() ? "" : ", ") + name;
  return text;
}

bool NamedTensors::has(const std::string& name) const {
  return std::any_of(tensors.begin(), tensors.end(), [&](const auto& one) { return one.first == name; });
}

void NamedTensors::check_tensor(const std::string& name) const {
  for (const auto& [other, kind] : passed_over) {
    if (other == name)
      throw_invalid("data", fmt::format("'{}'", name), kind, "a tensor, as torch.tensor(...) makes one");
  }
}

const at::Tensor& NamedTensors::at(const std::string& name) const {
  check_tensor(name);
  const auto found = std::find_if(tensors.begin(), tensors.end(), [&](const auto& one) { return one.first == name; });
  check(found != tensors.end(), "data", "the name of a tensor", name, "a name of the file; there are: {}", names());
  return found->second;
}

NamedTensors load_tensors(const std::filesystem::path& path) {
  const auto refuse = [&](const std::string& what) {
    throw IoError(fmt::format(
        "{} is {}, expected tensors: one, a list of them or a dict of them by name, as torch.save writes it",
        path.string(), what));
  };
  if (!std::filesystem::exists(path)) throw IoError(fmt::format("{}: there is no such file", path.string()));
  if (std::filesystem::is_directory(path)) refuse("a folder");
  NamedTensors found;
  try {
    found = is_archive(path) ? of_archive(path) : of_pickle(path);
  } catch (const c10::Error& error) {
    const std::string kind = kind_of_file(path), what = error.what_without_backtrace();
    refuse(kind.empty() ? fmt::format("no file of tensors ({})", what.substr(0, what.find('\n'))) : kind);
  } catch (const InvalidArgument& error) {
    refuse(error.what());
  }
  if (found.tensors.empty()) {
    refuse(found.passed_over.empty() ? "empty"
                                     : fmt::format("without a tensor ('{}' in it is {})", found.passed_over[0].first,
                                                   found.passed_over[0].second));
  }
  return found;
}

}  // namespace dds::tool
