#include "graft/train/encode.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <map>

#include "graft/base/file.h"
#include "graft/formats/jsonl.h"
#include "tests/support/bad_case.h"
#include "tests/support/error_of.h"
#include "tests/support/fixtures.h"

namespace graft {
namespace {

const char kEncodeModel[] = "tests/data/tokenizer/qwen2";

// 1,300 rows of different lengths: more than are encoded at a time.
std::string many_rows(const test::TempDir& folder) {
  std::string text;
  for (int i = 0; i < 1300; ++i) {
    std::string words;
    for (int k = 0; k < (i * 7) % 23; ++k) words += fmt::format(" word {}", k);
    text += fmt::format("{{\"prompt\": \"row {}{}\", \"completion\": \" is number {}{}\"}}\n", i, words, i, words);
  }
  write_file(folder / "many.jsonl", text);
  return folder / "many.jsonl";
}
std::string text_rows(const test::TempDir& folder) {
  write_file(folder / "text.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n");
  return folder / "text.jsonl";
}
std::string chat_rows(const test::TempDir& folder) {
  const std::string row = R"({"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]})";
  write_file(folder / "chat.jsonl", row + "\n" + row + "\n");
  return folder / "chat.jsonl";
}
// A tokenizer with a template that knows no developer.
std::string chat_model(const test::TempDir& folder) {
  for (const char* file : {"tokenizer.json", "tokenizer_config.json"}) {
    std::filesystem::copy(std::string(kEncodeModel) + "/" + file, folder / file);
  }
  write_file(folder / "chat_template.jinja",
             "{% for m in messages %}{% if m.role in ['system', 'user', 'assistant'] %}"
             "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
             "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}");
  return folder.path();
}

TEST(RowEncoder, PromptAndCompletionAsTheReferenceRun) {
  GRAFT_NEEDS_FIXTURES();
  const std::string folder = test::fixtures();
  const RowEncoder encoder(folder + "/models/pystd-5m", {});
  ThreadPool pool(2);
  const Json expect = read_json(folder + "/golden/pystd-5m/eval.json");
  for (const char* name : {"test", "test_unseen_tables"}) {
    const EncodedData d = load_rows(folder + "/data/shelfql/" + name + ".jsonl", encoder, pool);
    EXPECT_EQ(d.num_rows, expect[name]["rows"].get<int64_t>());
    EXPECT_EQ(d.data.num_trained_tokens(), expect[name]["tokens"].get<int64_t>());
    EXPECT_EQ(d.num_trained_tokens, expect[name]["tokens"].get<int64_t>());
    EXPECT_EQ(d.num_ending, d.num_rows);
    EXPECT_FALSE(d.chat);
    for (int64_t i = 0; i < d.data.size(); ++i) {
      const Example e = d.data.example(i);
      const auto trained =
          std::count_if(e.target_weights.begin(), e.target_weights.end(), [](float w) { return w > 0; });
      EXPECT_EQ(trained, expect[name]["row_tokens_nll"][static_cast<size_t>(i)][0].get<int64_t>()) << i;
      EXPECT_EQ(e.ids.back(), *encoder.end_token());
      EXPECT_EQ(e.target_weights.back(), 0);
      EXPECT_TRUE(e.trains(e.ids.size() - 1));
      EXPECT_FALSE(e.trains(0));
    }
  }
}

TEST(RowEncoder, SameResultOnAnyNumberOfThreads) {
  const test::TempDir folder;
  const RowEncoder encoder(kEncodeModel, {});
  const DataRows rows = read_data_rows(many_rows(folder));
  std::string first;
  for (const int threads : {1, 2, 7}) {
    ThreadPool pool(threads);
    const std::string fingerprint = encode_rows(rows, encoder, pool).data.fingerprint();
    if (first.empty()) first = fingerprint;
    EXPECT_EQ(fingerprint, first) << threads;
  }
}

