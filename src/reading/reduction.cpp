#include <dds/reduction.hpp>

#include "src/base/check.hpp"

namespace dds {

Reduction::Reduction(double divisor) : divisor_(divisor) { check_positive("Reduction", "divisor", divisor); }

}  // namespace dds
