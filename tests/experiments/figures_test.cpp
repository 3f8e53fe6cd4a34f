// The page of an experiment and its CSV files.
#include "experiments/harness/figures.hpp"

#include "tests/browser.hpp"

namespace dds {
namespace {

namespace ex = experiments;
using test::content;
using test::count;
using test::Opened;

class FiguresTest : public test::LogTest {};
class FiguresBrowserTest : public test::BrowserTest {};

TEST_F(FiguresTest, ATableIsCsvWithQuotesWhereTheyMust) {
  ex::write_csv(path("table.csv"), {{"name", "n", "value"}, {{"a, \"b\"", 3, 0.1}, {"c", nullptr, 2.0}}});
  EXPECT_EQ(content(path("table.csv")), "name,n,value\n\"a, \"\"b\"\"\",3,0.1\nc,,2.0\n");
}

ex::Figure figure(std::size_t panels, int colors) {
  ex::Figure made{"Title <b>& more", "What is seen", "x<sub>1</sub>", "y", true, false, {}};
  for (std::size_t p = 0; p < panels; ++p) {
    ex::Panel panel{"log<sub>10</sub> panel", {}};
    for (int i = 0; i < colors; ++i)
      panel.curves.push_back({"curve " + std::to_string(i), {1, 10, 100}, {1.0, 2.0 * i, 3.0}, i, true, true, i == 1});
    panel.curves.push_back({"refused", {1, 100}, {0, 4}, ex::kGrey, false, true, false});
    panel.curves.push_back({"", {1, 100}, {0, 4}, ex::kInk, true, false, true});
    made.panels.push_back(panel);
  }
  return made;
}

TEST_F(FiguresBrowserTest, EveryFigureIsDrawnWithoutAScriptError) {
  ex::Page page("An experiment </script>");
  page.add(figure(5, 3));
  page.add(figure(4, 9));
  page.add("Numbers", "of the run", {{"name", "value"}, {{"</table>", 0.5}, {"none", nullptr}}});
  page.write(path("figures.html"));
  for (const char* options :
       {"--window-size=1400,900", "--window-size=400,800 --blink-settings=preferredColorScheme=0"}) {
    const Opened opened = open(path("figures.html"), options);
    EXPECT_EQ(opened.errors, "");
    EXPECT_EQ(count(opened.page, "class=\"chart js-plotly-plot\""), 2);
    EXPECT_EQ(count(opened.page, "<section>"), 3);
    EXPECT_NE(opened.page.find("<h1>An experiment &lt;/script&gt;</h1>"), std::string::npos);
    EXPECT_NE(opened.page.find("&lt;/table&gt;"), std::string::npos);
    EXPECT_EQ(count(opened.page, "</svg>(curve [0-9]|refused)<"), 3 + 1 + 9 + 1) << "each name once in its legend";
    EXPECT_NE(opened.page.find("data-opened="), std::string::npos) << "the script came to its end";
  }
}

}  // namespace
}  // namespace dds
