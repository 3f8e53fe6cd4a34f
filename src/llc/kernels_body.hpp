// The body of kernels.cpp, which includes it once for each instruction set. Plain loops over whole blocks, for the
// compiler to vectorise.

constexpr std::int64_t kLanes = kBlock / 4;

inline void philox(const RandomKey& key, std::uint32_t first, std::uint32_t (&x)[4][kLanes]) {
  auto k0 = static_cast<std::uint32_t>(key.key), k1 = static_cast<std::uint32_t>(key.key >> 32);
  for (std::int64_t j = 0; j < kLanes; ++j) {
    x[0][j] = first + static_cast<std::uint32_t>(j);
    x[1][j] = static_cast<std::uint32_t>(key.step);
    x[2][j] = static_cast<std::uint32_t>(key.step >> 32);
    x[3][j] = key.purpose;
  }
  constexpr std::uint64_t kM0 = 0xD2511F53, kM1 = 0xCD9E8D57;
  std::uint32_t high0[kLanes], high1[kLanes];
  for (int round = 0; round < 10; ++round) {
    for (std::int64_t j = 0; j < kLanes; ++j) high0[j] = static_cast<std::uint32_t>(kM0 * x[0][j] >> 32);
    for (std::int64_t j = 0; j < kLanes; ++j) high1[j] = static_cast<std::uint32_t>(kM1 * x[2][j] >> 32);
    for (std::int64_t j = 0; j < kLanes; ++j) {
      const std::uint32_t low0 = static_cast<std::uint32_t>(kM0) * x[0][j];
      const std::uint32_t low1 = static_cast<std::uint32_t>(kM1) * x[2][j];
      x[0][j] = high1[j] ^ x[1][j] ^ k0;
      x[2][j] = high0[j] ^ x[3][j] ^ k1;
      x[1][j] = low1;
      x[3][j] = low0;
    }
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
}

/// r (cos a, sin a), r = sqrt(-2 ln u): u from 24 bits of `radius`, a from the 32 of `angle`.
inline void box_muller(const std::uint32_t (&radius)[kLanes], const std::uint32_t (&angle)[kLanes], float* cosines,
                       float* sines) {
  for (std::int64_t j = 0; j < kLanes; ++j) {
    // u = 2^e m with m between sqrt(1/2) and sqrt(2); ln m by Cephes' polynomial in m - 1.
    const float u = static_cast<float>(static_cast<std::int32_t>(radius[j] >> 8)) * 0x1p-24f + 0x1p-25f;
    const std::uint32_t offset = std::bit_cast<std::uint32_t>(u) - 0x3F3504F3u;
    const auto exponent = static_cast<float>(static_cast<std::int32_t>(offset) >> 23);
    const float f = std::bit_cast<float>((offset & 0x007FFFFFu) + 0x3F3504F3u) - 1.0f;
    const float f2 = f * f;
    float p = 7.0376836292e-2f;
    p = p * f - 1.1514610310e-1f;
    p = p * f + 1.1676998740e-1f;
    p = p * f - 1.2420140846e-1f;
    p = p * f + 1.4249322787e-1f;
    p = p * f - 1.6668057665e-1f;
    p = p * f + 2.0000714765e-1f;
    p = p * f - 2.4999993993e-1f;
    p = p * f + 3.3333331174e-1f;
    const float log_u = f + (f2 * f * p - 0.5f * f2) + exponent * 0.693147180559945f;
    const float r = std::sqrt(-2.0f * log_u);

    // The two upper bits choose the quadrant, the rest an angle within pi/4 of its middle.
    const float a = static_cast<float>(static_cast<std::int32_t>(angle[j] << 2)) * (0x1p-32f * 1.5707963267948966f);
    const float a2 = a * a;
    const float s = a + a * a2 * (-1.6666654611e-1f + a2 * (8.3321608736e-3f + a2 * -1.9515295891e-4f));
    const float c = 1.0f - 0.5f * a2 +
                    a2 * a2 * (4.166664568298827e-2f + a2 * (-1.388731625493765e-3f + a2 * 2.443315711809948e-5f));
    const std::uint32_t quadrant = angle[j] >> 30;
    const float along = quadrant & 1 ? s : c, across = quadrant & 1 ? c : s;
    cosines[j] = r * ((quadrant + 1) & 2 ? -along : along);
    sines[j] = r * (quadrant & 2 ? -across : across);
  }
}

/// kBlock normals.
inline void normal_block(const RandomKey& key, std::int64_t block, float* out) {
  std::uint32_t x[4][kLanes];
  philox(key, static_cast<std::uint32_t>(block * kLanes), x);
  box_muller(x[0], x[1], out, out + kLanes);
  box_muller(x[2], x[3], out + 2 * kLanes, out + 3 * kLanes);
}

/// The sum of a block, in pairs; overwrites it.
template <class T>
inline double sum_of(T (&values)[kBlock]) {
  for (std::int64_t half = kBlock / 2; half > 0; half /= 2) {
    for (std::int64_t j = 0; j < half; ++j) values[j] += values[half + j];
  }
  return static_cast<double>(values[0]);
}

/// Walks over the segments of the gradient block by block.
template <class T>
class Gathered {
 public:
  explicit Gathered(const std::vector<Segment<T>>& segments) : segments_(segments) {}

  void next(T* out, std::int64_t count) {
    while (count > 0) {
      const Segment<T>& segment = segments_[segment_];
      const std::int64_t part = count < segment.size - at_ ? count : segment.size - at_;
      for (std::int64_t j = 0; j < part; ++j) out[j] = segment.gradient ? segment.gradient[at_ + j] : T(0);
      out += part;
      count -= part;
      at_ += part;
      if (at_ == segment.size) {
        ++segment_;
        at_ = 0;
      }
    }
  }

 private:
  const std::vector<Segment<T>>& segments_;
  std::size_t segment_ = 0;
  std::int64_t at_ = 0;
};

/// A block of an array, the rest of a last block as zeros.
template <class T>
inline void load(const T* from, std::int64_t count, T (&block)[kBlock]) {
  std::memcpy(block, from, static_cast<std::size_t>(count) * sizeof(T));
  for (std::int64_t j = count; j < kBlock; ++j) block[j] = T(0);
}

template <class T>
inline void move_block(const Pass<T>& pass, std::int64_t begin, std::int64_t count, T (&w)[kBlock],
                       const T (&drift)[kBlock], const T (&scale)[kBlock]) {
  float noise[kBlock];
  normal_block(pass.noise, begin / kBlock, noise);
  if (pass.carried) {
    for (std::int64_t j = 0; j < count; ++j) {
      const float fresh = noise[j];
      noise[j] = 0.5f * (fresh + pass.carried[begin + j]);
      pass.carried[begin + j] = fresh;
    }
  }
  const T half_step = static_cast<T>(-pass.eps / 2), spread = static_cast<T>(std::sqrt(pass.eps));
  for (std::int64_t j = 0; j < kBlock; ++j) {
    w[j] += scale[j] * (half_step * scale[j] * drift[j] + spread * static_cast<T>(noise[j]));
  }
  if (pass.box > 0) {
    const T box = static_cast<T>(pass.box);
    for (std::int64_t j = 0; j < count; ++j) {
      // Two reflections serve any move shorter than the box is wide; what is longer ends at its edge.
      const T start = pass.start[begin + j];
      T d = w[j] - start;
      d = d > box ? 2 * box - d : d < -box ? -2 * box - d : d;
      d = d > box ? box : d < -box ? -box : d;
      w[j] = start + d;
    }
  }
  std::memcpy(pass.moved + begin, w, static_cast<std::size_t>(count) * sizeof(T));
}

template <class T>
inline Sums run_blocks(const Pass<T>& pass) {
  Sums sums;
  Gathered<T> gathered(pass.gradient);
  T gradient[kBlock], w[kBlock], displacement[kBlock], slope[kBlock] = {}, scale[kBlock], drift[kBlock], term[kBlock];
  for (std::int64_t j = 0; j < kBlock; ++j) scale[j] = T(1);
  const T n_beta = static_cast<T>(pass.n_beta), gamma = static_cast<T>(pass.gamma);
  for (std::int64_t begin = 0; begin < pass.size; begin += kBlock) {
    const std::int64_t count = pass.size - begin < kBlock ? pass.size - begin : kBlock;
    for (std::int64_t j = count; j < kBlock; ++j) gradient[j] = T(0);
    gathered.next(gradient, count);
    load(pass.weights + begin, count, w);
    load(pass.start + begin, count, displacement);
    if (pass.slope) load(pass.slope + begin, count, slope);
    if (pass.scale) load(pass.scale + begin, count, scale);
    for (std::int64_t j = 0; j < kBlock; ++j) {
      displacement[j] = w[j] - displacement[j];
      gradient[j] = n_beta * (gradient[j] - slope[j]);
      drift[j] = gradient[j] + gamma * displacement[j];
    }
    for (std::int64_t j = 0; j < kBlock; ++j) term[j] = displacement[j] * displacement[j];
    sums.distance += sum_of(term);
    for (std::int64_t j = 0; j < kBlock; ++j) term[j] = gradient[j] * displacement[j];
    sums.along += sum_of(term);
    for (std::int64_t j = 0; j < kBlock; ++j) term[j] = gradient[j] * scale[j] * (scale[j] * drift[j]);
    sums.bias += sum_of(term);
    for (std::int64_t j = 0; j < kBlock; ++j) term[j] = drift[j] * scale[j] * (scale[j] * drift[j]);
    sums.drift += sum_of(term);
    if (pass.drift) std::memcpy(pass.drift + begin, drift, static_cast<std::size_t>(count) * sizeof(T));
    if (pass.moved) move_block(pass, begin, count, w, drift, scale);
  }
  return sums;
}

inline void normal_blocks(const RandomKey& key, std::int64_t first, std::int64_t count, float* out) {
  float block[kBlock];
  for (std::int64_t done = 0; done < count; done += kBlock) {
    normal_block(key, (first + done) / kBlock, block);
    const std::int64_t part = count - done < kBlock ? count - done : kBlock;
    std::memcpy(out + done, block, static_cast<std::size_t>(part) * sizeof(float));
  }
}
