"""What can be known before a training: `check`, `show`, `layers`, `schema`, `doctor`, and layer types of one's own."""

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml

import cfgnet
from cfgnet.errors import CfgnetError, SpecError
from cfgnet.layer import Layer, size
from cfgnet.prepare import prepare
from cfgnet.update import Updater

from .conftest import DIGITS

FOLDER = Path(__file__).parents[2] / "configs"
CONFIGS = sorted(FOLDER.glob("*.yaml"))


def sets(*changes):
    return [word for change in changes for word in ("--set", change)]


# Check.


def points(path, data=None, label=None):
    """An npz file of 8 samples with 4 numbers, in 2 classes."""
    data = np.arange(32.0).reshape(8, 4) if data is None else data
    np.savez(path, data=data.astype(np.float32), label=np.arange(8) % 2 if label is None else label)


NPZ = """
data: {train: {source: npz, path: train.npz, batch_size: 4}, test: {source: npz, path: test.npz, batch_size: 4}}
layers:
  - {type: InnerProduct, name: score, num_output: 2}
  - {type: SoftmaxWithLoss, name: loss, inputs: [score, label]}
train: {max_iter: 1}
"""
OTHER = 100 + np.arange(32.0).reshape(8, 4)
BAD = np.where(np.arange(32) == 9, np.nan, np.arange(32.0)).reshape(8, 4)


@pytest.mark.parametrize(
    ("train", "test", "change", "errors", "warnings"),
    [
        ({}, {"data": OTHER}, [], [], []),
        ({"data": BAD}, {"data": OTHER}, [],
         ["train data: 'data': expected finite numbers, found nan in sample 2"], []),
        ({"label": np.array([0, 1, 2, 1, 0, 1, -1, 1])}, {"data": OTHER}, [],
         ["train data: 'label': expected 0 to 1, found 2 in sample 2, the first of 2"], []),
        ({}, {"data": OTHER}, ["data.train.batch_size=9"], ["batch_size expected at most the 8 samples"], []),
        ({}, {"data": OTHER}, ["train.best=accuracy"], ["there is no metric 'accuracy'"], []),
        ({}, {}, [], [], ["test data: every sample is also in the training data"]),
        ({}, {"data": np.vstack([OTHER[:5], np.arange(32.0).reshape(8, 4)[:3]])}, [], [],
         ["test data: 3 of 8 samples are also in the training data"]),
        ({}, {"data": OTHER, "label": np.zeros(8, int)}, [], [], ["test data: 'label': every sample has the label 0"]),
        ({}, {"data": OTHER}, ["layers.score.num_output=3"], [],
         ["train data: 'label': no sample of 1 of 3 classes: 2", "test data: 'label': no sample of 1 of 3"]),
        ({"data": np.ones((8, 4))}, {"data": OTHER}, [], [], ["train data: 'data': every sample is the same"]),
        ({}, {"data": OTHER}, ["layers.loss.loss_weight=0"], ["nothing to train: no trained parameter"], []),
    ],
    ids=["fine", "nan", "label", "batch", "metric", "leak", "some leak", "one label", "class", "constant", "untrained"],
)  # fmt: skip
def test_check_finds_what_the_data_has_against_it(train, test, change, errors, warnings, shell):
    points("train.npz", **train)
    points("test.npz", **test)
    Path("data.yaml").write_text(NPZ, encoding="utf-8")
    said, plain = (shell("check", "data.yaml", *sets(*change), *flag) for flag in (["--json"], []))
    assert said.code == plain.code == (2 if errors else 0)
    assert said.json.keys() == {"errors", "warnings"} and not said.err
    for kind, expected in (("errors", errors), ("warnings", warnings)):
        found = said.json[kind]
        assert len(found) == len(expected)
        for problem, text in zip(found, expected, strict=True):
            assert problem.keys() == {"file", "line", "column", "where", "message", "hint"}
            assert text in problem["message"] and problem["file"] in ("data.yaml", "--set")
            assert f"{problem['line']}:{problem['column']}" in plain.out and problem["message"] in plain.out
    if not errors:
        counted = f", {len(warnings)} warning{'s' * (len(warnings) > 1)}" if warnings else ""
        assert f"data.yaml: no mistakes{counted}; 2 layers" in plain.out
        assert "train 8 samples in 2 classes, test 8" in plain.out


