// The names of causes, and how they stand in the log.
#include <fmt/format.h>

#include <array>
#include <charconv>
#include <dds/causes.hpp>
#include <dds/spectrum.hpp>
#include <utility>

#include "src/base/check.hpp"

namespace dds {
namespace {

constexpr auto kCauses = std::to_array<std::pair<CauseKind, std::string_view>>({
    {CauseKind::Softmax, "softmax"},
    {CauseKind::LayerNorm, "layer_norm"},
    {CauseKind::Shape, "shape"},
    {CauseKind::Probe, "probe"},
    {CauseKind::ReluOff, "relu_off"},
    {CauseKind::Saturated, "saturated"},
    {CauseKind::IncomingZero, "incoming_zero"},
    {CauseKind::OutgoingZero, "outgoing_zero"},
    {CauseKind::Zero, "zero"},
    {CauseKind::Constant, "constant"},
    {CauseKind::Duplicate, "duplicate"},
    {CauseKind::Combination, "combination"},
    {CauseKind::Upstream, "upstream"},
    {CauseKind::Downstream, "downstream"},
    {CauseKind::Unexplained, "unexplained"},
});
constexpr const char* kExpected = "causes such as \"layer_norm:1 relu_off:3[3,8-9] upstream:2(fc1)\"";

/// "3,8-11": ascending numbers, runs of them as ranges.
std::string ranges_text(const std::vector<std::int64_t>& units) {
  std::string text;
  for (std::size_t i = 0; i < units.size();) {
    std::size_t end = i + 1;
    while (end < units.size() && units[end] == units[end - 1] + 1) ++end;
    text += fmt::format("{}{}", text.empty() ? "" : ",", units[i]);
    if (end - i > 1) text += fmt::format("-{}", units[end - 1]);
    i = end;
  }
  return text;
}

/// A layer's name without spaces, which part the causes: "%20" for each, and "%25" for "%".
std::string without_spaces(const std::string& name) {
  std::string text;
  for (const char c : name) text += c == ' ' ? "%20" : c == '%' ? "%25" : std::string(1, c);
  return text;
}

std::string with_spaces(std::string_view text) {
  std::string name;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const std::string_view code = text.substr(i, 3);
    const bool coded = code == "%20" || code == "%25";
    name += code == "%20" ? ' ' : text[i];
    if (coded) i += 2;
  }
  return name;
}

/// Reads the text of causes from left to right.
class CauseReader {
 public:
  explicit CauseReader(std::string_view text) : text_(text), left_(text) {}

  bool at_end() const { return left_.empty(); }

  Cause cause() {
    Cause cause;
    cause.kind = cause_kind_from_string(until(':'));
    cause.directions = number();
    if (skip('[')) {
      units(cause.units);
      expect(']');
    }
    if (skip('(')) {
      const std::size_t end = end_of_name();
      cause.layer = with_spaces(left_.substr(0, end));
      left_.remove_prefix(end);
      expect(')');
    }
    if (!at_end()) expect(' ');
    return cause;
  }

 private:
  [[noreturn]] void refuse() const {
    throw_invalid("causes_from_string", "text", fmt::format("'{}'", text_), kExpected);
  }
  bool skip(char wanted) {
    if (left_.empty() || left_.front() != wanted) return false;
    left_.remove_prefix(1);
    return true;
  }
  void expect(char wanted) {
    if (!skip(wanted)) refuse();
  }
  std::string_view until(char end) {
    const std::size_t size = left_.find(end);
    if (size == std::string_view::npos) refuse();
    const std::string_view part = left_.substr(0, size);
    left_.remove_prefix(size + 1);
    return part;
  }
  std::int64_t number() {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(left_.data(), left_.data() + left_.size(), value);
    if (error != std::errc() || value < 0) refuse();
    left_.remove_prefix(static_cast<std::size_t>(end - left_.data()));
    return value;
  }
  void units(std::vector<std::int64_t>& into) {
    constexpr std::int64_t kMostUnits =
        Spectrum::kMostAxes;  // of a cause; what comes from a file is not to fill the memory
    do {
      const std::int64_t first = number(), last = skip('-') ? number() : first;
      if (last < first || last - first >= kMostUnits - std::ssize(into)) refuse();
      if (!into.empty() && first <= into.back()) refuse();
      for (std::int64_t unit = first; unit <= last; ++unit) into.push_back(unit);
    } while (skip(','));
  }
  /// A layer's name may have brackets of its own: it ends with the last one before a space or the end.
  std::size_t end_of_name() const {
    for (std::size_t i = 0; i < left_.size(); ++i) {
      if (left_[i] == ')' && (i + 1 == left_.size() || left_[i + 1] == ' ')) return i;
    }
    refuse();
  }

  std::string_view text_, left_;
};

}  // namespace

std::string_view to_string(CauseKind kind) {
  for (const auto& [known, name] : kCauses) {
    if (known == kind) return name;
  }
  throw_invalid("to_string", "CauseKind", std::to_string(static_cast<int>(kind)), "one of its enumerators");
}

CauseKind cause_kind_from_string(std::string_view text) {
  for (const auto& [kind, name] : kCauses) {
    if (name == text) return kind;
  }
  throw_invalid("cause_kind_from_string", "text", fmt::format("'{}'", text), "the name of a cause, such as relu_off");
}

bool is_by_architecture(CauseKind kind) { return kind <= CauseKind::Probe; }

std::string to_string(const std::vector<Cause>& causes) {
  std::string text;
  for (const Cause& cause : causes) {
    text += fmt::format("{}{}:{}", text.empty() ? "" : " ", to_string(cause.kind), cause.directions);
    if (!cause.units.empty()) text += fmt::format("[{}]", ranges_text(cause.units));
    if (!cause.layer.empty()) text += fmt::format("({})", without_spaces(cause.layer));
  }
  return text;
}

std::vector<Cause> causes_from_string(std::string_view text) {
  std::vector<Cause> causes;
  for (CauseReader reader(text); !reader.at_end();) causes.push_back(reader.cause());
  return causes;
}

}  // namespace dds
