// What every function that takes a Problem asks of it.
#pragma once

#include <dds/problem.hpp>
#include <memory>

namespace dds {

/// Throws InvalidArgument, which names `function`, for a null likelihood, an empty forward or data without samples.
void check(const Problem& problem, const char* function);

/// The same where the likelihood's loss is needed: for data without targets too.
void check_with_targets(const Problem& problem, const char* function);

/// Throws InvalidArgument, which names `function`, for an output of a Problem's forward that has not one entry for each
/// sample along its first dimension.
void check_output(const at::Tensor& output, std::int64_t samples, const char* function);

/// The same data in other memory, for a forward and a loss that may write into them.
Data copy_of(const Data& data);

/// The model of a Problem, not owned: the caller keeps it.
std::shared_ptr<torch::nn::Module> borrowed(torch::nn::Module& model);

}  // namespace dds
