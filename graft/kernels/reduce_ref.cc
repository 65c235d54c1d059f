#include "graft/kernels/reduce_kernels_ref_inl.h"

namespace graft {

const ReduceTable& reduce_ref() noexcept { return kTable; }

}  // namespace graft
