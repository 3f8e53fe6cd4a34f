// Whose memory a tensor lies in, and whether it was written to.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace dds::hooks {

/// The memory behind a tensor, as a key. Null if it has none (sparse, MKL-DNN's own layout).
const void* storage_of(const at::Tensor& tensor);

/// Number of in-place writes to a tensor and its views. 0 where they are not counted.
std::uint32_t version_of(const at::Tensor& tensor);

/// The one rule of whose memory a tensor is: `tensor` is `whole`, or a view of it, if both have the same storage and
/// the first entry of `tensor` is one of `whole`. Returns the place of that entry in the memory of `whole`. Empty if
/// the tensor lies elsewhere. The storage alone does not decide, since flattened parameters share one.
std::optional<std::int64_t> offset_within(const at::Tensor& tensor, const at::Tensor& whole);

}  // namespace dds::hooks
