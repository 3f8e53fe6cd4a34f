#include <fmt/format.h>
#include <dds/dds.hpp>
#include "experiments/harness/finished.hpp"
#include "experiments/harness/parallel.hpp"
#include "experiments/modular_addition/training.hpp"
using namespace modular_addition;
namespace ex = dds::experiments;
void run(const ex::RunOptions& options) {
  at::set_num_threads(1);
  std::vector<Cell> cells;
  for (std::uint64_t s = 0; s < 1; ++s) for (const Arm& arm : arms()) for (auto w : arm.widths) cells.push_back({&arm, w, s});
  std::stable_sort(cells.begin(), cells.end(), [](const Cell& a, const Cell& b) { return a.width > b.width; });
  ex::Finished finished(options);
  const std::int64_t steps = options.full() ? 8000 : 4000;
  const auto trainings = ex::in_parallel(cells.size(), [&](std::size_t i) {
    auto t = from_json(finished.piece(cells[i].name(), [&] { return to_json(train(cells[i], {steps, 50, {}, options.out / "weights"})); }), cells[i]);
    fmt::print("{} {:.1f} s loss {:.3g} test {:.3f}\n", cells[i].name(), t.seconds, t.checkpoints.back().loss, t.series.test_accuracy.back());
    return 0;
  }, [](std::size_t) {});
}
int main(int argc, char** argv) {
  const ex::RunOptions options = ex::parse_command_line(argc, argv, "modular_addition", "");
  return ex::run_experiment([&] { run(options); });
}
