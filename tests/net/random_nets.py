"""Random nets of all layer types: each as one of its cases sets it up, over tensors that fit."""

import math
import random

from cfgnet.backend import get_backend
from cfgnet.errors import Locate
from cfgnet.example import flow
from cfgnet.graph import TensorType, build
from cfgnet.layer import Layer
from cfgnet.plan.shapes import infer
from cfgnet.solver import Solver

CASES = [
    (cls, {"type": name} | {key: value for key, value in case.given.items() if key in cls.model_fields})
    for name, cls in Layer.members().items()
    if cls.__module__.startswith("cfgnet.") and cls.wiring.outputs and name != "HDF5Output"
    for case in cls.cases
]
SAMPLES = [[4, 6, 6], [12], [5, 8], [3, 4, 4]]
SOLVERS = [*Solver.members()]
SETTINGS = ["", ", weight_decay: 0.01", ", clip_gradients: 0.5", ", clip_value: 0.1", ", average: {decay: 0.9}"]
LARGEST = 20_000
TRIES = 120
K = get_backend("numpy").k


def random_net(seed: int) -> str:
    """The configuration of a net of up to ten layers, trained by all that comes out of it."""
    return _Net(random.Random(seed)).text()


class _Net:
    def __init__(self, drawn: random.Random):
        self.drawn = drawn
        self.sample = drawn.choice(SAMPLES)
        self.inputs = {"data": TensorType((4, *self.sample)), "label": TensorType((4,), "int")}
        self.there = ["data"]
        """The tensors that layers may read."""
        self.layers, self.lines, self.locate = [], [], Locate()

    def text(self) -> str:
        wanted = self.drawn.randint(3, 10)
        for _ in range(TRIES):
            if len(self.layers) < wanted:
                self.add(*self.drawn.choice(CASES))
        data = f"{{source: synthetic, count: 8, batch_size: 4, inputs: {self.sample}, classification: 3, noise: 0.5}}"
        lines = "".join(f"  - {flow(line)}\n" for line in [*self.lines, *self.objectives()])
        solver = f"{{type: {self.drawn.choice(SOLVERS)}, base_lr: 0.01{self.drawn.choice(SETTINGS)}}}"
        return f"data: {{train: {data}, test: {data}}}\nlayers:\n{lines}solver: {solver}\ntrain: {{max_iter: 2}}\n"

    def add(self, cls, settings) -> None:
        """A layer of a type, if it fits what it is given to read."""
        line = settings | {"name": f"l{len(self.layers)}", "inputs": self.drawn_inputs(cls)}
        line |= {"loss_weight": 1} if cls.is_loss else {}
        if "outputs" in line:
            line["outputs"] = [f"{line['name']}_{place}" for place in range(len(line["outputs"]))]
        layer = Layer.model_validate(line)
        graph, problems = build([*self.layers, layer], "train", self.inputs)
        nodes, tensors, _, more = infer(graph, K, self.locate)
        if problems or more or len(nodes) < len(graph.nodes):
            return
        names = layer.outputs or layer.default_outputs()
        made = [tensors[name] for name in names]
        if all(0 < math.prod(kind.shape) < LARGEST for kind in made):
            self.layers.append(layer)
            self.lines.append(layer.settings())
            if not cls.is_metric:
                self.there += [name for name in names if tensors[name].kind == "float" and tensors[name].shape]

    def drawn_inputs(self, cls) -> list[str]:
        """Tensors for a layer to read, newer ones more often; mostly labels where whole numbers go in."""
        ports = cls.wiring.inputs
        if any(port.many for port in ports):
            ports = [ports[0]] * self.drawn.randint(1, 3)
        elif self.drawn.random() < 0.7:
            ports = [port for port in ports if not port.optional]
        newest = self.there[-4:]
        return [
            "label" if port.kind == "int" and self.drawn.random() < 0.9 else self.drawn.choice(newest) for port in ports
        ]

    def objectives(self):
        """A loss for everything that nobody reads."""
        graph, _ = build(self.layers, "train", self.inputs)
        tensors = infer(graph, K, self.locate)[1]
        for name in graph.results:
            layer = graph.producer[name].layer
            if tensors[name].kind == "float" and not layer.is_metric and not layer.weight_in_objective():
                squares = {"operation": "SUMSQ", "coeff": 0.1, "loss_weight": 1} | (
                    {"axis": 0} if tensors[name].shape else {}
                )
                yield {"type": "Reduction", "name": f"of_{name}", "inputs": [name], **squares}
