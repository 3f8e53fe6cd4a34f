// Rules for norms.
#include <ATen/TensorOperators.h>
#include <ATen/ops/any.h>
#include <ATen/ops/le.h>
#include <ATen/ops/ne.h>
#include <ATen/ops/rsqrt.h>

#include "hooks/pass_rule.hpp"

namespace dds::hooks {
namespace {

using Way = Link::Way;

/// Whether beta / gamma has a component that the centred rows lack: in a group, beta^T (1 / gamma) is not zero.
at::Tensor fills(const at::Tensor& beta, const at::Tensor& gamma, std::int64_t groups) {
  const at::Tensor along = (gamma.defined() ? beta.detach() / gamma.detach() : beta.detach()).reshape({groups, -1});
  return at::any(at::le(along.sum(1).abs(), along.abs().sum(1) * 1e-6).logical_not());  // where gamma is 0 too
}

bool layer_norm(Rule& rule) {
  const at::Tensor input = tensor_at(rule.args(), 0);
  if (rule.place > 0 || !input.defined() || input.dim() == 0) return false;
  const bool one = rule.args().size() > 1 && rule.args()[1].isIntList() && rule.args()[1].toIntVector().size() == 1;
  const bool centred = rule.run.name != "rms_norm";
  const at::Tensor gamma = tensor_at(rule.args(), 2), beta = centred ? tensor_at(rule.args(), 3) : at::Tensor();
  const auto last = static_cast<std::size_t>(input.dim() - 1);
  Link& link = rule.add(input, one ? Way::Rescaled : Way::Other);
  if (one && centred) {
    link.lacking = 1;
    link.lacking_along = link.sums_to_zero = static_cast<int>(last);
  }
  rule.hide(gamma);
  if (beta.defined()) {
    rule.add_vector(beta, last);
    rule.node.nonzero = one ? fills(beta, gamma, 1) : at::any(at::ne(beta.detach(), 0));
  }
  return true;
}

bool batch_norm(Rule& rule) {
  const at::Tensor input = tensor_at(rule.args(), 0), gamma = tensor_at(rule.args(), 1),
                   beta = tensor_at(rule.args(), 2), mean = tensor_at(rule.args(), 3),
                   variance = tensor_at(rule.args(), 4);
  if (rule.place > 0 || !input.defined() || input.dim() < 2) return false;
  const bool over_samples = rule.run.name == "batch_norm";
  if (bool_at(rule.args(), 5, true)) {
    Link& link = rule.add(input, Way::Rescaled);
    link.drops_constants = true;
    if (!over_samples) link.way = Way::Other;
    rule.hide(gamma);
    if (beta.defined()) {
      rule.add_vector(beta, 1);
      rule.node.nonzero = at::any(at::ne(beta.detach(), 0));
    }
    return true;
  }
  rule.add(input).scaled = true;  // and shifted, channel by channel
  rule.hide(gamma);
  if (mean.defined() && variance.defined()) {
    const at::Tensor scale = gamma.defined() ? gamma.detach() : at::Tensor();
    at::Tensor shift = mean.mul(at::rsqrt(variance + number_at(rule.args(), 7, 1e-5))).neg();
    if (scale.defined()) shift = shift * scale;
    if (beta.defined()) shift = shift + beta.detach();
    rule.add_vector(mean, 1);
    rule.node.nonzero = at::any(at::ne(shift, 0));
  }
  return true;
}

bool group_norm(Rule& rule) {
  const at::Tensor input = tensor_at(rule.args(), 0), gamma = tensor_at(rule.args(), 2),
                   beta = tensor_at(rule.args(), 3);
  if (rule.place > 0 || !input.defined() || input.dim() < 2) return false;
  std::int64_t places = 1;
  for (std::int64_t dim = 2; dim < input.dim(); ++dim) places *= input.size(dim);
  const std::int64_t groups = int_at(rule.args(), 1, 1);
  if (groups < 1 || input.size(1) % groups != 0) return false;
  Link& link = rule.add(input, Way::Other);
  if (places == 1) {
    link.lacking = groups;
    link.lacking_along = 1;
    if (groups == 1) link.sums_to_zero = 1;
  }
  rule.hide(gamma);
  if (beta.defined()) {
    rule.add_vector(beta, 1);
    rule.node.nonzero = places == 1 ? fills(beta, gamma, groups) : at::any(at::ne(beta.detach(), 0));
  }
  return true;
}

}  // namespace

void add_norms(Rules& rules) {
  rules.add(layer_norm, {"layer_norm", "native_layer_norm", "rms_norm"});
  rules.add(batch_norm, {"batch_norm", "instance_norm"});
  rules.add(group_norm, {"group_norm"});
}

}  // namespace dds::hooks
