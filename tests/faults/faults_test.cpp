// Training whose log cannot be written: it ends with the same weights to the bit, the error is reported once and
// counted, and what could be saved is.
#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <dds/run.hpp>
#include <set>

#include "tests/faults/process.hpp"
#include "tests/faults/training.hpp"
#include "tests/log/fixture.hpp"

namespace dds {
namespace {

using test::content;
namespace fs = std::filesystem;

/// What befalls a run: `begins` and `ends` are called at two steps of the training, before the log is opened and at its
/// end. What `before` says, if anything, is why it cannot be had here.
struct Fault {
  std::string name;
  std::function<std::string(const fs::path& folder)> before = [](const fs::path&) { return std::string(); };
  std::function<void(const fs::path&run)> begins = {}, ends = {};
  std::string told = {};    ///< stands in what is reported; empty: nothing is
  bool to_the_end = false;  ///< `ends` is never called
};

void limit(int resource, rlim_t value) {
  rlimit now;
  getrlimit(resource, &now);
  now.rlim_cur = std::min(value, now.rlim_max);
  setrlimit(resource, &now);
}

void fill(const fs::path& file) {
  const std::string block(4096, 'x');
  const int fd = ::open(file.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0666);
  for (std::size_t size = block.size(); size > 0;) {
    if (::write(fd, block.data(), size) <= 0) size /= 2;
  }
  ::close(fd);
}

/// A disk of its own for this process, of 256 KiB.
std::string mount_disk(const fs::path& folder) {
  const uid_t user = ::geteuid();
  const gid_t group = ::getegid();
  const int flags = user == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER;
  if (::unshare(flags) != 0) return "no mounts of one's own here: unshare is refused";
  if (user != 0) {  // files need an owner and a group that the new namespace knows
    test::put("/proc/self/setgroups", "deny");
    test::put("/proc/self/uid_map", fmt::format("0 {} 1", user));
    test::put("/proc/self/gid_map", fmt::format("0 {} 1", group));
  }
  if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return "mounts cannot be made private here";
  if (::mount("dds", folder.c_str(), "tmpfs", 0, "size=256k") != 0) return "a tmpfs cannot be mounted here";
  return "";
}

std::vector<Fault> faults() {
  std::vector<Fault> all;
  Fault& file_size = all.emplace_back(Fault{.name = "FileSizeLimit", .told = "File too large"});
  file_size.begins = [](const fs::path& run) {
    std::signal(SIGXFSZ, SIG_IGN);
    limit(RLIMIT_FSIZE, fs::file_size(run / "signatures.csv") + 100);
  };
  file_size.ends = [](const fs::path&) { limit(RLIMIT_FSIZE, RLIM_INFINITY); };

  Fault& full = all.emplace_back(Fault{.name = "FullDisk", .before = mount_disk, .told = "No space left on device"});
  full.begins = [](const fs::path& run) { fill(run.parent_path() / "filler"); };
  full.ends = [](const fs::path& run) { fs::remove(run.parent_path() / "filler"); };

  Fault& full_for_good = all.emplace_back(full);
  full_for_good.name = "FullDiskToTheEnd";
  full_for_good.to_the_end = true;

  Fault& handles = all.emplace_back(Fault{.name = "NoFileHandles"});
  handles.begins = [](const fs::path&) { limit(RLIMIT_NOFILE, 0); };
  handles.ends = [](const fs::path&) { limit(RLIMIT_NOFILE, 1024); };

  Fault& deleted = all.emplace_back(Fault{.name = "FolderDeleted"});
  deleted.begins = deleted.ends = [](const fs::path& run) { fs::remove_all(run); };

  Fault& gone = all.emplace_back(Fault{.name = "FolderInTheWayOfItsReturn", .told = "Not a directory"});
  gone.begins = [](const fs::path& run) {
    fs::remove_all(run);
    test::put(run, "a file of this name");
  };
  gone.ends = [](const fs::path& run) { fs::remove(run); };

  // Root may write into any folder: it becomes somebody else first.
  Fault& read_only = all.emplace_back(Fault{.name = "FolderReadOnly"});
  read_only.before = [](const fs::path& folder) {
    constexpr uid_t kNobody = 65534;
    if (::geteuid() != 0) return "";
    if (::chown(folder.c_str(), kNobody, kNobody) != 0 || ::seteuid(kNobody) != 0) return "root cannot be left here";
    return "";
  };
  read_only.begins = [](const fs::path& run) { fs::permissions(run, fs::perms::owner_read | fs::perms::owner_exec); };
  read_only.ends = [](const fs::path& run) { fs::permissions(run, fs::perms::owner_all); };
  return all;
}

class TrainingUnder : public test::LogTest, public testing::WithParamInterface<std::tuple<std::size_t, Worker>> {};

TEST_P(TrainingUnder, GoesOnAndSavesWhatItCan) {
  const Fault fault = faults()[std::get<0>(GetParam())];
  const Worker worker = std::get<1>(GetParam());
  fs::create_directories(path("disk"));
  const std::string result = test::result_of([&]() -> std::string {
    std::string wrong;
    const auto expect = [&](bool holds, const std::string& what) {
      if (!holds) wrong += what + "\n";
    };
    if (const std::string why = fault.before(path("disk")); !why.empty()) return "skip: " + why;
    const fs::path run = path("disk") / "run";
    const test::Training bare;
    const at::Tensor weights = test::train(bare, MonitorOptions(), nullptr);

    std::set<std::string> reported;
    std::int64_t reports = 0, told = 0, errors = 0;
    test::Training training;
    training.before_step = [&](std::int64_t step, Monitor& monitor) {
      if (step != 10 && step != 25) return;
      monitor.flush();
      errors = monitor.errors();
      if (step == 10) fault.begins(run);
      if (step == 25 && !fault.to_the_end) fault.ends(run);
    };
    const auto reading = SignatureOptions().spectra(true);
    const auto options =
        MonitorOptions().every(2).signatures(reading).worker(worker).on_error([&](const std::exception& error) {
          ++reports;
          reported.insert(error.what());
          told += std::string_view(error.what()).find(fault.told) != std::string_view::npos;
        });
    const at::Tensor attached = test::train(training, options, log::directory(run, {.tensorboard = true}));
    expect(torch::equal(weights, attached), "the weights are others");
    expect(reports == std::ssize(reported), fmt::format("{} reports of {} errors", reports, reported.size()));
    if (fault.told.empty()) {
      expect(reports == 0, fmt::format("{} reports", reports));
    } else {
      expect(reports > 0 && told == reports, fmt::format("{} reports, {} of them as expected", reports, told));
      expect(errors > 15 || fault.to_the_end, fmt::format("{} errors counted", errors));
    }

    const log::Run log = log::read_run(run);
    std::int64_t losses = 0;
    for (const Metric& metric : log.metrics) losses += metric.name == "loss";
    const std::int64_t readings = 20 + 11;  // of four sides of layers
    if (fault.to_the_end) {
      expect(losses >= 10, fmt::format("{} losses", losses));
      expect(log.signatures.size() >= 4 * (5 + 3), fmt::format("{} signatures", log.signatures.size()));
    } else {
      expect(losses == 41, fmt::format("{} losses", losses));
      expect(std::ssize(log.signatures) == 4 * readings, fmt::format("{} signatures", log.signatures.size()));
      expect(log.estimates.size() == 7, fmt::format("{} estimates", log.estimates.size()));
    }
    for (const Signature& s : log.signatures)
      expect(s.spectrum.empty() != s.has_numbers(), fmt::format("{} has no spectrum", s.layer));
    for (const char* file : {"signatures.csv", "spectra.jsonl", "llc.csv", "metrics.csv"})
      expect(content(run / file).ends_with('\n'), fmt::format("{} ends in part of a row", file));
    return wrong.empty() ? "right" : wrong;
  });
  if (result.starts_with("skip: ")) GTEST_SKIP() << result.substr(6);
  EXPECT_EQ(result, "right");
}

INSTANTIATE_TEST_SUITE_P(Faults, TrainingUnder,
                         testing::Combine(testing::Range(std::size_t{0}, faults().size()),
                                          testing::Values(Worker::Off, Worker::Wait)),
                         [](const auto& info) {
                           return faults()[std::get<0>(info.param)].name +
                                  (std::get<1>(info.param) == Worker::Off ? "" : "BehindAWorker");
                         });

}  // namespace
}  // namespace dds