def test_check_and_train_agree_on_what_is_wrong(shell):
    change = sets("layers.hidden.num_output=0", "train.max_itr=5", "data.train.batch_size=x")
    checked, trained = shell("check", "net.yaml", *change), shell("train", "net.yaml", *change)
    assert checked.code == trained.code == 2 and trained.err in checked.out and trained.out == ""
    assert len(shell("check", "net.yaml", "--json", *change).json["errors"]) == 3


# Show.


def test_show_says_what_the_net_is(shell):
    found = shell("show", "net.yaml", "--json").json
    assert found.keys() == {"layers", "params", "flops", "memory"}
    keys = {"name", "type", "inputs", "outputs", "shapes", "params", "flops"}
    assert all(layer.keys() == keys for layer in found["layers"])
    by_name = {layer["name"]: layer for layer in found["layers"]}
    assert [*by_name] == ["hidden", "relu1", "score", "loss"]
    assert by_name["hidden"] == {
        **{"name": "hidden", "type": "InnerProduct", "inputs": ["data"], "outputs": ["hidden"], "shapes": [[32, 24]]},
        **{"params": 64 * 24 + 24, "flops": by_name["hidden"]["flops"]},
    }
    assert 2 * 32 * 64 * 24 <= by_name["hidden"]["flops"] <= 2 * 32 * 64 * 24 + 2 * 32 * 24
    assert by_name["loss"]["inputs"] == ["score", "label"] and by_name["loss"]["shapes"] == [[]]
    assert found["params"] == sum(layer["params"] for layer in found["layers"]) == 24 * 65 + 10 * 25
    assert found["flops"] == sum(layer["flops"] for layer in found["layers"])
    memory = found["memory"]
    assert memory["total"] == sum(memory.values()) - memory["total"]
    assert memory["params"] == memory["param_gradients"] == memory["solver_state"] == 4 * found["params"]
    text = shell("show", "net.yaml").out
    assert all(name in text for name in by_name) and f"{found['params']:,}" in text
    assert "accuracy" not in text and "accuracy" in shell("show", "net.yaml", "--phase", "test").out


@pytest.mark.parametrize(
    ("solver", "kept"),
    [
        ("{type: Adam}", 2 * (24 * 65 + 10 * 25)),
        ("{type: SGD, average: {decay: 0.9}}", 2 * (24 * 65 + 10 * 25)),
        ("{type: AMSGrad, freeze: hidden}", 3 * 10 * 25),
        ("{type: Adafactor}", 24 + 64 + 24 + 10 + 24 + 10),  # of each weight a row and a column
    ],
)
def test_show_says_what_the_solver_keeps(solver, kept, shell):
    memory = shell("show", "net.yaml", "--json", *sets(f"solver={solver}")).json["memory"]
    spec = cfgnet.load("net.yaml", [f"solver={solver}"])
    updater = Updater(spec.solver, cfgnet.Net(spec).params, 1)
    assert memory["solver_state"] == updater.state_bytes == 4 * kept


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_the_resolved_configuration_reads_back_as_an_equal_one(config, shell, tmp_path):
    said = shell("show", config, "--stage", "spec")
    (tmp_path / "again.yaml").write_text(said.out, encoding="utf-8")
    assert said.code == 0 and cfgnet.load("again.yaml") == cfgnet.load(config)
    assert shell("show", "again.yaml", "--stage", "spec").out == said.out
    assert shell("show", config, "--stage", "spec", "--json").json == yaml.safe_load(said.out)


