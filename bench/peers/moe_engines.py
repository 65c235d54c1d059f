"""The transformer with experts of `graft bench moe` in NumPy, PyTorch and MLX: forward, gradients, an AdamW step (spec/moe.md, sections 1 to 3)."""

import time

VOCAB, LAYERS, HEADS, EXPERTS, TOP_K, AUX = 1000, 2, 4, 4, 2, 0.01
MODELS = {"tiny": {"hidden": 64, "head_dim": 16, "width": 256}, "small": {"hidden": 256, "head_dim": 64, "width": 1024}}
LR, BETA1, BETA2, EPS, DECAY, CLIP = 1e-3, 0.9, 0.95, 1e-8, 0.1, 1.0


def shapes(model):
    """Tensors by their names in graft's files, the experts of a layer stacked as LAYER.mlp.experts.KIND."""
    h, d, f = (MODELS[model][k] for k in ("hidden", "head_dim", "width"))
    out = {"model.embed_tokens.weight": (VOCAB, h), "model.norm.weight": (h,), "lm_head.weight": (VOCAB, h)}
    for i in range(LAYERS):
        at = f"model.layers.{i}."
        out |= {at + "input_layernorm.weight": (h,), at + "post_attention_layernorm.weight": (h,), at + "self_attn.q_proj.weight": (HEADS * d, h),
                at + "self_attn.k_proj.weight": (d, h), at + "self_attn.v_proj.weight": (d, h), at + "self_attn.o_proj.weight": (h, HEADS * d),
                at + "mlp.gate.weight": (EXPERTS, h), at + "mlp.experts.gate_proj": (EXPERTS, f, h), at + "mlp.experts.up_proj": (EXPERTS, f, h),
                at + "mlp.experts.down_proj": (EXPERTS, h, f)}
    return out


def stacked(tensors):
    """Tensors of a model file (or their gradients), the experts' put together."""
    import numpy as np
    out, experts = {}, {}
    for name, value in tensors.items():
        if ".experts." in name:
            before, rest = name.split(".experts.")
            number, kind, _ = rest.split(".")
            experts.setdefault(f"{before}.experts.{kind}", {})[int(number)] = value
        else:
            out[name] = value
    return out | {name: np.stack([parts[e] for e in sorted(parts)]) for name, parts in experts.items()}


def random_weights(model, seed=42):
    import numpy as np
    rng = np.random.default_rng(seed)
    return {name: np.ones(shape, np.float32) if len(shape) == 1 else rng.standard_normal(shape, np.float32) * np.float32((2 / shape[-1]) ** 0.5)
            for name, shape in shapes(model).items()}


