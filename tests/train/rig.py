"""Small trainings, and what they leave behind."""

import json
import signal

import cfgnet
from cfgnet.trainer import Silent

SMALL = """
name: small
data:
  train: {source: synthetic, classification: 3, count: 25, inputs: [4], noise: 0.5, batch_size: 4, shuffle: true}
  test: {source: synthetic, classification: 3, count: 17, inputs: [4], noise: 0.5, batch_size: 5, split: test}
layers:
  - {type: InnerProduct, name: score, num_output: 3}
  - {type: SoftmaxWithLoss, name: loss, inputs: [score, label]}
  - {type: Accuracy, name: accuracy, inputs: [score, label], phase: test}
solver: {type: SGD, base_lr: 0.1, momentum: 0.9}
train: {max_iter: 6, display: 2, test_interval: 2}
"""
"""A linear classifier: the smallest net that has everything a training needs."""

RICH = """
name: rich
data:
  train: {source: synthetic, classification: 3, count: 25, inputs: [2, 5, 5], noise: 0.5, batch_size: 4, shuffle: true,
          transform: {crop_size: 4, mirror: true}}
  test: {source: synthetic, classification: 3, count: 17, inputs: [2, 5, 5], noise: 0.5, batch_size: 5, split: test,
         transform: {crop_size: 4}}
layers:
  - {type: Convolution, name: conv, num_output: 4, kernel_size: 3, pad: 1}
  - {type: BatchNorm, name: norm}
  - {type: ReLU}
  - {type: Dropout, name: drop}
  - {type: InnerProduct, name: score, num_output: 3}
  - {type: SoftmaxWithLoss, name: loss, inputs: [score, label]}
  - {type: Accuracy, name: accuracy, inputs: [score, label], phase: test}
solver: {type: SGD, base_lr: 0.05, momentum: 0.9, weight_decay: 0.001, iter_size: 2,
         lr_policy: {type: poly, power: 0.9}}
train: {max_iter: 11, display: 2, test_interval: 3, test_initialization: true, snapshot: 4}
seed: 5
"""
"""Everything that a resume could get wrong: an epoch is 3.125 iterations, so that most of them begin inside a batch."""


class Watcher(Silent):
    """A reporter that remembers what it was told, and calls `at(iteration)` after each iteration."""

    def __init__(self, at=lambda iteration: None):
        self.at, self.lines, self.tests, self.notes = at, [], [], []

    def note(self, text):
        self.notes.append(text)

    def progress(self, line):
        self.lines.append(line)

    def tick(self, iteration, max_iter):
        self.at(iteration)

    def tested(self, iteration, metrics, best):
        self.tests.append((iteration, metrics, best))


def run(tmp_path, *sets, text=SMALL, **more):
    """A training of `text` with changes."""
    return cfgnet.train(cfgnet.loads(text, sets), runs=tmp_path, **more)


def signals(number, at):
    """A reporter that sends this process a signal after iteration `at`."""
    return Watcher(lambda iteration: signal.raise_signal(number) if iteration == at else None)


def log(path):
    """The log of a run without what a clock measured."""
    entries = [json.loads(line) for line in (path / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [{k: v for k, v in entry.items() if k not in ("images_per_s", "seconds")} for entry in entries]


def passes(path):
    """The iterations of the test passes of a run."""
    return [entry["iteration"] for entry in log(path) if "test" in entry]


def snapshots(path):
    """The snapshots of a run as bytes, by file name."""
    return {file.name: file.read_bytes() for file in (path / "snapshots").iterdir()}
