#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "graft/base/json.h"
#include "graft/text/added_tokens.h"

namespace graft {

// What graft uses of tokenizer_config.json. Tokens stand there as strings or as objects with "content".
struct TokenizerConfig {
  std::optional<std::string> bos_token, eos_token, pad_token, unk_token, cls_token, sep_token, mask_token;
  std::optional<bool> add_bos_token, add_eos_token, add_prefix_space;
  std::optional<Json> chat_template;        // a string, or an array of {"name", "template"}
  std::optional<int64_t> model_max_length;  // absent where the file holds the 10^30 of transformers
  std::optional<std::string> tokenizer_class;
  std::vector<AddedToken> added_tokens;       // added_tokens_decoder, by id
  std::map<std::string, std::string> tokens;  // every …_token that is set, by its key: templates see them
};

// Reads folder/tokenizer_config.json; special_tokens_map.json gives tokens that the former lacks. Missing files give an
// empty config. Throws Error naming file and field for whatever is not of its type.
TokenizerConfig load_tokenizer_config(const std::string& folder);
TokenizerConfig parse_tokenizer_config(const Json& json, const std::string& where);

}  // namespace graft
