#include "hooks/memory.hpp"

namespace dds::hooks {

const void* storage_of(const at::Tensor& tensor) {
  if (!tensor.defined() || !tensor.has_storage()) return nullptr;
  return tensor.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
}

std::uint32_t version_of(const at::Tensor& tensor) {
  if (!tensor.defined() || tensor.is_inference()) return 0;
  return tensor.unsafeGetTensorImpl()->version_counter().current_version();
}

std::optional<std::int64_t> offset_within(const at::Tensor& tensor, const at::Tensor& whole) {
  const void* storage = storage_of(tensor);
  if (!storage || storage != storage_of(whole)) return std::nullopt;
  const std::int64_t offset = tensor.storage_offset() - whole.storage_offset();
  return 0 <= offset && offset < whole.numel() ? std::optional(offset) : std::nullopt;
}

}  // namespace dds::hooks
