// The table of operators: which rule says what becomes of operands. Layers and losses of hooks/operators.cpp have the
// rule of their kind there, and need no line here.
//
// A new operator: add its name to the line of what works like it. If there is none, write a rule in the file that
// hooks/rule.hpp names, which adds a link for each operand (hooks/meaning.hpp), and give it a line.
#include <ATen/ops/any.h>
#include <ATen/ops/eq.h>
#include <ATen/ops/ne.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <unordered_map>

#include "hooks/features.hpp"
#include "hooks/pass_graph.hpp"
#include "hooks/rule.hpp"

namespace dds::hooks {
namespace {

enum class Tells {
  All,
  Counts,  ///< what dimensions count, but nothing of ranks
};

struct Line {
  Describe rule;
  std::string_view names;  ///< of operators, with a space between
  Tells tells = Tells::All;
};

constexpr Line kTable[] = {
    // ---- entry by entry ----
    {&rules::entries,
     "relu6 gelu tanh sigmoid silu elu selu celu softplus mish hardtanh hardswish hardsigmoid log_sigmoid exp exp2 log "
     "log2 log10 log1p expm1 sqrt rsqrt sin cos tan asin acos atan sinh cosh erf erfc reciprocal logit alpha_dropout "
     "feature_alpha_dropout rrelu rrelu_with_noise native_dropout"},
    {&rules::homogeneous_entries, "relu leaky_relu abs _prelu_kernel"},
    {&rules::entries_of_all, "atan2 eq ne lt le gt ge logical_and logical_or logical_not floor_divide hypot"},
    {&rules::clips,
     "clamp clamp_min clamp_max clip floor ceil round trunc frac sign softshrink hardshrink threshold nan_to_num "
     "maximum "
     "minimum fmod remainder lerp addcmul addcdiv xlogy"},
    {&rules::counted_entries,
     "log_sigmoid_forward float_power sgn erfinv fmax fmin copysign heaviside logical_xor bitwise_and bitwise_or "
     "bitwise_not bitwise_xor isfinite isnan isinf conj_physical polar complex lgamma digamma logaddexp logaddexp2 "
     "sinc "
     "i0 asinh acosh atanh angle deg2rad rad2deg special_entr special_erfcx special_i0e special_i1 special_log_ndtr "
     "special_ndtri special_xlog1py bucketize polygamma requires_grad retain_grad",
     Tells::Counts},
    {&rules::same_entries,
     "neg clone contiguous to _to_copy type_as alias detach positive float double half lift_fresh pin_memory"},
    {&rules::dropout, "dropout feature_dropout"},
    {&rules::sum, "add sub rsub subtract"},
    {&rules::product, "mul multiply div divide true_divide"},
    {&rules::power, "pow square"},
    {&rules::masked, "where masked_fill"},
    {&rules::copied, "copy"},
    {&rules::softmax, "softmax _softmax log_softmax _log_softmax"},
    {&rules::counted_dims, "triu tril", Tells::Counts},
    {&rules::counted_norm,
     "_fused_rms_norm native_batch_norm _batch_norm_impl_index cudnn_batch_norm miopen_batch_norm native_group_norm",
     Tells::Counts},
    {&rules::counted_samples,
     "max_pool1d_with_indices max_pool2d_with_indices max_pool3d_with_indices _adaptive_avg_pool2d "
     "_adaptive_avg_pool3d "
     "pixel_shuffle pixel_unshuffle channel_shuffle im2col col2im grid_sampler grid_sampler_2d grid_sampler_3d "
     "affine_grid_generator",
     Tells::Counts},

    // ---- arrangements and choices ----
    {&rules::reshape,
     "view reshape _reshape_alias _unsafe_view flatten unflatten unsqueeze squeeze view_as reshape_as ravel"},
    {&rules::permutation, "permute transpose t swapaxes swapdims"},
    {&rules::expansion, "expand expand_as broadcast_to"},
    {&rules::choice, "select narrow slice split split_with_sizes chunk unbind tensor_split unsafe_split unsafe_chunk"},
    {&rules::indexing, "index index_select"},
    {&rules::gathering, "gather", Tells::Counts},
    {&rules::scattering, "scatter scatter_add index_add index_copy index_fill", Tells::Counts},
    {&rules::filling, "index_put _index_put_impl masked_scatter", Tells::Counts},
    {&rules::repetition, "repeat repeat_interleave"},
    {&rules::concatenation, "cat concat concatenate stack"},

    // ---- over a dimension, or along it ----
    {&rules::reduction, "sum mean"},
    {&rules::counted_reduction, "nansum nanmean argmax argmin prod any all nanmedian mode", Tells::Counts},
    {&rules::variance, "var std var_mean std_mean"},
    {&rules::extreme, "max min amax amin median"},
    {&rules::length, "norm linalg_vector_norm"},
    {&rules::length, "kthvalue", Tells::Counts},
    {&rules::log_of_sum, "logsumexp"},
    {&rules::running, "cumsum"},
    {&rules::running, "cumprod cummax cummin logcumsumexp", Tells::Counts},
    {&rules::blended, "renorm _fft_r2c _fft_c2r _fft_c2c", Tells::Counts},
    {&rules::of_matrices,
     "inverse linalg_inv linalg_inv_ex linalg_cholesky linalg_cholesky_ex linalg_solve linalg_solve_ex "
     "_linalg_solve_ex linalg_solve_triangular matrix_exp linalg_matrix_exp linalg_matrix_power det _linalg_det "
     "slogdet "
     "_linalg_slogdet linalg_eigh _linalg_eigh linalg_svd _linalg_svd linalg_qr",
     Tells::Counts},
    {&rules::turned, "flip roll"},
    {&rules::sorted, "sort argsort topk"},
    {&rules::mixture,
     "constant_pad_nd pad reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d avg_pool1d avg_pool2d "
     "avg_pool3d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d upsample_nearest1d upsample_nearest2d "
     "upsample_nearest3d upsample_linear1d upsample_bilinear2d upsample_bicubic2d upsample_trilinear3d"},
    {&rules::anything,
     "max_pool1d max_pool2d max_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d glu one_hot "
     "_weight_norm _weight_norm_interface"},

    // ---- products and losses that are no layers ----
    {&rules::dot, "dot", Tells::Counts},
    {&rules::distances, "cdist _cdist_forward", Tells::Counts},
    {&rules::attention, "scaled_dot_product_attention"},
    {&rules::loss, "multi_margin_loss multilabel_margin_loss hinge_embedding_loss margin_ranking_loss"},
    {&rules::loss, "nll_loss_forward nll_loss2d_forward", Tells::Counts},

    // ---- made of nothing ----
    {&rules::fresh_like, "rand_like randn_like"},
    {&rules::room_like, "empty_like"},
    {&rules::constant, "new_empty"},
    {&rules::constant, "new_empty_strided", Tells::Counts},
    {&rules::fresh, "exponential"},
    {&rules::filled, "fill zero zeros ones full"},
    {&rules::filled_like, "zeros_like ones_like full_like"},
    {&rules::filled_anew, "new_zeros new_ones new_full"},
    {&rules::random, "normal uniform random randperm multinomial"},
    {&rules::random, "rand randn randint poisson", Tells::Counts},
    {&rules::random_entries, "bernoulli"},
};

/// By bare names.
struct Known {
  std::unordered_map<std::string_view, const Line*> lines;
  std::unordered_map<std::string_view, const Operator*> kinds;  ///< of those that have no line

