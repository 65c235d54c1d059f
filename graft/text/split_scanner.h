#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "graft/text/regex.h"

namespace graft {

// The split patterns of Qwen, Llama-3 and GPT-2 without a regex engine: one pass, every character classified once or
// twice.
struct SplitScanner {
  enum class Contractions { kExact, kAnyCase };  // 's 't 're 've 'm 'll 'd
  Contractions contractions = Contractions::kAnyCase;
  bool gpt2 = false;            // GPT-2: a word, a number or signs, each with one space before it
  bool marks_in_words = false;  // [\p{L}\p{M}]+ (Qwen3.5)
  int max_digits = 1;           // \p{N}{1,max_digits}

  // The scanner that does what the pattern does, if there is one.
  static std::optional<SplitScanner> for_pattern(std::string_view pattern);

  // Cuts valid UTF-8; every character belongs to a match.
  void find(std::string_view text, std::vector<Match>& out) const;
  // Where the match that begins at text[i] ends, i < text.size(): find() step by step, for texts without end.
  size_t match_end(std::string_view text, size_t i) const;
};

inline constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
inline constexpr std::string_view kQwen35Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

}  // namespace graft
