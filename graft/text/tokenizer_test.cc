#include "graft/text/tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <thread>

#include "graft/base/file.h"
#include "graft/base/json.h"
#include "graft/text/tokenizer_config.h"
#include "graft/text/unicode.h"
#include "tests/support/bad_case.h"
#include "tests/support/fixtures.h"

namespace graft {
namespace {

const char* const kKinds[] = {"qwen2", "llama3", "gpt2", "llama2", "mistral", "gemma"};

std::vector<Json> read_lines(const std::string& path) {
  const std::string text = read_file(path);
  std::vector<Json> out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find('\n', at), text.size());
    if (end > at) out.push_back(parse_json(std::string_view(text).substr(at, end - at), path));
    at = end + 1;
  }
  return out;
}

using Ids = std::vector<int32_t>;
using Offsets = std::vector<std::pair<int64_t, int64_t>>;

Offsets read_offsets(const Json& json) {
  Offsets out;
  for (const Json& pair : json) out.emplace_back(pair[0].get<int64_t>(), pair[1].get<int64_t>());
  return out;
}

// Everything the reference library answered for one tokenizer.
void check_vectors(const std::string& folder) {
  SCOPED_TRACE(folder);
  const Tokenizer tokenizer = Tokenizer::load(folder);
  size_t count = 0;
  for (const Json& row : read_lines(folder + "/encode.jsonl")) {
    const std::string text = row["text"];
    SCOPED_TRACE(printable(text));
    const Encoding encoding = tokenizer.encode(text);
    EXPECT_EQ(encoding.ids, row["ids"].get<Ids>());
    EXPECT_EQ(encoding.byte_offsets, read_offsets(row["byte_offsets"]));
    EXPECT_EQ(encoding.special_mask, row["special_mask"].get<std::vector<uint8_t>>());
    EXPECT_EQ(tokenizer.encode_ids(text, {.add_special_tokens = false}), row["ids_plain"].get<Ids>());
    EXPECT_EQ(tokenizer.decode(row["ids"].get<Ids>()), row["decoded"].get<std::string>());
    EXPECT_EQ(tokenizer.decode(row["ids"].get<Ids>(), true), row["decoded_skip"].get<std::string>());
    ++count;
  }
  for (const Json& row : read_lines(folder + "/decode.jsonl")) {
    SCOPED_TRACE(row["ids"].dump());
    EXPECT_EQ(tokenizer.decode(row["ids"].get<Ids>()), row["decoded"].get<std::string>());
    EXPECT_EQ(tokenizer.decode(row["ids"].get<Ids>(), true), row["decoded_skip"].get<std::string>());
    ++count;
  }
  for (const Json& row : read_lines(folder + "/stream.jsonl")) {
    SCOPED_TRACE(row["ids"].dump());
    StreamDecoder stream(tokenizer);
    std::string all;
    const Ids ids = row["ids"];
    for (size_t i = 0; i < ids.size(); ++i) {
      const std::optional<std::string> chunk = stream.step(ids[i]);
      EXPECT_EQ(chunk ? Json(*chunk) : Json(), row["chunks"][i]) << "id " << i;
      all += chunk.value_or("");
    }
    EXPECT_EQ(all + stream.flush(), tokenizer.decode(ids));
    ++count;
  }
  for (const Json& row : read_lines(folder + "/pairs.jsonl")) {
    SCOPED_TRACE(row["a"].dump() + " " + row["b"].dump());
    const Encoding encoding = tokenizer.encode_pair(row["a"].get<std::string>(), row["b"].get<std::string>());
    EXPECT_EQ(encoding.ids, row["ids"].get<Ids>());
    EXPECT_EQ(encoding.type_ids, row["type_ids"].get<Ids>());
    EXPECT_EQ(encoding.special_mask, row["special_mask"].get<std::vector<uint8_t>>());
    ++count;
  }
  EXPECT_GT(count, 50u);
  if (path_exists(folder + "/long.json")) {
    const Json row = read_json(folder + "/long.json");
    EXPECT_EQ(tokenizer.encode_ids(row["text"].get<std::string>()), row["ids"].get<Ids>());
  }
}

TEST(Tokenizer, AnswersAsTheReferenceLibrary) {
  GRAFT_NEEDS_FIXTURES();
  for (const char* kind : kKinds) check_vectors(test::fixtures() + "/tokenizer/" + kind);
}

TEST(Tokenizer, HostileFiles) {
  GRAFT_NEEDS_FIXTURES();
  size_t count = 0;
  for (const char* how : {"load tokenizer", "load model and tokenizer"}) {
    for (const test::BadCase& c : test::bad_cases(how)) {
      const auto start = std::chrono::steady_clock::now();
      test::expect_verdict(c, [&](const std::string& folder) {
        const Tokenizer tokenizer = Tokenizer::load(folder);
        const Ids ids = tokenizer.encode_ids(c.raw.value("text", "Some text, 12 words."));
        if (c.raw.contains("expect")) {
          EXPECT_EQ(ids, c.raw["expect"]["ids"].get<Ids>()) << c.id;
        }
        if (c.how == "load model and tokenizer") {
          tokenizer.check_embedding_rows(read_json(folder + "/config.json")["vocab_size"].get<int64_t>());
        }
      });
      const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
      EXPECT_LT(seconds.count(), 3 * c.raw["limit"]["seconds"].get<double>()) << c.id;  // three times: sanitizers
      ++count;
    }
  }
  EXPECT_GE(count, 20u);
}

}  // namespace
}  // namespace graft
