"""What README.md says is true."""

import re
from pathlib import Path

import yaml

import cfgnet.layers  # noqa: F401  registers the layer types
from cfgnet.cli import COMMANDS
from cfgnet.layer import Layer

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def block(language):
    return re.search(rf"```{language}\n(.*?)```", README, re.DOTALL)[1]


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


def test_every_command_and_the_number_of_layer_types_are_named():
    assert set(re.findall(r"^\| `cfgnet ([a-z-]+)", README, re.MULTILINE)) == set(COMMANDS)
    shipped = [cls for cls in Layer.members().values() if cls.__module__.startswith("cfgnet.")]
    assert f"{len(shipped)} layer types" in README


def test_linked_files_are_there():
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links and all((ROOT / link).exists() for link in links)
