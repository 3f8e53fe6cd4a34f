#include "hooks/axis_rules.hpp"

#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>

#include <algorithm>
#include <string>
#include <unordered_map>
#include <vector>

#include "hooks/axis_operator.hpp"
#include "hooks/features.hpp"

namespace dds::hooks {
namespace {

using Op = AxisOperator;
using Ids = Axes::Ids;
using Tensors = AxisOperator::Tensors;
using AxisRule = Ids (*)(const Op&);

Ids elementwise(const Op& op) { return op.broadcast(op.operands()); }

/// As the first operand, or at least in its first dimension.
Ids like_first(const Op& op) {
  const at::Tensor in = op.tensor(0);
  Ids result = op.fresh();
  if (!in.defined() || in.dim() != op.out.dim() || in.dim() == 0) return result;
  const Ids ids = op.ids(in);
  if (in.sizes() == op.out.sizes()) return ids;
  if (in.size(0) == op.out.size(0)) result[0] = ids[0];
  return result;
}

/// softmax over a dimension: each entry along it goes into all.
Ids along(const Op& op) {
  const at::Tensor in = op.tensor(0);
  if (op.args.size() > 1 && op.args[1].isInt() && in.defined() && in.dim() > 0)
    op.tracker.mix(in, op.ids(in)[static_cast<std::size_t>(from_front(op.args[1].toInt(), in.dim()))]);
  return like_first(op);
}

/// (sample, channel, space...): of space it is not followed what becomes.
Ids first_dimension(const Op& op) {
  Ids result = op.fresh();
  const at::Tensor in = op.tensor(0);
  if (in.defined() && in.dim() > 0 && in.dim() == op.out.dim() && in.size(0) == op.out.size(0))
    result[0] = op.ids(in)[0];
  return result;
}

Ids reduced(const Op& op) {
  const at::Tensor in = op.tensor(0);
  Ids result = op.fresh();
  if (!in.defined() || op.args.size() < 2 || op.out.dim() == 0) return result;
  if (op.args[1].isTensor()) return elementwise(op);  // the larger of two tensors
  std::vector<std::int64_t> dims;
  if (op.args[1].isIntList()) dims = op.args[1].toIntVector();
  if (op.args[1].isInt()) dims = {op.args[1].toInt()};
  for (std::int64_t& dim : dims) dim = from_front(dim, in.dim());
  const bool kept = op.out.dim() == in.dim();
  if (dims.empty() || (!kept && op.out.dim() + std::ssize(dims) != in.dim())) return result;
  const Ids ids = op.ids(in);
  std::size_t at = 0;
  for (std::int64_t d = 0; d < in.dim(); ++d) {
    const bool gone = std::find(dims.begin(), dims.end(), d) != dims.end();
    if (gone) op.tracker.drop(in, ids[static_cast<std::size_t>(d)]);
    if (!gone) result[at] = ids[static_cast<std::size_t>(d)];
    if (!gone || kept) ++at;
  }
  return result;
}

Ids sequence(const Op& op) {
  Ids result = op.fresh();
  const at::Tensor in = op.tensor(0);
  if (!in.defined() || in.dim() != 3 || op.args.size() < 4 || !op.args[3].isBool() || op.out.dim() != 3) return result;
  const Ids ids = op.ids(in);
  const bool batch_first = bool_at(op.args, op.args.size() - 1, false);
  if (op.place == 0) return {ids[0], ids[1], result[2]};
  return {result[0], ids[batch_first ? 0 : 1], result[2]};
}

Ids cell(const Op& op) {
  Ids result = op.fresh();
  const at::Tensor in = op.tensor(0);
  if (in.dim() == 2 && result.size() == 2) result[0] = op.ids(in)[0];
  return result;
}

Ids lookup(const Op& op) {
  Ids result = op.ids(op.tensor(1));
  if (op.out.dim() > 0) result.push_back(op.fresh().back());
  return result;
}

/// A bag is a row of indices, or what lies between two offsets.
Ids lookup_of_bags(const Op& op) {
  Ids result = op.fresh();
  const at::Tensor offsets = op.tensor(2);
  if (op.place > 0 || !offsets.defined() || result.empty()) return result;
  const Ids ids = op.ids(offsets);
  if (op.tracker.axes().have_data(ids) && offsets.size(0) == op.out.size(0)) result[0] = ids[0];
  return result;
}

/// (self, dim, index): as index, and along other dimensions as self too.
Ids gathered(const Op& op) {
  const at::Tensor self = op.tensor(0), index = op.tensor(2);
  if (!self.defined() || !index.defined() || index.dim() != self.dim()) return op.fresh();
  const Ids from = op.ids(self), result = op.ids(index);
  const std::int64_t along = from_front(int_at(op.args, 1, 0), self.dim());
  for (std::int64_t d = 0; d < self.dim(); ++d) {
    const auto at = static_cast<std::size_t>(d);
    if (d != along && self.size(d) == index.size(d)) op.join(from[at], result[at]);
  }
  return result;
}

/// (self, dim, index, source): as self, and along other dimensions as what is written into it.
Ids scattered(const Op& op) {
  const at::Tensor self = op.tensor(0);
  if (!self.defined()) return op.fresh();
  const Ids result = op.ids(self);
  const std::int64_t along = from_front(int_at(op.args, 1, 0), self.dim());
  for (const std::size_t place : {2, 3}) {
    const at::Tensor other = op.tensor(place);
    if (!other.defined() || other.dim() != self.dim()) continue;
    const Ids ids = op.ids(other);
    for (std::size_t d = 0; d < result.size(); ++d) {
      if (static_cast<std::int64_t>(d) != along && self.sizes()[d] == other.sizes()[d]) op.join(result[d], ids[d]);
    }
  }
  return result;
}

Ids selected(const Op& op) {
  const at::Tensor self = op.tensor(0), index = op.tensor(2);
  if (!self.defined() || !index.defined() || index.dim() != 1 || self.dim() == 0) return op.fresh();
  Ids result = op.ids(self);
  Axes::Id& along = result[static_cast<std::size_t>(from_front(int_at(op.args, 1, 0), self.dim()))];
  const Axes::Id chosen = op.ids(index)[0];
  if (op.tracker.axes().have_data({along})) op.tracker.axes().reorder(chosen);
  op.tracker.drop(self, along);
  along = chosen;
  return result;
}

/// x[..., index, ...]. Several indices side by side are one if the first counts from 0 on: log_p[arange(n), y].
Ids indexed(const Op& op) {
  const at::Tensor self = op.tensor(0);
  Ids result = op.fresh();
  Tensors indices;
  std::size_t first = 0, at = 0;
  bool apart = false;
  if (op.args.size() < 2 || !op.args[1].isList() || !self.defined()) return result;
  for (const c10::IValue& value : op.args[1].toListRef()) {
    if (value.isTensor() && value.toTensor().defined()) {
      if (indices.empty()) first = at;
      apart = apart || at != first + indices.size();
      indices.push_back(value.toTensor());
    }
    ++at;
  }
  const auto plain = [](const at::Tensor& index) { return index.dim() == 1 && index.scalar_type() == at::kLong; };
  if (indices.empty() || apart || !std::all_of(indices.begin(), indices.end(), plain)) return result;
  const Ids ids = op.ids(self);
  if (result.size() + indices.size() != ids.size() + 1) return result;
  for (std::size_t d = 0; d < result.size(); ++d) {
    if (d < first) result[d] = ids[d];
    if (d > first) result[d] = ids[d + indices.size() - 1];
  }
  const bool whole = indices.front().size(0) == self.sizes()[first] &&
                     at::equal(indices.front(), at::arange(indices.front().size(0), indices.front().options()));
  result[first] = whole ? ids[first] : op.ids(indices.front())[0];
  if (!whole && op.tracker.axes().have_data({ids[first]})) op.tracker.axes().reorder(result[first]);
  for (std::size_t i = 1; i < indices.size(); ++i) {
    if (indices[i].sizes() == indices.front().sizes()) op.join(result[first], op.ids(indices[i])[0]);
  }
  return result;
}

/// Tensors one behind the other, or on each other.
Ids joined(const Op& op) {
  const Tensors parts = tensors_at(op.args, 0);
  Ids result = op.fresh();
  const std::int64_t along = from_front(int_at(op.args, 1, 0), op.out.dim());
  for (const at::Tensor& part : parts) {
    const Ids ids = op.ids(part);
    const bool stacked = part.dim() + 1 == op.out.dim();
    if (!stacked && part.dim() != op.out.dim()) continue;
    for (std::size_t d = 0; d < result.size(); ++d) {
      const auto dim = static_cast<std::int64_t>(d);
      if (dim != along) op.join(result[d], ids[d - (stacked && dim > along ? 1 : 0)]);
    }
  }
  return result;
}

/// (output, target): one dimension of samples.
Ids loss(const Op& op) {
  const at::Tensor output = op.tensor(0), target = op.tensor(1);
  Ids result = op.fresh();
  if (op.place > 0 || !output.defined() || !target.defined() || output.dim() == 0 || target.dim() == 0) return result;
  if (output.sizes() == target.sizes() && result.size() == static_cast<std::size_t>(output.dim()))
    return elementwise(op);
  const Ids of_output = op.ids(output), of_target = op.ids(target);
  if (output.size(0) == target.size(0)) op.join(of_output[0], of_target[0]);
  if (!result.empty() && op.out.size(0) == output.size(0)) result[0] = of_output[0];
  return result;
}

Ids numbers(const Op& op) { return op.tracker.axes().add(op.out.dim(), false); }

/// Random numbers are data: noise that a generator makes samples of.
Ids random(const Op& op) {
  return op.operands().empty() || op.operands().front().is_same(op.out) ? op.tracker.axes().add_data(op.out.sizes())
                                                                        : like_first(op);
}

/// The same entries in another order along some dimensions: flip(self, dims), roll(self, shifts, dims), sort(self,
/// dim), topk(self, k, dim). What meets the old order again mixes the two.
Ids reordered(const Op& op) {
  const at::Tensor in = op.tensor(0);
  Ids result = op.fresh();
  const std::size_t place = op.name == "roll" || op.name == "topk" ? 2 : 1;
  if (!in.defined() || in.dim() == 0 || in.dim() != op.out.dim() || op.args.size() <= place) return result;
  std::vector<std::int64_t> dims{int_at(op.args, place, -1)};
  if (op.args[place].isIntList()) dims = op.args[place].toIntVector();
  const Ids ids = op.ids(in);
  for (std::int64_t d = 0; d < in.dim(); ++d) {
    const auto at = static_cast<std::size_t>(d);
    const bool moved =
        std::any_of(dims.begin(), dims.end(), [&](std::int64_t dim) { return from_front(dim, in.dim()) == d; });
    result[at] = moved ? op.tracker.axes().add(1, false).front() : ids[at];
    if (!moved) continue;
    op.tracker.axes().reorder(result[at]);
    op.tracker.drop(in, ids[at]);
  }
  return result;
}

struct Named {
  AxisRule rule;
  std::string_view names;  ///< of operators, with a space between
};

constexpr Named kRules[] = {
    {&elementwise,
     "relu relu6 gelu elu selu celu silu mish leaky_relu hardtanh hardswish hardsigmoid softplus softshrink "
     "hardshrink sigmoid log_sigmoid log_sigmoid_forward logit tanh sin cos tan asin acos atan atan2 sinh "
     "cosh exp exp2 expm1 log log1p log2 log10 sqrt rsqrt square pow float_power abs neg sign sgn reciprocal "
     "erf erfc erfinv round floor ceil trunc frac clamp clamp_min clamp_max clip threshold add sub rsub mul "
     "div true_divide floor_divide remainder fmod hypot xlogy copysign heaviside maximum minimum fmax fmin "
     "where masked_fill lerp addcmul addcdiv eq ne lt le gt ge logical_and logical_or logical_not logical_xor "
     "bitwise_and bitwise_or bitwise_not bitwise_xor isfinite isnan isinf nan_to_num to _to_copy type_as "
     "clone contiguous copy conj_physical polar complex prelu _prelu_kernel native_dropout dropout "
     "feature_dropout alpha_dropout zeros_like ones_like empty_like full_like rand_like randn_like"},
    {&along, "softmax _softmax log_softmax _log_softmax cumsum cumprod"},
    {&like_first,
     "triu tril layer_norm native_layer_norm rms_norm _fused_rms_norm batch_norm native_batch_norm "
     "_batch_norm_impl_index cudnn_batch_norm miopen_batch_norm instance_norm group_norm native_group_norm "
     "normalize rrelu"},
    {&first_dimension,
     "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution _convolution "
     "max_pool1d max_pool2d max_pool3d avg_pool1d avg_pool2d avg_pool3d max_pool1d_with_indices "
     "max_pool2d_with_indices max_pool3d_with_indices adaptive_avg_pool1d adaptive_avg_pool2d "
     "adaptive_avg_pool3d _adaptive_avg_pool2d _adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d "
     "adaptive_max_pool3d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d "
     "upsample_bilinear2d upsample_trilinear3d upsample_bicubic2d pixel_shuffle pixel_unshuffle "
     "channel_shuffle constant_pad_nd reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d "
     "glu multinomial"},
    {&reduced, "sum nansum mean nanmean amax amin max min argmax argmin logsumexp var std prod any all median"},
    {&axes_of_product, "matmul mm bmm mv dot"},
    {&axes_of_product_and_summand, "addmm baddbmm addmv"},
    {&axes_of_linear, "linear"},
    {&axes_of_bilinear, "bilinear"},
    {&axes_of_einsum, "einsum"},
    {&axes_of_attention, "scaled_dot_product_attention"},
    {&sequence, "lstm gru rnn_tanh rnn_relu"},
    {&cell, "lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell"},
    {&lookup, "embedding"},
    {&lookup_of_bags, "embedding_bag"},
    {&gathered, "gather"},
    {&scattered, "scatter scatter_add index_add index_copy index_fill"},
    {&reordered, "flip roll sort argsort topk"},
    {&selected, "index_select"},
    {&indexed, "index"},
    {&joined, "cat concat stack"},
    {&loss,
     "nll_loss nll_loss_nd nll_loss_forward nll_loss2d nll_loss2d_forward cross_entropy_loss mse_loss l1_loss "
     "smooth_l1_loss huber_loss binary_cross_entropy binary_cross_entropy_with_logits soft_margin_loss kl_div "
     "poisson_nll_loss multi_margin_loss"},
    {&numbers, "new_zeros new_ones new_full new_empty new_empty_strided"},
    {&random, "rand randn randint randperm normal uniform bernoulli poisson random"},
};

std::unordered_map<std::string_view, AxisRule> rules_by_name() {
  std::unordered_map<std::string_view, AxisRule> rules;
  for (auto [rule, names] : kRules) {
    while (!names.empty()) {
      const std::size_t end = std::min(names.find(' '), names.size());
      rules.emplace(names.substr(0, end), rule);
      names.remove_prefix(std::min(end + 1, names.size()));
    }
  }
  return rules;
}

}  // namespace

std::optional<Ids> axes_by_rule(std::string_view name, Arguments args, const at::Tensor& output, std::size_t place,
                                AxisTracker& tracker) {
  static const std::unordered_map<std::string_view, AxisRule> rules = rules_by_name();
  const auto rule = rules.find(name);
  if (rule == rules.end()) return std::nullopt;
  Ids ids = rule->second({name, args, output, place, tracker});
  if (std::ssize(ids) != output.dim()) return std::nullopt;
  return ids;
}

/// A dimension of a view is that of the whole which has its size and its step in memory. A step of 0 repeats.
Ids axes_of_view(std::string_view name, const at::Tensor& whole, const at::Tensor& view, AxisTracker& tracker) {
  const Ids ids = tracker.axes_of(whole);
  Ids result = tracker.axes().add(view.dim(), tracker.axes().have_data(ids));
  const bool same_type = whole.scalar_type() == view.scalar_type();
  if (!same_type) {  // the parts of complex numbers stand in the last dimension
    const bool parts = name == "view_as_real" || name == "view_as_complex";
    for (std::size_t d = 0; parts && d < std::min(ids.size(), result.size()); ++d) result[d] = ids[d];
    return result;
  }
  for (std::size_t d = 0; d < result.size(); ++d) {
    const std::int64_t size = view.sizes()[d], step = view.strides()[d];
    std::size_t found = 0;
    for (std::size_t from = 0; from < ids.size(); ++from) {
      if (size < 2 || step == 0 || whole.sizes()[from] != size || whole.strides()[from] != step) continue;
      result[d] = ids[from];
      ++found;
    }
    if (found > 1) result[d] = tracker.axes().add(1, tracker.axes().have_data(ids)).front();
  }
  return result;
}

}  // namespace dds::hooks
