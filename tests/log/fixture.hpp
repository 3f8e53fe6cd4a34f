// A folder of its own for every test of the log, and rows to write into it.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <dds/error.hpp>
#include <dds/run.hpp>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>

namespace dds::test {

namespace fs = std::filesystem;

/// What an exception of this type says; a failure of the test if there is none.
template <class Exception, class Act>
std::string message_of(Act act) {
  try {
    act();
  } catch (const Exception& error) {
    return error.what();
  }
  ADD_FAILURE() << "nothing was thrown";
  return "";
}

inline std::string content(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

inline void put(const fs::path& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }

/// What a run was described with under a key; null if nothing.
inline nlohmann::json described(const log::Run& run, const std::string& key) {
  const auto found = run.description.find(key);
  return found == run.description.end() ? nlohmann::json() : nlohmann::json::parse(found->second);
}

inline Signature signature(std::int64_t step, std::string layer = "fc1", Side side = Side::Activation) {
  Signature s;
  s.step = step;
  s.layer = std::move(layer);
  s.kind = "Linear";
  s.side = side;
  s.source = Source::Read;
  s.row_mode = RowMode::Sample;
  s.dtype = at::kDouble;
  s.rows = 512;
  s.width = 10;
  s.sigma_max = 3.5;
  s.sigma_min = 0.1;
  s.floor = 1e-14;
  s.log10_lambda_min_plus = -4.7;
  s.log10_trace = 0.25;
  s.logdet_plus = -31.0;
  s.rank = 10;
  s.structural_bound = 10;
  s.dead_directions = 0;
  s.at_floor = false;
  s.seconds = 0.0015;
  s.spectrum = {3.5, 1.0 / 3, 0.1};
  return s;
}

inline LlcEstimate estimate(std::int64_t step, LlcKind kind = LlcKind::Plain) {
  LlcEstimate e;
  e.step = step;
  e.kind = kind;
  e.lambda = 9.75 + static_cast<double>(step);
  e.standard_error = 0.3;
  e.gamma = 1000;
  e.n_beta = 492.4;
  e.seed = 18446744073709551615u;
  e.sampler = "mala";
  e.replicas = "clone";
  e.seconds = 7;
  return e;
}

class LogTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    std::string name = info->name();
    std::replace(name.begin(), name.end(), '/', '-');  // of a parameter
    root_ = fs::temp_directory_path() / ("dds-" + name + "-" + std::to_string(::getpid()));
    fs::remove_all(root_);
    fs::create_directories(root_);
  }
  void TearDown() override { fs::remove_all(root_); }
  fs::path path(const std::string& name = "run") const { return root_ / name; }

 private:
  fs::path root_;
};

}  // namespace dds::test
