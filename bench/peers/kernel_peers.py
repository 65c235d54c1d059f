"""Peers of reductions, maps, scans, layout, sorting, softmax and normalization (peer_case.py)."""

import math

from peer_case import F, PEERS, mnn, mx, np, peers, scipy, torch


# ---- reductions

for _name, _np, _th in (("sum", np.sum, "sum"), ("mean", np.mean, "mean"), ("min", np.min, "amin"), ("max", np.max, "amax")):
    def _reduce(c, f=_np, t=_th, m=_name):
        yield from c.np(f, "x")
        yield from c.th(lambda x: getattr(torch, t)(x), "x")
        yield from c.mx(lambda x: getattr(mx, m)(x), "x")
    PEERS[f"reduce_{_name}"] = _reduce


@peers("reduce_l2")
def reduce_l2(c):
    yield from c.np(np.linalg.norm, "x")
    yield from c.th(lambda x: torch.linalg.vector_norm(x), "x")
    yield from c.mx(lambda x: mx.linalg.norm(x), "x")


@peers("reduce_var", "reduce_stddev")
def reduce_var(c):
    ddof, name = c.p("ddof", 0), "var" if c.kernel == "reduce_var" else "std"
    yield from c.np(lambda x: getattr(np, name)(x, ddof=ddof), "x")
    yield from c.th(lambda x: getattr(torch, name)(x, correction=ddof), "x")
    yield from c.mx(lambda x: getattr(mx, name)(x, ddof=ddof), "x")


@peers("reduce_histogram")
def reduce_histogram(c):
    bins, low, high = c.p("bins", 256), c.p("lo", -1.0), c.p("hi", 1.0)
    yield from c.np(lambda x: np.histogram(x, bins, (low, high))[0], "x", "counts")
    yield from c.th(lambda x: torch.histc(x, bins, low, high), "x", "counts", compiled=False)


@peers("reduce_argmax", "reduce_argmin")
def reduce_arg(c):
    arg, value = (np.argmax, "max") if c.kernel == "reduce_argmax" else (np.argmin, "min")

    def f(x):
        i = arg(x)
        return x[i], i
    yield from c.np(f, "x", "value index")
    yield from c.th(lambda x: getattr(torch, value)(x, 0), "x", "value index")
    pick = None if mx is None else (mx.argmax if value == "max" else mx.argmin)
    yield from c.mx(lambda x: [x[pick(x)], pick(x)], "x", "value index")


# ---- correlation

@peers("reduce_correlation")
def correlation(c):
    yield from c.np(lambda x, y: np.corrcoef(x, y)[0, 1], "x y", "r")
    yield from c.th(lambda x, y: torch.corrcoef(torch.stack((x, y)))[0, 1], "x y", "r")


@peers("reduce_covariance")
def covariance(c):
    ddof = c.p("ddof", 1)
    yield from c.np(lambda x, y: np.cov(x, y, ddof=ddof)[0, 1], "x y", "c")
    yield from c.th(lambda x, y: torch.cov(torch.stack((x, y)), correction=ddof)[0, 1], "x y", "c")


@peers("reduce_weighted_sum")
def weighted_sum(c):
    yield from c.np(np.dot, "x w")
    yield from c.th(lambda x, w: torch.dot(x, w), "x w")
    yield from c.mx(lambda x, w: mx.sum(w * x), "x w")


@peers("reduce_weighted_mean")
def weighted_mean(c):
    yield from c.np(lambda x, w: np.average(x, weights=w), "x w")
    yield from c.th(lambda x, w: torch.dot(x, w) / w.sum(), "x w")
    yield from c.mx(lambda x, w: mx.sum(w * x) / mx.sum(w), "x w")


@peers("reduce_covariance_matrix")
def covariance_matrix(c):
    ddof = c.p("ddof", 1)
    yield from c.np(lambda x: np.cov(x, rowvar=False, ddof=ddof, dtype=np.float32), "x", "c")
    yield from c.th(lambda x: torch.cov(x.T, correction=ddof), "x", "c")


@peers("reduce_pearson_pairwise")
def pearson(c):
    yield from c.np(lambda x: np.corrcoef(x, rowvar=False, dtype=np.float32), "x", "r")
    yield from c.th(lambda x: torch.corrcoef(x.T), "x", "r")


