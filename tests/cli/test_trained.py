"""`cfgnet test` and `cfgnet predict`: what they say of a trained net is what closed formulas say of its parameters."""

import json
import pickle
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

import cfgnet
from cfgnet.data.digits import Digits
from cfgnet.inputs import read_samples
from cfgnet.rundir import best, newest
from cfgnet.snapshot import read

from .conftest import CLASSES

RECORDS = Digits(batch_size=1, split="test").open(0)
COUNT = RECORDS.count
IMAGES, LABELS = (RECORDS.take(np.arange(COUNT))[name] for name in ("data", "label"))


def softmax_of(images, run, snapshot=best):
    """What the net of DIGITS makes of raw images, in float64."""
    p = {key: value.astype(float) for key, value in read(snapshot(run)).section("params").items()}
    x = images.reshape(len(images), 64) * 0.0625
    hidden = np.maximum(x @ p["hidden.weight"].T + p["hidden.bias"], 0)
    scores = hidden @ p["score.weight"].T + p["score.bias"]
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


# Test.


def counted(said):
    """The confusion matrix of predictions for the test set."""
    matrix = np.zeros((10, 10), int)
    np.add.at(matrix, (LABELS, said), 1)
    return matrix


def test_metrics_and_confusion_matrix(shell, trained):
    found = shell("test", trained, "--json").json
    assert found.keys() == {"iteration", "metrics", "arrays", "confusion"} and found["iteration"] == 80
    probability = softmax_of(IMAGES, trained)
    assert found["confusion"] == counted(probability.argmax(axis=1)).tolist()
    assert [sum(row) for row in found["confusion"]] == np.bincount(LABELS).tolist()
    right = np.trace(found["confusion"])
    loss = -np.log(probability[np.arange(COUNT), LABELS]).mean()
    assert found["metrics"] == pytest.approx({"accuracy": right / COUNT, "loss": loss}, rel=1e-5)
    assert found["metrics"]["accuracy"] > 0.8


def test_the_figures_of_each_class(shell, trained):
    out = shell("test", trained).out
    assert f"best.safetensors, iteration 80, {COUNT} test samples" in out
    matrix = np.array(shell("test", trained, "--json").json["confusion"])
    figures = {line.split()[0]: line.split()[1:] for line in out.split("class ")[1].splitlines()[2:]}
    assert [*figures] == CLASSES
    for index, name in enumerate(CLASSES):
        hit, said, there = matrix[index, index], matrix[:, index].sum(), matrix[index].sum()
        wanted = [hit / said, hit / there, 2 * hit / (said + there)]
        assert figures[name] == [*(f"{value:.3f}" for value in wanted), str(there)]
    table = out.split("true \\ said")[1].split("\n\n")[0].splitlines()[2:]
    assert [[int(n.replace(".", "0")) for n in line.split()[1:]] for line in table] == matrix.tolist()


def test_outputs_of_metrics_by_class_and_several_matrices(shell, tmp_path):
    layers = [
        "{type: F1, inputs: [score, label], outputs: [f1, f1_by_class], phase: test}",
        "{type: AUC, inputs: [score, label], outputs: [auc, auc_by_class], phase: test}",
        "{type: ConfusionMatrix, name: matrix, inputs: [score, label], phase: test}",
        "{type: ConfusionMatrix, name: others, inputs: [score, label], ignore_label: 0, phase: test}",
    ]
    file = tmp_path / "net.yaml"
    file.write_text(
        file.read_text("utf-8").replace("solver:", "".join(f"  - {x}\n" for x in layers) + "solver:"), "utf-8"
    )
    shell("train", file, "-q", "--set", "train.max_iter=10", "--set", "train.best=auc")
    run = tmp_path / "runs" / "digits"
    found, text = shell("test", run, "--json").json, shell("test", run).out
    assert found["arrays"].keys() == {"f1_by_class", "auc_by_class", "matrix", "others"}
    assert found["arrays"]["matrix"] == found["confusion"] and found["arrays"]["others"][0] == [0] * 10
    assert found["metrics"]["f1"] == pytest.approx(np.mean(found["arrays"]["f1_by_class"]))
    assert text.count("matrix\ntrue \\ said") == text.count("others\ntrue \\ said") == 1
    header, _, *lines = text[text.index("class ") :].splitlines()
    assert header.split()[1:] == ["precision", "recall", "f1", "samples", "f1_by_class", "auc_by_class"]
    for line, f1 in zip(lines, found["arrays"]["f1_by_class"], strict=True):
        figures = line.split()[1:]
        assert figures[2] == figures[4] == f"{f1:.3f}"
    entry = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()][-1]
    assert entry["test"] == found["metrics"] and entry["arrays"] == found["arrays"]


