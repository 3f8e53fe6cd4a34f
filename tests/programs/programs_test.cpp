// Programs in the styles in which people write them. Each of tests/programs is compiled as it is and with four lines
// added; the examples have them, and run once with nothing to read. Reading changes nothing of what a program prints
// and saves, and what is captured is what is expected, all of it or by name.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <dds/dds.hpp>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <limits>
#include <map>
#include <sstream>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "src/log/csv.hpp"

namespace mnist {
#include "tests/programs/mnist.cpp"
}
namespace dcgan {
#include "experiments/examples/gan.cpp"
}
namespace language_model {
#include "experiments/examples/recurrent.cpp"
}
namespace transformer {
#include "tests/programs/transformer.cpp"
}
namespace ppo {
#include "tests/programs/ppo.cpp"
}
#define DDS_ATTACHED
namespace mnist_attached {
#include "tests/programs/mnist.cpp"
}
namespace transformer_attached {
#include "tests/programs/transformer.cpp"
}
namespace ppo_attached {
#include "tests/programs/ppo.cpp"
}

namespace dds {
namespace {

using Main = int (*)(int, char**);

struct Program {
  std::string name;
  Main bare, attached;
  /// What the log says of every layer: "status of the activations, status of the gradients".
  std::map<std::string, std::string> layers;
};
void PrintTo(const Program& program, std::ostream* os) { *os << program.name; }

std::string read_file(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

class Programs : public testing::TestWithParam<Program> {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "dds_program_XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  struct Result {
    std::string printed, saved;
    bool operator==(const Result&) const = default;
  };
  /// The file has the same name each time: LibTorch writes it into the file. `idle`: of the examples no step is read.
  Result run(Main main, bool idle) {
    std::string name = "program", weights = (folder_ / "weights.pt").string(), log = (folder_ / "log").string(),
                none = "0";
    for (const char* end : {"", "_g"}) std::filesystem::remove_all(log + end);
    char* arguments[] = {name.data(), weights.data(), log.data(), idle ? none.data() : nullptr, nullptr};
    testing::internal::CaptureStdout();
    const int status = main(idle ? 4 : 3, arguments);
    std::fflush(stdout);
    Result result{testing::internal::GetCapturedStdout(), read_file(weights)};
    EXPECT_EQ(status, 0);
    EXPECT_FALSE(result.saved.empty());
    return result;
  }

  std::filesystem::path folder_;
};

TEST_P(Programs, AttachedItDoesTheSameAndIsCaptured) {
  const Result bare = run(GetParam().bare, /*idle=*/true);
  ASSERT_EQ(bare, run(GetParam().bare, /*idle=*/true)) << "not deterministic by itself";
  EXPECT_EQ(bare, run(GetParam().attached, /*idle=*/false));

  std::map<std::string, std::map<std::string, std::string>> status;  // by layer and side, of the last step
  const log::csv::Table table = log::csv::parse(read_file(folder_ / "log" / "signatures.csv"));
  const std::vector<std::string>& header = table.records.at(0).fields;
  const auto column = [&](const std::string& name) {
    return static_cast<std::size_t>(std::find(header.begin(), header.end(), name) - header.begin());
  };
  for (std::size_t i = 1; i < table.records.size(); ++i) {
    const std::vector<std::string>& row = table.records[i].fields;
    status[row.at(column("layer"))][row.at(column("side"))] = row.at(column("status"));
  }
  std::map<std::string, std::string> layers;
  for (const auto& [layer, sides] : status) layers[layer] = sides.at("activation") + ", " + sides.at("fisher");
  EXPECT_EQ(layers, GetParam().layers);
}

const std::string kWhole = "ok, ok", kCoupled = "ok, coupled+loss_unknown", kOwnLoss = "ok, loss_unknown",
                  kUnused = "not_run, not_run", kNoLayer = "not_observable, not_observable";

/// The transformer's layers, those of its two blocks added.
std::map<std::string, std::string> with_blocks(std::map<std::string, std::string> layers) {
  for (const std::string path : {"h.0.", "h.1."}) {
    for (const std::string layer : {"ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.0", "mlp.2"}) {
      layers[path + layer] = kWhole;
    }
  }
  return layers;
}

INSTANTIATE_TEST_SUITE_P(
    Styles, Programs,
    testing::Values(
        Program{"Mnist",
                mnist::main,
                mnist_attached::main,
                {{"conv1", kWhole}, {"conv2", kWhole}, {"fc1", kWhole}, {"fc2", kWhole}}},
        // Between the sigmoid and the loss stands a reshape.
        Program{
            "Dcgan", dcgan::main, dcgan::main, {{"0", kCoupled}, {"2", kCoupled}, {"3", kCoupled}, {"5", kCoupled}}},
        Program{"LanguageModel",
                language_model::main,
                language_model::main,
                {{"embed", kWhole}, {"lstm", kWhole}, {"linear", kWhole}}},
        // lm_head runs with the weight of wte: that is the second use of it, and its own weight is a ghost. Position
        // embeddings that are only added have no rows.
        Program{"Transformer", transformer::main, transformer_attached::main,
                with_blocks(
                    {{"wte", kWhole}, {"wte#2", kWhole}, {"ln_f", kWhole}, {"lm_head", kUnused}, {"wpe", kNoLayer}})},
        Program{"Ppo",
                ppo::main,
                ppo_attached::main,
                // Between its passes the weights change by less than all that a rank needs: how much, no shape tells.
                {{"lin1", "bound_unknown, loss_unknown"},
                 {"lin2", kOwnLoss},
                 {"actor", kOwnLoss},
                 {"critic", kOwnLoss},
                 {"log_temperature", kNoLayer}}}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace dds
