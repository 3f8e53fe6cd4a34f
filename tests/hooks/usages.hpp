// Small trainings in which layers are used in every way that programs use them.
#pragma once

#include <ATen/autocast_mode.h>
#include <torch/script.h>
#include <torch/torch.h>

#include <functional>
#include <map>
#include <memory>
#include <ostream>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace dds::test {

/// A model that is watched, and one step of its training, the update included.
struct Training {
  std::shared_ptr<torch::nn::Module> model;
  std::function<void()> step;
  std::vector<std::shared_ptr<torch::nn::Module>> others = {};  ///< models that are trained with it
};

struct Usage {
  std::string name;
  std::function<Training()> make;
  /// What one step brings: calls of each site that ran.
  std::map<std::string, std::size_t> calls;
  /// Weights, out x in, whose gradient is that of all rows of the sites named: sum of delta^T a, or of delta by index.
  std::map<std::string, std::vector<std::string>> sums = {};
  /// Layers that something else is done with besides, which is reported.
  std::set<std::string> used_otherwise = {};
};
inline void PrintTo(const Usage& usage, std::ostream* os) { *os << usage.name; }

namespace usages {

namespace nn = torch::nn;
namespace F = torch::nn::functional;
using nn::Module;

inline at::Tensor batch(std::int64_t width) { return torch::randn({6, width}); }
inline at::Tensor classes(std::int64_t count) { return torch::randint(0, count, {6}, torch::kLong); }

/// A model that is told what its forward is.
struct Model : Module {
  std::function<at::Tensor(at::Tensor)> run;
  at::Tensor forward(const at::Tensor& x) { return run(x); }
};

/// register_module, but what comes back is the holder.
template <class Holder>
Holder add(Model& model, const std::string& name, Holder module) {
  model.register_module(name, module);
  return module;
}

template <class Loss>
Training train(std::shared_ptr<Module> model, Loss loss) {
  auto optimizer = std::make_shared<torch::optim::Adam>(model->parameters(), 0.02);
  return {model, [=]() mutable {
            optimizer->zero_grad();
            loss().backward();
            optimizer->step();
          }};
}

inline Training tied_embedding() {
  auto model = std::make_shared<Model>();
  auto embedding = add(*model, "embedding", nn::Embedding(7, 4));
  auto head = add(*model, "head", nn::Linear(nn::LinearOptions(4, 7).bias(false)));
  head->weight = embedding->weight;
  return train(model, [=]() mutable {
    const at::Tensor tokens = classes(7);
    return F::cross_entropy(head(embedding(tokens).tanh()), tokens);
  });
}

inline Training recurrence() {
  auto model = std::make_shared<Model>();
  auto in = add(*model, "in", nn::Linear(3, 5));
  auto hidden = add(*model, "hidden", nn::Linear(nn::LinearOptions(5, 5).bias(false)));
  return train(model, [=]() mutable {
    at::Tensor state = torch::zeros({6, 5});
    for (int t = 0; t < 4; ++t) state = torch::tanh(in(batch(3)) + hidden(state));
    return state.pow(2).sum();
  });
}

inline Training run_twice_in_place() {
  auto model = std::make_shared<Model>();
  auto layer = add(*model, "layer", nn::Linear(4, 4));
  auto act = add(*model, "act", nn::ReLU(nn::ReLUOptions().inplace(true)));
  return train(model, [=]() mutable { return act(layer(act(layer(batch(4))))).sum(); });
}

inline Training stochastic_depth() {
  auto model = std::make_shared<Model>();
  auto always = add(*model, "always", nn::Linear(4, 4));
  auto sometimes = add(*model, "sometimes", nn::Linear(4, 4));
  auto count = std::make_shared<int>(0);
  return train(model, [=]() mutable {
    at::Tensor h = always(batch(4)).tanh();
    if ((*count)++ % 2 == 1) h = h + sometimes(h);
    return h.pow(2).sum();
  });
}

inline Training containers() {
  auto model = std::make_shared<Model>();
  auto sequence =
      add(*model, "sequence", nn::Sequential(nn::Linear(4, 6), nn::GELU(), nn::LayerNorm(nn::LayerNormOptions({6}))));
  auto list = add(*model, "list", nn::ModuleList(nn::Linear(6, 6), nn::Linear(6, 6)));
  auto dict = add(*model, "dict", nn::ModuleDict());
  dict->update({{"head", nn::AnyModule(nn::Linear(6, 3)).ptr()}});
  nn::AnyModule any(nn::Linear(3, 2));
  add(*model, "any", any.ptr());
  return train(model, [=]() mutable {
    at::Tensor h = sequence->forward(batch(4));
    for (const auto& layer : *list) h = layer->as<nn::Linear>()->forward(h).relu();
    h = (*dict)["head"]->as<nn::Linear>()->forward(h);
    return any.forward(h).pow(2).sum();
  });
}

inline Training flattened_parameters() {
  auto model = std::make_shared<Model>();
  model->register_parameter("flat", torch::randn({4 * 5 + 5 * 2}) * 0.3);
  return train(model, [model = model.get()] {
    const at::Tensor flat = model->named_parameters()["flat"];
    const at::Tensor first = flat.narrow(0, 0, 20).view({4, 5}), second = flat.narrow(0, 20, 10).view({5, 2});
    return torch::mm(torch::mm(batch(4), first).tanh(), second).pow(2).sum();
  });
}

inline Training functional_calls() {
  auto model = std::make_shared<Model>();
  auto weight = model->register_parameter("weight", torch::randn({5, 4}));
  auto bias = model->register_parameter("bias", torch::randn({5}));
  auto kernel = model->register_parameter("kernel", torch::randn({2, 1, 3}));
  return train(model, [=] {
    const at::Tensor h = F::linear(batch(4), weight, bias).tanh();
    return F::conv1d(h.unsqueeze(1), kernel).pow(2).sum();
  });
}

inline Training eval_and_no_grad_between() {
  auto model = std::make_shared<Model>();
  auto net =
      add(*model, "net", nn::Sequential(nn::Linear(4, 6), nn::BatchNorm1d(6), nn::Dropout(0.3), nn::Linear(6, 2)));
  return train(model, [=]() mutable {
    const at::Tensor x = batch(4);
    {
      torch::NoGradGuard no_grad;
      net->eval();
      net->forward(x);
      net->train();
      net->forward(x);  // moves the running statistics
    }
    return net->forward(x).pow(2).sum();
  });
}

inline Training gan() {
  auto generator =
      std::make_shared<nn::SequentialImpl>(nn::Linear(2, 8), nn::ReLU(nn::ReLUOptions(true)), nn::Linear(8, 4));
  auto discriminator = std::make_shared<nn::SequentialImpl>(
      nn::Linear(4, 8), nn::LeakyReLU(nn::LeakyReLUOptions().inplace(true)), nn::Linear(8, 1));
  auto of_generator = std::make_shared<torch::optim::Adam>(generator->parameters(), 0.01);
  auto of_discriminator = std::make_shared<torch::optim::Adam>(discriminator->parameters(), 0.01);
  return {discriminator,
          [=] {
            of_discriminator->zero_grad();
            F::binary_cross_entropy_with_logits(discriminator->forward(batch(4)), torch::ones({6, 1})).backward();
            const at::Tensor fake = generator->forward(batch(2));
            F::binary_cross_entropy_with_logits(discriminator->forward(fake.detach()), torch::zeros({6, 1})).backward();
            of_discriminator->step();
            of_generator->zero_grad();
            F::binary_cross_entropy_with_logits(discriminator->forward(fake), torch::ones({6, 1})).backward();
            of_generator->step();
          },
          {generator}};
}

inline std::shared_ptr<Model> two_layers() {
  auto model = std::make_shared<Model>();
  auto first = add(*model, "first", nn::Linear(4, 6));
  auto second = add(*model, "second", nn::Linear(6, 3));
  model->run = [first, second](const at::Tensor& x) mutable { return second(first(x).tanh()); };
  return model;
}

inline Training gradient_accumulation() {
  auto model = two_layers();
  auto optimizer =
      std::make_shared<torch::optim::SGD>(model->parameters(), torch::optim::SGDOptions(0.05).momentum(0.9));
  return {model, [=] {
            optimizer->zero_grad();
            for (int i = 0; i < 3; ++i) (F::cross_entropy(model->forward(batch(4)), classes(3)) / 3).backward();
            optimizer->step();
          }};
}

inline Training two_backward_passes() {
  auto model = two_layers();
  auto optimizer = std::make_shared<torch::optim::RMSprop>(model->parameters(), 0.01);
  return {model, [=] {
            optimizer->zero_grad();
            const at::Tensor y = model->forward(batch(4));
            y.pow(2).sum().backward({}, /*keep_graph=*/true);
            y.sin().sum().backward();
            optimizer->step();
          }};
}

inline Training gradient_penalty() {
  auto model = two_layers();
  return train(model, [=] {
    const at::Tensor x = batch(4).requires_grad_();
    const at::Tensor y = model->forward(x);
    const at::Tensor slope = torch::autograd::grad({y.sum()}, {x}, {}, true, /*create_graph=*/true)[0];
    return y.pow(2).sum() + (slope.norm(2, 1) - 1).pow(2).sum();
  });
}

/// Runs without a graph, and again in the backward pass.
struct Checkpoint : torch::autograd::Function<Checkpoint> {
  inline static thread_local std::function<at::Tensor(at::Tensor)> body;

  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x) {
    context->save_for_backward({x});
    return body(x);
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const at::Tensor x = context->get_saved_variables()[0].detach().requires_grad_();
    const torch::AutoGradMode again(true);
    const at::Tensor y = body(x);
    torch::autograd::backward({y}, {gradients[0]});
    return {x.grad()};
  }
};

