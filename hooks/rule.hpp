// What the rules of operators work with. The table in hooks/rules.cpp says which operator has which.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "hooks/arguments.hpp"
#include "hooks/meaning.hpp"
#include "hooks/operators.hpp"

namespace dds::hooks {

class PassGraph;
struct Node;

/// An operator that ends: what it was given, and one of its results.
struct Ended {
  std::string_view name;  ///< bare
  Arguments args;
  const std::vector<at::Tensor>& operands;  ///< the tensors among `args`, in their order
  const at::Tensor& output;
  std::size_t place;  ///< among the results
  /// The graph of the pass, with the nodes of the operands. Without it nothing is asked about ranks, and a rule looks
  /// at no values for them.
  const PassGraph* graph = nullptr;
  const std::vector<NodeId>* nodes = nullptr;
};

/// One result of an operator, on its way to a meaning.
class Rule {
 public:
  Rule(const Ended& ended, Meaning& meaning) : ended(ended), meaning(meaning) {}

  const Ended& ended;
  Meaning& meaning;
  bool lost = false;  ///< an operand is not among the arguments

  std::string_view name() const { return ended.name; }
  Arguments args() const { return ended.args; }
  const at::Tensor& output() const { return ended.output; }
  std::size_t place() const { return ended.place; }
  at::Tensor tensor(std::size_t at) const { return tensor_at(ended.args, at); }
  /// True if ranks are asked for.
  bool ranks() const { return ended.graph != nullptr; }
  /// Empty, or null, if it is not known, or no ranks are asked for.
  std::optional<NodeId> node_id(const at::Tensor& operand) const;
  const Node* node(const at::Tensor& operand) const;
  /// The dimension, or dimensions, that stand at a place among the arguments; none if no number stands there.
  std::vector<int> dims_at(std::size_t place, const at::Tensor& of) const;

  /// A link to an operand that is broadcast to the result.
  Link& add(const at::Tensor& operand, Link::Way way = Link::Way::Linear) {
    return add(operand, way, broadcast(operand));
  }
  /// `axes`: one for each dimension of the result; none: it varies along none.
  Link& add(const at::Tensor& operand, Link::Way way, DimSources axes);
  /// A vector along one dimension of the result.
  Link& add_vector(const at::Tensor& vector, std::size_t dim);
  /// A parameter, if it is defined, that has no part in the ranks, so that runs with different ones can be told.
  void hide(const at::Tensor& parameter) {
    if (parameter.defined()) add(parameter, Link::Way::Hidden, {});
  }
  /// Only tells what dimensions count.
  Link& counts(const at::Tensor& operand, DimSources axes) { return add(operand, Link::Way::Counts, std::move(axes)); }
  void together(const at::Tensor& a, int dim_of_a, const at::Tensor& b, int dim_of_b) {
    meaning.events.push_back({Event::Kind::Together, a, dim_of_a, b, dim_of_b});
  }
  void event(Event::Kind kind, const at::Tensor& operand, int dim, int result = -1) {
    meaning.events.push_back({kind, operand, dim, {}, result});
  }

  DimSources none() const { return DimSources(static_cast<std::size_t>(output().dim())); }
  DimSources broadcast(const at::Tensor& operand) const;
  /// Dimensions of the operand, from the front as long as the sizes agree.
  DimSources leading(const at::Tensor& operand) const;
  /// What a sum over some dimensions leaves of an operand.
  DimSources reduced(const at::Tensor& operand, const std::vector<int>& over) const;
};

/// Every dimension of a tensor, as it is.
DimSources same_dims(const at::Tensor& tensor);
inline DimSource same_dim(int dim) { return {DimSource::Kind::Same, {dim}}; }
/// False for a dimension that the tensor only repeats.
bool varies(const at::Tensor& tensor, int dim);

/// 0-d: whether some entry of a parameter, or of a mask, is not zero, or is. What lies in the memory of this machine is
/// looked at without an operator.
at::Tensor any_nonzero(const at::Tensor& tensor);
at::Tensor any_zero(const at::Tensor& tensor);

/// Fills in what the operator gives. False if it cannot tell of ranks.
using Describe = bool (*)(Rule&);

/// What `ended` means. False if there is no rule of ranks for it. Without any rule the meaning is empty.
bool describe(const Ended& ended, Meaning& meaning);
/// True if there is a rule for ranks in operators of this name.
bool is_described(std::string_view name);

/// The rules, for the table.
namespace rules {

// hooks/rules_entries.cpp
bool entries(Rule&);
bool homogeneous_entries(Rule&);
bool entries_of_all(Rule&);
bool clips(Rule&);
bool counted_entries(Rule&);
bool same_entries(Rule&);
bool dropout(Rule&);
bool copied(Rule&);
bool counted_dims(Rule&);
bool counted_samples(Rule&);
bool sum(Rule&);
bool product(Rule&);
bool power(Rule&);
bool masked(Rule&);
bool softmax(Rule&);
bool loss(Rule&);
bool fresh(Rule&);
bool fresh_like(Rule&);
bool room_like(Rule&);
bool constant(Rule&);
bool filled(Rule&);
bool filled_like(Rule&);
bool filled_anew(Rule&);
bool random(Rule&);
bool random_entries(Rule&);

// hooks/rules_arrangements.cpp
bool reshape(Rule&);
bool permutation(Rule&);
bool expansion(Rule&);
bool choice(Rule&);
bool indexing(Rule&);
bool filling(Rule&);
bool repetition(Rule&);
bool concatenation(Rule&);
bool gathering(Rule&);
bool scattering(Rule&);
bool reduction(Rule&);
bool counted_reduction(Rule&);
bool variance(Rule&);
bool extreme(Rule&);
bool length(Rule&);
bool log_of_sum(Rule&);
bool running(Rule&);
bool blended(Rule&);
bool of_matrices(Rule&);
bool turned(Rule&);
bool sorted(Rule&);
bool mixture(Rule&);
bool anything(Rule&);

// hooks/rules_layers.cpp
bool counted_norm(Rule&);
bool distances(Rule&);
bool dot(Rule&);
bool attention(Rule&);
/// Of the kinds of layers and losses in hooks/operators.hpp.
bool by_kind(Rule&, const Operator&);

}  // namespace rules

}  // namespace dds::hooks
