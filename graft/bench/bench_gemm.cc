#include "graft/bench/bench_gemm.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <functional>

#include "graft/base/cpu.h"
#include "graft/base/error.h"
#include "graft/base/float16.h"

namespace graft {
namespace {

using Clock = std::chrono::steady_clock;

struct Shape {
  const char* name;
  int64_t n, k;
};
constexpr Shape kShapes[] = {
    {"qwen2.5-0.5b q, o", 896, 896},  {"qwen2.5-0.5b k, v", 128, 896}, {"qwen2.5-0.5b gate, up", 4864, 896},
    {"qwen2.5-0.5b down", 896, 4864}, {"lora A, rank 16", 16, 896},    {"qwen3-0.6b gate, up", 3072, 1024},
};

void fill(float* x, int64_t n, uint64_t seed) {
  uint64_t state = seed * 0x9E3779B97F4A7C15u + 1;
  for (int64_t i = 0; i < n; ++i) {
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    x[i] = static_cast<float>(static_cast<int32_t>(state >> 32)) * 0x1p-31f;
  }
}

struct Timing {
  double median, best;
};

// Seconds of f, called until `total` seconds have passed, five times at least.
Timing time_calls(double total, const std::function<void()>& f) {
  f();
  std::vector<double> times;
  double spent = 0;
  while (spent < total || times.size() < 5) {
    const auto start = Clock::now();
    f();
    times.push_back(std::chrono::duration<double>(Clock::now() - start).count());
    spent += times.back();
  }
  std::sort(times.begin(), times.end());
  return {times[times.size() / 2], times.front()};
}

// Compares some outputs with f64; throws Error where one is wrong, since a speed of wrong results means nothing.
void check(const char* what, int64_t rows, int64_t columns, int64_t summed, View<const float, 2> y, Compute compute,
           const std::function<float(int64_t, int64_t)>& a, const std::function<float(int64_t, int64_t)>& b) {
  const auto operand = [&](float x) {
    return static_cast<double>(compute == Compute::kBF16 ? to_float(to_bf16(x)) : x);
  };
  for (int64_t i = 0; i < 16; ++i) {
    const int64_t row = i * (rows - 1) / 15, column = (15 - i) * (columns - 1) / 15;
    double want = 0, magnitude = 0;
    for (int64_t j = 0; j < summed; ++j) {
      const double p = operand(a(row, j)) * operand(b(column, j));
      want += p;
      magnitude += std::fabs(p);
    }
    const auto got = static_cast<double>(y(row, column));
    // The rounding errors of a chain of n steps mostly cancel; 64 units of the sum of magnitudes is far above what is
    // left.
    GRAFT_CHECK(std::fabs(got - want) <= 64 * 0x1p-23 * magnitude, "bench {}: entry ({}, {}) is {}, float64 gives {}",
                what, row, column, got, want);
  }
}

}  // namespace

std::vector<GemmBenchRow> bench_gemm(ThreadPool& pool, const MachineReport& machine, const GemmBenchOptions& options) {
  std::vector<GemmBenchRow> result;
  Context context(pool);
  for (const Shape& shape : kShapes) {
    if (std::string(shape.name).find(options.only) == std::string::npos) continue;
    for (DType type : options.types) {
      const int64_t most = *std::max_element(options.rows.begin(), options.rows.end());
      context.reserve(matmul_scratch(pool.num_threads(), most, shape.k, shape.n));
      Buffer x(static_cast<size_t>(most * shape.k * 4)), dy(static_cast<size_t>(most * shape.n * 4));
      Buffer y(dy.bytes()), dx(x.bytes()), dw(static_cast<size_t>(shape.n * shape.k * 4)), values(dw.bytes());
      fill(x.as<float>().data(), most * shape.k, 1);
      fill(dy.as<float>().data(), most * shape.n, 2);
      fill(values.as<float>().data(), shape.n * shape.k, 3);
      Weight weight(type, shape.n, shape.k);
      weight.pack_rows(context, 0, shape.n, DType::kF32, values.data());
      weight.unpack_rows(context, 0, shape.n, values.as<float>().data());
      const View<const float, 2> w(values.as<float>().data(), shape.n, shape.k);
      for (int64_t rows : options.rows) {
        const View<const float, 2> xs(x.as<float>().data(), rows, shape.k), dys(dy.as<float>().data(), rows, shape.n);
        const View<float, 2> ys(y.as<float>().data(), rows, shape.n), dxs(dx.as<float>().data(), rows, shape.k);
        const View<float, 2> dws(dw.as<float>().data(), shape.n, shape.k);
        const auto add = [&](const char* product, Compute compute, const std::function<void()>& f) {
          GemmBenchRow row;
          row.product = product;
          row.shape = shape.name;
          row.rows = rows;
          row.n = shape.n;
          row.k = shape.k;
          row.type = type;
          row.compute = compute;
          row.threads = pool.num_threads();
          const Timing timing = time_calls(options.seconds_per_case, f);
          row.seconds = timing.median;
          row.best_seconds = timing.best;
          row.gflops = 2e-9 * static_cast<double>(rows * shape.n * shape.k) / row.seconds;
          const double peak =
              compute == Compute::kBF16 && machine.bf16_dot_gflops > 0 ? machine.bf16_dot_gflops : machine.fma_gflops;
          row.share_of_peak = peak > 0 ? row.gflops / peak : 0;
          row.gbps = 1e-9 * static_cast<double>(weight.bytes()) / row.seconds;
          row.share_of_read = machine.read_gbps > 0 ? row.gbps / machine.read_gbps : 0;
          result.push_back(row);
        };
        for (Compute compute : {Compute::kF32, Compute::kBF16}) {
          if (!(compute == Compute::kF32 ? options.f32_compute : options.bf16_compute)) continue;
          MatmulOutput<float> output;
          output.w.weight = &weight;
          output.y = ys;
          const auto nt = [&] {
            matmul_nt<float>(context, compute, xs, std::span<const MatmulOutput<float>>(&output, 1));
          };
          nt();
          check(
              "nt", rows, shape.n, shape.k, ys, compute, [&](int64_t i, int64_t j) { return xs(i, j); },
              [&](int64_t o, int64_t j) { return w(o, j); });
          add("nt", compute, nt);
          const MatmulSource<float> source = {dys, output.w};
          const auto nn = [&] {
            matmul_nn<float>(context, compute, std::span<const MatmulSource<float>>(&source, 1), false, dxs);
          };
          nn();
          check(
              "nn", rows, shape.k, shape.n, dxs, compute, [&](int64_t i, int64_t j) { return dys(i, j); },
              [&](int64_t k, int64_t j) { return w(j, k); });
          add("nn", compute, nn);
          if (compute == Compute::kF32) {
            const auto tn = [&] { matmul_tn<float>(context, dys, xs, 1.0f, false, dws); };
            tn();
            check(
                "tn", shape.n, shape.k, rows, dws, compute, [&](int64_t n, int64_t t) { return dys(t, n); },
                [&](int64_t k, int64_t t) { return xs(t, k); });
            add("tn", compute, tn);
          }
        }
      }
    }
  }
  return result;
}

}  // namespace graft
