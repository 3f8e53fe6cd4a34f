// One small network around every kind of layer that the recorder knows: what tests run for each of them.
#pragma once

#include <torch/torch.h>

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

namespace dds::test {

/// A module that is told what to do: its layers are registered by `build`, its forward is a function.
class Net : public torch::nn::Module {
 public:
  using Run = std::function<at::Tensor(Net&, const at::Tensor&)>;
  explicit Net(const std::function<Run(Net&)>& build) { run_ = build(*this); }

  at::Tensor forward(const at::Tensor& x) { return run_(*this, x); }

  /// Kept by `run`: the layer's output as the module returned it.
  at::Tensor seen;

 private:
  Run run_;
};

struct LayerKind {
  std::string name;                     ///< of the test
  std::string layer;                    ///< as the recorder names it
  std::string kind;                     ///< as the recorder calls it
  std::function<Net::Run(Net&)> build;  ///< registers the layer; the run sets net.seen to its output
  std::function<at::Tensor()> input;    ///< in float; indices are long
  std::vector<std::int64_t> features;   ///< of the output, by dimension
  bool runs_again = true;               ///< the module takes the operator's input: it does not pad or reshape its own
};
inline void PrintTo(const LayerKind& kind, std::ostream* os) { *os << kind.name; }

inline std::shared_ptr<Net> make_net(const LayerKind& kind) { return std::make_shared<Net>(kind.build); }

/// A module under the name "layer", called on the input.
template <class Holder>
std::function<Net::Run(Net&)> wrap(std::function<Holder()> make) {
  return [make](Net& net) -> Net::Run {
    auto layer = net.register_module("layer", make());
    return [layer](Net& net, const at::Tensor& x) mutable { return net.seen = layer->forward(x); };
  };
}

/// A raw parameter "p", used as `use` says.
inline std::function<Net::Run(Net&)> raw(at::IntArrayRef shape,
                                         std::function<at::Tensor(const at::Tensor& p, const at::Tensor& x)> use) {
  return [shape = shape.vec(), use](Net& net) -> Net::Run {
    auto p = net.register_parameter("p", torch::randn(shape));
    return [p, use](Net& net, const at::Tensor& x) { return net.seen = use(net.named_parameters()["p"], x); };
  };
}

/// In fp64, unless it holds indices.
inline at::Tensor to_double(const at::Tensor& x) { return x.is_floating_point() ? x.to(torch::kDouble) : x; }

/// A loss in which every entry of the output has a gradient of its own.
inline at::Tensor summed_loss(const at::Tensor& output) {
  const at::Tensor weights = torch::arange(1, output.numel() + 1, output.options()).reshape(output.sizes());
  return (weights * output.sin()).sum();
}

inline std::vector<LayerKind> layer_kinds();

/// Those whose module can be run on the captured input.
inline std::vector<LayerKind> layer_kinds_that_run_again() {
  std::vector<LayerKind> kinds = layer_kinds();
  std::erase_if(kinds, [](const LayerKind& kind) { return !kind.runs_again; });
  return kinds;
}

inline std::vector<LayerKind> layer_kinds() {
  namespace nn = torch::nn;
  const auto randn = [](std::vector<std::int64_t> shape) { return [shape] { return torch::randn(shape); }; };
  const auto tokens = [] { return torch::randint(0, 7, {5, 4}, torch::kLong); };
  const auto sequence = [](auto make) -> std::function<Net::Run(Net&)> {
    return [make](Net& net) -> Net::Run {
      auto layer = net.register_module("layer", make());
      return [layer](Net& net, const at::Tensor& x) mutable { return net.seen = std::get<0>(layer->forward(x)); };
    };
  };
  const auto step = [](auto make) -> std::function<Net::Run(Net&)> {
    return [make](Net& net) -> Net::Run {
      auto layer = net.register_module("layer", make());
      return [layer](Net& net, const at::Tensor& x) mutable { return net.seen = layer->forward(x); };
    };
  };
  return {
      {"Linear", "layer", "Linear", wrap<nn::Linear>([] { return nn::Linear(4, 3); }), randn({6, 4}), {1}},
      {"LinearOverPositions",
       "layer",
       "Linear",
       wrap<nn::Linear>([] { return nn::Linear(4, 3); }),
       randn({2, 5, 4}),
       {2}},
      {"LinearWithoutBias",
       "layer",
       "Linear",
       wrap<nn::Linear>([] { return nn::Linear(nn::LinearOptions(4, 3).bias(false)); }),
       randn({2, 5, 4}),
       {2}},
      {"LinearOfOneSample", "layer", "Linear", wrap<nn::Linear>([] { return nn::Linear(4, 3); }), randn({4}), {0}},
      {"Bilinear",
       "layer",
       "Bilinear",
       [](Net& net) -> Net::Run {
         auto layer = net.register_module("layer", nn::Bilinear(4, 4, 3));
         return [layer](Net& net, const at::Tensor& x) mutable { return net.seen = layer->forward(x, x.cos()); };
       },
       randn({6, 4}),
       {1}},
      {"Conv1d",
       "layer",
       "Conv1d",
       wrap<nn::Conv1d>([] { return nn::Conv1d(nn::Conv1dOptions(2, 3, 3).padding(1)); }),
       randn({4, 2, 6}),
       {1}},
      {"Conv2d",
       "layer",
       "Conv2d",
       wrap<nn::Conv2d>([] { return nn::Conv2d(nn::Conv2dOptions(2, 3, 3).stride(2)); }),
       randn({4, 2, 7, 7}),
       {1}},
      {"Conv2dInGroups",
       "layer",
       "Conv2d",
       wrap<nn::Conv2d>([] { return nn::Conv2d(nn::Conv2dOptions(4, 6, 3).groups(2).bias(false)); }),
       randn({3, 4, 5, 5}),
       {1}},
      {"Conv2dReflected",
       "layer",
       "Conv2d",
       wrap<nn::Conv2d>([] { return nn::Conv2d(nn::Conv2dOptions(2, 3, 3).padding(1).padding_mode(torch::kReflect)); }),
       randn({3, 2, 5, 5}),
       {1},
       false},
      {"Conv2dWithoutBatch",
       "layer",
       "Conv2d",
       wrap<nn::Conv2d>([] { return nn::Conv2d(2, 3, 3); }),
       randn({2, 5, 5}),
       {0}},
      {"Conv3d", "layer", "Conv3d", wrap<nn::Conv3d>([] { return nn::Conv3d(2, 3, 2); }), randn({2, 2, 4, 4, 4}), {1}},
      {"ConvTranspose2d",
       "layer",
       "ConvTranspose2d",
       wrap<nn::ConvTranspose2d>([] { return nn::ConvTranspose2d(2, 3, 3); }),
       randn({3, 2, 4, 4}),
       {1}},
      {"Embedding", "layer", "Embedding", wrap<nn::Embedding>([] { return nn::Embedding(7, 3); }), tokens, {2}},
      {"EmbeddingBag",
       "layer",
       "EmbeddingBag",
       wrap<nn::EmbeddingBag>([] { return nn::EmbeddingBag(nn::EmbeddingBagOptions(7, 3).mode(torch::kSum)); }),
       tokens,
       {1},
       false},
      {"LayerNorm",
       "layer",
       "LayerNorm",
       wrap<nn::LayerNorm>([] { return nn::LayerNorm(nn::LayerNormOptions({4})); }),
       randn({6, 4}),
       {1}},
      {"LayerNormOverTwo",
       "layer",
       "LayerNorm",
       wrap<nn::LayerNorm>([] {
         return nn::LayerNorm(nn::LayerNormOptions({3, 4}));
       }),
       randn({6, 3, 4}),
       {1, 2}},
      {"BatchNorm1d",
       "layer",
       "BatchNorm1d",
       wrap<nn::BatchNorm1d>([] { return nn::BatchNorm1d(4); }),
       randn({6, 4}),
       {1}},
      {"BatchNorm2d",
       "layer",
       "BatchNorm2d",
       wrap<nn::BatchNorm2d>([] { return nn::BatchNorm2d(3); }),
       randn({4, 3, 5, 5}),
       {1}},
      {"GroupNorm",
       "layer",
       "GroupNorm",
       wrap<nn::GroupNorm>([] { return nn::GroupNorm(nn::GroupNormOptions(2, 4)); }),
       randn({3, 4, 5}),
       {1}},
      {"InstanceNorm2d",
       "layer",
       "InstanceNorm2d",
       wrap<nn::InstanceNorm2d>([] { return nn::InstanceNorm2d(nn::InstanceNorm2dOptions(3).affine(true)); }),
       randn({2, 3, 4, 4}),
       {1}},
      {"PReLU", "layer", "PReLU", wrap<nn::PReLU>([] { return nn::PReLU(); }), randn({3, 4, 5}), {1}},
      {"PReLUByChannel",
       "layer",
       "PReLU",
       wrap<nn::PReLU>([] { return nn::PReLU(nn::PReLUOptions().num_parameters(4)); }),
       randn({3, 4, 5}),
       {1}},
      {"LSTM",
       "layer",
       "LSTM",
       sequence([] { return nn::LSTM(nn::LSTMOptions(4, 3).num_layers(2).bidirectional(true)); }),
       randn({5, 2, 4}),
       {2}},
      {"GRU",
       "layer",
       "GRU",
       sequence([] { return nn::GRU(nn::GRUOptions(4, 3).batch_first(true)); }),
       randn({2, 5, 4}),
       {2}},
      {"RNN", "layer", "RNN", sequence([] { return nn::RNN(nn::RNNOptions(4, 3)); }), randn({5, 2, 4}), {2}},
      {"LSTMCell", "layer", "LSTMCell", sequence([] { return nn::LSTMCell(4, 3); }), randn({6, 4}), {1}},
      {"GRUCell", "layer", "GRUCell", step([] { return nn::GRUCell(4, 3); }), randn({6, 4}), {1}},
      {"RawMatmulRight",
       "p",
       "Raw",
       raw({4, 3}, [](auto& p, auto& x) { return torch::matmul(x, p); }),
       randn({2, 5, 4}),
       {2}},
      {"RawMatmulLeft",
       "p",
       "Raw",
       raw({3, 4}, [](auto& p, auto& x) { return torch::matmul(p, x); }),
       randn({4, 5}),
       {0}},
      {"RawMatmulTransposed",
       "p",
       "Raw",
       raw({3, 4}, [](auto& p, auto& x) { return torch::mm(x, p.t()); }),
       randn({5, 4}),
       {1}},
      {"RawMv", "p", "Raw", raw({3, 4}, [](auto& p, auto& x) { return torch::mv(p, x); }), randn({4}), {0}},
      {"RawBmmByExpert",
       "p",
       "Raw",
       raw({2, 4, 3}, [](auto& p, auto& x) { return torch::bmm(x, p); }),
       randn({2, 5, 4}),
       {0, 2}},
      {"RawBmmExpanded",
       "p",
       "Raw",
       raw({4, 3},
           [](auto& p, auto& x) {
             return torch::bmm(x, p.unsqueeze(0).expand({2, 4, 3}));
           }),
       randn({2, 5, 4}),
       {2}},
      {"RawEinsum",
       "p",
       "Raw",
       raw({2, 4, 3},
           [](auto& p, auto& x) {
             return torch::einsum("bti,hio->bhto", {x, p});
           }),
       randn({3, 5, 4}),
       {1, 3}},
      {"RawEinsumImplicit",
       "p",
       "Raw",
       raw({4, 3},
           [](auto& p, auto& x) {
             return torch::einsum("zi,io", {x, p});
           }),
       randn({5, 4}),
       {0}},
      {"RawAddmm",
       "p",
       "Raw",
       raw({4, 3}, [](auto& p, auto& x) { return torch::addmm(torch::ones({3}, x.options()), x, p); }),
       randn({6, 4}),
       {1}},
      {"RawBaddbmm",
       "p",
       "Raw",
       raw({2, 4, 3},
           [](auto& p, auto& x) {
             return torch::baddbmm(torch::ones({2, 5, 3}, x.options()), x, p);
           }),
       randn({2, 5, 4}),
       {0, 2}},
      {"Masked",
       "p",
       "Raw",
       raw({4, 3}, [](auto& p, auto& x) { return torch::mm(x, p * torch::eye(4, 3, x.options())); }),
       randn({6, 4}),
       {1}},
      {"LowRank",
       "p",
       "Raw",
       raw({4, 3}, [](auto& p, auto& x) { return torch::mm(x, p.mm(p.t()).mm(p)); }),
       randn({6, 4}),
       {1}},
      {"Normalised",
       "p",
       "Raw",
       raw({4, 3}, [](auto& p, auto& x) { return torch::mm(x, p / p.norm()); }),
       randn({6, 4}),
       {1}},
  };
}

}  // namespace dds::test
