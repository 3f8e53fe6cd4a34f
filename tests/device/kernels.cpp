// How an operator runs on the device: its operands become CPU tensors on the same memory, the CPU's kernel computes,
// and what it made moves to the device. Views, resizing and copies have kernels of their own.
#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <ATen/record_function.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "tests/device/memory.hpp"
#include "tests/device/runtime.hpp"

namespace dds::test::strict {

at::Generator host_generator(const at::Generator& generator);
c10::Allocator& device_allocator();

namespace {

constexpr auto kKey = c10::DispatchKeySet(c10::DispatchKey::PrivateUse1);

bool is_on_device(const at::Tensor& tensor) { return tensor.defined() && tensor.is_privateuseone(); }

Block* block_of(const at::Tensor& tensor) {
  return tensor.numel() == 0 ? nullptr : memory().find(tensor.storage().data());
}

/// A CPU tensor on the device's memory.
at::Tensor on_host(const at::Tensor& tensor) {
  const auto options = at::TensorOptions(tensor.scalar_type()).device(at::kCPU);
  if (tensor.numel() == 0) return at::empty_strided(tensor.sizes(), tensor.strides(), options);
  char* const begin = static_cast<char*>(const_cast<void*>(tensor.storage().data()));
  return at::from_blob(begin + tensor.storage_offset() * tensor.element_size(), tensor.sizes(), tensor.strides(),
                       options);
}

at::Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType type, c10::Device device) {
  const c10::DeviceGuard guard(device);
  return at::detail::empty_strided_generic(sizes, strides, &device_allocator(), kKey, type);
}

/// One run of a kernel: the stream it is on, and the memory it touches.
class Launch {
 public:
  Launch(c10::Device device, std::string what)
      : stream_(current_stream(device.index())), what_(std::move(what)), number_(order().launch(key_of(stream_))) {
    count(key_of(stream_), &Counts::launches);
  }
  /// Makes the tensor's memory accessible for as long as the kernel runs.
  void use(const at::Tensor& tensor, bool writes) {
    Block* const block = block_of(tensor);
    if (!block) return;
    TORCH_CHECK(tensor.device().index() == stream_.device_index(), "strict device: ", what_, " on device ",
                stream_.device_index(), " was given a tensor on device ", tensor.device().index());
    report(order().use(block->history, writes, {key_of(stream_), number_, what_}));
    opening_.add(block);
  }
  const c10::Stream& stream() const { return stream_; }

 private:
  c10::Stream stream_;
  std::string what_;
  std::uint64_t number_;
  Opening opening_;
};

/// Operators whose result's shape depends on values: the host waits for it.
bool has_data_dependent_shape(const std::string& name) {
  static const std::set<std::string> all{
      "aten::nonzero",  "aten::masked_select", "aten::_unique2", "aten::unique_dim", "aten::unique_consecutive",
      "aten::bincount", "aten::_unique",       "aten::histc"};
  return all.contains(name);
}

/// Operators that take indices on the CPU.
bool takes_indices_from_host(const std::string& name) {
  return name.rfind("aten::index", 0) == 0 || name.rfind("aten::_index", 0) == 0 ||
         name.rfind("aten::_unsafe_index", 0) == 0;
}

/// An operator's operands on the way to the CPU's kernel and back.
class Call {
 public:
  Call(const c10::OperatorHandle& op, torch::jit::Stack& stack) : op_(op), stack_(stack), name_(op.schema().name()) {
    const std::size_t count = op.schema().arguments().size(), first = stack.size() - count;
    for (std::size_t i = 0; i < count; ++i) find_device(stack[first + i]);
    if (!device_) device_ = c10::Device(c10::DeviceType::PrivateUse1, current_device());
    launch_.emplace(*device_, name_);
    for (std::size_t i = 0; i < count; ++i) {
      const auto* const alias = op.schema().arguments()[i].alias_info();
      stack[first + i] = converted(stack[first + i], alias && alias->isWrite());
    }
  }

