#include "graft/bench/kernel_check.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>

#include "graft/base/cpu.h"
#include "graft/base/error.h"
#include "graft/formats/safetensors.h"
#include "graft/kernels/registry.h"

namespace graft {
namespace {

// Puts the CPU level back.
class LevelGuard {
 public:
  LevelGuard() : kept_(cpu_level()) {}
  ~LevelGuard() { set_cpu_level(kept_); }
  LevelGuard(const LevelGuard&) = delete;
  LevelGuard& operator=(const LevelGuard&) = delete;

 private:
  CpuLevel kept_;
};

struct Tolerance {
  double relative = 0, absolute = 0;
};

// "rtol atol"
Tolerance parse_tolerance(const std::string& text, const std::string& where) {
  Tolerance t;
  const char* end = text.data() + text.size();
  const auto first = std::from_chars(text.data(), end, t.relative);
  const auto second =
      first.ec == std::errc() && first.ptr < end ? std::from_chars(first.ptr + 1, end, t.absolute) : first;
  GRAFT_CHECK(second.ec == std::errc() && second.ptr == end && t.relative >= 0 && t.absolute >= 0,
              "{}: the tolerance is '{}', expected \"RELATIVE ABSOLUTE\"", where, printable(text, 40));
  return t;
}

struct GoldenOutput {
  std::string name;
  const TensorInfo* tensor;
  Tolerance tolerance;
};
struct GoldenCase {
  KernelCall call;
  std::vector<GoldenOutput> outputs;
};

double element(std::span<const std::byte> bytes, DType dtype, size_t i) {
  const auto read = [&]<typename T>(T) {
    T value;
    std::memcpy(&value, bytes.data() + i * sizeof(T), sizeof(T));
    return value;
  };
  switch (dtype) {
    case DType::kF32: return static_cast<double>(read(float()));
    case DType::kF16: return static_cast<double>(to_float(read(f16())));
    case DType::kI8: return read(int8_t());
    case DType::kU8: return read(uint8_t());
    case DType::kI32: return read(int32_t());
    case DType::kU32: return read(uint32_t());
    default: return std::numeric_limits<double>::quiet_NaN();
  }
}

bool is_known(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF16 || dtype == DType::kI8 || dtype == DType::kU8 ||
         dtype == DType::kI32 || dtype == DType::kU32;
}

// The cases of a file: caseN.in.NAME, caseN.out.NAME, and in the metadata caseN.param.NAME and caseN.tol.NAME.
std::vector<GoldenCase> read_cases(const SafetensorsFile& file) {
  const auto count = file.metadata().find("cases");
  GRAFT_CHECK(count != file.metadata().end(), "{}: the metadata has no 'cases', expected a golden file of a kernel",
              file.path());
  int64_t n = 0;
  const std::string& text = count->second;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  GRAFT_CHECK(error == std::errc() && end == text.data() + text.size() && n >= 0 && n <= 100000,
              "{}: 'cases' is '{}', expected a number up to 100000", file.path(), printable(text, 40));
  std::vector<GoldenCase> cases(static_cast<size_t>(n));
  for (size_t i = 0; i < cases.size(); ++i) {
    const std::string prefix = fmt::format("case{}.", i);
    for (const TensorInfo& t : file.tensors()) {
      if (!t.name.starts_with(prefix)) continue;
      const std::string_view rest = std::string_view(t.name).substr(prefix.size());
      GRAFT_CHECK(is_known(t.dtype), "{}: tensor '{}' is {}, expected F32, F16, I8, U8, I32 or U32", file.path(),
                  printable(t.name, 60), dtype_name(t.dtype));
      if (rest.starts_with("in.")) {
        KernelTensor& input = cases[i].call.add_input(rest.substr(3), t.dtype, t.shape);
        const auto bytes = file.bytes(t);
        std::copy(bytes.begin(), bytes.end(), input.data.data());
      } else if (rest.starts_with("out.")) {
        const std::string name(rest.substr(4));
        const auto tolerance = file.metadata().find(prefix + "tol." + name);
        const std::string where = fmt::format("{}: {}tol.{}", file.path(), prefix, name);
        GRAFT_CHECK(tolerance != file.metadata().end(), "{} is missing from the metadata", where);
        cases[i].outputs.push_back({name, &t, parse_tolerance(tolerance->second, where)});
      }
    }
    GRAFT_CHECK(!cases[i].outputs.empty(), "{}: case {} has no output", file.path(), i);
    const std::string parameters = prefix + "param.";
    for (const auto& [name, value] : file.metadata()) {
      if (name.starts_with(parameters))
        cases[i].call.set_parameter(std::string_view(name).substr(parameters.size()), value);
    }
  }
  return cases;
}

void compare(const GoldenOutput& want, const SafetensorsFile& file, const KernelCall& call, size_t index,
             KernelCheck& check) {
  const auto at = call.outputs().find(want.name);
  const auto fault = [&](const std::string& what) {
    if (check.fault.empty()) check.fault = fmt::format("case {} output {}: {}", index, want.name, what);
    check.error_over_tolerance = std::numeric_limits<double>::infinity();
  };
  if (at == call.outputs().end()) return fault("the kernel has no such output");
  const KernelTensor& got = at->second;
  if (got.dtype != want.tensor->dtype || got.shape != want.tensor->shape) {
    return fault(fmt::format("{} {}, expected {} {}", dtype_name(got.dtype), shape_text(got.shape),
                             dtype_name(want.tensor->dtype), shape_text(want.tensor->shape)));
  }
  const auto bytes = file.bytes(*want.tensor);
  for (size_t i = 0; i < static_cast<size_t>(got.size()); ++i) {
    const double g = element({got.data.data(), got.bytes()}, got.dtype, i), w = element(bytes, got.dtype, i);
    if (g == w || (g != g && w != w)) continue;
    const double bar = want.tolerance.absolute + want.tolerance.relative * std::fabs(w);
    const double ratio = std::isfinite(g) && std::isfinite(w) && bar > 0 ? std::fabs(g - w) / bar
                                                                         : std::numeric_limits<double>::infinity();
    check.error_over_tolerance = std::max(check.error_over_tolerance, ratio);
    if (ratio > 1 && check.fault.empty()) {
      check.fault = fmt::format("case {} output {} element {}: {:.9g}, expected {:.9g} within {:.3g}", index, want.name,
                                i, g, w, bar);
    }
  }
}

std::vector<std::string> golden_files(const std::vector<std::string>& paths) {
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    std::error_code error;
    if (!std::filesystem::is_directory(path, error)) {
      files.push_back(path);
      continue;
    }
    const size_t before = files.size();
    for (const auto& entry : std::filesystem::directory_iterator(path, error)) {
      if (entry.path().extension() == ".safetensors") files.push_back(entry.path().string());
    }
    if (error) fail("{}: cannot be listed: {}", path, error.message());
    GRAFT_CHECK(files.size() > before, "{}: no .safetensors file, expected golden files of kernels", path);
    std::sort(files.begin() + static_cast<int64_t>(before), files.end());
  }
  return files;
}

}  // namespace

