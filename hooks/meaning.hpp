// What an operator makes of its operands, dimension by dimension. The table of operators in hooks/rules.cpp tells it.
//
// Several questions are asked of a meaning, and each takes from it what it needs: which rank a result can have
// (hooks/ranks.hpp), and which dimensions count samples (hooks/axis_tracker.hpp). A direction that must be dead because
// of an operator belongs beside Link::lacking and Link::sums_to_zero.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace dds::hooks {

using NodeId = std::size_t;

/// Where one dimension of a result comes from in an operand.
struct DimSource {
  enum class Kind {
    Absent,  ///< the operand does not vary along it
    Same,    ///< entry i comes of the operand's entry i alone
    Mixed,   ///< entries are linear mixtures of the operand's: a contraction, a pooling, a choice
    Chosen,  ///< some of the operand's entries
    Copied,  ///< each of the operand's entries, several times
    Joined,  ///< the operand's entries, next to those of other operands
    Merged,  ///< several dimensions of the operand in one
    Part,    ///< one of several into which a dimension of the operand was split
  } kind = Kind::Absent;
  std::vector<int> from = {};  ///< dimensions of the operand; several for Merged, or for a contraction over several
  bool aligned = true;         ///< Same: it runs in step with that dimension of the first operand
  std::int64_t used = -1;      ///< Chosen: how many different entries
  std::int64_t begin = -1;     ///< Chosen: from this one on, one after the other; -1: any

  /// True where entries are linear in the operand's along one dimension, but not each in its own.
  bool mixes() const {
    return kind == Kind::Mixed || kind == Kind::Chosen || kind == Kind::Copied || kind == Kind::Joined;
  }
};
using DimSources = std::vector<DimSource>;

/// How a result depends on one operand.
struct Link {
  enum class Way {
    Linear,    ///< along every dimension
    Rescaled,  ///< linear, then by a factor for each row (layer norm)
    Entries,   ///< entry by entry, not linear
    Clips,     ///< entry by entry, but all of them may stay as they are, or vanish: any rank, none of them for certain
    Other,     ///< in a way that may give any rank
    Unknown,   ///< not known
    Hidden,    ///< only the operand's sizes and gradients matter
    Counts,    ///< only what the dimensions count matters, and no rank
  } way = Way::Linear;
  NodeId operand = 0;            ///< for a rule: its place among the operands
  DimSources axes = {};          ///< one for each dimension of the result
  bool gradient = false;         ///< a backward pass may come through it
  bool keeps_constants = true;   ///< rows that are all alike stay so
  bool drops_constants = false;  ///< Rescaled, over all rows together (batch norm): constant rows become zero
  bool homogeneous = false;      ///< Entries: f(t x) = t f(x) for t > 0
  bool if_data = false;          ///< Counts: only where the operand's dimension counts something of the data
  std::int64_t taps = 1;         ///< so many linear maps add up (the places of a kernel)
  std::int64_t groups = 1;       ///< of features that do not mix
  /// Result and gradient lack so many directions along this dimension of the result and of the operand; -1: none.
  int lacking_along = -1;
  std::int64_t lacking = 0;
  int sums_to_zero = -1;        ///< dimension of the operand over which the gradient sums to zero; -1: none
  int chosen = -1;              ///< dimension of the operand of which one entry was chosen; -1: none
  std::int64_t chosen_at = -1;  ///< which one
  bool finer = false;           ///< a type of more digits, in which the rounding of the operand fills every direction
  bool coarser = false;         ///< a type of fewer digits: so it is with the gradient
  bool masked = false;          ///< Hidden: no gradient may come back
  bool scaled = false;          ///< each entry along a dimension has a factor of its own
  at::Tensor counted = {};      ///< 0-d: in so many rows along `sums_to_zero` there is a gradient; undefined: in all
};

/// What happens to a dimension of an operand beyond what links tell.
struct Event {
  enum class Kind {
    Together,  ///< it counts the same things as `other_dim` of `other`
    Summed,    ///< it is summed over
    Blended,   ///< each entry along it goes into all along it: a softmax
    Moved,     ///< entries along it come in another order, or only some of them, in dimension `other_dim` of the result
  } kind;
  at::Tensor operand;
  int dim;
  at::Tensor other = {};
  int other_dim = -1;
};

/// One result of an operator.
struct Meaning {
  enum class Kind {
    Leaf,         ///< given: data, or a parameter
    Sum,          ///< of what the links give
    Product,      ///< entry by entry, of the first two
    Contraction,  ///< matrix product of the first two
  } kind = Kind::Leaf;
  enum class Values {
    Computed,
    Constant,  ///< made of nothing
    Random,    ///< drawn
  } values = Values::Computed;
  std::vector<std::int64_t> sizes = {};  ///< 1 where the tensor only repeats
  std::vector<Link> links = {};
  std::vector<Event> events = {};
  bool difference = false;  ///< Sum: the first operand less the second
  double shift = 0;         ///< Sum: a number that is added
  at::Tensor nonzero = {};  ///< 0-d: whether a vector is not zero; undefined: it is not
  at::Tensor zeros = {};    ///< Product, 0-d: whether a factor without a gradient, such as a mask, has zeros
  at::Tensor tokens = {};   ///< of a lookup: indices, whose number bounds the rank; `table`: rows of it
  std::int64_t table = 0;
  std::int64_t padding = -1;  ///< token whose row `nonzero` tells of; -1: none
  bool data_tokens = false;   ///< other samples may have other ones
  int stacked_along = -1;     ///< the dimension along which operands stand beside each other, one entry each; -1: none
};

}  // namespace dds::hooks
