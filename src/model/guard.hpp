// Leaves a model as it was found, whatever is done to it in between.
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
  /// Floating-point parameters and buffers are converted to this type for the guard's lifetime.
  std::optional<at::ScalarType> dtype;
  /// Every floating-point parameter requires grad for the guard's lifetime, frozen ones too.
  bool require_grad = true;
};

/// While it lives: `model` is in eval mode, and reads and writes copies of its buffers (and of its parameters, where
/// `dtype` converts them). When it goes, everything is put back: training flags module by module, the very storages of
/// parameters and buffers, requires_grad, the autograd nodes that accumulate into the parameters, and the state of the
/// default generators (the CPU's and those of the parameters' devices). `.grad` is never touched. Parameters keep their
/// TensorImpl throughout, so tied weights, optimisers and flattened weight lists stay valid.
///
/// Parameters may be pointed elsewhere with `set_data` while the guard lives. Values written into a parameter *in
/// place* are undone only where `dtype` made a copy. Not while another thread uses the model.
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
    at::Tensor replacement;  ///< what it holds under the guard; undefined: its own data
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
