"""Every configuration in tests/errors is wrong, and `cfgnet check` says of it exactly what the .txt beside it holds.

After a message was changed on purpose: pytest tests/test_errors.py --update, then read the diff.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from cfgnet.cli import main

FOLDER = Path(__file__).with_name("errors")
BYTES = {
    "bytes_latin1": "name: net\n# Größe\nlayers: [{type: ReLU}]\n".encode("latin-1"),
    "bytes_utf16": "name: net\nlayers: [{type: ReLU}]\n".encode("utf-16"),
    "bytes_nul": b"name: net\nlayers: [{type: ReLU\0}]\n",
    "bytes_behind_bom": b"\xef\xbb\xbfnmae: net\nlayers: [{type: ReLU}]\n",
    "bytes_no_break_space": "layers:\n\N{NO-BREAK SPACE} - {type: ReLU}\n".encode(),
    "bytes_carriage_returns": b"name: net\r\nlayers:\r\n  - {type: Relu, slop: 1}\r\n",
}
"""Files that an editor or git could change on the way."""
NAMES = sorted([*(file.stem for file in FOLDER.glob("*.yaml")), *BYTES])
PROBLEM = re.compile(r"(\S+):(\d+):(\d+)  (warning: )?\S.*")


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All configurations, and the data files that some of them name."""
    made = tmp_path_factory.mktemp("errors")
    for file in FOLDER.glob("*.yaml"):
        shutil.copy(file, made)
    for name, content in BYTES.items():
        (made / f"{name}.yaml").write_bytes(content)
    (made / "data").mkdir()
    texts = {
        "good.csv": "length,width,species\n1,2,0\n2,1,1\n3,3,2\n",
        "words.csv": "length,width,species\n1,2,0\n2,wide,1\n3,3,2\n",
        "ragged.csv": "1,2,0\n2,1\n3,3,2\n",
        "nan.csv": "1,2,0\n2,nan,1\n3,3,2\n",
        "empty.csv": "",
        "prices.csv": "1,2,0.5\n2,1,1.5\n3,3,2.5\n",
        "short.txt": "a bad cafe\n",
        "short.ctf": "|features 1 2 |class 0:1\n|features 3 |class 1:1\n",
        "two.ctf": "|features 1 2 |class 0:1 2:1\n",
        "again.ctf": "7 |features 1 2 |class 0:1\n8 |features 3 4 |class 1:1\n7 |features 5 6 |class 2:1\n",
        "from_one.csv": "1,2,1\n2,1,2\n3,3,3\n",
        "words.npz": "these are words\n",
        "words-images.idx": "these are words\n",
        "words-labels.idx": "these are words\n",
    }
    for name, text in texts.items():
        (made / "data" / name).write_text(text, "utf-8")
    np.save(made / "data" / "good.npy", np.eye(3, dtype=np.float32))
    np.savez(made / "data" / "good.npz", x=np.zeros((4, 2), np.float32), y=np.arange(4) % 3)
    return made


