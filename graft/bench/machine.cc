#include "graft/bench/machine.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <thread>

#include "graft/base/buffer.h"
#include "graft/base/cpu.h"
#include "graft/bench/machine_table.h"

namespace graft {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int kTries = 7;

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

std::atomic<float> kept;  // where results go, so that no loop is dropped

float scalar_fma(int64_t rounds) {  // one chain of eight: a floor for CPUs without vector code here
  float s[8] = {};
  for (int64_t i = 0; i < rounds; ++i) {
    for (float& v : s) v = v * 0.999f + 0.001f;
  }
  return s[0] + s[1] + s[2] + s[3] + s[4] + s[5] + s[6] + s[7];
}

// Read by each thread: beyond any shared cache's share. The eight streams do not start a power of two apart, where they would
// meet in the same sets and banks.
constexpr size_t kThreadBytes = 8 * ((size_t{24} << 20) + 4096 + 256);

// A virtual machine's clock may jump and make one run look too quick.
double second_best(ThreadPool& pool, Roof::Kind kind) {
  Roof roof(pool, kind);
  double rates[kTries];
  for (double& rate : rates) rate = roof.measure();
  std::sort(std::begin(rates), std::end(rates));
  return rates[kTries - 2];
}

}  // namespace

Roof::Roof(ThreadPool& pool, Kind kind, double seconds) : pool_(&pool) {
  const MachineTable* table = machine_simd();
  const int threads = pool.num_threads();
  if (kind == Kind::kFma) {
    per_unit_ = threads * (table != nullptr ? table->fma_flops_per_round : 16) * 1e-9;
    work_ = [table](int64_t, int64_t n) { kept = table != nullptr ? table->fma(n) : scalar_fma(n); };
  } else if (kind == Kind::kBf16Dot) {
    const auto dot = machine_bf16_dot();
    if (dot == nullptr || !cpu_has_bf16_dot()) return;
    per_unit_ = threads * kBf16DotFlopsPerRound * 1e-9;
    work_ = [dot](int64_t, int64_t n) { kept = dot(n); };
  } else {
    data_ = Buffer(kThreadBytes * static_cast<size_t>(threads));
    pool.parallel(threads, [&](int64_t i, int) {
      std::memset(data_.data() + static_cast<size_t>(i) * kThreadBytes, 1, kThreadBytes);
    });
    per_unit_ = static_cast<double>(data_.bytes()) * 1e-9;
    work_ = [table, data = data_.data()](int64_t thread, int64_t n) {
      const auto* from = reinterpret_cast<const uint32_t*>(data + static_cast<size_t>(thread) * kThreadBytes);
      uint32_t sum = 0;
      for (int64_t pass = 0; pass < n; ++pass) {
        if (table != nullptr) {
          sum ^= table->read(from, static_cast<int64_t>(kThreadBytes / 4));
        } else {
          for (size_t j = 0; j < kThreadBytes / 4; ++j) sum ^= from[j];
        }
      }
      kept = static_cast<float>(sum);
    };
  }
  units_ = kind == Kind::kRead ? 1 : 1 << 16;
  // The quicker of two: one that other work held up would end the search too early.
  while (std::min(once(units_), once(units_)) < seconds && units_ < (int64_t{1} << 40)) units_ *= 2;
}

double Roof::once(int64_t units) {
  const int threads = pool_->num_threads();
  std::atomic<int> arrived = 0;
  const auto start = Clock::now();
  pool_->parallel(threads, [&](int64_t thread, int) {
    ++arrived;  // a thread waits for the others, so that no thread takes two shares
    for (int spins = 0; arrived.load() < threads; ++spins) {
      if (spins > 20000) std::this_thread::yield();  // the other waits for a core
    }
    work_(thread, units);
  });
  return seconds_since(start);
}

double Roof::measure() { return units_ == 0 ? 0 : per_unit_ * static_cast<double>(units_) / once(units_); }

Spread Spread::of(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  return {values.front(), values[values.size() / 2], values.back()};
}

double measure_fma_gflops(ThreadPool& pool) { return second_best(pool, Roof::Kind::kFma); }
double measure_bf16_dot_gflops(ThreadPool& pool) { return second_best(pool, Roof::Kind::kBf16Dot); }
double measure_read_gbps(ThreadPool& pool) { return second_best(pool, Roof::Kind::kRead); }

double measure_copy_gbps(ThreadPool& pool) {
  const size_t bytes = kThreadBytes / 2;
  const Buffer from(bytes * static_cast<size_t>(pool.num_threads())), to(from.bytes());
  double rates[kTries];
  for (int i = 0; i < kTries + 1; ++i) {  // the first touches the pages
    const auto start = Clock::now();
    pool.parallel(pool.num_threads(), [&](int64_t part, int) {
      std::memcpy(to.data() + static_cast<size_t>(part) * bytes, from.data() + static_cast<size_t>(part) * bytes,
                  bytes);
    });
    if (i == 0) {
      std::memset(from.data(), 1, from.bytes());  // real pages, not the shared zero page
    } else {
      rates[i - 1] = 2 * static_cast<double>(from.bytes()) / seconds_since(start);
    }
  }
  std::sort(std::begin(rates), std::end(rates));
  return rates[kTries - 2] * 1e-9;
}

MachineReport measure_machine(ThreadPool& pool) {
  MachineReport report;
  report.cpu = cpu_model_name();
  report.level = std::string(cpu_level_name(cpu_level()));
  report.threads = pool.num_threads();
  report.cores = usable_cores();
  report.fma_gflops = measure_fma_gflops(pool);
  report.bf16_dot_gflops = measure_bf16_dot_gflops(pool);
  report.read_gbps = measure_read_gbps(pool);
  report.copy_gbps = measure_copy_gbps(pool);
  return report;
}

}  // namespace graft
