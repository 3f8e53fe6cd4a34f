// Files that people hand over in the place of a network or of tensors: what an error says that they are.
#include "src/model/file_kind.hpp"

#include <caffe2/serialize/inline_container.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <torch/script.h>

#include <dds/script.hpp>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>

#include "tests/support.hpp"

namespace dds {
namespace {

using namespace std::string_literals;
using testing::AllOf;
using testing::HasSubstr;
namespace fs = std::filesystem;

fs::path path_of(const std::string& name) {
  const fs::path folder = fs::path(testing::TempDir()) / "dds_file_kind";
  fs::create_directories(folder);
  return folder / name;
}

fs::path written(const std::string& name, const std::string& content) {
  std::ofstream(path_of(name), std::ios::binary) << content;
  return path_of(name);
}

/// An archive as torch.save and torch.jit.save lay it out, with these members.
fs::path archive(const std::string& name, const std::map<std::string, std::string>& members) {
  caffe2::serialize::PyTorchStreamWriter writer(path_of(name).string());
  for (const auto& [member, content] : members) writer.writeRecord(member, content.data(), content.size());
  writer.writeEndOfFile();
  return path_of(name);
}

/// The first instructions of what Python's torch.save writes.
const std::string kTensor =
    "ctorch._utils\n_rebuild_tensor_v2\nq\x03((X\x07\0\0\0storageq\x04"
    "ctorch\nFloatStorage\n"s;
const std::string kStateDict =
    "\x80\x02"
    "ccollections\nOrderedDict\nq\0)Rq\1(X\x0a\0\0\0fc1.weightq\2"s +
    kTensor + "ub.";
const std::string kNetwork =
    "\x80\x02"
    "c__main__\nNet\nq\0)\x81q\1}q\2(X\x0b\0\0\0_parametersq\3ccollections\nOrderedDict\n"s;

struct File {
  const char* name;
  fs::path (*make)(const std::string& name);
  const char* says;
};
void PrintTo(const File& file, std::ostream* os) { *os << file.name; }

class FileKind : public testing::TestWithParam<File> {};

TEST_P(FileKind, IsSaidOfWhatIsNoTorchScript) {
  const fs::path file = GetParam().make(std::string(GetParam().name) + ".pt");
  EXPECT_THAT(kind_of_file(file), HasSubstr(GetParam().says));
  EXPECT_THAT(test::message_of([&] { load_script(file); }),
              AllOf(HasSubstr(file.string() + " is "), HasSubstr(GetParam().says),
                    HasSubstr("expected a TorchScript archive: torch.jit.script(model).save(FILE)")));
  fs::remove(file);
}

INSTANTIATE_TEST_SUITE_P(
    Files, FileKind,
    testing::Values(
        File{"state_dict",
             [](const std::string& name) {
               return archive(name, {{"data.pkl", kStateDict}});
             },
             "a state_dict (an OrderedDict of parameters, without the network)"},
        File{"network",
             [](const std::string& name) {
               return archive(name, {{"data.pkl", kNetwork}});
             },
             "an object of the Python class __main__.Net, as torch.save(model) writes a whole network"},
        File{"sequential",
             [](const std::string& name) {
               return archive(name, {{"data.pkl",
                                      "\x80\x02"
                                      "ctorch.nn.modules.container\nSequential\nq\0"s}});
             },
             "the Python class torch.nn.modules.container.Sequential"},
        File{"checkpoint",
             [](const std::string& name) {
               return archive(name, {{"data.pkl", "\x80\x02}q\0(X\5\0\0\0epochq\1K\7u."s}});
             },
             "a dict that torch.save wrote"},
        File{
            "numpy_inside",
            [](const std::string& name) {
              return archive(name, {{"data.pkl", "\x80\x02}q\0(X\1\0\0\0xq\1cnumpy.core.multiarray\n_reconstruct\n"s}});
            },
            "with objects of the Python class numpy.core.multiarray._reconstruct"},
        File{"tensors",
             [](const std::string& name) {
               return archive(name, {{"data.pkl", "\x80\x02" + kTensor}});
             },
             "tensors that torch.save wrote"},
        File{"uint16",
             [](const std::string& name) {
               return archive(name, {{"data.pkl",
                                      "\x80\x02}q\0(X\1\0\0\0yctorch._utils\n_rebuild_tensor_v3\nq\3(("
                                      "ctorch.storage\nUntypedStorage\nq\4X\1\0\0\0001tctorch\nuint16\nq\5tR"s}});
             },
             "with a tensor of type torch.uint16, which LibTorch does not load in C++"},
        File{"pt2",
             [](const std::string& name) {
               return archive(name, {{"archive_format", "pt2"}, {"models/model.json", "{}"}, {"data/weights/w", "1"}});
             },
             "an exported program (.pt2, torch.export.save)"},
        File{"cut",
             [](const std::string& name) {
               const fs::path whole = archive(name, {{"data.pkl", kStateDict}});
               fs::resize_file(whole, fs::file_size(whole) / 2);
               return whole;
             },
             "a ZIP archive that is cut short"},
        File{"other_zip",
             [](const std::string& name) {
               return archive(name, {{"word/document.xml", "<w/>"}});
             },
             "a ZIP archive of other things"},
        File{"empty", [](const std::string& name) { return written(name, ""); }, "an empty file"},
        File{"npy", [](const std::string& name) { return written(name, "\x93NUMPY\1\0"s); }, "a NumPy array (.npy)"},
        File{"safetensors", [](const std::string& name) { return written(name, "\2\0\0\0\0\0\0\0{}"s); },
             "a safetensors file"},
        File{"old_torch_save",
             [](const std::string& name) {
               return written(name, "\x80\x02\x8a\nl\xfc\x9c\x46\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."s);
             },
             "its format from before PyTorch 1.6"},
        File{"pickle", [](const std::string& name) { return written(name, "\x80\4\x95"s); }, "a pickle"},
        File{"lfs",
             [](const std::string& name) { return written(name, "version https://git-lfs.github.com/spec/v1\n"); },
             "git lfs pull"},
        File{"folder",
             [](const std::string& name) {
               fs::create_directory(path_of(name));
               return path_of(name);
             },
             "a folder"}),
    [](const auto& info) { return std::string(info.param.name); });

TEST(FileKindOf, ParametersThatCppSavedHaveNoForward) {
  torch::save(torch::nn::Linear(3, 2), path_of("linear.pt").string());
  EXPECT_THAT(test::message_of([] { load_script(path_of("linear.pt")); }),
              HasSubstr("is an archive without a forward, as torch::save of C++ writes parameters or tensors"));
}

TEST(FileKindOf, WhatIsNotKnownIsNotNamed) {
  EXPECT_EQ(kind_of_file(written("text.pt", "no archive\nof any kind\n")), "of another format (no ZIP archive)");
  EXPECT_EQ(kind_of_file(path_of("missing.pt")), "");
  torch::jit::Module script("Net");
  script.register_parameter("w", torch::ones({2}), false);
  script.define("def forward(self, x):\n    return x * self.w\n");
  script.save(path_of("script.pt").string());
  EXPECT_EQ(kind_of_file(path_of("script.pt")), kTorchScriptArchive);
  EXPECT_EQ(load_script(path_of("script.pt"))
                .forward(*load_script(path_of("script.pt")).module, {torch::ones({2})})
                .sum()
                .item<double>(),
            2);
}

}  // namespace
}  // namespace dds
