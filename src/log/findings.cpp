#include "src/log/findings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "src/log/cause_findings.hpp"

namespace dds::log {
namespace {

constexpr std::size_t kMostSeries = 3;  // that a finding is told of one by one

void last_metrics(const Run& run, std::vector<std::string>& out) {
  std::map<std::string, const Metric*> last;
  for (const Metric& metric : run.metrics) {
    if (std::isfinite(metric.value) && !metric.name.ends_with("_seconds")) last[metric.name] = &metric;
  }
  for (const auto& [name, metric] : last)
    out.push_back(fmt::format("{} ends at {:.4g} (step {}).", name, metric->value, metric->step));
}

/// Why directions are dead, the worst first.
void causes(const Run& run, std::vector<std::string>& out) {
  const std::vector<LastingCause> lasting = lasting_causes(run);
  constexpr std::size_t kMost = 6;
  for (std::size_t i = 0; i < std::min(kMost, lasting.size()); ++i) out.push_back(sentence(lasting[i]));
  if (lasting.size() > kMost) {
    out.push_back(fmt::format("{} more causes of dead directions are in the table below.", lasting.size() - kMost));
  }
}

/// The last checkpoint reads of every layer and side.
std::vector<const Signature*> last_reads(const Run& run) {
  std::map<std::pair<std::string, Side>, const Signature*> last;
  for (const Signature& s : run.signatures) {
    if (s.source == Source::Read && s.has_numbers()) last[{s.layer, s.side}] = &s;
  }
  std::vector<const Signature*> reads;
  reads.reserve(last.size());
  for (const auto& [key, signature] : last) reads.push_back(signature);
  return reads;
}

void floor_and_dead(const Run& run, std::vector<std::string>& out) {
  const auto reads = last_reads(run);
  if (reads.empty()) return;
  const auto at_floor =
      std::count_if(reads.begin(), reads.end(), [](const Signature* s) { return s->at_floor == true; });
  out.push_back(
      fmt::format("At the last checkpoint read, σ_min stands on its noise floor in {} of {} layers and sides.",
                  at_floor, reads.size()));
  const auto most = std::max_element(reads.begin(), reads.end(),
                                     [](auto* a, auto* b) { return a->dead_directions < b->dead_directions; });
  const Signature& s = **most;
  const std::int64_t dead = s.dead_directions.value_or(0);
  const auto open = std::count_if(reads.begin(), reads.end(), [](auto* s) { return !s->dead_directions; });
  out.push_back(dead <= 0 && open > 0
                    ? fmt::format("No layer is known to have a dead direction there; {} bounds are not known.", open)
                : dead <= 0 ? "No layer has a dead direction there: every rank reaches its structural bound."
                            : fmt::format("Most dead directions there: {} of {} in {} ({} side).", dead,
                                          s.structural_bound.value_or(0), s.layer, to_string(s.side)));
}

/// How many dead directions a series had at the ends of the stretch over which most of them came.
struct Loss {
  std::int64_t from_step = 0, to_step = 0;
  std::int64_t from = 0, to = 0;
  std::int64_t bound = 0;

  double lost() const { return static_cast<double>(to) - static_cast<double>(from); }  // of a file's numbers, any
};

/// The stretch in which the dead directions of one series grow most: between the last reading at the lowest count and
/// the first at the highest that follows it.
Loss largest_loss(const std::vector<const Signature*>& readings) {
  Loss best;
  const Signature* low = nullptr;
  for (const Signature* s : readings) {
    if (!low || s->dead_directions <= low->dead_directions) low = s;
    const Loss loss{low->step, s->step, *low->dead_directions, *s->dead_directions, s->structural_bound.value_or(0)};
    if (loss.lost() > best.lost()) best = loss;
  }
  return best;
}

/// "fc1, fisher side (read, exact): lost 9 directions between steps 0 and 10 (dead: 0, then 9 of 32)."
void losses(const Run& run, std::vector<std::string>& out) {
  std::map<SeriesId, std::vector<const Signature*>> series;
  for (const Signature& s : run.signatures) {
    if (s.source == Source::Read && s.dead_directions) series[series_of(s)].push_back(&s);
  }
  std::vector<std::pair<SeriesId, Loss>> most;
  for (auto& [id, readings] : series) {
    std::stable_sort(readings.begin(), readings.end(), [](auto* a, auto* b) { return a->step < b->step; });
    if (const Loss loss = largest_loss(readings); loss.lost() > 0) most.emplace_back(id, loss);
  }
  std::stable_sort(most.begin(), most.end(),
                   [](const auto& a, const auto& b) { return a.second.lost() > b.second.lost(); });
  for (std::size_t i = 0; i < std::min(kMostSeries, most.size()); ++i) {
    const auto& [id, loss] = most[i];
    out.push_back(fmt::format("{}: lost {} {} between steps {} and {} (dead: {}, then {} of {}).", to_string(id),
                              loss.lost(), loss.lost() == 1 ? "direction" : "directions", loss.from_step, loss.to_step,
                              loss.from, loss.to, loss.bound));
  }
  if (most.size() > kMostSeries)
    out.push_back(fmt::format("Directions were lost in {} more series.", most.size() - kMostSeries));
}

/// What DeadAxesTracker saw, for the series with the most of it.
void births(const Run& run, std::vector<std::string>& out) {
  struct Change {
    double born = 0, revived = 0;
    std::int64_t last_reading = 0;
    std::int64_t from = 0, to = 0;
  };
  std::map<SeriesId, Change> series;
  for (const Signature& s : run.signatures) {
    if (!s.has_numbers()) continue;
    Change& change = series[series_of(s)];
    const std::int64_t before = std::exchange(change.last_reading, s.step);
    if (s.born.value_or(0) == 0 && s.revived.value_or(0) == 0) continue;
    if (change.born + change.revived == 0) change.from = before;
    change.to = s.step;
    change.born += static_cast<double>(s.born.value_or(0));
    change.revived += static_cast<double>(s.revived.value_or(0));
  }
  std::vector<std::pair<SeriesId, Change>> most(series.begin(), series.end());
  std::erase_if(most, [](const auto& one) { return one.second.born + one.second.revived == 0; });
  std::stable_sort(most.begin(), most.end(), [](const auto& a, const auto& b) {
    return a.second.born + a.second.revived > b.second.born + b.second.revived;
  });
  for (std::size_t i = 0; i < std::min(kMostSeries, most.size()); ++i) {
    const auto& [id, change] = most[i];
    out.push_back(fmt::format("{}: {} dimensions died between steps {} and {}, {} came to life.", to_string(id),
                              change.born, change.from, change.to, change.revived));
  }
  if (most.size() > kMostSeries)
    out.push_back(fmt::format("Dead dimensions changed in {} more series.", most.size() - kMostSeries));
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
    std::string text = fmt::format("{} of {} {} LLC estimates converged", converged, all, to_string(kind));
    if (last)
      text += fmt::format("; the last is {:.4g} (step {}, γ = {:.4g}, nβ = {:.4g})", *last->lambda, last->step,
                          last->settings.gamma, last->settings.n_beta);
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
  causes(run, out);
  last_metrics(run, out);
  floor_and_dead(run, out);
  losses(run, out);
  births(run, out);
  dying(counts, out);
  estimates(run, out);
  correlations(comparisons, out);
  statuses(run, out);
  return out;
}

}  // namespace dds::log
