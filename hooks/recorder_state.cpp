#include "hooks/recorder_state.hpp"

#include <ATen/ops/add.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <dds/error.hpp>
#include <utility>

#include "hooks/captured_operator.hpp"
#include "src/base/glob.hpp"

namespace dds {

using hooks::Family;
using hooks::LayerRun;

std::shared_ptr<CapturedCall::GradientSlot> CapturedCall::GradientSlot::of(const at::Tensor& tensor) {
  auto slot = std::make_shared<GradientSlot>();
  if (tensor.requires_grad()) {
    tensor.register_hook([weak = std::weak_ptr(slot)](at::TensorBase gradient) {
      if (const auto kept = weak.lock()) kept->add(at::Tensor(std::move(gradient)));
    });
  }
  return slot;
}

void CapturedCall::GradientSlot::add(const at::Tensor& incoming) {
  if (!incoming.defined()) return;
  const hooks::Unseen unseen;
  const at::NoGradGuard no_grad;
  const std::lock_guard lock(mutex);
  gradient = gradient.defined() ? at::add(gradient, incoming) : incoming.detach();
  ++backwards;
}

std::shared_ptr<CapturedCall::GradientSlot> RecorderState::hook_gradient(const at::Tensor& output) const {
  // With the graph kept, its edges serve instead of a hook.
  return options_.graph ? std::make_shared<CapturedCall::GradientSlot>() : CapturedCall::GradientSlot::of(output);
}

std::int64_t width_of(const at::Tensor& tensor, const std::vector<std::int64_t>& features) {
  std::int64_t width = 1;
  for (const std::int64_t dim : features) width *= tensor.size(dim);
  return width;
}

namespace {

bool selected_by(const std::vector<std::string>& patterns, std::string_view name) {
  if (patterns.empty()) return true;
  return std::any_of(patterns.begin(), patterns.end(), [&](const std::string& p) { return glob_match(p, name); });
}

std::vector<std::int64_t> from_front(const std::vector<std::int64_t>& dims, std::int64_t rank) {
  std::vector<std::int64_t> result;
  for (const std::int64_t dim : dims) {
    const std::int64_t positive = dim < 0 ? dim + rank : dim;
    if (positive >= 0 && positive < rank) result.push_back(positive);
  }
  return result;
}

std::int64_t saturating_product(std::int64_t a, std::int64_t b) {
  return a != 0 && b > hooks::kUnbounded / a ? hooks::kUnbounded : a * b;
}

std::int64_t saturating_sum(std::int64_t a, std::int64_t b) {
  return b > hooks::kUnbounded - a ? hooks::kUnbounded : a + b;
}

/// True if a backward pass came through the output, or through a final state.
bool reached(const CapturedCall& captured) {
  if (captured.backwards() > 0) return true;
  const auto& op = captured.captured_operator();
  return op && std::any_of(op->states.begin(), op->states.end(), reached);
}

c10::IValue detached(const c10::IValue& value) {
  if (value.isTensor() && value.toTensor().defined()) return value.toTensor().detach();
  if (!value.isTensorList()) return value;
  c10::List<at::Tensor> tensors;
  for (const at::Tensor& tensor : value.toTensorVector()) tensors.push_back(tensor.detach());
  return tensors;
}

at::Tensor first_tensor(const std::vector<c10::IValue>& values) {
  for (const c10::IValue& value : values) {
    if (value.isTensor()) return value.toTensor();
  }
  return {};
}

}  // namespace

RecorderState::RecorderState(std::shared_ptr<hooks::ParameterSource> parameters, RecorderOptions options)
    : options_(std::move(options)), index_(parameters) {
  select_new_layers();
  if (parameters->grows()) return;
  std::vector<std::string> all;
  std::vector<bool> used(options_.layers.size(), false);
  for (const hooks::Layer& layer : index_.layers()) {
    all.push_back(layer.name);
    for (std::size_t i = 0; i < used.size(); ++i) {
      if (glob_match(options_.layers[i], layer.name)) used[i] = true;
    }
  }
  if (all.empty()) {
    throw InvalidArgument("Recorder: the model has no parameters, expected at least one layer that has some");
  }
  bool taps = false;
  for (std::size_t i = 0; i < used.size(); ++i) {
    const bool tap = options_.layers[i].starts_with("tap:");
    taps = taps || tap;
    if (!used[i] && !tap) {
      throw InvalidArgument(fmt::format("Recorder: the layer pattern '{}' matches none of the layers {}",
                                        options_.layers[i], fmt::join(all, ", ")));
    }
  }
  if (names_.empty() && !taps) {
    throw InvalidArgument(fmt::format("Recorder: the predicate selects none of the layers {}", fmt::join(all, ", ")));
  }
}

void RecorderState::select_new_layers() {
  for (; known_layers_ < index_.layers().size(); ++known_layers_) {
    hooks::Layer& layer = index_.layers()[known_layers_];
    layer.selected = selected_by(options_.layers, layer.name) && (!options_.select || options_.select(layer.name));
    if (layer.selected) names_.push_back(layer.name);
  }
}

void RecorderState::begin() {
  const std::lock_guard lock(mutex_);
  clear();
  index_.refresh();
  recording_ = true;
}

void RecorderState::end() {
  recording_ = false;
  const std::lock_guard lock(mutex_);
  // Identities are of no use any more, and what keeps them valid keeps whole graphs alive.
  outputs_.clear();
  activations_.clear();
  derived_.clear();
  viewed_.clear();
  keep_.clear();
}

void RecorderState::clear() {
  ++number_;
  sites_.clear();
  losses_.clear();
  errors_.clear();
  activations_.clear();
  derived_.clear();
  viewed_.clear();
  outputs_.clear();
  holders_.clear();
  keep_.clear();
  order_.clear();
  next_order_ = 0;
  uses_.clear();
}

void RecorderState::failed(std::string_view where, const char* what) {
  const std::lock_guard lock(mutex_);
  errors_.push_back(fmt::format("{}: {}", where, what));
}

// ---- reading an operator ----

/// The layer whose parameter, or computed weight, `tensor` is. Where several layers share it, the first whose kind
/// fits.
std::optional<std::size_t> RecorderState::layer_of(const at::Tensor& tensor, std::optional<Family> family) const {
  if (const hooks::Parameter* parameter = index_.find(tensor)) {
    for (const std::size_t layer : parameter->layers) {
      if (family && hooks::kind_fits(index_.layers()[layer].kind, *family)) return layer;
    }
    return parameter->layers.front();
  }
  const auto derived = derived_.find(hooks::storage_of(tensor));
  return derived == derived_.end() ? std::nullopt : std::optional(derived->second.layer);
}

/// True for a product of two weights that gives a weight (low-rank adapters): both raw, computed, or both of modules.
/// A raw parameter multiplied by a module's weight is an input to that module (learned queries).
bool RecorderState::is_weight_of_weights(const LayerRun& run) const {
  if (run.family != Family::Contraction) return false;
  const auto other = layer_of(run.inputs.front());
  if (!other) return false;
  const auto is_raw = [&](std::size_t layer) { return index_.layers()[layer].kind == "Raw"; };
  const auto weight = layer_of(run.weight, run.family);
  return !(is_raw(*other) && !is_raw(*weight));
}

/// A leaf that is no parameter may be one that has moved while it was recorded, or one that nobody knew of. The latter
/// counts from where an operator takes it, or a view of it, together with another tensor: what looks at a parameter
/// alone may be its initialisation, before it has a place in a network.
void RecorderState::follow_strange_leaves(c10::ArrayRef<const c10::IValue> args, bool grad_mode) {
  std::vector<at::Tensor> strange;
  int tensors = 0;
  hooks::for_each_tensor(args, [&](const at::Tensor& tensor) {
    ++tensors;
    if (!tensor.requires_grad() || index_.find(tensor)) return;
    const auto viewed = tensor.is_leaf() ? viewed_.end() : viewed_.find(hooks::storage_of(tensor));
    if (tensor.is_leaf() || viewed != viewed_.end()) strange.push_back(tensor.is_leaf() ? tensor : viewed->second);
  });
  if (strange.empty()) return;
  if (index_.moved()) index_.refresh();
  if (!grad_mode || !index_.grows()) return;
  for (const at::Tensor& leaf : strange) {
    if (tensors == 1) {
      viewed_.insert_or_assign(hooks::storage_of(leaf), leaf);
    } else if (!index_.find(leaf) && index_.adopt(leaf)) {
      select_new_layers();
    }
  }
}

/// The site of a run, made if this is its first; empty if its layer is not selected.
std::optional<std::size_t> RecorderState::match_site(const LayerRun& run) {
  const auto layer = layer_of(run.weight, run.family);
  if (!layer || !index_.layers()[*layer].selected) return std::nullopt;
  // Another family, another part of the parameter or the transposed matrix is another use of the weight.
  std::string role = fmt::format("{}", static_cast<int>(run.family));
  if (run.family == Family::Contraction) {
    role += fmt::format(" {} [{}]", run.weight.storage_offset(), fmt::join(run.weight.strides().vec(), ","));
  }
  return site_for(layer, index_.layers()[*layer].name, index_.layers()[*layer].kind, role);
}

std::size_t RecorderState::site_for(std::optional<std::size_t> layer, const std::string& name, const std::string& kind,
                                    const std::string& role) {
  std::size_t uses = 0;
  for (std::size_t i = 0; i < sites_.size(); ++i) {
    if (sites_[i].layer != layer || (!layer && sites_[i].captured.layer != name)) continue;
    if (sites_[i].role == role) return i;
    ++uses;
  }
  Site site;
  site.captured.layer = uses == 0 ? name : fmt::format("{}#{}", name, uses + 1);
  site.captured.kind = kind;
  site.layer = layer;
  site.role = role;
  sites_.push_back(std::move(site));
  return sites_.size() - 1;
}

/// An operator all of whose floating operands are weights gives a weight (normalised, low-rank); so does one that
/// combines a weight with a constant of its shape (masked).
void RecorderState::note_derivation(c10::ArrayRef<const c10::IValue> args, Note& note) {
  std::optional<std::size_t> owner;
  at::Tensor largest;
  bool constants = false, others = false;
  hooks::for_each_tensor(args, [&](const at::Tensor& tensor) {
    if (const auto layer = layer_of(tensor)) {
      if (!owner) owner = layer;
      if (!largest.defined() || tensor.numel() > largest.numel()) largest = tensor;
    } else if (tensor.requires_grad()) {
      others = true;
    } else if (tensor.is_floating_point() && tensor.dim() > 0) {
      constants = true;
    }
  });
  if (!owner || others) return;
  note.derives = true;
  note.owner = *owner;
  if (constants) {
    note.like = largest;  // and what runs inside may be a layer, with the constant as its input
  } else {
    note.outermost = true;
  }
}

/// Product, then `add` of a parameter as long as the product's features: the layer's bias.
std::optional<RecorderState::CallId> RecorderState::bias_follows(std::string_view name,
                                                                 c10::ArrayRef<const c10::IValue> args) const {
  if (!hooks::is_addition(name) || args.size() < 2 || !args[0].isTensor() || !args[1].isTensor()) return std::nullopt;
  for (const auto& [product, bias] :
       {std::pair{args[0].toTensor(), args[1].toTensor()}, {args[1].toTensor(), args[0].toTensor()}}) {
    const auto known = outputs_.find(product.unsafeGetTensorImpl());
    if (known == outputs_.end() || !index_.find(bias) || bias.dim() != 1) continue;
    const CapturedCall& before = call(known->second);
    if (before.op.find("mm") == std::string::npos && before.op.find("matmul") == std::string::npos &&
        before.op.find("linear") == std::string::npos && before.op.find("einsum") == std::string::npos) {
      continue;
    }
    if (bias.numel() == before.output.size(-1)) return known->second;
  }
  return std::nullopt;
}

void RecorderState::note_consumers(std::string_view name, c10::ArrayRef<const c10::IValue> args, const Note& note) {
  if (outputs_.empty()) return;
  hooks::for_each_tensor(args, [&](const at::Tensor& tensor) {
    const auto known = outputs_.find(tensor.unsafeGetTensorImpl());
    if (known == outputs_.end() || note.biased == known->second || name == "aten::detach") return;
    Consumers& consumers = sites_[known->second.first].consumers[known->second.second];
    const std::vector<std::int64_t>& features = call(known->second).output_features;
    if (note.run && note.run->family == Family::Contraction && note.run->inputs.front().is_same(tensor) &&
        from_front(note.run->input_features, tensor.dim()) == features) {
      consumers.products.emplace_back(note.site, sites_[note.site].captured.calls.size());
    } else if (hooks::is_softmax(name, args) && features == std::vector<std::int64_t>{tensor.dim() - 1}) {
      consumers.softmax = true;
    } else {
      consumers.others = true;
    }
  });
}

/// Copy on write: an operator is about to overwrite `target` in place, which calls may hold.
void RecorderState::save_before_write(const at::Tensor& target, const std::optional<CallId>& except) {
  const void* storage = hooks::storage_of(target);
  const auto holders = holders_.find(storage);
  if (!storage || holders == holders_.end()) return;
  for (const CallId& id : std::exchange(holders->second, {})) {
    CapturedCall& held = call(id);
    if (hooks::storage_of(held.output) == storage) {
      if (except == id) {
        holders->second.push_back(id);
      } else {
        held.output = held.output.clone();
        held.output_version_ = hooks::version_of(held.output);
      }
    }
    for (std::size_t i = 0; i < held.inputs.size(); ++i) {
      if (hooks::storage_of(held.inputs[i]) != storage) continue;
      held.inputs[i] = held.inputs[i].clone();
      if (i == 0) held.input_version_ = hooks::version_of(held.inputs[i]);
    }
  }
}

std::unique_ptr<hooks::OperatorNote> RecorderState::operator_starts(std::string_view name,
                                                                    c10::ArrayRef<const c10::IValue> args,
                                                                    bool grad_mode, hooks::Nesting& nesting) {
  if (nesting.inside > 0) return nullptr;
  const std::lock_guard lock(mutex_);
  follow_strange_leaves(args, grad_mode);
  Note note;
  note.recording = number_;
  note.biased = bias_follows(name, args);
  if (note.biased) note.bias = index_.find(args[0].toTensor()) ? args[0].toTensor() : args[1].toTensor();
  if (hooks::is_in_place(name) && !args.empty()) {
    hooks::for_each_tensor(args.slice(0, 1), [&](const at::Tensor& target) { save_before_write(target, note.biased); });
  }
  if (!grad_mode) return without_grad_mode(name, args, nesting);

  note.run = hooks::match_layer(name, args, [this](const at::Tensor& t) { return layer_of(t).has_value(); });
  if (note.run && is_weight_of_weights(*note.run)) note.run.reset();
  const auto family = note.run ? std::optional(note.run->family) : std::nullopt;
  if (note.run) {
    const auto site = match_site(*note.run);
    note.outermost = true;
    if (site) {
      note.site = *site;
      note.layer = sites_[*site].captured.layer;
      if (options_.operators) note.arguments.assign(args.begin(), args.end());
    } else {
      note.run.reset();
    }
  } else if ((note.loss = hooks::match_loss(name, args))) {
    note.outermost = true;
  } else if (!note.biased) {
    note_derivation(args, note);
  }
  if (!note.derives) note.activation = hooks::match_activation(name, args);
  attribute(name, args, family, note);
  note_consumers(name, args, note);
  if (hooks::is_in_place(name) && !note.biased && !args.empty()) {
    // The tensor goes on to live as something else than the layer's output.
    hooks::for_each_tensor(args.slice(0, 1),
                           [&](const at::Tensor& target) { outputs_.erase(target.unsafeGetTensorImpl()); });
  }
  if (!note.wants_end()) return nullptr;
  if (note.outermost) ++nesting.inside;
  return std::make_unique<Note>(std::move(note));
}

void RecorderState::operator_ends(std::string_view name, hooks::OperatorNote& left,
                                  const std::vector<c10::IValue>& outputs, hooks::Nesting& nesting) {
  auto& note = static_cast<Note&>(left);
  if (note.outermost) --nesting.inside;
  const at::Tensor output = first_tensor(outputs);
  if (!output.defined()) return;  // the operator threw
  if (note.run && options_.on_call) options_.on_call(note.layer);
  const std::lock_guard lock(mutex_);
  if (!recording_ || note.recording != number_) return;
  if (note.run) {
    const CallId id = capture(note.site, *note.run, name, output);
    if (options_.operators) keep_operator(id, name, note, outputs);
  }
  if (note.biased) {
    extend_by_bias(*note.biased, output);
    if (const auto& op = call(*note.biased).operator_) op->bias = note.bias.detach();
  }
  if (note.loss) capture_loss(*note.loss, name, output);
  if (note.activation) {
    activations_.insert_or_assign(output.unsafeGetTensorImpl(),
                                  Activation{Activation::Weak(output.getIntrusivePtr()),
                                             Activation::Weak(note.activation->input.getIntrusivePtr()),
                                             note.activation->difference, note.activation->classes});
  }
  if (note.derives) {
    auto outcome = Attribution::Outcome::NotCaptured;
    for (const c10::IValue& value : outputs) {
      if (!value.isTensor() || !value.toTensor().defined()) continue;
      const at::Tensor& tensor = value.toTensor();
      const void* storage = hooks::storage_of(tensor);
      const bool known = index_.find(tensor) || derived_.count(storage) > 0;
      if (known) outcome = Attribution::Outcome::View;
      if (!storage || !tensor.requires_grad() || known) continue;
      if (note.like.defined() && tensor.sizes() != note.like.sizes()) continue;
      derived_.try_emplace(storage, Derived{note.owner, tensor});
      outcome = Attribution::Outcome::Weight;
    }
    for (const std::size_t layer : note.uses) count(layer, name, outcome);
  }
}

// ---- attribution ----

/// The layers whose parameters, or weights computed from them, are among the arguments.
std::set<std::size_t> RecorderState::layers_in(c10::ArrayRef<const c10::IValue> args,
                                               std::optional<Family> family) const {
  std::set<std::size_t> layers;
  hooks::for_each_tensor(args, [&](const at::Tensor& tensor) {
    if (const auto layer = layer_of(tensor, family)) layers.insert(*layer);
  });
  return layers;
}

void RecorderState::count(std::size_t layer, std::string_view op, Attribution::Outcome outcome, const std::string& site,
                          const std::string& leaf) {
  ++uses_[Use{layer, leaf, std::string(op), outcome, site}];
}

void RecorderState::attribute(std::string_view name, c10::ArrayRef<const c10::IValue> args,
                              std::optional<Family> family, Note& note) {
  using Outcome = Attribution::Outcome;
  const std::set<std::size_t> layers = layers_in(args, family);
  hooks::for_each_tensor(args, [&](const at::Tensor& tensor) {
    if (!tensor.requires_grad() || !tensor.is_leaf() || layer_of(tensor)) return;
    count(Use::kNobody, name, Outcome::Unregistered, "", fmt::format("leaf [{}]", fmt::join(tensor.sizes(), ", ")));
    if (layers.empty()) note.outermost = true;
  });
  if (note.derives) {
    note.uses.assign(layers.begin(), layers.end());
    return;
  }
  std::set<std::size_t> inputs;
  if (note.run) {
    for (const at::Tensor& input : note.run->inputs) {
      if (const auto layer = layer_of(input)) inputs.insert(*layer);
    }
  }
  for (const std::size_t layer : layers) {
    if (note.run) {
      const bool runs = sites_[note.site].layer == layer;
      const auto beside = inputs.count(layer) > 0 ? Outcome::Input : Outcome::Bias;
      count(layer, name, runs ? Outcome::Captured : beside, note.layer);
    } else if (note.biased) {
      count(layer, name, Outcome::Bias, sites_[note.biased->first].captured.layer);
    } else {
      count(layer, name, family ? Outcome::NotSelected : Outcome::NotCaptured);
    }
  }
}

/// Nothing is captured of it, but it is not passed over in silence.
std::unique_ptr<hooks::OperatorNote> RecorderState::without_grad_mode(std::string_view name,
                                                                      c10::ArrayRef<const c10::IValue> args,
                                                                      hooks::Nesting& nesting) {
  const std::set<std::size_t> layers = layers_in(args, std::nullopt);
  if (layers.empty()) return nullptr;
  for (const std::size_t layer : layers) count(layer, name, Attribution::Outcome::NoGradMode);
  auto note = std::make_unique<Note>();
  note->outermost = true;
  note->recording = number_;
  ++nesting.inside;
  return note;
}

std::vector<Attribution> RecorderState::attribution() const {
  std::vector<Attribution> table;
  for (const auto& [use, count] : uses_) {
    const bool registered = use.layer != Use::kNobody;
    table.push_back({registered ? index_.layers()[use.layer].name : use.leaf, use.op, use.outcome, use.site, count});
  }
  return table;
}

// ---- capture ----

void RecorderState::remember(CallId id, const at::Tensor& output) {
  outputs_[output.unsafeGetTensorImpl()] = id;
  keep_.push_back(output);
  if (const void* storage = hooks::storage_of(output)) holders_[storage].push_back(id);
}

RecorderState::CallId RecorderState::capture(std::size_t site, const LayerRun& run, std::string_view op,
                                             const at::Tensor& output) {
  CapturedCall captured;
  captured.op = op;
  captured.output_features = from_front(run.output_features, output.dim());
  if (!run.inputs.empty() && run.inputs.front().is_floating_point()) {
    captured.input_features = from_front(run.input_features, run.inputs.front().dim());
  }
  captured.expanded = run.positions || output.dim() - static_cast<std::int64_t>(captured.output_features.size()) > 1;
  captured.coupled = run.coupled;
  captured.wants_gradient = output.requires_grad();
  captured.order = next_order_++;

  // The rank of the rows that come in, where they are themselves the output of a captured call.
  std::int64_t incoming = run.fan_in;
  if (run.patch != hooks::kUnbounded) {
    const auto before = outputs_.find(run.inputs.front().unsafeGetTensorImpl());
    const bool same_rows = before != outputs_.end() && from_front(run.input_features, run.inputs.front().dim()) ==
                                                           call(before->second).output_features;
    if (same_rows) {
      incoming = std::min(incoming, saturating_product(run.patch, call(before->second).output_bound));
    }
  }
  const std::int64_t width = width_of(output, captured.output_features);
  captured.output_bound = std::min(width, saturating_sum(incoming, run.bias ? 1 : 0));
  captured.gradient_bound = width;

  captured.output = output.detach();
  captured.output_version_ = hooks::version_of(captured.output);
  for (const at::Tensor& input : run.inputs) captured.inputs.push_back(input.detach());
  captured.input_version_ = run.inputs.empty() ? 0 : hooks::version_of(captured.inputs.front());
  captured.slot_ = hook_gradient(output);

  const CallId id{site, sites_[site].captured.calls.size()};
  for (const at::Tensor& input : captured.inputs) {
    if (const void* storage = hooks::storage_of(input)) holders_[storage].push_back(id);
  }
  sites_[site].captured.calls.push_back(std::move(captured));
  sites_[site].consumers.emplace_back();
  order_.push_back(id);
  remember(id, output);
  return id;
}

void RecorderState::keep_operator(CallId id, std::string_view name, Note& note,
                                  const std::vector<c10::IValue>& outputs) {
  auto op = std::make_shared<hooks::CapturedOperator>();
  op->name = name;
  op->family = note.run->family;
  op->weight = options_.graph ? note.run->weight : note.run->weight.detach();
  for (const c10::IValue& value : note.arguments) op->arguments.push_back(detached(value));
  if (name == "aten::einsum") {
    for (const at::Tensor& operand : note.arguments[1].toTensorVector()) {
      const auto& inputs = note.run->inputs;
      const auto same = [&](const at::Tensor& input) { return input.is_same(operand); };
      const auto place = std::find_if(inputs.begin(), inputs.end(), same);
      op->listed.push_back(place == inputs.end() ? -1 : place - inputs.begin());
    }
  }
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    if (!outputs[i].isTensor() || (i > 0 && op->family != Family::Recurrent)) continue;
    const at::Tensor output = outputs[i].toTensor();
    if (options_.graph) op->edges.push_back(torch::autograd::impl::gradient_edge(output));
    if (i == 0) continue;
    op->output_from_states = name == "aten::lstm_cell" && output.grad_fn() != outputs[0].toTensor().grad_fn();
    CapturedCall& state = op->states.emplace_back();
    state.output = output.detach();
    state.slot_ = hook_gradient(output);
  }
  call(id).operator_ = std::move(op);
}

