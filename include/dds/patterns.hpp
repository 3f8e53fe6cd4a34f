// Which names an option selects: of layers, of parameters.
#pragma once

#include <dds/export.hpp>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace DDS_EXPORT dds {

/// All names, or those that match one of several glob patterns: '*' is any text, '?' is one character.
///
///   SignatureOptions().layers({"blocks.*", "head"});
class Patterns {
 public:
  /// All names.
  Patterns(std::nullopt_t) {}
  /// Throws InvalidArgument for an empty list.
  Patterns(std::vector<std::string> patterns);
  Patterns(std::initializer_list<std::string> patterns) : Patterns(std::vector<std::string>(patterns)) {}

  /// True if all names are selected because no pattern was given.
  bool all() const { return patterns_.empty(); }
  bool select(std::string_view name) const;
  /// The patterns; none for all().
  const std::vector<std::string>& list() const { return patterns_; }

 private:
  std::vector<std::string> patterns_;
};

}  // namespace dds
