#include "graft/bench/roofs.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstring>
#include <thread>

#include "graft/base/cpu.h"
#include "graft/bench/machine_table.h"

namespace graft {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int64_t kFloatsStep = 8 * 128;  // what every loop divides
constexpr double kSlice =
    0.0004;  // seconds of one try, or one pass where that is longer: short enough to fall between other work

std::atomic<float> kept;  // where results go, so that no loop is dropped

struct MixShape {
  std::string_view name;
  int arrays, moves;  // floats read and written for each index
};
constexpr MixShape kMixes[] = {{"read", 1, 1},  {"copy", 2, 2},   {"triad", 3, 3},
                               {"write", 1, 1}, {"update", 1, 2}, {"accumulate", 2, 3}};
const MixShape& shape_of(Mix mix) { return kMixes[static_cast<size_t>(mix)]; }

void scalar_pass(Mix mix, const float* a, const float* b, float* y, int64_t n) {
  if (mix == Mix::kRead) {
    float sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += a[i];
    kept = sum;
  } else if (mix == Mix::kCopy) {
    std::memcpy(y, a, static_cast<size_t>(n) * sizeof(float));
  } else if (mix == Mix::kTriad) {
    for (int64_t i = 0; i < n; ++i) y[i] = a[i] + 0.5f * b[i];
  } else if (mix == Mix::kUpdate) {
    for (int64_t i = 0; i < n; ++i) y[i] *= 0.999f;
  } else if (mix == Mix::kAccumulate) {
    for (int64_t i = 0; i < n; ++i) y[i] += 0.5f * a[i];
  } else {
    std::memset(y, 0, static_cast<size_t>(n) * sizeof(float));
  }
}

}  // namespace

std::string_view mix_name(Mix mix) { return shape_of(mix).name; }

Mix mix_of(double bytes_read, double bytes_written, bool in_place) {
  const double share = bytes_written / std::max(1.0, bytes_read + bytes_written);
  if (share < 1.0 / 6) return Mix::kRead;
  if (in_place) return share < 5.0 / 12 ? Mix::kAccumulate : Mix::kUpdate;
  return share < 5.0 / 12 ? Mix::kTriad : share < 3.0 / 4 ? Mix::kCopy : Mix::kWrite;
}

std::string_view memory_level(double bytes, int threads) {
  const CacheSizes& cache = cache_sizes();
  if (bytes <= static_cast<double>(cache.l1 * threads)) return "L1";
  if (bytes <= static_cast<double>(cache.l2 * threads)) return "L2";
  if (cache.last > cache.l2 && bytes <= static_cast<double>(cache.last)) return "L3";
  return "memory";
}

BandwidthRoofs::BandwidthRoofs(ThreadPool& pool) : pool_(&pool) {
  const CpuLevel level = cpu_level();
  set_cpu_level(cpu_level_detected());
  table_ = machine_simd();
  set_cpu_level(level);
}

double BandwidthRoofs::once(Mix mix, int64_t floats, bool other, int64_t passes) {
  const int threads = pool_->num_threads();
  const int arrays = shape_of(mix).arrays;
  std::atomic<int> arrived = 0;
  const auto start = Clock::now();
  pool_->parallel(threads, [&](int64_t thread, int) {
    ++arrived;  // a thread waits for the others, so that none takes two shares
    for (int spins = 0; arrived.load() < threads; ++spins) {
      if (spins > 20000) std::this_thread::yield();  // the other waits for a core
    }
    // A thread's arrays lie one after the other, 1 KiB off a power of two: where they all began at one, they would meet in the same sets.
    float* a = data_.as<float>().data() + thread * arrays * (floats + 256);
    float *b = a + floats + 256, *y = a + (arrays - 1) * (floats + 256);
    for (int64_t pass = 0; pass < passes; ++pass) {
      if (table_ == nullptr) {
        scalar_pass(mix, a, b, y, floats);
      } else if (mix == Mix::kRead) {
        kept = other ? static_cast<float>(table_->read(reinterpret_cast<const uint32_t*>(a), floats))
                     : table_->sum(a, floats);
      } else if (mix == Mix::kCopy) {
        table_->copy(a, y, floats, other);
      } else if (mix == Mix::kTriad) {
        table_->triad(a, b, y, floats, other);
      } else if (mix == Mix::kUpdate) {
        table_->update(y, floats);
      } else if (mix == Mix::kAccumulate) {
        table_->accumulate(a, y, floats);
      } else {
        table_->write(y, floats, other);
      }
    }
  });
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return 4e-9 * static_cast<double>(threads * shape_of(mix).moves * floats * passes) / seconds;
}

double BandwidthRoofs::measure(Mix mix, double working_set_bytes) {
  const int threads = pool_->num_threads(), arrays = shape_of(mix).arrays;
  const double most = 8 * static_cast<double>(cache_sizes().last);
  const double bytes = std::clamp(working_set_bytes, 4096.0 * threads * arrays, most);
  // Steps of a quarter of a power of two share their number of passes.
  const double step = std::exp2(std::round(4 * std::log2(bytes)) / 4);
  const int64_t floats =
      std::max(kFloatsStep, static_cast<int64_t>(step / 4 / threads / arrays) / kFloatsStep * kFloatsStep);
  const auto needed = static_cast<size_t>(threads * arrays * (floats + 256)) * sizeof(float);
  if (data_.bytes() < needed) {
    data_ = Buffer(needed);
    std::memset(data_.data(), 0, needed);
  }
  const auto entry = passes_.try_emplace({mix, floats}, 1);
  const auto at = entry.first;
  const bool is_new = entry.second;
  const double pass_bytes = 4.0 * static_cast<double>(threads * shape_of(mix).moves * floats);
  const auto best = [&] {  // of both ways and two tries: what other work held up does not count
    double rate = 0;
    for (const bool other : {false, true, false, true}) rate = std::max(rate, once(mix, floats, other, at->second));
    return rate;
  };
  double rate = best();
  while (is_new && pass_bytes * static_cast<double>(at->second) / (rate * 1e9) < kSlice) {
    at->second *= 2;
    rate = best();
  }
  return rate;
}

std::vector<RoofFigure> measure_roofs(ThreadPool& pool, BandwidthRoofs& roofs) {
  const CacheSizes& cache = cache_sizes();
  const double threads = pool.num_threads();
  // Half of each cache, so that nothing else in it counts; memory at four times the last.
  std::vector<double> sets = {0.5 * threads * static_cast<double>(cache.l1),
                              0.5 * threads * static_cast<double>(cache.l2)};
  if (cache.last > cache.l2) sets.push_back(0.5 * static_cast<double>(cache.last));
  sets.push_back(4 * static_cast<double>(cache.last));
  std::vector<RoofFigure> figures;
  for (const double bytes : sets) {
    for (const Mix mix : {Mix::kRead, Mix::kCopy, Mix::kTriad, Mix::kWrite}) {
      std::vector<double> rates(5);
      for (double& rate : rates) rate = roofs.measure(mix, bytes);
      std::sort(rates.begin(), rates.end());
      figures.push_back({std::string(memory_level(bytes, pool.num_threads())), mix, bytes, rates[3]});
    }
  }
  return figures;
}

}  // namespace graft
