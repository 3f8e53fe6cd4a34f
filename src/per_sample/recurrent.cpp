// A recurrence computed again, so that every gate is a product like any other: z_t = W_ih x_t + b_ih and W_hh h_(t-1) +
// b_hh, with delta at z_t by autograd.
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>
#include <fmt/format.h>
#include <torch/csrc/autograd/autograd.h>

#include <optional>
#include <utility>

#include "src/per_sample/operator_uses.hpp"

namespace dds::hooks {
namespace {

using Cell = kind::Recurrent::Cell;

/// The weights of one layer and direction, as the operator took them.
struct GateWeights {
  at::Tensor input, hidden, input_bias, hidden_bias, projection;
};

/// What an operator does, in one form for sequences and cells.
struct Recurrence {
  Cell cell = Cell::Lstm;
  at::Tensor input;                  ///< (t, n, features)
  std::vector<at::Tensor> states;    ///< h, and c for an LSTM, before the first step, as the operator took them
  std::vector<at::Tensor> start;     ///< the same as (layers * directions, n, features)
  std::vector<GateWeights> weights;  ///< by layer, then direction
  std::int64_t layers = 1, directions = 1;
};

/// One product of the recurrence: pre-activations z = weight x + bias at all times.
struct GateProduct {
  at::Tensor weight, bias;
  at::Tensor input;             ///< (t, n, features)
  std::vector<at::Tensor> pre;  ///< (t, n, gates) in one, or (n, gates) for each time in turn
};

/// Computes it, keeping what the per-sample gradients are made of.
class Replay {
 public:
  explicit Replay(const Recurrence& recurrence) : r_(recurrence) {
    for (const at::Tensor& state : r_.start) start_.push_back(tracked(state));
  }

  /// Output (t, n, features), then the final states.
  std::vector<at::Tensor> run() {
    at::Tensor x = r_.input;
    std::vector<std::vector<at::Tensor>> last(r_.start.size());
    for (std::int64_t layer = 0; layer < r_.layers; ++layer) {
      std::vector<at::Tensor> outputs;
      for (std::int64_t direction = 0; direction < r_.directions; ++direction) {
        outputs.push_back(pass(x, layer * r_.directions + direction, direction == 1, last));
      }
      x = outputs.size() == 1 ? outputs.front() : at::cat(outputs, 2);
    }
    std::vector<at::Tensor> result{x};
    for (const auto& states : last) result.push_back(at::stack(states));
    return result;
  }

  const std::vector<GateProduct>& products() const { return products_; }
  const std::vector<at::Tensor>& start() const { return start_; }
  /// c of an LSTM after the last step that was computed.
  const at::Tensor& cell_state() const { return cell_state_; }

 private:
  /// The state of one layer and direction, and the products that it comes from.
  struct Lane {
    const GateWeights& w;
    at::Tensor h, c;
    GateProduct from_hidden{w.hidden, w.hidden_bias, {}, {}};
    GateProduct projected{w.projection, {}, {}, {}};
    std::vector<at::Tensor> unprojected = {};
  };

  /// One layer in one direction: its output (t, n, features).
  at::Tensor pass(const at::Tensor& x, std::int64_t place, bool backwards, std::vector<std::vector<at::Tensor>>& last) {
    const GateWeights& w = r_.weights[static_cast<std::size_t>(place)];
    const bool lstm = r_.cell == Cell::Lstm;
    GateProduct from_input{w.input, w.input_bias, x, {at::linear(x, tracked(w.input), plain(w.input_bias))}};
    Lane lane{w, start_[0].select(0, place), lstm ? start_[1].select(0, place) : at::Tensor()};
    const std::int64_t steps = x.size(0);
    std::vector<at::Tensor> outputs(static_cast<std::size_t>(steps)), hidden;
    for (std::int64_t step = 0; step < steps; ++step) {
      const std::int64_t t = backwards ? steps - 1 - step : step;
      hidden.push_back(lane.h);
      advance(lane, from_input.pre.front().select(0, t));
      outputs[static_cast<std::size_t>(t)] = lane.h;
    }
    lane.from_hidden.input = at::stack(hidden);
    products_.push_back(std::move(from_input));
    products_.push_back(std::move(lane.from_hidden));
    if (w.projection.defined()) {
      lane.projected.input = at::stack(lane.unprojected);
      products_.push_back(std::move(lane.projected));
    }
    last[0].push_back(lane.h);
    if (lstm) last[1].push_back(lane.c);
    cell_state_ = lane.c;
    return at::stack(outputs);
  }

