// Which dimensions of the tensors of a recording count the same things.
//
// Each dimension of a tensor has an axis. Operators tell which axes are one: the two sides of a sum share theirs, a
// product has the rows of its left side, a sum over a dimension drops one. The tensors that were there before the
// recording are the data, and their first dimension counts the samples. From this follows which rows of a layer are
// samples, and which may be positions that all samples share.
#pragma once

#include <c10/util/ArrayRef.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace dds::hooks {

/// Not safe for several threads at once.
class Axes {
 public:
  using Id = std::size_t;
  using Ids = std::vector<Id>;

  /// `count` new axes. `derived`: the tensor was made of data in a way that is not followed.
  Ids add(std::int64_t count, bool derived);
  /// The axes of a tensor of the data.
  Ids add_data(c10::ArrayRef<std::int64_t> sizes);
  /// The two count the same things.
  void join(Id a, Id b);
  /// The axis of a dimension that several were made one of: the last of `parts` counts fastest.
  Id merged(const Ids& parts, const std::vector<std::int64_t>& sizes);
  /// The axes of the dimensions that one was cut into.
  Ids split(Id whole, const std::vector<std::int64_t>& sizes);
  /// True if a part of both counts faster in one than in the other.
  bool crossed(Id a, Id b) const;
  /// The axis, what it was made of, and what was made of it.
  Ids relatives(Id axis) const;
  /// Data were written into the tensor of this axis, and it is not known where.
  void derive(Id axis) { of(axis).derived = true; }
  /// Features of data: it came of weights, but what varies along it was made of data.
  void feature(Id axis) { of(axis).feature = true; }
  /// Its entries are some of the data's, in an order of their own.
  void reorder(Id axis) { of(axis).reordered = true; }
  /// The loss is a sum, or a mean, over a tensor whose first dimension is this one, of `size` entries.
  void sum_over(Id axis, std::int64_t size);

  /// Entries along the axis depend on each other from the place `order` of the recording on.
  void mix(Id axis, std::int64_t order);
  /// The last such place; -1: none.
  std::int64_t mixed(Id axis) const { return of(axis).mixed; }
  /// The same for all axes that are one so far.
  Id root(Id axis) const;

  /// True if one of the axes is one of the data, derived from them, or counts features of them.
  bool have_data(const Ids& axes) const;
  /// Why rows along an axis of n entries may be others than the n samples. Empty if nothing speaks for it.
  std::string doubt(Id axis, std::int64_t n) const;

 private:
  struct Place {
    std::size_t tensor;  ///< of the data
    std::size_t dim;
  };
  /// Axes that are one: the members of a tree, whose root has what is known.
  struct Axis {
    Id parent;
    bool derived = false;
    bool reordered = false;
    bool feature = false;
    std::int64_t summed = 0;               ///< the size that the loss is a sum over; 0: it is not
    std::int64_t mixed = -1;               ///< the last place where its entries were mixed
    std::vector<Place> places = {};        ///< in the data
    Ids parts = {};                        ///< that it was made of, or cut into
    std::vector<std::int64_t> sizes = {};  ///< of the parts
  };

  static bool is_data(const Axis& axis) { return axis.derived || axis.reordered || !axis.places.empty(); }
  Axis& of(Id axis) { return axes_[root(axis)]; }
  const Axis& of(Id axis) const { return axes_[root(axis)]; }
  std::int64_t dims_of(std::size_t tensor, std::int64_t size) const;
  bool has_parts(Id axis, const Ids& parts) const;

  std::vector<Axis> axes_;
  Ids wholes_;                                   ///< the axes with parts
  std::vector<std::vector<std::int64_t>> data_;  ///< sizes
};

}  // namespace dds::hooks
