// Why directions are dead: the causes of the dimensions that the rows of a reading leave out.
//
// Of `width` dimensions the rows fill `rank`. Each of the others is counted once:
//
//   width - rank = dead_by_architecture + dead_explained + dead_unexplained
//
//   dead_by_architecture   width - structural_bound: what the network's operators and shapes and the probe leave out
//                          whatever the weights are. Where the bound is not known (Status::BoundUnknown), only what is
//                          certain: the directions of a norm or a softmax, and rows fewer than columns
//   dead_explained         of the rest, what the causes below show
//   dead_unexplained       what no cause shows. It is never guessed
//
// So dead_explained + dead_unexplained = dead_directions wherever dead_directions is known. Of layers wider than
// Spectrum::kMostAxes only what the architecture leaves out is told, and the rest is unexplained.
//
// A cause that names vectors was tested on the rows: a unit vector v of its span is taken as dead only if
// |M v| <= floor. A cause that names a layer follows from ranks: rows are linear images of rows of a smaller rank.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/export.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace DDS_EXPORT dds {

enum class CauseKind {
  // By architecture.
  Softmax,    ///< "softmax": adding a number to all logits changes nothing, so gradients there sum to zero
  LayerNorm,  ///< "layer_norm": the outputs less their bias lie across 1/gamma; gradients at its input sum to zero
  Shape,      ///< "shape": other operators and shapes, such as a narrower layer before or behind
  Probe,      ///< "probe": too few rows, or too few different ones, to fill the rest
  // Found in this network.
  ReluOff,       ///< "relu_off": a ReLU gives 0 for this unit in every row
  Saturated,     ///< "saturated": the slope of the function behind this unit is below 1e-6 in every row
  IncomingZero,  ///< "incoming_zero": all weights into this unit are zero, so it is the same in every row
  OutgoingZero,  ///< "outgoing_zero": all weights out of this unit are zero, so no gradient comes back
  Zero,          ///< "zero": the unit is zero in every row
  Constant,      ///< "constant": the unit is the same in every row. k of them, not zero, fill one dimension
  Duplicate,     ///< "duplicate": two or more units are equal, or opposite, in every row
  Combination,   ///< "combination": a unit is a linear combination of at most 3 others
  Upstream,      ///< "upstream": the rank was lost in Cause::layer, of which the rows are computed
  Downstream,    ///< "downstream": the gradients come from Cause::layer, where they have no larger rank
  Unexplained,   ///< "unexplained": none of these. Cause::units: units with no gradient at all
};
std::string_view to_string(CauseKind kind);
/// The inverse. Throws InvalidArgument for any other text.
CauseKind cause_kind_from_string(std::string_view text);
/// True for what the network has whatever its weights are: Softmax to Probe.
bool is_by_architecture(CauseKind kind);

struct Cause {
  CauseKind kind = CauseKind::Unexplained;
  std::int64_t directions = 0;           ///< dimensions that this cause accounts for, and none before it; at least 1
  std::vector<std::int64_t> units = {};  ///< columns, ascending: units, or channels of a convolution
  std::string layer = {};                ///< Upstream, Downstream: where the rank was lost
  /// The largest angle in radians between the span of `axes` and the dead subspace, at most: asin(|M v| / sigma_min+)
  /// for the worst unit vector v of the span. Empty without axes. It is not in the log.
  std::optional<double> angle = {};
  /// The dead directions of this cause as orthonormal rows (... x width, fp64, CPU), orthogonal to those of the causes
  /// before it. Undefined for causes that are counted, not tested. It is not in the log.
  at::Tensor axes = {};
};

/// The causes as they stand in the log, parted by spaces: "layer_norm:1 relu_off:3[3,8-9] upstream:2(fc1)".
std::string to_string(const std::vector<Cause>& causes);
/// The inverse, but for angles and axes. Throws InvalidArgument for any other text.
std::vector<Cause> causes_from_string(std::string_view text);

}  // namespace dds
