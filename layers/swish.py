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

    def forward(self, k, x, y):
        k.map("x * sigmoid(beta * x)", y, x=x, beta=self.beta)

    def backward(self, k, x, y, dy, dx):
        slope = "sigmoid(beta * x) + beta * y * (1 - sigmoid(beta * x))"
        k.map(f"dy * ({slope})", dx, x=x, y=y, dy=dy, beta=self.beta)
