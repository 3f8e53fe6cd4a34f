#include <algorithm>
#include <string>
#include <unordered_map>
#include <utility>

#include "hooks/axis_operator.hpp"
#include "hooks/layer_run.hpp"

namespace dds::hooks {
namespace {

using Op = AxisOperator;
using Ids = Axes::Ids;
using Tensors = AxisOperator::Tensors;

/// left @ right, with matmul's rules.
Ids product(const Op& op, const at::Tensor& left, const at::Tensor& right) {
  Ids result = op.fresh();
  if (!left.defined() || !right.defined() || left.dim() == 0 || right.dim() == 0) return result;
  const Ids l = op.ids(left), r = op.ids(right);
  op.join(l.back(), r.size() == 1 ? r[0] : r[r.size() - 2]);
  for (const at::Tensor& operand : {left, right}) op.tracker.drop(operand, l.back());
  std::size_t end = result.size();
  if (r.size() > 1 && end > 0) result[--end] = r.back();
  if (l.size() > 1 && end > 0) result[--end] = l[l.size() - 2];
  for (const auto& [ids, tensor] : {std::pair{&l, &left}, {&r, &right}}) {
    for (std::size_t k = 3; k <= ids->size() && k - 2 <= end; ++k) {
      if (tensor->size(-static_cast<std::int64_t>(k)) == op.out.sizes()[end - (k - 2)])
        op.join(result[end - (k - 2)], (*ids)[ids->size() - k]);
    }
  }
  const bool kept = std::any_of(result.begin(), result.end(), [&](Axes::Id id) {
    return op.tracker.axes().root(id) == op.tracker.axes().root(l.back());
  });
  for (const at::Tensor& operand : {left, right}) {
    if (kept) op.tracker.mix(operand, l.back());
  }
  return result;
}

}  // namespace

Axes::Ids AxisOperator::broadcast(const Tensors& operands) const {
  Ids result = fresh();
  std::vector<bool> told(result.size());
  for (const at::Tensor& operand : operands) {
    const std::int64_t lead = out.dim() - operand.dim();
    if (lead < 0) continue;
    const Ids ids = this->ids(operand);
    for (std::size_t d = 0; d < ids.size(); ++d) {
      const std::size_t at = d + static_cast<std::size_t>(lead);
      if (operand.sizes()[d] != out.sizes()[at]) continue;
      if (told[at]) join(result[at], ids[d]);
      result[at] = ids[d];
      told[at] = true;
    }
  }
  return result;
}

Ids axes_of_product(const Op& op) { return product(op, op.tensor(0), op.tensor(1)); }

Ids axes_of_product_and_summand(const Op& op) {
  const Ids result = product(op, op.tensor(1), op.tensor(2));
  const Ids sum = op.broadcast({op.tensor(0)});
  for (std::size_t d = 0; d < result.size(); ++d) op.join(result[d], sum[d]);
  return result;
}

Ids axes_of_linear(const Op& op) {
  Ids result = op.ids(op.tensor(0));
  const Ids w = op.ids(op.tensor(1));
  if (result.empty() || w.empty()) return op.fresh();
  op.join(result.back(), w.back());
  op.tracker.drop(op.tensor(0), result.back());
  result.pop_back();
  if (w.size() == 2) result.push_back(w[0]);
  return result;
}

Ids axes_of_bilinear(const Op& op) {
  Ids result = op.ids(op.tensor(0));
  const Ids right = op.ids(op.tensor(1));
  if (result.size() != right.size() || result.size() != static_cast<std::size_t>(op.out.dim())) return op.fresh();
  for (std::size_t d = 0; d + 1 < result.size(); ++d) op.join(result[d], right[d]);
  result.back() = op.fresh().back();
  return result;
}

Ids axes_of_einsum(const Op& op) {
  Ids result = op.fresh();
  const Tensors operands = tensors_at(op.args, 1);
  const auto parsed = op.args[0].isString() ? parse_einsum(op.args[0].toStringRef()) : std::nullopt;
  if (!parsed || parsed->first.size() != operands.size()) return result;
  std::unordered_map<char, Axes::Id> by_label;
  const auto meet = [&](const std::string& labels, const Ids& ids) {
    for (std::size_t d = 0; d < std::min(labels.size(), ids.size()); ++d) {
      const auto [known, is_new] = by_label.try_emplace(labels[d], ids[d]);
      if (!is_new) op.join(known->second, ids[d]);
    }
  };
  for (std::size_t i = 0; i < operands.size(); ++i) meet(parsed->first[i], op.ids(operands[i]));
  for (std::size_t d = 0; d < std::min(parsed->second.size(), result.size()); ++d) {
    if (const auto known = by_label.find(parsed->second[d]); known != by_label.end()) result[d] = known->second;
  }
  return result;
}

Ids axes_of_attention(const Op& op) {
  if (op.operands().size() < 3) return op.fresh();
  Ids result = op.ids(op.tensor(0));
  const Ids key = op.ids(op.tensor(1)), value = op.ids(op.tensor(2));
  if (op.place > 0 || result.size() < 2 || key.size() != result.size() || value.size() != result.size())
    return op.fresh();
  for (std::size_t d = 0; d + 2 < result.size(); ++d) {
    op.join(result[d], key[d]);
    op.join(result[d], value[d]);
  }
  op.join(key[key.size() - 2], value[key.size() - 2]);
  op.join(key.back(), result.back());
  result.back() = value.back();
  return result;
}

}  // namespace dds::hooks
