#include <dds/hooks.hpp>
#include <utility>

#include "hooks/hook_registry.hpp"
#include "hooks/hooked_call.hpp"
#include "src/base/check.hpp"

namespace dds {

// ---- handles ----

HookHandle::HookHandle() noexcept = default;
HookHandle::HookHandle(HookHandle&&) noexcept = default;

HookHandle& HookHandle::operator=(HookHandle&& other) noexcept {
  if (this != &other) {
    remove();
    hook_ = std::move(other.hook_);
  }
  return *this;
}

HookHandle::~HookHandle() { remove(); }

void HookHandle::remove() noexcept {
  if (hook_) HookRegistry::instance().remove(hook_);
}

const std::vector<std::string>& HookHandle::modules() const {
  static const std::vector<std::string> none;
  return hook_ ? hook_->modules : none;
}

const std::vector<std::string>& HookHandle::not_observable() const {
  static const std::vector<std::string> none;
  return hook_ ? hook_->not_observable : none;
}

std::int64_t HookHandle::calls() const { return hook_ ? hook_->calls.load() : 0; }

std::vector<std::string> HookHandle::errors() const {
  if (!hook_) return {};
  const std::lock_guard lock(hook_->mutex);
  return hook_->errors;
}

// ---- registration ----

namespace {

using Stage = Hook::Stage;

template <class Function>
HookHandle add(torch::nn::Module& module, const std::string* pattern, Stage stage, bool observes, Function hook) {
  if (!hook) throw_invalid("register hook", "the hook", "empty", "a function");
  return HookRegistry::instance().add(
      module, pattern,
      std::make_shared<Hook>(
          stage, observes,
          [hook = std::move(hook)](torch::nn::Module& module, const std::string& name, const Tensors& first,
                                   const Tensors& second) -> std::optional<Tensors> {
            constexpr bool one_argument =
                !std::is_invocable_v<Function, torch::nn::Module&, const std::string&, const Tensors&, const Tensors&>;
            const auto call = [&] {
              if constexpr (one_argument) {
                return hook(module, name, first);
              } else {
                return hook(module, name, first, second);
              }
            };
            if constexpr (std::is_void_v<decltype(call())>) {
              call();
              return std::nullopt;
            } else {
              return call();
            }
          }));
}

}  // namespace

HookHandle register_forward_pre_hook(torch::nn::Module& module, ForwardPreHook hook) {
  return add(module, nullptr, Stage::Before, true, std::move(hook));
}
HookHandle register_forward_hook(torch::nn::Module& module, ForwardHook hook) {
  return add(module, nullptr, Stage::After, true, std::move(hook));
}
HookHandle register_full_backward_hook(torch::nn::Module& module, BackwardHook hook) {
  return add(module, nullptr, Stage::Backward, true, std::move(hook));
}

HookHandle register_forward_pre_hook(torch::nn::Module& model, const std::string& modules, ForwardPreHook hook) {
  return add(model, &modules, Stage::Before, true, std::move(hook));
}
HookHandle register_forward_hook(torch::nn::Module& model, const std::string& modules, ForwardHook hook) {
  return add(model, &modules, Stage::After, true, std::move(hook));
}
HookHandle register_full_backward_hook(torch::nn::Module& model, const std::string& modules, BackwardHook hook) {
  return add(model, &modules, Stage::Backward, true, std::move(hook));
}

namespace detail {

HookHandle change_inputs(torch::nn::Module& module, ForwardPreChange hook) {
  return add(module, nullptr, Stage::Before, false, std::move(hook));
}
HookHandle change_outputs(torch::nn::Module& module, ForwardChange hook) {
  return add(module, nullptr, Stage::After, false, std::move(hook));
}
HookHandle change_gradients(torch::nn::Module& module, BackwardChange hook) {
  return add(module, nullptr, Stage::Backward, false, std::move(hook));
}

// ---- calls through dds::hooked ----

struct ModuleCall::State {
  explicit State(HookedCall begun) : call(std::move(begun)) {}

  HookedCall call;
  std::optional<CallThroughHooked> scope;
};

bool ModuleCall::has_hooks(const torch::nn::Module& module) {
  const HookRegistry& registry = HookRegistry::instance();
  return !registry.empty() && registry.find(module);
}

ModuleCall::ModuleCall(torch::nn::Module& module, Tensors inputs) {
  const auto hooked = HookRegistry::instance().find(module);
  if (!hooked) return;
  state_ = std::make_unique<State>(HookedCall(hooked, std::move(inputs), /*changing=*/true));
  state_->scope.emplace(module);
}

ModuleCall::~ModuleCall() = default;

const std::optional<Tensors>& ModuleCall::new_inputs() const {
  static const std::optional<Tensors> none;
  return state_ ? state_->call.new_inputs : none;
}

std::optional<Tensors> ModuleCall::finish(Tensors outputs) {
  if (!state_) return std::nullopt;
  state_->scope.reset();
  return state_->call.finish(outputs);
}

}  // namespace detail
}  // namespace dds
