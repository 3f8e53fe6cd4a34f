// Files of tensors, as PyTorch writes them on either side of the language.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace dds::tool {

/// Tensors by name, in the order of the file.
struct NamedTensors {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  bool numbered = false;                                         ///< the names are places in a list: "0", "1", ...
  std::vector<std::pair<std::string, std::string>> passed_over;  ///< what is no tensor: its name, and what it is

  /// The names, joined by ", ".
  std::string names() const;
  bool has(const std::string& name) const;
  /// Throws InvalidArgument for a name that is not there, with those that there are, and for one of what is no tensor.
  const at::Tensor& at(const std::string& name) const;
  /// Throws InvalidArgument if the name is of what is no tensor.
  void check_tensor(const std::string& name) const;
};

/// Accepts what C++ `torch::save` writes of a tensor, a vector of tensors or an OutputArchive of named tensors, and
/// what Python `torch.save` writes of a tensor, a list or tuple of tensors, or a dict of tensors by name. Throws
/// IoError for anything else, with what the file is, and where no tensor is in it.
NamedTensors load_tensors(const std::filesystem::path& path);

}  // namespace dds::tool
