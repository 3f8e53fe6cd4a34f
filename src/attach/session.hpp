// What the plugin does in a program that it is loaded into: finds its steps, and has a Monitor read those that are due.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/impl/LocalDispatchKeySet.h>

#include <atomic>
#include <dds/log.hpp>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "src/attach/ear.hpp"
#include "src/attach/leaves.hpp"
#include "src/attach/module_tree.hpp"
#include "src/attach/probe.hpp"
#include "src/attach/recording.hpp"
#include "src/attach/settings.hpp"
#include "src/attach/snapshots.hpp"
#include "src/attach/updates.hpp"

namespace dds::attach {

class Folder;

/// One thread is followed: the first on which parameters are used, differentiated and updated. A recording is under way
///   - from the beginning up to there, since nobody knows what will be used,
///   - in a step that is due, until its update is noticed where an operator next takes a parameter,
///   - before such a step, from the last backward pass that may be the one before it; it begins anew with the next.
/// Otherwise nothing is installed, and a backward pass compares the parameters' versions.
///
/// Nothing here throws, and nothing is changed of what the program computes.
class Session {
 public:
  explicit Session(Settings settings);

  /// A torch::nn::Module was made, or got a parameter.
  void module(const void* module) { cpp_.add(module); }
  /// A backward pass begins or ends on this thread.
  void backward_starts() noexcept;
  void backward_ends() noexcept;
  /// The process ends in good order.
  void finish() noexcept;
  /// This is a child that was forked and has not executed anything: it is left alone.
  void forked() noexcept;
  bool gone() const { return life_ == Life::Over; }

 private:
  /// Of the session: Running -> Ending -> Over, or Running -> Over in a forked child.
  enum class Life {
    Running,
    Ending,  ///< the process is
    Over,    ///< every call does nothing
  };
  /// Of the training on the thread that is followed: Looking -> Computing <-> Differentiated, and back to Looking where
  /// another thread is followed.
  enum class Phase {
    Looking,         ///< no backward pass through parameters has begun
    Computing,       ///< no backward pass has ended since the last update
    Differentiated,  ///< one has: the update may come at any time
  };

  bool here() const { return std::this_thread::get_id() == thread_; }
  void listen_here();
  void follow_this_thread();
  void deafen();
  void make_recording();

  // Events.
  void parameters_used(const std::vector<at::Tensor>& leaves, bool looked_at, std::size_t bytes);
  void operator_starts(std::string_view name, c10::ArrayRef<const c10::IValue> args);
  void training_begins();
  void pass_ends();
  /// Looks whether there was an update. `before_use`: a recording that begins now misses nothing of the step.
  void look_for_update(bool before_use);
  void apply(Steps::Event event, bool before_use);

  /// The number of the step under way.
  std::int64_t step() const { return lost_ + steps_.step(); }
  bool due(std::int64_t step) const;
  /// Records the step under way, or the one after it, if it is due and nothing is recorded.
  void record(Recording::State of);
  void read();
  void abandon();
  void remember();

  /// Keeps what has come up of the parameters of the step that is recorded, before it changes. `used`: by the operator
  /// that is about to run.
  void take_snapshot(const std::vector<at::Tensor>& used);
  void write_snapshot(std::int64_t step);
  void say_why_no_probe();
  /// Lines PATTERN<tab>WHY of the patterns that select no layer, which are noted too.
  std::string idle_patterns();

  void note(const std::string& what);
  void describe();
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

  std::mutex mutex_;  ///< of all below: of the thread that is followed
  std::thread::id thread_;
  Phase phase_ = Phase::Looking;
  std::int64_t passes_ = 0;  ///< backward passes that have ended
  bool catch_up_ = false;    ///< the next step is due, since one before was lost
  bool by_version_ = true;   ///< every update so far showed in the versions
  Steps steps_;
  std::int64_t lost_ = 0;  ///< steps before those, on a thread that was not followed yet
  Watch watch_;
  std::optional<Snapshots> snapshots_;  ///< empty: none are wanted
  Probe probe_;
  std::int64_t failed_snapshots_ = 0;
  std::set<TensorId> used_;         ///< taken by operators in the first step
  std::int64_t elsewhere_ = 0;      ///< backward passes of other threads
  std::int64_t unseen_passes_ = 0;  ///< backward passes before any parameter was seen
  std::vector<std::string> notes_;
};

}  // namespace dds::attach
