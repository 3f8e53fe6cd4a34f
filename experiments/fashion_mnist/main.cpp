// The main job: a convolutional network trains on Fashion-MNIST in a plain loop with the library attached. Signatures
// of every layer as it goes; at checkpoints a read in fp64 with the true Fisher; at some of them the LLC over all
// training images, plain where the checkpoint settles and, in the preset full, tilted as it is; then the report.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <dds/dds.hpp>
#include <fstream>
#include <map>
#include <set>

#include "experiments/fashion_mnist/data.hpp"
#include "experiments/fashion_mnist/network.hpp"
#include "experiments/harness/harness.hpp"
#include "src/base/stopwatch.hpp"

namespace {

namespace F = torch::nn::functional;
using dds::experiments::Claim;
using dds::experiments::claim_of;
using dds::experiments::Progress;
using dds::experiments::RunOptions;
using dds::experiments::Summary;
using fashion_mnist::Network;
using fashion_mnist::Split;

constexpr std::int64_t kBatch = 128;
constexpr std::int64_t kSignatureEvery = 50;
constexpr double kLearningRate = 3e-3;
constexpr std::int64_t kCompared = 200;  // steps after which weights with and without the library are compared

/// What the presets differ in.
struct Plan {
  std::int64_t epochs;
  std::int64_t probe;                     ///< training images that a checkpoint read is taken over
  std::vector<std::int64_t> checkpoints;  ///< training steps; the end is added
  std::set<std::int64_t> estimated;       ///< those with an LLC; the end is added
  std::vector<dds::LlcKind> kinds;        ///< of LLC at each of these
  std::int64_t chains;
  std::int64_t burn_in;
  std::int64_t draws;  ///< of the plain estimate; the tilted one gets half
  std::int64_t adam;   ///< steps on the way from a checkpoint to a minimum
  double llc_seconds;  ///< limit for one estimate
};

Plan plan_of(const RunOptions& options) {
  if (options.full()) {
    const std::vector<std::int64_t> steps{0, 10, 30, 100, 200, 400, 700, 1200, 2000, 3500};
    return {.epochs = 12,
            .probe = 2048,
            .checkpoints = steps,
            .estimated = {steps.begin(), steps.end()},
            .kinds = {dds::LlcKind::Plain, dds::LlcKind::Tilted},
            .chains = 4,
            .burn_in = 500,
            .draws = 3000,
            .adam = 2808,
            .llc_seconds = 900};
  }
  return {.epochs = 6,
          .probe = 512,
          .checkpoints = {0, 10, 30, 100, 200, 400, 800, 1500},
          .estimated = {400, 800, 1500},
          .kinds = {dds::LlcKind::Plain},
          .chains = 2,
          .burn_in = 250,
          .draws = 1300,
          .adam = 936,
          .llc_seconds = 400};
}

/// Shuffled mini-batches of one epoch, whole ones only.
std::vector<torch::Tensor> batches(std::int64_t samples, torch::Generator& generator) {
  const torch::Tensor order = torch::randperm(samples, generator, torch::kLong);
  std::vector<torch::Tensor> result;
  for (std::int64_t begin = 0; begin + kBatch <= samples; begin += kBatch)
    result.push_back(order.slice(0, begin, begin + kBatch));
  return result;
}

/// Images that are classified rightly.
std::int64_t count_right(Network& network, const Split& test) {
  const torch::NoGradGuard no_grad;
  network->eval();
  const auto right = network->forward(test.images).argmax(1).eq(test.labels).sum().item<std::int64_t>();
  network->train();
  return right;
}

// ---- training with the library and without ----

/// The weights after the first kCompared steps of the training below; with `monitor`, attached to it.
torch::Tensor short_training(const Split& train, std::uint64_t seed, bool attached) {
  torch::manual_seed(seed);
  Network network;
  torch::optim::Adam optimizer(network->parameters(), kLearningRate);
  torch::Generator generator = at::detail::createCPUGenerator(seed);
  std::optional<dds::Monitor> monitor;
  if (attached) monitor.emplace(*network, dds::MonitorOptions().every(20), std::make_shared<dds::log::Memory>());
  std::int64_t done = 0;
  while (true) {
    for (const torch::Tensor& batch : batches(train.images.size(0), generator)) {
      if (done++ == kCompared) return torch::nn::utils::parameters_to_vector(network->parameters()).detach();
      std::optional<dds::Monitor::Step> step;
      if (monitor) step.emplace(monitor->step());
      optimizer.zero_grad();
      F::cross_entropy(network->forward(train.images.index_select(0, batch)), train.labels.index_select(0, batch))
          .backward();
      optimizer.step();
    }
  }
}

/// Whether attaching changes a single bit. `attached`: the weights of the main job itself after kCompared steps, on one
/// thread, with its signatures, checkpoint reads and estimates; on two threads a training with a monitor stands for it.
/// Bare training is compared with itself first.
Claim attached_is_bit_identical(const Split& train, std::uint64_t seed, const torch::Tensor& attached) {
  const torch::Tensor bare = short_training(train, seed, false);
  bool reproducible = torch::equal(bare, short_training(train, seed, false));
  bool identical = torch::equal(bare, attached);
  torch::set_num_threads(2);
  const torch::Tensor bare_on_two = short_training(train, seed, false);
  reproducible = reproducible && torch::equal(bare_on_two, short_training(train, seed, false));
  identical = identical && torch::equal(bare_on_two, short_training(train, seed, true));
  torch::set_num_threads(1);
  const std::string statement = fmt::format(
      "weights after {} steps with the library attached (the main job's own, with its reads and estimates) equal those "
      "without, bit for bit, on one thread; with a monitor, on two (bare against bare agrees: {})",
      kCompared, reproducible ? "yes" : "no, so that nothing can be said");
  return within(claim_of("attached_is_bit_identical", statement,
                         reproducible ? std::optional(dds::experiments::exactly(identical)) : std::nullopt),
                1, 0);
}

// ---- checkpoints ----

/// What one checkpoint gave, for the comparison at the end.
struct Checkpoint {
  std::int64_t step = 0;
  double read_seconds = 0;
  bool has_estimates = false;
  std::vector<dds::Signature> signatures;
  std::map<dds::LlcKind, dds::LlcEstimate> estimates;
};

/// On all training images. Mini-batches with control variates carry so little noise that the step is the sampler's own.
/// gamma: the resolution gamma/(n beta) is 0.92, so that every direction of a curvature above counts at least half. And
/// |w - w*| stays within sqrt(26,698 / gamma) = 2.3, where w is 10 to 17 long.
dds::LlcOptions llc_options(const Plan& plan, dds::LlcKind kind, std::uint64_t seed) {
  auto options = dds::LlcOptions()
                     .kind(kind)
                     .batch_size(512)
                     .chains(plan.chains)
                     .burn_in(plan.burn_in)
                     .draws(kind == dds::LlcKind::Plain ? plan.draws : plan.draws / 2)
                     .gamma(5000)
                     .relative_step(0.5)
                     .halve_step(false)
                     .max_seconds(plan.llc_seconds)
                     .seed(seed);
  if (kind == dds::LlcKind::Plain) {
    options.settle(dds::SettleOptions().adam_steps(plan.adam).learning_rate(1e-3).lbfgs_steps(0).target_descent(1));
  }
  return options;
}

Checkpoint read_checkpoint(dds::Monitor& monitor, Network& network, const dds::Data& probe, const dds::Data& all,
                           const Plan& plan, std::uint64_t seed, const std::function<void(double)>& progress) {
  Checkpoint checkpoint;
  checkpoint.step = monitor.steps();
  const dds::Stopwatch watch;
  checkpoint.signatures = monitor.read(dds::Problem(*network, dds::categorical(), probe),
                                       dds::ReadOptions().signatures(dds::SignatureOptions().spectra(true)));
  checkpoint.read_seconds = watch.seconds();
  progress(0.1);
  if (!plan.estimated.contains(checkpoint.step)) return checkpoint;
  checkpoint.has_estimates = true;
  double done = 0.1;
  for (const dds::LlcKind kind : plan.kinds) {
    dds::LlcEstimate estimate =
        dds::estimate_llc(dds::Problem(*network, dds::categorical(), all), llc_options(plan, kind, seed));
    estimate.step = checkpoint.step;
    monitor.log(estimate);
    checkpoint.estimates.emplace(kind, std::move(estimate));
    progress(done += 0.9 / static_cast<double>(plan.kinds.size()));
  }
  return checkpoint;
}

std::string describe(const Checkpoint& checkpoint, double test_accuracy) {
  std::string line = fmt::format("step {:5}  test accuracy {:.3f}  read {:.2f} s", checkpoint.step, test_accuracy,
                                 checkpoint.read_seconds);
  for (const auto& [kind, estimate] : checkpoint.estimates) {
    const std::string number = estimate.converged()
                                   ? fmt::format("{:.2f} +- {:.2f}", *estimate.lambda, *estimate.standard_error)
                                   : std::string("not converged");
    line += fmt::format("  {} LLC {} in {:.0f} s", to_string(kind), number, estimate.seconds);
    if (estimate.settled) {
      line += fmt::format(" (at a minimum {:.2f} of |w| away, {:.0f} s of them for the way)",
                          estimate.settled->relative_distance, estimate.settled->seconds);
    }
    if (!estimate.converged()) line += fmt::format(": {}", estimate.verdict());
  }
  return line;
}

// ---- claims ----

Claim test_accuracy_claim(std::int64_t right, std::int64_t images) {
  Claim claim = claim_of("test_accuracy",
                         "share of the test images classified rightly at the end of training (Wilson's interval)",
                         dds::experiments::wilson(right, images));
  claim.predicted = claim.goal_low = 0.88;
  return claim;
}

Claim cost_ratio_claim(const std::vector<Checkpoint>& checkpoints, const Plan& plan, std::int64_t images) {
  Claim claim = claim_of(
      "cost_ratio_llc_to_dds",
      fmt::format(
          "seconds of the cheapest converged plain LLC over all {} training images (two threads), the way to its "
          "minimum included, over the median seconds of one fp64 read of all layers with spectra over {} of them "
          "(one thread)",
          images, plan.probe));
  claim.predicted = 300;
  std::vector<double> reads;
  std::optional<double> cheapest;
  for (const Checkpoint& checkpoint : checkpoints) {
    reads.push_back(checkpoint.read_seconds);
    for (const auto& [kind, estimate] : checkpoint.estimates) {
      if (kind != dds::LlcKind::Plain || !estimate.converged()) continue;
      cheapest = std::min(cheapest.value_or(estimate.seconds), estimate.seconds);
    }
  }
  if (!cheapest) return claim;
  std::sort(reads.begin(), reads.end());
  claim.measured = *cheapest / reads[reads.size() / 2];
  claim.low = *cheapest / reads.back();
  claim.high = *cheapest / reads.front();
  claim.goal_low = 300;
  return claim;
}

/// The checkpoints from this step on are past the plateau of the start.
constexpr std::int64_t kTrained = 400;

Claim converged_claim(const std::vector<Checkpoint>& checkpoints) {
  std::int64_t converged = 0, all = 0;
  for (const Checkpoint& checkpoint : checkpoints) {
    if (!checkpoint.has_estimates || checkpoint.step < kTrained) continue;
    ++all;
    converged += checkpoint.estimates.at(dds::LlcKind::Plain).converged();
  }
  Claim claim =
      claim_of("plain_llc_converged",
               fmt::format("share of the {} checkpoints from step {} on, settled, at which the plain LLC over "
                           "all training images converged",
                           all, kTrained),
               dds::experiments::exactly(static_cast<double>(converged) / static_cast<double>(all)));
  claim.goal_low = 0.8;
  return claim;
}

Claim resolution_claim(const std::vector<Checkpoint>& checkpoints) {
  double largest = 0;
  for (const Checkpoint& checkpoint : checkpoints) {
    for (const auto& [kind, estimate] : checkpoint.estimates) largest = std::max(largest, estimate.settings.resolution);
  }
  Claim claim = claim_of("llc_resolution",
                         "gamma / (n beta) of the LLC, the curvature below which a direction counts less than half",
                         dds::experiments::exactly(largest));
  claim.goal_high = 1;
  return claim;
}

struct Series {
  std::vector<double> reading, llc, step;
};

/// The checkpoints at which both the reading and a converged estimate exist.
Series series_of(const std::vector<Checkpoint>& checkpoints, dds::LlcKind kind, const std::string& layer) {
  Series series;
  for (const Checkpoint& checkpoint : checkpoints) {
    if (!checkpoint.has_estimates) continue;
    const dds::LlcEstimate& estimate = checkpoint.estimates.at(kind);
    if (!estimate.converged()) continue;
    for (const dds::Signature& s : checkpoint.signatures) {
      if (s.layer != layer || s.side != dds::Side::Fisher || !s.log10_lambda_share()) continue;
      series.reading.push_back(*s.log10_lambda_share());
      series.llc.push_back(*estimate.lambda);
      series.step.push_back(static_cast<double>(checkpoint.step));
    }
  }
  return series;
}

Claim correlation_claim(const std::vector<Checkpoint>& checkpoints, dds::LlcKind kind, const std::string& layer) {
  const Series series = series_of(checkpoints, kind, layer);
  const dds::RankCorrelation raw = dds::spearman(series.reading, series.llc);
  const dds::RankCorrelation detrended = dds::partial_spearman(series.reading, series.llc, series.step);
  const std::string statement = fmt::format(
      "Spearman correlation of log10(lambda_min+(G)/tr(G)) at {} with the {} LLC over the {} checkpoints where "
      "that converged{}{}",
      layer, to_string(kind), raw.n,
      raw.n < dds::kMinCorrelationPairs ? fmt::format(" (below {}: none is given)", dds::kMinCorrelationPairs) : "",
      detrended.rho ? fmt::format("; with the step held fixed {:.2f}", *detrended.rho) : "");
  return claim_of(fmt::format("dds_llc_rank_correlation.{}{}", layer, kind == dds::LlcKind::Tilted ? ".tilted" : ""),
                  statement, dds::experiments::interval_of(raw));
}

// ---- the run ----

void run(const RunOptions& options, const std::filesystem::path& data_folder) {
  torch::set_num_threads(
      1);  // two on a busy machine can be twenty times slower; the chains of the LLC are the parallelism
  Plan plan = plan_of(options);
  const Split train = fashion_mnist::load(data_folder, "train"), test = fashion_mnist::load(data_folder, "t10k");
  const dds::Data all(train.images, train.labels), probe = all.slice(0, plan.probe);
  const dds::log::SinkPtr log = dds::log::directory(options.out);
  Summary summary(options);
  const std::int64_t steps_per_epoch = train.images.size(0) / kBatch, total = plan.epochs * steps_per_epoch;
  std::set<std::int64_t> checkpoint_steps(plan.checkpoints.begin(), plan.checkpoints.end());
  checkpoint_steps.insert(total);
  plan.estimated.insert(total);
  const double estimate_share = 6.0 / static_cast<double>(plan.estimated.size()), training_share = 1.5;
  std::vector<std::pair<std::string, double>> stages{{"bit identity", 0.4}};
  for (const std::int64_t step : checkpoint_steps) {
    if (step > 0)
      stages.emplace_back(fmt::format("training to step {}", step),
                          training_share / static_cast<double>(checkpoint_steps.size()));
    stages.emplace_back(fmt::format("checkpoint {}", step), plan.estimated.contains(step) ? estimate_share : 0.05);
  }
  Progress progress(stages);

  torch::manual_seed(options.seed);
  Network network;
  torch::optim::Adam optimizer(network->parameters(), kLearningRate);
  torch::optim::StepLR schedule(optimizer, /*step_size=*/1, /*gamma=*/0.6);
  torch::Generator generator = at::detail::createCPUGenerator(options.seed);
  std::vector<Checkpoint> checkpoints;
  std::int64_t right = 0;
  torch::Tensor compared_weights;

  dds::Monitor monitor(*network, dds::MonitorOptions().every(kSignatureEvery).reduction(dds::Reduction::Mean), log);
  const auto at_checkpoint = [&] {
    if (!checkpoint_steps.contains(monitor.steps())) return;
    const std::string stage = fmt::format("checkpoint {}", monitor.steps());
    right = count_right(network, test);
    const double test_accuracy = static_cast<double>(right) / static_cast<double>(test.labels.size(0));
    monitor.log("test_accuracy", test_accuracy);
    checkpoints.push_back(read_checkpoint(monitor, network, probe, all, plan, options.seed,
                                          [&](double done) { progress.update(stage, done); }));
    progress.say(describe(checkpoints.back(), test_accuracy));
  };

  at_checkpoint();
  for (std::int64_t epoch = 0; epoch < plan.epochs; ++epoch) {
    for (const torch::Tensor& batch : batches(train.images.size(0), generator)) {
      {
        auto step = monitor.step();
        optimizer.zero_grad();
        const torch::Tensor loss = F::cross_entropy(network->forward(train.images.index_select(0, batch)),
                                                    train.labels.index_select(0, batch));
        loss.backward();
        optimizer.step();
        if (step.due()) monitor.log("train_loss", loss.item<double>());
      }
      if (monitor.steps() == kCompared) {
        compared_weights = torch::nn::utils::parameters_to_vector(network->parameters()).detach().clone();
      }
      const auto next = checkpoint_steps.lower_bound(monitor.steps());
      if (next != checkpoint_steps.end()) {
        progress.update(fmt::format("training to step {}", *next),
                        static_cast<double>(monitor.steps()) / static_cast<double>(*next));
      }
      at_checkpoint();
    }
    schedule.step();
  }

  progress.update("bit identity", 0);
  summary.add(test_accuracy_claim(right, test.labels.size(0)));
  summary.add(attached_is_bit_identical(train, options.seed, compared_weights));
  summary.add(converged_claim(checkpoints));
  summary.add(resolution_claim(checkpoints));
  summary.add(cost_ratio_claim(checkpoints, plan, train.images.size(0)));
  for (const dds::LlcKind kind : plan.kinds) {
    for (const std::string& layer : monitor.layers()) summary.add(correlation_claim(checkpoints, kind, layer));
  }
  const std::filesystem::path report = dds::write_report(options.out);
  summary.write();
  progress.say(fmt::format("\n{}", report.string()));
}

}  // namespace

int main(int argc, char** argv) {
  std::filesystem::path data = "/usr/share/datasets/fashion-mnist";
  const RunOptions options = dds::experiments::parse_command_line(
      argc, argv, "fashion_mnist", "A convolutional network on Fashion-MNIST: signatures, LLC and the report.", &data);
  return dds::experiments::run_experiment([&] { run(options, data); });
}
