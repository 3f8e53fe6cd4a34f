// The bounds of a recording, from the graph of its pass.
#pragma once

#include <cstdint>
#include <dds/recorder.hpp>
#include <vector>

#include "hooks/pass_graph.hpp"
#include "hooks/ranks.hpp"

namespace dds::hooks {

/// The bounds of a recording, for the rows that it has and for any number of samples.
class RankBounds {
 public:
  /// `reached`: tensors that a backward pass came through.
  RankBounds(PassGraph graph, const std::vector<NodeId>& reached);

  RankBound of_values(const std::vector<NodeId>& stack, const std::vector<std::int64_t>& dims);
  RankBound of_gradients(const std::vector<NodeId>& stack, const std::vector<std::int64_t>& dims);

 private:
  RankBound bound(const std::vector<NodeId>& stack, const std::vector<std::int64_t>& dims, bool gradients);

  PassGraph graph_;
  std::vector<std::vector<Consumer>> consumers_;
  Ranks here_, anywhere_;
};

}  // namespace dds::hooks
