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
#include <atomic>
#include <cstdint>
#include <dds/suspend_recording.hpp>
#include <mutex>
#include <utility>

#include "hooks/ranges.hpp"
#include "hooks/transforms.hpp"
#include "src/base/message.hpp"

namespace dds {
namespace hooks {
namespace {

/// Who listens, and the nesting of what runs. There is one for each thread, and one for listeners of all threads.
struct Listeners {
  struct Entry {
    std::weak_ptr<Listener> listener;  ///< what nobody else holds any more must not live on in a thread's list
    Nesting nesting;

    bool is(const std::shared_ptr<Listener>& other) const {
      return !listener.owner_before(other) && !other.owner_before(listener);
    }
  };
  std::vector<Entry> entries;
  /// Of what is under way on this thread: backward nodes of custom functions, and what nobody is told the inside of
  /// (built-in backward nodes, operators in a transform).
  int custom_functions = 0, unheard = 0;
  std::uint64_t version = 0;  ///< of everywhere_listeners
};

thread_local Listeners this_thread;
thread_local int suspended = 0;

/// While a listener is called: nobody is told of the operators that it runs. Turning at::RecordFunction off for the
/// call would have it build its lists of callbacks anew, each time.
thread_local int in_listener = 0;
struct InListener {
  InListener() { ++in_listener; }
  ~InListener() { --in_listener; }
  InListener(const InListener&) = delete;
  InListener& operator=(const InListener&) = delete;
};

struct Installed {
  at::CallbackHandle handle = 0;
  int users = 0;
};
thread_local Installed installed_here;

std::mutex everywhere_mutex;
Installed installed_everywhere;                               // guarded by everywhere_mutex
std::vector<std::shared_ptr<Listener>> everywhere_listeners;  // guarded by everywhere_mutex
std::atomic<std::uint64_t> everywhere_version = 0;            // rises with every change of it
thread_local Listeners everywhere;                            // this thread's view of everywhere_listeners

struct Context : at::ObserverContext {
  int* counter = nullptr;  ///< of Listeners: one more while this is under way
  std::vector<std::pair<std::shared_ptr<Listener>, std::unique_ptr<OperatorNote>>> notes;
};

Listeners& listeners_everywhere() {
  if (everywhere.version == everywhere_version) return everywhere;
  const std::lock_guard lock(everywhere_mutex);
  everywhere.version = everywhere_version;
  std::vector<Listeners::Entry> entries;
  for (const auto& listener : everywhere_listeners) {
    const auto known = std::find_if(everywhere.entries.begin(), everywhere.entries.end(),
                                    [&](const Listeners::Entry& entry) { return entry.is(listener); });
    entries.push_back(known == everywhere.entries.end() ? Listeners::Entry{listener, {}} : *known);
  }
  everywhere.entries = std::move(entries);
  return everywhere;
}

template <bool kEverywhere>
Listeners& listeners() {
  return kEverywhere ? listeners_everywhere() : this_thread;
}

/// Calls work(listener, nesting) for those in a list that listen, by copy: hooks may register others meanwhile.
template <class Work>
void for_each_listener(Listeners& here, const Work& work) {
  for (std::size_t i = 0; i < here.entries.size(); ++i) {
    const std::shared_ptr<Listener> listener = here.entries[i].listener.lock();
    if (!listener || !listener->listening() || silenced(*listener)) continue;
    work(listener, here.entries[i].nesting);
  }
}

/// A custom function's backward may recompute its forward (checkpointing), which is a run of layers. Python's are named
/// after their class, "CheckpointFunctionBackward"; LibTorch's own nodes have a number behind, or a namespace before.
bool is_custom_function(const char* name) {
  const std::string_view node(name);
  return node.find("CppNode") != std::string_view::npos ||
         (node.ends_with("Backward") && node.find("::") == std::string_view::npos);
}

std::unique_ptr<at::ObserverContext> counted_in(int& counter) {
  ++counter;
  auto context = std::make_unique<Context>();
  context->counter = &counter;
  return context;
}

/// An operator that the interpreter of TorchScript runs comes with the whole of its stack, on which the arguments, and
/// afterwards the results, are the last.
c10::ArrayRef<const c10::IValue> arguments_of(const at::RecordFunction& fn) {
  const auto stack = fn.inputs();
  return fn.num_inputs() < stack.size() ? stack.slice(stack.size() - fn.num_inputs()) : stack;
}

std::vector<c10::IValue> results_of(const at::RecordFunction& fn) {
  const std::vector<c10::IValue>& stack = fn.outputs();
  const std::size_t own = std::min(fn.num_outputs(), stack.size());
  return {stack.end() - static_cast<std::ptrdiff_t>(own), stack.end()};
}

template <bool kEverywhere>
std::unique_ptr<at::ObserverContext> on_start(const at::RecordFunction& fn) {
  if (suspended > 0 || in_listener > 0) return nullptr;
  Listeners& here = listeners<kEverywhere>();
  if (fn.scope() == at::RecordScope::BACKWARD_FUNCTION) {
    for_each_listener(here, [&](const std::shared_ptr<Listener>& listener, Nesting&) {
      listener->backward_node_runs(fn.name(), fn.seqNr());
    });
    if (!is_custom_function(fn.name())) return counted_in(here.unheard);
    for_each_listener(
        here, [&](const std::shared_ptr<Listener>& listener, Nesting&) { listener->custom_function_runs(fn.name()); });
    return counted_in(here.custom_functions);
  }
  if (here.unheard > 0) return nullptr;
  // What runs inside sees other tensors, and no longer that there is a transform.
  if (transforming()) return counted_in(here.unheard);
  const bool grad_mode = at::GradMode::is_enabled();
  const InListener unseen;
  const at::NoGradGuard no_grad;
  std::unique_ptr<Context> context;
  for_each_listener(here, [&](const std::shared_ptr<Listener>& listener, Nesting& nesting) {
    try {
      auto note = listener->operator_starts(fn.name(), arguments_of(fn), grad_mode, nesting);
      if (!note) return;
      if (!context) context = std::make_unique<Context>();
      context->notes.emplace_back(listener, std::move(note));
    } catch (const std::exception& error) {
      listener->failed(fn.name(), plain_message(error));
    }
  });
  return context;
}

template <bool kEverywhere>
void on_end(const at::RecordFunction& fn, at::ObserverContext* context) {
  if (!context) return;
  auto& observed = *static_cast<Context*>(context);
  if (observed.counter) {
    --*observed.counter;
    return;
  }
  Listeners& here = kEverywhere ? everywhere : this_thread;
  const InListener unseen;
  const at::NoGradGuard no_grad;
  for (auto& [listener, note] : observed.notes) {
    Nesting gone;
    Nesting* nesting = &gone;
    for (Listeners::Entry& entry : here.entries) {
      if (entry.is(listener)) nesting = &entry.nesting;
    }
    try {
      listener->operator_ends(fn.name(), *note, results_of(fn), *nesting);
    } catch (const std::exception& error) {
      listener->failed(fn.name(), plain_message(error));
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

void (*told_of_ranges)(std::string_view name, bool begins) = nullptr;

}  // namespace

void tell_of_ranges(void (*told)(std::string_view name, bool begins)) {
  told_of_ranges = told;
  const auto begins = [](const at::RecordFunction& fn) -> std::unique_ptr<at::ObserverContext> {
    told_of_ranges(fn.name(), true);
    return nullptr;
  };
  const auto ends = [](const at::RecordFunction& fn, at::ObserverContext*) { told_of_ranges(fn.name(), false); };
  at::addGlobalCallback(at::RecordFunctionCallback(begins, ends).scopes({at::RecordScope::USER_SCOPE}));
}

void listen(const std::shared_ptr<Listener>& listener) {
  if (listener->all_threads()) {
    const std::lock_guard lock(everywhere_mutex);
    everywhere_listeners.push_back(listener);
    ++everywhere_version;
    if (installed_everywhere.users++ == 0) installed_everywhere.handle = at::addGlobalCallback(observer<true>());
  } else {
    // What was stopped on another thread could not be taken off this one's list there.
    const auto stale = std::erase_if(this_thread.entries, [&](const Listeners::Entry& entry) {
      const std::shared_ptr<Listener> known = entry.listener.lock();
      return !known || known == listener || !known->listening();
    });
    if (stale > 0 && (installed_here.users -= static_cast<int>(stale)) == 0) at::removeCallback(installed_here.handle);
    this_thread.entries.push_back({listener, {}});
    if (installed_here.users++ == 0) installed_here.handle = at::addThreadLocalCallback(observer<false>());
  }
}

void stop_listening(const std::shared_ptr<Listener>& listener) {
  if (listener->all_threads()) {
    const std::lock_guard lock(everywhere_mutex);
    std::erase(everywhere_listeners, listener);
    ++everywhere_version;
    if (--installed_everywhere.users == 0) at::removeCallback(installed_everywhere.handle);
    return;
  }
  // On another thread than listen() there is nothing to remove: the callback there finds that nobody listens.
  const auto removed =
      std::erase_if(this_thread.entries, [&](const Listeners::Entry& entry) { return entry.is(listener); });
  if (removed > 0 && --installed_here.users == 0) at::removeCallback(installed_here.handle);
}

bool silenced(const Listener& listener) {
  return suspended > 0 ||
         std::any_of(this_thread.entries.begin(), this_thread.entries.end(), [&](const Listeners::Entry& entry) {
           const std::shared_ptr<Listener> other = entry.listener.lock();
           return other && other.get() != &listener && other->exclusive() && other->listening();
         });
}

bool recomputing() { return this_thread.custom_functions > 0 || everywhere.custom_functions > 0; }

void tell_of_tap(std::string_view name, const at::Tensor& tensor) {
  for (Listeners* here : {&this_thread, &everywhere}) {
    if (here->unheard > 0 || transforming()) continue;
    for_each_listener(*here, [&](const std::shared_ptr<Listener>& listener, Nesting&) {
      try {
        const InListener unseen;
        listener->tapped(name, tensor);
      } catch (const std::exception& error) {
        listener->failed(fmt::format("tap '{}'", name), plain_message(error));
      }
    });
  }
}

Unseen::Unseen() : before_(at::isRecordFunctionEnabled()) { at::enableRecordFunction(false); }
Unseen::~Unseen() { at::enableRecordFunction(before_); }

}  // namespace hooks

SuspendRecording::SuspendRecording() { ++hooks::suspended; }
SuspendRecording::~SuspendRecording() { --hooks::suspended; }

}  // namespace dds
