"""What all commands share: help, messages, exit codes, streams; and what they do without the optional packages."""

import os
import pty
import re
import signal
import subprocess
import sys

import pytest

import cfgnet
from cfgnet.cli import COMMANDS
from cfgnet.progress import Live, Plain, choose

PYTHON = [sys.executable, "-m", "cfgnet"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command, shell):
    for flag in ("--help", "-h"):
        said = shell(command, flag)
        assert said.code == 0 and not said.err
        assert re.search(rf"Examples?:\s+cfgnet {command}\b", said.out)
        assert {"--layers", "--debug"} <= set(re.findall(r"--[a-z-]+", said.out))


def test_the_help_lists_every_command(shell):
    said = shell("--help")
    assert said.code == 0 and all(re.search(rf"\b{command}\b", said.out) for command in COMMANDS)
    assert shell("--version").out == f"cfgnet, version {cfgnet.__version__}\n"


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from cfgnet.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: print(sorted({'numpy', 'pydantic', 'yaml', 'matplotlib', 'cupy'} & set(sys.modules)))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(("call", "settled"), [("main()", True), ("main(['--version'])", False)])
def test_only_a_process_of_its_own_is_settled_for_one_command(call, settled):
    code = (
        "import gc, sys; from cfgnet.cli import main\n"
        "before = gc.get_threshold()\n"
        f"try: {call}\n"
        "except SystemExit: print(gc.get_threshold() != before)"
    )
    said = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True, check=True)
    assert said.stdout.splitlines()[-1] == str(settled)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian", "net.yaml"], "no command 'trian'; did you mean 'train'?"),
        (["xyzzy"], "no command 'xyzzy'; see cfgnet --help"),
        (["--nope"], "No such option '?--nope"),
        (["train", "net.yaml", "--nope"], "No such option '?--nope"),
        (["train"], "Missing argument 'CONFIG'"),
        (["train", "net.yaml", "--backend", "abacus"], "'abacus' is not one of 'auto', 'numpy', 'native', 'cupy'"),
        (["train", "net.yaml", "--runs", "net.yaml"], "is a file"),
        (["predict", "runs/net"], "Missing argument 'INPUTS"),
        (["grad-check", "net.yaml", "--layer", "ReLU"], "give a configuration or --layer, not both"),
        (["train", "nothing.yaml"], "nothing.yaml"),
        (["train", "."], "expected a file, got a folder"),
        (["train", "net.yaml", "--set", "backend=abacus"], "net.yaml|--set"),
        (["check", "net.yaml", "--set", "train.max_itr=3"], "did you mean 'max_iter'"),
    ],
)
def test_a_wrong_command_is_a_message_and_2(words, said, shell):
    got = shell(*words)
    assert got.code == 2 and re.search(said, got.out + got.err)


@pytest.mark.parametrize("command", ["train", "test", "predict"])
def test_cupy_that_is_not_there_is_said_with_how_to_install_it(command, shell, trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    words = {"train": ["net.yaml"], "test": [trained], "predict": [trained, "x.npy"]}[command]
    said = shell(command, *words, "--backend", "cupy")
    assert said.code == 2 and not said.out
    assert "pip install 'cfgnet[gpu12]'" in said.err and "CuPy is not installed" in said.err


def test_auto_falls_back_to_numpy_and_says_how_to_get_faster_kernels(shell, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setitem(sys.modules, "cfgnet.backend.native._native", None)
    for words in ([], ["--backend", "auto"], ["--set", "backend=auto"]):
        said = shell("train", "line.yaml", *words)
        first, second, *_ = said.err.splitlines()
        assert said.code == 0 and first.startswith("backend: numpy (")
        assert second.startswith("slower than it could be: ") and "C compiler" in second
    for words in (["--backend", "numpy"], ["--set", "dtype=float64"]):
        said = shell("train", "line.yaml", *words)
        assert said.code == 0 and said.err.startswith("backend: numpy (") and "slower" not in said.err


def test_debug_shows_the_traceback(tmp_path):
    command = [*PYTHON, "train", "nothing.yaml"]
    for more, seen in (([], False), (["--debug"], True)):
        said = subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert ("Traceback" in said.stderr) is seen and "nothing.yaml" in said.stderr
        assert said.returncode == (1 if seen else 2)


def test_a_reader_that_leaves_early_is_no_error():
    with subprocess.Popen([*PYTHON, "schema"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()  # before anything is written, so that it does not matter how much a pipe holds
        assert process.stderr.read() == ""
    assert process.returncode == 128 + signal.SIGPIPE


def test_a_net_that_needs_too_much_memory_is_a_message(shell, monkeypatch):
    def out_of_memory(*_):
        raise MemoryError

    monkeypatch.setattr("cfgnet.prepare.load", out_of_memory)
    said = shell("train", "net.yaml")
    assert said.code == 2 and "not enough memory" in said.err


# Progress.

LINES = r"""backend: \w+ \(CPU, .*, \d threads?\)
iteration  +2/10  epoch 0\.04    loss [0-9.]+ +lr 0\.1 +[0-9,]+ images/s  \d+s left
(iteration .*\n)*iteration 10/10  epoch 0\.22    loss [0-9.]+ +lr 0\.1 +[0-9,]+ images/s  0s left
test at iteration 10  loss [0-9.]+  accuracy [0-9.]+  \(best\)
"""
SETS = ["--set", "train.max_iter=10", "--set", "train.display=2"]


def test_progress_in_plain_lines(shell):
    said = shell("train", "net.yaml", *SETS)
    assert re.fullmatch(LINES, said.err) and said.err.count("\n") == 7
    assert [word for line in said.out.splitlines() for word in line.split()[:2]] == (
        ["test", "loss", "test", "accuracy", "runs/digits"]
    )


def terminal(command, folder):
    """What a command writes to stdout, and what to a terminal that is its stderr."""
    master, slave = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "140"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=slave
    ) as process:
        os.close(slave)
        seen = b""
        try:
            while part := os.read(master, 65536):
                seen += part
        except OSError:  # how Linux says that the other side is closed
            pass
        os.close(master)
        out = process.stdout.read().decode()
    assert process.returncode == 0
    return out, re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode()).replace("\r", "")


def test_progress_on_a_terminal_is_the_same_lines_above_a_bar(shell, tmp_path):
    out, seen = terminal([*PYTHON, "train", "net.yaml", *SETS], tmp_path)
    lines = re.findall(r"(?:backend:|iteration|test at) .*\n", seen)
    assert re.fullmatch(LINES, "".join(lines)) and len(lines) == 7
    assert "━" in seen and "10/10" in seen
    assert out.splitlines()[-1] == "runs/digits"


def test_quiet_is_quiet_on_a_terminal_too(shell, tmp_path):
    out, seen = terminal([*PYTHON, "train", "line.yaml", "-q"], tmp_path)
    assert seen == "" and out.splitlines()[-1] == "runs/line"


def test_without_rich_the_lines_are_plain(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert isinstance(choose(quiet=False), Live)
    for module in ("rich", "rich.console", "rich.progress"):
        monkeypatch.setitem(sys.modules, module, None)
    assert type(choose(quiet=False)) is Plain


def test_the_command_line_works_without_the_optional_packages(shell, tmp_path):
    code = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['rich', 'rich_click', 'PIL', 'matplotlib', 'cupy']))\n"
        "from cfgnet.cli import main; main()"
    )
    for words, exit_code, seen in (
        (["--help"], 0, "train a net as a configuration says"),
        (["trian"], 2, "did you mean 'train'?"),
        (["train", "line.yaml"], 0, "\nruns/line\n"),
        (["train", "line.yaml", "--plot"], 2, "pip install 'cfgnet[plot]'"),
        (["train", "net.yaml", *SETS], 0, "\nruns/digits\n"),
        (["predict", "runs/digits", "seven.png"], 2, "pip install 'cfgnet[data]'"),
    ):
        (tmp_path / "seven.png").touch()
        command = [sys.executable, "-c", code, *words]
        said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert (said.returncode, "Traceback" in said.stderr) == (exit_code, False), said.stderr
        assert seen in said.stdout + said.stderr


