// What the library costs: a step that does not capture, and one that does.
#include <dds/dds.hpp>

#include "tests/benchmarks/timing.hpp"

namespace {

namespace F = torch::nn::functional;
using dds::benchmarks::compare;
using dds::benchmarks::Ratio;
using dds::benchmarks::Results;

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
  result.emplace_back("small", Sequential(Linear(16, 16), ReLU(), Linear(16, 10)), torch::randn({32, 16}));
  return result;
}

void attach(Results& results) {
  for (Workload& work : workloads()) {
    const auto bare = [&] { work.step(); };
    const auto sink = std::make_shared<dds::log::Memory>();
    dds::Monitor idle(*work.model, dds::MonitorOptions().every(0), sink);
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

}  // namespace

int main(int argc, char** argv) {
  const auto options =
      dds::experiments::parse_command_line(argc, argv, "attach", "What attaching the library costs, on one thread.");
  return dds::experiments::run_experiment([&] {
    torch::set_num_threads(1);
    torch::manual_seed(options.seed);
    Results results(options);
    attach(results);
    results.write();
  });
}
