// The plugin's one symbol, and what it tells the preload object.
#include <pthread.h>

#include <cstdlib>
#include <exception>
#include <string>
#include <thread>

#include "src/attach/interface.hpp"
#include "src/attach/session.hpp"
#include "src/attach/settings.hpp"

namespace dds::attach {
namespace {

Session* session = nullptr;  // never destroyed: other threads may still run when the process ends

struct Pass {
  Pass() { session->backward_starts(); }
  ~Pass() { session->backward_ends(); }
  Pass(const Pass&) = delete;
  Pass& operator=(const Pass&) = delete;
};

Gradients execute(Execute real, void* engine, const void* roots, const void* inputs, bool keep_graph, bool create_graph,
                  bool accumulate_grad, const void* outputs) {
  const Pass pass;
  return real(engine, roots, inputs, keep_graph, create_graph, accumulate_grad, outputs);
}

void module(const void* address) { session->module(address); }

}  // namespace
}  // namespace dds::attach

extern "C" __attribute__((visibility("default"))) const dds::attach::Plugin* dds_attach_start(const char* settings,
                                                                                              const char** error) {
  using namespace dds::attach;
  static const Plugin plugin{execute, module};
  try {
    session = new Session(Settings::parse(settings));
    pthread_atfork(nullptr, nullptr, [] { session->forked(); });
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
