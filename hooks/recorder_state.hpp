// The state of one recorder: sites, calls, bounds, and what is handed over at the end.
#pragma once

#include <ATen/core/Tensor.h>

#include <atomic>
#include <compare>
#include <dds/recorder.hpp>
#include <limits>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "hooks/layers.hpp"
#include "hooks/observer.hpp"
#include "hooks/operators.hpp"

namespace dds {

/// Where a hook on a tensor puts its gradient, for as long as the slot is kept.
struct CapturedCall::GradientSlot {
  std::mutex mutex;
  at::Tensor gradient;
  std::int64_t backwards = 0;

  /// Of a tensor, hooked if it takes part in the graph.
  static std::shared_ptr<GradientSlot> of(const at::Tensor& tensor);
  void add(const at::Tensor& incoming);
  at::Tensor read();
};

/// Number of columns where the dimensions in `features` are those of the columns.
std::int64_t width_of(const at::Tensor& tensor, const std::vector<std::int64_t>& features);

/// What is recorded: told of operators, it finds the sites that they are runs of, keeps their tensors and hooks their
/// gradients, and hands over what it has.
class RecorderState : public hooks::Listener {
 public:
  RecorderState(std::shared_ptr<hooks::ParameterSource> parameters, RecorderOptions options);

  const std::vector<std::string>& names() const { return names_; }
  void begin();
  void end();
  Captured take();

  bool all_threads() const override { return options_.all_threads; }
  bool exclusive() const override { return options_.exclusive; }
  bool listening() const override { return recording_; }
  std::unique_ptr<hooks::OperatorNote> operator_starts(std::string_view name, c10::ArrayRef<const c10::IValue> args,
                                                       bool grad_mode, hooks::Nesting& nesting) override;
  void operator_ends(std::string_view name, hooks::OperatorNote& note, const std::vector<c10::IValue>& outputs,
                     hooks::Nesting& nesting) override;
  void tapped(std::string_view name, const at::Tensor& tensor) override;
  void failed(std::string_view where, const char* what) override;

 private:
  /// A call, by the places of its site and of itself within it.
  using CallId = std::pair<std::size_t, std::size_t>;

  /// What an operator is to the recording.
  struct Note : hooks::OperatorNote {
    std::optional<hooks::LayerRun> run;              ///< a layer runs
    std::vector<c10::IValue> arguments;              ///< ... on these, if they are wanted
    std::size_t site = 0;                            ///< ... this one
    std::string layer;                               ///< ... of this name
    std::optional<hooks::LossRun> loss;              ///< a loss is computed
    std::optional<hooks::ActivationRun> activation;  ///< ... or what a loss may undo
    bool derives = false;                            ///< its outputs are computed from parameters alone
    std::size_t owner = 0;                           ///< ... of this layer
    at::Tensor like;                                 ///< ... provided they have this tensor's shape, if it is defined
    std::optional<CallId> biased;                    ///< a bias is added to this call's output
    at::Tensor bias;                                 ///< ... this one
    std::uint64_t recording = 0;                     ///< number of the recording in which it started
    bool outermost = false;                          ///< what runs inside is part of it
    std::vector<std::size_t> uses;                   ///< layers whose use is not attributed until the end

    bool wants_end() const { return run || loss || activation || derives || biased || outermost; }
  };

  /// Who reads a captured output: decides the bound on the rank of the gradient there.
  struct Consumers {
    std::vector<CallId> products;
    bool softmax = false;
    bool others = false;
  };

  struct Site {
    CapturedLayer captured;
    std::optional<std::size_t> layer;  ///< index into index_.layers(); none for a tap
    std::string role;                  ///< tells apart several uses of one layer's weight
    std::vector<Consumers> consumers;  ///< by call
  };

  /// An operator that took something of a layer, or of a leaf of nobody's.
  struct Use {
    static constexpr std::size_t kNobody = std::numeric_limits<std::size_t>::max();
    std::size_t layer;
    std::string leaf, op;
    Attribution::Outcome outcome;
    std::string site;
    auto operator<=>(const Use&) const = default;
  };

  struct Derived {
    std::size_t layer;
    at::Tensor keep;  ///< its storage must not be given to another tensor while it is a key
  };

