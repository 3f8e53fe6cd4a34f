#include "experiments/modular_addition/study.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "src/theory/least_squares.hpp"

namespace modular_addition {

namespace {

constexpr std::int64_t kLeastFitted = 16;
constexpr double kMemorised = 0.99, kGeneralised = 0.9;
constexpr std::int64_t kLeastDelay = 300;
constexpr double kOldTolerance = 1e-10;

const Checkpoint* find(const Training& training, const std::string& name) {
  for (const Checkpoint& c : training.checkpoints) {
    if (c.name == name) return &c;
  }
  return nullptr;
}

const Reading& reading(const Checkpoint& checkpoint, const std::string& site, const std::string& side,
                       const std::string& fisher) {
  for (const Reading& r : checkpoint.readings) {
    if (r.site == site && r.side == side && r.fisher == fisher) return r;
  }
  throw std::logic_error(fmt::format("no reading of {} {} {}", site, side, fisher));
}

const Reading& fisher_at(const Checkpoint& checkpoint, const std::string& site) {
  return reading(checkpoint, site, "fisher", "empirical");
}

double log10_lambda(const Reading& r, double sigma) {
  return 2 * std::log10(sigma) - std::log10(static_cast<double>(r.rows));
}

double log10_trace(const Reading& r) {
  const double largest = r.spectrum.front();
  double squares = 0;  // scaled: residuals of 1e-10 would leave nothing of them
  for (const double s : r.spectrum) squares += (s / largest) * (s / largest);
  return log10_lambda(r, largest) + std::log10(squares);
}

/// Of the singular values above `cut`.
double log10_lambda_min(const Reading& r, double cut) {
  const auto end = std::find_if(r.spectrum.begin(), r.spectrum.end(), [&](double s) { return s <= cut; });
  return end == r.spectrum.begin() ? NAN : log10_lambda(r, *(end - 1));
}

double lambda_min(const Checkpoint& c, const std::string& site) {
  const Reading& r = fisher_at(c, site);
  return log10_lambda_min(r, r.floor);
}

double normalised(const Checkpoint& c, const std::string& site) {
  return lambda_min(c, site) - log10_trace(fisher_at(c, site));
}

/// (width, value) of every training of the arm and seed that counts in the column.
std::vector<std::pair<double, double>> values(const Study& study, const Arm& arm, std::uint64_t seed,
                                              const Observable& observable, const Column& column) {
  std::vector<std::pair<double, double>> found;
  for (const std::int64_t width : arm.widths) {
    if (column.fitted && width < kLeastFitted) continue;
    const Checkpoint* checkpoint = find(study.of({&arm, width, seed}), column.checkpoint);
    if (!checkpoint) continue;
    const double value = observable.log10(*checkpoint);
    if (std::isfinite(value)) found.emplace_back(static_cast<double>(width), value);
  }
  return found;
}

double spread(const std::vector<std::pair<double, double>>& found) {
  if (found.size() < 2) return NAN;
  const auto [least, most] =
      std::minmax_element(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return most->second - least->second;
}

}  // namespace

std::vector<std::uint64_t> Study::seeds() const {
  std::set<std::uint64_t> found;
  for (const Training& t : trainings) found.insert(t.cell.seed);
  return {found.begin(), found.end()};
}

const Training& Study::of(const Cell& cell) const {
  const auto found =
      std::find_if(trainings.begin(), trainings.end(), [&](const Training& t) { return t.cell.name() == cell.name(); });
  if (found == trainings.end()) throw std::logic_error(fmt::format("no training {}", cell.name()));
  return *found;
}

// ---- what separates the widths ----

const std::vector<Observable>& table_observables() {
  static const std::vector<Observable> all = {
      {"lambda_min_mid", "lambda_min+(G) at resid_mid", [](const Checkpoint& c) { return lambda_min(c, "resid_mid"); }},
      {"lambda_min_over_trace_mid", "lambda_min+(G) / tr(G) at resid_mid",
       [](const Checkpoint& c) { return normalised(c, "resid_mid"); }},
      {"lambda_min_over_trace_post", "lambda_min+(G) / tr(G) at resid_post",
       [](const Checkpoint& c) { return normalised(c, "resid_post"); }},
      {"sigma_min_mid", "sigma_min(X) at resid_mid",
       [](const Checkpoint& c) { return std::log10(reading(c, "resid_mid", "activation", "").spectrum.back()); }},
  };
  return all;
}

Observable rank_capped(const Arm& arm) {
  return {"lambda_capped_over_trace_mid", "lambda_k(G) / tr(G) at resid_mid, k = min(d, p - 1)",
          [cap = static_cast<std::size_t>(arm.p - 1)](const Checkpoint& c) {
            const Reading& r = fisher_at(c, "resid_mid");
            return log10_lambda(r, r.spectrum[std::min(cap, r.spectrum.size()) - 1]) - log10_trace(r);
          }};
}

std::vector<Observable> observables(const Arm& arm) {
  std::vector<Observable> all = table_observables();
  all.push_back(rank_capped(arm));
  return all;
}

Observable with_tolerance(double tolerance) {
  return {fmt::format("lambda_min_mid_tolerance_{:.0e}", tolerance),
          fmt::format("lambda_min+(G) at resid_mid, eigenvalues above {:.0e} of the largest", tolerance),
          [tolerance](const Checkpoint& c) {
            const Reading& r = fisher_at(c, "resid_mid");
            return log10_lambda_min(r, std::sqrt(tolerance) * r.spectrum.front());
          }};
}

const std::vector<Column>& columns() {
  static const std::vector<Column> all = {
      {"init", "init", false}, {"matched", "matched", false}, {"end", "end", false}, {"end_fitted", "end", true}};
  return all;
}

std::vector<double> orders(const Study& study, const Arm& arm, const Observable& observable, const Column& column) {
  std::vector<double> result;
  for (const std::uint64_t seed : study.seeds()) result.push_back(spread(values(study, arm, seed, observable, column)));
  return result;
}

Parts parts(const Study& study, const Arm& arm) {
  const Column start{"init_fitted", "init", true}, end{"end", "end", false}, fitted{"end_fitted", "end", true};
  const Observable &raw = table_observables()[0], &normalised = table_observables()[1], capped = rank_capped(arm);
  Parts result;
  result.raw = orders(study, arm, raw, end);
  const std::vector<double> by_trace = orders(study, arm, normalised, end),
                            of_fitted = orders(study, arm, normalised, fitted),
                            capped_end = orders(study, arm, capped, fitted),
                            capped_start = orders(study, arm, capped, start),
                            tolerated = orders(study, arm, with_tolerance(kOldTolerance), end);
  for (std::size_t s = 0; s < result.raw.size(); ++s) {
    result.residual.push_back(result.raw[s] - by_trace[s]);
    result.misfit.push_back(by_trace[s] - of_fitted[s]);
    result.cap.push_back(of_fitted[s] - capped_end[s]);
    result.at_start.push_back(std::min(capped_start[s], capped_end[s]));
    result.genuine.push_back(capped_end[s] - result.at_start.back());
    result.tolerance.push_back(result.raw[s] - tolerated[s]);
  }
  return result;
}

std::vector<double> loss_swings(const Study& study, const Arm& arm) {
  std::vector<double> swings;
  for (const Training& t : study.trainings) {
    if (t.cell.arm != &arm || t.cell.width < kLeastFitted) continue;
    const std::vector<double>& loss = t.series.train_loss;
    const auto [least, most] = std::minmax_element(loss.end() - std::ssize(loss) / 4, loss.end());
    swings.push_back(std::log10(*most / *least));
  }
  return swings;
}

dds::RankCorrelation order_of_widths(const Study& study, const Arm& arm, const Observable& observable,
                                     const Column& column) {
  std::vector<double> widths, found;
  for (const std::uint64_t seed : study.seeds()) {
    for (const auto& [width, value] : values(study, arm, seed, observable, column)) {
      widths.push_back(width);
      found.push_back(value);
    }
  }
  return dds::spearman(found, widths);
}

namespace {

double slope(const std::vector<std::pair<double, double>>& points) {
  std::vector<double> x, y;
  for (const auto& [first, second] : points) {
    x.push_back(first);
    y.push_back(second);
  }
  const dds::CentredSums sums = dds::centred_sums(x, y);
  return sums.xy / sums.xx;
}

}  // namespace

Interval orders_a_doubling(const Study& study, const Arm& arm, const Observable& observable, const Column& column) {
  std::vector<double> slopes;
  for (const std::uint64_t seed : study.seeds()) {
    auto found = values(study, arm, seed, observable, column);
    for (auto& [width, value] : found) width = std::log2(width);
    slopes.push_back(slope(found));
  }
  return *dds::experiments::range_of(slopes);
}

Drift drift(const Study& study) {
  Drift result;
  for (const Followed& f : study.on_the_way) {
    std::vector<std::pair<double, double>> raw, normalised;
    for (std::size_t i = 0; i < f.step.size(); ++i) {
      if (2 * f.step[i] < f.step.back()) continue;
      const double thousands = static_cast<double>(f.step[i]) / 1000;
      raw.emplace_back(thousands, f.lambda_min[i]);
      normalised.emplace_back(thousands, f.lambda_min[i] - f.trace[i]);
    }
    result.raw.push_back(spread(raw));
    result.rate.push_back(slope(normalised));
  }
  return result;
}

// ---- grokking ----

std::vector<Grokking> grokkings(const Study& study) {
  const auto first = [](const Series& s, const std::vector<double>& accuracy,
                        double level) -> std::optional<std::int64_t> {
    const auto found = std::find_if(accuracy.begin(), accuracy.end(), [&](double a) { return a >= level; });
    if (found == accuracy.end()) return std::nullopt;
    return s.step[static_cast<std::size_t>(found - accuracy.begin())];
  };
  std::vector<Grokking> result;
  for (const Training& t : study.trainings) {
    const auto memorised = first(t.series, t.series.train_accuracy, kMemorised);
    const auto generalised = first(t.series, t.series.test_accuracy, kGeneralised);
    if (memorised && generalised && *generalised - *memorised >= kLeastDelay)
      result.push_back({&t, *memorised, *generalised});
  }
  return result;
}

std::vector<double> indicator(const Series& series, const std::string& name) {
  const auto logarithms = [](std::vector<double> values) {
    for (double& value : values) value = std::log10(value);
    return values;
  };
  if (name == "time") return {series.step.begin(), series.step.end()};
  if (name == "test_accuracy") return series.test_accuracy;
  if (name == "test_loss") return logarithms(series.test_loss);
  if (name == "train_loss") return logarithms(series.train_loss);
  if (name == "weight_norm") return series.weight_norm;
  return series.signature.at(name);
}

std::vector<std::string> indicators(const Study& study) {
  std::vector<std::string> names = {"time", "train_loss", "test_loss", "weight_norm"};
  for (const auto& [name, unused] : study.trainings.front().series.signature) names.push_back(name);
  return names;
}

namespace {

/// Step at which half of the way from the first to the last step of the window is covered, between two of the steps by
/// a straight line.
std::optional<double> half_way(const Grokking& g, const std::string& name) {
  const Series& series = g.training->series;
  const std::vector<double> values = indicator(series, name);
  const auto at = [&](std::int64_t step) {
    return static_cast<std::size_t>(std::lower_bound(series.step.begin(), series.step.end(), step) -
                                    series.step.begin());
  };
  const std::size_t first = at(g.memorised), last = at(g.generalised);
  if (values.size() <= last) return std::nullopt;
  for (std::size_t i = first; i <= last; ++i) {
    if (!std::isfinite(values[i])) return std::nullopt;
  }
  const double from = values[first], change = values[last] - from;
  if (change == 0) return std::nullopt;
  for (std::size_t i = first + 1; i <= last; ++i) {
    const double before = (values[i - 1] - from) / change, now = (values[i] - from) / change;
    if (now < 0.5) continue;
    const double share = (0.5 - before) / (now - before);
    return static_cast<double>(series.step[i - 1]) + share * static_cast<double>(series.step[i] - series.step[i - 1]);
  }
  return std::nullopt;
}

}  // namespace

std::optional<double> lead(const Grokking& grokking, const std::string& name) {
  const auto test = half_way(grokking, "test_accuracy"), other = half_way(grokking, name);
  if (!test || !other) return std::nullopt;
  return *test - *other;
}

// ---- Fourier modes ----

std::vector<Network> networks(const Study& study) {
  std::vector<Network> result;
  for (const Training& t : study.trainings) {
    const Checkpoint* end = find(t, "end");
    if (!end || t.cell.width < kLeastFitted) continue;
    const Modes& modes = end->modes;
    const std::vector<bool> learned = modes.learned();
    const auto count = static_cast<double>(std::count(learned.begin(), learned.end(), true));
    const auto width = static_cast<double>(t.cell.width);
    Network network{&t,
                    static_cast<std::int64_t>(count),
                    (1 - modes.dead_activation_dimension) * width,
                    (1 - modes.dead_fisher_dimension) * width,
                    0,
                    0,
                    modes.dead_activation_dimension};
    for (std::size_t k = 0; k < learned.size(); ++k) {
      const double others = static_cast<double>(learned.size()) - count;
      (learned[k] ? network.dead_share_learned : network.dead_share_unlearned) +=
          modes.dead_activation[k] / (learned[k] ? count : others);
    }
    result.push_back(network);
  }
  return result;
}

}  // namespace modular_addition