# ---- maps

def unary(name, f, t, m):
    def function(c):
        if f is not None:
            yield from c.np(f, "x")
        yield from c.th(t, "x")
        if mx is not None:
            yield from c.mx(m, "x")
    PEERS[name] = function


unary("map_exp", np.exp, lambda x: torch.exp(x), lambda x: mx.exp(x))
unary("map_log", np.log, lambda x: torch.log(x), lambda x: mx.log(x))
unary("map_tanh", np.tanh, lambda x: torch.tanh(x), lambda x: mx.tanh(x))
unary("map_abs", np.abs, lambda x: torch.abs(x), lambda x: mx.abs(x))
unary("map_softplus", lambda x: np.logaddexp(np.float32(0), x), lambda x: F.softplus(x, threshold=1e30), lambda x: mx.logaddexp(x, 0))
unary("map_relu", lambda x: np.maximum(x, np.float32(0)), lambda x: F.relu(x), lambda x: mx.maximum(x, 0))
unary("map_silu", lambda x: x / (1 + np.exp(-x)), lambda x: F.silu(x), lambda x: mnn.silu(x))
unary("map_mish", lambda x: x * np.tanh(np.logaddexp(np.float32(0), x)), lambda x: F.mish(x), lambda x: mnn.mish(x))


@peers("map_sigmoid")
def sigmoid(c):
    yield from c.np(lambda x: 1 / (1 + np.exp(-x)), "x")
    if scipy is not None:
        yield from c.np(scipy.special.expit, "x", peer="scipy")
    yield from c.th(lambda x: torch.sigmoid(x), "x")
    yield from c.mx(lambda x: mx.sigmoid(x), "x")


@peers("map_clamp")
def clamp(c):
    low, high = c.p("lo", -1.0), c.p("hi", 1.0)
    yield from c.np(lambda x: np.clip(x, np.float32(low), np.float32(high)), "x")
    yield from c.th(lambda x: torch.clamp(x, low, high), "x")
    yield from c.mx(lambda x: mx.clip(x, low, high), "x")


@peers("map_leaky_relu")
def leaky_relu(c):
    alpha = c.p("alpha", 0.01)
    yield from c.np(lambda x: np.where(x > 0, x, np.float32(alpha) * x), "x")
    yield from c.th(lambda x: F.leaky_relu(x, alpha), "x")
    yield from c.mx(lambda x: mnn.leaky_relu(x, alpha), "x")


@peers("map_elu")
def elu(c):
    alpha = c.p("alpha", 1.0)
    yield from c.np(lambda x: np.where(x > 0, x, np.float32(alpha) * np.expm1(x)), "x")
    yield from c.th(lambda x: F.elu(x, alpha), "x")
    yield from c.mx(lambda x: mnn.elu(x, alpha), "x")


@peers("map_gelu")
def gelu(c):
    form = c.p("approximate", "tanh")
    if form == "tanh":
        k = np.float32(math.sqrt(2 / math.pi))
        yield from c.np(lambda x: np.float32(0.5) * x * (1 + np.tanh(k * (x + np.float32(0.044715) * x * x * x))), "x")
    elif scipy is not None:
        yield from c.np(lambda x: np.float32(0.5) * x * scipy.special.erfc(x * np.float32(-math.sqrt(0.5))), "x", peer="scipy")
    yield from c.th(lambda x: F.gelu(x, approximate=form), "x")
    yield from c.mx(lambda x: (mnn.gelu_approx if form == "tanh" else mnn.gelu)(x), "x")


def binary(name, f, t, m):
    def function(c):
        yield from c.np(f, "a b")
        yield from c.th(t, "a b")
        if mx is not None:
            yield from c.mx(m, "a b")
    PEERS[name] = function


binary("map_add", np.add, lambda a, b: torch.add(a, b), lambda a, b: a + b)
binary("map_mul", np.multiply, lambda a, b: torch.mul(a, b), lambda a, b: a * b)
binary("map_div", np.divide, lambda a, b: torch.div(a, b), lambda a, b: a / b)


