// Steps of a program that does not tell of them: when parameters change, and how many changes make a step.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

namespace dds::attach {

using TensorId = const at::TensorImpl*;

/// Tells whether tensors have changed. It compares their memory and their versions, which rise with each write in
/// place, and elements, since a write through data() leaves the version alone. Of a tensor of many elements some are
/// compared, evenly spaced. On an accelerator that waits for the device.
class Watch {
 public:
  /// Remembers how `tensors` are now, with so many of the elements of each.
  void remember(const std::vector<at::Tensor>& tensors, std::int64_t elements);
  /// Those of `tensors` that have changed since; ones that were not remembered are not among them.
  std::set<TensorId> changed(const std::vector<at::Tensor>& tensors) const;
  bool changed(const at::Tensor& tensor) const;
  /// True if the versions alone show the change of each of `changed`.
  bool by_version(const std::set<TensorId>& changed, const std::vector<at::Tensor>& tensors) const;

 private:
  struct State {
    const void* storage;
    std::uint32_t version;
    std::optional<std::uint64_t> elements;  ///< their hash
  };
  bool differs(const at::Tensor& tensor, const State& before) const;
  std::unordered_map<TensorId, State> states_;
  std::int64_t elements_ = 0;
};

/// A step is as many updates as come before a parameter is updated for the second time: one where a single optimiser
/// has them all, two for the two networks of a GAN. The first step is thought to end when every parameter that was used
/// has been updated; if that turns out wrong, its further updates belong to it still.
class Steps {
 public:
  /// What an update was to the step in which it came.
  enum class Event {
    Within,   ///< the step goes on
    Ends,     ///< the step ends with it
    Reopens,  ///< the step before had not ended yet: this one is no step
    Skips,    ///< the step had ended with the update before, and so did, or goes on, the next
  };
  /// `updated`: what has changed; `used`: what operators have taken so far.
  Event update(const std::set<TensorId>& updated, const std::set<TensorId>& used);

  std::int64_t step() const { return step_; }                 ///< the one that is under way
  bool begins() const { return step_ > 0 && in_step_ == 0; }  ///< ... without an update so far
  bool certain() const { return certain_; }
  std::int64_t updates_per_step() const { return length_; }
  /// True if the next update may be the last of its step.
  bool last_update_is_next() const { return !certain_ || in_step_ == length_ - 1; }

 private:
  std::int64_t step_ = 0;
  std::int64_t length_ = 0;   ///< updates in a step: of the first one so far, until it is certain
  std::int64_t in_step_ = 0;  ///< updates in this step so far
  bool certain_ = false;
  std::set<TensorId> first_;  ///< updated in the first step
};

}  // namespace dds::attach
