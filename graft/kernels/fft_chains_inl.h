// The transforms of fft_table.h, one text for the scalar reference and for every vector target. No guard and no namespace: it is
// included inside the namespace of fft_ref_inl.h and of fft_simd.cc. They bring `hn`, RowTag and LaneTag with kRowLanes lanes and one, and
//   load_pairs(d, from, &re, &im), store_pairs(d, re, im, to)   interleaved complex numbers
//   store_columns(d, a, b, c, e, to, stride)                    to[stride l + 0 ... 3] = lane l of a, b, c, e
//   reverse(d, v)

template <class V>
struct Complex {
  HWY_INLINE Complex() {
  }  // written out: an implicit one lies outside the target's region, where NEON's vectors cannot be made
  HWY_INLINE Complex(V real, V imaginary) : re(real), im(imaginary) {}
  V re, im;
};

template <class V>
HWY_INLINE Complex<V> operator+(Complex<V> a, Complex<V> b) {
  return {hn::Add(a.re, b.re), hn::Add(a.im, b.im)};
}
template <class V>
HWY_INLINE Complex<V> operator-(Complex<V> a, Complex<V> b) {
  return {hn::Sub(a.re, b.re), hn::Sub(a.im, b.im)};
}
template <class V>
HWY_INLINE Complex<V> operator*(Complex<V> a, Complex<V> w) {
  return {hn::MulSub(a.re, w.re, hn::Mul(a.im, w.im)), hn::MulAdd(a.re, w.im, hn::Mul(a.im, w.re))};
}
template <class D, class V = hn::Vec<D>>
HWY_INLINE Complex<V> broadcast(D d, const float* w) {
  return {hn::Set(d, w[0]), hn::Set(d, w[1])};
}

// The four-point transform of a, b, c, e: in place, output j in the j-th.
template <class V>
HWY_INLINE void butterfly4(Complex<V>& a, Complex<V>& b, Complex<V>& c, Complex<V>& e) {
  const Complex<V> s = a + c, t = a - c, u = b + e, v = b - e;
  a = s + u;
  c = s - u;
  b = {hn::Add(t.re, v.im), hn::Sub(t.im, v.re)};  // t - i v
  e = {hn::Sub(t.re, v.im), hn::Add(t.im, v.re)};
}

// One butterfly of radix 2, 4 or 8. source(k) gives input k, sink(j, y) takes output j before its twiddle.
template <int kRadix, class D, class Source, class Sink>
HWY_INLINE void butterfly(D d, const Source& source, const Sink& sink) {
  using V = hn::Vec<D>;
  if constexpr (kRadix == 2) {
    const Complex<V> a = source(0), b = source(1);
    sink(0, a + b);
    sink(1, a - b);
  } else if constexpr (kRadix == 4) {
    Complex<V> a = source(0), b = source(1), c = source(2), e = source(3);
    butterfly4(a, b, c, e);
    sink(0, a);
    sink(1, b);
    sink(2, c);
    sink(3, e);
  } else {
    Complex<V> a0 = source(0), a1 = source(2), a2 = source(4), a3 = source(6);
    butterfly4(a0, a1, a2, a3);
    Complex<V> b0 = source(1), b1 = source(3), b2 = source(5), b3 = source(7);
    butterfly4(b0, b1, b2, b3);
    const V h = hn::Set(d, 0x1.6a09e6p-1f);  // sqrt(1/2): W_8 = h (1 - i), W_8^3 = h (-1 - i)
    sink(0, a0 + b0);
    sink(4, a0 - b0);
    const V s1 = hn::Add(b1.re, b1.im), d1 = hn::Sub(b1.im, b1.re);
    sink(1, Complex<V>{hn::MulAdd(h, s1, a1.re), hn::MulAdd(h, d1, a1.im)});
    sink(5, Complex<V>{hn::NegMulAdd(h, s1, a1.re), hn::NegMulAdd(h, d1, a1.im)});
    sink(2, Complex<V>{hn::Add(a2.re, b2.im), hn::Sub(a2.im, b2.re)});
    sink(6, Complex<V>{hn::Sub(a2.re, b2.im), hn::Add(a2.im, b2.re)});
    const V s3 = hn::Add(b3.re, b3.im), d3 = hn::Sub(b3.im, b3.re);
    sink(3, Complex<V>{hn::MulAdd(h, d3, a3.re), hn::NegMulAdd(h, s3, a3.im)});
    sink(7, Complex<V>{hn::NegMulAdd(h, d3, a3.re), hn::MulAdd(h, s3, a3.im)});
  }
}

