#include "hooks/parameter_index.hpp"

#include <algorithm>

namespace dds::hooks {

std::size_t ParameterIndex::add(const at::Tensor& tensor) {
  const std::size_t number = tensors_.size();
  if (const void* storage = storage_of(tensor)) {
    std::vector<std::size_t>& here = by_storage_[storage];
    const auto tied = std::find_if(here.begin(), here.end(), [&](std::size_t known) {
      return tensors_[known].storage_offset() == tensor.storage_offset();
    });
    if (tied != here.end()) return *tied;
    here.push_back(number);
  }
  tensors_.push_back(tensor);
  return number;
}

std::optional<ParameterIndex::Place> ParameterIndex::find(const at::Tensor& tensor) const {
  const auto here = by_storage_.find(storage_of(tensor));
  if (here == by_storage_.end()) return std::nullopt;
  for (const std::size_t number : here->second) {
    if (const auto offset = offset_within(tensor, tensors_[number]))
      return Place{number, *offset, tensors_[number].numel()};
  }
  return std::nullopt;
}

bool ParameterIndex::moved() const {
  return std::any_of(by_storage_.begin(), by_storage_.end(), [&](const auto& entry) {
    return std::any_of(entry.second.begin(), entry.second.end(),
                       [&](std::size_t number) { return storage_of(tensors_[number]) != entry.first; });
  });
}

void ParameterIndex::clear() {
  tensors_.clear();
  by_storage_.clear();
}

}  // namespace dds::hooks
