// The loops of integrate_table.h, one text for the scalar reference and for every vector target. No guard and no namespace: it is
// included inside the namespace of integrate_ref_inl.h and of integrate_simd.cc. They bring `hn`, RowTag and LaneTag with kRowLanes lanes and
// one, exp_f32(d, x),
//   load_pairs(d, from, re, im), store_pairs(d, re, im, to), load_triples(d, from, a, b, c), store_triples(d, a, b, c, to)

// f(tag, i, index_sequence) over n elements: four vectors side by side, then one, then single lanes.
template <class F>
HWY_INLINE void by_four(int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + 4 * kRowLanes <= n; i += 4 * kRowLanes) f(RowTag(), i, std::make_index_sequence<4>());
  for (; i + kRowLanes <= n; i += kRowLanes) f(RowTag(), i, std::index_sequence<0>());
  for (; i < n; ++i) f(LaneTag(), i, std::index_sequence<0>());
}

// States of one, two and three values: load, store, and s + h k.
template <class V>
struct State1 {
  static constexpr int64_t kSize = 1;
  V a;
  template <class D>
  static HWY_INLINE State1 load(D d, const float* from) {
    return {hn::LoadU(d, from)};
  }
  template <class D>
  HWY_INLINE void store(D d, float* to) const {
    hn::StoreU(a, d, to);
  }
  HWY_INLINE State1 moved(V h, State1 k) const { return {hn::MulAdd(h, k.a, a)}; }
};
template <class V>
struct State2 {
  static constexpr int64_t kSize = 2;
  V a, b;
  template <class D>
  static HWY_INLINE State2 load(D d, const float* from) {
    State2 s = {hn::Zero(d), hn::Zero(d)};
    load_pairs(d, from, s.a, s.b);
    return s;
  }
  template <class D>
  HWY_INLINE void store(D d, float* to) const {
    store_pairs(d, a, b, to);
  }
  HWY_INLINE State2 moved(V h, State2 k) const { return {hn::MulAdd(h, k.a, a), hn::MulAdd(h, k.b, b)}; }
};
template <class V>
struct State3 {
  static constexpr int64_t kSize = 3;
  V a, b, c;
  template <class D>
  static HWY_INLINE State3 load(D d, const float* from) {
    State3 s = {hn::Zero(d), hn::Zero(d), hn::Zero(d)};
    load_triples(d, from, s.a, s.b, s.c);
    return s;
  }
  template <class D>
  HWY_INLINE void store(D d, float* to) const {
    store_triples(d, a, b, c, to);
  }
  HWY_INLINE State3 moved(V h, State3 k) const {
    return {hn::MulAdd(h, k.a, a), hn::MulAdd(h, k.b, b), hn::MulAdd(h, k.c, c)};
  }
};

// Right-hand sides: operator()(d, force, state), force one value of the forcing.
struct Decay {
  template <class V>
  using State = State1<V>;
  static constexpr bool kForced = false;
  float p;
  template <class D, class V>
  HWY_INLINE State1<V> operator()(D d, float /*force*/, State1<V> s) const {
    return {hn::Mul(hn::Set(d, p), s.a)};
  }
};
struct Forced {
  template <class V>
  using State = State1<V>;
  static constexpr bool kForced = true;
  float p;
  template <class D, class V>
  HWY_INLINE State1<V> operator()(D d, float force, State1<V> s) const {
    return {hn::NegMulAdd(hn::Set(d, p), s.a, hn::Set(d, force))};
  }
};
struct Oscillator {
  template <class V>
  using State = State2<V>;
  static constexpr bool kForced = false;
  float minus_p2;
  template <class D, class V>
  HWY_INLINE State2<V> operator()(D d, float /*force*/, State2<V> s) const {
    return {s.b, hn::Mul(hn::Set(d, minus_p2), s.a)};
  }
};
struct Lorenz {
  template <class V>
  using State = State3<V>;
  static constexpr bool kForced = false;
  template <class D, class V>
  HWY_INLINE State3<V> operator()(D d, float /*force*/, State3<V> s) const {
    return {hn::Mul(hn::Set(d, 10.0f), hn::Sub(s.b, s.a)), hn::MulSub(s.a, hn::Sub(hn::Set(d, 28.0f), s.c), s.b),
            hn::MulSub(s.a, s.b, hn::Mul(hn::Set(d, 0x1.555556p+1f), s.c))};
  }
};

template <class D, class Rhs, class S>
HWY_INLINE S rk4_step(D d, const Rhs& rhs, const Rk4Constants& c, const float* f, S s) {
  const auto half = hn::Set(d, c.half), two = hn::Set(d, 2.0f), one = hn::Set(d, 1.0f);
  const S k1 = rhs(d, f[0], s);
  const S k2 = rhs(d, f[1], s.moved(half, k1));
  const S k3 = rhs(d, f[1], s.moved(half, k2));
  const S k4 = rhs(d, f[2], s.moved(hn::Set(d, c.h), k3));
  return s.moved(hn::Set(d, c.sixth), k1.moved(two, k2).moved(two, k3).moved(one, k4));
}

