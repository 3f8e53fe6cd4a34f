// All paths of the experiment, and what is concluded from them.
#pragma once

#include <functional>
#include <map>

#include "experiments/harness/figures.hpp"
#include "experiments/harness/harness.hpp"
#include "experiments/volume_identity/path.hpp"

namespace volume_identity {

inline constexpr std::int64_t kDepths[] = {2, 4, 6};
inline constexpr std::int64_t kMostDead = 4;

class Study {
 public:
  explicit Study(std::vector<Path> paths) : paths_(std::move(paths)) {}

  const std::vector<Path>& paths() const { return paths_; }
  /// The paths of one family, those of `depth` and `dead` only unless they are 0.
  std::vector<const Path*> of(const std::string& family, std::int64_t depth = 0, std::int64_t dead = 0) const;
  /// By seed: slope of the observable at r = `dead` over that at r = 1.
  std::vector<double> ratios(const std::string& family, std::int64_t depth, std::int64_t dead,
                             const dds::SeriesId& series, Observable observable) const;

 private:
  std::vector<Path> paths_;
};

/// The series of a path on which its r is known: all layers of a deep linear network on the activation side, all but
/// the last on the Fisher side; of a planted network those of the layer that it is planted in.
bool applies(const Path& path, const dds::SeriesId& series);

std::vector<dds::experiments::Claim> claims(const Study& study);

/// Writes slopes.csv, counts.csv, observables.csv and figures.html into `out`.
void present(const Study& study, const std::filesystem::path& out);

}  // namespace volume_identity
