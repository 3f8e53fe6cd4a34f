#include "src/attach/session.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <dds/error.hpp>
#include <dds/suspend_recording.hpp>
#include <utility>

#include "hooks/transforms.hpp"
#include "src/attach/description.hpp"
#include "src/attach/folder.hpp"
#include "src/attach/interpreter.hpp"
#include "src/attach/names.hpp"
#include "src/base/glob.hpp"
#include "src/base/message.hpp"
#include "src/log/file.hpp"
#include "src/log/json.hpp"

namespace dds::attach {
namespace {

constexpr std::size_t kNotes = 20;  // kept, of what went otherwise than expected

thread_local int passes_under_way = 0;

/// A backward pass, or what must not be taken for one, is under way on this thread.
struct Passing {
  Passing() { ++passes_under_way; }
  ~Passing() { --passes_under_way; }
  Passing(const Passing&) = delete;
  Passing& operator=(const Passing&) = delete;
};

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
  listen_here();
  record(Recording::State::ThisStep);
}

void Session::forked() noexcept {
  life_ = Life::Over;
  static std::optional<SuspendRecording> silent;  // what is installed on the one thread that there is
  silent.emplace();
}

template <class Work>
void Session::guarded(const Work& work) noexcept {
  if (gone()) return;
  try {
    const std::lock_guard lock(mutex_);
    work();
  } catch (const std::exception& error) {
    note(plain_message(error));
  } catch (...) {
    note("an exception of a type of its own");
  }
}

void Session::note(const std::string& what) {
  if (notes_.size() < kNotes && std::find(notes_.begin(), notes_.end(), what) == notes_.end()) notes_.push_back(what);
}

void Session::make_recording() {
  recording_ = std::make_unique<Recording>(settings_, leaves_, folder_,
                                           [this](const std::exception& error) { note(plain_message(error)); });
}

void Session::listen_here() {
  thread_ = std::this_thread::get_id();
  if (ear_->listening()) return;
  ear_->listen(true);
  hooks::listen(ear_);
}

/// Forgets what was seen on another thread, none of which was read.
void Session::follow_this_thread() {
  abandon();
  ear_->listen(false);
  leaves_ = std::make_shared<Leaves>(std::vector<ModuleTree*>{&cpp_, &python_});
  make_recording();
  used_.clear();
  passes_ = 0;
  phase_ = Phase::Looking;
  lost_ = 1;
  catch_up_ = true;
  listen_here();
  record(Recording::State::ThisStep);
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
      for (const at::Tensor& leaf : leaves) used_.insert(leaf.unsafeGetTensorImpl());
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

void Session::backward_starts() noexcept {
  if (passes_under_way++ > 0 || hooks::transforming()) return;
  guarded([&] {
    if (!here()) {
      ++elsewhere_;
      return;
    }
    if (leaves_->empty()) return;
    training_begins();
    look_for_update(/*before_use=*/false);
    take_snapshot({});
    if (snapshots_ && recording_->of_this_step()) probe_.settle();
    deafen();
  });
}

void Session::training_begins() {
  if (phase_ != Phase::Looking) return;
  phase_ = Phase::Computing;
  if (leaves_->settle()) return;
  abandon();
  catch_up_ = true;
  make_recording();
}

void Session::backward_ends() noexcept {
  if (--passes_under_way > 0 || hooks::transforming()) return;
  guarded([&] {
    if (!here()) {
      // One pass there may have its update still before it.
      if (steps_.updates_per_step() == 0 && passes_ != 1) follow_this_thread();
      return;
    }
    if (leaves_->empty()) {
      ++unseen_passes_;
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
  ++passes_;
  if (phase_ != Phase::Differentiated) remember();
  phase_ = Phase::Differentiated;
}

void Session::look_for_update(bool before_use) {
  if (phase_ != Phase::Differentiated) return;
  const std::vector<at::Tensor> tensors = leaves_->tensors();
  const std::set<TensorId> changed = watch_.changed(tensors);
  if (changed.empty()) return;
  phase_ = Phase::Computing;
  for (const TensorId input : leaves_->decide([this](const at::Tensor& tensor) { return watch_.changed(tensor); }))
    used_.erase(input);
  if (!steps_.certain()) by_version_ = by_version_ && watch_.by_version(changed, tensors);
  apply(steps_.update(changed, used_), before_use);
}

void Session::apply(Steps::Event event, bool before_use) {
  using Event = Steps::Event;
  if (event == Event::Within) {
    if (!recording_->of_this_step()) abandon();
    return;
  }
  if (event == Event::Ends && recording_->of_this_step()) read();
  if (event == Event::Reopens || event == Event::Skips) {
    catch_up_ = recording_->on() || catch_up_;
    abandon();
  }
  if (recording_->on()) {
    recording_->next_step_begins();
  } else if (before_use && steps_.begins()) {
    record(Recording::State::ThisStep);
  }
}

void Session::finish() noexcept {
  guarded([&] {
    life_ = Life::Ending;
    Interpreter::leave();
    look_for_update(/*before_use=*/false);
    abandon();
    if (snapshots_ && snapshots_->written() > 0) say_why_no_probe();
    if (leaves_->empty() && unseen_passes_ > 0) {
      note(
          fmt::format("{} backward passes, and no operator took a parameter: the network was compiled, or runs kernels "
                      "that the dispatcher does not see",
                      unseen_passes_));
      folder_->open();
    }
    const std::string idle = idle_patterns();
    if (!idle.empty() && settings_.list.empty()) folder_->open();
    describe();
    if (!settings_.list.empty()) log::replace_file(settings_.list, list_of_layers(recording_->monitor()) + idle);
  });
  life_ = Life::Over;
}

std::string Session::idle_patterns() {
  constexpr std::ptrdiff_t kNamed = 20;
  const std::vector<std::string> layers(leaves_->layers().begin(), leaves_->layers().end());
  std::string lines;
  if (layers.empty()) return lines;
  const std::ptrdiff_t more = std::max<std::ptrdiff_t>(0, std::ssize(layers) - kNamed);
  const std::string names = fmt::format("{}{}", fmt::join(layers.begin(), layers.end() - more, ", "),
                                        more > 0 ? fmt::format(" and {} more", more) : "");
  for (const std::string& pattern : settings_.layers) {
    const auto matches = [&](const std::string& layer) { return glob_match(pattern, layer); };
    if (std::any_of(layers.begin(), layers.end(), matches)) continue;
    note(fmt::format("the pattern '{}' selects none of the layers {}", pattern, names));
    lines += fmt::format("{}\tselects none of the layers {}\n", pattern, names);
  }
  return lines;
}

// ---- recordings ----

bool Session::due(std::int64_t step) const {
  if (settings_.stop_after && step > *settings_.stop_after) return false;
  if (!settings_.list.empty()) return step == 0 || catch_up_;
  return step % settings_.every == 0 || catch_up_;
}

void Session::record(Recording::State of) {
  const std::int64_t number = step() + (of == Recording::State::NextStep ? 1 : 0);
  if (recording_->on() || !due(number)) return;
  listen_here();
  recording_->begin(of, number);
}

void Session::read() {
  const c10::impl::ForceDispatchKeyGuard plain(plain_keys_);
  catch_up_ = false;
  write_snapshot(recording_->read());
  describe();
}

void Session::abandon() {
  if (!recording_->on()) return;
  recording_->abandon();
  if (snapshots_) snapshots_->drop();
}

void Session::remember() {
  constexpr std::int64_t kAtFirst = 1024, kLater = 64;  // of each parameter: by and by any change of any will do
  std::vector<at::Tensor> tensors = leaves_->tensors();
  const std::vector<at::Tensor> candidates = leaves_->candidates();
  tensors.insert(tensors.end(), candidates.begin(), candidates.end());
  watch_.remember(tensors, !steps_.certain() ? kAtFirst : by_version_ ? 0 : kLater);
}

// ---- snapshots ----

void Session::take_snapshot(const std::vector<at::Tensor>& used) {
  if (!snapshots_ || !recording_->of_this_step()) return;
  const c10::impl::ForceDispatchKeyGuard plain(plain_keys_);
  // Before the first pass they may be looked at, and converted or loaded then.
  const bool anew = phase_ == Phase::Looking;
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

// ---- what is said ----

void Session::describe() {
  nlohmann::ordered_json networks = nlohmann::ordered_json::array();
  for (const Leaves::Source& source : leaves_->networks()) {
    networks.push_back({{"class", source.network}, {"language", source.language}, {"prefix", source.prefix}});
  }
  nlohmann::ordered_json attached{
      {"command", command_line()},
      {"pid", ::getpid()},
      {"every", settings_.every},
      {"layers", recording_->monitor().layers()},
      {"networks", networks},
      {"leaves_by_order_of_use", leaves_->alone()},
      {"updates_per_step", steps_.certain() ? nlohmann::ordered_json(steps_.updates_per_step()) : nullptr},
      {"updates_seen_by", by_version_ ? "versions" : "elements"},
      {"steps", step()},
      {"backward_passes_before_any_parameter", unseen_passes_},
      {"backward_passes_of_other_threads", elsewhere_},
      {"notes", notes_},
  };
  if (snapshots_) {
    nlohmann::ordered_json& of_snapshots = attached[kSnapshotDescription];
    of_snapshots = probe_.description();
    of_snapshots["written"] = snapshots_->written();
    of_snapshots["failed"] = failed_snapshots_;
  }
  folder_->describe(kDescription, log::json_text(attached));
}

}  // namespace dds::attach
