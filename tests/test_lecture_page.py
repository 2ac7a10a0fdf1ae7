"""The page of the lecture's examples says what is so: its commands and its Python are run."""

import doctest
import re
import shlex
from pathlib import Path

import pytest

from cfgnet.cli import main

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "configs" / "lecture" / "README.md"
CONSOLES = re.findall(r"```console\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
COMMANDS = [
    (command, output)
    for block in CONSOLES
    for command, output in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block, re.M)
]


@pytest.mark.parametrize(("command", "output"), COMMANDS, ids=[command for command, _ in COMMANDS])
def test_a_command_prints_what_the_page_says(command, output, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    program, *words = shlex.split(command)
    assert program == "cfgnet"
    with pytest.raises(SystemExit) as code:
        main(words)
    assert code.value.code == 0
    assert capsys.readouterr().out == output


def test_the_python_prints_what_the_page_says():
    failures, attempts = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failures == 0 and attempts > 20


def test_the_page_names_every_example_and_no_other():
    named = set(re.findall(r"\]\((\w+\.yaml)\)", PAGE.read_text(encoding="utf-8")))
    assert named == {path.name for path in PAGE.parent.glob("*.yaml")}
