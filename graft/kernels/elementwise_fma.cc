#include "graft/kernels/elementwise_ref_inl.h"
#include "graft/kernels/elementwise_table.h"

namespace graft {

template <typename T>
const ElementwiseTable<T>& elementwise_fma() noexcept {
  static constexpr ElementwiseTable<T> kTable = {add_rows<T>, column_scale_rows<T>, column_scale_backward_columns<T>,
                                                 sum_rows_columns<T>, dropout_rows<T>};
  return kTable;
}
template const ElementwiseTable<float>& elementwise_fma<float>() noexcept;
template const ElementwiseTable<double>& elementwise_fma<double>() noexcept;

}  // namespace graft