def test_last_takes_the_newest_snapshot_and_not_the_best(shell, tmp_path):
    sets = ["train.max_iter=6", "train.test_interval=1", "solver.base_lr=4"]
    shell("train", "net.yaml", "-q", *(word for text in sets for word in ("--set", text)))
    run = tmp_path / "runs" / "digits"
    good, last = shell("test", run, "--json").json, shell("test", run, "--json", "--last").json
    assert last["iteration"] == 6 and good["iteration"] < 6
    assert good["metrics"]["accuracy"] > last["metrics"]["accuracy"]
    assert last["confusion"] == counted(softmax_of(IMAGES, run, newest).argmax(axis=1)).tolist()
    np.save("some.npy", IMAGES[:9])
    for flag, snapshot in (([], best), (["--last"], newest)):
        rows = shell("predict", run, "some.npy", "--json", *flag).json
        said = [row["top"][0]["probability"] for row in rows]
        assert said == pytest.approx(softmax_of(IMAGES[:9], run, snapshot).max(axis=1).tolist(), rel=1e-4)


def test_test_takes_other_data_and_says_what_is_missing(shell, trained):
    found = shell("test", trained, "--json", "--set", "data.test.split=train", "--set", "data.test.batch_size=64").json
    assert np.sum(found["confusion"]) == 1437
    said = shell("test", trained, "--set", "data.test=null")
    assert said.code == 2 and "no data.test" in said.err and "--set data.test.source=" in said.err
    wrong = shell("test", trained, "--set", "layers.hidden.num_output=25")
    assert wrong.code == 2 and "hidden.weight is 24x64, the net has 25x64" in wrong.err


def test_a_regression_has_no_confusion_matrix(shell):
    sets = [f"data.test={{source: synthetic, count: 5, formula: '1 + 2 * x', batch_size: {size}}}" for size in (5, 2)]
    shell("train", "line.yaml", "-q", "--set", sets[0])
    found = [shell("test", "runs/line", "--json", "--set", text).json for text in sets]
    assert found[0]["confusion"] is None and found[0]["metrics"].keys() == {"cost", "loss"}
    assert found[1]["metrics"]["cost"] == pytest.approx(found[0]["metrics"]["cost"], rel=1e-5)
    assert shell("test", "runs/line").out.splitlines()[1].startswith("cost  ")


# Predict.


def assert_predicted(rows, probability, top=3):
    """Whether rows of --json name the `top` most probable classes."""
    for row, expected in zip(rows, probability, strict=True):
        order = np.argsort(-expected)[:top]
        assert [guess["class"] for guess in row["top"]] == [CLASSES[i] for i in order]
        assert [guess["probability"] for guess in row["top"]] == pytest.approx(expected[order], rel=1e-4)


@pytest.mark.parametrize("top", [1, 3, 10, 99])
def test_the_top_classes_are_those_of_the_softmax(top, shell, trained):
    np.save("some.npy", IMAGES[:20])
    rows = shell("predict", trained, "some.npy", "--json", "--top", top).json
    assert [(row["input"], row["index"]) for row in rows] == [("some.npy", index) for index in range(20)]
    assert_predicted(rows, softmax_of(IMAGES[:20], trained), min(top, 10))


def test_a_sample_alone_gets_the_answer_that_it_gets_in_a_batch(shell, trained):
    np.save("all.npy", IMAGES[:5])
    for index in range(5):
        np.save(f"{index}.npy", IMAGES[index])
    together = shell("predict", trained, "all.npy", "--json").json
    alone = shell("predict", trained, *(f"{index}.npy" for index in range(5)), "--json").json
    assert [row["input"] for row in alone] == [f"{index}.npy" for index in range(5)]
    for one, other in zip(alone, together, strict=True):
        assert [guess["class"] for guess in one["top"]] == [guess["class"] for guess in other["top"]]
        values = [[guess["probability"] for guess in row["top"]] for row in (one, other)]
        assert values[0] == pytest.approx(values[1], rel=1e-5)


