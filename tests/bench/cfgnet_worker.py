"""A worker that trains a net with cfgnet; started by path, beside `protocol.py`."""

from pathlib import Path

import protocol


class Net:
    """A net as `cfgnet train` makes it, on the batch that every worker is given."""

    def __init__(self, settings):
        import numpy as np

        from cfgnet.backend import get_backend
        from cfgnet.graph import TensorType, build
        from cfgnet.net import Net
        from cfgnet.plan import make_plan
        from cfgnet.prepare import load
        from cfgnet.timing import Steps

        spec = load(settings["config"], settings["sets"])
        with np.load(Path(settings["folder"], "batch.npz")) as file:
            batch = dict(file)
        before = protocol.resident_bytes()
        backend = get_backend(settings["backend"], settings["threads"])
        layers = spec.layers
        if not settings["dropout"]:
            update = {"dropout_ratio": 0.0}
            layers = [each.model_copy(update=update) if each.type_name == "Dropout" else each for each in layers]
        inputs = {name: TensorType(a.shape, "int" if a.dtype.kind == "i" else "float") for name, a in batch.items()}
        graph, _ = build(layers, "train", inputs, spec.place)
        plan, problems = make_plan(graph, backend, dtype=spec.dtype, locate=spec.place, reuse=True)
        assert plan, problems
        self.net = Net(plan, backend, seed=spec.seed)
        self.steps = Steps(self.net, spec.solver, batch, 1 << 30)
        planned = self.steps.planned_bytes
        self.info = {"device": backend.device, "before_bytes": before, "planned_bytes": planned}

    def first(self):
        self.steps.feed()
        self.net.run_forward()
        loss = self.net.loss
        self.net.backward()
        return loss

    def step(self):
        return self.steps.step()

    def gradients(self):
        params = self.net.params
        return {key: params.backend.to_host(each.grad) for key, each in params.items() if each.grad is not None}


if __name__ == "__main__":
    protocol.serve(Net)
