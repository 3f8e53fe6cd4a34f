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
  const Ids parts = gone.parts;
  if (kept.parts.empty()) {
    kept.parts = parts;
    kept.sizes = gone.sizes;
    if (!parts.empty()) wholes_.push_back(into);
  } else if (kept.sizes == gone.sizes) {
    const Ids own = kept.parts;
    for (std::size_t i = 0; i < own.size(); ++i) join(own[i], parts[i]);
  }
}

bool Axes::has_parts(Id axis, const Ids& parts) const {
  const Ids& own = of(axis).parts;
  return std::equal(own.begin(), own.end(), parts.begin(), parts.end(),
                    [this](Id a, Id b) { return root(a) == root(b); });
}

Axes::Id Axes::merged(const Ids& parts, const std::vector<std::int64_t>& sizes) {
  for (const Id whole : wholes_) {
    if (has_parts(whole, parts)) return whole;
  }
  const Id whole = add(1, have_data(parts)).front();
  axes_[whole].parts = parts;
  axes_[whole].sizes = sizes;
  wholes_.push_back(whole);
  return whole;
}

Axes::Ids Axes::split(Id whole, const std::vector<std::int64_t>& sizes) {
  if (of(whole).sizes == sizes) return of(whole).parts;
  Ids parts = add(static_cast<std::int64_t>(sizes.size()), have_data({whole}));
  if (of(whole).parts.empty()) {
    of(whole).parts = parts;
    of(whole).sizes = sizes;
    wholes_.push_back(root(whole));
  }
  return parts;
}

bool Axes::crossed(Id a, Id b) const {
  const Axis &one = of(a), &other = of(b);
  std::int64_t step = 1;  // of a part, in the whole
  for (std::size_t i = one.parts.size(); i-- > 0; step *= one.sizes[i]) {
    std::int64_t of_other = 1;
    for (std::size_t k = other.parts.size(); k-- > 0; of_other *= other.sizes[k]) {
      if (root(one.parts[i]) == root(other.parts[k]) && step != of_other) return true;
    }
  }
  return false;
}

Axes::Ids Axes::relatives(Id axis) const {
  Ids all{root(axis)};
  for (const Id part : of(axis).parts) all.push_back(root(part));
  for (const Id whole : wholes_) {
    const Ids& parts = of(whole).parts;
    if (std::any_of(parts.begin(), parts.end(), [&](Id part) { return root(part) == all.front(); }))
      all.push_back(root(whole));
  }
  return all;
}

void Axes::sum_over(Id axis, std::int64_t size) {
  of(axis).summed = size;
  const Ids parts = of(axis).parts;
  for (std::size_t i = 0; i < parts.size(); ++i) sum_over(parts[i], of(axis).sizes[i]);
}

void Axes::mix(Id axis, std::int64_t order) {
  for (const Id each : relatives(axis)) of(each).mixed = order;
}

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
  for (Id id = 0; id < axes_.size(); ++id) {
    if (axes_[id].parent != id || axes_[id].summed != n) continue;
    return axes_[id].derived ? "the loss is a sum over others, or over these after what is not followed"
                             : "the loss is a sum over others, or over these in another order";
  }
  for (std::size_t tensor = 0; rows.derived && tensor < data_.size(); ++tensor) {
    if (dims_of(tensor, n) > 1) return kAsMany;
  }
  return "";
}

}  // namespace dds::hooks