def test_a_tensor_of_ones_own_choice(shell, trained):
    np.save("some.npy", IMAGES[:4])
    rows = shell("predict", trained, "some.npy", "--json", "--fetch", "score").json
    scores = np.array([row["values"] for row in rows])
    powers = np.exp(scores)
    np.testing.assert_allclose(powers / powers.sum(1, keepdims=True), softmax_of(IMAGES[:4], trained), rtol=1e-4)
    said = shell("predict", trained, "some.npy", "--fetch", "scores")
    assert said.code == 2 and "there is no tensor 'scores'; there are: hidden, " in said.err


def test_prediction_as_a_table(shell, trained):
    np.save("seven.npy", IMAGES[LABELS == 7][:1])
    said = shell("predict", trained, "seven.npy", "--top", "2")
    assert said.code == 0 and said.out.splitlines()[0].split() == ["input", "sample", "prediction", "2."]
    assert said.out.splitlines()[2].split()[:3] == ["seven.npy", "0", "seven"]


def test_a_regression_predicts_its_number(shell):
    shell("train", "line.yaml", "-q", "--set", "train.max_iter=300")
    np.save("x.npy", np.array([0.5, -2.0]))
    values = [row["values"] for row in shell("predict", "runs/line", "x.npy", "--json").json]
    np.testing.assert_allclose(values, [[2.0], [-3.0]], atol=1e-3)


def rows_of(images):
    return "\n".join(",".join(f"{value:g}" for value in image.reshape(-1)) for image in images) + "\n"


@pytest.mark.parametrize(
    ("name", "write", "count"),
    [
        ("batch.npy", lambda path: np.save(path, IMAGES[:3]), 3),
        ("flat.npy", lambda path: np.save(path, IMAGES[:3].reshape(3, 64)), 3),
        ("gray.npy", lambda path: np.save(path, IMAGES[:3, 0]), 3),
        ("single.npy", lambda path: np.save(path, IMAGES[0]), 1),
        ("square.npy", lambda path: np.save(path, IMAGES[0, 0]), 1),
        ("bytes.npy", lambda path: np.save(path, IMAGES[:3].astype(np.uint8)), 3),
        ("fortran.npy", lambda path: np.save(path, np.asfortranarray(IMAGES[:3])), 3),
        ("plain.csv", lambda path: path.write_text(rows_of(IMAGES[:3])), 3),
        ("one.csv", lambda path: path.write_text(rows_of(IMAGES[:1])), 1),
        ("header.csv", lambda path: path.write_text(",".join(64 * "p") + "\n" + rows_of(IMAGES[:3])), 3),
        ("bom.CSV", lambda path: path.write_text("\ufeff" + rows_of(IMAGES[:3]) + "\n\n", encoding="utf-8"), 3),
        ("windows.txt", lambda path: path.write_bytes(rows_of(IMAGES[:3]).replace("\n", "\r\n").encode()), 3),
    ],
)  # fmt: skip
def test_files_of_numbers(name, write, count, shell, trained, tmp_path):
    write(tmp_path / name)
    rows = shell("predict", trained, name, "--json").json
    assert_predicted(rows, softmax_of(IMAGES[:count], trained))


GRAY = np.round(IMAGES[3, 0] * 255 / 16).astype(np.uint8)
LIT = GRAY / 255 * 16
COLOUR = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def rgba(alpha):
    """GRAY as the ink of a picture of which `alpha` says how much covers what is behind it."""
    return np.dstack([GRAY, GRAY, GRAY, alpha.astype(np.uint8)])


