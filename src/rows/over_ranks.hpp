// Joins the rows that several ranks have of one reading.
//
// Each rank sends one message up the tree of the ranks for each reading, whatever went wrong on it:
//
//   the step, the labels, the text of the first error, whether rows are incomplete, the layers
//
// What is wrong with a reading is told upwards in that message, and costs this reading alone. What is wrong between
// ranks (one cannot be reached, sends what is no such message, or reads another step) is a loss, and costs all later
// readings too: Tree passes it on.
#pragma once

#include <dds/ranks.hpp>
#include <string>

#include "src/ranks/tree.hpp"
#include "src/rows/reading_rows.hpp"

namespace dds {

struct JoinedRows {
  bool all = false;   ///< true on rank 0, whose rows are now those of all ranks
  std::string error;  ///< the first of this rank and those that it heard from, after the rank's number; empty: none
};

/// Joins the rows of all ranks into `rows` of rank 0, reduced ones. Every rank calls it once for a reading. A rank that
/// has an error may send what rows it has; rows that cannot be joined leave those of the reading incomplete.
/// Throws RankError for the first loss, once. After a loss nothing is joined, and JoinedRows::all is false.
JoinedRows join_rows(Tree& tree, const Ranks& ranks, const SignatureOptions& options, ReadingRows& rows);

/// The same for a reading that fails on all ranks if it fails on one: rank 0 tells the others what came of it.
/// Returns true on rank 0.
/// Throws rows.error where this rank has one, and RankError where another rank has, or after every loss.
bool join_rows_or_throw(Tree& tree, const Ranks& ranks, const SignatureOptions& options, ReadingRows& rows);

}  // namespace dds
