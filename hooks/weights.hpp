// The weights of a recording: parameters, and what was computed from parameters alone.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <cstddef>
#include <dds/recorder.hpp>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "hooks/arguments.hpp"
#include "hooks/layer_index.hpp"
#include "hooks/layer_run.hpp"

namespace dds::hooks {

/// An operator whose outputs are weights.
struct Derivation {
  std::size_t owner = 0;                 ///< layer that the outputs belong to
  at::Tensor like;                       ///< if it is defined, outputs of another shape are no weights
  bool tentative = false;                ///< as Weights::is_tentative() has it of the outputs
  std::vector<std::size_t> layers = {};  ///< those whose parameters it takes
};

/// Not safe for several threads at once.
class Weights {
 public:
  Weights(std::shared_ptr<ParameterSource> source, LayerSelection selection);

  const std::vector<Layer>& layers() const { return index_.layers(); }
  const std::vector<std::string>& selected() const { return index_.selected(); }

  /// For a new recording: looks up where the parameters lie.
  void begin();
  /// Forgets computed weights.
  void forget();

  bool is_parameter(const at::Tensor& tensor) const { return index_.is_parameter(tensor); }
  /// The layer whose parameter, or computed weight, the tensor is. Where several layers share it, the first whose kind
  /// fits `family`, or the first.
  std::optional<std::size_t> layer_of(const at::Tensor& tensor, std::optional<Family> family = std::nullopt) const;
  /// The layers of all tensors among the arguments.
  std::set<std::size_t> layers_in(Arguments args, std::optional<Family> family) const;

  /// True for a computed weight that may be an input instead: a constant of the weight's shape went into it, other than
  /// by a multiplication (a mask). It may be the data: x + table, in a batch of one.
  bool is_tentative(const at::Tensor& tensor) const;

  /// True for a product of two weights that is itself a weight (low-rank adapters): both raw, computed, or both of
  /// modules. A raw parameter multiplied by a module's weight is an input to that module (learned queries), and so is a
  /// tentative weight that is multiplied by another one.
  bool gives_weight(const LayerRun& run) const;
  /// The derivation that an operator is: all its floating operands are weights (normalised, low-rank), or one is a
  /// weight and the others are constants of its shape (masked).
  std::optional<Derivation> derivation(std::string_view name, Arguments args) const;
  /// Takes in what came of it: computed weights, or views, which lie in memory that is known.
  Attribution::Outcome derived(const Derivation& derivation, const std::vector<c10::IValue>& outputs);

  /// Looks after leaves that want a gradient and are no parameters: a parameter may have moved while it was recorded,
  /// or the source may take the leaf in. It does so where an operator takes the leaf, or a view of it, together with
  /// another tensor. An operator that takes a leaf alone may be its initialisation, before it has a place in a network.
  void follow_strange_leaves(Arguments args, bool grad_mode);

 private:
  struct Computed {
    std::size_t layer;
    bool tentative;
    at::Tensor keep;  ///< its storage must not be given to another tensor while it is a key
  };

  LayerIndex index_;
  std::unordered_map<const void*, Computed> computed_;  // by storage
  std::unordered_map<const void*, at::Tensor> viewed_;  // strange leaves that an operator took alone, by storage
};

}  // namespace dds::hooks
