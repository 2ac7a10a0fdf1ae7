"""Swish, as an example of a layer type of your own: cfgnet train net.yaml --layers layers."""

from cfgnet import Case, Layer


class Swish(Layer):
    """Swish: y = x * sigmoid(beta * x). Ramachandran et al. 2017."""

    beta: float = 1.0
    """Steepness of the gate."""

    cases = [
        Case(x=[[0.0, 2.0]], beta=0.0, expect={"y": [[0.0, 1.0]]}),
        Case(x=(3, 4), beta=1.5),
    ]

    def shapes(self, x):
        return x

    def forward(self, xp, x, y):
        y[...] = x / (1 + xp.exp(-self.beta * x))

    def backward(self, xp, x, y, dy, dx):
        gate = 1 / (1 + xp.exp(-self.beta * x))
        dx[...] = dy * (gate + self.beta * y * (1 - gate))
