// Products: the weight's gradient of sample i is sum_p delta_ip (x) input_ip, after the dimensions of weight, input and
// output have been matched by their labels, as in an einsum.
#include <ATen/TensorOperators.h>
#include <ATen/ops/einsum.h>

#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "hooks/layer_run.hpp"
#include "src/per_sample/operator_uses.hpp"

namespace dds::hooks {
namespace {

using Dims = std::vector<std::int64_t>;
using Labels = std::vector<int>;

bool contains(const Dims& dims, std::int64_t dim) { return std::find(dims.begin(), dims.end(), dim) != dims.end(); }

// ---- what is multiplied ----

/// A tensor and the name of each of its dimensions.
struct Labelled {
  at::Tensor tensor;
  Labels labels;

  std::int64_t find(int label) const {
    const auto at = std::find(labels.begin(), labels.end(), label);
    return at == labels.end() ? -1 : at - labels.begin();
  }
  bool has(int label) const { return find(label) >= 0; }
  void drop(std::int64_t dim) { labels.erase(labels.begin() + dim); }
};

struct Contraction {
  Labelled weight, input, output;  ///< `output` is delta
  double factor = 1;
};

/// left @ right: 1 and 3 are the rows and columns of the result, 2 what is summed over, 100 + k the k-th dimension from
/// the end.
Labels matmul_labels(std::int64_t dims, bool left) {
  if (dims == 1) return {2};
  Labels labels;
  for (std::int64_t k = dims; k >= 3; --k) labels.push_back(static_cast<int>(100 + k));
  labels.push_back(left ? 1 : 2);
  labels.push_back(left ? 2 : 3);
  return labels;
}

Labels matmul_output(std::int64_t left, std::int64_t right) {
  Labels labels;
  for (std::int64_t k = std::max(left, right); k >= 3; --k) labels.push_back(static_cast<int>(100 + k));
  if (left > 1) labels.push_back(1);
  if (right > 1) labels.push_back(3);
  return labels;
}

Labels einsum_labels(const std::string& subscripts) { return {subscripts.begin(), subscripts.end()}; }

Contraction read(const kind::Einsum&, const Run& run) {
  const auto parsed = parse_einsum(run.op.args()[0].toStringRef());
  Contraction result;
  result.output = {run.delta, einsum_labels(parsed->second)};
  std::vector<std::pair<at::Tensor, std::string>> others;
  for (std::size_t i = 0; i < run.op.listed.size(); ++i) {
    const std::int64_t input = run.op.listed[i];
    if (input < 0) {
      result.weight = {run.op.weight, einsum_labels(parsed->first[i])};
    } else {
      others.emplace_back(run.call.inputs[static_cast<std::size_t>(input)], parsed->first[i]);
    }
  }
  if (others.size() == 1) {
    result.input = {others[0].first, einsum_labels(others[0].second)};
    return result;
  }
  std::string equation, kept;
  std::vector<at::Tensor> tensors;
  for (const auto& [operand, subscripts] : others) {
    equation += (equation.empty() ? "" : ",") + subscripts;
    tensors.push_back(operand);
    for (const char label : subscripts) {
      const bool outside = result.weight.has(label) || result.output.has(label);
      if (outside && kept.find(label) == std::string::npos) kept += label;
    }
  }
  result.input = {at::einsum(equation + "->" + kept, tensors), einsum_labels(kept)};
  return result;
}

Contraction read(const kind::Product& op, const Run& run) {
  const at::Tensor &input = run.call.inputs.front(), &weight = run.op.weight;
  const bool weight_right = tensor_at(run.op.args(), op.right).is_alias_of(weight);
  const std::int64_t left = weight_right ? input.dim() : weight.dim();
  const std::int64_t right = weight_right ? weight.dim() : input.dim();
  Contraction result;
  result.input = {input, matmul_labels(input.dim(), weight_right)};
  result.weight = {weight, matmul_labels(weight.dim(), !weight_right)};
  result.output = {run.delta, matmul_output(left, right)};
  result.factor = number_at(run.op.args(), op.alpha, 1);
  return result;
}

bool takes_diagonal(const Contraction& c) {
  const auto repeats = [](const Labels& labels) {
    return std::set<int>(labels.begin(), labels.end()).size() != labels.size();
  };
  return repeats(c.weight.labels) || repeats(c.input.labels) || repeats(c.output.labels);
}

// ---- how it is arranged ----

/// A dimension of the weight along which it does not only repeat.
struct WeightDim {
  int label;
  std::int64_t dim;
};

std::vector<WeightDim> own_dims(const Labelled& weight) {
  std::vector<WeightDim> own;
  for (std::int64_t dim = 0; dim < weight.tensor.dim(); ++dim) {
    if (weight.tensor.size(dim) == 1 || weight.tensor.stride(dim) == 0) continue;
    own.push_back({weight.labels[static_cast<std::size_t>(dim)], dim});
  }
  return own;
}

bool has(const std::vector<WeightDim>& dims, int label) {
  return std::any_of(dims.begin(), dims.end(), [&](const WeightDim& own) { return own.label == label; });
}

/// Takes from the input the dimensions that it only repeats, and sums over those that neither weight nor output has.
void reduce_input(Contraction& c, const std::vector<WeightDim>& weight) {
  for (std::int64_t dim = c.input.tensor.dim(); dim-- > 0;) {
    const int label = c.input.labels[static_cast<std::size_t>(dim)];
    const bool in_weight = has(weight, label);
    const bool repeated = c.input.tensor.size(dim) == 1 && (in_weight || !c.output.has(label));
    const bool summed = !in_weight && !c.output.has(label);
    if (!repeated && !summed) continue;
    c.input.tensor = summed ? c.input.tensor.sum(dim) : c.input.tensor.squeeze(dim);
    c.input.drop(dim);
  }
}

/// Labels with the dimensions of the weight that they are.
struct Part {
  Labels labels;
  Dims dims;

