#include <algorithm>
#include <cmath>
#include <numeric>

#include "graft/base/error.h"
#include "graft/kernels/map.h"
#include "graft/kernels/similarity.h"
#include "graft/recipes/recipes.h"

namespace graft {
namespace {

using Values = std::vector<float>;

// Vectors of one length, with the steps that the methods share.
class Algebra {
 public:
  Algebra(Context& context, const CsrMatrix& a)
      : context_(context), a_(a), n_(static_cast<int64_t>(a.row_ptr.size()) - 1) {
    GRAFT_CHECK(n_ > 0 && a.row_ptr.front() == 0 && a.row_ptr.back() == a.values.size() &&
                    a.values.size() == a.col_idx.size() && std::is_sorted(a.row_ptr.begin(), a.row_ptr.end()),
                "a sparse matrix of {} rows and {} values, expected rows that ascend and end with the values", n_,
                a.values.size());
    for (const uint32_t column : a.col_idx) {
      GRAFT_CHECK(column < static_cast<uint64_t>(n_), "a sparse matrix has column {}, expected below {}", column, n_);
    }
    scale_.resize(static_cast<size_t>(n_));
    context_.reserve(reduce_scratch(n_));
  }
  int64_t size() const { return n_; }
  Values zeros() const { return Values(static_cast<size_t>(n_), 0.0f); }
  void multiply(const Values& x, Values& y) { spmv_csr(context_, a_, x, y); }
  float dot(const Values& x, const Values& y) {
    float result = 0;
    dot_batched(context_, View<const float, 2>(x.data(), 1, n_), View<const float, 2>(y.data(), 1, n_), {&result, 1});
    return result;
  }
  // y = factor x + z
  void fma(float factor, const Values& x, const Values& z, Values& y) {
    std::fill(scale_.begin(), scale_.end(), factor);
    map_fma(context_, x, scale_, z, y);
  }
  float length(const Values& x) { return reduce_l2(context_, x); }

