// Pages in a browser without a screen. Tests are skipped where there is none (`./tests/run --readers` installs
// Debian's).
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <regex>
#include <sstream>
#include <string>

#include "tests/log/fixture.hpp"

namespace dds::test {

inline std::string browser() {
  for (const char* name : {"chromium-headless-shell", "chromium"}) {
    if (std::system((std::string("command -v ") + name + " >/dev/null").c_str()) == 0) return name;
  }
  return "";
}

struct Opened {
  std::string page;    ///< its elements, once the scripts have run
  std::string errors;  ///< what scripts complained of, line by line
};

class BrowserTest : public LogTest {
 protected:
  void SetUp() override {
    LogTest::SetUp();
    if (browser().empty()) GTEST_SKIP() << "./tests/run --readers installs a browser";
  }

  /// "#all" draws what is out of sight too.
  Opened open(const std::filesystem::path& page, const std::string& more = "",
              const std::string& fragment = "#all") const {
    const std::string command = browser() +
                                " --headless --no-sandbox --disable-gpu --enable-logging=stderr --user-data-dir='" +
                                path("profile").string() + "' --dump-dom " + more + " 'file://" + page.string() +
                                fragment + "' >'" + path("dom").string() + "' 2>'" + path("console").string() + "'";
    EXPECT_EQ(std::system(command.c_str()), 0) << content(path("console"));
    Opened opened{content(path("dom")), ""};
    std::istringstream lines(content(path("console")));
    for (std::string line; std::getline(lines, line);) {
      if (line.find("CONSOLE") != std::string::npos) opened.errors += line + "\n";
    }
    return opened;
  }
};

/// How often the pattern is found.
inline std::ptrdiff_t count(const std::string& text, const std::string& pattern) {
  const std::regex regex(pattern);
  return std::distance(std::sregex_iterator(text.begin(), text.end(), regex), std::sregex_iterator());
}

}  // namespace dds::test
