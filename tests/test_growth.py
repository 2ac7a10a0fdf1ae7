"""The work before training grows in proportion to a configuration, right or wrong: counted in calls, which are the same
on every machine. Where something is done for each pair, the second difference of the counts is not zero.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import cfgnet
from cfgnet.backend import get_backend
from cfgnet.backend.kernels.fold import MOST_STEPS
from cfgnet.cli import cli
from cfgnet.errors import SpecError
from cfgnet.explain import ADVISED
from cfgnet.prepare import prepare

Text = Callable[[int], str]

SHARE = 0.015
"""How much of all calls may be due to pairs, as those of a few sums and searches are."""
DATA = "data: {train: {source: synthetic, count: 9, batch_size: 9, inputs: [4], formula: x}}\n"
IMAGES = DATA.replace("[4]", "[4, 5, 5]")
STEPS = DATA.replace("[4]", "[5, 4]")
SOLVER = "solver: {type: SGD, base_lr: 0.1}\ntrain: {max_iter: 1}\n"
IP = "{type: InnerProduct, num_output: 4}"
CONV = "type: Convolution, num_output: 4, kernel_size: 3, pad: 1"


def listed(layers: Iterable[str], data: str = DATA, last: str = "y") -> str:
    """A net of such layers, trained to give back its input."""
    loss = f"{{type: EuclideanLoss, name: loss, inputs: [{last}, data]}}"
    return f"{data}layers:\n" + "".join(f"  - {layer}\n" for layer in [*layers, loss]) + SOLVER


def broken(layers: Iterable[str], more: str = "") -> str:
    """A net of such layers alone."""
    return f"{DATA}{more}layers:\n" + "".join(f"  - {layer}\n" for layer in layers)


def block_of_resnet(i: int) -> list[str]:
    return [
        f"{{{CONV}, name: a{i}, inputs: c{i}}}",
        f"{{type: BatchNorm, name: b{i}}}",
        f"{{type: Eltwise, name: s{i}, inputs: [b{i}, c{i}]}}",
        f"{{type: ReLU, name: c{i + 1}}}",
    ]


NETS: dict[str, Text] = {
    "a chain": lambda n: listed([IP, "ReLU"] * n, last=f"relu{n}"),
    "layers in place of one another": lambda n: listed([IP, *["TanH"] * n], last=f"tanh{n}"),
    "written backwards": lambda n: listed(
        [
            *(f"{{type: ReLU, name: r{i}, inputs: r{i + 1}}}" for i in range(n)),
            f"{IP[:-1]}, name: r{n}, inputs: data}}",
        ],
        last="r0",
    ),
    "residual": lambda n: listed(
        [f"{{{CONV}, name: c0}}", *(layer for i in range(n) for layer in block_of_resnet(i))], IMAGES, f"c{n}"
    ),
    "one convolution, then any order": lambda n: listed([f"{{{CONV}}}", *["ReLU", "TanH"] * n], IMAGES, f"tanh{n}"),
    "wide": lambda n: listed(
        [
            f"{IP[:-1]}, name: p}}",
            *(f"{{type: ReLU, name: r{i}, inputs: p}}" for i in range(n)),
            f"{{type: Concat, inputs: [{', '.join(f'r{i}' for i in range(n))}]}}",
            f"{IP[:-1]}, name: y}}",
        ]
    ),
    "all in the end": lambda n: listed(
        [
            *(f"{IP[:-1]}, name: r{i}}}" for i in range(n)),
            f"{{type: Concat, inputs: [{', '.join(f'r{i}' for i in range(n))}]}}",
            f"{IP[:-1]}, name: y}}",
        ]
    ),
    "one in all": lambda n: listed(
        [f"{IP[:-1]}, name: r0}}", *(f"{{type: Eltwise, name: r{i + 1}, inputs: [r{i}, r0]}}" for i in range(n))],
        last=f"r{n}",
    ),
    "a shared weight": lambda n: listed([f"{IP[:-1]}, param: {{weight: {{share: w}}}}}}"] * n, last=f"innerproduct{n}"),
    "a scan": lambda n: listed(
        [f"{{type: Scan, name: y, sequences: data, collect: innerproduct1, body: [{', '.join([IP] * n)}]}}"], STEPS
    ),
    "repeated": lambda n: listed([f"{{repeat: {n}, index: i, layers: [{IP[:-1]}, name: 'p${{i}}'}}]}}"], last="p0"),
    "uses of a block": lambda n: (
        f"blocks: {{b: {{layers: [{IP}, ReLU]}}}}\n" + listed([*["{type: b}"] * n, f"{IP[:-1]}, name: y}}"])
    ),
    "scopes": lambda n: listed([*(f"{{scope: s{i}, layers: [{IP}]}}" for i in range(n)), f"{IP[:-1]}, name: y}}"]),
    "variables of one another": lambda n: (
        "vars:\n  a0: 1\n"
        + "".join(f"  a{i + 1}: '${{a{i} + 1}}'\n" for i in range(n))
        + listed([f"{IP[:-1]}, name: y}}"])
    ),
}
"""Right nets of n parts."""
WRONG: dict[str, Text] = {
    "a circle": lambda n: broken(f"{{type: ReLU, name: r{i}, inputs: r{(i + 1) % n}}}" for i in range(n)),
    "circles": lambda n: broken(f"{{type: ReLU, name: r{i}, inputs: r{i ^ 1}}}" for i in range(n)),
    "nothing to read": lambda n: broken(f"{{type: ReLU, name: r{i}, inputs: q{i}}}" for i in range(n)),
    "left out": lambda n: broken(
        line
        for i in range(n)
        for line in (f"{{type: ReLU, name: r{i}, phase: test}}", f"{{type: ReLU, name: t{i}, inputs: r{i}}}")
    ),
    "one name": lambda n: broken(["{type: ReLU, name: r}"] * n),
    "one output": lambda n: broken(f"{{type: ReLU, name: r{i}, outputs: x}}" for i in range(n)),
    "unknown keys": lambda n: broken(f"{{type: ReLU, slop{i}: 1}}" for i in range(n)),
    "shapes that do not fit": lambda n: broken(
        f"{{type: Convolution, name: r{i}, num_output: 3, kernel_size: 3, inputs: data}}" for i in range(n)
    ),
    "a mistake at the end": lambda n: broken([*["ReLU"] * n, "{type: Convolution, num_output: 3, kernel_size: 3}"]),
    "no such weights": lambda n: broken(f"{IP[:-1]}, name: p{i}, share: q{i}}}" for i in range(n)),
    "no such variables": lambda n: broken(
        (f"{{type: InnerProduct, num_output: '${{z{i}}}'}}" for i in range(n)),
        "vars: {" + ", ".join(f"a{i}: 1" for i in range(n)) + "}\n",
    ),
    "no such parameters": lambda n: broken([IP] * n, "assign: {" + ", ".join(f"z{i}: 1" for i in range(n)) + "}\n"),
    "no such tensors in a block": lambda n: broken(
        ["{type: b}"],
        "blocks: {b: {layers: [" + ", ".join(f"{{type: ReLU, name: x{i}, inputs: y{i}}}" for i in range(n)) + "]}}\n",
    ),
    "no such uses of a block": lambda n: broken(
        (f"{{type: b, name: b{i}, share: q{i}}}" for i in range(n)), f"blocks: {{b: {{layers: [{IP}]}}}}\n"
    ),
    "nothing to use again": lambda n: broken(
        line
        for i in range(n)
        for line in (
            f"{{scope: s{i}, layers: [{IP[:-1]}, name: p}}]}}",
            f"{{scope: s{i}, reuse: true, layers: [{IP[:-1]}, name: q}}]}}",
        )
    ),
}
"""Configurations of n mistakes, or of a mistake that has to do with n layers."""


def calls(run: Callable[[], Any]) -> int:
    """How many functions are called while something runs."""
    count = 0

    def note(frame: Any, event: str, arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(before)
    return count


def share_of_pairs(run: Callable[[int], Any], n: int) -> float:
    """The part of the calls for 3 n that grows with the square of n."""
    run(3)  # what is imported and remembered at first
    one, two, three = (calls(partial(run, times * n)) for times in (1, 2, 3))
    return (three - 2 * two + one) / three


@pytest.mark.parametrize("name", NETS)
def test_a_plan_takes_work_in_proportion_to_the_net(name: str, tmp_path: Path) -> None:
    def plan(n: int) -> None:
        file = tmp_path / f"{n}.yaml"
        file.write_text(NETS[name](n))
        result = CliRunner().invoke(cli, ["plan", str(file), "--explain"])
        assert result.exit_code == 0, result.output

    assert abs(share_of_pairs(plan, 3 * MOST_STEPS)) < SHARE


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_are_said_in_proportion_to_the_configuration(name: str) -> None:
    def refused(n: int) -> None:
        with pytest.raises(SpecError) as error:
            prepare(cfgnet.loads(WRONG[name](n)), get_backend("numpy"))
        assert len(str(error.value)) < 2000 * (n + 2)

    assert abs(share_of_pairs(refused, ADVISED + 10)) < SHARE


def test_layers_in_place_of_one_another_may_be_thousands() -> None:
    spec = cfgnet.loads(NETS["layers in place of one another"](3000))
    plan = prepare(spec, get_backend("numpy"), reuse=True).plans["train"]
    assert len(plan.nodes) == 3002
    assert plan.memory.tensors < 0.7 * plan.memory.apart


def test_that_there_may_be_more_than_very_many_mistakes_is_said() -> None:
    with pytest.raises(SpecError) as error:
        cfgnet.loads(WRONG["no such variables"](3 * ADVISED))
    *told, last = error.value.problems
    assert len(told) == ADVISED and "there may be more" in last.message
