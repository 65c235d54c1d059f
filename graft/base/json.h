#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace graft {

using Json = nlohmann::ordered_json;  // key order is kept: templates and row formats show it

struct JsonLimits {
  int max_depth = 100;
  bool allow_duplicate_keys = false;
  // An integer beyond 64 bits becomes a binary value that holds its digits (a double otherwise): templates print it exactly.
  bool keep_big_integers = false;
};

// Parses one JSON text from outside. Throws graft::Error "WHERE: … at line L column C" for: syntax, bytes that are not
// UTF-8, NaN/Infinity words, nesting deeper than the limit, a key that occurs twice (named), anything after the value.
// `where` is the file (and perhaps ":line") for the message. A leading byte order mark is skipped.
Json parse_json(std::string_view text, std::string_view where, const JsonLimits& limits = {});

// Reads a whole file (at most max_bytes) and parses it.
Json read_json(const std::string& path, const JsonLimits& limits = {}, size_t max_bytes = size_t{1} << 30);

// "a string", "an array", "the number 3.5": for "expected …, found …".
std::string json_kind(const Json& value);

}  // namespace graft
