#include "hooks/axes.hpp"

#include <algorithm>

namespace dds::hooks {

Axes::Ids Axes::add(std::int64_t count, bool derived) {
  Ids ids;
  for (std::int64_t i = 0; i < count; ++i) {
    ids.push_back(axes_.size());
    axes_.push_back({.parent = axes_.size(), .derived = derived});
  }
  return ids;
}

Axes::Ids Axes::add_data(c10::ArrayRef<std::int64_t> sizes) {
  Ids ids = add(static_cast<std::int64_t>(sizes.size()), false);
  for (std::size_t dim = 0; dim < ids.size(); ++dim) axes_[ids[dim]].places.push_back({data_.size(), dim});
  data_.push_back(sizes.vec());
  return ids;
}

Axes::Id Axes::root(Id axis) const {
  while (axes_[axis].parent != axis) axis = axes_[axis].parent;
  return axis;
}

void Axes::join(Id a, Id b) {
  Id into = root(a), from = root(b);
  if (into == from) return;
  if (axes_[into].places.size() < axes_[from].places.size()) std::swap(into, from);
  Axis &kept = axes_[into], &gone = axes_[from];
  gone.parent = into;
  kept.derived = kept.derived || gone.derived;
  kept.reordered = kept.reordered || gone.reordered;
  kept.feature = kept.feature || gone.feature;
  kept.summed = std::max(kept.summed, gone.summed);
  kept.mixed = std::max(kept.mixed, gone.mixed);
  kept.places.insert(kept.places.end(), gone.places.begin(), gone.places.end());
  gone.places.clear();
}

void Axes::sum_over(Id axis, std::int64_t size) { of(axis).summed = size; }

bool Axes::have_data(const Ids& axes) const {
  return std::any_of(axes.begin(), axes.end(), [this](Id axis) {
    const Axis& each = of(axis);
    return each.feature || is_data(each);
  });
}

/// How many dimensions of a tensor of the data have this size.
std::int64_t Axes::dims_of(std::size_t tensor, std::int64_t size) const {
  return std::count(data_[tensor].begin(), data_[tensor].end(), size);
}

std::string Axes::doubt(Id axis, std::int64_t n) const {
  constexpr const char* kAsMany = "there are as many positions as samples, and its rows may be either";
  const Axis& rows = of(axis);
  if (!is_data(rows) && !(rows.feature && rows.summed > 0)) {
    return "they were made within the recording of constants, parameters or buffers, so that they may be positions "
           "that all samples share";
  }
  const bool first = std::any_of(rows.places.begin(), rows.places.end(), [](const Place& p) { return p.dim == 0; });
  const bool crossing = std::any_of(rows.places.begin(), rows.places.end(),
                                    [&](const Place& p) { return p.dim != 0 && dims_of(p.tensor, n) > 1; });
  if (crossing && !(first && rows.summed > 0)) return kAsMany;
  if (rows.summed > 0) return "";
  // The loss may be a sum over the same rows after what is not followed.
  bool open = rows.derived;
  for (Id id = 0; id < axes_.size(); ++id) {
    if (axes_[id].parent != id || axes_[id].summed != n) continue;
    if (!axes_[id].derived) return "the loss is a sum over others, or over these in another order";
    open = true;
  }
  for (std::size_t tensor = 0; open && tensor < data_.size(); ++tensor) {
    if (dims_of(tensor, n) > 1) return kAsMany;
  }
  return "";
}

}  // namespace dds::hooks
