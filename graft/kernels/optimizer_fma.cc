#include "graft/kernels/optimizer_ref_inl.h"

namespace graft {

template <typename T>
const OptimizerTable<T>& optimizer_fma() noexcept {
  return kTable<T>;
}
template const OptimizerTable<float>& optimizer_fma<float>() noexcept;
template const OptimizerTable<double>& optimizer_fma<double>() noexcept;

}  // namespace graft
