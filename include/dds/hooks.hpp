// Hooks on torch::nn modules, shaped like Python's: told before a module runs, after it, and when a backward pass has
// come through it.
//
//   auto handle = dds::register_forward_hook(*model, "encoder.*", [](const torch::nn::Module& module,
//       const std::string& name, const dds::Tensors& inputs, const dds::Tensors& outputs) { ... });
//
// A hook *observes* or *changes*; its type says which.
//
// An observing hook
// - returns nothing and replaces nothing. The program needs no change.
// - sees a LibTorch layer with parameters of its own (Linear, Conv2d, LSTM, ...) by the operator that takes them.
// - does not see the plain forward of anything else, since `forward` is not virtual: of a container, a layer without
//   parameters, MultiheadAttention, a module of the user's own. Those are seen where they are called as
//   dds::hooked(module)(x) instead of module->forward(x). HookHandle::not_observable names them.
// - may throw: the program does not see it, HookHandle::errors has it.
// - runs unseen: no recorder and no hook is told of what it computes.
// - is silent within a SuspendRecording. The library's own reads and chains run in one.
//
// A changing hook
// - returns the tensors to go on with, or std::nullopt. It is registered on dds::hooked(module), and acts only where
// the
//   module is called through that.
// - may throw: the exception leaves through the call, or through backward(), as in Python.
// - is part of the model, and acts within a SuspendRecording too.
//
// Order and threads
// - Hooks of one module are called in the order of their registration, each with what the one before it changed.
// - A forward hook is called on the thread that calls the module, a backward hook on autograd's thread.
// - A hook is called for every call of its module, those without grad mode too. What it computes has the grad mode of
//   the call: an observing hook may keep a tensor and add a penalty on it to the loss.
//
// Backward hooks
// - are called once in each backward pass that reaches the module. A graph that is passed twice, a double backward and
// a
//   recomputation (checkpointing) call them again.
// - are called as soon as the gradient at the module's inputs is whole. If nobody asks for that gradient, they are
//   called by the end of the pass.
// - are not called for a call without grad mode, or one that needs no gradient.
// - get as `grad_inputs` the gradients that flow through this module, not the sums over all consumers of its inputs. An
//   entry is undefined where there is none. A tensor that is given twice has its gradient at its first place. For a
//   module that returns its very input (a Dropout in evaluation) it is the sum over all consumers.
//
// Registration and removal
// - A hook that is registered while its module runs takes part from the next stage of that call on; a backward hook
// from
//   the next call on.
// - A removed hook is not called any more, not even by graphs made before (in Python it is). remove() does not wait for
// a
//   call that is under way on another thread.
//
// Cost
// - While no hook is registered, nothing is installed, and dds::hooked costs a comparison.
// - With observing hooks only, training is bit for bit what it is without. A changing backward hook puts a node into
// the
//   graph, as in Python: gradients of inputs that the module uses several times are then added in another order, and
//   writing into its inputs in place is an error of LibTorch's.
//
// A layer that is seen by its operator
// - has as inputs those of the operator: a convolution's after padding by reflection, a recurrent layer's without
// state.
// - has as outputs those of its forward, the state of LSTM, GRU and RNN included.
// - is taken to be called wherever an operator takes its weight in a weight's place. Layers of one kind that share a
//   weight cannot be told apart: the first that was hooked is told.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <dds/export.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace torch::nn {
class Module;
}

