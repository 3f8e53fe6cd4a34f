// What one network gives on its way to a singular minimum, and what the experiment asks of it.
#pragma once

#include <cstdint>
#include <dds/dds.hpp>
#include <filesystem>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace volume_identity {

/// A network of known degeneracy, read at points along a path on which `dead` of its directions die.
struct Path {
  std::string family;      ///< how it was made: "equal", "amplitudes", "rates", "trained", "jitter", ...
  std::int64_t depth = 0;  ///< layers of a deep linear network; 0 for the others
  std::int64_t dead = 0;   ///< r
  std::uint64_t seed = 0;
  std::vector<double> scale;  ///< what drives the decay, by step: tau; tau^L, the root mean square of the dead singular
                              ///< values of the whole product, of a training; length of what is planted
  double low = 0, high = std::numeric_limits<double>::infinity();  ///< scales that lines are fitted over
  std::vector<dds::Signature> signatures;
  std::vector<dds::DecayCount> counts;  ///< by the library, from the readings alone

  const dds::DecayCount* count(const dds::SeriesId& series) const;
};

dds::SeriesId fisher_at(const std::string& layer, std::string_view kind);
/// "exact", "empirical", "" on the activation side.
std::string fisher_text(const dds::SeriesId& series);
dds::SeriesId activation_at(const std::string& layer);

using Observable = double (*)(const dds::Signature&);
double log_volume(const dds::Signature& signature);      ///< log10 of det+ over the fixed rank
double log_lambda_min(const dds::Signature& signature);  ///< log10 of the last eigenvalue of the fixed rank

/// (log10 scale, observable) of one series, at readings whose scale lies within [low, high] and whose fixed-rank
/// eigenvalues all lie above the floor.
struct Points {
  std::vector<double> x, y;
};
Points points(const Path& path, const dds::SeriesId& series, Observable observable, double low, double high);

/// Log-slope of the observable in the scale, over the path's window; empty where fewer than 5 points are in it.
std::optional<dds::LineFit> slope(const Path& path, const dds::SeriesId& series, Observable observable);

// ---- how paths are made ----

inline constexpr std::int64_t kWidth = 20;
inline constexpr double kNoise = 0.1;  // standard deviation of the labels' noise

/// Scales of the dead directions of a constructed network: tau for all; a_j tau; tau^(1, 1.5, 2, 2.5).
enum class Scales { Equal, Amplitudes, Rates };

/// Layers W_l = R_l S_l R_(l-1)^T with random rotations and S_l = diag(1, .., 1, dead scales), for tau from 0.2 down to
/// 0.02; read in fp64, with the exact true Fisher and the empirical one.
Path constructed(Scales scales, std::int64_t depth, std::int64_t dead, std::uint64_t seed);

/// What a training differs in.
enum class Training {
  Bridge,        ///< noisy labels, the dead coordinates of all layers start alike: the identity applies
  Jitter,        ///< the layers start unequally: what the flow conserves freezes some of them
  StrongJitter,  ///< three times as unequally: some freeze before they have lost half of their eigenvalue
  Noiseless,     ///< no noise: the empirical Fisher dies with the residual
};

std::string name_of(Training training);  // "trained", "jitter", "strong_jitter", "noiseless"

/// Mini-batch SGD on y = diag(1, .., 1, 0, .., 0) x + noise in a plain loop, logged by a monitor into `log`. The count
/// comes from that log alone.
Path trained(Training training, std::int64_t depth, std::int64_t dead, std::uint64_t seed, std::int64_t steps,
             const std::filesystem::path& log);

/// Redundancy planted into a network that is not linear. The labels come from the same network without it.
enum class Plant {
  ReluDying,      ///< hidden units of a ReLU perceptron, weights in and out scaled by tau
  ReluDuplicate,  ///< hidden units of a ReLU perceptron that come to equal others
  HeadLowRank,    ///< value dimensions of a transformer's head, rows of W_V and columns of W_O scaled by tau
};
struct PlantOptions {
  Plant plant;
  bool trained;  ///< the planted weights decay under a penalty while the network trains on; else a sweep
};
Path planted(const PlantOptions& options, std::int64_t dead, std::uint64_t seed);
/// The series on which the planted directions are counted.
std::vector<dds::SeriesId> planted_series(Plant plant);

}  // namespace volume_identity
