// Rules of the kinds of layers in hooks/operators.hpp: products, convolutions, lookups, norms, sequences. And of
// attention.
#include <ATen/TensorOperators.h>
#include <ATen/ops/any.h>
#include <ATen/ops/le.h>
#include <ATen/ops/rsqrt.h>

#include <algorithm>
#include <string>

#include "hooks/layer_run.hpp"
#include "hooks/pass_graph.hpp"
#include "hooks/rule.hpp"

namespace dds::hooks::rules {
namespace {

using Kind = DimSource::Kind;
using Way = Link::Way;

int last_dim(const at::Tensor& tensor) { return static_cast<int>(tensor.dim()) - 1; }

// ---- products ----

/// Both operands are summed over these dimensions, which run together.
void contract(Rule& rule, const at::Tensor& left, int dim_of_left, const at::Tensor& right, int dim_of_right) {
  rule.together(left, dim_of_left, right, dim_of_right);
  rule.event(Event::Kind::Summed, left, dim_of_left);
  rule.event(Event::Kind::Summed, right, dim_of_right);
}

/// Matrix product: the result has the batch dimensions, then what is left of both.
bool contraction(Rule& rule, const at::Tensor& left, const at::Tensor& right, bool transposed) {
  const int rank = static_cast<int>(rule.output().dim()), x = last_dim(left) + 1, y = last_dim(right) + 1;
  if (x == 0 || y == 0) return false;
  const int of_left = x - 1, of_right = y == 1 ? 0 : transposed ? y - 1 : y - 2;
  const int column = y == 1 ? -1 : transposed ? y - 2 : y - 1, row = x == 1 ? -1 : x - 2;
  const int batch = rank - (row >= 0 ? 1 : 0) - (column >= 0 ? 1 : 0);
  DimSources by_left = rule.none(), by_right = rule.none();
  for (int dim = 0; dim < rank; ++dim) {
    auto &a = by_left[static_cast<std::size_t>(dim)], &b = by_right[static_cast<std::size_t>(dim)];
    if (dim < batch) {
      const int in_left = dim - batch + x - (x == 1 ? 1 : 2), in_right = dim - batch + y - (y == 1 ? 1 : 2);
      if (in_left >= 0 && left.size(in_left) == rule.output().size(dim)) a = same_dim(in_left);
      if (in_right >= 0 && right.size(in_right) == rule.output().size(dim)) b = same_dim(in_right);
    } else if (row >= 0 && dim == batch) {
      a = same_dim(row);
      b = {Kind::Mixed, {of_right}};
    } else {
      a = {Kind::Mixed, {of_left}};
      b = same_dim(column);
    }
  }
  rule.meaning.kind = Meaning::Kind::Contraction;
  rule.add(left, Way::Linear, std::move(by_left)).keeps_constants = false;
  // Weights that sum to one leave constants alone.
  const Node* weights = rule.node(left);
  rule.add(right, Way::Linear, std::move(by_right)).keeps_constants =
      weights && (weights->op == "aten::softmax" || weights->op == "aten::_softmax");
  contract(rule, left, of_left, right, of_right);
  return true;
}

bool describe_kind(Rule& rule, const kind::Product& op) {
  const at::Tensor left = rule.tensor(op.left), right = rule.tensor(op.right);
  if (!left.defined() || !right.defined() || !contraction(rule, left, right, op.transposed)) return false;
  if (const at::Tensor summand = rule.tensor(op.summand); summand.defined()) rule.add(summand);
  return true;
}

/// Of two operands. Of others it is told what their dimensions count.
bool describe_kind(Rule& rule, const kind::Einsum&) {
  if (rule.args().size() < 2 || !rule.args()[0].isString()) return false;
  const auto operands = tensors_at(rule.args(), 1);
  const auto parsed = parse_einsum(rule.args()[0].toStringRef());
  if (!parsed || parsed->first.size() != operands.size()) return false;
  const auto& [inputs, output] = *parsed;
  bool two = operands.size() == 2;
  for (std::size_t i = 0; i < operands.size(); ++i) {
    std::vector<int> contracted;
    for (std::size_t k = 0; k < inputs[i].size(); ++k) {
      const char label = inputs[i][k];
      for (std::size_t other = 0; other < i; ++other) {
        const std::size_t at = inputs[other].find(label);
        if (at != std::string::npos)
          rule.together(operands[other], static_cast<int>(at), operands[i], static_cast<int>(k));
      }
      if (output.find(label) != std::string::npos) continue;
      contracted.push_back(static_cast<int>(k));
      rule.event(Event::Kind::Summed, operands[i], contracted.back());
      if (two && inputs[1 - i].find(label) == std::string::npos) two = false;
    }
    DimSources axes;
    for (const char label : output) {
      const std::size_t at = inputs[i].find(label);
      if (at != std::string::npos) {
        axes.push_back(same_dim(static_cast<int>(at)));
      } else {
        axes.push_back({contracted.empty() ? Kind::Absent : Kind::Mixed, contracted});
      }
    }
    rule.add(operands[i], Way::Linear, std::move(axes)).keeps_constants = false;
  }
  rule.meaning.kind = Meaning::Kind::Contraction;
  return two;
}

bool describe_kind(Rule& rule, const kind::Bilinear&) {
  const at::Tensor left = rule.tensor(0);
  if (!left.defined()) return false;
  for (const std::size_t place : {0, 1}) rule.add(rule.tensor(place), Way::Other, rule.leading(left));
  if (const at::Tensor bias = rule.tensor(3); bias.defined()) {
    rule.add_vector(bias, static_cast<std::size_t>(last_dim(rule.output())));
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

bool describe_kind(Rule& rule, const kind::Convolution& op) {
  const at::Tensor input = rule.tensor(0), weight = rule.tensor(1);
  if (!input.defined() || !weight.defined() || weight.dim() < 3) return false;
  const auto space = static_cast<std::size_t>(weight.dim() - 2);
  const bool transposed = op.transposed || bool_at(rule.args(), op.is_transposed, false);
  const auto strides = ints_at(rule.args(), 3, space), paddings = ints_at(rule.args(), 4, space),
             dilations = ints_at(rule.args(), op.dilation, space);
  const bool told = strides.size() == space && paddings.size() == space && dilations.size() == space;
  const auto channels = static_cast<std::size_t>(input.dim()) - space - 1;
  Link& link = rule.add(input, Way::Linear, rule.none());
  if (channels == 1) link.axes[0] = same_dim(0);
  link.axes[channels] = {Kind::Mixed, {static_cast<int>(channels)}};
  for (std::size_t i = 0; i < space; ++i) {
    const int dim = static_cast<int>(channels + 1 + i);
    const std::int64_t kernel = weight.size(static_cast<std::int64_t>(2 + i)), size = input.size(dim),
                       out = rule.output().size(dim);
    const bool pointwise = told && kernel == 1 && strides[i] == 1 && paddings[i] == 0;
    link.axes[channels + 1 + i] = {pointwise ? Kind::Same : Kind::Mixed, {dim}};
    link.taps *= transposed || !told ? kernel : places_seen(kernel, size, out, strides[i], paddings[i], dilations[i]);
    link.keeps_constants = link.keeps_constants && told && !transposed && paddings[i] == 0;
  }
  link.groups = int_at(rule.args(), op.groups, 1);
  rule.hide(weight);
  if (const at::Tensor bias = rule.tensor(2); bias.defined()) rule.add_vector(bias, channels);
  return true;
}

// ---- lookups ----

/// A bag is a row of indices, or what lies between two offsets.
bool describe_kind(Rule& rule, const kind::Embedding& op) {
  const at::Tensor table = rule.tensor(0), indices = rule.tensor(1), offsets = rule.tensor(2);
  if (!table.defined() || !indices.defined() || rule.place() > 0) return false;
  const int last = last_dim(rule.output());
  DimSources axes = rule.none(), columns = rule.none(), bags = rule.none();
  for (int dim = 0; dim < last && !op.bag; ++dim) axes[static_cast<std::size_t>(dim)] = same_dim(dim);
  if (op.bag) axes[0] = {Kind::Mixed, {0}};
  rule.add(indices, Way::Hidden, std::move(axes));
  columns.back() = same_dim(1);
  rule.add(table, Way::Hidden, std::move(columns));
  if (op.bag && offsets.defined() && offsets.size(0) == rule.output().size(0)) {
    bags[0] = same_dim(0);
    rule.counts(offsets, std::move(bags)).if_data = true;
  }
  Meaning& meaning = rule.meaning;
  meaning.table = table.size(0);
  if (!rule.ranks()) return true;
  const Node* tokens = rule.node(indices);
  meaning.data_tokens = tokens && tokens->data;
  meaning.tokens = meaning.data_tokens ? at::Tensor() : indices.detach();  // data is given where a layer ran
  meaning.padding = op.bag ? -1 : int_at(rule.args(), 2, -1);
  if (meaning.padding >= 0) meaning.nonzero = any_nonzero(table.detach().select(0, meaning.padding));
  return true;
}

// ---- norms ----

/// Whether beta / gamma has a component that the centred rows lack: in a group, beta^T (1 / gamma) is not zero.
at::Tensor fills(const at::Tensor& beta, const at::Tensor& gamma, std::int64_t groups) {
  const at::Tensor some = any_nonzero(beta);
  if (some.is_cpu() && !some.item<bool>() && !(gamma.defined() && any_zero(gamma).item<bool>())) return some;
  const at::Tensor along = (gamma.defined() ? beta.detach() / gamma.detach() : beta.detach()).reshape({groups, -1});
  return at::any(at::le(along.sum(1).abs(), along.abs().sum(1) * 1e-6).logical_not());  // where gamma is 0 too
}

/// The shift along a dimension. `groups`: of centred rows; 0: rows are not centred.
void shift(Rule& rule, const at::Tensor& beta, int dim, const at::Tensor& gamma, std::int64_t groups) {
  if (!beta.defined()) return;
  rule.add_vector(beta, static_cast<std::size_t>(dim));
  if (rule.ranks()) rule.meaning.nonzero = groups > 0 ? fills(beta, gamma, groups) : any_nonzero(beta);
}

/// Entries go into each other along the dimensions from `first` on, but one.
void blend(Rule& rule, const at::Tensor& input, int first, int but = -1) {
  for (int dim = std::max(first, 0); dim <= last_dim(input); ++dim) {
    if (dim != but) rule.event(Event::Kind::Blended, input, dim);
  }
}

bool over_features(Rule& rule, const at::Tensor& input, const at::Tensor& gamma, const at::Tensor& beta, bool centred) {
  const bool one = rule.args().size() > 1 && rule.args()[1].isIntList() && rule.args()[1].toIntVector().size() == 1;
  const auto over = rule.args().size() > 1 && rule.args()[1].isIntList() ? rule.args()[1].toIntVector().size() : 0;
  blend(rule, input, static_cast<int>(input.dim()) - static_cast<int>(over));
  Link& link = rule.add(input, one ? Way::Rescaled : Way::Other);
  if (one && centred) {
    link.lacking = 1;
    link.lacking_along = link.sums_to_zero = last_dim(input);
  }
  rule.hide(gamma);
  shift(rule, beta, last_dim(input), gamma, one ? 1 : 0);
  return true;
}

bool over_rows(Rule& rule, const at::Tensor& input, const at::Tensor& gamma, const at::Tensor& beta,
               const kind::Norm& op) {
  const at::Tensor mean = rule.tensor(3), variance = rule.tensor(4);
  if (input.dim() < 2) return false;
  Link& link = rule.add(input, Way::Linear);
  if (bool_at(rule.args(), 5, true)) {
    blend(rule, input, op.over == kind::Norm::Over::Batch ? 0 : 2, 1);
    link.drops_constants = true;
    link.way = op.over == kind::Norm::Over::Batch ? Way::Rescaled : Way::Other;
    rule.hide(gamma);
    shift(rule, beta, 1, gamma, 0);
    return true;
  }
  link.scaled = true;  // and shifted, channel by channel
  rule.hide(gamma);
  if (!mean.defined() || !variance.defined()) return true;
  rule.add_vector(mean, 1);
  if (!rule.ranks()) return true;
  at::Tensor shift = mean.mul(at::rsqrt(variance + number_at(rule.args(), op.epsilon, 1e-5))).neg();
  if (gamma.defined()) shift = shift * gamma.detach();
  if (beta.defined()) shift = shift + beta.detach();
  rule.meaning.nonzero = any_nonzero(shift);
  return true;
}

bool over_groups(Rule& rule, const at::Tensor& input, const at::Tensor& gamma, const at::Tensor& beta) {
  if (input.dim() < 2) return false;
  std::int64_t places = 1;
  for (std::int64_t dim = 2; dim < input.dim(); ++dim) places *= input.size(dim);
  const std::int64_t groups = int_at(rule.args(), 1, 1);
  if (groups < 1 || input.size(1) % groups != 0) return false;
  blend(rule, input, 1);
  Link& link = rule.add(input, Way::Other);
  if (places == 1) {
    link.lacking = groups;
    link.lacking_along = 1;
    if (groups == 1) link.sums_to_zero = 1;
  }
  rule.hide(gamma);
  shift(rule, beta, 1, gamma, places == 1 ? groups : 0);
  return true;
}

bool describe_kind(Rule& rule, const kind::Norm& op) {
  const at::Tensor input = rule.tensor(0), gamma = rule.tensor(op.weight), beta = rule.tensor(op.bias);
  if (!input.defined() || input.dim() == 0 || (rule.place() > 0 && input.dim() != rule.output().dim())) return false;
  if (rule.place() > 0) return rule.counts(input, rule.leading(input)), false;  // mean and deviation
  using Over = kind::Norm::Over;
  switch (op.over) {
    case Over::Layer:
    case Over::RootMeanSquare:
      return over_features(rule, input, gamma, beta, op.over == Over::Layer);
    case Over::Batch:
    case Over::Instance:
      return over_rows(rule, input, gamma, beta, op);
    case Over::Group:
      return over_groups(rule, input, gamma, beta);
  }
  return false;
}

// ---- others ----

/// Along the dimensions of samples and of time anything may come of anything.
bool describe_kind(Rule& rule, const kind::Recurrent& op) {
  const at::Tensor input = rule.tensor(0);
  if (!input.defined()) return false;
  std::vector<int> all;
  for (int dim = 0; dim < last_dim(input); ++dim) all.push_back(dim);
  DimSources axes = rule.none(), counted = rule.none();
  for (std::size_t dim = 0; dim + 1 < axes.size(); ++dim) axes[dim] = {Kind::Mixed, all};
  rule.add(input, Way::Other, std::move(axes));
  for (const at::Tensor& tensor : rule.ended.operands) rule.hide(tensor);
  const bool whole = !op.one_step && input.dim() == 3 && rule.args().size() > 3 && rule.args()[3].isBool();
  if (whole && counted.size() == 3) {
    const bool batch_first = bool_at(rule.args(), rule.args().size() - 1, false);
    if (rule.place() == 0) counted[0] = same_dim(0);
    counted[1] = same_dim(rule.place() == 0 || !batch_first ? 1 : 0);
  } else if (op.one_step && input.dim() == 2 && counted.size() == 2) {
    counted[0] = same_dim(0);
  }
  rule.counts(input, std::move(counted));
  return true;
}

bool describe_kind(Rule& rule, const kind::Prelu&) { return homogeneous_entries(rule); }
bool describe_kind(Rule& rule, const kind::Loss&) { return loss(rule); }
bool describe_kind(Rule& rule, const kind::LogSoftmax&) { return softmax(rule); }
bool describe_kind(Rule& rule, const kind::Logistic&) { return entries(rule); }
bool describe_kind(Rule& rule, const kind::Addition&) { return sum(rule); }

}  // namespace

bool by_kind(Rule& rule, const Operator& op) {
  return std::visit([&](const auto& kind) { return describe_kind(rule, kind); }, op.kind);
}

/// Of whole operators of norms that run inside others, or alone.
bool counted_norm(Rule& rule) {
  const at::Tensor input = rule.tensor(0);
  const bool group = rule.name() == "native_group_norm", features = rule.name() == "_fused_rms_norm";
  if (input.defined() && rule.place() == 0 && (group || features || bool_at(rule.args(), 5, true))) {
    const auto over = ints_at(rule.args(), 1, 1).size();
    blend(rule, input,
          group      ? 1
          : features ? static_cast<int>(input.dim()) - static_cast<int>(over)
                     : 0,
          group || features ? -1 : 1);
  }
  return counted_dims(rule);
}

/// Distances between the rows of two matrices.
bool distances(Rule& rule) {
  const at::Tensor left = rule.tensor(0), right = rule.tensor(1);
  return left.defined() && right.defined() && contraction(rule, left, right, true);
}

bool dot(Rule& rule) {
  contract(rule, rule.tensor(0), 0, rule.tensor(1), 0);
  return counted_entries(rule);
}

/// softmax(query @ key^T) @ value
bool attention(Rule& rule) {
  const at::Tensor query = rule.tensor(0), key = rule.tensor(1), value = rule.tensor(2);
  const auto has_rank = [&](const at::Tensor& tensor) {
    return tensor.defined() && tensor.dim() == rule.output().dim();
  };
  if (rule.place() > 0 || !has_rank(query) || !has_rank(key) || !has_rank(value) || value.dim() < 2) return false;
  const int last = last_dim(rule.output()), position = last - 1;
  const bool masked = rule.tensor(3).defined() || bool_at(rule.args(), 5, false);
  for (const std::size_t place : {2, 0, 1}) {
    DimSources axes = rule.leading(query);
    axes[static_cast<std::size_t>(position)] = {};
    if (place == 0) axes[static_cast<std::size_t>(position)] = same_dim(position);
    if (place == 2) axes[static_cast<std::size_t>(position)] = {Kind::Mixed, {position}};
    if (place == 2) axes[static_cast<std::size_t>(last)] = same_dim(last);
    rule.add(rule.tensor(place), place == 2 ? Way::Linear : Way::Hidden, std::move(axes)).masked = masked;
  }
  rule.together(query, last, key, last);
  contract(rule, key, position, value, position);
  return true;
}

}  // namespace dds::hooks::rules
