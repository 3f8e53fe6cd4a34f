// What the library costs: a step that does not capture, and one that does.
#include <dds/dds.hpp>

#include "tests/benchmarks/timing.hpp"

namespace {

namespace F = torch::nn::functional;
using dds::benchmarks::compare;
using dds::benchmarks::Ratio;
using dds::benchmarks::Results;

/// A block of a transformer on (batch, sequence, 64): attention with four heads, then two layers, each beside a
/// residual stream.
struct BlockImpl : torch::nn::Module {
  static constexpr std::int64_t kWidth = 64, kHeads = 4;
  torch::nn::LayerNorm norm1{register_module("norm1", torch::nn::LayerNorm(torch::nn::LayerNormOptions({kWidth})))};
  torch::nn::LayerNorm norm2{register_module("norm2", torch::nn::LayerNorm(torch::nn::LayerNormOptions({kWidth})))};
  torch::nn::Linear qkv{register_module("qkv", torch::nn::Linear(kWidth, 3 * kWidth))};
  torch::nn::Linear out{register_module("out", torch::nn::Linear(kWidth, kWidth))};
  torch::nn::Linear up{register_module("up", torch::nn::Linear(kWidth, 4 * kWidth))};
  torch::nn::Linear down{register_module("down", torch::nn::Linear(4 * kWidth, kWidth))};

  torch::Tensor forward(const torch::Tensor& x) {
    const std::int64_t n = x.size(0), t = x.size(1), head = kWidth / kHeads;
    const auto parts = qkv(norm1(x)).view({n, t, 3, kHeads, head}).permute({2, 0, 3, 1, 4}).unbind(0);
    const torch::Tensor scores =
        torch::matmul(parts[0], parts[1].transpose(2, 3)) / std::sqrt(static_cast<double>(head));
    const torch::Tensor mixed =
        torch::matmul(torch::softmax(scores, 3), parts[2]).transpose(1, 2).reshape({n, t, kWidth});
    const torch::Tensor y = x + out(mixed);
    return y + down(torch::gelu(up(norm2(y))));
  }
};
TORCH_MODULE(Block);

/// The last position of a sequence.
struct LastImpl : torch::nn::Module {
  torch::Tensor forward(const torch::Tensor& x) { return x.select(1, -1); }
};
TORCH_MODULE(Last);

/// A network, its data and its optimiser: one training step.
struct Workload {
  std::string name;
  torch::nn::Sequential model;
  torch::Tensor x, y;
  std::shared_ptr<torch::optim::Adam> optimizer;

  Workload(std::string name, torch::nn::Sequential model, torch::Tensor x)
      : name(std::move(name)),
        model(std::move(model)),
        x(std::move(x)),
        y(torch::randint(0, 10, {this->x.size(0)}, torch::kLong)),
        optimizer(std::make_shared<torch::optim::Adam>(this->model->parameters(), 1e-4)) {}

  void step() {
    optimizer->zero_grad();
    F::cross_entropy(model->forward(x), y).backward();
    optimizer->step();
  }
};

std::vector<Workload> workloads() {
  using torch::nn::Conv2d, torch::nn::Conv2dOptions, torch::nn::Linear, torch::nn::ReLU, torch::nn::Sequential;
  std::vector<Workload> result;
  result.emplace_back("mlp", Sequential(Linear(784, 512), ReLU(), Linear(512, 512), ReLU(), Linear(512, 10)),
                      torch::randn({512, 784}));
  result.emplace_back("cnn",
                      Sequential(Conv2d(Conv2dOptions(1, 16, 3).stride(2).padding(1)), ReLU(),
                                 Conv2d(Conv2dOptions(16, 32, 3).stride(2).padding(1)), ReLU(), torch::nn::Flatten(),
                                 Linear(1568, 128), ReLU(), Linear(128, 10)),
                      torch::randn({256, 1, 28, 28}));
  result.emplace_back("transformer",
                      Sequential(torch::nn::Embedding(100, BlockImpl::kWidth), Block(), Block(), Block(), Block(),
                                 Last(), Linear(BlockImpl::kWidth, 10)),
                      torch::randint(100, {64, 32}, torch::kLong));
  result.emplace_back("small", Sequential(Linear(16, 16), ReLU(), Linear(16, 10)), torch::randn({32, 16}));
  return result;
}

void attach(Results& results) {
  for (Workload& work : workloads()) {
    const auto bare = [&] { work.step(); };
    const auto sink = std::make_shared<dds::log::Memory>();
    dds::Monitor idle(*work.model, dds::MonitorOptions().every(std::nullopt), sink);
    dds::Monitor reading(*work.model, dds::MonitorOptions().every(1), sink);
    dds::Recorder recorder(*work.model);
    results.add("bare_over_bare." + work.name, "a bare step against a bare step", compare(bare, bare), std::nullopt);
    results.add("idle_over_bare." + work.name, "a step that does not capture against a bare one",
                compare(bare,
                        [&] {
                          auto step = idle.step();
                          work.step();
                        }),
                1.01);
    results.add("capture_over_bare." + work.name, "a step whose rows are captured, not read, against a bare one",
                compare(bare,
                        [&] {
                          recorder.start();
                          work.step();
                          recorder.take();
                        }),
                std::nullopt);
    results.add("reading_step_over_bare." + work.name,
                "a step that is captured and read, all layers and both sides, against a bare one",
                compare(bare,
                        [&] {
                          auto step = reading.step();
                          work.step();
                          step.finish();
                          sink->signatures.clear();
                          sink->metrics.clear();
                        }),
                std::nullopt);
  }
}

/// What capturing costs grows with what is captured: ten equal layers, of which all, one or none are.
void some_of_ten(Results& results) {
  constexpr int kLayers = 10;
  torch::nn::Sequential model;
  for (int i = 0; i < kLayers; ++i) {
    model->push_back(torch::nn::Linear(256, 256));
    model->push_back(torch::nn::Tanh());
  }
  Workload work("ten", model, torch::randn({256, 256}));
  const auto bare = [&] { work.step(); };
  const auto capturing = [&](dds::Recorder& recorder) {
    return [&] {
      recorder.start();
      work.step();
      recorder.take();
    };
  };
  dds::Recorder all(*model, {.operators = true}), one(*model, {.layers = {"0"}, .operators = true});
  results.add("capture_over_bare.ten_of_ten", "ten equal layers, all captured, against a bare step",
              compare(bare, capturing(all)), std::nullopt);
  results.add("capture_over_bare.one_of_ten", "ten equal layers, one captured, against a bare step",
              compare(bare, capturing(one)), std::nullopt);
  results.add("capture_ten_over_one", "ten equal layers: a step that captures all against one that captures one",
              compare(capturing(one), capturing(all)), std::nullopt);
}

}  // namespace

int main(int argc, char** argv) {
  const auto options =
      dds::experiments::parse_command_line(argc, argv, "attach", "What attaching the library costs, on one thread.");
  return dds::experiments::run_experiment([&] {
    torch::set_num_threads(1);
    torch::manual_seed(options.seed);
    Results results(options);
    attach(results);
    some_of_ten(results);
    results.write();
  });
}
