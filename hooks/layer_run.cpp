#include "hooks/layer_run.hpp"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <map>

namespace dds::hooks {

std::optional<std::pair<std::vector<std::string>, std::string>> parse_einsum(const std::string& equation) {
  if (equation.find('.') != std::string::npos) return std::nullopt;
  std::string text;
  std::copy_if(equation.begin(), equation.end(), std::back_inserter(text),
               [](unsigned char c) { return !std::isspace(c); });
  const std::size_t arrow = text.find("->");
  const std::string operands = text.substr(0, arrow);
  std::vector<std::string> subscripts(1);
  std::map<char, int> count;
  for (const char c : operands) {
    if (c == ',') {
      subscripts.emplace_back();
    } else {
      subscripts.back() += c;
      ++count[c];
    }
  }
  std::string output;
  if (arrow != std::string::npos) {
    output = text.substr(arrow + 2);
  } else {  // implicit: the labels that appear once, in alphabetical order
    for (const auto& [label, times] : count) {
      if (times == 1) output += label;
    }
  }
  return std::pair{subscripts, output};
}

namespace {

using Dims = std::vector<std::int64_t>;
using MaybeRun = std::optional<LayerRun>;
using MaybeDim = std::optional<std::int64_t>;

/// False for a dimension that the tensor only repeats: one of size 1, or expanded (stride 0).
bool varies(const at::Tensor& tensor, std::int64_t dim) { return tensor.size(dim) > 1 && tensor.stride(dim) != 0; }

Dims last_dimensions(std::size_t count) {
  Dims dims;
  for (std::size_t i = count; i > 0; --i) dims.push_back(-static_cast<std::int64_t>(i));
  return dims;
}

// ---- products ----

/// One of the two is a weight. Dimensions of the output that the weight brings in are features: its own free dimension,
/// and batch dimensions that it varies over (one matrix for each head or expert).
LayerRun run_of_product(const at::Tensor& left, const at::Tensor& right, bool weight_right) {
  LayerRun run;
  run.weight = weight_right ? right : left;
  const at::Tensor& input = weight_right ? left : right;
  run.inputs = {input};

  const bool vector_weight = run.weight.dim() == 1;
  const bool vector_input = input.dim() == 1;
  const std::int64_t contracted = weight_right ? input.size(-1) : run.weight.size(-1);
  // The output keeps two matrix dimensions less one for each vector operand; batch dimension -k of an operand is -k of
  // it.
  const std::int64_t lost = (vector_weight ? 1 : 0) + (vector_input ? 1 : 0);
  for (std::int64_t k = run.weight.dim(); k >= 3; --k) {
    if (!varies(run.weight, -k)) continue;
    run.output_features.push_back(-k + lost);
    if (input.dim() >= k) run.input_features.push_back(-k);
  }
  const bool one_matrix = run.output_features.empty();
  if (!vector_weight) run.output_features.push_back(weight_right || vector_input ? -1 : -2);
  run.input_features.push_back(weight_right || vector_input ? -1 : -2);
  if (one_matrix) {
    run.fan_in = contracted;
    run.patch = 1;
  }
  return run;
}

MaybeRun read(const kind::Product& op, Arguments args, const IsWeight& is_weight) {
  const at::Tensor left = tensor_at(args, op.left);
  at::Tensor right = tensor_at(args, op.right);
  if (!left.defined() || !right.defined() || left.dim() == 0 || right.dim() == 0) return std::nullopt;
  if (op.transposed) {
    if (right.dim() > 2 || !is_weight(right)) return std::nullopt;
    if (right.dim() == 2) right = right.t();
  }
  const bool weight_right = is_weight(right);
  if (!weight_right && !is_weight(left)) return std::nullopt;
  LayerRun run = run_of_product(left, right, weight_right);
  run.bias = tensor_at(args, op.summand).defined();
  return run;
}

/// The places of the weight and of the input among the operands. Empty if none is a weight.
std::optional<std::pair<std::size_t, std::size_t>> roles(const std::vector<at::Tensor>& operands,
                                                         const IsWeight& is_weight) {
  std::size_t weight = operands.size(), input = operands.size();
  for (std::size_t i = 0; i < operands.size(); ++i) {
    if (is_weight(operands[i])) weight = i;
  }
  if (weight == operands.size()) return std::nullopt;
  for (std::size_t i = operands.size(); i-- > 0;) {
    if (i != weight && (input == operands.size() || !is_weight(operands[i]))) input = i;
  }
  return std::pair{weight, input};
}

MaybeRun read(const kind::Einsum&, Arguments args, const IsWeight& is_weight) {
  if (args.size() < 2 || !args[0].isString() || !args[1].isTensorList()) return std::nullopt;
  const auto operands = args[1].toTensorVector();
  const auto parsed = parse_einsum(args[0].toStringRef());
  if (!parsed || parsed->first.size() != operands.size() || operands.size() < 2) return std::nullopt;
  const auto& [subscripts, output] = *parsed;
  const auto places = roles(operands, is_weight);
  if (!places) return std::nullopt;
  const std::string &of_weight = subscripts[places->first], &of_input = subscripts[places->second];

  LayerRun run;
  run.weight = operands[places->first];
  run.inputs = {operands[places->second]};
  for (std::size_t i = 0; i < operands.size(); ++i) {
    if (i != places->first && i != places->second) run.inputs.push_back(operands[i]);
  }
  const auto from_weight = [&weight = run.weight, &of_weight](char label) {
    const std::size_t at = of_weight.find(label);
    return at != std::string::npos && varies(weight, static_cast<std::int64_t>(at));
  };
  const auto features_of = [&](const std::string& labels) {
    Dims features;
    for (std::size_t i = 0; i < labels.size(); ++i) {
      if (from_weight(labels[i]))
        features.push_back(static_cast<std::int64_t>(i) - static_cast<std::int64_t>(labels.size()));
    }
    return features;
  };
  run.output_features = features_of(output);
  run.input_features = features_of(of_input);
  const bool shared = std::any_of(output.begin(), output.end(), [&](char label) {
    return from_weight(label) && of_input.find(label) != std::string::npos;
  });
  if (operands.size() == 2 && !shared) {
    run.patch = 1;
    run.fan_in = 1;
    for (const std::int64_t dim : run.input_features) run.fan_in *= run.inputs[0].size(dim);
  }
  return run;
}

// ---- the other kinds ----

MaybeRun read(const kind::Convolution&, Arguments args, const IsWeight& is_weight) {
  const at::Tensor input = tensor_at(args, 0), weight = tensor_at(args, 1);
  if (!input.defined() || !weight.defined() || !is_weight(weight) || weight.dim() < 3) return std::nullopt;
  LayerRun run;
  run.weight = weight;
  run.inputs = {input};
  const std::int64_t channels = -(weight.dim() - 1);  // (N, C, spatial...) or, without a batch, (C, spatial...)
  run.output_features = run.input_features = {channels};
  run.bias = tensor_at(args, 2).defined();
  run.patch = 1;
  for (const std::int64_t size : weight.sizes().slice(2)) run.patch *= size;
  run.fan_in = input.size(channels) * run.patch;
  return run;
}

MaybeDim samples_of(const kind::Convolution&, Arguments, const at::Tensor& weight, const at::Tensor& output) {
  return output.dim() == weight.dim() ? MaybeDim(0) : std::nullopt;  // none: there is no batch
}

MaybeRun read(const kind::Embedding&, Arguments args, const IsWeight& is_weight) {
  const at::Tensor weight = tensor_at(args, 0), indices = tensor_at(args, 1);
  if (!weight.defined() || !indices.defined() || !is_weight(weight)) return std::nullopt;
  LayerRun run;
  run.weight = weight;
  run.inputs = {indices};
  run.output_features = {-1};
  run.fan_in = weight.size(0);
  return run;
}

MaybeDim samples_of(const kind::Embedding& op, Arguments, const at::Tensor&, const at::Tensor&) {
  return op.bag ? MaybeDim(0) : std::nullopt;
}

bool is_over_last_dimensions(const kind::Norm& op) {
  return op.over == kind::Norm::Over::Layer || op.over == kind::Norm::Over::RootMeanSquare;
}

MaybeRun read(const kind::Norm& op, Arguments args, const IsWeight& is_weight) {
  LayerRun run;
  for (const kind::Place place : {op.weight, op.bias}) {
    const at::Tensor parameter = tensor_at(args, place);
    if (!run.weight.defined() && parameter.defined() && is_weight(parameter)) run.weight = parameter;
  }
  if (!run.weight.defined() || !tensor_at(args, 0).defined()) return std::nullopt;
  run.inputs = {tensor_at(args, 0)};
  if (is_over_last_dimensions(op)) {
    const bool told = args.size() > 1 && args[1].isIntList();
    run.output_features = last_dimensions(told ? args[1].toIntVector().size() : 1);
  } else {
    run.output_features = {1};
  }
  run.input_features = run.output_features;
  run.bias = tensor_at(args, op.bias).defined();
  run.coupled = op.over == kind::Norm::Over::Batch && bool_at(args, 5, false);  // in training
  return run;
}

MaybeDim samples_of(const kind::Norm& op, Arguments, const at::Tensor&, const at::Tensor&) {
  return is_over_last_dimensions(op) ? std::nullopt : MaybeDim(0);
}

/// The output side only. The weights stand behind the states, which may be parameters too.
MaybeRun read(const kind::Recurrent& op, Arguments args, const IsWeight& is_weight) {
  const at::Tensor input = tensor_at(args, 0);
  if (!input.defined()) return std::nullopt;
  LayerRun run;
  run.inputs = {input};
  run.output_features = run.input_features = {-1};
  // lstm.data(data, batch_sizes, ...): a packed sequence, whose rows are positions already
  const at::Tensor sizes = tensor_at(args, 1);
  run.positions = !op.one_step && sizes.defined() && sizes.dim() == 1 && !sizes.is_floating_point();
  const std::size_t first = run.positions ? 3 : 2;
  if (args.size() <= first) return std::nullopt;
  for_each_tensor(args.slice(first), [&](const at::Tensor& tensor) {
    if (!run.weight.defined() && is_weight(tensor)) run.weight = tensor;
  });
  return run.weight.defined() ? MaybeRun(std::move(run)) : std::nullopt;
}

MaybeDim samples_of(const kind::Recurrent& op, Arguments args, const at::Tensor&, const at::Tensor& output) {
  if (op.one_step) return 0;
  if (output.dim() != 3) return std::nullopt;  // a packed sequence
  const bool batch_first = bool_at(args, args.size() - 1, false);
  return batch_first ? 0 : 1;
}

MaybeRun read(const kind::Bilinear&, Arguments args, const IsWeight& is_weight) {
  const at::Tensor left = tensor_at(args, 0), right = tensor_at(args, 1), weight = tensor_at(args, 2);
  if (!left.defined() || !right.defined() || !weight.defined() || !is_weight(weight)) return std::nullopt;
  LayerRun run;
  run.weight = weight;
  run.inputs = {left, right};
  run.output_features = {-1};
  run.bias = tensor_at(args, 3).defined();
  run.fan_in = weight.size(1) * weight.size(2);
  return run;
}

MaybeRun read(const kind::Prelu&, Arguments args, const IsWeight& is_weight) {
  const at::Tensor input = tensor_at(args, 0), weight = tensor_at(args, 1);
  if (!input.defined() || input.dim() == 0 || !weight.defined() || !is_weight(weight)) return std::nullopt;
  LayerRun run;
  run.weight = weight;
  run.inputs = {input};
  run.output_features = run.input_features = {input.dim() > 1 ? 1 : 0};
  return run;
}

}  // namespace

std::optional<LayerRun> read_layer(const Operator& op, Arguments args, const IsWeight& is_weight) {
  return std::visit(
      [&]<class Kind>(const Kind& each) -> MaybeRun {
        if constexpr (requires { Kind::family; }) {
          MaybeRun run = read(each, args, is_weight);
          if (run) run->family = Kind::family;
          return run;
        } else {
          return std::nullopt;
        }
      },
      op.kind);
}

std::optional<std::int64_t> sample_dim(const Operator& op, Arguments args, const at::Tensor& weight,
                                       const at::Tensor& output) {
  return std::visit(
      [&](const auto& each) -> MaybeDim {
        if constexpr (requires { samples_of(each, args, weight, output); }) {
          return samples_of(each, args, weight, output);
        } else {
          return std::nullopt;
        }
      },
      op.kind);
}

}  // namespace dds::hooks
