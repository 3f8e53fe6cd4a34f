#include "src/per_sample/uses.hpp"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_embedding_bag.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/batch_norm.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/einsum.h>
#include <ATen/ops/group_norm.h>
#include <ATen/ops/instance_norm.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>

#include "hooks/arguments.hpp"

namespace dds::hooks {
namespace {

using Dims = std::vector<std::int64_t>;

constexpr const char* kComputedWeight =
    "its weight is computed from parameters; per_sample_gradients of the model, which keeps the graph, follows it";

bool contains(const Dims& dims, std::int64_t dim) { return std::find(dims.begin(), dims.end(), dim) != dims.end(); }

Dims counting(std::int64_t begin, std::int64_t end) {
  Dims dims(static_cast<std::size_t>(std::max<std::int64_t>(0, end - begin)));
  std::iota(dims.begin(), dims.end(), begin);
  return dims;
}

/// A tensor with the layer's rows as (n, 1, p, f): `features` are the dimensions of f, in this order.
at::Tensor rows_of(const at::Tensor& tensor, const SampleRows& rows, const Dims& features) {
  const bool whole = rows.order == SampleRows::Order::Whole;
  Dims order{0, 1};
  std::int64_t width = 1;
  const auto moved = [&](std::int64_t dim) { return whole || dim > rows.dim ? dim + (whole ? 2 : 1) : dim + 2; };
  for (std::int64_t dim = 0; dim < tensor.dim(); ++dim) {
    if ((whole || dim != rows.dim) && !contains(features, dim)) order.push_back(moved(dim));
  }
  for (const std::int64_t dim : features) {
    order.push_back(moved(dim));
    width *= tensor.size(dim);
  }
  return by_sample(tensor, rows.dim, rows).permute(order).reshape({rows.samples, 1, -1, width});
}

// ---- products ----

/// A tensor and the name of each of its dimensions.
struct Labelled {
  at::Tensor tensor;
  std::vector<int> labels;

