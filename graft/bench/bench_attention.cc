#include "graft/bench/bench_attention.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

#include "graft/base/cpu.h"
#include "graft/base/error.h"
#include "graft/base/random.h"
#include "graft/kernels/attention.h"

namespace graft {
namespace {

using Clock = std::chrono::steady_clock;
using Shape = AttentionBenchOptions::Shape;

std::vector<float> random_floats(uint64_t stream, int64_t count) {
  const RandomStream random(7, stream);
  std::vector<float> x(static_cast<size_t>(count));
  for (size_t i = 0; i < x.size(); ++i) x[i] = random.uniform(i) * 2 - 1;
  return x;
}

// A batch of equal sequences with its gradients, and a key cache of each sequence.
struct Data {
  Shape s;
  int64_t rows, q_size, k_size;
  std::vector<float> q, k, v, o, d_o, lse, dq, dk, dv, k_blocks, decoded;
  std::vector<int32_t> offsets;
  std::vector<KeyRange<float>> ranges, cached;
  std::vector<AttentionSequence<float>> sequences, last_rows;

  explicit Data(const Shape& shape) : s(shape), rows(s.sequences * s.length) {
    q_size = s.num_heads * s.head_dim;
    k_size = s.num_kv_heads * s.head_dim;
    q = random_floats(1, rows * q_size);
    k = random_floats(2, rows * k_size);
    v = random_floats(3, rows * k_size);
    d_o = random_floats(4, rows * q_size);
    o.resize(q.size());
    dq.resize(q.size());
    dk.resize(k.size());
    dv.resize(k.size());
    lse.resize(static_cast<size_t>(rows * s.num_heads));
    decoded.resize(static_cast<size_t>(s.sequences * q_size));
    const int64_t cache = (s.length + 63) / 64 * 64 * k_size;
    k_blocks.resize(static_cast<size_t>(s.sequences * cache));
    for (int64_t i = 0; i <= s.sequences; ++i) offsets.push_back(static_cast<int32_t>(i * s.length));
    for (int64_t i = 0; i < s.sequences; ++i) {
      KeyRange<float> range;
      range.length = s.length;
      range.k_token_stride = range.v_token_stride = k_size;
      range.k_head_stride = range.v_head_stride = s.head_dim;
      range.k = k.data() + i * s.length * k_size;
      range.v = v.data() + i * s.length * k_size;
      ranges.push_back(range);
      range.key_blocks = true;
      range.k = k_blocks.data() + i * cache;
      cached.push_back(range);
    }
    for (int64_t i = 0; i < s.sequences; ++i) {
      sequences.push_back(
          {i * s.length, s.length, 0, std::span<const KeyRange<float>>(&ranges[static_cast<size_t>(i)], 1)});
      last_rows.push_back({i, 1, s.length - 1, std::span<const KeyRange<float>>(&cached[static_cast<size_t>(i)], 1)});
    }
  }

  // The values lie where a cache has them, [position][kv head][feature]; only the keys change places.
  void fill_cache(Context& context) {
    std::vector<float> values(static_cast<size_t>(s.length * k_size));
    for (int64_t i = 0; i < s.sequences; ++i) {
      const auto rows_of = [&](const std::vector<float>& x) {
        return View<const float, 3>(x.data() + i * s.length * k_size, s.length, s.num_kv_heads, s.head_dim);
      };
      append_to_cache<float>(context, rows_of(k), rows_of(v), 0, const_cast<float*>(cached[static_cast<size_t>(i)].k),
                             values.data());
    }
  }

  AttentionArgs<float> arguments() {
    AttentionArgs<float> args;
    args.sequences = sequences;
    args.num_heads = s.num_heads;
    args.num_kv_heads = s.num_kv_heads;
    args.head_dim = s.head_dim;
    args.scale = 1 / std::sqrt(static_cast<double>(s.head_dim));
    args.q = View<const float, 3>(q.data(), rows, s.num_heads, s.head_dim);
    args.o = View<float, 3>(o.data(), rows, s.num_heads, s.head_dim);
    args.lse = View<float, 2>(lse.data(), rows, s.num_heads);
    return args;
  }

