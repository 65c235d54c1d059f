#include "graft/text/tokenizer.h"

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <functional>

#include "graft/base/file.h"
#include "graft/base/json.h"
#include "graft/text/tokenizer_config.h"
#include "graft/text/unicode.h"
#include "tests/support/bad_case.h"
#include "tests/support/fixtures.h"

namespace graft {
namespace {

const char* const kKinds[] = {"qwen2", "llama3", "gpt2", "llama2", "mistral", "gemma"};

std::vector<Json> read_vectors(const std::string& path) {
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
  for (const Json& row : read_vectors(folder + "/encode.jsonl")) {
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
  for (const Json& row : read_vectors(folder + "/decode.jsonl")) {
    SCOPED_TRACE(row["ids"].dump());
    EXPECT_EQ(tokenizer.decode(row["ids"].get<Ids>()), row["decoded"].get<std::string>());
    EXPECT_EQ(tokenizer.decode(row["ids"].get<Ids>(), true), row["decoded_skip"].get<std::string>());
    ++count;
  }
  for (const Json& row : read_vectors(folder + "/stream.jsonl")) {
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
  for (const Json& row : read_vectors(folder + "/pairs.jsonl")) {
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

// The same for two small tokenizers that lie beside the code: byte-level, and SentencePiece-style with byte fallback.
TEST(Tokenizer, AnswersAsTheReferenceLibraryWithoutFixtures) {
  for (const char* kind : {"qwen2", "mistral"}) check_vectors(std::string("tests/data/tokenizer/") + kind);
}

Tokenizer qwen() { return Tokenizer::load("tests/data/tokenizer/qwen2"); }
Tokenizer mistral() { return Tokenizer::load("tests/data/tokenizer/mistral"); }

TEST(Tokenizer, UserTextNeverBecomesASpecialToken) {
  const Tokenizer tokenizer = qwen();
  const int32_t end = tokenizer.token_to_id("<|im_end|>").value();
  const auto contains = [](const Ids& ids, int32_t id) { return std::find(ids.begin(), ids.end(), id) != ids.end(); };
  const std::string text = "a<|im_end|>b";
  EXPECT_TRUE(contains(tokenizer.encode_ids(text), end));
  const Ids plain = tokenizer.encode_ids(text, {.parse_special_tokens = false});
  EXPECT_FALSE(contains(plain, end));
  EXPECT_EQ(tokenizer.decode(plain, true), text);
  EXPECT_TRUE(tokenizer.is_special(end));
  EXPECT_FALSE(tokenizer.is_special(tokenizer.token_to_id("<think>").value()));
}

TEST(Tokenizer, ContinuationPutsNoPrefixSpace) {
  const Tokenizer tokenizer = mistral();
  const EncodeOptions plain{.add_special_tokens = false};
  const EncodeOptions continuation{.add_special_tokens = false, .continuation = true};
  Ids ids = tokenizer.encode_ids("Hello ", plain);
  const Ids rest = tokenizer.encode_ids("world", continuation);
  EXPECT_NE(rest, tokenizer.encode_ids("world", plain));
  ids.insert(ids.end(), rest.begin(), rest.end());
  EXPECT_EQ(tokenizer.decode(ids), "Hello world");
}

TEST(Tokenizer, OffsetsCoverTheText) {
  for (const Tokenizer& tokenizer : {qwen(), mistral()}) {
    const std::string text = "  Größe \u212B 中文 🙂🙂 \u0001 x=1;\n\n\tend ";
    int64_t covered = 0;
    const Encoding encoding = tokenizer.encode(text, {.add_special_tokens = false});
    for (const auto& [begin, end] : encoding.byte_offsets) {
      EXPECT_LE(begin, covered);  // bytes of one character share its span
      EXPECT_GE(end, covered);
      covered = end;
    }
    EXPECT_EQ(covered, static_cast<int64_t>(text.size()));
  }
}

// GPT-2's post-processor takes spaces out of offsets, except the one that a pre-tokenizer put there.
TEST(Tokenizer, TrimsOffsets) {
  Json json = parse_json(R"({"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": true},
    "post_processor": {"type": "ByteLevel", "trim_offsets": true, "add_prefix_space": true},
    "model": {"type": "BPE", "vocab": {"\u0120": 0, "a": 1, "\u0120a": 2, "\u00C3": 3, "\u00A9": 4, "\u0120\u00C3": 5},
              "merges": ["\u0120 a", "\u0120 \u00C3"]}})",
                         "test");
  const auto offsets = [&](std::string_view text) {
    return Tokenizer::from_json(json.dump(), "tokenizer.json").encode(text).byte_offsets;
  };
  EXPECT_EQ(offsets("a a é"), (Offsets{{0, 1}, {2, 3}, {4, 6}, {4, 6}}));
  EXPECT_EQ(offsets("é"), (Offsets{{0, 2}, {0, 2}}));
  json["post_processor"]["add_prefix_space"] = false;
  EXPECT_EQ(offsets("é"), (Offsets{{2, 2}, {0, 2}}));  // by characters: never into the middle of one
}

TEST(Tokenizer, RefusesTextThatIsNotUtf8) {
  const Tokenizer tokenizer = qwen();
  try {
    tokenizer.encode("abc\xFFzz");
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("byte 3"), std::string::npos) << e.what();
  }
}

TEST(Tokenizer, EmbeddingRows) {
  const Tokenizer tokenizer = qwen();
  tokenizer.check_embedding_rows(tokenizer.vocab_size());
  try {
    tokenizer.check_embedding_rows(tokenizer.vocab_size() - 1);
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("</think>"), std::string::npos) << e.what();
  }
}

TEST(Tokenizer, AFolderWithoutOne) {
  test::TempDir folder;
  write_file(folder / "tokenizer.model", "x");
  try {
    Tokenizer::load(folder.path());
    ADD_FAILURE();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("tokenizer.json"), std::string::npos);
    EXPECT_NE(e.hint().find("tokenizer.model"), std::string::npos) << e.hint();
  }
}

// A change to a good file, and the words its error must hold.
TEST(Tokenizer, BrokenPartsAreNamed) {
  const Json good = read_json("tests/data/tokenizer/mistral/tokenizer.json");
  const auto expect_error = [&](const std::function<void(Json&)>& change, std::string_view words) {
    Json json = good;
    change(json);
    try {
      Tokenizer::from_json(json.dump(), "tokenizer.json");
      ADD_FAILURE() << "no error about " << words;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(words), std::string::npos) << e.what() << "\nexpected " << words;
      EXPECT_EQ(std::string(e.what()).find("tokenizer.json"), 0u) << e.what();
    }
  };
  expect_error([](Json& j) { j["model"]["type"] = "Unigram"; }, "'Unigram' is not supported yet");
  expect_error([](Json& j) { j["model"]["type"] = "WordPiece"; }, "'WordPiece' is not supported yet");
  expect_error([](Json& j) { j["normalizer"] = {{"type", "Precompiled"}}; }, "normalizer type 'Precompiled'");
  expect_error([](Json& j) { j["decoder"] = {{"type", "CTC"}}; }, "decoder type 'CTC'");
  expect_error([](Json& j) { j["decoder"]["decoders"][0].erase("pattern"); },
               "decoder.decoders[0]: 'pattern' is missing");
  expect_error([](Json& j) { j["post_processor"]["special_tokens"].clear(); }, "special_tokens has no '<s>'");
  expect_error([](Json& j) { j["post_processor"]["special_tokens"]["<s>"]["ids"] = {123456}; }, "123456");
  expect_error([](Json& j) { j["pre_tokenizer"]["prepend_scheme"] = "perhaps"; }, "prepend_scheme is 'perhaps'");
  expect_error(
      [](Json& j) {
        j["added_tokens"][0]["id"] = 77;
        j["added_tokens"][0]["content"] = "new";
      },
      "both have the id 77");
  expect_error([](Json& j) { j["added_tokens"][0]["lstrip"] = 1; }, "added_tokens[0].lstrip");
  expect_error([](Json& j) { j["added_tokens"][0].erase("content"); }, "'content' is missing");
  expect_error([](Json& j) { j = Json::array(); }, "expected an object");
}

