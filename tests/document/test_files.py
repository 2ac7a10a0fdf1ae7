"""Files that build on others: `extends`, `include`, `delete`, and the places that values keep."""

import os

import pytest

import cfgnet
from cfgnet import yamlio
from cfgnet.document.files import MAX_FILES, merged
from cfgnet.errors import SpecError
from cfgnet.prepare import loads

BASE = """\
name: base
vars: {wide: 8, deep: 2}
data:
  train: {source: digits, batch_size: 16}
layers:
  - {type: Convolution, name: conv1, num_output: "${wide}", kernel_size: 3}
  - {scope: s, layers: [{type: Convolution, name: conv2, num_output: 4, kernel_size: 3}]}
  - {type: InnerProduct, name: score, num_output: 10}
  - {type: SoftmaxWithLoss, inputs: [score, label]}
solver: {type: SGD, base_lr: 0.1, momentum: 0.9, lr_policy: {type: step, gamma: 0.5, stepsize: 10}}
train: {max_iter: 20, display: 5}
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    """files(net="...", base="...") writes NET.yaml and so on, and gives the Spec of net.yaml, with BASE beside it."""
    monkeypatch.chdir(tmp_path)

    def load(*sets, **texts):
        for name, text in {"base": BASE, **texts}.items():
            (tmp_path / f"{name}.yaml").write_text(text, "utf-8")
        return cfgnet.load("net.yaml", sets)

    return load


def problem(files, **texts):
    with pytest.raises(SpecError) as caught:
        files(**texts)
    return str(caught.value)


def test_a_file_that_extends_another_is_a_variation_of_it(files):
    spec = files(net="extends: base.yaml\nname: net\nvars: {wide: 9}\nsolver: {base_lr: 0.5}\ntrain: {max_iter: 7}\n")
    assert (spec.name, spec.layers[0].num_output, spec.train.max_iter, spec.train.display) == ("net", 9, 7, 5)
    assert (spec.solver.base_lr, spec.solver.momentum) == (0.5, 0.9)
    assert spec.vars == {"wide": 9, "deep": 2}


def test_lists_and_values_are_replaced_and_a_short_form_is_a_mapping(files):
    layers = "[{type: InnerProduct, name: score, num_output: 10}, {type: SoftmaxWithLoss, inputs: [score, label]}]"
    spec = files(net=f"extends: base.yaml\nlayers: {layers}\nsolver: {{lr_policy: fixed}}\n")
    assert [layer.name for layer in spec.layers] == ["score", "softmaxwithloss1"]
    assert spec.solver.lr_policy.type_name == "fixed"
    spec = files(net="extends: base.yaml\nsolver: {lr_policy: {gamma: 0.1}}\n")
    assert (spec.solver.lr_policy.gamma, spec.solver.lr_policy.stepsize) == (0.1, 10)


def test_a_mapping_of_layers_changes_single_ones_by_name(files):
    spec = files(net="extends: base.yaml\nlayers: {conv1: {kernel_size: 5}, s/conv2: {num_output: 6, pad: 1}}\n")
    first, second = spec.layers[:2]
    assert (first.name, first.kernel_size, first.num_output) == ("conv1", (5,), 8)
    assert (second.name, second.num_output, second.pad, second.kernel_size) == ("s/conv2", 6, (1,), (3,))
    said = problem(files, net="extends: base.yaml\nlayers:\n  conv3: {kernel_size: 5}\n  conv1: 5\n")
    assert said == (
        "net.yaml:3:3  there is no layer 'conv3' to change\n  did you mean 'conv1'?\n"
        "net.yaml:4:10  expected a mapping of settings, got 5\n"
        "  as in conv1: {num_output: 8}; delete: [layers.conv1] takes it away"
    )


def test_delete_takes_away_what_the_others_say_before_this_one_speaks(files):
    spec = files(
        net="extends: base.yaml\ndelete: [layers.s/conv2, solver.momentum, solver.lr_policy, train]\n"
        "solver: {lr_policy: {type: poly, power: 2}}\ntrain: {max_iter: 3}\n"
    )
    assert [layer.name for layer in spec.layers][:2] == ["conv1", "score"]
    assert spec.solver.momentum == 0 and spec.solver.lr_policy.power == 2 and spec.train.display == 50
    assert problem(files, net="extends: base.yaml\ndelete: [solver.momentun, layers.conv9]\n") == (
        "net.yaml:2:10  nothing to delete: there is no 'momentun' in solver\n  did you mean 'momentum'?\n"
        "net.yaml:2:27  nothing to delete: there is no 'conv9' in layers\n  did you mean 'conv1'?"
    )


def test_what_belongs_to_another_type_can_be_left_out(files):
    net = "extends: base.yaml\nsolver: {lr_policy: {type: poly, power: 2}}\n"
    said = problem(files, net=net)
    hint = "base.yaml says it of another type than net.yaml, where delete: [solver.lr_policy] leaves that out"
    assert said == (
        f"base.yaml:10:74  unknown key 'gamma'\n  {hint}\nbase.yaml:10:86  unknown key 'stepsize'\n  {hint}"
    )
    assert files(net=net + "delete: solver.lr_policy\n").solver.lr_policy.power == 2


def test_several_levels_in_several_folders(files, tmp_path):
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "middle.yaml").write_text("extends: ../base.yaml\nvars: {wide: 3}\ninclude: more.yaml\n")
    (tmp_path / "inner" / "more.yaml").write_text("vars: {deep: 5, wide: 4}\n")
    spec = files(net="extends: inner/middle.yaml\nvars: {other: 1}\n")
    assert spec.vars == {"wide": 3, "deep": 5, "other": 1}


def test_include_brings_mappings_such_as_blocks_and_the_later_file_counts(files):
    texts = {
        "one": "blocks: {b: {layers: [ReLU]}}\nvars: {a: 1, b: 1, c: 1}\n",
        "two": "vars: {b: 2, c: 2}\nsolver: {type: Adam, base_lr: 0.01}\n",
    }
    body = "vars: {c: 3}\nlayers: [{type: b}, {type: InnerProduct, num_output: 10}, {type: SoftmaxWithLoss}]\n"
    spec = files(net=f"include: [one.yaml, two.yaml]\n{body}", **texts)
    assert spec.vars == {"a": 1, "b": 2, "c": 3} and spec.solver.type_name == "Adam"
    said = problem(files, net=f"include: base.yaml\n{body}")
    assert said.startswith(
        "base.yaml:1:7  a file that is included has mappings only, such as vars and blocks, and name"
    )
    assert (
        "base.yaml:6:3  a file that is included has mappings only, such as vars and blocks, and layers is a list of"
        in said
    )


def test_every_mistake_is_said_at_the_file_and_the_line_that_it_is_from(files):
    said = problem(
        files, base=BASE.replace("stepsize", "stepsiz"), net="extends: base.yaml\nseed: x\nvars: {wide: two}\n"
    )
    assert [line.partition("  ")[0] for line in said.splitlines() if not line.startswith(" ")] == [
        "base.yaml:6:50", "base.yaml:10:86", "net.yaml:2:7",
    ]  # fmt: skip


def test_a_line_in_another_file_is_named_with_that(files):
    layers = "layers: {s/conv2: {kernel_size: 9}}\n"
    with pytest.raises(SpecError) as caught:
        cfgnet.Net(files(net=f"extends: base.yaml\n{layers}"))
    assert str(caught.value) == (
        "net.yaml:2:19  s/conv2: the kernel reaches over 9x9, the padded input is only 6x6\n"
        "  data 1x8x8 -> conv1 8x6x6 (base.yaml:6)\n"
        "  s/conv2 with pad 2 (line 2) fits; so does conv1 with pad 2 (base.yaml:6)"
    )


def test_a_circle_is_shown(files):
    said = problem(files, net="extends: a.yaml\n", a="include: [b.yaml]\n", b="vars: {x: 1}\nextends: ./net.yaml\n")
    assert said == "b.yaml:2:10  the files go round in a circle: net.yaml -> a.yaml -> b.yaml -> net.yaml"


def test_a_file_that_is_not_there_or_no_yaml(files):
    assert problem(files, net="extends: bsae.yaml\n") == (
        "net.yaml:1:10  there is no such file: bsae.yaml\n  did you mean 'base.yaml'?"
    )
    said = problem(files, net="seed: 2\nextends: broken.yaml\n", broken="a: [1\n")
    assert said == "broken.yaml:1:4  not valid YAML: this [ is never closed\n  close it with ]\n  named by net.yaml:2"
    assert "expected a file with keys such as vars: and blocks:, got an empty file" in problem(
        files, net="include: [empty.yaml]\n", empty=""
    )
    assert "expected a file, got a folder" in problem(files, net="extends: .\n")


def test_nothing_but_ordinary_files_is_read(files, tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "expected an ordinary file" in problem(files, net="extends: pipe.yaml\n")
    assert "expected an ordinary file" in problem(files, net="include: [/dev/zero]\n")
    assert "there is no such file" in problem(files, net="extends: https://example.org/base.yaml\n")


def test_wrong_words_are_said_and_the_rest_is_checked(files):
    said = problem(files, net="extends: [base.yaml]\ninclude: {a: 1}\ndelete: 3\n")
    assert [line for line in said.splitlines() if line.startswith("net.yaml:")][:3] == [
        "net.yaml:1:1  missing key 'layers'",
        "net.yaml:1:10  expected text, got the list ['base.yaml']",
        "net.yaml:2:10  expected text, got a mapping",
    ]


def test_all_files_together_have_bounds(files, tmp_path, monkeypatch):
    chain = {f"f{i}": f"extends: f{i + 1}.yaml\n" for i in range(MAX_FILES + 3)}
    assert f"expected at most {MAX_FILES} files, got more" in problem(files, net="extends: f0.yaml\n", **chain)
    many = {f"f{i}": f"vars: {{v{i}: [{'1, ' * 20_000}]}}\n" for i in range(3)}
    said = problem(files, net="include: [f0.yaml, f1.yaml, f2.yaml]\n", **many)
    assert said == "net.yaml:1:29  expected at most 50,000 values in all files together, got more"
    monkeypatch.setattr(yamlio, "MAX_BYTES", 100)
    said = problem(
        files, net="include: [f0.yaml, f1.yaml]\n", f0=f"vars: {{a: {'x' * 40}}}", f1=f"vars: {{b: {'x' * 50}}}"
    )
    assert "in all files together" in said


def test_set_changes_what_comes_out_and_not_which_files_are_read(files):
    assert files("vars.wide=11", "layers.s/conv2.pad=2", net="extends: base.yaml\n").layers[0].num_output == 11
    with pytest.raises(SpecError, match="extends says which files are read; --set cannot"):
        files("extends=other.yaml", net="extends: base.yaml\n")


def test_a_text_extends_files_beside_it(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE, "utf-8")
    spec = loads("extends: base.yaml\nseed: 7\n", file=str(tmp_path / "net.yaml"))
    assert spec.seed == 7 and spec.name == "base"


def test_the_marks_of_what_is_merged():
    below, above = (yamlio.parse(text, file) for text, file in (("a: {x: 1,\n y: 2}", "b"), ("a: {y: 3}", "t")))
    both = merged(below, above)
    assert both.value == {"a": {"x": 1, "y": 3}}
    assert [both.values["a", key].file for key in "xy"] == ["b", "t"]
    assert both.before["a", "y"] == [(below.values["a", "y"], 2)]