void RecorderState::capture_loss(const hooks::LossRun& run, std::string_view op, const at::Tensor& result) {
  CapturedLoss loss;
  loss.op = op;
  loss.reduction = static_cast<CapturedLoss::Reduction>(run.reduction);
  loss.terms = run.terms;
  loss.targets = run.targets;
  loss.order = next_order_++;
  at::Tensor logits = run.input;
  if (run.activated && logits.defined()) {
    const auto activation = activations_.find(logits.unsafeGetTensorImpl());
    const bool undone = activation != activations_.end() && !activation->second.result.expired() &&
                        activation->second.difference == run.difference && activation->second.classes == run.classes;
    logits = undone ? at::Tensor(activation->second.input.lock()) : at::Tensor();
  }
  // A hook on a leaf would outlive the recording; a leaf is no network's output.
  if (logits.defined() && result.requires_grad() && logits.requires_grad() && !logits.is_leaf()) {
    loss.difference = run.difference;
    loss.logits = logits.detach();
    loss.classes = run.classes;
    loss.slope = run.slope;
    loss.version_ = hooks::version_of(loss.logits);
    loss.at_logits_ = CapturedCall::GradientSlot::of(logits);
    loss.at_result_ = CapturedCall::GradientSlot::of(result);
  }
  losses_.push_back(std::move(loss));
}

