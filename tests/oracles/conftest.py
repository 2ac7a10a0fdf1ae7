"""Finds the cases: every folder under `--oracle-dir` is one, so that new ones run without a change here."""

import json
from pathlib import Path

import numpy as np
import pytest

from .bench import Check, Tally, find
from .translate import UnsupportedError

DEFAULT = Path(__file__).parent / "caffe"
KINDS = {"layer_case": "layers", "solver_case": "solvers", "net_case": "nets"}
TALLY = pytest.StashKey[Tally]()


def pytest_addoption(parser):
    parser.addoption(
        "--oracle-dir",
        type=Path,
        default=DEFAULT,
        help="folder with layers/, solvers/, nets/ ... of Caffe",
    )


def pytest_configure(config):
    config.stash[TALLY] = Tally()


def pytest_generate_tests(metafunc):
    # Without this folder on the command line its options come too late to be known, and the default stands.
    folder = metafunc.config.getoption("oracle_dir", DEFAULT)
    if not any((folder / kind).is_dir() for kind in (*KINDS.values(), "lr_policies", "rules", "fillers")):
        kinds = "layers/, solvers/, lr_policies/, nets/, rules/, fillers/"
        raise pytest.UsageError(f"--oracle-dir {folder}: it has none of {kinds}")
    for fixture, kind in KINDS.items():
        if fixture in metafunc.fixturenames:
            cases = find(folder / kind)
            metafunc.parametrize(fixture, cases, ids=[case.name for case in cases])
    if "policy" in metafunc.fixturenames:
        found = policies(folder)
        metafunc.parametrize("policy", [(folder, *each) for each in found.items()], ids=list(found))
    if "rule_case" in metafunc.fixturenames:
        found = states(folder)
        metafunc.parametrize("rule_case", found.values(), ids=list(found))
    if "filler_case" in metafunc.fixturenames:
        found = fillers(folder)
        metafunc.parametrize("filler_case", list(found.values()), ids=list(found))
    if "bilinear" in metafunc.fixturenames:
        file = folder / "fillers" / "bilinear.npz"
        found = dict(np.load(file)) if file.exists() else {}
        metafunc.parametrize("bilinear", list(found.values()), ids=list(found))
    if "data_case" in metafunc.fixturenames:
        found = transforms(folder)
        metafunc.parametrize("data_case", list(found.items()), ids=list(found))


def transforms(folder):
    """What was done to the images of the database, by the name of the case."""
    file = folder / "data" / "case.json"
    return json.loads(file.read_text(encoding="utf-8"))["cases"] if file.exists() else {}


def fillers(folder):
    """What the numbers of a filler were like, by the name of the case."""
    file = folder / "fillers" / "stats.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}


def states(folder):
    """The net whose layers have rules, and each state with the layers that Caffe kept in it, by a name."""
    file = folder / "rules" / "cases.json"
    if not file.exists():
        return {}
    net = (folder / "rules" / "net.prototxt").read_text(encoding="utf-8")
    found = json.loads(file.read_text(encoding="utf-8"))
    return {f"{s['phase']} {s['level']} {'+'.join(s['stages'])}".strip(): (net, s) for s in found}


def policies(folder):
    """The solver texts of the learning-rate policies, by name."""
    file = folder / "lr_policies" / "case.json"
    return json.loads(file.read_text(encoding="utf-8"))["policies"] if file.exists() else {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Skips a case about something that cfgnet does not have, but for those that come with it."""
    try:
        return (yield)
    except UnsupportedError as reason:
        if item.config.getoption("oracle_dir", DEFAULT) == DEFAULT:
            raise
        pytest.skip(str(reason))


@pytest.fixture
def check(request):
    """Compares an array with Caffe's, and keeps the error for the summary."""
    kind = request.node.originalname.removeprefix("test_")
    given = getattr(request.node, "callspec", None)
    case, dtype = (given.id, given.params.get("dtype", "")) if given else ("", "")
    return Check(request.config.stash[TALLY], f"{kind} {dtype}".strip(), case.removesuffix(f"-{dtype}"))


def pytest_terminal_summary(terminalreporter, config):
    for line in config.stash[TALLY].lines():
        terminalreporter.write_line(line)
