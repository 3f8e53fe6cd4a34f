// An operator read as a loss, or as the activation that a loss takes the result of.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/recorder.hpp>
#include <optional>

#include "hooks/arguments.hpp"
#include "hooks/operators.hpp"

namespace dds::hooks {

/// How a loss reduces, over how many terms it averages, and what its gradient is.
struct LossRun {
  CapturedLoss::Reduction reduction = CapturedLoss::Reduction::None;
  at::Tensor terms;          ///< as CapturedLoss::terms
  std::int64_t targets = 0;  ///< as CapturedLoss::targets

  /// Of the gradient at `input` or, if `activated`, at what the log-softmax or logistic function was taken of.
  CapturedLoss::Difference difference = CapturedLoss::Difference::Unknown;
  at::Tensor input;
  bool activated = false;
  std::int64_t classes = 0;  ///< Softmax: the dimension of the classes
  double slope = 0;          ///< Squares
};
std::optional<LossRun> read_loss(const Operator& op, Arguments args);

/// A log-softmax or logistic function.
struct ActivationRun {
  CapturedLoss::Difference difference = CapturedLoss::Difference::Unknown;  ///< of a loss that takes its result
  at::Tensor input;
  std::int64_t classes = 0;  ///< Softmax: its dimension
};
std::optional<ActivationRun> read_activation(const Operator& op, Arguments args);

}  // namespace dds::hooks