void RecorderState::extend_by_bias(CallId id, const at::Tensor& output) {
  CapturedCall& biased = call(id);
  biased.output = output.detach();
  biased.output_version_ = hooks::version_of(biased.output);
  biased.output_bound = std::min(saturating_sum(biased.output_bound, 1), width_of(output, biased.output_features));
  remember(id, output);
}

void RecorderState::tapped(std::string_view name, const at::Tensor& tensor) {
  const std::string selector = fmt::format("tap:{}", name);
  const bool wanted = options_.layers.empty() ||
                      std::any_of(options_.layers.begin(), options_.layers.end(), [&](const std::string& pattern) {
                        return pattern.starts_with("tap:") && glob_match(pattern, selector);
                      });
  if (!wanted || !at::GradMode::is_enabled()) return;
  const at::NoGradGuard no_grad;
  if (!tensor.defined() || !tensor.is_floating_point() || tensor.dim() == 0) {
    throw InvalidArgument("the tensor is undefined, a scalar or not floating");
  }
  const std::lock_guard lock(mutex_);
  LayerRun run;
  run.output_features = {-1};
  const auto& layers = index_.layers();
  if (std::any_of(layers.begin(), layers.end(), [&](const hooks::Layer& layer) { return layer.name == name; })) {
    throw InvalidArgument("a layer of the model has this name, expected another one");
  }
  capture(site_for(std::nullopt, std::string(name), "Tap", ""), run, "tap", tensor);
}

