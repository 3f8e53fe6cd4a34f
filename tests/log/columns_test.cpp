// The page of columns says what the schema says.
#include <dds/schema.hpp>

#include "tests/log/fixture.hpp"
#include "tests/paths.hpp"

namespace dds {
namespace {

/// As a cell of a Markdown table.
std::string cell(std::string_view text) {
  std::string out;
  for (const char c : text) out += c == '|' ? std::string("\\|") : std::string(1, c);
  return out;
}

template <class Row>
std::string section(const std::string& file) {
  std::string text = "\n## " + file + "\n\n| column | unit | meaning |\n|---|---|---|\n";
  for (const auto& column : schema::columns_of<Row>()) {
    text += "| `" + cell(column.name) + "` | " + cell(column.unit) + " | " + cell(column.meaning) + " |\n";
  }
  return text;
}

TEST(Columns, ThePageSaysWhatTheSchemaSays) {
  const std::string page = test::content(std::filesystem::path(test::kSourceRoot) / "src/docs/columns.md");
  const std::string tables =
      section<Signature>("signatures.csv") + section<LlcEstimate>("llc.csv") + section<Metric>("metrics.csv");
  ASSERT_NE(page.find("\n## "), std::string::npos);
  EXPECT_EQ(page.substr(page.find("\n## ")), tables);
}

}  // namespace
}  // namespace dds
