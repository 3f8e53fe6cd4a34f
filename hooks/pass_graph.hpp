// The operators of a pass as a graph: of what each tensor was made, dimension by dimension. What the ranks in a pass
// can be follows from it (hooks/rank_bounds.hpp).
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/function.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "hooks/arguments.hpp"

namespace dds::hooks {

using NodeId = std::size_t;

/// Where one dimension of a result comes from in an operand.
struct Axis {
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
  } way = Way::Linear;
  NodeId operand = 0;
  std::vector<Axis> axes = {};   ///< one for each dimension of the result
  bool gradient = false;         ///< a backward pass may come through it
  bool keeps_constants = true;   ///< rows that are all alike stay so
  bool drops_constants = false;  ///< Rescaled, over all rows together (batch norm): constant rows become zero
  bool homogeneous = false;      ///< Entries: f(t x) = t f(x) for t > 0
  std::int64_t taps = 1;         ///< so many linear maps add up (the places of a kernel)
  std::int64_t groups = 1;       ///< of features that do not mix
  /// Result and gradient lack so many directions along this dimension of the result and of the operand; -1: none.
  int lacking_along = -1;
  std::int64_t lacking = 0;
  int chosen = -1;              ///< dimension of the operand of which one entry was chosen; -1: none
  std::int64_t chosen_at = -1;  ///< which one
  bool finer = false;           ///< a type of more digits, in which the rounding of the operand fills every direction
  bool coarser = false;         ///< a type of fewer digits: so it is with the gradient
  bool masked = false;          ///< Hidden: no gradient may come back
  bool scaled = false;          ///< each entry along a dimension has a factor of its own
  at::Tensor counted = {};      ///< 0-d: in so many rows along `sums_to_zero` there is a gradient; undefined: in all
  int sums_to_zero = -1;        ///< dimension of the operand over which the gradient sums to zero; -1: none
};

struct Node {
  enum class Kind {
    Leaf,         ///< given: data, or a parameter
    Sum,          ///< of what the links give
    Product,      ///< entry by entry, of the first two
    Contraction,  ///< matrix product of the first two
  } kind = Kind::Leaf;
  std::string op;
  std::vector<std::int64_t> sizes = {};  ///< 1 where the tensor only repeats
  std::vector<int> labels = {};          ///< of dimensions that run in step
  std::vector<Link> links = {};
  bool difference = false;  ///< Sum: the first operand less the second
  double shift = 0;         ///< Sum: a number that is added
  bool parameter = false;
  bool data = false;        ///< neither a parameter nor made of parameters and constants alone
  bool weight = false;      ///< a parameter, or made of parameters alone
  at::Tensor nonzero = {};  ///< 0-d: whether a vector is not zero; undefined: it is not
  at::Tensor zeros = {};    ///< Product, 0-d: whether a factor without a gradient, such as a mask, has zeros
  at::Tensor tokens = {};   ///< of a lookup: indices, whose number bounds the rank; `table`: rows of it
  std::int64_t table = 0;
  std::int64_t padding = -1;  ///< token whose row `nonzero` tells of; -1: none
  bool data_tokens = false;   ///< other samples may have other ones
  at::Tensor columns = {};    ///< of data: the tensor, for the columns that vary
  int features = -1;          ///< the dimension that counts them
  int stacked_along = -1;     ///< the dimension along which operands stand beside each other, one entry each; -1: none
  bool root = false;          ///< a backward pass began here
  std::string unseen = {};    ///< a consumer that was not recorded, by its name
  bool graded = false;        ///< has a history in autograd that was looked at
};

/// Records the operators of a pass. Not safe for several threads at once.
class PassGraph {
 public:
  using IsParameter = std::function<bool(const at::Tensor&)>;

  /// An operator on its way.
  struct Run {
    std::string_view name;  ///< without "aten::", and without the underscore of one that works in place
    std::string full_name;
    bool in_place = false;
    bool known = false;  ///< what runs within it need not be told
    bool grad_mode = false;
    std::size_t begun = 0;  ///< number of records before it
    std::vector<c10::IValue> arguments;
    std::vector<std::pair<at::Tensor, NodeId>> operands;