  void run() {
    {
      const at::DisableRecordFunctionGuard unseen;  // a device's kernel runs no operators
      op_.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), &stack_);
    }
    const std::size_t count = op_.schema().returns().size(), first = stack_.size() - count;
    bool waits = has_data_dependent_shape(name_);
    for (std::size_t i = 0; i < count; ++i) {
      at::IValue& value = stack_[first + i];
      waits = waits || (had_tensors_ && (value.isBool() || value.isInt() || value.isDouble() || value.isScalar()));
      value = returned(value);
    }
    for (const auto& [device, host] : resized_) put_back(device, host);
    if (waits) wait_for(launch_->stream(), name_);
  }

 private:
  void find_device(const at::IValue& value) {
    const auto take = [&](const at::Tensor& tensor) {
      if (!is_on_device(tensor)) return;
      had_tensors_ = true;
      if (!device_) device_ = tensor.device();
    };
    if (value.isTensor()) {
      take(value.toTensor());
    } else if (value.isTensorList()) {
      for (const at::Tensor& tensor : value.toTensorVector()) take(tensor);
    } else if (value.isOptionalTensorList()) {
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector())
        take(tensor.value_or(at::Tensor()));
    } else if (value.isDevice() && value.toDevice().is_privateuseone()) {
      const c10::Device device = value.toDevice();
      device_ = device.has_index() ? device : c10::Device(device.type(), current_device());
    }
  }

  at::Tensor converted(const at::Tensor& tensor, bool writes) {
    if (!is_on_device(tensor)) {
      TORCH_CHECK(!tensor.defined() || !had_tensors_ || tensor.dim() == 0 || takes_indices_from_host(name_),
                  "strict device: ", name_, " was given tensors on the device and one on the CPU");
      return tensor;
    }
    launch_->use(tensor, writes);
    const at::Tensor host = on_host(tensor);
    hosts_.emplace_back(tensor, host);
    if (writes && tensor.numel() == 0) resized_.emplace_back(tensor, host);
    return host;
  }

  at::IValue converted(const at::IValue& value, bool writes) {
    if (value.isTensor()) return converted(value.toTensor(), writes);
    if (value.isTensorList()) {
      std::vector<at::Tensor> all = value.toTensorVector();
      for (at::Tensor& tensor : all) tensor = converted(tensor, writes);
      return all;
    }
    if (value.isOptionalTensorList()) {
      c10::List<std::optional<at::Tensor>> all;
      for (const std::optional<at::Tensor>& tensor : value.toOptionalTensorVector()) {
        all.push_back(tensor ? std::optional(converted(*tensor, writes)) : std::nullopt);
      }
      return all;
    }
    if (value.isDevice() && value.toDevice().is_privateuseone()) return c10::Device(at::kCPU);
    if (value.isGenerator() && value.toGenerator().device().is_privateuseone()) {
      return host_generator(value.toGenerator());
    }
    return value;
  }

  at::IValue returned(const at::IValue& value) {
    if (value.isTensor()) return returned(value.toTensor());
    if (value.isTensorList()) {
      std::vector<at::Tensor> all = value.toTensorVector();
      for (at::Tensor& tensor : all) tensor = returned(tensor);
      return all;
    }
    return value;
  }

  at::Tensor returned(const at::Tensor& result) {
    if (!result.defined() || !result.is_cpu()) return result;
    for (const auto& [device, host] : hosts_) {
      if (host.is_same(result)) return device;
    }
    for (const auto& [device, host] : hosts_) {
      if (result.numel() == 0 || !host.is_alias_of(result)) continue;
      const auto offset =
          (static_cast<char*>(result.data_ptr()) - static_cast<char*>(const_cast<void*>(device.storage().data()))) /
          result.element_size();
      return at::native::as_strided_tensorimpl(device, result.sizes(), result.strides(), offset);
    }
    at::Tensor own = empty_strided(result.sizes(), result.strides(), result.scalar_type(), *device_);
    launch_->use(own, true);
    if (own.numel() > 0) on_host(own).copy_(result);
    return own;
  }

  /// An empty operand that the kernel resized.
  void put_back(const at::Tensor& device, const at::Tensor& host) {
    if (host.numel() == 0) return;
    at::native::resize_(device, host.sizes());
    launch_->use(device, true);
    on_host(device).copy_(host);
  }

  const c10::OperatorHandle& op_;
  torch::jit::Stack& stack_;
  std::string name_;
  std::optional<c10::Device> device_;
  std::optional<Launch> launch_;
  bool had_tensors_ = false;
  std::vector<std::pair<at::Tensor, at::Tensor>> hosts_;
  std::vector<std::pair<at::Tensor, at::Tensor>> resized_;
};

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) { Call(op, *stack).run(); }

// ---- copies ----

at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool non_blocking) {
  const at::DisableRecordFunctionGuard unseen;
  const at::AutoDispatchBelowAutograd below;
  if (is_on_device(from) && is_on_device(to)) {
    if (from.device() != to.device()) {  // each stream waits for the other's, as in peer-to-peer copies
      const c10::Stream source = current_stream(from.device().index()), sink = current_stream(to.device().index());
      order().block(order().record(key_of(sink)), key_of(source));
      at::Tensor staged = at::empty(from.sizes(), at::TensorOptions(from.scalar_type()));
      {
        Launch launch(from.device(), "copy to a device");
        launch.use(from, false);
        staged.copy_(on_host(from));
      }
      order().block(order().record(key_of(source)), key_of(sink));
      Launch launch(to.device(), "copy from a device");
      launch.use(to, true);
      on_host(to).copy_(staged);
      return to;
    }
    Launch launch(to.device(), "aten::copy_");
    launch.use(from, false);
    launch.use(to, true);
    on_host(to).copy_(on_host(from));
    return to;
  }
  const bool downwards = is_on_device(from);
  Launch launch(downwards ? from.device() : to.device(), downwards ? "copy to the host" : "copy from the host");
  launch.use(downwards ? from : to, !downwards);
  count(key_of(launch.stream()), downwards ? &Counts::to_host : &Counts::to_device);
  if (downwards) {
    to.copy_(on_host(from));
  } else {
    on_host(to).copy_(from);
  }
  // Memory of the host is pageable: a copy from it is staged, a copy to it waits whatever was asked for.
  if (downwards || !non_blocking) wait_for(launch.stream(), downwards ? "copy to the host" : "copy from the host");
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  if (to.numel() == 0) to.resize_(from.sizes());
  return copy_from(from, to, false);
}

