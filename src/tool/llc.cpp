// `dds llc`: the LLC at the snapshots that `dds attach --snapshots` left, or of a TorchScript model as it is.
#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/nn/module.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstdio>
#include <dds/error.hpp>
#include <dds/interrupt.hpp>
#include <dds/llc.hpp>
#include <dds/log.hpp>
#include <dds/read.hpp>
#include <dds/script.hpp>
#include <exception>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "src/attach/names.hpp"
#include "src/base/check.hpp"
#include "src/log/json.hpp"
#include "src/log/run_files.hpp"
#include "src/tool/command.hpp"
#include "src/tool/runs.hpp"
#include "src/tool/samples.hpp"
#include "src/tool/streams.hpp"
#include "src/tool/table.hpp"
#include "src/tool/tensors.hpp"

namespace dds::tool {
namespace {

namespace fs = std::filesystem;

struct LlcArguments {
  std::string run, model, out;
  SampleOptions samples;
  std::string kind{to_string(LlcKind::Plain)};
  std::vector<std::int64_t> steps;
  std::int64_t every = 1;
  std::vector<std::string> parameters;
  bool settle = false;
  std::int64_t batch_size = 0;
  double max_seconds = 120;  // somebody waits for it
  std::int64_t max_gradients = LlcOptions().max_gradients().value_or(0);
  std::uint64_t seed = LlcOptions().seed();
  bool read = false;
};

struct Snapshot {
  std::int64_t step = 0;
  fs::path file;  ///< empty: the model as it is
};

/// The files STEP.pt of a run, in order of their steps.
std::vector<Snapshot> all_snapshots(const std::string& run) {
  log::read_description(run);  // throws if it is no run
  const fs::path folder = fs::path(run) / attach::kSnapshotFolder;
  std::vector<Snapshot> all;
  std::error_code missing;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, missing)) {
    const std::string name = entry.path().stem().string();
    std::int64_t step = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), step);
    if (error == std::errc() && end == name.data() + name.size() && entry.path().extension() == attach::kTensorFile)
      all.push_back({step, entry.path()});
  }
  if (all.empty()) throw IoError(fmt::format("{} has no snapshots, which dds attach --snapshots writes", run));
  std::sort(all.begin(), all.end(), [](const Snapshot& a, const Snapshot& b) { return a.step < b.step; });
  return all;
}

/// Those that were asked for.
std::vector<Snapshot> snapshots_of(const LlcArguments& options) {
  const std::vector<Snapshot> all = all_snapshots(options.run);
  std::vector<std::int64_t> there;
  for (const Snapshot& one : all) there.push_back(one.step);
  const auto is_among = [](std::int64_t step, const std::vector<std::int64_t>& steps) {
    return std::find(steps.begin(), steps.end(), step) != steps.end();
  };
  for (const std::int64_t step : options.steps)
    check(is_among(step, there), "llc", "--steps", step, fmt::format("one of {}", fmt::join(there, ", ")));
  std::vector<Snapshot> chosen;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const bool wanted = options.steps.empty() ? static_cast<std::int64_t>(i) % options.every == 0
                                              : is_among(all[i].step, options.steps);
    if (wanted) chosen.push_back(all[i]);
  }
  return chosen;
}

/// What is recorded of a run is used where nothing else was given.
LlcArguments with_defaults(LlcArguments options) {
  if (options.run.empty()) {
    if (options.model.empty() || options.samples.data.empty())
      throw CLI::ValidationError("llc", "RUN is missing, or --model and --data are");
    if (!options.steps.empty() || options.every != 1)
      throw CLI::ValidationError("llc", "--steps and --every are for the snapshots of a RUN");
    return options;
  }
  const fs::path folder = fs::path(options.run) / attach::kSnapshotFolder;
  const auto recorded = [&](const char* file, const char* option, const char* what) {
    if (fs::exists(folder / file)) return (folder / file).string();
    throw IoError(fmt::format("{} has no {}, {}: give one with {} (the notes under 'attach' in run.json say why)",
                              options.run, file, what, option));
  };
  if (options.model.empty()) options.model = recorded(attach::kModelFile, "--model", "the network as TorchScript");
  if (!options.samples.data.empty()) return options;
  options.samples.data = recorded(attach::kProbeFile, "--data", "the probe batch");
  if (!options.samples.likelihood.empty()) return options;
  const nlohmann::ordered_json run = log::read_description(options.run);
  const auto likelihood = nlohmann::ordered_json::json_pointer() / attach::kDescription / attach::kSnapshotDescription /
                          attach::kLikelihood;
  if (run.contains(likelihood) && run[likelihood].is_string())
    options.samples.likelihood = run[likelihood].get<std::string>();
  return options;
}

