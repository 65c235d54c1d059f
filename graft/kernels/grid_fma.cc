#include "graft/kernels/grid_ref_inl.h"

namespace graft {

const GridTable& grid_fma_ref() noexcept { return kTable; }

}  // namespace graft