@pytest.mark.parametrize(
    ("pixels", "invert", "expected"),
    [
        (GRAY, False, LIT),
        (255 - GRAY, True, LIT),
        (np.dstack([GRAY] * 3), False, LIT),
        (np.dstack([255 - GRAY] * 3), True, LIT),
        (np.kron(GRAY, np.ones((3, 3), np.uint8)), False, LIT),
        (np.kron(GRAY, np.ones((5, 2), np.uint8)), False, LIT),
        (GRAY.astype(np.uint16) * 256, False, LIT),
        (GRAY > 127, False, (GRAY > 127) * 16),
        (rgba(np.full((8, 8), 255)), False, LIT),
        (rgba((GRAY > 127) * 255), False, LIT * (GRAY > 127)),
        (255 - rgba(np.where(GRAY > 127, 0, 255)), True, LIT * (GRAY > 127)),  # black ink on a sheet of glass
        (np.dstack([GRAY, np.full((8, 8), 255, np.uint8)]), False, LIT),
    ],
    ids=["gray", "inverted", "rgb", "rgb inverted", "larger", "stretched", "16 bits", "1 bit", "opaque",
         "transparent", "transparent inverted", "gray opaque"],
)  # fmt: skip
def test_pictures_for_a_gray_net(pixels, invert, expected, tmp_path):
    Image.fromarray(pixels).save(tmp_path / "x.png")
    found = read_samples(tmp_path / "x.png", (1, 8, 8), 16.0, invert)
    assert found.dtype == np.float32 and found.shape == (1, 1, 8, 8)
    np.testing.assert_allclose(found[0, 0], expected, atol=16 / 255 + 1e-6 if pixels.ndim == 3 else 1e-5)


def test_pictures_for_a_colour_net(tmp_path):
    Image.fromarray(COLOUR).save(tmp_path / "x.png")
    Image.fromarray(COLOUR).save(tmp_path / "x.bmp")
    Image.fromarray(COLOUR).quantize(256).save(tmp_path / "palette.png")
    Image.fromarray(GRAY).save(tmp_path / "gray.PNG")
    for name in ("x.png", "x.bmp", "palette.png"):
        found = read_samples(tmp_path / name, (3, 8, 8), 1.0)
        np.testing.assert_allclose(found[0], COLOUR.transpose(2, 0, 1) / 255, atol=1e-6, err_msg=name)
    found = read_samples(tmp_path / "gray.PNG", (3, 8, 8), 255.0, invert=True)
    np.testing.assert_array_equal(found[0], np.stack([255.0 - GRAY] * 3))


def test_a_picture_gets_the_answer_of_its_numbers(shell, trained):
    Image.fromarray(GRAY).resize((80, 80), Image.Resampling.NEAREST).save("white.png")
    Image.fromarray(255 - GRAY).convert("RGBA").save("black.png")
    for name, flags in (("white.png", []), ("black.png", ["--invert"])):
        assert_predicted(shell("predict", trained, name, "--json", *flags).json, softmax_of(LIT[None], trained))


def npz_called_npy(path):
    np.savez(path.with_suffix(".npz"), a=IMAGES)
    path.with_suffix(".npz").rename(path)


def cut_png(path):
    Image.fromarray(np.kron(GRAY, COLOUR[:, :, 0])).save(path)
    path.write_bytes(path.read_bytes()[:200])


def npy_with_header(text):
    return lambda path: path.write_bytes(b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode())


