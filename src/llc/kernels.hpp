// One step of a chain on the CPU, in one pass over the weights: the drift, the noise, the move and a few sums.
// LibTorch's own normal_ alone costs more than the backward pass of a small network.
//
// Each function gives the same bits with every instruction set: multiply and add are not fused, and the order of each
// sum is fixed.
#pragma once

#include <cstdint>
#include <vector>

namespace dds::kernels {

/// The loops work on blocks of this many weights.
inline constexpr std::int64_t kBlock = 256;

/// Names the random numbers of one step. They are a function of this key alone: Philox4x32-10 (Salmon et al., SC 2011).
struct RandomKey {
  std::uint64_t key = 0;      ///< of the chain
  std::uint64_t step = 0;     ///< of the chain
  std::uint32_t purpose = 0;  ///< noise, acceptance, samples of a mini-batch
};

/// Four random words of 32 bits: Philox4x32-10 of the counter (index, lower and upper half of step, purpose).
void words(const RandomKey& key, std::uint32_t index, std::uint32_t out[4]);

/// The step's standard normal numbers from number `first` on, `count` of them. `first` is a multiple of kBlock.
/// They are computed by Box-Muller in fp32, also for chains in fp64: relative error 1e-6, |x| at most 5.9. A chain's
/// own error is far larger.
void normals(const RandomKey& key, std::int64_t first, std::int64_t count, float* out);

/// `count` independent draws from 0, 1, .., bound - 1, with replacement.
void indices(const RandomKey& key, std::int64_t bound, std::int64_t count, std::int64_t* out);

/// A number within (0, 1).
double uniform(const RandomKey& key);

/// The sums that a pass over the weights w returns. F = n_beta (L(w) - L(w*)), U = F + gamma/2 |w - w*|^2, and P is the
/// preconditioner.
struct Sums {
  double distance = 0;  ///< |w - w*|^2
  double along = 0;     ///< grad F . (w - w*)
  double bias = 0;      ///< grad F . P grad U
  double drift = 0;     ///< grad U . P grad U
};

/// The gradient by `size` weights in a row. A null `gradient` stands for zeros.
template <class T>
struct Segment {
  const T* gradient;
  std::int64_t size;
};

/// What a pass reads and writes. Each array has `size` elements.
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
  double box = 0;   ///< if positive, the move is reflected at |w_i - w*_i| = box
  RandomKey noise;  ///< of the move
  /// If set: the noise of the last step. The move takes the mean of it and of the new noise. The new noise is left
  /// here.
  float* carried = nullptr;
};

/// Takes the sums at `weights`, and writes what is set.
template <class T>
Sums run(const Pass<T>& pass);

extern template Sums run(const Pass<float>&);
extern template Sums run(const Pass<double>&);

}  // namespace dds::kernels
