// The report in a browser without a screen: no script error, and every chart drawn. Skipped where there is none
// (`./tests/run --readers` installs Debian's).
#include "tests/browser.hpp"

#include <algorithm>
#include <cmath>
#include <dds/report.hpp>
#include <iostream>
#include <regex>

namespace dds {
namespace {

using test::content;
using test::count;
using test::estimate;
using test::Opened;
using test::put;
using test::signature;
namespace fs = std::filesystem;

class BrowserTest : public test::BrowserTest {
 protected:
  /// A run with everything that the page draws: two sources, three sides, spectra, both kinds of LLC, metrics.
  void write_run(const std::string& name, int layers, int steps) const {
    const auto sink = log::directory(path(name));
    for (int step = 0; step < steps; ++step) {
      for (int layer = 0; layer < layers; ++layer) {
        Signature s = signature(10 * step, "block" + std::to_string(layer));
        for (const Side side : {Side::Activation, Side::Fisher}) {
          s.side = side;
          if (side == Side::Fisher) s.fisher_kind = FisherKind::Exact;
          s.sigma_min = std::pow(10, -0.1 * step * layer);
          s.at_floor = step * layer > 40;
          s.dead_directions = step * layer / 20;
          s.spectrum = layers < 10 ? std::vector<double>{3, 1, *s.sigma_min} : std::vector<double>{};
          sink->write(s);
        }
      }
      sink->write(Metric{10 * step, "train_loss", 1.0 / (1 + step)});
      sink->write(Metric{10 * step, "test_loss", 1.1 / (1 + step)});
      for (const LlcKind kind : {LlcKind::Plain, LlcKind::Tilted}) {
        LlcEstimate e = estimate(10 * step, kind);
        if (step == 0) e.failures = {"r_hat 2"};
        sink->write(e);
      }
    }
  }
};

void expect_drawn(const Opened& opened) {
  EXPECT_EQ(opened.errors, "");
  const auto charts = count(opened.page, "class=\"chart[ \"]");
  EXPECT_EQ(charts, 13) << "training, two heat maps, profile, six observables, LLC, DDS against LLC, spectra";
  EXPECT_EQ(count(opened.page, "class=\"chart js-plotly-plot\""), charts) << "every chart was drawn";
  EXPECT_NE(opened.page.find("data-opened="), std::string::npos) << "the script came to its end";
}

TEST_F(BrowserTest, AScriptErrorIsSeen) {
  put(path("page.html"), "<script>throw new Error('planted')</script>");
  EXPECT_NE(open(path("page.html")).errors.find("planted"), std::string::npos);
}

struct View {
  const char* name;
  int runs;
  const char* options;
};

class BrowserViews : public BrowserTest, public testing::WithParamInterface<View> {};

TEST_P(BrowserViews, DrawEveryChartWithoutAScriptError) {
  std::vector<fs::path> runs;
  for (int i = 0; i < GetParam().runs; ++i) {
    write_run("run" + std::to_string(i), 4, 12);
    runs.push_back(path("run" + std::to_string(i)));
  }
  write_report(runs, path("page.html"));
  expect_drawn(open(path("page.html"), GetParam().options));
}

INSTANTIATE_TEST_SUITE_P(Pages, BrowserViews,
                         testing::Values(View{"one_light_wide", 1, "--window-size=1400,900"},
                                         View{"three_dark_narrow", 3,
                                              "--window-size=400,800 --blink-settings=preferredColorScheme=0"}),
                         [](const auto& info) { return info.param.name; });

TEST_F(BrowserTest, AZoomOfOneChartIsOneOfAllChartsOverSteps) {
  write_run("run", 2, 12);
  write_report(path("run"));
  put(path("page.html"), content(path("run") / "report.html") + R"(<script>
    const all = [...charts.keys()];
    const ranges = () => all.flatMap(chart => Object.entries(chart.layout))
        .filter(([key, axis]) => key.startsWith('xaxis') && axis.steps).map(([, axis]) => axis.range.map(stepAt));
    Plotly.relayout(all[0], {'xaxis.range[0]': stepPosition(20), 'xaxis.range[1]': stepPosition(70)}).then(() => {
    drawEverything();
    const zoomed = ranges();
    document.body.dataset.zoomed =
        zoomed.filter(([low, high]) => Math.abs(low - 20) < 1e-6 && Math.abs(high - 70) < 1e-6).length;
    document.body.dataset.axes = zoomed.length;
    document.getElementById('zoom').click();
    drawEverything();
    document.body.dataset.reset = ranges().filter(([low, high]) => low === 0 && high > 110).length;
    });
  </script>)");
  const Opened opened = open(path("page.html"), "--virtual-time-budget=5000");
  EXPECT_EQ(opened.errors, "");
  const auto number = [&](const std::string& name) {
    std::smatch found;
    return std::regex_search(opened.page, found, std::regex("data-" + name + "=\"(\\d+)\"")) ? std::stoi(found[1]) : -1;
  };
  EXPECT_GT(number("axes"), 10);
  EXPECT_EQ(number("zoomed"), number("axes"));
  EXPECT_EQ(number("reset"), number("axes"));
}

TEST_F(BrowserTest, TheWorstLayersStandFirstAndTheTableSortsAndSearches) {
  write_run("run", 12, 12);
  write_report(path("run"));
  put(path("page.html"), content(path("run") / "report.html") + R"(<script>
    const rows = () => [...body('health').querySelectorAll('tbody tr')].map(row => row.textContent);
    document.body.dataset.worst = rows()[0].slice(0, 7);
    body('health').querySelector('th button').click();
    document.body.dataset.first = rows()[0].slice(0, 7);
    body('health').querySelector('th button').click();
    document.body.dataset.last = rows()[0].slice(0, 7);
    const field = body('health').querySelector('input');
    field.value = 'BLOCK7';
    field.oninput();
    document.body.dataset.found = rows().length;
  </script>)");
  const Opened opened = open(path("page.html"));
  EXPECT_EQ(opened.errors, "");
  for (const char* expected : {"worst=\"block11", "first=\"block0", "last=\"block11", "found=\"2\""}) {
    EXPECT_NE(opened.page.find(std::string("data-") + expected), std::string::npos) << expected;
  }
}

TEST_F(BrowserTest, StatusesAndTermsHaveTheGuidesWords) {
  const auto sink = log::directory(path("run"));
  for (const std::int64_t step : {0, 1}) {
    Signature s = signature(step);
    s.status = StatusSet(Status::Subsampled) | Status::LossUnknown;
    sink->write(s);
  }
  LlcEstimate refused = estimate(1);
  refused.failures = {"saddle: curvature -0.4"};
  sink->write(refused);
  write_report(path("run"));
  put(path("page.html"), content(path("run") / "report.html") + R"(<script>
    const hints = id => [...body(id).querySelectorAll('td[title]')].map(cell => cell.title).join(' ');
    document.body.dataset.status = hints('health');
    document.body.dataset.verdict = hints('llc');
    document.body.dataset.terms = body('terms').querySelectorAll('tbody tr').length;
    document.body.dataset.dead = body('health').querySelector('th[title]').title;
  </script>)");
  const Opened opened = open(path("page.html"));
  EXPECT_EQ(opened.errors, "");
  for (const char* expected : {"data-status=\"subsampled: more rows than max_rows", "data-verdict=\"saddle: w* has",
                               "loss_unknown: the loss is not one", "data-dead=\"structural bound less rank"}) {
    EXPECT_NE(opened.page.find(expected), std::string::npos) << expected;
  }
  std::smatch terms;
  ASSERT_TRUE(std::regex_search(opened.page, terms, std::regex("data-terms=\"(\\d+)\"")));
  EXPECT_GT(std::stoi(terms[1]), 40);
}

TEST_F(BrowserTest, OneStepIsShownLayerByLayer) {
  write_run("run", 3, 1);
  write_report(path("run"));
  put(path("page.html"), content(path("run") / "report.html") + R"(<script>
    document.body.dataset.hidden = document.getElementById('layers').hidden;
    document.body.dataset.axis = stepLayout().range.join(' ');
    document.body.dataset.profile = document.querySelectorAll('#profile .js-plotly-plot').length;
    const names = ['transformer.h.0.attn.c_attn', 'transformer.h.1.attn.c_attn', 'fc1', 'head.fc1'];
    document.body.dataset.labels = [...labelsOf(names, 16).values()].join(' ');
    document.body.dataset.ticks = roundTicks(2.31, 2.58).filter(tick => tick > 2.31 && tick < 2.58).join(' ');
  </script>)");
  const Opened opened = open(path("page.html"));
  EXPECT_EQ(opened.errors, "");
  for (const char* expected : {"hidden=\"true", "axis=\"-1 1\"", "profile=\"1",
                               "labels=\"…h.0.attn.c_attn …h.1.attn.c_attn fc1 head.fc1\"", "ticks=\"2.4 2.5\""}) {
    EXPECT_NE(opened.page.find(std::string("data-") + expected), std::string::npos) << expected;
  }
}

TEST_F(BrowserTest, ARunWithoutRowsIsAPageToo) {
  log::directory(path("run"));
  write_report(path("run"));
  const Opened opened = open(path("run") / "report.html");
  EXPECT_EQ(opened.errors, "");
  EXPECT_NE(opened.page.find("data-opened="), std::string::npos);
}

TEST_F(BrowserTest, AHundredLayersOpen) {
  write_run("run", 100, 50);  // 10,000 rows
  write_report(path("run"));
  const Opened opened = open(path("run") / "report.html", "", "");
  EXPECT_EQ(opened.errors, "");
  std::smatch found;
  ASSERT_TRUE(std::regex_search(opened.page, found, std::regex("data-opened=\"(\\d+)\"")));
  RecordProperty("milliseconds", found[1]);
  std::cout << "100 layers, 10,000 rows open in " << found[1] << " ms\n";
}

}  // namespace
}  // namespace dds
