#include "graft/kernels/linalg_ref_inl.h"

namespace graft {

const LinalgTable& linalg_fma_ref() noexcept { return kTable; }

}  // namespace graft
