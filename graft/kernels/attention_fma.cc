#include "graft/kernels/attention_ref_inl.h"

namespace graft {

const AttentionTable& attention_fma() noexcept {
  static constexpr AttentionTable kTable = {{attention_plain<float, float>, attention_plain<float, f16>},
                                            attention_backward_plain<float>,
                                            {lay_keys, score_block}};
  return kTable;
}

}  // namespace graft
