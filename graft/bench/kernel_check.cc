#include "graft/bench/kernel_check.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <optional>

#include "graft/formats/safetensors.h"
#include "graft/kernels/registry.h"

namespace graft {
namespace {

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

// "case12.in.x" is case 12 and "in.x"; nothing for any other form.
struct CaseKey {
  size_t index = 0;
  std::string_view rest;
};
std::optional<CaseKey> case_key(std::string_view name) {
  if (!name.starts_with("case")) return std::nullopt;
  CaseKey key;
  const auto [end, error] = std::from_chars(name.data() + 4, name.data() + name.size(), key.index);
  if (error != std::errc() || end == name.data() + name.size() || *end != '.') return std::nullopt;
  key.rest = name.substr(static_cast<size_t>(end + 1 - name.data()));
  return key;
}

// The cases of a file: caseN.in.NAME, caseN.out.NAME, and in the metadata caseN.param.NAME and caseN.tol.NAME.
std::vector<GoldenCase> read_cases(const SafetensorsFile& file) {
  const auto count = file.metadata().find("cases");
  GRAFT_CHECK(count != file.metadata().end(), "{}: the metadata has no 'cases', expected a golden file of a kernel",
              file.path());
  int64_t n = 0;
  const std::string& text = count->second;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
  GRAFT_CHECK(error == std::errc() && end == text.data() + text.size() && n >= 1 && n <= 100000,
              "{}: 'cases' is '{}', expected a number from 1 to 100000", file.path(), printable(text, 40));
  std::vector<GoldenCase> cases(static_cast<size_t>(n));
  for (const TensorInfo& t : file.tensors()) {
    const auto key = case_key(t.name);
    if (!key || key->index >= cases.size()) continue;
    GRAFT_CHECK(is_known(t.dtype), "{}: tensor '{}' is {}, expected F32, F16, I8, U8, I32 or U32", file.path(),
                printable(t.name, 60), dtype_name(t.dtype));
    GoldenCase& c = cases[key->index];
    if (key->rest.starts_with("in.")) {
      KernelTensor& input = c.call.add_input(key->rest.substr(3), t.dtype, t.shape);
      const auto bytes = file.bytes(t);
      std::copy(bytes.begin(), bytes.end(), input.data.data());
    } else if (key->rest.starts_with("out.")) {
      const std::string name(key->rest.substr(4));
      const std::string tol = fmt::format("case{}.tol.{}", key->index, name);
      const auto tolerance = file.metadata().find(tol);
      const std::string where = fmt::format("{}: {}", file.path(), printable(tol, 60));
      GRAFT_CHECK(tolerance != file.metadata().end(), "{} is missing from the metadata", where);
      c.outputs.push_back({name, &t, parse_tolerance(tolerance->second, where)});
    }
  }
  for (const auto& [name, value] : file.metadata()) {
    const auto key = case_key(name);
    if (key && key->index < cases.size() && key->rest.starts_with("param."))
      cases[key->index].call.set_parameter(key->rest.substr(6), value);
  }
  for (size_t i = 0; i < cases.size(); ++i)
    GRAFT_CHECK(!cases[i].outputs.empty(), "{}: case {} has no output", file.path(), i);
  return cases;
}

void compare(const GoldenOutput& want, const SafetensorsFile& file, const KernelCall& call, size_t index,
             KernelCheck& check) {
  const auto at = call.outputs().find(want.name);
  const auto fault = [&](const std::string& what) {
    if (check.fault.empty())
      check.fault = fmt::format("{}: case {} output {}: {}", file.path(), index, printable(want.name, 40), what);
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
      check.fault = fmt::format("{}: case {} output {} element {}: {:.9g}, expected {:.9g} within {:.3g}", file.path(),
                                index, printable(want.name, 40), i, g, w, bar);
    }
  }
}

// The files of `paths`; a folder that gives none is an error.
std::vector<std::string> golden_files(const std::vector<std::string>& paths, std::vector<Error>& errors) {
  std::vector<std::string> files;
  for (const std::string& path : paths) {
    std::error_code error;
    if (!std::filesystem::is_directory(path, error)) {
      files.push_back(path);
      continue;
    }
    const size_t before = files.size();
    std::filesystem::directory_iterator entry(path, error);
    for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
      if (entry->path().extension() == ".safetensors") files.push_back(entry->path().string());
    }
    if (error) {
      errors.emplace_back(fmt::format("{}: cannot be listed: {}", path, error.message()));
    } else if (files.size() == before) {
      errors.emplace_back(fmt::format("{}: no .safetensors file, expected golden files of kernels", path));
    }
    std::sort(files.begin() + static_cast<int64_t>(before), files.end());
  }
  return files;
}

