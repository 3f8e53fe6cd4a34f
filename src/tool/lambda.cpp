// `dds lambda`: learning coefficients in closed form.
#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <dds/learning_coefficient.hpp>
#include <memory>
#include <vector>

#include "src/tool/command.hpp"

namespace dds::tool {
namespace {

void print(const LearningCoefficient& coefficient) {
  fmt::print("lambda {}\nmultiplicity {}\n", coefficient.lambda, coefficient.multiplicity);
}

struct Numbers {
  std::int64_t rank = 0;
  std::vector<std::int64_t> values, more;
};

}  // namespace

void add_lambda(CLI::App& program) {
  CLI::App* command = program.add_subcommand("lambda", "Learning coefficient and multiplicity in closed form");
  command->require_subcommand(1);
  command->footer(
      "Prints the lines 'lambda L' and 'multiplicity M', for the smallest lambda over all true parameters, and for\n"
      "reduced-rank regression which of its four cases it is. Formulas and sources: <dds/learning_coefficient.hpp>.\n\n"
      "Examples:\n"
      "  dds lambda regular 10                    # d/2\n"
      "  dds lambda crossing 1 2 --density 0 1    # w1^2 w2^4, density like |w2|\n"
      "  dds lambda reduced-rank 10 3 5 --rank 2  # inputs, hidden, outputs\n"
      "  dds lambda linear 20 20 20 20 --rank 16  # four widths: three layers");
  // The options are read after this function has returned.
  const auto numbers = std::make_shared<Numbers>();

  CLI::App* regular = command->add_subcommand("regular", "Regular model of D parameters");
  regular->add_option("D", numbers->values, "number of parameters")->required()->expected(1);
  regular->callback([numbers] { print(regular_coefficient(numbers->values.front())); });

  CLI::App* crossing = command->add_subcommand("crossing", "K(w) = product of w_i^(2 k_i)");
  crossing->add_option("K", numbers->values, "exponents k_i")->required();
  crossing->add_option("--density", numbers->more, "exponents h_i of a density that vanishes like |w_i|^(h_i)");
  crossing->callback([numbers] { print(normal_crossing_coefficient(numbers->values, numbers->more)); });

  CLI::App* regression = command->add_subcommand("reduced-rank", "Reduced-rank regression: y = W2 W1 x + noise");
  regression->add_option("WIDTH", numbers->values, "inputs, hidden, outputs")->required()->expected(3);
  regression->add_option("--rank", numbers->rank, "rank of the true product")->required();
  regression->callback([numbers] {
    const std::vector<std::int64_t>& widths = numbers->values;
    print(reduced_rank_coefficient(widths[0], widths[1], widths[2], numbers->rank));
    fmt::print("case {}\n", static_cast<int>(reduced_rank_case(widths[0], widths[1], widths[2], numbers->rank)));
  });

  CLI::App* linear = command->add_subcommand("linear", "Linear network: y = W_L ... W_1 x + noise");
  linear->add_option("WIDTH", numbers->values, "widths, from the input to the output")->required();
  linear->add_option("--rank", numbers->rank, "rank of the true product")->required();
  linear->callback([numbers] { print(deep_linear_coefficient(numbers->values, numbers->rank)); });
}

}  // namespace dds::tool