  /// A softmax or logistic function that was taken. Without a share in its tensors: there may be many, and few are
  /// lost.
  struct Activation {
    using Weak = c10::weak_intrusive_ptr<at::TensorImpl, at::UndefinedTensorImpl>;
    Weak result, input;
    CapturedLoss::Difference difference;
    std::int64_t classes;
  };

  std::optional<std::size_t> layer_of(const at::Tensor& tensor,
                                      std::optional<hooks::Family> family = std::nullopt) const;
  std::optional<std::size_t> match_site(const hooks::LayerRun& run);
  std::size_t site_for(std::optional<std::size_t> layer, const std::string& name, const std::string& kind,
                       const std::string& role);
  bool is_weight_of_weights(const hooks::LayerRun& run) const;
  void note_derivation(c10::ArrayRef<const c10::IValue> args, Note& note);
  std::optional<CallId> bias_follows(std::string_view name, c10::ArrayRef<const c10::IValue> args) const;
  std::set<std::size_t> layers_in(c10::ArrayRef<const c10::IValue> args, std::optional<hooks::Family> family) const;
  void select_new_layers();
  void follow_strange_leaves(c10::ArrayRef<const c10::IValue> args, bool grad_mode);
  void attribute(std::string_view name, c10::ArrayRef<const c10::IValue> args, std::optional<hooks::Family> family,
                 Note& note);
  void count(std::size_t layer, std::string_view op, Attribution::Outcome outcome, const std::string& site = "",
             const std::string& leaf = "");
  std::unique_ptr<hooks::OperatorNote> without_grad_mode(std::string_view name, c10::ArrayRef<const c10::IValue> args,
                                                         hooks::Nesting& nesting);
  void note_consumers(std::string_view name, c10::ArrayRef<const c10::IValue> args, const Note& note);
  void save_before_write(const at::Tensor& target, const std::optional<CallId>& except);
  CallId capture(std::size_t site, const hooks::LayerRun& run, std::string_view op, const at::Tensor& output);
  std::shared_ptr<CapturedCall::GradientSlot> hook_gradient(const at::Tensor& output) const;
  void keep_operator(CallId id, std::string_view name, Note& note, const std::vector<c10::IValue>& outputs);
  void extend_by_bias(CallId id, const at::Tensor& output);
  void capture_loss(const hooks::LossRun& run, std::string_view op, const at::Tensor& result);
  void remember(CallId id, const at::Tensor& output);
  CapturedCall& call(CallId id) { return sites_[id.first].captured.calls[id.second]; }
  const CapturedCall& call(CallId id) const { return sites_[id.first].captured.calls[id.second]; }
  void bound_gradients();
  void drop_calls_without_backward();
  void add_layers_that_did_not_run(Captured& captured) const;
  std::vector<Attribution> attribution() const;
  void clear();

  RecorderOptions options_;
  hooks::LayerIndex index_;
  std::size_t known_layers_ = 0;  ///< of index_.layers(): for those it has been decided whether they are selected
  std::vector<std::string> names_;
  std::atomic<bool> recording_ = false;

  std::mutex mutex_;  // of all below: operators may run on several threads
  std::vector<Site> sites_;
  std::vector<CapturedLoss> losses_;
  std::vector<std::string> errors_;
  std::unordered_map<const at::TensorImpl*, Activation> activations_;  // by identity of the result
  std::unordered_map<const void*, Derived> derived_;                   // by storage
  std::unordered_map<const void*, at::Tensor> viewed_;            // leaves of nobody's that were looked at, by storage
  std::unordered_map<const at::TensorImpl*, CallId> outputs_;     // by identity
  std::unordered_map<const void*, std::vector<CallId>> holders_;  // calls that hold a tensor with this storage
  std::vector<at::Tensor> keep_;                                  // keeps the identities in outputs_ valid
  std::vector<CallId> order_;                                     // of all calls
  std::int64_t next_order_ = 0;                                   // counts calls and losses
  std::uint64_t number_ = 0;          // of the recording: places in sites_ are good within one
  std::map<Use, std::int64_t> uses_;  // how often
};

}  // namespace dds
