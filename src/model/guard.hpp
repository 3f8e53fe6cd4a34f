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
///   - parameters and buffers, with their storages, their values and requires_grad,
///   - the autograd nodes that accumulate into the parameters, and their `.grad`,
///   - the state of the default generators, of the CPU and of the parameters' devices.
/// Meanwhile the parameters have no `.grad`: a forward may run a backward pass of its own. They keep their TensorImpl
/// throughout: tied weights, optimisers and flattened lists of weights stay valid.
///
/// While it lives, a parameter may be pointed elsewhere with `set_data`, or written to in place: a forward may do so
/// (an Embedding with max_norm). A graph that the caller keeps does not notice.
/// Cost: a copy of the parameters, one for tied ones. Not while another thread uses the model.
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
    at::Tensor values;       ///< a copy of its data where the guard leaves it in place, and no other copy has them
    c10::VariableVersion version;  ///< which counts the writes to it
    bool requires_grad;
    Accumulator accumulator;
    at::Tensor grad;
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
