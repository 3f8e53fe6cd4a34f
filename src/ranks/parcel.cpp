#include "src/ranks/parcel.hpp"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>
#include <dds/error.hpp>
#include <limits>

namespace dds {
namespace {

constexpr const char* kSameVersion = "all ranks must run the same version of the library";

}  // namespace

void Parcel::append(const void* data, std::size_t size) {
  const auto* const from = static_cast<const std::byte*>(data);
  bytes_.insert(bytes_.end(), from, from + size);
}

const std::byte* Parcel::next(std::size_t size) {
  if (size > bytes_.size() - read_) {
    throw RankError(fmt::format("a message of {} bytes ends where {} more were expected; {}", bytes_.size(),
                                size - (bytes_.size() - read_), kSameVersion));
  }
  read_ += size;
  return bytes_.data() + read_ - size;
}

std::size_t Parcel::take_count(std::size_t entry_size) {
  const auto count = take<std::uint64_t>();
  if (count > (bytes_.size() - read_) / entry_size) {
    throw RankError(fmt::format("a message of {} bytes tells of {} things of at least {} bytes in the last {}; {}",
                                bytes_.size(), count, entry_size, bytes_.size() - read_, kSameVersion));
  }
  return count;
}

std::int64_t Parcel::checked(std::int64_t value, std::int64_t most) {
  if (value >= 0 && value <= most) return value;
  throw RankError(fmt::format("a message has {} where 0 to {} was expected; {}", value, most, kSameVersion));
}

void Parcel::put(std::string_view text) {
  put(std::uint64_t{text.size()});
  append(text.data(), text.size());
}

void Parcel::put(const std::vector<double>& values) {
  put(std::uint64_t{values.size()});
  append(values.data(), values.size() * sizeof(double));
}

void Parcel::put(const at::Tensor& tensor) {
  put(tensor.defined());
  if (!tensor.defined()) return;
  const at::Tensor data = tensor.detach().cpu().contiguous();
  put(data.scalar_type());
  put(data.dim());
  for (const std::int64_t size : data.sizes()) put(size);
  append(data.data_ptr(), data.nbytes());
}

void Parcel::put(const std::vector<at::Tensor>& tensors) {
  put(std::uint64_t{tensors.size()});
  for (const at::Tensor& tensor : tensors) put(tensor);
}

void Parcel::take(std::string& text) {
  const std::size_t size = take_count(1);
  text.assign(reinterpret_cast<const char*>(next(size)), size);
}

void Parcel::take(std::vector<double>& values) {
  values.resize(take_count(sizeof(double)));
  const std::size_t size = values.size() * sizeof(double);
  if (size > 0) std::memcpy(values.data(), next(size), size);
}

void Parcel::take(at::Tensor& tensor) {
  tensor = at::Tensor();
  if (!take<bool>()) return;
  const auto type = take_up_to(at::ScalarType::Undefined);
  std::vector<std::int64_t> sizes(take_count(sizeof(std::int64_t)));
  for (std::int64_t& size : sizes) take(size);
  bool fits = type != at::ScalarType::Undefined && !at::isQIntType(type);
  // Of an empty one too the strides, and with them the bytes that they span, must be numbers.
  const bool empty = std::find(sizes.begin(), sizes.end(), 0) != sizes.end();
  const std::size_t room = empty ? std::numeric_limits<std::int64_t>::max() : bytes_.size() - read_;
  std::int64_t most = fits ? static_cast<std::int64_t>(room / at::elementSize(type)) : 0;
  for (const std::int64_t size : sizes) {
    fits = fits && size >= 0 && size <= most;
    if (fits) most /= std::max<std::int64_t>(size, 1);
  }
  if (!fits || most == 0) {
    throw RankError(
        fmt::format("a message of {} bytes tells of a tensor of type {} and {} dimensions that cannot be; {}",
                    bytes_.size(), static_cast<int>(type), sizes.size(), kSameVersion));
  }
  tensor = at::empty(sizes, at::TensorOptions(type));
  if (tensor.nbytes() > 0) std::memcpy(tensor.data_ptr(), next(tensor.nbytes()), tensor.nbytes());
}

void Parcel::take(std::vector<at::Tensor>& tensors) {
  tensors.resize(take_count(1));
  for (at::Tensor& tensor : tensors) take(tensor);
}

}  // namespace dds
