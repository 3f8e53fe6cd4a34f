// Programs that know nothing of the library, one for each way in which programs go about their training. The first
// argument says which. The second is a file for the truth: how many steps there were, how many updates the step that
// has most of them, and the names of the layers. On the standard output goes the sum of the weights at the end, to the
// bit.
#include <torch/torch.h>

#include <condition_variable>
#include <cstdio>
#include <fstream>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

namespace nn = torch::nn;
namespace F = torch::nn::functional;

struct Truth {
  int steps = 0;
  std::set<std::string> layers;
  double sum = 0;

  void add(const nn::Module& network) {
    for (const auto& item : network.named_modules("", /*include_self=*/false)) {
      const auto own = item.value()->named_parameters(/*recurse=*/false);
      // The product of attention's parts is a parameter without a module of its own.
      if (own.contains("in_proj_weight")) layers.insert(item.key() + ".in_proj_weight");
      if (own.contains("weight")) layers.insert(item.key());
    }
    count(network.parameters());
  }
  void count(const std::vector<torch::Tensor>& weights) {
    for (const torch::Tensor& weight : weights) sum += weight.detach().to(torch::kDouble).sum().item<double>();
  }
};

/// Two layers with names of their own.
struct NetImpl : nn::Module {
  NetImpl(const std::string& name, int in, int out) {
    first = register_module(name + "1", nn::Linear(in, 8));
    second = register_module(name + "2", nn::Linear(8, out));
  }
  torch::Tensor forward(const torch::Tensor& x) { return second(torch::tanh(first(x))); }
  nn::Linear first{nullptr}, second{nullptr};
};
TORCH_MODULE(Net);

torch::Tensor inputs() { return torch::randn({16, 6}); }

void step(torch::optim::Optimizer& optimizer, const torch::Tensor& loss) {
  optimizer.zero_grad();
  loss.backward();
  optimizer.step();
}

torch::Tensor loss_of(Net& net) {
  const torch::Tensor x = inputs();
  return F::mse_loss(net(x), x.slice(1, 0, 3));
}

void train(Net& net, torch::optim::Optimizer& optimizer, int steps) {
  for (int i = 0; i < steps; ++i) step(optimizer, loss_of(net));
}

// ---- networks one after the other, and optimisers ----

void sequence(Truth& truth) {
  Net a("a", 6, 3), b("b", 6, 3);
  torch::optim::Adam of_a(a->parameters(), 1e-2), of_b(b->parameters(), 1e-2);
  train(a, of_a, 25);
  train(b, of_b, 200);
  truth.steps = 225;
  truth.add(*a);
  truth.add(*b);
}

void switched(Truth& truth) {
  Net net("a", 6, 3);
  torch::optim::Adam adam(net->parameters(), 1e-2);
  torch::optim::SGD sgd(net->parameters(), 1e-2);
  train(net, adam, 25);
  train(net, sgd, 25);
  truth.steps = 50;
  truth.add(*net);
}

struct TablesImpl : nn::Module {
  nn::Embedding left{register_module("left", nn::Embedding(20000, 16))};
  nn::Embedding right{register_module("right", nn::Embedding(20000, 16))};
  torch::Tensor loss() {
    const auto rows = [] { return torch::randint(0, 20000, {8}); };
    return (left(rows()) * right(rows())).sum(1).sub(1).pow(2).mean();
  }
};
TORCH_MODULE(Tables);

void embeddings(Truth& truth) {
  Tables tables;
  torch::optim::SGD sgd(tables->parameters(), 0.1);
  for (int i = 0; i < 200; ++i) step(sgd, tables->loss());
  truth.steps = 200;
  truth.add(*tables);
}

/// The same, updated by hand and past the versions.
void embeddings_by_hand(Truth& truth) {
  Tables tables;
  for (int i = 0; i < 60; ++i) {
    tables->zero_grad();
    tables->loss().backward();
    for (torch::Tensor& weight : tables->parameters()) weight.data().sub_(0.1 * weight.grad());
  }
  truth.steps = 60;
  truth.add(*tables);
}

void warm_up(Truth& truth) {
  Net net("a", 6, 3);
  torch::optim::SGD sgd(net->parameters(), 0.1);
  for (int i = 0; i < 40; ++i) {
    for (auto& group : sgd.param_groups()) group.options().set_lr(0.01 * (i % 20));
    step(sgd, loss_of(net));
  }
  truth.steps = 40;
  truth.add(*net);
}

