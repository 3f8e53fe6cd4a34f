#include "src/tool/samples.hpp"

#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <charconv>
#include <dds/error.hpp>
#include <string_view>
#include <system_error>

#include "src/tool/tensors.hpp"

namespace dds::tool {
namespace {

double sigma_of(const std::string& text) {
  double sigma = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), sigma);
  if (error != std::errc() || end != text.data() + text.size())
    throw InvalidArgument(fmt::format("--likelihood gaussian:{}: '{}' is no number", text, text));
  return sigma;
}

}  // namespace

void add_sample_options(CLI::App& command, SampleOptions& options) {
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
  if (data.inputs.empty())
    throw InvalidArgument(fmt::format("{} holds targets only ({}), expected an input", options.data, targets));
  return data;
}

LikelihoodPtr likelihood_of(const SampleOptions& options, const Data& data) {
  constexpr std::string_view kGaussian = "gaussian:";
  if (options.likelihood == "categorical") return categorical();
  if (options.likelihood == "bernoulli") return bernoulli();
  if (options.likelihood == "gaussian") return gaussian();
  if (options.likelihood.starts_with(kGaussian)) return gaussian(sigma_of(options.likelihood.substr(kGaussian.size())));
  if (!options.likelihood.empty()) {
    throw InvalidArgument(fmt::format(
        "--likelihood is '{}', expected categorical, bernoulli, gaussian or gaussian:SIGMA", options.likelihood));
  }
  if (!data.targets.defined()) return nullptr;
  return data.targets.scalar_type() == at::kLong ? categorical() : gaussian();
}

}  // namespace dds::tool
