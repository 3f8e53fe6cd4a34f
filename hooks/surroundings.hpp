// What stands around the layers of a recording, from the graph of its pass.
#pragma once

#include <cstddef>
#include <cstdint>
#include <dds/recorder.hpp>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "hooks/layer_run.hpp"
#include "hooks/pass_graph.hpp"

namespace dds::hooks {

/// What the weight of a run tells: Surroundings::taps, pads, unfed, unread and gain. Nothing waits for a device.
Surroundings around_run(const LayerRun& run, std::string_view op);

class SurroundingsFinder {
 public:
  /// Must not outlive `graph`.
  explicit SurroundingsFinder(const PassGraph& graph);

  /// The input of a call of a layer.
  void add_input(NodeId input, const std::string& layer) { inputs_.emplace(input, layer); }

  /// Who takes the output of a call, whose features stand in `feature`: taken_by, read_by, read_directly.
  void look_ahead(NodeId output, int feature, Surroundings& around) const;
  /// Where the input of a call comes from: made_by, and with it `feature` by feature of one tensor alone, which is
  /// returned. It may be the input itself.
  NodeId look_back(NodeId input, int feature, Surroundings& around) const;

 private:
  const PassGraph& graph_;
  std::multimap<NodeId, NodeId> consumers_;  ///< by operand: results that a gradient may come back from
  std::map<NodeId, std::string> inputs_;
};

/// Leaves what both have.
void keep_common(Surroundings& around, const Surroundings& other);

}  // namespace dds::hooks
