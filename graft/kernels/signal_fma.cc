#include "graft/kernels/signal_ref_inl.h"

namespace graft {

const SignalTable& signal_fma_ref() noexcept { return kTable; }

}  // namespace graft