@pytest.mark.parametrize(
    ("name", "write", "said"),
    [
        ("missing.png", lambda path: None, "there is no file missing.png"),
        ("folder.npy", lambda path: path.mkdir(), "folder.npy is a directory, not a file"),
        ("x.gif", lambda path: path.touch(), "x.gif: expected an image (.png, .jpg, .jpeg, .bmp), .npy or .csv"),
        ("x", lambda path: path.touch(), "x: expected an image"),
        ("empty.png", lambda path: path.touch(), "empty.png: not an image that can be read"),
        ("text.png", lambda path: path.write_text("seven"), "text.png: not an image that can be read"),
        ("cut.png", cut_png, "cut.png: not an image that can be read"),
        ("gif.png", lambda path: Image.fromarray(GRAY).save(path, "GIF"), "gif.png: not an image that can be read"),
        ("empty.npy", lambda path: path.touch(), "empty.npy: not a npy file that can be read"),
        ("text.npy", lambda path: path.write_text("1, 2, 3"), "text.npy: not a npy file that can be read"),
        ("pickle.npy", lambda path: path.write_bytes(pickle.dumps(IMAGES)), "pickle.npy: not a npy file"),
        ("object.npy", lambda path: np.save(path, np.array([{}])), "object.npy: not a npy file"),
        ("several.npy", npz_called_npy, "several.npy: not a npy file that can be read (it holds several arrays)"),
        ("zip.npy", lambda path: zipfile.ZipFile(path, "w").close(), "zip.npy: not a npy file"),
        ("tokens.npy", npy_with_header("{'descr': ((\n"), "tokens.npy: not a npy file"),
        ("words.npy", lambda path: np.save(path, np.array(["a"])), "words.npy: expected numbers, found <U1"),
        ("complex.npy", lambda path: np.save(path, 1j * IMAGES), "complex.npy: expected numbers, found complex64"),
        ("number.npy", lambda path: np.save(path, 3.0), "expected samples of 1x8x8, found an array of scalar"),
        ("none.npy", lambda path: np.save(path, IMAGES[:0]), "expected samples of 1x8x8, found an array of 0x1x8x8"),
        ("wrong.npy", lambda path: np.save(path, IMAGES[:, :, 1:]), "of 1x8x8, found an array of 360x1x7x8"),
        ("order.npy", lambda path: np.save(path, IMAGES.reshape(-1, 4, 16)), "found an array of 360x4x16"),
        ("latin.csv", lambda path: path.write_bytes(b"gr\xfc\xdfe\n1,2\n"), "latin.csv: not a text that can be read"),
        ("zero.csv", lambda path: path.write_bytes(bytes(200)), "zero.csv: "),
        ("empty.csv", lambda path: path.touch(), "empty.csv: there are no numbers"),
        ("header.csv", lambda path: path.write_text("a,b\n"), "header.csv: there are no numbers"),
        ("ragged.csv", lambda path: path.write_text("1,2\n3\n"), "ragged.csv: expected rows with as many numbers each"),
        ("words.csv", lambda path: path.write_text("a,b\n1,x\n"), "words.csv:2: expected numbers between commas"),
        ("short.csv", lambda path: path.write_text("1,2\n"), "short.csv: expected samples of 1x8x8, found"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_sample(name, write, said, shell, trained, tmp_path):
    write(tmp_path / name)
    got = shell("predict", trained, name)
    assert got.code == 2 and said in got.err and not got.out


def test_channels_last_are_not_taken_for_channels_first(tmp_path):
    np.save(tmp_path / "x.npy", COLOUR[None])
    with pytest.raises(cfgnet.CfgnetError, match="expected samples of 3x8x8, found an array of 1x8x8x3"):
        read_samples(tmp_path / "x.npy", (3, 8, 8), 1.0)


def test_a_picture_for_a_net_without_pictures(shell, tmp_path):
    shell("train", "line.yaml", "-q")
    Image.fromarray(GRAY).save("x.png")
    said = shell("predict", "runs/line", "x.png")
    assert said.code == 2 and "the net takes samples of 1, and an image is 1 or 3 x height x width" in said.err


def test_a_net_with_other_inputs_says_what_it_cannot_do(shell, tmp_path):
    np.savez("points.npz", points=np.eye(4, dtype=np.float32), label=np.arange(4))
    (tmp_path / "other.yaml").write_text(
        "name: other\n"
        "data: {train: {source: npz, path: points.npz, batch_size: 2}}\n"
        "layers:\n"
        "  - {type: InnerProduct, name: score, num_output: 4, inputs: points}\n"
        "  - {type: SoftmaxWithLoss, inputs: [score, label]}\n"
        "train: {max_iter: 1}\n",
        encoding="utf-8",
    )
    assert shell("train", "other.yaml", "-q").code == 0
    np.save("x.npy", np.eye(4))
    said = shell("predict", "runs/other", "x.npy")
    assert said.code == 2 and "its data has: points, label" in said.err


def test_a_run_can_be_moved_and_copied(shell, trained, tmp_path):
    shutil.copytree(trained, tmp_path / "elsewhere" / "mine")
    assert shell("test", "elsewhere/mine", "--json").json == shell("test", trained, "--json").json
