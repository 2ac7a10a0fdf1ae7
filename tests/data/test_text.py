"""Windows of texts: what they hold, their vocabulary, and a character model that trains."""

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import cfgnet
from cfgnet.cli import main
from cfgnet.data import Batches, Source
from cfgnet.errors import DataError

CONFIGS = Path(__file__).parents[2] / "configs"


def source(path, **fields):
    return Source.model_validate({"source": "text", "batch_size": 1, "path": str(path), "steps": 3, **fields})


@pytest.fixture
def opened(tmp_path):
    """opened(text, ...) -> Records."""

    def make(text, **fields):
        path = tmp_path / "some.txt"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return source(path, **fields).open(0)

    return make


def everything(records):
    return records.take(np.arange(records.count))


def words(records, name):
    """The windows of a tensor as text."""
    return ["".join(records.classes[i] for i in row) for row in everything(records)[name].tolist()]


def test_a_label_is_the_character_that_follows(opened):
    records = opened("abracadabra")
    assert records.count == 3 and records.shapes == {"data": (3,), "label": (3,)}
    assert records.classes == tuple("abcdr") and set(records.kinds.values()) == {"int"}
    assert everything(records)["data"].dtype == np.int32
    assert words(records, "data") == ["abr", "aca", "dab"] and words(records, "label") == ["bra", "cad", "abr"]


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\r\ufeff"), min_size=2, max_size=60),
    st.integers(1, 8),
    st.one_of(st.none(), st.integers(1, 5)),
)
def test_windows_are_slices_of_the_text(tmp_path_factory, text, steps, stride):
    path = tmp_path_factory.mktemp("text") / "some.txt"
    path.write_bytes(text.encode())
    begins = range(0, len(text) - steps, stride or steps)
    if not begins:
        with pytest.raises(DataError, match=f"steps expected fewer characters than the text has, which is {len(text)}"):
            source(path, steps=steps, stride=stride).open(0)
        return
    records = source(path, steps=steps, stride=stride).open(0)
    assert records.classes == tuple(sorted(set(text)))
    assert words(records, "data") == [text[at : at + steps] for at in begins]
    assert words(records, "label") == [text[at + 1 : at + 1 + steps] for at in begins]


def test_bytes_have_256_classes(opened):
    records = opened(b"\xff\x00 a\r\n!", unit="byte")
    assert len(records.classes) == 256 and records.classes[97] == "a" and records.classes[10] == "0x0a"
    assert everything(records)["data"].tolist() == [[255, 0, 32], [97, 13, 10]]


def test_line_breaks_and_marks_are_read_alike(opened):
    assert opened("\ufeffa\r\nb\rc\nd").classes == tuple("\nabcd")


def test_the_test_part_is_the_end_and_the_vocabulary_that_of_the_training_part(opened):
    text = "abcabcabcabcabcabaab"
    train, test = (opened(text, split=split, test_fraction=0.25) for split in ("train", "test"))
    assert words(train, "data") == ["abc"] * 4 and words(test, "data") == ["aba"]
    assert train.classes == test.classes == tuple("abc")
    with pytest.raises(DataError, match=r"some.txt:3:2: expected one of the 3 characters of the vocabulary, found 'x'"):
        opened("aab\nabb\naxaa", split="test", test_fraction=0.4)
    replaced = opened("aab\nabb\naxaa", split="test", test_fraction=0.4, substitute="b")
    assert words(replaced, "data") == ["\nab"] and words(replaced, "label") == ["aba"]
    with pytest.raises(DataError, match="substitute expected a character of the vocabulary, found 'z'"):
        opened("aab\nabb\naxaa", split="test", test_fraction=0.4, substitute="z")


def test_a_vocabulary_of_another_text_or_as_written(opened, tmp_path):
    (tmp_path / "train.txt").write_text("dcba")
    assert opened("aabb", vocabulary=str(tmp_path / "train.txt")).classes == tuple("abcd")
    records = opened("aabb", classes=["b", "a", "z"])
    assert records.classes == ("b", "a", "z") and everything(records)["data"].tolist() == [[1, 1, 0]]
    with pytest.raises(DataError, match="1:4: expected one of the 2 characters"):
        opened("aabc", classes=["b", "a"])


def test_what_is_not_text_is_an_error(opened):
    with pytest.raises(DataError, match=r"some.txt:2: expected UTF-8 text, found byte 0xff; .* unit: byte"):
        opened(b"abc\nab\xff")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"classes": ["a", "bc"]}, "expected single characters, the vocabulary, got 'bc'"),
        ({"classes": ["a", "b", "a"]}, "each character once, got 'a' again"),
        ({"substitute": "ab"}, "expected one character, got 'ab'"),
        ({"unit": "byte", "vocabulary": "a.txt"}, "bytes need no vocabulary"),
        ({"unit": "byte", "substitute": "a"}, "bytes need no substitute"),
        ({"steps": 0}, "expected a number > 0"),
        ({"test_fraction": 1}, "expected a number < 1"),
    ],
)
def test_settings_are_checked(fields, message):
    with pytest.raises(ValidationError, match=message):
        source("a.txt", **fields)


