#include "src/attach/updates.hpp"

#include <c10/core/GradMode.h>
#include <c10/core/TensorImpl.h>

#include <algorithm>

#include "hooks/memory.hpp"
#include "hooks/observer.hpp"

namespace dds::attach {
namespace {

const unsigned char* bytes_of(const at::Tensor& tensor) {
  return static_cast<const unsigned char*>(tensor.unsafeGetTensorImpl()->data());
}

bool is_plain(const at::Tensor& tensor) {
  return tensor.layout() == at::kStrided && tensor.numel() > 0 && tensor.has_storage() && !tensor.is_meta();
}

/// FNV-1a over so many of the elements, about, evenly spaced, and over those in `places`.
std::optional<std::uint64_t> hash_of(const at::Tensor& tensor, std::int64_t spaced,
                                     const std::vector<std::int64_t>& places) {
  if ((spaced == 0 && places.empty()) || !is_plain(tensor)) return std::nullopt;
  std::uint64_t hash = 14695981039346656037U;
  const auto size = static_cast<std::int64_t>(tensor.element_size());
  const auto add = [&](const unsigned char* element) {
    for (std::int64_t byte = 0; byte < size; ++byte) hash = (hash ^ element[byte]) * 1099511628211U;
  };
  for (const std::int64_t place : places) add(bytes_of(tensor) + place * size);
  if (spaced == 0) return hash;
  const std::int64_t stride = std::max<std::int64_t>(1, tensor.numel() / spaced);
  if (tensor.is_cpu() && tensor.is_non_overlapping_and_dense()) {
    for (std::int64_t i = 0; i < tensor.numel(); i += stride) add(bytes_of(tensor) + i * size);
    return hash;
  }
  const hooks::Unseen unseen;
  const at::NoGradGuard no_grad;
  at::Tensor sample = tensor.detach();
  if (!sample.is_non_overlapping_and_dense()) sample = sample.contiguous();
  sample = sample.as_strided({sample.numel()}, {1}).slice(0, 0, sample.numel(), stride).cpu().contiguous();
  for (std::int64_t i = 0; i < sample.numel(); ++i) add(bytes_of(sample) + i * size);
  return hash;
}

/// Places in the memory of a tensor on the CPU where its gradient is not zero, the first few.
std::vector<std::int64_t> places_by_gradient(const at::Tensor& tensor, std::int64_t most) {
  std::vector<std::int64_t> places;
  const at::Tensor& gradient = tensor.grad();
  if (most == 0 || !gradient.defined() || !tensor.is_cpu() || !is_plain(tensor) ||
      !tensor.is_non_overlapping_and_dense() || gradient.numel() != tensor.numel())
    return places;
  if (gradient.layout() == at::kSparse) {
    if (!tensor.is_contiguous() || tensor.dim() == 0) return places;
    const hooks::Unseen unseen;
    const at::NoGradGuard no_grad;
    const at::Tensor rows = gradient._indices().select(0, 0).contiguous();
    const std::int64_t width = tensor.numel() / tensor.size(0);
    for (std::int64_t i = 0; i < std::min(most, rows.numel()); ++i)
      places.push_back(reinterpret_cast<const std::int64_t*>(bytes_of(rows))[i] * width);
    return places;
  }
  if (!is_plain(gradient) || gradient.strides() != tensor.strides()) return places;
  const unsigned char* bytes = bytes_of(gradient);
  const std::size_t size = gradient.element_size();
  for (std::int64_t i = 0; i < gradient.numel() && std::ssize(places) < most; ++i) {
    const unsigned char* element = bytes + static_cast<std::size_t>(i) * size;
    if (std::any_of(element, element + size, [](unsigned char byte) { return byte != 0; })) places.push_back(i);
  }
  return places;
}

bool is_zero(const at::Tensor& gradient, const std::vector<std::int64_t>& places) {
  if (places.empty() || !gradient.is_cpu() || !is_plain(gradient)) return false;
  const std::size_t size = gradient.element_size();
  return std::all_of(places.begin(), places.end(), [&](std::int64_t place) {
    const unsigned char* element = bytes_of(gradient) + static_cast<std::size_t>(place) * size;
    return place < gradient.numel() && std::all_of(element, element + size, [](unsigned char b) { return b == 0; });
  });
}

}  // namespace

void Watch::remember(const std::vector<at::Tensor>& tensors, const Elements& elements) {
  states_.clear();
  for (const at::Tensor& tensor : tensors) {
    const std::int64_t spaced = tensor.is_cpu() || elements.on_accelerators ? elements.spaced : 0;
    std::vector<std::int64_t> places = places_by_gradient(tensor, elements.by_gradient);
    const auto hash = hash_of(tensor, spaced, places);
    states_.insert_or_assign(tensor.unsafeGetTensorImpl(),
                             State{hooks::storage_of(tensor), hooks::version_of(tensor), spaced, std::move(places),
                                   hash, tensor.grad().defined()});
  }
}

bool Watch::differs(const at::Tensor& tensor, const State& before) {
  return hooks::storage_of(tensor) != before.storage || hooks::version_of(tensor) != before.version ||
         (before.elements && hash_of(tensor, before.spaced, before.places) != before.elements);
}

bool Watch::changed(const at::Tensor& tensor) const {
  const auto before = states_.find(tensor.unsafeGetTensorImpl());
  return before != states_.end() && differs(tensor, before->second);
}

std::set<TensorId> Watch::changed(const std::vector<at::Tensor>& tensors) const {
  std::set<TensorId> result;
  for (const at::Tensor& tensor : tensors) {
    if (changed(tensor)) result.insert(tensor.unsafeGetTensorImpl());
  }
  return result;
}

bool Watch::by_version(const std::set<TensorId>& changed, const std::vector<at::Tensor>& tensors) const {
  return std::all_of(tensors.begin(), tensors.end(), [&](const at::Tensor& tensor) {
    const TensorId id = tensor.unsafeGetTensorImpl();
    return !changed.contains(id) || hooks::version_of(tensor) != states_.at(id).version;
  });
}

bool Watch::gradients_cleared(const std::vector<at::Tensor>& tensors) const {
  bool had = false;
  for (const at::Tensor& tensor : tensors) {
    const auto before = states_.find(tensor.unsafeGetTensorImpl());
    if (before == states_.end() || !before->second.had_gradient) continue;
    had = true;
    if (tensor.grad().defined() && !is_zero(tensor.grad(), before->second.places)) return false;
  }
  return had;
}

Steps::Event Steps::next(const std::set<TensorId>& updated, bool sure) {
  const bool twice =
      sure && std::any_of(updated.begin(), updated.end(), [this](TensorId id) { return this_step_.contains(id); });
  if (twice && in_step_ > 0) {
    // What was taken for the first step's pattern never came again, or comes no more.
    step_ += step_ == 1 ? length_ - 1 : 0;
    step_ += in_step_ + 1;
    length_ = 1;
    in_step_ = 0;
    this_step_.clear();
    return Event::Skips;
  }
  if (++in_step_ < length_) {
    this_step_.insert(updated.begin(), updated.end());
    return Event::Within;
  }
  in_step_ = 0;
  ++step_;
  this_step_.clear();
  return Event::Ends;
}

Steps::Event Steps::update(const std::set<TensorId>& updated, const std::set<TensorId>& used, bool sure) {
  if (certain_) return next(updated, sure);
  const auto in = [](const std::set<TensorId>& set) { return [&](TensorId id) { return set.contains(id); }; };
  if (std::any_of(updated.begin(), updated.end(), in(first_))) {
    certain_ = true;
    const bool was_open = step_ == 0;
    step_ = 1;
    in_step_ = 1;
    this_step_ = updated;
    if (in_step_ == length_) {
      in_step_ = 0;
      this_step_.clear();
      ++step_;
      if (!was_open) return Event::Ends;
    }
    return was_open ? Event::Skips : Event::Within;
  }
  const bool reopens = step_ > 0;
  first_.insert(updated.begin(), updated.end());
  ++length_;
  step_ = std::all_of(used.begin(), used.end(), in(first_)) ? 1 : 0;
  if (reopens) return Event::Reopens;
  return step_ == 1 ? Event::Ends : Event::Within;
}

}  // namespace dds::attach
