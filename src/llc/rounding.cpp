#include "src/llc/rounding.hpp"

#include <c10/util/Exception.h>

#include <cmath>

namespace dds {

std::optional<double> rounding_of(const Objective& objective, const Replica& replica,
                                  const std::vector<at::Tensor>& points) {
  if (!objective.full_batch() || objective.start().scalar_type() != at::kFloat || points.empty()) return std::nullopt;
  double squares = 0;
  for (const auto& weights : points) {
    replica.weights().copy_(weights);
    const double seen = objective.at(replica, objective.all()).excess;
    try {
      squares += std::pow(seen - objective.excess_in_fp64(replica), 2);
    } catch (const c10::Error&) {
      return std::nullopt;  // the forward makes tensors of its own in fp32
    }
  }
  return std::sqrt(squares / static_cast<double>(points.size()));
}

}  // namespace dds