def rotations(seq, head_dim):
    import numpy as np
    angle = np.outer(np.arange(seq), 1e4 ** (-2 * np.arange(head_dim // 2) / head_dim))
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def decays(name):
    return not name.endswith("norm.weight")


class Numpy:
    """Forward and the formulas of the gradients, written out; parameters, gradients and moments are slices of one array each."""

    def __init__(self, model, weights):
        import numpy as np
        self.np, self.d = np, MODELS[model]["head_dim"]
        size = sum(w.size for w in weights.values())
        self.flat, self.grad, self.m, self.v, self.scratch = (np.zeros(size, np.float32) for _ in range(5))
        self.decay = np.ones(size, np.float32)
        self.p, self.g, self.t, at = {}, {}, 0, 0
        for name, w in weights.items():
            part = slice(at, at + w.size)
            self.flat[part] = w.ravel()
            self.decay[part] -= np.float32(LR * DECAY if decays(name) else 0)
            self.p[name], self.g[name] = self.flat[part].reshape(w.shape), self.grad[part].reshape(w.shape)
            at += w.size

    @staticmethod
    def inputs(*arrays):
        return arrays

    def norm(self, x, name):
        r = 1 / self.np.sqrt((x * x).mean(-1, keepdims=True) + self.np.float32(1e-6))
        return x * r * self.p[name], r

    def norm_back(self, dy, x, r, name):
        self.g[name] += (dy * x * r).sum(0)
        g = dy * self.p[name]
        return r * g - x * (r ** 3 / x.shape[1]) * (g * x).sum(1, keepdims=True)

    @staticmethod
    def rotate(x, cos, sin):
        out = x.copy()
        out[..., ::2] = x[..., ::2] * cos - x[..., 1::2] * sin
        out[..., 1::2] = x[..., ::2] * sin + x[..., 1::2] * cos
        return out

    def forward(self, ids, keep=None):
        np, p, (batch, seq), d = self.np, self.p, ids.shape, self.d
        cos, sin = rotations(seq, d)
        c4, s4 = cos[None, :, None, :], sin[None, :, None, :]
        mask = np.triu(np.full((seq, seq), -np.inf, np.float32), 1)
        x = p["model.embed_tokens.weight"][ids.ravel()]
        for i in range(LAYERS):
            at = f"model.layers.{i}."
            x0 = x
            n, r0 = self.norm(x, at + "input_layernorm.weight")
            q = self.rotate((n @ p[at + "self_attn.q_proj.weight"].T).reshape(batch, seq, HEADS, d), c4, s4).transpose(0, 2, 1, 3)
            k = self.rotate((n @ p[at + "self_attn.k_proj.weight"].T).reshape(batch, seq, 1, d), c4, s4).transpose(0, 2, 1, 3)
            v = (n @ p[at + "self_attn.v_proj.weight"].T).reshape(batch, 1, seq, d)
            s = q @ k.swapaxes(-1, -2) * np.float32(d ** -0.5) + mask
            s = np.exp(s - s.max(-1, keepdims=True))
            s /= s.sum(-1, keepdims=True)
            o = (s @ v).transpose(0, 2, 1, 3).reshape(batch * seq, -1)
            x1 = x = x + o @ p[at + "self_attn.o_proj.weight"].T
            n1, r1 = self.norm(x, at + "post_attention_layernorm.weight")
            z = n1 @ p[at + "mlp.gate.weight"].T
            prob = np.exp(z - z.max(-1, keepdims=True))
            prob /= prob.sum(-1, keepdims=True)
            chosen = np.argsort(-prob, axis=-1, kind="stable")[:, :TOP_K]
            w = np.take_along_axis(prob, chosen, 1)
            w /= w.sum(-1, keepdims=True)
            x, experts = x.copy(), []
            for e in range(EXPERTS):
                rows, slot = np.nonzero(chosen == e)
                if not len(rows):
                    continue
                xe = n1[rows]
                a, u = xe @ p[at + "mlp.experts.gate_proj"][e].T, xe @ p[at + "mlp.experts.up_proj"][e].T
                sig = 1 / (1 + np.exp(-a))
                h = a * sig * u
                y = h @ p[at + "mlp.experts.down_proj"][e].T
                x[rows] += w[rows, slot, None] * y  # a token has an expert once
                if keep is not None:
                    experts.append((e, rows, slot, xe, a, u, sig, h, y))
            if keep is not None:
                keep.append((x0, n, r0, q, k, v, s, o, x1, n1, r1, prob, chosen, w, experts))
        n, r = self.norm(x, "model.norm.weight")
        if keep is not None:
            keep.append((x, n, r))
        return (n @ p["lm_head.weight"].T).reshape(batch, seq, VOCAB)

    def gradients(self, ids, targets, counts):
        """Loss (with the auxiliary part); gradients into self.g. counts: 1 where a target counts."""
        np, p, g, (batch, seq), d = self.np, self.p, self.g, ids.shape, self.d
        self.grad[:] = 0
        keep, tokens = [], ids.size
        logits = self.forward(ids, keep).reshape(tokens, VOCAB)
        logits = np.exp(logits - logits.max(-1, keepdims=True))
        logits /= logits.sum(-1, keepdims=True)
        rows, scale = np.arange(tokens), counts.ravel().astype(np.float32) / np.float32(counts.sum())
        loss = float(-(np.log(logits[rows, targets.ravel()]) * scale).sum())
        logits[rows, targets.ravel()] -= 1
        logits *= scale[:, None]
        x, n, r = keep.pop()
        g["lm_head.weight"] += logits.T @ n
        dx = self.norm_back(logits @ p["lm_head.weight"], x, r, "model.norm.weight")
        cos, sin = rotations(seq, d)
        c4, s4 = cos[None, :, None, :], -sin[None, :, None, :]
        for i in reversed(range(LAYERS)):
            at = f"model.layers.{i}."
            x0, n, r0, q, k, v, s, o, x1, n1, r1, prob, chosen, w, experts = keep.pop()
            share = np.bincount(chosen.ravel(), minlength=EXPERTS).astype(np.float32) / (tokens * TOP_K)
            loss += float(AUX * EXPERTS * (share * prob.mean(0)).sum())
            dn, dw = np.zeros_like(n1), np.zeros_like(w)
            for e, rows, slot, xe, a, u, sig, h, y in experts:
                do = dx[rows]
                dw[rows, slot] = (do * y).sum(1)
                do = do * w[rows, slot, None]
                g[at + "mlp.experts.down_proj"][e] += do.T @ h
                dh = do @ p[at + "mlp.experts.down_proj"][e]
                du, da = dh * a * sig, dh * u * sig * (1 + a * (1 - sig))
                g[at + "mlp.experts.gate_proj"][e] += da.T @ xe
                g[at + "mlp.experts.up_proj"][e] += du.T @ xe
                dn[rows] += da @ p[at + "mlp.experts.gate_proj"][e] + du @ p[at + "mlp.experts.up_proj"][e]
            dz = np.zeros_like(prob)
            np.put_along_axis(dz, chosen, w * (dw - (w * dw).sum(1, keepdims=True)), 1)  # moe.md 2.7: a softmax over the chosen
            dp = np.float32(AUX * EXPERTS / tokens) * share
            dz += prob * (dp - (prob * dp).sum(1, keepdims=True))
            g[at + "mlp.gate.weight"] += dz.T @ n1
            dn += dz @ p[at + "mlp.gate.weight"]
            dx = dx + self.norm_back(dn, x1, r1, at + "post_attention_layernorm.weight")
            g[at + "self_attn.o_proj.weight"] += dx.T @ o
            do = (dx @ p[at + "self_attn.o_proj.weight"]).reshape(batch, seq, HEADS, d).transpose(0, 2, 1, 3)
            dv = (s.swapaxes(-1, -2) @ do).sum(1, keepdims=True)
            ds = do @ v.swapaxes(-1, -2)
            ds = s * (ds - (ds * s).sum(-1, keepdims=True)) * np.float32(d ** -0.5)
            dq = self.rotate((ds @ k).transpose(0, 2, 1, 3), c4, s4).reshape(tokens, -1)
            dk = self.rotate((ds.swapaxes(-1, -2) @ q).sum(1, keepdims=True).transpose(0, 2, 1, 3), c4, s4).reshape(tokens, -1)
            dv = dv.transpose(0, 2, 1, 3).reshape(tokens, -1)
            for name, dy in (("q", dq), ("k", dk), ("v", dv)):
                g[at + f"self_attn.{name}_proj.weight"] += dy.T @ n
            dn = dq @ p[at + "self_attn.q_proj.weight"] + dk @ p[at + "self_attn.k_proj.weight"] + dv @ p[at + "self_attn.v_proj.weight"]
            dx = dx + self.norm_back(dn, x0, r0, at + "input_layernorm.weight")
        np.add.at(g["model.embed_tokens.weight"], ids.ravel(), dx)
        return loss

    def step(self, ids, targets, counts):
        np = self.np
        self.gradients(ids, targets, counts)
        self.t += 1
        norm = float(np.sqrt(np.dot(self.grad, self.grad)))
        self.grad *= np.float32(min(1.0, CLIP / (norm + 1e-12)))
        self.m *= np.float32(BETA1)
        self.m += np.multiply(self.grad, np.float32(1 - BETA1), out=self.scratch)
        self.v *= np.float32(BETA2)
        np.multiply(self.grad, self.grad, out=self.scratch)
        self.v += np.multiply(self.scratch, np.float32(1 - BETA2), out=self.scratch)
        np.sqrt(np.multiply(self.v, np.float32(1 / (1 - BETA2 ** self.t)), out=self.scratch), out=self.scratch)
        self.scratch += np.float32(EPS)
        np.divide(self.m, self.scratch, out=self.scratch)
        self.scratch *= np.float32(LR / (1 - BETA1 ** self.t))
        self.flat *= self.decay
        self.flat -= self.scratch

    def checked(self, ids, targets, counts):
        return self.forward(ids), self.gradients(ids, targets, counts), dict(self.g)

    @staticmethod
    def kernels(a, b):
        import numpy as np
        y, x, row = np.empty_like(a), a.ravel()[:1000].copy(), np.empty(1000, np.float32)
        weight = b[0].copy()

        def softmax():
            np.exp(np.subtract(x, x.max(), out=row), out=row)
            np.divide(row, row.sum(), out=row)

        def rmsnorm():
            np.multiply(a, 1 / np.sqrt((a * a).mean(-1, keepdims=True) + np.float32(1e-6)), out=y)
            np.multiply(y, weight, out=y)
        return {"matmul": lambda: np.matmul(a, b, out=y), "softmax": softmax, "rmsnorm": rmsnorm}


class Torch:
    """dense: every expert on every token in three batched products; else a loop over experts with their tokens. The quicker is taken."""

    def __init__(self, model, weights, dense=None, compiled=False):
        import torch
        self.torch, self.d, self.compiled = torch, MODELS[model]["head_dim"], compiled
        self.p = {name: torch.tensor(w, requires_grad=True) for name, w in weights.items()}
        groups = [{"params": [p for n, p in self.p.items() if decays(n)], "weight_decay": DECAY},
                  {"params": [p for n, p in self.p.items() if not decays(n)], "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=LR, betas=(BETA1, BETA2), eps=EPS, fused=True)
        self.dense, self.tables = dense, {}
        self.run, self.loss = self.network, self.total
        if compiled:
            self.dense = True
            self.run, self.loss = torch.compile(self.network, dynamic=False), torch.compile(self.total, dynamic=False)

    def inputs(self, *arrays):
        return [self.torch.tensor(a) for a in arrays]

    def table(self, seq):
        if seq not in self.tables:
            self.tables[seq] = [self.torch.tensor(t)[None, None] for t in rotations(seq, self.d)]
        return self.tables[seq]

    def rotate(self, x, cos, sin):
        a, b = x[..., ::2], x[..., 1::2]
        return self.torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2)

    def network(self, ids, cos, sin):
        torch, p, f, (batch, seq), d = self.torch, self.p, self.torch.nn.functional, ids.shape, self.d
        x, aux, h = f.embedding(ids, p["model.embed_tokens.weight"]), 0.0, p["model.norm.weight"].shape
        for i in range(LAYERS):
            at = f"model.layers.{i}."
            n = f.rms_norm(x, h, p[at + "input_layernorm.weight"], 1e-6)
            q = self.rotate((n @ p[at + "self_attn.q_proj.weight"].T).view(batch, seq, HEADS, d).transpose(1, 2), cos, sin)
            k = self.rotate((n @ p[at + "self_attn.k_proj.weight"].T).view(batch, seq, 1, d).transpose(1, 2), cos, sin)
            v = (n @ p[at + "self_attn.v_proj.weight"].T).view(batch, seq, 1, d).transpose(1, 2)
            o = f.scaled_dot_product_attention(q, k.expand(-1, HEADS, -1, -1), v.expand(-1, HEADS, -1, -1), is_causal=True)
            x = x + o.transpose(1, 2).reshape(batch, seq, -1) @ p[at + "self_attn.o_proj.weight"].T
            n = f.rms_norm(x, h, p[at + "post_attention_layernorm.weight"], 1e-6).view(batch * seq, -1)
            prob = torch.softmax(n @ p[at + "mlp.gate.weight"].T, -1)
            w, chosen = torch.topk(prob, TOP_K, -1)
            w = w / w.sum(-1, keepdim=True)
            gate, up, down = (p[at + f"mlp.experts.{kind}_proj"] for kind in ("gate", "up", "down"))
            hot = f.one_hot(chosen, EXPERTS)
            if self.dense:
                each = n.expand(EXPERTS, -1, -1)
                y = torch.bmm(f.silu(torch.bmm(each, gate.transpose(1, 2))) * torch.bmm(each, up.transpose(1, 2)), down.transpose(1, 2))
                moe = torch.einsum("tke,tk,eth->th", hot.to(w.dtype), w, y)
            else:
                moe = torch.zeros_like(n)
                for e in range(EXPERTS):
                    rows, slot = torch.where(chosen == e)
                    part = n[rows]
                    y = (f.silu(part @ gate[e].T) * (part @ up[e].T)) @ down[e].T
                    moe = moe.index_add(0, rows, y * w[rows, slot, None])
            x = x + moe.view(batch, seq, -1)
            aux = aux + AUX * EXPERTS * (hot.to(prob.dtype).mean((0, 1)) * prob.mean(0)).sum()
        return f.rms_norm(x, h, p["model.norm.weight"], 1e-6) @ p["lm_head.weight"].T, aux

    def total(self, ids, targets, counts, cos, sin):
        logits, aux = self.network(ids, cos, sin)
        nll = self.torch.nn.functional.cross_entropy(logits.view(-1, VOCAB), targets.view(-1), reduction="none")
        return (nll * counts.view(-1)).sum() / counts.sum() + aux

    def choose(self, call):
        if self.dense is not None:
            return
        times = {}
        for dense in (True, False):
            self.dense = dense
            for _ in range(5):
                begin = time.perf_counter()
                call()
                times[dense] = time.perf_counter() - begin
        self.dense = times[True] < times[False]

    def forward(self, ids):
        cos, sin = self.table(ids.shape[1])
        with self.torch.no_grad():
            return self.run(ids, cos, sin)[0]

    def step(self, ids, targets, counts):
        self.optimizer.zero_grad()
        self.loss(ids, targets, counts, *self.table(ids.shape[1])).backward()
        self.torch.nn.utils.clip_grad_norm_(self.p.values(), CLIP, foreach=True)
        self.optimizer.step()

    def checked(self, ids, targets, counts):
        logits = self.forward(ids).numpy()
        for p in self.p.values():
            p.grad = None
        loss = self.loss(ids, targets, counts, *self.table(ids.shape[1]))
        loss.backward()
        return logits, float(loss.detach()), {n: p.grad.numpy() for n, p in self.p.items()}

    @staticmethod
    def kernels(a, b, compiled=False):
        import torch
        a, b = torch.tensor(a), torch.tensor(b)
        x, y, row, weight = a.ravel()[:1000].clone(), torch.empty_like(a), torch.empty(1000), b[0].clone()
        norm = torch.nn.functional.rms_norm
        calls = {"matmul": lambda: torch.mm(a, b, out=y), "softmax": lambda: torch.softmax(x, 0, out=row), "rmsnorm": lambda: norm(a, (64,), weight, 1e-6)}
        if compiled:
            plain = {"matmul": lambda: a @ b, "softmax": lambda: torch.softmax(x, 0), "rmsnorm": lambda: norm(a, (64,), weight, 1e-6)}
            calls = {name: torch.compile(call, dynamic=False) for name, call in plain.items()}
        return {name: torch.no_grad()(call) for name, call in calls.items()}


class Mlx:
    def __init__(self, model, weights):
        import mlx.core as mx
        mx.set_default_device(mx.cpu)
        self.mx, self.d = mx, MODELS[model]["head_dim"]
        self.p = {name: mx.array(w) for name, w in weights.items()}
        self.m = {n: mx.zeros_like(p) for n, p in self.p.items()}
        self.v = {n: mx.zeros_like(p) for n, p in self.p.items()}
        self.t = 0
        self.gradient = mx.value_and_grad(self.total)
        self.run, self.update = self.network, self.updated
        try:  # compiled where it can be
            run, update = mx.compile(self.network), mx.compile(self.updated)
            ids = mx.zeros((1, 2), mx.int32)
            mx.eval(run(self.p, ids)[0])
            mx.eval(update(self.p, self.m, self.v, mx.array(1.0), ids, ids, mx.ones((1, 2))))
            self.run, self.update = run, update
        except Exception:  # pylint: disable=broad-except
            pass
        mx.eval(self.p, self.m, self.v)

    def inputs(self, *arrays):
        return [self.mx.array(a) for a in arrays]

    def network(self, p, ids):
        mx, (batch, seq), d = self.mx, ids.shape, self.d
        x, aux = p["model.embed_tokens.weight"][ids], 0.0
        for i in range(LAYERS):
            at = f"model.layers.{i}."
            n = mx.fast.rms_norm(x, p[at + "input_layernorm.weight"], 1e-6)
            q, k, v = ((n @ p[at + f"self_attn.{kind}_proj.weight"].T).reshape(batch, seq, -1, d).transpose(0, 2, 1, 3) for kind in "qkv")
            q, k = (mx.fast.rope(t, d, traditional=True, base=1e4, scale=1.0, offset=0) for t in (q, k))
            o = mx.fast.scaled_dot_product_attention(q, k, v, scale=d ** -0.5, mask="causal")
            x = x + o.transpose(0, 2, 1, 3).reshape(batch, seq, -1) @ p[at + "self_attn.o_proj.weight"].T
            n = mx.fast.rms_norm(x, p[at + "post_attention_layernorm.weight"], 1e-6).reshape(batch * seq, -1)
            prob = mx.softmax(n @ p[at + "mlp.gate.weight"].T, -1)
            chosen = mx.stop_gradient(mx.argsort(-prob, -1)[:, :TOP_K])
            w = mx.take_along_axis(prob, chosen, -1)
            w = w / w.sum(-1, keepdims=True)
            hot = (chosen[..., None] == mx.arange(EXPERTS)).astype(mx.float32)
            a, u = (n @ p[at + f"mlp.experts.{kind}_proj"].swapaxes(1, 2) for kind in ("gate", "up"))
            y = (a * mx.sigmoid(a) * u) @ p[at + "mlp.experts.down_proj"].swapaxes(1, 2)
            mixed = ((hot * w[..., None]).sum(1).T[..., None] * y).sum(0)
            x = x + mixed.reshape(batch, seq, -1)
            aux = aux + AUX * EXPERTS * (hot.mean((0, 1)) * prob.mean(0)).sum()
        return mx.fast.rms_norm(x, p["model.norm.weight"], 1e-6) @ p["lm_head.weight"].T, aux

    def total(self, p, ids, targets, counts):
        logits, aux = self.network(p, ids)
        nll = self.mx.logsumexp(logits, -1) - self.mx.take_along_axis(logits, targets[..., None], -1)[..., 0]
        return (nll * counts).sum() / counts.sum() + aux

    def updated(self, p, m, v, t, ids, targets, counts):
        mx = self.mx
        _, g = self.gradient(p, ids, targets, counts)
        norm = mx.sqrt(sum((x * x).sum() for x in g.values()))
        scale = mx.minimum(1.0, CLIP / (norm + 1e-12))
        new_p, new_m, new_v = {}, {}, {}
        for n in p:
            x = g[n] * scale
            new_m[n], new_v[n] = BETA1 * m[n] + (1 - BETA1) * x, BETA2 * v[n] + (1 - BETA2) * x * x
            change = new_m[n] / (1 - BETA1 ** t) / (mx.sqrt(new_v[n] / (1 - BETA2 ** t)) + EPS)
            new_p[n] = p[n] * (1 - LR * DECAY if decays(n) else 1) - LR * change
        return new_p, new_m, new_v

    def forward(self, ids):
        logits = self.run(self.p, ids)[0]
        self.mx.eval(logits)
        return logits

    def step(self, ids, targets, counts):
        self.t += 1
        self.p, self.m, self.v = self.update(self.p, self.m, self.v, self.mx.array(float(self.t)), ids, targets, counts)
        self.mx.eval(self.p, self.m, self.v)

    def checked(self, ids, targets, counts):
        import numpy as np
        loss, g = self.gradient(self.p, ids, targets, counts)
        return np.array(self.forward(ids)), float(loss), {n: np.array(x) for n, x in g.items()}

    @staticmethod
    def kernels(a, b):
        import mlx.core as mx
        mx.set_default_device(mx.cpu)
        a, b = mx.array(a), mx.array(b)
        x, weight = a.reshape(-1)[:1000], b[0]
        mx.eval(a, b, x, weight)
        return {"matmul": lambda: mx.eval(a @ b), "softmax": lambda: mx.eval(mx.softmax(x)), "rmsnorm": lambda: mx.eval(mx.fast.rms_norm(a, weight, 1e-6))}


def make(engine, model, weights):
    if engine.startswith("torch"):
        return Torch(model, weights, compiled=engine == "torch.compile")
    return {"numpy": Numpy, "mlx": Mlx}[engine](model, weights)


def example(batch, seq):
    import numpy as np
    i = np.arange(batch * seq).reshape(batch, seq)
    kind = np.int64
    return (i % VOCAB).astype(kind), ((i + 1) % VOCAB).astype(kind), np.ones((batch, seq), np.float32)
