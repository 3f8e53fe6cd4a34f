// What tells that a program updates its parameters, whichever thread does it.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <thread>
#include <vector>

#include "src/attach/updates.hpp"

namespace dds::attach {

/// An update that has come between two backward passes.
struct Update {
  enum class Evidence { Versions, Elements, Optimisers };
  std::set<TensorId> changed;
  Evidence by = Evidence::Optimisers;
  bool sure = true;                       ///< each of `changed` is seen to have changed
  bool overlaps = false;                  ///< another thread, which updates too, has a pass behind it
  std::optional<std::thread::id> thread;  ///< whose passes it follows; empty: of all that have any
};

/// An update is what changes leaves that backward passes have reached, between two passes. It shows in their versions,
/// in their elements, or in that an optimiser ran: one that changes nothing, at a learning rate of zero, or one whose
/// kernels leave the versions alone.
///
/// Where several threads train at once, each optimiser that runs is an update by itself.
class Training {
 public:
  /// A pass begins on this thread.
  void pass_begins() { passing_.insert(std::this_thread::get_id()); }
  /// Leaves that the pass under way computes gradients of. One counts until it changes, and then has to be reached
  /// again.
  void reach(const std::vector<at::Tensor>& leaves);
  /// True if a leaf is reached that has not changed since.
  bool reached() const { return !pending_.empty(); }
  /// True if one of them is not on the CPU.
  bool on_accelerator() const;
  /// A pass ends on this thread. `others` are remembered too, but tell of no update.
  void pass_ends(const std::vector<at::Tensor>& others);
  /// An optimiser begins or ends its work on this thread.
  void optimiser_begins();
  void optimiser_ends();

  /// True if the optimiser of another thread has run, and nobody has looked since.
  bool updated_elsewhere() const { return updated_by_ && *updated_by_ != std::this_thread::get_id(); }

  /// True if a pass has ended and its update has not come.
  bool differentiated() const { return !differentiated_.empty(); }
  /// The update that has come since the last pass, if one has.
  std::optional<Update> look();
  /// True if one of the `others` has changed since the last pass.
  bool changed(const at::Tensor& other) const { return watch_.changed(other); }
  /// True if the gradients of the last passes were taken away: no update will follow from them.
  bool gradients_cleared() const { return differentiated() && watch_.gradients_cleared(pending()); }
  /// The first update is looked for in many elements, on accelerators too. Later ones are in few.
  void first_is_over() { first_ = false; }
  /// An update was not seen although its gradients are gone: elements on accelerators are compared from now on.
  void mistrust() { mistrusts_ = true; }
  /// Updates that were seen by this.
  std::int64_t count(Update::Evidence by) const;
  /// True if a pass of one thread ended before the update of another's had come.
  bool threads_overlap() const { return overlap_; }

 private:
  using Weak = c10::weak_intrusive_ptr<at::TensorImpl, at::UndefinedTensorImpl>;
  std::vector<at::Tensor> pending() const;
  void remember();
  bool optimising_elsewhere() const;

  std::map<TensorId, Weak> pending_;
  std::vector<Weak> others_;
  Watch watch_;
  std::set<std::thread::id> threads_;         ///< that have ended a pass
  std::set<std::thread::id> updaters_;        ///< that have updated what they differentiated
  std::set<std::thread::id> differentiated_;  ///< whose update is still to come
  std::set<std::thread::id> optimising_;
  std::set<std::thread::id> passing_;          ///< in a pass
  std::set<std::thread::id> within_;           ///< whose optimiser ran within the pass, from a hook on a gradient
  std::optional<std::thread::id> updated_by_;  ///< whose optimiser ran since its last pass
  std::set<TensorId> noted_;                   ///< what it changed
  std::map<Update::Evidence, std::int64_t> counts_;
  bool first_ = true, mistrusts_ = false, overlap_ = false;
};

}  // namespace dds::attach
