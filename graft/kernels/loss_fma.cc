#include "graft/kernels/loss_ref_inl.h"
#include "graft/kernels/loss_table.h"

namespace graft {

template <typename T>
const LossTable<T>& loss_fma() noexcept {
  static constexpr LossTable<T> kTable = {softmax_sums<T>, sum_logits<T>, softmax_gradient<T>};
  return kTable;
}
template const LossTable<float>& loss_fma<float>() noexcept;
template const LossTable<double>& loss_fma<double>() noexcept;

}  // namespace graft
