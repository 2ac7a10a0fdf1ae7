"""`cfgnet schedule`: the numbers of a training before it is made, as a drawing, JSON, a table and a picture."""

import importlib.util
import itertools
import re

import pytest

from cfgnet.cli.schedule import HEIGHT, WIDTH, chart, spread

BOTH = [
    *("--set", "solver.lr_policy={type: step, gamma: 0.5, stepsize: 20}"),
    *("--set", "solver.momentum={type: linear, start: 0.5, end: 0.9}"),
]


def test_json_holds_every_number_at_every_iteration(shell):
    found = shell("schedule", "net.yaml", "--json", *BOTH).json
    assert found.keys() == {"max_iter", "numbers", "schedule"}
    assert (found["max_iter"], found["numbers"], len(found["schedule"])) == (80, ["lr", "momentum"], 80)
    for at, row in enumerate(found["schedule"]):
        expected = {"iteration": at, "lr": 0.1 * 0.5 ** (at // 20), "momentum": 0.5 + 0.4 * at / 80}
        assert row == pytest.approx(expected)


def test_the_table_with_commas_holds_the_same(shell):
    rows = shell("schedule", "net.yaml", "--json", *BOTH).json["schedule"]
    header, *lines = shell("schedule", "net.yaml", "--csv", *BOTH).out.splitlines()
    assert header == "iteration,lr,momentum"
    assert [tuple(map(float, line.split(","))) for line in lines] == [tuple(row.values()) for row in rows]
    assert len(shell("schedule", "net.yaml", "--csv", "--points", "9").out.splitlines()) == 10
    said = shell("schedule", "net.yaml", "--csv", "--json")
    assert said.code == 2 and "not both" in said.err


def test_the_rates_are_those_of_the_training(shell, tmp_path):
    expected = [row["lr"] for row in shell("schedule", "net.yaml", "--json", *BOTH).json["schedule"]]
    said = shell("train", "net.yaml", *BOTH, "--set", "train.display=1", "--set", "train.test_interval=0")
    assert [float(rate) for rate in re.findall(r"lr (\S+)", said.err)] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("count", [1, 2, 5, 1000, 123_456])
@pytest.mark.parametrize("most", [2, 7, 1000])
def test_iterations_are_spread_evenly_with_both_ends(count, most):
    found = spread(count, most)
    assert found[0] == 0 and found[-1] == count - 1 and len(found) == min(count, most)
    steps = [b - a for a, b in itertools.pairwise(found)]
    assert not steps or (min(steps) >= 1 and max(steps) - min(steps) <= 1)


def test_a_chart_is_as_high_as_its_numbers_are():
    lines = chart(range(200), [at / 199 for at in range(200)])
    assert len(lines) == HEIGHT + 3 and lines[0].split()[0] == "1" and lines[HEIGHT - 1].split()[0] == "0"
    bars = [re.split("[┤│]", line)[1] for line in lines[:HEIGHT]]
    heights = [sum(bar[x : x + 1] not in ("", " ") for bar in bars) for x in range(WIDTH)]
    assert heights == sorted(heights) and heights[0] == 1 and heights[-1] == HEIGHT
    assert lines[-1] == "  lowest 0 at 0   highest 1 at 199"
    assert chart(range(5), [0.1] * 5) == ["  0.1 at every iteration"]


def test_the_page_names_every_policy_and_says_what_is_not_known(shell):
    out = shell("schedule", "net.yaml", *BOTH).out
    assert out.startswith("digits: SGD, 80 iterations\n\nlearning rate: step\n") and "\n\nmomentum: linear\n" in out
    assert "highest 0.1 at 0   lowest 0.0125 at 60   last 0.0125 at 79" in out
    out = shell("schedule", "net.yaml", "--set", "solver.lr_policy=plateau").out
    assert "learning rate: reduce_on_plateau\n  0.1 at every iteration\n  as long as the tests get better" in out


def test_a_length_in_epochs_is_counted_by_the_data(shell):
    epochs = ["--set", "train.max_iter=null", "--set", "train.epochs=2"]
    assert shell("schedule", "net.yaml", "--json", *epochs).json["max_iter"] == 90  # 1437 samples, 32 at a time
    gone = ["--set", "data.train.source=npz", "--set", "data.train.path=nowhere.npz"]
    assert shell("schedule", "net.yaml", "--json", *gone).json["max_iter"] == 80
    assert shell("schedule", "net.yaml", "--json", *gone, *epochs).code == 2


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="the extra `plot` is not installed")
def test_a_picture_is_drawn(shell, tmp_path):
    said = shell("schedule", "net.yaml", *BOTH, "--plot", "rates.png")
    assert said.code == 0 and said.out.splitlines()[-1] == "picture rates.png"
    assert (tmp_path / "rates.png").read_bytes().startswith(b"\x89PNG")
    said = shell("schedule", "net.yaml", "--json", "--plot", "rates.png")
    assert said.json["max_iter"] == 80 and said.err == "picture rates.png\n"
    assert shell("schedule", "net.yaml", "--plot", "nowhere/rates.png").code == 4


def test_a_mistake_is_said_with_its_place(shell):
    said = shell("schedule", "net.yaml", "--set", "solver.momentum={type: linear, end: 0.9}")
    assert said.code == 2 and "--set:1:17  missing key 'start'" in said.err