inline Training checkpointing() {
  auto model = std::make_shared<Model>();
  auto before = add(*model, "before", nn::Linear(4, 5));
  auto inside = add(*model, "inside", nn::Linear(5, 6));
  return train(model, [=]() mutable {
    Checkpoint::body = [inside](const at::Tensor& x) mutable { return inside(x).tanh(); };
    return Checkpoint::apply(before(batch(4))).pow(2).sum();
  });
}

struct Autocast {
  explicit Autocast(at::ScalarType type) {
#if TORCH_VERSION_MAJOR < 2
    at::autocast::set_autocast_cpu_dtype(type);
#else
    at::autocast::set_autocast_dtype(at::kCPU, type);
#endif
    set(true);
  }
  ~Autocast() {
    at::autocast::clear_cache();
    set(false);
  }
  static void set(bool on) {
#if TORCH_VERSION_MAJOR < 2
    at::autocast::set_cpu_enabled(on);
#else
    at::autocast::set_autocast_enabled(at::kCPU, on);
#endif
  }
};

inline Training autocast(at::ScalarType type) {
  auto model = two_layers();
  return train(model, [=] {
    at::Tensor y;
    {
      const Autocast lower(type);
      y = model->forward(batch(4));
    }
    return y.to(torch::kFloat).pow(2).mean();
  });
}

