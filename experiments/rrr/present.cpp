#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "experiments/rrr/study.hpp"

namespace rrr {

namespace ex = dds::experiments;
using ex::number;
using nlohmann::json;

namespace {

json value_of(const std::optional<Interval>& interval) { return interval ? json(interval->value) : json(); }
json low_of(const std::optional<Interval>& interval) { return interval ? json(interval->low) : json(); }
json high_of(const std::optional<Interval>& interval) { return interval ? json(interval->high) : json(); }
const char* name_of(Loss loss) { return loss == Loss::Population ? "population" : "empirical"; }

/// A group of cells with one loss.
struct Group {
  const char* name;
  std::vector<Cell> cells;
  Loss loss;
};
std::vector<Group> groups(bool large) {
  return {{"the paper's cells", paper_cells(), Loss::Population},
          {"the paper's cells, noisy data", paper_cells(), Loss::Empirical},
          {"all four cases", case_cells(), Loss::Population},
          {"deep linear", deep_cells(large), Loss::Population},
          {"normal crossings", crossing_cells(), Loss::Population}};
}

json case_of(const Cell& cell) {
  if (!cell.two_layers()) return {};
  return static_cast<int>(dds::reduced_rank_case(cell.inputs(), cell.hidden(), cell.outputs(), cell.rank));
}

// ---- tables ----

ex::Table all_estimates(const Study& study) {
  ex::Table table{{"cell", "loss", "seed", "lambda", "m", "lambda_hat", "low", "high", "at_gamma", "at_gamma_error",
                   "converged", "gamma", "n_beta", "step_size", "draws", "gradients", "seconds", "verdict"},
                  {}};
  for (std::size_t i = 0; i < study.estimates.size(); ++i) {
    const Estimate& e = study.estimates[i];
    const auto exact = e.task.cell.exact();
    // At the minimiser of noisy data the exact value at gamma is that of another point.
    const bool population = e.task.loss == Loss::Population;
    const Reference& reference = study.references[i];
    table.rows.push_back({e.task.cell.name(), name_of(e.task.loss), e.task.seed, exact.lambda, exact.multiplicity,
                          number(e.lambda), number(e.low), number(e.high), population ? json(reference.lambda) : json(),
                          population ? json(reference.standard_error) : json(), e.converged, e.gamma, e.n_beta,
                          e.step_size, e.draws, e.gradients, e.seconds, e.verdict});
  }
  return table;
}

ex::Table by_cell(const Study& study, const std::vector<Group>& groups) {
  ex::Table table{{"group", "cell", "weights", "case", "lambda", "m", "seeds", "converged", "inside own interval",
                   "lambda_hat / lambda", "low", "high", "lambda_hat / exact at gamma", "low ", "high ",
                   "exact at gamma / lambda", "lambda_hat / lambda, unconverged too", "seconds an estimate"},
                  {}};
  for (const Group& group : groups) {
    const Ratios exact = ratios(study, group.cells, group.loss, Against::ClosedForm);
    const Ratios sampler = ratios(study, group.cells, group.loss, Against::Reference);
    for (std::size_t c = 0; c < group.cells.size(); ++c) {
      const Cell& cell = group.cells[c];
      const auto [lambda, multiplicity] = cell.exact();
      std::int64_t converged = 0, inside = 0;
      double seconds = 0, at_gamma = 0, unconverged_too = 0;
      const auto all = study.of(cell, group.loss);
      if (all.empty()) continue;
      for (const std::size_t i : all) {
        const Estimate& e = study.estimates[i];
        converged += e.converged;
        inside += e.converged && e.low && e.high && *e.low <= lambda && lambda <= *e.high;
        unconverged_too += e.lambda.value_or(NAN) / lambda / static_cast<double>(all.size());
        seconds += e.seconds / static_cast<double>(all.size());
        at_gamma += study.references[i].lambda / lambda / static_cast<double>(all.size());
      }
      const bool population = group.loss == Loss::Population;
      static const std::optional<Interval> kNone;
      const std::optional<Interval>& ratio = population ? sampler.by_cell[c] : kNone;
      table.rows.push_back({group.name, cell.name(), cell.parameters(), case_of(cell), lambda, multiplicity, all.size(),
                            converged, inside, value_of(exact.by_cell[c]), low_of(exact.by_cell[c]),
                            high_of(exact.by_cell[c]), value_of(ratio), low_of(ratio), high_of(ratio),
                            population ? json(at_gamma) : json(),
                            std::isfinite(unconverged_too) ? json(unconverged_too) : json(), seconds});
    }
  }
  return table;
}

ex::Table all_readings(const Study& study) {
  ex::Table table{{"minimiser", "seed", "cell", "lambda"}, {}};
  for (const auto& [name, unused] : study.readings.front().values) table.columns.push_back(name);
  const std::vector<Cell> cells = paper_cells();
  for (const Reading& reading : study.readings) {
    std::vector<json> row{reading.minimiser, reading.seed, cells[reading.cell].name(),
                          cells[reading.cell].exact().lambda};
    for (const auto& [unused, value] : reading.values) row.push_back(value);
    table.rows.push_back(std::move(row));
  }
  return table;
}

ex::Table all_correlations(const std::vector<Correlation>& correlations) {
  ex::Table table{{"observable", "minimiser", "mean over seeds", "low", "high", "seed-averaged", "low ", "high ",
                   "given H + r", "low  ", "high  "},
                  {}};
  for (const Correlation& c : correlations) {
    std::vector<json> row{c.observable, c.minimiser};
    for (const Interval& interval : {c.over_seeds, c.seed_averaged, c.given_capacity}) {
      row.insert(row.end(), {interval.value, interval.low, interval.high});
    }
    table.rows.push_back(std::move(row));
  }
  return table;
}

// ---- figures ----

/// lambda_hat over lambda, with the line on which they are equal. What did not converge is grey.
ex::Figure estimates_figure(const Study& study, const std::vector<Group>& groups) {
  ex::Figure figure{
      "Estimates over the closed form",
      "Every dot is an estimate with its 95 % interval (vertical line); grey: the estimator called it not "
      "converged. Orange: the exact value at the same γ. Dashed: the closed form.",
      "λ",
      "λ̂",
      true,
      true,
      {}};
  for (const Group& group : groups) {
    ex::Panel panel{group.name, {}};
    ex::Curve converged{"converged", {}, {}, 0, false, true, false},
        refused{"not converged", {}, {}, ex::kGrey, false, true, false};
    ex::Curve exact{"exact at that γ", {}, {}, 1, false, true, false};
    double least = 1e300, most = 0;
    for (const Cell& cell : group.cells) {
      const double lambda = cell.exact().lambda;
      least = std::min(least, lambda);
      most = std::max(most, lambda);
      for (const std::size_t i : study.of(cell, group.loss)) {
        const Estimate& e = study.estimates[i];
        if (group.loss == Loss::Population) {
          exact.x.push_back(lambda);
          exact.y.push_back(study.references[i].lambda);
        }
        if (!e.lambda || *e.lambda <= 0) continue;
        ex::Curve& dots = e.converged ? converged : refused;
        dots.x.push_back(lambda);
        dots.y.push_back(*e.lambda);
        if (e.low && e.high)
          panel.curves.push_back({"", {lambda, lambda}, {*e.low, *e.high}, dots.color, true, false, false});
      }
    }
    panel.curves.push_back(std::move(refused));
    panel.curves.push_back(std::move(converged));
    panel.curves.push_back(std::move(exact));
    panel.curves.push_back({"λ̂ = λ", {least, most}, {least, most}, ex::kInk, true, false, true});
    figure.panels.push_back(std::move(panel));
  }
  return figure;
}

/// One seed's readings over lambda, one curve an H.
ex::Figure readings_figure(const Study& study, const std::string& minimiser, std::string title, std::string caption) {
  ex::Figure figure{std::move(title), std::move(caption), "λ", "", false, false, {}};
  const std::vector<Cell> cells = paper_cells();
  const std::tuple<const char*, const char*, bool> observables[] = {
      {"sigma_min_h2", "log<sub>10</sub> σ<sub>min</sub>(X<sub>h2</sub>)", true},
      {"log_lambda_min_h2", "log<sub>10</sub> λ<sub>min</sub>⁺(G<sub>h2</sub>)", false},
      {"logdet_h2", "log det⁺(G<sub>h2</sub>)", false}};
  for (const auto& [observable, name, logarithm] : observables) {
    ex::Panel panel{name, {}};
    for (std::int64_t hidden = 2; hidden <= 5; ++hidden) {
      ex::Curve curve{fmt::format("H = {}", hidden), {}, {}, static_cast<int>(hidden) - 2, true, true, false};
      for (const Reading& reading : study.readings) {
        if (reading.minimiser != minimiser || reading.seed != study.readings.front().seed) continue;
        if (cells[reading.cell].hidden() != hidden) continue;
        const double value = reading.values.at(observable);
        if (logarithm && !(value > 0)) continue;
        curve.x.push_back(cells[reading.cell].exact().lambda);
        curve.y.push_back(logarithm ? std::log10(value) : value);
      }
      panel.curves.push_back(std::move(curve));
    }
    figure.panels.push_back(std::move(panel));
  }
  return figure;
}

/// How the correlations depend on when gradient descent is stopped.
ex::Figure stopping_figure(const std::vector<Correlation>& correlations) {
  ex::Figure figure{"When gradient descent is stopped",
                    "Mean over seeds of the rank correlation with λ, with its interval (vertical line). Dashed: at the "
                    "exact minimiser.",
                    "steps",
                    "Spearman's ρ",
                    true,
                    false,
                    {}};
  const double first = static_cast<double>(kDescentSteps.front()), last = static_cast<double>(kDescentSteps.back());
  for (const char* observable : {"sigma_min_h2", "log_lambda_min_h2", "logdet_h2"}) {
    ex::Panel panel{observable, {}};
    ex::Curve curve{"stopped", {}, {}, 0, true, true, false};
    for (const Correlation& c : correlations) {
      if (c.observable != observable) continue;
      if (c.minimiser == kExact)
        panel.curves.push_back(
            {"exact", {first, last}, {c.over_seeds.value, c.over_seeds.value}, 1, true, false, true});
      for (const std::int64_t steps : kDescentSteps) {
        if (c.minimiser != steps_name(steps)) continue;
        const double x = static_cast<double>(steps);
        curve.x.push_back(x);
        curve.y.push_back(c.over_seeds.value);
        panel.curves.push_back({"", {x, x}, {c.over_seeds.low, c.over_seeds.high}, 0, true, false, false});
      }
    }
    panel.curves.push_back(std::move(curve));
    figure.panels.push_back(std::move(panel));
  }
  return figure;
}

}  // namespace

void present(const Study& study, const ex::RunOptions& options) {
  const std::filesystem::path& out = options.out;
  const std::vector<Group> all = groups(options.full());
  const std::vector<Correlation> found = correlations(study);
  const ex::Table cells = by_cell(study, all), table = all_correlations(found);
  write_csv(out / "estimates.csv", all_estimates(study));
  write_csv(out / "cells.csv", cells);
  write_csv(out / "readings.csv", all_readings(study));
  write_csv(out / "correlations.csv", table);
  ex::Page page("Reduced-rank regression against its closed form");
  page.add(estimates_figure(study, all));
  page.add(
      "Cells",
      "Means over the seeds whose estimate converged. \"Exact at gamma\" is lambda_hat without a sampler's error, by "
      "Gibbs sampling or quadrature; its distance to lambda is what gamma and, for m > 1, the logarithm of n take "
      "away.",
      cells);
  page.add(readings_figure(study, kExact, "Signatures at the exact minimiser",
                           "One seed, the same noise for all cells. The points near 1e-13 of σ_min have fewer hidden "
                           "units than outputs: they are rounding noise around zero."));
  page.add(readings_figure(study, steps_name(400), "Signatures after 400 steps of gradient descent", "The same seed."));
  page.add(readings_figure(study, kIndependent, "Signatures at the exact minimiser, noise drawn for every cell",
                           "What the Fisher side shows between cells is then mostly the noise."));
  page.add(stopping_figure(found));
  page.add(
      "Rank correlations with lambda",
      "Over the 14 cells. The paper: σ_min(X_h2) +0.895, λ_min⁺(G_h2) −0.978, log det⁺(G_h2) −0.947. \"Given H + r\": "
      "with the network's capacity held fixed. Intervals: bootstrap over seeds.",
      table);
  page.write(out / "figures.html");
}

}  // namespace rrr
