"""CNTK's text format: the examples of its documentation in our words, what is malformed, and files made at random."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

import cfgnet
from cfgnet.cli import main
from cfgnet.data import Batches, Source, class_counts, examine
from cfgnet.errors import DataError

A = {"a": {"dim": 3}}
AB = {"a": {"dim": 3}, "b": {"dim": 2}}
ONE_HOT = {"dim": 4, "format": "sparse", "kind": "index"}


def source(path, streams, **fields):
    return Source.model_validate({"source": "ctf", "batch_size": 1, "path": str(path), "streams": streams, **fields})


@pytest.fixture
def opened(tmp_path):
    """opened(text, streams) -> Records."""

    def make(text, streams, **fields):
        path = tmp_path / "data.ctf"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return source(path, streams, **fields).open(0)

    return make


def everything(records):
    return records.take(np.arange(records.count))


def listed(records):
    return {name: array.tolist() for name, array in everything(records).items()}


def test_streams_dense_and_sparse_with_comments_in_any_order(opened):
    text = (
        "|B 100:3 123:4 |C 8 |A 0 1 2 3 4 |# a comment of CTF\n"
        "|# another one |A 0 1.1 22 0.3 54 |C 123917 |B 1134:1.911 13331:0.014\n"
        "|C -0.001 |# a comment with an escaped pipe: '|#' |A 3.9 1.11 121.2 99.13 0.04 |B 999:0.001 918918:-9.19\n"
    )
    records = opened(text, {"A": {"dim": 5}, "B": {"dim": 1000000, "format": "sparse"}, "C": {"dim": 1}})
    assert records.count == 3 and records.shapes == {"A": (5,), "B": (1000000,), "C": (1,)}
    assert set(records.kinds.values()) == {"float"} and not records.steps_first
    found = everything(records)
    assert (
        found["A"].tolist()
        == np.float32([[0, 1, 2, 3, 4], [0, 1.1, 22, 0.3, 54], [3.9, 1.11, 121.2, 99.13, 0.04]]).tolist()
    )
    assert found["C"].tolist() == np.float32([[8], [123917], [-0.001]]).tolist()
    row, column = found["B"].nonzero()
    assert list(zip(row, column, strict=True)) == [
        (0, 100),
        (0, 123),
        (1, 1134),
        (1, 13331),
        (2, 999),
        (2, 918918),
    ]
    assert found["B"][row, column].tolist() == np.float32([3, 4, 1.911, 0.014, 0.001, -9.19]).tolist()


def test_sequences_by_id_which_may_be_left_out_behind_the_first_line(opened):
    text = (
        "100 |a 1 2 3 |b 100 200\n100 |a 4 5 6 |b 101 201\n100 |b 102983 14532 |a 7 8 9\n100 |a 7 8 9\n"
        "200 |b 300 400 |a 10 20 30\n333 |b 500 100\n333 |b 600 -900 |a 0 0 1\n400 |a 1 2 3 |b 100 200\n"
        "|a 4 5 6 |b 101 201\n|a 4 5 6 |b 101 201\n500 |a 1 2 3 |b 100 200\n"
    )
    streams = {"long_name": {"alias": "a", "dim": 3}, "other": {"alias": "b", "dim": 2}}
    records = opened(text, streams)
    assert records.count == 5
    assert records.shapes == {"long_name": (4, 3), "other": (3, 2), "long_name_lengths": (), "other_lengths": ()}
    found = listed(records)
    assert found["long_name_lengths"] == [4, 1, 1, 3, 1] and found["other_lengths"] == [3, 1, 2, 3, 1]
    assert found["long_name"][0] == [[1, 2, 3], [4, 5, 6], [7, 8, 9], [7, 8, 9]]
    assert found["long_name"][3] == [[1, 2, 3], [4, 5, 6], [4, 5, 6], [0, 0, 0]]
    assert found["other"][2] == [[500, 100], [600, -900], [0, 0]]


def test_lines_are_sequences_where_the_first_has_no_id_or_ids_are_skipped(opened):
    text = "|a 1 2 3 |b 100 200\n100 |a 4 5 6 |b 101 201\n100 |b 102983 14532 |a 7 8 9\n"
    for given_, fields in ((text, {}), ("100 " + text, {"skip_sequence_ids": True})):
        records = opened(given_, AB, **fields)
        assert records.shapes == {"a": (3,), "b": (2,)}
        assert listed(records)["a"] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]


def test_one_hot_vectors_are_classes(opened):
    streams = {"label": ONE_HOT | {"alias": "class"}, "data": {"alias": "features", "dim": 5}}
    records = opened("|class 3:1 |features 2 3 4 5 6\n|class 1:1 0:0 |features 1 2 0 2 3\n", streams)
    assert records.shapes == {"label": (), "data": (5,)} and records.kinds == {"label": "int", "data": "float"}
    assert everything(records)["label"].dtype == np.int32
    assert class_counts(records) == {1: 1, 3: 1} and not examine(records, 4)[1:]
    dense = {"label": {"dim": 3, "kind": "index"}}
    assert listed(opened("|label 0 1 0\n|label 1 0 0", dense)) == {"label": [1, 0]}


def test_whole_numbers_stay_whole(opened):
    streams = {"rating": {"dim": 1, "kind": "whole"}, "box": {"dim": 2, "kind": "whole"}}
    records = opened("|rating 4 |box -1 2.0\n|rating 0 |box 7 1e3\n", streams)
    assert records.shapes == {"rating": (), "box": (2,)} and set(records.kinds.values()) == {"int"}
    assert listed(records) == {"rating": [4, 0], "box": [[-1, 2], [7, 1000]]}


TAGGED = "0 |word 2:1 |tag 1:1\n0 |word 1:1 |tag 0:1\n0 |word 1:1 |tag 3:1\n1 |word 3:1 |tag 1:1\n"


def test_what_is_behind_the_end_of_a_sequence_is_padded(opened):
    streams = {"word": ONE_HOT | {"pad": 0}, "tag": ONE_HOT}
    assert listed(opened(TAGGED, streams)) == {
        "word": [[2, 1, 1], [3, 0, 0]],
        "tag": [[1, 0, 3], [1, -1, -1]],
        "word_lengths": [3, 1],
        "tag_lengths": [3, 1],
    }


@pytest.mark.parametrize(
    ("steps", "words", "lengths"), [(2, [[2, 1], [3, -1]], [2, 1]), (4, [[2, 1, 1, -1], [3, -1, -1, -1]], [3, 1])]
)
def test_steps_cut_and_pad(steps, words, lengths, opened):
    streams = {"word": ONE_HOT | {"steps": steps}}
    assert listed(opened(TAGGED, streams)) == {"word": words, "word_lengths": lengths}
    single = opened("|word 1:1\n|word 2:1\n", {"word": ONE_HOT | {"steps": 1}})
    assert single.shapes == {"word": (1,), "word_lengths": ()}


def test_a_label_in_any_line_belongs_to_the_sequence(opened):
    text = "0 |word 2:1\n0 |word 1:1 |class 3:1\n0 |word 0:1\n1 |word 1:1 |class 2:1\n1 |word 3:1\n"
    records = opened(
        text, {"data": {"dim": 4, "format": "sparse", "alias": "word"}, "label": ONE_HOT | {"alias": "class"}}
    )
    assert records.shapes == {"data": (3, 4), "label": (), "data_lengths": ()}
    assert listed(records)["label"] == [3, 2]


def test_a_batch_has_its_steps_first_unless_it_is_said_otherwise(tmp_path):
    path = tmp_path / "tags.ctf"
    path.write_text(TAGGED)
    streams = {"word": {"dim": 4, "format": "sparse"}, "tag": ONE_HOT}
    made = {
        first: Batches(given_ := source(path, streams, batch_size=2, steps_first=first), given_.open(0), "train", 1)
        for first in (True, False)
    }
    assert made[True].tensors == {
        "word": ((3, 2, 4), "float"),
        "tag": ((3, 2), "int"),
        "word_lengths": ((2,), "int"),
        "tag_lengths": ((2,), "int"),
    }
    assert made[False].tensors["word"] == ((2, 3, 4), "float")
    ours, other = (made[first].at(0) for first in (True, False))
    for name, (shape, _) in made[True].tensors.items():
        assert ours[name].shape == shape and ours[name].flags.c_contiguous
        np.testing.assert_array_equal(ours[name], other[name].swapaxes(0, 1) if len(shape) > 1 else other[name])
    assert [made[True].samples_in(batch) for batch in made[True].once()] == [2]
    assert {name: array.shape for name, array in made[True].part(ours, 1).items()}["word"] == (3, 1, 4)


def test_shapes_tabs_line_ends_marks_and_what_nobody_asked_for(opened):
    text = b"\xef\xbb\xbf7\t|a\t1  2 3 4|z 9:9 9\r\n\r\n |# nothing but words\n7 |a 5 6 7 8 |#|z"
    records = opened(text, {"a": {"dim": 4, "shape": [1, 2, 2]}})
    assert records.shapes == {"a": (2, 1, 2, 2), "a_lengths": ()}
    assert listed(records)["a"] == [[[[[1, 2], [3, 4]]], [[[5, 6], [7, 8]]]]]


def test_an_empty_sparse_vector_is_zero_and_an_empty_file_has_no_samples(opened):
    sparse = {"b": {"dim": 2, "format": "sparse"}, "a": {"dim": 1}}
    assert listed(opened("|b |a 1\n|a 2|b\n|b 1:5 |a 3\n", sparse))["b"] == [[0, 0], [0, 0], [0, 5]]
    for text in ("", "\n\n", "|# nothing\n"):
        assert opened(text, A).count == 0


def test_numbers_that_float32_cannot_hold_are_found_by_check(opened):
    findings = examine(opened("|a 1 2 3\n|a 1 1e99 nan\n", A))
    assert [finding.message for finding in findings] == ["'a': expected finite numbers, found inf in sample 1"]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("x |a 1 2 3\n", "1:1", "expected a sequence id of at most 20 digits, or '|', found 'x'"),
        ("-1 |a 1 2 3\n", "1:1", "found '-1'"),
        ("|a 1 2 3\n  1 2 3\n", "2:3", "found '1 2 3'; the name of a stream stands behind '|'"),
        ("|a 1 2 3 || b\n", "1:11", "expected the name of a stream right behind '|'"),
        ("|a 1 2 3 | b 4\n", "1:11", "write '|#'"),
        ("|a 1 2 3 |b 1 |a 1 2 3\n", "1:16", "each stream once in a line, found 'a' again"),
        ("|a 1 2\n", "1:7", "'a': expected the 3 numbers of dim, found the end of the sample"),
        ("|b 1 |a 1  2 3\t4 5 |c\n", "1:16", "no more than the 3 numbers of dim, found '4'"),
        ("|a 1 two 3\n", "1:6", "'a': expected a number, found 'two'"),
        ("|a 1 1_0 3\n", "1:6", "expected a number, found '1_0'"),
        ("|a 0:1 2 3\n", "1:4", "found '0:1'; index:number belongs to a stream of format: sparse"),
        ("|s 1:2 5\n", "1:8", "'s': expected index:number, found '5'; a vector of plain numbers"),
        ("|s 1:2 -1:5\n", "1:8", "expected index:number, found '-1:5'"),
        ("|s 1: 2\n", "1:4", "expected index:number, found '1:'"),
        ("|s 0:1 4:1\n", "1:8", "expected an index from 0 to 3, found '4:1'; raise dim"),
        ("|s 0:1 2:1 0:3\n", "1:12", "each index once in a sample, found '0:3'"),
        ("|i 0:1 2:1\n", "1:8", "a single 1 and nothing but 0 beside it (kind: index), found '2:1'; kind: vector"),
        ("|i 0:0 2:5\n", "1:8", "a single 1"),
        ("|i\n", "1:3", "a single 1 and nothing but 0 beside it (kind: index), found the end of the sample"),
        ("|w 1 2.5\n", "1:6", "a whole number of at most 32 bits (kind: whole), found '2.5'"),
        ("|w 1 nan\n", "1:6", "a whole number"),
        ("|w 3000000000 1\n", "1:4", "a whole number"),
        (
            "1 |a 1 2 3\n2 |a 4 5 6\n\n1 |a 7 8 9\n",
            "4:1",
            "expected a new id, found 1, which the sequence of line 1 has",
        ),
        ("1 |a 1 2 3\n2 |b 1 2\n", "2", "sequence 2: expected a sample of 'a', found none; there is 'b'"),
        ("|A 1 2 3\n", "1", "expected a sample of 'a', found none; did you mean 'A'?"),
        ("1 |# alone\n2 |a 1 2 3\n", "1", "sequence 1: expected a sample of 'a', found none; there is none at all"),
        ("4 |a 1 2 3 |b 1 2\n5 |a 4 5 6\n5 |b 1 2\n", "2", "found 2 lines and 1 sample; the samples of a step stand"),
    ],
)
def test_what_is_malformed_is_an_error_with_its_place(text, place, message, opened):
    streams = {
        "s": {"dim": 4, "format": "sparse"},
        "i": ONE_HOT,
        "w": {"dim": 2, "kind": "whole"},
        "a": {"dim": 3},
    }
    name = next((name for name in "siw" if text.startswith(f"|{name}")), "a")
    with pytest.raises(DataError) as caught:
        opened(text, {name: streams[name]})
    assert f"data.ctf:{place}: " in str(caught.value) and message in str(caught.value)


def test_what_is_not_text_is_an_error(opened, tmp_path):
    with pytest.raises(DataError, match=r"data.ctf:\d or later: expected UTF-8 text, found byte 0xff"):
        opened(b"|a 1 2 3\n|a 1 2 \xff\n", A)
    with pytest.raises(DataError, match="no such file"):
        source(tmp_path / "none.ctf", A).open(0)


@pytest.mark.parametrize(
    ("streams", "message"),
    [
        ({}, "at least 1"),
        ({"a": {}}, "missing key 'dim'"),
        ({"a": {"dim": 0}}, "expected a number >= 1"),
        ({"a": {"dim": 6, "shape": [2, 2]}}, "product is dim 6"),
        ({"a": {"dim": 6, "alias": "a b"}}, "without spaces"),
        ({"a": {"dim": 6, "alias": "#a"}}, "without spaces"),
        ({"a": {"dim": 6, "kind": "whole", "format": "sparse"}}, "format: dense beside kind: whole"),
        ({"a": {"dim": 6, "kind": "index", "shape": [6]}}, "has no shape"),
        ({"a": {"dim": 1}, "b": {"dim": 1, "alias": "a"}}, "expected an alias for each stream, got 'a' twice"),
        ({"a": {"dim": 1}, "a_lengths": {"dim": 1}}, "'a_lengths' is what the lengths of a stream are called"),
    ],
)
def test_settings_are_checked(streams, message):
    with pytest.raises(ValidationError, match=message):
        source("a.ctf", streams)


# Files made at random.

numbers = st.floats(-1e6, 1e6, width=32)
blanks = st.text(" \t", min_size=1, max_size=3)


@st.composite
def files(draw):
    """The text of a file with a dense, a sparse and a one-hot stream, and what it means, sequence by sequence."""
    sequences = []
    for _ in range(draw(st.integers(1, 5))):
        lengths = draw(st.tuples(*[st.integers(1, 4)] * 3))
        dense = draw(st.lists(st.lists(numbers, min_size=3, max_size=3), min_size=lengths[0], max_size=lengths[0]))
        sparse = draw(
            st.lists(st.dictionaries(st.integers(0, 6), numbers, max_size=4), min_size=lengths[1], max_size=lengths[1])
        )
        classes = draw(st.lists(st.integers(0, 4), min_size=lengths[2], max_size=lengths[2]))
        sequences.append((dense, sparse, classes))
    ids = draw(st.lists(st.integers(0, 2**63), min_size=len(sequences), max_size=len(sequences), unique=True))
    text = []
    for id_, (dense, sparse, classes) in zip(ids, sequences, strict=True):
        for step in range(max(len(dense), len(sparse), len(classes))):
            parts = []
            if step < len(dense):
                parts.append(["|d", *map(repr, dense[step])])
            if step < len(sparse):
                parts.append(["|s", *(f"{i}:{v!r}" for i, v in sparse[step].items())])
            if step < len(classes):
                parts.append(["|c", f"{classes[step]}:1"])
            parts.append(["|#", draw(st.sampled_from(["", "words", "a |# pipe", "1:2"]))])
            blank = draw(blanks)
            line = blank.join(word for part in draw(st.permutations(parts)) for word in part)
            text.append(
                (str(id_) if step == 0 or draw(st.booleans()) else "") + draw(st.sampled_from(["", " ", "\t"])) + line
            )
    end = draw(st.sampled_from(["\n", "\r\n"]))
    return end.join(text) + draw(st.sampled_from(["", end])), sequences


@given(files(), st.data())
def test_what_was_written_is_read(tmp_path_factory, file, data):
    text, sequences = file
    path = tmp_path_factory.mktemp("ctf") / "data.ctf"
    path.write_bytes(text.encode())
    streams = {
        "d": {"dim": 3},
        "s": {"dim": 7, "format": "sparse"},
        "c": {"dim": 5, "format": "sparse", "kind": "index"},
    }
    records = source(path, streams).open(0)
    assert records.count == len(sequences)
    rows = data.draw(st.lists(st.integers(0, len(sequences) - 1), min_size=1, max_size=6))
    found = records.take(np.array(rows))
    for place, row in enumerate(rows):
        for name, samples in zip("dsc", sequences[row], strict=True):
            wanted = [[sample.get(i, 0.0) for i in range(7)] for sample in samples] if name == "s" else samples
            if f"{name}_lengths" not in found:
                assert found[name][place].tolist() == wanted[0]
                continue
            assert found[f"{name}_lengths"][place] == len(samples)
            assert found[name][place, : len(samples)].tolist() == wanted
            assert (found[name][place, len(samples) :] == (-1 if name == "c" else 0)).all()


# Nets that train from such a file.


def shell(capsys, *words):
    """What a command prints."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.out + said.err
    return said.out


