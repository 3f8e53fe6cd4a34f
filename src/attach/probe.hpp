// The probe: what goes into a network in one step and the targets of its loss, OUT/snapshots/probe.pt, and the network
// itself, OUT/snapshots/model.pt. With them, `dds llc` runs the snapshots again.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "src/attach/python_model.hpp"

namespace dds::attach {

/// Made of the first step that is read and in which a loss operator takes what a forward pass gave out. The network has
/// to be known before that step. Only Python tells of forward passes.
class Probe {
 public:
  explicit Probe(std::int64_t rows) : rows_(rows) {}

  /// `step` begins with the next update, and is read. Notes forward passes from now on, in at most kTries steps.
  void watch(std::int64_t step);
  /// True while loss operators of this step are wanted.
  bool wants_losses(std::int64_t step) const { return state_ == State::Watching && step == step_; }
  /// An operator of it starts.
  void operator_starts(std::string_view name, c10::ArrayRef<const c10::IValue> args);
  /// A backward pass of that step starts: looks for the loss that took what a forward pass gave out.
  void settle();
  /// The step was read, or is lost.
  void over(std::int64_t step);

  /// Writes what settle() found, once. Throws IoError.
  void write(const std::filesystem::path& folder);

  /// For run.json.
  nlohmann::ordered_json description() const;
  /// Why there is no probe, or no model; empty if there are both, or may yet be.
  std::string why_not(bool at_the_end) const;

 private:
  static constexpr int kTries = 4;

  /// Idle <-> Watching -> Found -> Failed -> Written -> Traced, each of the last three as far as it comes; or GivenUp
  /// from the first two.
  enum class State {
    Idle,
    Watching,  ///< forward passes and losses are noted
    Found,     ///< inputs, targets and a likelihood are there
    Failed,    ///< the batch could not be written
    Written,   ///< the batch is a file, the network is not
    Traced,    ///< both are
    GivenUp,
  };
  bool has_file() const { return state_ == State::Written || state_ == State::Traced; }

  struct Loss {
    std::string likelihood;
    at::Tensor input, targets;
    std::string refused;  ///< why the likelihood does not have it
  };
  static std::optional<Loss> loss_of(std::string_view name, c10::ArrayRef<const c10::IValue> args);
  bool take(const Loss& loss, const PythonModel::Output& output);
  void stop();

  std::int64_t rows_;
  State state_ = State::Idle;
  std::int64_t step_ = -1;
  int tries_ = 0;
  std::vector<Loss> losses_;
  std::string likelihood_;
  std::vector<at::Tensor> inputs_;
  at::Tensor targets_;
  std::string why_;
};

}  // namespace dds::attach
