// Rows of the log as CSV records, and with them every field of a signature, an estimate and a metric: numbers,
// statuses. What was read is written and read as the same.
#include "src/log/csv.hpp"
#include "src/log/record.hpp"
#include "tests/fuzz/fuzz.hpp"

namespace {

using namespace dds;

template <class Row>
void read_rows(std::string_view text) {
  for (const log::csv::Record& record : log::csv::parse(text).records) {
    const std::string line = log::csv_line(log::row_of<Row>(record.fields));
    fuzz::require(log::csv_line(log::row_of<Row>(log::csv::parse(line).records.at(0).fields)) == line,
                  "the row is back");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text = fuzz::text(data + 1, size - 1);
  try {
    switch (data[0]) {
      case 's':
        read_rows<Signature>(text);
        break;
      case 'l':
        read_rows<LlcEstimate>(text);
        break;
      default:
        read_rows<Metric>(text);
    }
  } catch (const Error&) {
  }
  return 0;
}
