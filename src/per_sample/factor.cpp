#include "src/per_sample/factor.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/constant_pad_nd.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <utility>

namespace dds::hooks {
namespace {

std::int64_t product(at::IntArrayRef sizes) {
  std::int64_t result = 1;
  for (const std::int64_t size : sizes) result *= size;
  return result;
}

/// The windows of images (b, k, channels, space...) as (b, g, k * positions, channels / g * kernel).
at::Tensor cut(const at::Tensor& images, std::int64_t groups, const Windows& windows) {
  const std::size_t dims = windows.kernel.size();
  std::vector<std::int64_t> padding;  // last dimension first
  for (std::size_t i = dims; i-- > 0;) {
    padding.push_back(windows.before[i]);
    padding.push_back(windows.after[i]);
  }
  const bool padded = std::any_of(padding.begin(), padding.end(), [](std::int64_t p) { return p != 0; });
  const at::Tensor image = (padded ? at::constant_pad_nd(images, padding) : images).contiguous();

  const std::int64_t b = image.size(0), k = image.size(1), channels = image.size(2) / groups;
  std::vector<std::int64_t> sizes{b, groups, channels},
      strides{image.stride(0), channels * image.stride(2), image.stride(2)};
  for (std::size_t i = 0; i < dims; ++i) {
    sizes.push_back(windows.kernel[i]);
    strides.push_back(windows.dilation[i] * image.stride(static_cast<std::int64_t>(i) + 3));
  }
  sizes.push_back(k);
  strides.push_back(image.stride(1));
  for (std::size_t i = 0; i < dims; ++i) {
    sizes.push_back(windows.positions[i]);
    strides.push_back(windows.stride[i] * image.stride(static_cast<std::int64_t>(i) + 3));
  }
  // Positions last: they are what lies side by side in the image.
  return image.as_strided(sizes, strides)
      .reshape({b, groups, channels * product(windows.kernel), k * product(windows.positions)})
      .transpose(2, 3);
}

}  // namespace

Factor::Factor(at::Tensor rows)
    : source_(std::move(rows)), groups_(source_.size(1)), positions_(source_.size(2)), features_(source_.size(3)) {}

Factor::Factor(at::Tensor image, std::int64_t groups, Windows windows)
    : source_(std::move(image)), windows_(std::move(windows)), cut_(true), groups_(groups) {
  positions_ = source_.size(1) * product(windows_.positions);
  features_ = source_.size(2) / groups * product(windows_.kernel);
}

at::Tensor weighted_rows(const at::Tensor& rows, const at::Tensor& weights) {
  std::vector<std::int64_t> shape(static_cast<std::size_t>(rows.dim()), 1);
  shape.front() = rows.size(0);
  return rows.mul(weights.to(rows.device(), c10::toRealValueType(rows.scalar_type())).view(shape));
}

Factor Factor::weighted(const at::Tensor& weights) const {
  Factor result = *this;
  result.source_ = weighted_rows(source_, weights);
  return result;
}

at::Tensor Factor::slice(std::int64_t begin, std::int64_t end) const {
  const at::Tensor part = source_.narrow(0, begin, end - begin);
  return cut_ ? cut(part, groups_, windows_) : part;
}

at::Tensor stacked(const at::Tensor& slice) {
  return slice.transpose(0, 1).reshape({slice.size(1), slice.size(0) * slice.size(2), slice.size(3)});
}

std::int64_t block_of(std::int64_t samples, std::int64_t bytes, std::int64_t max_bytes) {
  return std::clamp<std::int64_t>(max_bytes / std::max<std::int64_t>(1, bytes), 1, samples);
}

}  // namespace dds::hooks
