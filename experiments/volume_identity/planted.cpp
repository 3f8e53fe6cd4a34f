#include <fmt/format.h>

#include "experiments/harness/figures.hpp"
#include "experiments/harness/networks.hpp"
#include "experiments/volume_identity/path.hpp"

namespace volume_identity {

namespace ex = dds::experiments;

namespace {

constexpr std::int64_t kInputs = 10, kHidden = 16, kOutputs = 4;      // of the perceptron
constexpr std::int64_t kModel = 8, kHead = 6, kUp = 16, kTokens = 6;  // of the transformer
constexpr std::int64_t kPlantedSamples = 2048, kPlantedProbe = 512, kPlantedBatch = 64;
constexpr std::int64_t kPrune = 1200, kPruneEvery = 15;  // steps
constexpr double kPruneRate = 0.02, kPenalty = 0.5;
constexpr std::size_t kSweepPoints = 13;

/// The weights that the planted directions read and write: `in` by rows (biases are vectors), `out` by columns.
struct Planting {
  torch::nn::Linear in, out;
  bool duplicate;  ///< unit i of the first `dead` comes to equal unit dead + i, instead of to nothing
  std::int64_t dead;

  /// What has to vanish.
  std::vector<torch::Tensor> redundant() const {
    const auto part = [&](const torch::Tensor& weight, std::int64_t dim) {
      const torch::Tensor own = weight.narrow(dim, 0, dead);
      return duplicate ? own - weight.narrow(dim, dead, dead) : own;
    };
    return {part(in->weight, 0), part(in->bias, 0), part(out->weight, 1)};
  }
};

/// Either network behind one face.
struct Subject {
  ex::Perceptron perceptron{nullptr};
  ex::Transformer transformer{nullptr};
  dds::Forward forward;

  explicit Subject(Plant plant) {
    if (plant == Plant::HeadLowRank) {
      transformer = ex::Transformer(kModel, kHead, kUp, kOutputs);
      forward = dds::forward_of<ex::TransformerImpl>();
    } else {
      perceptron = ex::Perceptron(kInputs, kHidden, kOutputs, ex::Activation::Relu);
      forward = dds::forward_of<ex::PerceptronImpl>();
    }
    module().to(torch::kDouble);
  }
  torch::nn::Module& module() {
    return transformer ? static_cast<torch::nn::Module&>(*transformer) : static_cast<torch::nn::Module&>(*perceptron);
  }
  torch::Tensor run(const torch::Tensor& x) { return forward(module(), {x}); }
  Planting planting(Plant plant, std::int64_t dead) {
    if (plant == Plant::HeadLowRank) return {transformer->value, transformer->out, false, dead};
    return {perceptron->fc2, perceptron->fc3, plant == Plant::ReluDuplicate, dead};
  }
};

/// Puts what has to vanish at tau times `start`.
void plant_at(const Planting& planting, const std::vector<torch::Tensor>& start, double tau) {
  const torch::NoGradGuard no_grad;
  const std::vector<torch::Tensor> now = planting.redundant();
  planting.in->weight.narrow(0, 0, planting.dead) += tau * start[0] - now[0];
  planting.in->bias.narrow(0, 0, planting.dead) += tau * start[1] - now[1];
  planting.out->weight.narrow(1, 0, planting.dead) += tau * start[2] - now[2];
}

}  // namespace

std::vector<dds::SeriesId> planted_series(Plant plant) {
  const std::string layer = plant == Plant::HeadLowRank ? "value" : "fc2";
  return {activation_at(layer), fisher_at(layer, "exact")};
}

Path planted(const PlantOptions& options, std::int64_t dead, std::uint64_t seed) {
  torch::Generator generator = ex::generator_of(seed);
  Subject subject(options.plant);
  ex::initialise(subject.module(), generator);
  const Planting planting = subject.planting(options.plant, dead);
  const bool sequences = options.plant == Plant::HeadLowRank;
  const std::vector<std::int64_t> shape = sequences ? std::vector<std::int64_t>{kPlantedSamples, kTokens, kModel}
                                                    : std::vector<std::int64_t>{kPlantedSamples, kInputs};
  const torch::Tensor x = torch::randn(shape, generator, torch::kDouble);
  std::vector<torch::Tensor> start;
  for (const torch::Tensor& part : planting.redundant()) start.push_back(part.detach().clone());
  // The labels come from the very network without what is planted: to have it is redundant.
  plant_at(planting, start, 0);
  torch::Tensor y;
  {
    const torch::NoGradGuard no_grad;
    y = subject.run(x);
    y += kNoise * torch::randn(y.sizes(), generator, torch::kDouble);
  }
  plant_at(planting, start, 1);

  Path path;
  const char* names[] = {"relu_dying", "relu_duplicate", "head_low_rank"};
  path.family = fmt::format("{}.{}", names[static_cast<int>(options.plant)], options.trained ? "trained" : "swept");
  path.dead = dead;
  path.seed = seed;
  const auto log = std::make_shared<dds::log::Memory>();
  dds::Monitor monitor(
      subject.module(),
      dds::MonitorOptions()
          .every(std::nullopt)
          .signatures(dds::SignatureOptions().layers({planted_series(options.plant).front().layer}).spectra(true)),
      log);
  const auto read = [&](double scale) {
    path.scale.resize(static_cast<std::size_t>(monitor.steps()) + 1);
    path.scale.back() = scale;
    monitor.read({subject.module(), dds::gaussian(kNoise),
                  x.slice(0, 0, options.trained ? kPlantedProbe : kPlantedSamples), subject.forward});
  };

  if (options.trained) {
    const auto batch_loss = [&] {
      const torch::Tensor batch = torch::randint(kPlantedSamples, {kPlantedBatch}, generator, torch::kLong);
      return 0.5 * (subject.run(x.index_select(0, batch)) - y.index_select(0, batch)).square().sum(1).mean();
    };
    // Differences fall twice as fast as single weights: both of a pair are pulled.
    const std::int64_t steps = planting.duplicate ? kPrune / 2 : kPrune;
    torch::optim::SGD prune(subject.module().parameters(), kPruneRate);
    for (std::int64_t step = 0; step <= steps; ++step) {
      if (step % kPruneEvery == 0) {
        const torch::NoGradGuard no_grad;
        double squares = 0;
        for (const torch::Tensor& part : planting.redundant()) squares += part.square().sum().item<double>();
        read(std::sqrt(squares));
      }
      auto scope = monitor.step();
      prune.zero_grad();
      torch::Tensor loss = batch_loss();
      for (const torch::Tensor& part : planting.redundant()) loss = loss + 0.5 * kPenalty * part.square().sum();
      loss.backward();
      prune.step();
    }
  } else {
    for (const double tau : ex::log_spaced(0.1, 0.01, kSweepPoints)) {
      plant_at(planting, start, tau);
      read(tau);
      monitor.step().finish();
    }
  }
  path.signatures = std::move(log->signatures);
  path.counts = monitor.decay_counts();
  return path;
}

}  // namespace volume_identity
