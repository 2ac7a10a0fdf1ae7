"""The command line in this process, and a trained net to ask."""

import json
from dataclasses import dataclass

import pytest

import cfgnet
import cfgnet.layers  # noqa: F401  says where the layer types lie
from cfgnet.cli import main
from cfgnet.layer import Layer

CLASSES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
DIGITS = f"""
name: digits
data:
  train: {{source: digits, batch_size: 32, shuffle: true, transform: {{scale: 0.0625}}}}
  test: {{source: digits, split: test, batch_size: 100, transform: {{scale: 0.0625}}, classes: [{", ".join(CLASSES)}]}}
layers:
  - {{type: InnerProduct, name: hidden, num_output: 24}}
  - {{type: ReLU}}
  - {{type: InnerProduct, name: score, num_output: 10}}
  - {{type: SoftmaxWithLoss, name: loss, inputs: [score, label]}}
  - {{type: Accuracy, name: accuracy, inputs: [score, label], phase: test}}
solver: {{type: SGD, base_lr: 0.1, momentum: 0.9}}
train: {{max_iter: 80, display: 20, test_interval: 40}}
"""
LINE = """
name: line
data: {train: {source: synthetic, count: 10, distribution: linspace, formula: "1 + 2 * x", batch_size: 10}}
layers:
  - {type: InnerProduct, name: line, num_output: 1}
  - {type: EuclideanLoss, name: cost, inputs: [line, target]}
solver: {type: SGD, base_lr: 0.1}
train: {max_iter: 4, display: 2}
"""


@dataclass
class Said:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        """Its output, which has to be one JSON value and nothing else; nan and infinity are not JSON."""
        return json.loads(self.out, parse_constant=lambda text: pytest.fail(f"{text} is not JSON"))


@pytest.fixture
def shell(tmp_path, monkeypatch, capsys):
    """shell("train", "net.yaml") -> Said, in an empty folder with net.yaml (DIGITS) and line.yaml (LINE)."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.yaml").write_text(DIGITS, encoding="utf-8")
    (tmp_path / "line.yaml").write_text(LINE, encoding="utf-8")

    def call(*words):
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in words])
        said = Said(ended.value.code, *capsys.readouterr())
        assert "Traceback" not in said.err
        return said

    return call


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """The run directory of a trained DIGITS."""
    return cfgnet.train(cfgnet.loads(DIGITS), runs=tmp_path_factory.mktemp("trained")).path


@pytest.fixture(autouse=True)
def _only_the_layers_of_cfgnet(monkeypatch):
    """What a test adds with --layers is gone after it."""
    monkeypatch.setattr(Layer, "registry", dict(Layer.members()))
