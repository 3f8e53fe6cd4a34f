// Files of tensors by name, as Python's torch.save writes a dict of them.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace dds::attach {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// Puts the file in place as a whole. The tensors are on the CPU. Throws IoError.
void save_tensors(const std::filesystem::path& path, const NamedTensors& tensors);

}  // namespace dds::attach
