// A guard that leaves a model as it was found.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>
#include <torch/csrc/autograd/variable.h>

#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace torch::nn {
class Module;
}

namespace dds {

struct GuardOptions {
  /// While the guard lives, floating-point parameters and buffers have this type, complex ones the complex type of its
  /// precision.
  std::optional<at::ScalarType> dtype;
  /// While the guard lives, all floating-point and complex parameters require grad, frozen ones too.
  bool require_grad = true;
};

/// While it lives, `model` is in eval mode and works on copies of its buffers, and of its parameters where `dtype`
/// converts them.
///
/// Its destructor puts back
///   - the training flag of every module,
///   - the storages of parameters and buffers, and requires_grad,
///   - the autograd nodes that accumulate into the parameters,
///   - the state of the default generators, of the CPU and of the parameters' devices.
/// `.grad` is never touched. Parameters keep their TensorImpl throughout: tied weights, optimisers and flattened lists
/// of weights stay valid.
///
/// While it lives, a parameter may be pointed elsewhere with `set_data`. A value written into it *in place* is undone
/// only where `dtype` made a copy. Not while another thread uses the model.
class ModelGuard {
 public:
  explicit ModelGuard(torch::nn::Module& model, GuardOptions options = {});
  ~ModelGuard();
  ModelGuard(const ModelGuard&) = delete;
  ModelGuard& operator=(const ModelGuard&) = delete;

 private:
  // A node in LibTorch 1.x is a std::shared_ptr, later an intrusive_ptr.
  using Accumulator = decltype(torch::autograd::impl::try_get_grad_accumulator(std::declval<const at::Tensor&>()));

  struct Mode {
    torch::nn::Module* module;
    bool training;
  };
  struct Saved {
    at::Tensor tensor;       ///< the registered one
    at::Tensor data;         ///< shares its storage
    at::Tensor replacement;  ///< its data under the guard; undefined: its own
    bool requires_grad;
    Accumulator accumulator;
  };
  struct GeneratorState {
    at::Generator generator;
    at::Tensor state;
  };

  void save_modes(torch::nn::Module& model);
  void save_tensors(torch::nn::Module& model, const GuardOptions& options);
  void save_generators();
  void apply(torch::nn::Module& model, const GuardOptions& options);
  void restore() noexcept;

  std::vector<Mode> modes_;  // parents before children
  std::vector<Saved> parameters_;
  std::vector<Saved> buffers_;
  std::vector<GeneratorState> generators_;
};

}  // namespace dds
