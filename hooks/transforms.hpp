// The transforms of torch.func and their kin: vmap, grad, jvp, functionalize, and backward passes that are vectorised.
// What runs in one computes with tensors that stand for others.
#pragma once

#include <ATen/core/Tensor.h>

namespace dds::hooks {

/// True while this thread is within a transform.
bool transforming();

/// True for a tensor that stands for others in a transform. Its memory is not what its sizes say.
bool is_stand_in(const at::Tensor& tensor);

}  // namespace dds::hooks
