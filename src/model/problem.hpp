// What every function that takes a Problem asks of it.
#pragma once

#include <dds/problem.hpp>
#include <memory>

namespace dds {

/// Throws InvalidArgument, which names `function`, for a null likelihood, an empty forward or data without samples.
void check(const Problem& problem, const char* function);

/// The same where the likelihood's loss is needed: for data without targets too.
void check_with_targets(const Problem& problem, const char* function);

/// The model of a Problem, not owned: the caller keeps it.
std::shared_ptr<torch::nn::Module> borrowed(torch::nn::Module& model);

}  // namespace dds