TEST(StreamDecoder, NeverHalfACharacterAndNeverTakenBack) {
  for (const Tokenizer& tokenizer : {qwen(), mistral()}) {
    const std::string text = "a 🙂 中文 é end";
    const Ids ids = tokenizer.encode_ids(text, {.add_special_tokens = false});
    StreamDecoder stream(tokenizer);
    std::string all;
    for (const int32_t id : ids) {
      const std::string chunk = stream.step(id).value_or("");
      EXPECT_EQ(find_invalid_utf8(chunk), std::string::npos);
      EXPECT_EQ(chunk.find("\uFFFD"), std::string::npos);
      all += chunk;
    }
    EXPECT_EQ(all, text);
    EXPECT_EQ(stream.flush(), "");
  }
}

TEST(StreamDecoder, BrokenBytes) {
  const Tokenizer tokenizer = mistral();
  const auto byte = [&](const char* name) { return tokenizer.token_to_id(name).value(); };
  StreamDecoder stream(tokenizer);
  EXPECT_EQ(stream.step(byte("<0xC3>")), std::nullopt);
  EXPECT_EQ(stream.step(byte("<0xA9>")), "é");
  EXPECT_EQ(stream.step(byte("<0xFF>")), std::nullopt);  // makes the whole run ill-formed, é stays printed
  const std::string rest = stream.step(tokenizer.token_to_id("a").value()).value();
  EXPECT_EQ(rest, "\uFFFDa");
  EXPECT_EQ(stream.step(byte("<0xF0>")), std::nullopt);
  EXPECT_EQ(stream.flush(), "\uFFFD");
  EXPECT_EQ(stream.flush(), "");
  EXPECT_EQ(stream.step(byte("<0xC3>")), std::nullopt);  // starts anew
}