/// Layers come one after the other, each with an optimiser that is new.
void growing(Truth& truth) {
  nn::Sequential net(nn::Linear(6, 6));
  for (int size = 1; size <= 3; ++size) {
    if (size > 1) net->push_back(nn::Linear(6, 6));
    torch::optim::Adam adam(net->parameters(), 1e-2);
    for (int i = 0; i < 15; ++i) {
      const torch::Tensor x = inputs();
      step(adam, F::mse_loss(net->forward(x), x.flip(1)));
    }
  }
  truth.steps = 45;
  truth.add(*net);
}

// ---- several networks at once ----

void delayed_actor(Truth& truth) {
  Net critic("critic", 7, 1), actor("actor", 6, 1), target("target", 7, 1);
  torch::optim::Adam of_critic(critic->parameters(), 1e-2), of_actor(actor->parameters(), 1e-2);
  for (int i = 0; i < 50; ++i) {
    const torch::Tensor x = inputs();
    step(of_critic, F::mse_loss(critic(torch::cat({x, torch::randn({16, 1})}, 1)), x.slice(1, 0, 1)));
    if (i % 2 == 1) {
      step(of_actor, -critic(torch::cat({x, actor(x)}, 1)).mean());
      const torch::NoGradGuard no_grad;
      for (std::size_t k = 0; k < 4; ++k) target->parameters()[k].lerp_(critic->parameters()[k], 0.1);
    }
  }
  truth.steps = 75;
  truth.add(*critic);
  truth.add(*actor);
}

void wgan(Truth& truth) {
  Net critic("critic", 6, 1), generator("generator", 6, 6);
  torch::optim::RMSprop of_critic(critic->parameters(), 1e-3), of_generator(generator->parameters(), 1e-3);
  for (int i = 0; i < 20; ++i) {
    for (int k = 0; k < 5; ++k) {
      step(of_critic, critic(generator(inputs()).detach()).mean() - critic(inputs()).mean());
      const torch::NoGradGuard no_grad;
      for (torch::Tensor& weight : critic->parameters()) weight.clamp_(-0.1, 0.1);
    }
    step(of_generator, -critic(generator(inputs())).mean());
  }
  truth.steps = 120;
  truth.add(*critic);
  truth.add(*generator);
}

void gan(Truth& truth) {
  Net critic("critic", 6, 1), generator("generator", 6, 6);
  torch::optim::Adam of_critic(critic->parameters(), 1e-3), of_generator(generator->parameters(), 1e-3);
  for (int i = 0; i < 30; ++i) {
    const torch::Tensor fake = generator(inputs());
    step(of_critic, critic(fake.detach()).mean() - critic(inputs()).mean());
    step(of_generator, -critic(fake).mean());
  }
  truth.steps = 30;
  truth.add(*critic);
  truth.add(*generator);
}

// ---- passes that are no training ----

template <class Attack>
void adversarial(Truth& truth, const Attack& attack) {
  Net net("a", 6, 3);
  torch::optim::Adam adam(net->parameters(), 1e-2);
  for (int i = 0; i < 50; ++i) {
    const torch::Tensor clean = inputs(), target = clean.slice(1, 0, 3);
    torch::Tensor x = clean.clone().requires_grad_();
    for (int k = 0; k < 3; ++k) attack(net, x, target);
    step(adam, F::mse_loss(net(x.detach()), target));
  }
  truth.steps = 50;
  truth.add(*net);
}

void pgd(Truth& truth) {
  adversarial(truth, [](Net& net, torch::Tensor& x, const torch::Tensor& target) {
    const torch::Tensor slope = torch::autograd::grad({F::mse_loss(net(x), target)}, {x})[0];
    const torch::NoGradGuard no_grad;
    x.add_(slope.sign(), 0.01);
  });
}

void pgd_backward(Truth& truth) {
  adversarial(truth, [](Net& net, torch::Tensor& x, const torch::Tensor& target) {
    F::mse_loss(net(x), target).backward();
    const torch::NoGradGuard no_grad;
    x.add_(x.grad().sign(), 0.01);
    x.mutable_grad().reset();
  });
}

/// The Fisher matrix's diagonal, of passes whose gradients are thrown away.
void diagonal(Truth& truth) {
  Net net("a", 6, 3);
  torch::optim::SGD sgd(net->parameters(), 1e-2);
  for (int task = 0; task < 4; ++task) {
    train(net, sgd, 10);
    for (int i = 0; i < 5; ++i) {
      net->zero_grad();
      loss_of(net).backward();
    }
  }
  truth.steps = 40;
  truth.add(*net);
}

