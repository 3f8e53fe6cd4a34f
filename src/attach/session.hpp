// What the plugin does in a program that it is loaded into: finds its steps, and has a Monitor read those that are due.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <atomic>
#include <dds/log.hpp>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "src/attach/account.hpp"
#include "src/attach/ear.hpp"
#include "src/attach/leaves.hpp"
#include "src/attach/module_tree.hpp"
#include "src/attach/probe.hpp"
#include "src/attach/reached.hpp"
#include "src/attach/recording.hpp"
#include "src/attach/settings.hpp"
#include "src/attach/snapshots.hpp"
#include "src/attach/training.hpp"
#include "src/attach/updates.hpp"

namespace dds::attach {

class Folder;

/// The training is followed whichever thread does it. A recording is under way
///   - from the beginning up to the first update, since nobody knows what will be used,
///   - in a step that is due, until its update is noticed where an operator next takes a parameter,
///   - before such a step, from the last backward pass that may be the one before it; it begins anew with the next.
/// Otherwise nothing is installed. A backward pass walks its graph, which tells of networks that nobody has heard, and
/// compares the versions of the parameters that the pass before it reached.
///
/// Nothing here throws, and nothing is changed of what the program computes.
class Session {
 public:
  using Edges = std::vector<torch::autograd::Edge>;

  explicit Session(Settings settings);

  /// A torch::nn::Module was made, or got a parameter.
  void module(const void* module) { cpp_.add(module); }
  /// The program asks one for what it has.
  void met(const void* module) { cpp_.meet(module); }
  /// The step of an optimiser begins or ends on this thread.
  void optimiser(bool begins) noexcept;
  /// A backward pass begins or ends on this thread. `outputs`: what gradients were asked for; none: all leaves.
  void backward_starts(const Edges& roots, const Edges& outputs, bool create_graph) noexcept;
  void backward_ends() noexcept;
  /// The process ends in good order.
  void finish() noexcept;
  /// This is a child that was forked and has not executed anything: it is left alone.
  void forked() noexcept;
  /// This process forked another.
  void forks() noexcept { ++forks_; }
  bool gone() const { return life_ == Life::Over; }

 private:
  /// Of the session: Running -> Ending -> Over, or Running -> Over in a forked child.
  enum class Life {
    Running,
    Ending,  ///< the process is
    Over,    ///< every call does nothing
  };

  void listen();
  void deafen();
  void make_recording();

  // Events.
  void parameters_used(const std::vector<at::Tensor>& leaves, bool looked_at, std::size_t bytes);
  void operator_starts(std::string_view name, c10::ArrayRef<const c10::IValue> args);
  /// False for a pass that is none of the training. `asked`: for certain gradients.
  bool training_pass(const Reached& reached, bool asked);
  void training_begins();
  void pass_ends();
  /// Looks whether there was an update. `before_use`: a recording that begins now misses nothing of the step.
  void look_for_update(bool before_use);
  void count_networks(const std::set<std::size_t>& updated);
  void apply(Steps::Event event, bool before_use);
  void first_step_is_lost(const std::set<TensorId>& updated);
  /// What was used in the first step, by the threads whose passes the update follows.
  std::set<TensorId> used_before(const Update& update);

  /// The number of the step under way.
  std::int64_t step() const { return steps_.step(); }
  bool due(std::int64_t step) const;
  /// True if the step that ends now, which was recorded, is to be read.
  bool wanted(std::int64_t step) const;
  /// Records the step under way, or the one after it, if it is due and nothing is recorded.
  void record(Recording::State of);
  void read();
  void owe(std::int64_t step);
  void abandon();

  /// Keeps what has come up of the parameters of the step that is recorded, before it changes. `used`: by the operator
  /// that is about to run.
  void take_snapshot(const std::vector<at::Tensor>& used);
  void write_snapshot(std::int64_t step);
  void say_why_no_probe();
  /// Lines PATTERN<tab>WHY of the patterns that select no layer, which are noted too.
  std::string idle_patterns();

  void note(const std::string& what);
  void sum_up();
  std::vector<std::string> layers_never_read() const;
  void describe();
  /// `idle`: patterns that select no layer.
  void tell(const std::string& idle);
  template <class Work>
  void guarded(const Work& work) noexcept;

  const Settings settings_;
  CppModules cpp_;
  PythonModules python_;
  std::shared_ptr<Leaves> leaves_;
  std::shared_ptr<Folder> folder_;
  std::unique_ptr<Recording> recording_;
  std::shared_ptr<Ear> ear_;
  const c10::impl::LocalDispatchKeySet plain_keys_;  ///< without autocast and the like
  std::atomic<Life> life_ = Life::Running;
  std::atomic<std::int64_t> forks_ = 0;

  std::mutex mutex_;       ///< of all below
  bool begun_ = false;     ///< a backward pass through parameters has begun
  bool catch_up_ = false;  ///< the next step is due, since one before was lost
  Training training_;
  Steps steps_;
  std::set<std::size_t> updated_;  ///< networks, in the step under way
  std::map<std::size_t, std::int64_t>
      owed_;                            ///< networks that the last reading left out, and how long they are waited for
  std::vector<at::Tensor> beside_;      ///< leaves by themselves that the last pass reached beside parameters
  std::optional<Snapshots> snapshots_;  ///< empty: none are wanted
  Probe probe_;
  std::int64_t failed_snapshots_ = 0;
  std::map<std::thread::id, std::set<TensorId>> used_;  ///< taken by operators and passes in the first step
  Account account_;
  std::vector<std::string> notes_;
};

}  // namespace dds::attach
