#include "graft/kernels/fft_ref_inl.h"

namespace graft {

const FftTable& fft_ref() noexcept { return kTable; }

}  // namespace graft
