#include "src/monitor/joined_ranks.hpp"

#include <fmt/format.h>

#include <dds/error.hpp>
#include <exception>

#include "src/base/logger.hpp"
#include "src/rows/over_ranks.hpp"

namespace dds {

bool JoinedRanks::join(const SignatureOptions& options, ReadingRows& rows) {
  try {
    const JoinedRows joined = join_rows(tree_, *ranks_, options, rows);
    if (joined.all && !rows.error && !joined.error.empty()) {
      rows.error = std::make_exception_ptr(CaptureError(fmt::format("step {}: {}", rows.step, joined.error)));
    }
    return joined.all;
  } catch (const RankError&) {  // a loss, which is more than what else went wrong
    rows.error = std::make_exception_ptr(RankError(end_readings(rows.step)));
    return false;
  }
}

void JoinedRanks::pass_on_loss() {
  tree_.reduce([] { return Parcel(); }, [](Parcel) {});
}

std::vector<Signature> JoinedRanks::read(const Problem& problem, const ReadOptions& options, ReadContext context,
                                         std::int64_t step) {
  const bool known = lost_;
  const auto lost_here = [&] { return !known && !tree_.loss().empty(); };
  context.tree = &tree_;
  try {
    return dds::read(problem, options, context);
  } catch (const RankError&) {
    if (!lost_here()) throw;
    throw RankError(end_readings(step));
  } catch (...) {  // of this rank's own, beside which there may be a loss
    if (lost_here()) log::tell(Level::Error, end_readings(step));
    throw;
  }
}

std::string JoinedRanks::end_readings(std::int64_t step) {
  lost_ = true;
  const std::string what = fmt::format("step {} and those after it are not read: {}", step, tree_.loss());
  on_loss_(what);
  return "Monitor: " + what;
}

}  // namespace dds
