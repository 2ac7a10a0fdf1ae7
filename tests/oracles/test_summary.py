"""The README's table of what was counted: layer types, cases, comparisons with Caffe, and the worst error."""

import re
from pathlib import Path

import pytest

from cfgnet.layer import Block, Layer
from cfgnet.policy import Policy
from cfgnet.solver import Solver

from .bench import find
from .conftest import DEFAULT, KINDS, TALLY

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def quoted(name):
    """The number that stands in a row of the README's table."""
    found = re.search(rf"^\| {name} \| ([\d.,e-]+) \|$", README, re.MULTILINE)
    assert found, f"the README has no row {name!r}"
    return float(found[1].replace(",", ""))


def test_the_readme_quotes_how_much_there_is():
    types = [cls for cls in Layer.members().values() if cls.__module__.startswith("cfgnet.")]
    assert quoted("layer types, blocks among them") == len(types)
    assert quoted("cases of layer types, each checked in every tier") == sum(
        len(cls.cases) for cls in types if not issubclass(cls, Block)
    )
    assert quoted("solvers, and learning-rate policies") == len(Solver.members()) + len(Policy.members())


def test_the_readme_quotes_what_caffe_was_compared_with(pytestconfig):
    rows = pytestconfig.stash[TALLY].rows
    seen = {(kind.split()[0], case) for kind, case, _, _ in rows}
    wanted = {(name.removesuffix("_case"), c.name) for name, kind in KINDS.items() for c in find(DEFAULT / kind)}
    if pytestconfig.getoption("oracle_dir", DEFAULT) != DEFAULT or not wanted <= seen:
        pytest.skip("not all comparisons were made in this run")
    assert quoted("arrays and numbers compared with Caffe's") == len(rows)
    worst = max(error for kind, _, _, error in rows if "float32" not in kind)
    assert quoted("worst error of these, relative to max\\(1, Caffe's\\), in float64") / 2 < worst
    assert worst <= quoted("worst error of these, relative to max\\(1, Caffe's\\), in float64")
