// Writes the inputs that the fuzzers begin with, a folder for each: dds_fuzz_seeds FOLDER
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <zlib.h>

#include "experiments/harness/finished.hpp"
#include "src/log/file.hpp"
#include "src/log/run_files.hpp"
#include "src/rows/wire.hpp"
#include "tests/fuzz/fuzz.hpp"
#include "tests/fuzz/samples.hpp"

namespace {

using namespace dds;
namespace fs = std::filesystem;

fs::path seeds;

void add(const std::string& fuzzer, const std::string& name, std::string_view content) {
  fs::create_directories(seeds / fuzzer);
  fuzz::put(seeds / fuzzer / name, content);
}

void add_runs() {
  for (int seed : {1, 2, fuzz::kExtremes}) {
    const fs::path run = fuzz::folder() / ("run" + std::to_string(seed));
    fuzz::write_run(run, seed, /*tensorboard=*/true);
    const std::string name = std::to_string(seed);
    std::string all;
    for (const auto file : {log::kRunJson, log::kSignaturesCsv, log::kSpectraJsonl, log::kLlcCsv, log::kMetricsCsv}) {
      const std::string content = log::read_file(run / file);
      all += content;
      if (file != log::kMetricsCsv) all += fuzz::kBetweenFiles;
      if (file.ends_with(".csv")) {
        add("csv", name + std::string(file), content);
        add("rows", name + std::string(file), std::string(1, file[0]) + content.substr(content.find('\n') + 1));
      }
    }
    add("run", name, all);
    add("run", name + "torn", all.substr(0, all.size() - 3));
    for (const auto& entry : fs::directory_iterator(run)) {
      if (entry.path().filename().string().starts_with("events.")) add("events", name, log::read_file(entry.path()));
    }
  }
}

/// Few bytes a field, and many keys.
void add_crowded() {
  add("csv", "lines", std::string(5000, '\n'));
  add("csv", "commas", std::string(5000, ',') + "\n");
  std::string description = R"({"schema_version":4)";
  for (int i = 0; i < 5000; ++i) description += ",\"" + std::to_string(i) + "\":0";
  add("run", "keys", description + "}");
}

void add_states() {
  add("state", "empty", R"({"fixed_ranks":[],"steps":0})");
  add("state", "two",
      R"json({"fixed_ranks":[["(root)","activation","step","",2],["fc","fisher","read","sampled:4",1]],"steps":17})json");
}

void add_pieces() {
  experiments::RunOptions options;
  options.experiment = "fuzzed";
  options.out = fuzz::folder() / "pieces";
  {
    experiments::Finished finished(options);
    finished.piece("a", [] { return nlohmann::json{{"value", 1.5}, {"list", {1, nullptr, "x"}}}; });
    finished.piece("b", [] { return nlohmann::json(7); });
  }
  const std::string content = log::read_file(options.out / "finished.jsonl");
  add("finished", "two", content);
  add("finished", "torn", content.substr(0, content.size() - 4));
}

void add_images() {
  const auto idx = [](std::initializer_list<unsigned char> sizes, std::size_t entries) {
    std::string file{0, 0, 8, static_cast<char>(sizes.size())};
    for (const unsigned char size : sizes) file += std::string{0, 0, 0, static_cast<char>(size)};
    return file + std::string(entries, '\7');
  };
  const auto compressed = [](const std::string& content) {
    const fs::path path = fuzz::folder() / "file.gz";
    gzFile file = gzopen(path.c_str(), "wb");
    gzwrite(file, content.data(), static_cast<unsigned>(content.size()));
    gzclose(file);
    return log::read_file(path);
  };
  const std::string images = idx({2, 3, 4}, 24), labels = idx({2}, 2);
  add("images", "plain", images + fuzz::kBetweenFiles + labels);
  add("images", "compressed", compressed(images) + fuzz::kBetweenFiles + compressed(labels));
}

/// The rows of a layer: few rows on one side, triangles on two. And what else stands in a message.
void add_parcels() {
  const auto add_parcel = [](const std::string& name, const std::string& kind, const Parcel& parcel) {
    add("parcel", name,
        kind + std::string(reinterpret_cast<const char*>(parcel.bytes().data()), parcel.bytes().size()));
  };
  CapturedLayer layer;
  layer.layer = "fc1";
  layer.kind = "Linear";
  for (const std::int64_t rows : {2, 6}) {
    CapturedCall call;
    call.output = at::ones({rows, 3}, at::kDouble).cumsum(0);
    call.output_features = {1};
    layer.output_bound = layer.gradient_bound = {.rank = 3, .shape = 3};
    LayerRows collected(layer, SignatureOptions().sides({Side::Activation, Side::Fisher}));
    collected.add_bounds(layer);
    collected.add_forward(call, {});
    if (rows == 6) collected.add_gradient(call, call.output.sin(), 1, {}, {});
    collected.reduce();
    Parcel parcel;
    collected.pack(parcel);
    add_parcel("rows" + std::to_string(rows), "r", parcel);
  }
  Parcel cancellation;
  pack(Cancellation(at::full({}, 3.0, at::kDouble), at::full({}, 0.5, at::kDouble)), cancellation);
  add_parcel("cancellation", "c", cancellation);
  Parcel values;
  values.put(true);
  values.put(std::uint8_t{7});
  values.put(0.1);
  values.put(std::uint8_t{2});
  values.put(std::int64_t{12});
  values.put(std::string("a name"));
  values.put(std::vector<double>{1, 2});
  values.put(at::ones({2, 2}, at::kFloat));
  values.put(std::vector<at::Tensor>{at::ones({3}, at::kLong), {}, at::ones({}, at::kDouble)});
  add_parcel("values", {"v\0\1\2\3\4\5\6\7\10\xff", 11}, values);
}

void add_commands() {
  int number = 0;
  for (const char* line :
       {"--version", "--help", "report\na\nb\n--out=x", "compare\na\nb\n--step\n10", "watch\na\n--once",
        "lambda\nregular\n10", "lambda\ncrossing\n1\n2\n--density\n0\n1", "lambda\nreduced-rank\n10\n3\n5\n--rank\n2",
        "lambda\nlinear\n20\n20\n20\n--rank\n16", "export\na\nb\n--to\ncsv\n--out=x", "export\na\n--to\njsonl\n--out=x",
        "export\na\n--to\ntensorboard\n--out=x", "report\na\n--figures=x\n--format\npng", "report\nc\n--figures=x",
        "compare\na\nc", "attach\n--every\n2\n--layers\nfc*\n--max-rows\n9\n--stop-after\n7\n--\na\nb",
        "watch\na\n--interval\n0.5"})
    add("command", std::to_string(number++), line);
}

void add_settings() {
  add("settings", "all",
      "plugin=p.so:torch=t.so:out=runs/a:every=10:layers=fc*:layers=conv1:max_rows=9:stop_after=0:snapshots=1:list=l");
}

void add_programs() {
  add("program", "script", "#!/usr/bin/env -S A=b python3 -u\nprint()\n");
  // The start of this program, which has its headers and the name of its loader.
  add("program", "elf", log::read_file("/proc/self/exe").substr(0, 4096));
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  seeds = argv[1];
  fs::remove_all(seeds);
  add_runs();
  add_crowded();
  add_states();
  add_pieces();
  add_images();
  add_parcels();
  add_commands();
  add_settings();
  add_programs();
  return 0;
}
