#include "src/attach/session.hpp"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <array>
#include <dds/error.hpp>
#include <dds/suspend_recording.hpp>
#include <string_view>
#include <thread>
#include <utility>

#include "hooks/gradient_slot.hpp"
#include "hooks/transforms.hpp"
#include "src/attach/description.hpp"
#include "src/attach/folder.hpp"
#include "src/attach/interpreter.hpp"
#include "src/attach/names.hpp"
#include "src/base/message.hpp"
#include "src/log/file.hpp"

namespace dds::attach {
namespace {

/// Of the passes under way on this thread.
struct Passes {
  int depth = 0;
  bool outside = false;  ///< the outermost is none of the training
  std::optional<hooks::GradientsIgnored> ignored;
};
thread_local Passes passes;

/// What must not be taken for a pass of the program is under way on this thread.
struct Passing {
  Passing() { ++passes.depth; }
  ~Passing() { --passes.depth; }
  Passing(const Passing&) = delete;
  Passing& operator=(const Passing&) = delete;
};

/// A pass that begins on a thread of autograd's own is within another.
bool on_thread_of_autograd() {
  std::array<char, 16> name = {};
  return ::pthread_getname_np(::pthread_self(), name.data(), name.size()) == 0 &&
         std::string_view(name.data()).starts_with("pt_autograd");
}

}  // namespace

Session::Session(Settings settings)
    : settings_(std::move(settings)),
      leaves_(std::make_shared<Leaves>(std::vector<ModuleTree*>{&cpp_, &python_})),
      folder_(std::make_shared<Folder>(settings_.out)),
      ear_(std::make_shared<Ear>(
          Heard{.parameters = [this](const auto& leaves, bool looked_at,
                                     std::size_t bytes) { parameters_used(leaves, looked_at, bytes); },
                .operator_starts = [this](std::string_view name, auto args) { operator_starts(name, args); },
                .failed = [this](const std::string& what) { note(what); }})),
      plain_keys_(c10::impl::tls_local_dispatch_key_set()),
      probe_(settings_.max_rows) {
  if (settings_.snapshots && settings_.list.empty()) snapshots_.emplace();
  make_recording();
  listen();
  record(Recording::State::ThisStep);
}

void Session::forked() noexcept {
  life_ = Life::Over;
  ear_->listen(false);
  static std::optional<SuspendRecording> silent;  // what is installed on the one thread that there is
  silent.emplace();
}

template <class Work>
void Session::guarded(const Work& work) noexcept {
  if (gone()) return;
  const SuspendRecording unheard;  // what this runs would be told to this, which holds the mutex
  try {
    const auto lock = locked(mutex_);
    work();
  } catch (const std::exception& error) {
    note(plain_message(error));
  } catch (...) {
    note("an exception of a type of its own");
  }
}

void Session::make_recording() {
  recording_ = std::make_unique<Recording>(settings_, leaves_, folder_,
                                           [this](const std::exception& error) { note(plain_message(error)); });
}

void Session::listen() {
  if (ear_->listening()) return;
  ear_->listen(true);
  hooks::listen(ear_);
}

/// Leaves nothing installed, unless something is recorded.
void Session::deafen() {
  if (recording_->on() || !ear_->listening()) return;
  ear_->listen(false);
  hooks::stop_listening(ear_);
}

// ---- events ----

void Session::parameters_used(const std::vector<at::Tensor>& leaves, bool looked_at, std::size_t bytes) {
  guarded([&] {
    if (!steps_.certain() && !looked_at) {
      for (const at::Tensor& leaf : leaves) used_[std::this_thread::get_id()].insert(leaf.unsafeGetTensorImpl());
    }
    look_for_update(/*before_use=*/true);
    take_snapshot(leaves);
    if (!recording_->holds_too_much(bytes)) return;
    // Passes that nobody differentiates: what a recording keeps of them would grow without end.
    note(fmt::format("step {} is not read: a recording held {:.1f} GB", recording_->monitor().steps(),
                     static_cast<double>(recording_->held()) / 1e9));
    catch_up_ = true;
    abandon();
    ear_->listen(false);
  });
}

void Session::operator_starts(std::string_view name, c10::ArrayRef<const c10::IValue> args) {
  if (!snapshots_) return;
  guarded([&] {
    if (recording_->of_this_step() && probe_.wants_losses(recording_->monitor().steps()))
      probe_.operator_starts(name, args);
  });
}

void Session::optimiser(bool begins) noexcept {
  guarded([&] {
    if (begins) {
      if (training_.updated_elsewhere()) look_for_update(/*before_use=*/false);
      training_.optimiser_begins();
    } else {
      training_.optimiser_ends();
    }
  });
}

void Session::backward_starts(const Edges& roots, const Edges& outputs, bool create_graph) noexcept {
  const bool nested = passes.depth++ > 0 || on_thread_of_autograd();
  if (hooks::transforming()) return;
  guarded([&] {
    const Reached reached = reached_by(roots, outputs);
    if (nested) {
      if (!passes.outside) training_.reach(leaves_->adopt_reached(reached.wanted));
      return;
    }
    passes.outside = !training_pass(reached, !outputs.empty());
    if (!passes.outside) return;
    ++account_.passes_outside;
    if (!create_graph) passes.ignored.emplace();
  });
}

bool Session::training_pass(const Reached& reached, bool asked) {
  const std::size_t layers = leaves_->layers().size();
  leaves_->adopt_reached(reached.wanted);
  if (!leaves_->empty()) training_begins();
  std::vector<at::Tensor> parameters = leaves_->adopt_reached(reached.wanted);
  if (asked && parameters.empty() && (reached.wanted.empty() || !reached.passed.empty())) return false;
  look_for_update(/*before_use=*/false);
  if (training_.gradients_cleared()) {
    // No update came of the passes before. What they left is no part of what the next one will be of.
    ++account_.passes_without_update;
    if (steps_.untouched()) hooks::forget_gradients();
    if (training_.on_accelerator()) training_.mistrust();
  }
  training_.pass_begins();
  beside_.clear();
  for (const at::Tensor& leaf : reached.wanted) {
    if (!parameters.empty() && !leaves_->known(leaf)) beside_.push_back(leaf);
  }
  if (parameters.empty()) parameters = reached.wanted;
  training_.reach(parameters);
  if (!steps_.certain()) {
    for (const at::Tensor& leaf : parameters) used_[std::this_thread::get_id()].insert(leaf.unsafeGetTensorImpl());
  }
  if (steps_.certain() && leaves_->layers().size() > layers) {
    constexpr std::int64_t kPatience =
        10;  // steps that a network that is new, or has grown, may take to its next update
    std::set<TensorId> reached_now;
    for (const at::Tensor& leaf : parameters) reached_now.insert(leaf.unsafeGetTensorImpl());
    for (const std::size_t place : leaves_->networks_of(reached_now)) owed_[place] = step() + kPatience;
  }
  take_snapshot({});
  if (snapshots_ && recording_->of_this_step()) probe_.settle();
  deafen();
  return true;
}

void Session::training_begins() {
  if (begun_) return;
  begun_ = true;
  if (leaves_->settle()) return;
  abandon();
  catch_up_ = true;
  make_recording();
}

void Session::backward_ends() noexcept {
  if (--passes.depth > 0 || hooks::transforming() || on_thread_of_autograd()) return;
  passes.ignored.reset();
  if (std::exchange(passes.outside, false)) return;
  guarded([&] {
    if (leaves_->empty() && !training_.reached()) {
      ++account_.passes_of_nothing;
      return;
    }
    training_begins();  // where the pass itself was the first to use parameters
    pass_ends();
    if (snapshots_ && steps_.last_update_is_next() && due(step() + 1)) probe_.watch(step() + 1);
    if (recording_->of_this_step()) return;
    abandon();
    if (steps_.last_update_is_next()) record(Recording::State::NextStep);
    deafen();
  });
}

void Session::pass_ends() {
  ++account_.passes;
  training_.pass_ends(std::exchange(beside_, {}));
}

void Session::look_for_update(bool before_use) {
  const std::optional<Update> update = training_.look();
  if (!update) return;
  ++account_.updates;
  for (const TensorId input : leaves_->decide([this](const at::Tensor& tensor) { return training_.changed(tensor); })) {
    for (auto& [thread, used] : used_) used.erase(input);
  }
  if (update->overlaps && recording_->on()) {
    note("several threads train at the same time: steps in which their passes overlap are not read");
    abandon();
  }
  const std::set<TensorId> used = used_before(*update);
  count_networks(leaves_->networks_of(update->changed));
  apply(steps_.update(update->changed, used, update->sure), before_use);
  if (steps_.certain()) training_.first_is_over();
}

std::set<TensorId> Session::used_before(const Update& update) {
  if (steps_.certain()) return {};
  if (update.thread && used_.size() > 1 && steps_.updates_per_step() == 0) {
    // The first update shows which thread trains.
    abandon();
    catch_up_ = true;
    first_step_is_lost(update.changed);
    std::erase_if(used_, [&](const auto& entry) { return entry.first != *update.thread; });
  }
  std::set<TensorId> all;
  for (const auto& [thread, used] : used_) all.insert(used.begin(), used.end());
  return all;
}

void Session::count_networks(const std::set<std::size_t>& updated) {
  for (const std::size_t place : updated) {
    Leaves::Source& network = leaves_->network(place);
    if (network.updates++ > 0) network.gap = step() - network.last_update;
    network.last_update = step();
    updated_.insert(place);
  }
}

void Session::apply(Steps::Event event, bool before_use) {
  using Event = Steps::Event;
  if (event == Event::Within) {
    if (!recording_->of_this_step()) abandon();
    return;
  }
  if (event == Event::Ends && recording_->of_this_step()) {
    if (wanted(recording_->monitor().steps())) {
      read();
    } else {
      abandon();
    }
  }
  if (event == Event::Reopens || event == Event::Skips) {
    catch_up_ = recording_->on() || catch_up_;
    abandon();
    if (event == Event::Skips && account_.readings == 0) first_step_is_lost(steps_.first());
  }
  if (event != Event::Reopens) updated_.clear();
  std::erase_if(owed_, [this](const auto& entry) { return entry.second < step(); });
  if (recording_->on()) {
    recording_->next_step_begins();
  } else if (before_use && steps_.begins()) {
    record(Recording::State::ThisStep);
  }
}

/// Nothing was read yet. What has been used and was not updated is none of the training, and shall not have the names
/// of what is.
void Session::first_step_is_lost(const std::set<TensorId>& updated) {
  leaves_->keep(updated);
  make_recording();
}

void Session::finish() noexcept {
  guarded([&] {
    life_ = Life::Ending;
    Interpreter::leave();
    look_for_update(/*before_use=*/false);
    abandon();
    if (snapshots_ && snapshots_->written() > 0) say_why_no_probe();
    if (leaves_->empty() && account_.passes_of_nothing > 0) {
      note(fmt::format("{} backward passes, and none reached a parameter", account_.passes_of_nothing));
      folder_->open();
    }
    const std::string idle = idle_patterns();
    if (!idle.empty() && settings_.list.empty()) folder_->open();
    sum_up();
    for (const std::string& loss : losses_of(account_, leaves_->networks(), layers_never_read())) note(loss);
    describe();
    tell(idle);
    if (!settings_.list.empty()) log::replace_file(settings_.list, list_of_layers(recording_->monitor()) + idle);
  });
  life_ = Life::Over;
}

// ---- recordings ----

bool Session::wanted(std::int64_t step) const {
  if (settings_.stop_after && step > *settings_.stop_after) return false;
  if (!settings_.list.empty()) return step == 0 || catch_up_;
  return step % settings_.every == 0 || catch_up_ ||
         std::any_of(updated_.begin(), updated_.end(), [this](std::size_t place) { return owed_.contains(place); });
}

bool Session::due(std::int64_t step) const {
  if (wanted(step)) return true;
  return settings_.list.empty() && (!settings_.stop_after || step <= *settings_.stop_after) && !owed_.empty();
}

void Session::record(Recording::State of) {
  const std::int64_t number = step() + (of == Recording::State::NextStep ? 1 : 0);
  if (recording_->on() || !due(number)) return;
  listen();
  recording_->begin(of, number);
}

void Session::read() {
  const c10::impl::ForceDispatchKeyGuard plain(plain_keys_);
  const std::int64_t step = recording_->read();
  ++account_.readings;
  account_.readings_due += catch_up_ || step % settings_.every == 0 ? 1 : 0;
  catch_up_ = false;
  for (const std::size_t place : updated_) {
    ++leaves_->network(place).readings;
    owed_.erase(place);
  }
  if (step % settings_.every == 0) owe(step);
  write_snapshot(step);
  describe();
}

/// Networks that train and that this step left out are read in the next step that updates them.
void Session::owe(std::int64_t step) {
  for (std::size_t place = 0; place < leaves_->networks().size(); ++place) {
    const Leaves::Source& network = leaves_->networks()[place];
    const bool trains = network.updates > 0 && step - network.last_update <= 2 * std::max<std::int64_t>(network.gap, 1);
    if (trains && !updated_.contains(place)) owed_[place] = step + 2 * std::max<std::int64_t>(network.gap, 1);
  }
}

void Session::abandon() {
  if (!recording_->on()) return;
  recording_->abandon();
  if (snapshots_) snapshots_->drop();
}

// ---- snapshots ----

void Session::take_snapshot(const std::vector<at::Tensor>& used) {
  if (!snapshots_ || !recording_->of_this_step()) return;
  const c10::impl::ForceDispatchKeyGuard plain(plain_keys_);
  // Before the first pass they may be looked at, and converted or loaded then.
  const bool anew = !begun_;
  if (anew && snapshots_->outdated(used)) snapshots_->drop();
  snapshots_->take(*leaves_, used, anew);
}

void Session::write_snapshot(std::int64_t step) {
  if (!snapshots_) return;
  const Passing own;  // a network may differentiate something in its forward
  try {
    folder_->open();
    const std::filesystem::path folder = folder_->path() / kSnapshotFolder;
    snapshots_->write(folder, step, *leaves_);
    probe_.write(folder);
  } catch (const std::exception& error) {
    if (failed_snapshots_++ == 0)
      note(fmt::format("step {} has no snapshot, or no probe: {}", step, plain_message(error)));
  }
  probe_.over(step);
  say_why_no_probe();
}

void Session::say_why_no_probe() {
  if (const std::string why = probe_.why_not(/*at_the_end=*/life_ == Life::Ending); !why.empty()) note(why);
}

}  // namespace dds::attach
