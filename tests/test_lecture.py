"""The lecture's numbers: each example by name, from its configuration in the shell, and from Python."""

import json
from pathlib import Path

import numpy as np
import pytest

import cfgnet as cn
from cfgnet.cli import main

FOLDER = Path(__file__).parents[1] / "configs" / "lecture"


@pytest.fixture
def run(capsys):
    """run("scalar", "a=1", grad="a") -> what `cfgnet run` says, as JSON."""

    def call(name, *feeds, **options):
        words = [word for feed in feeds for word in ("--feed", feed)]
        words += [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", str(value))]
        with pytest.raises(SystemExit) as ended:
            main(["run", str(FOLDER / f"{name}.yaml"), *words, "--json"])
        assert ended.value.code == 0
        return json.loads(capsys.readouterr().out)

    return call


def test_scalar_d_is_a_times_b_plus_1_and_has_the_gradients_b_and_a(run):
    found = run("scalar", "a=1", "b=2", fetch="d", grad="a,b")
    assert found == {"values": {"d": 3}, "gradients": {"a": 2, "b": 1}}
    with cn.eager():
        a, b = cn.variable("a", value=1.0), cn.variable("b", value=2.0)
        d = a * b + 1
        d.backward()
        assert (float(d.value), float(a.grad), float(b.grad)) == (3, 2, 1)


def test_d_is_b_times_a_plus_1_and_has_the_gradients_3_and_5(run):
    found = run("expression", "A=5", "B=3", fetch="D", grad="A,B")
    assert found == {"values": {"D": 16}, "gradients": {"A": 3, "B": 5}}
    a, b = cn.variable("A"), cn.variable("B")
    d = b * a + 1
    assert [float(g.eval({"A": 5, "B": 3})) for g in cn.grad(d, [a, b])] == [3, 5]


def test_the_same_graph_runs_with_other_numbers_and_other_shapes(run):
    assert [run("expression", f"A={a}", f"B={b}")["values"]["D"] for a, b in ((2, 5), (10, 2), (0, 7))] == [11, 21, 1]
    assert run("expression", "A=[1, 2, 3]", "B=2")["values"]["D"] == [3, 5, 7]
    f = cn.compile(cn.variable("B") * cn.variable("A") + 1)
    np.testing.assert_array_equal(f(A=np.ones(10), B=2 * np.ones(10)), np.full(10, 3.0))
    assert float(f(A=2, B=5)) == 11


def test_initial_gradients_are_factors_of_the_gradients(run):
    found = run("expression", "A=5", "B=3", fetch="D", grad="A,B", grad_output="D=0.5")
    assert found["gradients"] == {"A": 1.5, "B": 2.5}


def test_the_sum_of_2_and_5_times_3_is_21(run):
    assert run("sum_times_three", "A=2", "B=5")["values"] == {"C": 21}
    assert float(((cn.variable("A") + cn.variable("B")) * 3).eval({"A": 2, "B": 5})) == 21


def test_the_derivative_is_printed_as_the_rules_give_it_and_made_simpler(capsys):
    with pytest.raises(SystemExit):
        main(["grad", str(FOLDER / "expression.yaml"), "--of", "D", "--wrt", "A"])
    assert capsys.readouterr().out == "D = B * A + 1\n\nd D / d A\n  = 1 * B\n  = B\n"


def test_0_plus_a_tenth_three_times_is_three_tenths(run):
    assert run("assign", steps=3)["values"] == pytest.approx({"v": 0.3})


def test_a_to_the_power_of_k_by_a_loop(run):
    found = run("scan_power", "A=2", grad="A")
    assert found == {"values": {"power": 1024}, "gradients": {"A": 5120}}
    powers = run("scan_power", f"A={list(range(10))}")["values"]["power"]
    np.testing.assert_allclose(powers, [n**10 for n in range(10)], rtol=1e-6)


def test_the_running_sum_of_1_2_2_2(run):
    found = run("scan_sum", "x=[1, 2, 2, 2]", grad="x")
    assert found == {"values": {"sum": [1, 3, 5, 7]}, "gradients": {"x": [4, 3, 2, 1]}}
