#include "src/log/csv.hpp"

#include <fmt/format.h>

#include "src/base/check.hpp"

namespace dds::log::csv {
namespace {

std::string quoted(const std::string& field) {
  if (field.find_first_of(",\"\r\n") == std::string::npos) return field;
  std::string text = "\"";
  for (const char c : field) {
    if (c == '"') text += '"';
    text += c;
  }
  return text + '"';
}

}  // namespace

bool Reader::next(Record& record) {
  record = {{}, line_};
  for (;;) {
    std::string field;
    if (!read_field(field)) return false;
    if (record.fields.size() == kMostFields) {
      throw_invalid(fmt::format("line {}", record.line), "the number of fields", fmt::format("above {}", kMostFields),
                    fmt::format("at most {}", kMostFields));
    }
    record.fields.push_back(std::move(field));
    // read_field stops before a comma or a line end, never at the end of the text.
    if (text_[at_] == ',') {
      ++at_;
      continue;
    }
    at_ = text_.find('\n', at_) + 1;
    ++line_;
    return true;
  }
}

bool Reader::read_field(std::string& field) {
  if (at_ < text_.size() && text_[at_] == '"') {
    if (!read_quoted(field)) return false;
  } else {
    while (at_ < text_.size() && text_[at_] != ',' && text_[at_] != '"' && !at_line_end()) field += text_[at_++];
  }
  if (at_ == text_.size()) return false;
  if (text_[at_] != ',' && !at_line_end()) {
    throw_invalid(fmt::format("line {}", line_), "what follows a field", fmt::format("'{}'", text_[at_]),
                  "a comma or the end of the line");
  }
  return true;
}

bool Reader::at_line_end() const {
  return text_.substr(at_).starts_with('\n') || text_.substr(at_).starts_with("\r\n");
}

/// A quoted field, from its opening quote to behind its closing one.
bool Reader::read_quoted(std::string& field) {
  for (++at_; at_ < text_.size(); ++at_) {
    const char c = text_[at_];
    if (c == '"') {
      const bool doubled = at_ + 1 < text_.size() && text_[at_ + 1] == '"';
      if (!doubled) {
        ++at_;
        return true;
      }
      ++at_;
    }
    if (c == '\n') ++line_;
    field += c;
  }
  return false;
}

std::string line(const std::vector<std::string>& fields) {
  std::string text;
  for (const std::string& field : fields) {
    if (&field != &fields.front()) text += ',';
    text += quoted(field);
  }
  return text + '\n';
}

Table parse(std::string_view text) {
  Table table;
  Reader reader(text);
  for (Record record; reader.next(record);) {
    table.records.push_back(std::move(record));
    table.whole = reader.position();
  }
  return table;
}

}  // namespace dds::log::csv
