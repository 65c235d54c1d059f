#include "graft/kernels/norm_ref_inl.h"

namespace graft {

template <typename T>
const NormTable<T>& norm_fma() noexcept {
  return kTable<T>;
}
template const NormTable<float>& norm_fma<float>() noexcept;
template const NormTable<double>& norm_fma<double>() noexcept;

}  // namespace graft
