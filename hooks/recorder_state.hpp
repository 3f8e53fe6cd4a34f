// A recorder's listener: told of operators, it finds out what each is to the recording, and keeps what came of it.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>

#include <atomic>
#include <cstdint>
#include <dds/recorder.hpp>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "hooks/attribution.hpp"
#include "hooks/axis_tracker.hpp"
#include "hooks/call_record.hpp"
#include "hooks/copy_on_write.hpp"
#include "hooks/layers.hpp"
#include "hooks/loss_record.hpp"
#include "hooks/loss_ties.hpp"
#include "hooks/observer.hpp"
#include "hooks/pass_graph.hpp"
#include "hooks/weights.hpp"

namespace dds {

class RecorderState : public hooks::Listener {
 public:
  RecorderState(std::shared_ptr<hooks::ParameterSource> parameters, RecorderOptions options);

  const std::vector<std::string>& names() const { return weights_.selected(); }
  void begin();
  void end();
  Captured take();

  bool all_threads() const override { return options_.all_threads; }
  bool exclusive() const override { return options_.exclusive; }
  bool listening() const override { return listening_; }
  std::unique_ptr<hooks::OperatorNote> operator_starts(std::string_view name, hooks::Arguments args, bool grad_mode,
                                                       hooks::Nesting& nesting) override;
  void operator_ends(std::string_view name, hooks::OperatorNote& note, const std::vector<c10::IValue>& outputs,
                     hooks::Nesting& nesting) override;
  void custom_function_runs(std::string_view name) override;
  void backward_node_runs(std::string_view name, std::int64_t sequence) override;
  void tapped(std::string_view name, const at::Tensor& tensor) override;
  void failed(std::string_view where, std::string_view what) override;

 private:
  /// A run of a layer that is recorded.
  struct Run {
    hooks::LayerRun layer;
    hooks::SiteId site;
    std::string name;  ///< of the site
    const hooks::Operator* entry;
    std::vector<c10::IValue> arguments;  ///< if they are wanted
  };
  /// A bias is added to a call's output.
  struct Bias {
    hooks::CallId call;
    at::Tensor tensor;
  };
  using Role = std::variant<std::monostate, Run, Bias, hooks::LossRun, hooks::ActivationRun, hooks::Derivation>;

  /// What an operator is to the recording.
  struct Note : hooks::OperatorNote {
    Role role;
    std::optional<hooks::Family> family;          ///< of a layer's run, recorded or not
    bool outermost = false;                       ///< what runs inside is part of it
    std::vector<c10::IValue> arguments;           ///< if axes are followed
    std::uint64_t recording = 0;                  ///< in which it started
    std::unique_ptr<hooks::PassGraph::Run> pass;  ///< what it is to the graph of the pass, if it is in it

    template <class Kind>
    Kind* as() {
      return std::get_if<Kind>(&role);
    }
    template <class Kind>
    const Kind* as() const {
      return std::get_if<Kind>(&role);
    }
  };

  // ---- when an operator starts ----
  std::unique_ptr<Note> note_of(std::string_view name, hooks::Arguments args, bool grad_mode, hooks::Nesting& nesting);
  void recognise(std::string_view name, const hooks::Operator* entry, hooks::Arguments args, Note& note);
  std::optional<Bias> bias_that_follows(const hooks::Operator* entry, hooks::Arguments args) const;
  std::optional<hooks::LayerRun> layer_run(const hooks::Operator* entry, hooks::Arguments args) const;
  std::optional<hooks::SiteId> site_of(const hooks::LayerRun& run);
  void attribute(std::string_view name, hooks::Arguments args, Note& note);
  void find_uses_beside(std::string_view name, hooks::Arguments args);
  void attribute_run(std::string_view name, const Run& run, const std::set<std::size_t>& layers);
  void without_grad_mode(std::string_view name, hooks::Arguments args, Note& note);

  // ---- when it ends: `output` is the first of `outputs` ----
  using Outputs = std::vector<c10::IValue>;
  std::unique_ptr<hooks::PassGraph::Run> enters_graph(std::string_view name, hooks::Arguments args, bool grad_mode,
                                                      const hooks::Nesting& nesting);
  void leaves_graph(const hooks::PassGraph::Run& run, const Outputs& outputs);
  void ended(std::monostate&, std::string_view, const at::Tensor&, const Outputs&) {}
  void ended(Run& run, std::string_view name, const at::Tensor& output, const Outputs& outputs);
  void ended(Bias& bias, std::string_view name, const at::Tensor& output, const Outputs& outputs);
  void ended(hooks::LossRun& loss, std::string_view name, const at::Tensor& output, const Outputs& outputs);
  void ended(hooks::ActivationRun& activation, std::string_view name, const at::Tensor& output, const Outputs& outputs);
  void ended(hooks::Derivation& derivation, std::string_view name, const at::Tensor& output, const Outputs& outputs);

  hooks::CallId capture(hooks::SiteId site, const hooks::LayerRun& run, std::string_view op, const at::Tensor& output);
  std::shared_ptr<hooks::CapturedOperator> kept_operator(Run& run, const Outputs& outputs);
  std::shared_ptr<hooks::GradientSlot> gradient_slot(const at::Tensor& output) const;
  void look_around(std::vector<CapturedLayer>& layers, const std::vector<std::vector<hooks::CallId>>& calls);
  void bound_ranks(std::vector<CapturedLayer>& layers, const std::vector<std::vector<hooks::CallId>>& calls);
  std::vector<CapturedLayer> taps_without_calls() const;
  void clear();

  /// Where the rows of samples lie is told by axes, unless it is measured in the graph.
  bool follows_axes() const { return options_.operators && !options_.graph; }

  const RecorderOptions options_;
  const std::shared_ptr<hooks::ParameterSource> parameters_;
  std::atomic<bool> listening_ = false;

  std::mutex mutex_;  // of all below: operators may run on several threads
  hooks::Weights weights_;
  hooks::CallRecord calls_;
  hooks::CopyOnWrite copies_;
  hooks::PassGraph graph_;
  std::vector<std::optional<hooks::NodeId>> outputs_, inputs_;  ///< of calls, in the graph
  std::vector<Surroundings> around_;                            ///< of calls
  hooks::LossRecord losses_;
  std::shared_ptr<const hooks::Trained> trained_;
  hooks::LossTies ties_;
  hooks::UseCounts uses_;
  hooks::AxisTracker axes_;
  std::shared_ptr<std::map<std::string, std::string>> beside_;  ///< as CapturedOperator has it
  std::set<std::string> tapped_;                                ///< the patterns that a tap matched
  std::vector<std::string> errors_;
  std::int64_t next_order_ = 0;  ///< counts calls and losses
  std::uint64_t number_ = 0;     ///< of the recording: ids of sites and calls are good within one
};

}  // namespace dds