namespace DDS_EXPORT dds {

/// What a module takes or gives: all defined tensors among its arguments or in its result, in order. Those in
/// optionals, pairs, tuples and vectors are included, those in a struct of the user's own are not.
using Tensors = std::vector<at::Tensor>;

/// A function that returns nothing: a std::function would take one that returns a replacement too, and drop it.
template <class... Args>
class Observer : public std::function<void(Args...)> {
 public:
  template <class Function>
  requires(std::is_void_v<std::invoke_result_t<Function&, Args...>>) Observer(Function function)
      : std::function<void(Args...)>(std::move(function)) {}
};

using ForwardPreHook =
    Observer<const torch::nn::Module& /*module*/, const std::string& /*name*/, const Tensors& /*in*/>;
using ForwardHook = Observer<const torch::nn::Module& /*module*/, const std::string& /*name*/, const Tensors& /*in*/,
                             const Tensors& /*out*/>;
using BackwardHook = Observer<const torch::nn::Module& /*module*/, const std::string& /*name*/,
                              const Tensors& /*grad_inputs*/, const Tensors& /*grad_outputs*/>;

using ForwardPreChange =
    std::function<std::optional<Tensors>(torch::nn::Module& module, const std::string& name, const Tensors& inputs)>;
using ForwardChange = std::function<std::optional<Tensors>(torch::nn::Module& module, const std::string& name,
                                                           const Tensors& inputs, const Tensors& outputs)>;
using BackwardChange = std::function<std::optional<Tensors>(torch::nn::Module& module, const std::string& name,
                                                            const Tensors& grad_inputs, const Tensors& grad_outputs)>;

/// Keeps a hook registered until it is destroyed, or remove() is called.
/// Lifetime: the modules must outlive it.
/// Threads: one at a time; the hook itself may run on others.
class HookHandle {
 public:
  HookHandle() noexcept;
  HookHandle(HookHandle&&) noexcept;
  HookHandle& operator=(HookHandle&&) noexcept;
  ~HookHandle();

  void remove() noexcept;

  /// Names of the modules, as the hook is told them.
  const std::vector<std::string>& modules() const;
  /// Of an observing hook, the modules whose plain forward it does not see: call them as dds::hooked(module)(x).
  const std::vector<std::string>& not_observable() const;
  /// How often the hook was called.
  std::int64_t calls() const;
  /// Messages of what an observing hook threw.
  std::vector<std::string> errors() const;

 private:
  friend class HookRegistry;
  std::shared_ptr<struct Hook> hook_;
};

/// An observing hook on one module, under its class's name.
[[nodiscard]] HookHandle register_forward_pre_hook(torch::nn::Module& module, ForwardPreHook hook);
[[nodiscard]] HookHandle register_forward_hook(torch::nn::Module& module, ForwardHook hook);
[[nodiscard]] HookHandle register_full_backward_hook(torch::nn::Module& module, BackwardHook hook);

/// An observing hook on every module of `model` whose name in named_modules() matches the glob `modules` ('*' any text,
/// '?' one character). Throws InvalidArgument, with the names there are, if none does.
[[nodiscard]] HookHandle register_forward_pre_hook(torch::nn::Module& model, const std::string& modules,
                                                   ForwardPreHook hook);
[[nodiscard]] HookHandle register_forward_hook(torch::nn::Module& model, const std::string& modules, ForwardHook hook);
[[nodiscard]] HookHandle register_full_backward_hook(torch::nn::Module& model, const std::string& modules,
                                                     BackwardHook hook);

namespace detail {

/// Calls visit(tensor) for every defined tensor that `value` holds.
template <class T, class Visit>
void visit_tensors(T& value, const Visit& visit) {
  if constexpr (std::is_same_v<std::remove_const_t<T>, at::Tensor>) {
    if (value.defined()) visit(value);
  } else if constexpr (requires { std::tuple_size<T>::value; }) {
    std::apply([&](auto&... parts) { (visit_tensors(parts, visit), ...); }, value);
  } else if constexpr (requires {
                         requires !std::is_arithmetic_v<typename T::value_type>;
                         value.begin();
                       }) {
    for (auto&& part : value) visit_tensors(part, visit);
  } else if constexpr (requires {
                         value.has_value();
                         *value;
                       }) {
    if (value.has_value()) visit_tensors(*value, visit);
  }
}

template <class T>
Tensors tensors_of(const T& value) {
  Tensors tensors;
  visit_tensors(value, [&](const at::Tensor& tensor) { tensors.push_back(tensor); });
  return tensors;
}

/// Puts `tensors` in the place of those that `value` holds; there are as many.
template <class T>
void replace_tensors(T& value, const Tensors& tensors) {
  auto next = tensors.begin();
  visit_tensors(value, [&](at::Tensor& tensor) { tensor = *next++; });
}

/// One call of a module through dds::hooked, in whose scope its operator is not told of a second time.
class ModuleCall {
 public:
  static bool has_hooks(const torch::nn::Module& module);

