#include "hooks/operators.hpp"

#include <ATen/ops/full.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <string>
#include <unordered_map>

#include "hooks/arguments.hpp"

namespace dds::hooks {
namespace {

std::int64_t product_of(at::IntArrayRef sizes, std::size_t from) {
  std::int64_t product = 1;
  for (std::size_t i = from; i < sizes.size(); ++i) product *= sizes[i];
  return product;
}

/// False for a dimension that the tensor only repeats: size 1, or expanded (stride 0).
bool varies(const at::Tensor& tensor, std::int64_t dim) { return tensor.size(dim) > 1 && tensor.stride(dim) != 0; }

// ---- products ----

/// left @ right with torch.matmul's rules, one of them a weight. Dimensions of the output that the weight brings in are
/// features: its own free dimension, and batch dimensions that it varies over (one matrix for each head or expert).
std::optional<LayerRun> match_product(const at::Tensor& left, const at::Tensor& right, const IsWeight& is_weight,
                                      bool bias) {
  if (!left.defined() || !right.defined() || left.dim() == 0 || right.dim() == 0) return std::nullopt;
  const bool weight_right = is_weight(right);
  if (!weight_right && !is_weight(left)) return std::nullopt;

  LayerRun run;
  run.bias = bias;
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

}  // namespace

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

std::optional<LayerRun> match_einsum(Arguments args, const IsWeight& is_weight) {
  if (args.size() < 2 || !args[0].isString() || !args[1].isTensorList()) return std::nullopt;
  const auto operands = args[1].toTensorVector();
  const auto parsed = parse_einsum(args[0].toStringRef());
  if (!parsed || parsed->first.size() != operands.size() || operands.size() < 2) return std::nullopt;
  const std::vector<std::string>& subscripts = parsed->first;
  const std::string& output = parsed->second;

  std::size_t weight = operands.size();
  for (std::size_t i = 0; i < operands.size(); ++i) {
    if (is_weight(operands[i])) weight = i;
  }
  if (weight == operands.size()) return std::nullopt;
  std::size_t input = operands.size();
  for (std::size_t i = operands.size(); i-- > 0;) {
    if (i != weight && (input == operands.size() || !is_weight(operands[i]))) input = i;
  }

  LayerRun run;
  run.weight = operands[weight];
  run.inputs = {operands[input]};
  for (std::size_t i = 0; i < operands.size(); ++i) {
    if (i != weight && i != input) run.inputs.push_back(operands[i]);
  }
  const auto from_weight = [&](char label) {
    const std::size_t at = subscripts[weight].find(label);
    return at != std::string::npos && varies(run.weight, static_cast<std::int64_t>(at));
  };
  const auto features_of = [&](const std::string& labels) {
    std::vector<std::int64_t> features;
    for (std::size_t i = 0; i < labels.size(); ++i) {
      if (from_weight(labels[i]))
        features.push_back(static_cast<std::int64_t>(i) - static_cast<std::int64_t>(labels.size()));
    }
    return features;
  };
  run.output_features = features_of(output);
  run.input_features = features_of(subscripts[input]);
  const auto shared = [&](char label) {
    return from_weight(label) && subscripts[input].find(label) != std::string::npos;
  };
  if (operands.size() == 2 && std::none_of(output.begin(), output.end(), shared)) {
    run.patch = 1;
    run.fan_in = 1;
    for (const std::int64_t dim : run.input_features) run.fan_in *= run.inputs[0].size(dim);
  }
  return run;
}

std::optional<LayerRun> match_contraction(std::string_view name, Arguments args, const IsWeight& is_weight) {
  if (name == "aten::einsum") return match_einsum(args, is_weight);
  if (name == "aten::linear") {
    const at::Tensor weight = tensor_at(args, 1);
    if (!weight.defined() || weight.dim() > 2 || !is_weight(weight)) return std::nullopt;
    return match_product(tensor_at(args, 0), weight.dim() == 2 ? weight.t() : weight, is_weight,
                         tensor_at(args, 2).defined());
  }
  if (name == "aten::matmul" || name == "aten::mm" || name == "aten::bmm" || name == "aten::mv") {
    return match_product(tensor_at(args, 0), tensor_at(args, 1), is_weight, false);
  }
  if (name == "aten::addmm" || name == "aten::baddbmm" || name == "aten::addmv") {
    return match_product(tensor_at(args, 1), tensor_at(args, 2), is_weight, true);
  }
  return std::nullopt;
}

// ---- the other families ----

std::vector<std::int64_t> last_dimensions(std::size_t count) {
  std::vector<std::int64_t> dims;
  for (std::size_t i = count; i > 0; --i) dims.push_back(-static_cast<std::int64_t>(i));
  return dims;
}

std::optional<LayerRun> match_convolution(Arguments args, const IsWeight& is_weight) {
  const at::Tensor input = tensor_at(args, 0), weight = tensor_at(args, 1);
  if (!input.defined() || !weight.defined() || !is_weight(weight) || weight.dim() < 3) return std::nullopt;
  LayerRun run;
  run.family = Family::Convolution;
  run.weight = weight;
  run.inputs = {input};
  const std::int64_t channels = -(weight.dim() - 1);  // (N, C, spatial...) or, without a batch, (C, spatial...)
  run.output_features = run.input_features = {channels};
  run.bias = tensor_at(args, 2).defined();
  run.patch = product_of(weight.sizes(), 2);
  run.fan_in = input.size(channels) * run.patch;
  return run;
}

std::optional<LayerRun> match_embedding(Arguments args, const IsWeight& is_weight) {
  const at::Tensor weight = tensor_at(args, 0), indices = tensor_at(args, 1);
  if (!weight.defined() || !indices.defined() || !is_weight(weight)) return std::nullopt;
  LayerRun run;
  run.family = Family::Embedding;
  run.weight = weight;
  run.inputs = {indices};
  run.output_features = {-1};
  run.fan_in = weight.size(0);
  return run;
}

/// Normalisation with an affine part; `weight` is the place of its scale among the arguments, its shift follows.
std::optional<LayerRun> match_norm(Arguments args, const IsWeight& is_weight, std::size_t weight,
                                   std::vector<std::int64_t> features, bool coupled) {
  LayerRun run;
  for (const std::size_t place : {weight, weight + 1}) {
    const at::Tensor parameter = tensor_at(args, place);
    if (!run.weight.defined() && parameter.defined() && is_weight(parameter)) run.weight = parameter;
  }
  if (!run.weight.defined() || !tensor_at(args, 0).defined()) return std::nullopt;
  run.family = Family::Norm;
  run.inputs = {tensor_at(args, 0)};
  run.output_features = run.input_features = std::move(features);
  run.bias = tensor_at(args, weight + 1).defined();
  run.coupled = coupled;
  return run;
}

std::optional<LayerRun> match_norm(std::string_view name, Arguments args, const IsWeight& is_weight) {
  const auto shape = [&] { return args.size() > 1 && args[1].isIntList() ? args[1].toIntVector().size() : 1; };
  if (name == "aten::layer_norm" || name == "aten::native_layer_norm" || name == "aten::rms_norm") {
    return match_norm(args, is_weight, 2, last_dimensions(shape()), false);
  }
  if (name == "aten::batch_norm") {
    return match_norm(args, is_weight, 1, {1}, bool_at(args, 5, false));
  }
  if (name == "aten::instance_norm") return match_norm(args, is_weight, 1, {1}, false);
  if (name == "aten::group_norm") return match_norm(args, is_weight, 2, {1}, false);
  return std::nullopt;
}

/// LSTM, GRU and simple RNN, whole sequences or cells: the output side only. The weights stand in a list, or after the
/// state.
std::optional<LayerRun> match_recurrent(Arguments args, const IsWeight& is_weight, bool cell) {
  const at::Tensor input = tensor_at(args, 0);
  if (!input.defined()) return std::nullopt;
  LayerRun run;
  run.family = Family::Recurrent;
  run.inputs = {input};
  run.output_features = run.input_features = {-1};
  for (std::size_t i = 1; i < args.size(); ++i) {
    if (args[i].isTensorList()) {
      for (const at::Tensor& tensor : args[i].toTensorVector()) {
        if (!run.weight.defined() && is_weight(tensor)) run.weight = tensor;
      }
    } else if (args[i].isTensor()) {
      const at::Tensor tensor = args[i].toTensor();
      if (!run.weight.defined() && tensor.defined() && is_weight(tensor)) run.weight = tensor;
      // lstm.data(data, batch_sizes, ...): a packed sequence, whose rows are positions already
      if (!cell && i == 1 && tensor.defined() && tensor.dim() == 1 && !tensor.is_floating_point()) run.positions = true;
    }
  }
  return run.weight.defined() ? std::optional(std::move(run)) : std::nullopt;
}

std::optional<LayerRun> match_bilinear(Arguments args, const IsWeight& is_weight) {
  const at::Tensor left = tensor_at(args, 0), right = tensor_at(args, 1), weight = tensor_at(args, 2);
  if (!left.defined() || !right.defined() || !weight.defined() || !is_weight(weight)) return std::nullopt;
  LayerRun run;
  run.family = Family::Bilinear;
  run.weight = weight;
  run.inputs = {left, right};
  run.output_features = {-1};
  run.bias = tensor_at(args, 3).defined();
  run.fan_in = weight.size(1) * weight.size(2);
  return run;
}

/// prelu(input, weight): one slope for all features, or one for each channel.
std::optional<LayerRun> match_activation(Arguments args, const IsWeight& is_weight) {
  const at::Tensor input = tensor_at(args, 0), weight = tensor_at(args, 1);
  if (!input.defined() || input.dim() == 0 || !weight.defined() || !is_weight(weight)) return std::nullopt;
  LayerRun run;
  run.family = Family::Activation;
  run.weight = weight;
  run.inputs = {input};
  run.output_features = run.input_features = {input.dim() > 1 ? 1 : 0};
  return run;
}

std::optional<Family> family_of(std::string_view name) {
  static const std::unordered_map<std::string_view, Family> families{
      {"aten::linear", Family::Contraction},
      {"aten::addmm", Family::Contraction},
      {"aten::mm", Family::Contraction},
      {"aten::matmul", Family::Contraction},
      {"aten::bmm", Family::Contraction},
      {"aten::baddbmm", Family::Contraction},
      {"aten::mv", Family::Contraction},
      {"aten::addmv", Family::Contraction},
      {"aten::einsum", Family::Contraction},
      {"aten::conv1d", Family::Convolution},
      {"aten::conv2d", Family::Convolution},
      {"aten::conv3d", Family::Convolution},
      {"aten::conv_transpose1d", Family::Convolution},
      {"aten::conv_transpose2d", Family::Convolution},
      {"aten::conv_transpose3d", Family::Convolution},
      {"aten::convolution", Family::Convolution},
      {"aten::_convolution", Family::Convolution},  // in models that were traced
      {"aten::embedding", Family::Embedding},
      {"aten::embedding_bag", Family::Embedding},
      {"aten::layer_norm", Family::Norm},
      {"aten::native_layer_norm", Family::Norm},
      {"aten::rms_norm", Family::Norm},
      {"aten::batch_norm", Family::Norm},
      {"aten::instance_norm", Family::Norm},
      {"aten::group_norm", Family::Norm},
      {"aten::lstm", Family::Recurrent},
      {"aten::gru", Family::Recurrent},
      {"aten::rnn_tanh", Family::Recurrent},
      {"aten::rnn_relu", Family::Recurrent},
      {"aten::lstm_cell", Family::Recurrent},
      {"aten::gru_cell", Family::Recurrent},
      {"aten::rnn_tanh_cell", Family::Recurrent},
      {"aten::rnn_relu_cell", Family::Recurrent},
      {"aten::bilinear", Family::Bilinear},
      {"aten::prelu", Family::Activation},
  };
  const auto known = families.find(name);
  return known == families.end() ? std::nullopt : std::optional(known->second);
}

at::Tensor terms_of(std::int64_t count) { return at::full({}, static_cast<double>(count), at::kDouble); }

}  // namespace

bool kind_fits(std::string_view kind, Family family) {
  const auto has = [&](std::string_view part) { return kind.find(part) != std::string_view::npos; };
  if (kind == "Raw") return family != Family::Embedding;
  switch (family) {
    case Family::Contraction:
      return kind == "Linear";
    case Family::Convolution:
      return has("Conv");
    case Family::Embedding:
      return has("Embedding");
    case Family::Norm:
      return has("Norm");
    case Family::Recurrent:
      return has("LSTM") || has("GRU") || has("RNN");
    case Family::Bilinear:
      return kind == "Bilinear";
    case Family::Activation:
      return kind == "PReLU";
  }
  return false;
}

std::optional<LayerRun> match_layer(std::string_view name, Arguments args, const IsWeight& is_weight) {
  const std::optional<Family> family = family_of(name);
  if (!family) return std::nullopt;
  switch (*family) {
    case Family::Contraction:
      return match_contraction(name, args, is_weight);
    case Family::Convolution:
      return match_convolution(args, is_weight);
    case Family::Embedding:
      return match_embedding(args, is_weight);
    case Family::Norm:
      return match_norm(name, args, is_weight);
    case Family::Recurrent:
      return match_recurrent(args, is_weight, name.find("_cell") != std::string_view::npos);
    case Family::Bilinear:
      return match_bilinear(args, is_weight);
    case Family::Activation:
      return match_activation(args, is_weight);
  }
  return std::nullopt;
}

std::optional<LossRun> match_loss(std::string_view name, Arguments args) {
  using Difference = CapturedLoss::Difference;
  // The place of the reduction among the arguments, and whether targets are classes; then what the gradient subtracts,
  // whether of an activated input, and the place of weights that make it something else.
  struct Traits {
    std::size_t reduction;
    bool classes;
    Difference difference = Difference::Unknown;
    bool activated = false;
    std::size_t weights = 0;
  };
  static const std::unordered_map<std::string_view, Traits> losses{
      {"aten::cross_entropy_loss", {3, true, Difference::Softmax, false, 2}},
      {"aten::nll_loss", {3, true, Difference::Softmax, true, 2}},
      {"aten::nll_loss_nd", {3, true, Difference::Softmax, true, 2}},
      {"aten::nll_loss2d", {3, true, Difference::Softmax, true, 2}},
      {"aten::mse_loss", {2, false, Difference::Squares}},
      {"aten::l1_loss", {2, false}},
      {"aten::smooth_l1_loss", {2, false, Difference::Squares}},
      {"aten::huber_loss", {2, false, Difference::Squares}},
      {"aten::kl_div", {2, false}},
      {"aten::soft_margin_loss", {2, false}},
      {"aten::binary_cross_entropy", {3, false, Difference::Logistic, true, 2}},
      {"aten::binary_cross_entropy_with_logits", {4, false, Difference::Logistic, false, 2}},
      {"aten::poisson_nll_loss", {5, false}},
  };
  const auto known = losses.find(name);
  if (known == losses.end()) return std::nullopt;
  const Traits& traits = known->second;
  const at::Tensor output = tensor_at(args, 0), target = tensor_at(args, 1);
  if (!output.defined() || !target.defined()) return std::nullopt;

  LossRun loss;
  switch (int_at(args, traits.reduction, 1)) {  // at::Reduction
    case 0:
      loss.reduction = LossRun::Reduction::None;
      break;
    case 1:
      loss.reduction = LossRun::Reduction::Mean;
      break;
    default:
      loss.reduction = LossRun::Reduction::Sum;
      break;
  }
  loss.targets = target.numel();
  if (!traits.classes) {
    loss.terms = terms_of(std::max(output.numel(), target.numel()));
  } else if (tensor_at(args, 2).defined()) {
    // class weights: the mean is over the weights of the targets, which is not a number of samples
  } else if (target.is_floating_point()) {  // probabilities: one distribution for each position
    loss.terms = terms_of(output.numel() / output.size(output.dim() > 1 ? 1 : 0));
  } else {
    loss.terms = target.ne(int_at(args, 4, -100)).sum().to(at::kDouble);
  }

  const bool weighted = traits.weights > 0 && tensor_at(args, traits.weights).defined();
  const bool positives = name == "aten::binary_cross_entropy_with_logits" && tensor_at(args, 3).defined();
  const bool broadcast = !traits.classes && output.sizes() != target.sizes();
  if (weighted || positives || broadcast) return loss;
  loss.difference = traits.difference;
  loss.input = output;
  loss.activated = traits.activated;
  loss.classes = traits.classes && output.dim() > 1 ? 1 : 0;
  // d^2 l / d input^2 where the loss is quadratic: (f - y)^2, (f - y)^2 / (2 beta) and (f - y)^2 / 2.
  loss.slope = name == "aten::mse_loss" ? 2 : name == "aten::smooth_l1_loss" ? 1 / number_at(args, 3, 1) : 1;
  if (!std::isfinite(loss.slope)) loss.difference = Difference::Unknown;  // beta = 0: |f - y|
  return loss;
}

std::optional<ActivationRun> match_activation(std::string_view name, Arguments args) {
  const bool softmax = name == "aten::log_softmax";
  if (!softmax && name != "aten::sigmoid") return std::nullopt;
  const at::Tensor input = tensor_at(args, 0);
  if (!input.defined() || input.dim() == 0) return std::nullopt;
  if (!softmax) return ActivationRun{CapturedLoss::Difference::Logistic, input, 0};
  const std::int64_t dim = int_at(args, 1, 0);
  return ActivationRun{CapturedLoss::Difference::Softmax, input, dim < 0 ? dim + input.dim() : dim};
}

bool is_softmax(std::string_view name, Arguments args) {
  if (name == "aten::cross_entropy_loss") return tensor_at(args, 0).dim() == 2;
  if (name != "aten::log_softmax" && name != "aten::_log_softmax" && name != "aten::softmax" &&
      name != "aten::_softmax")
    return false;
  const at::Tensor input = tensor_at(args, 0);
  const std::int64_t dim = int_at(args, 1, 0);
  return input.defined() && (dim == -1 || dim == input.dim() - 1);
}

bool is_addition(std::string_view name) { return name == "aten::add" || name == "aten::add_"; }

bool is_in_place(std::string_view name) {
  return !name.empty() && name.back() == '_' && (name.size() < 2 || name[name.size() - 2] != '_');
}

void for_each_tensor(Arguments args, const std::function<void(const at::Tensor&)>& visit) {
  for (const c10::IValue& value : args) {
    if (value.isTensor()) {
      if (value.toTensor().defined()) visit(value.toTensor());
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) {
        if (tensor.defined()) visit(tensor);
      }
    } else if (value.isOptionalTensorList()) {
      for (const auto& tensor : value.toOptionalTensorVector()) {
        if (tensor && tensor->defined()) visit(*tensor);
      }
    }
  }
}

}  // namespace dds::hooks
