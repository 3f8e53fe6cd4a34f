// Facts about the floating-point types of tensors.
#pragma once

#include <c10/core/ScalarType.h>

namespace dds {

/// The distance from 1 to the next larger number of `dtype`: 2^-52 for Double, 2^-23 for Float, 2^-10 for Half, 2^-7
/// for BFloat16. Throws InvalidArgument, which names `function`, for any other type.
double machine_epsilon(c10::ScalarType dtype, const char* function);

/// True for floating and complex types: those that autograd differentiates.
bool is_differentiable(c10::ScalarType dtype);

/// The type of the real part of a complex type; any other type itself.
c10::ScalarType real_type(c10::ScalarType dtype);

/// What numbers of `type` become in the precision of the real `dtype`: complex ones stay complex, and what is no
/// floating-point number stays as it is.
c10::ScalarType at_precision(c10::ScalarType type, c10::ScalarType dtype);

}  // namespace dds
