#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "graft/text/json_field.h"
#include "graft/text/tokenizer.h"

namespace graft {

// How many spaces a token begins and ends with, as byte-level models write them or plainly.
struct EdgeSpaces {
  uint32_t leading = 0, trailing = 0;
};
EdgeSpaces count_edge_spaces(std::string_view token);

// One text on its way through the post-processors.
struct TextEncoding {
  Encoding encoding;
  std::string_view text;
  std::vector<EdgeSpaces> spaces;  // of each token, if PostProcessor::trims_spaces()
};

// The "post_processor" of a tokenizer.json: TemplateProcessing, BertProcessing, RobertaProcessing, ByteLevel, Sequence.
class PostProcessor {
 public:
  using TokenOfId = std::function<std::optional<std::string_view>(int32_t)>;
  struct Step;

  PostProcessor();
  explicit PostProcessor(const std::optional<JsonField>& field);
  PostProcessor(PostProcessor&&) noexcept;
  PostProcessor& operator=(PostProcessor&&) noexcept;
  ~PostProcessor();

  // Joins one or two encodings (of texts "A" and "B") and puts the special tokens around them if wanted.
  Encoding run(std::vector<TextEncoding> texts, bool add_special_tokens) const;
  bool trims_spaces() const;
  // Throws Error for an id that token_of_id does not know.
  void check_ids(const TokenOfId& token_of_id, std::string_view where) const;

 private:
  void add(const JsonField& field);
  std::vector<std::unique_ptr<Step>> steps_;
};

}  // namespace graft
