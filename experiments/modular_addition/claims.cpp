#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "experiments/modular_addition/study.hpp"

namespace modular_addition {

namespace ex = dds::experiments;
using ex::Claim;
using ex::claim_of;

namespace {

/// What the trial found in arm A at 8000 steps (src/docs/the_method.md, Modular addition): least and largest over three
/// seeds, in the order of table_observables() and columns(). A repetition has to come within one order of that.
constexpr double kTrial[4][4][2] = {{{2.2, 2.8}, {1.4, 1.5}, {17.9, 20.2}, {7.7, 9.2}},
                                    {{2.2, 2.7}, {1.3, 1.4}, {7.2, 8.7}, {6.2, 7.2}},
                                    {{1.9, 2.2}, {1.0, 1.8}, {2.9, 3.7}, {2.3, 2.8}},
                                    {{3.6, 4.7}, {2.1, 2.4}, {6.8, 7.9}, {5.5, 6.9}}};
constexpr double kEitherSide = 1;
constexpr double kPaperOrders = 18;

void table(const Study& study, bool full, std::vector<Claim>& out) {
  for (const Arm& arm : arms()) {
    for (std::size_t o = 0; o < table_observables().size(); ++o) {
      const Observable& observable = table_observables()[o];
      for (std::size_t c = 0; c < columns().size(); ++c) {
        const Column& column = columns()[c];
        Claim claim = claim_of(
            fmt::format("orders.{}.{}.arm_{}", observable.key, column.key, arm.name),
            fmt::format("log10 of the largest over the smallest {} over d_model, arm {}, {}; mean, least and largest "
                        "over {} seeds",
                        observable.title, arm.name, column.key, study.seeds().size()),
            ex::range_of(orders(study, arm, observable, column)));
        if (&arm == &arms()[0]) {
          claim.predicted = (kTrial[o][c][0] + kTrial[o][c][1]) / 2;
          if (o == 0 && column.key == "end") claim.paper = kPaperOrders;
          if (full) {
            claim.goal_low = kTrial[o][c][0] - kEitherSide;
            claim.goal_high = kTrial[o][c][1] + kEitherSide;
          }
        }
        out.push_back(std::move(claim));
      }
    }
  }
}

void moves(const Study& study, std::vector<Claim>& out) {
  const Drift found = drift(study);
  out.push_back(
      claim_of("end_reading_swing",
               fmt::format("log10 of the largest over the smallest lambda_min+(G) at resid_mid over the second half "
                           "of one training (arm {}, d = {}); mean, least and largest over seeds",
                           study.followed.arm->name, study.followed.width),
               ex::range_of(found.raw)));
  out.push_back(
      claim_of("normalised_reading_rate",
               "orders that lambda_min+(G) / tr(G) of the same trainings gains in 1000 steps there; mean, least and "
               "largest over seeds",
               ex::range_of(found.rate)));
}

void taken_apart(const Study& study, std::vector<Claim>& out) {
  for (const Arm& arm : arms()) {
    const Parts found = parts(study, arm);
    const std::tuple<const char*, const char*, const std::vector<double>*> named[] = {
        {"raw", "all of it", &found.raw},
        {"residual", "gone when each width is divided by its tr(G)", &found.residual},
        {"misfit", "of the rest, gone when widths that do not fit (d < 16) are left out", &found.misfit},
        {"cap", "of the rest, gone when at most p - 1 directions are read", &found.cap},
        {"at_start", "of the rest, what those widths differ in at initialisation", &found.at_start},
        {"genuine", "what is left: separation that training made", &found.genuine},
        {"tolerance", "beside: of all of it, what a relative tolerance of 1e-10 on eigenvalues would have hidden",
         &found.tolerance}};
    for (const auto& [key, what, values] : named) {
      out.push_back(
          claim_of(fmt::format("parts.{}.arm_{}", key, arm.name),
                   fmt::format("orders of lambda_min+(G) at resid_mid over d_model at the end, arm {}: {}; mean, "
                               "least and largest over seeds",
                               arm.name, what),
                   ex::range_of(*values)));
    }
    out.push_back(
        claim_of(fmt::format("end_loss_swing.arm_{}", arm.name),
                 fmt::format("log10 of the largest over the smallest train loss in the last quarter of the steps, arm "
                             "{}, d >= 16; mean, least and largest over the trainings: G goes with the square of it",
                             arm.name),
                 ex::range_of(loss_swings(study, arm))));
  }
}

void order(const Study& study, std::vector<Claim>& out) {
  for (const Arm& arm : arms()) {
    for (const Observable& observable : observables(arm)) {
      for (const Column& column : columns()) {
        Claim claim =
            claim_of(fmt::format("order_of_widths.{}.{}.arm_{}", observable.key, column.key, arm.name),
                     fmt::format("Spearman correlation of {} with d_model, arm {}, {}, over all seeds (Fisher's z)",
                                 observable.title, arm.name, column.key),
                     ex::interval_of(order_of_widths(study, arm, observable, column)));
        // What the paper says, at its own reading and with the residual taken out.
        if (column.key == "end_fitted" && observable.key.starts_with("lambda_min") && observable.key.ends_with("mid")) {
          claim.predicted = -1;
          claim.goal_high = 0;
        }
        out.push_back(std::move(claim));
        out.push_back(
            claim_of(fmt::format("orders_a_doubling.{}.{}.arm_{}", observable.key, column.key, arm.name),
                     fmt::format("log10 of the factor in {} that goes with a doubling of d_model, arm {}, {}; mean, "
                                 "least and largest over seeds",
                                 observable.title, arm.name, column.key),
                     orders_a_doubling(study, arm, observable, column)));
      }
    }
  }
}

// ---- LLC ----

void llc(const Study& study, std::vector<Claim>& out) {
  std::map<std::optional<double>, std::vector<std::pair<std::int64_t, const LlcResult*>>>
      by_gamma;  // of arm A at the end
  std::vector<double> ratios;
  std::optional<double> cheapest;
  std::optional<Interval> cheapest_interval;
  for (std::size_t i = 0; i < study.tasks.size(); ++i) {
    const LlcTask& task = study.tasks[i];
    const LlcResult& r = study.estimates[i];
    if (task.cell.arm != &arms()[0]) continue;
    by_gamma[task.gamma].emplace_back(task.cell.width, &r);
    const Checkpoint& end = study.of(task.cell).checkpoints.back();
    const double seconds = r.seconds / static_cast<double>(r.gradients) * 4000;
    ratios.push_back(seconds / end.read_seconds);
    if (!r.converged || (cheapest && *cheapest <= seconds)) continue;
    cheapest = seconds;
    std::vector<double> reads;
    for (const Checkpoint& c : study.of(task.cell).checkpoints) reads.push_back(c.read_seconds);
    const auto [least, most] = std::minmax_element(reads.begin(), reads.end());
    cheapest_interval = Interval{seconds / end.read_seconds, seconds / *most, seconds / *least};
  }
  for (const auto& [gamma, found] : by_gamma) {
    std::vector<double> lambdas;
    for (const auto& [width, r] : found) {
      if (!r->converged || !r->lambda || *r->lambda <= 0) continue;
      lambdas.push_back(std::log10(*r->lambda));
    }
    const std::string name = gamma ? fmt::format("gamma_{}", *gamma) : "gamma_found";
    out.push_back(claim_of(
        "llc_converged." + name,
        fmt::format("share of {} widths of arm A whose LLC at {} converged (Wilson's interval)", found.size(), name),
        ex::wilson(std::ssize(lambdas), std::ssize(found))));
    std::optional<Interval> orders;
    if (lambdas.size() >= 2) {
      const auto [least, most] = std::minmax_element(lambdas.begin(), lambdas.end());
      orders = ex::exactly(*most - *least);
    }
    out.push_back(
        claim_of("llc_orders." + name,
                 fmt::format("log10 of the largest over the smallest converged LLC over d_model, arm A, {}; {} of "
                             "{} widths converged; null below two. The trial: flat (0.35 dex) at gamma = 100",
                             name, lambdas.size(), found.size()),
                 orders));
  }
  Claim cost =
      claim_of("cost_ratio_llc_to_dds",
               "seconds of 4,000 draws of the cheapest converged LLC of arm A over one fp64 read of all sites of the "
               "same network with spectra, both on one thread; calibration not counted; interval: over the reads at "
               "its checkpoints",
               cheapest_interval);
  cost.predicted = 100;
  cost.goal_low = 100;
  out.push_back(std::move(cost));
  std::sort(ratios.begin(), ratios.end());
  out.push_back(claim_of("cost_ratio_any",
                         "the same ratio for every estimate, converged or not: median, least and largest",
                         Interval{ratios[ratios.size() / 2], ratios.front(), ratios.back()}));
}

// ---- grokking and Fourier modes ----

void grokking(const Study& study, std::vector<Claim>& out) {
  const std::vector<Grokking> found = grokkings(study);
  std::vector<double> delays;
  for (const Grokking& g : found) delays.push_back(static_cast<double>(g.generalised - g.memorised));
  out.push_back(
      claim_of("grokking_delay",
               fmt::format("steps from train accuracy 0.99 to test accuracy 0.9, mean over the {} of {} trainings "
                           "where these are 300 at least",
                           found.size(), study.trainings.size()),
               ex::mean_of(delays)));
  for (const std::string& name : indicators(study)) {
    std::vector<double> leads, news;
    for (const Grokking& g : found) {
      const auto ahead = lead(g, name), straight = lead(g, "time");
      if (!ahead || !straight) continue;
      leads.push_back(*ahead);
      news.push_back(*ahead - *straight);
    }
    std::string id = name;
    std::replace_if(
        id.begin(), id.end(), [](char c) { return c == ' ' || c == '/' || c == '+'; }, '_');
    out.push_back(
        claim_of("grokking_lead." + id,
                 fmt::format("steps by which {} has covered half of its way through the transition before test "
                             "accuracy has, mean over {} trainings",
                             name, leads.size()),
                 ex::mean_of(leads)));
    if (name != "time")
      out.push_back(claim_of("grokking_lead_over_time." + id,
                             fmt::format("the same for {}, beyond what a straight line in time has", name),
                             ex::mean_of(news)));
  }
}

void fourier(const Study& study, std::vector<Claim>& out) {
  std::vector<double> frequencies, widths, activation, fisher, unlearned, learned, chance;
  for (const Network& n : networks(study)) {
    frequencies.push_back(static_cast<double>(n.frequencies));
    widths.push_back(static_cast<double>(n.training->cell.width));
    activation.push_back(n.live_activation);
    fisher.push_back(n.live_fisher);
    unlearned.push_back(n.dead_share_unlearned);
    learned.push_back(n.dead_share_learned);
    chance.push_back(n.chance);
  }
  const std::string over = fmt::format("over {} networks with d >= 16 at the end", widths.size());
  for (const auto& [name, live] : {std::pair{"activation", &activation}, std::pair{"fisher", &fisher}}) {
    out.push_back(
        claim_of(fmt::format("live_dimension_with_frequencies.{}", name),
                 fmt::format("Spearman correlation of the live dimension at resid_mid ({} side) with the number of "
                             "learned frequencies, {}",
                             name, over),
                 ex::interval_of(dds::spearman(*live, frequencies))));
    out.push_back(claim_of(fmt::format("live_dimension_with_frequencies.{}.given_width", name),
                           "the same with d_model fixed",
                           ex::interval_of(dds::partial_spearman(*live, frequencies, widths))));
    out.push_back(claim_of(fmt::format("live_dimension_with_width.{}", name),
                           fmt::format("Spearman correlation of that dimension with d_model, {}", over),
                           ex::interval_of(dds::spearman(*live, widths))));
  }
  out.push_back(
      claim_of("dead_share.unlearned_modes",
               fmt::format("share of the vectors of unlearned Fourier modes at resid_mid that lies in the dead "
                           "directions of the activations, mean {}",
                           over),
               ex::mean_of(unlearned)));
  out.push_back(claim_of("dead_share.learned_modes", "the same of learned modes", ex::mean_of(learned)));
  out.push_back(claim_of("dead_share.chance", "what a direction at random would have: dead dimensions over d_model",
                         ex::mean_of(chance)));
}

}  // namespace

std::vector<Claim> claims(const Study& study, const ex::RunOptions& options) {
  std::vector<Claim> out;
  table(study, options.full(), out);
  moves(study, out);
  taken_apart(study, out);
  order(study, out);
  llc(study, out);
  grokking(study, out);
  fourier(study, out);
  return out;
}

}  // namespace modular_addition
