// The object that LD_PRELOAD names. It links nothing but the C library, for it is loaded into whatever program is
// started, and waits: once LibTorch is in the process, it loads the plugin, the library itself, which was built for
// that LibTorch. LibTorch is met
//   - where `main` begins, if the program is linked to it,
//   - where Python has imported it (initModule),
//   - at the latest where a torch::nn::Module is made or a backward pass begins,
// by defining functions of theirs before they do. dlopen is not among them: it looks at who calls it.
//
// No function here may need the C++ library; exceptions pass through by the frames' tables.
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "src/attach/interface.hpp"
#include "src/attach/names.hpp"

// The functions of LibTorch by their names in the object files: torch::autograd::Engine::execute,
// torch::nn::Module::register_parameter, and the constructors of Module, as a base (C2) and as a whole (C1).
#define DDS_EXECUTE "_ZN5torch8autograd6Engine7executeERKSt6vectorINS0_4EdgeESaIS3_EERKS2_IN2at6TensorESaIS9_EEbbbS7_"
#define DDS_REGISTER_PARAMETER \
  "_ZN5torch2nn6Module18register_parameterENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEN2at6TensorEb"
#define DDS_MODULE(kind, arguments) "_ZN5torch2nn6Module" kind arguments
#define DDS_PARAMETERS "_ZNK5torch2nn6Module10parametersEb"
#define DDS_NAMED_PARAMETERS "_ZNK5torch2nn6Module16named_parametersB5cxx11Eb"
#define DDS_OPTIMISER(name) "_ZN5torch5optim" name "4stepESt8functionIFN2at6TensorEvEE"
#define DDS_NAMED "ENSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"