def test_the_graph_and_the_plan(shell):
    graph = shell("show", "net.yaml", "--stage", "graph", "--json").json
    assert [node["name"] for node in graph["nodes"]] == ["hidden", "relu1", "score", "loss"]
    assert graph["losses"] == {"loss": 1.0} and graph["readers"]["score"] == ["loss"]
    assert graph["inputs"] == {"data": [32, 1, 8, 8], "label": [32]}
    plan = shell("show", "net.yaml", "--stage", "plan", "--json").json
    assert [step["layer"] for step in plan["forward"]] == ["hidden", "relu1", "score", "loss"]
    assert [step["layer"] for step in plan["backward"]] == ["loss", "score", "relu1", "hidden"]
    for stage in ("graph", "plan"):
        test = shell("show", "net.yaml", "--stage", stage, "--phase", "test")
        assert test.code == 0 and "accuracy" in test.out
    shell("train", "net.yaml", "-q", *sets("train.max_iter=1"))
    assert Path("runs/digits/plan.txt").read_text("utf-8") == shell("show", "net.yaml", "--stage", "plan").out


def test_show_plans_without_the_gpu_that_the_configuration_asks_for(shell, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    said = shell("show", "net.yaml", *sets("backend=cupy"))
    assert said.code == 0 and said.err.startswith("planned for numpy: CuPy is not installed")
    assert said.out == shell("show", "net.yaml").out


def test_what_show_says_of_parameters_is_what_the_net_has(shell, monkeypatch):
    monkeypatch.chdir(CONFIGS[0].parents[1])  # some name a file beside them
    for config in (path for path in CONFIGS if path.stem != "lenet_mnist"):
        params = cfgnet.Net(cfgnet.load(config)).params
        found = shell("show", config, "--json").json  # a parameter that is shared counts once, where it is first used
        assert found["params"] == sum(layer["params"] for layer in found["layers"])
        assert found["params"] == sum(p.value.size for p in params.values())


# Layers.


@pytest.mark.parametrize("name", sorted(name for name, cls in Layer.members().items() if cls.cases))
def test_every_layer_type_has_a_page(name, shell):
    said = shell("layers", name)
    assert said.code == 0 and said.out.split()[0] == name
    described = shell("layers", name, "--json").json
    assert described["name"] == name and described["summary"] in " ".join(described["doc"].split())
    assert {field["name"] for field in described["fields"]} == (
        Layer.find(name).model_fields.keys() - Layer.model_fields.keys()
    )
    for field in described["fields"]:
        assert field["doc"] and field["name"] in said.out


def test_the_list_of_layer_types(shell):
    names = [layer["name"] for layer in shell("layers", "--json").json]
    assert sorted(names) == [*Layer.members()]
    text = shell("layers").out
    assert all(f"  {name}" in text for name in names) and "gaussian" not in text
    everything = shell("layers", "--all", "--json").json
    assert {"SGD", "gaussian", "multistep", "digits", *names} <= {member["name"] for member in everything}
    assert all(member["name"] in shell("layers", "--all").out for member in everything)
    markdown = shell("layers", "--markdown").out
    assert markdown.startswith("# Reference\n") and all(f"### {m['name']}\n" in markdown for m in everything)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Convolutoin", "Convolution"),
        ("Dense", None),
        ("gausian", "gaussian"),
        ("multi_step", "multistep"),
        ("sgd", "SGD"),
    ],
)
def test_a_name_that_is_nearly_right(name, meant, shell):
    said = shell("layers", name)
    if meant is None:
        assert said.code == 0 and said.out.startswith("InnerProduct")
    else:
        assert said.code == 2 and f"{name!r}" in said.err and f"did you mean '{meant}'?" in said.err
    assert shell("layers", "Xyzzy").code == 2


# Schema.


@pytest.fixture(scope="module")
def schema():
    said = subprocess.run([sys.executable, "-m", "cfgnet", "schema"], capture_output=True, text=True, check=True)
    return json.loads(said.stdout)