  void add(const WeightDim& own) {
    labels.push_back(own.label);
    dims.push_back(own.dim);
  }
};

/// The parts that labels play.
struct Arrangement {
  Part groups;       ///< of weight, input and output: products that do not mix
  Part free;         ///< of weight and output
  Part summed;       ///< of weight and input
  Labels positions;  ///< of input and output, without the sample
  int sample = -1;   ///< -1: all belongs to one sample
};

Arrangement arrange(const Contraction& c, const std::vector<WeightDim>& weight, int sample) {
  Arrangement result;
  result.sample = sample;
  for (const WeightDim& own : weight) {
    const bool in = c.input.has(own.label), out = c.output.has(own.label);
    (in && out ? result.groups : in ? result.summed : result.free).add(own);
  }
  for (const int label : c.output.labels) {
    if (!has(weight, label) && label != sample) result.positions.push_back(label);
  }
  return result;
}

/// An operand as (n, groups, positions, features).
at::Tensor arranged(const Labelled& operand, const Labels& features, const Arrangement& to, const Contraction& c,
                    const SampleRows& rows) {
  constexpr int kSample = -2, kFolded = -3;  // the sample, and the rows folded into its dimension
  at::Tensor tensor = by_sample(operand.tensor, to.sample < 0 ? 0 : operand.find(to.sample), rows);
  Labels labels{kSample, kFolded};
  std::copy_if(operand.labels.begin(), operand.labels.end(), std::back_inserter(labels),
               [&](int label) { return label != to.sample; });
  Labels positions = to.positions;
  positions.insert(positions.begin(), kFolded);
  Dims order{0}, sizes{rows.samples};
  for (const Labels* part : {&to.groups.labels, static_cast<const Labels*>(&positions), &features}) {
    std::int64_t& size = sizes.emplace_back(1);
    for (const int label : *part) {
      auto at = std::find(labels.begin(), labels.end(), label);
      if (at == labels.end()) {  // an operand that does not depend on it
        const Labelled& other = c.output.has(label) ? c.output : c.weight;
        Dims shape(static_cast<std::size_t>(tensor.dim()), -1);
        shape.push_back(other.tensor.size(other.find(label)));
        tensor = tensor.unsqueeze(-1).expand(shape);
        labels.push_back(label);
        at = labels.end() - 1;
      }
      order.push_back(at - labels.begin());
      size *= tensor.size(at - labels.begin());
    }
  }
  return tensor.permute(order).reshape(sizes);
}

/// A summand that is broadcast to the output. `left`: the rows of the product's left side, which serve the summand too
/// where they are its own.
void add_summand(const at::Tensor& summand, double factor, const Run& run, const at::Tensor& left, Uses& uses) {
  if (!summand.defined()) return;
  const at::Tensor& delta = run.delta;
  Dims features;
  for (std::int64_t dim = 0; dim < summand.dim(); ++dim) {
    if (summand.size(dim) > 1) features.push_back(dim + delta.dim() - summand.dim());
  }
  if (run.rows.order != SampleRows::Order::Whole && contains(features, run.rows.dim)) {
    if (uses.knows(summand) || summand.requires_grad())
      uses.mark(Status::SamplesUnknown, "a summand of its output varies over the samples");
    return;
  }
  const bool shared = left.defined() && factor == 1 && left.size(3) == summand.numel() && left.size(1) == 1 &&
                      features == run.call.output_features;
  uses.add(summand, Sum{shared ? left : rows_of(delta, run.rows, features).mul(factor)});
}

/// Adds the weight's part. Returns the rows of the left side; undefined if there is none.
at::Tensor add_weight(Contraction c, const Run& run, Uses& uses) {
  const SampleRows& rows = run.rows;
  if (takes_diagonal(c)) {
    uses.mark(Status::NotReplayable, "a diagonal is taken within the product");
    return {};
  }
  const std::vector<WeightDim> weight = own_dims(c.weight);
  reduce_input(c, weight);
  const bool whole = rows.order == SampleRows::Order::Whole;
  const int sample = whole ? -1 : c.output.labels[static_cast<std::size_t>(rows.dim)];
  if (!whole && !c.input.has(sample)) {
    uses.mark(Status::SamplesUnknown, "the input of the product does not depend on the sample");
    return {};
  }
  const Arrangement to = arrange(c, weight, sample);
  const at::Tensor left = arranged(c.output, to.free.labels, to, c, rows);
  const at::Tensor right = arranged(c.input, to.summed.labels, to, c, rows);
  const at::Tensor scaled = c.factor == 1 ? left : left.mul(c.factor);
  uses.add_product(c.weight.tensor, Product{Factor(scaled), Factor(right)}, to.groups.dims, to.free.dims,
                   to.summed.dims);
  return left;
}

}  // namespace

void add_uses(const kind::Product& op, const Run& run, Uses& uses) {
  for (const kind::Place place : {op.alpha, op.beta}) {
    if (place < run.op.args().size() && run.op.args()[place].isComplexDouble()) {
      return uses.mark(Status::NotReplayable, "a complex factor within the product");
    }
  }
  const at::Tensor left = add_weight(read(op, run), run, uses);
  if (!left.defined()) return;
  add_summand(tensor_at(run.op.args(), op.summand), number_at(run.op.args(), op.beta, 1), run, left, uses);
  add_summand(run.op.bias, 1, run, left, uses);
}

void add_uses(const kind::Einsum& op, const Run& run, Uses& uses) {
  const at::Tensor left = add_weight(read(op, run), run, uses);
  if (left.defined()) add_summand(run.op.bias, 1, run, left, uses);
}

}  // namespace dds::hooks
