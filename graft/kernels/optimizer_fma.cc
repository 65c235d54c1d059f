#include "graft/kernels/optimizer_ref_inl.h"
#include "graft/kernels/optimizer_table.h"

namespace graft {

template <typename T>
const OptimizerTable<T>& optimizer_fma() noexcept {
  static constexpr OptimizerTable<T> kTable = {adamw_range<T>, sgd_range<T>, sum_squares_block<T>,
                                               first_non_finite_range<T>};
  return kTable;
}
template const OptimizerTable<float>& optimizer_fma<float>() noexcept;
template const OptimizerTable<double>& optimizer_fma<double>() noexcept;

}  // namespace graft
