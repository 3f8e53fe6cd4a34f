#include "hooks/gradient_watch.hpp"

#include <ATen/SequenceNumber.h>
#include <ATen/ops/add.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <mutex>
#include <unordered_set>
#include <utility>

#include "hooks/observer.hpp"

namespace dds::hooks {
namespace {

using torch::autograd::Edge;
using torch::autograd::Node;
using torch::autograd::variable_list;

/// Gathers the gradients of a call, in one backward pass after another, on autograd's threads. It lives in hooks of the
/// graph and keeps nothing of the graph alive.
class Gathering : public std::enable_shared_from_this<Gathering> {
 public:
  Gathering(std::size_t inputs, std::size_t outputs, OnGradients on_gradients)
      : on_gradients_(std::move(on_gradients)), grad_inputs_(inputs), grad_outputs_(outputs) {}

  void expect_one_more() { ++expected_; }

  void output_arrives(std::size_t output, const at::Tensor& gradient) {
    const std::lock_guard lock(mutex_);
    open();
    add(grad_outputs_[output], gradient);
  }

  /// A node that hands gradients on to inputs has run: `gradients` by input. The last one expected gets the gradients
  /// to go on with, if they are others.
  std::optional<Tensors> inputs_arrive(const std::vector<std::pair<std::size_t, at::Tensor>>& gradients) {
    {
      const std::lock_guard lock(mutex_);
      open();
      for (const auto& [input, gradient] : gradients) add(grad_inputs_[input], gradient);
      if (++arrived_ < expected_) return std::nullopt;
    }
    return close();
  }

 private:
  /// Lives as long as a backward pass does, whether that comes to its end or an exception leaves it.
  struct Pass {
    std::shared_ptr<Gathering> gathering;
    std::uint64_t number;

    /// A pass that asks for the gradients of some tensors only may leave out nodes that are waited for.
    void ends() const {
      if (gathering->is_open(number)) gathering->close();
    }
    ~Pass() {
      if (gathering->is_open(number)) gathering->forget();
    }
  };

  void open() {
    if (open_) return;
    open_ = true;
    torch::autograd::Engine::get_default_engine().queue_callback(
        [pass = std::shared_ptr<const Pass>(new Pass{shared_from_this(), pass_})] { pass->ends(); });
  }

  bool is_open(std::uint64_t pass) {
    const std::lock_guard lock(mutex_);
    return open_ && pass_ == pass;
  }

  /// Returns what has been gathered, and makes ready for the next pass.
  std::pair<Tensors, Tensors> forget() {
    const std::lock_guard lock(mutex_);
    arrived_ = 0;
    open_ = false;
    ++pass_;
    return {std::exchange(grad_inputs_, Tensors(grad_inputs_.size())),
            std::exchange(grad_outputs_, Tensors(grad_outputs_.size()))};
  }

  std::optional<Tensors> close() {
    const auto [inputs, outputs] = forget();
    return on_gradients_(inputs, outputs);
  }

  static void add(at::Tensor& sum, const at::Tensor& gradient) {
    if (!gradient.defined()) return;
    const Unseen unseen;
    sum = sum.defined() ? at::add(sum, gradient) : gradient;
  }

  const OnGradients on_gradients_;
  std::size_t expected_ = 0;  ///< nodes in each pass; set before the first
  std::mutex mutex_;          // of all below
  Tensors grad_inputs_, grad_outputs_;
  std::size_t arrived_ = 0;
  std::uint64_t pass_ = 0;
  bool open_ = false;
};

/// On a node that hands gradients on to inputs of the call.
class Watcher : public torch::autograd::FunctionPostHook {
 public:
  Watcher(std::shared_ptr<Gathering> gathering, std::vector<std::pair<std::size_t, std::size_t>> places)
      : gathering_(std::move(gathering)), places_(std::move(places)) {}

  variable_list operator()(const variable_list& outputs, const variable_list&) override {
    std::vector<std::pair<std::size_t, at::Tensor>> gradients;
    for (const auto& [edge, input] : places_) gradients.emplace_back(input, outputs[edge]);
    const auto changed = gathering_->inputs_arrive(gradients);
    if (!changed) return outputs;
    variable_list next = outputs;
    for (const auto& [edge, input] : places_) next[edge] = (*changed)[input];
    return next;
  }

