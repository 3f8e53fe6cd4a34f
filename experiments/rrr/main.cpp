// Reduced-rank regression, deep linear networks and normal crossings against their closed forms
// (src/docs/the_method.md, Reduced-rank regression): what the estimator of the learning coefficient is worth, its own
// error apart from the data's; and what the signatures say of the learning coefficient across networks
// (arXiv:2606.21158), with the artefacts taken out and trivial baselines beside.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "experiments/harness/finished.hpp"
#include "experiments/harness/parallel.hpp"
#include "experiments/rrr/study.hpp"

namespace {

namespace ex = dds::experiments;
using namespace rrr;

/// What the presets differ in: seeds, and gradients of an estimate at a given gamma.
struct Plan {
  std::uint64_t paper, noisy, others, large, readings;
  std::int64_t gradients, large_gradients, crossing_gradients;
};
Plan plan_of(const ex::RunOptions& options) {
  if (options.full()) return {100, 5, 12, 1, 40, 120'000, 600'000, 400'000};
  return {2, 1, 2, 0, 10, 60'000, 0, 60'000};
}

std::vector<Task> tasks_of(const Plan& plan, const ex::RunOptions& options) {
  std::vector<Task> tasks;
  const auto add = [&](const std::vector<Cell>& cells, Loss loss, std::uint64_t seeds, std::int64_t gradients = 0) {
    for (const Cell& cell : cells) {
      for (std::uint64_t s = 0; s < seeds; ++s)
        tasks.push_back({cell, loss, 1000 * options.seed + s, gradients > 0, gradients});
    }
  };
  if (options.full()) add(large_cells(), Loss::Population, plan.large, plan.large_gradients);
  add(deep_cells(/*large=*/false), Loss::Population, plan.others, plan.gradients);
  add(paper_cells(), Loss::Population, plan.paper);
  add(paper_cells(), Loss::Empirical, plan.noisy);
  add(case_cells(), Loss::Population, plan.others, plan.gradients);
  add(crossing_cells(), Loss::Population, plan.others, plan.crossing_gradients);
  std::stable_sort(tasks.begin(), tasks.end(),
                   [](const Task& a, const Task& b) { return a.cell.parameters() > b.cell.parameters(); });
  return tasks;
}

/// One reference for all estimates of a cell with the same gamma and n beta.
std::vector<Reference> references(const std::vector<Estimate>& estimates, std::uint64_t seed,
                                  const std::function<void(double)>& progress) {
  using Key = std::tuple<std::string, double, double>;
  const auto key_of = [](const Estimate& e) { return Key{e.task.cell.name(), e.gamma, e.n_beta}; };
  std::map<Key, std::size_t> numbers;
  std::vector<const Estimate*> distinct;
  for (const Estimate& e : estimates) {
    if (numbers.emplace(key_of(e), distinct.size()).second) distinct.push_back(&e);
  }
  const auto found = ex::in_parallel(
      distinct.size(),
      [&](std::size_t i) { return reference(distinct[i]->task.cell, distinct[i]->gamma, distinct[i]->n_beta, seed); },
      [&](std::size_t done) { progress(static_cast<double>(done) / static_cast<double>(distinct.size())); });
  std::vector<Reference> result;
  for (const Estimate& e : estimates) result.push_back(found[numbers.at(key_of(e))]);
  return result;
}

void run(const ex::RunOptions& options) {
  at::set_num_threads(1);
  const Plan plan = plan_of(options);
  ex::Summary summary(options);
  ex::Progress progress({{"estimates", 0.7}, {"exact values", 0.15}, {"signatures", 0.15}});
  Study study;
  const std::vector<Task> tasks = tasks_of(plan, options);
  ex::Finished finished(options);
  study.estimates = ex::in_parallel(
      tasks.size(),
      [&](std::size_t i) {
        return from_json(finished.piece(tasks[i].key(), [&] { return to_json(estimate(tasks[i])); }), tasks[i]);
      },
      progress.pieces("estimates", tasks.size()));
  study.references =
      references(study.estimates, options.seed, [&](double done) { progress.update("exact values", done); });
  study.seeds = plan.readings;
  const auto of_seed = ex::in_parallel(
      plan.readings, [&](std::size_t s) { return readings(1000 * options.seed + s); },
      progress.pieces("signatures", plan.readings));
  for (const auto& some : of_seed) study.readings.insert(study.readings.end(), some.begin(), some.end());

  for (ex::Claim& claim : claims(study, options)) summary.add(std::move(claim));
  present(study, options);
  summary.write();
  progress.say(fmt::format("\n{}", (options.out / "figures.html").string()));
}

}  // namespace

int main(int argc, char** argv) {
  const ex::RunOptions options = ex::parse_command_line(
      argc, argv, "rrr", "Learning coefficients and signatures of linear networks against the closed form.");
  return ex::run_experiment([&] { run(options); });
}