/// An image is what is trained; the network stays as it is.
void style(Truth& truth) {
  nn::Conv2d features(nn::Conv2dOptions(3, 4, 3));
  for (torch::Tensor& weight : features->parameters()) weight.requires_grad_(false);
  torch::Tensor image = torch::randn({1, 3, 8, 8}).requires_grad_();
  torch::optim::Adam adam({image}, 0.1);
  for (int i = 0; i < 20; ++i) step(adam, features(image).pow(2).mean());
  truth.steps = 20;
  truth.count({image});
}

// ---- threads ----

void on_threads(Truth& truth, int threads, int steps) {
  Net net("a", 6, 3);
  torch::optim::SGD sgd(net->parameters(), 1e-2);
  for (int i = 0; i < threads; ++i) std::thread([&] { train(net, sgd, steps); }).join();
  truth.steps = threads * steps;
  truth.add(*net);
}

/// Two threads take turns, each with an optimiser.
void in_turn(Truth& truth) {
  Net net("a", 6, 3);
  std::mutex mutex;
  std::condition_variable changed;
  int turn = 0;
  const auto work = [&](int own) {
    torch::optim::SGD sgd(net->parameters(), 1e-2);
    for (int i = 0; i < 20; ++i) {
      std::unique_lock lock(mutex);
      changed.wait(lock, [&] { return turn % 2 == own; });
      step(sgd, loss_of(net));
      ++turn;
      changed.notify_all();
    }
  };
  std::thread other(work, 1);
  work(0);
  other.join();
  truth.steps = 40;
  truth.add(*net);
}

// ---- modules passed by value ----

struct BlockImpl : nn::Module {
  BlockImpl(int in, int out) { inner = register_module("inner", nn::Linear(in, out)); }
  torch::Tensor forward(const torch::Tensor& x) { return torch::tanh(inner(x)); }
  nn::Linear inner{nullptr};
};

struct ByValue : nn::Module {
  ByValue() {
    body->push_back(BlockImpl(6, 8));
    body->push_back(BlockImpl(8, 8));
    body->push_back(nn::Linear(8, 3));
    register_module("body", body);
  }
  nn::Sequential body;
};

void by_value(Truth& truth) {
  const auto net = std::make_shared<ByValue>(ByValue());
  torch::optim::Adam adam(net->parameters(), 1e-2);
  for (int i = 0; i < 20; ++i) {
    const torch::Tensor x = inputs();
    step(adam, F::mse_loss(net->body->forward(x), x.slice(1, 0, 3)));
  }
  truth.steps = 20;
  truth.add(*net);
}

struct Encoder : nn::Module {
  nn::TransformerEncoder encoder{register_module(
      "encoder",
      nn::TransformerEncoder(nn::TransformerEncoderOptions(
          nn::TransformerEncoderLayer(nn::TransformerEncoderLayerOptions(6, 2).dim_feedforward(8).dropout(0)), 2)))};
  nn::Linear head{register_module("head", nn::Linear(6, 3))};
};

void transformer(Truth& truth) {
  Encoder net;
  torch::optim::Adam adam(net.parameters(), 1e-2);
  for (int i = 0; i < 12; ++i) {
    const torch::Tensor x = torch::randn({5, 4, 6});
    step(adam, F::mse_loss(net.head(net.encoder(x)), x.slice(2, 0, 3)));
  }
  truth.steps = 12;
  truth.add(net);
}

}  // namespace

int main(int argc, char** argv) {
  const std::map<std::string, std::function<void(Truth&)>> kinds{
      {"sequence", sequence},
      {"growing", growing},
      {"switched", switched},
      {"embeddings", embeddings},
      {"embeddings_by_hand", embeddings_by_hand},
      {"warm_up", warm_up},
      {"delayed_actor", delayed_actor},
      {"wgan", wgan},
      {"gan", gan},
      {"pgd", pgd},
      {"pgd_backward", pgd_backward},
      {"diagonal", diagonal},
      {"style", style},
      {"thread_an_epoch", [](Truth& truth) { on_threads(truth, 5, 10); }},
      {"thread_a_step", [](Truth& truth) { on_threads(truth, 30, 1); }},
      {"threads_in_turn", in_turn},
      {"by_value", by_value},
      {"transformer", transformer},
  };
  if (argc != 3 || !kinds.contains(argv[1])) {
    for (const auto& [name, train] : kinds) std::printf("%s\n", name.c_str());
    return argc == 1 ? 0 : 2;
  }
  torch::manual_seed(7);
  Truth truth;
  kinds.at(argv[1])(truth);
  std::ofstream file(argv[2]);
  file << "{\"steps\": " << truth.steps << ", \"layers\": [";
  const char* separator = "";
  for (const std::string& layer : truth.layers) file << std::exchange(separator, ", ") << '"' << layer << '"';
  file << "]}\n";
  std::printf("%a\n", truth.sum);
  return 0;
}
