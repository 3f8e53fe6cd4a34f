#include "hooks/copy_on_write.hpp"

#include <utility>

#include "hooks/captured_access.hpp"

namespace dds::hooks {

void CopyOnWrite::hold(CallId id, const at::Tensor& tensor) {
  if (const void* storage = storage_of(tensor)) holders_[storage].push_back(id);
}

void CopyOnWrite::before_write(const at::Tensor& target, const std::optional<CallId>& except, CallRecord& calls) {
  const void* storage = storage_of(target);
  const auto holders = holders_.find(storage);
  if (!storage || holders == holders_.end()) return;
  for (const CallId id : std::exchange(holders->second, {})) {
    CapturedCall& held = calls[id];
    if (storage_of(held.output) == storage) {
      if (except == id) {
        holders->second.push_back(id);
      } else {
        CapturedAccess::set_output(held, held.output.clone());
      }
    }
    for (std::size_t i = 0; i < held.inputs.size(); ++i) {
      if (storage_of(held.inputs[i]) == storage) CapturedAccess::set_input(held, i, held.inputs[i].clone());
    }
  }
}

}  // namespace dds::hooks