using Targets = std::vector<std::pair<std::string, at::Tensor>>;  ///< parameters and buffers of the model, by name

Targets tensors_of(const torch::nn::Module& model) {
  Targets targets;
  for (const auto& parameter : model.named_parameters()) targets.emplace_back(parameter.key(), parameter.value());
  for (const auto& buffer : model.named_buffers()) targets.emplace_back(buffer.key(), buffer.value());
  return targets;
}

std::string shape_of(const at::Tensor& tensor) {
  return fmt::format("{} [{}]", c10::toString(tensor.scalar_type()), fmt::join(tensor.sizes(), "x"));
}

/// The first of the model's tensors that the snapshot does not have under the prefix, or has of another shape, in
/// words; empty if all fit.
std::string misfit(const Targets& model, const NamedTensors& snapshot, const std::string& prefix) {
  for (const auto& [name, tensor] : model) {
    const auto found = std::find_if(snapshot.tensors.begin(), snapshot.tensors.end(),
                                    [&, &own = name](const auto& one) { return one.first == prefix + own; });
    if (found == snapshot.tensors.end()) return fmt::format("the model's '{}' is not in it", prefix + name);
    if (found->second.sizes() != tensor.sizes() || found->second.scalar_type() != tensor.scalar_type())
      return fmt::format("'{}' is {}, the model's {}", found->first, shape_of(found->second), shape_of(tensor));
  }
  return "";
}

/// What the names of the model have before them in the snapshot: nothing, or "module." and the like where the program
/// had it in another module, or several networks.
std::string prefix_of(const Targets& model, const NamedTensors& snapshot, const fs::path& file) {
  const std::string& first = model.front().first;
  const std::string plain = misfit(model, snapshot, "");
  if (plain.empty()) return "";
  std::vector<std::string> fit;
  std::string why = plain;
  for (const auto& [name, tensor] : snapshot.tensors) {
    if (!name.ends_with("." + first)) continue;
    const std::string prefix = name.substr(0, name.size() - first.size());
    if (const std::string wrong = misfit(model, snapshot, prefix); wrong.empty()) {
      fit.push_back(prefix);
    } else if (fit.empty() && why == plain) {
      why = wrong;
    }
  }
  if (fit.size() == 1) return fit.front();
  throw_invalid("llc", "the snapshot", value_text(file.string()),
                fit.empty() ? "one that fits the model: " + why
                            : fmt::format("one that fits the model once, not under {}", fmt::join(fit, " and ")));
}

/// Gives the model the parameters and buffers of a snapshot.
void restore(const Targets& model, const Snapshot& snapshot) {
  const NamedTensors file = load_tensors(snapshot.file);
  const std::string prefix = prefix_of(model, file, snapshot.file);
  const c10::NoGradGuard no_grad;
  for (const auto& [name, tensor] : model) at::Tensor(tensor).copy_(file.at(prefix + name));
}

/// Tells a terminal how far the chains are, and leaves nothing there.
class Progress {
 public:
  explicit Progress(std::int64_t step) : step_(step) {}
  ~Progress() {
    if (shown_) complain(fmt::format("\r{:40}\r", ""));
  }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  void operator()(double share) {
    static const bool terminal = isatty(STDERR_FILENO) != 0;
    if (!terminal) return;
    complain(fmt::format("\rstep {}: {:.0f} %", step_, 100 * share));
    shown_ = true;
  }

 private:
  std::int64_t step_;
  bool shown_ = false;
};

