"""Peers of attention, losses, optimizers, transforms, linear algebra, simulation, random numbers and fused kernels (peer_case.py)."""

import math

from peer_case import F, PEERS, mnn, mx, np, peers, scipy, torch


# ---- attention

@peers("attention_sdpa", "attention_flash", "attention_mqa", "attention_gqa", "fused_attention_softmax_v")
def attention(c):
    q, k = c["q"], c["k"]
    scale, causal = c.p("scale", 1 / math.sqrt(q.shape[-1])), c.p("causal", False)
    if causal and q.shape[-2] != k.shape[-2]:
        return  # PyTorch aligns such a mask at the start
    grouped = q.ndim == 4 and q.shape[1] != k.shape[1]
    lift = (lambda t: t) if q.ndim == 4 else (lambda t: t.reshape((1,) * (4 - t.ndim) + tuple(t.shape)))

    def f(a, b, d):
        o = F.scaled_dot_product_attention(lift(a), lift(b), lift(d), is_causal=causal, scale=scale, enable_gqa=grouped)
        return o.reshape(a.shape)
    yield from c.th(f, "q k v", "o")
    if mx is not None:
        yield from c.mx(lambda a, b, d: mx.fast.scaled_dot_product_attention(
            lift(a), lift(b), lift(d), scale=scale, mask="causal" if causal else None).reshape(a.shape), "q k v", "o")


