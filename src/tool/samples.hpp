// What a model is asked over, in the words of a command line: data, and a likelihood.
#pragma once

#include <c10/util/Exception.h>
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <dds/error.hpp>
#include <dds/model.hpp>
#include <string>
#include <vector>

#include "src/tool/table.hpp"

namespace dds::tool {

/// Options that `dds read` and `dds llc` share.
struct SampleOptions {
  std::string data;                 ///< file of tensors
  std::vector<std::string> inputs;  ///< --input
  std::string targets;              ///< --targets
  std::string likelihood;           ///< --likelihood
};

/// The likelihoods that there are.
inline constexpr const char* kLikelihoods = "categorical, bernoulli, gaussian or gaussian:SIGMA";

/// What the help of both says of files that others made.
#define DDS_STRANGERS_FILES                                                                                           \
  "A TorchScript archive is a program, and so may be a file of tensors: LibTorch runs code of theirs when it loads\n" \
  "them, which can read and write your files. Do not read a stranger's outside a sandbox "                            \
  "(src/docs/untrusted_files.md).\n\n"

/// What the help of both says of the likelihood of targets.
inline constexpr const char* kDefaultLikelihood =
    "categorical where the\n"
    "targets are whole numbers, bernoulli where they are true or false, gaussian where they are anything else";

/// --likelihood, of which the help says `default_likelihood` too, --input and --targets.
void add_sample_options(CLI::App& command, SampleOptions& options, const std::string& default_likelihood);

/// What a model is asked over.
struct Samples {
  Data data;
  LikelihoodPtr likelihood;  ///< null: neither the options nor the targets tell one
  std::string taken;         ///< what of the file was taken for what, in a line
};

/// Inputs and targets by the names that were given, or else: the tensor `targets`, or the second of a list, is the
/// targets, and all others are inputs. The likelihood that was given, or else: whole numbers are classes, truth values
/// are bernoulli's, and all else is gaussian's. Throws InvalidArgument and IoError.
Samples samples_of(const SampleOptions& options);

/// Runs `work`. An error of LibTorch within it may come of what was taken for what, and says so.
template <class Work>
auto over(const Samples& samples, const Work& work) {
  try {
    return work();
  } catch (const c10::Error& error) {
    throw Error(fmt::format("{} ({})", one_line(error.what_without_backtrace()), samples.taken));
  }
}

}  // namespace dds::tool