  /// Calls the forward pre hooks.
  ModuleCall(torch::nn::Module& module, Tensors inputs);
  ~ModuleCall();
  ModuleCall(const ModuleCall&) = delete;
  ModuleCall& operator=(const ModuleCall&) = delete;

  /// What to call the module with, if it is not what came.
  const std::optional<Tensors>& new_inputs() const;
  /// Calls the forward hooks, sees to the backward hooks, and returns the outputs to go on with, if they are others.
  std::optional<Tensors> finish(Tensors outputs);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

HookHandle change_inputs(torch::nn::Module& module, ForwardPreChange hook);
HookHandle change_outputs(torch::nn::Module& module, ForwardChange hook);
HookHandle change_gradients(torch::nn::Module& module, BackwardChange hook);

}  // namespace detail

/// A module whose calls its hooks see, and may change. `Callable` is a module, a holder or an AnyModule.
template <class Callable>
class Hooked {
 public:
  explicit Hooked(Callable& callable) : callable_(callable) {}

  /// The module's forward, with its own arguments and result. Throws what it throws, what a changing hook throws, and
  /// InvalidArgument if a changing hook returns another number of tensors than there were.
  template <class... Args>
  auto operator()(Args&&... args) const {
    using Result = std::decay_t<decltype(forward(std::forward<Args>(args)...))>;
    if (!detail::ModuleCall::has_hooks(module())) return Result(forward(std::forward<Args>(args)...));
    Tensors inputs;
    (detail::visit_tensors(std::as_const(args), [&](const at::Tensor& tensor) { inputs.push_back(tensor); }), ...);
    detail::ModuleCall call(module(), std::move(inputs));
    Result result = [&] {
      if (!call.new_inputs()) return Result(forward(std::forward<Args>(args)...));
      std::tuple<std::decay_t<Args>...> changed(args...);
      detail::replace_tensors(changed, *call.new_inputs());
      return std::apply([&](auto&... each) { return Result(forward(each...)); }, changed);
    }();
    if (const auto outputs = call.finish(detail::tensors_of(result))) detail::replace_tensors(result, *outputs);
    return result;
  }

  /// Changing hooks, on this module wherever it is called through dds::hooked. Each returns as many tensors as it was
  /// given (its inputs, its outputs, `grad_inputs`), or std::nullopt to leave them.
  [[nodiscard]] HookHandle register_forward_pre_hook(ForwardPreChange hook) const {
    return detail::change_inputs(module(), std::move(hook));
  }
  [[nodiscard]] HookHandle register_forward_hook(ForwardChange hook) const {
    return detail::change_outputs(module(), std::move(hook));
  }
  [[nodiscard]] HookHandle register_full_backward_hook(BackwardChange hook) const {
    return detail::change_gradients(module(), std::move(hook));
  }

 private:
  torch::nn::Module& module() const {
    if constexpr (requires { callable_.ptr(); }) {
      return *callable_.ptr();
    } else {
      return callable_;
    }
  }

  template <class... Args>
  decltype(auto) forward(Args&&... args) const {
    if constexpr (requires { callable_.forward(std::forward<Args>(args)...); }) {
      return callable_.forward(std::forward<Args>(args)...);
    } else {
      return callable_->forward(std::forward<Args>(args)...);
    }
  }

  Callable& callable_;
};

/// What hooks on `module` (a module, a holder, an AnyModule) need where they cannot see its plain forward, or are to
/// change something: in the model's own forward, dds::hooked(block)(x) instead of block->forward(x) or block(x).
template <class Callable>
Hooked<Callable> hooked(Callable& module) {
  return Hooked<Callable>(module);
}

}  // namespace dds
