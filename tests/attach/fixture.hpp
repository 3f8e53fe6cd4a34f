// Commands run in a shell, as they are and with `dds attach` before them.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <torch/version.h>

#include <cstdlib>
#include <dds/run.hpp>
#include <filesystem>
#include <string>

#include "tests/log/fixture.hpp"
#include "tests/paths.hpp"

namespace dds::test {

inline std::string quoted(const std::string& text) { return "'" + text + "'"; }

struct Result {
  int status = -1;  ///< as a shell gives it: 128 + N for the signal N
  std::string out, error;
  bool operator==(const Result&) const = default;
};

class AttachTest : public LogTest {
 protected:
  /// Runs `command` in a shell, in this test's folder.
  Result shell(const std::string& command) const {
    const std::string whole =
        "cd " + quoted(path("").string()) + " && ulimit -c 0 && exec env OMP_NUM_THREADS=1 " + command;
    const int status =
        std::system(("( " + whole + " ) >" + quoted(path("stdout")) + " 2>" + quoted(path("stderr"))).c_str());
    const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return {code, content(path("stdout")), content(path("stderr"))};
  }
  Result dds(const std::string& arguments) const { return shell(quoted(kTool) + " " + arguments); }
  Result attach(const std::string& options, const std::string& command) const {
    return dds("attach --quiet " + options + " -- " + command);
  }
  static std::string program(const std::string& name) { return quoted(std::string(kPrograms) + "/" + name); }
  log::Run run(const std::string& name = "run") const { return log::read_run(path(name)); }
};

/// The same for programs in Python, where there is a PyTorch of this LibTorch's version.
class PythonAttachTest : public AttachTest {
 protected:
  void SetUp() override {
    AttachTest::SetUp();
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    GTEST_SKIP() << "a sanitiser's runtime cannot be loaded into a process that was started without it";
#endif
    const fs::path torch = fs::path(kPython) / "torch/torch/version.py";
    if (!fs::exists(torch)) GTEST_SKIP() << "no PyTorch: ./tests/benchmarks/run --peers installs it";
    const std::string version = fmt::format("'{}.{}.", TORCH_VERSION_MAJOR, TORCH_VERSION_MINOR);
    if (content(torch).find(version) == std::string::npos)
      GTEST_SKIP() << "PyTorch is of another version than this LibTorch";
    for (const char* name : {"OMP_NUM_THREADS", "MKL_NUM_THREADS", "PYTHONNOUSERSITE"}) setenv(name, "1", 1);
    setenv("PYTHONPATH", fmt::format("{0}/python:{0}/torch", kPython).c_str(), 1);
    // Without its bytecode PyTorch takes several times as long to import.
    unsetenv("PYTHONDONTWRITEBYTECODE");
    setenv("PYTHONPYCACHEPREFIX", (std::string(kPrograms) + "/bytecode").c_str(), 1);
  }
  void TearDown() override {
    unsetenv("PYTHONPATH");
    AttachTest::TearDown();
  }
  static std::string python() { return quoted(std::string(kPython) + "/interpreter"); }
  static std::string script(const std::string& name) {
    return python() + " " + quoted(fmt::format("{}/{}.py", kPythonPrograms, name));
  }
};

}  // namespace dds::test
