"""The examples on the pages of solvers, policies and fillers are right as they stand; those of layers run in theirs."""

import pytest

import cfgnet
from cfgnet.evaluate import plateau_metric
from cfgnet.example import FAMILIES, example
from cfgnet.init import Filler
from cfgnet.policy import Policy
from cfgnet.prepare import prepare
from cfgnet.solver import Solver

MEMBERS = [member for family in (Solver, Policy, Filler) for member in family.members().values()]


@pytest.mark.parametrize("cls", MEMBERS, ids=lambda cls: cls.type_name)
def test_the_example_of_a_page_trains(cls, tmp_path, shell):
    page = shell("layers", cls.type_name).out
    text = example(cls).text
    assert cls.type_name in text and all(line.strip() in page for line in text.splitlines())
    spec = cfgnet.loads(text, ["train.max_iter=2"])
    plateau_metric(spec, prepare(spec).plans.get("test"))
    assert cfgnet.train(spec, runs=tmp_path).iteration == 2


@pytest.mark.parametrize("cls", MEMBERS, ids=lambda cls: cls.type_name)
def test_a_page_shows_every_setting_that_is_not_as_for_all(cls, shell):
    found = shell("layers", cls.type_name, "--json").json
    own, common = ({field["name"] for field in found[key]} for key in ("fields", "common_fields"))
    assert own | common == cls.model_fields.keys() and not own & common
    family = next(family for family in FAMILIES.values() if issubclass(cls, family))
    differs = {n for n, info in family.model_fields.items() if info.default != cls.model_fields[n].default}
    assert own == (cls.model_fields.keys() - family.model_fields.keys()) | differs
    assert all(field["doc"] for field in (*found["fields"], *found["common_fields"]))
