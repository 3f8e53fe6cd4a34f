#include "src/attach/session.hpp"

#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <dds/error.hpp>
#include <sstream>
#include <utility>

#include "hooks/operators.hpp"
#include "src/attach/folder.hpp"
#include "src/attach/interpreter.hpp"
#include "src/log/file.hpp"
#include "src/log/json.hpp"
#include "src/monitor/factory.hpp"

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

/// Half of the memory that was free when this was first asked.
std::size_t most_held() {
  static const std::size_t bytes = [] {
    constexpr std::size_t kKiB = 1024;
    std::istringstream lines(log::read_file("/proc/meminfo"));
    for (std::string name; lines >> name; lines.ignore(256, '\n')) {
      std::size_t size = 0;
      if (name == "MemAvailable:" && lines >> size) return size * kKiB / 2;
    }
    return kKiB * kKiB * kKiB;
  }();
  return bytes;
}

/// The command line, as the kernel has it.
std::vector<std::string> command() {
  std::vector<std::string> words;
  std::string text = log::read_file("/proc/self/cmdline");
  for (std::size_t begin = 0, end; (end = text.find('\0', begin)) != std::string::npos; begin = end + 1) {
    words.push_back(text.substr(begin, end - begin));
  }
  return words;
}

}  // namespace

/// Hears of operators before the recorder does.
class Session::Ear : public hooks::Listener {
 public:
  explicit Ear(Session& session) : session_(session) {}
  bool all_threads() const override { return false; }
  bool exclusive() const override { return false; }
  bool listening() const override { return listening_; }
  void listen(bool on) { listening_ = on; }
  std::unique_ptr<hooks::OperatorNote> operator_starts(std::string_view name, c10::ArrayRef<const c10::IValue> args,
                                                       bool grad_mode, hooks::Nesting&) override {
    if (!grad_mode) return nullptr;
    std::vector<at::Tensor> leaves;
    int tensors = 0;
    std::size_t bytes = 0;
    hooks::for_each_tensor(args, [&](const at::Tensor& tensor) {
      ++tensors;
      if (tensor.requires_grad() && tensor.is_leaf()) {
        leaves.push_back(tensor);
      } else {
        bytes += static_cast<std::size_t>(tensor.numel()) * tensor.element_size();
      }
    });
    if (!leaves.empty()) session_.parameters_used(leaves, /*looked_at=*/tensors == 1, bytes);
    session_.operator_starts(name, args);
    return nullptr;
  }
  void operator_ends(std::string_view, hooks::OperatorNote&, const std::vector<c10::IValue>&,
                     hooks::Nesting&) override {}
  void tapped(std::string_view, const at::Tensor&) override {}
  void failed(std::string_view where, const char* what) override { session_.note(fmt::format("{}: {}", where, what)); }

 private:
  Session& session_;
  std::atomic<bool> listening_ = false;
};

Session::Session(Settings settings)
    : settings_(std::move(settings)),
      leaves_(std::make_shared<Leaves>(std::vector<ModuleTree*>{&cpp_, &python_})),
      folder_(std::make_shared<Folder>(settings_.out)),
      ear_(std::make_shared<Ear>(*this)),
      plain_keys_(c10::impl::tls_local_dispatch_key_set()),
      probe_(settings_.max_rows) {
  if (settings_.snapshots && settings_.list.empty()) snapshots_.emplace();
  make_monitor();
  listen_here();
  open(/*of_this_step=*/true);
}

void Session::forked() noexcept {
  gone_ = true;
  static std::optional<SuspendRecording> silent;  // what is installed on the one thread that there is
  silent.emplace();
}

template <class Work>
void Session::guarded(const Work& work) noexcept {
  if (gone_) return;
  try {
    const std::lock_guard lock(mutex_);
    work();
  } catch (const std::exception& error) {
    note(error.what());
  } catch (...) {
    note("an exception of a type of its own");
  }
}

void Session::note(const std::string& what) {
  if (notes_.size() < kNotes && std::find(notes_.begin(), notes_.end(), what) == notes_.end()) notes_.push_back(what);
}

void Session::make_monitor() {
  const bool list = !settings_.list.empty();
  SignatureOptions reading;
  if (!settings_.layers.empty()) reading.layers(settings_.layers);
  reading.max_rows(list ? 1 : settings_.max_rows);
  if (list) reading.sides({Side::Activation});
  MonitorOptions options;
  options.every(settings_.every).signatures(std::move(reading));
  options.due([this](std::int64_t) { return capturing_; });
  options.on_error([this](const std::exception& error) { note(error.what()); });
  monitor_ = std::make_unique<Monitor>(MonitorFactory::of_parameters(
      leaves_, std::move(options), list ? std::make_shared<log::Memory>() : log::SinkPtr(folder_)));
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
  make_monitor();
  used_.clear();
  passes_ = 0;
  trains_ = pending_ = false;
  lost_ = 1;
  catch_up_ = true;
  listen_here();
  open(/*of_this_step=*/true);
}

