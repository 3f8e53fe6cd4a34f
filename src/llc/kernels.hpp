// The elementwise work of a chain's step on the CPU, fused: drift, noise, move and the sums that are taken along, in
// one pass over the weights. LibTorch's own normal_ costs more than a small network's whole backward pass.
//
// Every function gives the same bits whatever the instruction set it runs with: no contraction, fixed orders of sums.
#pragma once

#include <cstdint>
#include <vector>

namespace dds::kernels {

/// Weights are worked on in blocks of so many.
inline constexpr std::int64_t kBlock = 256;

/// Where a chain's random numbers come from: Philox4x32-10 (Salmon et al., SC 2011), a function of key and counter. The
/// numbers of a step depend on nothing but these.
struct RandomKey {
  std::uint64_t key = 0;      ///< of the chain
  std::uint64_t step = 0;     ///< of the chain
  std::uint32_t purpose = 0;  ///< noise, acceptance, samples of a mini-batch
};

/// Four random 32-bit words: Philox4x32-10 of the counter (index, step, step >> 32, purpose).
void words(const RandomKey& key, std::uint32_t index, std::uint32_t out[4]);

/// Standard normal numbers `first` to `first + count - 1` of the step; `first` is a multiple of kBlock. Box-Muller in
/// fp32: relative error 1e-6, |x| at most 5.9, whatever type the chain has: both are far below any chain's own error.
void normals(const RandomKey& key, std::int64_t first, std::int64_t count, float* out);

/// `count` numbers from 0 to bound - 1, each drawn from all of them.
void indices(const RandomKey& key, std::int64_t bound, std::int64_t count, std::int64_t* out);

/// A number within (0, 1).
double uniform(const RandomKey& key);

/// What one pass over the weights w adds up; F = n_beta excess and U = F + gamma/2 |w - w*|^2 are functions of w, P the
/// preconditioner.
struct Sums {
  double distance = 0;  ///< |w - w*|^2
  double along = 0;     ///< grad F . (w - w*)
  double bias = 0;      ///< grad F . P grad U
  double drift = 0;     ///< grad U . P grad U
};

/// A part of the gradient: of so many weights in a row. No gradient: zeros.
template <class T>
struct Segment {
  const T* gradient;
  std::int64_t size;
};

/// Everything that a pass reads and writes. All arrays have as many elements as there are weights.
template <class T>
struct Pass {
  std::int64_t size = 0;
  std::vector<Segment<T>> gradient;  ///< of the loss
  const T* weights = nullptr;        ///< w
  const T* start = nullptr;          ///< w*
  const T* slope = nullptr;          ///< taken off the gradient; may be null
  const T* scale = nullptr;          ///< sqrt(P); null: P = 1
  double n_beta = 0;
  double gamma = 0;

  T* drift = nullptr;  ///< if set, grad U goes here
  T* moved = nullptr;  ///< if set, w - (eps/2) P grad U + sqrt(eps P) noise goes here; may be `weights`
  double eps = 0;
  double box = 0;            ///< if positive, the move is reflected at |w_i - w*_i| = box
  RandomKey noise;           ///< of the move
  float* carried = nullptr;  ///< if set, holds the last step's noise; the move is made by the mean of that and the new
                             ///< noise, which is left here
};

template <class T>
Sums run(const Pass<T>& pass);

extern template Sums run(const Pass<float>&);
extern template Sums run(const Pass<double>&);

}  // namespace dds::kernels
