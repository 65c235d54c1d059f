#include "graft/kernels/rope_ref_inl.h"

namespace graft {

RopeRowFunction rope_row_reference() noexcept { return rope_row_plain<float>; }
void rope_row_double(const RopeRow<double>& row) noexcept { rope_row_plain(row); }

}  // namespace graft
