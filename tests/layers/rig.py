"""One layer with arrays of its own, so that a test can call its methods with whatever it likes."""

import numpy as np

from cfgnet.backend import Clock, LayerRng, get_backend
from cfgnet.backend.kernels import Immediate
from cfgnet.gradcheck import case_net
from cfgnet.layer import Block, Layer, answer, asks

GARBAGE = {"f": np.nan, "i": -7}
"""What arrays hold before they are written, so that a value that was never written shows."""


def quiet():
    """Says nothing, as a training: BLAS may compute with garbage beside an array, in lanes that it throws away."""
    return np.errstate(all="ignore")


def cases(wanted=lambda cls, case: True):
    """Every case of every layer type but blocks, with its number, as parameters of a test."""
    return [
        (f"{name}-{number}", cls, case)
        for name, cls in Layer.members().items()
        if cls.__module__.startswith("cfgnet.") and not issubclass(cls, Block)
        for number, case in enumerate(cls.cases)
        if wanted(cls, case)
    ]


def leaves(value):
    """The arrays in a value that is an array, or a list of arrays for a port that takes many."""
    return value if isinstance(value, list) else [value]


class Rig:
    """The layer of a case with every array that its methods may ask for, by name, in `arrays`."""

    def __init__(self, cls, case, dtype="float64", backend="numpy", channels_last=False):
        self.net, self.channels_last = case_net(cls, case), channels_last
        self.shaped = self.net.plan.nodes[0]
        self.layer, self.dtype, self.backend = self.shaped.node.layer, dtype, get_backend(backend)
        self.train = case.train
        self.arrays = {port: self.sent(value, self.net.tensors) for port, value in self.shaped.node.inputs.items()}
        values = {key: parameter.value for key, parameter in self.net.params.items()}
        self.arrays |= {name: self.sent(key, values) for name, key in self.shaped.params.items()}
        self.outputs = [*self.shaped.node.outputs, *self.shaped.saved]
        for name, tensor in (self.shaped.node.outputs | self.shaped.saved).items():
            kinds = [self.net.plan.tensors[each].kind for each in ([tensor] if isinstance(tensor, str) else tensor)]
            self.arrays[name] = self.fresh(self.shaped.shapes[name], kinds if isinstance(tensor, tuple) else kinds[0])
        for name, shape in self.shaped.scratch.items():
            self.arrays[name] = self.fresh(shape)

    def sent(self, value, arrays):
        """Copies of arrays of the net, on the backend and in the dtype of the rig."""
        if not isinstance(value, str):
            return [self.sent(each, arrays) for each in value]
        array = arrays[value]
        return self.laid_out(
            self.backend.xp.asarray(array.copy(), self.dtype if array.dtype.kind == "f" else array.dtype)
        )

    def laid_out(self, array):
        """The array, or a copy whose channels lie last in memory."""
        if not self.channels_last or array.ndim < 3 or array.dtype.kind == "i":
            return array
        xp = self.backend.xp
        return xp.moveaxis(xp.ascontiguousarray(xp.moveaxis(array, 1, -1)), -1, 1)

    def fresh(self, shape, kind="float"):
        """An array, or several, full of garbage."""
        if isinstance(shape, list):
            return [self.fresh(*each) for each in zip(shape, kind, strict=True)]
        dtype = np.dtype(self.dtype if kind == "float" else "int32")
        return self.laid_out(self.backend.xp.full(shape, GARBAGE[dtype.kind], dtype))

    def offer(self):
        k, rng = Immediate(self.backend.k), LayerRng(1, "layer", Clock())
        params = {name: self.arrays[name] for name in self.shaped.params}
        helpers = {"xp": self.backend.xp, "k": k, "rng": rng, "train": self.train, "inside": self.shaped.inside}
        return {**helpers, "params": params, **self.arrays}

    def forward(self, **others):
        """Runs forward, with `others` in the place of the arrays of those names; returns copies of the outputs."""
        with quiet():
            self.layer.forward(**answer(self.layer, "forward", self.offer() | others))
        return {name: self.host(self.arrays[name]) for name in self.outputs}

    def upper(self):
        """Gradients of the outputs: the same normal numbers in every rig of the same shapes."""
        random = np.random.default_rng(5)

        def drawn(array):
            if array.dtype.kind == "i":
                return None
            return self.laid_out(self.backend.xp.asarray(random.normal(size=array.shape).astype(array.dtype)))

        made = {name: list(map(drawn, leaves(self.arrays[name]))) for name in self.shaped.node.outputs}
        return {
            "d" + name: found if isinstance(self.arrays[name], list) else found[0]
            for name, found in made.items()
            if any(each is not None for each in found)
        }

    def wanted(self):
        """The gradients that backward may be asked for, full of garbage where they are overwritten."""
        found = {}
        asked = asks(type(self.layer), "backward")
        for name in [*asked, *(f"d{name}" for name in self.shaped.params if "dparams" in asked)]:
            source = name[1:]
            if name.startswith("d") and source in self.arrays and source not in self.outputs:
                trained = source in self.shaped.params
                value = self.arrays[source]
                fill = 0.0 if trained else np.nan
                made = [
                    self.laid_out(self.backend.xp.full(a.shape, fill, self.dtype)) if a.dtype.kind == "f" else None
                    for a in leaves(value)
                ]
                found[name] = made if isinstance(value, list) else made[0]
        return found

    def backward(self, gradients, **others):
        """Runs backward into the arrays of `gradients`; returns copies of them."""
        for name in self.shaped.scratch:
            self.arrays[name].fill(np.nan)
        garbage = {name: self.garbage(self.arrays[name]) for name in self.layer.shape_only()}
        dparams = {name: gradients[f"d{name}"] for name in self.shaped.params if f"d{name}" in gradients}
        offered = self.offer() | garbage | self.upper() | {"dparams": dparams} | gradients | others
        with quiet():
            self.layer.backward(**answer(self.layer, "backward", offered))
        return {name: self.host(value) for name, value in gradients.items()}

    def garbage(self, value):
        """Arrays of the same shapes, of which nothing else may be relied on."""
        made = [self.laid_out(self.backend.xp.full(a.shape, np.nan, a.dtype)) for a in leaves(value)]
        return made if isinstance(value, list) else made[0]

    def host(self, value):
        if not isinstance(value, list):
            return self.backend.to_host(value)
        return [self.backend.to_host(a) for a in value if a is not None]
