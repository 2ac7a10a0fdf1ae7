"""Small nets that tests are made of."""

import numpy as np
from hypothesis import strategies as st

import cfgnet
from cfgnet.net import Net
from cfgnet.prepare import prepare

POINTS = "{source: synthetic, batch_size: 6, count: 6, classification: 3, inputs: [4], noise: 0.2}"


def spec_of(*layers, source=POINTS, **more):
    """The configuration of some layers, in float64."""
    rest = "".join(f"{key}: {value}\n" for key, value in {"dtype": "float64", **more}.items())
    text = f"data: {{train: {source}, test: {source}}}\nlayers:\n" + "".join(f"  - {x}\n" for x in layers) + rest
    return cfgnet.loads(text)


def build(*layers, phase="train", reuse=False, **more):
    """The net of some layers in float64, fed with its first batch and run."""
    spec = spec_of(*layers, **more)
    prepared = prepare(spec, phases=[phase], reuse=reuse)
    net = Net(prepared.plans[phase], seed=spec.seed)
    net.forward(**prepared.batches[phase].at(0))
    return net


def gradients(net):
    """Runs backward; the gradient of each trained parameter."""
    net.backward()
    return {key: p.grad.copy() for key, p in net.params.items() if p.grad is not None}


def numeric(net, key, step=1e-6):
    """The gradient of the objective by one parameter, by central differences."""
    value = net.params[key].value
    found = np.zeros_like(value)
    for index in np.ndindex(value.shape):
        start, losses = value[index], []
        for side in (step, -step):
            value[index] = start + side
            net.run_forward()
            losses.append(net.loss)
        value[index] = start
        found[index] = (losses[0] - losses[1]) / (2 * step)
    net.run_forward()
    return found


def assert_gradients_are_right(net):
    ours = gradients(net)
    assert ours
    for key, gradient in ours.items():
        np.testing.assert_allclose(gradient, numeric(net, key), rtol=1e-5, atol=1e-8, err_msg=key)


def ip(name, inputs, outputs=3, more=""):
    return f"{{type: InnerProduct, name: {name}, inputs: {inputs}, num_output: {outputs}{more}}}"


LOSS = "{type: SoftmaxWithLoss, name: loss, inputs: [score, label]}"


NONLINEAR = ["TanH", "Sigmoid", "Softmax"]


@st.composite
def graphs(draw):
    """Layers that form a random acyclic graph over tensors of 6x4, ending in one or two losses."""
    tensors, layers = ["data"], []
    for number in range(draw(st.integers(1, 6))):
        inputs = draw(st.lists(st.sampled_from(tensors), min_size=2, max_size=3))
        name = f"t{number}"
        layers.append(
            draw(
                st.sampled_from(
                    [
                        ip(name, inputs[0], 4, draw(st.sampled_from(["", ", param: {weight: {share: w}}"]))),
                        f"{{type: {draw(st.sampled_from(NONLINEAR))}, name: {name}, inputs: {inputs[0]}}}",
                        f"{{type: Eltwise, name: {name}, inputs: [{', '.join(inputs)}]}}",
                        f"{{type: Eltwise, name: {name}, inputs: [{', '.join(inputs)}], operation: PROD}}",
                    ]
                )
            )
        )
        tensors.append(name)
    layers.append(ip("score", tensors[-1], 3))
    layers.append(LOSS)
    if draw(st.booleans()):
        layers.append(f"{{type: EuclideanLoss, name: l2, inputs: [{draw(st.sampled_from(tensors))}, data]}}")
    return draw(st.permutations(layers))
