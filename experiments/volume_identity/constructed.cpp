#include "experiments/harness/figures.hpp"
#include "experiments/harness/networks.hpp"
#include "experiments/volume_identity/path.hpp"

namespace volume_identity {

namespace ex = dds::experiments;

namespace {

constexpr std::int64_t kSamples = 2048;  // of the empirical Fisher and the activations
constexpr std::size_t kPoints = 9;
constexpr std::size_t kRatesPoints = 25;    // the steepest reach the floor after a third of them
constexpr std::int64_t kExactSamples = 64;  // of the true Fisher, which does not depend on them

/// Dead singular values of every layer: columns 0 .. dead - 1 at the end of the diagonal.
torch::Tensor dead_scales(Scales scales, const torch::Tensor& amplitudes, std::int64_t dead, double tau) {
  torch::Tensor s = torch::full({dead}, tau, torch::kDouble);
  if (scales == Scales::Amplitudes) s *= amplitudes;
  if (scales == Scales::Rates) s = torch::pow(s, 1 + 0.5 * torch::arange(dead, torch::kDouble));
  return s;
}

}  // namespace

Path constructed(Scales scales, std::int64_t depth, std::int64_t dead, std::uint64_t seed) {
  torch::Generator generator = ex::generator_of(seed);
  std::vector<torch::Tensor> rotations{torch::eye(kWidth, torch::kDouble)};
  for (std::int64_t l = 1; l < depth; ++l) rotations.push_back(ex::rotation(kWidth, generator));
  rotations.push_back(torch::eye(kWidth, torch::kDouble));
  const torch::Tensor amplitudes = torch::rand({dead}, generator, torch::kDouble) * 0.75 + 0.25;

  torch::Tensor teacher = torch::ones({kWidth}, torch::kDouble);
  teacher.slice(0, kWidth - dead).zero_();
  const torch::Tensor x = torch::randn({kSamples, kWidth}, generator, torch::kDouble);
  const torch::Tensor y = x * teacher + kNoise * torch::randn({kSamples, kWidth}, generator, torch::kDouble);
  const dds::Data data(x, y), few(x.slice(0, 0, kExactSamples));

  ex::DeepLinear model(depth, kWidth);
  model->to(torch::kDouble);
  Path path;
  path.family = scales == Scales::Equal ? "equal" : scales == Scales::Amplitudes ? "amplitudes" : "rates";
  path.depth = depth;
  path.dead = dead;
  path.seed = seed;
  path.scale = ex::log_spaced(0.2, 0.02, scales == Scales::Rates ? kRatesPoints : kPoints);
  const auto log = std::make_shared<dds::log::Memory>();
  dds::Monitor monitor(*model, dds::MonitorOptions().every(std::nullopt), log);
  for (const double tau : path.scale) {
    {
      const torch::NoGradGuard no_grad;
      torch::Tensor s = torch::ones({kWidth}, torch::kDouble);
      s.slice(0, kWidth - dead).copy_(dead_scales(scales, amplitudes, dead, tau));
      for (std::size_t l = 0; l < model->parameters().size(); ++l) {
        model->parameters()[l].copy_((rotations[l + 1] * s).matmul(rotations[l].t()));
      }
    }
    const dds::SignatureOptions spectra = dds::SignatureOptions().spectra(true);
    monitor.read({*model, dds::gaussian(kNoise), data},
                 dds::ReadOptions().fisher(dds::Fisher::Empirical).signatures(spectra));
    monitor.read({*model, dds::gaussian(kNoise), few},
                 dds::ReadOptions().signatures(dds::SignatureOptions(spectra).sides({dds::Side::Fisher})));
    monitor.step().finish();  // a point of the path is a step of the log
  }
  path.signatures = std::move(log->signatures);
  path.counts = monitor.decay_counts();
  return path;
}

}  // namespace volume_identity