@peers("map_fma")
def fma(c):
    yield from c.np(lambda a, b, d: a * b + d, "a b c")
    yield from c.th(lambda a, b, d: torch.addcmul(d, a, b), "a b c")
    yield from c.mx(lambda a, b, d: a * b + d, "a b c")


@peers("map_compare")
def compare(c):
    op = c.p("op", "gt")
    full = {"gt": "greater", "ge": "greater_equal", "lt": "less", "le": "less_equal", "eq": "equal", "ne": "not_equal"}[op]
    yield from c.np(getattr(np, full), "a b", "mask")
    yield from c.th(lambda a, b: getattr(torch, op)(a, b), "a b", "mask")
    yield from c.mx(lambda a, b: getattr(mx, full)(a, b), "a b", "mask")


# ---- scans and compaction

def as_int32(array):
    return torch.from_numpy(array.view(np.int32))


@peers("scan_exclusive")
def scan_exclusive(c):
    yield from c.np(lambda x: np.cumsum(x, dtype=np.uint32) - x, "x")
    yield from c.th(lambda x: torch.cumsum(x, 0, dtype=torch.int32) - x, "x", convert=as_int32)
    yield from c.mx(lambda x: mx.cumsum(x, inclusive=False), "x")


@peers("scan_inclusive")
def scan_inclusive(c):
    yield from c.np(lambda x: np.cumsum(x, dtype=np.uint32), "x")
    yield from c.th(lambda x: torch.cumsum(x, 0, dtype=torch.int32), "x", convert=as_int32)
    yield from c.mx(lambda x: mx.cumsum(x), "x")


@peers("compact_if", "fused_scan_compact")
def compact_if(c):
    t = c.p("threshold", 0.0)
    yield from c.np(lambda x: x[x > np.float32(t)], "x")
    yield from c.th(lambda x: x[x > t], "x", compiled=False)


@peers("compact_mask")
def compact_mask(c):
    mask = c["mask"] != 0
    yield from c.np(lambda x: x[mask], "x")
    if torch is not None:
        flags = torch.from_numpy(mask)
        yield from c.th(lambda x: torch.masked_select(x, flags), "x", compiled=False)


# ---- dot products

@peers("dot_batched")
def dot_batched(c):
    yield from c.np(lambda a, b: np.einsum("ij,ij->i", a, b), "a b")
    yield from c.th(lambda a, b: torch.linalg.vecdot(a, b), "a b")
    yield from c.mx(lambda a, b: (a * b).sum(-1), "a b")


@peers("cosine_similarity")
def cosine(c):
    eps = c.p("eps", 1e-8)

    def f(a, b):
        e = np.float32(eps)
        return np.einsum("ij,ij->i", a, b) / (np.maximum(np.linalg.norm(a, axis=1), e) * np.maximum(np.linalg.norm(b, axis=1), e))
    yield from c.np(f, "a b")
    yield from c.th(lambda a, b: F.cosine_similarity(a, b, eps=eps), "a b")
    yield from c.mx(lambda a, b: (a * b).sum(-1) / (mx.maximum(mx.linalg.norm(a, axis=1), eps) * mx.maximum(mx.linalg.norm(b, axis=1), eps)), "a b")


# ---- quantization

@peers("quantize_f16_to_i8")
def quantize_i8(c):
    def f(x):
        y = x.astype(np.float32)
        s = np.abs(y).max(1) / np.float32(127)
        s[s == 0] = 1
        return np.clip(np.rint(y / s[:, None]), -127, 127).astype(np.int8), s
    yield from c.np(f, "x", "q scale")

    def g(x):
        y = x.float()
        s = y.abs().amax(1) / 127
        s = torch.where(s == 0, 1, s)
        return torch.clamp(torch.round(y / s[:, None]), -127, 127).to(torch.int8), s
    yield from c.th(g, "x", "q scale")


@peers("dequantize_i8_to_f16")
def dequantize(c):
    yield from c.np(lambda q, s: (q.astype(np.float32) * s[:, None]).astype(np.float16), "q scale", "x")
    yield from c.th(lambda q, s: (q.float() * s[:, None]).half(), "q scale", "x")


@peers("quantize_f32_to_f16")
def to_half(c):
    def f(x):
        with np.errstate(over="ignore"):
            return x.astype(np.float16)
    yield from c.np(f, "x")
    yield from c.th(lambda x: x.half(), "x")
    yield from c.mx(lambda x: x.astype(mx.float16), "x")