/// Leaves nothing installed, unless something is recorded.
void Session::deafen() {
  if (step_ || !ear_->listening()) return;
  ear_->listen(false);
  hooks::stop_listening(ear_);
}

// ---- recordings ----

bool Session::due(std::int64_t step) const {
  if (settings_.stop_after && step > *settings_.stop_after) return false;
  if (!settings_.list.empty()) return step == 0 || catch_up_;
  return step % settings_.every == 0 || catch_up_;
}

/// Begins a recording of the step under way, or of the one after it.
void Session::open(bool of_this_step) {
  const std::int64_t step = lost_ + steps_.step() + (of_this_step ? 0 : 1);
  if (step_ || !due(step)) return;
  listen_here();
  while (monitor_->steps() < step) monitor_->step().finish();
  capturing_ = true;
  step_.emplace(monitor_->step());
  capturing_ = false;
  of_this_step_ = of_this_step;
  held_ = 0;
}

void Session::read() {
  const c10::impl::ForceDispatchKeyGuard plain(plain_keys_);
  const std::int64_t step = monitor_->steps();
  catch_up_ = false;
  step_->finish();
  step_.reset();
  write_snapshot(step);
  describe();
}

void Session::abandon() {
  if (!step_) return;
  step_->abandon();
  step_.reset();
  if (snapshots_) snapshots_->drop();
}

// ---- snapshots ----

void Session::take_snapshot(const std::vector<at::Tensor>& used) {
  if (!snapshots_ || !step_ || !of_this_step_) return;
  const c10::impl::ForceDispatchKeyGuard plain(plain_keys_);
  // Before the first pass they may be looked at, and converted or loaded then.
  if (!trains_ && snapshots_->outdated(used)) snapshots_->drop();
  snapshots_->take(*leaves_, used, /*anew=*/!trains_);
}

void Session::write_snapshot(std::int64_t step) {
  if (!snapshots_) return;
  const Passing own;  // a network may differentiate something in its forward
  try {
    folder_->open();
    const std::filesystem::path folder = folder_->path() / "snapshots";
    snapshots_->write(folder, step, *leaves_);
    probe_.write(folder);
  } catch (const std::exception& error) {
    if (failed_snapshots_++ == 0) note(fmt::format("step {} has no snapshot, or no probe: {}", step, error.what()));
  }
  probe_.over(step);
  say_why_no_probe();
}

void Session::say_why_no_probe() {
  if (const std::string why = probe_.why_not(/*at_the_end=*/ending_); !why.empty()) note(why);
}

void Session::operator_starts(std::string_view name, c10::ArrayRef<const c10::IValue> args) {
  if (!snapshots_) return;
  guarded([&] {
    if (step_ && of_this_step_ && probe_.wants_losses(monitor_->steps())) probe_.operator_starts(name, args);
  });
}

// ---- steps ----

void Session::remember() {
  constexpr std::int64_t kAtFirst = 1024, kLater = 64;  // of each parameter: by and by any change of any will do
  std::vector<at::Tensor> tensors = leaves_->tensors();
  const std::vector<at::Tensor> candidates = leaves_->candidates();
  tensors.insert(tensors.end(), candidates.begin(), candidates.end());
  watch_.remember(tensors, !steps_.certain() ? kAtFirst : by_version_ ? 0 : kLater);
}

void Session::look_for_update(bool before_use) {
  if (!pending_) return;
  const std::vector<at::Tensor> tensors = leaves_->tensors();
  const std::set<TensorId> changed = watch_.changed(tensors);
  if (changed.empty()) return;
  pending_ = false;
  leaves_->decide([this](const at::Tensor& tensor) { return watch_.changed(tensor); });
  if (!steps_.certain()) by_version_ = by_version_ && watch_.by_version(changed, tensors);
  updated_ = true;
  apply(steps_.update(changed, used_), before_use);
}

void Session::apply(Steps::Event event, bool before_use) {
  using Event = Steps::Event;
  if (event == Event::Within) {
    if (!of_this_step_) abandon();
    return;
  }
  if (event == Event::Ends && step_ && of_this_step_) read();
  if (event == Event::Reopens || event == Event::Skips) {
    catch_up_ = step_.has_value() || catch_up_;
    abandon();
  }
  if (step_) {
    of_this_step_ = true;
  } else if (before_use && steps_.begins()) {
    open(/*of_this_step=*/true);
  }
}

