// What is wrong is an Error that names both sides, through the public interface and never by ending the process: moe.md, section 9.
#include <fmt/ranges.h>

#include <utility>

#include "graft/base/file.h"
#include "graft/formats/model_config.h"
#include "graft/infer/generate.h"
#include "graft/kernels/registry.h"
#include "graft/models/test_support.h"
#include "graft/train/dump.h"
#include "graft/train/step.h"
#include "graft/train/trainer.h"
#include "tests/support/error_of.h"
#include "tests/support/golden.h"

namespace graft::test {
namespace {

// An Error whose message holds every word; nothing else is thrown.
template <typename F>
void expect_error_of(F f, const std::vector<std::string>& words) {
  const std::string message = error_of(f);
  EXPECT_FALSE(message.empty()) << "no error; expected " << fmt::format("{}", fmt::join(words, ", "));
  for (const std::string& word : words) {
    EXPECT_NE(message.find(word), std::string::npos) << word << " is not in: " << message;
  }
}

void prepare_kernel(const char* kernel, const std::vector<std::pair<const char*, std::vector<int64_t>>>& inputs,
                    const std::vector<int32_t>& targets = {}) {
  KernelCall call;
  for (const auto& [name, shape] : inputs) {
    const bool indices = std::string(name) == "targets";
    KernelTensor& t = call.add_input(name, indices ? DType::kI32 : DType::kF32, shape);
    if (indices) std::copy(targets.begin(), targets.end(), t.data.as<int32_t>().begin());
  }
  find_kernel(kernel)->prepare(call);
}

TEST(MoeErrors, ShapesOfKernels) {
  expect_error_of(
      [] {
        prepare_kernel("matmul_batched", {{"a", {2, 3, 4}}, {"b", {2, 5, 6}}});
      },
      {"'a' [2, 3, 4]", "'b' [2, 5, 6]", "[B, K, N]"});  // inner dimension
  expect_error_of(
      [] {
        prepare_kernel("matmul_batched", {{"a", {2, 3, 4}}, {"b", {3, 4, 6}}});
      },
      {"'a' [2, 3, 4]", "'b' [3, 4, 6]"});  // batch
  expect_error_of(
      [] {
        prepare_kernel("matmul_batched", {{"a", {4}}, {"b", {2, 4, 6}}});
      },
      {"'a'", "1 dimensions", "expected 3"});  // rank
  expect_error_of(
      [] {
        prepare_kernel("loss_cross_entropy", {{"logits", {12}}, {"targets", {3}}}, {0, 0, 0});
      },
      {"'logits'", "1 dimensions", "expected 2"});
  expect_error_of(
      [] {
        prepare_kernel("loss_cross_entropy", {{"logits", {3, 4}}, {"targets", {2}}}, {0, 0});
      },
      {"'targets' has 2 elements", "expected 3", "'logits'"});  // number of targets
  expect_error_of(
      [] {
        prepare_kernel("loss_cross_entropy", {{"logits", {3, 4}}, {"targets", {3}}}, {0, 4, 0});
      },
      {"4"});  // a target beyond the vocabulary
  EXPECT_EQ(error_of([] { prepare_kernel("matmul_batched", {{"a", {2, 3, 4}}, {"b", {2, 4, 6}}}); }), "");
}

// A number of elements that does not fit the shape: the bytes of a tensor.
TEST(MoeErrors, ShapeAndBytesOfATensor) {
  const TempDir dir;
  std::string header = R"({"x":{"dtype":"F32","shape":[2,3],"data_offsets":[0,20]}})";
  const uint64_t size = header.size();
  std::string bytes(reinterpret_cast<const char*>(&size), 8);
  write_file(dir / "x.safetensors", bytes + header + std::string(20, '\0'));
  expect_error_of([&] { SafetensorsFile file(dir / "x.safetensors"); }, {"'x'", "[2, 3]", "24", "20"});
}

TEST(MoeErrors, ConfigsNameBothNumbers) {
  const auto with = [](const char* key, int64_t value) {
    Json config = tiny_config("graft_moe");
    config[key] = value;
    parse_model_config(config, "config.json");
  };
  expect_error_of([&] { with("num_experts_per_tok", 5); }, {"num_experts_per_tok is 5", "num_local_experts = 4"});
  expect_error_of([&] { with("head_dim", 7); }, {"head_dim is 7", "even"});
  expect_error_of([&] { with("num_key_value_heads", 3); }, {"num_key_value_heads is 3", "num_attention_heads = 4"});
  expect_error_of([&] { with("num_local_experts", 0); }, {"num_local_experts is the number 0"});
  expect_error_of(
      [&] {
        Json config = tiny_config("graft_moe");
        config["num_local_experts"] = 2.5;  // no whole number of experts
        parse_model_config(config, "config.json");
      },
      {"num_local_experts", "2.5"});
  // Any whole number will do: nothing has to divide it.
  EXPECT_EQ(error_of([&] { with("num_local_experts", 7); }), "");
}

class MoeErrorsOfModels : public testing::Test {
 protected:
  MoeErrorsOfModels() {
    write_tiny_model(dir_ / "model", tiny_config("graft_moe"));
    model_ = load_model(machine_.context, dir_ / "model");
  }
  TempDir dir_;
  Machine machine_;
  Model model_;
};

TEST_F(MoeErrorsOfModels, IndicesOutOfRange) {
  DecoderOptions options;
  options.output = DecoderOutput::kTrain, options.train_base = true;
  DecoderBench b(machine_.context, model_, options);
  EXPECT_EQ(error_of([&] { b.run(); }), "");
  const auto broken = [&](std::vector<int32_t>& list, size_t at, int32_t value, const std::vector<std::string>& words) {
    const int32_t kept = std::exchange(list[at], value);
    expect_error_of([&] { b.run(); }, words);
    list[at] = kept;
  };
  broken(b.batch.ids, 3, 40, {"'ids' holds 40 at 3", "0 to 39"});
  broken(b.batch.ids, 0, -1, {"'ids' holds -1 at 0", "0 to 39"});
  broken(b.batch.labels, 6, 41, {"'labels' holds 41 at 6", "0 to 39"});
  broken(b.batch.positions, 4, 8, {"'positions' holds 8 at 4", "0 to 7"});  // the rotary table has eight
  broken(b.batch.label_rows, 6, 10, {"'label_rows' holds 10 at 6", "0 to 9"});
  broken(b.batch.offsets, 1, 11, {"'sequence_offsets' holds 11 at 1", "0 to 10"});
  broken(b.batch.offsets, 1, 7, {"'sequence_offsets' goes from", "5 more"});  // longer than the run says
  broken(b.batch.offsets, 2, 4, {"'sequence_offsets' goes from 5 to 4"});
  broken(b.batch.offsets, 3, 9, {"'sequence_offsets' runs from 0 to 9", "from 0 to 10"});
  EXPECT_EQ(error_of([&] { b.run(); }), "");
}

// Nothing runs before all of it is there: a backward pass without its forward has no place to begin.
TEST_F(MoeErrorsOfModels, RunBeforeItIsReady) {
  DecoderOptions options;
  options.output = DecoderOutput::kTrain, options.train_base = true;
  const DecoderGraph graph = model_.family().build(model_.config(), options);
  const TinyBatch batch;
  PlanOptions plan_options;
  plan_options.capacity = batch.sizes();
  plan_options.num_threads = machine_.context.num_threads();
  Plan plan = Plan::compile(graph.graph, plan_options);
  const RopeTable rope = model_.rope_table(8);
  RunInputs inputs;
  inputs.sizes = batch.sizes();
  const auto run = [&] { plan.run(machine_.context, inputs); };
  expect_error_of(run, {"before it was prepared"});
  plan.prepare(machine_.context);
  expect_error_of(run, {"is not bound"});
  plan.bind(graph.ids, batch.ids.data()), plan.bind(graph.positions, batch.positions.data());
  expect_error_of(run, {"'positions' needs a rotary table"});
  inputs.rope = &rope;
  plan.bind(graph.sequence_offsets, batch.offsets.data());
  model_.bind(plan, graph);
  plan.bind(graph.label_rows, batch.label_rows.data()), plan.bind(graph.labels, batch.labels.data());
  plan.bind(graph.label_weights, batch.weights.data());
  expect_error_of(run, {"'grad ", "is not bound"});  // the gradients have no place yet
}

TEST_F(MoeErrorsOfModels, BatchesOfATrainingStep) {
  StepOptions options;
  options.full = true, options.evaluate = false;
  const BatchCapacity capacity = {.tokens = 6, .labels = 5, .sequences = 2, .longest = 4};
  Model model =
      Model::load(machine_.context, ModelFolder::open(dir_ / "model", supported_model_types()), {.rows = true});
  TrainStep step(machine_.context, model, nullptr, options, capacity);
  Batch good;
  good.ids = {1, 2, 3, 4, 5}, good.positions = {0, 1, 2, 0, 1}, good.sequence_offsets = {0, 3, 5};
  good.label_rows = {0, 1, 3}, good.labels = {2, 3, 5}, good.label_weights = {1, 1, 1}, good.rows = {0, 1};
  good.weight = 3;
  const auto run = [&](const std::function<void(Batch&)>& change) {
    return error_of([&] {
      Batch b = good;
      change(b);
      step.micro_batch(b, 3, 0);
    });
  };
  EXPECT_EQ(run([](Batch&) {}), "");
  const auto expect = [&](const std::function<void(Batch&)>& change, const std::vector<std::string>& words) {
    expect_error_of([&] { throw Error(run(change)); }, words);
  };
  expect([](Batch& b) { b = Batch(); }, {"the batch is empty"});
  expect([](Batch& b) { b.sequence_offsets = {0, 3, 3, 5}, b.rows = {0, 1, 2}; }, {"sequence 1", "empty", "3 to 3"});
  expect([](Batch& b) { b.labels.pop_back(); }, {"2 labels", "3 label rows"});  // targets that are no [batch, seq]
  expect([](Batch& b) { b.labels[1] = 40; }, {"'labels' holds 40", "0 to 39"});
  expect([](Batch& b) { b.ids[4] = 4000; }, {"'ids' holds 4000", "0 to 39"});
  expect([](Batch& b) { b.positions.pop_back(); }, {"5 tokens", "4 positions"});
  expect([](Batch& b) { b.label_rows = {0, 3, 1}; }, {"do not ascend", "3, 1"});
  expect(
      [](Batch& b) {
        b.ids.assign(7, 1), b.positions.assign(7, 0), b.sequence_offsets = {0, 7};
      },
      {"7 tokens", "made for 6"});
  expect(
      [](Batch& b) {
        b.ids.assign(5, 1), b.positions = {0, 1, 2, 3, 4}, b.sequence_offsets = {0, 5};
      },
      {"up to 4", "up to 5"});  // a sequence longer than any that was said to come
  EXPECT_EQ(run([](Batch&) {}), "");
}

TEST_F(MoeErrorsOfModels, DataAndPositions) {
  const auto train = [&](const std::vector<int64_t>& shape, const std::vector<int64_t>& target_shape, int64_t id,
                         int64_t target, int64_t max_length = 0) {
    const auto filled = [](const std::vector<int64_t>& dims, int64_t value) {
      int64_t n = 1;
      for (const int64_t d : dims) n *= d;
      return std::vector<int64_t>(static_cast<size_t>(n), value);
    };
    write_i64(dir_ / "data.safetensors",
              {{"input_ids", {shape, filled(shape, id)}}, {"targets", {target_shape, filled(target_shape, target)}}});
    TrainConfig c;
    c.model = dir_ / "model", c.data = dir_ / "data.safetensors", c.out = dir_ / "out", c.method = "full";
    c.steps = 1, c.given = {"steps"}, c.max_length = max_length;
    Trainer trainer(machine_.context, c);
  };
  EXPECT_EQ(error_of([&] { train({1, 2, 8}, {1, 2, 8}, 1, 2); }), "");
  expect_error_of([&] { train({2, 8}, {2, 8}, 1, 2); }, {"[2, 8]", "[batches, batch, seq]"});
  expect_error_of([&] { train({1, 2, 8}, {1, 2, 7}, 1, 2); }, {"targets", "[1, 2, 7]", "[1, 2, 8]"});
  expect_error_of([&] { train({1, 2, 8}, {1, 2, 8}, 40, 2); }, {"input_ids[0, 0, 0] is 40", "0 to 39"});
  expect_error_of([&] { train({1, 2, 8}, {1, 2, 8}, 1, 40); }, {"targets[0, 0, 0] is 40", "0 to 39"});
  expect_error_of([&] { train({1, 0, 8}, {1, 0, 8}, 1, 2); }, {"no rows", "[1, 0, 8]"});
  expect_error_of([&] { train({1, 2, 0}, {1, 2, 0}, 1, 2); }, {"no rows", "[1, 2, 0]"});
  expect_error_of([&] { train({1, 1, 65}, {1, 1, 65}, 1, 2); }, {"65 tokens", "64"});  // max_position_embeddings
  expect_error_of([&] { train({1, 1, 8}, {1, 1, 8}, 1, 2, 65); }, {"max_length is 65", "64"});
}

TEST_F(MoeErrorsOfModels, Generation) {
  Engine engine(machine_.context, model_, nullptr, {});
  GenerateOptions options;
  const auto answer = [&](const std::vector<int32_t>& prompt) { return generate(engine, nullptr, prompt, options); };
  expect_error_of([&] { answer({}); }, {"the prompt is empty"});
  expect_error_of([&] { answer({1, 40}); }, {"token id 40", "0 to 39"});
  expect_error_of([&] { answer(std::vector<int32_t>(65, 1)); }, {"65 tokens", "64"});
  const std::vector<int32_t> wrong = {40};
  KvCache cache(model_.config(), 8);
  const Feed feed{&cache, wrong};
  expect_error_of([&] { engine.forward(std::span<const Feed>(&feed, 1)); }, {"'ids' holds 40 at 0", "0 to 39"});
  expect_error_of([&] { engine.forward({}); }, {"0 sequences"});
  // Total lengths up to the prompt's own: nothing is added.
  const std::vector<int32_t> prompt = {1, 2, 3, 4};
  for (const int64_t max_len : {4, 3, 0}) {
    options.max_tokens = max_len - static_cast<int64_t>(prompt.size());
    const Generated g = answer(prompt);
    EXPECT_TRUE(g.ids.empty());
    EXPECT_EQ(g.finish_reason, "length");
  }
  options.max_tokens = 2;
  EXPECT_EQ(answer(prompt).ids.size(), 2u);  // and no error has broken the engine
}

}  // namespace
}  // namespace graft::test
