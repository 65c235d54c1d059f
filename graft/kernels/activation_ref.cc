#include "graft/kernels/activation_ref_inl.h"
#include "graft/kernels/activation_table.h"

namespace graft {

template <typename T>
const ActivationTable<T>& activation_ref() noexcept {
  static constexpr ActivationTable<T> kTable = {swiglu_rows<T>, swiglu_backward_rows<T>};
  return kTable;
}
template const ActivationTable<float>& activation_ref<float>() noexcept;
template const ActivationTable<double>& activation_ref<double>() noexcept;

}  // namespace graft
