// Which eigenvalue of a reading belongs to which direction. A direction that falls through a dense spectrum passes the
// others one by one: each place in the order then moves by one gap only, and no place falls.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace dds {

/// Readings of k log eigenvalues each. The column of an eigenvalue is its place in the descending order at first, and
/// its direction afterwards.
using Courses = std::vector<std::vector<double>>;

/// Moves directions that fall through the others to the end of each reading, the farthest fall last. What remains keeps
/// its order, and stands still better than the places did. From the eigenvalues alone: for each mover, the one
/// eigenvalue a reading whose removal leaves the others where they were. Found where the gaps are not small beside the
/// noise; otherwise nothing changes.
void follow_movers(Courses& readings);

/// Gives back to two directions that cross what their places in the order exchange: their gap closes and opens again
/// along one line through zero. Found where the gap is clear of the noise on either side. False if none cross.
bool uncross(Courses& readings);

/// Moves the direction that falls most to the end of each reading.
void put_last_what_falls_most(Courses& readings);

/// The permutation that takes the directions `before` to the directions `now`, both k orthonormal rows in fp64:
/// result[i] is the row of `now` that belongs to row i of `before`. Rows that make an angle below pi/4 belong together.
/// The others are taken in order: among nearly equal singular values the vectors turn freely.
std::vector<std::size_t> matched(const at::Tensor& before, const at::Tensor& now);

}  // namespace dds
