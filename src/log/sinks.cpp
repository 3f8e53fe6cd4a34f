#include <dds/log.hpp>
#include <utility>

#include "src/base/check.hpp"

namespace dds::log {
namespace {

class Callback final : public Sink {
 public:
  explicit Callback(Callbacks functions) : functions_(std::move(functions)) {}
  void write(const Signature& signature) override {
    if (functions_.signature) functions_.signature(signature);
  }
  void write(const LlcEstimate& estimate) override {
    if (functions_.estimate) functions_.estimate(estimate);
  }
  void write(const Metric& metric) override {
    if (functions_.metric) functions_.metric(metric);
  }
  void describe(const std::string&, const std::string&) override {}

 private:
  Callbacks functions_;
};

class Tee final : public Sink {
 public:
  explicit Tee(std::vector<SinkPtr> sinks) : sinks_(std::move(sinks)) {}
  void write(const Signature& signature) override {
    each([&](Sink& sink) { sink.write(signature); });
  }
  void write(const LlcEstimate& estimate) override {
    each([&](Sink& sink) { sink.write(estimate); });
  }
  void write(const Metric& metric) override {
    each([&](Sink& sink) { sink.write(metric); });
  }
  void describe(const std::string& key, const std::string& json) override {
    each([&](Sink& sink) { sink.describe(key, json); });
  }

 private:
  /// A sink that throws does not keep the row from the others: the first exception is passed on after all had their
  /// turn.
  template <class Act>
  void each(Act act) {
    std::exception_ptr first;
    for (const SinkPtr& sink : sinks_) {
      try {
        act(*sink);
      } catch (...) {
        if (!first) first = std::current_exception();
      }
    }
    if (first) std::rethrow_exception(first);
  }

  std::vector<SinkPtr> sinks_;
};

}  // namespace

SinkPtr callback(Callbacks functions) {
  check(functions.signature || functions.estimate || functions.metric, "log::callback", "functions", "empty",
        "at least one");
  return std::make_shared<Callback>(std::move(functions));
}

SinkPtr callback(std::function<void(const Signature&)> signature) {
  return callback(Callbacks{.signature = std::move(signature)});
}

SinkPtr tee(std::vector<SinkPtr> sinks) {
  for (const SinkPtr& sink : sinks) check_given("log::tee", "a sink", sink, "one of log::directory and the like");
  return std::make_shared<Tee>(std::move(sinks));
}

}  // namespace dds::log
