#include "src/attach/probe.hpp"

#include <c10/core/GradMode.h>
#include <c10/util/accumulate.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/function.h>

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "hooks/arguments.hpp"
#include "hooks/observer.hpp"
#include "hooks/operators.hpp"
#include "src/attach/names.hpp"
#include "src/attach/tensor_file.hpp"
#include "src/log/file.hpp"

namespace dds::attach {
namespace {

constexpr std::size_t kMostLosses = 32;

enum class Kinship { None, Reshaped, Permuted };

/// Whether `tensor` was computed from `from` by views, and where allowed a log-softmax: what a loss is given of the
/// network's output.
Kinship kinship(const at::Tensor& tensor, const at::Tensor& from, bool log_softmax) {
  if (!tensor.grad_fn() || !from.grad_fn() || tensor.numel() != from.numel()) return Kinship::None;
  constexpr int kLongest = 6;
  bool permuted = false;
  const torch::autograd::Node* node = tensor.grad_fn().get();
  for (int i = 0; i < kLongest; ++i) {
    if (node == from.grad_fn().get()) return permuted ? Kinship::Permuted : Kinship::Reshaped;
    const std::string name = node->name();
    const auto is_one_of = [&](std::initializer_list<const char*> kinds) {
      return std::any_of(kinds.begin(), kinds.end(),
                         [&](const char* kind) { return name.starts_with(std::string(kind) + "Backward"); });
    };
    const bool permutes = is_one_of({"Transpose", "Permute", "T"});
    permuted = permuted || permutes;
    const bool reshapes = (log_softmax && is_one_of({"LogSoftmax"})) ||
                          is_one_of({"View", "UnsafeView", "ReshapeAlias", "Alias", "Squeeze", "Unsqueeze", "ToCopy"});
    if ((!permutes && !reshapes) || node->num_outputs() == 0) return Kinship::None;
    node = node->next_edge(0).function.get();
    if (!node) return Kinship::None;
  }
  return Kinship::None;
}

}  // namespace

std::optional<Probe::Loss> Probe::loss_of(std::string_view name, c10::ArrayRef<const c10::IValue> args) {
  const hooks::Operator* entry = hooks::find_operator(name);
  const auto* known = entry ? entry->as<hooks::kind::Loss>() : nullptr;
  if (!known || known->likelihood.empty()) return std::nullopt;
  Loss loss;
  loss.likelihood = known->likelihood;
  loss.input = hooks::tensor_at(args, 0);
  loss.targets = hooks::tensor_at(args, 1);
  if (!loss.input.defined() || !loss.targets.defined()) return std::nullopt;
  if (hooks::tensor_at(args, known->weights).defined() || hooks::tensor_at(args, known->more_weights).defined()) {
    loss.refused = "it weights classes or entries";
  }
  if (hooks::number_at(args, known->smoothing, 0) != 0) loss.refused = "it smooths labels";
  if (known->classes && loss.targets.is_floating_point()) loss.refused = "its targets are probabilities";
  const std::int64_t ignored = hooks::int_at(args, known->ignored, -100);
  loss.targets = loss.targets.detach();
  if (ignored != -100) loss.targets = loss.targets.masked_fill(loss.targets.eq(ignored), -100);
  return loss;
}

void Probe::watch(std::int64_t step) {
  if (state_ != State::Idle && state_ != State::Watching) return;
  if (!PythonModel::there()) {
    state_ = State::GivenUp;
    why_ = "a program in C++ tells of no forward pass; dds llc takes its network and a batch as files";
    return;
  }
  if (step != step_ && ++tries_ > kTries) {
    stop();
    state_ = State::GivenUp;
    return;
  }
  step_ = step;
  losses_.clear();
  const hooks::Unseen unseen;
  PythonModel::watch();
  state_ = State::Watching;
}

void Probe::stop() {
  losses_.clear();
  if (state_ != State::Watching) return;
  state_ = State::Idle;
  const hooks::Unseen unseen;
  PythonModel::stop();
}

void Probe::over(std::int64_t step) {
  if (state_ == State::Watching && step_ <= step) stop();
}

void Probe::operator_starts(std::string_view name, c10::ArrayRef<const c10::IValue> args) {
  if (losses_.size() == kMostLosses) return;
  if (auto loss = loss_of(name, args)) losses_.push_back(std::move(*loss));
}

void Probe::settle() {
  if (state_ != State::Watching) return;
  const hooks::Unseen unseen;
  const at::NoGradGuard no_grad;
  const std::vector<PythonModel::Output> outputs = PythonModel::outputs();
  why_ = outputs.empty() ? "no network's forward was called as a whole"
                         : "no cross_entropy, nll_loss, mse_loss or binary_cross_entropy_with_logits took what a "
                           "network's forward gave out";
  for (const PythonModel::Output& output : outputs) {
    for (const Loss& loss : losses_) {
      if (!take(loss, output)) continue;
      stop();
      state_ = State::Found;
      return;
    }
  }
}

/// Brings the targets into the form that the likelihood of the library takes them in.
bool Probe::take(const Loss& loss, const PythonModel::Output& output) {
  const at::Tensor& out = output.tensor;
  const Kinship kin = kinship(loss.input, out, /*log_softmax=*/loss.likelihood == "categorical");
  if (kin == Kinship::None) return false;
  const auto refuse = [&](std::string why) {
    why_ = std::move(why);
    return false;
  };
  if (!loss.refused.empty()) return refuse("no likelihood has its loss: " + loss.refused);
  if (out.dim() < 1 || (loss.likelihood == "categorical" && out.dim() < 2)) return refuse("its output has no samples");
  std::vector<std::int64_t> shape = out.sizes().vec();
  bool classes_second = false;
  if (loss.likelihood == "categorical") {
    const std::int64_t classes = loss.input.size(loss.input.dim() > 1 ? 1 : 0);
    classes_second = out.dim() > 2 && out.sizes() == loss.input.sizes();
    if (!classes_second && out.size(-1) != classes) return refuse("its classes are in no dimension that is known");
    shape.erase(classes_second ? shape.begin() + 1 : shape.end() - 1);
  }
  const bool in_place = classes_second || loss.targets.sizes() == at::IntArrayRef(shape);
  const bool in_rows = loss.likelihood != "categorical" || loss.input.dim() <= 2;
  if (!in_place && (kin == Kinship::Permuted || !in_rows)) return refuse("its targets lie otherwise than its output");
  if (loss.targets.numel() != c10::multiply_integers(shape)) return refuse("its targets are not one for each output");
  at::Tensor targets = loss.targets.reshape(shape);
  std::vector<at::Tensor> inputs = PythonModel::choose(output, rows_, classes_second);
  if (inputs.empty()) return refuse(PythonModel::error());
  likelihood_ = loss.likelihood;
  inputs_ = std::move(inputs);
  targets_ = targets.narrow(0, 0, inputs_[0].size(0)).to(at::kCPU, /*non_blocking=*/false, /*copy=*/true).contiguous();
  return true;
}

void Probe::write(const std::filesystem::path& folder) {
  if (state_ != State::Found) return;
  state_ = State::Failed;
  NamedTensors tensors;
  for (std::size_t i = 0; i < inputs_.size(); ++i) tensors.emplace_back(fmt::format("input{}", i), inputs_[i]);
  tensors.emplace_back("targets", targets_);
  inputs_.clear();
  targets_.reset();
  save_tensors(folder / kProbeFile, tensors);
  state_ = State::Written;
  const hooks::Unseen unseen;
  const std::string archive = PythonModel::trace();
  if (archive.empty()) {
    why_ = PythonModel::error();
    return;
  }
  log::replace_file(folder / kModelFile, archive);
  state_ = State::Traced;
}

nlohmann::ordered_json Probe::description() const {
  return {{"probe", has_file() ? nlohmann::ordered_json(kProbeFile) : nullptr},
          {"probe_step", has_file() ? nlohmann::ordered_json(step_) : nullptr},
          {kLikelihood, has_file() ? nlohmann::ordered_json(likelihood_) : nullptr},
          {"model", state_ == State::Traced ? nlohmann::ordered_json(kModelFile) : nullptr}};
}

std::string Probe::why_not(bool at_the_end) const {
  if (state_ == State::Traced) return "";
  if (state_ == State::Written) return fmt::format("the network is not recorded: {}", why_);
  if (state_ != State::GivenUp && !at_the_end) return "";
  if (tries_ == 0 && why_.empty())
    return "no probe batch is recorded: no step was read that began when the network was known";
  return fmt::format("no probe batch is recorded: {}", why_.empty() ? "the step was not read to its end" : why_);
}

}  // namespace dds::attach
