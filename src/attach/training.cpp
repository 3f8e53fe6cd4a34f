#include "src/attach/training.hpp"

#include <algorithm>
#include <utility>

namespace dds::attach {

using Evidence = Update::Evidence;

void Training::reach(const std::vector<at::Tensor>& leaves) {
  for (const at::Tensor& leaf : leaves)
    pending_.insert_or_assign(leaf.unsafeGetTensorImpl(), Weak(leaf.getIntrusivePtr()));
}

std::vector<at::Tensor> Training::pending() const {
  std::vector<at::Tensor> tensors;
  tensors.reserve(pending_.size());
  for (const auto& [id, weak] : pending_) {
    if (auto tensor = weak.lock()) tensors.emplace_back(std::move(tensor));
  }
  return tensors;
}

bool Training::on_accelerator() const {
  const std::vector<at::Tensor> tensors = pending();
  return std::any_of(tensors.begin(), tensors.end(), [](const at::Tensor& tensor) { return !tensor.is_cpu(); });
}

void Training::remember() {
  constexpr std::int64_t kAtFirst = 1024, kLater = 64, kByGradient = 8;
  std::vector<at::Tensor> tensors = pending();
  for (const Weak& weak : others_) {
    if (auto tensor = weak.lock()) tensors.emplace_back(std::move(tensor));
  }
  const bool by_elements = mistrusts_ || counts_[Evidence::Elements] > 0;
  watch_.remember(tensors, {.spaced = first_        ? kAtFirst
                                      : by_elements ? kLater
                                                    : 0,
                            .by_gradient = kByGradient,
                            .on_accelerators = first_ || by_elements});
}

void Training::pass_ends(const std::vector<at::Tensor>& others) {
  const std::thread::id here = std::this_thread::get_id();
  others_.clear();
  for (const at::Tensor& other : others) others_.emplace_back(other.getIntrusivePtr());
  overlap_ = overlap_ || (differentiated() && !differentiated_.contains(here));
  threads_.insert(here);
  differentiated_.insert(here);
  std::erase_if(pending_, [](const auto& entry) { return entry.second.expired(); });
  passing_.erase(here);
  if (within_.erase(here) > 0) {
    updated_by_ = here;
    for (const auto& [id, weak] : pending_) noted_.insert(id);
  }
  // What the optimiser of another thread has changed would be lost in what is remembered now.
  if (!updated_by_) remember();
}

void Training::optimiser_begins() { optimising_.insert(std::this_thread::get_id()); }

void Training::optimiser_ends() {
  const std::thread::id here = std::this_thread::get_id();
  optimising_.erase(here);
  if (passing_.contains(here)) within_.insert(here);
  const bool follows_passes = threads_.contains(here) ? differentiated_.contains(here) : differentiated();
  if (!follows_passes) return;
  updated_by_ = here;
  noted_.merge(watch_.changed(pending()));  // now, since a network may be gone when somebody looks
}

bool Training::optimising_elsewhere() const {
  return std::any_of(optimising_.begin(), optimising_.end(),
                     [](std::thread::id id) { return id != std::this_thread::get_id(); });
}

std::optional<Update> Training::look() {
  if (!differentiated()) return std::nullopt;
  if (!updated_by_ && optimising_elsewhere()) return std::nullopt;  // half of it is done
  const std::vector<at::Tensor> tensors = pending();
  Update update;
  update.changed = updated_by_ ? std::exchange(noted_, {}) : watch_.changed(tensors);
  if (update.changed.empty() && !updated_by_) return std::nullopt;
  if (!updated_by_) {
    const bool versions = watch_.by_version(update.changed, tensors);
    update.by = versions ? Evidence::Versions : Evidence::Elements;
  } else if (update.changed.empty()) {
    update.sure = false;
    for (const at::Tensor& tensor : tensors) update.changed.insert(tensor.unsafeGetTensorImpl());
  }
  ++counts_[update.by];
  for (const TensorId id : update.changed) pending_.erase(id);
  if (updated_by_ && differentiated_.erase(*updated_by_) > 0) {
    update.thread = *updated_by_;
    updaters_.insert(*updated_by_);
  } else {
    differentiated_.clear();
  }
  updated_by_.reset();
  update.overlaps = std::any_of(differentiated_.begin(), differentiated_.end(),
                                [this](std::thread::id other) { return updaters_.contains(other); });
  if (differentiated()) remember();
  return update;
}

std::int64_t Training::count(Evidence by) const {
  const auto found = counts_.find(by);
  return found == counts_.end() ? 0 : found->second;
}

}  // namespace dds::attach
