#include "src/tool/samples.hpp"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <charconv>
#include <string_view>
#include <system_error>

#include "src/base/check.hpp"
#include "src/tool/tensors.hpp"

namespace dds::tool {
namespace {

constexpr const char* kCommandLine = "command line";

double sigma_of(const std::string& text) {
  double sigma = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), sigma);
  check(error == std::errc() && end == text.data() + text.size(), kCommandLine, "SIGMA of --likelihood", text,
        "a number");
  return sigma;
}

}  // namespace

void add_sample_options(CLI::App& command, SampleOptions& options, const std::string& default_likelihood) {
  command.add_option("--likelihood", options.likelihood,
                     fmt::format("{} (default: {})", kLikelihoods, default_likelihood));
  command.add_option("--input", options.inputs, "name of an input; may be given several times, in order")
      ->allow_extra_args(false);
  command.add_option("--targets", options.targets, "name of the targets");
}

Data data_of(const SampleOptions& options) {
  const NamedTensors file = load_tensors(options.data);
  Data data;
  std::string targets = options.targets;
  const bool given = !targets.empty();
  if (!given) targets = file.numbered ? "1" : "targets";
  for (const auto& [name, tensor] : file.tensors) {
    if (name == targets) data.targets = tensor;
    if (name != targets && options.inputs.empty()) data.inputs.push_back(tensor);
  }
  if (given) file.at(targets);  // throws if there is none
  for (const std::string& name : options.inputs) data.inputs.push_back(file.at(name));
  check(!data.inputs.empty(), options.data, "what it holds", targets, "an input besides the targets");
  return data;
}

LikelihoodPtr likelihood_of(const SampleOptions& options, const Data& data) {
  constexpr std::string_view kGaussian = "gaussian:";
  if (options.likelihood == "categorical") return categorical();
  if (options.likelihood == "bernoulli") return bernoulli();
  if (options.likelihood == "gaussian") return gaussian();
  if (options.likelihood.starts_with(kGaussian)) return gaussian(sigma_of(options.likelihood.substr(kGaussian.size())));
  check(options.likelihood.empty(), kCommandLine, "--likelihood", options.likelihood, kLikelihoods);
  if (!data.targets.defined()) return nullptr;
  return data.targets.scalar_type() == at::kLong ? categorical() : gaussian();
}

}  // namespace dds::tool
