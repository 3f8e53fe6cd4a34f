#include "hooks/recorder_state.hpp"

#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include "hooks/captured_access.hpp"
#include "hooks/captured_operator.hpp"
#include "hooks/features.hpp"
#include "src/base/check.hpp"
#include "src/base/glob.hpp"

namespace dds {

using hooks::Arguments;
using hooks::CallId;
using hooks::Family;
using hooks::LayerRun;
using hooks::Operator;
using Outcome = Attribution::Outcome;

namespace {

at::Tensor first_tensor(const std::vector<c10::IValue>& values) {
  for (const c10::IValue& value : values) {
    if (value.isTensor()) return value.toTensor();
  }
  return {};
}

std::shared_ptr<const hooks::Trained> trained_of(const hooks::ParameterSource& parameters) {
  auto trained = std::make_shared<hooks::Trained>();
  if (parameters.grows()) return trained;
  auto& leaves = trained->leaves.emplace();
  parameters.for_each([&](const hooks::FoundParameter& found) { leaves.insert(found.tensor.unsafeGetTensorImpl()); });
  return trained;
}

}  // namespace

RecorderState::RecorderState(std::shared_ptr<hooks::ParameterSource> parameters, RecorderOptions options)
    : options_(std::move(options)),
      parameters_(std::move(parameters)),
      weights_(parameters_, {options_.layers, options_.select}) {}

// ---- a recording ----

void RecorderState::begin() {
  const std::lock_guard lock(mutex_);
  clear();
  weights_.begin();
  trained_ = trained_of(*parameters_);
  if (follows_axes()) axes_.begin(*parameters_);
  listening_ = true;
}

void RecorderState::end() {
  listening_ = false;
  const std::lock_guard lock(mutex_);
  calls_.forget_outputs();
  losses_.forget_activations();
  ties_.forget_graph();
  weights_.forget();
  graph_.forget_tensors();
  axes_.end();
}

void RecorderState::clear() {
  ++number_;
  weights_.forget();
  calls_ = {};
  copies_ = {};
  graph_ = {};
  outputs_.clear();
  inputs_.clear();
  around_.clear();
  losses_ = {};
  ties_ = {};
  uses_.clear();
  beside_ = std::make_shared<std::map<std::string, std::string>>();
  tapped_.clear();
  errors_.clear();
  next_order_ = 0;
}

Captured RecorderState::take() {
  const std::lock_guard lock(mutex_);
  ties_.write_into(calls_);
  Captured captured;
  std::vector<CapturedLayer> missing = taps_without_calls();
  for (std::size_t i = 0; i < weights_.layers().size(); ++i) {
    const hooks::Layer& layer = weights_.layers()[i];
    if (layer.selected && !calls_.has_run(i)) missing.push_back(uses_.without_calls(i, layer));
  }
  std::vector<std::vector<CallId>> calls;
  captured.layers = calls_.take([&](CapturedLayer&, const std::vector<CallId>& left) { calls.push_back(left); });
  look_around(captured.layers, calls);
  bound_ranks(captured.layers, calls);
  std::move(missing.begin(), missing.end(), std::back_inserter(captured.layers));
  captured.losses = losses_.take();
  captured.errors = std::move(errors_);
  captured.attribution = uses_.table(weights_.layers());
  clear();
  return captured;
}

/// A layer without calls for each pattern on taps that no tap matched: a misspelt one would otherwise go unnoticed.
std::vector<CapturedLayer> RecorderState::taps_without_calls() const {
  std::vector<CapturedLayer> missing;
  for (const std::string& pattern : options_.layers.list()) {
    if (!hooks::is_tap(pattern) || tapped_.contains(pattern)) continue;
    CapturedLayer& layer = missing.emplace_back();
    layer.layer = pattern;
    layer.kind = "Tap";
    layer.status = Status::NotRun;
    layer.detail = "no tap of that name ran in grad mode";
  }
  return missing;
}

void RecorderState::failed(std::string_view where, std::string_view what) {
  const std::lock_guard lock(mutex_);
  errors_.push_back(fmt::format("{}: {}", where, what));
}

void RecorderState::custom_function_runs(std::string_view name) {
  const std::lock_guard lock(mutex_);
  graph_.custom_function_ran(name);
}

void RecorderState::backward_node_runs(std::string_view name, std::int64_t sequence) {
  const std::lock_guard lock(mutex_);
  graph_.backward_node_ran(name, sequence);
}

// ---- when an operator starts ----

std::unique_ptr<hooks::OperatorNote> RecorderState::operator_starts(std::string_view name, Arguments args,
                                                                    bool grad_mode, hooks::Nesting& nesting) {
  auto note = note_of(name, args, grad_mode, nesting);
  if (!follows_axes()) return note;
  if (!note) note = std::make_unique<Note>();
  const std::lock_guard lock(mutex_);
  note->recording = number_;
  note->arguments.assign(args.begin(), args.end());
  if (nesting.depth == 0) axes_.outermost_starts(args);
  ++nesting.depth;
  return note;
}

/// Null if nothing is to be done when it ends.
std::unique_ptr<RecorderState::Note> RecorderState::note_of(std::string_view name, Arguments args, bool grad_mode,
                                                            hooks::Nesting& nesting) {
  if (nesting.inside > 0) return nullptr;
  const std::lock_guard lock(mutex_);
  weights_.follow_strange_leaves(args, grad_mode);
  const Operator* entry = hooks::find_operator(name);
  Note note;
  note.recording = number_;
  if (auto bias = bias_that_follows(entry, args)) note.role = std::move(*bias);
  const Arguments written = hooks::is_in_place(name) && !args.empty() ? args.slice(0, 1) : Arguments();
  const auto extended = note.as<Bias>() ? std::optional(note.as<Bias>()->call) : std::nullopt;
  hooks::for_each_tensor(written, [&](const at::Tensor& t) { copies_.before_write(t, extended, calls_); });
  if (grad_mode) {
    if (!extended) recognise(name, entry, args, note);
    attribute(name, args, note);
    // A tensor that is written to goes on to live as something else than a layer's output.
    if (!extended) hooks::for_each_tensor(written, [&](const at::Tensor& t) { calls_.forget_output(t); });
  } else {
    without_grad_mode(name, args, note);
  }
  if (nesting.known == 0) note.pass = enters_graph(name, args, grad_mode, nesting);
  if (note.as<std::monostate>() && !note.outermost && !note.pass) return nullptr;
  if (note.outermost) ++nesting.inside;
  if (note.pass) ++nesting.graphed;
  if (note.pass && note.pass->known) ++nesting.known;
  return std::make_unique<Note>(std::move(note));
}

void RecorderState::recognise(std::string_view name, const Operator* entry, Arguments args, Note& note) {
  if (auto run = layer_run(entry, args)) {
    note.family = run->family;
    note.outermost = true;
    const auto site = site_of(*run);
    if (!site) return;
    Run recorded{std::move(*run), *site, calls_.name(*site), entry, {}};
    if (options_.operators) recorded.arguments.assign(args.begin(), args.end());
    note.role = std::move(recorded);
  } else if (auto loss = entry ? hooks::read_loss(*entry, args) : std::nullopt) {
    note.outermost = true;
    note.role = std::move(*loss);
  } else if (auto derivation = weights_.derivation(name, args)) {
    // What runs inside of one with a constant may be a layer, with the constant as its input.
    note.outermost = !derivation->like.defined();
    note.role = std::move(*derivation);
  } else if (auto activation = entry ? hooks::read_activation(*entry, args) : std::nullopt) {
    note.role = std::move(*activation);
  }
}

/// Product, then addition of a parameter as long as the product's features: the layer's bias.
std::optional<RecorderState::Bias> RecorderState::bias_that_follows(const Operator* entry, Arguments args) const {
  if (!entry || !entry->as<hooks::kind::Addition>()) return std::nullopt;
  if (args.size() < 2 || !args[0].isTensor() || !args[1].isTensor()) return std::nullopt;
  for (const auto& [product, bias] :
       {std::pair{args[0].toTensor(), args[1].toTensor()}, {args[1].toTensor(), args[0].toTensor()}}) {
    const auto call = calls_.that_gave(product);
    if (!call || !weights_.is_parameter(bias) || bias.dim() != 1) continue;
    const Operator* before = hooks::find_operator(calls_[*call].op);
    if (!before || !before->bias_may_follow) continue;
    if (bias.numel() == calls_[*call].output.size(-1)) return Bias{*call, bias};
  }
  return std::nullopt;
}

std::optional<LayerRun> RecorderState::layer_run(const Operator* entry, Arguments args) const {
  if (!entry) return std::nullopt;
  const auto is_weight = [this](const at::Tensor& t) { return weights_.layer_of(t).has_value(); };
  auto run =
      hooks::read_layer(*entry, args, [&](const at::Tensor& t) { return is_weight(t) && !weights_.is_tentative(t); });
  if (!run) run = hooks::read_layer(*entry, args, is_weight);
  if (run && weights_.gives_weight(*run)) run.reset();
  return run;
}

/// The site of a run, made if this is its first. Empty if its layer is not selected.
std::optional<hooks::SiteId> RecorderState::site_of(const LayerRun& run) {
  const auto number = weights_.layer_of(run.weight, run.family);
  if (!number || !weights_.layers()[*number].selected) return std::nullopt;
  // Another family, another part of the parameter or the transposed matrix is another use of the weight.
  std::string role = fmt::format("{}", static_cast<int>(run.family));
  if (run.family == Family::Contraction) {
    role += fmt::format(" {} [{}]", run.weight.storage_offset(), fmt::join(run.weight.strides().vec(), ","));
  }
  const hooks::Layer& layer = weights_.layers()[*number];
  return calls_.site(number, layer.name, layer.kind, role);
}

void RecorderState::attribute(std::string_view name, Arguments args, Note& note) {
  const std::set<std::size_t> layers = weights_.layers_in(args, note.family);
  hooks::for_each_tensor(args, [&](const at::Tensor& tensor) {
    if (!tensor.requires_grad() || !tensor.is_leaf() || weights_.layer_of(tensor)) return;
    uses_.count_leaf(fmt::format("leaf [{}]", fmt::join(tensor.sizes(), ", ")), name);
    if (layers.empty()) note.outermost = true;
  });
  if (auto* derivation = note.as<hooks::Derivation>()) {
    derivation->layers.assign(layers.begin(), layers.end());  // attributed when it ends
  } else if (const auto* run = note.as<Run>()) {
    attribute_run(name, *run, layers);
  } else if (const auto* bias = note.as<Bias>()) {
    const std::string& site = calls_.name(calls_.site_of(bias->call));
    for (const std::size_t layer : layers) uses_.count(layer, name, Outcome::Bias, site);
  } else {
    const Outcome outcome = note.family ? Outcome::NotSelected : Outcome::NotCaptured;
    for (const std::size_t layer : layers) uses_.count(layer, name, outcome);
    if (!note.family && follows_axes()) find_uses_beside(name, args);
  }
}

/// A parameter that wants a gradient meets something that is computed from no parameter alone. What it gets by that is
/// in no call.
void RecorderState::find_uses_beside(std::string_view name, Arguments args) {
  bool data = false;
  std::set<std::size_t> layers;
  hooks::for_each_tensor(args, [&](const at::Tensor& t) {
    const auto layer = weights_.layer_of(t);
    if (layer && t.requires_grad()) layers.insert(*layer);
    data = data || (t.dim() > 0 && !layer);
  });
  for (const std::size_t layer : layers) {
    if (data) beside_->try_emplace(weights_.layers()[layer].name, name);
  }
}

void RecorderState::attribute_run(std::string_view name, const Run& run, const std::set<std::size_t>& layers) {
  std::set<std::size_t> inputs;
  for (const at::Tensor& input : run.layer.inputs) {
    if (const auto layer = weights_.layer_of(input)) inputs.insert(*layer);
  }
  for (const std::size_t layer : layers) {
    const bool runs = calls_.layer(run.site) == layer;
    const Outcome beside = inputs.count(layer) > 0 ? Outcome::Input : Outcome::Bias;
    uses_.count(layer, name, runs ? Outcome::Captured : beside, run.name);
  }
}

/// Nothing is captured of it, but it is counted.
void RecorderState::without_grad_mode(std::string_view name, Arguments args, Note& note) {
  const std::set<std::size_t> layers = weights_.layers_in(args, std::nullopt);
  for (const std::size_t layer : layers) uses_.count(layer, name, Outcome::NoGradMode);
  note.outermost = !layers.empty();
}

// ---- when it ends ----

void RecorderState::operator_ends(std::string_view name, hooks::OperatorNote& left, const Outputs& outputs,
                                  hooks::Nesting& nesting) {
  auto& note = static_cast<Note&>(left);
  if (note.outermost) --nesting.inside;
  if (note.pass) --nesting.graphed;
  if (note.pass && note.pass->known) --nesting.known;
  if (follows_axes()) {
    --nesting.depth;
    const std::lock_guard lock(mutex_);
    if (listening_ && note.recording == number_) {
      axes_.operator_ends(name, Arguments(note.arguments.data(), note.arguments.size()),
                          Arguments(outputs.data(), outputs.size()), nesting.depth > 0, next_order_);
    }
  }
  const at::Tensor output = first_tensor(outputs);
  if (const auto* run = note.as<Run>(); run && output.defined() && options_.on_call) options_.on_call(run->name);
  const std::lock_guard lock(mutex_);
  if (!listening_ || note.recording != number_) return;
  if (note.pass) leaves_graph(*note.pass, outputs);
  if (!output.defined()) return;  // a list, or the operator threw
  std::visit([&](auto& role) { ended(role, name, output, outputs); }, note.role);
}

// What goes wrong in the graph costs the bounds, but no rows.

std::unique_ptr<hooks::PassGraph::Run> RecorderState::enters_graph(std::string_view name, Arguments args,
                                                                   bool grad_mode, const hooks::Nesting& nesting) {
  try {
    return graph_.starts(name, args, grad_mode, nesting.graphed > 0,
                         [this](const at::Tensor& t) { return weights_.is_parameter(t); });
  } catch (const std::exception&) {
    graph_.fail(name);
    return nullptr;
  }
}

void RecorderState::leaves_graph(const hooks::PassGraph::Run& run, const Outputs& outputs) {
  try {
    graph_.ends(run, outputs);
  } catch (const std::exception&) {
    graph_.fail(run.full_name);
  }
}

void RecorderState::ended(Run& run, std::string_view name, const at::Tensor& output, const Outputs& outputs) {
  const CallId id = capture(run.site, run.layer, name, output);
  if (options_.operators) hooks::CapturedAccess::set_operator(calls_[id], kept_operator(run, outputs));
}

void RecorderState::ended(Bias& bias, std::string_view, const at::Tensor& output, const Outputs&) {
  calls_.extend(bias.call, output);
  copies_.hold(bias.call, output);
  outputs_[bias.call] = graph_.find(output);
  if (const auto& op = calls_[bias.call].captured_operator()) op->bias = bias.tensor.detach();
}

void RecorderState::ended(hooks::LossRun& loss, std::string_view name, const at::Tensor& output, const Outputs&) {
  losses_.add(loss, name, output, next_order_++, trained_);
  ties_.loss_ends(output, hooks::recomputing());
}

void RecorderState::ended(hooks::ActivationRun& activation, std::string_view, const at::Tensor& output,
                          const Outputs&) {
  losses_.activation(activation, output);
}

void RecorderState::ended(hooks::Derivation& derivation, std::string_view name, const at::Tensor&,
                          const Outputs& outputs) {
  const Outcome outcome = weights_.derived(derivation, outputs);
  for (const std::size_t layer : derivation.layers) uses_.count(layer, name, outcome);
  // Of another shape than the weight: the constant was data.
  const bool beside = outcome == Outcome::NotCaptured && derivation.like.defined() && follows_axes() &&
                      first_tensor(outputs).requires_grad();
  for (const std::size_t layer : derivation.layers) {
    if (beside) beside_->try_emplace(weights_.layers()[layer].name, name);
  }
}

void RecorderState::tapped(std::string_view name, const at::Tensor& tensor) {
  const std::string selector = fmt::format("tap:{}", name);
  std::vector<std::string> matching;
  for (const std::string& pattern : options_.layers.list()) {
    if (hooks::is_tap(pattern) && glob_match(pattern, selector)) matching.push_back(pattern);
  }
  const bool wanted = options_.layers.all() || !matching.empty();
  if (!wanted || !at::GradMode::is_enabled()) return;
  const at::NoGradGuard no_grad;
  check(tensor.defined() && tensor.is_floating_point() && tensor.dim() > 0, "tap", "the tensor", tensor,
        "a floating one with at least one dimension");
  const std::lock_guard lock(mutex_);
  tapped_.insert(matching.begin(), matching.end());
  const auto& layers = weights_.layers();
  if (std::any_of(layers.begin(), layers.end(), [&](const hooks::Layer& layer) { return layer.name == name; })) {
    throw_invalid("tap", "its name", "that of a layer of the model", "another one");
  }
  LayerRun run;
  run.output_features = {-1};
  capture(calls_.site(std::nullopt, std::string(name), "Tap", ""), run, "tap", tensor);
}

}  // namespace dds