TEST(RowEncoder, TextEndsOnceAndTrainsAll) {
  for (const char* kind : {"qwen2", "mistral"}) {
    const RowEncoder encoder(std::string("tests/data/tokenizer/") + kind, {});
    DataRow row;
    row.text = "hello <|im_end|> </s> world";
    EncodedRow out;
    encoder.encode(row, &out);
    EXPECT_EQ(out.ids.back(), *encoder.end_token()) << kind;
    EXPECT_EQ(std::count(out.ids.begin(), out.ids.end(), out.ids.back()), 1)
        << kind << ": text never becomes a special token";
    EXPECT_EQ(out.label_weights[0], 0);
    EXPECT_EQ(std::count(out.label_weights.begin(), out.label_weights.end(), 1.0f),
              static_cast<int64_t>(out.ids.size()) - 1);
  }
}

TEST(RowEncoder, LossOn) {
  const test::TempDir folder;
  const std::string model = kEncodeModel;
  DataRow row;
  row.format = RowFormat::kCompletion;
  row.prompt = "### SQL\n";
  row.text = "SELECT";
  EncodedRow all, part;
  RowEncoder(model, {.loss_on = "all"}).encode(row, &all);
  RowEncoder(model, {.loss_on = "last"}).encode(row, &part);
  EXPECT_EQ(all.ids, part.ids);
  EXPECT_GT(std::count(all.label_weights.begin(), all.label_weights.end(), 1.0f),
            std::count(part.label_weights.begin(), part.label_weights.end(), 1.0f));
  EXPECT_EQ(all.label_weights[0], 0);
  const RowEncoder encoder(model, {.loss_on = "assistant"});
  ThreadPool pool(1);
  const std::string text = test::error_of([&] { load_rows(text_rows(folder), encoder, pool); });
  EXPECT_NE(text.find("loss_on is assistant, but text rows have no assistant"), std::string::npos) << text;
}

TEST(RowEncoder, TooLongRows) {
  const test::TempDir folder;
  const std::string model = kEncodeModel, data = many_rows(folder);
  ThreadPool pool(2);
  const EncodedData whole = load_rows(data, RowEncoder(model, {}), pool);
  std::vector<int64_t> lengths = whole.lengths;
  std::sort(lengths.begin(), lengths.end());
  EXPECT_EQ(lengths.back(), whole.longest);
  const int64_t limit = lengths[1200];
  const auto beyond = std::count_if(lengths.begin(), lengths.end(), [&](int64_t n) { return n > limit; });
  ASSERT_GT(beyond, 0);

  const std::string text = test::error_of([&] { load_rows(data, RowEncoder(model, {.max_length = limit}), pool); });
  EXPECT_NE(text.find(fmt::format("{} fault", beyond)), std::string::npos) << text;
  EXPECT_NE(text.find(fmt::format("max_length is {}", limit)), std::string::npos) << text;

  test::CapturedLog log;
  const EncodedData dropped = load_rows(data, RowEncoder(model, {.too_long = "drop", .max_length = limit}), pool);
  EXPECT_EQ(dropped.num_dropped, beyond);
  EXPECT_EQ(dropped.data.size(), 1300 - beyond);
  EXPECT_LE(dropped.data.longest(), limit);
  EXPECT_NE(log.text().find(fmt::format("{} rows longer than {} tokens dropped", beyond, limit)), std::string::npos)
      << log.text();

  const EncodedData cut = load_rows(data, RowEncoder(model, {.too_long = "truncate", .max_length = limit}), pool);
  EXPECT_EQ(cut.num_truncated, beyond);
  EXPECT_EQ(cut.data.size(), 1300);
  EXPECT_EQ(cut.data.longest(), limit);
  EXPECT_LT(cut.data.num_trained_tokens(), whole.data.num_trained_tokens());
  // A row number is its place in the file, whatever was dropped before it.
  int64_t last = -1;
  for (int64_t i = 0; i < dropped.data.size(); ++i) {
    const int64_t row = dropped.data.example(i).row;
    EXPECT_GT(row, last);
    last = row;
    EXPECT_NE(dropped.data.where(i).find(fmt::format(":{}", row + 1)), std::string::npos);
  }
  EXPECT_GT(last, dropped.data.size() - 1);
}

