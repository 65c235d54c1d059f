#include "graft/kernels/softmax_ref_inl.h"

namespace graft {

const SoftmaxTable& softmax_ref() noexcept { return kTable; }

}  // namespace graft
