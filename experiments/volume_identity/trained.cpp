#include <set>

#include "experiments/harness/figures.hpp"
#include "experiments/harness/networks.hpp"
#include "experiments/volume_identity/path.hpp"

namespace volume_identity {

namespace ex = dds::experiments;

namespace {

constexpr std::int64_t kTrainingSamples = 10000;
constexpr std::int64_t kProbe = 2048;
constexpr std::int64_t kExactProbe = 64;
constexpr std::int64_t kBatch = 32;
constexpr double kLearningRate = 0.05;
constexpr double kDeadStart = 0.8;
constexpr double kStartJitter = 0.05;                   // of the logarithm, the same in every layer or each layer's own
constexpr double kStrongJitter = 0.15;                  // each layer's own
constexpr double kWindowLow = 5e-3, kWindowHigh = 0.1;  // of tau^L
constexpr std::size_t kCheckpoints = 60;

/// diag(1, .., 1, dead start exp(jitter)).
void start(ex::DeepLinear& model, Training training, std::int64_t dead, torch::Generator& generator) {
  const torch::NoGradGuard no_grad;
  torch::Tensor jitter = torch::randn({dead}, generator);
  const double size = training == Training::StrongJitter ? kStrongJitter : kStartJitter;
  for (torch::Tensor& weight : model->parameters()) {
    if (training == Training::Jitter || training == Training::StrongJitter) jitter = torch::randn({dead}, generator);
    torch::Tensor diagonal = torch::ones({kWidth});
    diagonal.slice(0, kWidth - dead).copy_(kDeadStart * torch::exp(size * jitter));
    weight.copy_(torch::diag(diagonal));
  }
}

/// d: root of the summed squares of the dead singular values of the whole product.
double dead_norm(ex::DeepLinear& model, std::int64_t dead) {
  const torch::NoGradGuard no_grad;
  torch::Tensor product = torch::eye(kWidth, torch::kDouble);
  for (const torch::Tensor& weight : model->parameters()) product = weight.to(torch::kDouble).matmul(product);
  return torch::linalg_svdvals(product).slice(0, kWidth - dead).norm().item<double>();
}

}  // namespace

std::string name_of(Training training) {
  switch (training) {
    case Training::Bridge:
      return "trained";
    case Training::Jitter:
      return "jitter";
    case Training::StrongJitter:
      return "strong_jitter";
    case Training::Noiseless:
      return "noiseless";
  }
  return "";
}

Path trained(Training training, std::int64_t depth, std::int64_t dead, std::uint64_t seed, std::int64_t steps,
             const std::filesystem::path& log) {
  torch::Generator generator = ex::generator_of(seed);
  const double noise = training == Training::Noiseless ? 0 : kNoise;
  torch::Tensor teacher = torch::ones({kWidth});
  teacher.slice(0, kWidth - dead).zero_();
  const torch::Tensor x = torch::randn({kTrainingSamples, kWidth}, generator);
  const torch::Tensor y = x * teacher + noise * torch::randn({kTrainingSamples, kWidth}, generator);
  ex::DeepLinear model(depth, kWidth);
  start(model, training, dead, generator);

  Path path;
  path.family = name_of(training);
  path.depth = depth;
  path.dead = dead;
  path.seed = seed;
  path.low = kWindowLow;
  path.high = kWindowHigh;
  std::set<std::int64_t> checkpoints;
  for (const double step : ex::log_spaced(10, static_cast<double>(steps), kCheckpoints))
    checkpoints.insert(std::llround(step));
  checkpoints.insert(0);

  {
    torch::optim::SGD optimizer(model->parameters(), kLearningRate);
    dds::Monitor monitor(*model, dds::MonitorOptions().every(std::nullopt), dds::log::directory(log));
    const dds::Data probe(x.slice(0, 0, kProbe), y.slice(0, 0, kProbe)), few(x.slice(0, 0, kExactProbe));
    const auto read = [&] {
      if (!checkpoints.contains(monitor.steps())) return;
      const dds::SignatureOptions spectra = dds::SignatureOptions().spectra(true);
      const double d = dead_norm(model, dead);
      monitor.log("d", d);
      path.scale.resize(static_cast<std::size_t>(monitor.steps()) + 1);
      path.scale.back() = d / std::sqrt(static_cast<double>(dead));  // tau^L
      for (auto& signatures :
           {monitor.read({*model, dds::gaussian(kNoise), probe},
                         dds::ReadOptions().fisher(dds::Fisher::Empirical).signatures(spectra)),
            monitor.read({*model, dds::gaussian(kNoise), few},
                         dds::ReadOptions().signatures(dds::SignatureOptions(spectra).sides({dds::Side::Fisher})))}) {
        path.signatures.insert(path.signatures.end(), signatures.begin(), signatures.end());
      }
    };
    read();
    while (monitor.steps() < steps) {
      const torch::Tensor order = torch::randperm(kTrainingSamples, generator, torch::kLong);
      for (std::int64_t begin = 0; begin + kBatch <= kTrainingSamples && monitor.steps() < steps; begin += kBatch) {
        const torch::Tensor batch = order.slice(0, begin, begin + kBatch);
        {
          auto step = monitor.step();
          optimizer.zero_grad();
          const torch::Tensor residual = model->forward(x.index_select(0, batch)) - y.index_select(0, batch);
          (0.5 * residual.square().sum(1).mean()).backward();
          optimizer.step();
        }
        read();
      }
    }
  }
  path.counts = dds::decay_counts(log);
  return path;
}

}  // namespace volume_identity