# ---- layout

def layout(name, inputs, output):
    def function(c):
        yield from c.np(lambda x: np.ascontiguousarray(x.T), inputs, output)
        yield from c.th(lambda x: x.T.contiguous(), inputs, output)
        yield from c.mx(lambda x: mx.contiguous(x.T), inputs, output)
    PEERS[name] = function


layout("transpose_2d", "x", "y")
layout("repack_aos_to_soa", "aos", "soa")
layout("repack_soa_to_aos", "soa", "aos")


# ---- fused map-reduce

@peers("map_reduce_square_sum")
def square_sum(c):
    yield from c.np(lambda x: np.dot(x, x), "x")
    yield from c.th(lambda x: torch.dot(x, x), "x")
    yield from c.mx(lambda x: mx.sum(mx.square(x)), "x")


@peers("map_reduce_abs_sum")
def abs_sum(c):
    yield from c.np(lambda x: np.abs(x).sum(), "x")
    yield from c.th(lambda x: x.abs().sum(), "x")
    yield from c.mx(lambda x: mx.abs(x).sum(), "x")


@peers("map_reduce_masked_sum")
def masked_sum(c):
    mask = c["mask"] != 0
    yield from c.np(lambda x: np.sum(x, where=mask), "x")
    if torch is not None:
        flags = torch.from_numpy(mask)
        yield from c.th(lambda x: torch.where(flags, x, 0).sum(), "x")
    if mx is not None:
        marks = mx.array(mask)
        yield from c.mx(lambda x: mx.where(marks, x, 0).sum(), "x")


@peers("map_reduce_threshold_count")
def threshold_count(c):
    t = c.p("threshold", 0.0)
    yield from c.np(lambda x: np.count_nonzero(x > np.float32(t)), "x", "count")
    yield from c.th(lambda x: torch.count_nonzero(x > t), "x", "count")
    yield from c.mx(lambda x: mx.sum(x > t), "x", "count")


# ---- statistics and sorting

@peers("topk_select")
def topk(c):
    k = c.p("k", 100)

    def f(x):
        i = np.argpartition(x, len(x) - k)[len(x) - k:]
        i = i[np.argsort(-x[i], kind="stable")]
        return x[i], i
    yield from c.np(f, "x", "values")
    yield from c.th(lambda x: torch.topk(x, k), "x", "values", compiled=False)
    yield from c.mx(lambda x: mx.sort(mx.topk(x, k))[::-1], "x", "values")


@peers("sort_radix")
def sort_radix(c):
    if c.has("values"):
        values = c["values"]

        def f(keys):
            order = np.argsort(keys, kind="stable")
            return keys[order], values[order]
        yield from c.np(f, "keys", "keys values")
        if torch is not None:
            payload = as_int32(values)

            def g(keys):
                ordered, order = torch.sort(keys, stable=True)
                return ordered, payload[order]
            yield from c.th(g, "keys", "", compiled=False, convert=as_signed)
        return
    yield from c.np(lambda keys: np.sort(keys, kind="stable"), "keys", "keys")
    yield from c.np(lambda keys: np.sort(keys), "keys", "keys", peer="numpy quicksort")
    yield from c.th(lambda keys: torch.sort(keys, stable=True)[0], "keys", "", compiled=False, convert=as_signed)
    yield from c.mx(lambda keys: mx.sort(keys), "keys", "keys")


def as_signed(array):
    """u32 keys as i32 of the same order: PyTorch sorts no u32."""
    return torch.from_numpy((array ^ np.uint32(1 << 31)).view(np.int32))


@peers("sort_bitonic")
def sort_bitonic(c):
    yield from c.np(np.sort, "x")
    yield from c.th(lambda x: torch.sort(x)[0], "x", compiled=False)
    yield from c.mx(lambda x: mx.sort(x), "x")


