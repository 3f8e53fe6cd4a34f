#include "experiments/distributed/training.hpp"

#include <csignal>
#include <dds/log.hpp>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "experiments/fashion_mnist/network.hpp"
#include "src/base/stopwatch.hpp"
#include "src/series/trend.hpp"

namespace distributed {
namespace {

using dds::experiments::Groups;
using fashion_mnist::Network;
using fashion_mnist::Split;

constexpr double kLearningRate = 3e-3;
/// The exact Fisher has ten rows for each position of a convolution: a subset of them would be another on other ranks.
constexpr std::int64_t kAllRows = std::int64_t{1} << 20;

/// Counts what goes through a group.
class Counted final : public dds::Ranks {
 public:
  explicit Counted(dds::RanksPtr ranks) : ranks_(std::move(ranks)) {}
  int rank() const override { return ranks_->rank(); }
  int size() const override { return ranks_->size(); }
  void send(const at::Tensor& bytes, int to) override {
    ++sends;
    sent += bytes.numel();
    ranks_->send(bytes, to);
  }
  void receive(const at::Tensor& bytes, int from) override { ranks_->receive(bytes, from); }

  std::int64_t sends = 0, sent = 0;

 private:
  dds::RanksPtr ranks_;
};

/// The rows of `all` that are this rank's.
torch::Tensor part(const torch::Tensor& all, int rank, int size) {
  const std::int64_t n = all.size(0);
  return all.slice(0, n * rank / size, n * (rank + 1) / size);
}

/// Each gradient becomes that of the mean over the whole batch, of which this rank has seen a share.
void average_gradients(Network& network, double share, const Groups& groups) {
  for (const torch::Tensor& parameter : network->parameters()) {
    parameter.mutable_grad().mul_(share);
    groups.training.all_reduce(parameter.mutable_grad());
  }
}

/// Seconds that the readings of training steps took.
class Seconds final : public dds::log::Memory {
 public:
  double median_of(const std::string& name) const {
    std::vector<double> values;
    for (const dds::Metric& metric : metrics) {
      if (metric.name == name) values.push_back(metric.value);
    }
    return values.empty() ? 0 : dds::median(values);
  }
};

}  // namespace

Outcome train(const Job& job, const Split& split, const std::optional<Groups>& groups,
              const std::filesystem::path& out) {
  const int rank = groups ? groups->readings.ranks->rank() : 0, size = groups ? groups->readings.ranks->size() : 1;
  torch::manual_seed(job.seed);
  Network network;
  network->to(torch::kDouble);
  torch::optim::Adam optimizer(network->parameters(), kLearningRate);
  torch::Generator generator = at::detail::createCPUGenerator(job.seed);
  const torch::Tensor order = torch::randperm(split.images.size(0), generator, torch::kLong);

  const auto counted = groups ? std::make_shared<Counted>(groups->readings.ranks) : nullptr;
  const auto seconds = std::make_shared<Seconds>();
  const dds::SignatureOptions reading = dds::SignatureOptions().spectra(true).ranks(counted);
  const dds::log::SinkPtr log = rank == 0 ? dds::log::tee({dds::log::directory(out / "log"), seconds}) : nullptr;
  Outcome outcome;
  const auto note = [&](const std::exception& error) { outcome.errors.emplace_back(error.what()); };
  dds::Monitor monitor(*network, dds::MonitorOptions().every(job.every).signatures(reading).on_error(note), log);

  for (std::int64_t i = 0; i < job.steps; ++i) {
    if (job.fate != 0 && rank == job.victim && i == job.fatal_step) raise(job.fate);
    const dds::Stopwatch watch;
    const std::int64_t begin = i * job.batch % (order.size(0) - job.batch);
    const torch::Tensor own = part(order.slice(0, begin, begin + job.batch), rank, size);
    {
      auto step = monitor.step();
      optimizer.zero_grad();
      torch::nn::functional::cross_entropy(network->forward(split.images.index_select(0, own).to(torch::kDouble)),
                                           split.labels.index_select(0, own))
          .backward();
      if (groups && job.together) {
        average_gradients(network, static_cast<double>(own.size(0)) / static_cast<double>(job.batch), *groups);
      }
      optimizer.step();
    }
    outcome.step_seconds.push_back(watch.seconds());
  }
  outcome.reading_seconds = seconds->median_of("step_reading_seconds");
  if (counted) {
    outcome.sent = counted->sent;
    outcome.sends = counted->sends;
  }
  torch::save(torch::nn::utils::parameters_to_vector(network->parameters()).detach(),
              (out / ("weights-" + std::to_string(rank) + ".pt")).string());
  if (job.probe == 0) return outcome;
  const dds::Data probe(part(split.images.slice(0, 0, job.probe), rank, size),
                        part(split.labels.slice(0, 0, job.probe), rank, size));
  monitor.read({*network, dds::categorical(), probe},
               dds::ReadOptions().signatures(dds::SignatureOptions().spectra(true).max_rows(kAllRows)));
  return outcome;
}

}  // namespace distributed
