#include "graft/kernels/weight.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "graft/base/error.h"
#include "graft/base/float16.h"
#include "graft/kernels/gemm_table.h"

namespace graft {
namespace {

constexpr int64_t kPanelRows = 64;     // rows a task packs: one 16-bit panel or two f32 panels
constexpr int64_t kChunkColumns = 64;  // columns converted at a time: the 64 x 64 block stays in L1

// Value of an 8-bit float with `mantissa` bits below a 7 - mantissa bit exponent.
float f8_value(uint8_t bits, int mantissa, int bias) {
  const int exponent = (bits & 0x7F) >> mantissa;
  const int fraction = bits & ((1 << mantissa) - 1);
  const float magnitude = exponent == 0
                              ? std::ldexp(static_cast<float>(fraction), 1 - bias - mantissa)
                              : std::ldexp(static_cast<float>(fraction + (1 << mantissa)), exponent - bias - mantissa);
  return (bits & 0x80) != 0 ? -magnitude : magnitude;
}

float f8_to_float(DType type, uint8_t bits) {
  const uint8_t low = bits & 0x7F;
  switch (type) {
    case DType::kF8E4M3:  // the "FN" variant: no infinity, NaN is all ones
      return low == 0x7F ? NAN : f8_value(bits, 3, 7);
    case DType::kF8E5M2:
      if (low > 0x7C) return NAN;
      if (low == 0x7C) return (bits & 0x80) != 0 ? -INFINITY : INFINITY;
      return f8_value(bits, 2, 15);
    case DType::kF8E4M3FNUZ: return bits == 0x80 ? NAN : f8_value(bits, 3, 8);
    case DType::kF8E5M2FNUZ: return bits == 0x80 ? NAN : f8_value(bits, 2, 16);
    default:  // kF8E8M0: powers of two
      return bits == 0xFF ? NAN : std::ldexp(1.0f, bits - 127);
  }
}

std::array<float, 256> f8_table(DType type) {
  std::array<float, 256> table;
  for (int i = 0; i < 256; ++i) table[static_cast<size_t>(i)] = f8_to_float(type, static_cast<uint8_t>(i));
  return table;
}

// Narrows by rounding to odd, so that a second rounding to 16 bits is still to nearest even of the original.
float to_odd_float(double x) {
  const float nearest = static_cast<float>(x);
  if (static_cast<double>(nearest) == x || std::isnan(x)) return nearest;
  auto bits = std::bit_cast<uint32_t>(nearest);
  if (std::fabs(static_cast<double>(nearest)) > std::fabs(x)) --bits;
  return std::bit_cast<float>(bits | 1u);
}

template <typename T>
T load(const std::byte* p) {  // sources lie anywhere in a file
  T value;
  std::memcpy(&value, p, sizeof(T));
  return value;
}

// Converts n elements to float or double; `odd` narrows f64 for a second rounding.
template <typename To>
void widen(DType type, const std::byte* p, int64_t n, bool odd, const std::array<float, 256>& f8, To* out) {
  switch (type) {
    case DType::kF64:
      for (int64_t i = 0; i < n; ++i) {
        const auto x = load<double>(p + 8 * i);
        out[i] = odd ? static_cast<To>(to_odd_float(x)) : static_cast<To>(x);
      }
      return;
    case DType::kF32:
      if constexpr (std::is_same_v<To, float>) {
        std::memcpy(out, p, static_cast<size_t>(n) * sizeof(float));
        return;
      }
      for (int64_t i = 0; i < n; ++i) out[i] = static_cast<To>(load<float>(p + 4 * i));
      return;
    case DType::kBF16:
      for (int64_t i = 0; i < n; ++i) out[i] = static_cast<To>(to_float(bf16{load<uint16_t>(p + 2 * i)}));
      return;
    case DType::kF16:
      for (int64_t i = 0; i < n; ++i) out[i] = static_cast<To>(to_float(f16{load<uint16_t>(p + 2 * i)}));
      return;
    default:
      for (int64_t i = 0; i < n; ++i) out[i] = static_cast<To>(f8[load<uint8_t>(p + i)]);
  }
}

bool packs_from(DType type) {
  switch (type) {
    case DType::kF64:
    case DType::kF32:
    case DType::kBF16:
    case DType::kF16:
    case DType::kF8E4M3:
    case DType::kF8E5M2:
    case DType::kF8E4M3FNUZ:
    case DType::kF8E5M2FNUZ:
    case DType::kF8E8M0: return true;
    default: return false;
  }
}

}  // namespace

size_t Weight::packed_bytes(DType type, int64_t out_features, int64_t in_features) {
  const auto out = static_cast<size_t>(out_features), in = static_cast<size_t>(in_features);
  switch (type) {
    case DType::kF32: return (out + 31) / 32 * 32 * in * sizeof(float);
    case DType::kBF16:
    case DType::kF16: return (out + 63) / 64 * 64 * ((in + 1) / 2) * 2 * sizeof(uint16_t);
    case DType::kF64: return out * in * sizeof(double);
    default: fail("weight of type {}: expected F32, BF16, F16 or F64", dtype_name(type));
  }
}

Weight::Weight(DType type, int64_t out_features, int64_t in_features)
    : type_(type),
      out_features_(out_features),
      in_features_(in_features),
      data_(packed_bytes(type, out_features, in_features)) {}

void Weight::pack_rows(Context& context, int64_t first_row, int64_t num_rows, DType source_type, const void* source) {
  GRAFT_CHECK(packs_from(source_type), "weight from {}: expected F64, F32, BF16, F16 or an 8-bit float",
              dtype_name(source_type));
  GRAFT_CHECK(first_row >= 0 && num_rows >= 0 && num_rows <= out_features_ - first_row,
              "pack_rows: rows {} to {} of {}", first_row, first_row + num_rows, out_features_);
  if (num_rows == 0 || in_features_ == 0) return;
  const auto* from = static_cast<const std::byte*>(source);
  const int64_t element = dtype_bits(source_type) / 8, in = in_features_;
  const bool is_f8 = element == 1;
  const std::array<float, 256> f8 = is_f8 ? f8_table(source_type) : std::array<float, 256>{};
  const GemmTable* const table = gemm_simd();  // null: plain loops
  const int64_t first_panel = first_row / kPanelRows, end_panel = (first_row + num_rows - 1) / kPanelRows + 1;

  if (type_ == DType::kF64) {
    auto* to = reinterpret_cast<double*>(data_.data());
    context.pool().parallel(num_rows, [&](int64_t row, int) {
      widen(source_type, from + row * in * element, in, false, f8, to + (first_row + row) * in);
    });
    return;
  }
  context.pool().parallel(end_panel - first_panel, [&](int64_t task, int) {
    const int64_t panel = first_panel + task;
    const int64_t begin = std::max(first_row, panel * kPanelRows),
                  end = std::min(first_row + num_rows, (panel + 1) * kPanelRows);
    union {
      float f32[kPanelRows][kChunkColumns];
      uint16_t u16[kPanelRows][kChunkColumns];
      uint32_t u32[kPanelRows][kChunkColumns / 2];
    } block;
    for (int64_t k0 = 0; k0 < in; k0 += kChunkColumns) {
      const int64_t n = std::min(kChunkColumns, in - k0);
      if (type_ == DType::kF32) {
        for (int64_t row = begin; row < end; ++row) {
          widen(source_type, from + ((row - first_row) * in + k0) * element, n, false, f8, block.f32[row - begin]);
        }
        auto* to = reinterpret_cast<float*>(data_.data());
        for (int64_t sub = begin; sub < end;) {  // the two 32-row panels
          const int64_t sub_end = std::min(end, (sub / 32 + 1) * 32);
          float* base = to + (sub / 32 * in + k0) * 32 + sub % 32;
          if (table != nullptr) {
            table->transpose_words(reinterpret_cast<const uint32_t*>(block.f32[sub - begin]), kChunkColumns,
                                   sub_end - sub, n, reinterpret_cast<uint32_t*>(base), 32);
            sub = sub_end;
            continue;
          }
          for (int64_t k = 0; k < n; ++k) {
            for (int64_t row = sub; row < sub_end; ++row) base[k * 32 + row - sub] = block.f32[row - begin][k];
          }
          sub = sub_end;
        }
        continue;
      }
      for (int64_t row = begin; row < end; ++row) {
        const std::byte* p = from + ((row - first_row) * in + k0) * element;
        uint16_t* line = block.u16[row - begin];
        if (source_type == type_) {
          std::memcpy(line, p, static_cast<size_t>(n) * 2);
        } else {
          float values[kChunkColumns];
          widen(source_type, p, n, true, f8, values);
          if (type_ == DType::kBF16 && table != nullptr) {
            table->round_bf16(values, n, line);
          } else {
            for (int64_t k = 0; k < n; ++k) {
              line[k] = type_ == DType::kBF16 ? to_bf16(values[k]).bits : to_f16(values[k]).bits;
            }
          }
        }
        if (n % 2 != 0) line[n] = 0;
      }
      auto* to = reinterpret_cast<uint32_t*>(data_.data()) + (panel * ((in + 1) / 2) + k0 / 2) * kPanelRows +
                 begin % kPanelRows;
      if (table != nullptr) {  // a pair is one word, low half first (little endian)
        table->transpose_words(block.u32[0], kChunkColumns / 2, end - begin, (n + 1) / 2, to, kPanelRows);
        continue;
      }
      for (int64_t pair = 0; pair < (n + 1) / 2; ++pair) {
        for (int64_t row = 0; row < end - begin; ++row) {
          to[pair * kPanelRows + row] = static_cast<uint32_t>(block.u16[row][2 * pair]) |
                                        static_cast<uint32_t>(block.u16[row][2 * pair + 1]) << 16;
        }
      }
    }
  });
}

void Weight::unpack_rows(Context& context, int64_t first_row, int64_t num_rows, float* rows) const {
  GRAFT_CHECK(first_row >= 0 && num_rows >= 0 && num_rows <= out_features_ - first_row,
              "unpack_rows: rows {} to {} of {}", first_row, first_row + num_rows, out_features_);
  const int64_t in = in_features_, pairs = (in + 1) / 2;
  const int64_t tasks = (num_rows + 15) / 16;
  context.pool().parallel(tasks, [&](int64_t task, int) {
    for (int64_t row = first_row + task * 16; row < std::min(first_row + num_rows, first_row + (task + 1) * 16);
         ++row) {
      float* out = rows + (row - first_row) * in;
      if (type_ == DType::kF32) {
        const float* p = reinterpret_cast<const float*>(data_.data()) + row / 32 * in * 32 + row % 32;
        for (int64_t k = 0; k < in; ++k) out[k] = p[k * 32];
      } else if (type_ == DType::kF64) {
        const double* p = reinterpret_cast<const double*>(data_.data()) + row * in;
        for (int64_t k = 0; k < in; ++k) out[k] = static_cast<float>(p[k]);
      } else {
        const uint16_t* p = reinterpret_cast<const uint16_t*>(data_.data()) + (row / 64 * pairs * 64 + row % 64) * 2;
        for (int64_t k = 0; k < in; ++k) {
          const uint16_t bits = p[k / 2 * 128 + k % 2];
          out[k] = type_ == DType::kBF16 ? to_float(bf16{bits}) : to_float(f16{bits});
        }
      }
    }
  });
}

}  // namespace graft
