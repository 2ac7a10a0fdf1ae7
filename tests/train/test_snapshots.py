"""Snapshots on disk: others can read them, damage is seen, and a failure while writing harms nothing."""

import errno
import json
import os
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save

from cfgnet.cli import main
from cfgnet.errors import CfgnetError, DiskError, RunInUseError, SnapshotError
from cfgnet.rundir import RunDir, newest, read_log
from cfgnet.snapshot import Snapshot, read, write
from cfgnet.trainer import resume

from .rig import RICH, log, run, snapshots

GRID = np.arange(24, dtype=np.float32).reshape(4, 6)


def ended(*words):
    """The exit code of a command, which has to end with one."""
    with pytest.raises(SystemExit) as error:
        main([str(word) for word in words])
    return error.value.code


def test_the_safetensors_library_reads_a_snapshot(tmp_path):
    done = run(tmp_path, text=RICH)
    arrays = load_file(newest(done.path))
    assert {f"params/{key}" for key in done.params} < arrays.keys()
    for key, value in done.params.items():
        np.testing.assert_array_equal(arrays[f"params/{key}"], value)
    assert {"solver/history/conv.weight", "params/norm.mean", "params/norm.factor"} < arrays.keys()
    with safe_open(newest(done.path), "numpy") as file:
        facts = json.loads(file.metadata()["cfgnet"].partition(" ")[2])
    assert facts["state"]["iteration"] == 11 and facts["sha256"].keys() == arrays.keys()


@pytest.mark.parametrize("array", [
    GRID.T, GRID[:, ::2], GRID[::-1, ::-3], np.asfortranarray(GRID), np.broadcast_to(GRID[0], (3, 6)), GRID[:0],
    np.float64(3.5), np.array(2.5, np.float32), GRID.astype(np.int32)[:, 1],
], ids=["T", "step", "back", "fortran", "spread", "empty", "number", "0-d", "int"])  # fmt: skip
def test_an_array_survives_however_it_lies_in_memory(array, tmp_path):
    path = tmp_path / "one.safetensors"
    write(path, Snapshot({"params/a": array}, {"iteration": 3}))
    back = read(path)
    assert back.state == {"iteration": 3} and back.section("params").keys() == {"a"}
    assert back.arrays["params/a"].shape == np.shape(array)
    np.testing.assert_array_equal(back.arrays["params/a"], array)
    np.testing.assert_array_equal(load_file(path)["params/a"], array)


def flipped(data, bit):
    copy = bytearray(data)
    copy[bit // 8] ^= 1 << bit % 8
    return bytes(copy)


def test_every_flipped_bit_and_every_missing_byte_is_seen(tmp_path):
    path = tmp_path / "one.safetensors"
    write(
        path, Snapshot({"params/a": GRID[:2], "params/b": GRID[2:, :3]}, {"iteration": 3, "loss": 1e-9, "best": None})
    )
    data = path.read_bytes()
    for bit in range(8 * len(data)):
        path.write_bytes(flipped(data, bit))
        with pytest.raises(SnapshotError, match=re.escape(f"{path} is damaged")):
            read(path)
    for end in range(len(data)):
        path.write_bytes(data[:end])
        with pytest.raises(SnapshotError, match=re.escape(f"{path} is damaged")):
            read(path)


def without_a_hash(data):
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    del header["__metadata__"]
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda data: b"", "is damaged, or no snapshot of cfgnet"),
        (lambda data: data[: len(data) // 2], "is damaged, or no snapshot of cfgnet"),
        (lambda data: data + b"\0", "is damaged, or no snapshot of cfgnet"),
        (lambda data: flipped(data, 8 * 100), "is damaged"),
        (lambda data: flipped(data, 8 * len(data) - 8), r"is damaged: (params|solver)/\S+ is not what was saved"),
        (lambda data: without_a_hash(data), "is damaged, or no snapshot of cfgnet"),
        (lambda data: save({"params/score.weight": GRID}), "is damaged, or no snapshot of cfgnet"),
        (lambda data: save({"a": GRID}, {"cfgnet": "[]"}), "is damaged, or no snapshot of cfgnet"),
        (lambda data: pickle.dumps({"params": GRID}), "is damaged, or no snapshot of cfgnet"),
        (lambda data: b"iteration: 3\n" * 20, "is damaged, or no snapshot of cfgnet"),
        (None, "cannot read the snapshot"),
    ],
)
def test_a_damaged_snapshot_is_said_so_by_every_command(damage, said, tmp_path, capsys):
    done = run(tmp_path, "train.max_iter=1")
    path = newest(done.path)
    (done.path / "snapshots" / "best.safetensors").unlink()
    if damage:
        path.write_bytes(damage(path.read_bytes()))
    else:
        path.unlink()
        path.mkdir()
    np.save(tmp_path / "x.npy", np.zeros((1, 4)))
    for words in (["resume", done.path, "-q"], ["test", done.path], ["predict", done.path, tmp_path / "x.npy"]):
        assert ended(*words) == 2
        out, err = capsys.readouterr()
        assert re.search(said, err) and str(path) in err and not out and "Traceback" not in err


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda arrays: arrays.pop("params/score.bias"), "score.bias is missing"),
        (lambda arrays: arrays.update({"params/more": GRID}), "more is not in the net"),
        (lambda arrays: arrays.update({"params/score.weight": GRID}), "score.weight is 4x6, the net has 3x4"),
        (lambda arrays: arrays.pop("solver/history/score.bias"), "solver state 'history' of score.bias is missing"),
    ],
)
def test_a_snapshot_of_another_net_is_refused(change, said, tmp_path, capsys):
    done = run(tmp_path, "train.max_iter=1")
    saved = read(newest(done.path))
    arrays = dict(saved.arrays)
    change(arrays)
    write(newest(done.path), Snapshot(arrays, saved.state))
    assert ended("resume", done.path) == 2
    assert said in capsys.readouterr().err


