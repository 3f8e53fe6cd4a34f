#include "src/base/dtype.hpp"

#include "src/base/check.hpp"

namespace dds {

double machine_epsilon(c10::ScalarType dtype, const char* function) {
  switch (dtype) {
    case c10::ScalarType::Double:
      return 0x1p-52;
    case c10::ScalarType::Float:
      return 0x1p-23;
    case c10::ScalarType::Half:
      return 0x1p-10;
    case c10::ScalarType::BFloat16:
      return 0x1p-7;
    default:
      throw_invalid(function, "dtype", c10::toString(dtype), "Double, Float, Half or BFloat16");
  }
}

bool is_differentiable(c10::ScalarType dtype) { return c10::isFloatingType(dtype) || c10::isComplexType(dtype); }

c10::ScalarType real_type(c10::ScalarType dtype) {
  switch (dtype) {
    case c10::ScalarType::ComplexDouble:
      return c10::ScalarType::Double;
    case c10::ScalarType::ComplexFloat:
      return c10::ScalarType::Float;
    case c10::ScalarType::ComplexHalf:
      return c10::ScalarType::Half;
    default:
      return dtype;
  }
}

c10::ScalarType at_precision(c10::ScalarType type, c10::ScalarType dtype) {
  if (c10::isComplexType(type)) return c10::toComplexType(dtype);
  return c10::isFloatingType(type) ? dtype : type;
}

}  // namespace dds
