// Hooks on torch::nn modules, modelled on Python's. A hook is called before a module runs, after it, or when a backward
// pass has come through it.
//
//   auto handle = dds::register_forward_hook(*model, "encoder.*", [](const torch::nn::Module& module,
//       const std::string& name, const dds::Tensors& inputs, const dds::Tensors& outputs) { ... });
//
// A hook *observes* or *changes*. Its type says which.
//
// An observing hook
// - returns nothing and replaces nothing. The program needs no change.
// - sees a LibTorch layer with parameters of its own (Linear, Conv2d, LSTM, ...) by the operator that takes them.
// - does not see module->forward(x) of any other module, since `forward` is not virtual. Others are containers, layers
//   without parameters, MultiheadAttention and the user's own modules. HookHandle::not_observable names them. A hook
//   sees them if they are called as dds::hooked(module)(x).
// - may throw. The program does not see the exception; HookHandle::errors keeps its message.
// - is not observed itself: no recorder and no hook sees what it computes.
// - is not called within a SuspendRecording. The library's own readings and chains run in one.
//
// A changing hook
// - returns the tensors to go on with, or std::nullopt to change nothing.
// - is registered on dds::hooked(module). It acts only on calls that are made through dds::hooked.
// - may throw. The exception leaves through the call, or through backward(), as in Python.
// - is part of the model: it acts within a SuspendRecording too.
//
// Order and threads
// - Hooks of one module are called in the order of their registration. Each gets what the one before it changed.
// - A forward hook is called on the thread that calls the module, a backward hook on autograd's thread.
// - A forward hook is called for every call of its module, with or without grad mode.
// - A forward hook runs in the grad mode of the call. So an observing hook may keep a tensor, and add a penalty on
//   it to the loss.
//
// Backward hooks
// - are called once in each backward pass that reaches the module. A second pass through one graph, a double backward
//   and a recomputation (checkpointing) call them again.
// - are called as soon as the gradient at the module's inputs is complete. If the pass does not compute that gradient,
//   they are called by the end of the pass.
// - are not called for a call without grad mode, or for one whose outputs need no gradient.
// - get as `grad_inputs` the gradients through this module alone, not the sums over all consumers of its inputs.
//   - An entry is undefined where there is no gradient.
//   - If one tensor is passed twice, its gradient is at its first place.
//   - If the module returns its very input (a Dropout in evaluation), the entry is the sum over all consumers.
//
// Registration and removal
// - A forward hook that is registered while its module runs takes part from the next stage of that call on.
// - A backward hook that is registered while its module runs takes part from the next call on.
// - A removed hook is never called again, not even by graphs made before its removal. (In Python it is.)
// - remove() does not wait for a call of the hook that is under way on another thread.
//
// Cost
// - While no hook is registered, nothing is installed, and dds::hooked costs one comparison.
// - With observing hooks only, training gives the same bits as without them.
// - A changing backward hook adds a node to the graph, as in Python. Gradients of inputs that the module uses several
//   times are then added in another order, and LibTorch refuses to write into its inputs in place.
//
// A layer that is seen by its operator
// - has the inputs of the operator: a convolution's after padding by reflection, a recurrent layer's without state.
// - has the outputs of its forward, the state of LSTM, GRU and RNN included.
// - counts as called wherever an operator takes its weight as a weight. Layers of one kind that share a weight
//   cannot be told apart: the hooks of the first that was hooked are called.
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

/// What a module takes or gives: all defined tensors among its arguments, or in its result, in order. Tensors in
/// optionals, pairs, tuples and vectors are included. Tensors in a struct of the user's own are not.
using Tensors = std::vector<at::Tensor>;

/// A function that returns nothing. A std::function<void(...)> would also take one that returns a replacement, and drop
/// the replacement; this type does not compile with it.
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

/// Keeps a hook registered, until the handle is destroyed or remove() is called.
/// Lifetime: the modules must outlive the handle.
/// Threads: the handle is used by one thread at a time. The hook itself may run on others.
class HookHandle {
 public:
  HookHandle() noexcept;
  HookHandle(HookHandle&&) noexcept;
  HookHandle& operator=(HookHandle&&) noexcept;
  ~HookHandle();

  void remove() noexcept;

  /// Names of the hooked modules, as the hook gets them.
  const std::vector<std::string>& modules() const;
  /// Of an observing hook: the modules whose module->forward(x) it does not see. Call them as dds::hooked(module)(x).
  const std::vector<std::string>& not_observable() const;
  /// Number of calls of the hook.
  std::int64_t calls() const;
  /// Messages of what an observing hook threw.
  std::vector<std::string> errors() const;

 private:
  friend class HookRegistry;
  std::shared_ptr<struct Hook> hook_;
};

/// An observing hook on one module. The name that the hook gets is that of the module's class.
[[nodiscard]] HookHandle register_forward_pre_hook(torch::nn::Module& module, ForwardPreHook hook);
[[nodiscard]] HookHandle register_forward_hook(torch::nn::Module& module, ForwardHook hook);
[[nodiscard]] HookHandle register_full_backward_hook(torch::nn::Module& module, BackwardHook hook);

/// An observing hook on every module of `model` whose name in named_modules() matches the glob `modules` ('*' any text,
/// '?' one character).
/// Throws InvalidArgument, with the names there are, if none matches.
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

/// Replaces the defined tensors that `value` holds by `tensors`, of the same number.
template <class T>
void replace_tensors(T& value, const Tensors& tensors) {
  auto next = tensors.begin();
  visit_tensors(value, [&](at::Tensor& tensor) { tensor = *next++; });
}

/// One call of a module through dds::hooked. While it lasts, the module's operator does not call the hooks again.
class ModuleCall {
 public:
  static bool has_hooks(const torch::nn::Module& module);

  /// Calls the forward pre hooks.
  ModuleCall(torch::nn::Module& module, Tensors inputs);
  ~ModuleCall();
  ModuleCall(const ModuleCall&) = delete;
  ModuleCall& operator=(const ModuleCall&) = delete;

  /// The inputs to call the module with; std::nullopt: those that came.
  const std::optional<Tensors>& new_inputs() const;
  /// Calls the forward hooks, and arranges the calls of the backward hooks.
  /// Result: the outputs to go on with; std::nullopt: those that came.
  std::optional<Tensors> finish(Tensors outputs);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

HookHandle change_inputs(torch::nn::Module& module, ForwardPreChange hook);
HookHandle change_outputs(torch::nn::Module& module, ForwardChange hook);
HookHandle change_gradients(torch::nn::Module& module, BackwardChange hook);

}  // namespace detail

/// Calls a module so that its hooks see the call and may change it. `Callable` is a module, a holder or an AnyModule.
/// Lifetime: the module must outlive it.
template <class Callable>
class Hooked {
 public:
  explicit Hooked(Callable& callable) : callable_(callable) {}

  /// The module's forward, with its own arguments and result.
  /// Throws what the forward throws, what a changing hook throws, and InvalidArgument if a changing hook returns
  /// another number of tensors than it was given.
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

  /// Changing hooks. They act on every call of this module through dds::hooked. Each returns replacements for all of
  /// its inputs, its outputs or `grad_inputs`, or std::nullopt to leave them.
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

/// In the model's own forward, write dds::hooked(block)(x) instead of block->forward(x) or block(x). Hooks need this
/// - to change something,
/// - to observe a module that is in HookHandle::not_observable.
/// Valid input: a module, a holder or an AnyModule.
template <class Callable>
Hooked<Callable> hooked(Callable& module) {
  return Hooked<Callable>(module);
}

}  // namespace dds
