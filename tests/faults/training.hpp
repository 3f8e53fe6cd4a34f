// A training as users write them, whose log and checkpoint a test can hold against those of another.
#pragma once

#include <torch/torch.h>

#include <dds/monitor.hpp>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "src/log/file.hpp"

namespace dds::test {

struct Training {
  std::filesystem::path checkpoint;  ///< empty: none
  bool checkpoint_first = false;     ///< what is logged at the same step comes after it, or else before
  std::int64_t steps = 40;
  /// Told of every step that is about to begin.
  std::function<void(std::int64_t step, Monitor&)> before_step = [](std::int64_t, Monitor&) {};
  /// Told, behind every call of the monitor's that logs, of how many rows at which step.
  std::function<void(std::int64_t step, std::int64_t rows)> logged = [](std::int64_t, std::int64_t) {};
};

inline LlcEstimate estimate_at(std::int64_t step) {
  LlcEstimate estimate;
  estimate.lambda = 1.0 / static_cast<double>(step + 3);
  estimate.settings.seed = static_cast<std::uint64_t>(step);
  return estimate;
}

/// Trains from the checkpoint, if there is one, or else from the beginning; `options` and `sink` are the monitor's, or
/// there is none. Returns the weights. All that is random follows from the number of the step.
inline at::Tensor train(const Training& training, const MonitorOptions& options, const log::SinkPtr& sink) {
  at::set_num_threads(1);
  torch::manual_seed(1);
  torch::nn::Sequential net(torch::nn::Linear(6, 5), torch::nn::Tanh(), torch::nn::Linear(5, 4));
  torch::optim::Adam optimizer(net->parameters(), 0.01);
  std::optional<Monitor> monitor;
  if (sink) monitor.emplace(*net, options, sink);

  std::int64_t done = 0;
  if (!training.checkpoint.empty() && std::filesystem::exists(training.checkpoint)) {
    torch::serialize::InputArchive archive;
    archive.load_from(training.checkpoint.string());
    torch::serialize::InputArchive weights, moments;
    archive.read("net", weights), archive.read("optimizer", moments);
    net->load(weights), optimizer.load(moments);
    c10::IValue value;
    archive.read("steps", value);
    done = value.toInt();
    archive.read("monitor", value);
    if (monitor) monitor->load_state(value.toStringRef());
  }
  const auto save = [&] {
    if (training.checkpoint.empty() || done % 5 != 0) return;
    torch::serialize::OutputArchive archive, weights, moments;
    net->save(weights), optimizer.save(moments);
    archive.write("net", weights), archive.write("optimizer", moments);
    archive.write("steps", c10::IValue(done));
    archive.write("monitor", c10::IValue(monitor ? monitor->state() : ""));
    const std::string temporary = training.checkpoint.string() + ".new";
    archive.save_to(temporary);
    std::filesystem::rename(temporary, training.checkpoint);
  };
  // A reading: its signatures, and the metric of what it took.
  const std::int64_t reading =
      monitor ? std::ssize(monitor->layers()) * std::ssize(options.signatures().sides()) + 1 : 0;
  double loss = 0;
  const auto log_here = [&] {
    if (!monitor) return;
    monitor->log("loss", loss);
    training.logged(done, 1);
    if (done % 4 == 0) {
      monitor->read({*net, gaussian(), Data(torch::ones({7, 6}))});
      training.logged(done, reading);
    }
    if (done % 6 == 0) {
      monitor->log(estimate_at(done));
      training.logged(done, 1);
    }
  };
  for (;; ++done) {
    {
      const torch::NoGradGuard no_grad;  // the loss here, the same whether this step was trained or loaded
      torch::manual_seed(static_cast<std::uint64_t>(done));
      loss = net->forward(torch::randn({9, 6})).square().mean().item<double>();
    }
    if (training.checkpoint_first) save();
    log_here();
    if (!training.checkpoint_first) save();
    if (done == training.steps) break;
    std::optional<Monitor::Step> step;
    if (monitor) {
      training.before_step(done, *monitor);
      step.emplace(monitor->step());
    }
    optimizer.zero_grad();
    torch::mse_loss(net->forward(torch::randn({9, 6})), torch::ones({9, 4})).backward();
    optimizer.step();
    const bool due = step && step->due();
    step.reset();
    if (due) training.logged(done, reading);
  }
  return torch::nn::utils::parameters_to_vector(net->parameters()).detach();
}

}  // namespace dds::test