@peers("sort_bitonic_kv")
def sort_bitonic_kv(c):
    values = c["values"]

    def f(keys):
        order = np.argsort(keys, kind="stable")
        return keys[order], values[order]
    yield from c.np(f, "keys", "keys")
    if torch is not None:
        payload = as_int32(values)

        def g(keys):
            ordered, order = torch.sort(keys, stable=True)
            return ordered, payload[order]
        yield from c.th(g, "keys", "keys", compiled=False)
    if mx is not None:
        marks = mx.array(values)

        def h(keys):
            order = mx.argsort(keys)
            return [keys[order], marks[order]]
        yield from c.mx(h, "keys", "keys")


@peers("median_select")
def median(c):
    yield from c.np(np.median, "x")
    if len(c["x"]) <= 16_000_000:  # torch.quantile takes no more
        yield from c.th(lambda x: torch.quantile(x, 0.5), "x", compiled=False)
    yield from c.mx(lambda x: mx.median(x), "x")


@peers("percentile_select")
def percentile(c):
    p = c["p"].astype(np.float64)
    yield from c.np(lambda x: np.percentile(x, p), "x")
    if torch is not None and len(c["x"]) <= 16_000_000:
        q = torch.from_numpy((p / 100).astype(np.float32))
        yield from c.th(lambda x: torch.quantile(x, q), "x", compiled=False)


# ---- softmax and normalization

@peers("softmax_stable", "softmax_online")
def softmax(c):
    def f(x):
        e = np.exp(x - x.max(-1, keepdims=True))
        e /= e.sum(-1, keepdims=True)
        return e
    yield from c.np(f, "x")
    yield from c.th(lambda x: torch.softmax(x, -1), "x")
    yield from c.mx(lambda x: mx.softmax(x, axis=-1), "x")


@peers("log_softmax")
def log_softmax(c):
    if scipy is not None:
        yield from c.np(lambda x: scipy.special.log_softmax(x, axis=-1), "x", peer="scipy")
    yield from c.th(lambda x: torch.log_softmax(x, -1), "x")
    yield from c.mx(lambda x: x - mx.logsumexp(x, axis=-1, keepdims=True), "x")


@peers("layer_norm")
def layer_norm(c):
    eps = c.p("eps", 1e-5)

    def f(x, g, b):
        d = x - x.mean(-1, keepdims=True)
        return d / np.sqrt(np.mean(d * d, -1, keepdims=True) + np.float32(eps)) * g + b
    yield from c.np(f, "x gamma beta")
    yield from c.th(lambda x, g, b: F.layer_norm(x, g.shape, g, b, eps), "x gamma beta")
    yield from c.mx(lambda x, g, b: mx.fast.layer_norm(x, g, b, eps), "x gamma beta")


@peers("rms_norm")
def rms_norm(c):
    eps = c.p("eps", 1e-6)
    yield from c.np(lambda x, g: x / np.sqrt(np.mean(x * x, -1, keepdims=True) + np.float32(eps)) * g, "x gamma")
    yield from c.th(lambda x, g: F.rms_norm(x, g.shape, g, eps), "x gamma")
    yield from c.mx(lambda x, g: mx.fast.rms_norm(x, g, eps), "x gamma")


@peers("batch_norm")
def batch_norm(c):
    eps, momentum, training = c.p("eps", 1e-5), c.p("momentum", 0.1), c.p("training", True)

    def f(x, g, b, mean, var):
        if training:
            mean = x.mean((0, 2))
            var = x.var((0, 2))
        s = (1, -1, 1)
        return (x - mean.reshape(s)) / np.sqrt(var.reshape(s) + np.float32(eps)) * g.reshape(s) + b.reshape(s)
    yield from c.np(f, "x gamma beta running_mean running_var")
    yield from c.th(lambda x, g, b, mean, var: F.batch_norm(x, mean, var, g, b, training, momentum, eps),
                    "x gamma beta running_mean running_var")


@peers("group_norm")
def group_norm(c):
    eps, groups = c.p("eps", 1e-5), c.p("groups", 32)

    def f(x, g, b):
        y = x.reshape(x.shape[0], groups, -1)
        d = y - y.mean(-1, keepdims=True)
        d /= np.sqrt(np.mean(d * d, -1, keepdims=True) + np.float32(eps))
        return d.reshape(x.shape) * g[None, :, None] + b[None, :, None]
    yield from c.np(f, "x gamma beta")
    yield from c.th(lambda x, g, b: F.group_norm(x, groups, g, b, eps), "x gamma beta")