std::vector<std::string> kernel_variants() {
  std::vector<std::string> names;
  for (const CpuLevel level : cpu_levels_available()) {
    if (level <= cpu_level()) names.emplace_back(cpu_level_name(level));
  }
  return names;
}

std::vector<KernelCheck> check_kernels(ThreadPool& pool, const std::vector<std::string>& paths,
                                       const std::string& variant) {
  std::vector<CpuLevel> levels;
  for (const CpuLevel level : cpu_levels_available()) {
    if (level <= cpu_level() && (variant == "all" || variant == cpu_level_name(level))) levels.push_back(level);
  }
  if (levels.empty()) {
    fail_hint(fmt::format("give all or one of {}", fmt::join(kernel_variants(), ", ")), "this CPU has no variant '{}'",
              printable(variant, 40));
  }
  const LevelGuard guard;
  std::vector<KernelCheck> checks;
  for (const std::string& path : golden_files(paths)) {
    const SafetensorsFile file(path);
    const auto name = file.metadata().find("kernel");
    GRAFT_CHECK(name != file.metadata().end(), "{}: the metadata has no 'kernel', expected a golden file of a kernel",
                path);
    const KernelInfo* kernel = find_kernel(name->second);
    GRAFT_CHECK_HINT(kernel != nullptr, "graft kernel list shows what there is", "{}: kernel '{}' is unknown", path,
                     printable(name->second, 40));
    std::vector<GoldenCase> cases = read_cases(file);
    for (const CpuLevel level : levels) {
      set_cpu_level(level);
      KernelCheck check;
      check.kernel = kernel->name, check.variant = cpu_level_name(level);
      Context context(pool);
      for (size_t i = 0; i < cases.size(); ++i) {
        KernelCall& call = cases[i].call;
        try {
          context.reserve(kernel->prepare(call));
          kernel->run(context, call);
        } catch (const Error& e) {
          fail("{}: case {}: {}", path, i, e.what());
        }
        for (const GoldenOutput& want : cases[i].outputs) compare(want, file, call, i, check);
        ++check.cases;
      }
      checks.push_back(std::move(check));
    }
  }
  return checks;
}

}  // namespace graft
