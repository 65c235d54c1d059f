#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

// Code points and letter case as Python's str has them.
namespace graft::jinja {

int32_t next_code_point(std::string_view text, size_t& offset);  // a byte that is not UTF-8 counts as itself
int64_t count_code_points(std::string_view text);
size_t code_point_offset(std::string_view text, size_t begin,
                         int64_t count);  // bytes from 0 to `count` characters after begin
void append_code_point(std::string& out, int32_t code_point);
bool valid_utf8(std::string_view text);

inline bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_space(int32_t c);
bool is_printable(int32_t c);
bool is_letter(int32_t c);   // isalpha
bool is_decimal(int32_t c);  // isdigit, without the rare digits that are not decimal
bool is_numeric(int32_t c);
bool is_upper(int32_t c);  // Lu
bool is_lower(int32_t c);
bool is_cased(int32_t c);

std::string to_upper(std::string_view text);  // full mapping: "ß" becomes "SS"
std::string to_lower(std::string_view text);  // with the final sigma
std::string to_title(std::string_view text);  // each run of letters
std::string to_capitalized(std::string_view text);
std::string to_casefolded(std::string_view text);
std::string swap_case(std::string_view text);

size_t skip_space(std::string_view text, size_t begin, size_t end);       // first byte that is no white space
size_t skip_space_back(std::string_view text, size_t begin, size_t end);  // end without trailing white space

}  // namespace graft::jinja
