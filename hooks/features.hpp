// Which dimensions of a tensor count features.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace dds::hooks {

/// A dimension as it is counted from the front; a negative one counts from the end.
inline std::int64_t from_front(std::int64_t dim, std::int64_t rank) { return dim < 0 ? dim + rank : dim; }

/// The same of several. Those that a tensor of `rank`
/// dimensions does not have are left out.
inline std::vector<std::int64_t> from_front(const std::vector<std::int64_t>& dims, std::int64_t rank) {
  std::vector<std::int64_t> result;
  for (const std::int64_t dim : dims) {
    const std::int64_t own = from_front(dim, rank);
    if (own >= 0 && own < rank) result.push_back(own);
  }
  return result;
}

/// Number of features: the product of the sizes of these dimensions.
inline std::int64_t width_of(const at::Tensor& tensor, const std::vector<std::int64_t>& features) {
  std::int64_t width = 1;
  for (const std::int64_t dim : features) width *= tensor.size(dim);
  return width;
}

}  // namespace dds::hooks
