// Bounds on ranks, of networks that are put together at random: no rank is above its bound, and a bound that is known
// is reached.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <dds/recorder.hpp>
#include <functional>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "tests/hooks/bounded_rows.hpp"
#include "tests/seed.hpp"
#include "tests/support.hpp"

namespace dds {
namespace {

namespace nn = torch::nn;
namespace F = torch::nn::functional;

/// A network whose structure follows from one seed, and its weights and data from LibTorch's.
class RandomNetwork : public nn::Module {
 public:
  explicit RandomNetwork(std::uint64_t structure) : seed_(structure) {}

  std::string story() const { return story_; }

  /// One training step. The first makes the layers.
  void step() {
    random_.seed(seed_);
    layers_ = 0;
    story_.clear();
    const int batches = chance(6) ? 2 : 1;
    const std::mt19937_64 same = random_;
    for (int i = 0; i < batches; ++i) {
      random_ = same;
      layers_ = 0;
      batch();
    }
  }

 private:
  int below(int n) { return static_cast<int>(random_() % static_cast<std::uint64_t>(n)); }
  bool chance(int of) { return below(of) == 0; }
  int some_width() { return 2 + below(9); }
  at::Tensor say(const std::string& what, at::Tensor result) {
    story_ += what + " ";
    return result;
  }

  /// The next layer of this kind, made if this is the first step.
  template <class Holder, class Options>
  Holder layer(const Options& options) {
    const std::string name = "layer" + std::to_string(layers_++);
    if (auto* known = named_children().find(name)) {
      return Holder(std::dynamic_pointer_cast<typename Holder::ContainedType>(*known));
    }
    Holder made = register_module(name, Holder(options));
    made->to(torch::kDouble);
    const torch::NoGradGuard no_grad;
    for (at::Tensor& p : made->parameters()) {
      if (p.dim() == 1) p.normal_();
    }
    return made;
  }
  at::Tensor linear(const at::Tensor& x, int out) {
    const bool bias = below(3) > 0;
    const std::string name = "layer" + std::to_string(layers_);
    return say(name + (bias ? "(" : "-nobias(") + std::to_string(x.size(-1)) + "," + std::to_string(out) + ")",
               layer<nn::Linear>(nn::LinearOptions(x.size(-1), out).bias(bias))(x));
  }

  /// None that has units which are off, or linear, for all samples by chance.
  at::Tensor nonlinear(const at::Tensor& x) {
    switch (below(4)) {
      case 0:
        return say("silu", torch::silu(x));
      case 1:
        return say("gelu", torch::gelu(x));
      case 2:
        return say("softplus", torch::softplus(x));
      default:
        return say("tanh", torch::tanh(x));
    }
  }

  at::Tensor normed(const at::Tensor& x) {
    const int d = static_cast<int>(x.size(-1));
    if (d < 3) return x;
    if (chance(2)) {
      auto norm = layer<nn::LayerNorm>(nn::LayerNormOptions({d}).elementwise_affine(chance(2)));
      return say("layer_norm", norm(x));
    }
    auto norm = layer<nn::BatchNorm1d>(nn::BatchNormOptions(d));
    const bool eval = chance(2);
    norm->train(!eval);
    if (x.dim() == 2) return say(eval ? "batch_norm_eval" : "batch_norm", norm(x));
    return say(eval ? "batch_norm_eval" : "batch_norm", norm(x.transpose(1, 2)).transpose(1, 2));
  }

  at::Tensor attended(const at::Tensor& x) {
    const int d = 2 * (1 + below(4)), heads = chance(2) ? 2 : 1;
    const auto split = [&](const at::Tensor& t) {
      return t.view({t.size(0), t.size(1), heads, t.size(2) / heads}).transpose(1, 2);
    };
    const auto parts = linear(x, 3 * d).chunk(3, -1);
    const at::Tensor scores = torch::matmul(split(parts[0]), split(parts[1]).transpose(-2, -1));
    const at::Tensor mixed = torch::matmul(torch::softmax(scores, -1), split(parts[2]));
    return say("attention" + std::to_string(heads), mixed.transpose(1, 2).reshape({x.size(0), x.size(1), d}));
  }

