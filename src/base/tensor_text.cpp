// Apart from check.cpp, which programs without LibTorch link too.
#include <ATen/core/Tensor.h>
#include <fmt/ranges.h>

#include "src/base/check.hpp"

namespace dds {

std::string text_of(const at::Tensor& tensor) {
  return tensor.defined() ? fmt::format("{} {}", c10::toString(tensor.scalar_type()), text_of(tensor.sizes()))
                          : "undefined";
}

std::string text_of(c10::ArrayRef<std::int64_t> sizes) { return fmt::format("[{}]", fmt::join(sizes, ", ")); }

}  // namespace dds
