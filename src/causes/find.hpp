// The causes of the dead directions of readings that were taken together.
#pragma once

#include <ATen/core/Tensor.h>

#include <dds/signature.hpp>
#include <vector>

#include "src/rows/layer_rows.hpp"

namespace dds {

/// A reading with numbers, and what they came from.
struct CauseEvidence {
  const LayerRows* layer;
  Signature* signature;
  at::Tensor factor;  ///< min(rows, width) x width, fp64: of the rows divided by 2^exponent
  int exponent;
  std::int64_t rows;  ///< of the matrix, which may be more than Signature::rows
};

/// Fills in Signature::causes and the counts beside it. Lowers structural_bound by directions that are dead by
/// architecture though the bound does not know of them.
void find_causes(const std::vector<CauseEvidence>& readings);

}  // namespace dds
