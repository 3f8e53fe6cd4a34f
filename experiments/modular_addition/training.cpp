#include "experiments/modular_addition/training.hpp"

#include <fmt/format.h>

#include <cmath>

#include "experiments/harness/networks.hpp"
#include "src/base/stopwatch.hpp"

namespace modular_addition {

namespace F = torch::nn::functional;
namespace ex = dds::experiments;

namespace {

constexpr double kLearningRate = 1e-3, kWeightDecay = 1.0, kMatchedLoss = 0.25;
constexpr std::int64_t kWarmUp = 10;

double accuracy(const torch::Tensor& logits, const torch::Tensor& sums) {
  return logits.argmax(1).eq(sums).to(torch::kDouble).mean().item<double>();
}

double weight_norm(const Transformer& model) {
  double squares = 0;
  for (const torch::Tensor& w : model->parameters()) squares += w.detach().square().sum().item<double>();
  return std::sqrt(squares);
}

std::filesystem::path weights_file(const Cell& cell, std::int64_t step, const std::filesystem::path& folder) {
  return folder / fmt::format("{}_step{}.pt", cell.name(), step);
}

void keep(const Transformer& model, const Cell& cell, std::int64_t step, const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  torch::save(model, weights_file(cell, step, folder).string());
}

std::vector<Reading> readings_of(const std::vector<dds::Signature>& signatures) {
  std::vector<Reading> readings;
  for (const dds::Signature& s : signatures) {
    if (s.kind != "Tap" || s.spectrum.empty()) continue;
    readings.push_back({s.layer, std::string(to_string(s.side)), s.fisher_kind ? to_string(*s.fisher_kind) : "",
                        s.spectrum, s.floor.value_or(0), *s.rows});
  }
  return readings;
}

/// All sites with the data's labels, which is what the paper reads; then the two of the residual stream with labels
/// drawn from the network; then the first of them alone, for its cost.
Checkpoint read_checkpoint(const std::string& name, std::int64_t step, double loss, Transformer& model,
                           const Pairs& pairs) {
  Checkpoint checkpoint{name, step, loss, {}, 0, 0, {}};
  const dds::Data data = pairs.training();
  const auto read = [&](std::vector<std::string> layers, dds::Fisher fisher) {
    return dds::read({*model, dds::categorical(), data},
                     dds::ReadOptions()
                         .fisher(fisher)
                         .batch_size(data.size())
                         .signatures(dds::SignatureOptions().layers(std::move(layers)).spectra(true)));
  };
  dds::Stopwatch watch;
  checkpoint.readings = readings_of(read({}, dds::Fisher::Empirical));
  checkpoint.read_seconds = watch.seconds();
  for (Reading& reading : readings_of(read({"tap:resid_*"}, dds::Fisher::True))) {
    if (reading.side == "fisher") checkpoint.readings.push_back(std::move(reading));
  }
  watch = {};
  read({"tap:resid_mid"}, dds::Fisher::Empirical);
  checkpoint.one_site_seconds = watch.seconds();
  checkpoint.modes = modes_of(model, pairs.tokens, pairs.sums, pairs.train);
  return checkpoint;
}

}  // namespace

const std::vector<Arm>& arms() {
  static const std::vector<Arm> all = {{"A", 43, 0.6, {8, 16, 32, 64, 128}}, {"B", 53, 0.5, {8, 16, 24, 32, 48}}};
  return all;
}

std::string Cell::name() const { return fmt::format("{}_d{}_seed{}", arm->name, width, seed); }

Pairs pairs_of(const Arm& arm, std::uint64_t seed) {
  const torch::Tensor residues = torch::arange(arm.p, torch::kLong);
  const torch::Tensor a = residues.repeat_interleave(arm.p), b = residues.repeat({arm.p});
  const std::int64_t n = arm.p * arm.p, trained = std::llround(arm.share * static_cast<double>(n));
  torch::Generator generator = ex::generator_of(seed);
  const torch::Tensor order = torch::randperm(n, generator, torch::kLong);
  return {torch::stack({a, b, torch::full_like(a, arm.p)}, 1), (a + b).remainder(arm.p), order.slice(0, 0, trained),
          order.slice(0, trained)};
}

dds::Data Pairs::training() const { return {tokens.index_select(0, train), sums.index_select(0, train)}; }

Training train(const Cell& cell, const TrainingOptions& options) {
  const dds::Stopwatch watch;
  const Pairs pairs = pairs_of(*cell.arm, cell.seed);
  const torch::Tensor x = pairs.tokens.index_select(0, pairs.train), y = pairs.sums.index_select(0, pairs.train);
  const torch::Tensor test_x = pairs.tokens.index_select(0, pairs.test),
                      test_y = pairs.sums.index_select(0, pairs.test);
  Transformer model(cell.arm->p, cell.width);
  torch::Generator generator = ex::generator_of(cell.seed + 1);
  ex::initialise(*model, generator);
  torch::optim::AdamW optimizer(
      model->parameters(),
      torch::optim::AdamWOptions(kLearningRate).weight_decay(kWeightDecay).betas(std::make_tuple(0.9, 0.98)));

  Training training;
  training.cell = cell;
  Series& series = training.series;
  const auto log = std::make_shared<dds::log::Memory>();
  dds::Monitor monitor(*model,
                       dds::MonitorOptions()
                           .every(options.every)
                           .signatures(dds::SignatureOptions().layers({"tap:resid_mid", "tap:resid_post"})),
                       log);
  bool matched = false;
  const auto checkpoint = [&](const char* name, double loss) {
    training.checkpoints.push_back(read_checkpoint(name, monitor.steps(), loss, model, pairs));
  };
  double loss = 0;
  for (std::int64_t t = 0; t < options.steps; ++t) {
    const double rate = kLearningRate * std::min(1.0, static_cast<double>(t + 1) / kWarmUp);
    static_cast<torch::optim::AdamWOptions&>(optimizer.param_groups()[0].options()).lr(rate);
    auto step = monitor.step();
    optimizer.zero_grad();
    const torch::Tensor logits = model->forward(x);
    const torch::Tensor mean_loss = F::cross_entropy(logits, y);
    loss = mean_loss.item<double>();
    if (step.due()) {
      const torch::NoGradGuard no_grad;
      const torch::Tensor test_logits = model->forward(test_x);
      series.step.push_back(t);
      series.train_loss.push_back(loss);
      series.train_accuracy.push_back(accuracy(logits, y));
      series.test_loss.push_back(F::cross_entropy(test_logits, test_y).item<double>());
      series.test_accuracy.push_back(accuracy(test_logits, test_y));
      series.weight_norm.push_back(weight_norm(model));
    }
    if (t == 0) checkpoint("init", loss);
    if (!matched && loss <= kMatchedLoss) {
      matched = true;
      checkpoint("matched", loss);
    }
    mean_loss.backward();
    optimizer.step();
    step.finish();
    if (std::find(options.kept_steps.begin(), options.kept_steps.end(), t + 1) != options.kept_steps.end())
      keep(model, cell, t + 1, options.weights);
  }
  {
    const torch::NoGradGuard no_grad;
    loss = F::cross_entropy(model->forward(x), y).item<double>();
  }
  checkpoint("end", loss);
  keep(model, cell, options.steps, options.weights);

  for (const dds::Signature& s : log->signatures) {
    const auto put = [&](const char* what, std::optional<double> value) {
      series.signature[fmt::format("{} {} {}", what, s.layer, to_string(s.side))].push_back(value.value_or(NAN));
    };
    put("log10 lambda_min+/tr", s.log10_lambda_share());
    put("effective rank", s.effective_rank);
    put("rank", s.rank ? std::optional(static_cast<double>(*s.rank)) : std::nullopt);
  }
  training.seconds = watch.seconds();
  return training;
}

Transformer kept(const Cell& cell, std::int64_t step, const std::filesystem::path& weights) {
  Transformer model(cell.arm->p, cell.width);
  torch::load(model, weights_file(cell, step, weights).string());
  return model;
}

Followed follow(const Cell& cell, const std::vector<std::int64_t>& steps, const std::filesystem::path& weights) {
  const dds::Data data = pairs_of(*cell.arm, cell.seed).training();
  const auto options = dds::ReadOptions()
                           .fisher(dds::Fisher::Empirical)
                           .batch_size(data.size())
                           .signatures(dds::SignatureOptions().layers({"tap:resid_mid"}).sides({dds::Side::Fisher}));
  Followed followed;
  for (const std::int64_t step : steps) {
    Transformer model = kept(cell, step, weights);
    const dds::Signature s = dds::read({*model, dds::categorical(), data}, options).front();
    followed.step.push_back(step);
    followed.lambda_min.push_back(s.log10_lambda_min_plus.value_or(NAN));
    followed.trace.push_back(s.log10_trace.value_or(NAN));
  }
  return followed;
}

// ---- JSON ----

// Numbers that do not exist are null there and NaN here.
void from_json(const nlohmann::json& j, std::vector<double>& values) {
  values.clear();
  for (const nlohmann::json& value : j) values.push_back(value.is_null() ? NAN : value.get<double>());
}

NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Reading, site, side, fisher, spectrum, floor, rows)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Modes, logit_power, stream_power, dead_fisher, dead_activation,
                                   dead_fisher_dimension, dead_activation_dimension)
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE(Checkpoint, name, step, loss, readings, read_seconds, one_site_seconds, modes)

