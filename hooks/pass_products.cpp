// Rules for products: matrices, convolutions, attention, and lookups, which are products with choices.
#include <ATen/ops/any.h>
#include <ATen/ops/ne.h>

#include "hooks/layer_run.hpp"
#include "hooks/pass_rule.hpp"

namespace dds::hooks {
namespace {

using Way = Link::Way;
using Kind = Axis::Kind;

/// Matrix product: `contracted` dimensions are those of left and right that are summed over; the result has the batch
/// dimensions, then what is left of both.
bool contraction(Rule& rule, const at::Tensor& left, at::Tensor right, bool transposed) {
  const int rank = static_cast<int>(rule.output.dim()), x = static_cast<int>(left.dim()),
            y = static_cast<int>(right.dim());
  if (x == 0 || y == 0) return false;
  const int of_left = x - 1, of_right = y == 1 ? 0 : transposed ? y - 1 : y - 2;
  const int column = y == 1 ? -1 : transposed ? y - 2 : y - 1, row = x == 1 ? -1 : x - 2;
  rule.node.kind = Node::Kind::Contraction;
  Link by_left = rule.link(left, Way::Linear), by_right = rule.link(right, Way::Linear);
  by_left.axes.resize(static_cast<std::size_t>(rank));
  by_right.axes.resize(static_cast<std::size_t>(rank));
  const int own = (row >= 0 ? 1 : 0) + (column >= 0 ? 1 : 0), batch = rank - own;
  for (int dim = 0; dim < rank; ++dim) {
    auto &a = by_left.axes[static_cast<std::size_t>(dim)], &b = by_right.axes[static_cast<std::size_t>(dim)];
    if (dim < batch) {
      const int in_left = dim - batch + x - (x == 1 ? 1 : 2), in_right = dim - batch + y - (y == 1 ? 1 : 2);
      if (in_left >= 0 && left.size(in_left) == rule.output.size(dim) && varies(left, in_left))
        a = {Kind::Same, {in_left}};
      if (in_right >= 0 && right.size(in_right) == rule.output.size(dim) && varies(right, in_right))
        b = {Kind::Same, {in_right}};
    } else if (row >= 0 && dim == batch) {
      a = {Kind::Same, {row}};
      b = {Kind::Mixed, {of_right}};
    } else {
      a = {Kind::Mixed, {of_left}};
      b = {Kind::Same, {column}};
    }
  }
  by_left.keeps_constants = false;
  rule.node.links = {std::move(by_left), std::move(by_right)};
  // Weights that sum to one leave constants alone.
  const std::string& op = (*rule.graph)[rule.node.links[0].operand].op;
  rule.node.links[1].keeps_constants = op == "aten::softmax" || op == "aten::_softmax";
  return true;
}

bool matrix_product(Rule& rule) {
  const auto entry = find_operator("aten::" + std::string(rule.run.name));
  const auto* op = entry ? entry->as<kind::Product>() : nullptr;
  if (!op) return false;
  const at::Tensor left = tensor_at(rule.args(), op->left), right = tensor_at(rule.args(), op->right);
  if (!left.defined() || !right.defined() || !contraction(rule, left, right, op->transposed)) return false;
  if (const at::Tensor summand = tensor_at(rule.args(), op->summand); summand.defined()) rule.add(summand);
  return true;
}

bool einsum(Rule& rule) {
  if (rule.args().size() < 2 || !rule.args()[0].isString() || !rule.args()[1].isTensorList()) return false;
  const auto operands = rule.args()[1].toTensorVector();
  const auto parsed = parse_einsum(rule.args()[0].toStringRef());
  if (!parsed || operands.size() != 2 || parsed->first.size() != 2) return false;
  rule.node.kind = Node::Kind::Contraction;
  for (std::size_t i = 0; i < 2; ++i) {
    const std::string &own = parsed->first[i], &other = parsed->first[1 - i];
    std::vector<int> contracted;
    for (std::size_t k = 0; k < own.size(); ++k) {
      const bool kept = parsed->second.find(own[k]) != std::string::npos;
      if (!kept && other.find(own[k]) == std::string::npos) return false;
      if (!kept) contracted.push_back(static_cast<int>(k));
    }
    Link link = rule.link(operands[i], Way::Linear);
    for (const char label : parsed->second) {
      const std::size_t at = own.find(label);
      if (at != std::string::npos) {
        link.axes.push_back(varies(operands[i], static_cast<int>(at)) ? Axis{Kind::Same, {static_cast<int>(at)}}
                                                                      : Axis{});
      } else {
        link.axes.push_back({contracted.empty() ? Kind::Absent : Kind::Mixed, contracted});
      }
    }
    link.keeps_constants = false;
    rule.node.links.push_back(std::move(link));
  }
  return true;
}

/// Places of a kernel from which an input of this size is ever seen.
std::int64_t places_seen(std::int64_t kernel, std::int64_t size, std::int64_t out, std::int64_t stride,
                         std::int64_t padding, std::int64_t dilation) {
  std::int64_t seen = 0;
  for (std::int64_t k = 0; k < kernel; ++k) {
    bool any = false;
    for (std::int64_t p = 0; p < out && !any; ++p) {
      const std::int64_t at = p * stride - padding + k * dilation;
      any = at >= 0 && at < size;
    }
    seen += any ? 1 : 0;
  }
  return seen;
}

bool convolution(Rule& rule) {
  const at::Tensor input = tensor_at(rule.args(), 0), weight = tensor_at(rule.args(), 1);
  const auto entry = find_operator("aten::" + std::string(rule.run.name));
  const auto* op = entry ? entry->as<kind::Convolution>() : nullptr;
  if (!op || !input.defined() || !weight.defined() || weight.dim() < 3) return false;
  const auto space = static_cast<std::size_t>(weight.dim() - 2);
  const bool transposed = op->transposed || bool_at(rule.args(), op->is_transposed, false);
  const auto strides = ints_at(rule.args(), 3, space), paddings = ints_at(rule.args(), 4, space),
             dilations = ints_at(rule.args(), op->dilation, space);
  Link link = rule.link(input, Way::Linear);
  const auto channels = static_cast<std::size_t>(input.dim()) - space - 1;
  link.axes.resize(static_cast<std::size_t>(rule.output.dim()));
  if (channels == 1) link.axes[0] = {Kind::Same, {0}};
  link.axes[channels] = {Kind::Mixed, {static_cast<int>(channels)}};
  const bool told = strides.size() == space && paddings.size() == space && dilations.size() == space;
  for (std::size_t i = 0; i < space; ++i) {
    const int dim = static_cast<int>(channels + 1 + i);
    const std::int64_t kernel = weight.size(static_cast<std::int64_t>(2 + i)), size = input.size(dim),
                       out = rule.output.size(dim);
    const bool pointwise = told && kernel == 1 && strides[i] == 1 && paddings[i] == 0;
    link.axes[channels + 1 + i] = {pointwise ? Kind::Same : Kind::Mixed, {dim}};
    link.taps *= transposed || !told ? kernel : places_seen(kernel, size, out, strides[i], paddings[i], dilations[i]);
    link.keeps_constants = link.keeps_constants && told && !transposed && paddings[i] == 0;
  }
  link.groups = int_at(rule.args(), op->groups, 1);
  rule.node.links.push_back(std::move(link));
  rule.hide(weight);
  if (const at::Tensor bias = tensor_at(rule.args(), 2); bias.defined()) {
    rule.add_vector(bias, channels);
  }
  return true;
}

bool bilinear(Rule& rule) {
  for (const std::size_t place : {0, 1}) rule.add(tensor_at(rule.args(), place), Way::Other, rule.leading_axes());
  if (const at::Tensor bias = tensor_at(rule.args(), 3); bias.defined()) {
    rule.add_vector(bias, static_cast<std::size_t>(rule.output.dim() - 1));
  }
  return true;
}

bool attention(Rule& rule) {
  const at::Tensor query = tensor_at(rule.args(), 0), key = tensor_at(rule.args(), 1),
                   value = tensor_at(rule.args(), 2);
  if (rule.place > 0 || !query.defined() || !key.defined() || !value.defined() || value.dim() < 2 ||
      query.dim() != rule.output.dim() || key.dim() != query.dim()) {
    return false;
  }
  const auto last = static_cast<std::size_t>(rule.output.dim() - 1);
  for (const std::size_t place : {2, 0, 1}) {
    const at::Tensor tensor = tensor_at(rule.args(), place);
    const bool weighted = place == 2;
    auto axes = rule.leading_axes();
    axes.resize(last + 1);
    axes[last - 1] = {weighted ? Kind::Mixed : Kind::Same, {static_cast<int>(tensor.dim() - 2)}};
    if (weighted) axes[last] = {Kind::Same, {static_cast<int>(tensor.dim() - 1)}};
    rule.add(tensor, weighted ? Way::Linear : Way::Hidden, axes).masked =
        tensor_at(rule.args(), 3).defined() || bool_at(rule.args(), 5, false);
  }
  return true;
}

// ---- lookups ----

bool lookup(Rule& rule) {
  const at::Tensor table = tensor_at(rule.args(), 0), indices = tensor_at(rule.args(), 1);
  if (!table.defined() || !indices.defined() || rule.place > 0) return false;
  const auto last = static_cast<std::size_t>(rule.output.dim() - 1);
  std::vector<Axis> axes(last + 1);
  const bool bag = rule.run.name != "embedding";
  for (int dim = 0; dim < static_cast<int>(last) && !bag; ++dim) {
    if (varies(indices, dim)) axes[static_cast<std::size_t>(dim)] = {Kind::Same, {dim}};
  }
  if (bag) axes[0] = {Kind::Mixed, {0}};
  rule.add(indices, Way::Hidden, axes);
  axes.assign(last + 1, {});
  axes[last] = {Kind::Same, {1}};
  rule.add(table, Way::Hidden, axes);
  rule.node.table = table.size(0);
  const Node& tokens = (*rule.graph)[rule.node.links.front().operand];
  rule.node.data_tokens = tokens.data;
  rule.node.tokens = rule.node.data_tokens ? at::Tensor() : indices.detach();  // data is given where a layer ran
  rule.node.padding = bag ? -1 : int_at(rule.args(), 2, -1);
  if (rule.node.padding >= 0) rule.node.nonzero = at::any(at::ne(table.detach().select(0, rule.node.padding), 0));
  return true;
}

}  // namespace

void add_products(Rules& rules) {
  rules.add(matrix_product, {"linear", "mm", "bmm", "matmul", "mv", "addmm", "baddbmm", "addmv"});
  rules.add(einsum, {"einsum"});
  rules.add(convolution, {"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
                          "convolution", "_convolution"});
  rules.add(bilinear, {"bilinear"});
  rules.add(attention, {"scaled_dot_product_attention"});
  rules.add(lookup, {"embedding", "embedding_bag"});
}

}  // namespace dds::hooks