 private:
  std::shared_ptr<Gathering> gathering_;
  std::vector<std::pair<std::size_t, std::size_t>> places_;  ///< edge of the node, input of the call
};

struct Identity : torch::autograd::Function<Identity> {
  static variable_list forward(torch::autograd::AutogradContext* context, at::TensorList inputs) {
    context->set_materialize_grads(false);
    return inputs.vec();
  }
  static variable_list backward(torch::autograd::AutogradContext*, variable_list gradients) { return gradients; }
};

}  // namespace

GradientWatch::GradientWatch(const Tensors& inputs) : inputs_(inputs), first_(at::sequence_number::peek()) {
  for (const at::Tensor& input : inputs) {
    edges_.push_back(input.requires_grad() ? torch::autograd::impl::gradient_edge(input) : Edge());
  }
}

Tensors GradientWatch::interpose() {
  Tensors wanted;
  for (const at::Tensor& input : inputs_) {
    if (input.requires_grad()) wanted.push_back(input);
  }
  if (wanted.empty()) return inputs_;
  const variable_list through = Identity::apply(at::TensorList(wanted));
  Tensors inputs = inputs_;
  auto next = through.begin();
  for (at::Tensor& input : inputs) {
    if (input.requires_grad()) input = *next++;
  }
  return inputs;
}

namespace {

/// A node that hands gradients on to inputs: the edges that do, with the inputs that they lead to.
struct Exit {
  Node* node;
  std::vector<std::pair<std::size_t, std::size_t>> places;
};

/// The part of the graph that one call made: nodes younger than the call, from its outputs back to its inputs.
class CallGraph {
 public:
  CallGraph(const std::vector<Edge>& inputs, std::uint64_t first_node) : inputs_(inputs), first_node_(first_node) {}

  /// The input that the gradient of an edge belongs to.
  std::optional<std::size_t> input_of(const Edge& edge) const {
    const auto found = std::find(inputs_.begin(), inputs_.end(), edge);
    return found == inputs_.end() ? std::nullopt : std::optional<std::size_t>(found - inputs_.begin());
  }

  /// Takes in the nodes behind an output.
  void add(const Edge& output) {
    visit(output.function.get());
    while (!next_.empty()) {
      Node* node = next_.back();
      next_.pop_back();
      sort(node);
    }
  }

  /// Nodes that hand gradients on to inputs.
  const std::vector<Exit>& to_inputs() const { return to_inputs_; }
  /// Nodes that hand gradients on to something older that is no input: parameters.
  const std::vector<Exit>& elsewhere() const { return elsewhere_; }

 private:
  /// Leaves have the largest of all sequence numbers.
  bool made_by_call(const Node& node) const {
    return node.sequence_nr() >= first_node_ && node.sequence_nr() != std::numeric_limits<std::uint64_t>::max();
  }

  void visit(Node* node) {
    if (made_by_call(*node) && known_.insert(node).second) next_.push_back(node);
  }

  void sort(Node* node) {
    Exit exit{node, {}};
    bool leaves = false;
    for (std::size_t i = 0; i < node->next_edges().size(); ++i) {
      const Edge& edge = node->next_edge(i);
      if (!edge.is_valid()) continue;
      if (const auto input = input_of(edge)) {
        exit.places.emplace_back(i, *input);
      } else if (made_by_call(*edge.function)) {
        visit(edge.function.get());
      } else {
        leaves = true;
      }
    }
    if (!exit.places.empty()) {
      to_inputs_.push_back(std::move(exit));
    } else if (leaves) {
      elsewhere_.push_back(std::move(exit));
    }
  }

  const std::vector<Edge>& inputs_;
  const std::uint64_t first_node_;
  std::vector<Exit> to_inputs_, elsewhere_;
  std::unordered_set<Node*> known_;
  std::vector<Node*> next_;
};

}  // namespace

void GradientWatch::finish(const Tensors& outputs, OnGradients on_gradients) const {
  CallGraph graph(edges_, first_);
  std::vector<std::optional<std::size_t>> returned(outputs.size());  // by output: the input that it is
  bool any_returned = false;
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].requires_grad()) continue;
    const Edge edge = torch::autograd::impl::gradient_edge(outputs[i]);
    returned[i] = graph.input_of(edge);
    any_returned = any_returned || returned[i];
    graph.add(edge);
  }
  const auto gathering = std::make_shared<Gathering>(inputs_.size(), outputs.size(), std::move(on_gradients));
  // Where no input wants a gradient, the pass has come through the call with the last of its parameters.
  for (const Exit& exit : graph.to_inputs().empty() && !any_returned ? graph.elsewhere() : graph.to_inputs()) {
    gathering->expect_one_more();
    exit.node->add_post_hook(std::make_unique<Watcher>(gathering, exit.places));
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].requires_grad()) continue;
    if (returned[i]) gathering->expect_one_more();
    outputs[i].register_hook([gathering, i, input = returned[i]](const at::TensorBase& incoming) {
      const at::Tensor gradient(incoming);
      gathering->output_arrives(i, gradient);
      if (input) gathering->inputs_arrive({{*input, gradient}});
    });
  }
}

}  // namespace dds::hooks
