#include "graft/kernels/correlation_ref_inl.h"

namespace graft {

const CorrelationTable& correlation_ref() noexcept { return kTable; }

}  // namespace graft