  /// One step. `zi`: the input's part of the pre-activations.
  void advance(Lane& lane, const at::Tensor& zi) {
    at::Tensor &h = lane.h, &c = lane.c;
    const at::Tensor zh = at::linear(h, tracked(lane.w.hidden), plain(lane.w.hidden_bias));
    lane.from_hidden.pre.push_back(zh);
    switch (r_.cell) {
      case Cell::Lstm: {
        const auto gates = (zi + zh).chunk(4, 1);
        c = gates[1].sigmoid() * c + gates[0].sigmoid() * gates[2].tanh();
        h = gates[3].sigmoid() * c.tanh();
        if (!lane.w.projection.defined()) return;
        lane.unprojected.push_back(h);
        h = at::linear(h, tracked(lane.w.projection));
        lane.projected.pre.push_back(h);
        return;
      }
      case Cell::Gru: {
        const auto i = zi.chunk(3, 1), g = zh.chunk(3, 1);
        const at::Tensor update = (i[1] + g[1]).sigmoid();
        const at::Tensor proposal = (i[2] + (i[0] + g[0]).sigmoid() * g[2]).tanh();
        h = (1 - update) * proposal + update * h;
        return;
      }
      case Cell::Tanh:
        h = (zi + zh).tanh();
        return;
      case Cell::Relu:
        h = (zi + zh).relu();
        return;
    }
  }

  /// In the type that is computed in.
  at::Tensor plain(const at::Tensor& tensor) const {
    return tensor.defined() ? tensor.detach().to(r_.input.scalar_type()) : tensor;
  }
  /// ... so that everything computed from it has a graph.
  at::Tensor tracked(const at::Tensor& weight) const { return plain(weight).requires_grad_(true); }

  const Recurrence& r_;
  std::vector<at::Tensor> start_;
  std::vector<GateProduct> products_;
  at::Tensor cell_state_;
};

/// Reads the arguments. Empty where they are of a kind that is not computed again; `why` then says so.
std::optional<Recurrence> read_recurrence(const kind::Recurrent& op, const Run& run, std::string& why) {
  const Arguments args = run.op.args();
  Recurrence r;
  r.cell = op.cell;
  r.input = run.call.inputs.front();
  if (op.one_step) {
    r.states = r.cell == Cell::Lstm ? tensors_at(args, 1) : std::vector<at::Tensor>{tensor_at(args, 1)};
    r.weights = {{tensor_at(args, 2), tensor_at(args, 3), tensor_at(args, 4), tensor_at(args, 5), {}}};
    r.input = r.input.unsqueeze(0);
    for (const at::Tensor& state : r.states) r.start.push_back(state.unsqueeze(0));
    return r;
  }
  // (input, states, weights, has_biases, layers, dropout, train, bidirectional, batch_first)
  if (args.size() < 9 || !args[3].isBool()) {
    why = "a packed sequence is not computed again";
    return std::nullopt;
  }
  if (number_at(args, 5, 0) > 0 && bool_at(args, 6, false) && int_at(args, 4, 1) > 1) {
    why = "dropout between its layers cannot be computed again";
    return std::nullopt;
  }
  r.states = r.cell == Cell::Lstm ? tensors_at(args, 1) : std::vector<at::Tensor>{tensor_at(args, 1)};
  r.start = r.states;
  r.layers = int_at(args, 4, 1);
  r.directions = bool_at(args, 7, false) ? 2 : 1;
  if (bool_at(args, 8, false)) r.input = r.input.transpose(0, 1);
  const bool biases = bool_at(args, 3, true);
  const std::vector<at::Tensor> flat = tensors_at(args, 2);
  const auto places = static_cast<std::size_t>(r.layers * r.directions);
  const std::size_t each = flat.size() / places;
  for (std::size_t place = 0; place < places; ++place) {
    const at::Tensor* w = flat.data() + place * each;
    GateWeights weights{w[0], w[1], {}, {}, {}};
    if (biases) weights.input_bias = w[2], weights.hidden_bias = w[3];
    if (each == (biases ? 5U : 3U)) weights.projection = w[each - 1];
    r.weights.push_back(std::move(weights));
  }
  return r;
}

/// True if the two differ by more than the rounding of their type.
bool differ(const at::Tensor& a, const at::Tensor& b) {
  const double tolerance = b.scalar_type() == at::kDouble ? 1e-11 : b.scalar_type() == at::kFloat ? 1e-3 : 5e-2;
  return (a - b).abs().max().item<double>() > tolerance * (1 + b.abs().max().item<double>());
}

/// Replayed outputs that a gradient comes in at, and the gradients.
struct Incoming {
  std::vector<at::Tensor> reached, gradients;

