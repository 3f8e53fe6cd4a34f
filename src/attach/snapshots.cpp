#include "src/attach/snapshots.hpp"

#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <dds/error.hpp>
#include <optional>
#include <system_error>
#include <utility>

#include "hooks/memory.hpp"
#include "hooks/observer.hpp"
#include "src/attach/names.hpp"
#include "src/attach/tensor_file.hpp"

namespace dds::attach {

void Snapshots::take(const at::Tensor& tensor) {
  if (!tensor.has_storage() || tensor.is_meta()) return;
  const auto [place, is_new] = copies_.try_emplace(tensor.unsafeGetTensorImpl());
  if (!is_new) return;
  place->second = {tensor, tensor.detach().to(at::kCPU, /*non_blocking=*/false, /*copy=*/true),
                   hooks::storage_of(tensor), hooks::version_of(tensor)};
}

void Snapshots::take(const Leaves& leaves, const std::vector<at::Tensor>& used, bool anew) {
  const hooks::Unseen unseen;
  const at::NoGradGuard no_grad;
  for (const at::Tensor& leaf : used) {
    if ((!anew && leaves.known(leaf)) || !asked_.insert(leaf.unsafeGetTensorImpl()).second) continue;
    const std::optional<Network> network = leaves.network_of(leaf);
    if (!network) continue;
    for (const hooks::FoundParameter& parameter : network->parameters) {
      asked_.insert(parameter.tensor.unsafeGetTensorImpl());
      take(parameter.tensor);
    }
    for (const auto& [name, buffer] : network->buffers) take(buffer);
  }
  if (leaves.size() == known_) return;
  known_ = leaves.size();
  leaves.for_each([&](const hooks::FoundParameter& parameter) { take(parameter.tensor); });
  leaves.for_each_named_buffer([&](const std::string&, const at::Tensor& buffer) { take(buffer); });
}

bool Snapshots::outdated(const std::vector<at::Tensor>& used) const {
  return std::any_of(used.begin(), used.end(), [&](const at::Tensor& tensor) {
    const auto copy = copies_.find(tensor.unsafeGetTensorImpl());
    return copy != copies_.end() &&
           (copy->second.storage != hooks::storage_of(tensor) || copy->second.version != hooks::version_of(tensor));
  });
}

void Snapshots::drop() {
  copies_.clear();
  asked_.clear();
  known_ = 0;
}

void Snapshots::write(const std::filesystem::path& folder, std::int64_t step, const Leaves& leaves) {
  NamedTensors tensors;
  const auto add = [&](const std::string& name, const at::Tensor& tensor) {
    const auto copy = copies_.find(tensor.unsafeGetTensorImpl());
    if (copy != copies_.end()) tensors.emplace_back(name, copy->second.tensor);
  };
  leaves.for_each([&](const hooks::FoundParameter& parameter) { add(parameter.name, parameter.tensor); });
  leaves.for_each_named_buffer(add);
  drop();  // the copies are in `tensors`
  if (tensors.empty()) return;
  std::error_code error;
  std::filesystem::create_directory(folder, error);
  if (error) throw IoError(fmt::format("cannot make {}: {}", folder.string(), error.message()));
  save_tensors(folder / fmt::format("{}{}", step, kTensorFile), tensors);
  ++written_;
}

}  // namespace dds::attach
