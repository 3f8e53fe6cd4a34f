// Whether tensors that meet have one origin. Ranks add up and multiply for what is generic; x + flip(x) and x x^T are
// not.
#include <algorithm>
#include <set>

#include "hooks/ranks.hpp"

namespace dds::hooks {

using Kind = DimSource::Kind;
using Way = Link::Way;

namespace {

/// A tensor on a path of maps with fixed coefficients: what was done to its entries along `dim`.
struct Step {
  NodeId node;
  int dim;
  bool mixed = false;  ///< with each other
  bool moved = false;  ///< chosen, or put beside others

  Step on(NodeId next, int to, const DimSource& axis) const {
    const bool mixes = axis.kind == Kind::Mixed || axis.kind == Kind::Merged || axis.kind == Kind::Part;
    return {next, to, mixed || mixes, moved || (!mixes && axis.kind != Kind::Same)};
  }
};

/// relu() counts: relu(x) - relu(-x) is x.
bool is_fixed(const Node& result, const Link& link) {
  return result.kind == Node::Kind::Sum && (link.way == Way::Linear || link.homogeneous) && result.table == 0 &&
         result.op.find("conv") == std::string::npos;
}

/// True if paths that begin at different places lead to one node, and entries were mixed on one of them, or stayed
/// where they are and `harmful` is true of that node. `onward(step, go)` calls go() for the steps behind one; a step is
/// nearer the larger its key.
template <class Key, class Onward, class Harmful>
bool paths_meet(const std::vector<Step>& beginnings, const Key& key, const Onward& onward, const Harmful& harmful) {
  std::vector<std::map<NodeId, Step>> paths;
  for (const Step& step : beginnings) paths.push_back({{key(step.node), step}});
  for (std::size_t steps = 0; steps < 1000; ++steps) {
    const auto empty = [](const auto& path) { return path.empty(); };
    std::erase_if(paths, empty);
    if (paths.size() < 2) return false;
    NodeId nearest = 0;
    for (const auto& path : paths) nearest = std::max(nearest, path.rbegin()->first);
    std::size_t met = 0;
    bool mixed = false, moved = false;
    NodeId at = 0;
    for (auto& path : paths) {
      const auto here = path.find(nearest);
      if (here == path.end()) continue;
      const Step step = here->second;
      ++met;
      mixed = mixed || step.mixed;
      moved = moved || step.moved;
      at = step.node;
      path.erase(here);
      onward(step, [&](const Step& next) {
        const auto [known, fresh] = path.try_emplace(key(next.node), next);
        if (fresh) return;
        known->second.mixed = known->second.mixed || next.mixed;
        known->second.moved = known->second.moved || next.moved;
      });
    }
    if (met > 1) return mixed || (!moved && harmful(at));
  }
  return true;
}

}  // namespace

/// True if the terms of a sum have one origin, so that they may cancel along a direction: x + flip(x), x - x.mean().
bool Ranks::terms_may_cancel(NodeId id, int dim) const {
  if (node(id).kind != Node::Kind::Sum) return false;
  const auto onward = [&](const Step& step, const auto& go) {
    for (const Link& link : node(step.node).links) {
      const DimSource& axis = link.axes[static_cast<std::size_t>(step.dim)];
      if (!is_fixed(node(step.node), link) || axis.from.size() != 1) continue;
      go(step.on(link.operand, axis.from[0], axis));
    }
  };
  std::vector<Step> terms;
  for (const Link& link : node(id).links) {
    const DimSource& axis = link.axes[static_cast<std::size_t>(dim)];
    if (!is_fixed(node(id), link) || axis.from.size() != 1 || axis.kind == Kind::Joined) continue;
    terms.push_back(Step{id, dim}.on(link.operand, axis.from[0], axis));
  }
  return paths_meet(
      terms, [](NodeId node) { return node; }, onward, [&](NodeId) { return node(id).difference; });
}

/// As terms_may_cancel(), of the gradients that come back from several consumers.
bool Ranks::gradients_may_cancel(NodeId id, int dim) const {
  const auto go_by = [&](const Consumer& by, const Step& step, const auto& go) {
    const Link& link = node(by.node).links[by.link];
    const std::vector<int> to = results_of(link, step.dim);
    if (!is_fixed(node(by.node), link) || to.size() != 1) return;
    go(step.on(by.node, to[0], link.axes[static_cast<std::size_t>(to[0])]));
  };
  std::vector<Step> terms;
  for (const Consumer& by : consumers_[id]) {
    go_by(by, Step{id, dim}, [&](const Step& step) { terms.push_back(step); });
  }
  const auto onward = [&](const Step& step, const auto& go) {
    for (const Consumer& by : consumers_[step.node]) go_by(by, step, go);
  };
  return paths_meet(
      terms, [&](NodeId node) { return graph_.size() - node; }, onward, [&](NodeId at) { return node(at).difference; });
}

/// True if two operands come of one tensor by fixed maps, as in x x^T.
bool Ranks::have_one_origin(NodeId a, NodeId b) const {
  std::set<NodeId> seen[2];
  for (const auto& [side, start] : {std::pair{0, a}, {1, b}}) {
    std::vector<NodeId> open{start};
    while (!open.empty() && seen[side].size() < 64) {
      const NodeId id = open.back();
      open.pop_back();
      if (!seen[side].insert(id).second) continue;
      for (const Link& link : node(id).links) {
        if (is_fixed(node(id), link)) open.push_back(link.operand);
      }
    }
  }
  return std::any_of(seen[0].begin(), seen[0].end(), [&](NodeId id) { return seen[1].count(id) > 0; });
}

namespace {

bool has_axis(const Link& link, Kind kind) {
  return std::any_of(link.axes.begin(), link.axes.end(), [&](const DimSource& axis) { return axis.kind == kind; });
}

/// True if `found` is true of a node, or of one that can be reached from it, or if these are too many to look at.
/// `found(node, go)` calls go() for the nodes next to one.
template <class Found>
bool reaches(NodeId from, const Found& found) {
  std::vector<NodeId> open{from};
  std::set<NodeId> seen;
  while (!open.empty()) {
    const NodeId id = open.back();
    open.pop_back();
    if (!seen.insert(id).second) continue;
    if (seen.size() > 64 || found(id, [&](NodeId next) { open.push_back(next); })) return true;
  }
  return false;
}

}  // namespace

/// True if dimensions that are merged were one before, and no weights and no function that is not linear came between.
bool Ranks::merges_what_was_split(NodeId operand) const {
  return reaches(operand, [this](NodeId id, const auto& go) {
    const Node& made = node(id);
    if (made.kind == Node::Kind::Contraction && have_one_origin(made.links[0].operand, made.links[1].operand))
      return true;
    for (const Link& link : made.links) {
      if (!is_fixed(made, link)) continue;
      if (has_axis(link, Kind::Part)) return true;
      go(link.operand);
    }
    return false;
  });
}

bool Ranks::splits_what_is_merged(NodeId result) const {
  return reaches(result, [this](NodeId id, const auto& go) {
    for (const Consumer& by : consumers_[id]) {
      const Link& link = node(by.node).links[by.link];
      if (link.way == Way::Rescaled) return true;
      if (!is_fixed(node(by.node), link)) continue;
      if (has_axis(link, Kind::Merged)) return true;
      go(by.node);
    }
    return false;
  });
}

}  // namespace dds::hooks
