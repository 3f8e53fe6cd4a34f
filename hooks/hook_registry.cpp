#include "hooks/hook_registry.hpp"

#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/nn/modules/embedding.h>
#include <torch/nn/modules/linear.h>

#include <algorithm>
#include <iterator>

#include "hooks/arguments.hpp"
#include "hooks/hooked_call.hpp"
#include "hooks/layers.hpp"
#include "hooks/memory.hpp"
#include "src/base/check.hpp"
#include "src/base/glob.hpp"
#include "src/base/message.hpp"

namespace dds {

// ---- one hook ----

std::optional<Tensors> Hook::call(torch::nn::Module& module, const std::string& name, const Tensors& first,
                                  const Tensors& second) {
  std::shared_ptr<const Function> present;
  {
    const std::lock_guard lock(mutex);
    present = function;
  }
  if (!present) return std::nullopt;
  if (!observes) {
    ++calls;
    return (*present)(module, name, first, second);
  }
  if (hooks::silenced(HookRegistry::instance())) return std::nullopt;
  const hooks::Unseen unseen;
  ++calls;
  std::string thrown;
  try {
    (*present)(module, name, first, second);
    return std::nullopt;
  } catch (const std::exception& error) {
    thrown = plain_message(error);
  } catch (...) {
    thrown = "something that is no std::exception";
  }
  const std::lock_guard lock(mutex);
  errors.push_back(fmt::format("{}: {}", name, thrown));
  return std::nullopt;
}

// ---- the hooks of one module ----

bool HookedModule::owns(const at::Tensor& tensor) const {
  const auto lies_in = [&](const at::Tensor& parameter) { return hooks::offset_within(tensor, parameter).has_value(); };
  return (weight && lies_in(*weight)) || std::any_of(parameters.begin(), parameters.end(), lies_in);
}

bool HookedModule::has(Hook::Stage stage, bool changing) const {
  return std::any_of(hooks.begin(), hooks.end(), [&](const NamedHook& named) {
    return named.hook->stage == stage && (named.hook->observes || changing);
  });
}

bool HookedModule::changes(Hook::Stage stage) const {
  return std::any_of(hooks.begin(), hooks.end(),
                     [&](const NamedHook& named) { return named.hook->stage == stage && !named.hook->observes; });
}

std::optional<Tensors> HookedModule::call(Hook::Stage stage, bool changing, const Tensors& first,
                                          const Tensors& second) const {
  std::optional<Tensors> changed;
  for (const NamedHook& named : hooks) {
    if (named.hook->stage != stage || !(named.hook->observes || changing)) continue;
    const bool of_outputs = stage == Hook::Stage::After;
    auto next = named.hook->call(*module, named.name, changed && !of_outputs ? *changed : first,
                                 changed && of_outputs ? *changed : second);
    if (!next) continue;
    const std::size_t expected = (of_outputs ? second : first).size();
    if (next->size() != expected) {
      throw_invalid(fmt::format("hook on {}", named.name), "its result", fmt::format("{} tensors", next->size()),
                    fmt::format("{}", expected));
    }
    changed = std::move(next);
  }
  return changed;
}

// ---- registration ----

namespace {

/// Calls visit(name, module) for every module below `module`, as named_modules() does, which itself needs a model that
/// is held by a shared_ptr.
void for_each_module(torch::nn::Module& module, const std::string& path,
                     const std::function<void(const std::string&, torch::nn::Module&)>& visit) {
  for (const auto& child : module.named_children()) {
    const std::string name = path.empty() ? child.key() : path + "." + child.key();
    visit(name, *child.value());
    for_each_module(*child.value(), name, visit);
  }
}

HookedModule without_hooks(torch::nn::Module& module, std::uint64_t number) {
  HookedModule hooked{&module, number, hooks::layer_kind(module.name()), {}, nullptr,
                      nullptr, {},     hooks::ModuleLife(module)};
  for (const auto& parameter : module.named_parameters(/*recurse=*/false))
    hooked.parameters.push_back(parameter.value());
  if (const auto* linear = module.as<torch::nn::LinearImpl>()) {
    hooked.weight = &linear->weight;
    hooked.bias = &linear->bias;
  } else if (const auto* embedding = module.as<torch::nn::EmbeddingImpl>()) {
    hooked.weight = &embedding->weight;
  }
  return hooked;
}

bool is_observable(const HookedModule& module) { return !module.kind.empty() && !module.parameters.empty(); }

}  // namespace

HookRegistry::~HookRegistry() = default;

HookRegistry& HookRegistry::instance() {
  // Never destroyed: handles may outlive every static object.
  static const auto* const registry = new std::shared_ptr<HookRegistry>(std::make_shared<HookRegistry>());
  return **registry;
}

HookHandle HookRegistry::add(torch::nn::Module& module, const std::string* pattern, std::shared_ptr<Hook> hook) {
  std::vector<std::pair<std::string, torch::nn::Module*>> chosen;
  if (pattern) {
    std::vector<std::string> all;
    for_each_module(module, "", [&](const std::string& name, torch::nn::Module& below) {
      all.push_back(name);
      const bool known =
          std::any_of(chosen.begin(), chosen.end(), [&](const auto& entry) { return entry.second == &below; });
      if (!known && glob_match(*pattern, name)) chosen.emplace_back(name, &below);
    });
    if (chosen.empty()) {
      throw_invalid("register hook", "the pattern", fmt::format("'{}'", *pattern),
                    fmt::format("one that matches a module of {}", fmt::join(all, ", ")));
    }
  } else {
    const std::string kind = hooks::layer_kind(module.name());
    chosen.emplace_back(kind.empty() ? module.name() : kind, &module);
  }

  HookHandle handle;
  handle.hook_ = hook;
  const std::lock_guard lock(mutex_);
  for (const auto& [name, at] : chosen) {
    auto& present = modules_[at];
    if (present && present->gone()) {  // another module had this address
      count_ -= present->hooks.size();
      present = nullptr;
    }
    HookedModule next = present ? *present : without_hooks(*at, next_number_++);
    next.hooks.push_back({hook, name});
    present = std::make_shared<const HookedModule>(std::move(next));
    hook->modules.push_back(name);
    if (hook->observes && !is_observable(*present)) hook->not_observable.push_back(name);
    ++count_;
  }
  observe();
  return handle;
}

void HookRegistry::remove(const std::shared_ptr<Hook>& hook) noexcept {
  std::shared_ptr<const Hook::Function> function;  // destroyed without a lock: it may hold handles
  {
    const std::lock_guard lock(hook->mutex);
    function = std::exchange(hook->function, nullptr);
  }
  decltype(unfinished_) dropped;  // the same
  const std::lock_guard lock(mutex_);
  for (auto entry = modules_.begin(); entry != modules_.end();) {
    HookedModule next = *entry->second;
    count_ -= std::erase_if(next.hooks, [&](const NamedHook& named) { return named.hook == hook; });
    if (next.hooks.empty()) {
      entry = modules_.erase(entry);
    } else {
      if (next.hooks.size() != entry->second->hooks.size()) {
        entry->second = std::make_shared<const HookedModule>(std::move(next));
      }
      ++entry;
    }
  }
  for (auto entry = unfinished_.begin(); entry != unfinished_.end();) {
    const auto next = std::next(entry);
    if (!modules_.contains(entry->second->module->module)) dropped.insert(unfinished_.extract(entry));
    entry = next;
  }
  observe();
}

/// Listens while there is a reason to.
void HookRegistry::observe() {
  observable_.clear();
  for (const auto& [at, module] : modules_) {
    const bool observed = std::any_of(module->hooks.begin(), module->hooks.end(),
                                      [](const NamedHook& named) { return named.hook->observes; });
    if (observed && is_observable(*module)) observable_.push_back(module);
  }
  std::sort(observable_.begin(), observable_.end(),
            [](const auto& left, const auto& right) { return left->number < right->number; });
  const bool before = listening();
  observed_ = observable_.size();
  if (listening() && !before) hooks::listen(shared_from_this());
  if (!listening() && before) hooks::stop_listening(shared_from_this());
}

std::shared_ptr<const HookedModule> HookRegistry::find(const torch::nn::Module& module) const {
  const std::lock_guard lock(mutex_);
  const auto known = modules_.find(&module);
  return known == modules_.end() || known->second->gone() ? nullptr : known->second;
}

void HookRegistry::failed(std::string_view where, std::string_view what) {
  const std::lock_guard lock(mutex_);
  for (const auto& module : observable_) {
    for (const NamedHook& named : module->hooks) {
      if (!named.hook->observes) continue;
      const std::lock_guard lock_hook(named.hook->mutex);
      named.hook->errors.push_back(fmt::format("{}: {}", where, what));
    }
  }
}

// ---- operators that are calls ----

struct HookRegistry::Note : hooks::OperatorNote {
  std::unique_ptr<HookedCall> call;
  bool bias_follows = false;  ///< the forward goes on with an addition
  bool all_outputs = false;   ///< or the first of the operator's only
};

std::shared_ptr<const HookedModule> HookRegistry::module_of(const at::Tensor& weight,
                                                            std::optional<hooks::Family> family) const {
  const std::lock_guard lock(mutex_);
  for (const auto& module : observable_) {
    if (!module->gone() && module->owns(weight) && (!family || hooks::kind_fits(module->kind, *family))) return module;
  }
  return nullptr;
}

std::unique_ptr<HookedCall> HookRegistry::take_unfinished() {
  const std::lock_guard lock(mutex_);
  const auto here = unfinished_.find(std::this_thread::get_id());
  if (here == unfinished_.end()) return nullptr;
  auto call = std::move(here->second);
  unfinished_.erase(here);
  return call;
}

std::unique_ptr<hooks::OperatorNote> HookRegistry::operator_starts(std::string_view name, hooks::Arguments args,
                                                                   bool grad_mode, hooks::Nesting& nesting) {
  if (nesting.inside > 0) return nullptr;
  const hooks::Operator* entry = hooks::find_operator(name);
  if (auto unfinished = take_unfinished()) {
    if (entry && entry->as<hooks::kind::Addition>() && hooks::tensor_at(args, 0).is_same(unfinished->product) &&
        hooks::tensor_at(args, 1).is_same(*unfinished->module->bias)) {
      auto note = std::make_unique<Note>();
      note->call = std::move(unfinished);
      ++nesting.inside;
      return note;
    }
    const c10::AutoGradMode as_the_caller(unfinished->grad_mode);
    unfinished->finish({unfinished->product});  // the product was all there was
  }
  if (!entry) return nullptr;
  const auto run = hooks::read_layer(
      *entry, args, [this](const at::Tensor& tensor) { return module_of(tensor, std::nullopt) != nullptr; });
  if (!run) return nullptr;
  const auto module = module_of(run->weight, run->family);
  if (!module || CallThroughHooked::under_way(*module->module)) return nullptr;
  auto note = std::make_unique<Note>();
  note->bias_follows = module->bias && module->bias->defined() && !run->bias;
  note->all_outputs = run->family == hooks::Family::Recurrent;
  const c10::AutoGradMode as_the_caller(grad_mode);
  note->call = std::make_unique<HookedCall>(module, run->inputs, /*changing=*/false);
  ++nesting.inside;
  return note;
}

void HookRegistry::operator_ends(std::string_view, hooks::OperatorNote& left, const std::vector<c10::IValue>& values,
                                 hooks::Nesting& nesting) {
  --nesting.inside;
  auto& note = static_cast<Note&>(left);
  Tensors outputs;
  hooks::for_each_tensor(hooks::Arguments(values.data(), values.size()),
                         [&](const at::Tensor& tensor) { outputs.push_back(tensor); });
  if (outputs.empty()) return;  // the operator threw
  if (!note.all_outputs) outputs.resize(1);
  if (note.bias_follows) {
    note.call->product = outputs.front();
    const std::lock_guard lock(mutex_);
    unfinished_[std::this_thread::get_id()] = std::move(note.call);
    return;
  }
  const c10::AutoGradMode as_the_caller(note.call->grad_mode);
  note.call->finish(outputs);
}

}  // namespace dds
