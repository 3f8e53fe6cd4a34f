// `dds read`: the signatures of a TorchScript model over a file of data.
#include <ATen/core/Tensor.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <dds/error.hpp>
#include <dds/log.hpp>
#include <dds/read.hpp>
#include <dds/script.hpp>
#include <memory>
#include <string>
#include <vector>

#include "src/base/check.hpp"
#include "src/log/cause_findings.hpp"
#include "src/log/json.hpp"
#include "src/tool/command.hpp"
#include "src/tool/runs.hpp"
#include "src/tool/samples.hpp"
#include "src/tool/table.hpp"

namespace dds::tool {
namespace {

struct ReadArguments {
  std::string model;
  SampleOptions samples;
  std::vector<std::string> layers, sides;
  std::string out;
  bool spectra = false, empirical = false, own_dtype = false;
  std::int64_t batch_size = ReadOptions().batch_size();
  std::int64_t draws = ReadOptions().draws();
  std::int64_t max_rows = SignatureOptions().max_rows();
  std::int64_t step = 0;
  std::uint64_t seed = 0;
};

/// Stands in where only the forward pass is read.
LikelihoodPtr no_likelihood() {
  return likelihood(
      "none",
      [](const at::Tensor& output, const at::Tensor&) {
        return output.flatten().view({output.size(0), -1}).sum(1);
      },
      [](const at::Tensor& output, const at::Generator&) { return output; });
}

std::vector<Side> sides_of(const ReadArguments& options, bool with_likelihood) {
  std::vector<Side> sides;
  for (const std::string& side : options.sides) sides.push_back(side_from_string(side));
  if (sides.empty()) return with_likelihood ? SignatureOptions().sides() : std::vector<Side>{Side::Activation};
  if (!with_likelihood && std::find(sides.begin(), sides.end(), Side::Fisher) != sides.end())
    throw_invalid("read", "--side", value_text("fisher"),
                  "activation or input, where neither --likelihood nor targets tell more");
  return sides;
}

std::string counts_of(const std::vector<Signature>& signatures) {
  Table table({"<layer", "<kind", "<side", "<fisher", "rows", "width", "sigma_max", "sigma_min", "floor",
               "log10 lambda_min+", "log det+", "rank", "bound", "dead", "<status"});
  for (const Signature& s : signatures) {
    table.add({s.layer, s.kind, std::string(to_string(s.side)), s.fisher_kind ? to_string(*s.fisher_kind) : "-",
               show(s.rows), show(s.width), show(s.sigma_max), sigma_min_text(s), show(s.floor),
               show(s.log10_lambda_min_plus), show(s.logdet_plus), show(s.rank), show(s.structural_bound),
               show(s.dead_directions), to_string(s.status)});
  }
  return table.text();
}

/// Why directions are dead, a sentence each.
std::string causes_of(const std::vector<Signature>& signatures) {
  log::Run run;
  run.signatures = signatures;
  std::string text;
  for (const log::LastingCause& lasting : log::lasting_causes(run)) text += printable(log::sentence(lasting)) + "\n";
  return text.empty() ? text : "\n" + text;
}

void read_model(const ReadArguments& options) {
  if (!options.out.empty()) check_new_run("read", options.out);
  const ScriptModel model = load_script(options.model);
  const Samples samples = samples_of(options.samples);
  const LikelihoodPtr likelihood = samples.likelihood;
  auto reading = SignatureOptions()
                     .sides(sides_of(options, likelihood != nullptr))
                     .spectra(options.spectra)
                     .max_rows(options.max_rows)
                     .seed(options.seed);
  if (!options.layers.empty()) reading.layers(options.layers);
  const auto read_options = ReadOptions()
                                .signatures(reading)
                                .fisher(options.empirical ? Fisher::Empirical : Fisher::True)
                                .draws(options.draws)
                                .batch_size(options.batch_size)
                                .fp64(!options.own_dtype);
  const Problem problem(*model.module, likelihood ? likelihood : no_likelihood(), samples.data, model.forward);
  std::vector<Signature> signatures = over(samples, [&] { return read(problem, read_options); });
  for (Signature& signature : signatures) signature.step = options.step;
  if (!options.out.empty()) {
    const log::SinkPtr run = log::directory(options.out);
    const auto describe = [&](const char* key, const std::string& value) {
      run->describe(key, log::json_text(nlohmann::json(value)));
    };
    describe("model", options.model);
    describe("data", options.samples.data);
    describe("likelihood", likelihood ? likelihood->name() : "none");
    for (const Signature& signature : signatures) run->write(signature);
  }
  fmt::print("{} samples, likelihood {}\n{}\n\n{}", samples.data.size(),
             likelihood ? likelihood->name() : "none (only the forward pass is read; see --likelihood)",
             printable(samples.taken), counts_of(signatures));
  if (std::any_of(signatures.begin(), signatures.end(), [](const Signature& s) { return s.at_floor == true; }))
    fmt::print("\n* sigma_min is at or below the floor: rounding noise\n");
  fmt::print("{}", causes_of(signatures));
}

}  // namespace

void add_read(CLI::App& program) {
  CLI::App* command =
      program.add_subcommand("read", "Signatures of every layer of a TorchScript model over a file of data");
  command->footer(
      "MODEL  what torch.jit.save (Python) or torch::jit::Module::save (C++) wrote, and not frozen.\n"
      "DATA   tensors whose first dimension counts the samples, as torch::save (C++: a tensor, a vector of tensors, or "
      "an\n"
      "       OutputArchive of tensors by name) or torch.save (Python: a tensor, a list or tuple of tensors, or a dict "
      "of\n"
      "       tensors by name) wrote them. Unless --input and --targets say otherwise, the tensor named 'targets', or "
      "the\n"
      "       second of a list, is the targets, and all others are inputs in the order of the file: the second line of "
      "the\n"
      "       output says what was taken for what.\n\n"
      "The read is in fp64, with the true Fisher: labels from the model's own predictive distribution. With --out the\n"
      "signatures are a run, as a training program logs one, for 'dds report' and the rest.\n\n" DDS_STRANGERS_FILES
      "Examples:\n"
      "  dds read model.pt probe.pt\n"
      "  dds read model.pt probe.pt --likelihood gaussian:0.1 --out runs/read --spectra\n"
      "  dds read lm.pt text.pt --input tokens --layers 'blocks.*' --side activation --side fisher --draws 4");
  const auto options = std::make_shared<ReadArguments>();
  command->add_option("MODEL", options->model, "TorchScript archive")->required();
  command->add_option("DATA", options->samples.data, "file of tensors")->required();
  add_sample_options(*command, options->samples,
                     std::string(kDefaultLikelihood) + ", and no Fisher side where there are none");
  command->add_option("--layers", options->layers, "glob pattern on the names of layers; several times (default: all)")
      ->allow_extra_args(false);
  command
      ->add_option("--side", options->sides, "activation, input or fisher; several times (default: activation, fisher)")
      ->allow_extra_args(false);
  command->add_option("--out", options->out, "folder to log the signatures into, new or empty");
  command->add_option("--step", options->step, "training step that they are logged for")->capture_default_str();
  command->add_flag("--spectra", options->spectra, "log all singular values too");
  command->add_flag("--empirical", options->empirical, "empirical Fisher: the data's labels");
  command->add_option("--draws", options->draws, "draws of the labels, where there is no exact expectation")
      ->capture_default_str();
  command->add_option("--batch-size", options->batch_size, "samples per forward pass")->capture_default_str();
  command->add_option("--max-rows", options->max_rows, "rows of one layer and side that are read; of more, a subset")
      ->capture_default_str();
  command->add_option("--seed", options->seed, "seed of draws and subsets")->capture_default_str();
  command->add_flag("--own-dtype", options->own_dtype, "read in the model's own dtype instead of fp64");
  command->callback([options] { read_model(*options); });
}

}  // namespace dds::tool
