#include "src/tool/samples.hpp"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>
#include <system_error>

#include "src/base/check.hpp"
#include "src/tool/tensors.hpp"

namespace dds::tool {
namespace {

constexpr const char* kCommandLine = "command line";

bool is_whole(const at::Tensor& tensor) { return at::isIntegralType(tensor.scalar_type(), /*includeBool=*/false); }

double sigma_of(const std::string& text) {
  double sigma = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), sigma);
  check(error == std::errc() && end == text.data() + text.size(), kCommandLine, "SIGMA of --likelihood", text,
        "a number");
  return sigma;
}

LikelihoodPtr likelihood_of(const std::string& name, const at::Tensor& targets) {
  constexpr std::string_view kGaussian = "gaussian:";
  if (name == "categorical") return categorical();
  if (name == "bernoulli") return bernoulli();
  if (name == "gaussian") return gaussian();
  if (name.starts_with(kGaussian)) return gaussian(sigma_of(name.substr(kGaussian.size())));
  check(name.empty(), kCommandLine, "--likelihood", name, kLikelihoods);
  if (!targets.defined()) return nullptr;
  if (targets.scalar_type() == at::kBool) return bernoulli();
  return is_whole(targets) ? categorical() : gaussian();
}

/// "inputs x (Float [20, 4]); targets y (Long [20])", with what of the file was not used.
std::string taken_of(const NamedTensors& file, const std::vector<std::string>& inputs, const std::string& targets) {
  const auto list = [&](const std::vector<std::string>& names) {
    std::string text;
    for (const std::string& name : names)
      text += fmt::format("{}{} ({})", text.empty() ? "" : ", ", name, text_of(file.at(name)));
    return text.empty() ? "none" : text;
  };
  std::string text = fmt::format("inputs: {}; targets: {}", list(inputs),
                                 list(targets.empty() ? std::vector<std::string>{} : std::vector{targets}));
  std::string unused;
  const auto add = [&](const std::string& name, const std::string& what) {
    unused += fmt::format("{}{} ({})", unused.empty() ? "" : ", ", name, what);
  };
  for (const auto& [name, tensor] : file.tensors) {
    if (name != targets && std::find(inputs.begin(), inputs.end(), name) == inputs.end()) add(name, text_of(tensor));
  }
  for (const auto& [name, kind] : file.passed_over) add(name, kind);
  return unused.empty() ? text : text + "; not used: " + unused;
}

}  // namespace

void add_sample_options(CLI::App& command, SampleOptions& options, const std::string& default_likelihood) {
  command.add_option("--likelihood", options.likelihood,
                     fmt::format("{} (default: {})", kLikelihoods, default_likelihood));
  command.add_option("--input", options.inputs, "name of an input; may be given several times, in order")
      ->allow_extra_args(false);
  command.add_option("--targets", options.targets, "name of the targets");
}

Samples samples_of(const SampleOptions& options) {
  const NamedTensors file = load_tensors(options.data);
  std::string targets = options.targets;
  if (targets.empty()) {
    targets = file.numbered ? "1" : "targets";
    file.check_tensor(targets);
    if (!file.has(targets)) targets.clear();
  }
  std::vector<std::string> inputs = options.inputs;
  if (inputs.empty()) {
    for (const auto& [name, tensor] : file.tensors) {
      if (name != targets) inputs.push_back(name);
    }
  }
  // The second of a list may be named as an input.
  if (options.targets.empty() && std::find(inputs.begin(), inputs.end(), targets) != inputs.end()) targets.clear();
  Samples samples;
  for (const std::string& name : inputs) samples.data.inputs.push_back(file.at(name));
  if (!targets.empty()) samples.data.targets = file.at(targets);
  check(!inputs.empty(), options.data, "what it holds", targets, "an input besides the targets");
  samples.taken = taken_of(file, inputs, targets);
  samples.likelihood = likelihood_of(options.likelihood, samples.data.targets);
  at::Tensor& labels = samples.data.targets;
  if (samples.likelihood && samples.likelihood->name() == "categorical" && labels.defined() && is_whole(labels))
    labels = labels.to(at::kLong);
  return samples;
}

}  // namespace dds::tool
