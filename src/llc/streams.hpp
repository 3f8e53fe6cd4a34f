// Streams of an estimate's seed beside those of its chains, which count from 0.
#pragma once

#include <cstdint>

namespace dds {

inline constexpr std::uint64_t kPilotStream = 1ull << 40;
inline constexpr std::uint64_t kProbeStream = 1ull << 42;            ///< samples that the curvature is looked at on
inline constexpr std::uint64_t kCurvatureStream = kProbeStream + 1;  ///< directions of power iteration
inline constexpr std::uint64_t kReplicaStream = kProbeStream + 2;    ///< the point where replicas are compared
inline constexpr std::uint64_t kElsewhereStream = kProbeStream + 3;  ///< points to look for what no chain saw
inline constexpr std::uint64_t kDealStream = kProbeStream + 4;       ///< how samples are dealt into batches
inline constexpr std::uint64_t kNoiseStream = kProbeStream + 5;      ///< batches that the noise is measured on

}  // namespace dds
