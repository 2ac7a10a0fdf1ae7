"""The house stands as CONTRIBUTING.md draws it: a module imports only what lies on lower floors."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "cfgnet"


def floors():
    """The floor of each module of the table in CONTRIBUTING.md."""
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.MULTILINE)
    return {name: int(floor) for floor, names in rows for name in re.findall(r"`(\w+)`", names)}


def imports(file):
    """The top-level modules of cfgnet that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("cfgnet."))
        elif isinstance(node, ast.ImportFrom) and node.module == "cfgnet":
            yield from (alias.name for alias in node.names if is_module(alias.name))
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cfgnet."):
            yield node.module.split(".")[1]


def is_module(name):
    return (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()


def home(file):
    """The name by which the table knows a file: that of its module, or of the package it is in."""
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_module_has_a_floor_and_every_floor_a_module():
    there = {home(file) for file in PACKAGE.rglob("*.py")}
    assert floors().keys() == there


def test_a_module_imports_only_lower_floors_and_its_own_package():
    floor = floors()
    wrong = [
        f"{file.relative_to(ROOT)} imports {name}"
        for file in PACKAGE.rglob("*.py")
        for name in imports(file)
        if name != home(file) and floor[name] >= floor[home(file)]
    ]
    assert wrong == []


def test_modules_stay_readable():
    long = {str(f.relative_to(ROOT)): n for f in PACKAGE.rglob("*.py") if (n := len(f.read_text().splitlines())) > 420}
    assert long == {}
