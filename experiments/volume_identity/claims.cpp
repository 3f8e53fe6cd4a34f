#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "experiments/harness/networks.hpp"
#include "experiments/volume_identity/study.hpp"

namespace volume_identity {

using dds::experiments::at_most;
using dds::experiments::Claim;
using dds::experiments::claim_of;
using dds::experiments::layer_name;
using dds::experiments::within;

std::vector<const Path*> Study::of(const std::string& family, std::int64_t depth, std::int64_t dead) const {
  std::vector<const Path*> found;
  for (const Path& path : paths_) {
    if (path.family == family && (depth == 0 || path.depth == depth) && (dead == 0 || path.dead == dead))
      found.push_back(&path);
  }
  return found;
}

std::vector<double> Study::ratios(const std::string& family, std::int64_t depth, std::int64_t dead,
                                  const dds::SeriesId& series, Observable observable) const {
  std::vector<double> result;
  for (const Path* path : of(family, depth, dead)) {
    for (const Path* one : of(family, depth, 1)) {
      if (one->seed != path->seed) continue;
      const auto numerator = slope(*path, series, observable), denominator = slope(*one, series, observable);
      if (numerator && denominator) result.push_back(numerator->slope / denominator->slope);
    }
  }
  return result;
}

bool applies(const Path& path, const dds::SeriesId& series) {
  if (path.depth == 0) return true;  // only the planted layer is read
  return series.side == dds::Side::Activation || series.layer != layer_name(path.depth);
}

namespace {

/// A mean over seeds with its interval.
Claim over_seeds(std::string id, const std::string& statement, const std::vector<double>& values, double predicted,
                 double tolerance) {
  return within(claim_of(std::move(id), fmt::format("{} (mean over {} seeds, 95 % interval)", statement, values.size()),
                         dds::experiments::mean_of(values)),
                predicted, tolerance);
}

/// Everything between the smallest and the largest value.
Claim hull(std::string id, const std::string& statement, const std::vector<double>& values, double predicted,
           double tolerance) {
  return within(
      claim_of(std::move(id), fmt::format("{} ({} values, from the smallest to the largest)", statement, values.size()),
               dds::experiments::range_of(values)),
      predicted, tolerance);
}

void exponents(const Study& study, std::vector<Claim>& out) {
  for (const std::int64_t depth : kDepths) {
    std::vector<double> activation;
    std::map<std::string, std::vector<double>> fisher;
    for (const Path* path : study.of("equal", depth)) {
      for (std::int64_t l = 1; l <= depth; ++l) {
        if (const auto fit = slope(*path, activation_at(layer_name(l)), log_lambda_min))
          activation.push_back(fit->slope - 2.0 * static_cast<double>(l));
        for (const char* kind : {"exact", "empirical"}) {
          if (l == depth) continue;
          if (const auto fit = slope(*path, fisher_at(layer_name(l), kind), log_lambda_min))
            fisher[kind].push_back(fit->slope - 2.0 * static_cast<double>(depth - l));
        }
      }
    }
    out.push_back(hull(fmt::format("exponent.activation.constructed.L{}", depth),
                       "log-slope of lambda_min+ of the activations in tau, less 2l, over l, r and seeds", activation,
                       0, 0.02));
    for (auto& [kind, values] : fisher) {
      out.push_back(hull(
          fmt::format("exponent.fisher_{}.constructed.L{}", kind, depth),
          fmt::format("log-slope of lambda_min+ of the {} Fisher in tau, less 2(L - l), over l < L, r and seeds", kind),
          values, 0, depth == 2 && kind == "empirical" ? 0.10 : 0.02));
    }
  }
}

void ratios(const Study& study, std::vector<Claim>& out) {
  const std::pair<const char*, const char*> families[] = {{"equal", "constructed"}, {"trained", "trained"}};
  const double paper[] = {0, 0, 2.0, 3.1, 4.0};
  for (const auto& [family, name] : families) {
    for (const char* kind : {"exact", "empirical"}) {
      for (const std::int64_t depth : kDepths) {
        for (std::int64_t dead = 2; dead <= kMostDead; ++dead) {
          const double r = static_cast<double>(dead);
          const double tolerance = family == std::string("trained")                 ? 0.05 * r
                                   : depth == 2 && kind == std::string("empirical") ? 0.15
                                                                                    : 0.02;
          const dds::SeriesId first = fisher_at(layer_name(1), kind);
          const std::string cell = fmt::format("{}.{}.L{}.r{}", name, kind, depth, dead);
          out.push_back(over_seeds("volume_ratio." + cell,
                                   fmt::format("slope of log det+(G_1) of the {} Fisher over that at r = 1", kind),
                                   study.ratios(family, depth, dead, first, log_volume), r, tolerance));
          out.back().paper = paper[dead];
          out.push_back(
              over_seeds("lambda_min_ratio." + cell,
                         fmt::format("slope of log lambda_min+(G_1) of the {} Fisher over that at r = 1", kind),
                         study.ratios(family, depth, dead, first, log_lambda_min), 1, 0.03));
        }
      }
    }
  }
}

/// slope(log det+) / slope(log lambda_min+) within a run where rates differ: the sum of the rates over the largest.
void unequal_rates(const Study& study, std::vector<Claim>& out) {
  const double predicted[] = {1, 1, 2.5 / 1.5, 4.5 / 2, 7 / 2.5};
  for (std::int64_t dead = 2; dead <= kMostDead; ++dead) {
    std::vector<double> values;
    for (const Path* path : study.of("rates", 0, dead)) {
      for (const dds::DecayCount& count : path->counts) {
        if (applies(*path, count.series) && count.series.fisher_kind == dds::FisherKind::Exact && count.volume_ratio)
          values.push_back(*count.volume_ratio);
      }
    }
    out.push_back(hull(fmt::format("within_run_ratio.rates.r{}", dead),
                       "slope(log det+) / slope(log lambda_min+) within a run for dead scales tau^(1, 1.5, 2, 2.5): a "
                       "lower bound of r",
                       values, predicted[dead], 0.02));
  }
}

struct Tally {
  std::int64_t right = 0, wrong = 0, abstained = 0, runs = 0, runs_right = 0;
  std::int64_t all() const { return right + wrong + abstained; }
};

Tally tally(const std::vector<const Path*>& paths) {
  Tally result;
  for (const Path* path : paths) {
    bool all_right = true;
    for (const dds::DecayCount& count : path->counts) {
      if (!applies(*path, count.series)) continue;
      const bool right = count.count == path->dead;
      result.right += right;
      result.wrong += count.count && !right;
      result.abstained += !count.count;
      all_right = all_right && right;
    }
    ++result.runs;
    result.runs_right += all_right;
  }
  return result;
}

Claim share_right(std::string id, const std::string& of, const std::vector<const Path*>& paths) {
  const Tally t = tally(paths);
  const std::string statement = fmt::format(
      "share of series whose count of dying directions is r, {}: {} right, {} wrong, {} without a count; all series "
      "right in {} of {} runs (Wilson's interval over series; those of one run are not independent)",
      of, t.right, t.wrong, t.abstained, t.runs_right, t.runs);
  Claim claim = claim_of(std::move(id), statement,
                         t.all() == 0 ? std::nullopt : std::optional(dds::experiments::wilson(t.right, t.all())));
  claim.predicted = 1;
  claim.goal_low = 0.95;
  return claim;
}

Claim wrong_counts(std::string id, const std::string& of, const std::vector<const Path*>& paths) {
  const Tally t = tally(paths);
  const std::string statement =
      fmt::format("series with a count that is not r, {}: {} right, {} without a count, in {} runs", of, t.right,
                  t.abstained, t.runs);
  Claim claim = at_most(claim_of(std::move(id), statement, dds::experiments::exactly(static_cast<double>(t.wrong))), 0);
  claim.predicted = 0;
  return claim;
}

void counts(const Study& study, std::vector<Claim>& out) {
  std::vector<const Path*> constructed, planted;
  std::map<std::string, std::vector<const Path*>> by_family;
  for (const Path& path : study.paths()) {
    if (path.depth == 0) {
      planted.push_back(&path);
      by_family[path.family].push_back(&path);
    } else if (path.family == "equal" || path.family == "amplitudes" || path.family == "rates") {
      constructed.push_back(&path);
      by_family[path.family].push_back(&path);
    }
  }
  out.push_back(share_right("count_constructed", "constructed sweeps, equal and unequal rates", constructed));
  out.push_back(share_right("count_trained", "trained deep linear networks, from their logs", study.of("trained")));
  out.push_back(share_right("count_planted", "networks that are not linear, with r planted", planted));
  for (const auto& [family, paths] : by_family) {
    out.push_back(
        share_right(fmt::format("{}.{}", paths.front()->depth == 0 ? "count_planted" : "count_constructed", family),
                    family, paths));
    out.back().goal_low.reset();  // too few series for an interval that narrow
  }
  out.push_back(wrong_counts("wrong_counts.jitter", "layers that start unequally", study.of("jitter")));
  out.push_back(wrong_counts("wrong_counts.strong_jitter",
                             "layers that start so unequally that a direction may freeze almost where it starts",
                             study.of("strong_jitter")));
  out.push_back(wrong_counts("wrong_counts.noiseless", "training without noise", study.of("noiseless")));
  std::vector<const Path*> all;
  for (const Path& path : study.paths()) all.push_back(&path);
  out.push_back(wrong_counts("wrong_counts.all", "everything that was run", all));
}

/// The two ways in which the identity fails, so that it is seen to.
void failures(const Study& study, std::vector<Claim>& out) {
  for (const char* family : {"jitter", "strong_jitter", "noiseless"}) {
    for (const char* kind : {"exact", "empirical"}) {
      for (const std::int64_t depth : kDepths) {
        std::vector<double> values;
        for (const Path* path : study.of(family, depth, 2)) {
          for (const Path* one : study.of("trained", depth, 1)) {
            if (one->seed != path->seed) continue;
            const auto a = slope(*path, fisher_at(layer_name(1), kind), log_volume);
            const auto b = slope(*one, fisher_at(layer_name(1), kind), log_volume);
            if (a && b) values.push_back(a->slope / b->slope);
          }
        }
        Claim claim = over_seeds(
            fmt::format("failure.volume_ratio.{}.{}.L{}.r2", family, kind, depth),
            fmt::format("slope of log det+(G_1) of the {} Fisher at r = 2 over that of the trained networks at r = 1: "
                        "where the identity need not hold",
                        kind),
            values, 2, 0);
        claim.goal_low = claim.goal_high = std::nullopt;
        out.push_back(std::move(claim));
      }
    }
  }
}

}  // namespace

std::vector<Claim> claims(const Study& study) {
  std::vector<Claim> out;
  exponents(study, out);
  ratios(study, out);
  unequal_rates(study, out);
  counts(study, out);
  failures(study, out);
  return out;
}

}  // namespace volume_identity
