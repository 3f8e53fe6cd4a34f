#include "hooks/attribution.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <set>
#include <utility>

namespace dds {

std::string_view to_string(Attribution::Outcome outcome) {
  using Outcome = Attribution::Outcome;
  switch (outcome) {
    case Outcome::Captured:
      return "captured";
    case Outcome::Bias:
      return "bias";
    case Outcome::Input:
      return "input";
    case Outcome::View:
      return "view";
    case Outcome::Weight:
      return "weight";
    case Outcome::NotSelected:
      return "not_selected";
    case Outcome::NoGradMode:
      return "no_grad_mode";
    case Outcome::Unregistered:
      return "unregistered";
    case Outcome::NotCaptured:
      return "not_captured";
  }
  return "unknown";
}

std::string Attribution::statement() const {
  const auto what = [&]() -> std::string {
    switch (outcome) {
      case Outcome::Captured:
        return fmt::format("a run of {}", site);
      case Outcome::Bias:
        return fmt::format("added to the output of {}", site);
      case Outcome::Input:
        return fmt::format("an input of {}", site);
      case Outcome::View:
        return "a view, which is followed";
      case Outcome::Weight:
        return "computes a weight, which is followed";
      case Outcome::NotSelected:
        return "a run of a layer that is not selected";
      case Outcome::NoGradMode:
        return "not captured: without grad mode";
      case Outcome::Unregistered:
        return "not captured: the model has not registered this leaf";
      case Outcome::NotCaptured:
        return "not captured: not known to run a layer with it";
    }
    return "unknown";
  };
  return fmt::format("{} x {}: {}", op, count, what());
}

namespace hooks {

void UseCounts::count(std::size_t layer, std::string_view op, Attribution::Outcome outcome, const std::string& site) {
  ++counts_[Use{layer, "", std::string(op), outcome, site}];
}

void UseCounts::count_leaf(const std::string& leaf, std::string_view op) {
  ++counts_[Use{kNobody, leaf, std::string(op), Attribution::Outcome::Unregistered, ""}];
}

std::vector<Attribution> UseCounts::table(const std::vector<Layer>& layers) const {
  std::vector<Attribution> table;
  for (const auto& [use, count] : counts_) {
    table.push_back({use.layer == kNobody ? use.leaf : layers[use.layer].name, use.op, use.outcome, use.site, count});
  }
  return table;
}

CapturedLayer UseCounts::without_calls(std::size_t layer, const Layer& of) const {
  std::set<std::string> seen, without_grad_mode;
  for (auto use = counts_.lower_bound({layer, "", "", {}, ""}); use != counts_.end() && use->first.layer == layer;
       ++use) {
    const bool bias = use->first.outcome == Attribution::Outcome::Bias;
    (use->first.outcome == Attribution::Outcome::NoGradMode ? without_grad_mode : seen)
        .insert(bias ? fmt::format("{} as a bias of {}", use->first.op, use->first.site) : use->first.op);
  }
  CapturedLayer missing;
  missing.layer = of.name;
  missing.kind = of.kind;
  missing.status = seen.empty() ? Status::NotRun : Status::NotObservable;
  if (!seen.empty()) {
    missing.detail = fmt::format("its parameters were seen only in {}", fmt::join(seen, ", "));
  } else if (!without_grad_mode.empty()) {
    missing.detail =
        fmt::format("its parameters were seen only without grad mode, in {}", fmt::join(without_grad_mode, ", "));
  } else {
    missing.detail = "no operator took a parameter of it";
  }
  return missing;
}

}  // namespace hooks
}  // namespace dds
