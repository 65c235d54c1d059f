#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "graft/text/json_field.h"

namespace graft {

// The "decoder" of a tokenizer.json: ByteLevel, Replace, ByteFallback, Fuse, Strip, Metaspace, BPEDecoder, Sequence.
// Without one, tokens are joined with spaces.
class TokenDecoder {
 public:
  struct Step;

  TokenDecoder();
  explicit TokenDecoder(const std::optional<JsonField>& field);
  TokenDecoder(TokenDecoder&&) noexcept;
  TokenDecoder& operator=(TokenDecoder&&) noexcept;
  ~TokenDecoder();

  std::string decode(std::vector<std::string> tokens) const;

 private:
  void add(const JsonField& field);
  std::vector<std::unique_ptr<Step>> steps_;
  bool given_ = false;
};

}  // namespace graft
