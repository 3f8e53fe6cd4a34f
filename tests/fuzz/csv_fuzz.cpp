// CSV: what was read is written and read as the same.
#include "src/log/csv.hpp"
#include "tests/fuzz/fuzz.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace dds;
  try {
    const log::csv::Table table = log::csv::parse(fuzz::text(data, size));
    fuzz::require(table.whole <= size, "no more is whole than there is");
    std::string written;
    for (const log::csv::Record& record : table.records) written += log::csv::line(record.fields);
    const log::csv::Table again = log::csv::parse(written);
    fuzz::require(again.records.size() == table.records.size() && again.whole == written.size(),
                  "every record is back");
    for (std::size_t i = 0; i < again.records.size(); ++i)
      fuzz::require(again.records[i].fields == table.records[i].fields, "with its fields");
  } catch (const Error&) {
  }
  return 0;
}
