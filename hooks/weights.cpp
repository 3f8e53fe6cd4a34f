#include "hooks/weights.hpp"

#include <utility>

namespace dds::hooks {

Weights::Weights(std::shared_ptr<ParameterSource> source, LayerSelection selection)
    : index_(std::move(source), std::move(selection)) {}

void Weights::begin() {
  forget();
  index_.refresh();
}

void Weights::forget() {
  computed_.clear();
  viewed_.clear();
}

std::optional<std::size_t> Weights::layer_of(const at::Tensor& tensor, std::optional<Family> family) const {
  if (const auto* holders = index_.layers_of(tensor)) {
    for (const std::size_t layer : *holders) {
      if (family && kind_fits(layers()[layer].kind, *family)) return layer;
    }
    return holders->front();
  }
  const auto computed = computed_.find(storage_of(tensor));
  return computed == computed_.end() ? std::nullopt : std::optional(computed->second.layer);
}

std::set<std::size_t> Weights::layers_in(Arguments args, std::optional<Family> family) const {
  std::set<std::size_t> layers;
  for_each_tensor(args, [&](const at::Tensor& tensor) {
    if (const auto layer = layer_of(tensor, family)) layers.insert(*layer);
  });
  return layers;
}

bool Weights::is_tentative(const at::Tensor& tensor) const {
  const auto computed = computed_.find(storage_of(tensor));
  return computed != computed_.end() && computed->second.tentative && !is_parameter(tensor);
}

bool Weights::gives_weight(const LayerRun& run) const {
  if (run.family != Family::Contraction) return false;
  const auto other = layer_of(run.inputs.front());
  if (!other || (is_tentative(run.inputs.front()) && !is_tentative(run.weight))) return false;
  const auto is_raw = [&](std::size_t layer) { return layers()[layer].kind == "Raw"; };
  const auto weight = layer_of(run.weight, run.family);
  return !(is_raw(*other) && !is_raw(*weight));
}

std::optional<Derivation> Weights::derivation(std::string_view name, Arguments args) const {
  std::optional<std::size_t> owner;
  at::Tensor largest;
  bool constants = false, others = false, tentative = false;
  for_each_tensor(args, [&](const at::Tensor& tensor) {
    if (const auto layer = layer_of(tensor)) {
      if (!owner) owner = layer;
      tentative = tentative || is_tentative(tensor);
      if (!largest.defined() || tensor.numel() > largest.numel()) largest = tensor;
    } else if (tensor.requires_grad()) {
      others = true;
    } else if (tensor.is_floating_point() && tensor.dim() > 0) {
      constants = true;
    }
  });
  if (!owner || others) return std::nullopt;
  const bool multiplies = name.starts_with("aten::mul") || name.starts_with("aten::div");
  return Derivation{*owner, constants ? largest : at::Tensor(), tentative || (constants && !multiplies)};
}

Attribution::Outcome Weights::derived(const Derivation& derivation, const std::vector<c10::IValue>& outputs) {
  auto outcome = Attribution::Outcome::NotCaptured;
  for (const c10::IValue& value : outputs) {
    if (!value.isTensor() || !value.toTensor().defined()) continue;
    const at::Tensor& tensor = value.toTensor();
    const void* storage = storage_of(tensor);
    const bool known = is_parameter(tensor) || computed_.count(storage) > 0;
    if (known) outcome = Attribution::Outcome::View;
    if (!storage || !tensor.requires_grad() || known) continue;
    if (derivation.like.defined() && tensor.sizes() != derivation.like.sizes()) continue;
    computed_.try_emplace(storage, Computed{derivation.owner, derivation.tentative, tensor});
    outcome = Attribution::Outcome::Weight;
  }
  return outcome;
}

void Weights::follow_strange_leaves(Arguments args, bool grad_mode) {
  std::vector<at::Tensor> strange;
  int tensors = 0;
  for_each_tensor(args, [&](const at::Tensor& tensor) {
    ++tensors;
    if (!tensor.requires_grad() || is_parameter(tensor)) return;
    const auto viewed = tensor.is_leaf() ? viewed_.end() : viewed_.find(storage_of(tensor));
    if (tensor.is_leaf() || viewed != viewed_.end()) strange.push_back(tensor.is_leaf() ? tensor : viewed->second);
  });
  if (strange.empty()) return;
  if (index_.moved()) index_.refresh();
  if (!grad_mode || !index_.grows()) return;
  for (const at::Tensor& leaf : strange) {
    if (tensors == 1) {
      viewed_.insert_or_assign(storage_of(leaf), leaf);
    } else if (!is_parameter(leaf)) {
      index_.adopt(leaf);
    }
  }
}

}  // namespace dds::hooks
