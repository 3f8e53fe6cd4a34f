#include "src/attach/folder.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <dds/error.hpp>

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
  for (const auto& [key, json] : description_) directory_->describe(key, json);
  return *directory_;
}

}  // namespace dds::attach
