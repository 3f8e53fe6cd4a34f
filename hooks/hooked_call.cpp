#include "hooks/hooked_call.hpp"

#include <c10/core/GradMode.h>

#include <algorithm>
#include <utility>
#include <vector>

namespace dds {

HookedCall::HookedCall(std::shared_ptr<const HookedModule> hooked, Tensors inputs, bool changes)
    : module(std::move(hooked)), changing(changes), grad_mode(c10::GradMode::is_enabled()), inputs_(std::move(inputs)) {
  new_inputs = module->call(Hook::Stage::Before, changing, inputs_, {});
  if (new_inputs) inputs_ = *new_inputs;
  if (!grad_mode || !module->has(Hook::Stage::Backward, changing)) return;
  watch_.emplace(inputs_);
  if (changing && module->changes(Hook::Stage::Backward)) {
    inputs_ = watch_->interpose();
    new_inputs = inputs_;
  }
}

std::optional<Tensors> HookedCall::finish(const Tensors& outputs) {
  // Hooks that were registered meanwhile take part.
  const auto now = HookRegistry::instance().find(*module->module);
  std::optional<Tensors> changed = now ? now->call(Hook::Stage::After, changing, inputs_, outputs) : std::nullopt;
  if (watch_) {
    watch_->finish(changed ? *changed : outputs,
                   [hooked = module, changing = changing](const Tensors& grad_inputs, const Tensors& grad_outputs) {
                     return hooked->call(Hook::Stage::Backward, changing, grad_inputs, grad_outputs);
                   });
  }
  return changed;
}

namespace {

thread_local std::vector<const torch::nn::Module*> under_way_here;

}  // namespace

CallThroughHooked::CallThroughHooked(const torch::nn::Module& module) { under_way_here.push_back(&module); }
CallThroughHooked::~CallThroughHooked() { under_way_here.pop_back(); }

bool CallThroughHooked::under_way(const torch::nn::Module& module) {
  return std::find(under_way_here.begin(), under_way_here.end(), &module) != under_way_here.end();
}

}  // namespace dds
