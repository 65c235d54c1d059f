"""The table of peers: what NumPy, SciPy, PyTorch and MLX offer for each kernel of the suite, as calls that return the same materialised result.

Each function yields (peer, call, names): `call()` computes the result, `names` are the kernel's outputs that it returns, in order
("" where the values cannot be compared: other random generators). Inputs are converted before; what is timed is `call` alone.
PyTorch functions are given as functions of tensors, so that torch.compile can take the same ones.
"""

import math

import numpy as np

PEERS = {}


def peers(*names):
    def add(function):
        for name in names:
            PEERS[name] = function
        return function
    return add


def lazy(module):
    try:
        return __import__(module, fromlist=["_"])
    except ImportError:
        return None


torch = lazy("torch")
mx = lazy("mlx.core")
mnn = lazy("mlx.nn") if mx is not None else None
scipy = lazy("scipy")
F = torch.nn.functional if torch is not None else None
if torch is not None:
    torch.set_grad_enabled(False)
if scipy is not None:
    import scipy.fft
    import scipy.linalg
    import scipy.ndimage
    import scipy.signal
    import scipy.sparse
    import scipy.special


class Case:
    """A call's inputs and parameters, and the outputs that graft gave."""

    def __init__(self, kernel, inputs, parameters, outputs, compile=False):
        self.kernel, self.inputs, self.parameters, self.outputs, self.compile = kernel, inputs, parameters, outputs, compile

    def __getitem__(self, name):
        return self.inputs[name]

    def has(self, name):
        return name in self.inputs

    def p(self, name, otherwise):
        text = self.parameters.get(name)
        if text is None:
            return otherwise
        if isinstance(otherwise, bool):
            return text == "true"
        return type(otherwise)(text)

    def np(self, f, inputs, names="y", peer="numpy"):
        """f of NumPy arrays; `inputs` are names with blanks."""
        arrays = [self[n] for n in inputs.split()]
        yield peer, lambda: f(*arrays), names

    def th(self, f, inputs, names="y", compiled=True, convert=None, peer="torch"):
        """f of tensors, eager and (where asked for) compiled."""
        if torch is None:
            return
        tensors = [(convert or torch.from_numpy)(np.ascontiguousarray(self[n])) for n in inputs.split()]
        yield peer, lambda: f(*tensors), names
        if self.compile and compiled:
            fast = torch.compile(f, dynamic=False)
            yield "torch.compile", lambda: fast(*tensors), names

    def mx(self, f, inputs, names="y"):
        if mx is None:
            return
        arrays = [mx.array(self[n]) for n in inputs.split()]
        mx.eval(arrays)

        def call():
            result = f(*arrays)
            mx.eval(result)
            return result
        yield "mlx", call, names