  void add(const at::Tensor& output, const at::Tensor& gradient) {
    if (!gradient.defined()) return;
    reached.push_back(output);
    gradients.push_back(gradient);
  }
};

/// `delta`: the gradient at the output as (t, n, features).
Incoming incoming(const kind::Recurrent& op, const Run& run, const Replay& replay,
                  const std::vector<at::Tensor>& outputs, const at::Tensor& delta) {
  Incoming result;
  result.add(outputs.front(), delta);
  for (std::size_t i = 0; i < run.states.size(); ++i) {
    if (!run.states[i].defined()) continue;
    if (!op.one_step) {
      result.add(outputs[i + 1], run.states[i]);
      continue;
    }
    // A cell gives (h, c), of which h is its output already.
    at::Tensor direct = run.states[i];
    if (run.op.output_from_states && delta.defined()) {
      direct = direct - torch::autograd::grad({outputs.front()}, {replay.cell_state()}, {delta},
                                              /*retain_graph=*/true)[0];
    }
    result.add(replay.cell_state(), direct);
  }
  return result;
}

/// The use of an initial state that is a parameter, or computed from parameters. `delta`: the gradient there, as
/// (layers, n, features).
void add_state(const at::Tensor& state, const at::Tensor& delta, const SampleRows& rows, Uses& uses) {
  if (!delta.defined() || (!uses.knows(state) && !state.requires_grad())) return;
  const std::int64_t dim = state.dim() - 2, batch = state.size(dim);
  if (state.stride(dim) == 0) {  // one state for all samples
    const at::AutoGradMode grad(true);
    return uses.add(state.select(dim, 0), Sum{rows_of(delta, rows, {0, 2})});
  }
  const at::Tensor places = at::arange(batch, delta.options().dtype(at::kLong));
  const at::Tensor own = delta.movedim(1, 0).contiguous();
  std::vector<std::int64_t> shape = own.sizes().vec();
  shape[0] *= rows.samples;
  const at::Tensor all = at::zeros(shape, own.options())
                             .index_copy(0, owners(rows, batch, places.options()).mul(batch).add(places), own)
                             .unflatten(0, {rows.samples, batch});
  uses.add(state, Dense{all.movedim(1, 2).flatten(1)});
}

/// The products of the gates, with delta at their pre-activations, and the initial states.
void add_products(const Recurrence& recurrence, const Replay& replay, const Incoming& from, const Run& run,
                  Uses& uses) {
  std::vector<at::Tensor> pre;
  for (const GateProduct& product : replay.products()) pre.insert(pre.end(), product.pre.begin(), product.pre.end());
  pre.insert(pre.end(), replay.start().begin(), replay.start().end());
  const auto deltas = torch::autograd::grad(from.reached, pre, from.gradients, /*retain_graph=*/false,
                                            /*create_graph=*/false, /*allow_unused=*/true);
  SampleRows rows = run.rows;
  rows.dim = 1;  // of (t, n, features), whatever the operator's output was
  const auto by_position = [&](const at::Tensor& sequence) { return rows_of(sequence.detach(), rows, {2}); };
  std::size_t next = 0;
  for (const GateProduct& product : replay.products()) {
    const bool at_once = product.pre.front().dim() == 3;
    std::vector<at::Tensor> delta(product.pre.size());
    for (std::size_t i = 0; i < delta.size(); ++i, ++next) {
      delta[i] = deltas[next].defined() ? deltas[next] : at::zeros_like(product.pre[i]);
    }
    const at::Tensor left = by_position(at_once ? delta.front() : at::stack(delta));
    uses.add_product(product.weight, Product{Factor(left), Factor(by_position(product.input))});
    if (product.bias.defined()) uses.add(product.bias, Sum{left});
  }
  for (const at::Tensor& state : recurrence.states) add_state(state, deltas[next++], rows, uses);
}

}  // namespace

void add_uses(const kind::Recurrent& op, const Run& run, Uses& uses) {
  std::string why;
  const auto recurrence = read_recurrence(op, run, why);
  if (!recurrence) return uses.mark(Status::NotReplayable, why);
  const bool batch_first = !op.one_step && bool_at(run.op.args(), 8, false);
  // As (t, n, features), whatever the operator gave.
  const auto sequence = [&](const at::Tensor& output) {
    if (!output.defined()) return output;
    return op.one_step ? output.unsqueeze(0) : batch_first ? output.transpose(0, 1) : output;
  };
  Replay replay(*recurrence);
  std::vector<at::Tensor> outputs;
  {
    const at::AutoGradMode grad(true);
    outputs = replay.run();
  }
  if (differ(outputs.front().detach(), sequence(run.call.output))) {
    return uses.mark(Status::NotReplayable,
                     "computing the recurrence again gives another output than it had: its weights or states were "
                     "changed since, or it ran in a lower precision");
  }
  const Incoming from = incoming(op, run, replay, outputs, sequence(run.delta));
  if (!from.reached.empty()) add_products(*recurrence, replay, from, run, uses);
}

}  // namespace dds::hooks
