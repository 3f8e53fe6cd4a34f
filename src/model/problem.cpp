#include "src/model/problem.hpp"

#include "src/base/check.hpp"

namespace dds {

void throw_no_forward(std::size_t inputs) {
  throw_invalid("forward", "the number of inputs", fmt::format("{}", inputs),
                "as many as the model's own forward takes, to one tensor: give a dds::Forward for another model");
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

void check_output(const at::Tensor& output, std::int64_t samples, const char* function) {
  check(output.defined() && output.dim() > 0 && output.size(0) == samples, function, "the output of forward", output,
        "one of {} samples, as the data have", samples);
}

Data copy_of(const Data& data) {
  Data copy;
  for (const at::Tensor& input : data.inputs) copy.inputs.push_back(input.clone());
  if (data.targets.defined()) copy.targets = data.targets.clone();
  return copy;
}

std::shared_ptr<torch::nn::Module> borrowed(torch::nn::Module& model) { return {std::shared_ptr<void>(), &model}; }

}  // namespace dds