@peers("rope_precompute")
def rope_precompute(c):
    length, d, start = c.p("length", 512), c.p("dim", 64), c.p("start", 0)
    base, factor, scaling = c.p("base", 10000.0), c.p("factor", 1.0), c.p("scaling", "none")
    if scaling == "ntk":
        base *= factor ** (d / (d - 2.0))
    positions = np.arange(start, start + length, dtype=np.float64) / (factor if scaling == "linear" else 1)
    frequency = base ** (-2.0 * np.arange(d // 2) / d)

    def f():
        angle = np.outer(positions, frequency)
        return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)
    yield "numpy", f, "cos sin"
    if torch is not None:
        p, w = torch.from_numpy(positions), torch.from_numpy(frequency)

        def g():
            angle = torch.outer(p, w)
            return torch.cos(angle).float(), torch.sin(angle).float()
        yield "torch", g, "cos sin"


def rotate(x, cos, sin, layout, join):
    half = x.shape[-1] // 2
    cos, sin = cos[:, None, :], sin[:, None, :]
    if layout == "half":
        a, b = x[..., :half], x[..., half:]
        return join((a * cos - b * sin, a * sin + b * cos))
    a, b = x[..., 0::2], x[..., 1::2]
    pairs = (a * cos - b * sin, a * sin + b * cos)
    return (torch if torch is not None and torch.is_tensor(x) else np).stack(pairs, -1).reshape(x.shape)


@peers("rope_apply")
def rope_apply(c):
    layout = c.p("layout", "half")
    yield from c.np(lambda x, cos, sin: rotate(x, cos, sin, layout, lambda p: np.concatenate(p, -1)), "x cos sin")
    yield from c.th(lambda x, cos, sin: rotate(x, cos, sin, layout, lambda p: torch.cat(p, -1)), "x cos sin")


@peers("alibi_bias")
def alibi(c):
    heads, rows, columns = c["scores"].shape
    power = 2 ** int(math.floor(math.log2(heads)))
    slopes = [2.0 ** (-8.0 * (k + 1) / power) for k in range(power)]
    slopes += [2.0 ** (-8.0 * (k + 1) / (2 * power)) for k in range(0, 2 * (heads - power), 2)]
    slope = np.asarray(slopes, np.float32)[:, None, None]
    distance = (np.arange(rows)[:, None] + (columns - rows) - np.arange(columns)[None, :]).astype(np.float32)[None]
    yield from c.np(lambda s: s - slope * distance, "scores")
    if torch is not None:
        m, d = torch.from_numpy(slope), torch.from_numpy(distance)
        yield from c.th(lambda s: s - m * d, "scores")


# ---- losses

@peers("loss_cross_entropy")
def cross_entropy(c):
    if torch is None:
        return
    targets = torch.from_numpy(c["targets"].astype(np.int64))
    weight = torch.from_numpy(c["weight"]) if c.has("weight") else None
    ignore = c.p("ignore_index", -100)
    yield from c.th(lambda x: F.cross_entropy(x, targets, weight, ignore_index=ignore), "logits", "mean")
    if mx is not None and weight is None:
        marks = mx.array(c["targets"])
        if (c["targets"] >= 0).all():
            yield from c.mx(lambda x: mnn.losses.cross_entropy(x, marks, reduction="mean"), "logits", "mean")


@peers("loss_mse", "loss_mae", "loss_huber")
def pointwise_loss(c):
    delta = c.p("delta", 1.0)
    if c.kernel == "loss_mse":
        f, t, m = (lambda p, y: np.mean(np.square(p - y))), (lambda p, y: F.mse_loss(p, y)), "mse_loss"
    elif c.kernel == "loss_mae":
        f, t, m = (lambda p, y: np.mean(np.abs(p - y))), (lambda p, y: F.l1_loss(p, y)), "l1_loss"
    else:
        def f(p, y):
            a, d = np.abs(p - y), np.float32(delta)
            return np.mean(np.where(a < d, np.float32(0.5) * a * a, d * (a - np.float32(0.5) * d)))
        t, m = (lambda p, y: F.huber_loss(p, y, delta=delta)), "huber_loss"
    yield from c.np(f, "pred target", "mean")
    yield from c.th(t, "pred target", "mean")
    more = {"delta": delta} if m == "huber_loss" else {}
    yield from c.mx(lambda p, y: getattr(mnn.losses, m)(p, y, reduction="mean", **more), "pred target", "mean")


@peers("loss_kl_div")
def kl_div(c):
    eps = c.p("eps", 1e-10)
    yield from c.th(lambda p, t: F.kl_div(torch.log(torch.clamp(p, min=eps)), t, reduction="sum"), "pred target", "sum")
    yield from c.mx(lambda p, t: mnn.losses.kl_div_loss(mx.log(mx.maximum(p, eps)), mx.log(mx.maximum(t, 1e-37)), reduction="sum"), "pred target", "sum")


@peers("loss_bce")
def bce(c):
    low, high = np.float32(1e-7), np.float32(1 - 2.0 ** -23)

    def f(p, y):
        q = np.clip(p, low, high)
        return np.mean(-(y * np.log(q) + (1 - y) * np.log1p(-q)))
    yield from c.np(f, "pred target", "mean")
    yield from c.th(lambda p, y: F.binary_cross_entropy(p, y), "pred target", "mean")
    yield from c.mx(lambda p, y: mnn.losses.binary_cross_entropy(p, y, with_logits=False, reduction="mean"), "pred target", "mean")


# ---- optimizers: state of their own that each call moves on, as training does

@peers("opt_sgd", "opt_sgd_momentum", "opt_adam", "opt_adamw", "fused_adam_clip_update")
def optimizer(c):
    if torch is None:
        return
    lr, wd = c.p("lr", 1e-3), c.p("weight_decay", 0.01)
    beta1, beta2, eps, momentum = c.p("beta1", 0.9), c.p("beta2", 0.999), c.p("eps", 1e-8), c.p("momentum", 0.9)
    step, mode, clip = c.p("step", 1), c.p("clip_mode", "value"), c.p("clip", 1.0)
    if c.kernel == "fused_adam_clip_update" and not c.p("bias_correction", True):
        return
    parameter = torch.nn.Parameter(torch.from_numpy(c["param"].copy()))
    parameter.grad = torch.from_numpy(c["grad"].copy())
    fused = {"fused": True} if hasattr(torch, "_fused_adam_") else {"foreach": True}
    if c.kernel == "opt_sgd":
        made = torch.optim.SGD([parameter], lr=lr, **fused)
    elif c.kernel == "opt_sgd_momentum":
        made = torch.optim.SGD([parameter], lr=lr, momentum=momentum, **fused)
        made.state[parameter]["momentum_buffer"] = torch.from_numpy(c["velocity"].copy())
    elif c.kernel == "opt_adam":
        made = torch.optim.Adam([parameter], lr=lr, betas=(beta1, beta2), eps=eps, **fused)
    else:
        made = torch.optim.AdamW([parameter], lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=wd, **fused)
    if c.has("m"):
        made.state[parameter].update(step=torch.tensor(float(step - 1)), exp_avg=torch.from_numpy(c["m"].copy()),
                                     exp_avg_sq=torch.from_numpy(c["v"].copy()))

    def call():
        if c.kernel == "fused_adam_clip_update":
            if mode == "value":
                torch.nn.utils.clip_grad_value_([parameter], clip)
            else:
                torch.nn.utils.clip_grad_norm_([parameter], clip)
        made.step()
        return parameter
    yield "torch", call, "param"
    if c.kernel in ("opt_sgd", "opt_sgd_momentum"):
        p, g = c["param"].copy(), c["grad"]
        rate, mu = np.float32(lr), np.float32(momentum)
        v = c["velocity"].copy() if c.has("velocity") else None

        def plain():
            if v is None:
                p[:] -= rate * g
            else:
                np.multiply(v, mu, out=v)
                np.add(v, g, out=v)
                p[:] -= rate * v
            return p
        yield "numpy", plain, "param"
    elif c.kernel in ("opt_adam", "opt_adamw"):
        p, g, m, v, at = c["param"].copy(), c["grad"], c["m"].copy(), c["v"].copy(), [step - 1]

        def formula():
            at[0] += 1
            if c.kernel == "opt_adamw":
                np.multiply(p, np.float32(1 - lr * wd), out=p)
            np.multiply(m, np.float32(beta1), out=m)
            np.add(m, np.float32(1 - beta1) * g, out=m)
            np.multiply(v, np.float32(beta2), out=v)
            np.add(v, np.float32(1 - beta2) * g * g, out=v)
            p[:] -= np.float32(lr / (1 - beta1 ** at[0])) * m / (np.sqrt(v) * np.float32(1 / math.sqrt(1 - beta2 ** at[0])) + np.float32(eps))
            return p
        yield "numpy", formula, "param"


@peers("grad_clip_norm")
def clip_norm(c):
    # In place, as graft's: `before` puts the gradient back, outside of what is timed.
    most = c.p("max_norm", 1.0)
    if torch is not None:
        parameter = torch.nn.Parameter(torch.zeros(c["grad"].shape))
        parameter.grad = torch.from_numpy(c["grad"].copy())

        def call():
            torch.nn.utils.clip_grad_norm_([parameter], most)
            return parameter.grad
        call.before = lambda: parameter.grad.copy_(torch.from_numpy(c["grad"]))
        yield "torch", call, "grad"

    grad = c["grad"].copy()

    def in_place():
        n = np.linalg.norm(grad)
        if n > most:
            np.multiply(grad, np.float32(most / n), out=grad)
        return grad
    in_place.before = lambda: np.copyto(grad, c["grad"])
    yield "numpy", in_place, "grad"


@peers("grad_clip_value")
def clip_value(c):
    most = c.p("max_value", 1.0)
    yield from c.np(lambda g: np.clip(g, np.float32(-most), np.float32(most)), "grad", "grad")
    yield from c.th(lambda g: torch.clamp(g, -most, most), "grad", "grad")
    yield from c.mx(lambda g: mx.clip(g, -most, most), "grad", "grad")


# ---- FFT and signal

def complex_of(array):
    return np.ascontiguousarray(array).view(np.complex64)[..., 0]


@peers("fft_radix2", "fft_radix4", "ifft")
def fft(c):
    z = complex_of(c["x"])
    name = "ifft" if c.kernel == "ifft" else "fft"
    yield "numpy", lambda: getattr(np.fft, name)(z), "y"
    if scipy is not None:
        yield "scipy", lambda: getattr(scipy.fft, name)(z), "y"
    if torch is not None:
        t = torch.from_numpy(z)
        yield "torch", lambda: getattr(torch.fft, name)(t), "y"
    if mx is not None:
        a = mx.array(z)

        def call():
            y = getattr(mx.fft, name)(a)
            mx.eval(y)
            return y
        yield "mlx", call, "y"


@peers("fft_real")
def fft_real(c):
    yield from c.np(lambda x: np.fft.rfft(x), "x")
    if scipy is not None:
        yield from c.np(lambda x: scipy.fft.rfft(x), "x", peer="scipy")
    yield from c.th(lambda x: torch.fft.rfft(x), "x", compiled=False)
    yield from c.mx(lambda x: mx.fft.rfft(x), "x")


@peers("spectral_power")
def spectral_power(c):
    factor = c.p("factor", 1.0)
    if factor != 1 or c.p("one_sided", False):
        return
    yield from c.np(lambda x: x[:, 0] ** 2 + x[:, 1] ** 2, "x")
    yield from c.th(lambda x: x.square().sum(-1), "x")
    yield from c.mx(lambda x: mx.square(x).sum(-1), "x")


@peers("conv1d")
def conv1d(c):
    n, k = len(c["x"]), len(c["w"])
    if c.p("pad", "zero") != "zero":
        return
    yield from c.np(lambda x, w: np.convolve(x, w[::-1], "full")[k - 1 - k // 2:][:n], "x w")
    yield from c.th(lambda x, w: F.conv1d(x[None, None], w[None, None], padding=k // 2)[0, 0, :n], "x w")
    yield from c.mx(lambda x, w: mx.conv1d(x[None, :, None], w[None, :, None], padding=k // 2)[0, :n, 0], "x w")


@peers("fft_conv1d")
def fft_conv1d(c):
    n, k = len(c["x"]), len(c["h"])
    length = n if c.p("mode", "full") == "causal" else n + k - 1
    size = 1 << (n + k - 2).bit_length()
    if scipy is not None:
        yield from c.np(lambda x, h: scipy.signal.fftconvolve(x, h)[:length], "x h", peer="scipy")
        yield from c.np(lambda x, h: scipy.signal.oaconvolve(x, h)[:length], "x h", peer="scipy oaconvolve")
    yield from c.th(lambda x, h: torch.fft.irfft(torch.fft.rfft(x, size) * torch.fft.rfft(h, size), size)[:length].contiguous(), "x h", compiled=False)
    yield from c.th(lambda x, h: F.conv1d(x[None, None], h.flip(0)[None, None], padding=k - 1)[0, 0, :length].contiguous(), "x h", compiled=False, peer="torch conv1d")


@peers("autocorrelation")
def autocorrelation(c):
    n = len(c["x"])
    demean, normalize = c.p("demean", False), c.p("normalize", False)
    size = 1 << (2 * n - 2).bit_length() if n > 1 else 2

    def f(x):
        x = x - x.mean() if demean else x
        y = np.fft.irfft(np.abs(np.fft.rfft(x, size)) ** 2, size)[:n]
        return y / y[0] if normalize else y
    yield from c.np(f, "x")

    def g(x):
        x = x - x.mean() if demean else x
        z = torch.fft.rfft(x, size)
        y = torch.fft.irfft(z.real.square() + z.imag.square(), size)[:n].contiguous()
        return y / y[0] if normalize else y
    yield from c.th(g, "x", compiled=False)


@peers("cross_correlation")
def cross_correlation(c):
    n, m = len(c["a"]), len(c["b"])
    if c.p("normalize", False):
        return
    yield from c.np(lambda a, b: np.correlate(a, b, "full"), "a b")
    if scipy is not None:
        yield from c.np(lambda a, b: scipy.signal.correlate(a, b, "full", method="fft"), "a b", peer="scipy")
    size = 1 << (n + m - 2).bit_length() if n + m > 2 else 2
    yield from c.th(lambda a, b: torch.fft.irfft(torch.fft.rfft(a, size) * torch.fft.rfft(b.flip(0), size), size)[:n + m - 1].contiguous(), "a b", compiled=False)


@peers("window_apply")
def window(c):
    name, periodic = c.p("window", "hann"), c.p("periodic", False)
    n = len(c["x"])
    made = {"hann": np.hanning, "hamming": np.hamming, "blackman": np.blackman, "rect": np.ones}[name]
    if not periodic:
        yield from c.np(lambda x: (made(n) * x).astype(np.float32), "x")
    if name != "rect" and n > 1:
        make = lambda: getattr(torch, f"{name}_window")(n, periodic=periodic)
        yield from c.th(lambda x: make() * x, "x")


@peers("fir_filter")
def fir(c):
    n, k = len(c["x"]), len(c["h"])
    yield from c.np(lambda x, h: np.convolve(x, h)[:n], "x h")
    if scipy is not None:
        one = np.ones(1, np.float32)
        yield from c.np(lambda x, h: scipy.signal.lfilter(h, one, x), "x h", peer="scipy")
    yield from c.th(lambda x, h: F.conv1d(x[None, None], h.flip(0)[None, None], padding=k - 1)[0, 0, :n], "x h")


# ---- linear algebra

@peers("spmv_csr")
def spmv(c):
    shape = (len(c["row_ptr"]) - 1, len(c["x"]))
    parts = (c["values"], c["col_idx"].astype(np.int32), c["row_ptr"].astype(np.int32))
    if scipy is not None:
        a = scipy.sparse.csr_matrix(parts, shape=shape)
        yield from c.np(lambda x: a @ x, "x", peer="scipy")
    if torch is not None:
        import warnings
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            t = torch.sparse_csr_tensor(torch.from_numpy(parts[2]), torch.from_numpy(parts[1]), torch.from_numpy(parts[0]), shape)
        yield from c.th(lambda x: t @ x, "x", compiled=False)


@peers("matmul_batched")
def matmul(c):
    yield from c.np(np.matmul, "a b", "c")
    yield from c.th(lambda a, b: torch.bmm(a, b), "a b", "c")
    yield from c.mx(lambda a, b: a @ b, "a b", "c")


@peers("matvec")
def matvec(c):
    yield from c.np(np.matmul, "a x")
    yield from c.th(lambda a, x: torch.mv(a, x), "a x")
    yield from c.mx(lambda a, x: a @ x, "a x")


@peers("triangular_solve")
def triangular(c):
    lower, unit = c.p("lower", True), c.p("unit_diagonal", False)
    if scipy is not None:
        yield from c.np(lambda a, b: scipy.linalg.solve_triangular(a, b, lower=lower, unit_diagonal=unit, check_finite=False), "a b", "x", peer="scipy")
    yield from c.th(lambda a, b: torch.linalg.solve_triangular(a, b, upper=not lower, unitriangular=unit), "a b", "x", compiled=False)
    if mx is not None and not unit:
        yield from c.mx(lambda a, b: mx.linalg.solve_triangular(a, b, upper=not lower, stream=mx.cpu), "a b", "x")


@peers("outer_product")
def outer(c):
    yield from c.np(np.outer, "u v")
    yield from c.th(lambda u, v: torch.outer(u, v), "u v")
    yield from c.mx(lambda u, v: mx.outer(u, v), "u v")


# ---- simulation

def framed(new, old, radius=1):
    """The old values along the edges."""
    for axis in range(old.ndim):
        for part in (slice(0, radius), slice(old.shape[axis] - radius, None)):
            at = [slice(None)] * old.ndim
            at[axis] = part
            new[tuple(at)] = old[tuple(at)]
    return new


def laplacian(u, roll):
    return roll(u, 1, 0) + roll(u, -1, 0) + roll(u, 1, 1) + roll(u, -1, 1) - 4 * u


@peers("sim_heat_equation")
def heat(c):
    r, steps, fixed = c.p("r", 0.1), c.p("steps", 1), c.p("boundary", "fixed") == "fixed"

    def f(u, roll):
        for _ in range(steps):
            n = u + r * laplacian(u, roll)
            u = framed(n, u) if fixed else n
        return u
    yield from c.np(lambda u: f(u, lambda a, s, axis: np.roll(a, s, axis)), "u", "u")
    yield from c.th(lambda u: f(u, lambda a, s, axis: torch.roll(a, s, axis)), "u", "u")


@peers("sim_wave_equation")
def wave(c):
    c2, steps, fixed = c.p("c2", 0.01), c.p("steps", 1), c.p("boundary", "fixed") == "fixed"

    def f(u, p, roll):
        for _ in range(steps):
            n = 2 * u - p + c2 * laplacian(u, roll)
            p, u = u, framed(n, u) if fixed else n
        return u, p
    yield from c.np(lambda u, p: f(u, p, lambda a, s, axis: np.roll(a, s, axis)), "u u_prev", "u u_prev")
    yield from c.th(lambda u, p: f(u, p, lambda a, s, axis: torch.roll(a, s, axis)), "u u_prev", "u u_prev")


@peers("sim_stencil_2d", "sim_stencil_3d")
def stencil(c):
    offsets, coefficients = c["offsets"], c["coeffs"]
    fixed, radius = c.p("boundary", "fixed") == "fixed", int(np.abs(c["offsets"]).max())

    def f(u, roll):
        out = 0
        for o, k in zip(offsets, coefficients):
            moved = u
            for axis, s in enumerate(o):
                if s:
                    moved = roll(moved, -int(s), axis)
            out = out + float(k) * moved
        return framed(out, u, radius) if fixed else out
    yield from c.np(lambda u: f(u, lambda a, s, axis: np.roll(a, s, axis)), "u")
    yield from c.th(lambda u: f(u, lambda a, s, axis: torch.roll(a, s, axis)), "u", compiled=False)
    if scipy is not None and not fixed:
        weights = np.zeros((2 * radius + 1,) * offsets.shape[1], np.float32)
        for o, k in zip(offsets, coefficients):
            weights[tuple(o + radius)] += k
        yield from c.np(lambda u: scipy.ndimage.correlate(u, weights, mode="wrap"), "u", peer="scipy")


def right_side(name, p, stack):
    if name == "decay":
        return lambda t, y: p * y
    if name == "forced":
        return lambda t, y: math.cos(t) - p * y
    if name == "oscillator":
        return lambda t, y: stack([y[:, 1], -p * p * y[:, 0]], 1)
    return lambda t, y: stack([10.0 * (y[:, 1] - y[:, 0]), y[:, 0] * (28.0 - y[:, 2]) - y[:, 1],
                               y[:, 0] * y[:, 1] - (8.0 / 3.0) * y[:, 2]], 1)


@peers("integrate_rk4")
def rk4(c):
    name, p, t0, h, steps = c.p("rhs", "decay"), c.p("p", -1.0), c.p("t0", 0.0), c.p("dt", 0.01), c.p("steps", 1)

    def f(y, stack):
        side = right_side(name, p, stack)
        for s in range(steps):
            t = t0 + s * h
            k1 = side(t, y)
            k2 = side(t + h / 2, y + h / 2 * k1)
            k3 = side(t + h / 2, y + h / 2 * k2)
            k4 = side(t + h, y + h * k3)
            y = y + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return y
    yield from c.np(lambda y: f(y, np.stack), "y")
    yield from c.th(lambda y: f(y, torch.stack), "y")


@peers("integrate_verlet")
def verlet(c):
    k, h, steps = c.p("k", 2.0), c.p("dt", 0.01), c.p("steps", 1)

    def f(x, v, a):
        for _ in range(steps):
            x = x + v * h + (0.5 * h * h) * a
            new = -k * x
            v = v + (0.5 * h) * (a + new)
            a = new
        return x, v, a
    yield from c.np(f, "pos vel acc", "pos vel acc")
    yield from c.th(f, "pos vel acc", "pos vel acc")


@peers("monte_carlo_integrate")
def monte_carlo(c):
    n, name = c.p("n", 1_000_000), c.p("f", "arctan")
    d = {"arctan": 1, "quarter_circle": 2, "gauss3": 3}[name]

    def value(u, exp):
        if name == "arctan":
            return 4.0 / (1.0 + u[:, 0] ** 2)
        q = (u * u).sum(1)
        return 4.0 * (q <= 1.0) if name == "quarter_circle" else exp(-q)
    generator = np.random.default_rng(1)

    def f():
        v = value(generator.random((n, d), dtype=np.float32), np.exp)
        return v.mean(), v.std(ddof=1) / math.sqrt(n)
    yield "numpy", f, ""
    if torch is not None:
        def g():
            v = value(torch.rand(n, d), torch.exp).float()
            return v.mean(), v.std() / math.sqrt(n)
        yield "torch", g, ""


# ---- random numbers: other generators, so only the time compares

def random(name, f, t, m):
    def function(c):
        n = next(iter(c.outputs.values())).size
        generator = np.random.default_rng(1)
        yield "numpy", lambda: f(generator, n, c), ""
        if torch is not None:
            yield "torch", lambda: t(n, c), ""
        if mx is not None:
            def call():
                y = m(n, c)
                mx.eval(y)
                return y
            yield "mlx", call, ""
    PEERS[name] = function


random("prng_philox", lambda g, n, c: g.integers(0, 1 << 32, n, dtype=np.uint32), lambda n, c: torch.randint(-2 ** 31, 2 ** 31, (n,), dtype=torch.int32),
       lambda n, c: mx.random.randint(-2 ** 31, 2 ** 31 - 1, (n,)))
random("prng_uniform_f32", lambda g, n, c: g.random(n, dtype=np.float32), lambda n, c: torch.rand(n), lambda n, c: mx.random.uniform(shape=(n,)))
random("prng_normal_f32", lambda g, n, c: g.standard_normal(n, dtype=np.float32), lambda n, c: torch.randn(n), lambda n, c: mx.random.normal((n,)))
random("prng_dropout_mask", lambda g, n, c: g.random(n, dtype=np.float32) < np.float32(c.p("keep_prob", 0.9)),
       lambda n, c: torch.rand(n) < c.p("keep_prob", 0.9), lambda n, c: mx.random.bernoulli(c.p("keep_prob", 0.9), (n,)))


# ---- fused

@peers("fused_softmax_cross_entropy")
def fused_cross_entropy(c):
    if torch is None:
        return
    targets, ignore, scale = torch.from_numpy(c["targets"].astype(np.int64)), c.p("ignore_index", -100), c.p("grad_scale", 1.0)
    logits = torch.from_numpy(c["logits"].copy()).requires_grad_()

    def call():
        with torch.enable_grad():
            logits.grad = None
            loss = F.cross_entropy(logits, targets, ignore_index=ignore, reduction="none")
            (loss.sum() * scale).backward()
        return loss.detach(), logits.grad
    yield "torch", call, "loss grad"


@peers("fused_layernorm_dropout_residual")
def fused_layernorm(c):
    eps, keep = c.p("eps", 1e-5), c.p("keep_prob", 0.9)
    if not c.has("mask"):
        yield from c.th(lambda x, g, b, r: F.dropout(F.layer_norm(x, g.shape, g, b, eps), 1 - keep) + r, "x gamma beta residual", "")
        return
    yield from c.th(lambda x, g, b, r, m: F.layer_norm(x, g.shape, g, b, eps) * m * (1 / keep) + r, "x gamma beta residual mask")


@peers("fused_rope_attention_mask")
def fused_rope(c):
    if torch is None:
        return
    scale, length = c.p("scale", 1 / math.sqrt(c["q"].shape[-1])), c["q"].shape[-2]
    hidden = torch.triu(torch.ones(length, length, dtype=torch.bool), 1)

    def f(q, k, cos, sin):
        turn = lambda x: rotate(x.transpose(-2, -3) if x.ndim == 3 else x[:, None], cos, sin, "half", lambda p: torch.cat(p, -1))
        a, b = turn(q).transpose(0, 1), turn(k).transpose(0, 1)
        s = (a @ b.transpose(-1, -2) * scale).masked_fill(hidden, -math.inf)
        return s.reshape(q.shape[:-1] + (length,))
    yield from c.th(f, "q k cos sin", "scores")