TEST(TokenizerConfig, TokensAsStringsAndObjects) {
  const TokenizerConfig config = parse_tokenizer_config(
      parse_json(R"({"bos_token": null, "eos_token": {"content": "</s>", "lstrip": false}, "pad_token": "<pad>",
                     "add_bos_token": true, "model_max_length": 1000000000000000019884624838656,
                     "chat_template": [{"name": "default", "template": "x"}],
                     "added_tokens_decoder": {"7": {"content": "<x>", "special": true}, "3": {"content": "<y>"}}})",
                 "test"),
      "test");
  EXPECT_FALSE(config.bos_token.has_value());
  EXPECT_EQ(config.eos_token, "</s>");
  EXPECT_EQ(config.pad_token, "<pad>");
  EXPECT_EQ(config.tokens.size(), 2u);
  EXPECT_EQ(config.add_bos_token, true);
  EXPECT_FALSE(config.add_eos_token.has_value());
  EXPECT_FALSE(config.model_max_length.has_value());
  EXPECT_TRUE(config.chat_template->is_array());
  ASSERT_EQ(config.added_tokens.size(), 2u);
  EXPECT_EQ(config.added_tokens[0].id, 3);
  EXPECT_EQ(config.added_tokens[1].content, "<x>");
}

TEST(TokenizerConfig, RefusesWrongTypes) {
  for (const char* text : {R"({"eos_token": 5})", R"({"eos_token": {"id": 5}})", R"({"add_bos_token": "yes"})",
                           R"({"chat_template": {"a": 1}})", R"({"chat_template": [{"name": "a"}]})",
                           R"({"added_tokens_decoder": {"x": {"content": "a"}}})", R"({"added_tokens_decoder": []})",
                           R"({"model_max_length": "long"})", R"([])"}) {
    const Json json = parse_json(text, "test");
    EXPECT_THROW(parse_tokenizer_config(json, "test"), Error) << text;
  }
}

TEST(TokenizerConfig, FolderWithoutFilesAndWithAMap) {
  test::TempDir folder;
  EXPECT_TRUE(load_tokenizer_config(folder.path()).tokens.empty());
  write_file(folder / "special_tokens_map.json", R"({"eos_token": "</s>"})");
  EXPECT_EQ(load_tokenizer_config(folder.path()).eos_token, "</s>");
  write_file(folder / "tokenizer_config.json", R"({"eos_token": "<end>"})");
  EXPECT_EQ(load_tokenizer_config(folder.path()).eos_token, "<end>");
}

// The fuzzer's seeds load or fail with an Error that names the file.
TEST(Tokenizer, FuzzCorpus) {
  size_t loaded = 0, refused = 0;
  for (const auto& entry : std::filesystem::directory_iterator("tests/fuzz/corpus/tokenizer")) {
    SCOPED_TRACE(entry.path().string());
    test::CapturedLog quiet;
    try {
      const Tokenizer tokenizer = Tokenizer::from_json(read_file(entry.path().string()), "tokenizer.json");
      const Ids ids = tokenizer.encode_ids("Hello  w\u00F6rld xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx it's");
      tokenizer.decode(ids);
      ++loaded;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find("tokenizer.json"), std::string::npos) << e.what();
      ++refused;
    }
  }
  EXPECT_GE(loaded, 8u);
  EXPECT_GE(refused, 8u);
}

}  // namespace
}  // namespace graft