template <class D, class Rhs, size_t... I>
HWY_INLINE void rk4_block(D d, const Rhs& rhs, const Rk4Constants& c, const float* forcing, int64_t steps, float* y,
                          std::index_sequence<I...> /*vectors*/) {
  using S = typename Rhs::template State<hn::Vec<D>>;
  constexpr int64_t kPitch = kRowLanes * S::kSize;
  S s[] = {S::load(d, y + static_cast<int64_t>(I) * kPitch)...};
  for (int64_t step = 0; step < steps; ++step, forcing += Rhs::kForced ? 3 : 0) {
    ((s[I] = rk4_step(d, rhs, c, forcing, s[I])), ...);
  }
  ((s[I].store(d, y + static_cast<int64_t>(I) * kPitch)), ...);
}
template <class Rhs>
HWY_INLINE void rk4_all(const Rhs& rhs, const Rk4Constants& c, const float* forcing, int64_t steps, float* y,
                        int64_t n) {
  by_four(n, [&](auto d, int64_t i, auto vectors) HWY_ATTR {
    constexpr int64_t kSize = Rhs::template State<hn::Vec<decltype(d)>>::kSize;
    rk4_block(d, rhs, c, forcing, steps, y + i * kSize, vectors);
  });
}
void rk4(OdeSystem system, const Rk4Constants& c, const float* forcing, int64_t steps, float* y, int64_t n) noexcept {
  switch (system) {
    case OdeSystem::kDecay: return rk4_all(Decay{c.p}, c, forcing, steps, y, n);
    case OdeSystem::kForced: return rk4_all(Forced{c.p}, c, forcing, steps, y, n);
    case OdeSystem::kOscillator: return rk4_all(Oscillator{c.p}, c, forcing, steps, y, n);
    case OdeSystem::kLorenz: return rk4_all(Lorenz{}, c, forcing, steps, y, n);
  }
}

template <class V>
struct Motion {
  V x, v, a;
};
template <class D, size_t... I>
HWY_INLINE void verlet_block(D d, float k, float h, float half_square, float half, int64_t steps, float* pos,
                             float* vel, float* acc, std::index_sequence<I...> /*vectors*/) {
  using V = hn::Vec<D>;
  const V vh = hn::Set(d, h), vs = hn::Set(d, half_square), vhalf = hn::Set(d, half), minus_k = hn::Set(d, -k);
  const auto at = [](auto* base, size_t i) HWY_ATTR { return base + static_cast<int64_t>(i) * kRowLanes; };
  Motion<V> m[] = {Motion<V>{hn::LoadU(d, at(pos, I)), hn::LoadU(d, at(vel, I)), hn::LoadU(d, at(acc, I))}...};
  const auto step = [&](Motion<V> s) HWY_ATTR {
    const V x = hn::MulAdd(s.v, vh, hn::MulAdd(s.a, vs, s.x));
    const V a = hn::Mul(minus_k, x);
    return Motion<V>{x, hn::MulAdd(hn::Add(s.a, a), vhalf, s.v), a};
  };
  for (int64_t i = 0; i < steps; ++i) ((m[I] = step(m[I])), ...);
  ((hn::StoreU(m[I].x, d, at(pos, I))), ...);
  ((hn::StoreU(m[I].v, d, at(vel, I))), ...);
  ((hn::StoreU(m[I].a, d, at(acc, I))), ...);
}
void verlet(float k, float h, float half_square, float half, int64_t steps, float* pos, float* vel, float* acc,
            int64_t n) noexcept {
  by_four(n, [=](auto d, int64_t i, auto vectors)
                 HWY_ATTR { verlet_block(d, k, h, half_square, half, steps, pos + i, vel + i, acc + i, vectors); });
}

// x^2 + y^2 <= 1 without rounding: with s the larger square and its error e, t and g the other, near the circle s - 1 and s - 1 + t are exact.
template <class D, class V>
HWY_INLINE V circle(D d, V x, V y) {
  const V s = hn::Mul(x, x), t = hn::Mul(y, y);
  const V e = hn::MulSub(x, x, s), g = hn::MulSub(y, y, t);
  const auto first = hn::Gt(s, t);
  const V large = hn::IfThenElse(first, s, t), small = hn::IfThenElse(first, t, s);
  const V rest = hn::Add(hn::Add(hn::Sub(large, hn::Set(d, 1.0f)), small), hn::Add(e, g));
  return hn::IfThenElse(hn::Le(rest, hn::Zero(d)), hn::Set(d, 4.0f), hn::Zero(d));
}
template <class F>
HWY_INLINE void over(int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + kRowLanes <= n; i += kRowLanes) f(RowTag(), i);
  for (; i < n; ++i) f(LaneTag(), i);
}
void integrand(Integrand f, const float* u, float* v, int64_t n) noexcept {
  switch (f) {
    case Integrand::kArctan:
      return over(n, [=](auto d, int64_t i) HWY_ATTR {
        const auto x = hn::LoadU(d, u + i);
        hn::StoreU(hn::Div(hn::Set(d, 4.0f), hn::MulAdd(x, x, hn::Set(d, 1.0f))), d, v + i);
      });
    case Integrand::kQuarterCircle:
      return over(n, [=](auto d, int64_t i) HWY_ATTR {
        auto x = hn::Zero(d), y = x;
        load_pairs(d, u + 2 * i, x, y);
        hn::StoreU(circle(d, x, y), d, v + i);
      });
    case Integrand::kGauss3:
      return over(n, [=](auto d, int64_t i) HWY_ATTR {
        auto x = hn::Zero(d), y = x, z = x;
        load_triples(d, u + 3 * i, x, y, z);
        const auto square = hn::MulAdd(z, z, hn::MulAdd(y, y, hn::Mul(x, x)));
        hn::StoreU(exp_f32(d, hn::Neg(square)), d, v + i);
      });
  }
}
