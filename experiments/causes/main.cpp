// Are directions dead for the causes that a reading names? Fresh networks, of which the architecture's own are known;
// networks with planted causes; and the direction that a LayerNorm leaves out, predicted from its weights alone.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <dds/dds.hpp>

#include "experiments/causes/healthy.hpp"
#include "experiments/causes/planted.hpp"
#include "experiments/harness/figures.hpp"
#include "experiments/harness/harness.hpp"

namespace {

namespace ex = dds::experiments;

void healthy(ex::Summary& summary, ex::Page& page, const ex::RunOptions& options) {
  torch::manual_seed(options.seed);
  ex::Table table{{"network", "layer", "side", "width", "rank", "by architecture", "by hand", "causes"}, {}};
  std::int64_t unexplained = 0, derived = 0, equal = 0;
  for (const ex::Healthy& network : ex::healthy_networks()) {
    for (const dds::Signature& s :
         dds::read({*network.model, dds::categorical(), dds::Data(network.probe), network.forward})) {
      unexplained += s.dead_explained.value_or(0) + s.dead_unexplained.value_or(0);
      const auto by_hand = network.left_out.find({s.layer, s.side});
      if (by_hand != network.left_out.end()) {
        ++derived;
        equal += s.dead_by_architecture == by_hand->second;
      }
      table.rows.push_back({network.name, s.layer, std::string(to_string(s.side)), s.width.value_or(0),
                            s.rank.value_or(0), s.dead_by_architecture.value_or(0),
                            by_hand == network.left_out.end() ? nlohmann::json() : nlohmann::json(by_hand->second),
                            to_string(s.causes)});
    }
  }
  summary.add(ex::at_most(ex::claim_of("healthy_unexplained",
                                       "dead directions of twelve fresh networks that are not put down to the "
                                       "architecture or the probe",
                                       ex::exactly(static_cast<double>(unexplained))),
                          0));
  ex::Claim share = ex::claim_of(
      "healthy_by_architecture",
      fmt::format("share of {} layers and sides of fresh networks whose count equals one derived by hand", derived),
      ex::exactly(static_cast<double>(equal) / static_cast<double>(std::max<std::int64_t>(1, derived))));
  share.goal_low = 1;
  summary.add(std::move(share));
  write_csv(options.out / "healthy.csv", table);
  page.add("Fresh networks", "What the architecture leaves out, and what was derived by hand.", table);
}

void planted(ex::Summary& summary, ex::Page& page, const ex::RunOptions& options) {
  const std::int64_t networks = options.full() ? 1000 : 100;
  ex::Table table{{"network", "planted", "named", "wrong", "plants", "causes"}, {}};
  std::int64_t all = 0, named = 0, wrong = 0;
  for (std::int64_t i = 0; i < networks; ++i) {
    const auto generator = at::detail::createCPUGenerator(1'000'003 * options.seed + static_cast<std::uint64_t>(i));
    const ex::Verdict verdict = ex::plant_and_read(1 + i % 3, i, generator);
    all += verdict.planted;
    named += verdict.named;
    wrong += verdict.wrong;
    table.rows.push_back({i, verdict.planted, verdict.named, verdict.wrong, verdict.plants, verdict.causes});
  }
  ex::Claim share = ex::claim_of("planted_named",
                                 fmt::format("share of {} causes planted in {} networks, one to three at once, that "
                                             "are named with their units",
                                             all, networks),
                                 ex::exactly(static_cast<double>(named) / static_cast<double>(all)));
  share.goal_low = 0.99;
  summary.add(std::move(share));
  summary.add(ex::at_most(
      ex::claim_of("planted_wrong", "causes named in these networks that were not planted, nor follow from it",
                   ex::exactly(static_cast<double>(wrong))),
      0));
  write_csv(options.out / "planted.csv", table);
  page.add("Planted causes", "One to three causes at once, of one to five units.", table);
}

/// The largest angle between 1/gamma and the bottom direction of the covariance of a LayerNorm's outputs.
void layer_norms(ex::Summary& summary, ex::Page& page, const ex::RunOptions& options) {
  namespace nn = torch::nn;
  torch::manual_seed(options.seed + 1);
  ex::Table table{{"width", "with a bias", "angle in rad"}, {}};
  double largest = 0;
  for (const std::int64_t width : {8, 32, 64}) {
    for (const bool bias : {false, true}) {
      nn::Sequential net({{"in", nn::Linear(2 * width, width)},
                          {"norm", nn::LayerNorm(nn::LayerNormOptions({width}))},
                          {"out", nn::Linear(width, 7)}});
      const at::Tensor gamma = net->named_parameters()["norm.weight"];
      gamma.data().uniform_(0.3, 2);
      if (bias) net->named_parameters()["norm.bias"].data().normal_();
      const dds::Forward forward = [net](nn::Module&, const std::vector<at::Tensor>& inputs) mutable {
        return net->forward(inputs.at(0));
      };
      const auto signatures = dds::read(
          {*net, dds::categorical(), dds::Data(torch::randn({20 * width, 2 * width})), forward},
          dds::ReadOptions().signatures(dds::SignatureOptions().layers({{"norm"}}).centred(true).dead_axes(true)));
      const at::Tensor bottom = signatures.at(0).axes.select(0, width - 1);
      const at::Tensor predicted = gamma.detach().to(torch::kDouble).reciprocal();
      const at::Tensor across = predicted / predicted.norm();
      const double angle = std::asin(std::min(1.0, (bottom - bottom.dot(across) * across).norm().item<double>()));
      largest = std::max(largest, angle);
      table.rows.push_back({width, bias, angle});
    }
  }
  summary.add(ex::at_most(ex::claim_of("layer_norm_angle",
                                       "largest angle in rad between 1/gamma and the bottom direction of the centred "
                                       "activation covariance of fresh LayerNorms",
                                       ex::exactly(largest)),
                          1e-4));
  page.add("LayerNorm", "The direction that is predicted from gamma alone, against the measured one.", table);
}

void run(const ex::RunOptions& options) {
  at::set_num_threads(1);
  ex::Summary summary(options);
  ex::Page page("Causes");
  healthy(summary, page, options);
  planted(summary, page, options);
  layer_norms(summary, page, options);
  page.write(options.out / "figures.html");
  summary.write();
}

}  // namespace

int main(int argc, char** argv) {
  const ex::RunOptions options =
      ex::parse_command_line(argc, argv, "causes", "Whether readings name the causes of dead directions.");
  return ex::run_experiment([&] { run(options); });
}
