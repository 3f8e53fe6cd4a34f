// The first bytes of what `dds attach` is to start: ELF headers, and the first line of a script.
#include "src/tool/program_file.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace dds;
  const auto file = fuzz::folder() / "program";
  fuzz::put(file, fuzz::text(data, size));
  for (const std::string& word : tool::interpreter_of(file))
    fuzz::require(!word.empty() && word.size() <= 254, "words of one short line");
  try {
    const std::string loader = tool::loader_of(file);
    fuzz::require(!loader.empty() && loader.find('\0') == loader.npos, "a loader has a name");
  } catch (const InvalidArgument&) {
  }
  return 0;
}
