// A run's bytes depend on nothing but its settings and data: not on threads, not on the instruction set. And what holds without any fixture.
#include <unistd.h>

#include "graft/base/cpu.h"
#include "graft/base/file.h"
#include "graft/models/merge.h"
#include "graft/train/dump.h"
#include "graft/train/trainer.h"
#include "tests/support/golden.h"

namespace graft::test {
namespace {

std::string train_bytes(int threads, const TrainConfig& given) {
  Machine machine(threads);
  const TempDir out;
  TrainConfig config = given;
  config.out = out / "adapter";
  Trainer(machine.context, config).run({});
  return read_file(config.out + (config.method == "full" ? "/model.safetensors" : "/adapter_model.safetensors"));
}

// Every level of this machine, restored at the end.
class Levels {
 public:
  Levels() : before_(cpu_level()) {}
  ~Levels() { set_cpu_level(before_); }
  static std::vector<CpuLevel> all() {
    std::vector<CpuLevel> out;
    for (const CpuLevel level : cpu_levels_available()) {
      if (level != CpuLevel::kSse4) out.push_back(level);  // no fused multiply-add: outside the promise
    }
    return out;
  }

 private:
  CpuLevel before_;
};

void expect_same_bytes(Figures& figures, const TrainConfig& config) {
  const Levels restore;
  std::string first;
  const std::vector<CpuLevel> levels = Levels::all();
  for (const CpuLevel level : levels) {
    const bool best = level == levels.back();  // every number of threads where most runs happen, two of them elsewhere
    for (const int threads : best ? std::vector<int>{1, 2, 3, 7} : std::vector<int>{1, 3}) {
      set_cpu_level(level);
      const std::string bytes = train_bytes(threads, config);
      if (first.empty()) first = bytes;
      figures.same("adapter bytes", fmt::format("{} with {} threads", cpu_level_name(level), threads), bytes == first);
    }
  }
}

TEST(ParityThreads, FineTuneGivesTheSameBytes) {
  GRAFT_NEEDS_FIXTURES();
  Figures figures;
  TrainConfig config;
  config.model = fixtures() + "/models/qwen2", config.data = fixtures() + "/peft/lora/train.safetensors";
  config.targets = "all-linear", config.lr = 1e-2, config.dtype = "f32", config.quiet = true;
  config.steps = 20;
  config.given = {"steps"};
  expect_same_bytes(figures, config);
}

// Rows of odd lengths in the tiny model that the tests ship.
std::string tiny_data(const TempDir& dir) {
  const int64_t batches = 3, batch = 3, seq = 21;
  std::vector<int64_t> ids, labels;
  for (int64_t i = 0; i < batches * batch * seq; ++i) {
    ids.push_back((i * i * 13 + i * 5 + 1) % 288);
    const bool prompt = i % seq < 4;
    labels.push_back(prompt ? -100 : ids.back());
  }
  write_i64(dir / "data.safetensors",
            {{"input_ids", {{batches, batch, seq}, ids}}, {"labels", {{batches, batch, seq}, labels}}});
  write_i64(dir / "one.safetensors", {{"input_ids", {{batch, seq}, {ids.begin(), ids.begin() + batch * seq}}},
                                      {"labels", {{batch, seq}, {labels.begin(), labels.begin() + batch * seq}}}});
  return dir.path();
}

TEST(Tiny, FineTuneGivesTheSameBytes) {
  const TempDir dir;
  TrainConfig config;
  config.model = "tests/data/tiny", config.data = tiny_data(dir) + "/data.safetensors";
  config.dropout = 0.1, config.lr = 1e-2, config.dtype = "f32", config.quiet = true, config.accumulate = 2;
  config.steps = 4;
  config.given = {"steps"};
  for (const std::string method : {"lora", "full"}) {
    config.method = method;
    if (method == "full") config.dropout = 0;
    Figures figures;
    expect_same_bytes(figures, config);
  }
}

Tensors dump_tiny(const TempDir& dir, const std::string& model, const std::string& adapter,
                  std::set<std::string> want) {
  Machine machine;
  DumpConfig c;
  c.model = model, c.adapter = adapter, c.input = dir / "one.safetensors", c.output = dir / "out.safetensors",
  c.want = std::move(want);
  dump(machine.context, c);
  return read_tensors(c.output);
}

TEST(Tiny, MergedAndUnmergedAgree) {
  const TempDir dir;
  tiny_data(dir);
  Machine machine;
  MergeConfig config;
  config.model = "tests/data/tiny", config.adapters = {{"tests/data/tiny_adapter", 1.0}}, config.out = dir / "merged",
  config.dtype = "f32";
  EXPECT_GT(merge(machine.context, config).num_merged, 0);
  const std::vector<float> base = dump_tiny(dir, config.model, "", {"logits"}).at("logits").values;
  const std::vector<float> unmerged =
      dump_tiny(dir, config.model, "tests/data/tiny_adapter", {"logits"}).at("logits").values;
  const std::vector<float> merged = dump_tiny(dir, config.out, "", {"logits"}).at("logits").values;
  EXPECT_GT(distance(base, unmerged), 100 * kMergedLogits);  // the adapter does something
  EXPECT_LE(distance(merged, unmerged), kMergedLogits);
}

// The slope of the loss along a step of SGD is -lr |g|^2: gradients of every adapter tensor and the optimizer in one check.
TEST(Tiny, LossFallsAsTheGradientSays) {
  const TempDir dir;
  tiny_data(dir);
  Machine machine;
  TrainConfig config;
  config.model = "tests/data/tiny", config.data = dir / "data.safetensors", config.out = dir / "adapter",
  config.adapter = "tests/data/tiny_adapter";
  config.optimizer = "sgd", config.weight_decay = 0, config.clip = 0, config.no_shuffle = true, config.dtype = "f32",
  config.quiet = true;
  config.steps = 1;
  config.given = {"steps"};
  Tensors before = dump_tiny(dir, config.model, config.adapter, {"loss", "grads"});
  const double loss = before.at("loss").values[0];
  before.erase("loss");
  const double square = norm_of(before) * norm_of(before), fall = 2e-3 * loss;
  config.lr = fall / square;
  Trainer(machine.context, config).run({});
  const double after = dump_tiny(dir, config.model, config.out, {"loss"}).at("loss").values[0];
  // First order: what curvature and the f32 loss leave is far below a fifth of the fall.
  EXPECT_NEAR(loss - after, fall, 0.2 * fall);
}

// A sequence of one token, a batch of one, a label at the first position only in one of the rows.
TEST(Tiny, ShortestBatches) {
  const TempDir dir;
  write_i64(dir / "one.safetensors", {{"input_ids", {{1, 1}, {5}}}});
  EXPECT_EQ(dump_tiny(dir, "tests/data/tiny", "", {"logits", "hidden"}).at("logits").shape,
            (std::vector<int64_t>{1, 1, 288}));
  write_i64(dir / "one.safetensors", {{"input_ids", {{2, 2}, {5, 6, 7, 8}}}, {"labels", {{2, 2}, {5, 6, 7, -100}}}});
  const Tensors out = dump_tiny(dir, "tests/data/tiny", "", {"loss", "nll"});
  EXPECT_EQ(out.at("token_nll").shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(out.at("token_nll").values[1], 0);
  EXPECT_NEAR(out.at("loss").values[0], out.at("token_nll").values[0], 1e-6);
}

}  // namespace
}  // namespace graft::test