inline Training of_type(at::ScalarType type) {
  auto model = two_layers();
  model->to(type);
  auto optimizer = std::make_shared<torch::optim::SGD>(model->parameters(), 0.01);
  return {model, [=] {
            optimizer->zero_grad();
            model->forward(batch(4).to(type)).sum().backward();
            optimizer->step();
          }};
}

inline Training loaded_moved_and_converted() {
  auto model = two_layers();
  auto other = two_layers();
  auto count = std::make_shared<int>(0);
  return {model, [=] {
            const int step = (*count)++;
            const auto type = step % 2 == 0 ? torch::kDouble : torch::kFloat;
            model->to(type);
            if (step == 1) {
              std::stringstream stream;
              torch::serialize::OutputArchive out;
              other->save(out);
              out.save_to(stream);
              torch::serialize::InputArchive in;
              in.load_from(stream);
              model->load(in);
            }
            for (at::Tensor& parameter : model->parameters()) parameter.mutable_grad().reset();
            model->forward(batch(4).to(type)).pow(2).sum().backward();
            const torch::NoGradGuard no_grad;
            for (at::Tensor& parameter : model->parameters()) parameter.set_data(parameter - 0.01 * parameter.grad());
          }};
}

inline Training frozen_and_unfrozen() {
  auto model = two_layers();
  auto optimizer = std::make_shared<torch::optim::SGD>(model->parameters(), 0.05);
  auto count = std::make_shared<int>(0);
  return {model, [=] {
            model->named_parameters()["second.weight"].requires_grad_((*count)++ % 2 == 0);
            optimizer->zero_grad();
            model->forward(batch(4)).pow(2).sum().backward();
            optimizer->step();
          }};
}

