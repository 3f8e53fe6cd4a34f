// What a model is asked over, in the words of a command line: data, and a likelihood.
#pragma once

#include <CLI/CLI.hpp>
#include <dds/model.hpp>
#include <string>
#include <vector>

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

/// --likelihood, of which the help says `default_likelihood` too, --input and --targets.
void add_sample_options(CLI::App& command, SampleOptions& options, const std::string& default_likelihood);

/// Inputs and targets by the names that were given, or else: the tensor `targets`, or the second of a list, is the
/// targets, and all others are inputs. Throws InvalidArgument and IoError.
Data data_of(const SampleOptions& options);

/// What was asked for, or what the targets tell: class indices are whole numbers. Null: neither tells.
LikelihoodPtr likelihood_of(const SampleOptions& options, const Data& data);

}  // namespace dds::tool
