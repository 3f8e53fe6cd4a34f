#include "src/ranks/parcel.hpp"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <dds/error.hpp>

namespace dds {

void Parcel::append(const void* data, std::size_t size) {
  const auto* const from = static_cast<const std::byte*>(data);
  bytes_.insert(bytes_.end(), from, from + size);
}

const std::byte* Parcel::next(std::size_t size) {
  if (size > bytes_.size() - read_) {
    throw RankError(fmt::format(
        "a message of {} bytes ends where {} more were expected; all ranks must run the same version of the library",
        bytes_.size(), size - (bytes_.size() - read_)));
  }
  read_ += size;
  return bytes_.data() + read_ - size;
}

std::size_t Parcel::take_count(std::size_t entry_size) {
  const auto count = take<std::uint64_t>();
  if (count > (bytes_.size() - read_) / entry_size) next(bytes_.size());  // throws
  return count;
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
  const auto type = take<at::ScalarType>();
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(take<std::int64_t>()));
  for (std::int64_t& size : sizes) take(size);
  tensor = at::empty(sizes, at::TensorOptions(type));
  if (tensor.nbytes() > 0) std::memcpy(tensor.data_ptr(), next(tensor.nbytes()), tensor.nbytes());
}

void Parcel::take(std::vector<at::Tensor>& tensors) {
  tensors.resize(take_count(1));
  for (at::Tensor& tensor : tensors) take(tensor);
}

}  // namespace dds