// A pass (FftPasses): source(i) gives element i, sink(i, y) takes it.
template <int kRadix, bool kTwiddle, class D, class Source, class Sink>
HWY_INLINE void pass(D d, const FftPasses::Pass& f, const Source& source, const Sink& sink) {
  const int64_t m = f.m, s = f.stride;
  const float* w = f.twiddles;
  for (int64_t p = 0; p < m; ++p, w += 2 * (kRadix - 1)) {
    for (int64_t q = 0; q < s; ++q) {
      butterfly<kRadix>(
          d, [&](int64_t k) HWY_ATTR { return source(q + s * (p + m * k)); },
          [&](int64_t j, auto y) HWY_ATTR {
            if constexpr (kTwiddle) {
              sink(q + s * (kRadix * p + j), j == 0 ? y : y * broadcast(d, w + 2 * (j - 1)));
            } else {
              sink(q + s * (kRadix * p + j), y);
            }
          });
    }
  }
}

// Elements as vectors of their real parts and of their imaginary parts `im` floats after, `pitch` floats from one to the next.
struct Split {
  float* at;
  int64_t pitch, im;
};
template <class D>
struct SplitSource {
  D d;
  const float* at;
  int64_t pitch, im;
  HWY_INLINE Complex<hn::Vec<D>> operator()(int64_t i) const {
    return {hn::LoadU(d, at + i * pitch), hn::LoadU(d, at + i * pitch + im)};
  }
};
template <class D>
struct SplitSink {
  D d;
  float* at;
  int64_t pitch, im;
  HWY_INLINE void operator()(int64_t i, Complex<hn::Vec<D>> y) const {
    hn::StoreU(y.re, d, at + i * pitch);
    hn::StoreU(y.im, d, at + i * pitch + im);
  }
};

template <int kRadix, bool kTwiddle, class D>
HWY_NOINLINE void split_pass(D d, const FftPasses::Pass& f, Split from, Split to) {
  pass<kRadix, kTwiddle>(d, f, SplitSource<D>{d, from.at, from.pitch, from.im},
                         SplitSink<D>{d, to.at, to.pitch, to.im});
}
template <class D>
HWY_INLINE void any_split_pass(D d, const FftPasses::Pass& f, Split from, Split to) {
  if (f.radix == 8) {
    f.m > 1 ? split_pass<8, true>(d, f, from, to) : split_pass<8, false>(d, f, from, to);
  } else if (f.radix == 4) {
    f.m > 1 ? split_pass<4, true>(d, f, from, to) : split_pass<4, false>(d, f, from, to);
  } else {
    split_pass<2, false>(d, f, from, to);
  }
}

void direct(const FftPasses& f, const float* x, float* y, float* scratch, bool inverse, float scale) noexcept {
  const LaneTag d;
  // Where the parts change places, the real part is one float on and the imaginary part before it.
  const int64_t skip = inverse ? 1 : 0, im = inverse ? -1 : 1;
  Split from = {const_cast<float*>(x) + skip, 2, im};  // only read
  for (int i = 0; i < f.count; ++i) {
    const bool last = i + 1 == f.count;
    const Split to = last ? Split{y + skip, 2, im} : Split{scratch + (i % 2) * 2 * f.n, 2, 1};
    any_split_pass(d, f.passes[i], from, to);
    from = to;
  }
  if (inverse) {
    for (int64_t i = 0; i < 2 * f.n; ++i) y[i] = y[i] * scale;
  }
}

