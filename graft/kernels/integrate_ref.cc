#include "graft/kernels/integrate_ref_inl.h"

namespace graft {

const IntegrateTable& integrate_ref() noexcept { return kTable; }

}  // namespace graft
