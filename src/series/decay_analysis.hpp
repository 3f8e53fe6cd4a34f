// The count of the directions that die, on part of one series of spectra. With y_j = log10 lambda_j of the readings and
// x = y_k, the log of lambda_min+:
//
//   y_j = c_j + rho_j x,   j = 1 .. k
//
// Each eigenvalue dies, stands still, or does neither and leaves the count open (include/dds/decay.hpp).
#pragma once

#include <dds/decay.hpp>
#include <dds/fit.hpp>
#include <span>

namespace dds {

class DecayCounter::Analysis {
 public:
  /// On the readings of `series` from number `begin` on.
  Analysis(const Series& series, std::size_t begin, const DecayOptions& options);

  DecayCount count(const SeriesId& id) const;

 private:
  using Values = std::vector<double>;

  /// What the readings say of one eigenvalue. One that dies has no level.
  struct Fate {
    bool sunk = false;            ///< it reached the floor, from well above it
    std::optional<LineFit> rate;  ///< rho_j, where the eigenvalue keeps it
    std::optional<double> level;  ///< median of y_j, where it stands still
    bool rises = false;           ///< it ends above its start, and never falls on the way
    bool falls = false;           ///< it does not die, and is lower at the end than at the start
    bool dies() const { return sunk || rate; }
    bool told() const { return dies() || level || rises; }
  };

  Values above_floor(std::size_t j) const;
  Values clear_of_floor(std::size_t j) const;
  bool sinks(std::size_t j) const;
  bool falls(const Values& y) const;
  bool stays_down(std::size_t j) const;
  bool is_deep(std::size_t j) const;
  bool falls_in_time(std::size_t j) const;
  bool falls_with_all(std::size_t j) const;
  bool rarely_rises(std::size_t j) const;
  bool falls_along_x(std::size_t j, const LineFit& rate) const;
  std::span<const Reading> clear_of_all() const;
  std::optional<LineFit> line_over_all(std::size_t j) const;
  double drift() const;
  bool creeps(std::size_t j) const;
  double hidden_fall(const std::vector<Fate>& fates) const;
  bool volume_is_told(const std::vector<Fate>& fates) const;
  void drop_what_wanders(std::vector<Fate>& fates) const;
  Fate fate_of(std::size_t j) const;
  void set_volume_ratio(DecayCount& count) const;
  DecayStatus status(const DecayCount& count, const std::vector<Fate>& fates, bool matrix) const;

  const DecayOptions& options_;
  const Series& series_;
  std::span<const Reading> readings_;
  std::size_t k_;
  std::span<const Reading> clear_;  ///< those before the first in which one of the k is near the floor: lines are
                                    ///< fitted to them
  Values x_;                        ///< over clear_
  std::optional<double> decades_;   ///< that x falls by
  bool fitted_ = false;             ///< it falls by enough for rates
  double drift_ = 0;                ///< of what stands still, by decade that x falls
};

}  // namespace dds
