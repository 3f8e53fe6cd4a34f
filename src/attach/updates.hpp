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
/// compared: evenly spaced ones, and the first whose gradient is not zero, so that an embedding of which few rows were
/// looked up shows its update. On an accelerator that waits for the device.
class Watch {
 public:
  /// Which elements of each tensor are compared.
  struct Elements {
    std::int64_t spaced = 0;       ///< so many, evenly spaced
    std::int64_t by_gradient = 0;  ///< so many whose gradient is not zero; on the CPU alone
    bool on_accelerators = false;  ///< theirs too
  };
  /// Remembers how `tensors` are now.
  void remember(const std::vector<at::Tensor>& tensors, const Elements& elements);
  /// Those of `tensors` that have changed since; ones that were not remembered are not among them.
  std::set<TensorId> changed(const std::vector<at::Tensor>& tensors) const;
  bool changed(const at::Tensor& tensor) const;
  /// True if the versions alone show the change of each of `changed`.
  bool by_version(const std::set<TensorId>& changed, const std::vector<at::Tensor>& tensors) const;
  /// True if a gradient was remembered, and of all that were none is left: they are undefined now, or zero.
  bool gradients_cleared(const std::vector<at::Tensor>& tensors) const;

 private:
  struct State {
    const void* storage;
    std::uint32_t version;
    std::int64_t spaced;
    std::vector<std::int64_t> places;       ///< of elements with a gradient, in memory
    std::optional<std::uint64_t> elements;  ///< their hash
    bool had_gradient;
  };
  static bool differs(const at::Tensor& tensor, const State& before);
  std::unordered_map<TensorId, State> states_;
};

/// A step is as many updates as come before a parameter is updated for the second time: one where a single optimiser
/// has them all, two for the two networks of a GAN. The first step is thought to end when every parameter that was used
/// has been updated; if that turns out wrong, its further updates belong to it still. Where a parameter is updated
/// twice within such a step, the training goes about it in another way from then on: each update is a step.
class Steps {
 public:
  /// What an update was to the step in which it came.
  enum class Event {
    Within,   ///< the step goes on
    Ends,     ///< the step ends with it
    Reopens,  ///< the step before had not ended yet: this one is no step
    Skips,    ///< the step had ended with the update before, and so did, or goes on, the next
  };
  /// `updated`: what has changed; `used`: what operators and passes have taken so far. `sure`: each of `updated` is
  /// seen to have changed; otherwise they may be too many.
  Event update(const std::set<TensorId>& updated, const std::set<TensorId>& used, bool sure = true);

  std::int64_t step() const { return step_; }                 ///< the one that is under way
  bool begins() const { return step_ > 0 && in_step_ == 0; }  ///< ... without an update so far
  /// True if no update has come in the step under way.
  bool untouched() const { return in_step_ == 0 && (certain_ || length_ == 0 || step_ > 0); }
  const std::set<TensorId>& first() const { return first_; }  ///< updated in the first step
  bool certain() const { return certain_; }
  std::int64_t updates_per_step() const { return length_; }
  /// True if the next update may be the last of its step.
  bool last_update_is_next() const { return !certain_ || in_step_ == length_ - 1; }

 private:
  Event next(const std::set<TensorId>& updated, bool sure);

  std::int64_t step_ = 0;
  std::int64_t length_ = 0;   ///< updates in a step: of the first one so far, until it is certain
  std::int64_t in_step_ = 0;  ///< updates in this step so far
  bool certain_ = false;
  std::set<TensorId> first_;      ///< updated in the first step
  std::set<TensorId> this_step_;  ///< updated in this step, where it has several updates
};

}  // namespace dds::attach
