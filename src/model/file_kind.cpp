#include "src/model/file_kind.hpp"

#include <caffe2/serialize/inline_container.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <exception>
#include <fstream>
#include <string_view>
#include <utility>
#include <vector>

#include "src/base/bytes.hpp"

namespace dds {
namespace {

using namespace std::string_view_literals;

/// How files begin.
constexpr auto kBeginnings = std::to_array<std::pair<std::string_view, std::string_view>>({
    {"\x93NUMPY"sv, "a NumPy array (.npy)"},
    {"\x89HDF"sv, "an HDF5 file"},
    {"GGUF"sv, "a GGUF file"},
    {"\x7f"
     "ELF"sv,
     "a program or a shared library"},
    {"\x1f\x8b"sv, "a file that gzip compressed"},
    {"version https://git-lfs"sv, "a Git LFS pointer, whose file 'git lfs pull' fetches"},
    {"<!DOCTYPE"sv, "a web page"},
    {"<html"sv, "a web page"},
    {"\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19."sv,
     "what torch.save wrote in its format from before PyTorch 1.6 (torch.load reads it)"},
    {"\x80"sv, "a pickle that torch.save did not write"},
});

/// What the directory of a ZIP archive, which stands at its end, tells by the names in it.
constexpr auto kMembers = std::to_array<std::pair<std::string_view, std::string_view>>({
    {"serialized_exported_program.json", "an exported program (.pt2, torch.export.save)"},
    {"archive_format", "an exported program (.pt2, torch.export.save)"},
    {"models/model.json", "an exported program (.pt2, torch.export.save)"},
    {".npy", "NumPy arrays (.npz)"},
    {"extern_modules", "a torch.package"},
    {"constants.pkl", kTorchScriptArchive},
});

/// The classes that a pickle names, "collections.OrderedDict", in order: after the letter c, on two lines.
std::vector<std::string> classes_in(std::string_view pickle) {
  const auto name_at = [&](std::size_t begin) {
    const std::size_t end =
        pickle.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.", begin);
    return end != std::string_view::npos && pickle[end] == '\n' ? pickle.substr(begin, end - begin) : ""sv;
  };
  std::vector<std::string> classes;
  for (std::size_t at = pickle.find('c'); at != std::string_view::npos; at = pickle.find('c', at + 1)) {
    const std::string_view module = name_at(at + 1);
    if (module.empty()) continue;
    const std::string_view name = name_at(at + module.size() + 2);
    if (name.empty()) continue;
    classes.push_back(fmt::format("{}.{}", module, name));
    at += module.size() + name.size() + 2;
  }
  return classes;
}

/// Whether tensors alone need this class.
bool is_of_tensors(const std::string& name) {
  const bool storage = name.starts_with("torch.") && name.find('.', 6) == std::string::npos;
  return storage || name.starts_with("torch._") || name.starts_with("torch.storage.") ||
         name.starts_with("collections.");
}

/// "torch.uint16": the type of the first tensor that is rebuilt by its type, not by a class of storages. Empty if there
/// is none.
std::string new_type_in(const std::vector<std::string>& classes) {
  const auto rebuilt = std::find(classes.begin(), classes.end(), "torch._utils._rebuild_tensor_v3");
  const auto type = std::find_if(rebuilt, classes.end(), [](const std::string& name) {
    return name.starts_with("torch.") && name.find('.', 6) == std::string::npos && name.back() >= '0' &&
           name.back() <= '9';
  });
  return type == classes.end() ? "" : *type;
}

/// Of what Python's torch.save wrote, by the pickle within.
std::string kind_of_pickle(std::string_view pickle) {
  constexpr std::size_t kOfProtocol = 2;  // bytes before the first instruction
  const char first = pickle.size() > kOfProtocol ? pickle[kOfProtocol] : '\0';
  const std::vector<std::string> classes = classes_in(pickle);
  const auto foreign = std::find_if_not(classes.begin(), classes.end(), is_of_tensors);
  if (first == 'c' && foreign == classes.begin() && !classes.empty())
    return fmt::format("an object of the Python class {}, as torch.save(model) writes a whole network", *foreign);
  if (foreign != classes.end())
    return fmt::format("what torch.save wrote, with objects of the Python class {}", *foreign);
  if (const std::string type = new_type_in(classes); !type.empty())
    return fmt::format("what torch.save wrote, with a tensor of type {}, which LibTorch does not load in C++", type);
  if (first == 'c' && !classes.empty() && classes.front() == "collections.OrderedDict")
    return "a state_dict (an OrderedDict of parameters, without the network)";
  if (first == '}') return "a dict that torch.save wrote";
  return "tensors that torch.save wrote";
}

std::string kind_of_archive(const std::filesystem::path& path, std::ifstream& file, std::uint64_t size) {
  constexpr std::uint64_t kDirectory = std::uint64_t{1} << 22;
  const std::uint64_t begin = size > kDirectory ? size - kDirectory : 0;
  const std::string end = read_bytes(file, begin, static_cast<std::size_t>(size - begin));
  if (end.find("PK\5\6") == std::string::npos) return "a ZIP archive that is cut short";
  for (const auto& [member, kind] : kMembers) {
    if (end.find(member) != std::string::npos) return std::string(kind);
  }
  if (end.find("data.pkl") == std::string::npos) return "a ZIP archive of other things";
  const auto [pickle, length] = caffe2::serialize::PyTorchStreamReader(path.string()).getRecord("data.pkl");
  return kind_of_pickle({static_cast<const char*>(pickle.get()), length});
}

std::string kind_of(const std::filesystem::path& path) {
  constexpr std::size_t kHead = 64, kLength = 8;
  std::ifstream file(path, std::ios::binary);
  if (!file.is_open()) return "";
  const std::string head = read_bytes(file, 0, kHead);
  if (head.empty()) return "an empty file";
  const std::uint64_t size = std::filesystem::file_size(path);
  if (head.starts_with("PK\3\4")) return kind_of_archive(path, file, size);
  for (const auto& [beginning, kind] : kBeginnings) {
    if (head.starts_with(beginning)) return std::string(kind);
  }
  static_assert(std::endian::native == std::endian::little);
  std::uint64_t length = 0;
  std::memcpy(&length, head.data(), std::min(head.size(), kLength));
  if (head.size() > kLength && head[kLength] == '{' && length < size) return "a safetensors file";
  return "of another format (no ZIP archive)";
}

}  // namespace

std::string kind_of_file(const std::filesystem::path& path) {
  try {
    if (std::filesystem::is_directory(path)) return "a folder";
    return kind_of(path);
  } catch (const std::exception&) {
    return "";
  }
}

}  // namespace dds
