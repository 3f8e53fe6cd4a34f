#include "src/monitor/readings.hpp"

#include <fmt/format.h>

#include <utility>

#include "src/base/check.hpp"
#include "src/base/logger.hpp"
#include "src/base/stopwatch.hpp"
#include "src/log/json.hpp"
#include "src/reading/read.hpp"
#include "src/reading/signature_batch.hpp"

namespace dds {
namespace {

/// What ranks other than the first log to.
class Nowhere final : public log::Sink {
 public:
  void write(const Signature&) override {}
  void write(const LlcEstimate&) override {}
  void write(const Metric&) override {}
  void describe(const std::string&, const std::string&) override {}
};

log::SinkPtr sink_of(const MonitorOptions& options, log::SinkPtr sink) {
  const RanksPtr& ranks = options.signatures().ranks();
  if (ranks && ranks->rank() != 0) return std::make_shared<Nowhere>();
  check_given("Monitor", "sink", sink, "dds::log::directory(...) or another sink");
  return sink;
}

}  // namespace

Readings::Readings(const MonitorOptions& options, log::SinkPtr sink, MonitorErrors& errors)
    : options_(options),
      errors_(errors),
      sink_(sink_of(options, std::move(sink))),
      follower_(options.decay()),
      windows_(options.window()) {
  if (const RanksPtr& ranks = options.signatures().ranks()) {
    ranks_.emplace(ranks, [this](const std::string& loss) {
      errors_.guard_write([&] { describe("lost_rank", log::json_text(nlohmann::json(loss))); });
    });
  }
}

void Readings::read(StepJob job) {
  const Stopwatch watch;
  ReadingRows& rows = job.rows;
  rows.reduce();
  const bool logs = !ranks_ || ranks_->join(options_.signatures(), rows);
  if (rows.incomplete) rows.mark(Status::CaptureFailed);
  if (logs) {
    log_step(rows);
    job.seconds += watch.seconds();
    log_seconds(job);
  }
  if (rows.error) std::rethrow_exception(rows.error);
}

void Readings::log_step(ReadingRows& rows) {
  for (ReadingRows::Layer& layer : rows.layers) {
    try {
      windows_.join(layer, options_.signatures());
    } catch (...) {
      rows.keep_error();
      layer.rows.mark(Status::CaptureFailed);
    }
  }
  for (Signature& signature : read_signatures(rows, options_.signatures(), Source::Step, &follower_.fixed_ranks())) {
    try {
      follow(signature, options_.signatures().spectra());
    } catch (...) {
      rows.keep_error();
    }
  }
}

void Readings::log_seconds(StepJob& job) {
  const std::size_t layers = job.rows.layers.size();
  log::tell(Level::Debug, fmt::format("step {}: {} {} read in {:.3g} s", job.rows.step, layers,
                                      layers == 1 ? "layer" : "layers", job.seconds));
  try {
    put(Metric{job.rows.step, "step_reading_seconds", job.seconds});
    if (job.handed_over_after) put(Metric{job.rows.step, "step_capture_seconds", *job.handed_over_after});
  } catch (...) {
    job.rows.keep_error();
  }
}

std::vector<Signature> Readings::read(const Problem& problem, ReadOptions options, std::int64_t step,
                                      std::exception_ptr pending) {
  SignatureOptions& own = options.signatures();
  const SignatureOptions& monitors = options_.signatures();
  if (own.layers().all()) own.layers(monitors.layers());
  if (!own.ranks()) own.ranks(monitors.ranks());
  const Stopwatch watch;
  const ReadContext context{.fixed_ranks = &follower_.fixed_ranks(), .error = std::move(pending)};
  std::vector<Signature> signatures = ranks_ && own.ranks() == ranks_->ranks()
                                          ? ranks_->read(problem, options, context, step)
                                          : dds::read(problem, options, context);
  for (Signature& signature : signatures) {
    signature.step = step;
    follow(signature, own.spectra() || monitors.spectra());
  }
  put(Metric{step, "read_seconds", watch.seconds()});
  return signatures;
}

void Readings::follow(Signature& signature, bool spectra) {
  follower_.add(signature);
  if (!spectra) signature.spectrum.clear();
  put(signature);
}

void Readings::note(const std::string& what) {
  notes_.push_back(what);
  errors_.guard_write([&] { describe("notes", log::json_text(nlohmann::json(notes_))); });
}

void Readings::restart(FixedRanks fixed_ranks) {
  follower_.restart(std::move(fixed_ranks));
  windows_ = RowWindows(options_.window());
}

}  // namespace dds
