#include "graft/bench/bench_rows.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>

#include "graft/base/cpu.h"
#include "graft/base/error.h"
#include "graft/base/random.h"
#include "graft/kernels/activation.h"
#include "graft/kernels/elementwise.h"
#include "graft/kernels/loss.h"
#include "graft/kernels/norm.h"
#include "graft/kernels/optimizer.h"
#include "graft/kernels/softmax.h"

namespace graft {
namespace {

using Clock = std::chrono::steady_clock;

double run_seconds(const std::function<void()>& f) {
  const auto start = Clock::now();
  f();
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Buffers that all cases share; every case reads the inputs and writes outputs only.
struct Data {
  int64_t rows, columns;
  std::vector<float> x, z, dy, weight, rrms, y, dx, m, v, sums;
  std::vector<uint64_t> keys;
  double scalar = 0;

  Data(int64_t rows_, int64_t columns_) : rows(rows_), columns(columns_) {
    const auto n = static_cast<size_t>(rows * columns);
    uint64_t seed = 1;
    for (std::vector<float>* each : {&x, &z, &dy}) {
      const RandomStream stream(7, seed++);
      each->resize(n);
      for (size_t i = 0; i < n; ++i) (*each)[i] = stream.uniform(i) * 4 - 2;
    }
    weight.assign(static_cast<size_t>(columns), 0.75f);
    rrms.assign(static_cast<size_t>(rows), 0.8f);
    for (int64_t i = 0; i < rows; ++i) keys.push_back(static_cast<uint64_t>(i));
    clear();
  }
  void clear() {
    for (std::vector<float>* each : {&y, &dx, &m, &v}) each->assign(x.size(), 0.0f);
    sums.assign(weight.size(), 0.0f);
    scalar = 0;
  }
  bool same_outputs(const Data& other) const {
    const auto same = [](const std::vector<float>& a, const std::vector<float>& b) {
      return std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
    };
    return same(y, other.y) && same(dx, other.dx) && same(m, other.m) && same(v, other.v) && same(sums, other.sums) &&
           scalar == other.scalar;
  }
  View<const float, 2> in(const std::vector<float>& a) const { return View<const float, 2>(a.data(), rows, columns); }
  View<float, 2> out(std::vector<float>& a) const { return View<float, 2>(a.data(), rows, columns); }
};

struct Case {
  const char* kernel;
  int bytes;  // least traffic per element
  void (*run)(Context& c, Data& d);
};

// Bytes: 4 for every f32 element read and 4 for every one written.
constexpr Case kCases[] = {
    {"rms_norm", 8, [](Context& c, Data& d) { rms_norm<float>(c, d.in(d.x), d.weight, 1e-6, d.out(d.y), {}); }},
    {"rms_norm_backward", 12,
     [](Context& c, Data& d) {
       rms_norm_backward<float>(c, d.in(d.dy), d.in(d.x), d.weight, d.rrms, {}, d.out(d.dx), {});
     }},
    {"rms_norm_backward with residual", 16,
     [](Context& c, Data& d) {
       rms_norm_backward<float>(c, d.in(d.dy), d.in(d.x), d.weight, d.rrms, d.in(d.z), d.out(d.dx), {});
     }},
    {"rms_norm_backward with dweight", 12,
     [](Context& c, Data& d) {
       rms_norm_backward<float>(c, d.in(d.dy), d.in(d.x), d.weight, d.rrms, {}, d.out(d.dx), d.sums);
     }},
    {"swiglu", 12, [](Context& c, Data& d) { swiglu<float>(c, d.in(d.x), d.in(d.z), d.out(d.y)); }},
    {"swiglu_backward", 20,
     [](Context& c, Data& d) { swiglu_backward<float>(c, d.in(d.dy), d.in(d.x), d.in(d.z), d.out(d.dx), d.out(d.y)); }},
    {"add", 12, [](Context& c, Data& d) { add<float>(c, d.in(d.x), d.in(d.z), d.out(d.y)); }},
    {"column_scale", 8,
     [](Context& c, Data& d) { column_scale<float>(c, d.in(d.z), d.weight, d.weight, d.weight, d.out(d.y)); }},
    {"sum_rows", 4, [](Context& c, Data& d) { sum_rows<float>(c, d.in(d.dy), d.sums); }},
    {"dropout", 8,
     [](Context& c, Data& d) { dropout<float>(c, RandomStream(1, 2), 1, d.keys, 0.1, d.in(d.x), d.out(d.y)); }},
    {"adamw", 28, [](Context& c, Data& d) { adamw<float>(c, {}, d.dy, d.y, d.m, d.v); }},
    {"sgd", 12, [](Context& c, Data& d) { sgd<float>(c, 1e-4, 0.01, 1, d.dy, d.y); }},
    {"sum_squares", 4, [](Context& c, Data& d) { d.scalar = sum_squares<float>(c, d.x); }},
    {"first_non_finite", 4, [](Context&, Data& d) { d.scalar = static_cast<double>(first_non_finite<float>(d.x)); }},
    {"log_softmax", 8, [](Context&, Data& d) { log_softmax(d.x, d.y); }},
};

}  // namespace

std::vector<RowBenchRow> bench_rows(ThreadPool& pool, const RowBenchOptions& options) {
  GRAFT_CHECK(options.rows > 0 && options.columns > 0,
              "row kernels are timed on {} x {} elements, expected at least 1 x 1", options.rows, options.columns);
  Data data(options.rows, options.columns), want(options.rows, options.columns);
  Context context(pool);
  context.reserve(sum_squares_scratch(options.rows * options.columns));
  std::vector<RowBenchRow> table;
  for (const Case& c : kCases) {
    data.clear();
    want.clear();
    const CpuLevel level = cpu_level();
    set_cpu_level(CpuLevel::kScalar);
    c.run(context, want);
    set_cpu_level(level);
    c.run(context, data);
    GRAFT_CHECK(data.same_outputs(want), "{}: {} gives other bits than the scalar reference; please report this",
                c.kernel, cpu_level_name(level));
    std::vector<double> seconds;
    double total = 0;
    while (seconds.size() < 5 || (total < options.seconds_per_case && seconds.size() < 10000)) {
      seconds.push_back(run_seconds([&] { c.run(context, data); }));
      total += seconds.back();
    }
    std::sort(seconds.begin(), seconds.end());
    RowBenchRow row;
    row.kernel = c.kernel;
    row.rows = options.rows;
    row.columns = options.columns;
    row.threads = pool.num_threads();
    row.seconds = seconds[seconds.size() / 2];
    row.best_seconds = seconds.front();
    const double bytes = static_cast<double>(c.bytes) * static_cast<double>(options.rows * options.columns);
    row.gbps = bytes / row.seconds * 1e-9;
    row.best_gbps = bytes / row.best_seconds * 1e-9;
    table.push_back(row);
  }
  return table;
}

}  // namespace graft
