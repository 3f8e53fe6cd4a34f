#include <dds/llc.hpp>

#include "src/base/check.hpp"

namespace dds {

std::string_view to_string(LlcKind kind) { return kind == LlcKind::Plain ? "plain" : "tilted"; }

LlcKind llc_kind_from_string(std::string_view text) {
  for (const LlcKind kind : {LlcKind::Plain, LlcKind::Tilted}) {
    if (to_string(kind) == text) return kind;
  }
  throw_invalid("llc_kind_from_string", "text", text, "plain or tilted");
}

}  // namespace dds
