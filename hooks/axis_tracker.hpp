// Follows the axes (hooks/axes.hpp) of all tensors of a recording, operator by operator.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/StorageImpl.h>
#include <c10/core/TensorImpl.h>
#include <c10/core/UndefinedTensorImpl.h>
#include <c10/util/intrusive_ptr.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "hooks/arguments.hpp"
#include "hooks/axes.hpp"
#include "hooks/layers.hpp"
#include "hooks/rule.hpp"

namespace dds::hooks {

/// Not safe for several threads at once.
class AxisTracker {
 public:
  /// For a new recording. The parameters and buffers of the source are no data.
  void begin(const ParameterSource& source);
  /// Forgets the tensors. The axes live on with those who hold them.
  void end();

  /// An operator that runs inside no other one starts: what it takes and nobody made was there before.
  void outermost_starts(Arguments args);
  /// `inside`: it runs inside another one. `order`: the place in the recording.
  void operator_ends(std::string_view name, Arguments args, Arguments outputs, bool inside, std::int64_t order);

  Axes::Ids axes_of(const at::Tensor& tensor);
  const std::shared_ptr<Axes>& shared() const { return axes_; }

 private:
  using Tensors = std::vector<at::Tensor>;
  struct Known {
    Axes::Ids ids;
    std::set<Axes::Id> dropped;  ///< that it is a sum over, with a gradient
    bool graded;                 ///< had a gradient when it was made: not so inside a kernel
    c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl> keep;  ///< no other gets its address
  };
  /// The first tensor in a piece of memory.
  struct Made {
    Axes::Ids ids;
    std::vector<std::int64_t> sizes;
    std::set<Axes::Id> dropped;  ///< of what was written into it
    c10::weak_intrusive_ptr<c10::StorageImpl> keep;
  };

  bool knows(const at::Tensor& tensor) const { return known_.count(tensor.unsafeGetTensorImpl()) > 0; }
  void remember(const at::Tensor& tensor, Axes::Ids ids);
  /// True if what ran inside an operator tells of its output, gradient included.
  bool told(const at::Tensor& output) const;
  void find_mixing(const Tensors& operands);
  /// The operator's outputs are sums over this axis of an operand.
  void drop(const at::Tensor& operand, Axes::Id axis);
  /// Each entry along this axis of an operand goes into several of the outputs.
  void mix(const at::Tensor& operand, Axes::Id axis);
  bool have_data(const Tensors& tensors);
  std::optional<Axes::Ids> axes_by_rule(const Ended& ended);
  void happens(const Event& event, Axes::Ids& result);
  /// What an operand has and the result has not is summed over, or only a part of it is left.
  void drop_what_is_gone(const Tensors& operands, const Axes::Ids& result);
  void written(const Ended& ended, bool in_place);
  void gave(const Ended& ended);

  std::shared_ptr<Axes> axes_;
  std::unordered_map<const void*, Known> known_;  // by identity
  std::unordered_map<const void*, Made> made_;    // by storage
  std::unordered_set<const void*> constants_;     // storages of parameters and buffers

  // of the operator that ends
  std::set<Axes::Id> dropped_;
  bool inside_ = false;
  std::int64_t order_ = 0;
};

}  // namespace dds::hooks
