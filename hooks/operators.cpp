#include "hooks/operators.hpp"

#include <unordered_map>

namespace dds::hooks {
namespace {

using namespace kind;
using Over = Norm::Over;
using Cell = Recurrent::Cell;
using Difference = CapturedLoss::Difference;

constexpr Product kProduct{.left = 0, .right = 1};
constexpr Product kProductAndSummand{.left = 1, .right = 2, .summand = 0, .beta = 3, .alpha = 4};
constexpr Convolution kConvolution{.dilation = 5, .groups = 6};
constexpr Convolution kTransposed{.dilation = 7, .groups = 6, .transposed = true};
constexpr Convolution kEitherConvolution{.dilation = 5, .groups = 8, .is_transposed = 6};
constexpr Loss kLikelihoodOfClasses{.reduction = 3,
                                    .likelihood = "categorical",
                                    .classes = true,
                                    .difference = Difference::Softmax,
                                    .activated = true,
                                    .weights = 2,
                                    .ignored = 4};
constexpr Loss kCrossEntropy{.reduction = 3,
                             .likelihood = "categorical",
                             .classes = true,
                             .difference = Difference::Softmax,
                             .weights = 2,
                             .ignored = 4,
                             .smoothing = 5};

constexpr Operator kOperators[] = {
    // ---- layers ----
    {"aten::linear", Product{.left = 0, .right = 1, .transposed = true, .summand = 2}, true},
    {"aten::mm", kProduct, true},
    {"aten::bmm", kProduct, true},
    {"aten::matmul", kProduct, true},
    {"aten::mv", kProduct},
    {"aten::addmm", kProductAndSummand, true},
    {"aten::baddbmm", kProductAndSummand, true},
    {"aten::addmv", kProductAndSummand},
    {"aten::einsum", Einsum{}, true},
    {"aten::conv1d", kConvolution},
    {"aten::conv2d", kConvolution},
    {"aten::conv3d", kConvolution},
    {"aten::conv_transpose1d", kTransposed},
    {"aten::conv_transpose2d", kTransposed},
    {"aten::conv_transpose3d", kTransposed},
    {"aten::convolution", kEitherConvolution},
    {"aten::_convolution", kEitherConvolution},  // in models that were traced
    {"aten::embedding", Embedding{}},
    {"aten::embedding_bag", Embedding{.bag = true}},
    {"aten::layer_norm", Norm{.over = Over::Layer, .weight = 2, .bias = 3, .epsilon = 4}},
    {"aten::native_layer_norm", Norm{.over = Over::Layer, .weight = 2, .bias = 3, .epsilon = 4}},
    {"aten::rms_norm", Norm{.over = Over::RootMeanSquare, .weight = 2, .bias = kNone, .epsilon = 3}},
    {"aten::batch_norm", Norm{.over = Over::Batch, .weight = 1, .bias = 2, .epsilon = 7}},
    {"aten::instance_norm", Norm{.over = Over::Instance, .weight = 1, .bias = 2, .epsilon = 7}},
    {"aten::group_norm", Norm{.over = Over::Group, .weight = 2, .bias = 3, .epsilon = 4}},
    {"aten::lstm", Recurrent{Cell::Lstm}},
    {"aten::gru", Recurrent{Cell::Gru}},
    {"aten::rnn_tanh", Recurrent{Cell::Tanh}},
    {"aten::rnn_relu", Recurrent{Cell::Relu}},
    {"aten::lstm_cell", Recurrent{Cell::Lstm, /*one_step=*/true}},
    {"aten::gru_cell", Recurrent{Cell::Gru, /*one_step=*/true}},
    {"aten::rnn_tanh_cell", Recurrent{Cell::Tanh, /*one_step=*/true}},
    {"aten::rnn_relu_cell", Recurrent{Cell::Relu, /*one_step=*/true}},
    {"aten::bilinear", Bilinear{}, true},
    {"aten::prelu", Prelu{}},

    // ---- losses ----
    {"aten::cross_entropy_loss", kCrossEntropy},
    {"aten::nll_loss", kLikelihoodOfClasses},
    {"aten::nll_loss_nd", kLikelihoodOfClasses},
    {"aten::nll_loss2d", kLikelihoodOfClasses},
    // d^2 l / d input^2 of (f - y)^2, of (f - y)^2 / (2 beta) and of (f - y)^2 / 2
    {"aten::mse_loss", Loss{.reduction = 2, .likelihood = "gaussian", .difference = Difference::Squares, .slope = 2}},
    {"aten::smooth_l1_loss", Loss{.reduction = 2, .difference = Difference::Squares, .beta = 3}},
    {"aten::huber_loss", Loss{.reduction = 2, .difference = Difference::Squares}},
    {"aten::binary_cross_entropy",
     Loss{.reduction = 3, .difference = Difference::Logistic, .activated = true, .weights = 2}},
    {"aten::binary_cross_entropy_with_logits", Loss{.reduction = 4,
                                                    .likelihood = "bernoulli",
                                                    .difference = Difference::Logistic,
                                                    .weights = 2,
                                                    .more_weights = 3}},
    {"aten::l1_loss", Loss{.reduction = 2}},
    {"aten::kl_div", Loss{.reduction = 2}},
    {"aten::soft_margin_loss", Loss{.reduction = 2}},
    {"aten::poisson_nll_loss", Loss{.reduction = 5}},

    // ---- what stands between a layer and a loss, or another layer ----
    {"aten::log_softmax", LogSoftmax{}},
    {"aten::sigmoid", Logistic{}},
    {"aten::add", Addition{}},
    {"aten::add_", Addition{}},
};

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

c10::ArrayRef<Operator> all_operators() { return kOperators; }

const Operator* find_operator(std::string_view name) {
  static const auto by_name = [] {
    std::unordered_map<std::string_view, const Operator*> entries;
    for (const Operator& entry : kOperators) entries.emplace(entry.name, &entry);
    return entries;
  }();
  const auto known = by_name.find(name);
  return known == by_name.end() ? nullptr : known->second;
}

bool is_in_place(std::string_view name) {
  return !name.empty() && name.back() == '_' && (name.size() < 2 || name[name.size() - 2] != '_');
}

std::string_view bare_name(std::string_view name) {
  if (const auto colons = name.rfind("::"); colons != std::string_view::npos) name.remove_prefix(colons + 2);
  if (is_in_place(name)) name.remove_suffix(1);
  return name;
}

}  // namespace dds::hooks