    Arguments args() const { return Arguments(arguments.data(), arguments.size()); }
    std::optional<NodeId> node(const at::Tensor& tensor) const;
  };

  /// `inside`: of another operator that was recorded.
  std::unique_ptr<Run> starts(std::string_view name, Arguments args, bool grad_mode, bool inside,
                              const IsParameter& is_parameter);
  void ends(const Run& run, const std::vector<c10::IValue>& outputs);

  /// The node of a tensor as it is now; one is made if there is none.
  NodeId node_of(const at::Tensor& tensor, const IsParameter& is_parameter);
  /// The node of a tensor, if it is known and was not written to since.
  std::optional<NodeId> find(const at::Tensor& tensor) const;
  Node& operator[](NodeId id) { return nodes_[id]; }
  const Node& operator[](NodeId id) const { return nodes_[id]; }
  std::size_t size() const { return nodes_.size(); }
  /// True if rows of this dimension are samples, of which there may be any number.
  bool counts_samples(int label) const { return sample_labels_[static_cast<std::size_t>(label)]; }
  /// The indices of a lookup, and data with the dimension that counts features, for what their values allow.
  void give_tokens(NodeId lookup, const std::vector<at::Tensor>& inputs);
  void give_data(NodeId data, const at::Tensor& tensor, std::int64_t features);
  /// A custom function's backward pass ran.
  void custom_function_ran(std::string_view name);
  /// No tensor is asked for any more.
  void forget_tensors();
  /// An operator could not be recorded.
  void fail(std::string_view name) { failed_ = name; }
  /// Why no rank is known: an operator that could not be recorded, or too many. Empty if none.
  std::string not_known() const;
  /// A custom function of whose forward pass nothing was seen. Empty if there is none.
  std::string unseen_function() const;

 private:
  using Weak = c10::weak_intrusive_ptr<at::TensorImpl, at::UndefinedTensorImpl>;
  struct Known {
    Weak tensor;
    NodeId node;
    std::uint32_t version;  ///< of its memory: another one tells of a write that was not recorded as one into it
    std::size_t record;
  };
  using Function = decltype(torch::autograd::Edge::function);  // LibTorch 2.15 has a pointer of its own
  template <class Type>
  static std::weak_ptr<Type> weak(const std::shared_ptr<Type>& pointer) {
    return pointer;
  }
  template <class Type>
  static c10::weak_intrusive_ptr<Type> weak(const c10::intrusive_ptr<Type>& pointer) {
    return c10::weak_intrusive_ptr<Type>(pointer);
  }
  struct Graded {
    decltype(weak(Function())) function;
    NodeId node;
  };

  int label(bool samples);
  int merged_label(const std::vector<int>& parts, const std::vector<std::int64_t>& sizes);
  std::vector<int> split_label(int whole, const std::vector<std::int64_t>& sizes);
  void label_result(Node& node);
  void give(const at::Tensor& tensor, NodeId node);
  void look_at_history(const at::Tensor& tensor, NodeId node);
  NodeId add_written(const at::Tensor& tensor, NodeId before);
  bool holds(const Node& node) const;

  std::vector<Node> nodes_;
  std::vector<bool> sample_labels_;
  std::map<std::pair<std::vector<int>, std::vector<std::int64_t>>, int> merged_;
  std::map<int, std::pair<std::vector<int>, std::vector<std::int64_t>>> parts_;
  std::map<std::pair<int, std::vector<std::int64_t>>, std::vector<int>> split_;
  std::unordered_map<const at::TensorImpl*, Known> known_;
  std::unordered_map<const torch::autograd::Node*, Graded> graded_;
  std::set<std::string> custom_functions_, seen_functions_;
  std::string failed_;
  std::size_t records_ = 0;
};

/// Describes what an operator that is known gives: kind and links. `output` is one of its results, the `place`-th.
/// False if the operator is not known.
bool describe(const PassGraph& graph, const PassGraph::Run& run, const at::Tensor& output, std::size_t place,
              Node& node);
/// True if there is a rule for an operator of this name.
bool is_described(std::string_view name);

}  // namespace dds::hooks
