// A Problem: a model at its present weights, a likelihood, data, and a way to run the model. The functions that study a
// model take one:
//
//   const dds::Problem problem(*model, dds::categorical(), {images, labels});
//   auto signatures = dds::read(problem);
//   auto llc        = dds::estimate_llc(problem);
//   auto gradients  = dds::per_sample_gradients({*model, dds::categorical(), batch});
#pragma once

#include <ATen/core/Tensor.h>

#include <concepts>
#include <cstddef>
#include <dds/export.hpp>
#include <dds/model.hpp>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

namespace torch::nn {
class Module;
}

namespace DDS_EXPORT dds {

/// Runs a model: (model, inputs) -> output. The first dimension of the output counts the samples.
using Forward = std::function<at::Tensor(torch::nn::Module&, const std::vector<at::Tensor>&)>;

/// Always throws InvalidArgument: the model has no `forward` that takes `inputs` tensors and returns one.
[[noreturn]] void throw_no_forward(std::size_t inputs);

/// Calls the model's own `forward`, which takes one to four tensors and returns one. For any other model (several
/// outputs, options), write the Forward by hand.
/// The Forward throws InvalidArgument if the model has no `forward` for the number of inputs.
template <class Model>
Forward forward_of() {
  return [](torch::nn::Module& module, const std::vector<at::Tensor>& x) -> at::Tensor {
    auto& model = dynamic_cast<Model&>(module);
    if constexpr (requires {
                    { model.forward(x[0], x[0], x[0], x[0]) } -> std::convertible_to<at::Tensor>;
                  }) {
      if (x.size() == 4) return model.forward(x[0], x[1], x[2], x[3]);
    }
    if constexpr (requires {
                    { model.forward(x[0], x[0], x[0]) } -> std::convertible_to<at::Tensor>;
                  }) {
      if (x.size() == 3) return model.forward(x[0], x[1], x[2]);
    }
    if constexpr (requires {
                    { model.forward(x[0], x[0]) } -> std::convertible_to<at::Tensor>;
                  }) {
      if (x.size() == 2) return model.forward(x[0], x[1]);
    }
    if constexpr (requires {
                    { model.forward(x[0]) } -> std::convertible_to<at::Tensor>;
                  }) {
      if (x.size() == 1) return model.forward(x[0]);
    }
    throw_no_forward(x.size());
  };
}

/// What is studied: the argument of a reading, an estimate or per-sample gradients.
///
/// The model must outlive it. The tensors of the data are shared, not copied; a forward may write into what it is
/// given, and the data stay as they are. Nothing is checked here: the functions that take a Problem throw
/// InvalidArgument for a null likelihood, an empty forward, data without samples, and an output that has not one entry
/// for each sample along its first dimension.
struct Problem {
  torch::nn::Module& model;
  LikelihoodPtr likelihood;
  Data data;
  Forward forward;

  /// Runs the model's own `forward` (forward_of).
  template <class Model>
  requires std::derived_from<Model, torch::nn::Module> Problem(Model& model, LikelihoodPtr likelihood, Data data)
      : Problem(model, std::move(likelihood), std::move(data), forward_of<Model>()) {}

  Problem(torch::nn::Module& model, LikelihoodPtr likelihood, Data data, Forward forward)
      : model(model), likelihood(std::move(likelihood)), data(std::move(data)), forward(std::move(forward)) {}
};

}  // namespace dds
