#include "graft/bench/kernel_tune.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numeric>

#include "graft/base/error.h"
#include "graft/kernels/map.h"

namespace graft {
namespace {

using Clock = std::chrono::steady_clock;
constexpr int64_t kSizes[] = {256, 2048, 16384, 65536, 262144, 1 << 20, 1 << 22, 10'000'000};
constexpr int64_t kQuickSizes[] = {1024, 16384, 131072, 1'000'000};
constexpr double kDrop = 3;  // a choice so many times slower than the best at a size is not measured further there

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace

MachineConstants measure_constants(KernelBench& bench, int threads) {
  MachineConstants c;
  const double memory = 4 * static_cast<double>(cache_sizes().last);
  c.gbps_one = bench.roofs(1).measure(Mix::kCopy, memory);
  c.gbps_all = bench.roofs(threads).measure(Mix::kCopy, memory);
  c.gflops_one = Roof(bench.pool(1), Roof::Kind::kFma, 0.002).measure();
  c.gflops_all = Roof(bench.pool(threads), Roof::Kind::kFma, 0.002).measure();
  const auto ns_of = [](auto&& f) {  // the least of several runs
    double least = 1e9;
    for (int i = 0; i < 20; ++i) {
      const auto start = Clock::now();
      for (int k = 0; k < 50; ++k) f();
      least = std::min(least, 1e9 * seconds_since(start) / 50);
    }
    return least;
  };
  Context context(bench.pool(threads));
  alignas(64) float x[64] = {}, y[64];
  c.start_ns = std::max(1.0, ns_of([&] { map_abs(context, x, y); }));
  c.region_ns = std::max(1.0, ns_of([&] { bench.pool(threads).parallel(threads, [](int64_t, int) {}); }));
  return c;
}

Router tune_kernels(KernelBench& bench, const std::vector<const KernelInfo*>& kernels, const TuneOptions& options) {
  Router router;
  const auto start = Clock::now();
  router.set_constants(measure_constants(bench, options.threads));
  const std::span<const int64_t> sizes =
      options.quick ? std::span<const int64_t>(kQuickSizes) : std::span<const int64_t>(kSizes);
  const std::vector<RouteChoice> candidates = Router::candidates(options.threads);
  for (size_t k = 0; k < kernels.size(); ++k) {
    const KernelInfo& kernel = *kernels[k];
    const auto kernel_start = Clock::now();
    const double share = (options.seconds - seconds_since(start)) / static_cast<double>(kernels.size() - k);
    double last = 0;                  // seconds that the size before took
    double calls = 0, last_work = 1;  // of the size before: seconds of one call of every choice, bytes and operations
    for (size_t i = 0; i < sizes.size(); ++i) {
      const double left = share - seconds_since(kernel_start);
      if (i > 0) {
        // The next size takes at least as much longer as it is larger where the calls, not their number, fill the time.
        const double growth = static_cast<double>(sizes[i]) / static_cast<double>(sizes[i - 1]);
        const double foreseen = last * (last > left / static_cast<double>(sizes.size() - i) ? growth : 1);
        if (left <= 0 || foreseen > left) break;
      }
      const auto size_start = Clock::now();
      try {
        bench.prepare(kernel, {fmt::format("{}", sizes[i]), sizes[i], 0}, 0, /*with_reference=*/false);
        const double prepared = seconds_since(size_start);
        // Attention's operations grow with the square of its length, and its scalar version takes minutes where the best takes a second.
        const double work = kernel.bytes(bench.call()) + kernel.flops(bench.call());
        if (i > 0 && calls * work / last_work > left) break;
        const double each = std::max(0.0, left - prepared) / static_cast<double>(sizes.size() - i);
        const std::vector<double> ns = bench.compete(candidates, std::min(each, 0.25), kDrop);
        calls = 1e-9 * std::accumulate(ns.begin(), ns.end(), 0.0), last_work = std::max(1.0, work);
        Router::Measured m{sizes[i], {}};
        const double best = *std::min_element(ns.begin(), ns.end());
        for (size_t c = 0; c < candidates.size(); ++c) {
          if (ns[c] <= kDrop * best) m.choices.push_back({candidates[c].level, candidates[c].threads, ns[c]});
        }
        router.learn(kernel.name, std::move(m));
      } catch (const Error& e) {
        if (options.progress) options.progress(fmt::format("{} of {}: {}", kernel.name, sizes[i], e.what()));
        break;
      }
      last = seconds_since(size_start);
    }
    if (options.progress) options.progress(fmt::format("{}/{} {}", k + 1, kernels.size(), kernel.name));
  }
  return router;
}

RoutedTiming compare_route(KernelBench& bench, const KernelInfo& kernel, const Router& router, int threads,
                           double seconds) {
  RoutedTiming r;
  r.kernel = kernel.name, r.elements = bench.elements();
  const std::vector<RouteChoice> candidates = Router::candidates(threads);
  const Route route =
      router.route(kernel.name, bench.elements(), kernel.bytes(bench.call()), kernel.flops(bench.call()), threads);
  const std::vector<double> ns = bench.compete(candidates, seconds, 1.5);
  for (size_t i = 0; i < candidates.size(); ++i) {
    const RouteChoice c = {candidates[i].level, candidates[i].threads, ns[i]};
    if (i == 0 || c.ns < r.best.ns) r.best = c;
    if (c.level == route.best.level && c.threads == route.best.threads) r.routed = c;
  }
  r.measured = route.measured;
  return r;
}

std::vector<int64_t> routed_sizes() {
  return {256, 700, 2048, 6000, 16384, 32768, 65536, 131072, 262144, 524288, 1 << 20, 2 << 20, 1 << 22, 10'000'000};
}

}  // namespace graft