/// A number that was refused stands in brackets, and has no interval.
std::vector<std::string> row_of(const LlcEstimate& e) {
  const bool good = e.converged();
  return {std::to_string(e.step),
          good || !e.lambda ? show(e.lambda) : "(" + show(e.lambda) + ")",
          good && e.low && e.high ? fmt::format("[{}, {}]", show(e.low), show(e.high)) : "-",
          show(e.settings.gamma),
          std::to_string(e.gradients),
          e.verdict()};
}

log::SinkPtr sink_of(const LlcArguments& options, const Likelihood& likelihood) {
  log::SinkPtr sink;
  if (!options.out.empty()) {
    sink = log::directory(options.out);
  } else if (!options.run.empty()) {
    sink = log::directory(options.run, {.resume = true});
  } else {
    return nullptr;
  }
  const nlohmann::ordered_json how{{"model", options.model},
                                   {"data", options.samples.data},
                                   {"likelihood", likelihood.name()},
                                   {"kind", options.kind},
                                   {"parameters", options.parameters},
                                   {"settle", options.settle},
                                   {"batch_size", options.batch_size},
                                   {"max_seconds", options.max_seconds},
                                   {"max_gradients", options.max_gradients},
                                   {"seed", options.seed}};
  sink->describe("llc", log::json_text(how));
  return sink;
}

/// On the command line 0 is no limit.
template <class T>
std::optional<T> limit(T value) {
  return value > 0 ? std::optional(value) : std::nullopt;
}

LlcOptions llc_options(const LlcArguments& options) {
  auto llc = LlcOptions()
                 .kind(llc_kind_from_string(options.kind))
                 .max_seconds(limit(options.max_seconds))
                 .max_gradients(limit(options.max_gradients))
                 .seed(options.seed)
                 .cancelled(interrupted);
  if (!options.parameters.empty()) llc.parameters(options.parameters);
  if (options.settle) llc.settle(SettleOptions());
  if (options.batch_size > 0) llc.batch_size(options.batch_size);
  return llc;
}

/// What was found so far.
struct Outcome {
  Table table{{"step", "lambda", "<95 % interval", "gamma", "gradients", "<verdict"}};
  std::size_t refused = 0, done = 0;

  void add(const LlcEstimate& estimate) {
    table.add(row_of(estimate));
    refused += estimate.converged() ? 0 : 1;
    ++done;
  }
};

/// Estimates at the model's present weights.
void estimate_at(const Snapshot& snapshot, const Problem& problem, const LlcArguments& options, log::Sink* sink,
                 Outcome& outcome) {
  if (options.read) {
    for (Signature& signature : read(problem)) {
      signature.step = snapshot.step;
      sink->write(signature);
    }
  }
  Progress progress(snapshot.step);
  LlcEstimate estimate = estimate_llc(problem, llc_options(options).progress([&](double share) { progress(share); }));
  estimate.step = snapshot.step;
  outcome.add(estimate);
  if (sink) sink->write(estimate);
}

void print(const Outcome& outcome, const Samples& samples, const LlcArguments& options, std::size_t snapshots) {
  fmt::print("{} samples, likelihood {}, {} estimator{}\n{}\n\n{}", samples.data.size(), samples.likelihood->name(),
             options.kind,
             llc_kind_from_string(options.kind) == LlcKind::Tilted ? " (ours, not the published LLC)" : "",
             printable(samples.taken), outcome.table.text());
  if (outcome.refused > 0) {
    fmt::print("\n{} of {} refused: what stands in brackets is no LLC, for the reason that the verdict names\n",
               outcome.refused, outcome.done);
  }
  if (interrupted() && outcome.done < snapshots)
    fmt::print("\nInterrupted after {} of {} snapshots\n", outcome.done, snapshots);
}

