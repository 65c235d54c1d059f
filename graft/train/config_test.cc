#include "graft/train/config.h"

#include <gtest/gtest.h>

#include <set>

#include "graft/base/error.h"
#include "tests/support/error_of.h"

namespace graft {
namespace {

void set(TrainConfig& config, std::string_view name, std::string_view text) {
  const TrainField* field = find_train_field(name);
  ASSERT_NE(field, nullptr) << name;
  set_train_field(config, *field, text);
}

#define EXPECT_MENTIONS(text, word) EXPECT_NE(std::string(text).find(word), std::string::npos) << text

TEST(TrainConfig, DefaultsAreThoseOfTheContract) {
  const TrainConfig c;
  EXPECT_EQ(c.rank, 8);
  EXPECT_EQ(c.alpha, 16);
  EXPECT_EQ(c.dropout, 0);
  EXPECT_EQ(c.method, "lora");
  EXPECT_EQ(c.init, "kaiming");
  EXPECT_EQ(c.lr, 1e-4);
  EXPECT_EQ(c.schedule, "constant");
  EXPECT_EQ(c.weight_decay, 0.01);
  EXPECT_EQ(c.beta1, 0.9);
  EXPECT_EQ(c.beta2, 0.999);
  EXPECT_EQ(c.eps, 1e-8);
  EXPECT_EQ(c.clip, 1.0);
  EXPECT_EQ(c.epochs, 3);
  EXPECT_EQ(c.batch_size, 4);
  EXPECT_EQ(c.accumulate, 1);
  EXPECT_EQ(c.save_every, 200);
  EXPECT_EQ(c.keep, 2);
  EXPECT_EQ(c.seed, 0);
  EXPECT_EQ(c.too_long, "error");
  EXPECT_EQ(c.loss_on, "auto");
  c.validate(/*check_required=*/false);
}

TEST(TrainConfig, EveryFieldHasHelpAndItsDefaultReadsBack) {
  std::set<std::string_view> names;
  for (const TrainField& field : train_fields()) {
    EXPECT_TRUE(names.insert(field.name).second) << field.name;
    EXPECT_FALSE(field.help.empty()) << field.name;
    TrainConfig config, again;
    if (std::holds_alternative<std::optional<double> TrainConfig::*>(field.member)) {
      continue;  // no text for "not given"
    }
    set_train_field(again, field, train_field_text(config, field));
    EXPECT_EQ(train_field_text(again, field), train_field_text(config, field)) << field.name;
    EXPECT_TRUE(again.is_given(field.name));
  }
  EXPECT_EQ(flag_name(*find_train_field("batch_size")), "--batch-size");
}

TEST(TrainConfig, OneErrorNamesEveryFault) {
  TrainConfig c;
  c.rank = 0;
  c.dropout = 1;
  c.alpha = std::numeric_limits<double>::quiet_NaN();
  c.lr = -1;
  c.beta2 = 1;
  c.schedule = "cosin";
  c.epochs = 0;
  c.recompute = "every:0";
  c.rank_pattern = {"q_proj=2.5"};
  c.valid = "120%";
  const std::string text = test::error_of([&] { c.validate(); });
  for (const char* word :
       {"model is missing", "data is missing", "out is missing", "rank is 0, expected >= 1",
        "dropout is 1, expected [0, 1)", "alpha is nan", "lr is -1, expected > 0", "beta2 is 1", "schedule is cosin",
        "cosine", "epochs is 0", "recompute is every:0", "rank_pattern", "valid is 120%"}) {
    EXPECT_MENTIONS(text, word);
  }
}

TEST(TrainConfig, FaultsBetweenFields) {
  TrainConfig c;
  set(c, "epochs", "2");
  set(c, "steps", "10");
  set(c, "batch_size", "2");
  set(c, "batch_tokens", "100");
  set(c, "schedule", "cosine");
  set(c, "warmup", "10");
  set(c, "min_lr", "1e-4");
  set(c, "adapter", "a");
  set(c, "rank", "8");
  const std::string text = test::error_of([&] { c.validate(false); });
  for (const char* word : {"epochs and steps", "batch_size and batch_tokens", "warmup is 10", "min_lr is 0.0001",
                           "rank is given with --adapter"}) {
    EXPECT_MENTIONS(text, word);
  }
  EXPECT_EQ(text.find("alpha"), std::string::npos) << "not given";
}

TEST(TrainConfig, ValuesOfFlags) {
  TrainConfig c;
  set(c, "clip", "off");
  EXPECT_EQ(c.clip, 0);
  set(c, "warmup", "5%");
  EXPECT_EQ(c.warmup.of(600), 30);
  set(c, "warmup", "0");
  EXPECT_EQ(c.warmup.of(600), 0);
  set(c, "memory_limit", "8G");
  EXPECT_EQ(c.memory_limit.bytes, int64_t{8} << 30);
  set(c, "modules_to_save", "lm_head,embed_tokens");
  set(c, "modules_to_save", "norm");
  EXPECT_EQ(c.modules_to_save, (std::vector<std::string>{"lm_head", "embed_tokens", "norm"}));
  set(c, "template_arg", "names=a,b");
  EXPECT_EQ(c.template_arg, std::vector<std::string>{"names=a,b"});
  set(c, "pack", "");
  EXPECT_TRUE(c.pack);
  set(c, "resume", "");
  EXPECT_EQ(c.resume, std::optional<std::string>(""));
  EXPECT_MENTIONS(test::error_of([&] { set(c, "rank", "8.5"); }), "rank is 8.5, expected a whole number >= 1");
  EXPECT_MENTIONS(test::error_of([&] { set(c, "lr", "fast"); }), "lr is fast, expected > 0");
  EXPECT_MENTIONS(test::error_of([&] { set(c, "lr", "inf"); }), "lr is inf");
  EXPECT_MENTIONS(test::error_of([&] { set(c, "method", "qlora"); }), "expected one of lora, full");
  EXPECT_MENTIONS(test::error_of([&] { set(c, "warmup", "120%"); }), "warmup");
  EXPECT_MENTIONS(test::error_of([&] { set(c, "memory_limit", "8X"); }), "memory_limit");
  EXPECT_MENTIONS(test::error_of([&] { set(c, "seed", "99999999999999999999"); }), "seed");
}

TEST(TrainConfig, SizesAndShares) {
  EXPECT_EQ(parse_bytes("1024"), 1024);
  EXPECT_EQ(parse_bytes("1.5g"), 3 * (int64_t{1} << 29));
  EXPECT_EQ(parse_bytes("2MiB"), int64_t{2} << 20);
  EXPECT_EQ(parse_bytes("3kb"), 3072);
  for (const char* bad : {"", "G", "ib", "-1", "1e30", "8 G", "8GG", "nan"}) {
    EXPECT_THROW(parse_bytes(bad), Error) << bad;
  }
  for (const int64_t n : {int64_t{0}, int64_t{1}, int64_t{1} << 30, int64_t{3} << 20, int64_t{12345}}) {
    EXPECT_EQ(parse_bytes(bytes_text(n)), n);
  }
  EXPECT_EQ(to_text(parse_steps_or_share("7%")), "7%");
  EXPECT_EQ(to_text(parse_steps_or_share("2.5%")), "2.5%");
  EXPECT_EQ(to_text(parse_steps_or_share("70")), "70");
  for (const char* bad : {"", "%", "-1", "5%%", "1.5", "101%"}) EXPECT_THROW(parse_steps_or_share(bad), Error) << bad;
}

TEST(TrainConfig, TomlHoldsTheCompleteSettings) {
  TrainConfig c;
  set(c, "model", "dir/with \"quotes\"\\and\ttab");
  set(c, "data", "d.jsonl");
  set(c, "out", "o");
  set(c, "warmup", "5%");
  set(c, "batch_tokens", "4096");
  set(c, "steps", "7");
  set(c, "rank_pattern", "q_proj=16,v_proj=4");
  set(c, "aux_coef", "0.01");
  set(c, "memory_limit", "8G");
  set(c, "lr", "0.004");
  set(c, "seed", "1234567890123");
  const std::string text = write_train_toml(c);
  EXPECT_EQ(text.find("resume"), std::string::npos);
  EXPECT_EQ(text.find("epochs"), std::string::npos) << "steps are in force";
  TrainConfig again;
  parse_train_toml(again, text, "config.toml");
  again.validate();
  for (const TrainField& field : train_fields()) {
    EXPECT_EQ(train_field_text(again, field), train_field_text(c, field)) << field.name;
  }
  EXPECT_EQ(write_train_toml(again), text);
}

TEST(TrainConfig, TomlOfARunThatContinuesAnAdapterReadsBack) {
  TrainConfig c, again;
  c.model = c.data = c.out = "x";
  c.adapter = "a";
  c.rank = 32;
  parse_train_toml(again, write_train_toml(c), "config.toml");
  again.validate();
  EXPECT_EQ(again.adapter, "a");
}

TEST(TrainConfig, FlagsWinOverToml) {
  TrainConfig c;
  set(c, "lr", "1e-3");
  set(c, "steps", "50");
  parse_train_toml(c,
                   "lr = 0.5\nepochs = 9\nrank = 4\nclip = \"off\"\ntargets = [\"q_proj\", \"k_proj\"]\n"
                   "layers = \"0-3\"\ntemplate_arg = {enable_thinking = false}\nalpha_pattern = {q_proj = 3}\n",
                   "f.toml");
  EXPECT_EQ(c.lr, 1e-3);
  EXPECT_EQ(c.epochs, 3) << "steps were given as a flag";
  EXPECT_EQ(c.rank, 4);
  EXPECT_EQ(c.clip, 0);
  EXPECT_EQ(c.targets, "q_proj,k_proj");
  EXPECT_EQ(c.template_arg, std::vector<std::string>{"enable_thinking=false"});
  EXPECT_EQ(c.alpha_pattern, std::vector<std::string>{"q_proj=3"});
  c.validate(false);
}

TEST(TrainConfig, TomlFaultsAreReportedTogether) {
  TrainConfig c;
  const std::string text = test::error_of([&] {
    parse_train_toml(c, "learning = 3\nbatch-size = 4\nrank = \"8\"\nlr = nan\npack = 1\nresume = \"x\"\nalpha = [1]\n",
                     "f.toml");
  });
  for (const char* word : {"f.toml:1: unknown setting 'learning'", "f.toml:2", "did you mean batch_size?",
                           "f.toml:3: rank is a string", "f.toml:4: lr is nan", "f.toml:5: pack is a whole number",
                           "f.toml:6: unknown setting 'resume'", "f.toml:7: alpha is an array"}) {
    EXPECT_MENTIONS(text, word);
  }
  EXPECT_MENTIONS(test::error_of([&] { parse_train_toml(c, "a = 1\nb = = 2", "f.toml"); }), "f.toml:2");
  EXPECT_MENTIONS(test::error_of([&] { parse_train_toml(c, "rank = 1\nrank = 2", "f.toml"); }), "f.toml:2");
  EXPECT_FALSE(test::error_of([&] { parse_train_toml(c, "a = " + std::string(100000, '['), "f.toml"); }).empty());
  EXPECT_FALSE(test::error_of([&] { parse_train_toml(c, "a = \"\xFF\"", "f.toml"); }).empty());
}

TEST(TrainConfig, ResumeKeepsSettingsAndRefusesChangesByName) {
  TrainConfig saved;
  set(saved, "model", "m");
  set(saved, "lr", "0.01");
  set(saved, "threads", "4");
  saved.dtype = "bf16";
  TrainConfig now;
  set(now, "model", "./m");  // the same place
  set(now, "threads", "2");
  set(now, "dtype", "auto");
  set(now, "save_every", "5");
  set(now, "resume", "");
  const TrainConfig merged = resume_train_config(saved, now);
  EXPECT_EQ(merged.lr, 0.01);
  EXPECT_EQ(merged.threads, 2);
  EXPECT_EQ(merged.save_every, 5);
  EXPECT_EQ(merged.dtype, "bf16");
  EXPECT_TRUE(merged.resume.has_value());

  set(now, "lr", "0.02");
  set(now, "rank", "16");
  set(now, "weight_decay", "0.01");  // given, but the same
  const std::string text = test::error_of([&] { resume_train_config(saved, now); });
  EXPECT_MENTIONS(text, "lr was 0.01, is 0.02");
  EXPECT_MENTIONS(text, "rank was 8, is 16");
  EXPECT_EQ(text.find("weight_decay"), std::string::npos);
  std::set<std::string_view> changeable;
  for (const TrainField& f : train_fields()) {
    if ((f.use & kChangeable) != 0 && (f.use & kRecorded) != 0) changeable.insert(f.name);
  }
  EXPECT_EQ(changeable, (std::set<std::string_view>{"threads", "out", "eval_every", "save_every", "keep", "quiet",
                                                    "verbose", "memory_limit"}));
}

}  // namespace
}  // namespace graft