def test_the_schema_is_a_schema_and_every_configuration_follows_it(schema):
    validator = jsonschema.Draft202012Validator
    validator.check_schema(schema)
    for config in [*CONFIGS, *(FOLDER / "bench").glob("*.yaml")]:
        validator(schema).validate(yaml.safe_load(config.read_text("utf-8")))
        resolved = json.loads(json.dumps(cfgnet.load(config).settings()))
        validator(schema).validate(resolved)


BLOCKS = """
blocks:
  conv: {args: [n, size: 3], layers: [{type: Convolution, num_output: "${n}", kernel_size: "${size}"}, ReLU]}
layers:
  - {type: conv, name: a, n: 3, repeat: 2, index: i, when: "${i > 0}", scope: s, phase: train, share: /b}
  - conv
  - {scope: s/t, reuse: true, frozen: true, layers: [ReLU, {layers: [{type: TanH, name_scope: x}]}]}
"""


@pytest.mark.parametrize("text", [
    DIGITS.replace("layers:", BLOCKS), "vars: {a: 1}", "blocks: {a: {layers: [ReLU]}}", "solver: {base_lr: 0.1}",
    "{extends: base.yaml, layers: {conv1: {num_output: 8}}, solver: {momentum: 0.5}, data: {train: {batch_size: 3}}}",
    "{extends: base.yaml, include: [a.yaml, b.yaml], delete: solver.momentum, layers: [ReLU, {type: own, a: 1}]}",
    "{include: data.yaml, solver: {base_lr: 0.1}, layers: [ReLU]}",
])  # fmt: skip
def test_the_schema_knows_blocks_groups_and_files_that_are_parts(text, schema):
    jsonschema.Draft202012Validator(schema).validate(yaml.safe_load(text))


@pytest.mark.parametrize("text", [
    "{extends: 3}", "{extends: base.yaml, layers: {conv1: 8}}", "{blocks: {a: {layer: [ReLU]}}}",
    "{blocks: {a: {layers: []}}}", "{layers: [{scope: s, layers: [ReLU], num_output: 3}]}", "{delete: [3]}",
    "{layers: [{layers: [{type: ReLu}]}]}", "{layers: [{type: ReLU, repaet: 2}]}", "{layers: [{type: ReLU, when: 3}]}",
    "{blocks: {a: {layers: [{type: InnerProduct, num_ouput: 3}]}}}", "{extends: base.yaml, trian: {max_iter: 3}}",
])  # fmt: skip
def test_the_schema_refuses_mistakes_in_blocks_and_groups(text, schema):
    assert not jsonschema.Draft202012Validator(schema).is_valid(yaml.safe_load(text))


@pytest.mark.parametrize("change", [
    "seeds=1", "train.max_itr=3", "layers.hidden.num_outputs=3", "layers.hidden.type=InnerProduc",
    "solver.momentun=0.9", "data.train.batch_sizes=3", "data.train.source=digit", "layers.hidden.num_output=-3",
    "train.max_iter=x", "backend=abacus", "layers.hidden.weight_filler=xavir", "solver.lr_policy={type: step, gama: 3}",
])  # fmt: skip
def test_the_schema_refuses_what_cfgnet_refuses(change, schema):
    key, _, value = change.partition("=")
    document, steps = yaml.safe_load(DIGITS), key.split(".")
    at = document
    for step in steps[:-1]:
        at = at[step] if isinstance(at, dict) else next(layer for layer in at if layer.get("name") == step)
    at[steps[-1]] = yaml.safe_load(value)
    assert not jsonschema.Draft202012Validator(schema).is_valid(document)
    with pytest.raises(SpecError):
        cfgnet.loads(yaml.safe_dump(document))


# Doctor.