inline Training derived_weights() {
  auto model = std::make_shared<Model>();
  auto masked = model->register_parameter("masked", torch::randn({3, 1, 3}));
  auto mask = model->register_buffer("mask", torch::tensor({1., 1., 0.}, torch::kFloat).expand({3, 1, 3}).contiguous());
  auto g = model->register_parameter("g", torch::ones({5, 1}));
  auto v = model->register_parameter("v", torch::randn({5, 6}));
  auto base = add(*model, "base", nn::Linear(5, 5));
  auto a = model->register_parameter("a", torch::randn({2, 5}) * 0.1);
  auto b = model->register_parameter("b", torch::randn({5, 2}) * 0.1);
  base->weight.requires_grad_(false);
  return train(model, [=]() mutable {
    at::Tensor h = F::conv1d(batch(4).unsqueeze(1), masked * mask).flatten(1);  // 6 x 6
    h = F::linear(h, g * v / v.norm(2, {1}, true)).tanh();                      // weight norm
    h = base(h) + F::linear(h, torch::mm(b, a));                                // a low-rank adapter
    return h.pow(2).sum();
  });
}

inline Training codebook() {
  auto model = std::make_shared<Model>();
  auto encoder = add(*model, "encoder", nn::Linear(4, 3));
  auto codes = add(*model, "codes", nn::Embedding(5, 3));
  auto decoder = add(*model, "decoder", nn::Linear(3, 4));
  return train(model, [=]() mutable {
    const at::Tensor x = batch(4), z = encoder(x);
    const at::Tensor nearest = torch::cdist(z.detach(), codes->weight.detach()).argmin(1);
    const at::Tensor q = codes(nearest);
    const at::Tensor straight = z + (q - z).detach();
    return F::mse_loss(decoder(straight), x) + F::mse_loss(q, z.detach()) + 0.25 * F::mse_loss(z, q.detach());
  });
}

inline Training roll_outs() {
  auto model = two_layers();
  return train(model, [=] {
    at::Tensor reward;
    for (int t = 0; t < 3; ++t) reward = model->forward(batch(4)).detach().mean();
    return (model->forward(batch(4)) * reward).sum();
  });
}

inline Training retained_graphs() {
  auto model = two_layers();
  auto optimizer = std::make_shared<torch::optim::SGD>(model->parameters(), 0.05);
  auto kept = std::make_shared<std::vector<at::Tensor>>();
  return {model, [=] {
            optimizer->zero_grad();
            kept->push_back(model->forward(batch(4)).pow(2).sum());
            kept->back().backward({}, /*keep_graph=*/true);
            optimizer->step();
          }};
}

inline Training lbfgs() {
  auto model = two_layers();
  auto optimizer = std::make_shared<torch::optim::LBFGS>(
      model->parameters(), torch::optim::LBFGSOptions(0.1).max_iter(3).tolerance_grad(0).tolerance_change(0));
  return {model, [=] {
            const at::Tensor x = batch(4), y = classes(3);
            optimizer->step([&] {
              optimizer->zero_grad();
              const at::Tensor loss = F::cross_entropy(model->forward(x), y);
              loss.backward();
              return loss;
            });
          }};
}

struct Square : torch::autograd::Function<Square> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x) {
    context->save_for_backward({x});
    return x * x;
  }
  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    return {2 * context->get_saved_variables()[0] * gradients[0]};
  }
};

inline Training custom_functions() {
  auto model = std::make_shared<Model>();
  auto first = add(*model, "first", nn::Linear(4, 6));
  auto second = add(*model, "second", nn::Linear(6, 3));
  return train(model, [=]() mutable { return second(Square::apply(first(batch(4)))).pow(2).sum(); });
}

