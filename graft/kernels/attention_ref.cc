#include "graft/kernels/attention_ref_inl.h"

namespace graft {

const AttentionTable& attention_reference() noexcept {
  static constexpr AttentionTable kTable = {attention_plain<float>, attention_backward_plain<float>};
  return kTable;
}

template <>
void attention<double>(Context& context, const AttentionArgs<double>& args) noexcept {
  attention_plain(context, args);
}
template <>
void attention_backward<double>(Context& context, const AttentionBackwardArgs<double>& args) noexcept {
  attention_backward_plain(context, args);
}

}  // namespace graft