at::Scalar local_scalar_dense(const at::Tensor& self) {
  const at::DisableRecordFunctionGuard unseen;
  Launch launch(self.device(), "aten::item");
  launch.use(self, false);
  const at::Scalar value = at::_local_scalar_dense(on_host(self));
  count(key_of(launch.stream()), &Counts::to_host);
  wait_for(launch.stream(), "aten::item");
  return value;
}

// ---- tensors ----

c10::Device device_of(std::optional<c10::Device> device) {
  return device && device->has_index() ? *device : c10::Device(c10::DeviceType::PrivateUse1, current_device());
}

at::Tensor empty(at::IntArrayRef sizes, std::optional<at::ScalarType> type, std::optional<at::Layout>,
                 std::optional<c10::Device> device, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  const c10::DeviceGuard guard(device_of(device));
  return at::detail::empty_generic(sizes, &device_allocator(), kKey, at::dtype_or_default(type), format);
}

at::Tensor empty_strided_of(at::IntArrayRef sizes, at::IntArrayRef strides, std::optional<at::ScalarType> type,
                            std::optional<at::Layout>, std::optional<c10::Device> device, std::optional<bool>) {
  return empty_strided(sizes, strides, at::dtype_or_default(type), device_of(device));
}

void record_stream(at::Tensor& self, c10::Stream stream) {
  if (Block* const block = block_of(self)) block->history.recorded.insert(key_of(stream));
}

/// Parameters move between the CPU and the device in place.
bool has_compatible_shallow_copy_type(const at::Tensor&, const at::Tensor&) { return true; }

// ---- convolutions, which LibTorch leaves to a backend as wholes ----

at::Tensor convolution(const at::Tensor& input, const at::Tensor& weight, const std::optional<at::Tensor>& bias,
                       at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
                       at::IntArrayRef output_padding, std::int64_t groups) {
  const at::DisableRecordFunctionGuard unseen;
  const at::AutoDispatchBelowAutograd below;
  Launch launch(input.device(), "aten::convolution");
  const bool has_bias = bias && bias->defined();
  launch.use(input, false);
  launch.use(weight, false);
  if (has_bias) launch.use(*bias, false);
  const at::Tensor result =
      at::convolution(on_host(input), on_host(weight), has_bias ? std::optional(on_host(*bias)) : std::nullopt, stride,
                      padding, dilation, transposed, output_padding, groups);
  at::Tensor own = empty_strided(result.sizes(), result.strides(), result.scalar_type(), input.device());
  launch.use(own, true);
  on_host(own).copy_(result);
  return own;
}

std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(const at::Tensor& gradient, const at::Tensor& input,
                                                                    const at::Tensor& weight, at::IntArrayRef stride,
                                                                    at::IntArrayRef padding, at::IntArrayRef dilation,
                                                                    bool transposed, at::IntArrayRef output_padding,
                                                                    std::int64_t groups, std::array<bool, 3> mask) {
  const at::DisableRecordFunctionGuard unseen;
  const at::AutoDispatchBelowAutograd below;
  Launch launch(input.device(), "aten::convolution_backward");
  for (const at::Tensor& tensor : {gradient, input, weight}) launch.use(tensor, false);
  const std::int64_t outputs = gradient.size(1);
  auto [to_input, to_weight, to_bias] =
      at::convolution_backward(on_host(gradient), on_host(input), on_host(weight), at::IntArrayRef(outputs), stride,
                               padding, dilation, transposed, output_padding, groups, mask);
  const auto own = [&](const at::Tensor& result) {
    if (!result.defined()) return result;
    at::Tensor on_device = empty_strided(result.sizes(), result.strides(), result.scalar_type(), input.device());
    launch.use(on_device, true);
    on_host(on_device).copy_(result);
    return on_device;
  };
  return {own(to_input), own(to_weight), own(to_bias)};
}

}  // namespace

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", empty);
  m.impl("empty_strided", empty_strided_of);
  m.impl("as_strided", at::native::as_strided_tensorimpl);
  m.impl("view", at::native::view);
  m.impl("_reshape_alias", at::native::_reshape_alias);
  m.impl("unfold", at::native::unfold);
  m.impl("alias", at::native::alias);
  m.impl("resize_", at::native::resize_);
  m.impl("set_.source_Storage_storage_offset", at::native::set_storage_cpu_);
  m.impl("set_.source_Storage", at::native::set_);
  m.impl("set_.source_Tensor", at::native::set_tensor_);
  m.impl("set_", at::native::set_cpu_);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("_local_scalar_dense", local_scalar_dense);
  m.impl("record_stream", record_stream);
  m.impl("_has_compatible_shallow_copy_type", has_compatible_shallow_copy_type);
  m.impl("convolution_overrideable", convolution);
  m.impl("convolution_backward_overrideable", convolution_backward);
}

}  // namespace dds::test::strict
