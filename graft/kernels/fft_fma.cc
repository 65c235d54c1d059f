#include "graft/kernels/fft_ref_inl.h"

namespace graft {

const FftTable& fft_fma_ref() noexcept { return kTable; }

}  // namespace graft
