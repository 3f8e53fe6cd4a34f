#include "hooks/transforms.hpp"

#include <c10/core/DispatchKeySet.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

namespace dds::hooks {

using c10::DispatchKey;

bool transforming() {
  return c10::impl::tls_is_dispatch_key_included(DispatchKey::FuncTorchDynamicLayerFrontMode) ||
         c10::impl::tls_is_dispatch_key_included(DispatchKey::VmapMode);
}

bool is_stand_in(const at::Tensor& tensor) {
  return tensor.unsafeGetTensorImpl()->key_set().has_any(
      c10::DispatchKeySet({DispatchKey::Batched, DispatchKey::FuncTorchBatched, DispatchKey::FuncTorchGradWrapper}));
}

}  // namespace dds::hooks
