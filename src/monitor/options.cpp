#include "src/monitor/options.hpp"

#include "src/base/check.hpp"
#include "src/log/json.hpp"
#include "src/log/run_files.hpp"
#include "src/rows/signature_options.hpp"

namespace dds {

void check(const MonitorOptions& options) {
  constexpr const char* kFunction = "Monitor";
  if (options.every()) check_at_least<std::int64_t>(kFunction, "every", *options.every(), 1);
  check_at_least<std::int64_t>(kFunction, "queue", options.queue(), 1);
  check_at_least<std::int64_t>(kFunction, "window", options.window(), 1);
  check(options.signatures(), kFunction);
  check(!options.signatures().ranks() || options.worker() != Worker::Skip, kFunction, "worker", "Worker::Skip",
        "Worker::Wait or Worker::Off with several ranks, which would skip different steps");
}

RecorderOptions recorder_options(const MonitorOptions& options) {
  RecorderOptions recorder;
  recorder.layers = options.signatures().layers();
  recorder.all_threads = options.all_threads();
  return recorder;
}

std::string description_of(const MonitorOptions& options, const std::string& model, const std::string& parameters,
                           const std::vector<std::string>& layers) {
  const SignatureOptions& signatures = options.signatures();
  std::vector<std::string> sides;
  for (const Side side : signatures.sides()) sides.emplace_back(to_string(side));
  return log::json_text(nlohmann::json{
      {"layers", layers},
      {"model", model},
      {std::string(log::kParameters), parameters},
      {"every", options.every() ? nlohmann::json(*options.every()) : nlohmann::json()},
      {"sides", sides},
      {"max_rows", signatures.max_rows()},
      {"max_width", signatures.max_width()},
      {"window", options.window()},
      {"worker", options.worker() == Worker::Off    ? "off"
                 : options.worker() == Worker::Wait ? "wait"
                                                    : "skip"},
      {"seed", signatures.seed()},
      {"ranks", signatures.ranks() ? signatures.ranks()->size() : 1},
  });
}

}  // namespace dds