// A text file, which has no rows, is cut into rows; rows of a .jsonl are where that is asked for.
TEST(RowEncoder, LongTextsAreSplit) {
  const test::TempDir folder;
  ThreadPool pool(2);
  std::string text;
  for (int i = 0; i < 60; ++i) text += fmt::format("Line {} of a text that goes on.\n", i);
  write_file(folder / "a.txt", text);
  const EncodedData whole = load_rows(folder / "a.txt", RowEncoder(kEncodeModel, {.max_length = 1 << 20}), pool);
  ASSERT_EQ(whole.data.size(), 1);
  const std::span<const int32_t> ids = whole.data.example(0).ids;
  const auto n = static_cast<int64_t>(ids.size()), limit = int64_t{50};
  const EncodedData pieces = load_rows(folder / "a.txt", RowEncoder(kEncodeModel, {.max_length = limit}), pool);
  ASSERT_GT(n, 3 * limit);
  EXPECT_EQ(pieces.data.size(), (n - 2) / (limit - 1) + 1);
  EXPECT_EQ(pieces.num_rows, pieces.data.size());
  EXPECT_EQ(pieces.longest, limit);
  EXPECT_EQ(pieces.data.num_trained_tokens(), n - 1);
  EXPECT_EQ(pieces.num_ending, 1);
  int64_t at = 0;
  for (int64_t i = 0; i < pieces.data.size(); ++i) {
    const Example e = pieces.data.example(i);
    EXPECT_EQ(e.row, i);
    for (size_t t = 0; t < e.ids.size(); ++t) {
      ASSERT_EQ(e.ids[t], ids[static_cast<size_t>(at) + t]) << i;
      ASSERT_EQ(e.target_weights[t], t + 1 < e.ids.size() ? 1.0f : 0.0f);
    }
    at += static_cast<int64_t>(e.ids.size()) - 1;
  }
  EXPECT_EQ(at, n - 1);

  const std::string rows = fmt::format("{}\n{{\"text\": \"short\"}}\n", Json{{"text", text}}.dump());
  write_file(folder / "b.jsonl", rows);
  const EncodedData split =
      load_rows(folder / "b.jsonl", RowEncoder(kEncodeModel, {.too_long = "split", .max_length = limit}), pool);
  EXPECT_EQ(split.data.size(), pieces.data.size() + 1);
  EXPECT_EQ(split.data.example(pieces.data.size()).row, pieces.data.size());
  EXPECT_NE(
      test::error_of([&] { load_rows(folder / "b.jsonl", RowEncoder(kEncodeModel, {.max_length = limit}), pool); }),
      "");
  test::CapturedLog log;
  const EncodedData cut =
      load_rows(folder / "a.txt", RowEncoder(kEncodeModel, {.too_long = "truncate", .max_length = limit}), pool);
  EXPECT_EQ(cut.data.size(), 1);
}

// Long texts are encoded in parts, which must not show.
TEST(RowEncoder, PartsOfALongTextGiveTheSameTokens) {
  DataRow row;
  for (int i = 0; row.text.size() < (size_t{5} << 18); ++i)
    row.text += fmt::format("Line {}, and the next one:\n\n", i);
  EncodedRow parts, whole;
  RowEncoder(kEncodeModel, {.max_length = 100}).encode(row, &parts);
  row.line = 1;
  RowEncoder(kEncodeModel, {.max_length = int64_t{1} << 40}).encode(row, &whole);
  EXPECT_EQ(parts.ids, whole.ids);
  EXPECT_EQ(parts.label_weights, whole.label_weights);
}

