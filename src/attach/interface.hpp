// What the preload object and the plugin know of each other: addresses and plain functions. Neither LibTorch nor the
// C++ library stands behind anything here.
#pragma once

namespace dds::attach {

/// A std::vector<at::Tensor> to whoever only passes it on: an object that is returned in memory of the caller's.
struct Gradients {
  Gradients(Gradients&&);
  ~Gradients();
  void* parts[3];
};

/// torch::autograd::Engine::execute(roots, inputs, keep_graph, create_graph, accumulate_grad, outputs).
using Execute = Gradients (*)(void* engine, const void* roots, const void* inputs, bool keep_graph, bool create_graph,
                              bool accumulate_grad, const void* outputs);

/// What the plugin wants to be told.
struct Plugin {
  /// Calls `real` with the rest.
  Gradients (*execute)(Execute real, void* engine, const void* roots, const void* inputs, bool keep_graph,
                       bool create_graph, bool accumulate_grad, const void* outputs);
  /// A torch::nn::Module was made, or got a parameter.
  void (*module)(const void* module);
  /// The program asks a torch::nn::Module for what it has.
  void (*met)(const void* module);
  /// The step of an optimiser of torch::optim begins or ends on this thread.
  void (*optimiser)(bool begins);
};

/// The plugin's one symbol, called once, with the text of the settings. Null, if it cannot run; then `error` says why.
using Start = const Plugin* (*)(const char* settings, const char** error);
inline constexpr const char* kStart = "dds_attach_start";

}  // namespace dds::attach
