// `dds compare`: two runs, series by series.
#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <string>

#include "src/tool/command.hpp"
#include "src/tool/runs.hpp"
#include "src/tool/table.hpp"

namespace dds::tool {
namespace {

struct CompareArguments {
  std::string a, b;
  std::int64_t step = -1;
};

std::optional<double> minus(std::optional<double> b, std::optional<double> a) {
  return a && b ? std::optional(*b - *a) : std::nullopt;
}

std::string change(std::optional<double> value) { return value ? fmt::format("{:+.3g}", *value) : "-"; }

using Series = std::map<SeriesId, std::map<std::int64_t, const Signature*>>;

Series series_of(const log::Run& run, std::int64_t last) {
  Series series;
  for (const Signature& s : run.signatures) {
    if (last < 0 || s.step <= last) series[dds::series_of(s)][s.step] = &s;
  }
  return series;
}

/// The last step that both have.
template <class A, class B>
std::optional<std::int64_t> common_step(const A& a, const B& b) {
  for (auto one = a.rbegin(); one != a.rend(); ++one) {
    if (b.contains(one->first)) return one->first;
  }
  return std::nullopt;
}

std::string name_of(const SeriesId& id) { return to_string(id); }
std::string name_of(const std::string& name) { return name; }

/// Those of `a` that `b` lacks.
template <class Map>
void print_unmatched(const Map& a, const Map& b, const std::string& which) {
  for (const auto& [key, steps] : a) {
    if (!b.contains(key)) fmt::print("only in {}: {}\n", which, printable(name_of(key)));
  }
}

void compare_signatures(const log::Run& a, const log::Run& b, std::int64_t last) {
  const Series of_a = series_of(a, last), of_b = series_of(b, last);
  Table table({"<series", "step", "sigma_min A", "B", "log10 lambda_min+ A", "B", "B - A", "share of trace: B - A",
               "dead A", "B"});
  for (const auto& [id, steps] : of_a) {
    const auto other = of_b.find(id);
    if (other == of_b.end()) continue;
    const auto step = common_step(steps, other->second);
    if (!step) {
      fmt::print("no step in common: {}\n", printable(to_string(id)));
      continue;
    }
    const Signature &x = *steps.at(*step), &y = *other->second.at(*step);
    table.add({to_string(id), std::to_string(*step), sigma_min_text(x), sigma_min_text(y),
               show(x.log10_lambda_min_plus), show(y.log10_lambda_min_plus),
               change(minus(y.log10_lambda_min_plus, x.log10_lambda_min_plus)),
               change(minus(y.log10_lambda_share(), x.log10_lambda_share())), show(x.dead_directions),
               show(y.dead_directions)});
  }
  if (!table.empty()) fmt::print("{}{}* at the floor: rounding noise\n\n", heading("Signatures"), table.text());
  print_unmatched(of_a, of_b, "A");
  print_unmatched(of_b, of_a, "B");
}

using Estimates = std::map<std::int64_t, const LlcEstimate*>;

/// The estimates of one kind that have a number, by step.
Estimates estimates_of(const log::Run& run, LlcKind kind, std::int64_t last) {
  Estimates estimates;
  for (const LlcEstimate& e : run.estimates) {
    if (e.kind == kind && e.lambda && (last < 0 || e.step <= last)) estimates[e.step] = &e;
  }
  return estimates;
}

void compare_estimates(const log::Run& a, const log::Run& b, std::int64_t last) {
  Table table({"<kind", "step", "lambda A", "B", "B - A", "standard error", "<verdict A", "<verdict B"});
  for (const LlcKind kind : {LlcKind::Plain, LlcKind::Tilted}) {
    const Estimates of_a = estimates_of(a, kind, last), of_b = estimates_of(b, kind, last);
    const auto step = common_step(of_a, of_b);
    if (!step) continue;
    const LlcEstimate &x = *of_a.at(*step), &y = *of_b.at(*step);
    const auto error = x.standard_error && y.standard_error
                           ? std::optional(std::hypot(*x.standard_error, *y.standard_error))
                           : std::nullopt;
    table.add({kind == LlcKind::Plain ? "plain" : "tilted", std::to_string(*step), show(x.lambda), show(y.lambda),
               change(minus(y.lambda, x.lambda)), show(error), x.verdict(), y.verdict()});
  }
  if (!table.empty()) fmt::print("{}{}\n", heading("Local learning coefficient"), table.text());
}

void compare_metrics(const log::Run& a, const log::Run& b, std::int64_t last) {
  using Metrics = std::map<std::string, std::map<std::int64_t, double>>;
  const auto by_name = [&](const log::Run& run) {
    Metrics metrics;
    for (const Metric& m : run.metrics) {
      if (last < 0 || m.step <= last) metrics[m.name][m.step] = m.value;
    }
    return metrics;
  };
  const Metrics of_a = by_name(a), of_b = by_name(b);
  Table table({"<metric", "step", "A", "B", "B - A"});
  for (const auto& [name, steps] : of_a) {
    const auto other = of_b.find(name);
    const auto step = other == of_b.end() ? std::nullopt : common_step(steps, other->second);
    if (!step) continue;
    const double x = steps.at(*step), y = other->second.at(*step);
    table.add({name, std::to_string(*step), show(x), show(y), change(y - x)});
  }
  if (!table.empty()) fmt::print("{}{}\n", heading("Metrics"), table.text());
  print_unmatched(of_a, of_b, "A");
  print_unmatched(of_b, of_a, "B");
}

void compare(const CompareArguments& options) {
  const log::Run a = log::read_run(options.a), b = log::read_run(options.b);
  fmt::print("A = {}\nB = {}\n\n", options.a, options.b);
  compare_signatures(a, b, options.step);
  compare_estimates(a, b, options.step);
  compare_metrics(a, b, options.step);
}

}  // namespace

void add_compare(CLI::App& program) {
  CLI::App* command = program.add_subcommand("compare", "Two runs side by side, at the last step that both have");
  command->footer(
      "Of every series (layer, side, source and kind of Fisher) that both runs have, sigma_min, log10 lambda_min+ (and "
      "how\n"
      "its share of the trace differs) and the dead directions; then LLC estimates with their verdicts, and metrics. "
      "What\n"
      "only one of them has is listed. To see whole curves: dds report A B.\n\n"
      "Examples:\n"
      "  dds compare runs/a runs/b\n"
      "  dds compare runs/a runs/b --step 1000   # no reading after step 1000");
  const auto options = std::make_shared<CompareArguments>();
  command->add_option("A", options->a, "run directory")->required();
  command->add_option("B", options->b, "run directory")->required();
  command->add_option("--step", options->step, "leave out what was logged after this step")
      ->check(CLI::NonNegativeNumber);
  command->callback([options] { compare(*options); });
}

}  // namespace dds::tool