@pytest.mark.parametrize("shuffle", [False, True])
def test_batches_are_steps_by_sequences(shuffle, tmp_path):
    path = tmp_path / "some.txt"
    path.write_text("abcdefghijklmnopqrstuvwxyz")
    made = {}
    for first in (True, False):
        given_ = source(path, batch_size=3, shuffle=shuffle, steps_first=first)
        made[first] = Batches(given_, given_.open(0), "train", 1)
    assert made[True].count == 8
    assert made[True].tensors == dict.fromkeys(("data", "label"), ((3, 3), "int"))
    assert made[True].types(2) == dict.fromkeys(("data", "label"), ((3, 2), "int"))
    for iteration in range(6):  # the third has the end of one epoch and the beginning of the next
        ours, other = (made[first].at(iteration) for first in (True, False))
        for name in ("data", "label"):
            np.testing.assert_array_equal(ours[name], other[name].T)
            assert ours[name].flags.c_contiguous
        np.testing.assert_array_equal(ours["data"][1:], ours["label"][:-1])
    sizes = [(batch["data"].shape, made[True].samples_in(batch)) for batch in made[True].once()]
    assert sizes == [((3, 3), 3), ((3, 3), 3), ((3, 2), 2)]


# The shipped model.


def shell(capsys, *given_words):
    """What a command prints."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in given_words])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.out + said.err
    return said.out


def entropy(text, of):
    """Nats per character of `text`, where characters come as often as in `of`."""
    counts = Counter(of)
    return -sum(math.log(counts[character] / len(of)) for character in text) / len(text)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The run of the shipped character model, and the copy of its text that it was trained on."""
    folder = tmp_path_factory.mktemp("model")
    text = folder / "text.txt"
    text.write_bytes((CONFIGS / "char_text.txt").read_bytes())
    run = cfgnet.train(cfgnet.load(CONFIGS / "char_text.yaml", [f"vars.text={text}"]), runs=folder)
    return run, text


def test_a_character_model_learns_more_than_how_often_characters_occur(model):
    run, file = model
    text = file.read_text()
    cut = len(text) - round(0.1 * len(text))
    known = entropy(text[cut:], text[:cut])
    assert 2.9 < known < 3
    assert run.metrics["loss"] < known - 0.7 and run.loss < 1.5  # 1.9 and 1.0 when this was written


def test_a_run_remembers_its_vocabulary_and_predicts_what_follows(model, tmp_path, capsys):
    run, file = model
    before = file.read_bytes()
    (tmp_path / "some.txt").write_text("The gradient of the loss is a networ")
    said = shell(capsys, "predict", run.path, tmp_path / "some.txt", "--json")
    rows = json.loads(said)
    assert [row["step"] for row in rows] == list(range(36)) and rows[-1]["top"][0]["class"] == "k"
    assert rows[2]["top"][0]["class"] == "' '"
    assert shell(capsys, "predict", run.path, tmp_path / "some.txt").splitlines()[0].split()[:4] == [
        "input",
        "sample",
        "step",
        "prediction",
    ]
    file.write_bytes(before.replace(b"H", b""))
    assert shell(capsys, "predict", run.path, tmp_path / "some.txt", "--json") == said
    file.write_bytes(before)
    np.save(tmp_path / "some.npy", np.zeros((2, 32), np.int32))
    assert len(json.loads(shell(capsys, "predict", run.path, tmp_path / "some.npy", "--json"))) == 2 * 32
    found = json.loads(shell(capsys, "test", run.path, "--json"))
    assert np.sum(found["confusion"]) == 15 * 32


def test_steps_do_not_see_what_follows_or_the_sequences_beside_them(model, tmp_path, capsys):
    run, _ = model
    for name, text in (("short", "The loss"), ("long", "The loss of all")):
        (tmp_path / name).write_text(text)
    short, long = (
        json.loads(shell(capsys, "predict", run.path, tmp_path / name, "--json")) for name in ("short", "long")
    )
    for one, other in zip(short, long, strict=False):
        assert one["top"][0]["probability"] == pytest.approx(other["top"][0]["probability"], rel=1e-4)


def test_labels_without_a_class_are_found_by_check(capsys):
    with pytest.raises(SystemExit) as ended:
        main(
            [
                "check",
                str(CONFIGS / "char_text.yaml"),
                "--set",
                f"vars.text={CONFIGS / 'char_text.txt'}",
                "--set",
                "layers.score.num_output=40",
            ]
        )
    assert ended.value.code == 2
    assert "train data: 'label': expected 0 to 39, found 40 in sample 0, the first of" in capsys.readouterr().out