// ---- handing over ----

/// rank(D_l) <= the sum over the consumers of X_l: rank(D of a product), and one less than the width for a softmax,
/// whose gradient sums to zero. Any other consumer may give full rank.
void RecorderState::bound_gradients() {
  for (auto id = order_.rbegin(); id != order_.rend(); ++id) {
    const Consumers& consumers = sites_[id->first].consumers[id->second];
    if (consumers.others || (consumers.products.empty() && !consumers.softmax)) continue;
    CapturedCall& captured = call(*id);
    const std::int64_t width = width_of(captured.output, captured.output_features);
    std::int64_t bound = consumers.softmax ? width - 1 : 0;
    for (const CallId& next : consumers.products) {
      const bool arrived = next.second < sites_[next.first].captured.calls.size();
      bound = saturating_sum(bound, arrived ? call(next).gradient_bound : width);
    }
    captured.gradient_bound = std::min(width, bound);
  }
}

void RecorderState::drop_calls_without_backward() {
  bool any = false;
  for (const Site& site : sites_) {
    for (const CapturedCall& captured : site.captured.calls) any = any || reached(captured);
  }
  if (!any) return;
  for (Site& site : sites_) {
    site.captured.dropped =
        static_cast<std::int64_t>(std::erase_if(site.captured.calls, [](const CapturedCall& captured) {
          return captured.wants_gradient && !reached(captured);
        }));
  }
}

