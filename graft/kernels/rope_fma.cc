#include "graft/kernels/rope_ref_inl.h"

namespace graft {

RopeRowFunction rope_row_fma() noexcept { return rope_row_plain<float>; }

}  // namespace graft
