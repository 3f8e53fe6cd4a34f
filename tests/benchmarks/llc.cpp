// What the estimator of the learning coefficient costs: a whole estimate beside devinterp's, a step of a chain beside
// the bare forward and backward pass, chains on two cores beside one.
#include <fmt/format.h>

#include <dds/dds.hpp>

#include "src/llc/chain.hpp"
#include "src/llc/objective.hpp"
#include "src/model/replica.hpp"
#include "tests/benchmarks/peer.hpp"
#include "tests/benchmarks/timing.hpp"

namespace {

namespace F = torch::nn::functional;
using dds::benchmarks::compare;
using dds::benchmarks::Peer;
using dds::benchmarks::Ratio;
using dds::benchmarks::Results;

torch::nn::Linear unbiased(std::int64_t in, std::int64_t out) {
  return torch::nn::Linear(torch::nn::LinearOptions(in, out).bias(false));
}

/// The transformer of src/docs/the_method.md, Modular addition, at d = 64, p = 53: one layer, no norms, ReLU, read at
/// the last position.
struct ModularTransformerImpl : torch::nn::Cloneable<ModularTransformerImpl> {
  static constexpr std::int64_t kClasses = 53, kWidth = 64, kHeads = 4, kPositions = 3;

  ModularTransformerImpl() { reset(); }

  void reset() override {
    embedding = register_module("embedding", torch::nn::Embedding(kClasses + 1, kWidth));
    positions = register_parameter("positions", 0.1 * torch::randn({kPositions, kWidth}));
    query = register_module("query", unbiased(kWidth, kWidth));
    key = register_module("key", unbiased(kWidth, kWidth));
    value = register_module("value", unbiased(kWidth, kWidth));
    out = register_module("out", unbiased(kWidth, kWidth));
    up = register_module("up", torch::nn::Linear(kWidth, 4 * kWidth));
    down = register_module("down", torch::nn::Linear(4 * kWidth, kWidth));
    unembedding = register_module("unembedding", unbiased(kWidth, kClasses));
  }

  torch::Tensor forward(const torch::Tensor& tokens) {
    torch::Tensor x = embedding(tokens) + positions;
    const std::int64_t n = x.size(0), head = kWidth / kHeads;
    const auto split = [&](const torch::Tensor& y) { return y.view({n, kPositions, kHeads, head}).transpose(1, 2); };
    const torch::Tensor q = split(query(x)), k = split(key(x)), v = split(value(x));
    const torch::Tensor scores = torch::matmul(q, k.transpose(2, 3)) / std::sqrt(static_cast<double>(head));
    const torch::Tensor mixed = torch::matmul(torch::softmax(scores, 3), v).transpose(1, 2);
    x = x + out(mixed.reshape({n, kPositions, kWidth}));
    return unembedding((x + down(torch::relu(up(x)))).select(1, -1));
  }

  torch::nn::Embedding embedding{nullptr};
  torch::Tensor positions;
  torch::nn::Linear query{nullptr}, key{nullptr}, value{nullptr}, out{nullptr}, up{nullptr}, down{nullptr},
      unembedding{nullptr};
};
TORCH_MODULE(ModularTransformer);

/// A network of src/docs/the_method.md, Benchmarks, and its data, which a chain takes whole in every step.
struct Workload {
  std::string name, description;
  std::shared_ptr<torch::nn::Module> model;
  dds::Forward forward;
  dds::Data data;

  template <class Holder>
  Workload(std::string name, std::string description, const Holder& holder, torch::Tensor x, std::int64_t classes)
      : name(std::move(name)),
        description(std::move(description)),
        model(holder.ptr()),
        forward(dds::forward_of<typename Holder::ContainedType>()),
        data(std::move(x)) {
    data.targets = torch::randint(classes, {data.size()}, torch::kLong);
  }

  /// What a step cannot do without: the loss and the gradient of all weights.
  void bare() const {
    const torch::Tensor loss = F::cross_entropy(forward(*model, data.inputs), data.targets);
    torch::autograd::grad({loss}, model->parameters());
  }
};

std::vector<Workload> workloads() {
  using torch::nn::Linear, torch::nn::ReLU, torch::nn::Sequential;
  std::vector<Workload> result;
  result.emplace_back("mlp", "MLP 784-512-512-10, batch 512",
                      Sequential(Linear(784, 512), ReLU(), Linear(512, 512), ReLU(), Linear(512, 10)),
                      torch::randn({512, 784}), 10);
  result.emplace_back(
      "transformer", "1-layer transformer d = 64, batch 512", ModularTransformer(),
      torch::randint(ModularTransformerImpl::kClasses + 1, {512, ModularTransformerImpl::kPositions}, torch::kLong),
      ModularTransformerImpl::kClasses);
  return result;
}

/// Steps of a chain whose draws are kept, without calibration: the one place here that knows the sampler from inside.
class ChainSteps {
 public:
  explicit ChainSteps(const Workload& work)
      : replica_(work.model->clone(), work.forward, dds::trainable_parameters(*work.model)),
        objective_(dds::categorical(), work.data, dds::LlcKind::Plain, 0, replica_),
        chain_(objective_, /*seed=*/0, /*number=*/0) {}