inline Training script_in_the_middle() {
  auto model = std::make_shared<Model>();
  auto before = add(*model, "before", nn::Linear(4, 5));
  auto script = std::make_shared<torch::jit::Module>("Middle");
  auto weight = model->register_parameter("script", torch::randn({5, 3}));
  script->register_parameter("weight", weight, false);
  script->define("def forward(self, x):\n  return torch.matmul(x, self.weight).tanh()\n");
  return train(model, [=]() mutable { return script->forward({before(batch(4))}).toTensor().pow(2).sum(); });
}

}  // namespace usages

inline std::vector<Usage> all_usages() {
  using namespace usages;
  const std::map<std::string, std::size_t> both{{"first", 1}, {"second", 1}};
  const std::map<std::string, std::vector<std::string>> sums{{"first.weight", {"first"}},
                                                             {"second.weight", {"second"}}};
  return {
      {"TiedEmbedding",
       tied_embedding,
       {{"embedding", 1}, {"embedding#2", 1}},
       {{"embedding.weight", {"embedding", "embedding#2"}}}},
      {"Recurrence", recurrence, {{"in", 4}, {"hidden", 4}}, {{"in.weight", {"in"}}, {"hidden.weight", {"hidden"}}}},
      {"RunTwiceInPlace", run_twice_in_place, {{"layer", 2}}, {{"layer.weight", {"layer"}}}},
      {"StochasticDepth", stochastic_depth, {{"always", 1}}, {{"always.weight", {"always"}}}},
      {"Containers",
       containers,
       {{"sequence.0", 1}, {"sequence.2", 1}, {"list.0", 1}, {"list.1", 1}, {"dict.head", 1}, {"any", 1}},
       {{"sequence.0.weight", {"sequence.0"}},
        {"list.1.weight", {"list.1"}},
        {"dict.head.weight", {"dict.head"}},
        {"any.weight", {"any"}}}},
      {"FlattenedParameters", flattened_parameters, {{"flat", 1}, {"flat#2", 1}}},
      {"FunctionalCalls", functional_calls, {{"weight", 1}, {"kernel", 1}}, {{"weight", {"weight"}}}},
      {"EvalAndNoGradBetween",
       eval_and_no_grad_between,
       {{"net.0", 1}, {"net.1", 1}, {"net.3", 1}},
       {{"net.0.weight", {"net.0"}}, {"net.3.weight", {"net.3"}}}},
      {"GAN", gan, {{"0", 3}, {"2", 3}}, {{"0.weight", {"0"}}, {"2.weight", {"2"}}}},
      {"GradientAccumulation", gradient_accumulation, {{"first", 3}, {"second", 3}}, sums},
      {"TwoBackwardPasses", two_backward_passes, both, sums},
      {"GradientPenalty", gradient_penalty, both},
      {"Checkpointing",
       checkpointing,
       {{"before", 1}, {"inside", 1}},
       {{"before.weight", {"before"}}, {"inside.weight", {"inside"}}}},
      {"AutocastBFloat16", [] { return autocast(torch::kBFloat16); }, both},
      {"AutocastHalf", [] { return autocast(torch::kHalf); }, both},
      {"BFloat16", [] { return of_type(torch::kBFloat16); }, both},
      {"Half", [] { return of_type(torch::kHalf); }, both},
      {"LoadedMovedAndConverted", loaded_moved_and_converted, both, sums},
      {"FrozenAndUnfrozen", frozen_and_unfrozen, both, sums},
      {"DerivedWeights", derived_weights, {{"masked", 1}, {"g", 1}, {"base", 1}, {"b", 1}}},
      {"Codebook",
       codebook,
       {{"encoder", 1}, {"codes", 1}, {"decoder", 1}},
       {{"encoder.weight", {"encoder"}}, {"codes.weight", {"codes"}}, {"decoder.weight", {"decoder"}}},
       {"codes"}},
      {"RollOuts", roll_outs, both, sums},
      {"RetainedGraphs", retained_graphs, both, sums},
      {"LBFGS", lbfgs, {{"first", 3}, {"second", 3}}},
      {"CustomFunctions", custom_functions, both, sums},
      {"ScriptInTheMiddle", script_in_the_middle, {{"before", 1}, {"script", 1}}, {{"before.weight", {"before"}}}},
  };
}

}  // namespace dds::test
