#include "hooks/observer.hpp"

// This file is always compiled with NDEBUG and optimisation (src/CMakeLists.txt): released LibTorch is built so, and
// the header below has a member that exists only without NDEBUG.
#ifndef NDEBUG
#error "hooks/observer.cpp must be compiled with NDEBUG"
#endif

#include <ATen/record_function.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>

#include <algorithm>
#include <dds/recorder.hpp>
#include <mutex>
#include <utility>

namespace dds {
namespace hooks {
namespace {

/// Who listens, and the nesting of what runs. There is one for each thread, and one for listeners of all threads.
struct Listeners {
  std::vector<std::pair<std::shared_ptr<Listener>, Nesting>> entries;
  int backward = 0;  ///< built-in backward nodes under way: what runs in them is no layer
};

thread_local Listeners this_thread;
thread_local int suspended = 0;

/// True unless it is over, or another listener has the thread to itself.
bool may_listen(const Listener& listener) {
  if (!listener.listening()) return false;
  const auto is_other = [&](const auto& entry) {
    return entry.first.get() != &listener && entry.first->exclusive() && entry.first->listening();
  };
  return std::none_of(this_thread.entries.begin(), this_thread.entries.end(), is_other);
}

struct Installed {
  at::CallbackHandle handle = 0;
  int users = 0;
};
thread_local Installed installed_here;

std::mutex everywhere_mutex;
Installed installed_everywhere;                               // guarded by everywhere_mutex
std::vector<std::shared_ptr<Listener>> everywhere_listeners;  // guarded by everywhere_mutex
thread_local Listeners everywhere;                            // this thread's view of everywhere_listeners

struct Context : at::ObserverContext {
  bool backward = false;
  std::vector<std::pair<std::shared_ptr<Listener>, std::unique_ptr<OperatorNote>>> notes;
};

template <bool kEverywhere>
Listeners& listeners() {
  if constexpr (!kEverywhere) return this_thread;
  const std::lock_guard lock(everywhere_mutex);
  std::erase_if(everywhere.entries, [](const auto& entry) {
    return std::find(everywhere_listeners.begin(), everywhere_listeners.end(), entry.first) ==
           everywhere_listeners.end();
  });
  for (const auto& listener : everywhere_listeners) {
    const auto same = [&](const auto& entry) { return entry.first == listener; };
    if (std::none_of(everywhere.entries.begin(), everywhere.entries.end(), same))
      everywhere.entries.emplace_back(listener, Nesting{});
  }
  return everywhere;
}

/// A custom function's backward may recompute its forward (checkpointing), which is a run of layers.
bool is_custom_function(const char* name) { return std::string_view(name).find("CppNode") != std::string_view::npos; }

template <bool kEverywhere>
std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& fn) {
  if (suspended > 0) return nullptr;
  Listeners& here = listeners<kEverywhere>();
  if (fn.scope() == at::RecordScope::BACKWARD_FUNCTION) {
    if (is_custom_function(fn.name())) return nullptr;
    ++here.backward;
    auto context = std::make_unique<Context>();
    context->backward = true;
    return context;
  }
  if (here.backward > 0) return nullptr;
  const bool grad_mode = at::GradMode::is_enabled();
  const at::DisableRecordFunctionGuard unseen;
  const at::NoGradGuard no_grad;
  std::unique_ptr<Context> context;
  for (auto& [listener, nesting] : here.entries) {
    if (!may_listen(*listener)) continue;
    try {
      auto note = listener->operator_starts(fn.name(), fn.inputs(), grad_mode, nesting);
      if (!note) continue;
      if (!context) context = std::make_unique<Context>();
      context->notes.emplace_back(listener, std::move(note));
    } catch (const std::exception& error) {
      listener->failed(fn.name(), error.what());
    }
  }
  return context;
}

template <bool kEverywhere>
void on_end(const at::RecordFunction& fn, at::ObserverContext* context) {
  if (!context) return;
  Listeners& here = kEverywhere ? everywhere : this_thread;
  auto& observed = *static_cast<Context*>(context);
  if (observed.backward) {
    --here.backward;
    return;
  }
  const at::DisableRecordFunctionGuard unseen;
  const at::NoGradGuard no_grad;
  for (auto& [listener, note] : observed.notes) {
    Nesting gone;
    Nesting* nesting = &gone;
    for (auto& [entry, its_nesting] : here.entries) {
      if (entry == listener) nesting = &its_nesting;
    }
    try {
      listener->operator_ends(fn.name(), *note, fn.outputs(), *nesting);
    } catch (const std::exception& error) {
      listener->failed(fn.name(), error.what());
    }
  }
}

template <bool kEverywhere>
at::RecordFunctionCallback observer() {
  return at::RecordFunctionCallback(&on_start<kEverywhere>, &on_end<kEverywhere>)
      .needsInputs(true)
      .needsOutputs(true)
      .scopes({at::RecordScope::FUNCTION, at::RecordScope::BACKWARD_FUNCTION});
}

}  // namespace

void listen(const std::shared_ptr<Listener>& listener) {
  if (listener->all_threads()) {
    const std::lock_guard lock(everywhere_mutex);
    everywhere_listeners.push_back(listener);
    if (installed_everywhere.users++ == 0) installed_everywhere.handle = at::addGlobalCallback(observer<true>());
  } else {
    // What was stopped on another thread could not be taken off this one's list there.
    const auto stale = std::erase_if(
        this_thread.entries, [&](const auto& entry) { return entry.first == listener || !entry.first->listening(); });
    if (stale > 0 && (installed_here.users -= static_cast<int>(stale)) == 0) at::removeCallback(installed_here.handle);
    this_thread.entries.emplace_back(listener, Nesting{});
    if (installed_here.users++ == 0) installed_here.handle = at::addThreadLocalCallback(observer<false>());
  }
}

void stop_listening(const std::shared_ptr<Listener>& listener) {
  if (listener->all_threads()) {
    const std::lock_guard lock(everywhere_mutex);
    std::erase(everywhere_listeners, listener);
    if (--installed_everywhere.users == 0) at::removeCallback(installed_everywhere.handle);
    return;
  }
  // On another thread than start() there is nothing to remove: the callback there finds that nobody records.
  const auto removed = std::erase_if(this_thread.entries, [&](const auto& entry) { return entry.first == listener; });
  if (removed > 0 && --installed_here.users == 0) at::removeCallback(installed_here.handle);
}

void tell_of_tap(std::string_view name, const at::Tensor& tensor) {
  if (suspended > 0 || (this_thread.entries.empty() && everywhere.entries.empty())) return;
  for (const Listeners* here : {&this_thread, &everywhere}) {
    if (here->backward > 0) continue;
    for (const auto& [listener, nesting] : here->entries) {
      if (!may_listen(*listener)) continue;
      try {
        const at::DisableRecordFunctionGuard unseen;
        listener->tapped(name, tensor);
      } catch (const std::exception& error) {
        listener->failed(fmt::format("tap '{}'", name), error.what());
      }
    }
  }
}

Unseen::Unseen() : before_(at::isRecordFunctionEnabled()) { at::enableRecordFunction(false); }
Unseen::~Unseen() { at::enableRecordFunction(before_); }

}  // namespace hooks

SuspendRecording::SuspendRecording() { ++hooks::suspended; }
SuspendRecording::~SuspendRecording() { --hooks::suspended; }

}  // namespace dds
