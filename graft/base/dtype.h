#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace graft {

// The element types of safetensors, in the reference writer's order (its sort key, smallest first).
enum class DType : uint8_t {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3FNUZ,
  kF8E5M2FNUZ,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64
};

int64_t dtype_bits(DType dtype);                              // 1 element, in bits (4, 6, 8, …)
std::string_view dtype_name(DType dtype);                     // as safetensors writes it: "F32", "BF16", "F8_E4M3"
std::optional<DType> dtype_from_name(std::string_view name);  // the inverse; empty if unknown
bool dtype_is_float(DType dtype);                             // F4 … F64, not complex

}  // namespace graft