void estimate(const LlcArguments& given) {
  const LlcArguments options = with_defaults(given);
  const std::vector<Snapshot> snapshots =
      options.run.empty() ? std::vector<Snapshot>{Snapshot()} : snapshots_of(options);
  if (!options.out.empty()) check_new_run("llc", options.out);
  const ScriptModel model = load_script(options.model);
  const Samples samples = samples_of(options.samples);
  check(samples.data.targets.defined(), "llc", "--data", options.samples.data,
        "a file that has targets, which an LLC needs ({})", samples.taken);
  const Targets tensors = tensors_of(*model.module);
  if (!snapshots.front().file.empty()) restore(tensors, snapshots.front());  // what does not fit writes no log
  const log::SinkPtr sink = sink_of(options, *samples.likelihood);
  const Problem problem(*model.module, samples.likelihood, samples.data, model.forward);

  const CatchInterrupts catching;
  Outcome outcome;
  std::exception_ptr failed;  // what was found before is shown all the same
  try {
    for (const Snapshot& snapshot : snapshots) {
      if (interrupted()) break;
      if (outcome.done > 0) restore(tensors, snapshot);
      over(samples, [&] { estimate_at(snapshot, problem, options, sink.get(), outcome); });
    }
  } catch (...) {
    failed = std::current_exception();
  }
  if (outcome.done > 0) print(outcome, samples, options, snapshots.size());
  if (failed) std::rethrow_exception(failed);
  if (outcome.done == 0) throw Error("llc: interrupted before the first estimate");
  if (outcome.refused == outcome.done)
    throw Error(fmt::format("llc: no LLC was found: {} of {} estimates are refused", outcome.refused, outcome.done));
}

}  // namespace

void add_llc(CLI::App& program) {
  CLI::App* command =
      program.add_subcommand("llc", "Learning coefficients at the snapshots of a run, or of a TorchScript model");
  command->footer(
      "RUN is a folder that 'dds attach --snapshots' wrote. Each snapshot's parameters and buffers are put into the\n"
      "network, which is TorchScript, by their names; the step, the sampler, gamma and the length are found by\n"
      "calibration. A row a snapshot is appended to the log of RUN, or with --out to one of its own, for 'dds report' "
      "and\n"
      "'dds compare'. Without RUN the model is taken as it is.\n\n"
      "No number is an LLC unless its verdict is 'converged': what was refused stands in brackets. The exit code is 1 "
      "if\n"
      "nothing converged.\n\n" DDS_STRANGERS_FILES
      "Examples:\n"
      "  dds llc runs/a\n"
      "  dds llc runs/a --every 10 --settle --max-seconds 60 --read\n"
      "  dds llc runs/a --model net.pt --data train.pt --steps 0,1000 --parameters 'head.*'\n"
      "  dds llc --model net.pt --data train.pt --likelihood gaussian:0.1");
  const auto options = std::make_shared<LlcArguments>();
  command->add_option("RUN", options->run, "run directory with snapshots");
  command->add_option("--model", options->model, "TorchScript archive (default: the one recorded in RUN)");
  command->add_option("--data", options->samples.data, "file of tensors (default: the probe batch recorded in RUN)");
  add_sample_options(*command, options->samples,
                     std::string("that of the recorded loss; of other data,\n") + kDefaultLikelihood);
  command->add_option("--kind", options->kind, "plain, or tilted: for points that are no minimum")
      ->check(CLI::IsMember({std::string(to_string(LlcKind::Plain)), std::string(to_string(LlcKind::Tilted))}))
      ->capture_default_str();
  command->add_flag("--settle", options->settle,
                    "go down to a minimum first: the LLC is that of the point there, and the log says how far it is");
  command->add_option("--batch-size", options->batch_size, "samples of a step; 0: all of them")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--steps", options->steps, "snapshots to take, by their steps, separated by commas (default: all)")
      ->delimiter(',')
      ->allow_extra_args(false);
  command->add_option("--every", options->every, "take one snapshot in so many, from the first on")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command
      ->add_option("--parameters", options->parameters,
                   "glob pattern on the names of the parameters that move; several times (default: all)")
      ->allow_extra_args(false);
  command->add_option("--max-seconds", options->max_seconds, "end an estimate after so long; 0: no limit")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      ->add_option("--max-gradients", options->max_gradients, "forward and backward passes of an estimate; 0: no limit")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->add_option("--seed", options->seed, "seed of the draws")->capture_default_str();
  command->add_option("--out", options->out, "folder to log into, new or empty (default: RUN)");
  CLI::Option* read =
      command->add_flag("--read", options->read, "log signatures at each snapshot too: in fp64, with the true Fisher");
  command->callback([options, read] {
    if (*read && options->run.empty() && options->out.empty())
      throw CLI::ValidationError("--read", "there is no log to write to: give --out");
    estimate(*options);
  });
}

}  // namespace dds::tool
