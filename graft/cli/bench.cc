#include "graft/base/json.h"
#include "graft/bench/bench_gemm.h"
#include "graft/bench/bench_model.h"
#include "graft/bench/machine.h"
#include "graft/cli/common.h"
#include "graft/train/metrics.h"

namespace graft {
namespace {

Json machine_json(const MachineReport& m) {
  return {{"cpu", m.cpu},
          {"level", m.level},
          {"threads", m.threads},
          {"cores", m.cores},
          {"fma_gflops", m.fma_gflops},
          {"bf16_dot_gflops", m.bf16_dot_gflops},
          {"read_gbps", m.read_gbps},
          {"copy_gbps", m.copy_gbps}};
}

Json spread_json(const Spread& s) { return {s.least, s.median, s.most}; }

void print_machine(const MachineReport& m) {
  fmt::print("{}; {}; {} threads of {} cores\n", m.cpu, m.level, m.threads, m.cores);
  fmt::print("f32 FMA {:.0f} GFLOP/s; bf16 dot {:.0f} GFLOP/s; read {:.1f} GB/s; copy {:.1f} GB/s\n", m.fma_gflops,
             m.bf16_dot_gflops, m.read_gbps, m.copy_gbps);
}

struct BenchFlags {
  CommonFlags common;
  ModelBenchOptions model;
  std::string trained = "all";
};

void add_machine(CLI::App& group) {
  auto flags = std::make_shared<CommonFlags>();
  auto* command =
      group.add_subcommand("machine", "What this machine can do at best: multiply-adds, bf16 dot products, memory");
  add_common_flags(*command, *flags);
  command->footer("Example:\n  graft bench machine --threads 1");
  command->callback([flags] {
    Runtime runtime(*flags);
    const MachineReport machine = measure_machine(runtime.pool());
    flags->json ? fmt::print("{}\n", machine_json(machine).dump()) : print_machine(machine);
  });
}

void add_gemm(CLI::App& group, const std::string& name, const std::string& what, bool lora) {
  auto flags = std::make_shared<CommonFlags>();
  auto* command = group.add_subcommand(name, what);
  add_common_flags(*command, *flags);
  command->footer(fmt::format("Example:\n  graft bench {} --threads 2 --json", name));
  command->callback([flags, lora] {
    Runtime runtime(*flags);
    const MachineReport machine = measure_machine(runtime.pool());
    GemmBenchOptions options;
    if (lora) options.only = "lora";
    if (flags->dtype == "f32") options.bf16_compute = false;
    if (flags->dtype == "bf16") options.f32_compute = false;
    const std::vector<GemmBenchRow> rows = bench_gemm(runtime.pool(), machine, options);
    Json list = Json::array();
    if (!flags->json) print_machine(machine);
    for (const GemmBenchRow& r : rows) {
      const char* compute = r.compute == Compute::kBF16 ? "bf16" : "f32";
      if (flags->json) {
        list.push_back({{"product", r.product},
                        {"shape", r.shape},
                        {"rows", r.rows},
                        {"n", r.n},
                        {"k", r.k},
                        {"weights", dtype_name(r.type)},
                        {"compute", compute},
                        {"threads", r.threads},
                        {"seconds", r.seconds},
                        {"gflops", r.gflops},
                        {"limit_share", r.share_of_peak},
                        {"gbps", r.gbps},
                        {"read_share", r.share_of_read}});
      } else {
        fmt::print(
            "{} {:<28} rows {:>4} n {:>6} k {:>6} {:>4} weights {:>4}  {:>8.1f} GFLOP/s ({:>4.0f} %)  {:>6.1f} GB/s\n",
            r.product, r.shape, r.rows, r.n, r.k, compute, dtype_name(r.type), r.gflops, 100 * r.share_of_peak, r.gbps);
      }
    }
    if (flags->json) fmt::print("{}\n", Json{{"machine", machine_json(machine)}, {"results", std::move(list)}}.dump());
  });
}

void add_model_flags(CLI::App& command, BenchFlags& f) {
  command.add_option("--model", f.model.model, "Model folder (graft init makes one with random weights)")
      ->required()
      ->type_name("MODEL");
  command.add_option("--batch-size", f.model.batch_size, "Rows of a step")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str()
      ->type_name("N");
  command.add_option("--max-length", f.model.max_length, "Tokens of a row")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str()
      ->type_name("N");
  command.add_option("--rank", f.model.rank, "Rank of the adapter")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str()
      ->type_name("N");
  command.add_option("--targets", f.model.targets, "Layers to adapt")->capture_default_str()->type_name("LIST");
  command.add_option("--trained", f.trained, "Share of tokens with a label")
      ->capture_default_str()
      ->type_name("all|FRACTION");
  command.add_option("--steps", f.model.steps, "Timed steps; of generate, rounds of 16 tokens")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str()
      ->type_name("N");
  add_common_flags(command, f.common);
}

void resolve(BenchFlags& f) {
  f.model.compute = resolve_compute(f.common.dtype);
  f.model.seed = f.common.seed;
  if (f.trained == "all") return;
  char* end = nullptr;
  f.model.trained = std::strtod(f.trained.c_str(), &end);
  if (*end != '\0' || !(f.model.trained > 0 && f.model.trained <= 1))
    throw UsageError(fmt::format("--trained is '{}', expected all or a number in (0, 1]", f.trained));
}

void add_bench_train(CLI::App& group) {
  auto flags = std::make_shared<BenchFlags>();
  auto* command = group.add_subcommand("train", "LoRA training steps of a model on random tokens");
  add_model_flags(*command, *flags);
  command->footer("Example:\n  graft bench train --model Qwen2.5-0.5B --batch-size 4 --max-length 256");
  command->callback([flags] {
    resolve(*flags);
    Runtime runtime(flags->common);
    MachineReport machine;
    const TrainBench r = bench_train(runtime.context(), flags->model, machine);
    const char* roof = flags->model.compute == Compute::kBF16 && machine.bf16_dot_gflops > 0 ? "bf16 dot" : "f32 FMA";
    if (flags->common.json) {
      Json ops = Json::array();
      for (const OpBench& op : r.ops) {
        ops.push_back({{"op", op.op},
                       {"nodes", op.nodes},
                       {"seconds", op.seconds},
                       {"gflops", op.gflops},
                       {"limit_share", op.share_of_peak},
                       {"product", op.product}});
      }
      fmt::print("{}\n", Json{{"tokens_per_second", r.tokens_per_second},
                              {"steps_per_second", r.steps_per_second},
                              {"step_seconds", r.median_step_seconds},
                              {"q1_seconds", r.q1},
                              {"q3_seconds", r.q3},
                              {"tokens_per_step", r.tokens_per_step},
                              {"steps", r.steps},
                              {"gflops", r.gflops},
                              {"peak_gflops", spread_json(r.peak_gflops)},
                              {"limit_share", r.share_of_peak.median},
                              {"limit_share_spread", spread_json(r.share_of_peak)},
                              {"product_limit_share", r.share_in_products.median},
                              {"product_limit_share_spread", spread_json(r.share_in_products)},
                              {"ops", std::move(ops)},
                              {"load_seconds", r.load_seconds},
                              {"loss", r.loss},
                              {"peak_memory_bytes", r.peak_memory_bytes},
                              {"dtype", compute_name(flags->model.compute)},
                              {"machine", machine_json(machine)}}
                             .dump());
      return;
    }
    print_machine(machine);
    for (const OpBench& op : r.ops) {
      fmt::print("  {:<22} {:>4} nodes {:>9.2f} ms {:>4.1f} %", op.op, op.nodes, 1e3 * op.seconds,
                 100 * op.seconds / r.median_step_seconds);
      op.gflops > 0 ? fmt::print("  {:>5.0f} GFLOP/s = {:.0f} % of the limit\n", op.gflops, 100 * op.share_of_peak)
                    : fmt::print("\n");
    }
    fmt::print(
        "limit in turns with the steps ({}): {:.0f} GFLOP/s ({:.0f} to {:.0f}); reached {:.0f} % ({:.0f} to {:.0f}), "
        "inside the matrix products {:.0f} % "
        "({:.0f} to {:.0f})\n",
        roof, r.peak_gflops.median, r.peak_gflops.least, r.peak_gflops.most, 100 * r.share_of_peak.median,
        100 * r.share_of_peak.least, 100 * r.share_of_peak.most, 100 * r.share_in_products.median,
        100 * r.share_in_products.least, 100 * r.share_in_products.most);
    fmt::print(
        "{}: {:.0f} tokens/s, {:.4f} s a step ({:.4f} to {:.4f}), {:.0f} GFLOP/s, peak memory {}, loaded in {:.2f} s\n",
        compute_name(flags->model.compute), r.tokens_per_second, r.median_step_seconds, r.q1, r.q3, r.gflops,
        memory_text(r.peak_memory_bytes), r.load_seconds);
  });
}

void add_bench_generate(CLI::App& group) {
  auto flags = std::make_shared<BenchFlags>();
  auto* command = group.add_subcommand("generate", "Prefill and decoding of a model on random tokens");
  flags->model.steps = 9;  // rounds
  add_model_flags(*command, *flags);
  command->footer("Example:\n  graft bench generate --model Qwen2.5-0.5B --max-length 128");
  command->callback([flags] {
    resolve(*flags);
    Runtime runtime(flags->common);
    MachineReport machine;
    const GenerateBench r = bench_generate(runtime.context(), flags->model, machine);
    if (flags->common.json) {
      fmt::print("{}\n", Json{{"prefill_tokens_per_second", r.prefill_tokens_per_second},
                              {"decode_tokens_per_second", r.decode_tokens_per_second.median},
                              {"decode_tokens_per_second_spread", spread_json(r.decode_tokens_per_second)},
                              {"prompt_tokens", r.prompt_tokens},
                              {"new_tokens", r.new_tokens},
                              {"rounds", r.rounds},
                              {"bytes_per_token", r.bytes_per_token},
                              {"gbps", r.gbps.median},
                              {"gbps_spread", spread_json(r.gbps)},
                              {"read_gbps", r.read_gbps.median},
                              {"read_gbps_spread", spread_json(r.read_gbps)},
                              {"limit_share", r.share_of_read.median},
                              {"limit_share_spread", spread_json(r.share_of_read)},
                              {"load_seconds", r.load_seconds},
                              {"peak_memory_bytes", r.peak_memory_bytes},
                              {"dtype", compute_name(flags->model.compute)},
                              {"machine", machine_json(machine)}}
                             .dump());
      return;
    }
    print_machine(machine);
    const auto text = [](const Spread& s, double scale, int digits) {
      return fmt::format("{:.{}f} ({:.{}f} to {:.{}f})", scale * s.median, digits, scale * s.least, digits,
                         scale * s.most, digits);
    };
    fmt::print(
        "{}: prefill {:.0f} tokens/s; decoding in {} rounds of {} tokens: {} tokens/s = {} GB/s; plain reading in "
        "turns with them {} GB/s; share {} %\n",
        compute_name(flags->model.compute), r.prefill_tokens_per_second, r.rounds, r.new_tokens / r.rounds,
        text(r.decode_tokens_per_second, 1, 1), text(r.gbps, 1, 1), text(r.read_gbps, 1, 1),
        text(r.share_of_read, 100, 0));
    fmt::print("peak memory {}, loaded in {:.2f} s\n", memory_text(r.peak_memory_bytes), r.load_seconds);
  });
}

}  // namespace

void add_bench(CLI::App& app) {
  auto* group = app.add_subcommand("bench", "Measure graft on this machine, with the share of the machine's own limit");
  group->require_subcommand(1);
  group->footer("Example:\n  graft bench machine --threads 1");
  add_machine(*group);
  add_gemm(*group, "gemm", "Matrix products of model shapes", false);
  add_gemm(*group, "lora", "The thin products of LoRA", true);
  add_bench_train(*group);
  add_bench_generate(*group);
  add_bench_moe(*group);
}

}  // namespace graft
