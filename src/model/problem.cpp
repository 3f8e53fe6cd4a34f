#include "src/model/problem.hpp"

#include <fmt/format.h>

#include <dds/error.hpp>

#include "src/base/check.hpp"

namespace dds {

void throw_no_forward(std::size_t inputs) {
  throw InvalidArgument(
      fmt::format("the model has no forward from {} input tensors to one output tensor; write a "
                  "dds::Forward for it",
                  inputs));
}

void check(const Problem& problem, const char* function) {
  check_given(function, "likelihood", problem.likelihood, "categorical(), gaussian(), ...");
  check_given(function, "forward", problem.forward, "a function of the model and its inputs");
  problem.data.size();  // throws if there is nothing to run
}

void check_with_targets(const Problem& problem, const char* function) {
  check(problem, function);
  if (!problem.data.targets.defined()) {
    throw_invalid(function, "data.targets", "undefined",
                  fmt::format("targets, which the loss of {} needs", problem.likelihood->name()));
  }
}

std::shared_ptr<torch::nn::Module> borrowed(torch::nn::Module& model) { return {std::shared_ptr<void>(), &model}; }

}  // namespace dds