void RecorderState::add_layers_that_did_not_run(Captured& captured) const {
  for (std::size_t i = 0; i < index_.layers().size(); ++i) {
    const hooks::Layer& layer = index_.layers()[i];
    const bool ran = std::any_of(sites_.begin(), sites_.end(), [&](const Site& site) { return site.layer == i; });
    if (ran || !layer.selected) continue;
    CapturedLayer missing;
    missing.layer = layer.name;
    missing.kind = layer.kind;
    std::set<std::string> seen, without_grad_mode;
    for (auto use = uses_.lower_bound({i, "", "", {}, ""}); use != uses_.end() && use->first.layer == i; ++use) {
      const bool bias = use->first.outcome == Attribution::Outcome::Bias;
      (use->first.outcome == Attribution::Outcome::NoGradMode ? without_grad_mode : seen)
          .insert(bias ? fmt::format("{} as a bias of {}", use->first.op, use->first.site) : use->first.op);
    }
    if (!seen.empty()) {
      missing.status = Status::NotObservable;
      missing.detail = fmt::format("its parameters were seen only in {}", fmt::join(seen, ", "));
    } else {
      missing.status = Status::NotRun;
      missing.detail = without_grad_mode.empty() ? "no operator took a parameter of it"
                                                 : fmt::format("its parameters were seen only without grad mode, in {}",
                                                               fmt::join(without_grad_mode, ", "));
    }
    captured.layers.push_back(std::move(missing));
  }
}

Captured RecorderState::take() {
  const std::lock_guard lock(mutex_);
  bound_gradients();
  drop_calls_without_backward();
  Captured captured;
  for (Site& site : sites_) {
    if (site.captured.calls.empty() && site.captured.dropped > 0) {
      site.captured.status |= Status::NoGradient;
      site.captured.detail = fmt::format("{} runs, none of which a backward pass came through", site.captured.dropped);
    }
    captured.layers.push_back(site.captured);
  }
  add_layers_that_did_not_run(captured);
  captured.losses = std::move(losses_);
  captured.errors = std::move(errors_);
  captured.attribution = attribution();
  clear();
  return captured;
}

}  // namespace dds
