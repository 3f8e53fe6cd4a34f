#include "src/reading/read.hpp"

#include <c10/core/ScalarType.h>

#include <exception>

#include "src/base/check.hpp"
#include "src/model/problem.hpp"
#include "src/reading/checkpoint_rows.hpp"
#include "src/reading/signature_batch.hpp"
#include "src/rows/over_ranks.hpp"
#include "src/rows/signature_options.hpp"

namespace dds {
namespace {

void check(const ReadOptions& options) {
  check_at_least<std::int64_t>("read", "batch_size", options.batch_size(), 1);
  check_at_least<std::int64_t>("read", "draws", options.draws(), 1);
  check(options.signatures(), "read");
}

std::vector<Signature> signatures_of(const ReadingRows& rows, const ReadOptions& options,
                                     const FixedRanks* fixed_ranks) {
  std::vector<Signature> signatures = read_signatures(rows, options.signatures(), Source::Read, fixed_ranks);
  for (Signature& signature : signatures) {
    if (options.fp64() && signature.dtype && signature.dtype != at::kDouble) {
      signature.status |= Status::Fp64Unavailable;
    }
  }
  return signatures;
}

/// Over several ranks, which all hear of what went wrong on any.
std::vector<Signature> read_over_ranks(Tree& tree, const Problem& problem, const ReadOptions& options,
                                       const ReadContext& context) {
  ReadingRows rows;
  try {
    if (context.error) std::rethrow_exception(context.error);
    check(options);
    check(problem, "read");
    if (tree.loss().empty()) rows = checkpoint_rows(problem, options);
  } catch (...) {
    rows.fail();
  }
  const SignatureOptions& signatures = options.signatures();
  if (!join_rows_or_throw(tree, *signatures.ranks(), signatures, rows)) return {};
  return signatures_of(rows, options, context.fixed_ranks);
}

}  // namespace

std::vector<Signature> read(const Problem& problem, const ReadOptions& options) { return read(problem, options, {}); }

std::vector<Signature> read(const Problem& problem, const ReadOptions& options, const ReadContext& context) {
  if (context.tree) return read_over_ranks(*context.tree, problem, options, context);
  if (const RanksPtr& ranks = options.signatures().ranks()) {
    Tree tree(*ranks);
    return read_over_ranks(tree, problem, options, context);
  }
  if (context.error) std::rethrow_exception(context.error);
  check(options);
  check(problem, "read");
  return signatures_of(checkpoint_rows(problem, options), options, context.fixed_ranks);
}

}  // namespace dds
