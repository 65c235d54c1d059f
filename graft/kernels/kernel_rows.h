#pragma once

// Shared by the families' rows of the registry.

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

// Inputs of a kernel of one vector.
inline void example_x(KernelCall& call, int64_t size, uint64_t seed) { add_uniform(call, "x", {size}, seed); }

// Error unless two inputs have one shape.
inline void same_shape(const KernelCall& call, std::string_view a, std::string_view b) {
  GRAFT_CHECK(call.in_shape(a) == call.in_shape(b), "inputs '{}' [{}] and '{}' [{}] must have one shape", a,
              fmt::join(call.in_shape(a), ", "), b, fmt::join(call.in_shape(b), ", "));
}

}  // namespace graft
