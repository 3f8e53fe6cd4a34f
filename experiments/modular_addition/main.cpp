// The modular-addition transformer (src/docs/the_method.md, Modular addition): the eighteen orders over d_model that
// arXiv:2606.21158 reports, what they are made of, and what is left of them; the LLC beside, over gamma; and the
// signatures through grokking.
#include <fmt/format.h>

#include <algorithm>

#include "experiments/harness/finished.hpp"
#include "experiments/harness/parallel.hpp"
#include "experiments/modular_addition/study.hpp"

namespace {

namespace ex = dds::experiments;
using namespace modular_addition;

/// What the presets differ in.
struct Plan {
  std::uint64_t seeds;
  std::int64_t steps;
  std::vector<std::int64_t> llc_widths;    ///< of arm A, at the end, over gamma
  std::vector<std::int64_t> found_widths;  ///< of those, where gamma is searched for too
};

Plan plan_of(const ex::RunOptions& options) {
  if (options.full()) return {3, 8000, {8, 16, 32, 64, 128}, {8, 16, 32}};
  return {2, 4000, {8, 16, 32}, {8}};
}

/// The paper's gammas are 10 to 1000; chains are longer than such a budget allows below the last.
constexpr double kGammas[] = {10, 100, 1000, 10000};
constexpr std::int64_t kGradients = 10'000;  // 4,000 draws and the 6,000 that the protocol calibrates with
/// Where the LLC is estimated on the way: the network of arm B that goes from memorising to generalising most slowly.
constexpr std::int64_t kFollowedWidth = 48;
constexpr double kFollowedGamma = 10000;
constexpr std::int64_t kFollowedGradients = 3'000;

std::vector<std::int64_t> followed_steps(std::int64_t steps) {
  std::vector<std::int64_t> kept;
  for (const std::int64_t step : {50, 100, 200, 400, 700, 1000, 1500, 2000, 2500, 3000, 4000, 5000, 6000, 7000, 8000}) {
    if (step <= steps) kept.push_back(step);
  }
  return kept;
}

std::vector<Cell> cells_of(const Plan& plan, const ex::RunOptions& options) {
  std::vector<Cell> cells;
  for (std::uint64_t s = 0; s < plan.seeds; ++s) {
    for (const Arm& arm : arms()) {
      for (const std::int64_t width : arm.widths) cells.push_back({&arm, width, 1000 * options.seed + s});
    }
  }
  std::stable_sort(cells.begin(), cells.end(), [](const Cell& a, const Cell& b) { return a.width > b.width; });
  return cells;
}

std::vector<LlcTask> llc_tasks(const Plan& plan, const ex::RunOptions& options) {
  const Arm &a = arms()[0], &b = arms()[1];
  const std::uint64_t seed = 1000 * options.seed;
  std::vector<LlcTask> tasks;
  for (const std::int64_t width : plan.llc_widths) {
    for (const double gamma : kGammas)
      tasks.push_back({{&a, width, seed}, plan.steps, gamma, dds::LlcKind::Plain, kGradients});
  }
  for (const std::int64_t width : plan.found_widths)
    tasks.push_back({{&a, width, seed}, plan.steps, std::nullopt, dds::LlcKind::Plain, kGradients});
  for (const std::int64_t step : followed_steps(plan.steps)) {
    for (const dds::LlcKind kind : {dds::LlcKind::Plain, dds::LlcKind::Tilted})
      tasks.push_back({{&b, kFollowedWidth, seed}, step, kFollowedGamma, kind, kFollowedGradients});
  }
  std::stable_sort(tasks.begin(), tasks.end(),
                   [](const LlcTask& x, const LlcTask& y) { return x.cell.width > y.cell.width; });
  return tasks;
}

void run(const ex::RunOptions& options) {
  at::set_num_threads(1);
  const Plan plan = plan_of(options);
  const std::filesystem::path weights = options.out / "weights";
  ex::Summary summary(options);
  ex::Progress progress({{"trainings", 0.7}, {"learning coefficients", 0.3}});
  ex::Finished finished(options);
  Study study;
  const std::vector<Cell> cells = cells_of(plan, options);
  study.trainings = ex::in_parallel(
      cells.size(),
      [&](std::size_t i) {
        const Cell& cell = cells[i];
        const bool followed = cell.arm == &arms()[1] && cell.width == kFollowedWidth;
        const TrainingOptions how{plan.steps, 50, followed ? followed_steps(plan.steps) : std::vector<std::int64_t>{},
                                  weights};
        return from_json(finished.piece(cell.name(), [&] { return to_json(train(cell, how)); }), cell);
      },
      progress.pieces("trainings", cells.size()));
  study.followed = {&arms()[1], kFollowedWidth, 1000 * options.seed};
  for (std::uint64_t s = 0; s < plan.seeds; ++s) {
    Cell cell = study.followed;
    cell.seed += s;
    study.on_the_way.push_back(followed_from_json(finished.piece(
        "followed " + cell.name(), [&] { return to_json(follow(cell, followed_steps(plan.steps), weights)); })));
  }
  study.tasks = llc_tasks(plan, options);
  study.estimates = ex::in_parallel(
      study.tasks.size(),
      [&](std::size_t i) {
        const LlcTask& task = study.tasks[i];
        return llc_from_json(finished.piece(task.key(), [&] { return to_json(estimate(task, weights)); }));
      },
      progress.pieces("learning coefficients", study.tasks.size()));

  for (ex::Claim& claim : claims(study, options)) summary.add(std::move(claim));
  present(study, options);
  summary.write();
  progress.say(fmt::format("\n{}", (options.out / "figures.html").string()));
}

}  // namespace

int main(int argc, char** argv) {
  const ex::RunOptions options = ex::parse_command_line(
      argc, argv, "modular_addition", "The modular-addition transformer: what separates its widths, and grokking.");
  return ex::run_experiment([&] { run(options); });
}
