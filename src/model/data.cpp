#include <ATen/ops/index_select.h>

#include <dds/model.hpp>

#include "src/base/check.hpp"

namespace dds {
namespace {

std::int64_t samples_of(const at::Tensor& tensor, const std::string& name) {
  check(tensor.defined() && tensor.dim() > 0, "Data", name, tensor,
        "a tensor whose first dimension counts the samples");
  return tensor.size(0);
}

/// Applies `part` to every tensor of `data` that is defined.
template <class Part>
Data each(const Data& data, const Part& part) {
  Data result;
  result.inputs.reserve(data.inputs.size());
  for (const auto& input : data.inputs) result.inputs.push_back(part(input));
  if (data.targets.defined()) result.targets = part(data.targets);
  return result;
}

}  // namespace

std::int64_t Data::size() const {
  check_not_empty("Data", "inputs", inputs, "at least one tensor");
  const auto samples = samples_of(inputs[0], "inputs[0]");
  check(samples > 0, "Data", "inputs[0]", inputs[0], "at least one sample");
  const auto check_samples = [samples](const at::Tensor& tensor, const std::string& name) {
    check(samples_of(tensor, name) == samples, "Data", name, tensor, "{} samples, as in inputs[0]", samples);
  };
  for (std::size_t i = 1; i < inputs.size(); ++i) check_samples(inputs[i], fmt::format("inputs[{}]", i));
  if (targets.defined()) check_samples(targets, "targets");
  return samples;
}

Data Data::slice(std::int64_t begin, std::int64_t end) const {
  const auto samples = size();
  check_at_least("Data::slice", "begin", begin, 0);
  check(begin < end && end <= samples, "Data::slice", "end", end, "above {} and at most {}, the number of samples",
        begin, samples);
  return each(*this, [&](const at::Tensor& tensor) { return tensor.narrow(0, begin, end - begin); });
}

Data Data::select(const at::Tensor& indices) const {
  check(indices.defined() && indices.dim() == 1 && indices.scalar_type() == at::kLong, "Data::select", "indices",
        indices, "Long of one dimension");
  return each(*this, [&](const at::Tensor& tensor) { return at::index_select(tensor, 0, indices); });
}

}  // namespace dds
