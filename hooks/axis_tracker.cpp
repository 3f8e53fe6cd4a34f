#include "hooks/axis_tracker.hpp"

#include <algorithm>
#include <utility>

#include "hooks/axis_rules.hpp"
#include "hooks/memory.hpp"
#include "hooks/operators.hpp"

namespace dds::hooks {
namespace {

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
    made_.try_emplace(storage_of(tensor), Made{ids, tensor.sizes().vec(), tensor.storage().getWeakStorageImpl()});
  }
  known_.insert_or_assign(tensor.unsafeGetTensorImpl(),
                          Known{std::move(ids), dropped_, decltype(Known::keep)(tensor.getIntrusivePtr())});
}

void AxisTracker::drop(const at::Tensor& operand, Axes::Id axis) {
  if (operand.requires_grad()) dropped_.insert(axes_->root(axis));
}

void AxisTracker::mix(const at::Tensor& operand, Axes::Id axis) {
  if (operand.requires_grad()) axes_->mix(axis, order_);
}

/// A sum over an axis that meets what still has the axis: h - h.mean(0).
void AxisTracker::find_mixing(const std::vector<at::Tensor>& operands) {
  dropped_.clear();
  for (const at::Tensor& operand : operands) {
    const auto known = known_.find(operand.unsafeGetTensorImpl());
    if (known == known_.end() || !operand.requires_grad()) continue;
    for (const Axes::Id dropped : known->second.dropped) dropped_.insert(axes_->root(dropped));
  }
  if (dropped_.empty()) return;
  for (const at::Tensor& operand : operands) {
    for (const Axes::Id id : axes_of(operand)) {
      if (dropped_.erase(axes_->root(id)) > 0) axes_->mix(id, order_);
    }
  }
}

Axes::Ids AxisTracker::axes_of(const at::Tensor& tensor) {
  if (const auto known = known_.find(tensor.unsafeGetTensorImpl()); known != known_.end()) return known->second.ids;
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
  const std::vector<at::Tensor> operands = tensors_in(args);
  inside_ = inside;
  order_ = order;
  find_mixing(operands);
  std::size_t place = 0;
  for (const at::Tensor& output : tensors_in(outputs)) {
    const auto whole = std::find_if(operands.begin(), operands.end(), [&](const at::Tensor& operand) {
      return storage_of(output) && storage_of(operand) == storage_of(output);
    });
    const auto same = [&](const at::Tensor& operand) { return operand.is_same(output); };
    if (std::any_of(operands.begin(), operands.end(), same)) {
      written(plain, args, output);
    } else if (whole == operands.end()) {
      gave(plain, args, output, place);
    } else if (!knows(output)) {
      remember(output, axes_of_view(plain, *whole, output, *this));
    }
    ++place;
  }
  dropped_.clear();
}

/// The operator wrote into `output`, or passed it on.
void AxisTracker::written(std::string_view name, Arguments args, const at::Tensor& output) {
  // A kernel that fills its own result: what it then does to it is not heard.
  if (inside_ && !knows(output) && made_.count(storage_of(output)) == 0) return;
  const Axes::Ids before = axes_of(output);
  const bool alone = tensors_in(args).size() == 1;
  if (auto ids = axes_by_rule(name, args, output, 0, *this)) {
    if (alone && !axes_->have_data(before) && axes_->have_data(*ids)) return remember(output, *ids);  // random numbers
    for (std::size_t i = 0; i < std::min(before.size(), ids->size()); ++i) axes_->join(before[i], (*ids)[i]);
  }
  if (!knows(output) && constants_.count(storage_of(output)) == 0) remember(output, before);
  // Data in a part of a tensor: along the dimensions that the part lacks, it is not known whose they are.
  const auto made = made_.find(storage_of(output));
  bool data = false;
  for_each_tensor(args, [&](const at::Tensor& operand) {
    data = data || (!operand.is_same(output) && axes_->have_data(axes_of(operand)));
  });
  if (!data || made == made_.end()) return;
  for (const Axes::Id id : made->second.ids) {
    if (!axes_->have_data({id})) axes_->derive(id);
  }
}

void AxisTracker::gave(std::string_view name, Arguments args, const at::Tensor& output, std::size_t place) {
  bool data = false;
  for_each_tensor(args, [&](const at::Tensor& operand) { data = data || axes_->have_data(axes_of(operand)); });
  const bool room = inside_ && name.ends_with("_like");  // for a kernel's result
  auto ids = room ? std::optional(axes_->add(output.dim(), false)) : axes_by_rule(name, args, output, place, *this);
  if (ids) {
    remember(output, std::move(*ids));
  } else if (!knows(output) || (data && !axes_->have_data(axes_of(output)))) {
    remember(output, axes_->add(output.dim(), data));  // unless what ran inside tells more
  }
  if (output.dim() > 0 || !output.requires_grad()) return;
  for (const at::Tensor& operand : tensors_in(args)) {
    if (operand.dim() == 0) continue;
    const Axes::Ids ids = axes_of(operand);
    axes_->sum_over(ids.front(), operand.size(0));
    for (const Axes::Id id : ids) drop(operand, id);
    remember(output, {});
    return;
  }
}

}  // namespace dds::hooks
