#include "graft/kernels/softmax_ref_inl.h"

namespace graft {

const SoftmaxTable& softmax_fma() noexcept { return kTable; }

}  // namespace graft