  Known() {
    for (const Line& line : kTable) {
      std::string_view names = line.names;
      while (!names.empty()) {
        const std::size_t end = std::min(names.find(' '), names.size());
        lines.emplace(names.substr(0, end), &line);
        names.remove_prefix(std::min(end + 1, names.size()));
      }
    }
    for (const Operator& entry : all_operators()) kinds.emplace(bare_name(entry.name), &entry);
  }
};

const Known& known() {
  static const Known all;
  return all;
}

const Line* line_of(std::string_view name) {
  const auto found = known().lines.find(name);
  return found == known().lines.end() ? nullptr : found->second;
}

const Operator* kind_of(std::string_view name) {
  const auto found = known().kinds.find(name);
  return found == known().kinds.end() ? nullptr : found->second;
}

}  // namespace

bool is_described(std::string_view name) {
  const Line* line = line_of(name);
  return line ? line->tells == Tells::All : kind_of(name) != nullptr;
}

bool describe(const Ended& ended, Meaning& meaning) {
  Rule rule(ended, meaning);
  meaning.kind = Meaning::Kind::Sum;
  if (const Line* line = line_of(ended.name)) {
    const bool told = !(rule.ranks() && line->tells == Tells::Counts) && line->rule(rule);
    return told && !rule.lost;
  }
  const Operator* kind = kind_of(ended.name);
  return kind && rules::by_kind(rule, *kind) && !rule.lost;
}

// ---- what rules work with ----

namespace {

/// The entries of a small tensor in the memory of this machine; null for others.
template <class Type>
const Type* entries_here(const at::Tensor& tensor) {
  const bool here = tensor.is_cpu() && tensor.layout() == at::kStrided && tensor.is_contiguous() &&
                    tensor.scalar_type() == c10::CppTypeToScalarType<Type>::value && tensor.numel() <= 65'536;
  return here ? static_cast<const Type*>(tensor.data_ptr()) : nullptr;
}

/// Whether is(entry) is true of some.
template <class Is>
std::optional<bool> any_here(const at::Tensor& tensor, const Is& is) {
  const std::int64_t count = tensor.numel();
  if (const auto* floats = entries_here<float>(tensor)) return std::any_of(floats, floats + count, is);
  if (const auto* doubles = entries_here<double>(tensor)) return std::any_of(doubles, doubles + count, is);
  return std::nullopt;
}

const at::Tensor& flag(bool set) {
  static const at::Tensor yes = at::ones({}, at::kBool), no = at::zeros({}, at::kBool);
  return set ? yes : no;
}

}  // namespace

at::Tensor any_nonzero(const at::Tensor& tensor) {
  if (const auto known = any_here(tensor, [](auto entry) { return entry != 0; })) return flag(*known);
  return at::any(at::ne(tensor.detach(), 0));
}

at::Tensor any_zero(const at::Tensor& tensor) {
  if (const auto known = any_here(tensor, [](auto entry) { return entry == 0; })) return flag(*known);
  return at::any(at::eq(tensor.detach(), 0));
}

bool varies(const at::Tensor& tensor, int dim) { return tensor.layout() != at::kStrided || tensor.stride(dim) != 0; }

DimSources same_dims(const at::Tensor& tensor) {
  DimSources axes;
  for (int dim = 0; dim < static_cast<int>(tensor.dim()); ++dim) axes.push_back(same_dim(dim));
  return axes;
}

std::optional<NodeId> Rule::node_id(const at::Tensor& operand) const {
  const auto same = [&](const at::Tensor& each) { return each.is_same(operand); };
  const auto found = std::find_if(ended.operands.begin(), ended.operands.end(), same);
  if (!ended.nodes || found == ended.operands.end()) return std::nullopt;
  return (*ended.nodes)[static_cast<std::size_t>(found - ended.operands.begin())];
}

const Node* Rule::node(const at::Tensor& operand) const {
  const auto id = node_id(operand);
  return id ? &(*ended.graph)[*id] : nullptr;
}

std::vector<int> Rule::dims_at(std::size_t place, const at::Tensor& of) const {
  std::vector<int> dims;
  if (!of.defined()) return dims;
  for (const std::int64_t dim : from_front(ints_at(args(), place, 1), of.dim())) dims.push_back(static_cast<int>(dim));
  return dims;
}

Link& Rule::add(const at::Tensor& operand, Link::Way way, DimSources axes) {
  const auto same = [&](const at::Tensor& each) { return each.is_same(operand); };
  const auto found = std::find_if(ended.operands.begin(), ended.operands.end(), same);
  lost = lost || found == ended.operands.end();
  Link& link = meaning.links.emplace_back();
  link.way = way;
  link.operand = lost ? 0 : static_cast<std::size_t>(found - ended.operands.begin());
  link.axes = axes.empty() ? none() : std::move(axes);
  return link;
}

Link& Rule::add_vector(const at::Tensor& vector, std::size_t dim) {
  DimSources axes = none();
  if (dim < axes.size() && vector.dim() == 1) axes[dim] = same_dim(0);
  return add(vector, Link::Way::Linear, std::move(axes));
}

DimSources Rule::broadcast(const at::Tensor& operand) const {
  DimSources axes = none();
  if (!operand.defined()) return axes;
  const std::int64_t lead = output().dim() - operand.dim();
  for (std::int64_t dim = std::max<std::int64_t>(0, lead); dim < output().dim(); ++dim) {
    if (operand.size(dim - lead) == output().size(dim))
      axes[static_cast<std::size_t>(dim)] = same_dim(static_cast<int>(dim - lead));
  }
  return axes;
}

DimSources Rule::leading(const at::Tensor& operand) const {
  DimSources axes = none();
  for (std::int64_t dim = 0; dim < std::min(output().dim() - 1, operand.dim()); ++dim) {
    if (operand.size(dim) != output().size(dim)) break;
    axes[static_cast<std::size_t>(dim)] = same_dim(static_cast<int>(dim));
  }
  return axes;
}

DimSources Rule::reduced(const at::Tensor& operand, const std::vector<int>& over) const {
  const bool kept = output().dim() == operand.dim();
  DimSources axes;
  for (int dim = 0; dim < static_cast<int>(operand.dim()); ++dim) {
    const bool gone = std::find(over.begin(), over.end(), dim) != over.end();
    if (!gone) axes.push_back(same_dim(dim));
    if (gone && kept) axes.emplace_back();
  }
  return std::ssize(axes) == output().dim() ? axes : none();
}

}  // namespace dds::hooks