# Train.


def test_train_prints_the_run_directory_last(shell, tmp_path):
    said = shell("train", "line.yaml", "--set", "train.max_iter=3", "--runs", "deep/er")
    assert said.code == 0 and said.out.splitlines()[-1] == "deep/er/line"
    assert cfgnet.load(tmp_path / "deep/er/line/config.yaml").train.max_iter == 3
    again = shell("train", "line.yaml", "-q", "--runs", "deep/er")
    assert again.err == "" and again.out.splitlines()[-1] == "deep/er/line-2"


def test_a_small_net_has_its_parameters_printed(shell):
    out = shell("train", "line.yaml", "-q", "--set", "train.max_iter=400", "--set", "solver.base_lr=0.5").out
    assert re.search(r"^line.weight = (2|2\.0000\d*|1\.9999\d*)$", out, re.MULTILINE)
    assert re.search(r"^loss \S+$", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("config", "pictures"), [("line.yaml", {"curves.png", "fit.png"}), ("net.yaml", {"curves.png"})]
)
def test_plot_writes_pictures(config, pictures, shell, tmp_path):
    from PIL import Image

    said = shell("train", config, "--plot", "-q", "--set", "train.max_iter=4")
    run = tmp_path / said.out.splitlines()[-1]
    named = {tmp_path / line.removeprefix("picture ") for line in said.out.splitlines() if line.startswith("picture")}
    assert named == {run / name for name in pictures} == set(run.glob("*.png"))
    for path in named:
        with Image.open(path) as image:
            assert image.format == "PNG" and min(image.size) > 300
            assert len(image.convert("RGB").getcolors(1 << 24)) > 20  # something is drawn
    again = shell("resume", run, "--plot", "-q", "--set", "train.max_iter=6")
    assert again.code == 0 and again.out.count("picture ") == len(pictures)


def test_a_picture_that_cannot_be_written_is_a_disk_error(shell, tmp_path):
    run = tmp_path / shell("train", "line.yaml", "-q").out.splitlines()[-1]
    (run / "curves.png").mkdir()
    said = shell("resume", run, "--plot", "-q")
    assert said.code == 4 and f"cannot write {run / 'curves.png'}" in said.err


def test_a_training_that_diverges_ends_with_3(shell):
    said = shell("train", "net.yaml", "--set", "solver.base_lr=1e38")
    assert said.code == 3 and "layer 'score' (InnerProduct)" in said.err and "Warning" not in said.err


def test_an_eager_training_prints_every_array(shell):
    said = shell("train", "line.yaml", "--eager")
    assert said.code == 0 and said.out.splitlines()[-1].startswith("runs")
    rows = [line.split()[:3] for line in said.err.splitlines()]
    assert rows.count(["forward", "line", "line"]) == rows.count(["backward", "cost", "d(line)"]) == 4
    said = shell("train", "line.yaml", "--eager", "--quiet")
    assert said.code == 2 and "--eager or --quiet" in said.err
