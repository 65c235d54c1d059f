#include "graft/graph/router.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "graft/base/error.h"
#include "graft/base/file.h"
#include "graft/base/log.h"
#include "graft/base/random.h"
#include "graft/kernels/registry.h"
#include "graft/kernels/simd.h"

namespace graft {
namespace {

constexpr int kFormat = 1;
constexpr size_t kMostBytes = size_t{16} << 20;

// What a table depends on beside the machine: compiler, kind of build, and the kernels there are.
std::string build_key() {
  uint64_t hash = stream_hash(__VERSION__);
  for (const KernelInfo& k : kernel_registry()) {
    hash = hash * 1099511628211u ^ stream_hash(k.name);
    hash = hash * 1099511628211u ^ stream_hash(k.contract);
  }
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || !defined(NDEBUG)
  constexpr std::string_view kKind = "checked";
#else
  constexpr std::string_view kKind = "release";
#endif
  return fmt::format("{} {:016x}", kKind, hash);
}

// The vector code of a level up to the one in force.
SimdTarget target_of(CpuLevel level) {
  const CpuLevelScope scope(level);
  return simd_target();
}
// The first level with the same f32 code, for levels above the one in force too: a table may be of a time without a cap.
CpuLevel f32_code(CpuLevel level) {
  return level == CpuLevel::kAvx512Bf16 || level == CpuLevel::kAmx ? CpuLevel::kAvx512 : level;
}
// Whether this CPU runs code of that level, whatever is in force.
bool cpu_has(CpuLevel level) {
  const CpuLevel top = cpu_level_detected();
  return level == top || level == CpuLevel::kScalar || (top != CpuLevel::kNeon && level < top);
}

std::optional<CpuLevel> level_named(std::string_view name) {
  for (const CpuLevel level : {CpuLevel::kScalar, CpuLevel::kSse4, CpuLevel::kAvx2, CpuLevel::kAvx512,
                               CpuLevel::kAvx512Bf16, CpuLevel::kAmx, CpuLevel::kNeon}) {
    if (cpu_level_name(level) == name) return level;
  }
  return std::nullopt;
}

double positive(const Json& value, std::string_view where, std::string_view what, bool or_zero = false) {
  const double number = value.is_number() ? value.get<double>() : -1;
  GRAFT_CHECK(std::isfinite(number) && (number > 0 || (or_zero && number == 0)),
              "{}: {} is {}, expected a positive number", where, what, json_kind(value));
  return number;
}

const Json& member(const Json& object, const char* key, std::string_view where) {
  GRAFT_CHECK(object.is_object(), "{}: expected an object, found {}", where, json_kind(object));
  const auto at = object.find(key);
  GRAFT_CHECK(at != object.end(), "{}: '{}' is missing", where, key);
  return *at;
}

// ns at `size` between two measured sizes, on a straight line through the logarithms.
double between(int64_t size, int64_t low, double low_ns, int64_t high, double high_ns) {
  const double share = std::log(static_cast<double>(size) / static_cast<double>(low)) /
                       std::log(static_cast<double>(high) / static_cast<double>(low));
  return std::exp(std::log(low_ns) + share * (std::log(high_ns) - std::log(low_ns)));
}

void sort_choices(std::vector<RouteChoice>& choices) {
  std::stable_sort(choices.begin(), choices.end(),
                   [](const RouteChoice& a, const RouteChoice& b) { return a.ns < b.ns; });
}

}  // namespace

std::vector<RouteChoice> Router::candidates(int threads) {
  std::vector<CpuLevel> levels;
  for (const CpuLevel level : cpu_levels_available()) {
    // Of levels with the same f32 code the highest: bf16 instructions stay what they are.
    if (!levels.empty() && target_of(levels.back()) == target_of(level)) levels.pop_back();
    levels.push_back(level);
  }
  std::vector<RouteChoice> all;
  for (const CpuLevel level : levels) {
    for (int n = 1; n < threads; n *= 2) all.push_back({level, n, 0});
    all.push_back({level, threads, 0});
  }
  return all;
}

Route Router::route(std::string_view kernel, int64_t size, double bytes, double flops, int threads) const {
  Route route;
  const std::vector<RouteChoice> allowed = candidates(threads);
  if (const auto at = table_.find(kernel); at != table_.end()) {
    const std::vector<Measured>& rows = at->second;
    const auto above = std::find_if(rows.begin(), rows.end(), [&](const Measured& m) { return m.size >= size; });
    const Measured& high = above == rows.end() ? rows.back() : *above;
    const Measured& low = above == rows.begin() || high.size == size ? high : *(above - 1);
    for (const RouteChoice& c : allowed) {
      const auto same = [&](const RouteChoice& m) {
        return f32_code(m.level) == f32_code(c.level) && m.threads == c.threads;
      };
      const auto a = std::find_if(low.choices.begin(), low.choices.end(), same);
      const auto b = std::find_if(high.choices.begin(), high.choices.end(), same);
      if (a == low.choices.end() || b == high.choices.end()) continue;  // left out as too slow at one of the two
      const double ns = &low == &high       ? a->ns
                        : size >= high.size ? b->ns
                                            : between(size, low.size, a->ns, high.size, b->ns);
      route.considered.push_back({c.level, c.threads, ns});
    }
    route.measured = !route.considered.empty();
  }
  if (!route.measured) {
    const SimdTarget top = simd_target();
    for (RouteChoice c : allowed) {
      const SimdTarget target = target_of(c.level);
      const double lanes = target == top ? 1 : target == SimdTarget::kReference ? 1.0 / 16 : 0.5;
      const auto of_threads = [&](double one, double all) {  // on a straight line between one thread and all
        if (all <= 0) return one * c.threads;
        return one + (all - one) * (c.threads - 1) / std::max(1, threads - 1);
      };
      const double gbps = of_threads(constants_.gbps_one, constants_.gbps_all);
      const double gflops = lanes * of_threads(constants_.gflops_one, constants_.gflops_all);
      c.ns = std::max(bytes / gbps, flops / gflops) + constants_.start_ns + (c.threads > 1 ? constants_.region_ns : 0);
      route.considered.push_back(c);
    }
    // Of equal estimates the widest vectors: memory may bind a narrower variant less than is thought here.
    std::reverse(route.considered.begin(), route.considered.end());
  }
  sort_choices(route.considered);
  route.best = route.considered.front();
  return route;
}

void Router::learn(std::string_view kernel, Measured measured) {
  std::vector<Measured>& rows = table_[std::string(kernel)];
  sort_choices(measured.choices);
  const auto at = std::find_if(rows.begin(), rows.end(), [&](const Measured& m) { return m.size >= measured.size; });
  if (at != rows.end() && at->size == measured.size) {
    *at = std::move(measured);
  } else {
    rows.insert(at, std::move(measured));
  }
}

void Router::merge(const Router& other) {
  for (const auto& [name, rows] : other.table_) table_[name] = rows;
  constants_ = other.constants_;
}

Json Router::to_json() const {
  Json kernels = Json::object();
  for (const auto& [name, rows] : table_) {
    Json& list = kernels[name] = Json::array();
    for (const Measured& m : rows) {
      Json choices = Json::array();
      for (const RouteChoice& c : m.choices)
        choices.push_back({{"variant", cpu_level_name(c.level)}, {"threads", c.threads}, {"ns", c.ns}});
      list.push_back({{"size", m.size}, {"choices", choices}});
    }
  }
  const MachineConstants& c = constants_;
  return {{"format", kFormat},
          {"cpu", cpu_model_name()},
          {"cores", usable_cores()},
          {"build", build_key()},
          {"constants",
           {{"gbps_one", c.gbps_one},
            {"gbps_all", c.gbps_all},
            {"gflops_one", c.gflops_one},
            {"gflops_all", c.gflops_all},
            {"start_ns", c.start_ns},
            {"region_ns", c.region_ns}}},
          {"kernels", kernels}};
}

Router Router::from_json(const Json& json, std::string_view where) {
  const Json& format = member(json, "format", where);
  GRAFT_CHECK(format.is_number_integer() && format.get<int64_t>() == kFormat, "{}: 'format' is {}, expected {}", where,
              printable(format.dump(), 20), kFormat);
  const auto same = [&](const char* key, const Json& here, std::string_view what) {
    const Json& there = member(json, key, where);
    GRAFT_CHECK(there == here, "{}: measured {} {}, this is {}", where, what, printable(there.dump(), 60), here.dump());
  };
  same("cpu", cpu_model_name(), "on a CPU called");
  same("cores", usable_cores(), "with a number of cores of");
  same("build", build_key(), "by the build");
  Router router;
  const Json& constants = member(json, "constants", where);
  MachineConstants& c = router.constants_;
  for (const auto& [key, to] : {std::pair{"gbps_one", &c.gbps_one},
                                {"gbps_all", &c.gbps_all},
                                {"gflops_one", &c.gflops_one},
                                {"gflops_all", &c.gflops_all},
                                {"start_ns", &c.start_ns},
                                {"region_ns", &c.region_ns}})
    *to = positive(member(constants, key, where), where, key, /*or_zero=*/true);
  const Json& kernels = member(json, "kernels", where);
  GRAFT_CHECK(kernels.is_object(), "{}: 'kernels' is {}, expected an object", where, json_kind(kernels));
  for (const auto& [name, rows] : kernels.items()) {
    GRAFT_CHECK(find_kernel(name) != nullptr, "{}: kernel '{}' is unknown", where, printable(name, 40));
    GRAFT_CHECK(rows.is_array() && !rows.empty(), "{}: {} holds {}, expected sizes", where, name, json_kind(rows));
    for (const Json& row : rows) {
      Measured m;
      const double size = positive(member(row, "size", where), where, "size");
      GRAFT_CHECK(size < 1e15, "{}: a size of {}", where, size);
      m.size = static_cast<int64_t>(size);
      const Json& choices = member(row, "choices", where);
      GRAFT_CHECK(choices.is_array() && !choices.empty(), "{}: {} has no choices at {}", where, name, m.size);
      for (const Json& choice : choices) {
        const Json& variant = member(choice, "variant", where);
        const auto level = level_named(variant.is_string() ? variant.get<std::string>() : "");
        GRAFT_CHECK(level.has_value(), "{}: variant {} is unknown", where, printable(variant.dump(), 40));
        GRAFT_CHECK(cpu_has(*level), "{}: variant {}, which this CPU lacks", where, printable(variant.dump(), 40));
        const double threads = positive(member(choice, "threads", where), where, "threads");
        GRAFT_CHECK(threads <= 4096, "{}: {} threads", where, threads);
        m.choices.push_back({*level, static_cast<int>(threads), positive(member(choice, "ns", where), where, "ns")});
      }
      router.learn(name, std::move(m));
    }
  }
  return router;
}

Router Router::load(const std::string& path) { return from_json(read_json(path, {}, kMostBytes), path); }

void Router::save(const std::string& path) const {
  GRAFT_CHECK_HINT(!path.empty(), "set XDG_CACHE_HOME or HOME", "there is no folder for the table of routes");
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  if (error) {
    fail_hint("set XDG_CACHE_HOME to a folder that can be written", "{}: cannot be made: {}",
              std::filesystem::path(path).parent_path().string(), error.message());
  }
  write_file(path, to_json().dump() + "\n");
}

std::string Router::cache_path() {
  std::string folder;
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache != nullptr && *cache == '/') {
    folder = cache;
  } else if (const char* home = std::getenv("HOME"); home != nullptr && *home == '/') {
    folder = std::string(home) + "/.cache";
  } else {
    return {};
  }
  const uint64_t key = stream_hash(fmt::format("{}\n{}\n{}", cpu_model_name(), usable_cores(), build_key()));
  return fmt::format("{}/graft/kernel_routes-{:016x}.json", folder, key);
}

const Router& Router::of_this_machine() {
  static const Router router = [] {
    const std::string path = cache_path();
    if (path.empty() || !path_exists(path)) return Router();
    try {
      return load(path);
    } catch (const Error& e) {
      log_warning("{}; routes are estimated until graft kernel tune has measured them", e.what());
      return Router();
    }
  }();
  return router;
}

}  // namespace graft