nlohmann::json to_json(const Training& training) {
  const Series& s = training.series;
  return {{"checkpoints", training.checkpoints},
          {"series",
           {{"step", s.step},
            {"train_loss", s.train_loss},
            {"train_accuracy", s.train_accuracy},
            {"test_loss", s.test_loss},
            {"test_accuracy", s.test_accuracy},
            {"weight_norm", s.weight_norm},
            {"signature", s.signature}}},
          {"seconds", training.seconds}};
}

Training from_json(const nlohmann::json& j, const Cell& cell) {
  Training training;
  training.cell = cell;
  training.checkpoints = j["checkpoints"].get<std::vector<Checkpoint>>();
  const nlohmann::json& s = j["series"];
  Series& series = training.series;
  series.step = s["step"].get<std::vector<std::int64_t>>();
  from_json(s["train_loss"], series.train_loss);
  from_json(s["train_accuracy"], series.train_accuracy);
  from_json(s["test_loss"], series.test_loss);
  from_json(s["test_accuracy"], series.test_accuracy);
  from_json(s["weight_norm"], series.weight_norm);
  for (const auto& [name, values] : s["signature"].items()) from_json(values, series.signature[name]);
  training.seconds = j["seconds"];
  return training;
}

nlohmann::json to_json(const Followed& f) {
  return {{"step", f.step}, {"lambda_min", f.lambda_min}, {"trace", f.trace}};
}

Followed followed_from_json(const nlohmann::json& j) {
  Followed followed;
  followed.step = j["step"].get<std::vector<std::int64_t>>();
  from_json(j["lambda_min"], followed.lambda_min);
  from_json(j["trace"], followed.trace);
  return followed;
}

}  // namespace modular_addition
