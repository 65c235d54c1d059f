// Training a mixture of experts from nothing: moe.md, section 5.
#include "graft/base/cpu.h"
#include "graft/base/file.h"
#include "graft/models/init.h"
#include "graft/train/metrics.h"
#include "graft/train/trainer.h"
#include "tests/support/golden.h"

namespace graft::test {
namespace {

// The tiny model of moe.md, section 1.
std::string tiny_moe(Context& context, const TempDir& dir, uint64_t seed) {
  const Json json = {{"model_type", "graft_moe"}, {"vocab_size", 1000},
                     {"hidden_size", 64},         {"intermediate_size", 256},
                     {"num_hidden_layers", 2},    {"num_attention_heads", 4},
                     {"num_key_value_heads", 1},  {"head_dim", 16},
                     {"num_local_experts", 4},    {"num_experts_per_tok", 2},
                     {"rope_interleaved", true},  {"max_position_embeddings", 512},
                     {"rope_theta", 10000.0},     {"router_aux_loss_coef", 0.01}};
  write_file(dir / "config.json", json.dump());
  InitConfig init;
  init.config = dir / "config.json", init.out = dir / fmt::format("model-{}", seed), init.seed = seed;
  EXPECT_EQ(init_model(context, init), 542528);
  return init.out;
}

// The same batch at every step: ids 0 … 15, targets the ids after them.
TrainConfig convergence_run(const TempDir& dir, const std::string& model, const std::string& out, int64_t steps) {
  std::vector<int64_t> ids(16), targets(16);
  for (int64_t i = 0; i < 16; ++i) ids[static_cast<size_t>(i)] = i, targets[static_cast<size_t>(i)] = i + 1;
  write_i64(dir / "data.safetensors", {{"input_ids", {{1, 2, 8}, ids}}, {"targets", {{1, 2, 8}, targets}}});
  TrainConfig c;
  c.model = model, c.data = dir / "data.safetensors", c.out = out, c.method = "full";
  c.lr = 1e-3, c.min_lr = 1e-4, c.schedule = "cosine", c.schedule_steps = 1200;
  c.warmup.steps = 10, c.warmup_from = 1;
  c.beta1 = 0.9, c.beta2 = 0.95, c.weight_decay = 0.1, c.clip = 1.0;
  c.no_shuffle = true, c.dtype = "f32", c.quiet = true, c.save_every = 0;
  c.steps = steps;
  c.given = {"steps"};
  return c;
}

std::vector<Json> run(int threads, const TrainConfig& config) {
  Machine machine(threads);
  Trainer(machine.context, config).run({});
  std::vector<Json> steps;
  for (const Json& line : read_metrics(config.out + "/metrics.jsonl")) {
    if (line.contains("cross_entropy")) steps.push_back(line);
  }
  return steps;
}

double of(const Json& line, const char* key) { return line.at(key).get<double>(); }

TEST(MoeConvergence, BarsOfThreeSeeds) {
  Machine machine;
  const TempDir dir;
  Figures figures;
  for (const uint64_t seed : {42, 1, 2}) {
    const std::string model = tiny_moe(machine.context, dir, seed), where = fmt::format("seed {}", seed);
    const TrainConfig config = convergence_run(dir, model, dir / fmt::format("out-{}", seed), 1000);
    const std::vector<Json> steps = run(2, config);
    ASSERT_EQ(steps.size(), 1000u);
    // A line holds the loss before its update: the loss after n updates stands in line n + 1, counted from 1.
    figures.check("first cross-entropy, from 7.9", where, std::fabs(of(steps[0], "cross_entropy") - 7.9), 0.7);
    const std::pair<size_t, double> bars[] = {{10, 3.0}, {50, 0.02}, {100, 0.005}, {200, 0.001}};
    for (const auto& [updates, bar] : bars) {
      figures.check(fmt::format("cross-entropy after {} updates", updates), where, of(steps[updates], "cross_entropy"),
                    bar);
    }
    Json curve = {{"first gradient norm", of(steps[0], "grad_norm")}, {"total after 999", of(steps[999], "loss")}};
    for (const size_t updates : {0, 10, 50, 100, 200, 500, 999}) {
      curve[fmt::format("{}", updates)] = of(steps[updates], "cross_entropy");
    }
    const auto less_aux = [](const Json& a, const Json& b) { return of(a, "aux_loss") < of(b, "aux_loss"); };
    const auto [least, most] = std::minmax_element(steps.begin() + 99, steps.end(), less_aux);  // from step 100 on
    curve["least aux"] = 0.01 * of(*least, "aux_loss"), curve["most aux"] = 0.01 * of(*most, "aux_loss");
    RecordProperty(fmt::format("curve: {}", seed), curve.dump());  // scripts/parity.py makes a table of them
    figures.check("total loss at 1000, from 0.0205", where, std::fabs(of(steps[999], "loss") - 0.0205), 0.0015);
    for (size_t i = 0; i < steps.size(); ++i) {
      ASSERT_TRUE(steps[i].at("loss").is_number() && steps[i].at("grad_norm").is_number()) << i;
      EXPECT_NEAR(of(steps[i], "loss"), of(steps[i], "cross_entropy") + 0.01 * of(steps[i], "aux_loss"), 1e-12);
      // One expert cannot take more than every token once; loads are shares of assignments.
      EXPECT_LE(of(steps[i], "expert_share_max"), 0.5);
    }
    // Memorising needs no router: that it moved does not follow from the loss.
    const Tensors before = read_tensors(model + "/model.safetensors"),
                  after = read_tensors(config.out + "/model.safetensors");
    for (const auto& [name, tensor] : before) {
      if (!name.ends_with("mlp.gate.weight")) continue;
      EXPECT_GT(distance(tensor.values, after.at(name).values), 1e-4) << name;
    }
  }
}

TEST(MoeConvergence, SameCurveOnEveryVariantAndThreadCount) {
  Machine machine;
  const TempDir dir;
  const std::string model = tiny_moe(machine.context, dir, 42);
  const CpuLevel level = cpu_level();
  std::string want;
  for (const CpuLevel each : cpu_levels_available()) {
    if (each == CpuLevel::kSse4) continue;  // no fused multiply-add: outside the promise
    for (const int threads : {1, 3}) {
      set_cpu_level(each);
      const TrainConfig config = convergence_run(dir, model, dir / "out", 12);
      run(threads, config);
      const std::string bytes = read_file(config.out + "/model.safetensors");
      if (want.empty()) want = bytes;
      EXPECT_EQ(bytes == want, true) << cpu_level_name(each) << " " << threads;
      std::filesystem::remove_all(config.out);
    }
  }
  set_cpu_level(level);
}

TEST(MoeConvergence, RecomputeGivesTheSameBytes) {
  Machine machine;
  const TempDir dir;
  const std::string model = tiny_moe(machine.context, dir, 7);
  TrainConfig config = convergence_run(dir, model, dir / "plain", 5);
  config.recompute = "none";
  run(2, config);
  config.recompute = "every:1", config.out = dir / "recomputed";
  run(2, config);
  EXPECT_TRUE(read_file(dir / "plain/model.safetensors") == read_file(dir / "recomputed/model.safetensors"));
}

TEST(MoeTrain, CoefficientsWithoutExpertsAreRefused) {
  Machine machine;
  const TempDir dir;
  TrainConfig config = convergence_run(dir, "tests/data/tiny", dir / "out", 1);
  config.aux_coef = 0.01;
  try {
    Trainer trainer(machine.context, config);
    ADD_FAILURE() << "no error";
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("no experts"), std::string::npos) << e.what();
  }
}

}  // namespace
}  // namespace graft::test