// All passes between the first and the last: from buffer 0 of the scratch into the one returned.
template <class D>
HWY_INLINE const float* inner_passes(D d, const FftPasses& f, float* scratch) {
  constexpr int64_t kPitch = 2 * kRowLanes;
  float* from = scratch;
  float* to = scratch + f.n * kPitch;
  for (int i = 1; i + 1 < f.count; ++i) {
    any_split_pass(d, f.passes[i], Split{from, kPitch, kRowLanes}, Split{to, kPitch, kRowLanes});
    float* const swap = from;
    from = to;
    to = swap;
  }
  return from;
}

template <int kRadix, bool kInverse, class D>
HWY_NOINLINE void first_of_columns(D d, const FftPasses::Pass& f, const float* x, int64_t pitch, float* to) {
  const auto source = [=](int64_t i) HWY_ATTR {
    Complex<hn::Vec<D>> v;
    load_pairs(d, x + i * pitch, kInverse ? v.im : v.re, kInverse ? v.re : v.im);
    return v;
  };
  pass<kRadix, true>(d, f, source, SplitSink<D>{d, to, 2 * kRowLanes, kRowLanes});
}

// The last pass of kRowLanes columns from `column` on: output k times W_N^(column k), transposed into tmp. Four outputs at a time.
template <int kRadix, class D>
HWY_NOINLINE void last_of_columns(D d, const FftTables& f, const FftPasses::Pass& last, const float* from,
                                  int64_t column, float* tmp) {
  using V = hn::Vec<D>;
  constexpr int64_t kRows = 4, kPitch = 2 * kRowLanes;
  HWY_ALIGN float stage[kRadix * kRows * kPitch];
  const SplitSource<D> source = {d, from, kPitch, kRowLanes};
  const float* block = f.block.as<float>().data() + column / kFftLanes * 2 * f.n1;
  const float* lane = f.lane.as<float>().data() + column % kFftLanes;
  const int64_t s = last.stride;
  for (int64_t q = 0; q < s; q += kRows) {
    for (int64_t i = 0; i < kRows; ++i) {
      const SplitSink<D> sink = {d, stage + i * kPitch, kRows * kPitch, kRowLanes};
      butterfly<kRadix>(
          d, [&](int64_t k) HWY_ATTR { return source(q + i + s * k); }, sink);
    }
    for (int64_t j = 0; j < kRadix; ++j) {
      const int64_t k = q + s * j;
      const SplitSource<D> row = {d, stage + j * kRows * kPitch, kPitch, kRowLanes};
      const SplitSource<D> factor = {d, lane + k * 2 * kFftLanes, 2 * kFftLanes, kFftLanes};
      const auto output = [&](int64_t i) HWY_ATTR { return row(i) * (factor(i) * broadcast(d, block + 2 * (k + i))); };
      const Complex<V> a = output(0), b = output(1), c = output(2), e = output(3);
      float* to = tmp + ((k / kFftLanes) * f.n2 + column) * 2 * kFftLanes + k % kFftLanes;
      store_columns(d, a.re, b.re, c.re, e.re, to, 2 * kFftLanes);
      store_columns(d, a.im, b.im, c.im, e.im, to + kFftLanes, 2 * kFftLanes);
    }
  }
}

