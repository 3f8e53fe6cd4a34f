// estimate_llc: calibration, the search for gamma, the check of the step, the verdict.
#include <c10/core/GradMode.h>
#include <c10/core/ScalarType.h>

#include <cmath>
#include <dds/error.hpp>
#include <dds/llc.hpp>
#include <dds/suspend_recording.hpp>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "hooks/layers.hpp"
#include "src/base/check.hpp"
#include "src/llc/gamma_search.hpp"
#include "src/llc/objective.hpp"
#include "src/llc/options.hpp"
#include "src/llc/replicas.hpp"
#include "src/llc/result.hpp"
#include "src/llc/sampling.hpp"
#include "src/llc/settling.hpp"
#include "src/llc/spread.hpp"
#include "src/llc/verdict.hpp"
#include "src/llc/workers.hpp"
#include "src/model/guard.hpp"
#include "src/model/problem.hpp"
#include "src/model/replica.hpp"
#include "src/ranks/exchange.hpp"

namespace dds {
namespace {

/// One call of estimate_llc.
class Estimation {
 public:
  Estimation(const Problem& problem, const LlcOptions& options)
      : options_(options),
        watch_(options.max_seconds(), options.cancelled(), options.progress()),
        names_(selected_parameters(problem.model, options.parameters(), "estimate_llc")),
        guard_(problem.model,
               {.dtype = options.fp64() ? std::optional(at::kDouble) : std::nullopt, .require_grad = false}),
        replicas_{Replica(borrowed(problem.model), problem.forward, names_)},
        problem_{problem.model, problem.likelihood, options.fp64() ? in_fp64(problem.data) : problem.data,
                 problem.forward},
        settled_(options.settle() ? std::optional(go_down(problem_, replicas_[0], names_, settle_options(options),
                                                          options.cancelled()))
                                  : std::nullopt),
        objective_(problem.likelihood, problem_.data, options.kind(), options.batch_size(), replicas_[0],
                   options.control_variates() ? std::optional(options.seed()) : std::nullopt) {
    const auto dtype = objective_.start().scalar_type();
    check(dtype == at::kFloat || dtype == at::kDouble, "estimate_llc", "the weights' dtype", c10::toString(dtype),
          "Float or Double, or LlcOptions::fp64(true)");
    auto made = add_replicas(replicas_, problem, options, names_, objective_);
    sampling_.emplace(options_, objective_, replicas_, watch_);
    result_.emplace(options_, objective_, *sampling_, std::move(made), settled_);
  }

  LlcEstimate run() {
    Ending ending;
    if (settled_ && settled_->no_minimum) {
      ending.stopped = settled_->failure;
    } else if (std::isfinite(objective_.start_loss())) {
      ending = options_.gamma() ? use_gamma(*options_.gamma()) : find_gamma();
      if (sampling_->halves_step() && result_->taken().lambda && !watch_.over()) {
        result_->compare_with_half_step(
            sampling_->sample_at_half_step(result_->taken(), kHalfStepError * options_.target_error()));
      }
    }
    LlcEstimate estimate = result_->conclude(*sampling_, watch_, std::move(ending));
    watch_.finish();
    return estimate;
  }

  /// On ranks other than the first, whose chains these are.
  void serve() { sampling_->serve(); }

 private:
  /// The error of the estimate at half the step may be so much larger.
  static constexpr double kHalfStepError = 1.5;

  Ending use_gamma(double gamma) {
    sampling_->calibrate(gamma);
    const Stage stage = sampling_->sample(gamma, options_.target_error());
    result_->take(stage, "taken");
    Ending ending;
    ending.gamma_settled = depends_little_on_gamma(stage);
    return ending;
  }

  Ending find_gamma() {
    sampling_->calibrate(std::nullopt);
    GammaSearch search(options_, {.n_beta = sampling_->dynamics().n_beta,
                                  .typical_curvature = sampling_->typical_curvature(),
                                  .largest_curvature = sampling_->step_rule().mu_max(),
                                  .parameters = objective_.start().numel(),
                                  .start_length = objective_.start().norm().item<double>()});
    for (double gamma = search.first();; gamma = search.next()) {
      Stage stage = sampling_->sample(gamma, search.target(gamma));
      search.set_typical_curvature(sampling_->typical_curvature());
      if (search.settles(stage)) stage = sampling_->draw_on(stage, options_.target_error());
      const auto decision =
          search.decide(stage, watch_.over(), options_.draws() ? std::nullopt : std::optional(sampling_->affordable()));
      if (decision.take) {
        result_->take(stage, decision.outcome);
        result_->set_gamma_move(decision.move, decision.bias);
      } else {
        result_->note(stage, decision.outcome);
      }
      if (!decision.lower || watch_.over()) break;
    }
    result_->set_outcome("taken");
    Ending ending;
    ending.gamma_limited = search.limited();
    ending.gamma_settled = search.settled();
    return ending;
  }

  const LlcOptions& options_;
  const SingleThreaded single_threaded_;
  const c10::AutoGradMode with_grad_{true};
  Watch watch_;
  std::vector<std::string> names_;
  ModelGuard guard_;
  std::vector<Replica> replicas_;  // the first is the caller's model
  Problem problem_;                // the data in the chains' dtype
  std::optional<Settled> settled_;
  Objective objective_;
  std::optional<Sampling> sampling_;
  std::optional<Result> result_;
};

}  // namespace

LlcEstimate estimate_llc(const Problem& problem, const LlcOptions& options) {
  const auto begin = [&] {
    check(problem, options);
    return std::make_unique<Estimation>(problem, options);
  };
  const SuspendRecording unseen;
  const RanksPtr& ranks = options.ranks();
  if (!ranks || ranks->size() == 1) return begin()->run();
  if (ranks->rank() == 0) {
    try {
      LlcEstimate estimate = begin()->run();
      dismiss(*ranks, "");
      return estimate;
    } catch (...) {
      dismiss(*ranks, text_of(std::current_exception()));
      throw;
    }
  }
  std::unique_ptr<Estimation> estimation;
  try {
    estimation = begin();
  } catch (...) {
    refuse(*ranks, text_of(std::current_exception()));
    throw;
  }
  estimation->serve();
  LlcEstimate elsewhere;
  elsewhere.kind = options.kind();
  elsewhere.failures.emplace_back("estimated by rank 0");
  return elsewhere;
}

}  // namespace dds
