// Do activation and Fisher spectra fall together on the way to a singular minimum? Rank correlation of lambda_min+(G_l)
// with sigma_min(X_l)^2 along the approach, in deep linear, ReLU, tanh and attention networks; and the controls that
// say why: decay planted on one side only, reading in fp32, ranks that jump at the floor, networks that approach
// nothing.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <dds/dds.hpp>
#include <functional>
#include <numeric>
#include <optional>

#include "experiments/harness/figures.hpp"
#include "experiments/harness/harness.hpp"
#include "experiments/harness/networks.hpp"
#include "experiments/harness/parallel.hpp"

namespace {

namespace ex = dds::experiments;

constexpr std::int64_t kWidth = 20, kDepth = 4;  // of the deep linear networks
constexpr std::int64_t kHidden = 16, kHead = 6;  // of the others
constexpr std::int64_t kSamples = 512;
constexpr std::int64_t kDead = 2;
constexpr std::size_t kPoints = 25;
constexpr double kNoise = 0.1;

/// Where the decay is planted: what writes a layer's dead directions, what reads them, or both, as at a singular
/// minimum.
enum class Where { Both, Upstream, Downstream, Nowhere };

/// How a path is read.
struct Reading {
  bool fp64 = true;
  double first = 0.5, last = 1e-2;  ///< of tau
  bool shuffled = false;            ///< points in random order of tau: training time says nothing
};

struct Family {
  std::string name;
  std::string layer;  ///< whose X and G are compared
};

/// lambda_min+(G) and sigma_min(X)^2 of one layer along one path, as logarithms to base 10.
struct Track {
  std::string family, layer;
  std::uint64_t seed = 0;
  std::vector<double> tau, fisher, activation;
  std::vector<std::int64_t> fisher_rank, activation_rank;
};

double log_lambda_min_plus(const dds::Signature& s) { return s.log10_lambda_min_plus.value_or(-300); }
double log_sigma_min_squared(const dds::Signature& s) {
  return s.sigma_min && *s.sigma_min > 0 ? 2 * std::log10(*s.sigma_min) : -300;
}

/// Reads a path: `place(tau)` puts the weights there.
std::vector<Track> follow(const std::string& family, std::uint64_t seed, torch::nn::Module& model,
                          const dds::Forward& forward, const torch::Tensor& x, const std::vector<std::string>& layers,
                          const Reading& reading, const std::function<void(double)>& place) {
  std::vector<double> taus = ex::log_spaced(reading.first, reading.last, kPoints);
  if (reading.shuffled) {
    torch::Generator generator = ex::generator_of(seed + 1);
    const torch::Tensor order = torch::randperm(static_cast<std::int64_t>(kPoints), generator, torch::kLong);
    std::vector<double> shuffled;
    for (std::size_t i = 0; i < kPoints; ++i)
      shuffled.push_back(taus[static_cast<std::size_t>(order[static_cast<std::int64_t>(i)].item<std::int64_t>())]);
    taus = shuffled;
  }
  std::vector<Track> tracks;
  for (const std::string& layer : layers) tracks.push_back({family, layer, seed, taus, {}, {}, {}, {}});
  for (const double tau : taus) {
    place(tau);
    const auto signatures =
        dds::read({model, dds::gaussian(kNoise), dds::Data(x), forward},
                  dds::ReadOptions().fp64(reading.fp64).signatures(dds::SignatureOptions().layers(layers)));
    for (const dds::Signature& s : signatures) {
      Track& track = *std::find_if(tracks.begin(), tracks.end(), [&](const Track& t) { return t.layer == s.layer; });
      if (s.side == dds::Side::Fisher) {
        track.fisher.push_back(log_lambda_min_plus(s));
        track.fisher_rank.push_back(s.rank.value_or(0));
      } else {
        track.activation.push_back(log_sigma_min_squared(s));
        track.activation_rank.push_back(s.rank.value_or(0));
      }
    }
  }
  return tracks;
}

/// Deep linear, W_l = R_l S_l R_(l-1)^T: both sides of every inner layer die with tau. Upstream: only S_1 does, so that
/// all X die and no G; downstream: only S_L, all G and no X of an inner layer.
std::vector<Track> deep_linear(const std::string& family, std::uint64_t seed, Where where, const Reading& reading) {
  torch::Generator generator = ex::generator_of(seed);
  ex::DeepLinear model(kDepth, kWidth);
  if (reading.fp64) model->to(torch::kDouble);
  std::vector<torch::Tensor> rotations{torch::eye(kWidth, torch::kDouble)};
  for (std::int64_t l = 1; l < kDepth; ++l) rotations.push_back(ex::rotation(kWidth, generator));
  rotations.push_back(torch::eye(kWidth, torch::kDouble));
  const torch::Tensor x = torch::randn({kSamples, kWidth}, generator, model->parameters()[0].options());
  std::vector<std::string> layers;
  for (std::int64_t l = 1; l < kDepth; ++l) layers.push_back(ex::layer_name(l));
  return follow(family, seed, *model, dds::forward_of<ex::DeepLinearImpl>(), x, layers, reading, [&](double tau) {
    const torch::NoGradGuard no_grad;
    for (std::int64_t l = 0; l < kDepth; ++l) {
      const bool dies = where == Where::Both || (where == Where::Upstream && l == 0) ||
                        (where == Where::Downstream && l == kDepth - 1);
      torch::Tensor s = torch::ones({kWidth}, torch::kDouble);
      if (dies) s.slice(0, kWidth - kDead).fill_(tau);
      // Where nothing is to die, tau only draws other healthy networks.
      if (where == Where::Nowhere) s = torch::rand({kWidth}, generator, torch::kDouble) + 0.5;
      const auto i = static_cast<std::size_t>(l);
      model->parameters()[i].copy_((rotations[i + 1] * s).matmul(rotations[i].t()));
    }
  });
}

/// A perceptron or a transformer, with weights into and out of kDead units of one layer scaled by tau.
std::vector<Track> planted(const std::string& family, std::uint64_t seed, Where where, const Reading& reading) {
  torch::Generator generator = ex::generator_of(seed);
  const bool attention = family.find("attention") == 0, tanh = family.find("tanh") == 0;
  const auto run = [&](torch::nn::Module& model, const dds::Forward& forward, torch::nn::Linear in,
                       torch::nn::Linear out, const std::string& layer, std::vector<std::int64_t> shape) {
    if (reading.fp64) model.to(torch::kDouble);
    ex::initialise(model, generator);
    const torch::Tensor x = torch::randn(shape, generator, model.parameters()[0].options());
    const torch::Tensor w = in->weight.detach().clone(), b = in->bias.detach().clone(),
                        o = out->weight.detach().clone();
    return follow(family, seed, model, forward, x, {layer}, reading, [&, w, b, o, in, out](double tau) mutable {
      const torch::NoGradGuard no_grad;
      if (where == Where::Nowhere) return ex::initialise(model, generator);
      if (where != Where::Downstream) {
        in->weight.narrow(0, 0, kDead).copy_(tau * w.narrow(0, 0, kDead));
        in->bias.narrow(0, 0, kDead).copy_(tau * b.narrow(0, 0, kDead));
      }
      if (where != Where::Upstream) out->weight.narrow(1, 0, kDead).copy_(tau * o.narrow(1, 0, kDead));
    });
  };
  if (attention) {
    ex::Transformer model(8, kHead, kHidden, 4);
    return run(*model, dds::forward_of<ex::TransformerImpl>(), model->value, model->out, "value", {kSamples, 6, 8});
  }
  ex::Perceptron model(10, kHidden, 4, tanh ? ex::Activation::Tanh : ex::Activation::Relu);
  return run(*model, dds::forward_of<ex::PerceptronImpl>(), model->fc2, model->fc3, "fc2", {kSamples, 10});
}

/// Deep linear networks that are trained: readings while plain mini-batch SGD drives the dead directions down.
std::vector<Track> trained(std::uint64_t seed) {
  constexpr std::int64_t kSteps = 3000, kEvery = 120, kBatch = 32;
  torch::Generator generator = ex::generator_of(seed);
  ex::DeepLinear model(kDepth, kWidth);
  torch::Tensor teacher = torch::ones({kWidth});
  teacher.slice(0, kWidth - kDead).zero_();
  {
    const torch::NoGradGuard no_grad;
    const torch::Tensor shared = torch::exp(0.05 * torch::randn({kDead}, generator));
    for (torch::Tensor& weight : model->parameters()) {
      torch::Tensor diagonal = torch::ones({kWidth});
      diagonal.slice(0, kWidth - kDead).copy_(0.8 * shared);
      weight.copy_(torch::diag(diagonal));
    }
  }
  const torch::Tensor x = torch::randn({10000, kWidth}, generator);
  const torch::Tensor y = x * teacher + kNoise * torch::randn({10000, kWidth}, generator);
  std::vector<std::string> layers;
  for (std::int64_t l = 1; l < kDepth; ++l) layers.push_back(ex::layer_name(l));
  torch::optim::SGD optimizer(model->parameters(), 0.05);
  Reading reading;
  reading.first = 1;  // "tau" is the number of the reading: time
  reading.last = static_cast<double>(kPoints);
  return follow("deep_linear.trained", seed, *model, dds::forward_of<ex::DeepLinearImpl>(), x.slice(0, 0, kSamples),
                layers, reading, [&](double) {
                  for (std::int64_t step = 0; step < kEvery && step < kSteps; ++step) {
                    const torch::Tensor batch = torch::randint(10000, {kBatch}, generator, torch::kLong);
                    optimizer.zero_grad();
                    (0.5 * (model->forward(x.index_select(0, batch)) - y.index_select(0, batch)).square().sum(1).mean())
                        .backward();
                    optimizer.step();
                  }
                });
}

/// One row of the result: a family, how it was made, what is expected of it.
struct Case {
  std::string name;
  std::string expectation;
  std::optional<double> expected;  ///< rank correlation, where one is claimed
  std::function<std::vector<Track>(std::uint64_t seed)> run;
};

std::vector<Case> cases() {
  const Reading fp64;
  Reading fp32{false, 0.5, 1e-5, false}, deep{true, 0.5, 1e-9, false}, shuffled{true, 0.5, 1e-2, true};
  std::vector<Case> list{
      {"deep_linear", "both fall as powers of tau", 1.0,
       [=](auto s) { return deep_linear("deep_linear", s, Where::Both, fp64); }},
      {"deep_linear.trained", "both fall as the training proceeds", 1.0, [=](auto s) { return trained(s); }},
      {"deep_linear.shuffled", "not an effect of time: the same points in random order", 1.0,
       [=](auto s) { return deep_linear("deep_linear.shuffled", s, Where::Both, shuffled); }},
      {"deep_linear.upstream", "control: only X dies, lambda_min+(G) stays", std::nullopt,
       [=](auto s) { return deep_linear("deep_linear.upstream", s, Where::Upstream, fp64); }},
      {"deep_linear.downstream", "control: only G dies, sigma_min(X) stays", std::nullopt,
       [=](auto s) { return deep_linear("deep_linear.downstream", s, Where::Downstream, fp64); }},
      {"deep_linear.nowhere", "control: random healthy networks, no singular minimum", std::nullopt,
       [=](auto s) { return deep_linear("deep_linear.nowhere", s, Where::Nowhere, fp64); }},
      {"deep_linear.fp32", "control: read in fp32 far below its floor", std::nullopt,
       [=](auto s) { return deep_linear("deep_linear.fp32", s, Where::Both, fp32); }},
      {"deep_linear.below_floor", "control: fp64, tau down to 1e-9: the rank drops and lambda_min+ jumps", std::nullopt,
       [=](auto s) { return deep_linear("deep_linear.below_floor", s, Where::Both, deep); }},
  };
  for (const char* family : {"relu", "tanh", "attention"}) {
    const std::string name = family;
    list.push_back({name, "units or head dimensions scaled on both sides", std::nullopt,
                    [=](auto s) { return planted(name, s, Where::Both, fp64); }});
    list.push_back({name + ".upstream", "control: only what writes them is scaled", std::nullopt,
                    [=](auto s) { return planted(name + ".upstream", s, Where::Upstream, fp64); }});
    list.push_back({name + ".downstream", "control: only what reads them is scaled", std::nullopt,
                    [=](auto s) { return planted(name + ".downstream", s, Where::Downstream, fp64); }});
    list.push_back({name + ".nowhere", "control: random networks", std::nullopt,
                    [=](auto s) { return planted(name + ".nowhere", s, Where::Nowhere, fp64); }});
  }
  return list;
}

/// A series that moves by less than rounding has no order: all of it is one tie.
std::vector<double> without_rounding(std::vector<double> values) {
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  if (*high - *low < 1e-9) std::fill(values.begin(), values.end(), 0.0);
  return values;
}

/// What the layers and seeds of one case say.
struct Correlations {
  std::int64_t paths = 0;
  std::vector<double> raw, detrended;  ///< of those that have one
};

Correlations correlations_of(const std::vector<std::vector<Track>>& seeds) {
  Correlations found;
  for (const std::vector<Track>& tracks : seeds) {
    for (const Track& track : tracks) {
      ++found.paths;
      std::vector<double> time(track.tau.size());
      std::iota(time.begin(), time.end(), 0.0);
      const auto fisher = without_rounding(track.fisher), activation = without_rounding(track.activation);
      if (const auto rho = dds::spearman(fisher, activation).rho) found.raw.push_back(*rho);
      if (const auto rho = dds::partial_spearman(fisher, activation, time).rho) found.detrended.push_back(*rho);
    }
  }
  return found;
}

void add_points(ex::Table& table, const Case& of, const std::vector<std::vector<Track>>& seeds) {
  for (std::size_t s = 0; s < seeds.size(); ++s) {
    for (const Track& track : seeds[s]) {
      for (std::size_t i = 0; i < track.tau.size(); ++i) {
        table.rows.push_back({of.name, track.layer, s, i, track.tau[i], track.fisher[i], track.activation[i],
                              track.fisher_rank[i], track.activation_rank[i]});
      }
    }
  }
}

ex::Claim claim_on(const Case& of, const Correlations& found) {
  const std::string detrended =
      found.detrended.empty()
          ? std::string("with the order of readings held fixed none is left")
          : fmt::format("with the order of readings held fixed {:.2f}", ex::average(found.detrended));
  ex::Claim claim = ex::claim_of(
      of.name + ".structural_correlation",
      fmt::format("Spearman correlation of lambda_min+(G_l) with sigma_min(X_l)^2 over {} readings: {}; mean over {} "
                  "layers and seeds, from the lowest to the highest; defined in {}; {}",
                  kPoints, of.expectation, found.paths, found.raw.size(), detrended),
      ex::range_of(found.raw));
  claim.predicted = of.expected;
  if (of.expected) claim.goal_low = 0.995;
  return claim;
}

void run(const ex::RunOptions& options) {
  at::set_num_threads(1);
  const std::uint64_t seeds = options.full() ? 20 : 5;
  const std::vector<Case> list = cases();
  ex::Summary summary(options);
  ex::Progress progress({{"paths", 1}});
  const std::size_t jobs = list.size() * seeds;
  const auto tracks = ex::in_parallel(
      jobs, [&](std::size_t i) { return list[i / seeds].run(1000 * options.seed + i % seeds); },
      [&](std::size_t done) { progress.update("paths", static_cast<double>(done) / static_cast<double>(jobs)); });

  ex::Table points{{"case", "layer", "seed", "reading", "tau", "log10_lambda_min_plus_G", "log10_sigma_min_X_squared",
                    "rank_G", "rank_X"},
                   {}};
  ex::Table table{{"case", "expectation", "paths", "defined", "mean rho", "lowest", "highest", "mean detrended rho",
                   "detrended defined"},
                  {}};
  ex::Figure figure{
      "λ_min⁺(G) against σ_min(X)², one layer, one seed",
      "Every dot is a reading. Along an approach to a singular minimum the dots lie on a rising line; where "
      "the decay is planted on one side only they lie on a vertical or a horizontal one.",
      "log<sub>10</sub> σ<sub>min</sub>(X)²",
      "log<sub>10</sub> λ<sub>min</sub>⁺(G)",
      false,
      false,
      {}};
  for (std::size_t c = 0; c < list.size(); ++c) {
    const auto first = tracks.begin() + static_cast<std::ptrdiff_t>(c * seeds);
    const std::vector<std::vector<Track>> of_case(first, first + static_cast<std::ptrdiff_t>(seeds));
    const Correlations found = correlations_of(of_case);
    ex::Claim claim = claim_on(list[c], found);
    add_points(points, list[c], of_case);
    table.rows.push_back({list[c].name, list[c].expectation, found.paths, found.raw.size(), ex::number(claim.measured),
                          ex::number(claim.low), ex::number(claim.high),
                          found.detrended.empty() ? nlohmann::json() : nlohmann::json(ex::average(found.detrended)),
                          found.detrended.size()});
    summary.add(std::move(claim));
    const Track& shown = of_case.front().front();
    figure.panels.push_back(
        {list[c].name, {{"", shown.activation, shown.fisher, static_cast<int>(c / 4), false, true, false}}});
  }
  write_csv(options.out / "points.csv", points);
  write_csv(options.out / "correlations.csv", table);
  ex::Page page("Structural correlation");
  page.add(figure);
  page.add("Correlations", "Means over layers and seeds. A series that does not move at all has no correlation.",
           table);
  page.write(options.out / "figures.html");
  summary.write();
  progress.say(fmt::format("\n{}", (options.out / "figures.html").string()));
}

}  // namespace

int main(int argc, char** argv) {
  const ex::RunOptions options =
      ex::parse_command_line(argc, argv, "structural_correlation",
                             "Whether activation and Fisher spectra fall together at a singular minimum.");
  return ex::run_experiment([&] { run(options); });
}
