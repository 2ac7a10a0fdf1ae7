"""What README.md says is true."""

import re
import shlex
from pathlib import Path

import pytest
import yaml

import cfgnet.layers  # says where the layer types lie
from cfgnet.cli import COMMANDS, main
from cfgnet.layer import Layer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language, number=0):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)[number]


def test_the_configuration_is_the_shipped_one():
    shipped = (ROOT / "configs" / "lenet_digits.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(block("yaml")) == yaml.safe_load(shipped)


def test_the_lines_of_python_run(tmp_path, monkeypatch):
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)
    found = {}
    exec(block("python"), found)
    assert found["run"].metrics["accuracy"] > 0.9
    assert {result.verdict for result in found["results"]} <= {"ok", "kink"}


def test_the_lines_of_python_with_symbols_run():
    found = {}
    exec(block("python", 1), found)
    assert found["costs"][0] > found["costs"][-1]
    assert found["cn"].loads(found["text"]).layers and found["a"].grad.tolist() == [2, 4]


def test_the_block_is_one():
    names = [layer.name for layer in cfgnet.loads(block("yaml", 1) + "inputs: {data: [4, 8]}").layers]
    assert names[-3:] == ["hidden2/ip", "hidden2/expression1", "hidden2"]


def test_the_commands_print_what_is_shown(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    shown = next(part for part in re.findall(r"```console\n(.*?)```", README, re.DOTALL) if "cfgnet why" in part)
    for command, output in re.findall(r"^\$ cfgnet (.*)\n((?:(?!\$ ).*\n)*)", shown, re.MULTILINE):
        with pytest.raises(SystemExit) as code:
            main(shlex.split(command))
        assert code.value.code == 0 and capsys.readouterr().out == output


def test_every_command_and_the_number_of_layer_types_are_named():
    assert set(re.findall(r"^\| `cfgnet ([a-z-]+)", README, re.MULTILINE)) == set(COMMANDS)
    shipped = [cls for cls in Layer.members().values() if cls.__module__.startswith("cfgnet.")]
    assert f"{len(shipped)} layer types" in README


def test_linked_files_are_there():
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links and all((ROOT / link).exists() for link in links)
