// The plugin's one symbol, and what it tells the preload object.
#include <pthread.h>
#include <torch/csrc/autograd/function.h>

#include <cstdlib>
#include <exception>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "hooks/ranges.hpp"
#include "src/attach/interface.hpp"
#include "src/attach/session.hpp"
#include "src/attach/settings.hpp"

namespace dds::attach {
namespace {

Session* session = nullptr;  // never destroyed: other threads may still run when the process ends

struct Pass {
  Pass(const void* roots, const void* outputs, bool create_graph) {
    using Edges = std::vector<torch::autograd::Edge>;
    session->backward_starts(*static_cast<const Edges*>(roots), *static_cast<const Edges*>(outputs), create_graph);
  }
  ~Pass() { session->backward_ends(); }
  Pass(const Pass&) = delete;
  Pass& operator=(const Pass&) = delete;
};

Gradients execute(Execute real, void* engine, const void* roots, const void* inputs, bool keep_graph, bool create_graph,
                  bool accumulate_grad, const void* outputs) {
  const Pass pass(roots, outputs, create_graph);
  return real(engine, roots, inputs, keep_graph, create_graph, accumulate_grad, outputs);
}

void module(const void* address) { session->module(address); }
void met(const void* address) { session->met(address); }
void optimiser(bool begins) { session->optimiser(begins); }

/// PyTorch's optimisers name the range of their step, those of a program's own too: "Optimizer.step#Adam.step". LBFGS
/// is not told of: its step has several passes in it.
void range(std::string_view name, bool begins) {
  if (name.starts_with("Optimizer.step#") && name.find("LBFGS") == std::string_view::npos) session->optimiser(begins);
}

}  // namespace
}  // namespace dds::attach

extern "C" __attribute__((visibility("default"))) const dds::attach::Plugin* dds_attach_start(const char* settings,
                                                                                              const char** error) {
  using namespace dds::attach;
  static const Plugin plugin{execute, module, met, optimiser};
  try {
    session = new Session(Settings::parse(settings));
    dds::hooks::tell_of_ranges(range);
    pthread_atfork(
        nullptr, [] { session->forks(); }, [] { session->forked(); });
    // On a thread of its own: what is local to this one has been destroyed by then, LibTorch's part of it too.
    std::atexit([] {
      try {
        if (!session->gone()) std::thread([] { session->finish(); }).join();
      } catch (const std::exception&) {
        // No thread could be had: the last step is not read.
      }
    });
    return &plugin;
  } catch (const std::exception& failure) {
    static std::string message;
    message = failure.what();
    *error = message.c_str();
    return nullptr;
  }
}
