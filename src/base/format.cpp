// What of fmt is no template to be instantiated where it is used, compiled once: header-only, it is compiled with every
// file, and takes half the time of a small one. (fmt's own library is no help: LibTorch's folder of headers has another
// version of fmt than the system, and comes before it.)
#include <fmt/format-inl.h>

FMT_BEGIN_NAMESPACE
namespace detail {
template dragonbox::decimal_fp<float> dragonbox::to_decimal(float) noexcept;
template dragonbox::decimal_fp<double> dragonbox::to_decimal(double) noexcept;
template thousands_sep_result<char> thousands_sep_impl<char>(locale_ref);
template char decimal_point_impl<char>(locale_ref);
}  // namespace detail
FMT_END_NAMESPACE
