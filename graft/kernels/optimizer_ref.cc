#include "graft/kernels/optimizer_ref_inl.h"

namespace graft {

template <typename T>
const OptimizerTable<T>& optimizer_ref() noexcept {
  return kTable<T>;
}
template const OptimizerTable<float>& optimizer_ref<float>() noexcept;
template const OptimizerTable<double>& optimizer_ref<double>() noexcept;

}  // namespace graft