  std::int64_t find(int label) const {
    const auto at = std::find(labels.begin(), labels.end(), label);
    return at == labels.end() ? -1 : at - labels.begin();
  }
  bool has(int label) const { return find(label) >= 0; }
  void drop(std::int64_t dim) { labels.erase(labels.begin() + dim); }
};

struct Contraction {
  Labelled weight, input, output;
  double factor = 1;
};

/// left @ right: 1 and 3 are the rows and columns of the result, 2 what is summed over, 100 + k the k-th dimension from
/// the end.
std::vector<int> matmul_labels(std::int64_t dims, bool left) {
  if (dims == 1) return {2};
  std::vector<int> labels;
  for (std::int64_t k = dims; k >= 3; --k) labels.push_back(static_cast<int>(100 + k));
  labels.push_back(left ? 1 : 2);
  labels.push_back(left ? 2 : 3);
  return labels;
}

std::vector<int> matmul_output(std::int64_t left, std::int64_t right) {
  std::vector<int> labels;
  for (std::int64_t k = std::max(left, right); k >= 3; --k) labels.push_back(static_cast<int>(100 + k));
  if (left > 1) labels.push_back(1);
  if (right > 1) labels.push_back(3);
  return labels;
}

std::vector<int> einsum_labels(const std::string& subscripts) { return {subscripts.begin(), subscripts.end()}; }

Contraction read_einsum(const Run& run) {
  const Arguments args = run.op.args();
  const auto parsed = parse_einsum(args[0].toStringRef());
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

Contraction read_contraction(const Run& run) {
  const CapturedOperator& op = run.op;
  if (op.name == "aten::einsum") return read_einsum(run);
  Contraction result;
  const at::Tensor input = run.call.inputs.front();
  result.weight.tensor = op.weight;
  result.input.tensor = input;
  bool weight_right = true;
  if (op.name != "aten::linear") {
    const bool first = op.name.find("add") == std::string::npos;  // addmm, baddbmm and addmv take the summand first
    const at::Tensor right = tensor_at(op.args(), first ? 1 : 2);
    weight_right = right.is_alias_of(op.weight);
    if (!first) result.factor = number_at(op.args(), 4, 1);
  }
  const std::int64_t left = weight_right ? input.dim() : op.weight.dim();
  const std::int64_t right = weight_right ? op.weight.dim() : input.dim();
  result.input.labels = matmul_labels(input.dim(), weight_right);
  result.weight.labels = matmul_labels(op.weight.dim(), !weight_right);
  result.output = {run.delta, matmul_output(left, right)};
  return result;
}

/// A summand that is broadcast to the output.
void add_summand(const at::Tensor& summand, double factor, const Run& run, const at::Tensor& left, Uses& uses) {
  if (!summand.defined()) return;
  const at::Tensor& delta = run.delta;
  Dims features;
  for (std::int64_t dim = 0; dim < summand.dim(); ++dim) {
    if (summand.size(dim) > 1) features.push_back(dim + delta.dim() - summand.dim());
  }
  if (run.rows.order != SampleRows::Order::Whole && contains(features, run.rows.dim)) {
    if (uses.knows(summand)) uses.mark(Status::SamplesUnknown, "a summand of its output varies over the samples");
    return;
  }
  const bool shared = left.defined() && factor == 1 && left.size(3) == summand.numel() && left.size(1) == 1 &&
                      features == run.call.output_features;
  uses.add(summand, Sum{shared ? left : rows_of(delta, run.rows, features).mul(factor)});
}

void add_contraction(const Run& run, Uses& uses) {
  Contraction c = read_contraction(run);
  const SampleRows& rows = run.rows;
  const bool whole = rows.order == SampleRows::Order::Whole;
  for (const Labelled* operand : {&c.weight, &c.input, &c.output}) {
    if (std::set<int>(operand->labels.begin(), operand->labels.end()).size() != operand->labels.size()) {
      uses.mark(Status::NotReplayable, "a diagonal is taken within the product");
      return;
    }
  }
  // Dimensions along which an operand is only repeated are none of its own.
  Dims weight_dims;  // of the operand, those that are left
  std::vector<int> weight_labels;
  for (std::int64_t dim = 0; dim < c.weight.tensor.dim(); ++dim) {
    if (c.weight.tensor.size(dim) == 1 || c.weight.tensor.stride(dim) == 0) continue;
    weight_dims.push_back(dim);
    weight_labels.push_back(c.weight.labels[static_cast<std::size_t>(dim)]);
  }
  for (std::int64_t dim = c.input.tensor.dim(); dim-- > 0;) {
    const int label = c.input.labels[static_cast<std::size_t>(dim)];
    const bool in_weight = std::find(weight_labels.begin(), weight_labels.end(), label) != weight_labels.end();
    const bool repeated = c.input.tensor.size(dim) == 1 && (in_weight || !c.output.has(label));
    const bool summed = !in_weight && !c.output.has(label);
    if (!repeated && !summed) continue;
    c.input.tensor = summed ? c.input.tensor.sum(dim) : c.input.tensor.squeeze(dim);
    c.input.drop(dim);
  }
  const int sample = whole ? -1 : c.output.labels[static_cast<std::size_t>(rows.dim)];
  if (!whole && !c.input.has(sample)) {
    uses.mark(Status::SamplesUnknown, "the input of the product does not depend on the sample");
    return;
  }

  std::vector<int> groups, free, summed, positions;
  Dims group_dims, free_dims, summed_dims;
  for (std::size_t i = 0; i < weight_labels.size(); ++i) {
    const int label = weight_labels[i];
    const bool in = c.input.has(label), out = c.output.has(label);
    (in && out ? groups : in ? summed : free).push_back(label);
    (in && out ? group_dims : in ? summed_dims : free_dims).push_back(weight_dims[i]);
  }
  for (const int label : c.output.labels) {
    const bool in_weight = std::find(weight_labels.begin(), weight_labels.end(), label) != weight_labels.end();
    if (!in_weight && label != sample) positions.push_back(label);
  }

  // As (n, groups, positions, features).
  const auto arranged = [&](const Labelled& operand, const std::vector<int>& features) {
    at::Tensor tensor = by_sample(operand.tensor, whole ? 0 : operand.find(sample), rows);
    std::vector<int> labels{-2, -3};  // the sample, and the rows folded into its dimension
    for (const int label : operand.labels) {
      if (label != sample) labels.push_back(label);
    }
    Dims order{0};
    std::int64_t sizes[3] = {1, 1, 1};
    std::vector<int> among = positions;
    among.insert(among.begin(), -3);
    const std::vector<int>* parts[3] = {&groups, &among, &features};
    for (int part = 0; part < 3; ++part) {
      for (const int label : *parts[part]) {
        auto at = std::find(labels.begin(), labels.end(), label);
        if (at == labels.end()) {  // an operand that does not depend on it
          const std::int64_t size = c.output.has(label) ? c.output.tensor.size(c.output.find(label))
                                                        : c.weight.tensor.size(c.weight.find(label));
          tensor = tensor.unsqueeze(-1).expand([&] {
            Dims shape(static_cast<std::size_t>(tensor.dim()), -1);
            shape.push_back(size);
            return shape;
          }());
          labels.push_back(label);
          at = labels.end() - 1;
        }
        order.push_back(at - labels.begin());
        sizes[part] *= tensor.size(at - labels.begin());
      }
    }
    return tensor.permute(order).reshape({rows.samples, sizes[0], sizes[1], sizes[2]});
  };
  at::Tensor left = arranged(c.output, free);
  const at::Tensor right = arranged(c.input, summed);
  const at::Tensor scaled = c.factor == 1 ? left : left.mul(c.factor);
  uses.add_product(c.weight.tensor, Product{Factor(scaled), Factor(right)}, group_dims, free_dims, summed_dims);

  const CapturedOperator& op = run.op;
  if (op.name == "aten::linear") add_summand(tensor_at(op.args(), 2), 1, run, left, uses);
  if (op.name == "aten::addmm" || op.name == "aten::baddbmm" || op.name == "aten::addmv") {
    add_summand(tensor_at(op.args(), 0), number_at(op.args(), 3, 1), run, left, uses);
  }
  add_summand(op.bias, 1, run, left, uses);
}

// ---- convolutions ----

struct Geometry {
  Windows windows;
  std::int64_t groups = 1;
  bool transposed = false;
};

Geometry read_geometry(const CapturedOperator& op) {
  const Arguments args = op.args();
  const at::IntArrayRef kernel = op.weight.sizes().slice(2);
  const std::size_t dims = kernel.size();
  Geometry result;
  Windows& windows = result.windows;
  windows.kernel = kernel.vec();
  windows.stride = ints_at(args, 3, dims);
  std::size_t dilation = 5, groups = 6;
  if (op.name == "aten::convolution" || op.name == "aten::_convolution") {
    result.transposed = bool_at(args, 6, false);
    groups = 8;
  } else if (op.name.find("transpose") != std::string::npos) {
    result.transposed = true;
    dilation = 7, groups = 6;
  }
  windows.dilation = ints_at(args, dilation, dims);
  result.groups = int_at(args, groups, 1);
  windows.before = ints_at(args, 4, dims);
  if (windows.before.empty()) {  // "same" or "valid"
    windows.before.assign(dims, 0);
    windows.after.assign(dims, 0);
    if (args[4].toStringRef() == "same") {
      for (std::size_t i = 0; i < dims; ++i) {
        const std::int64_t total = windows.dilation[i] * (kernel[i] - 1);
        windows.before[i] = total / 2;
        windows.after[i] = total - total / 2;
      }
    }
  } else {
    windows.after = windows.before;
  }
  return result;
}

void add_convolution(const Run& run, Uses& uses) {
  Geometry geometry = read_geometry(run.op);
  const at::Tensor& weight = run.op.weight;
  const std::int64_t groups = geometry.groups;
  // (n, k, channels, space...)
  const auto images = [&](const at::Tensor& tensor) {
    const bool batched = tensor.dim() == weight.dim();
    if (run.rows.order != SampleRows::Order::Whole) return by_sample(tensor, 0, run.rows);
    return batched ? by_sample(tensor, 0, run.rows).flatten(1, 2) : by_sample(tensor, 0, run.rows);
  };
  // (n, k, channels, space...) as (n, g, positions, channels / g)
  const auto by_position = [&](const at::Tensor& image) {
    return image.flatten(3).unflatten(2, {groups, image.size(2) / groups}).permute({0, 2, 1, 4, 3}).flatten(2, 3);
  };
  const at::Tensor input = images(run.call.inputs.front()), delta = images(run.delta);
  const at::Tensor& coarse = geometry.transposed ? input : delta;
  geometry.windows.positions = coarse.sizes().slice(3).vec();
  const at::Tensor left = by_position(coarse);
  Product product{Factor(left), Factor(geometry.transposed ? delta : input, groups, geometry.windows)};
  uses.add_product(weight, std::move(product));
  const at::Tensor bias = tensor_at(run.op.args(), 2);
  uses.add(bias, Sum{geometry.transposed ? by_position(delta) : left});
}

// ---- embeddings ----

void add_embedding(const Run& run, Uses& uses) {
  const Arguments args = run.op.args();
  const at::Tensor& weight = run.op.weight;
  const at::Tensor indices = run.call.inputs.front();
  at::Tensor delta = run.delta;
  const std::int64_t padding = int_at(args, 2, -1);
  if (padding >= 0) delta = delta * indices.ne(padding).unsqueeze(-1);
  if (bool_at(args, 3, false)) {  // divided by how often the batch has a token
    uses.mark(Status::Coupled, "its gradient is scaled by the frequency of a token in the batch");
    delta =
        delta / at::bincount(indices.flatten(), {}, weight.size(0)).to(delta.dtype()).index({indices}).unsqueeze(-1);
  }
  const at::Tensor rows = rows_of(delta, run.rows, {delta.dim() - 1}).squeeze(1);
  const at::Tensor tokens = rows_of(indices.unsqueeze(-1), run.rows, {delta.dim() - 1}).squeeze(1).squeeze(-1);
  uses.add(weight, Lookup{rows, tokens, weight.size(0)});
}

void add_embedding_bag(const Run& run, Uses& uses) {
  const Arguments args = run.op.args();
  const at::Tensor& weight = run.op.weight;
  const at::Tensor indices = run.call.inputs.front(), offsets = tensor_at(args, 2), weights = tensor_at(args, 6);
  const std::int64_t mode = int_at(args, 4, 0), padding = int_at(args, 8, -1), bags = run.delta.size(0);
  const std::int64_t n = run.rows.samples;
  enum { kSum, kMean, kMax };
  if (mode == kMax) {
    const at::Tensor best = std::get<3>(at::_embedding_bag(weight.detach(), indices, offsets, false, mode, false,
                                                           weights, bool_at(args, 7, false), padding));
    const at::Tensor rows = rows_of(run.delta, run.rows, {1}).squeeze(1),
                     chosen = rows_of(best, run.rows, {1}).squeeze(1).to(at::kLong);
    const std::int64_t width = weight.size(1);
    const at::Tensor place = chosen.mul(width).add(at::arange(width, chosen.options()));
    // An empty bag has no best entry: -1.
    const at::Tensor some = chosen.ge(0);
    uses.add(weight, Dense{at::zeros({n, weight.numel()}, rows.options())
                               .scatter_add(1, place.clamp_min(0).flatten(1), rows.mul(some).flatten(1))});
    return;
  }
  const at::Tensor starts = offsets.narrow(0, 0, bags);
  const at::Tensor bag =
      at::searchsorted(starts, at::arange(indices.size(0), starts.options()), false, /*right=*/true).sub(1);
  const at::Tensor counts = indices.ne(padding).to(run.delta.dtype());  // padding is no entry of a bag
  at::Tensor share = counts;
  if (weights.defined()) share = share * weights;
  if (mode == kMean) {
    const at::Tensor sizes = at::zeros({bags}, counts.options()).index_add(0, bag, counts);
    share = share / sizes.clamp_min(1).index_select(0, bag);
  }
  const at::Tensor rows = run.delta.index_select(0, bag) * share.unsqueeze(1);
  // The sample of a bag is that of its entries.
  SampleRows entries = run.rows;
  entries.order = SampleRows::Order::Scattered;
  entries.owner = owners(run.rows, bags, indices.options().dtype(at::kLong)).index_select(0, bag);
  uses.add(weight, Lookup{by_sample(rows, 0, entries), by_sample(indices.to(at::kLong), 0, entries), weight.size(0)});
}

// ---- normalisation and others ----

/// The input as the affine part of a normalisation sees it.
at::Tensor normalised(const Run& run) {
  const CapturedOperator& op = run.op;
  const Arguments args = op.args();
  const at::Tensor x = run.call.inputs.front();
  if (op.name == "aten::group_norm")
    return at::group_norm(x, int_at(args, 1, 1), {}, {}, number_at(args, 4, 1e-5), false);
  if (op.name == "aten::batch_norm") {
    const bool training = bool_at(args, 5, false);
    // Without the running means, so that they are not updated again.
    return at::batch_norm(x, {}, {}, training ? at::Tensor() : tensor_at(args, 3),
                          training ? at::Tensor() : tensor_at(args, 4), training, 0, number_at(args, 7, 1e-5), false);
  }
  if (op.name == "aten::instance_norm") {
    const bool own = bool_at(args, 5, true);
    return at::instance_norm(x, {}, {}, own ? at::Tensor() : tensor_at(args, 3),
                             own ? at::Tensor() : tensor_at(args, 4), own, 0, number_at(args, 7, 1e-5), false);
  }
  const Dims shape = ints_at(args, 1, 1);
  if (op.name == "aten::rms_norm") {
    const Dims last = counting(x.dim() - std::ssize(shape), x.dim());
    const double smallest =
        x.scalar_type() == at::kDouble ? std::numeric_limits<double>::epsilon() : std::numeric_limits<float>::epsilon();
    return x * x.square().mean(last, true).add(number_at(args, 3, smallest)).rsqrt();
  }
  return at::layer_norm(x, shape, {}, {}, number_at(args, 4, 1e-5), false);
}

void add_norm(const Run& run, Uses& uses) {
  const Arguments args = run.op.args();
  const bool first = run.op.name == "aten::batch_norm" || run.op.name == "aten::instance_norm";
  const at::Tensor weight = tensor_at(args, first ? 1 : 2);
  const at::Tensor bias = run.op.name == "aten::rms_norm" ? at::Tensor() : tensor_at(args, first ? 2 : 3);
  const auto summed = [&](const at::Tensor& rows) {
    return Dense{rows_of(rows, run.rows, run.call.output_features).sum(2).squeeze(1)};
  };
  if (weight.defined()) uses.add(weight, summed(run.delta * normalised(run)));
  if (bias.defined()) uses.add(bias, summed(run.delta));
}

void add_bilinear(const Run& run, Uses& uses) {
  const Dims last{run.delta.dim() - 1};
  const at::Tensor left = rows_of(run.delta, run.rows, last);
  const at::Tensor a = rows_of(run.call.inputs[0], run.rows, last), b = rows_of(run.call.inputs[1], run.rows, last);
  uses.add_product(run.op.weight, Product{Factor(left), Factor((a.unsqueeze(-1) * b.unsqueeze(-2)).flatten(3))});
  uses.add(tensor_at(run.op.args(), 3), Sum{left});
}

void add_activation(const Run& run, Uses& uses) {
  const at::Tensor& weight = run.op.weight;
  const Dims features = weight.numel() > 1 ? run.call.output_features : Dims{};
  const at::Tensor rows = run.delta * run.call.inputs.front().clamp_max(0);
  uses.add(weight, Dense{rows_of(rows, run.rows, features).sum(2).squeeze(1)});
}

}  // namespace

// ---- collecting ----

void Uses::mark(StatusSet status, std::string detail) {
  status_ |= status;
  if (detail_.empty()) detail_ = std::move(detail);
}

void Uses::add(const at::Tensor& operand, std::variant<Product, Lookup, Sum, Dense> form) {
  if (!operand.defined()) return;
  if (const auto view = find_(operand)) {
    std::vector<Axis> axes;
    for (std::int64_t dim = 0; dim < operand.dim(); ++dim) axes.push_back({operand.size(dim), operand.stride(dim)});
    placed_.push_back({view->parameter, place(std::move(form), axes, view->offset, view->numel)});
  } else if (operand.requires_grad()) {
    Terms terms(0, operand.numel());
    terms.add({std::move(form), 0, operand.numel()});
    const at::Tensor rows = terms.entries(0, operand.numel(), std::numeric_limits<std::int64_t>::max());
    std::vector<std::int64_t> shape = operand.sizes().vec();
    shape.insert(shape.begin(), rows.size(0));
    derived_.push_back({operand, rows.reshape(shape)});
  }
}

void Uses::add_product(const at::Tensor& operand, Product product) {
  const std::int64_t groups = product.left.groups();
  const auto view = find_(operand);
  if (!view) {
    if (operand.requires_grad()) {
      add(operand, std::move(product));
    } else {
      mark(Status::NotReplayable, kComputedWeight);
    }
    return;
  }
  const std::int64_t stride = operand.stride(0), rows = operand.size(0) / groups;
  std::vector<Axis> columns;
  for (std::int64_t dim = 1; dim < operand.dim(); ++dim) columns.push_back({operand.size(dim), operand.stride(dim)});
  placed_.push_back({view->parameter, place_product(std::move(product), {{groups, rows * stride}}, {{rows, stride}},
                                                    std::move(columns), view->offset, view->numel)});
}

void Uses::add_product(const at::Tensor& operand, Product product, const Dims& groups, const Dims& rows,
                       const Dims& columns) {
  const auto view = find_(operand);
  const auto axes = [&](const Dims& dims) {
    std::vector<Axis> result;
    for (const std::int64_t dim : dims) result.push_back({operand.size(dim), operand.stride(dim)});
    return result;
  };
  if (view) {
    placed_.push_back({view->parameter, place_product(std::move(product), axes(groups), axes(rows), axes(columns),
                                                      view->offset, view->numel)});
    return;
  }
  // The entries in the order of the operand's dimensions; along one that repeats, all at its first place.
  Dims order = groups;
  order.insert(order.end(), rows.begin(), rows.end());
  order.insert(order.end(), columns.begin(), columns.end());
  Dims sizes{product.left.samples()}, sorted = order;
  std::int64_t numel = 1;
  for (const std::int64_t dim : order) {
    sizes.push_back(operand.size(dim));
    numel *= operand.size(dim);
  }
  std::sort(sorted.begin(), sorted.end());
  Dims back{0};
  for (const std::int64_t dim : sorted) back.push_back(std::find(order.begin(), order.end(), dim) - order.begin() + 1);
  Terms terms(product.left.samples(), numel);
  terms.add({std::move(product), 0, numel});
  at::Tensor gradients = terms.entries(0, numel, std::numeric_limits<std::int64_t>::max()).reshape(sizes).permute(back);
  for (std::int64_t dim = 0; dim < operand.dim(); ++dim) {
    if (contains(order, dim)) continue;
    gradients = gradients.unsqueeze(dim + 1);
    Dims shape = gradients.sizes().vec();
    shape[static_cast<std::size_t>(dim) + 1] = operand.size(dim);
    at::Tensor whole = at::zeros(shape, gradients.options());
    whole.narrow(dim + 1, 0, 1).copy_(gradients);
    gradients = whole;
  }
  if (operand.requires_grad()) {
    derived_.push_back({operand, gradients});
  } else {
    mark(Status::NotReplayable, kComputedWeight);
  }
}

// ---- what is known of the samples ----

std::vector<std::int64_t> possible_sample_dims(const CapturedCall& call, const CapturedOperator& op) {
  if (const auto known = known_sample_dim(call, op)) return {*known};
  if (op.family == Family::Convolution) return {};
  std::vector<std::int64_t> dims;
  for (std::int64_t dim = 0; dim < call.output.dim(); ++dim) {
    if (!contains(call.output_features, dim)) dims.push_back(dim);
  }
  return dims;
}

std::optional<std::int64_t> known_sample_dim(const CapturedCall& call, const CapturedOperator& op) {
  switch (op.family) {
    case Family::Convolution:
      if (call.output.dim() != op.weight.dim()) return std::nullopt;  // no batch
      return 0;
    case Family::Norm:
      if (op.name == "aten::batch_norm" || op.name == "aten::instance_norm" || op.name == "aten::group_norm") return 0;
      return std::nullopt;
    case Family::Embedding:
      if (op.name == "aten::embedding_bag") return 0;
      return std::nullopt;
    case Family::Recurrent:
      if (op.name.find("_cell") != std::string::npos) return 0;
      if (call.output.dim() != 3) return std::nullopt;  // a packed sequence
      return bool_at(op.args(), op.args().size() - 1, false) ? 0 : 1;
    default:
      return std::nullopt;
  }
}

void add_uses(const Run& run, Uses& uses) {
  if (run.op.family == Family::Recurrent) return add_recurrent_uses(run, uses);
  if (!run.delta.defined()) return;
  switch (run.op.family) {
    case Family::Contraction:
      return add_contraction(run, uses);
    case Family::Convolution:
      return add_convolution(run, uses);
    case Family::Embedding:
      return run.op.name == "aten::embedding_bag" ? add_embedding_bag(run, uses) : add_embedding(run, uses);
    case Family::Norm:
      return add_norm(run, uses);
    case Family::Bilinear:
      return add_bilinear(run, uses);
    case Family::Activation:
      return add_activation(run, uses);
    case Family::Recurrent:
      break;
  }
}

}  // namespace dds::hooks
