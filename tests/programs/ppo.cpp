// Proximal policy optimisation on a pole that falls.
#include <torch/torch.h>

#include <cmath>
#include <cstdio>
#include <vector>

#ifdef DDS_ATTACHED
#include <dds/dds.hpp>
#endif

// ---------------------------------------------------------------- environment
struct Pole {
  double angle = 0.1, speed = 0;
  std::vector<double> reset() {
    angle = 0.1, speed = 0;
    return observe();
  }
  std::vector<double> observe() const { return {angle, speed, std::sin(angle), std::cos(angle)}; }
  bool act(int64_t action) {
    speed += 0.05 * std::sin(angle) + (action == 0 ? -0.02 : 0.02);
    angle += speed;
    return std::abs(angle) < 0.5;
  }
};

// ---------------------------------------------------------------- actor and critic
struct ActorCriticImpl : public torch::nn::Module {
  torch::nn::Linear lin1_, lin2_, actor_, critic_;
  torch::Tensor log_temperature_;

  ActorCriticImpl() : lin1_(4, 16), lin2_(16, 16), actor_(16, 2), critic_(16, 1) {
    register_module("lin1", lin1_);
    register_module("lin2", lin2_);
    register_module("actor", actor_);
    register_module("critic", critic_);
    log_temperature_ = register_parameter("log_temperature", torch::zeros({1}));
  }

  auto forward(torch::Tensor x) -> std::tuple<torch::Tensor, torch::Tensor> {
    x = torch::tanh(lin1_->forward(x));
    x = torch::tanh(lin2_->forward(x));
    auto logits = actor_->forward(x) / log_temperature_.exp();
    return std::make_tuple(torch::log_softmax(logits, -1), critic_->forward(x).squeeze(-1));
  }
};
TORCH_MODULE(ActorCritic);

int main(int, char** argv) {
  torch::manual_seed(5);
  ActorCritic ac;
  torch::optim::Adam opt(ac->parameters(), 1e-2);
#ifdef DDS_ATTACHED
  dds::Monitor monitor(*ac, dds::MonitorOptions().every(2).reduction(dds::Reduction::Sum),
                       dds::log::directory(argv[2]));
#endif
  Pole env;

  for (int iteration = 0; iteration < 4; ++iteration) {
#ifdef DDS_ATTACHED
    auto step = monitor.step();
#endif
    // Roll out. (The forward passes make graphs that nobody uses.)
    std::vector<torch::Tensor> states, actions, log_probs, values;
    std::vector<double> rewards, dones;
    auto state = torch::tensor(env.reset(), torch::kFloat).unsqueeze(0);
    for (int t = 0; t < 24; ++t) {
      auto [log_prob, value] = ac->forward(state);
      auto action = torch::multinomial(log_prob.exp(), 1);
      const bool alive = env.act(action.item<int64_t>());
      states.push_back(state);
      actions.push_back(action);
      log_probs.push_back(log_prob.gather(1, action).detach());
      values.push_back(value.detach());
      rewards.push_back(alive ? 1 : -1);
      dones.push_back(alive ? 0 : 1);
      state = torch::tensor(alive ? env.observe() : env.reset(), torch::kFloat).unsqueeze(0);
    }

    // Generalised advantages.
    std::vector<float> advantages(24), returns(24);
    double gae = 0, next_value = std::get<1>(ac->forward(state)).item<double>();
    for (int t = 23; t >= 0; --t) {
      const double value = values[t].item<double>(), mask = 1 - dones[t];
      gae = rewards[t] + 0.99 * next_value * mask - value + 0.99 * 0.95 * mask * gae;
      advantages[t] = static_cast<float>(gae);
      returns[t] = static_cast<float>(gae + value);
      next_value = value;
    }
    auto s = torch::cat(states), a = torch::cat(actions), old = torch::cat(log_probs);
    auto adv = torch::tensor(advantages).unsqueeze(1), ret = torch::tensor(returns);

    // Update.
    for (int epoch = 0; epoch < 2; ++epoch) {
      auto order = torch::randperm(24);
      for (int64_t start = 0; start < 24; start += 12) {
        auto idx = order.slice(0, start, start + 12);
        auto [log_prob, value] = ac->forward(s.index_select(0, idx));
        auto ratio = (log_prob.gather(1, a.index_select(0, idx)) - old.index_select(0, idx)).exp();
        auto A = adv.index_select(0, idx);
        auto surrogate = torch::min(ratio * A, torch::clamp(ratio, 0.8, 1.2) * A);
        auto entropy = -(log_prob.exp() * log_prob).sum(-1);
        auto loss = -surrogate.mean() + 0.5 * (ret.index_select(0, idx) - value).pow(2).mean() - 0.01 * entropy.mean();
        opt.zero_grad();
        loss.backward();
        opt.step();
      }
    }
    std::printf("iteration %d, return %.1f\n", iteration, torch::tensor(rewards).sum().item<double>());
  }
  torch::save(ac, argv[1]);
  return 0;
}
