// A checkpoint read over ranks that have spoken before.
#pragma once

#include <dds/read.hpp>
#include <exception>
#include <vector>

#include "src/ranks/tree.hpp"

namespace dds {

/// As dds::read with options.reading().ranks(), which `tree` is of. After a loss nothing is computed: it is passed on,
/// and thrown as the RankError that it was. So is `error`, which keeps this rank from reading.
std::vector<Signature> read(Tree& tree, const Problem& problem, const ReadOptions& options,
                            std::exception_ptr error = nullptr);

}  // namespace dds
