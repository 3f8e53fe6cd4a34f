// What estimate_llc asks of its arguments.
#pragma once

#include <dds/llc.hpp>
#include <string>
#include <vector>

namespace dds {

/// Throws InvalidArgument for what <dds/llc.hpp> says is no valid input.
void check(const Problem& problem, const LlcOptions& options);

/// Names of the parameters that move. Throws InvalidArgument, which names `function`, if the patterns select none.
std::vector<std::string> selected_parameters(const torch::nn::Module& model, const Patterns& patterns,
                                             const char* function);

}  // namespace dds
