// Ranges that a program names itself, such as the steps of PyTorch's optimisers ("Optimizer.step#Adam.step").
#pragma once

#include <string_view>

namespace dds::hooks {

/// From now on `told(name, begins)` is called where such a range begins and where it ends, on the thread that runs it.
/// Operators cost nothing more for it. For one caller in a process. `told` must not throw.
void tell_of_ranges(void (*told)(std::string_view name, bool begins));

}  // namespace dds::hooks
