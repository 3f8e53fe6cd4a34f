#include "hooks/axis_tracker.hpp"

#include <algorithm>
#include <utility>

#include "hooks/axis_views.hpp"
#include "hooks/memory.hpp"
#include "hooks/operators.hpp"

namespace dds::hooks {
namespace {

constexpr Axes::Id kNobody = ~Axes::Id{0};

std::vector<at::Tensor> tensors_in(Arguments args) {
  std::vector<at::Tensor> tensors;
  for_each_tensor(args, [&](const at::Tensor& tensor) { tensors.push_back(tensor); });
  return tensors;
}

}  // namespace

void AxisTracker::begin(const ParameterSource& source) {
  end();
  axes_ = std::make_shared<Axes>();
  source.for_each([this](const FoundParameter& found) { constants_.insert(storage_of(found.tensor)); });
  source.for_each_buffer([this](const at::Tensor& buffer) { constants_.insert(storage_of(buffer)); });
  constants_.erase(nullptr);
}

void AxisTracker::end() {
  known_.clear();
  made_.clear();
  constants_.clear();
}

void AxisTracker::remember(const at::Tensor& tensor, Axes::Ids ids) {
  if (storage_of(tensor)) {
    made_.try_emplace(storage_of(tensor), Made{ids, tensor.sizes().vec(), {}, tensor.storage().getWeakStorageImpl()});
  }
  known_.insert_or_assign(tensor.unsafeGetTensorImpl(),
                          Known{std::move(ids), tensor.requires_grad() ? dropped_ : std::set<Axes::Id>(),
                                tensor.requires_grad(), decltype(Known::keep)(tensor.getIntrusivePtr())});
}

bool AxisTracker::told(const at::Tensor& output) const {
  const auto known = known_.find(output.unsafeGetTensorImpl());
  return known != known_.end() && known->second.graded == output.requires_grad();
}

void AxisTracker::drop(const at::Tensor& operand, Axes::Id axis) {
  if (operand.requires_grad()) dropped_.insert(axes_->root(axis));
}

void AxisTracker::mix(const at::Tensor& operand, Axes::Id axis) {
  if (operand.requires_grad()) axes_->mix(axis, order_);
}

/// A sum over an axis that meets what still has the axis: h - h.mean(0).
void AxisTracker::find_mixing(const Tensors& operands) {
  dropped_.clear();
  const auto inherit = [&](const std::set<Axes::Id>& all) {
    for (const Axes::Id dropped : all) dropped_.insert(axes_->root(dropped));
  };
  for (const at::Tensor& operand : operands) {
    if (!operand.requires_grad()) continue;
    const auto known = known_.find(operand.unsafeGetTensorImpl());
    if (known != known_.end()) inherit(known->second.dropped);
    if (const auto made = made_.find(storage_of(operand)); made != made_.end()) inherit(made->second.dropped);
  }
  if (dropped_.empty()) return;
  for (const at::Tensor& operand : operands) {
    for (const Axes::Id id : axes_of(operand)) {
      for (const Axes::Id met : axes_->relatives(id)) {
        if (dropped_.erase(met) > 0) axes_->mix(met, order_);
      }
    }
  }
}

Axes::Ids AxisTracker::axes_of(const at::Tensor& tensor) {
  const auto known = known_.find(tensor.unsafeGetTensorImpl());
  if (known != known_.end() && std::ssize(known->second.ids) == tensor.dim()) return known->second.ids;
  const auto made = made_.find(storage_of(tensor));
  if (made == made_.end()) return axes_->add(tensor.dim(), false);
  if (tensor.sizes() == made->second.sizes) return made->second.ids;
  return axes_->add(tensor.dim(), axes_->have_data(made->second.ids));
}

void AxisTracker::outermost_starts(Arguments args) {
  for (const at::Tensor& tensor : tensors_in(args)) {
    const void* storage = storage_of(tensor);
    if (knows(tensor) || constants_.count(storage) > 0 || made_.count(storage) > 0) continue;
    const bool number = tensor.numel() <= 1;
    remember(tensor, number ? axes_->add(tensor.dim(), false) : axes_->add_data(tensor.sizes()));
  }
}

void AxisTracker::operator_ends(std::string_view name, Arguments args, Arguments outputs, bool inside,
                                std::int64_t order) {
  const std::string_view plain = bare_name(name);
  const Tensors operands = tensors_in(args);
  inside_ = inside;
  order_ = order;
  find_mixing(operands);
  std::size_t place = 0;
  for (const at::Tensor& output : tensors_in(outputs)) {
    const auto whole = std::find_if(operands.begin(), operands.end(), [&](const at::Tensor& operand) {
      return storage_of(output) && storage_of(operand) == storage_of(output);
    });
    const auto same = [&](const at::Tensor& operand) { return operand.is_same(output); };
    const Ended ended{plain, args, operands, output, place++};
    if (std::any_of(operands.begin(), operands.end(), same)) {
      written(ended, is_in_place(name));
    } else if (whole == operands.end()) {
      gave(ended);
    } else if (!told(output)) {
      Axes::Ids ids = axes_of_view(plain, *whole, output, axes_of(*whole), *axes_);
      drop_what_is_gone(operands, ids);
      remember(output, std::move(ids));
    }
  }
  dropped_.clear();
}

bool AxisTracker::have_data(const Tensors& tensors) {
  return std::any_of(tensors.begin(), tensors.end(),
                     [this](const at::Tensor& tensor) { return axes_->have_data(axes_of(tensor)); });
}

/// The axes of the output, by the table of operators. Joins axes of the operands that the operator makes one. Empty for
/// an operator that is not followed.
std::optional<Axes::Ids> AxisTracker::axes_by_rule(const Ended& ended) {
  Meaning meaning;
  describe(ended, meaning);
  const at::Tensor& output = ended.output;
  if (meaning.values == Meaning::Values::Random) return axes_->add_data(output.sizes());
  if (meaning.values == Meaning::Values::Constant) return axes_->add(output.dim(), false);
  if (meaning.links.empty()) return std::nullopt;
  Axes::Ids result(static_cast<std::size_t>(output.dim()), kNobody);
  for (const Link& link : meaning.links) {
    if (link.operand >= ended.operands.size() || link.axes.size() != result.size()) return std::nullopt;
    const at::Tensor& operand = ended.operands[link.operand];
    const Axes::Ids ids = axes_of(operand);
    const bool arranged = std::any_of(link.axes.begin(), link.axes.end(), [](const DimSource& source) {
      return source.kind == DimSource::Kind::Merged || source.kind == DimSource::Kind::Part;
    });
    if (arranged) {
      if (auto reshaped = axes_of_reshaped(operand.sizes(), output.sizes(), ids, *axes_)) return reshaped;
    }
    for (std::size_t d = 0; d < result.size(); ++d) {
      const DimSource& source = link.axes[d];
      if (source.kind != DimSource::Kind::Same || source.from[0] >= std::ssize(ids)) continue;
      const Axes::Id from = ids[static_cast<std::size_t>(source.from[0])];
      if (link.if_data && !axes_->have_data({from})) continue;
      if (result[d] == kNobody) result[d] = from;
      if (axes_->crossed(result[d], from)) axes_->mix(from, order_);
      axes_->join(result[d], from);
      if (meaning.kind == Meaning::Kind::Contraction && !axes_->have_data({from}) && axes_->have_data(ids)) {
        axes_->feature(from);
      }
    }
  }
  for (const Event& event : meaning.events) happens(event, result);
  const bool derived = have_data(ended.operands);
  for (Axes::Id& id : result) {
    if (id == kNobody) id = axes_->add(1, derived).front();
  }
  return result;
}

/// `result`: the axes of the output, as far as they are known.
void AxisTracker::happens(const Event& event, Axes::Ids& result) {
  const Axes::Ids ids = axes_of(event.operand);
  if (event.dim < 0 || event.dim >= std::ssize(ids)) return;
  const Axes::Id axis = ids[static_cast<std::size_t>(event.dim)];
  switch (event.kind) {
    case Event::Kind::Together: {
      const Axes::Ids others = axes_of(event.other);
      if (event.other_dim < std::ssize(others)) axes_->join(axis, others[static_cast<std::size_t>(event.other_dim)]);
      return;
    }
    case Event::Kind::Blended:
      return mix(event.operand, axis);
    case Event::Kind::Summed: {
      drop(event.operand, axis);
      const auto is = [&](Axes::Id id) { return id != kNobody && axes_->root(id) == axes_->root(axis); };
      if (std::any_of(result.begin(), result.end(), is)) mix(event.operand, axis);
      return;
    }
    case Event::Kind::Moved: {
      Axes::Id& moved = result[static_cast<std::size_t>(event.other_dim)];
      if (moved == kNobody) moved = axes_->add(1, false).front();
      if (axes_->have_data({axis})) {
        axes_->reorder(moved);
      } else if (axes_->have_data(ids)) {
        axes_->feature(moved);
      }
      return drop(event.operand, axis);
    }
  }
}

void AxisTracker::drop_what_is_gone(const Tensors& operands, const Axes::Ids& result) {
  std::set<Axes::Id> there;
  for (const Axes::Id id : result) {
    for (const Axes::Id relative : axes_->relatives(id)) there.insert(relative);
  }
  for (const at::Tensor& operand : operands) {
    const Axes::Ids ids = axes_of(operand);
    for (std::size_t d = 0; d < ids.size(); ++d) {
      if (operand.sizes()[d] > 1 && there.count(axes_->root(ids[d])) == 0) drop(operand, ids[d]);
    }
  }
}

/// The operator wrote into `output`, or passed it on.
void AxisTracker::written(const Ended& ended, bool in_place) {
  const at::Tensor& output = ended.output;
  // A kernel that fills its own result: what it then does to it is not heard.
  if (inside_ && !knows(output) && made_.count(storage_of(output)) == 0) return;
  const Axes::Ids before = axes_of(output);
  auto ids = axes_by_rule(ended);
  if (ids) {
    const bool alone = ended.operands.size() == 1;
    if (alone && !axes_->have_data(before) && axes_->have_data(*ids)) return remember(output, *ids);  // random numbers
    for (std::size_t i = 0; i < std::min(before.size(), ids->size()); ++i) axes_->join(before[i], (*ids)[i]);
  } else if (in_place) {
    for (const Axes::Id id : before) mix(output, id);  // any entry may have gone into any other
  }
  if (!knows(output) && constants_.count(storage_of(output)) == 0) remember(output, before);
  // Data in a part of a tensor: along the dimensions that the part lacks, it is not known whose they are.
  const auto made = made_.find(storage_of(output));
  Tensors others = ended.operands;
  std::erase_if(others, [&](const at::Tensor& operand) { return operand.is_same(output); });
  if (made == made_.end() || !have_data(others)) return;
  drop_what_is_gone(others, before);
  made->second.dropped.insert(dropped_.begin(), dropped_.end());
  for (const Axes::Id id : made->second.ids) {
    if (!axes_->have_data({id})) axes_->derive(id);
  }
}

void AxisTracker::gave(const Ended& ended) {
  const at::Tensor& output = ended.output;
  const bool data = have_data(ended.operands),
             room = inside_ && ended.name.ends_with("_like");  // for a kernel's result
  auto ids = room ? std::optional(axes_->add(output.dim(), false)) : axes_by_rule(ended);
  if (!ids && (!told(output) || (data && !axes_->have_data(axes_of(output)))))
    ids = axes_->add(output.dim(), data);  // unless what ran inside tells more
  if (ids) {
    drop_what_is_gone(ended.operands, *ids);
    remember(output, std::move(*ids));
  }
  if (output.dim() > 0 || !output.requires_grad()) return;
  for (const at::Tensor& operand : ended.operands) {
    if (operand.dim() == 0) continue;
    const Axes::Ids ids = axes_of(operand);
    axes_->sum_over(ids.front(), operand.size(0));
    for (const Axes::Id id : ids) drop(operand, id);
    remember(output, {});
    return;
  }
}

}  // namespace dds::hooks
