// Lookups: row p of delta belongs to the entry of the weight that was looked up there.
#include <ATen/TensorOperators.h>
#include <ATen/ops/_embedding_bag.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/zeros.h>

#include <tuple>

#include "src/per_sample/operator_uses.hpp"

namespace dds::hooks {
namespace {

void add_embedding(const Run& run, Uses& uses) {
  const Arguments args = run.op.args();
  const at::Tensor& weight = run.op.weight;
  const at::Tensor indices = run.call.inputs.front();
  at::Tensor delta = run.delta;
  const std::int64_t padding = int_at(args, 2, -1);
  if (padding >= 0) delta = delta * indices.ne(padding).unsqueeze(-1);
  if (bool_at(args, 3, false)) {  // divided by how often the batch has a token
    uses.mark(Status::Coupled, "its gradient is scaled by the frequency of a token in the batch");
    delta =
        delta / at::bincount(indices.flatten(), {}, weight.size(0)).to(delta.dtype()).index({indices}).unsqueeze(-1);
  }
  const at::Tensor rows = rows_of(delta, run.rows, {delta.dim() - 1}).squeeze(1);
  const at::Tensor tokens = rows_of(indices.unsqueeze(-1), run.rows, {delta.dim() - 1}).squeeze(1).squeeze(-1);
  uses.add(weight, Lookup{rows, tokens, weight.size(0)});
}

/// The bag of each index.
at::Tensor bags_of(const Run& run, const at::Tensor& indices) {
  const at::Tensor starts = tensor_at(run.op.args(), 2).narrow(0, 0, run.delta.size(0));
  return at::searchsorted(starts, at::arange(indices.size(0), starts.options()), false, /*right=*/true).sub(1);
}

/// Of each bag, padding left out.
at::Tensor entries_per_bag(const Run& run, const at::Tensor& indices) {
  const at::Tensor counts = indices.ne(int_at(run.op.args(), 8, -1)).to(run.delta.dtype());
  return at::zeros({run.delta.size(0)}, counts.options()).index_add(0, bags_of(run, indices), counts);
}

/// A bag that gives the largest of its entries.
void add_largest(const Run& run, Uses& uses) {
  const Arguments args = run.op.args();
  const at::Tensor& weight = run.op.weight;
  const at::Tensor indices = run.call.inputs.front(), offsets = tensor_at(args, 2), weights = tensor_at(args, 6);
  const at::Tensor best = std::get<3>(at::_embedding_bag(weight.detach(), indices, offsets, false, int_at(args, 4, 0),
                                                         false, weights, bool_at(args, 7, false), int_at(args, 8, -1)));
  // An empty bag gives zeros, which are nobody's.
  const at::Tensor some = entries_per_bag(run, indices).gt(0).unsqueeze(1);
  const at::Tensor rows = rows_of(run.delta.mul(some), run.rows, {1}).squeeze(1),
                   chosen = rows_of(best, run.rows, {1}).squeeze(1).to(at::kLong);
  const std::int64_t width = weight.size(1);
  const at::Tensor place = chosen.mul(width).add(at::arange(width, chosen.options()));
  uses.add(weight, Dense{at::zeros({run.rows.samples, weight.numel()}, rows.options())
                             .scatter_add(1, place.clamp_min(0).flatten(1), rows.flatten(1))});
}

void add_embedding_bag(const Run& run, Uses& uses) {
  const Arguments args = run.op.args();
  const at::Tensor& weight = run.op.weight;
  const at::Tensor indices = run.call.inputs.front(), weights = tensor_at(args, 6);
  const std::int64_t mode = int_at(args, 4, 0), padding = int_at(args, 8, -1), bags = run.delta.size(0);
  constexpr std::int64_t kMean = 1, kMax = 2;
  if (mode == kMax) return add_largest(run, uses);
  const at::Tensor bag = bags_of(run, indices);
  const at::Tensor counts = indices.ne(padding).to(run.delta.dtype());  // padding is no entry of a bag
  at::Tensor share = counts;
  if (weights.defined()) share = share * weights;
  if (mode == kMean) {
    share = share / entries_per_bag(run, indices).clamp_min(1).index_select(0, bag);
  }
  const at::Tensor rows = run.delta.index_select(0, bag) * share.unsqueeze(1);
  // The sample of a bag is that of its entries.
  SampleRows entries = run.rows;
  entries.order = SampleRows::Order::Scattered;
  entries.owner = owners(run.rows, bags, indices.options().dtype(at::kLong)).index_select(0, bag);
  uses.add(weight, Lookup{by_sample(rows, 0, entries), by_sample(indices.to(at::kLong), 0, entries), weight.size(0)});
}

}  // namespace

void add_uses(const kind::Embedding& op, const Run& run, Uses& uses) {
  op.bag ? add_embedding_bag(run, uses) : add_embedding(run, uses);
}

}  // namespace dds::hooks
