// What a model is asked over, in the words of a command line: data, and a likelihood.
#pragma once

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

/// Inputs and targets by the names that were given, or else: the tensor `targets`, or the second of a list, is the
/// targets, and all others are inputs. Throws InvalidArgument and IoError.
Data data_of(const SampleOptions& options);

/// What was asked for, or what the targets tell: class indices are whole numbers. Null: neither tells.
LikelihoodPtr likelihood_of(const SampleOptions& options, const Data& data);

}  // namespace dds::tool