void columns(const FftTables& f, int64_t b, const float* x, float* tmp, float* scratch, bool inverse) noexcept {
  const RowTag d;
  const FftPasses& passes = f.first;
  const FftPasses::Pass &first = passes.passes[0], &last = passes.passes[passes.count - 1];
  for (int64_t column = b * kFftLanes; column < (b + 1) * kFftLanes; column += kRowLanes) {
    const float* from = x + 2 * column;
    if (first.radix == 8) {
      inverse ? first_of_columns<8, true>(d, first, from, 2 * f.n2, scratch)
              : first_of_columns<8, false>(d, first, from, 2 * f.n2, scratch);
    } else {
      inverse ? first_of_columns<4, true>(d, first, from, 2 * f.n2, scratch)
              : first_of_columns<4, false>(d, first, from, 2 * f.n2, scratch);
    }
    const float* done = inner_passes(d, passes, scratch);
    last.radix == 8 ? last_of_columns<8>(d, f, last, done, column, tmp)
                    : last_of_columns<4>(d, f, last, done, column, tmp);
  }
}

template <int kRadix, bool kInverse, class D>
HWY_NOINLINE void last_of_rows(D d, const FftPasses::Pass& f, const float* from, float* y, int64_t pitch, float scale) {
  const auto sink = [=](int64_t i, Complex<hn::Vec<D>> v) HWY_ATTR {
    if constexpr (kInverse) {
      const auto factor = hn::Set(d, scale);
      store_pairs(d, hn::Mul(v.im, factor), hn::Mul(v.re, factor), y + i * pitch);
    } else {
      store_pairs(d, v.re, v.im, y + i * pitch);
    }
  };
  pass<kRadix, false>(d, f, SplitSource<D>{d, from, 2 * kRowLanes, kRowLanes}, sink);
}

void rows(const FftTables& f, int64_t b, const float* tmp, float* y, float* scratch, bool inverse,
          float scale) noexcept {
  const RowTag d;
  const FftPasses& passes = f.second;
  const FftPasses::Pass& last = passes.passes[passes.count - 1];
  for (int64_t lane = 0; lane < kFftLanes; lane += kRowLanes) {
    float* from = const_cast<float*>(tmp) + b * f.n2 * 2 * kFftLanes + lane;  // only read
    any_split_pass(d, passes.passes[0], Split{from, 2 * kFftLanes, kFftLanes},
                   Split{scratch, 2 * kRowLanes, kRowLanes});
    const float* done = inner_passes(d, passes, scratch);
    float* to = y + 2 * (b * kFftLanes + lane);
    if (last.radix == 8) {
      inverse ? last_of_rows<8, true>(d, last, done, to, 2 * f.n1, scale)
              : last_of_rows<8, false>(d, last, done, to, 2 * f.n1, scale);
    } else {
      inverse ? last_of_rows<4, true>(d, last, done, to, 2 * f.n1, scale)
              : last_of_rows<4, false>(d, last, done, to, 2 * f.n1, scale);
    }
  }
}

// f(tag, i) over n elements: vectors, then single lanes.
template <class F>
HWY_INLINE void over(int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + kRowLanes <= n; i += kRowLanes) f(RowTag(), i);
  for (; i < n; ++i) f(LaneTag(), i);
}
template <class D, class V = hn::Vec<D>>
HWY_INLINE Complex<V> pairs_at(D d, const float* from) {
  Complex<V> v;
  load_pairs(d, from, v.re, v.im);
  return v;
}

void multiply(const float* a, const float* b, float* y, int64_t n, bool conjugate) noexcept {
  over(n, [=](auto d, int64_t i) HWY_ATTR {
    auto w = pairs_at(d, b + 2 * i);
    if (conjugate) w.im = hn::Neg(w.im);
    const auto v = pairs_at(d, a + 2 * i) * w;
    store_pairs(d, v.re, v.im, y + 2 * i);
  });
}

