#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace graft::jinja {

enum class TokenKind : uint8_t {
  data,            // template text, white space already trimmed
  variable_begin,  // {{
  variable_end,
  block_begin,  // {%
  block_end,
  name,
  string,   // unescaped
  integer,  // decimal digits
  real,
  op,  // one of + - / // * % ** ~ [ ] ( ) { } == != > >= < <= = . : | , ;
  end,
};

struct Token {
  TokenKind kind = TokenKind::end;
  std::string text;
  int32_t line = 0;
};

// Cuts a template as Jinja does under trim_blocks and lstrip_blocks: line ends become \n, one \n at the end of the
// source is dropped, comments vanish, {% raw %} becomes text. Throws graft::Error with `where` and the line.
std::vector<Token> lex(std::string_view source, const std::string& where);

}  // namespace graft::jinja