def test_the_doctor_says_what_is_there(shell, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setitem(sys.modules, "cfgnet.backend.native._native", None)
    said = shell("doctor", "--json")
    report = said.json
    assert said.code == 0 and report.keys() == {"machine", "packages", "numpy", "backends", "broken"}
    assert report["broken"] == [] and report["machine"]["cfgnet"] == cfgnet.__version__
    packages = {package["name"]: package for package in report["packages"]}
    assert packages["numpy"]["version"] == np.__version__ and packages["numpy"]["problem"] == ""
    assert report["backends"]["numpy"]["usable"] and not report["backends"]["cupy"]["usable"]
    assert report["backends"]["auto"] == "numpy" and "C compiler" in report["backends"]["native"]["why_not"]
    text = shell("doctor").out
    assert np.__version__ in text and text.endswith("everything that is needed is there\n")


def test_the_doctor_says_what_is_broken(shell, monkeypatch):
    from importlib import metadata

    real = metadata.version
    old = {"click": "7.0", "rich": None}

    def version(name):
        if name in old and old[name] is None:
            raise metadata.PackageNotFoundError(name)
        return old.get(name) or real(name)

    monkeypatch.setattr(metadata, "version", version)
    said = shell("doctor")
    assert said.code == 1 and said.out.endswith("broken: click\n")
    assert "7.0 is too old, 8.1 is the least: pip install 'click>=8.1'" in said.out
    assert "not installed: pip install 'cfgnet[ui]'" in said.out
    assert shell("doctor", "--json").json["broken"] == ["click"]


# Layer types of one's own.

TWICE = '''
"""Layers that double."""

from cfgnet import Case, Layer


class Twice(Layer):
    """y = 2 x."""

    cases = [Case(x=[[1.0, 2.0]], expect={"y": [[2.0, 4.0]]}), Case(x=(3, 4))]

    def shapes(self, x):
        return x

    def forward(self, x, y):
        y[...] = 2 * x

    def backward(self, dy, dx):
        dx[...] = FACTOR * dy


FACTOR = 2
'''
WITH_TWICE = DIGITS.replace("{type: ReLU}", "{type: Twice}")


@pytest.fixture
def own(shell, tmp_path):
    """shell in a folder with own.yaml, which needs layers/twice.py."""
    (tmp_path / "layers").mkdir()
    (tmp_path / "layers" / "twice.py").write_text(TWICE, encoding="utf-8")
    (tmp_path / "own.yaml").write_text(WITH_TWICE, encoding="utf-8")
    return shell


def test_a_layer_type_of_ones_own_is_one_like_any_other(own):
    flag = ["--layers", "layers"]
    trained = own("train", "own.yaml", "-q", *flag, *sets("train.max_iter=3"))
    assert trained.code == 0
    run = trained.out.splitlines()[-1]
    for words in (["check", "own.yaml"], ["show", "own.yaml"], ["test", run], ["resume", run], ["layers", "Twice"],
                  ["grad-check", "own.yaml"], ["grad-check", "--layer", "Twice"]):  # fmt: skip
        assert own(*words, *flag).code == 0, words
    assert "Twice" in own("layers", *flag).out and "y = 2 x." in own("layers", "Twice", *flag).out
    assert '"Twice"' in own("schema", *flag).out


def test_a_wrong_gradient_in_a_layer_of_ones_own_is_found(own, tmp_path):
    (tmp_path / "layers" / "twice.py").write_text(TWICE.replace("FACTOR = 2", "FACTOR = 1"), encoding="utf-8")
    said = own("grad-check", "--layer", "Twice", "--layers", "layers", "--json")
    assert said.code == 1 and {row["verdict"] for row in said.json["results"]} == {"wrong"}
    assert said.json.keys() == {"checked", "worst", "results"}
    assert own("grad-check", "own.yaml", "--layers", "layers").code == 1


@pytest.mark.parametrize("command", ["train", "check", "show", "grad-check"])
def test_without_the_flag_the_message_names_the_file(command, own):
    said = own(command, "own.yaml")
    assert said.code == 2 and "'Twice'" in said.out + said.err
    assert "layers/twice.py defines it: add --layers layers to run that file" in said.out + said.err
    assert "Twice" not in Layer.members()


def test_a_type_with_the_name_of_one_that_is_not_imported_yet_is_a_message_with_its_place(own, tmp_path):
    (tmp_path / "layers" / "bad.py").write_text(TWICE.replace("Twice", "LSTM"), encoding="utf-8")
    command = [sys.executable, "-m", "cfgnet", "check", "own.yaml", "--layers", "layers"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert said.returncode == 2
    assert said.stderr.startswith("layers/bad.py:7: layer type 'LSTM' is defined twice: in cfgnet.layers.lstm")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import os\n\nclass Bad(Layer\n    pass\n", "bad.py:3: SyntaxError: '(' was never closed"),
        ("x = 1\n y = 2\n", "bad.py:2: IndentationError: unexpected indent"),
        ("def f():\n    raise ValueError('no luck')\n\n\nf()\n", "bad.py:2: ValueError: no luck"),
        ("import json\n\njson.loads('{')\n", "bad.py:3: JSONDecodeError: Expecting property name"),
        ("\nimport no_such_module\n", "bad.py:2: ModuleNotFoundError: No module named 'no_such_module'"),
        ("from cfgnet import Layer\n\n\nclass Bad(Layer):\n    '''Nothing.'''\n",
         "bad.py:4: layer type Bad: define shapes() and forward()"),
        ("from cfgnet import Layer\n\n\nclass Bad(Layer):\n    ports = 'x'\n",
         "bad.py:4: ports 'x': expected 'inputs -> outputs'"),
        (TWICE.replace("Twice", "ReLU"), "bad.py:7: layer type 'ReLU' is defined twice: in cfgnet.layers.activation"),
        ("\nx = 'caf\xe9'\n", "bad.py:2: SyntaxError: "),
    ],
    ids=["open", "indent", "raises", "elsewhere", "import", "contract", "ports", "twice", "latin-1"],
)  # fmt: skip
@pytest.mark.parametrize("command", [["train", "own.yaml"], ["layers"]], ids=["train", "layers"])
def test_a_broken_file_of_layers_is_a_message_with_its_place(text, said, command, own, tmp_path):
    (tmp_path / "layers" / "bad.py").write_text(text, encoding="latin-1")
    got = own(*command, "--layers", "layers")
    assert got.code == 2 and got.err.startswith(f"layers/{said}") and not got.out
    assert "cfgnet_user_layers.bad" not in sys.modules and "Bad" not in Layer.members()
    with pytest.raises(CfgnetError) as error:  # --debug lets it through, with what caused it
        cfgnet.cli.main([*command, "--layers", "layers", "--debug"])
    assert error.value.__cause__ is not None


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            ("forward(self, x, y)", "forward(self, x, z, y)"),
            "layers/twice.py:15: Twice.forward asks for z; there is only",
        ),
        (("backward(self, dy, dx)", "backward(self, dz, dx)"), "layers/twice.py:18: Twice.backward asks for dz; there"),
        (("shapes(self, x)", "shapes(self, x, z)"), "layers/twice.py:12: Twice.shapes asks for z; there is only x"),
    ],
)
def test_a_layer_that_breaks_the_rules_is_a_message_with_its_place(change, said, own, tmp_path):
    (tmp_path / "layers" / "twice.py").write_text(TWICE.replace(*change), encoding="utf-8")
    got = own("train", "own.yaml", "--layers", "layers")
    assert got.code == 2 and got.err.startswith(said) and not got.out


def test_a_folder_of_layers_that_is_not_there(own):
    said = own("layers", "--layers", "nowhere")
    assert said.code == 2 and "nowhere" in said.err


def test_show_counts_the_parameters_of_each_phase(shell):
    plans = prepare(cfgnet.load("net.yaml")).plans
    for phase, plan in plans.items():
        found = shell("show", "net.yaml", "--phase", phase, "--json").json
        assert found["params"] == sum(size(slot.shape) for slot in plan.slots.values())