  /// An operator that arranges, mixes or masks.
  at::Tensor arranged(const at::Tensor& x) {
    const auto d = x.size(-1);
    switch (below(15)) {
      case 0: {
        std::vector<std::int64_t> columns;
        for (int i = 0; i < static_cast<int>(d); ++i) columns.push_back(below(static_cast<int>(d)));
        return say("index_select", x.index_select(-1, torch::tensor(columns, torch::kLong)));
      }
      case 1: {
        std::vector<std::int64_t> times(static_cast<std::size_t>(x.dim()), 1);
        times.back() = 2;
        return say("repeat", x.repeat(times));
      }
      case 2:
        return say("repeat_interleave", x.repeat_interleave(2, -1));
      case 3:
        return say("cat_itself", torch::cat({x, x}, -1));
      case 4:
        return say("clamp", torch::clamp(x, -1e3, 1e3));
      case 5:
        return say("dropout_eval", torch::dropout(x, 0.5, false));
      case 6: {
        at::Tensor mask = torch::zeros({d}, torch::kBool);
        mask[0] = true;
        return say("masked_fill", x.masked_fill(mask, 0));
      }
      case 7:
        return say("narrow", x.narrow(-1, 0, std::max<std::int64_t>(1, d - 1)));
      case 8:
        return say("plus_flip", x + x.flip(-1));
      case 9:
        return say("minus_roll", x - x.roll(1, -1));
      case 10: {
        at::Tensor mask = torch::ones({d}, torch::kDouble);
        mask[0] = 0;
        return say("masked", x * mask);
      }
      case 11:
        return say("scaled", 0.5 * x / 3 - 1);
      case 12: {
        const auto parts = x.split((d + 1) / 2, -1);
        return say("split", torch::cat({parts.back(), parts.front()}, -1));
      }
      case 13:
        return say("softmax", torch::softmax(x, -1));
      default:
        return say("float", x.to(torch::kFloat).to(torch::kDouble));
    }
  }

  at::Tensor over_positions(const at::Tensor& x) {
    switch (below(6)) {
      case 0:
        return say("mean", x.mean(1));
      case 1:
        return say("select", x.select(1, below(static_cast<int>(x.size(1)))));
      case 2:
        return say("flatten", x.flatten(1));
      case 3: {
        const int out = some_width();
        return say("mixer", linear(x.transpose(1, 2), out).transpose(1, 2));
      }
      case 4: {
        const int out = some_width();
        auto conv = layer<nn::Conv1d>(nn::Conv1dOptions(x.size(2), out, 1 + 2 * below(2)).padding(1));
        return say("conv", conv(x.transpose(1, 2)).transpose(1, 2));
      }
      default:
        return attended(x);
    }
  }

  at::Tensor grown(const at::Tensor& x) {
    const int out = some_width(), d = static_cast<int>(x.size(-1));
    switch (below(10)) {
      case 0:
        return linear(x, out);
      case 1:
        return linear(nonlinear(x), out);
      case 2:
        return nonlinear(linear(x, out));
      case 3:
        return say("residual", x + linear(nonlinear(linear(x, out)), d));
      case 4:
        return say("linear_residual", x + linear(linear(x, out), d));
      case 5:
        return say("gate", linear(x, out) * torch::sigmoid(linear(x, out)));
      case 6:
        return say("cat", torch::cat({linear(x, out), x}, -1));
      case 7:
        return normed(x);
      case 8:
        return x.dim() == 3 ? over_positions(x) : say("view", linear(x, 6).view({x.size(0), 3, 2}));
      default:
        return arranged(x);
    }
  }

