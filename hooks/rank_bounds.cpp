#include "hooks/rank_bounds.hpp"

#include <algorithm>
#include <set>
#include <utility>

namespace dds::hooks {

namespace {

/// True if a backward pass came through the function behind a tensor more often than through all that read the tensor:
/// it began there, with a gradient of the program's own.
bool begins_own_pass(const PassGraph& graph, NodeId id, const std::vector<Consumer>& by,
                     const std::vector<bool>& live) {
  if (!graph[id].unseen.empty()) return false;
  std::size_t came = 0;
  for (const Consumer& consumer : by) {
    const std::size_t runs = graph.runs(consumer.node);
    if (live[consumer.node] && runs == 0) return false;  // by another function than was seen
    came += runs;
  }
  return graph.runs(id) > came;
}

std::vector<std::vector<Consumer>> consumers_of(PassGraph& graph, const std::vector<NodeId>& reached) {
  std::vector<std::vector<Consumer>> all(graph.size());
  std::vector<NodeId> roots;
  for (NodeId id = 0; id < graph.size(); ++id) {
    if (graph[id].root) roots.push_back(id);
    for (std::size_t link = 0; link < graph[id].links.size(); ++link) {
      if (graph[id].links[link].gradient) all[graph[id].links[link].operand].push_back({id, link});
    }
  }
  std::vector<bool> live(graph.size());
  const auto spread = [&](NodeId from) {
    std::vector<NodeId> open{from};
    while (!open.empty()) {
      const NodeId id = open.back();
      open.pop_back();
      if (live[id]) continue;
      live[id] = true;
      for (const Link& link : graph[id].links) {
        if (link.gradient) open.push_back(link.operand);
      }
    }
  };
  for (const NodeId root : roots) spread(root);
  bool ran = false;
  for (NodeId id = graph.size(); id-- > 0;) {
    ran = ran || graph.runs(id) > 0;
    if (graph[id].root || !begins_own_pass(graph, id, all[id], live)) continue;
    const auto is_live = [&](const Consumer& consumer) { return live[consumer.node]; };
    const bool only = roots.empty() && std::none_of(all[id].begin(), all[id].end(), is_live);
    if (!only) graph[id].unseen = kOwnGradient;
    spread(id);
  }
  if (roots.empty() && !ran) return all;
  // Where it is not known what ran, it comes from where nothing reads on.
  for (const NodeId id : reached) {
    if (live[id] || roots.empty()) continue;
    std::vector<NodeId> open{id};
    std::set<NodeId> seen;
    while (!open.empty()) {
      const NodeId next = open.back();
      open.pop_back();
      if (!seen.insert(next).second) continue;
      if (all[next].empty()) {
        graph[next].unseen = kOwnGradient;
        spread(next);
      }
      for (const Consumer& consumer : all[next]) open.push_back(consumer.node);
    }
  }
  for (auto& consumers : all) {
    std::erase_if(consumers, [&](const Consumer& consumer) {
      return !live[consumer.node] && (!roots.empty() || graph[consumer.node].sequence >= 0);
    });
  }
  return all;
}

}  // namespace

RankBounds::RankBounds(PassGraph graph, const std::vector<NodeId>& reached)
    : graph_(std::move(graph)),
      consumers_(consumers_of(graph_, reached)),
      here_(graph_, consumers_, false),
      anywhere_(graph_, consumers_, true) {}

RankBound RankBounds::bound(const std::vector<NodeId>& stack, const std::vector<std::int64_t>& features,
                            bool gradients) {
  const auto not_known = [](const std::string& why) {
    return RankBound{.rank = kMany, .shape = kMany, .unknown = why};
  };
  const auto has_features = [&](NodeId id) {
    return std::all_of(features.begin(), features.end(),
                       [&](std::int64_t dim) { return 0 <= dim && dim < std::ssize(graph_[id].sizes); });
  };
  if (stack.empty() || !std::all_of(stack.begin(), stack.end(), has_features)) {
    return not_known("an operator that was not recorded");
  }
  if (const std::string reason = graph_.not_known(); !reason.empty()) return not_known(reason);
  if (const std::string why = graph_.gradients_not_known(); gradients && !why.empty()) return not_known(why);
  const std::vector<int> dims(features.begin(), features.end());
  const auto rank = [&](Ranks& ranks) {
    return gradients ? ranks.of_gradients(stack, dims) : ranks.of_values(stack, dims);
  };
  const Rank here = rank(here_), anywhere = rank(anywhere_);
  RankBound bound{.rank = here.most, .shape = std::max(here.most, anywhere.most)};
  bound.adds = here.most >= std::min(bound.shape, here_.rows(stack, dims, gradients));
  bound.unknown = std::string(here.unknown.empty() ? anywhere.unknown : here.unknown);
  return bound;
}

RankBound RankBounds::of_values(const std::vector<NodeId>& stack, const std::vector<std::int64_t>& features) {
  return bound(stack, features, false);
}

RankBound RankBounds::of_gradients(const std::vector<NodeId>& stack, const std::vector<std::int64_t>& features) {
  return bound(stack, features, true);
}

}  // namespace dds::hooks
