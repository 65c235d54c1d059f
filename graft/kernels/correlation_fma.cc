#include "graft/kernels/correlation_ref_inl.h"

namespace graft {

const CorrelationTable& correlation_fma_ref() noexcept { return kTable; }

}  // namespace graft
