// One call of a module with hooks, whether it is seen as an operator or made through dds::hooked.
#pragma once

#include <ATen/core/Tensor.h>

#include <dds/hooks.hpp>
#include <memory>
#include <optional>

#include "hooks/gradient_watch.hpp"
#include "hooks/hook_registry.hpp"

namespace dds {

/// Runs hooks with the grad mode that the call had when this was made.
class HookedCall {
 public:
  /// Calls the forward pre hooks. With `changing`, changing hooks act too, here and in all that follows.
  HookedCall(std::shared_ptr<const HookedModule> module, Tensors inputs, bool changing);

  /// Calls the forward hooks, and watches for the gradients that backward hooks are to be told. Returns the outputs to
  /// go on with, if a hook changed them.
  std::optional<Tensors> finish(const Tensors& outputs);

  const std::shared_ptr<const HookedModule> module;
  const bool changing;
  const bool grad_mode;
  std::optional<Tensors> new_inputs;  ///< what to call the module with, if a hook changed it
  at::Tensor product;                 ///< of a Linear whose bias has not been added yet

 private:
  Tensors inputs_;
  std::optional<hooks::GradientWatch> watch_;
};

/// The scope of a call through dds::hooked. Within it an operator of that module is no second call.
class CallThroughHooked {
 public:
  explicit CallThroughHooked(const torch::nn::Module& module);
  ~CallThroughHooked();
  CallThroughHooked(const CallThroughHooked&) = delete;
  CallThroughHooked& operator=(const CallThroughHooked&) = delete;

  /// True in such a scope of this thread.
  static bool under_way(const torch::nn::Module& module);
};

}  // namespace dds
