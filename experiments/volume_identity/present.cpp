#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "experiments/harness/networks.hpp"
#include "experiments/volume_identity/study.hpp"

namespace volume_identity {

namespace ex = dds::experiments;
using ex::layer_name;
using ex::number;
using nlohmann::json;

namespace {

// ---- tables ----

constexpr std::pair<const char*, Observable> kObservables[] = {{"log det+", log_volume},
                                                               {"log lambda_min+", log_lambda_min}};

ex::Table slopes(const Study& study) {
  ex::Table table{{"family", "L", "r", "seed", "layer", "side", "fisher", "observable", "points", "slope", "low",
                   "high", "predicted"},
                  {}};
  for (const Path& path : study.paths()) {
    for (const dds::DecayCount& count : path.counts) {
      if (!applies(path, count.series)) continue;
      for (const auto& [name, observable] : kObservables) {
        const auto fit = slope(path, count.series, observable);
        if (!fit) continue;
        // In tau, or in tau^L where that is the scale; equal rates, G or X of a layer l: 2 (L - l) or 2 l a direction.
        json predicted;
        if (path.depth > 0 && path.family != "rates" && path.family.find("jitter") == std::string::npos) {
          const double l = std::stod(count.series.layer.substr(7)) + 1, depth = static_cast<double>(path.depth);
          const double one = (count.series.side == dds::Side::Fisher ? 2 * (depth - l) : 2 * l);
          const bool power = path.family == "trained" || path.family == "noiseless";
          predicted = one * (observable == log_volume ? static_cast<double>(path.dead) : 1.0) / (power ? depth : 1.0);
        }
        table.rows.push_back({path.family, path.depth, path.dead, path.seed, count.series.layer,
                              std::string(to_string(count.series.side)), fisher_text(count.series), name, fit->n,
                              fit->slope, fit->low, fit->high, predicted});
      }
    }
  }
  return table;
}

ex::Table counts(const Study& study) {
  ex::Table table{{"family", "L", "r", "seed", "layer", "side", "fisher", "applies", "status", "count", "low", "high",
                   "sunk", "volume_ratio", "decades", "first_step", "last_step", "statement"},
                  {}};
  for (const Path& path : study.paths()) {
    for (const dds::DecayCount& c : path.counts) {
      table.rows.push_back({path.family, path.depth, path.dead, path.seed, c.series.layer,
                            std::string(to_string(c.series.side)), fisher_text(c.series), applies(path, c.series),
                            std::string(to_string(c.status)), c.count ? json(*c.count) : json(), c.low, c.high, c.sunk,
                            number(c.volume_ratio), number(c.decades), c.first_step, c.last_step, c.statement()});
    }
  }
  return table;
}

/// Counts by family: right, wrong, none.
ex::Table rates_of_right_counts(const Study& study) {
  std::map<std::string, std::array<std::int64_t, 3>> tally;
  for (const Path& path : study.paths()) {
    for (const dds::DecayCount& c : path.counts) {
      if (applies(path, c.series)) ++tally[path.family][!c.count ? 2 : *c.count == path.dead ? 0 : 1];
    }
  }
  ex::Table table{{"family", "series", "right", "wrong", "no count", "share right"}, {}};
  for (const auto& [family, t] : tally) {
    const std::int64_t all = t[0] + t[1] + t[2];
    table.rows.push_back({family, all, t[0], t[1], t[2], static_cast<double>(t[0]) / static_cast<double>(all)});
  }
  return table;
}

// ---- what each observable says of r ----

/// A number that could be taken for r, from one run's G_1 and, where it takes one, the run at r = 1.
struct Reader {
  const char* name;
  std::optional<double> (*read)(const Study&, const Path&, const dds::SeriesId&);
};

std::optional<double> slope_ratio(const Study& study, const Path& path, const dds::SeriesId& series,
                                  Observable observable) {
  for (const Path* one : study.of(path.family == "rates" ? "equal" : path.family, path.depth, 1)) {
    if (one->seed != path.seed) continue;
    const auto a = slope(path, series, observable), b = slope(*one, series, observable);
    if (a && b) return a->slope / b->slope;
  }
  return std::nullopt;
}

/// By how much a reading falls from the first one to the last.
template <class Value>
std::optional<double> fall(const Path& path, const dds::SeriesId& series, const Value& value) {
  std::optional<double> first, last;
  for (const dds::Signature& signature : path.signatures) {
    if (dds::series_of(signature) != series) continue;
    last = value(signature);
    if (!first) first = last;
  }
  return first && last ? std::optional(*first - *last) : std::nullopt;
}

using Series = const dds::SeriesId&;
const Reader kReaders[] = {
    {"λ_min⁺: slope over that of r = 1",
     [](const Study& s, const Path& p, Series id) { return slope_ratio(s, p, id, log_lambda_min); }},
    {"σ_min: slope over that of r = 1",
     [](const Study& s, const Path& p, Series id) {
       return slope_ratio(s, p, id, [](const dds::Signature& x) { return std::log10(*x.sigma_min); });
     }},
    {"log det⁺: slope over that of r = 1",
     [](const Study& s, const Path& p, Series id) { return slope_ratio(s, p, id, log_volume); }},
    {"slope(log det⁺) / slope(log λ_min⁺), one run",
     [](const Study&, const Path& p, Series id) { return p.count(id) ? p.count(id)->volume_ratio : std::nullopt; }},
    {"count of decaying eigenvalues, one run",
     [](const Study&, const Path& p, Series id) -> std::optional<double> {
       const dds::DecayCount* count = p.count(id);
       return count && count->count ? std::optional(static_cast<double>(*count->count)) : std::nullopt;
     }},
    {"effective rank: fall over the run",
     [](const Study&, const Path& p, Series id) {
       return fall(p, id, [](const auto& s) { return *s.effective_rank; });
     }},
    {"stable rank: fall over the run",
     [](const Study&, const Path& p, Series id) { return fall(p, id, [](const auto& s) { return *s.stable_rank; }); }},
    {"numerical rank: fall over the run",
     [](const Study&, const Path& p, Series id) {
       return fall(p, id, [](const auto& s) { return static_cast<double>(*s.rank); });
     }},
};

ex::Table observables(const Study& study) {
  ex::Table table{{"family", "Fisher of G_1", "observable", "r = 1", "r = 2", "r = 3", "r = 4", "runs", "rounds to r"},
                  {}};
  for (const char* family : {"equal", "rates", "trained"}) {
    for (const char* kind : {"exact", "empirical"}) {
      for (const Reader& reader : kReaders) {
        std::vector<json> row{family, kind, reader.name};
        std::int64_t runs = 0, right = 0;
        for (std::int64_t dead = 1; dead <= kMostDead; ++dead) {
          std::vector<double> values;
          for (const Path* path : study.of(family, 0, dead)) {
            const auto value = reader.read(study, *path, fisher_at(layer_name(1), kind));
            ++runs;
            if (!value) continue;
            right += std::abs(*value - static_cast<double>(dead)) < 0.5;
            values.push_back(*value);
          }
          row.push_back(values.empty() ? json() : json(ex::average(values)));
        }
        row.push_back(runs);
        row.push_back(static_cast<double>(right) / static_cast<double>(runs));
        table.rows.push_back(std::move(row));
      }
    }
  }
  return table;
}

// ---- figures ----

/// Points of one series and the line fitted to those in the window.
void add_curves(ex::Panel& panel, const Path& path, const dds::SeriesId& series, Observable observable,
                const std::string& name, int colour) {
  const Points all = points(path, series, observable, 0, std::numeric_limits<double>::infinity());
  ex::Curve dots{name, {}, all.y, colour, false, true, false};
  for (const double x : all.x) dots.x.push_back(std::pow(10, x));
  panel.curves.push_back(std::move(dots));
  const auto fit = slope(path, series, observable);
  if (!fit) return;
  ex::Curve line{"", {}, {}, ex::kInk, true, false, true};
  const auto [low, high] = std::minmax_element(all.x.begin(), all.x.end());
  for (const double x : {std::max(*low, std::log10(path.low)), std::min(*high, std::log10(path.high))}) {
    line.x.push_back(std::pow(10, x));
    line.y.push_back(fit->intercept + fit->slope * x);
  }
  panel.curves.push_back(std::move(line));
}

ex::Figure over_scale(const Study& study, const std::string& family, const std::string& kind, Observable observable,
                      std::string title, std::string caption) {
  const bool training = family == "trained";
  ex::Figure figure{std::move(title),
                    std::move(caption),
                    training ? "τ<sup>L</sup>" : "τ",
                    observable == log_volume ? "log<sub>10</sub> det⁺(G<sub>1</sub>)"
                                             : "log<sub>10</sub> λ<sub>min</sub>⁺(G<sub>1</sub>)",
                    true,
                    false,
                    {}};
  for (const std::int64_t depth : kDepths) {
    ex::Panel panel{fmt::format("L = {}", depth), {}};
    std::string slopes;
    for (std::int64_t dead = 1; dead <= kMostDead; ++dead) {
      const auto paths = study.of(family, depth, dead);
      if (paths.empty()) continue;
      add_curves(panel, *paths.front(), fisher_at(layer_name(1), kind), observable, fmt::format("r = {}", dead),
                 static_cast<int>(dead) - 1);
      if (const auto fit = slope(*paths.front(), fisher_at(layer_name(1), kind), observable))
        slopes += fmt::format("{}{:.2f}", slopes.empty() ? "slopes " : ", ", fit->slope);
    }
    panel.title += "  " + slopes;
    figure.panels.push_back(std::move(panel));
  }
  return figure;
}

ex::Figure failures(const Study& study) {
  ex::Figure figure{
      "Where the identity fails, beside where it holds (r = 2)",
      "Upper row: the true Fisher; lower row: the empirical one. Layers that start unequally (jitter) keep "
      "their differences, so that some stop before they reach zero; without noise the empirical Fisher "
      "dies with the residual as a whole, and its slope counts nothing. One seed.",
      "τ<sup>L</sup>",
      "log<sub>10</sub> det⁺(G<sub>1</sub>)",
      true,
      false,
      {}};
  for (const char* kind : {"exact", "empirical"}) {
    for (const std::int64_t depth : kDepths) {
      ex::Panel panel{fmt::format("L = {}, {}", depth, kind), {}};
      int colour = 0;
      for (const char* family : {"trained", "jitter", "strong_jitter", "noiseless"}) {
        const auto paths = study.of(family, depth, 2);
        if (!paths.empty())
          add_curves(panel, *paths.front(), fisher_at(layer_name(1), kind), log_volume, family, colour);
        ++colour;
      }
      figure.panels.push_back(std::move(panel));
    }
  }
  return figure;
}

/// All eigenvalues of one series over the steps of its log: what the count is read from.
ex::Panel eigenvalues(const Path& path, const dds::SeriesId& series) {
  const dds::DecayCount* count = path.count(series);
  ex::Panel panel{fmt::format("{}: count {}", path.family,
                              count && count->count ? fmt::format("{}", *count->count)
                                                    : std::string(count ? to_string(count->status) : "-")),
                  {}};
  std::vector<const dds::Signature*> readings;
  for (const dds::Signature& signature : path.signatures) {
    if (dds::series_of(signature) == series && !signature.spectrum.empty()) readings.push_back(&signature);
  }
  const std::size_t k = readings.empty() ? 0 : readings.front()->spectrum.size();
  for (std::size_t j = 0; j < k; ++j) {
    const bool lowest = count && static_cast<std::int64_t>(j) >= count->fixed_rank - path.dead;
    ex::Curve curve{lowest ? "the r smallest" : "the others", {}, {}, lowest ? 1 : ex::kGrey, true, false, false};
    for (const dds::Signature* signature : readings) {
      if (!(signature->spectrum[j] > *signature->floor)) continue;
      curve.x.push_back(static_cast<double>(signature->step));
      curve.y.push_back(2 * std::log10(signature->spectrum[j]) - std::log10(static_cast<double>(*signature->rows)));
    }
    panel.curves.push_back(std::move(curve));
  }
  return panel;
}

ex::Figure what_is_counted(const Study& study) {
  ex::Figure figure{"What the count is read from: eigenvalues over steps",
                    "One seed of each family, r = 2 (deep linear networks: r = 3 of L = 4, G_1). Each line is an "
                    "eigenvalue, by its order. A direction dies if its line keeps falling with the lowest one.",
                    "step of the log",
                    "log<sub>10</sub> λ",
                    false,
                    false,
                    {}};
  for (const auto& [family, kind] :
       {std::pair("trained", "exact"), {"trained", "empirical"}, {"noiseless", "empirical"}}) {
    const auto paths = study.of(family, 4, family == std::string("trained") ? 3 : 2);
    if (paths.empty()) continue;
    figure.panels.push_back(eigenvalues(*paths.front(), fisher_at(layer_name(1), kind)));
    figure.panels.back().title += fmt::format(" ({})", kind);
  }
  for (const auto& [plant, name] : {std::pair(Plant::ReluDying, "relu_dying"),
                                    {Plant::ReluDuplicate, "relu_duplicate"},
                                    {Plant::HeadLowRank, "head_low_rank"}}) {
    for (const char* how : {"swept", "trained"}) {
      const auto paths = study.of(fmt::format("{}.{}", name, how), 0, 2);
      if (!paths.empty()) figure.panels.push_back(eigenvalues(*paths.front(), planted_series(plant)[1]));
    }
  }
  return figure;
}

}  // namespace

void present(const Study& study, const std::filesystem::path& out) {
  const ex::Table table = observables(study);
  write_csv(out / "slopes.csv", slopes(study));
  write_csv(out / "counts.csv", counts(study));
  write_csv(out / "observables.csv", table);
  ex::Page page("The volume identity");
  page.add(over_scale(study, "equal", "exact", log_volume, "Constructed: the volume counts",
                      "Dots: readings along τ; dashed: fitted lines. Predicted slopes: 2 (L − 1) r. One seed."));
  page.add(over_scale(
      study, "equal", "exact", log_lambda_min, "Constructed: the smallest eigenvalue is blind",
      "The same networks: whatever r is, λ_min⁺ falls with slope 2 (L − 1), and the lines lie on one another."));
  page.add(over_scale(
      study, "trained", "exact", log_volume, "Trained: the volume of the true Fisher",
      "Mini-batch SGD. Lines are fitted where 0.005 ≤ τ^L ≤ 0.1. Predicted slopes: 2 (L − 1) r / L. One seed."));
  page.add(
      over_scale(study, "trained", "empirical", log_volume, "Trained: the volume of the empirical Fisher",
                 "The same trainings, gradients of the data's own labels: while τ^L is not small against the noise "
                 "of 0.1 the residual's own fall adds to every slope."));
  page.add(failures(study));
  page.add(what_is_counted(study));
  page.add("What each observable says of r",
           "Means over depths and seeds, and the share of runs in which the number rounds to r. \"rates\": dead scales "
           "τ, τ^1.5, τ^2, τ^2.5; its ratios are to the run with r = 1.",
           table);
  page.add("Counts", "Series on which r is known, by family.", rates_of_right_counts(study));
  page.write(out / "figures.html");
}

}  // namespace volume_identity