// The mask of a conversation is what transformers gives for templates that mark their answers.
TEST(RowEncoder, ChatMasksOfTheReference) {
  GRAFT_NEEDS_FIXTURES();
  std::map<std::string, Json> inputs;
  for (const JsonRow& row : read_rows(test::fixtures() + "/chat/vectors.jsonl")) {
    inputs[row.value["id"]] = row.value["input"];
  }
  int compared = 0;
  std::map<std::string, RowEncoder> encoders;
  const test::TempDir folder;
  for (const JsonRow& mask : read_rows(test::fixtures() + "/chat/masks.jsonl")) {
    const std::string id = mask.value["id"], name = id.substr(0, id.find('/'));
    const Json& input = inputs.at(id);
    // Rows have no other variables, no open end and no answer asked for.
    bool plain = true;
    for (const auto& [key, value] : input.items()) {
      plain &= key == "messages" || key == "tools" || key == "bos_token" || key == "eos_token" ||
               (key == "add_generation_prompt" && value == false);
    }
    if (!plain || id.ends_with("content-missing")) continue;  // a message without content is refused in data
    // The folder made here has no bos_token, and the reference reads special tokens in what messages say.
    if (input.contains("bos_token") || input["messages"].dump().find("<|") != std::string::npos) continue;
    if (!encoders.contains(name)) {
      const std::string model = folder / name;
      std::filesystem::create_directories(model);
      for (const char* file : {"tokenizer.json", "tokenizer_config.json"}) {
        std::filesystem::copy(test::fixtures() + "/tokenizer/qwen2/" + file, model + "/" + file);
      }
      std::filesystem::copy(test::fixtures() + "/chat/templates/" + name + ".jinja", model + "/chat_template.jinja");
      encoders.emplace(name, RowEncoder(model, {}));
    }
    DataRow row;
    bool good = true;
    std::string faults;
    Json value = {{"messages", input["messages"]}};
    if (input.contains("tools")) value["tools"] = input["tools"];
    good = parse_row(std::move(value), &row, [&](std::string what, std::string) { faults += what + "\n"; });
    ASSERT_TRUE(good) << id << faults;
    EncodedRow out;
    encoders.at(name).encode(row, &out);
    ASSERT_EQ(out.ids, mask.value["ids"].get<std::vector<int32_t>>()) << id;
    std::vector<float> expect = mask.value["mask"].get<std::vector<float>>();
    if (!expect.empty()) expect[0] = 0;
    EXPECT_EQ(out.label_weights, expect) << id;
    ++compared;
  }
  EXPECT_GT(compared, 10);
}

TEST(RowEncoder, MessagesByWeightAndLossOn) {
  const test::TempDir folder;
  const std::string model = chat_model(folder);
  DataRow row;
  const Json messages = {
      {{"role", "user"}, {"content", "q"}}, {{"role", "assistant"}, {"content", "first"}, {"weight", 0}},
      {{"role", "user"}, {"content", "r"}}, {{"role", "assistant"}, {"content", "second"}, {"weight", 0.5}},
      {{"role", "user"}, {"content", "s"}}, {{"role", "assistant"}, {"content", "third"}}};
  ASSERT_TRUE(
      parse_row(Json{{"messages", messages}}, &row, [](std::string what, std::string) { ADD_FAILURE() << what; }));
  const auto trained = [&](const std::string& loss_on) {
    const RowEncoder encoder(model, {.loss_on = loss_on});
    EncodedRow out;
    encoder.encode(row, &out);
    Dataset data;
    std::vector<float> weights(out.label_weights.begin() + 1, out.label_weights.end());
    weights.push_back(0);
    data.add(out.ids, weights, 0, data.add_file("x"), 1);
    std::map<float, std::string> by_weight;
    for (size_t t = 1; t < out.ids.size(); ++t) {
      by_weight[out.label_weights[t]] += encoder.tokenizer().decode({out.ids[t]});
    }
    return by_weight;
  };
  auto assistant = trained("auto");
  EXPECT_EQ(assistant[1.0f], "third<|im_end|>");
  EXPECT_EQ(assistant[0.5f], "second<|im_end|>");
  EXPECT_EQ(trained("assistant"), assistant);
  auto last = trained("last");
  EXPECT_EQ(last[1.0f], "third<|im_end|>");
  EXPECT_EQ(last.size(), 2u);
  EXPECT_EQ(trained("completion"), last);
  auto all = trained("all");
  EXPECT_EQ(all[0.0f], "first<|im_end|>");
  EXPECT_EQ(all[0.5f], "second<|im_end|>");
  EXPECT_NE(all[1.0f].find("third"), std::string::npos);
  EXPECT_NE(all[1.0f].find("user\nq"), std::string::npos);
}

