#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "graft/base/error.h"
#include "graft/base/json.h"
#include "graft/formats/safetensors.h"
#include "graft/kernels/context.h"
#include "tests/support/bad_case.h"
#include "tests/support/fixtures.h"

// Comparison with what the reference libraries answered. A test states every figure with its bar through Figures; scripts/parity.py reads them from
// the test's properties, so that docs/parity.md and the tests cannot say different things.
namespace graft::test {

struct Machine {
  ThreadPool pool;
  Context context;
  explicit Machine(int threads = 2) : pool(threads), context(pool) {}
};

struct Tensor {
  std::vector<int64_t> shape;
  std::vector<float> values;
};
using Tensors = std::map<std::string, Tensor>;

// Every float tensor of a file, widened.
inline Tensors read_tensors(const std::string& path) {
  Tensors out;
  const SafetensorsFile file(path);
  for (const TensorInfo& info : file.tensors()) {
    if (info.dtype != DType::kI64) out[info.name] = {info.shape, file.read_f32(info.name)};
  }
  return out;
}

inline double largest(const std::vector<float>& values) {
  double m = 0;
  for (const float v : values) m = std::max(m, std::fabs(static_cast<double>(v)));
  return m;
}

// Largest |a - b|; a NaN or another size is infinitely far. Equal infinities are equal.
inline double distance(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return INFINITY;
  double worst = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == b[i]) continue;
    const double d = std::fabs(static_cast<double>(a[i]) - b[i]);
    if (!(d <= worst)) worst = std::isnan(d) ? INFINITY : d;
  }
  return worst;
}

// The worst of each figure of a test: value against bar. `check` expects value <= bar; the destructor records the one closest to its bar.
class Figures {
 public:
  ~Figures() {
    for (const auto& [what, f] : worst_) {
      testing::Test::RecordProperty(
          "figure: " + what, fmt::format("{:.2e} of {:.2e}, worst of {} ({})", f.value, f.bar, f.count, f.where));
    }
  }
  void check(const std::string& what, const std::string& where, double value, double bar) {
    EXPECT_LE(value, bar) << what << " of " << where;
    Figure& f = worst_[what];
    if (f.count++ == 0 || value / bar > f.value / f.bar || std::isnan(value)) {
      f.value = value, f.bar = bar, f.where = where;
    }
  }
  // Things that must be equal: counted.
  void same(const std::string& what, const std::string& where, bool equal) {
    EXPECT_TRUE(equal) << what << " of " << where;
    Count& c = counts_[what];
    ++c.all;
    c.good += equal ? 1 : 0;
    testing::Test::RecordProperty("figure: " + what, fmt::format("{} of {} the same", c.good, c.all));
  }

 private:
  struct Figure {
    double value = 0, bar = 1;
    std::string where;
    int64_t count = 0;
  };
  struct Count {
    int64_t good = 0, all = 0;
  };
  std::map<std::string, Figure> worst_;
  std::map<std::string, Count> counts_;
};

// fixtures/golden/KIND of the decoders.
inline std::vector<std::string> decoder_kinds() {
  std::vector<std::string> kinds;
  for (const auto& entry : std::filesystem::directory_iterator(fixtures() + "/golden")) {
    const std::string kind = entry.path().filename().string(), model = fixtures() + "/models/" + kind;
    if (!std::filesystem::exists(entry.path() / "grads.safetensors") ||
        !std::filesystem::exists(model + "/config.json")) {
      continue;
    }
    kinds.push_back(kind);
  }
  std::sort(kinds.begin(), kinds.end());
  EXPECT_FALSE(kinds.empty());
  return kinds;
}

// fixtures/peft/CASE.
inline std::vector<std::string> peft_cases() {
  std::vector<std::string> cases;
  const std::vector<std::string> kinds = decoder_kinds();
  for (const auto& entry : std::filesystem::directory_iterator(fixtures() + "/peft")) {
    if (!std::filesystem::exists(entry.path() / "meta.json")) continue;
    const std::string kind =
        std::filesystem::path(read_json((entry.path() / "meta.json").string()).at("model").get<std::string>())
            .filename()
            .string();
    if (std::find(kinds.begin(), kinds.end(), kind) != kinds.end()) cases.push_back(entry.path().filename().string());
  }
  std::sort(cases.begin(), cases.end());
  EXPECT_FALSE(cases.empty());
  return cases;
}

// Tolerances of fixtures/README.md for float32 (what PyTorch's own float32 differs from float64 by, with room).
constexpr double kLogits = 2e-5, kLogitsTrained = 1e-4, kMergedLogits = 3e-5, kStepLoss = 2e-5, kGradNorm = 1e-5,
                 kLogprob = 1e-4;
inline double loss_bar(double loss) { return 5e-6 + 1e-6 * std::fabs(loss); }
inline double gradient_bar(const std::vector<float>& gradient) { return 2e-5 * largest(gradient) + 1e-7; }

inline double norm_of(const Tensors& tensors) {
  double sum = 0;
  for (const auto& [name, t] : tensors) {
    for (const float v : t.values) sum += static_cast<double>(v) * v;
  }
  return std::sqrt(sum);
}

inline void write_i64(const std::string& path,
                      const std::map<std::string, std::pair<std::vector<int64_t>, std::vector<int64_t>>>& tensors) {
  std::vector<TensorToWrite> list;
  for (const auto& [name, t] : tensors) list.push_back({name, DType::kI64, t.first, as_bytes_of(t.second)});
  write_safetensors(path, list);
}

}  // namespace graft::test
