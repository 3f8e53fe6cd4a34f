#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "experiments/harness/figures.hpp"
#include "experiments/modular_addition/study.hpp"

namespace modular_addition {

namespace ex = dds::experiments;
using ex::number;
using nlohmann::json;

namespace {

// ---- tables ----

ex::Table orders_table(const Study& study) {
  ex::Table table{{"arm", "reading", "column", "seed", "orders"}, {}};
  const std::vector<std::uint64_t> seeds = study.seeds();
  for (const Arm& arm : arms()) {
    std::vector<Observable> all = observables(arm);
    for (const double tolerance : {1e-14, 1e-12, 1e-10, 1e-8, 1e-6}) all.push_back(with_tolerance(tolerance));
    for (const Observable& observable : all) {
      for (const Column& column : columns()) {
        const std::vector<double> found = orders(study, arm, observable, column);
        for (std::size_t s = 0; s < seeds.size(); ++s)
          table.rows.push_back({arm.name, observable.title, column.key, seeds[s], number(found[s])});
      }
    }
  }
  return table;
}

ex::Table widths_table(const Study& study) {
  ex::Table table{{"arm", "d", "seed", "checkpoint", "step", "train loss", "test accuracy at the end"}, {}};
  for (const Observable& observable : table_observables()) table.columns.push_back("log10 " + observable.title);
  table.columns.push_back("seconds of a read");
  for (const Training& t : study.trainings) {
    for (const Checkpoint& c : t.checkpoints) {
      std::vector<json> row{t.cell.arm->name,
                            t.cell.width,
                            t.cell.seed,
                            c.name,
                            c.step,
                            number(c.loss),
                            number(t.series.test_accuracy.back())};
      for (const Observable& observable : table_observables()) row.push_back(number(observable.log10(c)));
      row.push_back(c.read_seconds);
      table.rows.push_back(std::move(row));
    }
  }
  return table;
}

ex::Table parts_table(const Study& study) {
  ex::Table table{{"arm", "seed", "raw", "residual", "misfit", "cap", "at start", "genuine", "beside: tolerance"}, {}};
  const std::vector<std::uint64_t> seeds = study.seeds();
  for (const Arm& arm : arms()) {
    const Parts p = parts(study, arm);
    for (std::size_t s = 0; s < seeds.size(); ++s) {
      table.rows.push_back({arm.name, seeds[s], number(p.raw[s]), number(p.residual[s]), number(p.misfit[s]),
                            number(p.cap[s]), number(p.at_start[s]), number(p.genuine[s]), number(p.tolerance[s])});
    }
  }
  return table;
}

ex::Table llc_table(const Study& study) {
  ex::Table table{{"arm", "d", "seed", "step", "kind", "gamma", "found", "lambda_hat", "low", "high", "converged",
                   "resolution", "|w-w*|/|w*|", "draws", "gradients", "seconds", "verdict"},
                  {}};
  for (std::size_t i = 0; i < study.tasks.size(); ++i) {
    const LlcTask& t = study.tasks[i];
    const LlcResult& r = study.estimates[i];
    table.rows.push_back({t.cell.arm->name, t.cell.width, t.cell.seed, t.step, to_string(t.kind), r.gamma, !t.gamma,
                          number(r.lambda), number(r.low), number(r.high), r.converged, r.resolution,
                          number(r.relative_distance), r.draws, r.gradients, r.seconds, r.verdict});
  }
  return table;
}

ex::Table grokking_table(const Study& study) {
  ex::Table table{{"arm", "d", "seed", "memorised", "generalised"}, {}};
  const std::vector<std::string> names = indicators(study);
  for (const std::string& name : names) table.columns.push_back("lead of " + name);
  for (const Grokking& g : grokkings(study)) {
    const Cell& cell = g.training->cell;
    std::vector<json> row{cell.arm->name, cell.width, cell.seed, g.memorised, g.generalised};
    for (const std::string& name : names) row.push_back(number(lead(g, name)));
    table.rows.push_back(std::move(row));
  }
  return table;
}

ex::Table modes_table(const Study& study) {
  ex::Table table{
      {"arm", "d", "seed", "learned frequencies", "live dimensions (activations)", "live dimensions (Fisher)",
       "dead share of unlearned modes", "of learned ones", "of a random direction"},
      {}};
  for (const Network& n : networks(study)) {
    const Cell& cell = n.training->cell;
    table.rows.push_back({cell.arm->name, cell.width, cell.seed, n.frequencies, n.live_activation, n.live_fisher,
                          number(n.dead_share_unlearned), number(n.dead_share_learned), n.chance});
  }
  return table;
}

// ---- figures ----

ex::Figure spectra_figure(const Study& study) {
  ex::Figure figure{"Spectra at the end",
                    "Singular values over their largest, one curve a width, first seed; dashed: the floor, below which "
                    "they are rounding noise.",
                    "number over d_model",
                    "σ / σ<sub>max</sub>",
                    false,
                    true,
                    {}};
  const std::uint64_t seed = study.seeds().front();
  for (const Arm& arm : arms()) {
    for (const auto& [side, fisher, name] :
         {std::tuple{"fisher", "empirical", "gradients"}, std::tuple{"activation", "", "activations"}}) {
      ex::Panel panel{fmt::format("arm {}, {} at resid_mid", arm.name, name), {}};
      int colour = 0;
      for (const std::int64_t width : arm.widths) {
        const Checkpoint& end = study.of({&arm, width, seed}).checkpoints.back();
        for (const Reading& r : end.readings) {
          if (r.site != "resid_mid" || r.side != side || r.fisher != fisher) continue;
          ex::Curve curve{fmt::format("d = {}", width), {}, {}, colour, true, false, false};
          for (std::size_t i = 0; i < r.spectrum.size(); ++i) {
            if (r.spectrum[i] <= 0) continue;
            curve.x.push_back(static_cast<double>(i + 1) / static_cast<double>(r.spectrum.size()));
            curve.y.push_back(r.spectrum[i] / r.spectrum.front());
          }
          panel.curves.push_back(std::move(curve));
          const double floor = r.floor / r.spectrum.front();
          panel.curves.push_back({"", {0, 1}, {floor, floor}, colour, true, false, true});
        }
        ++colour;
      }
      figure.panels.push_back(std::move(panel));
    }
  }
  return figure;
}

ex::Figure orders_figure(const Study& study) {
  ex::Figure figure{"Orders of magnitude over d_model",
                    "log10 of the largest over the smallest value over the widths, a point a seed: at initialisation "
                    "(1), at equal loss (2), at the end (3), at the end for d ≥ 16 (4).",
                    "where it is read",
                    "orders",
                    false,
                    false,
                    {}};
  for (const Arm& arm : arms()) {
    ex::Panel panel{fmt::format("arm {}", arm.name), {}};
    const std::vector<Observable> all = observables(arm);
    for (std::size_t o = 0; o < all.size(); ++o) {
      ex::Curve curve{all[o].title, {}, {}, static_cast<int>(o), false, true, false};
      for (std::size_t c = 0; c < columns().size(); ++c) {
        for (const double value : orders(study, arm, all[o], columns()[c])) {
          curve.x.push_back(static_cast<double>(c + 1) + 0.1 * (static_cast<double>(o) - 2));
          curve.y.push_back(value);
        }
      }
      panel.curves.push_back(std::move(curve));
    }
    figure.panels.push_back(std::move(panel));
  }
  return figure;
}

ex::Figure parts_figure(const Study& study) {
  ex::Figure figure{"What the orders of λ_min⁺(G) at resid_mid are made of",
                    "What is left, a line a seed: all of it (0), each width divided by its tr(G) (1), widths that fit "
                    "(2), at most p − 1 directions (3), less what was there at initialisation (4).",
                    "step of the analysis",
                    "orders left",
                    false,
                    false,
                    {}};
  for (const Arm& arm : arms()) {
    ex::Panel panel{fmt::format("arm {}", arm.name), {}};
    const Parts p = parts(study, arm);
    for (std::size_t s = 0; s < p.raw.size(); ++s) {
      ex::Curve curve{
          fmt::format("seed {}", study.seeds()[s]), {0}, {p.raw[s]}, static_cast<int>(s), true, true, false};
      for (const std::vector<double>* part : {&p.residual, &p.misfit, &p.cap, &p.at_start}) {
        curve.x.push_back(curve.x.back() + 1);
        curve.y.push_back(curve.y.back() - (*part)[s]);
      }
      panel.curves.push_back(std::move(curve));
    }
    figure.panels.push_back(std::move(panel));
  }
  return figure;
}

ex::Figure llc_figure(const Study& study) {
  ex::Figure figure{"LLC over the width, by γ",
                    "Arm A, first seed, at the end. Grey: not converged, and no LLC.",
                    "d_model",
                    "λ̂(γ)",
                    true,
                    true,
                    {}};
  ex::Panel panel{"", {}};
  ex::Curve refused{"not converged", {}, {}, ex::kGrey, false, true, false};
  std::map<std::optional<double>, ex::Curve> by_gamma;
  for (std::size_t i = 0; i < study.tasks.size(); ++i) {
    const LlcTask& task = study.tasks[i];
    const LlcResult& r = study.estimates[i];
    if (task.cell.arm != &arms()[0] || !r.lambda || *r.lambda <= 0) continue;
    const double width = static_cast<double>(task.cell.width);
    if (!r.converged) {
      refused.x.push_back(width);
      refused.y.push_back(*r.lambda);
      continue;
    }
    auto [place, fresh] = by_gamma.try_emplace(task.gamma);
    if (fresh) {
      place->second.name = task.gamma ? fmt::format("γ = {}", *task.gamma) : "γ found";
      place->second.color = static_cast<int>(by_gamma.size()) - 1;
    }
    place->second.x.push_back(width);
    place->second.y.push_back(*r.lambda);
    if (r.low && r.high && *r.low > 0)
      panel.curves.push_back({"", {width, width}, {*r.low, *r.high}, place->second.color, true, false, false});
  }
  for (auto& [unused, curve] : by_gamma) panel.curves.push_back(std::move(curve));
  panel.curves.push_back(std::move(refused));
  figure.panels.push_back(std::move(panel));
  return figure;
}

/// Curves over the logged steps, where they are finite.
ex::Panel over_steps(std::string title, const Series& series,
                     const std::vector<std::pair<std::string, std::vector<double>>>& curves) {
  ex::Panel panel{std::move(title), {}};
  int color = 0;
  for (const auto& [name, values] : curves) {
    ex::Curve curve{name, {}, {}, color++, true, false, false};
    for (std::size_t i = 0; i < values.size(); ++i) {
      if (!std::isfinite(values[i])) continue;
      curve.x.push_back(static_cast<double>(series.step[i]));
      curve.y.push_back(values[i]);
    }
    panel.curves.push_back(std::move(curve));
  }
  return panel;
}

/// The checkpoint reads of G at resid_mid, with the trace taken out and without.
ex::Panel fisher_over_steps(const Followed& readings) {
  ex::Panel panel{"log<sub>10</sub> of G at resid_mid, fp64", {}};
  for (const bool by_trace : {false, true}) {
    ex::Curve curve{by_trace ? "λ_min⁺ / tr" : "λ_min⁺", {}, {}, by_trace ? 1 : 0, true, true, false};
    for (std::size_t i = 0; i < readings.step.size(); ++i) {
      curve.x.push_back(static_cast<double>(readings.step[i]));
      curve.y.push_back(readings.lambda_min[i] - (by_trace ? readings.trace[i] : 0));
    }
    panel.curves.push_back(std::move(curve));
  }
  return panel;
}

ex::Panel llc_over_steps(const Study& study, const Cell& cell) {
  ex::Panel panel{"LLC, γ as in the table", {}};
  ex::Curve refused{"not converged", {}, {}, ex::kGrey, false, true, false};
  for (const dds::LlcKind kind : {dds::LlcKind::Plain, dds::LlcKind::Tilted}) {
    const bool plain = kind == dds::LlcKind::Plain;
    ex::Curve curve{plain ? "plain" : "tilted (ours)", {}, {}, plain ? 0 : 1, false, true, false};
    for (std::size_t i = 0; i < study.tasks.size(); ++i) {
      const LlcTask& task = study.tasks[i];
      const LlcResult& r = study.estimates[i];
      if (task.cell.name() != cell.name() || task.kind != kind || !r.lambda) continue;
      ex::Curve& dots = r.converged ? curve : refused;
      dots.x.push_back(static_cast<double>(task.step));
      dots.y.push_back(*r.lambda);
    }
    panel.curves.push_back(std::move(curve));
  }
  panel.curves.push_back(std::move(refused));
  return panel;
}

/// One training through the transition, everything over the same steps.
ex::Figure timeline(const Study& study, const Training& training) {
  const Series& s = training.series;
  ex::Figure figure{fmt::format("Grokking: {}", training.cell.name()),
                    "Signatures of the training steps themselves, in fp32.",
                    "step",
                    "",
                    false,
                    false,
                    {}};
  figure.panels.push_back(over_steps("accuracy", s, {{"train", s.train_accuracy}, {"test", s.test_accuracy}}));
  figure.panels.push_back(over_steps("log<sub>10</sub> loss", s,
                                     {{"train", indicator(s, "train_loss")}, {"test", indicator(s, "test_loss")}}));
  figure.panels.push_back(over_steps("length of the weights", s, {{"weights", s.weight_norm}}));
  for (const std::string what : {"effective rank", "log10 lambda_min+/tr", "rank"}) {
    std::vector<std::pair<std::string, std::vector<double>>> curves;
    for (const auto& [name, values] : s.signature) {
      if (name.starts_with(what + " ")) curves.emplace_back(name.substr(what.size() + 1), values);
    }
    figure.panels.push_back(over_steps(what, s, curves));
  }
  figure.panels.push_back(fisher_over_steps(study.on_the_way.front()));
  figure.panels.push_back(llc_over_steps(study, training.cell));
  return figure;
}

ex::Figure modes_figure(const Study& study) {
  ex::Figure figure{"Live dimensions and learned frequencies",
                    "At resid_mid at the end: dimensions that hold 99.9 % of the variance of the activations, or of "
                    "tr(G), one point a network.",
                    "learned frequencies",
                    "live dimensions",
                    false,
                    false,
                    {}};
  for (const bool fisher : {false, true}) {
    ex::Panel panel{fisher ? "gradients" : "activations", {}};
    for (const Arm& arm : arms()) {
      ex::Curve curve{fmt::format("arm {}", arm.name), {}, {}, arm.name == "A" ? 0 : 1, false, true, false};
      for (const Network& n : networks(study)) {
        if (n.training->cell.arm != &arm) continue;
        curve.x.push_back(static_cast<double>(n.frequencies));
        curve.y.push_back(fisher ? n.live_fisher : n.live_activation);
      }
      panel.curves.push_back(std::move(curve));
    }
    figure.panels.push_back(std::move(panel));
  }
  return figure;
}

}  // namespace

void present(const Study& study, const ex::RunOptions& options) {
  const std::filesystem::path& out = options.out;
  write_csv(out / "orders.csv", orders_table(study));
  write_csv(out / "widths.csv", widths_table(study));
  write_csv(out / "parts.csv", parts_table(study));
  write_csv(out / "llc.csv", llc_table(study));
  write_csv(out / "grokking.csv", grokking_table(study));
  write_csv(out / "modes.csv", modes_table(study));
  ex::Page page("The modular-addition transformer");
  page.add(spectra_figure(study));
  page.add(orders_figure(study));
  page.add(parts_figure(study));
  page.add(
      "The same in numbers",
      "Orders of λ_min⁺(G) at resid_mid at the end. \"Residual\" goes with tr(G), \"misfit\" with the widths that do "
      "not fit, \"cap\" with reading at most p − 1 directions; \"at start\" was there before training.",
      parts_table(study));
  page.add(llc_figure(study));
  page.add(timeline(study, study.of(study.followed)));
  page.add("Leads through grokking",
           "Steps by which a series has covered half of its way from memorising to generalising before test accuracy "
           "has. \"time\" is a straight line.",
           grokking_table(study));
  page.add(modes_figure(study));
  page.add("Fourier modes at the end", "Networks with d ≥ 16.", modes_table(study));
  page.add("LLC estimates", "What is not converged is no LLC.", llc_table(study));
  page.write(out / "figures.html");
}

}  // namespace modular_addition
