// The rows of the scans (scan.h) in the registry.

#include "graft/kernels/kernel_rows.h"
#include "graft/kernels/scan.h"

namespace graft {
namespace {

ScratchNeed prepare_scan(KernelCall& call) {
  const auto n = static_cast<int64_t>(call.in<uint32_t>("x").size());
  call.make("y", DType::kU32, call.in_shape("x"));
  return scan_scratch(n);
}

using Scan = void (*)(Context&, std::span<const uint32_t>, std::span<uint32_t>) noexcept;
template <Scan kScan>
void run_scan(Context& context, KernelCall& call) {
  kScan(context, call.in<uint32_t>("x"), call.out<uint32_t>("y"));
}

void example_scan(KernelCall& call, int64_t size, uint64_t seed) {
  const RandomStream stream(seed, stream_hash("x"));
  const auto x = call.add_input("x", DType::kU32, {size}).data.as<uint32_t>();
  for (int64_t i = 0; i < size; ++i) x[static_cast<size_t>(i)] = stream.word(static_cast<uint64_t>(i)) % 1000;
}

}  // namespace

std::span<const KernelInfo> scan_kernels() {
  static constexpr std::string_view kDomain = "scans";
  static constexpr KernelInfo kRows[] = {
      {"scan_exclusive", kDomain, "y[i] = x[0] + ... + x[i - 1], u32", bytes_of_x<8>, flops_of_x<0, 1>, prepare_scan,
       run_scan<scan_exclusive>, example_scan, "y=x"},
      {"scan_inclusive", kDomain, "y[i] = x[0] + ... + x[i], u32", bytes_of_x<8>, flops_of_x<0, 1>, prepare_scan,
       run_scan<scan_inclusive>, example_scan, "y=x"},
  };
  return kRows;
}

}  // namespace graft
