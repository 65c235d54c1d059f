// The rows of the sorts (sort.h) in the registry.

#include "graft/kernels/kernel_rows.h"
#include "graft/kernels/sort.h"

namespace graft {
namespace {

ScratchNeed prepare_keys(const KernelCall& call, std::string_view name, size_t n) {
  GRAFT_CHECK(n <= UINT32_MAX, "input '{}' has {} elements, expected fewer than 2^32", name, n);
  GRAFT_CHECK(call.in_shape(name).size() == 1, "input '{}' has {} dimensions, expected 1", name,
              call.in_shape(name).size());
  return sort_scratch(static_cast<int64_t>(n));
}
void prepare_payload(KernelCall& call) {
  call.in<uint32_t>("values");
  same_shape(call, "keys", "values");
  call.make("values", DType::kU32, call.in_shape("keys"));
}

ScratchNeed prepare_radix(KernelCall& call) {
  const ScratchNeed need = prepare_keys(call, "keys", call.in<uint32_t>("keys").size());
  if (call.has_input("values")) prepare_payload(call);
  call.make("keys", DType::kU32, call.in_shape("keys"));
  return need;
}
ScratchNeed prepare_floats(KernelCall& call) {
  const ScratchNeed need = prepare_keys(call, "x", call.in<float>("x").size());
  call.make("y", DType::kF32, call.in_shape("x"));
  return need;
}
ScratchNeed prepare_pairs(KernelCall& call) {
  const ScratchNeed need = prepare_keys(call, "keys", call.in<float>("keys").size());
  prepare_payload(call);
  call.make("keys", DType::kF32, call.in_shape("keys"));
  return need;
}

void run_radix(Context& context, KernelCall& call) {
  if (!call.has_input("values")) return sort_radix(context, call.in<uint32_t>("keys"), call.out<uint32_t>("keys"));
  sort_radix(context, call.in<uint32_t>("keys"), call.in<uint32_t>("values"), call.out<uint32_t>("keys"),
             call.out<uint32_t>("values"));
}
void run_floats(Context& context, KernelCall& call) {
  sort_bitonic(context, call.in<float>("x"), call.out<float>("y"));
}
void run_pairs(Context& context, KernelCall& call) {
  sort_bitonic_kv(context, call.in<float>("keys"), call.in<uint32_t>("values"), call.out<float>("keys"),
                  call.out<uint32_t>("values"));
}

// The bench sizes of the specification: 1M keys, 65,536 and 32,768 floats, 32,768 pairs.
int64_t bench_size(int64_t size, int64_t first, int64_t second) {
  return size == 1000000 ? first : size == 10000000 ? second : size;
}
void example_radix(KernelCall& call, int64_t size, uint64_t seed) {
  size = bench_size(size, 1000000, 1000000);
  const auto keys = call.add_input("keys", DType::kU32, {size}).data.as<uint32_t>();
  const RandomStream stream(seed, stream_hash("keys"));
  for (size_t i = 0; i < static_cast<size_t>(size); ++i) keys[i] = stream.word(i);
}
void example_floats(KernelCall& call, int64_t size, uint64_t seed) {
  add_uniform(call, "x", {bench_size(size, 65536, 32768)}, seed);
}
void example_pairs(KernelCall& call, int64_t size, uint64_t seed) {
  size = bench_size(size, 32768, 32768);
  add_uniform(call, "keys", {size}, seed);
  const auto values = call.add_input("values", DType::kU32, {size}).data.as<uint32_t>();
  for (size_t i = 0; i < static_cast<size_t>(size); ++i) values[i] = static_cast<uint32_t>(i);
}

// Four passes that read and write every item.
double bytes_of_radix(const KernelCall& call) { return (call.has_input("values") ? 64 : 32) * length_of(call, "keys"); }
double flops_of_radix(const KernelCall& call) { return 4 * length_of(call, "keys"); }
double bytes_of_pairs(const KernelCall& call) { return 16 * length_of(call, "keys"); }

}  // namespace

std::span<const KernelInfo> sort_kernels() {
  static constexpr std::string_view kDomain = "stats_sorting";
  static constexpr KernelInfo kRows[] = {
      {"sort_radix", kDomain, "u32 keys[N] ascending, stable, with values[N] if given", bytes_of_radix, flops_of_radix,
       prepare_radix, run_radix, example_radix},
      {"sort_bitonic", kDomain, "x[N] ascending, NaN last", bytes_of_x<8>, flops_of_x<0, 4>, prepare_floats, run_floats,
       example_floats},
      {"sort_bitonic_kv", kDomain, "f32 keys[N], then u32 values[N], ascending as pairs", bytes_of_pairs,
       flops_of_radix, prepare_pairs, run_pairs, example_pairs},
  };
  return kRows;
}

}  // namespace graft
