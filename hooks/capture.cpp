// What a recorder keeps of one call.
#include <c10/core/GradMode.h>

#include <algorithm>

#include "hooks/arguments.hpp"
#include "hooks/captured_access.hpp"
#include "hooks/captured_operator.hpp"
#include "hooks/features.hpp"
#include "hooks/rank_bounds.hpp"
#include "hooks/recorder_state.hpp"
#include "hooks/surroundings.hpp"

namespace dds {
namespace {

using hooks::Arguments;
using hooks::CapturedAccess;

/// The value with keep(tensor) in place of each of its tensors.
template <class Keep>
c10::IValue kept_value(const c10::IValue& value, const Keep& keep) {
  if (value.isTensor() && value.toTensor().defined()) return keep(value.toTensor());
  if (!value.isTensorList()) return value;
  c10::List<at::Tensor> tensors;
  for (const at::Tensor& tensor : value.toTensorVector()) tensors.push_back(keep(tensor));
  return tensors;
}

/// The weight of a run with its history. Where an operator takes the transpose, the run has one without.
at::Tensor weight_with_history(const hooks::LayerRun& run, const hooks::Operator& entry, hooks::Arguments args) {
  const auto* product = entry.as<hooks::kind::Product>();
  if (!product || !product->transposed) return run.weight;
  const at::AutoGradMode grad(true);
  const at::Tensor given = hooks::tensor_at(args, product->right);
  return given.dim() == 2 ? given.t() : given;
}

/// As CapturedOperator::listed.
std::vector<std::int64_t> places_of(const std::vector<at::Tensor>& operands, const std::vector<at::Tensor>& inputs) {
  std::vector<std::int64_t> places;
  for (const at::Tensor& operand : operands) {
    const auto place =
        std::find_if(inputs.begin(), inputs.end(), [&](const at::Tensor& input) { return input.is_same(operand); });
    places.push_back(place == inputs.end() ? -1 : place - inputs.begin());
  }
  return places;
}

}  // namespace

/// With the graph kept, its edges serve instead of a hook.
std::shared_ptr<hooks::GradientSlot> RecorderState::gradient_slot(const at::Tensor& output) const {
  return options_.graph ? std::make_shared<hooks::GradientSlot>() : hooks::GradientSlot::of(output, trained_);
}

hooks::CallId RecorderState::capture(hooks::SiteId site, const hooks::LayerRun& run, std::string_view op,
                                     const at::Tensor& output) {
  CapturedCall call;
  call.op = op;
  call.output_features = hooks::from_front(run.output_features, output.dim());
  if (!run.inputs.empty() && run.inputs.front().is_floating_point()) {
    call.input_features = hooks::from_front(run.input_features, run.inputs.front().dim());
  }
  call.expanded = run.positions || output.dim() - static_cast<std::int64_t>(call.output_features.size()) > 1;
  call.coupled = run.coupled;
  call.wants_gradient = output.requires_grad();
  call.order = next_order_++;
  call.inputs.resize(run.inputs.size());
  for (std::size_t i = 0; i < run.inputs.size(); ++i) CapturedAccess::set_input(call, i, run.inputs[i].detach());
  CapturedAccess::set_gradient(call, gradient_slot(output));

  around_.push_back(hooks::around_run(run, op));
  outputs_.push_back(graph_.find(output));
  inputs_.push_back(run.inputs.empty() ? std::nullopt : graph_.find(run.inputs.front()));
  const hooks::CallId id = calls_.add(site, std::move(call), output);
  ties_.call_ends(output, hooks::recomputing());
  for (const at::Tensor& input : run.inputs) copies_.hold(id, input);
  copies_.hold(id, output);
  return id;
}

std::shared_ptr<hooks::CapturedOperator> RecorderState::kept_operator(Run& run, const Outputs& outputs) {
  auto op = std::make_shared<hooks::CapturedOperator>();
  if (follows_axes() && outputs.front().isTensor()) {
    op->axes = axes_.shared();
    op->beside = beside_;
    op->output_axes = axes_.axes_of(outputs.front().toTensor());
  }
  op->entry = run.entry;
  op->weight = options_.graph
                   ? weight_with_history(run.layer, *run.entry, Arguments(run.arguments.data(), run.arguments.size()))
                   : run.layer.weight.detach();
  const auto keep = [&](const at::Tensor& tensor) {
    return options_.graph && weights_.layer_of(tensor) ? tensor : tensor.detach();
  };
  for (const c10::IValue& value : run.arguments) op->arguments.push_back(kept_value(value, keep));
  if (run.entry->as<hooks::kind::Einsum>()) {
    op->listed = places_of(run.arguments[1].toTensorVector(), run.layer.inputs);
  }
  const auto* recurrent = run.entry->as<hooks::kind::Recurrent>();
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].isTensor() || (i > 0 && !recurrent)) continue;
    const at::Tensor output = outputs[i].toTensor();
    if (options_.graph) op->edges.push_back(torch::autograd::impl::gradient_edge(output));
    if (i == 0) continue;
    const bool lstm_cell = recurrent->one_step && recurrent->cell == hooks::kind::Recurrent::Cell::Lstm;
    op->output_from_states = lstm_cell && output.grad_fn() != outputs[0].toTensor().grad_fn();
    CapturedCall& state = op->states.emplace_back();
    state.output = output.detach();
    CapturedAccess::set_gradient(state, gradient_slot(output));
  }
  return op;
}

