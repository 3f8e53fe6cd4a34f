// Which hooks there are on which module, and the operators that are calls of one.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <atomic>
#include <dds/hooks.hpp>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

#include "hooks/gradient_watch.hpp"
#include "hooks/layer_run.hpp"
#include "hooks/module_life.hpp"
#include "hooks/observer.hpp"

namespace dds {

/// A registered hook, on one module or several.
struct Hook {
  enum class Stage { Before, After, Backward };
  /// What `first` and `second` are depends on the stage. Before: the inputs, and nothing. After: inputs and outputs.
  /// Backward: the gradients of inputs and of outputs.
  using Function = std::function<std::optional<Tensors>(torch::nn::Module& module, const std::string& name,
                                                        const Tensors& first, const Tensors& second)>;

  Hook(Stage stage, bool observes, Function function)
      : stage(stage), observes(observes), function(std::make_shared<const Function>(std::move(function))) {}

  const Stage stage;
  const bool observes;
  std::vector<std::string> modules, not_observable;
  std::atomic<std::int64_t> calls = 0;

  std::mutex mutex;                          // of all below
  std::shared_ptr<const Function> function;  ///< null once the hook is removed
  std::vector<std::string> errors;

  /// Calls the function, unless the hook is removed. An observing hook runs unseen, and what it throws goes to
  /// `errors`.
  std::optional<Tensors> call(torch::nn::Module& module, const std::string& name, const Tensors& first,
                              const Tensors& second);
};

/// A hook as one module has it.
struct NamedHook {
  std::shared_ptr<Hook> hook;
  std::string name;  ///< of the module
};

/// A module with hooks. It is not changed once it is shared: a new one takes its place, so that calls under way keep
/// theirs.
struct HookedModule {
  torch::nn::Module* module;
  std::uint64_t number;                ///< counts modules in the order of their first hook
  std::string kind;                    ///< as layer_kind
  std::vector<at::Tensor> parameters;  ///< its own, as registered
  const at::Tensor* weight = nullptr;  ///< the member of a Linear or Embedding, which may be set to another layer's
  const at::Tensor* bias = nullptr;    ///< the member of a Linear
  std::vector<NamedHook> hooks;        ///< in the order of registration
  hooks::ModuleLife life;              ///< its handles may outlive the module

  /// True if the module is known to be destroyed.
  bool gone() const { return life.over(); }

  /// True if `tensor` is one of its parameters or a view of one.
  bool owns(const at::Tensor& tensor) const;
  /// Calls the hooks of a stage one after another; changing hooks only if `changing`. Returns the changed inputs
  /// (Before), outputs (After) or gradients of the inputs (Backward). Empty if no hook changed anything.
  std::optional<Tensors> call(Hook::Stage stage, bool changing, const Tensors& first, const Tensors& second) const;
  /// True if call() would call one.
  bool has(Hook::Stage stage, bool changing) const;
  /// True if one of them is a changing hook.
  bool changes(Hook::Stage stage) const;
};

/// All hooks of the program. It listens to operators while there is an observing hook on a module that runs as one.
class HookRegistry : public hooks::Listener, public std::enable_shared_from_this<HookRegistry> {
 public:
  static HookRegistry& instance();
  ~HookRegistry() override;

  /// Registers a hook on `module` or, with a pattern, on all modules below it that match. Throws InvalidArgument if
  /// none does.
  HookHandle add(torch::nn::Module& module, const std::string* pattern, std::shared_ptr<Hook> hook);
  void remove(const std::shared_ptr<Hook>& hook) noexcept;
  bool empty() const { return count_ == 0; }
  /// Null if it has no hooks.
  std::shared_ptr<const HookedModule> find(const torch::nn::Module& module) const;

  bool all_threads() const override { return true; }
  bool exclusive() const override { return false; }
  bool listening() const override { return observed_ > 0; }
  std::unique_ptr<hooks::OperatorNote> operator_starts(std::string_view name, c10::ArrayRef<const c10::IValue> args,
                                                       bool grad_mode, hooks::Nesting& nesting) override;
  void operator_ends(std::string_view name, hooks::OperatorNote& note, const std::vector<c10::IValue>& outputs,
                     hooks::Nesting& nesting) override;
  void tapped(std::string_view, const at::Tensor&) override {}
  void failed(std::string_view where, std::string_view what) override;

 private:
  struct Note;

  std::shared_ptr<const HookedModule> module_of(const at::Tensor& weight, std::optional<hooks::Family> family) const;
  std::unique_ptr<class HookedCall> take_unfinished();
  void observe();

  mutable std::mutex mutex_;  // of all below
  std::unordered_map<const torch::nn::Module*, std::shared_ptr<const HookedModule>> modules_;
  std::vector<std::shared_ptr<const HookedModule>>
      observable_;  ///< those of modules_ that run as one operator, by number
  /// Calls whose bias has not been added yet, by the thread that makes them.
  std::unordered_map<std::thread::id, std::unique_ptr<HookedCall>> unfinished_;
  std::uint64_t next_number_ = 0;
  std::atomic<std::size_t> count_ = 0;     ///< hooks on modules
  std::atomic<std::size_t> observed_ = 0;  ///< observable_.size()
};

}  // namespace dds