// f(tag, k, v, u) -> {v, u} for the pairs v = y[k], u = conj y[n - k]; where both meet (2 k = n) they are one element.
template <class F>
HWY_INLINE void for_pairs(float* y, int64_t n, int64_t begin, int64_t end, const F& f) {
  const auto step = [=](auto d, int64_t k, int64_t lanes) HWY_ATTR {
    auto v = pairs_at(d, y + 2 * k), u = pairs_at(d, y + 2 * (n - k - lanes + 1));
    u = {reverse(d, u.re), hn::Neg(reverse(d, u.im))};
    f(d, k, v, u);
    u = {reverse(d, u.re), hn::Neg(reverse(d, u.im))};
    store_pairs(d, u.re, u.im, y + 2 * (n - k - lanes + 1));
    store_pairs(d, v.re, v.im, y + 2 * k);
  };
  int64_t k = begin;
  for (; k + kRowLanes <= end && k + kRowLanes - 1 < n - k - kRowLanes + 1; k += kRowLanes)
    step(RowTag(), k, kRowLanes);
  for (; k < end; ++k) step(LaneTag(), k, int64_t{1});
}

// With Z the transform of the signal's even samples plus i times the odd ones: X[k] = S + T, conj X[N/2 - k] = S - T, S = (v + u) / 2,
// T = w (v - u).
template <class D, class V>
HWY_INLINE void from_half(D d, const float* w, int64_t k, Complex<V>& v, Complex<V>& u) {
  const V half = hn::Set(d, 0.5f);
  const Complex<V> sum = v + u, t = (v - u) * pairs_at(d, w + 2 * k);
  v = {hn::MulAdd(half, sum.re, t.re), hn::MulAdd(half, sum.im, t.im)};
  u = {hn::MulSub(half, sum.re, t.re), hn::MulSub(half, sum.im, t.im)};
}
// Back: S = (v + u) / 2, v - u = 2 T, and 4 conj(w) w = 1.
template <class D, class V>
HWY_INLINE void to_half(D d, const float* w, int64_t k, Complex<V>& v, Complex<V>& u) {
  const V half = hn::Set(d, 0.5f);
  Complex<V> c = pairs_at(d, w + 2 * k);
  c.im = hn::Neg(c.im);
  const Complex<V> sum = v + u, t = (v - u) * c;
  v = {hn::MulAdd(half, sum.re, t.re), hn::MulAdd(half, sum.im, t.im)};
  u = {hn::MulSub(half, sum.re, t.re), hn::MulSub(half, sum.im, t.im)};
}

void real_pairs(const float* w, float* y, int64_t n, int64_t begin, int64_t end, bool inverse) noexcept {
  if (inverse) {
    for_pairs(y, n, begin, end, [=](auto d, int64_t k, auto& v, auto& u) HWY_ATTR { to_half(d, w, k, v, u); });
  } else {
    for_pairs(y, n, begin, end, [=](auto d, int64_t k, auto& v, auto& u) HWY_ATTR { from_half(d, w, k, v, u); });
  }
}

template <class V>
HWY_INLINE V square(Complex<V> v) {
  return hn::MulAdd(v.im, v.im, hn::Mul(v.re, v.re));
}
void power_pairs(const float* w, float* y, int64_t n, int64_t begin, int64_t end) noexcept {
  for_pairs(y, n, begin, end, [=](auto d, int64_t k, auto& v, auto& u) HWY_ATTR {
    from_half(d, w, k, v, u);
    v = {square(v), hn::Zero(d)};
    u = {square(u), hn::Zero(d)};
    to_half(d, w, k, v, u);
  });
}

void power(const float* x, float factor, float* y, int64_t n, bool past) noexcept {
  const auto value = [=](auto d, int64_t i)
                         HWY_ATTR { return hn::Mul(hn::Set(d, factor), square(pairs_at(d, x + 2 * i))); };
  int64_t i = 0;
  if (past && reinterpret_cast<uintptr_t>(y) % (sizeof(float) * kRowLanes) == 0) {
    for (; i + kRowLanes <= n; i += kRowLanes) store_past(RowTag(), value(RowTag(), i), y + i);
    flush_past();
  }
  over(n - i, [=](auto d, int64_t j) HWY_ATTR { hn::StoreU(value(d, i + j), d, y + i + j); });
}
