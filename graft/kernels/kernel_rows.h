#pragma once

// Shared by the families' rows of the registry.

#include <algorithm>
#include <array>

#include "graft/base/random.h"
#include "graft/kernels/registry.h"

namespace graft {

constexpr double kTranscendental = 18;  // operations that one exp, log or tanh counts for (spec: T)

// An f32 input with values in [low, high), the same for a seed on every machine.
inline std::span<float> add_uniform(KernelCall& call, std::string_view name, std::vector<int64_t> shape, uint64_t seed,
                                    float low = -1, float high = 1) {
  KernelTensor& t = call.add_input(name, DType::kF32, std::move(shape));
  const std::span<float> x = t.data.as<float>().first(static_cast<size_t>(t.size()));
  const RandomStream stream(seed, stream_hash(name));
  for (size_t i = 0; i < x.size(); ++i) x[i] = low + (high - low) * static_cast<float>(stream.uniform(i));
  return x;
}

inline double length_of(const KernelCall& call, std::string_view name) {
  double n = 1;
  for (const int64_t d : call.in_shape(name)) n *= static_cast<double>(d);
  return n;
}

// The index of the parameter's word in `words`; the first if it is not given.
template <size_t kCount>
size_t choice(const KernelCall& call, std::string_view name, const std::array<std::string_view, kCount>& words) {
  const std::string text = call.word(name, words[0]);
  const auto at = std::find(words.begin(), words.end(), text);
  GRAFT_CHECK(at != words.end(), "parameter '{}' is '{}', expected one of {}", name, printable(text, 40),
              fmt::join(words, ", "));
  return static_cast<size_t>(at - words.begin());
}

// KernelInfo::bytes and flops of a kernel that costs the same for each element of "x".
template <int kBytes>
double bytes_of_x(const KernelCall& call) {
  return kBytes * length_of(call, "x");
}
// kT transcendentals and kOps operations an element.
template <int kT, int kOps>
double flops_of_x(const KernelCall& call) {
  return (kT * kTranscendental + kOps) * length_of(call, "x");
}

// Rows of 1,024 columns, or one row where there are fewer elements; 1,000,000 and 10,000,000 give 976 and 9765 rows.
inline std::vector<int64_t> rows_of_1024(int64_t size) {
  const int64_t columns = std::min<int64_t>(size, 1024);
  return {size / columns, columns};
}

// Inputs of a kernel of one vector.
inline void example_x(KernelCall& call, int64_t size, uint64_t seed) { add_uniform(call, "x", {size}, seed); }

// Logits of about `size` elements in rows of `columns`, and a target for every row but some that do not count.
inline void add_logits(KernelCall& call, int64_t size, int64_t columns, uint64_t seed) {
  columns = std::min(size, columns);
  const int64_t rows = size / columns;
  add_uniform(call, "logits", {rows, columns}, seed, -4, 4);
  KernelTensor& targets = call.add_input("targets", DType::kI32, {rows});
  const RandomStream stream(seed, stream_hash("targets"));
  for (int64_t i = 0; i < rows; ++i) {
    const auto at = static_cast<uint64_t>(i);
    targets.data.as<int32_t>()[at] =
        i % 37 == 5 ? -100 : static_cast<int32_t>(stream.word(at) % static_cast<uint32_t>(columns));
  }
}
// Error unless 'targets' names a column of 'logits' for every row, or is the parameter ignore_index.
inline void check_targets(const KernelCall& call) {
  const View<const float, 2> logits = call.in_view<float, 2>("logits");
  const std::span<const int32_t> targets = call.in<int32_t>("targets");
  GRAFT_CHECK(logits.extent(1) > 0, "input 'logits' is [{}, 0], expected at least one column", logits.extent(0));
  GRAFT_CHECK(targets.size() == static_cast<size_t>(logits.extent(0)),
              "input 'targets' has {} elements, expected {}, the rows of 'logits'", targets.size(), logits.extent(0));
  const int64_t ignore = call.integer("ignore_index", -100);
  GRAFT_CHECK(ignore >= INT32_MIN && ignore <= INT32_MAX, "parameter 'ignore_index' is {}, expected 32 bits", ignore);
  for (size_t i = 0; i < targets.size(); ++i) {
    GRAFT_CHECK(targets[i] == ignore || (targets[i] >= 0 && targets[i] < logits.extent(1)),
                "input 'targets' is {} in row {}, expected {} or 0 to {}", targets[i], i, ignore, logits.extent(1) - 1);
  }
}

// Error unless two inputs have one shape.
inline void same_shape(const KernelCall& call, std::string_view a, std::string_view b) {
  GRAFT_CHECK(call.in_shape(a) == call.in_shape(b), "inputs '{}' [{}] and '{}' [{}] must have one shape", a,
              fmt::join(call.in_shape(a), ", "), b, fmt::join(call.in_shape(b), ", "));
}

}  // namespace graft