namespace {

using dds::attach::Execute;
using dds::attach::Gradients;
using dds::attach::kEscape;
using dds::attach::kPluginObject;
using dds::attach::kSeparator;
using dds::attach::kTorchLibrary;
using dds::attach::Plugin;
using dds::attach::Start;

struct Search {
  const char* name;
  char path[4096];
};

int matches(dl_phdr_info* info, size_t, void* data) {
  auto* search = static_cast<Search*>(data);
  const char* slash = strrchr(info->dlpi_name, '/');
  const char* file = slash ? slash + 1 : info->dlpi_name;
  if (strncmp(file, search->name, strlen(search->name)) != 0) return 0;
  snprintf(search->path, sizeof search->path, "%s", info->dlpi_name);
  return 1;
}

/// The library that is in the process under this name, or null. It need not be visible to all: Python's is not.
void* loaded(const char* name, char* path = nullptr) {
  Search search{name, ""};
  if (dl_iterate_phdr(matches, &search) == 0) return nullptr;
  if (path) strcpy(path, search.path);
  return dlopen(search.path, RTLD_LAZY | RTLD_NOLOAD);
}

/// LibTorch's own function. Whoever calls one of those below has it, under whatever name the library goes.
void* real(const char* name) {
  void* handle = loaded(kTorchLibrary);
  void* function = handle ? dlsym(handle, name) : nullptr;
  return function ? function : dlsym(RTLD_NEXT, name);
}

/// A function of this name of whoever called from `place`.
void* callers(const char* name, void* place, const void* not_this) {
  Dl_info caller;
  void* handle = dladdr(place, &caller) != 0 ? dlopen(caller.dli_fname, RTLD_LAZY | RTLD_NOLOAD) : nullptr;
  void* function = handle ? dlsym(handle, name) : nullptr;
  return function && function != not_this ? function : dlsym(RTLD_NEXT, name);
}

/// The value of `key` in the text of settings, without its escapes; false if there is none.
bool setting(const char* settings, const char* key, char* value, size_t size) {
  const size_t length = strlen(key);
  const char* at = settings;
  while (at && *at) {
    const bool found = strncmp(at, key, length) == 0 && at[length] == '=';
    if (found) at += length + 1;
    size_t used = 0;
    for (; *at && *at != kSeparator; ++at) {
      if (*at == kEscape && at[1]) ++at;
      if (found && used + 1 < size) value[used++] = *at;
    }
    if (found) {
      value[used] = '\0';
      return true;
    }
    if (*at == kSeparator) ++at;
  }
  return false;
}

/// The number after "#define NAME " in a text, or -1.
int defined_number(const char* text, const char* name) {
  const char* at = strstr(text, name);
  return at ? atoi(at + strlen(name)) : -1;
}

/// The version of the LibTorch at `path` by its headers: "2.15.0". False where they are not to be found.
bool version_of(const char* path, char* version, size_t size) {
  static const char* const headers[] = {"include/torch/headeronly/version.h", "include/torch/version.h",
                                        "include/torch/csrc/api/include/torch/version.h"};
  char folder[4096];
  snprintf(folder, sizeof folder, "%s", path);
  for (char* slash = strrchr(folder, '/'); slash && slash != folder; slash = strrchr(folder, '/')) {
    *slash = '\0';
    for (const char* header : headers) {
      char file[4400], text[4096] = "";
      snprintf(file, sizeof file, "%s/%s", folder, header);
      FILE* stream = fopen(file, "re");
      if (!stream) continue;
      text[fread(text, 1, sizeof text - 1, stream)] = '\0';
      fclose(stream);
      const int major = defined_number(text, "#define TORCH_VERSION_MAJOR");
      const int minor = defined_number(text, "#define TORCH_VERSION_MINOR");
      const int patch = defined_number(text, "#define TORCH_VERSION_PATCH");
      if (major < 0 || minor < 0 || patch < 0) continue;
      snprintf(version, size, "%d.%d.%d", major, minor, patch);
      return true;
    }
  }
  return false;
}

void complain(const char* what) { fprintf(stderr, "dds: attach: %s; the command runs as if without it\n", what); }

const Plugin* load(const char* settings) {
  char torch[4096], wanted[4096], path[4096] = "";
  if (!loaded(kTorchLibrary, torch)) return nullptr;
  if (setting(settings, dds::attach::key::kTorch, wanted, sizeof wanted)) {
    char* there = realpath(torch, nullptr);
    const bool other = !there || strcmp(there, wanted) != 0;
    free(there);
    if (other) return nullptr;  // a child that runs on another LibTorch
  }
  if (setting(settings, dds::attach::key::kVersion, wanted, sizeof wanted)) {
    char* there = realpath(torch, nullptr);
    char version[64] = "of an unknown version", why[9000];
    const bool right = there && version_of(there, version, sizeof version) && strcmp(version, wanted) == 0;
    snprintf(why, sizeof why, "LibTorch %s, %s, is not %s: name it with --torch DIR", there ? there : torch, version,
             wanted);
    free(there);
    if (!right) {
      complain(why);
      return nullptr;
    }
  }
  if (!setting(settings, dds::attach::key::kPlugin, path, sizeof path)) {  // it lies beside this object
    Dl_info own;
    if (dladdr(reinterpret_cast<void*>(&load), &own) == 0) return nullptr;
    const char* slash = strrchr(own.dli_fname, '/');
    const int folder = slash ? static_cast<int>(slash - own.dli_fname) : 0;
    snprintf(path, sizeof path, "%.*s/%s", folder, own.dli_fname, kPluginObject);
  }
  void* plugin = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  const auto start = plugin ? reinterpret_cast<Start>(dlsym(plugin, dds::attach::kStart)) : nullptr;
  if (!start) {
    complain(dlerror());
    return nullptr;
  }
  const char* error = "";
  const Plugin* started = start(settings, &error);
  if (!started) complain(error);
  return started;
}

bool started = false;  // the plugin was, in this process

/// The command's own process ends without LibTorch, and what it started has left no log.
__attribute__((destructor)) void say_why_no_log() {
  static bool said = false;
  const char* settings = getenv(dds::attach::kVariable);
  char text[4096];
  if (!settings || started || said || setting(settings, dds::attach::key::kQuiet, text, sizeof text) ||
      setting(settings, dds::attach::key::kList, text, sizeof text) ||
      !setting(settings, dds::attach::key::kProcess, text, sizeof text) || atoi(text) != getpid() ||
      !setting(settings, dds::attach::key::kOut, text, sizeof text) || access(text, F_OK) == 0)
    return;
  said = true;
  fprintf(stderr, "dds: attach: no log: %s\n",
          loaded(kTorchLibrary) ? "LibTorch was loaded, and never met" : "no LibTorch was loaded");
}

/// The plugin, loaded at the first call at which LibTorch is there; null without one.
const Plugin* plugin() {
  enum { kWaiting, kLoading, kDone };
  static int state = kWaiting;
  static const Plugin* found = nullptr;
  if (__atomic_load_n(&state, __ATOMIC_ACQUIRE) == kDone) return found;
  const char* settings = getenv(dds::attach::kVariable);
  int waiting = kWaiting;
  if (!settings || !loaded(kTorchLibrary) ||
      !__atomic_compare_exchange_n(&state, &waiting, kLoading, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
    return nullptr;
  }
  found = load(settings);
  started = found != nullptr;
  __atomic_store_n(&state, kDone, __ATOMIC_RELEASE);
  return found;
}

void tell_of_network(const void* module) {
  if (const Plugin* there = plugin()) there->met(module);
}

struct OptimiserRuns {
  OptimiserRuns() : there(plugin()) {
    if (there) there->optimiser(true);
  }
  ~OptimiserRuns() {
    if (there) there->optimiser(false);
  }
  OptimiserRuns(const OptimiserRuns&) = delete;
  OptimiserRuns& operator=(const OptimiserRuns&) = delete;
  const Plugin* there;
};

void tell_of_module(const void* module) {
  if (const Plugin* there = plugin()) there->module(module);
}

using Main = int (*)(int, char**, char**);
Main program_main = nullptr;

int main_with_plugin(int argc, char** argv, char** environment) {
  plugin();
  const int status = program_main(argc, argv, environment);
  say_why_no_log();  // programs close their standard error in what runs at exit
  return status;
}

}  // namespace

// ---- what is defined before LibTorch, Python's part of it and the C library do ----

#define DDS_SEEN __attribute__((visibility("default")))

// torch::autograd::Engine::execute
DDS_SEEN Gradients dds_execute(void* engine, const void* roots, const void* inputs, bool keep_graph, bool create_graph,
                               bool accumulate_grad, const void* outputs) __asm__(DDS_EXECUTE);
Gradients dds_execute(void* engine, const void* roots, const void* inputs, bool keep_graph, bool create_graph,
                      bool accumulate_grad, const void* outputs) {
  static const auto execute = reinterpret_cast<Execute>(real(DDS_EXECUTE));
  if (const Plugin* there = plugin()) {
    return there->execute(execute, engine, roots, inputs, keep_graph, create_graph, accumulate_grad, outputs);
  }
  return execute(engine, roots, inputs, keep_graph, create_graph, accumulate_grad, outputs);
}

extern "C" {

// torch::nn::Module::Module(), as a base and as a whole object
DDS_SEEN void dds_module_base(void* module) __asm__(DDS_MODULE("C2", "Ev"));
DDS_SEEN void dds_module(void* module) __asm__(DDS_MODULE("C1", "Ev"));
void dds_module_base(void* module) {
  static const auto construct = reinterpret_cast<void (*)(void*)>(real(DDS_MODULE("C2", "Ev")));
  construct(module);
  tell_of_module(module);
}
void dds_module(void* module) { dds_module_base(module); }

// torch::nn::Module::Module(std::string)
DDS_SEEN void dds_named_module_base(void* module, void* name) __asm__(DDS_MODULE("C2", DDS_NAMED));
DDS_SEEN void dds_named_module(void* module, void* name) __asm__(DDS_MODULE("C1", DDS_NAMED));
void dds_named_module_base(void* module, void* name) {
  static const auto construct = reinterpret_cast<void (*)(void*, void*)>(real(DDS_MODULE("C2", DDS_NAMED)));
  construct(module, name);
  tell_of_module(module);
}
void dds_named_module(void* module, void* name) { dds_named_module_base(module, name); }

// torch::nn::Module::register_parameter: copies of modules have no constructor that could be met
DDS_SEEN void* dds_register_parameter(void* module, void* name, void* tensor,
                                      bool requires_grad) __asm__(DDS_REGISTER_PARAMETER);
void* dds_register_parameter(void* module, void* name, void* tensor, bool requires_grad) {
  static const auto add = reinterpret_cast<void* (*)(void*, void*, void*, bool)>(real(DDS_REGISTER_PARAMETER));
  void* parameter = add(module, name, tensor, requires_grad);
  tell_of_module(module);
  return parameter;
}

// torch::nn::Module::parameters(recurse) and named_parameters(recurse): what is returned by value lies in memory of the
// caller's, whose address comes first and is returned
DDS_SEEN void* dds_parameters(void* result, const void* module, bool recurse) __asm__(DDS_PARAMETERS);
void* dds_parameters(void* result, const void* module, bool recurse) {
  static const auto ask = reinterpret_cast<void* (*)(void*, const void*, bool)>(real(DDS_PARAMETERS));
  tell_of_network(module);
  return ask(result, module, recurse);
}
DDS_SEEN void* dds_named_parameters(void* result, const void* module, bool recurse) __asm__(DDS_NAMED_PARAMETERS);
void* dds_named_parameters(void* result, const void* module, bool recurse) {
  static const auto ask = reinterpret_cast<void* (*)(void*, const void*, bool)>(real(DDS_NAMED_PARAMETERS));
  tell_of_network(module);
  return ask(result, module, recurse);
}
// torch::optim::SGD::step(closure) and those of the others: a tensor is returned by value, the closure lies in memory
// of the caller's. The tables of virtual functions have these too. LBFGS has several passes in a step, and is not met.
#define DDS_MEET_OPTIMISER(number, name)                                                                      \
  DDS_SEEN void* dds_step##number(void* result, void* optimiser, void* closure) __asm__(DDS_OPTIMISER(name)); \
  void* dds_step##number(void* result, void* optimiser, void* closure) {                                      \
    static const auto step = reinterpret_cast<void* (*)(void*, void*, void*)>(real(DDS_OPTIMISER(name)));     \
    const OptimiserRuns runs;                                                                                 \
    return step(result, optimiser, closure);                                                                  \
  }
DDS_MEET_OPTIMISER(1, "3SGD")
DDS_MEET_OPTIMISER(2, "4Adam")
DDS_MEET_OPTIMISER(3, "5AdamW")
DDS_MEET_OPTIMISER(4, "7Adagrad")
DDS_MEET_OPTIMISER(5, "7RMSprop")
#undef DDS_MEET_OPTIMISER

// What `import torch` calls, once, when the libraries are there. Others may have a function of this name.
DDS_SEEN void* initModule() {
  using Init = void* (*)();
  constexpr const char* kName = "initModule";
  static bool imported = false;
  void* python = imported ? nullptr : loaded(dds::attach::kTorchPythonLibrary);
  if (!python) {
    return reinterpret_cast<Init>(callers(kName, __builtin_return_address(0), reinterpret_cast<void*>(&initModule)))();
  }
  imported = true;
  void* module = reinterpret_cast<Init>(dlsym(python, kName))();
  if (module) plugin();
  return module;
}

DDS_SEEN int __libc_start_main(Main main, int argc, char** argv, void (*init)(), void (*fini)(), void (*loader_fini)(),
                               void* stack_end) {
  using StartMain = int (*)(Main, int, char**, void (*)(), void (*)(), void (*)(), void*);
  const auto start = reinterpret_cast<StartMain>(dlsym(RTLD_NEXT, "__libc_start_main"));
  program_main = main;
  return start(main_with_plugin, argc, argv, init, fini, loader_fini, stack_end);
}

}  // extern "C"
