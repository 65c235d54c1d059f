#include "graft/kernels/gemm_blocks.h"

#include <cassert>
#include <cstring>

#include "graft/base/cpu.h"
#include "graft/base/float16.h"

namespace graft {
namespace blocked {

void round_to_bf16(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = to_float(to_bf16(x[i]));
}

// f32 panels are multiplied where they lie, and the hardware follows them well.
Ahead ahead_nt(const Operand<float>& w, int64_t o0, int64_t k0, int64_t n) {
  if (!is_16_bit(w) || o0 >= w.out_features()) return {};
  return {pairs_at(*w.weight, o0 / kGemmPanel, k0 / 2), 1, n * 128, 0};
}
Ahead ahead_nn(const Operand<float>& w, int64_t o0, int64_t n, int64_t k0, int64_t count) {
  if (w.weight == nullptr || k0 >= w.in_features()) return {};
  const int64_t in = w.weight->in_features();
  if (w.weight->type() == DType::kF32) {
    return {static_cast<const float*>(w.weight->data()) + o0 * in + k0 * 32, ceil_div(n, 32), count * 128, in * 128};
  }
  return {pairs_at(*w.weight, o0 / kGemmPanel, k0 / 2), ceil_div(n, kGemmPanel), (count + 1) / 2 * 256,
          (in + 1) / 2 * 256};
}

Block block_nt(const GemmTable& table, const Operand<float>& w, int64_t o0, int64_t count, int64_t k0, int64_t n,
               bool rounded, float* scratch, int64_t stride) {
  const Block in_scratch = {scratch, w.weight == nullptr ? stride : kGemmPanel, 32};
  if (w.weight == nullptr) {
    const float* rows = w.rows.data() + o0 * w.rows.stride(0) + k0 * w.rows.stride(1);
    if (w.rows.stride(1) == 1) {
      table.transpose_rows(rows, w.rows.stride(0), count, n, scratch, stride);
    } else {
      for (int64_t k = 0; k < n; ++k) {
        for (int64_t j = 0; j < count; ++j) scratch[k * stride + j] = rows[j * w.rows.stride(0) + k * w.rows.stride(1)];
      }
    }
  } else if (w.weight->type() == DType::kF32) {
    const int64_t half = w.weight->in_features() * 32;
    const float* panel = static_cast<const float*>(w.weight->data()) + o0 / 32 * half + k0 * 32;
    if (!rounded) return {panel, 32, half};
    for (int64_t k = 0; k < n; ++k) {
      std::memcpy(scratch + k * kGemmPanel, panel + k * 32, 128);
      if (count > 32) std::memcpy(scratch + k * kGemmPanel + 32, panel + half + k * 32, 128);
    }
  } else {
    const bool is_bf16 = w.weight->type() == DType::kBF16;
    table.widen(is_bf16, pairs_at(*w.weight, o0 / kGemmPanel, k0 / 2), n, scratch);
    rounded = rounded && !is_bf16;
  }
  if (rounded) round_to_bf16(scratch, n * in_scratch.stride);
  return in_scratch;
}

void block_nn(const GemmTable& table, const Operand<float>& w, int64_t o0, int64_t n, int64_t k0, int64_t count,
              bool rounded, float* scratch) {
  if (w.weight == nullptr) {
    for (int64_t o = 0; o < n; ++o) {
      const float* row = w.rows.data() + (o0 + o) * w.rows.stride(0) + k0 * w.rows.stride(1);
      float* to = scratch + o * kGemmPanel;
      if (w.rows.stride(1) == 1) {
        std::memcpy(to, row, static_cast<size_t>(count) * sizeof(float));
      } else {
        for (int64_t k = 0; k < count; ++k) to[k] = row[k * w.rows.stride(1)];
      }
    }
  } else if (w.weight->type() == DType::kF32) {
    const int64_t in = w.weight->in_features();
    for (int64_t o = 0; o < n; o += 32) {
      const float* panel = static_cast<const float*>(w.weight->data()) + (o0 + o) / 32 * in * 32 + k0 * 32;
      table.transpose_f32(panel, std::min<int64_t>(32, n - o), count, scratch + o * kGemmPanel);
    }
  } else {
    const bool is_bf16 = w.weight->type() == DType::kBF16;
    for (int64_t o = 0; o < n; o += kGemmPanel) {
      table.transpose_pairs(is_bf16, pairs_at(*w.weight, (o0 + o) / kGemmPanel, k0 / 2), std::min(kGemmPanel, n - o),
                            (count + 1) / 2, scratch + o * kGemmPanel);
    }
    rounded = rounded && !is_bf16;
  }
  if (rounded) round_to_bf16(scratch, n * kGemmPanel);
}

Block place_nn(const GemmTable& table, const Operand<float>& w, int64_t o0, int64_t n, int64_t k0, int64_t count,
               bool rounded, float* scratch) {
  // Rows of a wide matrix lie far apart: in few L1 sets, perhaps. A handful does no harm.
  if (w.weight == nullptr && !rounded && w.rows.stride(1) == 1 && count % 8 == 0 &&
      (n <= 16 || w.rows.stride(0) == count)) {
    return {w.rows.row(o0) + k0, w.rows.stride(0), 32};
  }
  block_nn(table, w, o0, n, k0, count, rounded, scratch);
  return {scratch, kGemmPanel, 32};
}

void pack_f32(Context& context, View<const float, 2> x, int64_t row_begin, int64_t rows, bool rounded, int64_t stride) {
  float* const packed = context.shared<float>();
  const int64_t in = x.extent(1);
  context.pool().parallel(ceil_div(rows, 16), [&](int64_t task, int) {
    for (int64_t t = task * 16; t < std::min(rows, task * 16 + 16); ++t) {
      std::copy_n(x.row(row_begin + t), in, packed + t * stride);
      if (rounded) round_to_bf16(packed + t * stride, in);
    }
  });
}

void pack_pairs(Context& context, const DotTable& dot, View<const float, 2> x, int64_t row_begin, int64_t rows,
                int64_t stride) {
  auto* const packed = context.shared<uint16_t>();
  const int64_t in = x.extent(1);
  context.pool().parallel(ceil_div(rows, 16), [&](int64_t task, int) {
    for (int64_t t = task * 16; t < std::min(rows, task * 16 + 16); ++t) {
      uint16_t* to = packed + t * 2 * stride;
      dot.round_row(x.row(row_begin + t), in, to);
      std::fill(to + in, to + 2 * stride, uint16_t{0});
    }
  });
}

const DotTable* dot_table(Compute compute) {
  if (compute != Compute::kBF16) return nullptr;
  switch (cpu_level()) {
    case CpuLevel::kAmx: return gemm_amx();
    case CpuLevel::kAvx512Bf16: return gemm_avx512bf16();
    default: return nullptr;
  }
}

bool enough_scratch(Context& context, int64_t rows, int64_t summed, int64_t outputs) {
  const ScratchNeed need = matmul_scratch(context.num_threads(), rows, summed, outputs), have = context.reserved();
  const bool enough = have.shared >= need.shared && have.per_worker >= need.per_worker;
  assert(enough && "Context::reserve(matmul_scratch(...)) is missing");
  return enough;
}

}  // namespace blocked

ScratchNeed matmul_scratch(int, int64_t rows, int64_t in_features, int64_t out_features) {
  const int64_t row_bytes =
      blocked::packed_row_bytes(std::max(in_features, out_features) * static_cast<int64_t>(sizeof(float)));
  const int64_t shared =
      std::min(rows * row_bytes, std::max(blocked::kPackBytes, blocked::kLeastPackedRows * row_bytes));
  const int64_t row_block =
      std::min(blocked::kMaxRowBlock,
               std::max<int64_t>(5 * kGemmTileRows, blocked::ceil_div(rows, kGemmTileRows) * kGemmTileRows));
  return {static_cast<size_t>(shared), static_cast<size_t>((2 * blocked::kBlockFloats + row_block * kGemmPanel) * 4)};
}

}  // namespace graft
