#include "graft/kernels/attention_ref_inl.h"

namespace graft {

const AttentionTable& attention_reference() noexcept {
  static constexpr AttentionTable kTable = {{attention_plain<float, float>, attention_plain<float, f16>},
                                            attention_backward_plain<float>,
                                            {lay_keys, score_block}};
  return kTable;
}

template <>
void attention(Context& context, const AttentionArgs<double>& args) noexcept {
  attention_plain(context, args);
}
template <>
void attention_backward<double>(Context& context, const AttentionBackwardArgs<double>& args) noexcept {
  attention_backward_plain(context, args);
}

}  // namespace graft
