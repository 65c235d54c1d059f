#include "graft/kernels/map_ref_inl.h"

namespace graft {

const MapTable& map_fma_ref() noexcept { return kTable; }

}  // namespace graft
