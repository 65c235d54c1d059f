#include "graft/kernels/norm_ref_inl.h"

namespace graft {

template <typename T>
const NormTable<T>& norm_ref() noexcept {
  return kTable<T>;
}
template const NormTable<float>& norm_ref<float>() noexcept;
template const NormTable<double>& norm_ref<double>() noexcept;

}  // namespace graft
