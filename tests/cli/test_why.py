"""cfgnet why: every value says where it comes from."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BASE = """\
vars: {wide: 8}
data:
  train: {source: digits, batch_size: 16}
layers:
  - {type: InnerProduct, name: fc, num_output: "${wide}"}
solver: {type: SGD, base_lr: 0.1, momentum: 0.9}
train: {max_iter: 20}
"""
NET = """\
extends: base.yaml
vars: {wide: 5}
blocks:
  pair:
    args: [n, m: "${n + wide}"]
    layers:
      - {type: InnerProduct, name: one, num_output: "${n}"}
      - {type: InnerProduct, name: two, num_output: "${m * 2}", weight_filler: {type: gaussian, std: 0.5}}
layers:
  - repeat: 2
    index: k
    type: pair
    name: "p${k}"
    n: "${3 + k}"
  - ReLU
  - {type: SoftmaxWithLoss}
solver: {base_lr: 0.2}
"""


@pytest.fixture
def why(shell, tmp_path):
    (tmp_path / "base.yaml").write_text(BASE, "utf-8")
    (tmp_path / "why.yaml").write_text(NET, "utf-8")

    def ask(*words):
        said = shell("why", "why.yaml", *words)
        assert said.code == 0, said.err
        return said

    return ask


def chain(said):
    (value,) = said.json["values"]
    return value["value"], [(each["what"], each["text"], f"{each['file']}:{each['line']}") for each in value["chain"]]


def test_a_value_in_a_block_comes_from_the_definition_the_argument_and_the_use(why):
    assert chain(why("layers.p1/one.num_output", "--json")) == (4, [
        ("in block pair", "${n}", "why.yaml:7"),
        ("argument of pair", "n = ${3 + k}", "why.yaml:14"),
        ("number of the repetition", "k = 1", "why.yaml:10"),
    ])  # fmt: skip


def test_a_default_of_an_argument_and_a_variable_of_another_file(why):
    assert chain(why("layers.p0/two.num_output", "--json")) == (16, [
        ("in block pair", "${m * 2}", "why.yaml:8"),
        ("default of pair", "m = ${n + wide}", "why.yaml:5"),
        ("argument of pair", "n = ${3 + k}", "why.yaml:14"),
        ("number of the repetition", "k = 0", "why.yaml:10"),
        ("variable", "wide = 5", "why.yaml:2"),
        ("in the place of", "wide = 8", "base.yaml:1"),
    ])  # fmt: skip


def test_what_another_file_said_before_and_what_is_set_from_outside(why):
    assert chain(why("solver.base_lr", "--json")) == (
        0.2, [("", "0.2", "why.yaml:17"), ("in the place of", "0.1", "base.yaml:6")]
    )  # fmt: skip
    assert chain(why("solver.base_lr", "--set", "solver.base_lr=0.3", "--json")) == (0.3, [
        ("from outside", "0.3", "--set:1"),
        ("in the place of", "0.2", "why.yaml:17"),
        ("in the place of", "0.1", "base.yaml:6"),
    ])  # fmt: skip
    assert chain(why("solver.momentum", "--json")) == (0.9, [("", "0.9", "base.yaml:6")])


def test_a_default_names_the_line_where_it_is_documented(why):
    value, [(what, text, place)] = chain(why("layers.p0/one.axis", "--json"))
    assert (value, what) == (1, "default of InnerProduct") and text.startswith("First axis of x")
    file, _, line = place.partition(":")
    lines = (ROOT / file).read_text("utf-8").splitlines()
    assert lines[int(line) - 1].strip().startswith("axis: int = 1")
    value, [(what, _, place)] = chain(why("layers.p0/one.weight_filler.type", "--json"))
    assert (value, what) == ("xavier", "default of InnerProduct")
    assert chain(why("seed", "--json"))[1][0][0] == "default"
    assert chain(why("layers.relu1.name", "--json"))[1][0][0] == "made of the type and a number"


def test_what_scopes_blocks_and_groups_make_of_a_layer(shell, tmp_path):
    text = BASE.replace("layers:", "layers:\n  - {phase: train, scope: s, layers: [ReLU, {type: ReLU, inputs: relu1}]}")
    (tmp_path / "scoped.yaml").write_text(text, "utf-8")
    said = {each["address"]: each for each in shell("why", "scoped.yaml", "--json").json["values"]}
    assert said["layers.s/relu2.phase"]["chain"][0]["text"] == "train"
    assert said["layers.s/relu2.inputs"]["chain"][0]["text"] == "relu1"
    assert said["layers.s/relu1.name"]["chain"][0]["what"] == "made of the type and a number"
    assert said["layers.s/relu1.type"]["chain"][0]["line"] == 5


def test_a_body_of_layers_is_looked_into(shell, tmp_path):
    body = "[{type: pair, inputs: h, n: 1}, {type: ReLU, name: r}]"
    scan = f"  - {{type: Scan, name: s, steps: 2, state: {{h: 0}}, body: {body}}}\n"
    blocks = NET[NET.index("blocks:") : NET.index("layers:\n  - repeat")]
    text = BASE.replace("layers:\n", f"layers:\n{scan}") + blocks
    (tmp_path / "body.yaml").write_text(text, "utf-8")
    assert chain(shell("why", "body.yaml", "layers.s.body.pair1/one.num_output", "--json")) == (1, [
        ("in block pair", "${n}", "body.yaml:13"), ("argument of pair", "n = 1", "body.yaml:5"),
    ])  # fmt: skip
    assert "layers.s.body.r.type" in shell("why", "body.yaml", "layers.s").out


def test_the_text_is_short(why):
    assert why("layers.p1/one.num_output").out == (
        "layers.p1/one.num_output = 4\n"
        "  why.yaml:7:53   ${n}          in block pair\n"
        "  why.yaml:14:8   n = ${3 + k}  argument of pair\n"
        "  why.yaml:10:13  k = 1         number of the repetition\n"
    )


def test_a_group_of_settings_is_a_table_with_its_defaults(why):
    values = {each["address"]: each for each in why("layers.p0/two.weight_filler", "--json").json["values"]}
    assert values["layers.p0/two.weight_filler.std"]["given"]
    assert not values["layers.p0/two.weight_filler.mean"]["given"]
    assert "layers.p0/two.weight_filler.std" in why("layers.p0/two.weight_filler").out


def test_without_an_address_it_is_all_that_is_no_default(why):
    said = {each["address"]: each["value"] for each in why("--json").json["values"]}
    assert said["layers.p0/one.num_output"] == 3 and said["solver.momentum"] == 0.9 and said["vars.wide"] == 5
    assert "layers.p0/one.bias_term" not in said and "seed" not in said
    assert "solver.base_lr" in why().out


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("layers.p0/on.num_output", "there is no 'p0/on' in layers\n  did you mean 'p0/one'?"),
        ("layers.p0/one.num_ouput", "there is no 'num_ouput' in layers.p0/one\n  did you mean 'num_output'?"),
        ("solvr", "there is no 'solvr' in the configuration\n  did you mean 'solver'?"),
        ("layers.99", "there is no '99' in layers\n  layers has 6 items, counted from 0"),
    ],
)
def test_an_address_of_nothing(address, said, why, shell):
    found = shell("why", "why.yaml", address)
    assert (found.code, found.err) == (2, said + "\n")


def test_a_configuration_with_mistakes_says_those(shell, tmp_path):
    (tmp_path / "bad.yaml").write_text("layers: [ReLu]\n", "utf-8")
    said = shell("why", "bad.yaml", "layers")
    assert said.code == 2 and "did you mean 'ReLU'?" in said.err
