#include "src/log/tensorboard.hpp"

#include <fmt/format.h>

#include <chrono>
#include <cmath>
#include <dds/error.hpp>
#include <dds/log.hpp>
#include <nlohmann/json.hpp>
#include <utility>

#include "src/log/event_file.hpp"
#include "src/log/json.hpp"

namespace dds::log {
namespace {

std::optional<double> log10_of(std::optional<double> value) {
  return value && *value > 0 ? std::optional(std::log10(*value)) : std::nullopt;
}

std::optional<double> count(std::optional<std::int64_t> value) {
  return value ? std::optional(static_cast<double>(*value)) : std::nullopt;
}

/// The values of one event, under a common beginning of their tags.
class Values {
 public:
  explicit Values(std::string prefix) : prefix_(std::move(prefix)) {}
  void add(std::string_view name, std::optional<double> value) {
    if (value && std::isfinite(*value)) values_.push_back(scalar_value(prefix_ + std::string(name), *value));
  }
  void add_histogram(std::string_view name, std::span<const double> values) {
    if (!values.empty()) values_.push_back(histogram_value(prefix_ + std::string(name), values));
  }
  const std::vector<std::string>& all() const { return values_; }

 private:
  std::string prefix_;
  std::vector<std::string> values_;
};

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

class TensorBoard final : public Sink {
 public:
  TensorBoard(const std::filesystem::path& path, std::function<double()> wall_time)
      : wall_time_(wall_time ? std::move(wall_time) : now), file_(make_folder(path), wall_time_()) {}
  void pass_over_earlier() { file_.pass_over_earlier(); }

  void write(const Signature& s) override {
    if (!s.has_numbers()) return;
    const std::string kind = s.fisher_kind ? fmt::format(".{}", to_string(*s.fisher_kind)) : std::string();
    Values values(fmt::format("{}/{}.{}{}/", s.layer, to_string(s.side), to_string(s.source), kind));
    values.add("log10_sigma_max", log10_of(s.sigma_max));
    values.add("log10_sigma_min", log10_of(s.sigma_min));
    values.add("log10_floor", log10_of(s.floor));
    values.add("log10_lambda_min_plus", s.log10_lambda_min_plus);
    values.add("log10_trace", s.log10_trace);
    values.add("logdet_plus", s.logdet_plus);
    values.add("logdet_fixed_rank", s.logdet_fixed_rank);
    values.add("rank", count(s.rank));
    values.add("dead_directions", count(s.dead_directions));
    values.add("born", count(s.born));
    values.add("revived", count(s.revived));
    values.add("at_floor", s.at_floor);
    values.add("log10_condition", log10_of(s.condition));
    values.add("effective_rank", s.effective_rank);
    values.add("stable_rank", s.stable_rank);
    std::vector<double> logs;
    for (const double sigma : s.spectrum) {
      if (const auto log = log10_of(sigma); log && std::isfinite(*log)) logs.push_back(*log);
    }
    values.add_histogram("log10_sigma", logs);
    append(s.step, values);
  }

  void write(const LlcEstimate& e) override {
    Values values(fmt::format("llc/{}/", to_string(e.kind)));
    values.add("lambda", e.lambda);
    values.add("standard_error", e.standard_error);
    values.add("low", e.low);
    values.add("high", e.high);
    values.add("converged", e.converged() ? 1 : 0);
    values.add("log10_gamma", log10_of(e.settings.gamma));
    append(e.step, values);
  }

  void write(const Metric& metric) override {
    Values values("");
    values.add(metric.name, metric.value);
    append(metric.step, values);
  }

  void describe(const std::string& key, const std::string& json) override {
    // As a block of code in Markdown, by indenting it.
    const nlohmann::ordered_json value = described_value(key, json);
    std::string text = "    ";
    for (const char c : value.dump(2)) text += c == '\n' ? std::string("\n    ") : std::string(1, c);
    file_.append(wall_time_(), 0, std::vector{text_value("run/" + key, text)});
  }

 private:
  void append(std::int64_t step, const Values& values) {
    if (!values.all().empty()) file_.append(wall_time_(), step, values.all());
  }

  std::function<double()> wall_time_;
  EventFile file_;
};

}  // namespace

SinkPtr tensorboard(const std::filesystem::path& path, TensorBoardOptions options) {
  return std::make_shared<TensorBoard>(path, std::move(options.wall_time));
}

SinkPtr resumed_tensorboard(const std::filesystem::path& path) {
  const auto sink = std::make_shared<TensorBoard>(path, nullptr);
  sink->pass_over_earlier();
  return sink;
}

}  // namespace dds::log
