#include "graft/kernels/activation_table.h"
#include "graft/kernels/elementwise_table.h"
#include "graft/kernels/loss_table.h"
#include "graft/kernels/norm_table.h"
#include "graft/kernels/optimizer_table.h"

namespace graft {
const NormTable<float>* norm_simd() noexcept { return nullptr; }
const ActivationTable<float>* activation_simd() noexcept { return nullptr; }
const ElementwiseTable<float>* elementwise_simd() noexcept { return nullptr; }
const OptimizerTable<float>* optimizer_simd() noexcept { return nullptr; }
const LossTable<float>* loss_simd() noexcept { return nullptr; }
}  // namespace graft