// Adds what one file gives to the results of its kernel.
void check_file(Context& context, const std::string& path, const std::vector<CpuLevel>& levels,
                KernelCheckReport& report) {
  const SafetensorsFile file(path);
  const auto name = file.metadata().find("kernel");
  GRAFT_CHECK(name != file.metadata().end(), "{}: the metadata has no 'kernel', expected a golden file of a kernel",
              path);
  const KernelInfo* kernel = find_kernel(name->second);
  GRAFT_CHECK_HINT(kernel != nullptr, "graft kernel list shows what there is", "{}: kernel '{}' is unknown", path,
                   printable(name->second, 40));
  std::vector<GoldenCase> cases = read_cases(file);
  const LevelGuard guard;
  for (const CpuLevel level : levels) {
    set_cpu_level(level);
    const auto same = [&](const KernelCheck& c) {
      return c.kernel == kernel->name && c.variant == cpu_level_name(level);
    };
    auto at = std::find_if(report.results.begin(), report.results.end(), same);
    if (at == report.results.end()) {
      KernelCheck check;
      check.kernel = kernel->name, check.variant = cpu_level_name(level);
      at = report.results.insert(report.results.end(), std::move(check));
    }
    for (size_t i = 0; i < cases.size(); ++i) {
      KernelCall& call = cases[i].call;
      try {
        context.reserve(kernel->prepare(call));
        kernel->run(context, call);
      } catch (const Error& e) {
        fail_hint(e.hint(), "{}: case {}: {}", path, i, e.what());
      } catch (const std::exception& e) {  // no memory for what a hostile parameter asks for
        fail("{}: case {}: {}", path, i, e.what());
      }
      for (const GoldenOutput& want : cases[i].outputs) compare(want, file, call, i, *at);
      ++at->cases;
    }
  }
}

}  // namespace

bool KernelCheckReport::ok() const {
  return errors.empty() && std::all_of(results.begin(), results.end(), [](const KernelCheck& c) { return c.ok(); });
}

std::vector<std::string> kernel_variants() {
  std::vector<std::string> names;
  for (const CpuLevel level : cpu_levels_available()) names.emplace_back(cpu_level_name(level));
  return names;
}

std::vector<CpuLevel> kernel_levels(const std::string& variant) {
  std::vector<CpuLevel> levels;
  for (const CpuLevel level : cpu_levels_available()) {
    if (variant == "all" || variant == cpu_level_name(level)) levels.push_back(level);
  }
  if (levels.empty()) {
    fail_hint(fmt::format("give all or one of {}", fmt::join(kernel_variants(), ", ")), "this CPU has no variant '{}'",
              printable(variant, 40));
  }
  return levels;
}

KernelCheckReport check_kernels(ThreadPool& pool, const std::vector<std::string>& paths, const std::string& variant) {
  const std::vector<CpuLevel> levels = kernel_levels(variant);
  KernelCheckReport report;
  Context context(pool);
  for (const std::string& path : golden_files(paths, report.errors)) {
    try {
      check_file(context, path, levels, report);
    } catch (const Error& e) {
      report.errors.push_back(e);
    }
  }
  return report;
}

}  // namespace graft
