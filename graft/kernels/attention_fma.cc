#include "graft/kernels/attention_ref_inl.h"

namespace graft {

const AttentionTable& attention_fma() noexcept {
  static constexpr AttentionTable kTable = {attention_plain<float>, attention_backward_plain<float>};
  return kTable;
}

}  // namespace graft
