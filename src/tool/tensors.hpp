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
  bool numbered = false;  ///< the names are places in a list: "0", "1", ...

  /// The names, joined by ", ".
  std::string names() const;
  /// Throws InvalidArgument naming those that there are.
  const at::Tensor& at(const std::string& name) const;
};

/// Accepts what C++ `torch::save` writes of a tensor, a vector of tensors or an OutputArchive of named tensors, and
/// what Python `torch.save` writes of a tensor, a list or tuple of tensors, or a dict of tensors by name; other values
/// in a dict are passed over. Throws IoError for anything else, and where no tensor is in it.
NamedTensors load_tensors(const std::filesystem::path& path);

}  // namespace dds::tool
