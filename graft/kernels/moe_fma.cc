#include "graft/kernels/moe_ref_inl.h"

namespace graft {

template <typename T>
const MoeRefTable<T>& moe_fma() noexcept {
  static constexpr MoeRefTable<T> kTable = {
      {scatter<T>, dot<T>, scale<T>}, choose<T>, route_backward<T>, product<T>, gradient<T>};
  return kTable;
}
template const MoeRefTable<float>& moe_fma<float>() noexcept;
template const MoeRefTable<double>& moe_fma<double>() noexcept;

}  // namespace graft
