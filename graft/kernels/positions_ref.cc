#include "graft/kernels/positions_ref_inl.h"

namespace graft {

const PositionsTable& positions_ref() noexcept { return kTable; }

}  // namespace graft