void Session::parameters_used(const std::vector<at::Tensor>& leaves, bool looked_at, std::size_t bytes) {
  guarded([&] {
    if (!steps_.certain() && !looked_at) {
      for (const at::Tensor& leaf : leaves) used_.insert(leaf.unsafeGetTensorImpl());
    }
    look_for_update(/*before_use=*/true);
    take_snapshot(leaves);
    held_ += bytes;
    if (!step_ || held_ < most_held()) return;
    // Passes that nobody differentiates: what a recording keeps of them would grow without end.
    note(fmt::format("step {} is not read: a recording held {:.1f} GB", monitor_->steps(),
                     static_cast<double>(held_) / 1e9));
    catch_up_ = true;
    abandon();
    ear_->listen(false);
  });
}

void Session::backward_starts() noexcept {
  if (passes_under_way++ > 0) return;
  guarded([&] {
    if (!here()) {
      ++elsewhere_;
      return;
    }
    if (leaves_->empty()) return;
    if (!trains_) {
      trains_ = true;
      if (!leaves_->settle()) {
        abandon();
        catch_up_ = true;
        make_monitor();
      }
    }
    look_for_update(/*before_use=*/false);
    take_snapshot({});
    if (snapshots_ && step_ && of_this_step_) probe_.settle();
    deafen();
  });
}

void Session::backward_ends() noexcept {
  if (--passes_under_way > 0) return;
  guarded([&] {
    if (!here()) {
      // One pass there may have its update still before it.
      if (!updated_ && passes_ != 1) follow_this_thread();
      return;
    }
    if (leaves_->empty()) {
      ++unseen_passes_;
      return;
    }
    ++passes_;
    if (!pending_) remember();
    pending_ = true;
    if (snapshots_ && steps_.last_update_is_next()) {
      if (const std::int64_t next = lost_ + steps_.step() + 1; due(next)) probe_.watch(next);
    }
    if (step_ && of_this_step_) return;
    abandon();
    if (steps_.last_update_is_next()) open(/*of_this_step=*/false);
    deafen();
  });
}

void Session::finish() noexcept {
  guarded([&] {
    ending_ = true;
    Interpreter::leave();
    if (trains_) look_for_update(/*before_use=*/false);
    abandon();
    if (snapshots_ && snapshots_->written() > 0) say_why_no_probe();
    if (leaves_->empty() && unseen_passes_ > 0) {
      note(
          fmt::format("{} backward passes, and no operator took a parameter: the network was compiled, or runs kernels "
                      "that the dispatcher does not see",
                      unseen_passes_));
      folder_->open();
    }
    describe();
    if (!settings_.list.empty()) write_list();
  });
  gone_ = true;
}

// ---- what is said ----

void Session::describe() {
  nlohmann::ordered_json networks = nlohmann::ordered_json::array();
  for (const Leaves::Source& source : leaves_->networks()) {
    networks.push_back({{"class", source.network}, {"language", source.language}, {"prefix", source.prefix}});
  }
  nlohmann::ordered_json attached{
      {"command", command()},
      {"pid", ::getpid()},
      {"every", settings_.every},
      {"layers", monitor_->layers()},
      {"networks", networks},
      {"leaves_by_order_of_use", leaves_->alone()},
      {"updates_per_step", steps_.certain() ? nlohmann::ordered_json(steps_.updates_per_step()) : nullptr},
      {"updates_seen_by", by_version_ ? "versions" : "elements"},
      {"steps", lost_ + steps_.step()},
      {"backward_passes_before_any_parameter", unseen_passes_},
      {"backward_passes_of_other_threads", elsewhere_},
      {"notes", notes_},
  };
  if (snapshots_) {
    attached["snapshots"] = probe_.description();
    attached["snapshots"]["written"] = snapshots_->written();
    attached["snapshots"]["failed"] = failed_snapshots_;
  }
  folder_->describe("attach", log::json_text(attached));
}

void Session::write_list() {
  std::string table;
  for (const std::string& layer : monitor_->layers()) {
    std::set<std::string> runs, others;
    for (const Attribution& use : monitor_->attribution()) {
      if (use.layer != layer) continue;
      const bool run = use.outcome == Attribution::Outcome::Captured;
      (run ? runs : others).insert(use.statement());
    }
    for (const std::string& statement : runs.empty() ? others : runs)
      table += fmt::format("{}\t{}\n", layer, statement);
    if (runs.empty() && others.empty()) table += fmt::format("{}\tno operator took a parameter of it\n", layer);
  }
  log::replace_file(settings_.list, table);
}

}  // namespace dds::attach
