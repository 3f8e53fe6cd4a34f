#include "src/log/cause_findings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <map>

namespace dds::log {
namespace {

using Readings = std::vector<const Signature*>;

bool alike(const Cause& a, const Cause& b) { return a.kind == b.kind && a.layer == b.layer; }

/// `readings`: of one series, in the order of their steps, up to the one that has the cause.
std::int64_t since_when(const Readings& readings, const Cause& cause) {
  std::int64_t since = readings.back()->step;
  for (auto reading = readings.rbegin(); reading != readings.rend(); ++reading) {
    const std::vector<Cause>& causes = (*reading)->causes;
    if (std::none_of(causes.begin(), causes.end(), [&](const Cause& other) { return alike(cause, other); })) break;
    since = (*reading)->step;
  }
  return since;
}

std::string listed(const std::vector<std::int64_t>& units) {
  constexpr std::size_t kMost = 8;
  std::string text;
  for (std::size_t i = 0; i < std::min(kMost, units.size()); ++i) {
    text += fmt::format("{}{}", i == 0 ? "" : ", ", units[i]);
  }
  return units.size() > kMost ? text + ", ..." : text;
}

/// "units" or "channels", of one or of many.
std::string noun(const Signature& reading, bool one) {
  return fmt::format("{}{}", reading.kind.starts_with("Conv") ? "channel" : "unit", one ? "" : "s");
}

std::string dimensions(const Cause& cause) {
  return fmt::format("{} {}", cause.directions, cause.directions == 1 ? "dimension" : "dimensions");
}

/// What is so, for one or several units, and what follows.
struct Wording {
  CauseKind kind;
  const char *one, *several, *consequence;
};

constexpr Wording kWordings[] = {
    {CauseKind::ReluOff, "is off in every row", "are off in every row",
     "a ReLU gives 0 there, and no gradient comes back through it"},
    {CauseKind::Saturated, "is saturated in every row", "are saturated in every row",
     "the function behind is flat there, and lets no gradient back"},
    {CauseKind::IncomingZero, "has no weights into it", "have no weights into them", "nothing but a bias is left"},
    {CauseKind::OutgoingZero, "has no weights out of it", "have no weights out of them",
     "nothing behind sees it, and no gradient comes back"},
    {CauseKind::Zero, "is zero in every row", "are zero in every row", "nothing is told by it"},
    {CauseKind::Constant, "is the same in every row", "are the same in every row", "nothing is told by it but a bias"},
    {CauseKind::Duplicate, "is equal or opposite to another", "are equal or opposite to each other",
     "one of them would do"},
    {CauseKind::Combination, "is a combination of others", "are linear combinations of each other",
     "fewer of them would do"},
};

std::string what(const LastingCause& lasting) {
  const Signature& reading = *lasting.reading;
  const Cause& cause = *lasting.cause;
  const std::string since = lasting.since < reading.step ? fmt::format(" since step {}", lasting.since) : std::string();
  const char* const rows = reading.side == Side::Fisher  ? "gradients"
                           : reading.side == Side::Input ? "input"
                                                         : "output";
  if (cause.kind == CauseKind::Downstream) {
    return fmt::format("{} of the gradients are missing{}, because they are in {}, where the gradients come from",
                       dimensions(cause), since, cause.layer);
  }
  if (cause.kind == CauseKind::Upstream) {
    return fmt::format("{} of the {} are missing{}, because the rank was lost in {} before it", dimensions(cause), rows,
                       since, cause.layer);
  }
  if (cause.kind == CauseKind::OutgoingZero && reading.side == Side::Activation) {
    return fmt::format("{} of the output are missing{}, because it has no weights for units {} of its input",
                       dimensions(cause), since, listed(cause.units));
  }
  const Wording* const wording =
      std::find_if(std::begin(kWordings), std::end(kWordings), [&](const Wording& w) { return w.kind == cause.kind; });
  if (wording == std::end(kWordings)) {
    return fmt::format("{} of the {} are dead{}, and no cause was found", dimensions(cause), rows, since);
  }
  const bool one = cause.units.size() == 1;
  return fmt::format("{} of {} {} {}{} ({}): {}", cause.units.size(), reading.width.value_or(0), noun(reading, false),
                     one ? wording->one : wording->several, since, listed(cause.units), wording->consequence);
}

}  // namespace

std::vector<LastingCause> lasting_causes(const Run& run) {
  const bool reads = std::any_of(run.signatures.begin(), run.signatures.end(),
                                 [](const Signature& s) { return s.source == Source::Read; });
  std::map<SeriesId, Readings> series;
  for (const Signature& s : run.signatures) {
    if (s.source == (reads ? Source::Read : Source::Step) && s.has_numbers()) series[series_of(s)].push_back(&s);
  }
  std::vector<LastingCause> lasting;
  for (auto& [id, readings] : series) {
    std::stable_sort(readings.begin(), readings.end(), [](auto* a, auto* b) { return a->step < b->step; });
    for (const Cause& cause : readings.back()->causes) {
      if (!is_by_architecture(cause.kind)) {
        lasting.push_back({readings.back(), &cause, since_when(readings, cause)});
      }
    }
  }
  const auto share = [](const LastingCause& one) {
    return static_cast<double>(one.cause->directions) /
           static_cast<double>(std::max<std::int64_t>(1, one.reading->width.value_or(1)));
  };
  std::stable_sort(lasting.begin(), lasting.end(), [&](const LastingCause& a, const LastingCause& b) {
    const bool a_open = a.cause->kind == CauseKind::Unexplained, b_open = b.cause->kind == CauseKind::Unexplained;
    return a_open != b_open ? b_open : share(a) > share(b);
  });
  return lasting;
}

std::string sentence(const LastingCause& lasting) {
  const Signature& reading = *lasting.reading;
  return fmt::format("{}: {}.", reading.layer.empty() ? "(root)" : reading.layer, what(lasting));
}

}  // namespace dds::log
