#include "src/base/message.hpp"

#include <c10/util/Exception.h>
#include <gtest/gtest.h>

#include <stdexcept>

namespace dds {
namespace {

TEST(Message, OfPyTorchsErrorsHasNoBacktrace) {
  try {
    TORCH_CHECK(false, "planted\nand more");
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()), "planted");
    EXPECT_EQ(plain_message(error), "planted");
  }
  EXPECT_EQ(plain_message(std::runtime_error("one\ntwo")), "one\ntwo");
}

}  // namespace
}  // namespace dds