/// What stands around each layer, in all of its calls alike.
void RecorderState::look_around(std::vector<CapturedLayer>& layers,
                                const std::vector<std::vector<hooks::CallId>>& calls) {
  hooks::SurroundingsFinder finder(graph_);
  std::multimap<hooks::NodeId, std::size_t> made_of;  // outputs of layers
  const auto for_each_call = [&](const auto& look) {
    for (std::size_t i = 0; i < calls.size(); ++i) {
      for (std::size_t k = 0; k < calls[i].size(); ++k) look(i, calls[i][k], layers[i].calls[k]);
    }
  };
  for_each_call([&](std::size_t i, hooks::CallId id, const CapturedCall&) {
    if (inputs_[id]) finder.add_input(*inputs_[id], layers[i].layer);
    if (outputs_[id]) made_of.emplace(*outputs_[id], i);
  });
  for_each_call([&](std::size_t i, hooks::CallId id, const CapturedCall& call) {
    Surroundings& around = around_[id];
    if (outputs_[id] && call.output_features.size() == 1) {
      finder.look_ahead(*outputs_[id], static_cast<int>(call.output_features.front()), around);
    }
    if (inputs_[id] && call.input_features.size() == 1) {
      const hooks::NodeId from = finder.look_back(*inputs_[id], static_cast<int>(call.input_features.front()), around);
      const auto made = made_of.find(from);
      if (made != made_of.end() && made_of.count(from) == 1) around.input_of = layers[made->second].layer;
    }
    if (id == calls[i].front()) {
      layers[i].around = around;
    } else {
      hooks::keep_common(layers[i].around, around);
    }
  });
}

/// Every call's rows together have the bounds of the graph; those of calls that it lacks are not known.
void RecorderState::bound_ranks(std::vector<CapturedLayer>& layers,
                                const std::vector<std::vector<hooks::CallId>>& calls) {
  const hooks::Unseen unseen;
  const at::NoGradGuard no_grad;
  std::vector<hooks::NodeId> reached;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    for (std::size_t k = 0; k < calls[i].size(); ++k) {
      const CapturedCall& call = layers[i].calls[k];
      const auto output = outputs_[calls[i][k]], input = inputs_[calls[i][k]];
      if (output && call.backwards() > 0) reached.push_back(*output);
      if (output) graph_.give_tokens(*output, call.inputs);
      if (input && call.input_features.size() == 1)
        graph_.give_data(*input, call.inputs.front(), call.input_features.front());
    }
  }
  hooks::RankBounds bounds(std::move(graph_), reached);
  const auto nodes = [&](std::size_t i, const std::vector<std::optional<hooks::NodeId>>& of) {
    std::vector<hooks::NodeId> stack;
    for (const hooks::CallId id : calls[i]) {
      if (of[id]) stack.push_back(*of[id]);
    }
    return stack.size() == calls[i].size() ? stack : std::vector<hooks::NodeId>();
  };
  // Values from the first layer on and gradients from the last: each finds what it follows from.
  for (std::size_t i = 0; i < calls.size(); ++i) {
    if (layers[i].calls.empty()) continue;
    const CapturedCall& call = layers[i].calls.front();
    if (!call.input_features.empty()) layers[i].input_bound = bounds.of_values(nodes(i, inputs_), call.input_features);
    layers[i].output_bound = bounds.of_values(nodes(i, outputs_), call.output_features);
  }
  for (std::size_t i = calls.size(); i-- > 0;) {
    if (layers[i].calls.empty()) continue;
    layers[i].gradient_bound = bounds.of_gradients(nodes(i, outputs_), layers[i].calls.front().output_features);
  }
}

}  // namespace dds