FEATURES = (
    "data: {alias: features, dim: 64, shape: [1, 8, 8]}, label: {alias: labels, dim: 10, format: sparse, kind: index}"
)
CLASSIFIER = f"""
name: digits
data:
  train:
    {{source: ctf, path: train.ctf, batch_size: 64, transform: {{scale: 0.0625}}, streams: {{{FEATURES}}}}}
  test:
    {{source: ctf, path: test.ctf, batch_size: 120, transform: {{scale: 0.0625}}, streams: {{{FEATURES}}}}}
layers:
  - {{type: InnerProduct, name: score, num_output: 10}}
  - {{type: SoftmaxWithLoss, name: loss, inputs: [score, label]}}
  - {{type: Accuracy, name: accuracy, inputs: [score, label], phase: test}}
solver: {{type: SGD, base_lr: 0.1, momentum: 0.9}}
train: {{max_iter: 200}}
"""


def test_a_classifier_trains_from_a_file(tmp_path, monkeypatch, capsys):
    """As it does from the source whose samples the file holds."""
    monkeypatch.chdir(tmp_path)
    labels = {}
    for split in ("train", "test"):
        samples = everything(Source.model_validate({"source": "digits", "batch_size": 1, "split": split}).open(0))
        labels[split] = samples["label"]
        rows = zip(samples["data"].reshape(-1, 64).astype(int).tolist(), samples["label"], strict=True)
        text = "".join(f"|labels {label}:1 |features {' '.join(map(str, row))}\n" for row, label in rows)
        (tmp_path / f"{split}.ctf").write_text(text)
    (tmp_path / "net.yaml").write_text(CLASSIFIER)
    said = shell(capsys, "check", "net.yaml")
    assert "no mistakes; 2 layers, 650 parameters, train 1,437 samples in 10 classes, test 360" in said
    shell(capsys, "train", "net.yaml", "-q")
    accuracy = json.loads(shell(capsys, "test", "runs/digits", "--json"))["metrics"]["accuracy"]
    other = CLASSIFIER.replace(f", streams: {{{FEATURES}}}", "").replace("ctf, path: train.ctf", "digits")
    other = cfgnet.loads(other.replace("ctf, path: test.ctf", "digits, split: test"))
    assert accuracy == cfgnet.train(other, runs=tmp_path / "other").metrics["accuracy"] > 0.9
    (tmp_path / "new.ctf").write_text("".join((tmp_path / "test.ctf").read_text().splitlines(True)[:40]))
    rows = json.loads(shell(capsys, "predict", "runs/digits", "new.ctf", "--json"))
    right = [row["top"][0]["class"] == str(label) for row, label in zip(rows, labels["test"][:40], strict=True)]
    assert np.mean(right) > 0.8


