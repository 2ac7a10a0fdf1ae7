"""Squareplus, as an example of a layer type of your own: cfgnet train net.yaml --layers layers."""

from cfgnet import Case, Layer


class Squareplus(Layer):
    """Squareplus, a smooth ReLU: y = (x + sqrt(x^2 + b)) / 2. Barron 2021."""

    b: float = 4.0
    """How round the bend at 0 is."""

    cases = [
        Case(x=[[0.0, 1.5, -1.5]], expect={"y": [[1.0, 2.0, 0.5]]}),
        Case(x=(3, 4), b=0.5),
    ]

    def shapes(self, x):
        return x

    def forward(self, k, x, y):
        k.map("(x + sqrt(x ** 2 + b)) / 2", y, x=x, b=self.b)

    def backward(self, k, x, dy, dx):
        k.map("dy * (1 + x / sqrt(x ** 2 + b)) / 2", dx, x=x, dy=dy, b=self.b)
