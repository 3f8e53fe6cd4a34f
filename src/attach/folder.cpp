#include "src/attach/folder.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <dds/error.hpp>
#include <utility>

namespace dds::attach {

void Folder::describe(const std::string& key, const std::string& json) {
  if (directory_) return directory_->describe(key, json);
  description_[key] = json;
}

log::Sink& Folder::opened() {
  if (directory_) return *directory_;
  try {
    directory_ = log::directory(path_);
  } catch (const IoError&) {
    const std::filesystem::path own = fmt::format("{}.{}", path_.string(), ::getpid());
    directory_ = log::directory(own);
    path_ = own;
  }
  // What cannot be written now, the directory keeps for its next row, and tells then.
  const auto give = [&](const auto& write) {
    try {
      write();
    } catch (const IoError&) {
    }
  };
  for (const auto& [key, json] : description_) give([&, &k = key, &j = json] { directory_->describe(k, j); });
  for (const Row& row : std::exchange(waiting_, {}))
    give([&] { std::visit([&](const auto& one) { directory_->write(one); }, row); });
  return *directory_;
}

}  // namespace dds::attach
