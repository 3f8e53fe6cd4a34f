// The volume identity: the slope of log det+ counts the directions that die, where the smallest eigenvalue is blind to
// their number (arXiv:2606.21158; src/docs/the_method.md, Volume identity). On deep linear networks built and trained,
// where it holds and where it does not; on networks that are not linear, with redundancy planted; and the count as the
// library reads it off a log.
#include <fmt/format.h>

#include <algorithm>

#include "experiments/harness/parallel.hpp"
#include "experiments/volume_identity/study.hpp"

namespace {

namespace ex = dds::experiments;
using namespace volume_identity;

/// What the presets differ in.
struct Plan {
  std::uint64_t seeds;                         ///< of everything but the failures, at least 4 for an interval
  std::map<std::int64_t, std::int64_t> steps;  ///< of a training, by depth
};

Plan plan_of(const ex::RunOptions& options) {
  if (options.full()) return {10, {{2, 40000}, {4, 40000}, {6, 40000}}};
  return {5, {{2, 4000}, {4, 12000}, {6, 20000}}};  // tau^L has passed 5e-3 by then
}

struct Job {
  double cost;  ///< relative, for the order
  std::function<Path()> run;
};

std::vector<Job> jobs_of(const ex::RunOptions& options, const Plan& plan) {
  std::vector<Job> jobs;
  for (std::uint64_t s = 0; s < plan.seeds; ++s) {
    const std::uint64_t seed = 1000 * options.seed + s;
    for (std::int64_t dead = 1; dead <= kMostDead; ++dead) {
      for (const std::int64_t depth : kDepths) {
        for (const Scales scales : {Scales::Equal, Scales::Amplitudes, Scales::Rates}) {
          if (scales == Scales::Rates && dead == 1) continue;  // the same as equal ones
          jobs.push_back({0.1, [=] { return constructed(scales, depth, dead, seed); }});
        }
        for (const Training training :
             {Training::Bridge, Training::Jitter, Training::StrongJitter, Training::Noiseless}) {
          if (training != Training::Bridge && dead != 2) continue;
          const std::int64_t steps = plan.steps.at(depth);
          const auto log = options.out / "runs" / fmt::format("{}-L{}-r{}-s{}", name_of(training), depth, dead, s);
          jobs.push_back({1e-4 * static_cast<double>(steps * depth),
                          [=] { return trained(training, depth, dead, seed, steps, log); }});
        }
      }
      for (const Plant plant : {Plant::ReluDying, Plant::ReluDuplicate, Plant::HeadLowRank}) {
        for (const bool training : {false, true})
          jobs.push_back({training ? 2.0 : 0.3, [=] { return planted({plant, training}, dead, seed); }});
      }
    }
  }
  std::stable_sort(jobs.begin(), jobs.end(), [](const Job& a, const Job& b) { return a.cost > b.cost; });
  return jobs;
}

void run(const ex::RunOptions& options) {
  at::set_num_threads(1);
  const std::vector<Job> jobs = jobs_of(options, plan_of(options));
  ex::Summary summary(options);
  ex::Progress progress({{"networks on their way to singular minima", 1}});
  double total = 0, done = 0;
  for (const Job& job : jobs) total += job.cost;
  const Study study(ex::in_parallel(
      jobs.size(), [&](std::size_t i) { return jobs[i].run(); },
      [&](std::size_t finished) {
        done += jobs[finished - 1].cost;
        progress.update("networks on their way to singular minima", done / total);
      }));
  for (ex::Claim& claim : claims(study)) summary.add(std::move(claim));
  present(study, options.out);
  dds::write_report(options.out / "runs" / "trained-L4-r3-s0");
  summary.write();
  progress.say(fmt::format("\n{}", (options.out / "figures.html").string()));
}

}  // namespace

int main(int argc, char** argv) {
  const ex::RunOptions options = ex::parse_command_line(
      argc, argv, "volume_identity", "Dead directions counted by reading, on networks built and networks trained.");
  return ex::run_experiment([&] { run(options); });
}
