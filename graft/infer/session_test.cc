#include "graft/infer/session.h"

#include "graft/models/test_support.h"

namespace graft {
namespace {

using test::lora_config;
using test::random_adapter;
using test::TempDir;
using test::tiny_config;
using test::Workers;
using test::write_tiny_model;

class SessionTest : public testing::Test {
 protected:
  SessionTest() {
    Json config = tiny_config("qwen2");
    config["vocab_size"] = 2000, config["eos_token_id"] = 1;
    const std::string folder = dir_ / "model";
    write_tiny_model(folder, config);
    std::filesystem::copy_file("tests/data/tokenizer/qwen2/tokenizer.json", folder + "/tokenizer.json");
    options_.model = folder;
    const Model model = Model::load(workers_.context, ModelFolder::open(folder, supported_model_types()));
    for (const auto& [name, seed] : {std::pair("b", 7), std::pair("a", 8)}) {
      std::filesystem::create_directories(dir_ / name);
      random_adapter(workers_.context, model, lora_config(4, "q_proj,v_proj"), static_cast<uint64_t>(seed))
          .save(dir_ / name);
    }
  }
  static std::vector<float> logits(Session& session) {
    const std::vector<int32_t> ids = {1, 2, 3, 4, 5, 6};
    const Feed feed{nullptr, ids};
    const auto z = session.engine().forward(std::span<const Feed>(&feed, 1));
    return {z.data(), z.data() + z.size()};
  }
  template <typename F>
  static std::string error_of(F&& f) {
    try {
      f();
    } catch (const Error& e) {
      return e.what();
    }
    return {};
  }

  TempDir dir_;
  Workers workers_;
  SessionOptions options_;
};

TEST_F(SessionTest, AdapterRegistry) {
  Session s(workers_.context, options_);
  const std::vector<float> base = logits(s);
  EXPECT_TRUE(s.adapter_names().empty());
  s.load_adapter("second", dir_ / "b");
  s.load_adapter("first", dir_ / "a");
  EXPECT_EQ(s.adapter_names(), (std::vector<std::string>{"first", "second"}));  // sorted
  EXPECT_FALSE(s.active_adapter().has_value());                                 // loading does not activate
  EXPECT_EQ(logits(s), base);

  EXPECT_NE(error_of([&] { s.load_adapter("first", dir_ / "b"); }).find("already exists"), std::string::npos);
  for (const auto& unknown : {std::function<void()>([&] { s.activate_adapter("third"); }),
                              std::function<void()>([&] { s.unload_adapter("third"); })}) {
    const std::string message = error_of(unknown);
    EXPECT_NE(message.find("third"), std::string::npos) << message;
    EXPECT_NE(message.find("first, second"), std::string::npos) << message;
  }

  s.activate_adapter("first");
  EXPECT_EQ(s.active_adapter(), "first");
  const std::vector<float> first = logits(s);
  EXPECT_NE(first, base);
  s.activate_adapter("second");  // replaces
  EXPECT_EQ(s.active_adapter(), "second");
  EXPECT_NE(logits(s), first);
  s.activate_adapter("first");
  EXPECT_EQ(logits(s), first);
  s.deactivate_adapter();
  s.deactivate_adapter();  // never fails
  EXPECT_EQ(logits(s), base);

  s.activate_adapter("first");
  s.unload_adapter("first");  // deactivates
  EXPECT_FALSE(s.active_adapter().has_value());
  EXPECT_EQ(s.adapter_names(), std::vector<std::string>{"second"});
  EXPECT_EQ(logits(s), base);
  s.load_adapter("first", dir_ / "a");
  s.activate_adapter("first");
  EXPECT_EQ(logits(s), first);
}

TEST_F(SessionTest, AnAdapterGivenAtTheStartIsActive) {
  Session base(workers_.context, options_);
  options_.adapter = dir_ / "a";
  Session s(workers_.context, options_);
  EXPECT_EQ(s.active_adapter(), "default");
  EXPECT_NE(logits(s), logits(base));
  s.deactivate_adapter();
  EXPECT_EQ(logits(s), logits(base));
}

TEST_F(SessionTest, WithoutATemplatePromptsAreRaw) {
  Session s(workers_.context, options_);
  EXPECT_TRUE(s.raw());
  EXPECT_FALSE(s.has_template());
  EXPECT_EQ(s.encode_prompt("def f():", ""), s.tokenizer().encode_ids("def f():"));
  EXPECT_FALSE(error_of([&] { s.encode_messages(Json::array()); }).empty());
  options_.raw = false;
  EXPECT_FALSE(error_of([&] { Session refused(workers_.context, options_); }).empty());
}

TEST_F(SessionTest, TheAdapterRemembersHowItWasAsked) {
  write_file(dir_ / "model" + "/chat_template.jinja",
             "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ mark }}{% endfor %}");
  {
    Session s(workers_.context, options_);
    EXPECT_FALSE(s.raw());
    EXPECT_EQ(s.encode_prompt("hi", "be brief"), s.tokenizer().encode_ids("<system>be brief<user>hi"));
  }
  options_.adapter = dir_ / "a";
  write_adapter_record(dir_ / "a", {true, {"mark=!"}});
  {
    Session s(workers_.context, options_);
    EXPECT_EQ(s.encode_prompt("hi", ""), s.tokenizer().encode_ids("<user>hi!"));
  }
  {
    // So does one that is loaded later, while it is active.
    SessionOptions without = options_;
    without.adapter.clear();
    Session s(workers_.context, without);
    s.load_adapter("late", dir_ / "a");
    EXPECT_EQ(s.encode_prompt("hi", ""), s.tokenizer().encode_ids("<user>hi"));
    s.activate_adapter("late");
    EXPECT_EQ(s.encode_prompt("hi", ""), s.tokenizer().encode_ids("<user>hi!"));
    s.deactivate_adapter();
    EXPECT_EQ(s.encode_prompt("hi", ""), s.tokenizer().encode_ids("<user>hi"));
  }
  write_adapter_record(dir_ / "a", {false, {}});
  {
    Session s(workers_.context, options_);
    EXPECT_TRUE(s.raw());
    s.deactivate_adapter();
    EXPECT_FALSE(s.raw());
  }
  options_.raw = false;  // what is asked for wins
  Session s(workers_.context, options_);
  EXPECT_FALSE(s.raw());
}

}  // namespace
}  // namespace graft
