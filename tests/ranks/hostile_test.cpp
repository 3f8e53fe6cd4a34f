// What other ranks send is any bytes until somebody has looked: each message is a RankError, or something to go on
// with. Messages of honest ranks with a few bytes changed; what goes unnoticed here is for the sanitisers to find.
#include <gtest/gtest.h>
#include <torch/torch.h>

#include <array>
#include <cstring>
#include <dds/error.hpp>
#include <dds/model.hpp>
#include <functional>
#include <limits>
#include <random>

#include "src/llc/chain.hpp"
#include "src/reading/signature_batch.hpp"
#include "src/rows/wire.hpp"

namespace dds {
namespace {

/// `parcel` with up to four changes, or cut.
Parcel damaged(const Parcel& parcel, std::mt19937_64& random) {
  static const double kOdd = std::numeric_limits<double>::quiet_NaN(), kLarge = 1e300, kHalf = 0.5;
  static const std::int64_t kNumbers[] = {-1,
                                          0,
                                          1,
                                          2,
                                          255,
                                          std::int64_t{1} << 40,
                                          std::int64_t{1} << 62,
                                          std::numeric_limits<std::int64_t>::max(),
                                          std::numeric_limits<std::int64_t>::min()};
  std::vector<std::byte> bytes = parcel.bytes();
  const auto below = [&](std::size_t bound) { return static_cast<std::size_t>(random() % bound); };
  for (std::size_t changes = 1 + below(4); changes > 0; --changes) {
    const std::size_t at = below(bytes.size());
    const auto write = [&](const void* value) {
      std::memcpy(bytes.data() + at, value, std::min<std::size_t>(8, bytes.size() - at));
    };
    switch (below(6)) {
      case 0:
        bytes[at] ^= static_cast<std::byte>(1 << below(8));
        break;
      case 1:
        bytes[at] = static_cast<std::byte>(below(256));
        break;
      case 2:
        write(&kNumbers[below(std::size(kNumbers))]);
        break;
      case 3:
        write(std::array{&kOdd, &kLarge, &kHalf}[below(3)]);
        break;
      case 4:
        bytes.insert(bytes.begin() + static_cast<std::ptrdiff_t>(at), static_cast<std::byte>(below(256)));
        break;
      default:
        if (below(4) == 0) bytes.resize(at + 1);
    }
  }
  return Parcel(std::move(bytes));
}

/// `take` returns false for what it has refused by a RankError.
void expect_survival(const Parcel& honest, const std::function<void(Parcel)>& take) {
  std::mt19937_64 random(1);
  int refused = 0, taken = 0;
  for (int round = 0; round < 2000; ++round) {
    try {
      take(damaged(honest, random));
      ++taken;
    } catch (const RankError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 200);
  EXPECT_GT(taken, 200) << "what is refused for its first bytes tests nothing of the others";
}

LayerRows rows_of(const SignatureOptions& options, std::int64_t rows) {
  CapturedLayer layer;
  layer.layer = "fc1";
  layer.kind = "Linear";
  CapturedCall call;
  call.output = torch::ones({rows, 4}, torch::kDouble).cumsum(0);
  call.output_features = {1};
  layer.output_bound = layer.gradient_bound = {.rank = 4, .shape = 4};
  LayerRows collected(layer, options);
  collected.add_bounds(layer);
  collected.add_forward(call, {});
  collected.add_gradient(call, call.output.sin(), 1, {}, {});
  collected.reduce();
  return collected;
}

TEST(DamagedParcel, OfALayersRows) {
  const SignatureOptions options = SignatureOptions().sides({Side::Activation, Side::Fisher});
  for (const std::int64_t rows : {3, 9}) {  // a factor that is no triangle, and one that is
    const LayerRows own = rows_of(options, rows);
    Parcel honest;
    own.pack(honest);
    expect_survival(honest, [&](Parcel parcel) {
      const LayerRows theirs = LayerRows::unpack(parcel, options);
      LayerRows joined = own;
      joined.merge(theirs);
      SignatureBatch batch(options);
      for (const Side side : options.sides()) batch.add(joined, side, {});
      EXPECT_EQ(batch.read().size(), 2u);
    });
  }
}

TEST(DamagedParcel, OfWhatCancelsInALoss) {
  Parcel honest;
  pack(Cancellation(torch::tensor(3.0, torch::kDouble), torch::tensor(0.5, torch::kDouble)), honest);
  expect_survival(honest, [](Parcel parcel) {
    Cancellation joined = unpack_cancellation(parcel);
    joined.add(Cancellation(torch::tensor(1.0, torch::kDouble), torch::tensor(1.0, torch::kDouble)));
    if (joined.known()) {
      EXPECT_EQ(joined.factor().dim(), 0);
    }
  });
}

TEST(DamagedParcel, OfAChain) {
  torch::manual_seed(0);
  torch::nn::Linear model(3, 1);
  model->to(torch::kDouble);
  const Replica replica(model.ptr(), forward_of<torch::nn::LinearImpl>(), trainable_parameters(*model));
  const Data data(torch::randn({8, 3}, torch::kDouble), torch::randn({8, 1}, torch::kDouble));
  const Objective objective(gaussian(), data, LlcKind::Plain, std::nullopt, replica);
  Dynamics dynamics;
  dynamics.n_beta = 10, dynamics.gamma = 1, dynamics.eps = 0.01;
  const auto never = [] { return false; };
  Chain chain(objective, 1, 0);
  chain.keep_weights(2);
  chain.advance(replica, dynamics, 5, {.draws = true, .moments = true}, never);
  Parcel honest;
  chain.pack(honest);
  expect_survival(honest, [&](Parcel parcel) {
    Chain other(objective, 1, 0);
    other.unpack(parcel);
    other.advance(replica, dynamics, 3, {.draws = true, .moments = true}, never);
    EXPECT_EQ(other.weights().numel(), 4);
    EXPECT_EQ(other.trace().excess.size(), other.trace().along.size());
  });
}

}  // namespace
}  // namespace dds
