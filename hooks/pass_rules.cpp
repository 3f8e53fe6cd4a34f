// The rules of hooks/pass_graph.hpp: what each operator that is known makes of its operands. Operators that only
// arrange entries, or mix them along a dimension, stand in hooks/pass_arrangements.cpp.

#include <ATen/ops/any.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/ne.h>
#include <ATen/ops/zeros.h>

#include "hooks/pass_rule.hpp"

namespace dds::hooks {
namespace {

using Way = Link::Way;
using Kind = Axis::Kind;

// ---- entry by entry ----

bool entries(Rule& rule) {
  rule.add(tensor_at(rule.args(), 0), Way::Entries);
  return true;
}

/// Of several tensors, entry by entry in a way that is not linear.
bool entries_of_all(Rule& rule) {
  for_each_tensor(rule.args(), [&](const at::Tensor& tensor) { rule.add(tensor, Way::Entries); });
  return true;
}

/// Such as a clamp, which may leave all entries as they are.
bool clips(Rule& rule) {
  for_each_tensor(rule.args(), [&](const at::Tensor& tensor) { rule.add(tensor, Way::Clips); });
  return true;
}

bool homogeneous_entries(Rule& rule) {
  rule.add(tensor_at(rule.args(), 0), Way::Entries).homogeneous = true;
  return true;
}

/// Digits of a floating type, in an order.
int digits(at::ScalarType type) {
  if (!at::isFloatingType(type) && !at::isComplexType(type)) return 3;
  const auto real = c10::toRealValueType(type);
  return real == at::kDouble ? 3 : real == at::kFloat ? 2 : 1;
}

bool same_entries(Rule& rule) {
  const at::Tensor input = tensor_at(rule.args(), 0);
  if (!input.defined()) return false;
  const int from = digits(input.scalar_type()), to = digits(rule.output.scalar_type());
  Link& link = rule.add(input);
  link.finer = to > from && !(*rule.graph)[link.operand].links.empty();
  link.coarser = to < from;
  return true;
}

bool dropout(Rule& rule) {
  const bool drops = bool_at(rule.args(), 2, false) && number_at(rule.args(), 1, 0) > 0;
  rule.add(tensor_at(rule.args(), 0), drops ? Way::Entries : Way::Linear);
  return true;
}

/// x - mean(x) over a dimension: its entries along it sum to zero.
bool centres(Rule& rule, const at::Tensor& whole, const at::Tensor& mean) {
  const auto id = rule.run.node(mean);
  if (!id) return false;
  const Node& of_mean = (*rule.graph)[*id];
  if (of_mean.op.find("mean") == std::string::npos || of_mean.links.size() != 1 ||
      of_mean.links[0].operand != rule.run.node(whole)) {
    return false;
  }
  int along = -1;
  for (int dim = 0; dim < static_cast<int>(whole.dim()); ++dim) {
    if (mean.dim() != whole.dim() || mean.size(dim) == whole.size(dim)) continue;
    if (along >= 0) return false;
    along = dim;
  }
  if (along < 0) return false;
  Link& link = rule.add(whole, Way::Rescaled);
  link.lacking_along = link.sums_to_zero = along;
  link.lacking = 1;
  return true;
}

bool sum(Rule& rule) {
  const at::Tensor left = tensor_at(rule.args(), 0), right = tensor_at(rule.args(), 1);
  if (!left.defined()) return false;
  if (right.defined() && rule.run.name == "sub" && number_at(rule.args(), 2, 1) == 1 && centres(rule, left, right)) {
    return true;
  }
  rule.add(left);
  if (right.defined()) rule.add(right);
  if (!right.defined()) rule.node.shift = number_at(rule.args(), 1, 1) * number_at(rule.args(), 2, 1);
  rule.node.difference = rule.run.name == "sub" && number_at(rule.args(), 2, 1) == 1;
  return true;
}

bool product(Rule& rule) {
  const at::Tensor left = tensor_at(rule.args(), 0), right = tensor_at(rule.args(), 1);
  if (!left.defined()) return false;
  if (!right.defined() || (right.dim() == 0 && !right.requires_grad())) {
    const bool none =
        right.defined() ? right.is_cpu() && at::eq(right, 0).item<bool>() : number_at(rule.args(), 1, 1) == 0;
    rule.add(left, none ? Way::Clips : Way::Linear);
    return true;
  }
  const bool divides = rule.run.name == "div" || rule.run.name == "divide" || rule.run.name == "true_divide";
  if (divides && rule.args().size() > 2) return entries_of_all(rule);  // rounds
  rule.node.kind = Node::Kind::Product;
  rule.add(left);
  rule.add(right, divides ? Way::Entries : Way::Linear);
  for (const at::Tensor& factor : {left, right}) {
    if (factor.requires_grad()) continue;
    const at::Tensor zeros = at::any(at::eq(factor, 0));
    rule.node.zeros = rule.node.zeros.defined() ? rule.node.zeros.logical_or(zeros) : zeros;
  }
  return true;
}

bool power(Rule& rule) {
  const at::Tensor base = tensor_at(rule.args(), 0);
  const bool square = rule.run.name == "square" || number_at(rule.args(), 1, 0) == 2;
  if (!base.defined() || !square) return entries_of_all(rule);
  rule.node.kind = Node::Kind::Product;
  rule.add(base);
  rule.add(base);
  return true;
}

/// where(mask, a, b) and masked_fill(x, mask, value).
bool masked(Rule& rule) {
  const bool fills = rule.run.name == "masked_fill";
  const at::Tensor mask = tensor_at(rule.args(), fills ? 1 : 0);
  if (!mask.defined()) return false;
  for (const std::size_t place : fills ? std::vector<std::size_t>{0} : std::vector<std::size_t>{1, 2}) {
    if (const at::Tensor tensor = tensor_at(rule.args(), place); tensor.defined()) rule.add(tensor, Way::Clips);
  }
  rule.add(mask, Way::Hidden);
  return true;
}

// ---- softmax and losses ----

bool softmax(Rule& rule) {
  const at::Tensor input = tensor_at(rule.args(), 0);
  if (!input.defined()) return false;
  const int dim = static_cast<int>(int_at(rule.args(), 1, -1));
  rule.add(input, Way::Other).sums_to_zero = dim < 0 ? dim + static_cast<int>(input.dim()) : dim;
  return true;
}

bool loss(Rule& rule) {
  const at::Tensor input = tensor_at(rule.args(), 0);
  if (!input.defined()) return false;
  for (std::size_t i = 0; i < rule.args().size(); ++i) {
    const at::Tensor tensor = tensor_at(rule.args(), i);
    if (!tensor.defined()) continue;
    Link& link = rule.add(tensor, Way::Other, {});
    if (i > 0 || rule.run.name != "cross_entropy_loss") continue;
    link.sums_to_zero = input.dim() > 1 ? 1 : 0;
    const at::Tensor classes = tensor_at(rule.args(), 1);
    if (at::isIntegralType(classes.scalar_type(), false)) {
      link.counted = at::ne(classes, int_at(rule.args(), 4, -100)).sum();
    }
  }
  return true;
}

/// Of one tensor, in a way that may give any rank: other dimensions stay where they are if their sizes do.
bool anything(Rule& rule) {
  bool first = true;
  for_each_tensor(rule.args(), [&](const at::Tensor& tensor) {
    rule.add(tensor, first ? Way::Other : Way::Hidden, first ? rule.leading_axes() : rule.broadcast_none());
    first = false;
  });
  return !first;
}

/// Along the dimensions of samples and of time anything may come of anything.
bool recurrence(Rule& rule) {
  const at::Tensor input = tensor_at(rule.args(), 0);
  if (!input.defined()) return false;
  std::vector<int> all;
  for (int dim = 0; dim + 1 < static_cast<int>(input.dim()); ++dim) all.push_back(dim);
  std::vector<Axis> axes = rule.broadcast_none();
  for (std::size_t dim = 0; dim + 1 < axes.size(); ++dim) axes[dim] = {Kind::Mixed, all};
  rule.add(input, Way::Other, std::move(axes));
  for_each_tensor(rule.args(), [&](const at::Tensor& tensor) { rule.hide(tensor); });
  return true;
}

/// A variance over one dimension does not see a shift along it. With it may come the mean.
bool variance(Rule& rule) {
  const at::Tensor input = tensor_at(rule.args(), 0);
  const auto dims = ints_at(rule.args(), 1, 1);
  if (!input.defined()) return false;
  std::vector<Axis> axes;
  const bool one = dims.size() == 1, keeps = rule.output.dim() == input.dim();
  const int along = one ? static_cast<int>(dims[0] < 0 ? dims[0] + input.dim() : dims[0]) : -1;
  for (int dim = 0; one && dim < static_cast<int>(input.dim()); ++dim) {
    if (dim != along) {
      axes.push_back(varies(input, dim) ? Axis{Kind::Same, {dim}} : Axis{});
    } else if (keeps) {
      axes.emplace_back();
    }
  }
  axes.resize(static_cast<std::size_t>(rule.output.dim()));
  Link& link = rule.add(input, rule.place == 0 ? Way::Other : one ? Way::Linear : Way::Unknown, std::move(axes));
  if (rule.place == 0) link.sums_to_zero = along;
  return true;
}

/// The gradient of a logarithm of a sum of exponentials and that of a part of it may cancel along a direction.
bool not_known(Rule& rule) {
  rule.add(tensor_at(rule.args(), 0), Way::Unknown, {});
  return true;
}

bool fresh(Rule&) { return true; }

/// Every entry is the same.
bool filled(Rule& rule) {
  std::fill(rule.node.sizes.begin(), rule.node.sizes.end(), 1);
  if (rule.run.name.find("zero") != std::string_view::npos) rule.node.nonzero = at::zeros({}, at::kBool);
  return true;
}

bool copied(Rule& rule) {
  rule.add(tensor_at(rule.args(), 1));
  return true;
}

void add_entries(Rules& rules) {
  rules.add(entries, {"relu6",    "gelu", "tanh",     "sigmoid",   "silu",        "elu",         "selu",  "celu",
                      "softplus", "mish", "hardtanh", "hardswish", "hardsigmoid", "log_sigmoid", "exp",   "exp2",
                      "log",      "log2", "log10",    "log1p",     "expm1",       "sqrt",        "rsqrt", "sin"});
  rules.add(entries, {"cos", "tan", "asin", "acos", "atan", "sinh", "cosh", "erf", "erfc", "reciprocal", "logit"});
  rules.add(clips, {"clamp", "clamp_min", "clamp_max",  "clip",       "floor",     "ceil",       "round",   "trunc",
                    "frac",  "sign",      "softshrink", "hardshrink", "threshold", "nan_to_num", "maximum", "minimum",
                    "fmod",  "remainder", "lerp",       "addcmul",    "addcdiv",   "xlogy"});
  rules.add(entries,
            {"alpha_dropout", "feature_alpha_dropout", "rrelu", "rrelu_with_noise", "native_dropout", "bernoulli"});
  rules.add(entries_of_all, {"atan2", "eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_not",
                             "floor_divide", "hypot"});
  rules.add(homogeneous_entries, {"relu", "leaky_relu", "abs", "prelu", "_prelu_kernel"});
  rules.add(same_entries, {"neg", "clone", "contiguous", "to", "_to_copy", "type_as", "alias", "detach", "positive",
                           "float", "double", "half", "lift_fresh", "pin_memory"});
  rules.add(dropout, {"dropout", "feature_dropout"});
  rules.add(sum, {"add", "sub", "rsub", "subtract"});
  rules.add(product, {"mul", "multiply", "div", "divide", "true_divide"});
  rules.add(power, {"pow", "square"});
  rules.add(masked, {"where", "masked_fill"});
}

void add_others(Rules& rules) {
  rules.add(softmax, {"softmax", "_softmax", "log_softmax", "_log_softmax"});
  rules.add(loss, {"cross_entropy_loss", "nll_loss", "nll_loss_nd", "nll_loss2d", "mse_loss", "smooth_l1_loss",
                   "huber_loss", "binary_cross_entropy", "binary_cross_entropy_with_logits", "l1_loss", "kl_div",
                   "soft_margin_loss", "poisson_nll_loss", "multi_margin_loss", "multilabel_margin_loss",
                   "hinge_embedding_loss", "margin_ranking_loss"});
  rules.add(anything, {"max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool1d", "adaptive_max_pool2d",
                       "adaptive_max_pool3d", "max", "min", "amax", "amin", "median", "topk", "sort"});
  rules.add(anything, {"norm", "linalg_vector_norm", "glu", "argsort", "one_hot"});
  rules.add(recurrence,
            {"lstm", "gru", "rnn_tanh", "rnn_relu", "lstm_cell", "gru_cell", "rnn_tanh_cell", "rnn_relu_cell"});
  rules.add(anything, {"_weight_norm", "_weight_norm_interface"});
  rules.add(variance, {"var", "std", "var_mean", "std_mean"});
  rules.add(not_known, {"logsumexp"});
  rules.add(fresh, {"rand_like", "randn_like", "empty_like", "new_empty", "normal", "uniform", "random", "exponential",
                    "randperm", "multinomial"});
  rules.add(filled, {"zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "fill", "zero",
                     "zeros", "ones", "full"});
  rules.add(copied, {"copy"});
}

const Rules& rules() {
  static const Rules all = [] {
    Rules rules;
    add_entries(rules);
    add_others(rules);
    add_products(rules);
    add_norms(rules);
    add_arrangements(rules);
    return rules;
  }();
  return all;
}

}  // namespace

bool is_described(std::string_view name) { return rules().find(name) != nullptr; }

bool describe(const PassGraph& graph, const PassGraph::Run& run, const at::Tensor& output, std::size_t place,
              Node& node) {
  const Describe describe_it = rules().find(run.name);
  node.kind = Node::Kind::Sum;
  Rule rule{&graph, run, output, place, node};
  const bool described = describe_it && describe_it(rule) && !rule.lost;
  if (!described) node.links.clear();
  if (node.links.empty()) node.kind = Node::Kind::Leaf;
  return described;
}

}  // namespace dds::hooks