  void run(Context& context, const std::string& pass) {
    AttentionArgs<float> args = arguments();
    if (pass == "forward") return attention<float>(context, args);
    if (pass == "decode") {
      args.sequences = last_rows;
      args.q = View<const float, 3>(q.data(), s.sequences, s.num_heads, s.head_dim);
      args.o = View<float, 3>(decoded.data(), s.sequences, s.num_heads, s.head_dim);
      args.lse = {};
      return attention<float>(context, args);
    }
    const auto heads = [&](std::vector<float>& x, int64_t count) {
      return View<float, 3>(x.data(), rows, count, s.head_dim);
    };
    attention_backward<float>(
        context, {offsets, s.num_heads, s.num_kv_heads, s.head_dim, 0, args.scale, args.q, heads(k, s.num_kv_heads),
                  heads(v, s.num_kv_heads), args.o, heads(d_o, s.num_heads), lse, heads(dq, s.num_heads),
                  heads(dk, s.num_kv_heads), heads(dv, s.num_kv_heads)});
  }

  double operations(const std::string& pass) const {
    const double n = static_cast<double>(s.length), d = static_cast<double>(s.head_dim);
    const double pairs = static_cast<double>(s.sequences * s.num_heads) * (pass == "decode" ? n : n * (n + 1) / 2);
    return pairs * d * (pass == "backward" ? 10 : 4);
  }
  void reserve(Context& context) const {
    context.reserve(attention_scratch(context.num_threads(), s.num_heads, s.num_kv_heads, s.head_dim, rows, s.length));
    context.reserve(
        attention_backward_scratch(context.num_threads(), s.num_heads, s.num_kv_heads, s.head_dim, rows, s.length));
  }
};

bool same(const std::vector<float>& a, const std::vector<float>& b) {
  return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

// The reference takes a hundred times as long, so a shorter sequence of the same shape stands for the one to be timed.
void check(Context& context, Shape shape, const std::string& pass) {
  shape.sequences = std::min<int64_t>(shape.sequences, 2);
  shape.length = std::min<int64_t>(shape.length, 150);
  Data want(shape), got(shape);
  want.reserve(context);
  want.fill_cache(context);
  got.fill_cache(context);
  const CpuLevel level = cpu_level();
  set_cpu_level(CpuLevel::kScalar);
  want.run(context, "forward");
  want.run(context, pass);
  set_cpu_level(level);
  got.run(context, "forward");
  got.run(context, pass);
  GRAFT_CHECK(same(want.o, got.o) && same(want.decoded, got.decoded) && same(want.dq, got.dq) &&
                  same(want.dk, got.dk) && same(want.dv, got.dv),
              "attention {}: {} gives other bits than the scalar reference; please report this", pass,
              cpu_level_name(level));
}

}  // namespace

std::vector<AttentionBenchRow> bench_attention(ThreadPool& pool, const MachineReport& machine,
                                               const AttentionBenchOptions& options) {
  Context context(pool);
  std::vector<AttentionBenchRow> table;
  for (const Shape& shape : options.shapes) {
    GRAFT_CHECK(shape.sequences > 0 && shape.length > 0 && shape.head_dim > 0 && shape.num_kv_heads > 0 &&
                    shape.num_heads > 0 && shape.num_heads % shape.num_kv_heads == 0,
                "attention is timed on {} x {} tokens with {} heads, {} kv heads of {}, expected positive sizes and "
                "heads a multiple of kv heads",
                shape.sequences, shape.length, shape.num_heads, shape.num_kv_heads, shape.head_dim);
    Data data(shape);
    data.reserve(context);
    data.fill_cache(context);
    data.run(context, "forward");
    for (const std::string& pass : options.passes) {
      GRAFT_CHECK(pass == "forward" || pass == "backward" || pass == "decode",
                  "attention has no pass '{}', expected forward, backward or decode", printable(pass));
      check(context, shape, pass);
      std::vector<double> seconds;
      double total = 0;
      while (seconds.size() < 5 || (total < options.seconds_per_case && seconds.size() < 10000)) {
        const auto start = Clock::now();
        data.run(context, pass);
        seconds.push_back(std::chrono::duration<double>(Clock::now() - start).count());
        total += seconds.back();
      }
      std::sort(seconds.begin(), seconds.end());
      AttentionBenchRow row;
      row.pass = pass;
      row.sequences = shape.sequences;
      row.length = shape.length;
      row.num_heads = shape.num_heads;
      row.num_kv_heads = shape.num_kv_heads;
      row.head_dim = shape.head_dim;
      row.threads = pool.num_threads();
      row.seconds = seconds[seconds.size() / 2];
      row.best_seconds = seconds.front();
      row.gflops = data.operations(pass) / row.seconds * 1e-9;
      row.best_gflops = data.operations(pass) / row.best_seconds * 1e-9;
      row.share_of_fma = machine.fma_gflops > 0 ? row.best_gflops / machine.fma_gflops : 0;
      table.push_back(row);
    }
  }
  return table;
}

}  // namespace graft
