#include "graft/text/chat.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <fstream>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/text/tokenizer_config.h"
#include "tests/support/bad_case.h"
#include "tests/support/fixtures.h"

namespace graft {
namespace {

Json json(std::string_view text) {
  JsonLimits limits;
  limits.keep_big_integers = true;
  return parse_json(text, "test", limits);
}

std::vector<Json> read_lines(const std::string& path) {
  std::vector<Json> rows;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) rows.push_back(json(line));
  }
  EXPECT_FALSE(rows.empty()) << path;
  return rows;
}

ChatFormat named_template(const std::string& folder, const std::string& name) {
  return ChatFormat::from_template(read_file(folder + "/" + name + ".jinja"), name + ".jinja");
}

// A line as `graft template` reads it.
struct Line {
  Json messages;
  ChatOptions options;
};
Line read_line(const Json& input) {
  Line line;
  line.options.variables = Json::object();
  for (const auto& [key, value] : input.items()) {
    if (key == "messages") {
      line.messages = value;
    } else if (key == "tools") {
      line.options.tools = value;
    } else if (key == "add_generation_prompt") {
      line.options.add_generation_prompt = value;
    } else if (key == "continue_final_message") {
      line.options.continue_final_message = value;
    } else {
      line.options.variables[key] = value;
    }
  }
  return line;
}

// Rows of vectors.jsonl and continue.jsonl.
void check_vector(const ChatFormat& format, const Json& row) {
  const auto id = row["id"].get<std::string>();
  if (row.contains("now")) {
    std::tm when{};
    ASSERT_NE(strptime(row["now"].get<std::string>().c_str(), "%Y-%m-%dT%H:%M:%S", &when), nullptr);
    setenv("SOURCE_DATE_EPOCH", std::to_string(timegm(&when)).c_str(), 1);
  }
  const Line line = read_line(row["input"]);
  std::optional<Rendered> out;
  std::string error;
  try {
    out = format.render(line.messages, line.options);
  } catch (const Error& e) {
    error = e.what();
  }
  unsetenv("SOURCE_DATE_EPOCH");
  if (row.contains("expected")) {
    ASSERT_TRUE(out) << id << ": " << error;
    EXPECT_EQ(out->text, row["expected"].get<std::string>()) << id;
    if (row.contains("spans")) {
      EXPECT_EQ(Json(out->spans), row["spans"]) << id;
    }
  } else {
    EXPECT_FALSE(out) << id << " gave " << out->text;
    EXPECT_FALSE(error.empty()) << id;
    if (row["error"]["kind"] == "raised") {
      EXPECT_EQ(error, row["error"]["message"].get<std::string>()) << id;
    }
  }
}

void check_vectors(const std::string& file, const std::string& templates) {
  std::map<std::string, ChatFormat> formats;
  for (const Json& row : read_lines(file)) {
    const auto name = row["template"].get<std::string>();
    const auto it = formats.try_emplace(name, named_template(templates, name)).first;
    check_vector(it->second, row);
  }
}

TEST(Chat, RendersAsTransformers) {
  GRAFT_NEEDS_FIXTURES();
  check_vectors(test::fixtures() + "/chat/vectors.jsonl", test::fixtures() + "/chat/templates");
}

TEST(Chat, LeavesTheLastMessageOpenAsTransformers) {
  GRAFT_NEEDS_FIXTURES();
  check_vectors(test::fixtures() + "/chat/continue.jsonl", test::fixtures() + "/chat/templates");
}

// A token of transformers' ids that is special but was written by a message, which is what graft never does.
bool holds_injection(const Tokenizer& tokenizer, const ChatText& chat) {
  const Encoding plain = tokenizer.encode(chat.text, {.add_special_tokens = false});
  for (size_t t = 0; t < plain.ids.size(); ++t) {
    if (!tokenizer.is_special(plain.ids[t])) continue;
    for (const auto& [begin, end] : chat.user_text) {
      if (plain.byte_offsets[t].first < end && plain.byte_offsets[t].second > begin) return true;
    }
  }
  return false;
}

// transformers adds a bos_token or eos_token that the vocabulary lacks as one more token.
Tokenizer tokenizer_with(const std::string& folder, const Json& variables) {
  Json file = read_json(folder + "/tokenizer.json");
  const Tokenizer plain = Tokenizer::load(folder);
  int64_t next = plain.vocab_size();
  for (const char* key : {"bos_token", "eos_token"}) {
    if (!variables.contains(key) || plain.token_to_id(variables[key].get<std::string>())) continue;
    file["added_tokens"].push_back(
        {{"id", next++}, {"content", variables[key]}, {"special", true}, {"normalized", false}});
  }
  return Tokenizer::from_json(file.dump(), "tokenizer.json");
}

TEST(Chat, TokensAndMasksAsTransformers) {
  GRAFT_NEEDS_FIXTURES();
  const std::string chat = test::fixtures() + "/chat";
  std::map<std::string, Tokenizer> tokenizers;
  std::map<std::string, Json> inputs;
  for (const Json& row : read_lines(chat + "/vectors.jsonl")) inputs[row["id"]] = row;
  int same = 0, guarded = 0;
  for (const Json& row : read_lines(chat + "/masks.jsonl")) {
    const auto id = row["id"].get<std::string>();
    const Json& source = inputs.at(id);
    const ChatFormat format = named_template(chat + "/templates", source["template"]);
    const Line line = read_line(source["input"]);
    const auto name = source["template"].get<std::string>();
    if (!tokenizers.contains(name)) {
      tokenizers.emplace(name, tokenizer_with(test::fixtures() + "/tokenizer/qwen2", line.options.variables));
    }
    const Tokenizer& tokenizer = tokenizers.at(name);
    const Rendered rendered = format.render(line.messages, line.options);
    ChatText text = format.prompt(line.messages, line.options);
    for (const auto& [begin, end] : rendered.spans) text.spans.push_back({begin, end, 0});
    const ChatTokens tokens = ChatFormat::encode(tokenizer, text);
    if (holds_injection(tokenizer, text)) {
      ++guarded;
      EXPECT_EQ(tokenizer.decode(tokens.ids), tokenizer.decode(row["ids"])) << id;
      continue;
    }
    ++same;
    EXPECT_EQ(tokens.ids, row["ids"].get<std::vector<int32_t>>()) << id;
    std::vector<int32_t> mask;
    for (const int32_t message : tokens.message) mask.push_back(message >= 0);
    EXPECT_EQ(mask, row["mask"].get<std::vector<int32_t>>()) << id;
  }
  EXPECT_GT(same, 60);
  EXPECT_GT(guarded, 3);
}

}  // namespace
}  // namespace graft
