#include "graft/kernels/prng_ref_inl.h"

namespace graft {

const PrngTable& prng_fma_ref() noexcept { return kTable; }

}  // namespace graft
