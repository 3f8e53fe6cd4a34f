// A checkpoint read over ranks that have spoken before.
#pragma once

#include <dds/read.hpp>
#include <vector>

#include "src/ranks/tree.hpp"

namespace dds {

/// As dds::read with options.reading().ranks(), which `tree` is of. After a loss nothing is computed: it is passed on,
/// and thrown as the RankError that it was.
std::vector<Signature> read(Tree& tree, torch::nn::Module& model, const LikelihoodPtr& likelihood, const Data& probe,
                            const Forward& forward, const ReadOptions& options);

}  // namespace dds