# Writing.


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_failure_while_writing_leaves_the_old_file_whole(function, tmp_path, monkeypatch):
    path = tmp_path / "one.safetensors"
    write(path, Snapshot({"params/a": GRID}, {"iteration": 1}))
    before = path.read_bytes()
    monkeypatch.setattr(os, function, full_disk)
    with pytest.raises(DiskError, match=r"cannot write .*one.safetensors: No space left on device"):
        write(path, Snapshot({"params/a": GRID + 1}, {"iteration": 2}))
    monkeypatch.undo()
    assert path.read_bytes() == before and [*tmp_path.iterdir()] == [path]


def test_what_reads_back_differently_is_not_kept(tmp_path, monkeypatch):
    path = tmp_path / "one.safetensors"
    monkeypatch.setattr(Path, "read_bytes", lambda self: b"")
    with pytest.raises(DiskError, match="what was read back is not what was written"):
        write(path, Snapshot({"params/a": GRID}, {}))
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("function", ["fsync", "replace"])
def test_a_training_on_a_full_disk_ends_with_4_and_can_go_on(function, tmp_path, monkeypatch, capsys):
    whole = run(tmp_path / "whole", "train.snapshot=2", text=RICH)
    real = getattr(os, function)
    saved = 0

    def third_time(*args, **more):
        nonlocal saved
        name = Path(f"/proc/self/fd/{args[0]}").readlink() if function == "fsync" else args[0]
        saved += "iter_" in str(name)
        return full_disk() if saved == 3 else real(*args, **more)

    (tmp_path / "rich.yaml").write_text(RICH, encoding="utf-8")
    monkeypatch.setattr(os, function, third_time)
    words = ["--set", "train.snapshot=2", "--runs", tmp_path / "runs", "-q"]
    assert ended("train", tmp_path / "rich.yaml", *words) == 4
    assert "No space left on device; what was there before is unharmed" in capsys.readouterr().err
    monkeypatch.undo()
    path = tmp_path / "runs" / "rich"
    assert read(newest(path)).state["iteration"] == 4
    assert not [name for name in snapshots(path) if "tmp" in name]
    done = resume(path)
    assert done.metrics == whole.metrics and log(path) == log(whole.path)
    assert snapshots(path)[newest(path).name] == snapshots(whole.path)[newest(path).name]


def test_a_full_disk_under_the_log_is_a_disk_error(tmp_path):
    done = run(tmp_path, "train.max_iter=1")
    (done.path / "log.jsonl").unlink()
    (done.path / "log.jsonl").symlink_to("/dev/full")
    with RunDir.open(done.path) as held, pytest.raises(DiskError, match=r"cannot write .*log.jsonl: No space left"):
        held.log({"iteration": 1})


def test_where_no_run_directory_can_be_made_the_exit_code_is_4(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("", encoding="utf-8")
    (tmp_path / "rich.yaml").write_text(RICH, encoding="utf-8")
    assert ended("train", tmp_path / "rich.yaml", "--runs", tmp_path / "file" / "runs") == 4
    assert "cannot create a run directory in" in capsys.readouterr().err
    done = run(tmp_path, "train.max_iter=1")
    (done.path / "lock").unlink()
    (done.path / "lock").mkdir()
    assert ended("resume", done.path) == 4
    assert f"cannot write to {done.path}: Is a directory" in capsys.readouterr().err


def test_a_run_directory_that_is_in_use_ends_with_5(tmp_path, capsys):
    done = run(tmp_path, "train.max_iter=1")
    before = snapshots(done.path)
    with RunDir.open(done.path):
        assert ended("resume", done.path, "--set", "train.max_iter=2") == 5
        assert f"{done.path} is in use by process {os.getpid()}" in capsys.readouterr().err
        with pytest.raises(RunInUseError):
            RunDir.open(done.path)
        assert ended("test", done.path) == 0  # reading needs no hold
    assert snapshots(done.path) == before
    assert ended("resume", done.path, "--set", "train.max_iter=2", "-q") == 0


@pytest.mark.parametrize("command", [["resume"], ["test"], ["predict", "x.npy"]])
def test_what_is_no_run_directory_is_said_with_those_that_are(command, tmp_path, capsys):
    run(tmp_path, "train.max_iter=1")
    for path in (tmp_path / "smal", tmp_path, tmp_path / "small" / "config.yaml"):
        assert ended(command[0], path, *command[1:]) == 2
        assert f"{path} is no run directory" in capsys.readouterr().err
    ended(command[0], tmp_path / "smal", *command[1:])
    assert f"in {tmp_path} there are: small" in capsys.readouterr().err


def test_a_run_without_snapshots_is_said_to_have_none(tmp_path, capsys):
    done = run(tmp_path, "train.max_iter=1")
    for file in (done.path / "snapshots").iterdir():
        file.unlink()
    for gone in (False, True):
        if gone:
            (done.path / "snapshots").rmdir()
        assert ended("resume", done.path) == 2
        assert f"{done.path} has no snapshot yet" in capsys.readouterr().err


def test_the_newest_snapshot_is_the_one_of_the_latest_iteration(tmp_path):
    done = run(tmp_path, "train.snapshot=2", "train.keep=null")
    for age, file in enumerate(sorted((done.path / "snapshots").iterdir())):
        os.utime(file, (2e9 - age, 2e9 - age))  # a clock that went back
    (done.path / "snapshots" / "iter_9.safetensors.tmp").touch()
    assert newest(done.path).name == "iter_00000006.safetensors"
    assert read_log(tmp_path) == []
    with pytest.raises(CfgnetError):
        newest(tmp_path)
