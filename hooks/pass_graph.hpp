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
#include "hooks/meaning.hpp"

namespace dds::hooks {

inline constexpr const char* kOwnGradient = "a gradient of the program's own";

/// A tensor of the pass.
struct Node : Meaning {
  std::string op;
  std::vector<int> labels = {};  ///< of dimensions that run in step
  bool parameter = false;
  bool data = false;           ///< neither a parameter nor made of parameters and constants alone
  bool weight = false;         ///< a parameter, or made of parameters alone
  at::Tensor columns = {};     ///< of data: the tensor, for the columns that vary
  int features = -1;           ///< the dimension that counts them
  std::int64_t sequence = -1;  ///< of the function behind it, in autograd; -1: none
  bool root = false;           ///< a backward pass began here
  std::string unseen = {};     ///< a consumer that was not recorded, by its name
  bool graded = false;         ///< has a history in autograd that was looked at
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
    std::vector<at::Tensor> operands;
    std::vector<NodeId> nodes;  ///< of the operands

    Arguments args() const { return Arguments(arguments.data(), arguments.size()); }
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
  /// A node of autograd ran.
  void backward_node_ran(std::string_view name, std::int64_t sequence);
  /// How often backward passes are known to have come through the function behind a tensor.
  std::size_t runs(NodeId id) const;
  /// No tensor is asked for any more.
  void forget_tensors();
  /// An operator could not be recorded.
  void fail(std::string_view name) { failed_ = name; }
  /// Why no rank is known: an operator that could not be recorded, or too many. Empty if none.
  std::string not_known() const;
  /// Why no rank of a gradient is known: a custom function of whose forward pass nothing was seen, or a backward pass
  /// from several tensors with gradients of the program's own. Empty if none.
  std::string gradients_not_known() const;

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
  void understand(const Run& run, const at::Tensor& output, std::size_t place, Node& node) const;
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
  std::unordered_map<std::int64_t, std::size_t> runs_;  // of nodes of autograd
  int scalars_ = 0;                                     // that the next backward pass begins at
  bool own_gradients_ = false;                          // in a pass that began at several tensors
  std::string failed_;
  std::size_t records_ = 0;
};

}  // namespace dds::hooks
