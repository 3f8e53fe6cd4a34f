// What the library costs: a step that does not capture, one that does, and a reading against the bare torch::linalg
// calls.
#include <fmt/format.h>

#include <algorithm>
#include <dds/dds.hpp>
#include <fstream>

#include "experiments/harness/harness.hpp"
#include "tests/benchmarks/timing.hpp"

namespace {

namespace F = torch::nn::functional;
using dds::benchmarks::compare;
using dds::benchmarks::Ratio;
using dds::experiments::Claim;

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

Claim claim_of(const std::string& id, const std::string& statement, const Ratio& ratio, std::optional<double> goal) {
  constexpr double kWidest = 0.04;  // of an interval that can decide (DESIGN.md section 11)
  const bool decides = ratio.high - ratio.low <= kWidest;
  Claim claim;
  claim.id = id;
  claim.statement =
      fmt::format("{}: {:.3g} ms against {:.3g} ms{}", statement, 1e3 * ratio.seconds_b, 1e3 * ratio.seconds_a,
                  goal && !decides ? fmt::format(" (interval wider than {}: undecided)", kWidest) : "");
  claim.measured = ratio.median;
  claim.low = ratio.low;
  claim.high = ratio.high;
  if (goal && decides) claim.goal_high = goal;
  return claim;
}

class Table {
 public:
  explicit Table(const std::filesystem::path& path) : file_(path) {
    file_ << "id,median,low,high,seconds_bare,seconds_with\n";
  }
  void add(const std::string& id, const Ratio& r) {
    file_ << fmt::format("{},{},{},{},{},{}\n", id, r.median, r.low, r.high, r.seconds_a, r.seconds_b) << std::flush;
  }

 private:
  std::ofstream file_;
};

void attach(dds::experiments::Summary& summary, Table& table) {
  const auto add = [&](const std::string& id, const std::string& statement, const Ratio& ratio,
                       std::optional<double> goal) {
    summary.add(claim_of(id, statement, ratio, goal));
    table.add(id, ratio);
  };
  for (Workload& work : workloads()) {
    const auto bare = [&] { work.step(); };
    const auto sink = std::make_shared<dds::log::Memory>();
    dds::Monitor idle(*work.model, dds::MonitorOptions().every(0), sink);
    dds::Monitor reading(*work.model, dds::MonitorOptions().every(1), sink);
    dds::Recorder recorder(*work.model);
    add("bare_over_bare." + work.name, "a bare step against a bare step", compare(bare, bare), std::nullopt);
    add("idle_over_bare." + work.name, "a step that does not capture against a bare one",
        compare(bare,
                [&] {
                  auto step = idle.step();
                  work.step();
                }),
        1.01);
    add("capture_over_bare." + work.name, "a step whose rows are captured, not read, against a bare one",
        compare(bare,
                [&] {
                  recorder.start();
                  work.step();
                  recorder.take();
                }),
        std::nullopt);
    add("reading_step_over_bare." + work.name,
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

void reading_over_linalg(dds::experiments::Summary& summary, Table& table) {
  for (const std::int64_t width : {16, 32, 64, 128, 256}) {
    const torch::Tensor rows = torch::randn({4096, width}, torch::kDouble);
    const Ratio ratio = compare([&] { torch::linalg_svdvals(std::get<1>(torch::linalg_qr(rows, "r"))); },
                                [&] {
                                  dds::TriangularAccumulator accumulator(width);
                                  accumulator.update(rows);
                                  dds::Signature signature;
                                  signature.structural_bound = width;
                                  dds::read_numbers(dds::read_spectrum(accumulator), torch::kDouble, signature);
                                });
    Claim claim = claim_of(
        fmt::format("reading_over_linalg.{}", width),
        fmt::format("a reading of 4096 x {} in fp64 against linalg_qr and linalg_svdvals of the same matrix", width),
        ratio, std::nullopt);
    // Below d = 64 a difference of 30 us is allowed instead.
    claim.goal_high = width >= 64 ? 1.15 : std::max(1.15, 1 + 30e-6 / ratio.seconds_a);
    summary.add(claim);
    table.add(claim.id, ratio);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const auto options =
      dds::experiments::parse_command_line(argc, argv, "attach", "What attaching the library costs, on one thread.");
  return dds::experiments::run_experiment([&] {
    torch::set_num_threads(1);
    torch::manual_seed(options.seed);
    dds::experiments::Summary summary(options);
    Table table(options.out / "attach.csv");
    attach(summary, table);
    reading_over_linalg(summary, table);
    summary.write();
  });
}
