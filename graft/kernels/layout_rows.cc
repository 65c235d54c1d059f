// The rows of the copies (layout.h) in the registry.

#include <cmath>

#include "graft/kernels/kernel_rows.h"
#include "graft/kernels/layout.h"

namespace graft {
namespace {

template <typename T>
View<T, 2> matrix(std::span<T> values, int64_t rows, int64_t columns) {
  return View<T, 2>(values.data(), rows, columns);
}

// The outputs and inputs are the same matrix, read and written once.
template <const char* kInput>
double bytes_copied(const KernelCall& call) {
  return 8 * length_of(call, kInput);
}
double no_flops(const KernelCall& /*call*/) { return 0; }

constexpr char kMatrix[] = "x", kAos[] = "aos", kSoa[] = "soa";

template <const char* kInput, const char* kOutput>
ScratchNeed prepare_turned(KernelCall& call) {
  const auto x = call.in_view<float, 2>(kInput);
  call.make(kOutput, DType::kF32, {x.extent(1), x.extent(0)});
  return {};
}

using Copy = void (*)(Context&, View<const float, 2>, View<float, 2>) noexcept;
template <Copy kCopy, const char* kInput, const char* kOutput>
void run_turned(Context& context, KernelCall& call) {
  const auto x = call.in_view<float, 2>(kInput);
  kCopy(context, x, matrix(call.out<float>(kOutput), x.extent(1), x.extent(0)));
}

constexpr char kTurned[] = "y";

void example_turned(KernelCall& call, int64_t size, uint64_t seed) {
  int64_t rows = static_cast<int64_t>(std::sqrt(static_cast<double>(size)));
  int64_t columns = size / rows;
  if (size == 1000000) rows = columns = 1024;
  if (size == 10000000) rows = columns = 4096;
  add_uniform(call, kMatrix, {rows, columns}, seed);
}
int64_t num_records(int64_t size) {
  if (size == 1000000) return 262144;
  if (size == 10000000) return 4194304;
  return std::max<int64_t>(1, size / 4);
}
void example_aos(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, kAos, {num_records(size), 4}, seed);
}
void example_soa(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, kSoa, {4, num_records(size)}, seed);
}

}  // namespace

std::span<const KernelInfo> layout_kernels() {
  static constexpr std::string_view kDomain = "layout";
  static constexpr KernelInfo kRows[] = {
      {"transpose_2d", kDomain, "y[C, R] = x[R, C] turned", bytes_copied<kMatrix>, no_flops,
       prepare_turned<kMatrix, kTurned>, run_turned<transpose_2d, kMatrix, kTurned>, example_turned},
      {"repack_aos_to_soa", kDomain, "soa[f, n] of n records of f fields", bytes_copied<kAos>, no_flops,
       prepare_turned<kAos, kSoa>, run_turned<repack_aos_to_soa, kAos, kSoa>, example_aos},
      {"repack_soa_to_aos", kDomain, "aos[n, f] of f arrays of n", bytes_copied<kSoa>, no_flops,
       prepare_turned<kSoa, kAos>, run_turned<repack_soa_to_aos, kSoa, kAos>, example_soa},
  };
  return kRows;
}

}  // namespace graft
