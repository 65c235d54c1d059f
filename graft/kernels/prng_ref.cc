#include "graft/kernels/prng_ref_inl.h"

namespace graft {

const PrngTable& prng_ref() noexcept { return kTable; }

}  // namespace graft
