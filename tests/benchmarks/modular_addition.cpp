// The training loop of the experiment modular_addition: against the same one in Python, and with signatures of all
// sites every 50 steps.
#include <fmt/format.h>

#include <dds/dds.hpp>

#include "experiments/modular_addition/network.hpp"
#include "tests/benchmarks/peer.hpp"
#include "tests/benchmarks/timing.hpp"

namespace {

namespace F = torch::nn::functional;
using dds::benchmarks::compare;
using dds::benchmarks::Peer;
using dds::benchmarks::Results;

constexpr std::int64_t kModulus = 43, kEvery = 50;
constexpr double kShare = 0.6;

/// One training of arm A.
class Training {
 public:
  explicit Training(std::int64_t width) : model_(kModulus, width) {
    const torch::Tensor residues = torch::arange(kModulus, torch::kLong);
    const torch::Tensor a = residues.repeat_interleave(kModulus), b = residues.repeat({kModulus});
    const auto trained = std::llround(kShare * static_cast<double>(kModulus * kModulus));
    const torch::Tensor chosen = torch::randperm(kModulus * kModulus, torch::kLong).slice(0, 0, trained);
    tokens_ = torch::stack({a, b, torch::full_like(a, kModulus)}, 1).index_select(0, chosen);
    sums_ = (a + b).remainder(kModulus).index_select(0, chosen);
    optimizer_ = std::make_unique<torch::optim::AdamW>(
        model_->parameters(), torch::optim::AdamWOptions(1e-3).weight_decay(1.0).betas(std::make_tuple(0.9, 0.98)));
  }

  void step() {
    optimizer_->zero_grad();
    const torch::Tensor loss = F::cross_entropy(model_->forward(tokens_), sums_);
    loss.backward();
    optimizer_->step();
    loss_ = loss.item<double>();
  }
  modular_addition::Transformer& model() { return model_; }

 private:
  modular_addition::Transformer model_;
  torch::Tensor tokens_, sums_;
  std::unique_ptr<torch::optim::AdamW> optimizer_;
  double loss_ = 0;
};

void attached(std::int64_t width, Results& results) {
  Training bare(width), other(width), watched(width);
  dds::Monitor monitor(*watched.model(), dds::MonitorOptions().every(kEvery).worker(dds::Worker::Wait),
                       std::make_shared<dds::log::Memory>());
  const auto stretch = [](Training& training) {
    return [&training] {
      for (std::int64_t i = 0; i < kEvery; ++i) training.step();
    };
  };
  results.add(fmt::format("bare_over_bare.d{}", width),
              fmt::format("d = {}: {} steps of a bare training against another's", width, kEvery),
              compare(stretch(bare), stretch(other)), std::nullopt);
  results.add(
      fmt::format("signatures_every_50_steps.d{}", width),
      fmt::format("d = {}: {} steps with signatures of all sites, once, on the worker, over bare ones", width, kEvery),
      compare(stretch(bare),
              [&] {
                for (std::int64_t i = 0; i < kEvery; ++i) {
                  auto step = monitor.step();
                  watched.step();
                }
              }),
      1.05);
}

}  // namespace

int main(int argc, char** argv) {
  const auto options = dds::experiments::parse_command_line(
      argc, argv, "modular_addition", "The training loop of the modular-addition transformer, on one thread.");
  return dds::experiments::run_experiment([&] {
    torch::set_num_threads(1);
    torch::manual_seed(0);
    Results results(options);
    for (const std::int64_t width : {32, 128}) {
      attached(width, results);
      if (!Peer::wanted()) continue;
      Training ours(width);
      Peer peer(options, "pytorch");
      results.add(fmt::format("step_over_python.d{}", width),
                  fmt::format("d = {}: a training step over the same one in Python", width),
                  compare(
                      [&] {
                        peer.ask({"step", kModulus, kShare, width});
                      },
                      [&] { ours.step(); }),
                  1.10);
    }
    results.write();
  });
}
