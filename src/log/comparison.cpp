#include "src/log/comparison.hpp"

#include <map>
#include <string_view>

namespace dds::log {
namespace {

std::optional<double> sigma_min(const Signature& s) { return s.sigma_min; }
std::optional<double> lambda_min(const Signature& s) { return s.log10_lambda_min_plus; }
std::optional<double> lambda_min_share(const Signature& s) { return s.log10_lambda_share(); }
std::optional<double> volume_per_dimension(const Signature& s) { return s.volume_per_dimension(); }

using Estimates = std::map<std::int64_t, const LlcEstimate*>;

/// The estimates of one kind that have a number, by step; of several at one step the last written.
Estimates estimates_of(const Run& run, LlcKind kind) {
  Estimates estimates;
  for (const LlcEstimate& estimate : run.estimates) {
    if (estimate.kind == kind && estimate.lambda) estimates[estimate.step] = &estimate;
  }
  return estimates;
}

/// The checkpoint reads of one layer, in the order of the log.
struct LayerReads {
  std::string layer;
  std::vector<const Signature*> reads;
};

/// In the order in which the layers first appear.
std::vector<LayerReads> reads_of(const Run& run) {
  std::vector<LayerReads> layers;
  std::map<std::string_view, std::size_t> places;
  for (const Signature& s : run.signatures) {
    const auto [place, is_new] = places.emplace(s.layer, layers.size());
    if (is_new) layers.push_back({s.layer, {}});
    if (s.source == Source::Read) layers[place->second].reads.push_back(&s);
  }
  return layers;
}

std::vector<Comparison::Pair> pairs_of(const LayerReads& layer, const Measure& measure, const Estimates& estimates) {
  std::map<std::int64_t, Comparison::Pair> pairs;
  std::optional<FisherKind> kind;
  for (const Signature* s : layer.reads) {
    const auto estimate = estimates.find(s->step);
    if (s->side != measure.side || estimate == estimates.end()) continue;
    // One Fisher kind a comparison: the one that the layer was read with first.
    if (!kind) kind = s->fisher_kind;
    if (s->fisher_kind != kind) continue;
    if (const auto value = measure.value(*s))
      pairs[s->step] = {s->step, *value, s->at_floor.value_or(false), estimate->second};
  }
  std::vector<Comparison::Pair> sorted;
  sorted.reserve(pairs.size());
  for (const auto& [step, pair] : pairs) sorted.push_back(pair);
  return sorted;
}

void correlate(Comparison& comparison) {
  std::vector<double> readings, lambdas, trend;
  for (const Comparison::Pair& pair : comparison.pairs) {
    if (!pair.estimate->converged()) continue;
    // A smallest singular value on its floor is rounding noise, whose order means nothing: all such are ties below the
    // rest.
    const bool noise = pair.at_floor && comparison.measure->value == sigma_min;
    readings.push_back(noise ? 0 : pair.reading);
    lambdas.push_back(*pair.estimate->lambda);
    trend.push_back(static_cast<double>(pair.step));
  }
  comparison.raw = spearman(readings, lambdas);
  comparison.detrended = partial_spearman(readings, lambdas, trend);
}

}  // namespace

const std::vector<Measure>& measures() {
  static const std::vector<Measure> all = {
      {"sigma_min", "σ<sub>min</sub>, activation", Side::Activation, sigma_min},
      {"lambda_activation", "log₁₀ λ<sub>min</sub>⁺, activation", Side::Activation, lambda_min},
      {"share_activation", "log₁₀ (λ<sub>min</sub>⁺ / tr), activation", Side::Activation, lambda_min_share},
      {"volume_activation", "log det⁺ / rank [nat], activation", Side::Activation, volume_per_dimension},
      {"lambda_fisher", "log₁₀ λ<sub>min</sub>⁺, Fisher", Side::Fisher, lambda_min},
      {"share_fisher", "log₁₀ (λ<sub>min</sub>⁺ / tr), Fisher", Side::Fisher, lambda_min_share},
      {"volume_fisher", "log det⁺ / rank [nat], Fisher", Side::Fisher, volume_per_dimension},
  };
  return all;
}

std::vector<Comparison> compare(const Run& run) {
  std::vector<Comparison> comparisons;
  const std::vector<LayerReads> layers = reads_of(run);
  for (const LlcKind kind : {LlcKind::Plain, LlcKind::Tilted}) {
    const Estimates estimates = estimates_of(run, kind);
    for (const LayerReads& layer : layers) {
      for (const Measure& measure : measures()) {
        Comparison comparison{layer.layer, &measure, kind, pairs_of(layer, measure, estimates), {}, {}};
        if (comparison.pairs.empty()) continue;
        correlate(comparison);
        comparisons.push_back(std::move(comparison));
      }
    }
  }
  return comparisons;
}

}  // namespace dds::log
