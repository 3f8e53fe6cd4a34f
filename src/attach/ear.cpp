#include "src/attach/ear.hpp"

#include <fmt/format.h>

#include "hooks/arguments.hpp"

namespace dds::attach {

std::unique_ptr<hooks::OperatorNote> Ear::operator_starts(std::string_view name, c10::ArrayRef<const c10::IValue> args,
                                                          bool grad_mode, hooks::Nesting&) {
  if (!grad_mode) return nullptr;
  std::vector<at::Tensor> leaves;
  int tensors = 0;
  std::size_t bytes = 0;
  hooks::for_each_tensor(args, [&](const at::Tensor& tensor) {
    ++tensors;
    if (tensor.requires_grad() && tensor.is_leaf()) {
      leaves.push_back(tensor);
    } else {
      bytes += static_cast<std::size_t>(tensor.numel()) * tensor.element_size();
    }
  });
  if (!leaves.empty()) heard_.parameters(leaves, /*looked_at=*/tensors == 1, bytes);
  heard_.operator_starts(name, args);
  return nullptr;
}

void Ear::failed(std::string_view where, std::string_view what) { heard_.failed(fmt::format("{}: {}", where, what)); }

}  // namespace dds::attach
