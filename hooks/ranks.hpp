// The ranks that a pass allows, by its graph. The rank of a tensor along one of its dimensions is that of the matrix
// whose columns this dimension counts.
//
// The weights and the data are taken for generic: an operator that is not linear gives whatever its shape allows. Of
// parameters only whether a bias is zero counts.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "hooks/pass_graph.hpp"
#include "hooks/rank_flow.hpp"

namespace dds::hooks {

/// Who takes a tensor, and by which link.
struct Consumer {
  NodeId node;
  std::size_t link;
};

/// Counts how deep a function calls itself.
class Deeper {
 public:
  explicit Deeper(int& depth) : depth_(depth) { ++depth_; }
  Deeper(const Deeper&) = delete;
  Deeper& operator=(const Deeper&) = delete;
  ~Deeper() { --depth_; }
  bool too_deep() const { return depth_ > 400; }

 private:
  int& depth_;
};
inline constexpr const char* kLongChain = "a long chain of operators between two layers";

class Ranks {
 public:
  /// `any_samples`: as if there were any number of samples.
  Ranks(const PassGraph& graph, const std::vector<std::vector<Consumer>>& consumers, bool any_samples);

  /// Several tensors whose rows are put together: runs of one layer.
  using Stack = std::vector<NodeId>;

  Rank of_values(const Stack& stack, const std::vector<int>& dims);
  Rank of_gradients(const Stack& stack, const std::vector<int>& dims);
  std::int64_t rows(const Stack& stack, const std::vector<int>& dims, bool gradients) const;

 private:
  using Vertex = RankFlow::Vertex;
  struct Space {
    Vertex vertex;
    bool sums_to_zero;
  };

  const Node& node(NodeId id) const { return graph_[id]; }
  std::int64_t size(NodeId id, int dim) const;
  std::int64_t distinct(NodeId id, int dim) const { return distinct_[id][static_cast<std::size_t>(dim)]; }
  std::int64_t count_distinct(NodeId id, int dim) const;
  /// False if the columns along this dimension may, because of an operator, be fewer different ones than distinct().
  bool columns_known(NodeId id, int dim) const { return columns_known_[id][static_cast<std::size_t>(dim)]; }
  bool tell_columns(NodeId id, int dim) const;
  Rank all_columns(const Stack& stack, int dim) const;
  std::int64_t lookup_of(NodeId id) const;
  std::int64_t different_tokens(NodeId lookup) const;
  /// Slices of a gradient along a dimension, outside of which it is zero.
  struct Slices {
    std::int64_t begin = 0, end = 0;
    std::int64_t different = 0;  ///< so many differ, of those that are not zero
    bool known = true;           ///< none within is zero, but by the weights
    bool gap = false;            ///< some within are zero
    std::int64_t count() const { return end - begin; }
  };
  const Slices& slices(NodeId id, int dim) const { return slices_[id][static_cast<std::size_t>(dim)]; }
  Slices gradient_slices(NodeId id, int dim) const;
  Slices slices_of(const Consumer& consumer, NodeId id, int dim) const;
  bool is_vector_along(NodeId id, int dim) const;

  // ---- of values ----
  Space values(Stack stack, int dim);
  Rank lookup(const Stack& stack, const Rank& full, bool& every_row) const;
  bool given(const Stack& stack, int dim, Vertex into);
  bool joined_rows(const Stack& stack, int dim, Vertex into);
  void through(const Stack& stack, std::size_t link, int dim, Vertex into, const Rank& full, bool& sums_to_zero);
  Rank through_function(const Stack& stack, const Stack& from, const Link& link, int dim, const Rank& full);
  Rank through_merging(const Stack& stack, const Stack& from, const Link& link, int dim, const Rank& full);
  void mapped(const Stack& operands, int from, const Link& link, bool in_step, std::int64_t width, Vertex into);
  void within_rows(NodeId id, int dim, Vertex vertex, const Rank& full);
  void gradients_within_rows(NodeId id, int dim, Vertex vertex, const Rank& full);
  bool product(const Stack& stack, int dim, Vertex into, const Rank& full);
  bool contraction(const Stack& stack, int dim, Vertex into);
  bool steps(const Link& link, int dim, NodeId result, bool of_gradients) const;

  // ---- of gradients ----
  Space gradients(Stack stack, int dim);
  bool back(const Stack& stack, const Stack& results, const Consumer& by, int dim, Vertex into, const Rank& full);
  bool sums_to_zero_over_rows(NodeId id) const;
  Rank back_through_merging(const Stack& stack, const Stack& results, const Consumer& by, int dim, const Rank& full);
  bool back_through_factor(const Stack& stack, const Stack& results, const Consumer& by, int dim, Vertex into,
                           const Rank& full);

  static std::size_t place_of(NodeId id, int dim, bool gradients) {
    return (id * 64 + static_cast<std::size_t>(dim)) * 2 + (gradients ? 1 : 0);
  }
  std::optional<Space> known_space(const Stack& stack, int dim, bool gradients) const;
  Space know(const Stack& stack, int dim, bool gradients, Space space);

  Stack operands(const Stack& stack, std::size_t link) const;
  bool alike(const Stack& stack) const;
  bool are_one(const Stack& stack) const;
  bool alike(const Link& a, const Link& b) const;
  Rank separate(const Stack& stack, int dim, bool gradients);

  bool terms_may_cancel(NodeId id, int dim) const;
  bool gradients_may_cancel(NodeId id, int dim) const;
  bool have_one_origin(NodeId a, NodeId b) const;
  bool merges_what_was_split(NodeId operand) const;
  bool splits_what_is_merged(NodeId result) const;
  bool independent(Vertex a, Vertex b);

  const PassGraph& graph_;
  const std::vector<std::vector<Consumer>>& consumers_;
  bool any_samples_;
  RankFlow flow_;
  std::map<std::tuple<Stack, int, bool>, Space> spaces_;  // of several tensors
  std::unordered_map<std::size_t, Space> spaces_of_one_;  // by place_of()
  std::vector<std::int64_t> lookup_;                      // by node
  mutable std::map<NodeId, std::int64_t> tokens_;         // by lookup
  std::vector<std::vector<std::int64_t>> distinct_;       // by node and dimension, as the next two
  std::vector<std::vector<bool>> columns_known_;
  std::vector<std::vector<Slices>> slices_;
  int depth_ = 0;  // of what calls itself
};

/// The dimensions of a result that come from one of an operand.
std::vector<int> results_of(const Link& link, int dim);
/// What `groups` maps of equal size, each the sum of `taps`, leave of a rank.
Rank mapped_rank(const Rank& rank, const Link& link, std::int64_t in, std::int64_t out);
/// True if an operand of a matrix product is one matrix, the same for all rows of the other.
bool is_one_matrix(const Link& link, int dim);
/// True if a norm works along this dimension of its result: the channels for batch norm.
bool is_normed(const Link& link, const Node& result, int dim);
/// Anything up to a limit, none of it for certain, because of an operator.
Rank unknown_rank(const Rank& full, std::string_view op);
/// Up to `most`, of which `least` is certain.
Rank between(std::int64_t least, const Rank& most, std::string_view op);

}  // namespace dds::hooks