  void run(std::int64_t steps) {
    const dds::Dynamics dynamics{.sampler = dds::Sampler::Sgld, .n_beta = 100, .gamma = 1, .eps = 1e-8};
    chain_.advance(replica_, dynamics, steps, {.draws = true}, [] { return false; });
  }

 private:
  dds::Replica replica_;
  dds::Objective objective_;
  dds::Chain chain_;
};

void step_over_bare(Results& results, const dds::experiments::RunOptions& options) {
  constexpr std::int64_t kSteps = 8;  // a call: what a chain does once a call must not count
  const auto repeated = [](const auto& work) {
    return [=] {
      for (std::int64_t i = 0; i < kSteps; ++i) work();
    };
  };
  std::unique_ptr<Peer> peer;
  if (Peer::wanted()) peer = std::make_unique<Peer>(options, "devinterp_2_0_1");
  for (const Workload& work : workloads()) {
    ChainSteps chain(work);
    const auto bare = repeated([&work] { work.bare(); });
    const auto steps = [&chain] { chain.run(kSteps); };
    const std::string& of = work.description;
    results.add(work.name + "_bare_over_bare", of + ": forward and backward passes against themselves",
                compare(bare, bare), std::nullopt);
    results.add(work.name + "_step_over_bare", of + ": a chain's steps against forward and backward passes",
                compare(bare, steps), 1.15);
    if (!peer) continue;
    const auto ask = [&](const char* command) { return [&, command] { peer->ask({command, work.name, kSteps}); }; };
    results.add(work.name + "_step_over_bare_devinterp_2_0_1",
                of + ": devinterp 2.0.1's steps against its forward and backward passes",
                compare(ask("bare"), ask("step")), std::nullopt);
    results.add_speedup(work.name + "_step_speedup_over_devinterp_2_0_1",
                        of + ": devinterp 2.0.1's steps against a chain's", compare(steps, ask("step")), std::nullopt);
  }
}

/// Reduced-rank regression 10-3-5 on 1000 noisy samples.
struct ReducedRank {
  torch::nn::Sequential model{unbiased(10, 3), unbiased(3, 5)};
  dds::Data data;

  ReducedRank() {
    const torch::NoGradGuard no_grad;
    const torch::Tensor x = torch::randn({1000, 10});
    data = dds::Data(x, model->forward(x) + torch::randn({1000, 5}));
  }
  dds::LlcEstimate estimate(const dds::LlcOptions& options) {
    return dds::estimate_llc({*model, dds::gaussian(), data}, options);
  }
};

void rrr_speedup(Results& results, const dds::experiments::RunOptions& options) {
  // The peer takes 5 ms a step, so it gets fewer, in the same proportion of burn-in to draws.
  constexpr std::int64_t kChains = 4, kDraws = 1000, kBurnIn = 200, kTheirDraws = 250, kTheirBurnIn = 50;
  ReducedRank task;
  const auto ours = dds::LlcOptions().localization(1).chains(kChains).draws(kDraws).burn_in(kBurnIn).threads(1);
  const dds::LlcEstimate settings = task.estimate(ours);
  Peer peer(options, "devinterp_1_3_2");
  Ratio ratio = compare(
      [&] { task.estimate(ours); },
      [&] {
        peer.ask({"estimate", 1, kTheirDraws, kTheirBurnIn, settings.step_size, settings.n_beta, settings.gamma});
      },
      20);
  const double scale = static_cast<double>(kChains * kDraws) / kTheirDraws;
  ratio.median *= scale;
  ratio.low *= scale;
  ratio.high *= scale;
  results.add_speedup("rrr_speedup_over_devinterp",
                      fmt::format("reduced-rank regression 10-3-5, batch 1000: time of a whole estimate per draw, "
                                  "devinterp 1.3.2 ({} draws) against ours ({} draws, calibration included)",
                                  kTheirDraws, kChains * kDraws),
                      ratio, 30);
}

void two_core_scaling(Results& results) {
  ReducedRank task;
  const auto on = [&task](std::int64_t threads) {
    return [&task, options = dds::LlcOptions().localization(1).chains(4).draws(5000).burn_in(500).threads(threads)] {
      task.estimate(options);
    };
  };
  results.add_speedup("two_core_scaling", "the reduced-rank estimate, four chains: on one core against on two",
                      compare(on(2), on(1)), 1.8);
}

}  // namespace

int main(int argc, char** argv) {
  const auto options =
      dds::experiments::parse_command_line(argc, argv, "llc", "What the estimator of the learning coefficient costs.");
  return dds::experiments::run_experiment([&] {
    torch::set_num_threads(1);
    torch::manual_seed(options.seed);
    Results results(options);
    step_over_bare(results, options);
    if (Peer::wanted()) rrr_speedup(results, options);
    two_core_scaling(results);
    results.write();
  });
}
