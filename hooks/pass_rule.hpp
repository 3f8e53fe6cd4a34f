// What the rules of hooks/pass_rules.cpp work with.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "hooks/pass_graph.hpp"

namespace dds::hooks {

/// False for a dimension that the tensor only repeats.
inline bool varies(const at::Tensor& tensor, int dim) {
  return tensor.layout() != at::kStrided || tensor.stride(dim) != 0;
}

/// One result of an operator, on its way to a node.
struct Rule {
  const PassGraph* graph;
  const PassGraph::Run& run;
  const at::Tensor& output;
  std::size_t place;  ///< among the results
  Node& node;
  bool lost = false;  ///< an operand is not among the arguments

  Arguments args() const { return run.args(); }
  Link link(const at::Tensor& operand, Link::Way way) {
    const auto known = run.node(operand);
    lost = lost || !known;
    Link link;
    link.way = way;
    link.operand = known.value_or(0);
    return link;
  }
  /// Adds a link to an operand that is broadcast to the result.
  Link& add(const at::Tensor& operand, Link::Way way = Link::Way::Linear) {
    return add(operand, way, broadcast(operand));
  }
  /// `axes`: one for each dimension of the result; none: it varies along none.
  Link& add(const at::Tensor& operand, Link::Way way, std::vector<Axis> axes) {
    if (axes.empty()) axes = broadcast_none();
    node.links.push_back(link(operand, way));
    node.links.back().axes = std::move(axes);
    return node.links.back();
  }
  /// Adds a vector along one dimension of the result.
  Link& add_vector(const at::Tensor& vector, std::size_t dim) {
    std::vector<Axis> axes(static_cast<std::size_t>(output.dim()));
    if (dim < axes.size() && vector.dim() == 1) axes[dim] = {Axis::Kind::Same, {0}};
    return add(vector, Link::Way::Linear, std::move(axes));
  }

  /// Adds a parameter, if it is defined, that has no part in the ranks, so that runs with different ones can be told.
  void hide(const at::Tensor& parameter) {
    if (parameter.defined()) add(parameter, Link::Way::Hidden, broadcast_none());
  }
  std::vector<Axis> broadcast_none() const { return std::vector<Axis>(static_cast<std::size_t>(output.dim())); }
  std::vector<Axis> broadcast(const at::Tensor& operand) const {
    if (!operand.defined()) return {};
    std::vector<Axis> axes(static_cast<std::size_t>(output.dim()));
    const auto shift = output.dim() - operand.dim();
    for (std::int64_t dim = std::max<std::int64_t>(0, shift); dim < output.dim(); ++dim) {
      const int from = static_cast<int>(dim - shift);
      if (operand.size(from) == output.size(dim) && varies(operand, from))
        axes[static_cast<std::size_t>(dim)] = {Axis::Kind::Same, {from}};
    }
    return axes;
  }
  /// Dimensions of the first operand that has them, from the front as long as the sizes agree.
  std::vector<Axis> leading_axes() const {
    std::vector<Axis> axes(static_cast<std::size_t>(output.dim()));
    if (run.operands.empty()) return axes;
    const at::Tensor& operand = run.operands.front().first;
    for (std::int64_t dim = 0; dim < std::min(output.dim() - 1, operand.dim()); ++dim) {
      if (operand.size(dim) != output.size(dim)) break;
      if (varies(operand, static_cast<int>(dim))) {
        axes[static_cast<std::size_t>(dim)] = {Axis::Kind::Same, {static_cast<int>(dim)}};
      }
    }
    return axes;
  }
};

/// Fills in what the operator gives. False if it cannot tell.
using Describe = bool (*)(Rule&);

/// Rules by the operator's name.
class Rules {
 public:
  void add(Describe describe, std::initializer_list<std::string_view> names) {
    for (const std::string_view name : names) by_name_.emplace(name, describe);
  }
  /// Null if there is none.
  Describe find(std::string_view name) const {
    const auto known = by_name_.find(name);
    return known == by_name_.end() ? nullptr : known->second;
  }

 private:
  std::unordered_map<std::string_view, Describe> by_name_;
};

void add_arrangements(Rules& rules);
void add_norms(Rules& rules);
void add_products(Rules& rules);

}  // namespace dds::hooks