@pytest.fixture
def place(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder as current directory; nothing is written there."""
    monkeypatch.chdir(folder)
    return folder


def check(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    """The exit code and the output of `cfgnet check`."""
    with pytest.raises(SystemExit) as stop:
        main(["check", *args])
    printed = capsys.readouterr()
    assert not printed.err
    assert isinstance(stop.value.code, int)
    return stop.value.code, printed.out


@pytest.mark.parametrize("name", NAMES)
def test_message(name: str, place: Path, capsys: pytest.CaptureFixture[str], pytestconfig: pytest.Config) -> None:
    code, found = check(capsys, f"{name}.yaml")
    found = found.replace(str(place), "HERE")
    expected = FOLDER / f"{name}.txt"
    if pytestconfig.getoption("--update"):
        expected.write_text(found, "utf-8")
    assert code == 2
    assert found == expected.read_text("utf-8")


def test_every_configuration_has_its_message_and_every_message_its_configuration() -> None:
    assert {file.stem for file in FOLDER.glob("*.txt")} == set(NAMES)
    assert len(NAMES) >= 60


@pytest.mark.parametrize("name", NAMES)
def test_every_problem_says_where(name: str, place: Path) -> None:
    expected = (FOLDER / f"{name}.txt").read_text("utf-8").splitlines()
    text = (place / f"{name}.yaml").read_bytes().decode("utf-8-sig", errors="replace").splitlines() or [""]
    *problems, count = [line for line in expected if not line.startswith("  ")]
    errors = 0
    for problem in problems:
        found = PROBLEM.fullmatch(problem)
        assert found, problem
        file, line, column, warning = found[1], int(found[2]), int(found[3]), found[4]
        assert file == f"{name}.yaml"
        assert 1 <= line <= len(text)
        assert 1 <= column <= len(text[line - 1]) + 1
        errors += not warning
    assert count == f"{errors} mistake{'s' * (errors != 1)}"


@pytest.mark.parametrize("name", NAMES)
def test_no_message_speaks_of_how_cfgnet_is_made(name: str) -> None:
    text = (FOLDER / f"{name}.txt").read_text("utf-8")
    foreign = ("Traceback", "Input should", "validation error", "Field required", "pydantic", "yaml.", "NoneType")
    assert [words for words in foreign if words in text.replace(f"{name}.yaml:", "")] == []


def test_an_unknown_key_is_marked_at_the_key_and_a_wrong_value_at_the_value(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = (place / "many_mistakes.yaml").read_text("utf-8").splitlines()
    _, printed = check(capsys, "many_mistakes.yaml", "--json")
    marked = [lines[e["line"] - 1][e["column"] - 1 :] for e in json.loads(printed)["errors"]]
    starts = ["nmae:", "0,", "yes}", "{type: Convolution", '"${hiden}"', "num_ouput:", "scroe,", "fast}", "{max_iter"]
    assert [text[: len(start)] for text, start in zip(marked, starts, strict=True)] == starts


def test_json_holds_what_the_text_says(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = check(capsys, "key_in_layer.yaml", "--json")
    assert code == 2
    assert json.loads(printed)["errors"] == [
        {
            "file": "key_in_layer.yaml",
            "line": 4,
            "column": 39,
            "where": "layers[0].num_ouput",
            "message": "unknown key 'num_ouput'",
            "hint": "did you mean 'num_output'?",
        }
    ]


def test_json_of_a_file_that_is_no_yaml(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = check(capsys, "yaml_tab.yaml", "--json")
    assert code == 2
    (error,) = json.loads(printed)["errors"]
    assert (error["line"], error["column"], error["where"]) == (3, 1, "")


def test_a_file_that_is_not_there_names_its_neighbours(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, printed = check(capsys, "yaml_empyt.yaml")
    assert (code, printed) == (
        2,
        "yaml_empyt.yaml:1:1  there is no such file\n  did you mean 'yaml_empty.yaml'?\n1 mistake\n",
    )


GOOD = """\
data:
  train: {source: digits, batch_size: 8}
layers:
  - {type: InnerProduct, name: score, num_output: 10}
  - {type: SoftmaxWithLoss, inputs: [score, label]}
solver: {type: SGD, base_lr: 0.1}
"""


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            "train.max_itr=3",
            "--set:1:1  unknown key 'max_itr'\n  did you mean 'max_iter'?",
        ),
        (
            "layers.scor.num_output=3",
            "--set:1:1  there is no 'scor' in layers\n  did you mean 'score'?",
        ),
        (
            "layers.7.num_output=3",
            "--set:1:1  there is no '7' in layers\n  layers has 2 items, counted from 0",
        ),
        (
            "layers.score.num_output=ten",
            "--set:1:25  expected a whole number, got 'ten'",
        ),
        (
            "solver.base_lr=-1",
            "--set:1:16  expected a number >= 0, got -1",
        ),
        (
            "solver=NAdm",
            "--set:1:8  unknown solver 'NAdm'\n  did you mean 'NAdam'?",
        ),
        (
            "seed",
            "--set:1:1  expected key=value, got 'seed'\n  as in --set train.max_iter=100",
        ),
        (
            "data.train.path=x",
            "--set:1:1  unknown key 'path'\n  known: batch_size, shuffle, transform, classes, pairs, split",
        ),
        (
            "layers.score.num_output=${width}",
            "--set:1:25  ${width}: unknown name 'width'\n  give it a value: vars: {width: ...}",
        ),
    ],
)
def test_a_wrong_change(
    change: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.yaml").write_text(GOOD, "utf-8")
    code, printed = check(capsys, "net.yaml", "--set", change)
    assert code == 2
    assert printed == f"{expected}\n1 mistake\n"


def test_a_wrong_change_tells_which_of_several(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("net.yaml").write_text(GOOD, "utf-8")
    code, printed = check(capsys, "net.yaml", "--set", "seed=2", "--set", "seed=two")
    assert code == 2
    assert printed == "--set:2:6  expected a whole number, got 'two'\n1 mistake\n"
