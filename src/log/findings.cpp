#include "src/log/findings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

namespace dds::log {
namespace {

void last_metrics(const Run& run, std::vector<std::string>& out) {
  std::map<std::string, const Metric*> last;
  for (const Metric& metric : run.metrics) {
    if (std::isfinite(metric.value) && !metric.name.ends_with("_seconds")) last[metric.name] = &metric;
  }
  for (const auto& [name, metric] : last)
    out.push_back(fmt::format("{} ends at {:.4g} (step {}).", name, metric->value, metric->step));
}

/// The last checkpoint reads of every layer and side.
std::vector<const Signature*> last_reads(const Run& run) {
  std::map<std::pair<std::string, Side>, const Signature*> last;
  for (const Signature& s : run.signatures) {
    if (s.source == "read" && s.sigma_max) last[{s.layer, s.side}] = &s;
  }
  std::vector<const Signature*> reads;
  for (const auto& [key, signature] : last) reads.push_back(signature);
  return reads;
}

void floor_and_dead(const Run& run, std::vector<std::string>& out) {
  const auto reads = last_reads(run);
  if (reads.empty()) return;
  const auto at_floor = std::count_if(reads.begin(), reads.end(), [](const Signature* s) { return s->at_floor; });
  out.push_back(
      fmt::format("At the last checkpoint read, σ_min stands on its noise floor in {} of {} layers and sides.",
                  at_floor, reads.size()));
  const auto most = std::max_element(reads.begin(), reads.end(),
                                     [](auto* a, auto* b) { return a->dead_directions < b->dead_directions; });
  const Signature& s = **most;
  out.push_back(s.dead_directions <= 0
                    ? "No layer has a dead direction there: every rank reaches its structural bound."
                    : fmt::format("Most dead directions there: {} of {} in {} ({} side).", s.dead_directions,
                                  s.structural_bound, s.layer, to_string(s.side)));
}

/// What DeadAxesTracker saw, for the series with the most of it.
void births(const Run& run, std::vector<std::string>& out) {
  struct Change {
    std::int64_t born = 0, revived = 0;
    std::int64_t last_reading = 0;
    std::int64_t from = 0, to = 0;
  };
  std::map<SeriesId, Change> series;
  for (const Signature& s : run.signatures) {
    if (!s.sigma_max) continue;
    Change& change = series[series_of(s)];
    const std::int64_t before = std::exchange(change.last_reading, s.step);
    if (s.born.value_or(0) + s.revived.value_or(0) == 0) continue;
    if (change.born + change.revived == 0) change.from = before;
    change.to = s.step;
    change.born += s.born.value_or(0);
    change.revived += s.revived.value_or(0);
  }
  std::vector<std::pair<SeriesId, Change>> most(series.begin(), series.end());
  std::erase_if(most, [](const auto& one) { return one.second.born + one.second.revived == 0; });
  std::stable_sort(most.begin(), most.end(), [](const auto& a, const auto& b) {
    return a.second.born + a.second.revived > b.second.born + b.second.revived;
  });
  constexpr std::size_t kMost = 3;
  for (std::size_t i = 0; i < std::min(kMost, most.size()); ++i) {
    const auto& [id, change] = most[i];
    out.push_back(fmt::format("{}: {} dimensions died between steps {} and {}, {} came to life.", to_string(id),
                              change.born, change.from, change.to, change.revived));
  }
  if (most.size() > kMost)
    out.push_back(fmt::format("Dead dimensions changed in {} more series.", most.size() - kMost));
}

void dying(const std::vector<DecayCount>& counts, std::vector<std::string>& out) {
  const auto with = [&](DecayStatus status) {
    return std::count_if(counts.begin(), counts.end(), [&](const DecayCount& c) { return c.status == status; });
  };
  const auto counted = with(DecayStatus::Counted);
  if (counted == 0) return;
  const auto most = std::max_element(counts.begin(), counts.end(), [](const DecayCount& a, const DecayCount& b) {
    return a.count.value_or(-1) < b.count.value_or(-1);
  });
  out.push_back(
      fmt::format("Directions die in {} of {} series of spectra ({} more move, but give no count); most in {}: {}.",
                  counted, counts.size(), with(DecayStatus::Undecided) + with(DecayStatus::MatrixDecays),
                  to_string(most->series), most->statement()));
}

void estimates(const Run& run, std::vector<std::string>& out) {
  for (const LlcKind kind : {LlcKind::Plain, LlcKind::Tilted}) {
    std::int64_t all = 0, converged = 0;
    const LlcEstimate* last = nullptr;
    for (const LlcEstimate& estimate : run.estimates) {
      if (estimate.kind != kind) continue;
      ++all;
      if (!estimate.converged() || !estimate.lambda) continue;
      ++converged;
      last = &estimate;
    }
    if (all == 0) continue;
    std::string text =
        fmt::format("{} of {} {} LLC estimates converged", converged, all, kind == LlcKind::Plain ? "plain" : "tilted");
    if (last)
      text += fmt::format("; the last is {:.4g} (step {}, γ = {:.4g}, nβ = {:.4g})", *last->lambda, last->step,
                          last->gamma, last->n_beta);
    out.push_back(text + ".");
  }
}

void correlations(const std::vector<Comparison>& comparisons, std::vector<std::string>& out) {
  if (comparisons.empty()) return;
  std::size_t raw = 0, detrended = 0, defined = 0, defined_detrended = 0;
  const auto beyond_zero = [](const RankCorrelation& c) { return c.rho && (*c.low > 0 || *c.high < 0); };
  for (const Comparison& comparison : comparisons) {
    defined += comparison.raw.rho.has_value();
    defined_detrended += comparison.detrended.rho.has_value();
    raw += beyond_zero(comparison.raw);
    detrended += beyond_zero(comparison.detrended);
  }
  if (defined == 0) {
    out.push_back(
        fmt::format("No rank correlation of DDS with LLC: fewer than {} checkpoints have a converged estimate.",
                    kMinCorrelationPairs));
    return;
  }
  const std::string left = defined_detrended > 0
                               ? fmt::format("{} of {}", detrended, defined_detrended)
                               : "none is defined (the readings or the LLC are in the very order of the steps)";
  out.push_back(fmt::format(
      "DDS against LLC: {} of {} rank correlations exclude zero at 95 %; with the trend over training taken "
      "out, {}.",
      raw, defined, left));
}

void statuses(const Run& run, std::vector<std::string>& out) {
  const auto odd =
      std::count_if(run.signatures.begin(), run.signatures.end(), [](const Signature& s) { return !s.status.empty(); });
  if (odd > 0)
    out.push_back(
        fmt::format("{} of {} readings carry a status other than ok (table below).", odd, run.signatures.size()));
}

}  // namespace

std::vector<std::string> findings(const Run& run, const std::vector<Comparison>& comparisons,
                                  const std::vector<DecayCount>& counts) {
  std::vector<std::string> out;
  last_metrics(run, out);
  floor_and_dead(run, out);
  births(run, out);
  dying(counts, out);
  estimates(run, out);
  correlations(comparisons, out);
  statuses(run, out);
  return out;
}

}  // namespace dds::log
