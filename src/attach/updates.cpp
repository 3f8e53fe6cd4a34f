#include "src/attach/updates.hpp"

#include <c10/core/GradMode.h>
#include <c10/core/TensorImpl.h>

#include <algorithm>

#include "hooks/memory.hpp"
#include "hooks/observer.hpp"

namespace dds::attach {
namespace {

/// FNV-1a over so many of the elements, about, evenly spaced.
std::optional<std::uint64_t> hash_of(const at::Tensor& tensor, std::int64_t elements) {
  if (elements == 0 || tensor.layout() != at::kStrided || tensor.numel() == 0) return std::nullopt;
  const hooks::Unseen unseen;
  const at::NoGradGuard no_grad;
  at::Tensor sample = tensor.detach();
  if (!sample.is_non_overlapping_and_dense()) sample = sample.contiguous();
  sample = sample.as_strided({sample.numel()}, {1});
  const std::int64_t stride = std::max<std::int64_t>(1, sample.numel() / elements);
  if (!sample.is_cpu()) sample = sample.slice(0, 0, sample.numel(), stride).cpu();
  const std::int64_t each = tensor.is_cpu() ? stride : 1;
  const auto* bytes = static_cast<const unsigned char*>(sample.unsafeGetTensorImpl()->data());
  const auto size = static_cast<std::int64_t>(sample.element_size());
  std::uint64_t hash = 14695981039346656037U;
  for (std::int64_t i = 0; i < sample.numel(); i += each) {
    for (std::int64_t byte = 0; byte < size; ++byte)
      hash = (hash ^ bytes[i * sample.stride(0) * size + byte]) * 1099511628211U;
  }
  return hash;
}

}  // namespace

void Watch::remember(const std::vector<at::Tensor>& tensors, std::int64_t elements) {
  states_.clear();
  elements_ = elements;
  for (const at::Tensor& tensor : tensors) {
    states_.emplace(tensor.unsafeGetTensorImpl(),
                    State{hooks::storage_of(tensor), hooks::version_of(tensor), hash_of(tensor, elements)});
  }
}

bool Watch::differs(const at::Tensor& tensor, const State& before) const {
  return hooks::storage_of(tensor) != before.storage || hooks::version_of(tensor) != before.version ||
         (before.elements && hash_of(tensor, elements_) != before.elements);
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

Steps::Event Steps::update(const std::set<TensorId>& updated, const std::set<TensorId>& used) {
  if (certain_) {
    if (++in_step_ < length_) return Event::Within;
    in_step_ = 0;
    ++step_;
    return Event::Ends;
  }
  const auto in = [](const std::set<TensorId>& set) { return [&](TensorId id) { return set.contains(id); }; };
  if (std::any_of(updated.begin(), updated.end(), in(first_))) {
    certain_ = true;
    const bool was_open = step_ == 0;
    step_ = 1;
    in_step_ = 1;
    if (in_step_ == length_) {
      in_step_ = 0;
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
