// The functions of fmt that are not templates, and some heavy instances of those that are, compiled once. fmt is used
// header-only, and without this file each file would compile them again: half the time of a small one. fmt's own
// library does not help, because LibTorch's include folder has another version of fmt and is searched first.
#include <fmt/format-inl.h>

FMT_BEGIN_NAMESPACE
namespace detail {
template dragonbox::decimal_fp<float> dragonbox::to_decimal(float) noexcept;
template dragonbox::decimal_fp<double> dragonbox::to_decimal(double) noexcept;
template thousands_sep_result<char> thousands_sep_impl<char>(locale_ref);
template char decimal_point_impl<char>(locale_ref);
}  // namespace detail
FMT_END_NAMESPACE
