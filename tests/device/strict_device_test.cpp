// That the device catches what it is there for: each defect is planted here, and has to be found by its own mechanism.
#include "tests/device/strict_device.hpp"

#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/torch.h>

#include "tests/seed.hpp"

namespace dds::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class StrictDevice : public testing::Test {
 protected:
  void SetUp() override {
    torch::manual_seed(seed(1));
    strict::violations();
    strict::reset_counts();
  }
  at::Device device = strict::device();
  c10::impl::VirtualGuardImpl guard{device.type()};
};

TEST_F(StrictDevice, ComputesWhatTheCpuComputes) {
  const at::Tensor a = torch::randn({9, 5}), b = torch::randn({5, 7});
  const at::Tensor x = a.to(device), y = b.to(device);
  EXPECT_TRUE(torch::equal(x.mm(y).softmax(1).cpu(), a.mm(b).softmax(1)));
  EXPECT_TRUE(torch::equal(x.t().narrow(0, 1, 3).contiguous().cpu(), a.t().narrow(0, 1, 3)));
  EXPECT_TRUE(torch::equal(torch::cat({x, x}).index_select(0, torch::tensor({3, 11}).to(device)).cpu(),
                           a.index_select(0, torch::tensor({3, 2}))));
  at::Tensor in_place = x.clone();
  in_place.select(0, 2).mul_(2).add_(1);
  at::Tensor expected = a.clone();
  expected.select(0, 2).mul_(2).add_(1);
  EXPECT_TRUE(torch::equal(in_place.cpu(), expected));
  at::Tensor out = torch::empty({0}, x.options());
  torch::mm_out(out, x, y);
  EXPECT_TRUE(torch::equal(out.cpu(), a.mm(b)));
  EXPECT_TRUE(torch::equal(std::get<1>(torch::linalg_svd(x)).cpu(), std::get<1>(torch::linalg_svd(a))));
  EXPECT_THAT(strict::violations(), IsEmpty());
}

TEST_F(StrictDevice, CountsWhatTheHostWaitsFor) {
  const at::Tensor x = torch::randn({4, 4}).to(device, /*non_blocking=*/true);
  const at::Tensor sum = x.mm(x).sum();
  EXPECT_EQ(strict::counts().synchronisations, 0);
  EXPECT_EQ(strict::counts().to_device, 1);
  sum.item<float>();
  x.cpu();
  x.nonzero();
  const strict::Counts counts = strict::counts();
  EXPECT_EQ(counts.synchronisations, 3);
  EXPECT_EQ(counts.waits.at("aten::item"), 1);
  EXPECT_EQ(counts.waits.at("aten::nonzero"), 1);
  EXPECT_EQ(counts.to_host, 2);
}

TEST_F(StrictDevice, EndsAHostThatFollowsAPointer) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  const at::Tensor x = torch::ones({4}).to(device);
  EXPECT_EXIT(std::exit(static_cast<int>(*x.data_ptr<float>())), testing::ExitedWithCode(86),
              "the host touched the device's memory");
}

/// Two streams: what `first` makes is used by a sum on the other one, with an event between them or without.
std::vector<std::string> handed_over(const c10::impl::VirtualGuardImpl& guard, at::Device device, bool with_event) {
  const at::Tensor x = torch::ones({100}).to(device).mul(2);
  const c10::Stream side = guard.getStreamFromGlobalPool(device);
  x.record_stream(side);
  c10::Event event(device.type());
  event.record(guard.getStream(device));
  {
    const c10::StreamGuard on(side);
    if (with_event) event.block(side);
    x.sum();
  }
  return strict::violations();
}

TEST_F(StrictDevice, SeesADroppedEvent) {
  EXPECT_THAT(handed_over(guard, device, true), IsEmpty());
  EXPECT_THAT(handed_over(guard, device, false),
              ElementsAre(testing::AllOf(HasSubstr("aten::sum"), HasSubstr("is not ordered after aten::mul"))));
}

TEST_F(StrictDevice, SeesAWriteThatDoesNotWaitForAReader) {
  at::Tensor x = torch::ones({100}).to(device);
  const c10::Stream side = guard.getStreamFromGlobalPool(device);
  c10::Event event(device.type());
  event.record(guard.getStream(device));
  {
    const c10::StreamGuard on(side);
    event.block(side);
    x.sum();
  }
  x.add_(1);
  EXPECT_THAT(strict::violations(), ElementsAre(HasSubstr("which read the same memory")));
  side.synchronize();
  x.add_(1);
  EXPECT_THAT(strict::violations(), IsEmpty());
}

TEST_F(StrictDevice, SeesMemoryThatIsFreedUnderAStream) {
  for (const bool recorded : {true, false}) {
    at::Tensor x = torch::ones({100}).to(device);
    const c10::Stream side = guard.getStreamFromGlobalPool(device);
    c10::Event event(device.type());
    event.record(guard.getStream(device));
    if (recorded) x.record_stream(side);
    {
      const c10::StreamGuard on(side);
      event.block(side);
      x.sum();
    }
    x.reset();
    const std::vector<std::string> found = strict::violations();
    if (recorded) {
      EXPECT_THAT(found, IsEmpty());
    } else {
      EXPECT_THAT(found, ElementsAre(HasSubstr("is freed while aten::sum")));
    }
  }
}

TEST_F(StrictDevice, RefusesTensorsOfTwoDevices) {
  const at::Tensor x = torch::ones({3}).to(device), other = torch::ones({3}).to(strict::device(1));
  EXPECT_THAT([&] { x.add(other); }, testing::ThrowsMessage<c10::Error>(HasSubstr("device")));
  EXPECT_THAT([&] { x.add(torch::ones({3})); }, testing::ThrowsMessage<c10::Error>(HasSubstr("device")));
  EXPECT_EQ(x.to(strict::device(1)).add(other).sum().item<float>(), 6);
  EXPECT_THAT(strict::violations(), IsEmpty());
}

}  // namespace
}  // namespace dds::test
