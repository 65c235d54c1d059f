#include "graft/kernels/linalg_ref_inl.h"

namespace graft {

const LinalgTable& linalg_ref() noexcept { return kTable; }

}  // namespace graft
