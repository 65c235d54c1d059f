// The loops of signal_table.h, one text for the scalar reference and for every vector target. No guard and no namespace: it is
// included inside the namespace of signal_ref_inl.h and of signal_simd.cc. They bring `hn`, RowTag and LaneTag with kRowLanes lanes and one,
//   load_pairs(d, from, re, im), store_pairs(d, re, im, to), turn(d, base, offsets), store_past(d, v, to), flush_past()

// f(tag, i) over n elements: vectors, then single lanes.
template <class F>
HWY_INLINE void over(int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + kRowLanes <= n; i += kRowLanes) f(RowTag(), i);
  for (; i < n; ++i) f(LaneTag(), i);
}

// kVectors vectors of outputs side by side: each waits for its own chain alone.
template <class D, size_t... I>
HWY_INLINE void correlate_block(D d, const float* x, const float* w, int64_t taps, float* y,
                                std::index_sequence<I...> /*vectors*/) {
  hn::Vec<D> sum[] = {((void)I, hn::Zero(d))...};
  for (int64_t k = 0; k < taps; ++k) {
    const auto tap = hn::Set(d, w[k]);
    ((sum[I] = hn::MulAdd(tap, hn::LoadU(d, x + k + static_cast<int64_t>(I) * kRowLanes), sum[I])), ...);
  }
  ((hn::StoreU(sum[I], d, y + static_cast<int64_t>(I) * kRowLanes)), ...);
}
void correlate(const float* x, const float* w, int64_t taps, float* y, int64_t n) noexcept {
  constexpr int64_t kVectors = 8;
  int64_t i = 0;
  for (; i + kVectors * kRowLanes <= n; i += kVectors * kRowLanes) {
    correlate_block(RowTag(), x + i, w, taps, y + i, std::make_index_sequence<kVectors>());
  }
  for (; i + kRowLanes <= n; i += kRowLanes) {
    correlate_block(RowTag(), x + i, w, taps, y + i, std::index_sequence<0>());
  }
  for (; i < n; ++i) correlate_block(LaneTag(), x + i, w, taps, y + i, std::index_sequence<0>());
}

// t: half the angle in half turns, n / D wrapped to [-1/2, 1/2). sin(pi t) = t (pi + p(t^2)), minimax (relative error 2^-27.5).
template <class D, class V>
HWY_INLINE V window_at(D d, const WindowShape& w, V t) {
  const V z = hn::Mul(t, t);
  V p = hn::MulAdd(hn::Set(d, 0x1.3daff6p-4f), z, hn::Set(d, -0x1.324ccap-1f));
  p = hn::MulAdd(p, z, hn::Set(d, 0x1.4668b0p+1f));
  p = hn::MulAdd(p, z, hn::Set(d, -0x1.4abbc2p+2f));
  p = hn::MulAdd(p, z, hn::Set(d, -0x1.bf2e0ep-24f));
  const V s = hn::MulAdd(t, hn::Set(d, 0x1.921fb6p+1f), hn::Mul(t, p));
  const V v = hn::Mul(s, s);
  return hn::MulAdd(v, hn::MulAdd(v, hn::Set(d, w.c2), hn::Set(d, w.c1)), hn::Set(d, w.c0));
}
void window(const WindowShape& w, int64_t first, const float* x, float* y, int64_t n, bool past) noexcept {
  const auto value = [&](auto d, int64_t i) HWY_ATTR {
    const int64_t inside = i % kWindowBlock;
    const auto base = static_cast<uint32_t>((static_cast<uint64_t>(first + i - inside) * w.step) >> 32);
    return hn::Mul(hn::LoadU(d, x + i), window_at(d, w, turn(d, base, w.offset + inside)));
  };
  int64_t i = 0;
  if (past && reinterpret_cast<uintptr_t>(y) % (sizeof(float) * kRowLanes) == 0) {
    for (; i + kRowLanes <= n; i += kRowLanes) store_past(RowTag(), value(RowTag(), i), y + i);
    flush_past();
  }
  for (; i + kRowLanes <= n; i += kRowLanes) hn::StoreU(value(RowTag(), i), RowTag(), y + i);
  for (; i < n; ++i) hn::StoreU(value(LaneTag(), i), LaneTag(), y + i);
}

void join(const float* a, const float* b, float* z, int64_t n) noexcept {
  over(n, [=](auto d, int64_t i) HWY_ATTR { store_pairs(d, hn::LoadU(d, a + i), hn::LoadU(d, b + i), z + 2 * i); });
}
void split(const float* z, float* a, float* b, int64_t n) noexcept {
  over(n, [=](auto d, int64_t i) HWY_ATTR {
    auto re = hn::Zero(d), im = re;
    load_pairs(d, z + 2 * i, re, im);
    hn::StoreU(re, d, a + i);
    hn::StoreU(im, d, b + i);
  });
}
void subtract(const float* x, float y, float* z, int64_t n) noexcept {
  over(n, [=](auto d, int64_t i) HWY_ATTR { hn::StoreU(hn::Sub(hn::LoadU(d, x + i), hn::Set(d, y)), d, z + i); });
}
void divide(const float* x, float y, float* z, int64_t n) noexcept {
  over(n, [=](auto d, int64_t i) HWY_ATTR { hn::StoreU(hn::Div(hn::LoadU(d, x + i), hn::Set(d, y)), d, z + i); });
}
