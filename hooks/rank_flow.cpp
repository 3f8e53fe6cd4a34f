#include "hooks/rank_flow.hpp"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>
#include <utility>

namespace dds::hooks {
namespace {

Rank made(std::int64_t most, std::int64_t least, std::string_view a, std::string_view b) {
  return {most, least, most == least ? std::string_view() : a.empty() ? b : a};
}

/// Vertices with capacities, split into an entry (even) and an exit (odd). Ford and Fulkerson with shortest paths.
class Network {
 public:
  explicit Network(std::size_t vertices) : edges_(2 * vertices) {}

  void connect(std::size_t from, std::size_t to, std::int64_t capacity) {
    edges_[from].push_back({to, edges_[to].size(), capacity});
    edges_[to].push_back({from, edges_[from].size() - 1, 0});
  }

  std::int64_t flow(std::size_t from, std::size_t to) {
    std::int64_t total = 0;
    while (const std::int64_t more = augment(from, to)) total += more;
    return total;
  }

 private:
  struct Edge {
    std::size_t to, back;
    std::int64_t left;
  };

  std::int64_t augment(std::size_t from, std::size_t to) {
    std::vector<std::pair<std::size_t, std::size_t>> reached(edges_.size(), {kNone, 0});  // vertex before, its edge
    std::vector<std::size_t> open{from};
    reached[from] = {from, 0};
    for (std::size_t i = 0; i < open.size() && reached[to].first == kNone; ++i) {
      for (std::size_t e = 0; e < edges_[open[i]].size(); ++e) {
        const Edge& edge = edges_[open[i]][e];
        if (edge.left == 0 || reached[edge.to].first != kNone) continue;
        reached[edge.to] = {open[i], e};
        open.push_back(edge.to);
      }
    }
    if (reached[to].first == kNone) return 0;
    std::int64_t more = kMany;
    for (std::size_t at = to; at != from; at = reached[at].first) {
      more = std::min(more, edges_[reached[at].first][reached[at].second].left);
    }
    for (std::size_t at = to; at != from; at = reached[at].first) {
      Edge& edge = edges_[reached[at].first][reached[at].second];
      edge.left -= more;
      edges_[at][edge.back].left += more;
    }
    return more;
  }

  static constexpr std::size_t kNone = ~std::size_t{0};
  std::vector<std::vector<Edge>> edges_;
};

}  // namespace

Rank Rank::within(std::int64_t limit) const { return smaller(*this, exactly(limit)); }

Rank Rank::scaled(std::int64_t factor) const { return made(times(most, factor), times(least, factor), unknown, {}); }

Rank operator+(const Rank& a, const Rank& b) { return made(a.most + b.most, a.least + b.least, a.unknown, b.unknown); }

Rank operator*(const Rank& a, const Rank& b) {
  return made(times(a.most, b.most), times(a.least, b.least), a.unknown, b.unknown);
}

Rank smaller(const Rank& a, const Rank& b) {
  return made(std::min(a.most, b.most), std::min(a.least, b.least), a.unknown, b.unknown);
}

RankFlow::RankFlow() { add_source(Rank::exactly(1)); }

RankFlow::Vertex RankFlow::add(Rank limit) {
  vertices_.push_back({limit, false, {}, {}});
  return vertices_.size() - 1;
}

RankFlow::Vertex RankFlow::add_source(Rank rank) {
  vertices_.push_back({rank, true, {}, {}});
  return vertices_.size() - 1;
}

void RankFlow::limit(Vertex vertex, Rank limit) {
  vertices_[vertex].limit = limit;
  vertices_[vertex].rank[0] = vertices_[vertex].rank[1] = std::nullopt;
}

void RankFlow::connect(Vertex from, Vertex to) {
  vertices_[to].within.push_back(from);
  vertices_[to].rank[0] = vertices_[to].rank[1] = std::nullopt;
}

/// A vertex and all that it lies within.
std::vector<RankFlow::Vertex> RankFlow::upstream(Vertex of) const {
  std::vector<Vertex> all{of};
  std::unordered_set<Vertex> seen{of};
  for (std::size_t i = 0; i < all.size(); ++i) {
    for (const Vertex from : vertices_[all[i]].within) {
      if (seen.insert(from).second) all.push_back(from);
    }
  }
  return all;
}

bool RankFlow::meet(Vertex a, Vertex b) const {
  const std::vector<Vertex> one = upstream(a), other = upstream(b);
  const std::unordered_set<Vertex> known(one.begin(), one.end());
  return std::any_of(other.begin(), other.end(), [&](Vertex v) { return v != kConstant && known.count(v) > 0; });
}

/// To the first of `upstream`.
std::int64_t RankFlow::flow(const std::vector<Vertex>& upstream, bool least, bool constant) const {
  std::unordered_map<Vertex, std::size_t> place;
  for (std::size_t i = 0; i < upstream.size(); ++i) place.emplace(upstream[i], i);
  Network network(upstream.size() + 1);
  const std::size_t beginning = 2 * upstream.size();
  for (std::size_t i = 0; i < upstream.size(); ++i) {
    const Of& vertex = vertices_[upstream[i]];
    const bool open = constant || upstream[i] != kConstant;
    network.connect(2 * i, 2 * i + 1, !open ? 0 : least ? vertex.limit.least : vertex.limit.most);
    if (vertex.source) network.connect(beginning, 2 * i, kMany);
    for (const Vertex from : vertex.within) network.connect(2 * place.at(from) + 1, 2 * i, kMany);
  }
  return network.flow(beginning, 1);
}

Rank RankFlow::rank(Vertex vertex, bool constant) {
  if (const auto& known = vertices_[vertex].rank[constant ? 1 : 0]) return *known;
  auto rank = rank_by_neighbours(vertex, constant);
  if (!rank) rank = rank_by_flow(vertex, constant);
  return *(vertices_[vertex].rank[constant ? 1 : 0] = rank);
}

/// Where the flow follows from that to the vertices before.
std::optional<Rank> RankFlow::rank_by_neighbours(Vertex vertex, bool constant) {
  const Of& of = vertices_[vertex];
  if (!constant && vertex == kConstant) return Rank::exactly(0);
  if (of.source && of.within.empty()) return of.limit;
  if (of.source || of.within.empty()) return std::nullopt;
  const bool exact = of.limit.most == of.limit.least;
  if (of.within.size() > 1 && !exact) return std::nullopt;
  for (const Vertex from : of.within) {
    const Rank before = rank(from, constant);
    if (of.within.size() == 1) return smaller(of.limit, before);
    if (before.least >= of.limit.least) return of.limit;  // one of them fills it
  }
  return std::nullopt;
}

Rank RankFlow::rank_by_flow(Vertex vertex, bool constant) const {
  const std::vector<Vertex> all = upstream(vertex);
  std::string_view unknown;
  for (const Vertex within : all) {
    if (unknown.empty()) unknown = vertices_[within].limit.unknown;
  }
  const std::int64_t most = flow(all, /*least=*/false, constant);
  const std::int64_t least = unknown.empty() ? most : flow(all, /*least=*/true, constant);
  return most == least ? Rank::exactly(most) : Rank{most, least, unknown};
}

}  // namespace dds::hooks