WORDS = (
    "data: {alias: word, dim: 4, format: sparse, steps: 9}, label: {alias: class, dim: 2, format: sparse, kind: index}"
)
SEQUENCES = f"""
name: sequences
data:
  train: {{source: ctf, path: train.ctf, batch_size: 20, shuffle: true, streams: {{{WORDS}}}}}
  test: {{source: ctf, path: test.ctf, batch_size: 30, streams: {{{WORDS}}}}}
layers:
  - {{type: CELL, name: state, inputs: [data, data_lengths], outputs: [y, h], padded: true, num_output: 12}}
  - {{type: Squeeze, name: last, inputs: h, axes: 0}}
  - {{type: InnerProduct, name: score, num_output: 2}}
  - {{type: SoftmaxWithLoss, name: loss, inputs: [score, label]}}
  - {{type: Accuracy, name: accuracy, inputs: [score, label], phase: test}}
solver: {{type: Adam, base_lr: 0.02}}
train: {{max_iter: 150}}
"""


@pytest.mark.parametrize("cell", ["LSTM", "GRU"])
def test_a_recurrent_net_tells_sequences_of_any_length_apart(cell, tmp_path, monkeypatch, capsys):
    """Sequences of 2 to 9 symbols are of class 1 if the first one is the symbol 2."""
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(1)
    for split, count in (("train", 200), ("test", 70)):
        lines = []
        for number in range(count):
            symbols = random.integers(0, 4, random.integers(2, 10))
            at = random.integers(len(symbols))
            for step, symbol in enumerate(symbols):
                label = f" |class {int(symbols[0] == 2)}:1" if step == at else ""
                lines.append(f"{number} |word {symbol}:1{label}\n")
        (tmp_path / f"{split}.ctf").write_text("".join(lines))
    (tmp_path / "net.yaml").write_text(SEQUENCES.replace("CELL", cell))
    assert "train 200 samples in 2 classes, test 70" in shell(capsys, "check", "net.yaml")
    shell(capsys, "train", "net.yaml", "-q")
    found = json.loads(shell(capsys, "test", "runs/sequences", "--json"))
    assert found["metrics"]["accuracy"] > 0.95 and np.sum(found["confusion"]) == 70
    assert all(result.verdict == "ok" for result in cfgnet.grad_check(cfgnet.load("net.yaml"), samples=4))

    def said(file):
        rows = json.loads(shell(capsys, "predict", "runs/sequences", file, "--json", "--top", "1"))
        return [row["top"][0]["class"] for row in rows]

    (tmp_path / "new.ctf").write_text("1 |word 2:1\n2 |word 0:1\n|word 2:1\n3 |word 2:1\n|word 0:1\n|word 0:1\n")
    assert said("new.ctf") == ["1", "0", "1"]
    np.save("one.npy", np.eye(4, dtype=np.float32)[[2] + [0] * 8])
    assert said("one.npy") == ["1"]
