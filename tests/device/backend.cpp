// The device as LibTorch sees it: its allocator, guard, generator and hooks, and the tensors that its kernels make.
// What runs the kernels is in kernels.cpp.
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <cstring>
#include <memory>
#include <utility>

#include "tests/device/memory.hpp"
#include "tests/device/runtime.hpp"
#include "tests/device/strict_device.hpp"

namespace dds::test::strict {
namespace {

constexpr auto kType = c10::DeviceType::PrivateUse1;

void release(void* begin) { report(order().free(memory().free(begin))); }

struct Allocator : c10::Allocator {
  c10::DataPtr allocate(std::size_t bytes) override {
    const c10::Device device(kType, current_device());
    if (bytes == 0) return {nullptr, device};
    void* const begin = memory().allocate(bytes, key_of(current_stream(device.index())));
    return {begin, begin, &release, device};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, std::size_t count) const override {
    Opening opening;
    opening.add(memory().find(to));
    opening.add(memory().find(from));
    std::memcpy(to, from, count);
  }
};

struct Event {
  Clock clock;
  StreamKey stream;
};

struct Guard : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kType; }
  c10::Device exchangeDevice(c10::Device device) const override {
    const c10::Device before = getDevice();
    setDevice(device);
    return before;
  }
  c10::Device getDevice() const override { return {kType, current_device()}; }
  void setDevice(c10::Device device) const override {
    TORCH_CHECK(device.index() < kDevices, "strict device: there is no device ", device.index());
    if (device.has_index()) set_current_device(device.index());
  }
  void uncheckedSetDevice(c10::Device device) const noexcept override {
    if (device.has_index()) set_current_device(device.index());
  }
  c10::DeviceIndex deviceCount() const noexcept override { return kDevices; }

  static c10::DeviceIndex index_of(c10::Device device) {
    return device.has_index() ? device.index() : current_device();
  }
  c10::Stream getStream(c10::Device device) const override { return current_stream(index_of(device)); }
  c10::Stream getDefaultStream(c10::Device device) const override {
    return c10::Stream(c10::Stream::DEFAULT, {kType, index_of(device)});
  }
  c10::Stream getStreamFromGlobalPool(c10::Device device, bool) const override { return next_stream(index_of(device)); }
  c10::Stream getNewStream(c10::Device device, int) const override { return next_stream(index_of(device)); }
  c10::Stream exchangeStream(c10::Stream stream) const override {
    const c10::Stream before = current_stream(stream.device_index());
    set_current_stream(stream);
    return before;
  }
  bool queryStream(const c10::Stream& stream) const override { return order().is_done(order().record(key_of(stream))); }
  void synchronizeStream(const c10::Stream& stream) const override { wait_for(stream, "synchronise a stream"); }

  void record(void** event, const c10::Stream& stream, c10::DeviceIndex, c10::EventFlag) const override {
    if (!*event) *event = new Event;
    *static_cast<Event*>(*event) = {order().record(key_of(stream)), key_of(stream)};
  }
  void block(void* event, const c10::Stream& stream) const override {
    if (event) order().block(static_cast<Event*>(event)->clock, key_of(stream));
  }
  bool queryEvent(void* event) const override { return !event || order().is_done(static_cast<Event*>(event)->clock); }
  void synchronizeEvent(void* event) const override {
    if (!event) return;
    order().wait(static_cast<Event*>(event)->clock);
    count_wait(static_cast<Event*>(event)->stream, "synchronise an event");
  }
  void destroyEvent(void* event, c10::DeviceIndex) const noexcept override { delete static_cast<Event*>(event); }
  void recordDataPtrOnStream(const c10::DataPtr& data, const c10::Stream& stream) const override {
    if (Block* const block = memory().find(data.get())) block->history.recorded.insert(key_of(stream));
  }
};

/// Draws what the CPU's generator with the same seed draws.
class Generator : public c10::GeneratorImpl {
 public:
  Generator(c10::DeviceIndex index, std::uint64_t seed)
      : GeneratorImpl({kType, index}, c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)),
        host(at::detail::createCPUGenerator(seed)) {}

  void set_current_seed(std::uint64_t seed) override { host.set_current_seed(seed); }
  void set_offset(std::uint64_t offset) override { host.set_offset(offset); }
  std::uint64_t get_offset() const override { return host.get_offset(); }
  std::uint64_t current_seed() const override { return host.current_seed(); }
  std::uint64_t seed() override { return host.seed(); }
  void set_state(const c10::TensorImpl& state) override { host.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return host.unsafeGetGeneratorImpl()->get_state(); }

  at::Generator host;

 private:
  Generator* clone_impl() const override {
    auto* const copy = new Generator(device().index(), 0);
    copy->host = host.clone();
    return copy;
  }
};

struct Hooks : at::PrivateUse1HooksInterface {
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return kDevices; }
  c10::DeviceIndex getCurrentDevice() const override { return current_device(); }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex index) const override {
    static const std::vector<at::Generator> all = [] {
      std::vector<at::Generator> result;
      for (c10::DeviceIndex i = 0; i < kDevices; ++i) result.push_back(at::make_generator<Generator>(i, 0));
      return result;
    }();
    return all.at(static_cast<std::size_t>(index < 0 ? current_device() : index));
  }
  at::Generator getNewGenerator(c10::DeviceIndex index) const override {
    return at::make_generator<Generator>(index < 0 ? current_device() : index, 0);
  }
  void resizePrivateUse1Bytes(const c10::Storage& storage, std::size_t bytes) const override {
    at::DataPtr larger = storage.allocator()->allocate(bytes);
    storage.allocator()->copy_data(larger.mutable_get(), storage.data(), std::min(bytes, storage.nbytes()));
    storage.set_data_ptr_noswap(std::move(larger));
    storage.unsafeGetStorageImpl()->unsafe_set_nbytes(bytes);
  }
};

Allocator allocator;
Hooks hooks;

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard)

}  // namespace

at::Generator host_generator(const at::Generator& generator) { return generator.get<Generator>()->host; }

c10::Allocator& device_allocator() { return allocator; }

at::Device device(c10::DeviceIndex index) {
  [[maybe_unused]] static const bool registered = [] {
    memory();
    c10::register_privateuse1_backend("strict");
    c10::SetAllocator(kType, &allocator);
    at::RegisterPrivateUse1HooksInterface(&hooks);
    return true;
  }();
  return {kType, index};
}

}  // namespace dds::test::strict
