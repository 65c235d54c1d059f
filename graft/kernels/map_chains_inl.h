// The elementwise maps of map.h as chains of single operations, one text for the scalar reference and for every vector target. No
// guard and no namespace: it is included inside the namespace of map_ref_inl.h, where `hn` is scalar_lanes, and of map_simd.cc, where `hn`
// is Highway; both bring exp_f32(d, x) and log_f32(d, x).

// e^x - 1 for x in [-30, 30]: exp_f32's reduction; e^r - 1 is kept apart from the 1, so small x lose nothing.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V expm1_chain(D d, V x) {
  const hn::RebindToSigned<D> di;
  const V magic = hn::Set(d, 0x1.8p23f);
  const V shifted = hn::MulAdd(x, hn::Set(d, 0x1.715476p+0f), magic);
  const V n = hn::Sub(shifted, magic);
  V r = hn::MulAdd(n, hn::Set(d, -0x1.62e430p-1f), x);
  r = hn::MulAdd(n, hn::Set(d, 0x1.05c610p-29f), r);
  V q = hn::MulAdd(hn::Set(d, 0x1.6a4d78p-10f), r, hn::Set(d, 0x1.12398ep-7f));
  q = hn::MulAdd(q, r, hn::Set(d, 0x1.5558b0p-5f));
  q = hn::MulAdd(q, r, hn::Set(d, 0x1.555492p-3f));
  q = hn::MulAdd(q, r, hn::Set(d, 0x1.fffffcp-2f));
  const V small = hn::MulAdd(hn::Mul(q, r), r, r);  // e^r - 1 = r + r^2 q
  const auto k = hn::Sub(hn::BitCast(di, shifted), hn::BitCast(di, magic));
  const V power = hn::BitCast(d, hn::ShiftLeft<23>(hn::Add(k, hn::Set(di, 127))));
  return hn::MulAdd(small, power, hn::Sub(power, hn::Set(d, 1.0f)));
}

// x clamped to [low, high]; NaN stays NaN.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V clamp_chain(D d, V x, float low, float high) {
  const V lo = hn::Set(d, low), hi = hn::Set(d, high);
  const V c = hn::IfThenElse(hn::Gt(x, hi), hi, x);
  return hn::IfThenElse(hn::Lt(c, lo), lo, c);
}

// 1 / (1 + e^-x), without overflow on either side.
template <class D, class V = hn::Vec<D>>
HWY_INLINE V sigmoid_chain(D d, V x) {
  const V one = hn::Set(d, 1.0f);
  const V e = exp_f32(d, hn::Neg(hn::Abs(x)));
  return hn::Div(hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one), hn::Add(one, e));
}

// ln(1 + u), u in [0, 1]: the rounding of 1 + u is put back (Kahan).
template <class D, class V = hn::Vec<D>>
HWY_INLINE V log1p_chain(D d, V u) {
  const V one = hn::Set(d, 1.0f);
  const V w = hn::Add(one, u);
  return hn::Add(log_f32(d, w), hn::Div(hn::Sub(u, hn::Sub(w, one)), w));
}

