#include "src/base/message.hpp"

#include <c10/util/Exception.h>

namespace dds {

std::string plain_message(const std::exception& error) {
  const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
  if (!of_torch) return error.what();
  const std::string text = of_torch->what_without_backtrace();
  return text.substr(0, text.find('\n'));
}

}  // namespace dds