TEST(RowEncoder, CompletionMessagesTrainTheCompletionOnly) {
  const test::TempDir folder;
  const RowEncoder encoder(chat_model(folder), {});
  DataRow row;
  ASSERT_TRUE(parse_row(Json{{"prompt",
                              {{{"role", "developer"}, {"content", "be"}},
                               {{"role", "user"}, {"content", "q"}},
                               {{"role", "assistant"}, {"content", "old"}},
                               {{"role", "user"}, {"content", "r <|im_end|>"}}}},
                             {"completion", {{{"role", "assistant"}, {"content", "new"}}}}},
                        &row, [](std::string what, std::string) { ADD_FAILURE() << what; }));
  EncodedRow out;
  encoder.encode(row, &out);
  std::string text, trained;
  for (size_t t = 0; t < out.ids.size(); ++t) {
    const std::string piece = encoder.tokenizer().decode({out.ids[t]});
    text += piece;
    if (out.label_weights[t] > 0) trained += piece;
  }
  EXPECT_EQ(trained, "new<|im_end|>");
  EXPECT_NE(text.find("system\nbe"), std::string::npos)
      << text << ": a template without developer takes it for the system";
  EXPECT_EQ(std::count(out.ids.begin(), out.ids.end(), *encoder.end_token()), 5)
      << "what a row says never becomes a special token";
}

TEST(RowEncoder, ChatRowsNeedATemplate) {
  const test::TempDir folder;
  std::filesystem::copy("tests/data/tokenizer/qwen2/tokenizer.json", folder / "tokenizer.json");
  const RowEncoder encoder(folder.path(), {});
  ThreadPool pool(1);
  const std::string text = test::error_of([&] { load_rows(chat_rows(folder), encoder, pool); });
  EXPECT_NE(text.find("template"), std::string::npos) << text;
  EXPECT_EQ(text.find("faults"), std::string::npos) << "said once, not per row: " << text;
  const std::string end = test::error_of([&] { load_rows(text_rows(folder), encoder, pool); });
  EXPECT_NE(end.find("end token"), std::string::npos) << end;
}

TEST(RowEncoder, AMonstrousRowIsNotEncodedWhole) {
  const std::string model = kEncodeModel;
  DataRow row;
  row.line = 1;  // of a .jsonl: a .txt is split
  for (int i = 0; i < 200000; ++i) row.text += "wörd ";
  EncodedRow cut, whole;
  RowEncoder(model, {.max_length = 100}).encode(row, &cut);
  EXPECT_TRUE(cut.cut);
  EXPECT_GT(cut.ids.size(), 100u);
  RowEncoder(model, {.max_length = 1000000000}).encode(row, &whole);
  EXPECT_FALSE(whole.cut);
  ASSERT_GT(whole.ids.size(), cut.ids.size());
  for (size_t t = 0; t < 100; ++t) ASSERT_EQ(cut.ids[t], whole.ids[t]) << "what truncate keeps";
  row.format = RowFormat::kCompletion;
  row.prompt = row.text;
  RowEncoder(model, {.max_length = 100}).encode(row, &cut);
  EXPECT_TRUE(cut.cut);
  EXPECT_EQ(cut.label_weights.size(), cut.ids.size());
}

}  // namespace
}  // namespace graft