 private:
  Context& context_;
  const CsrMatrix& a_;
  int64_t n_;
  Values scale_;
};

void check_system(const Algebra& algebra, std::span<const float> b, double tolerance, int64_t most) {
  GRAFT_CHECK(static_cast<int64_t>(b.size()) == algebra.size(), "{} right-hand sides for {} rows", b.size(),
              algebra.size());
  GRAFT_CHECK(tolerance >= 0 && most >= 0, "tolerance {} and {} iterations, expected neither below 0", tolerance, most);
}

// Eigenvalues and -vectors (columns of `vectors`) of a symmetric [n, n] matrix by Jacobi's cyclic rotations.
void jacobi(int64_t n, std::vector<double>& a, std::vector<double>& vectors) {
  const auto at = [n](std::vector<double>& x, int64_t i, int64_t j) -> double& {
    return x[static_cast<size_t>(i * n + j)];
  };
  vectors.assign(static_cast<size_t>(n * n), 0);
  for (int64_t i = 0; i < n; ++i) at(vectors, i, i) = 1;
  for (int sweep = 0; sweep < 60; ++sweep) {
    double off = 0, all = 0;
    for (int64_t i = 0; i < n; ++i) {
      for (int64_t j = 0; j < n; ++j) (i == j ? all : off) += at(a, i, j) * at(a, i, j);
    }
    if (!(off > 1e-28 * all)) return;
    for (int64_t p = 0; p < n; ++p) {
      for (int64_t q = p + 1; q < n; ++q) {
        if (at(a, p, q) == 0) continue;
        const double theta = (at(a, q, q) - at(a, p, p)) / (2 * at(a, p, q));
        const double t = (theta >= 0 ? 1 : -1) / (std::fabs(theta) + std::sqrt(theta * theta + 1));
        const double c = 1 / std::sqrt(t * t + 1), s = t * c;
        const auto turn = [c, s](double& x, double& y) {
          const double kept = x;
          x = c * x - s * y;
          y = s * kept + c * y;
        };
        for (int64_t k = 0; k < n; ++k) turn(at(a, k, p), at(a, k, q));
        for (int64_t k = 0; k < n; ++k) turn(at(a, p, k), at(a, q, k));
        for (int64_t k = 0; k < n; ++k) turn(at(vectors, k, p), at(vectors, k, q));
      }
    }
  }
}

}  // namespace

Solution conjugate_gradient(Context& context, const CsrMatrix& a, std::span<const float> b, double tolerance,
                            int64_t most) {
  Algebra algebra(context, a);
  check_system(algebra, b, tolerance, most);
  Solution s{algebra.zeros(), 0, 0};
  Values r(b.begin(), b.end()), p = r, ap = algebra.zeros();
  const auto bar = static_cast<float>(tolerance * static_cast<double>(algebra.length(r)));
  float rr = algebra.dot(r, r);
  for (s.residual = algebra.length(r); s.residual > bar && s.iterations < most; ++s.iterations) {
    algebra.multiply(p, ap);
    const float curvature = algebra.dot(p, ap);
    if (!(curvature > 0)) break;  // A is not positive definite, or p is exhausted
    const float alpha = rr / curvature;
    algebra.fma(alpha, p, s.x, s.x);
    algebra.fma(-alpha, ap, r, r);
    const float before = rr;
    rr = algebra.dot(r, r);
    algebra.fma(rr / before, p, r, p);
    s.residual = algebra.length(r);
  }
  return s;
}

Solution gradient_descent(Context& context, const CsrMatrix& a, std::span<const float> b, double tolerance,
                          int64_t most) {
  Algebra algebra(context, a);
  check_system(algebra, b, tolerance, most);
  Solution s{algebra.zeros(), 0, 0};
  Values descent(b.begin(), b.end()), product = algebra.zeros();  // b - A x
  const auto bar = static_cast<float>(tolerance * static_cast<double>(algebra.length(descent)));
  for (s.residual = algebra.length(descent); s.residual > bar && s.iterations < most; ++s.iterations) {
    algebra.multiply(descent, product);
    const float curvature = algebra.dot(descent, product);
    if (!(curvature > 0)) break;
    const float step = algebra.dot(descent, descent) / curvature;
    algebra.fma(step, descent, s.x, s.x);
    algebra.fma(-step, product, descent, descent);
    s.residual = algebra.length(descent);
  }
  return s;
}

Eigenpairs lanczos(Context& context, const CsrMatrix& a, int64_t steps, int64_t count, uint64_t seed) {
  Algebra algebra(context, a);
  const int64_t n = algebra.size();
  GRAFT_CHECK(count > 0 && count <= steps && steps <= n,
              "{} eigenvalues by {} steps of {} rows: each is at most the next", count, steps, n);
  std::vector<Values> basis;
  std::vector<double> diagonal, beside;
  Values q = random_init(context, InitKind::kNormal, 0, 1, seed, 0, n), w = algebra.zeros();
  const Values zero = algebra.zeros();
  algebra.fma(1 / algebra.length(q), q, zero, q);
  while (static_cast<int64_t>(basis.size()) < steps) {
    basis.push_back(q);
    algebra.multiply(q, w);
    diagonal.push_back(static_cast<double>(algebra.dot(q, w)));
    for (int pass = 0; pass < 2; ++pass) {  // twice is enough (Kahan and Parlett)
      for (const Values& v : basis) algebra.fma(-algebra.dot(v, w), v, w, w);
    }
    const float rest = algebra.length(w);
    if (!(rest > 1e-6f * std::fabs(static_cast<float>(diagonal.front())))) break;  // an invariant subspace
    beside.push_back(static_cast<double>(rest));
    algebra.fma(1 / rest, w, zero, q);
  }
  const auto m = static_cast<int64_t>(basis.size());
  std::vector<double> t(static_cast<size_t>(m * m)), turned;
  for (int64_t i = 0; i < m; ++i) {
    t[static_cast<size_t>(i * m + i)] = diagonal[static_cast<size_t>(i)];
    if (i + 1 < m) {
      t[static_cast<size_t>(i * m + i + 1)] = t[static_cast<size_t>((i + 1) * m + i)] = beside[static_cast<size_t>(i)];
    }
  }
  jacobi(m, t, turned);
  std::vector<int64_t> order(static_cast<size_t>(m));
  std::iota(order.begin(), order.end(), int64_t{0});
  std::stable_sort(order.begin(), order.end(), [&](int64_t i, int64_t j) {
    return t[static_cast<size_t>(i * m + i)] > t[static_cast<size_t>(j * m + j)];
  });
  Values columns(static_cast<size_t>(n * m));  // the basis, [n, m]
  for (int64_t i = 0; i < n; ++i) {
    for (int64_t j = 0; j < m; ++j)
      columns[static_cast<size_t>(i * m + j)] = basis[static_cast<size_t>(j)][static_cast<size_t>(i)];
  }
  Eigenpairs pairs;
  for (int64_t k = 0; k < std::min(count, m); ++k) {
    const int64_t at = order[static_cast<size_t>(k)];
    pairs.values.push_back(static_cast<float>(t[static_cast<size_t>(at * m + at)]));
    Values coefficients, vector = algebra.zeros();
    for (int64_t j = 0; j < m; ++j) coefficients.push_back(static_cast<float>(turned[static_cast<size_t>(j * m + at)]));
    matvec(context, View<const float, 2>(columns.data(), n, m), coefficients, vector);
    pairs.vectors.insert(pairs.vectors.end(), vector.begin(), vector.end());
  }
  return pairs;
}

}  // namespace graft
