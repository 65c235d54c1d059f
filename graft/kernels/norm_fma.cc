#include "graft/kernels/norm_ref_inl.h"
#include "graft/kernels/norm_table.h"

namespace graft {

template <typename T>
const NormTable<T>& norm_fma() noexcept {
  static constexpr NormTable<T> kTable = {rms_norm_rows<T>, rms_norm_backward_rows<T>, rms_norm_dweight_columns<T>};
  return kTable;
}
template const NormTable<float>& norm_fma<float>() noexcept;
template const NormTable<double>& norm_fma<double>() noexcept;

}  // namespace graft
