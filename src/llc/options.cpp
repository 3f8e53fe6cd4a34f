#include "src/llc/options.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/nn/module.h>

#include <algorithm>
#include <iterator>

#include "src/base/check.hpp"
#include "src/base/glob.hpp"
#include "src/llc/samplers.hpp"
#include "src/llc/settling.hpp"
#include "src/model/problem.hpp"
#include "src/model/replica.hpp"

namespace dds {
namespace {

constexpr const char* kFunction = "estimate_llc";
constexpr std::int64_t kMinDraws = 20;

void check_at_least_if_given(const char* name, const std::optional<std::int64_t>& value, std::int64_t least) {
  if (value) check_at_least(kFunction, name, *value, least);
}

void check_positive_if_given(const char* name, const std::optional<double>& value) {
  if (value) check_positive(kFunction, name, *value);
}

void check_ranges(const LlcOptions& o) {
  check_at_least(kFunction, "chains", o.chains(), std::int64_t{1});
  check_at_least_if_given("draws", o.draws(), kMinDraws);
  check_at_least_if_given("burn_in", o.burn_in(), 0);
  check_at_least_if_given("batch_size", o.batch_size(), 1);
  check_positive_if_given("step_size", o.step_size());
  check(o.relative_step() > 0 && o.relative_step() < 2, kFunction, "relative_step", o.relative_step(),
        "a number between 0 and 2 (at 4 a chain is unstable)");
  check_positive_if_given("gamma", o.gamma());
  check_positive_if_given("n_beta", o.n_beta());
  check_positive_if_given("box", o.box());
  check(o.target_error() > 0 && o.target_error() < 1, kFunction, "target_error", o.target_error(),
        "a number between 0 and 1");
  check_at_least_if_given("max_gradients", o.max_gradients(), 1);
  check_at_least(kFunction, "keep_weights", o.keep_weights(), std::int64_t{0});
  check(o.max_relative_distance() > 0, kFunction, "max_relative_distance", o.max_relative_distance(),
        "a positive number");
  check_at_least_if_given("threads", o.threads(), 1);
  check_positive_if_given("max_seconds", o.max_seconds());
}

}  // namespace

void check(const Problem& problem, const LlcOptions& options) {
  check_ranges(options);
  check_with_targets(problem, kFunction);
  const auto samples = problem.data.size();
  if (options.sampler() != Sampler::Automatic && policy_of(options.sampler()).metropolis && options.batch_size()) {
    check(*options.batch_size() == samples, kFunction, "batch_size", *options.batch_size(),
          fmt::format("all {} samples, or none given: sampler {} compares losses over all", samples,
                      to_string(options.sampler())));
  }
  if (options.batch_size()) {
    check(samples >= *options.batch_size(), kFunction, "batch_size", *options.batch_size(),
          fmt::format("at most {}, the number of samples", samples));
  }
  check(samples >= 2 || options.n_beta(), kFunction, "data.size()", samples, "at least 2, or n_beta");
  if (!options.settle()) return;
  check(settle_options(options), samples, kFunction);
  check(!options.ranks() || options.ranks()->size() == 1, kFunction, "settle", "given with several ranks",
        "none: call dds::settle on one rank, and give its weights to all");
}

std::vector<std::string> selected_parameters(const torch::nn::Module& model, const Patterns& patterns,
                                             const char* function) {
  const auto all = trainable_parameters(model);
  std::vector<std::string> selected;
  std::copy_if(all.begin(), all.end(), std::back_inserter(selected),
               [&](const std::string& name) { return patterns.select(name); });
  for (const std::string& pattern : patterns.list()) {
    check(glob_match_any(pattern, all) || all.empty(), function, "parameters", pattern,
          fmt::format("patterns that match some of {}", fmt::join(all, ", ")));
  }
  return selected;
}

}  // namespace dds
