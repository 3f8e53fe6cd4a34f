// A small training that ends in the way that its first argument says, or goes about its steps in another way.
#include <sys/wait.h>
#include <torch/torch.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>

namespace {

using Step = std::function<void(int)>;

struct Net : torch::nn::Module {
  torch::nn::Linear first{register_module("first", torch::nn::Linear(6, 8))};
  torch::nn::Linear second{register_module("second", torch::nn::Linear(8, 3))};
  torch::Tensor forward(const torch::Tensor& x) { return second(torch::tanh(first(x))); }
};

torch::Tensor loss_of(Net& net) {
  return torch::nn::functional::cross_entropy(net.forward(torch::randn({20, 6})), torch::randint(0, 3, {20}));
}

/// A norm first, whose buffers change in the first operator.
struct Normed : torch::nn::Module {
  torch::nn::BatchNorm1d norm{register_module("norm", torch::nn::BatchNorm1d(6))};
  std::shared_ptr<Net> net{register_module("net", std::make_shared<Net>())};
};

/// Five steps, each of which leaves what it began with in a file.
void train_and_save(Normed& model) {
  torch::optim::SGD optimizer(model.parameters(), 0.1);
  for (int step = 0; step < 5; ++step) {
    torch::serialize::OutputArchive archive;
    for (const auto& parameter : model.named_parameters()) archive.write(parameter.key(), parameter.value());
    for (const auto& buffer : model.named_buffers()) archive.write(buffer.key(), buffer.value(), /*is_buffer=*/true);
    archive.save_to("had." + std::to_string(step) + ".pt");
    optimizer.zero_grad();
    const torch::Tensor output = model.net->forward(model.norm(torch::randn({20, 6})));
    const torch::Tensor loss = torch::nn::functional::cross_entropy(output, torch::randint(0, 3, {20}));
    loss.backward();
    optimizer.step();
    std::printf("%d %.17g\n", step, loss.item<double>());
  }
}

/// Six steps; `before` is called before each.
void train(Net& net, const Step& before = {}) {
  torch::optim::Adam optimizer(net.parameters(), 1e-2);
  for (int step = 0; step < 6; ++step) {
    if (before) before(step);
    optimizer.zero_grad();
    const torch::Tensor loss = loss_of(net);
    loss.backward();
    optimizer.step();
    std::printf("%d %.17g\n", step, loss.item<double>());
    std::fflush(stdout);
  }
}

/// Calls `end` before the fifth step.
void train_until(Net& net, const std::function<void()>& end) {
  train(net, [&](int step) {
    if (step == 4) end();
  });
}

void wait_for(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  std::printf("child %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : -1);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string way = argc > 1 ? argv[1] : "return";
  torch::manual_seed(11);
  torch::set_default_dtype(caffe2::TypeMeta::Make<double>());
  Net net;
  if (way == "return") {
    train(net);
    return 7;
  }
  if (way == "exit") train_until(net, [] { std::exit(5); });
  if (way == "quick") train_until(net, [] { _exit(6); });
  if (way == "abort") train_until(net, [] { std::abort(); });
  if (way == "kill") train_until(net, [] { raise(SIGKILL); });
  if (way == "interrupt") train_until(net, [] { raise(SIGINT); });
  if (way == "crash") train_until(net, [] { raise(SIGSEGV); });
  if (way == "throw") train_until(net, [] { throw std::runtime_error("of the program's own"); });
  if (way == "handled") {  // an exception comes through a backward pass
    train(net, [&](int step) {
      const torch::Tensor x = torch::randn({2, 6});
      try {
        net.forward(x).backward();  // not a scalar
      } catch (const std::exception&) {
        std::printf("caught %d\n", step);
      }
    });
  }
  if (way == "fork") {  // without executing anything: the child trains, and ends in good order
    train(net, [&](int step) {
      if (step != 2) return;
      std::fflush(stdout);
      const pid_t child = fork();
      if (child == 0) {
        for (int i = 0; i < 3; ++i) loss_of(net).backward();
        std::exit(3);
      }
      wait_for(child);
    });
  }
  if (way == "execute") {  // the child is this program again
    train(net);
    std::fflush(stdout);
    const pid_t child = fork();
    if (child == 0) {
      execl("/proc/self/exe", argv[0], "return", nullptr);
      _exit(1);
    }
    wait_for(child);
  }
  if (way == "saved") {
    Normed model;
    train_and_save(model);
  }
  if (way == "squatted") {  // somebody puts a file where the snapshots are to go
    train(net, [](int step) {
      if (step == 2) std::filesystem::remove_all("run/snapshots");
      if (step == 2) std::fclose(std::fopen("run/snapshots", "w"));
    });
  }
  if (way == "thread") std::thread([&] { train(net); }).join();
  if (way == "threads") {  // another thread has a network of its own
    Net other;
    std::thread beside([&] {
      for (int i = 0; i < 5; ++i) other.forward(torch::ones({4, 6})).sum().backward();
    });
    beside.join();
    train(net);
  }
  if (way == "lbfgs") {
    torch::optim::LBFGS optimizer(net.parameters(), torch::optim::LBFGSOptions(0.1).max_iter(3));
    const torch::Tensor x = torch::randn({20, 6}), y = torch::randint(0, 3, {20});
    for (int step = 0; step < 2; ++step) {
      optimizer.step([&] {
        optimizer.zero_grad();
        torch::Tensor loss = torch::nn::functional::cross_entropy(net.forward(x), y);
        loss.backward();
        return loss;
      });
    }
  }
  if (way == "raw") {  // no module: SGD by hand, through data()
    torch::Tensor a = torch::randn({6, 8}).requires_grad_(), b = torch::randn({8, 3}).requires_grad_();
    for (int step = 0; step < 6; ++step) {
      const torch::Tensor x = torch::randn({20, 6});
      torch::nn::functional::cross_entropy(x.matmul(a).tanh().matmul(b), torch::randint(0, 3, {20})).backward();
      for (torch::Tensor* w : {&a, &b}) {
        w->data().sub_(0.1 * w->grad());
        w->mutable_grad().reset();
      }
    }
  }
  if (way == "part") {  // the optimiser has one of the two layers only
    torch::optim::SGD optimizer(net.second->parameters(), 0.1);
    for (int step = 0; step < 6; ++step) {
      optimizer.zero_grad();
      loss_of(net).backward();
      optimizer.step();
    }
  }
  if (way == "accumulate") {
    torch::optim::SGD optimizer(net.parameters(), 0.1);
    for (int step = 0; step < 4; ++step) {
      optimizer.zero_grad();
      for (int part = 0; part < 3; ++part) {
        (loss_of(net) / 3).backward();
        loss_of(net);  // a pass in grad mode that nobody differentiates
      }
      optimizer.step();
    }
  }
  if (way == "inputs") {  // gradients with respect to inputs, and networks that come one after the other
    for (int run = 0; run < 3; ++run) {
      auto model = std::make_shared<Net>();
      torch::optim::Adam optimizer(model->parameters(), 1e-2);
      for (int step = 0; step < 3; ++step) {
        const torch::Tensor x = torch::randn({20, 6}).requires_grad_();
        const torch::Tensor slope =
            torch::autograd::grad({model->forward(x).sum()}, {x}, {}, /*retain_graph=*/true, /*create_graph=*/true)[0];
        optimizer.zero_grad();
        (slope - 1).pow(2).mean().backward();
        optimizer.step();
      }
    }
  }
  return 0;
}
