// How large the rank of a sum of products of generic matrices can be: the largest flow through a network whose vertices
// have capacities. A vertex is the column space of a matrix; an edge says that one lies within others' sum.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

namespace dds::hooks {

/// Stands for any number of rows.
inline constexpr std::int64_t kMany = std::int64_t{1} << 40;

/// A product that stops at kMany.
inline std::int64_t times(std::int64_t a, std::int64_t b) { return a != 0 && b > kMany / a ? kMany : a * b; }

/// A rank: what it cannot exceed, and what it can reach for certain. They differ where an operator is not known.
struct Rank {
  std::int64_t most = 0, least = 0;
  std::string_view unknown = {};  ///< that operator, by a name that lives elsewhere; empty if the two are equal

  static Rank exactly(std::int64_t rank) { return {rank, rank, {}}; }
  Rank within(std::int64_t limit) const;
  Rank scaled(std::int64_t factor) const;
  friend Rank operator+(const Rank& a, const Rank& b);
  friend Rank operator*(const Rank& a, const Rank& b);
};
/// The smaller of two limits.
Rank smaller(const Rank& a, const Rank& b);

class RankFlow {
 public:
  using Vertex = std::size_t;
  static constexpr Vertex kConstant = 0;  ///< the space of the vector of ones, which all constant rows share

  RankFlow();
  /// A vertex that lies within what is connected to it, and has at most `limit` dimensions.
  Vertex add(Rank limit);
  /// A vertex with directions of its own.
  Vertex add_source(Rank rank);
  /// What lies within a vertex, and its limit, change no more once the rank of another one was asked for that lies
  /// within it.
  void limit(Vertex vertex, Rank limit);
  void connect(Vertex from, Vertex to);

  /// The rank of a vertex, with the direction of the constant rows or without.
  Rank rank(Vertex vertex, bool constant = true);
  /// True if the two lie, in part, within the same vertex, that of the constant rows apart.
  bool meet(Vertex a, Vertex b) const;

 private:
  struct Of {
    Rank limit;
    bool source = false;
    std::vector<Vertex> within;
    std::optional<Rank> rank[2];  ///< as it was asked for, without the constant rows and with them
  };
  std::optional<Rank> rank_by_neighbours(Vertex vertex, bool constant);
  Rank rank_by_flow(Vertex vertex, bool constant) const;
  std::vector<Vertex> upstream(Vertex of) const;
  std::int64_t flow(const std::vector<Vertex>& upstream, bool least, bool constant) const;

  std::vector<Of> vertices_;
};

}  // namespace dds::hooks
