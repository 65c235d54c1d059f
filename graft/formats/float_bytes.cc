// Conversions between the element types of files and f32.
#include <array>
#include <cmath>
#include <cstring>
#include <limits>

#include "graft/base/error.h"
#include "graft/base/float16.h"
#include "graft/formats/safetensors.h"

namespace graft {
namespace {

template <typename T, typename Convert>
void widen(std::span<const std::byte> bytes, float* out, Convert convert) {
  const size_t n = bytes.size() / sizeof(T);
  const std::byte* from = bytes.data();
  for (size_t i = 0; i < n; ++i) {
    T value;
    std::memcpy(&value, from + i * sizeof(T), sizeof(T));  // file data are not aligned
    out[i] = convert(value);
  }
}

// A float of 1 sign, `exponent_bits` and `mantissa_bits`, without special codes: the caller patches those.
float small_float(uint32_t code, int exponent_bits, int mantissa_bits, int bias) {
  const uint32_t mantissa = code & ((1u << mantissa_bits) - 1);
  const auto exponent = static_cast<int>((code >> mantissa_bits) & ((1u << exponent_bits) - 1));
  const double scale = 1.0 / (1 << mantissa_bits);
  const double value =
      exponent == 0 ? std::ldexp(mantissa * scale, 1 - bias) : std::ldexp(1 + mantissa * scale, exponent - bias);
  return static_cast<float>((code >> (exponent_bits + mantissa_bits)) & 1u ? -value : value);
}

using Table = std::array<float, 256>;

Table make_table(DType dtype) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
  Table table{};
  for (uint32_t code = 0; code < 256; ++code) {
    float value = 0;
    switch (dtype) {
      case DType::kF8E4M3: value = (code & 0x7F) == 0x7F ? kNan : small_float(code, 4, 3, 7); break;
      case DType::kF8E5M2:
        value = (code & 0x7C) != 0x7C ? small_float(code, 5, 2, 15)
                : (code & 3) != 0     ? kNan
                : (code & 0x80) != 0  ? -kInf
                                      : kInf;
        break;
      case DType::kF8E4M3FNUZ: value = code == 0x80 ? kNan : small_float(code, 4, 3, 8); break;
      case DType::kF8E5M2FNUZ: value = code == 0x80 ? kNan : small_float(code, 5, 2, 16); break;
      case DType::kF8E8M0:
        value = code == 0xFF ? kNan : static_cast<float>(std::ldexp(1.0, static_cast<int>(code) - 127));
        break;
      default: value = small_float(code & 0xF, 2, 1, 1); break;  // F4 E2M1
    }
    table[code] = value;
  }
  return table;
}

const Table& table_of(DType dtype) {
  static const Table e4m3 = make_table(DType::kF8E4M3), e5m2 = make_table(DType::kF8E5M2),
                     e4m3fnuz = make_table(DType::kF8E4M3FNUZ), e5m2fnuz = make_table(DType::kF8E5M2FNUZ),
                     e8m0 = make_table(DType::kF8E8M0), f4 = make_table(DType::kF4);
  switch (dtype) {
    case DType::kF8E4M3: return e4m3;
    case DType::kF8E5M2: return e5m2;
    case DType::kF8E4M3FNUZ: return e4m3fnuz;
    case DType::kF8E5M2FNUZ: return e5m2fnuz;
    case DType::kF8E8M0: return e8m0;
    default: return f4;
  }
}

}  // namespace

void read_as_f32(std::span<const std::byte> bytes, DType dtype, float* out, std::string_view where) {
  switch (dtype) {
    case DType::kF32:
      if (!bytes.empty()) std::memcpy(out, bytes.data(), bytes.size());
      return;
    case DType::kF64: return widen<double>(bytes, out, [](double x) { return static_cast<float>(x); });
    case DType::kBF16: return widen<bf16>(bytes, out, [](bf16 x) { return to_float(x); });
    case DType::kF16: return widen<f16>(bytes, out, [](f16 x) { return to_float(x); });
    case DType::kF8E4M3:
    case DType::kF8E5M2:
    case DType::kF8E4M3FNUZ:
    case DType::kF8E5M2FNUZ:
    case DType::kF8E8M0: {
      const Table& table = table_of(dtype);
      return widen<uint8_t>(bytes, out, [&](uint8_t x) { return table[x]; });
    }
    case DType::kF4: {
      const Table& table = table_of(dtype);
      for (size_t i = 0; i < bytes.size(); ++i) {
        out[2 * i] = table[static_cast<uint8_t>(bytes[i]) & 0xF];
        out[2 * i + 1] = table[static_cast<uint8_t>(bytes[i]) >> 4];
      }
      return;
    }
    default: fail("{} is {}, expected floating point (F32, BF16, F16, F64 or F8)", where, dtype_name(dtype));
  }
}

void write_from_f32(const float* values, int64_t n, DType dtype, std::byte* out) {
  const auto store = [&]<typename T>(auto convert, T) {
    for (int64_t i = 0; i < n; ++i) {
      const T value = convert(values[i]);
      std::memcpy(out + i * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
    }
  };
  switch (dtype) {
    case DType::kF32:
      if (n > 0) std::memcpy(out, values, static_cast<size_t>(n) * sizeof(float));
      return;
    case DType::kBF16: return store([](float x) { return to_bf16(x); }, bf16{});
    case DType::kF16: return store([](float x) { return to_f16(x); }, f16{});
    case DType::kF64: return store([](float x) { return static_cast<double>(x); }, double{});
    default: fail("cannot write f32 values as {}, expected F32, BF16, F16 or F64", dtype_name(dtype));
  }
}

}  // namespace graft
