// What was captured, as it is asked for afterwards.
#include <algorithm>
#include <dds/recorder.hpp>

#include "hooks/gradient_slot.hpp"
#include "hooks/memory.hpp"

namespace dds {

void RankBound::add(const RankBound& other) {
  const std::int64_t largest = std::max(rank, other.rank);
  shape = std::max(shape, other.shape);
  if (unknown.empty()) unknown = other.unknown;
  const bool both = rank > 0 && other.rank > 0;
  adds = (rank == 0 || adds) && (other.rank == 0 || other.adds);
  rank = std::min(shape, rank + other.rank);
  if (both && !adds && largest < rank && unknown.empty()) unknown = "several batches";
}

RankBound RankBound::times(std::int64_t count) const {
  RankBound all = *this;
  all.rank = rank > shape / count ? shape : rank * count;
  if (all.rank > rank && !adds && unknown.empty()) all.unknown = "several gradients of a sample";
  return all;
}

at::Tensor CapturedCall::gradient() const { return slot_ ? slot_->gradient() : at::Tensor(); }
at::Tensor CapturedCall::take_gradient() { return slot_ ? slot_->take() : at::Tensor(); }
std::int64_t CapturedCall::backwards() const { return slot_ ? slot_->backwards() : 0; }
bool CapturedCall::output_intact() const { return hooks::version_of(output) == output_version_; }
bool CapturedCall::input_intact() const {
  return inputs.empty() || hooks::version_of(inputs.front()) == input_version_;
}

at::Tensor CapturedLoss::logits_gradient() const { return at_logits_ ? at_logits_->gradient() : at::Tensor(); }
at::Tensor CapturedLoss::result_gradient() const { return at_result_ ? at_result_->gradient() : at::Tensor(); }
std::int64_t CapturedLoss::backwards() const { return at_result_ ? at_result_->backwards() : 0; }
bool CapturedLoss::logits_intact() const { return hooks::version_of(logits) == version_; }

}  // namespace dds