  void batch() {
    const bool positions = chance(2);
    const int in = some_width(), samples = 70;
    at::Tensor x;
    if (positions && chance(3)) {
      auto table = layer<nn::Embedding>(nn::EmbeddingOptions(4 + below(20), in)),
           places = layer<nn::Embedding>(nn::EmbeddingOptions(3, in));
      x = table(torch::randint(table->options.num_embeddings(), {samples, 3}, torch::kLong));
      if (chance(2)) x = x + places(torch::arange(3));
      say("embedding", x);
    } else {
      x = positions ? torch::randn({samples, 3, in}, torch::kDouble) : torch::randn({samples, in}, torch::kDouble);
      say(positions ? "tokens" : "data", x);
    }
    const int depth = 1 + below(6);
    for (int i = 0; i < depth; ++i) x = grown(x);
    finish(x);
  }

  void finish(at::Tensor x) {
    if (x.dim() == 3 && chance(2)) x = say("mean", x.mean(1));
    const int classes = 2 + below(5);
    at::Tensor z = linear(x, classes);
    if (chance(6)) z = say("divided", z / 0.7);
    if (z.dim() == 3) z = say("transposed", z.transpose(1, 2));
    switch (below(5)) {
      case 0:
        say("mse", z);
        return F::mse_loss(z, torch::randn_like(z)).backward();
      case 1:
        say("by_hand", z);
        return (z - torch::randn_like(z)).pow(2).mean().backward();
      case 2:
        say("bernoulli", z);
        return F::binary_cross_entropy_with_logits(z, torch::rand_like(z)).backward();
      default:
        say("categorical", z);
        return F::cross_entropy(z, torch::randint(classes, z.select(1, 0).sizes(), torch::kLong)).backward();
    }
  }

  std::uint64_t seed_;
  std::mt19937_64 random_;
  int layers_ = 0;
  std::string story_;
};

struct Sides {
  std::int64_t bound = 0, rank = 0;
  std::string unknown;
};

/// Bounds and ranks of all layers and sides, for one draw of weights and data.
void read_into(std::map<std::string, Sides>& all, const Captured& captured) {
  test::for_each_side(captured, [&](const std::string& side, const at::Tensor& rows, const RankBound& bound) {
    Sides& into = all[side];
    into.bound = std::max(into.bound, bound.rank);
    if (!bound.unknown.empty()) into.unknown = bound.unknown;
    into.rank = std::max(into.rank, torch::linalg_matrix_rank(rows, 1e-12).item<std::int64_t>());
  });
}

/// Of three draws, since a unit may be off by chance.
std::map<std::string, Sides> sides_of(std::uint64_t structure, std::string& story) {
  std::map<std::string, Sides> sides;
  for (std::uint64_t draw = 0; draw < 3; ++draw) {
    torch::manual_seed(test::seed(100 * structure + draw));
    RandomNetwork network(structure);
    network.step();
    Recorder recorder(network);
    recorder.start();
    network.step();
    const Captured captured = recorder.take();
    EXPECT_THAT(captured.errors, testing::ElementsAre());
    read_into(sides, captured);
    story = network.story();
  }
  return sides;
}

// RANDOM_BOUNDS asks for more networks.
TEST(RandomBounds, NoRankIsAboveItsBoundAndKnownOnesAreReached) {
  const char* const wanted = std::getenv("RANDOM_BOUNDS");
  const std::uint64_t networks = wanted ? std::strtoull(wanted, nullptr, 10) : 300;
  std::size_t known = 0, unknown = 0, missed = 0;
  std::string which;
  for (std::uint64_t structure = 0; structure < networks; ++structure) {
    std::string story;
    for (const auto& [name, side] : sides_of(structure, story)) {
      EXPECT_LE(side.rank, side.bound) << name << " of network " << structure << ": " << story;
      ++(side.unknown.empty() ? known : unknown);
      if (!side.unknown.empty() || side.rank == side.bound) continue;
      ++missed;
      which += name + " of network " + std::to_string(structure) + ", " + std::to_string(side.rank) + " of " +
               std::to_string(side.bound) + ": " + story + "\n";
    }
  }
  EXPECT_GT(known, 5 * unknown);
  // A smooth function of one or two variables has no rank to speak of beyond ten; a few tokens, each in one place, give
  // fewer rows than all of them in all places.
  EXPECT_LE(missed, known / 500) << which;
}

}  // namespace
}  // namespace dds