struct ExpMap {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return exp_f32(d, x);
  }
};
struct LogMap {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return log_f32(d, x);
  }
};
struct SigmoidMap {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return sigmoid_chain(d, x);
  }
};
// tanh |x| = (e^2|x| - 1) / (e^2|x| + 1); beyond 10 it is 1 in f32.
struct TanhMap {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    const V a = hn::Abs(x);
    const V t = expm1_chain(d, clamp_chain(d, hn::Add(a, a), 0.0f, 20.0f));
    return hn::CopySign(hn::Div(t, hn::Add(t, hn::Set(d, 2.0f))), x);
  }
};
struct SoftplusMap {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    const V tail = log1p_chain(d, exp_f32(d, hn::Neg(hn::Abs(x))));
    return hn::Add(hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Zero(d), x), tail);
  }
};
struct ClampMap {
  float low, high;
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return clamp_chain(d, x, low, high);
  }
};
struct AbsMap {
  template <class D, class V>
  HWY_INLINE V operator()(D /*d*/, V x) const {
    return hn::Abs(x);
  }
};
struct ReluMap {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return hn::IfThenElse(hn::Lt(x, hn::Zero(d)), hn::Zero(d), x);
  }
};
struct LeakyReluMap {
  float alpha;
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return hn::IfThenElse(hn::Gt(x, hn::Zero(d)), x, hn::Mul(hn::Set(d, alpha), x));
  }
};
struct EluMap {
  float alpha;
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    const V below = hn::Mul(hn::Set(d, alpha), expm1_chain(d, clamp_chain(d, x, -30.0f, 0.0f)));
    return hn::IfThenElse(hn::Gt(x, hn::Zero(d)), x, below);
  }
};
// x sigmoid(2 u), u = sqrt(2/pi) (x + 0.044715 x^3): the same as x (1 + tanh u) / 2, without its cancellation.
struct GeluTanhMap {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    const V cube = hn::Mul(hn::Mul(x, x), x);
    const V u = hn::Mul(hn::Set(d, 0x1.988454p+0f), hn::MulAdd(hn::Set(d, 0.044715f), cube, x));
    return hn::Mul(x, sigmoid_chain(d, u));
  }
};
// x Phi(x) = x erfc(-x / sqrt 2) / 2. erfc(z) = e^(-z^2) p(1 / (1 + z / 2)) for z >= 0, p minimax on z <= 10 (relative error 3.3e-8).
struct GeluErfMap {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    const V one = hn::Set(d, 1.0f);
    const V z = hn::Mul(hn::Abs(x), hn::Set(d, 0x1.6a09e6p-1f));
    const V t = hn::Div(one, hn::MulAdd(z, hn::Set(d, 0.5f), one));
    V p = hn::MulAdd(hn::Set(d, -0x1.c2fbb6p-5f), t, hn::Set(d, 0x1.0e3d1cp-2f));
    p = hn::MulAdd(p, t, hn::Set(d, -0x1.c413d0p-2f));
    p = hn::MulAdd(p, t, hn::Set(d, 0x1.c50274p-3f));
    p = hn::MulAdd(p, t, hn::Set(d, 0x1.17bcaep-6f));
    p = hn::MulAdd(p, t, hn::Set(d, 0x1.73341ep-3f));
    p = hn::MulAdd(p, t, hn::Set(d, 0x1.ff9370p-3f));
    p = hn::MulAdd(p, t, hn::Set(d, 0x1.1fd84cp-2f));
    p = hn::MulAdd(p, t, hn::Set(d, 0x1.20fea4p-2f));
    p = hn::MulAdd(p, t, hn::Set(d, -0x1.93615ep-18f));
    const V half_tail = hn::Mul(hn::Set(d, 0.5f), hn::Mul(exp_f32(d, hn::Neg(hn::Mul(z, z))), p));
    return hn::Mul(x, hn::IfThenElse(hn::Lt(x, hn::Zero(d)), half_tail, hn::Sub(one, half_tail)));
  }
};
struct SiluMap {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return hn::Mul(x, sigmoid_chain(d, x));
  }
};
// With e = e^x: tanh(softplus x) = (e^2 + 2 e) / (e^2 + 2 e + 2); x itself beyond 20.
struct MishMap {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    const V e = exp_f32(d, hn::IfThenElse(hn::Gt(x, hn::Set(d, 20.0f)), hn::Set(d, 20.0f), x));
    const V two = hn::Set(d, 2.0f);
    const V n = hn::Mul(e, hn::Add(e, two));
    return hn::IfThenElse(hn::Gt(x, hn::Set(d, 20.0f)), x, hn::Mul(x, hn::Div(n, hn::Add(n, two))));
  }
};

struct AddMap {
  template <class D, class V>
  HWY_INLINE V operator()(D /*d*/, V a, V b) const {
    return hn::Add(a, b);
  }
};
struct MulMap {
  template <class D, class V>
  HWY_INLINE V operator()(D /*d*/, V a, V b) const {
    return hn::Mul(a, b);
  }
};
struct DivMap {
  template <class D, class V>
  HWY_INLINE V operator()(D /*d*/, V a, V b) const {
    return hn::Div(a, b);
  }
};
struct FmaMap {
  template <class D, class V>
  HWY_INLINE V operator()(D /*d*/, V a, V b, V c) const {
    return hn::MulAdd(a, b, c);
  }
};
