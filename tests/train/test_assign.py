"""Assignments: what a formula gives a parameter after each step."""

import numpy as np
import pytest

import cfgnet
from cfgnet.cli import main

LINE = """
data: {train: {source: synthetic, count: 10, distribution: linspace, high: 9, formula: "10 + 5 * x", batch_size: 10}}
layers:
  - {type: InnerProduct, name: line, num_output: 1, weight_filler: {type: constant, value: 2}}
  - {type: EuclideanLoss, name: cost, inputs: [line, target]}
  - {type: Parameter, name: steps, shape: []}
  - {type: Parameter, name: lowest, shape: [], filler: {type: constant, value: 1000}}
  - {type: Parameter, name: turned, shape: [2, 2], filler: {type: values, values: [1, 2, 3, 4]}}
assign: ASSIGN
train: {max_iter: 5}
dtype: float64
backend: numpy
"""


def trained(tmp_path, assign):
    return cfgnet.train(cfgnet.loads(LINE.replace("ASSIGN", assign)), runs=tmp_path)


def test_after_each_step_a_parameter_gets_the_value_of_its_formula(tmp_path):
    assert trained(tmp_path, '{steps: "steps + 0.1"}').params["steps.value"] == pytest.approx(0.5)


def test_a_weight_is_kept_in_bounds_after_each_update(tmp_path):
    free = trained(tmp_path, "{}").params["line.weight"]
    kept = trained(tmp_path, '{line.weight: "min(line.weight, 2.5)"}').params["line.weight"]
    assert free > 2.5 and kept == 2.5


def test_a_formula_may_read_tensors_of_the_step_and_what_was_assigned_before_it(tmp_path):
    run = trained(tmp_path, '{steps: "steps + 1", lowest: "min(lowest, cost) + 0 * steps"}')
    assert run.params["lowest.value"] == pytest.approx(run.loss)
    assert run.params["steps.value"] == 5


def test_a_formula_reads_all_of_a_parameter_before_it_is_written(tmp_path):
    np.testing.assert_array_equal(trained(tmp_path, '{turned: "turned.T"}').params["turned.value"], [[1, 3], [2, 4]])


def test_a_formula_reads_all_of_a_large_parameter_before_it_is_written(tmp_path):
    large = LINE.replace(
        "assign: ASSIGN", "  - {type: Parameter, name: v, shape: [200000], filler: uniform}\nassign: ASSIGN"
    )
    spec = cfgnet.loads(large.replace("ASSIGN", '{v: "v[::-1] + 1"}'), ["train.max_iter=1"])
    start = cfgnet.Net(spec).params["v.value"].value.copy()
    np.testing.assert_array_equal(cfgnet.train(spec, runs=tmp_path).params["v.value"], start[::-1] + 1)


def test_a_training_that_was_stopped_goes_on_with_what_was_assigned(tmp_path):
    spec = cfgnet.loads(LINE.replace("ASSIGN", '{steps: "2 * steps + 1"}'))
    whole = cfgnet.train(spec, runs=tmp_path / "whole")
    half = cfgnet.train(cfgnet.loads(spec.to_yaml(), ["train.max_iter=2"]), runs=tmp_path / "half")
    with pytest.raises(SystemExit) as code:
        main(["resume", str(half.path), "--set", "train.max_iter=5", "-q"])
    assert code.value.code == 0
    assert whole.params["steps.value"] == 31
    saved = cfgnet.load(half.path / "config.yaml")
    assert saved.assign == {"steps": "2 * steps + 1"}


WRONG = {
    '{step: "step + 1"}': "there is no parameter 'step'\n  did you mean 'steps'",
    '{steps: "stebs + 1"}': "steps: there is no parameter or tensor 'stebs'\n  did you mean 'steps'",
    '{steps: "turned"}': "steps: the parameter is scalar, and the formula gives 2x2",
    '{steps: "turned + expand(steps, 3, 3)"}': "steps: the operands do not meet",
    '{steps: "steps +"}': "not an expression",
}


@pytest.mark.parametrize("assign", WRONG)
def test_a_mistake_is_found_before_the_training(assign, tmp_path):
    with pytest.raises(cfgnet.SpecError) as error:
        trained(tmp_path, assign)
    assert WRONG[assign] in str(error.value) and "<text>:9" in str(error.value)
