#include "graft/kernels/batch_norm_ref_inl.h"

namespace graft {

const BatchNormTable& batch_norm_fma() noexcept { return kTable; }

}  // namespace graft
