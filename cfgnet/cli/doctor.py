"""cfgnet doctor: what is installed, what computes, and what is missing for more."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

import click

from cfgnet.cli.common import common_options, human, json_option, print_json


class Package(NamedTuple):
    """A package as `pyproject.toml` asks for it."""

    name: str
    least: str
    extra: str

    @property
    def module(self) -> str:
        """The name under which it is imported."""
        return {"pyyaml": "yaml"}.get(self.name, self.name.replace("-", "_"))


def wanted() -> list[Package]:
    """What cfgnet needs, and what its extras add, but for those that only developers want."""
    from importlib import metadata

    found = []
    for text in metadata.requires("cfgnet") or []:
        requirement, _, condition = text.partition(";")
        extra = re.search(r"extra\s*==\s*['\"](\w+)", condition)
        named = re.match(r"([\w.-]+)\s*>=\s*([\d.]+)", requirement)
        if named and not (extra and extra[1] in ("dev", "bench")):
            found.append(Package(named[1].lower(), named[2], extra[1] if extra else ""))
    return found


@click.command("doctor")
@json_option
@common_options
def command(as_json: bool) -> None:
    """Say what is installed, what computes, and how to install what is missing.

    The exit code is 1 if something that every training needs is missing or broken.

    \b
    Example:
      cfgnet doctor
    """
    packages = [_package(package) for package in wanted()]
    broken = [found for found in packages if not found["extra"] and found["problem"]]
    report = {
        "machine": _machine(),
        "packages": packages,
        "numpy": {} if any(found["name"] == "numpy" for found in broken) else _numpy(),
        "backends": {} if broken else _backends(),
        "broken": [found["name"] for found in broken],
    }
    if as_json:
        print_json(report)
    else:
        click.echo(_page(report))
    if broken:
        raise SystemExit(1)


def _machine() -> dict[str, Any]:
    import platform
    import shutil

    from cfgnet._version import __version__
    from cfgnet.backend.threads import processors

    return {
        "cfgnet": __version__,
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "platform": platform.platform(),
        "cpu": _info("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": processors(),
        "memory_free": _free_memory(),
        "disk_free": shutil.disk_usage(".").free,
    }


def _info(file: str, key: str) -> str:
    """The value of the first line `key: value` of a file in /proc; empty where there is none."""
    try:
        lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def _free_memory() -> int | None:
    kib = _info("/proc/meminfo", "MemAvailable").split()
    return int(kib[0]) * 1024 if kib else None


def _package(package: Package) -> dict[str, Any]:
    from importlib import import_module, metadata

    version, problem = None, ""
    try:
        version = metadata.version(package.name)
        if not package.extra:
            import_module(package.module)
        if _numbers(version) < _numbers(package.least):
            problem = f"{version} is too old, {package.least} is the least"
    except metadata.PackageNotFoundError:
        problem = "not installed"
    except Exception as error:  # a broken package raises anything when it is imported
        problem = f"{version} is broken: {error}"
    target = f"cfgnet[{package.extra}]" if package.extra else f"{package.name}>={package.least}"
    remedy = f"pip install '{target}'" if problem else ""
    return {"name": package.name, "extra": package.extra, "version": version, "problem": problem, "remedy": remedy}


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)[:3]]


def _numpy() -> dict[str, Any]:
    """The BLAS as it is before a backend is made, which may set its threads."""
    from cfgnet.backend.blas import threads
    from cfgnet.backend.numpy import blas

    return {"blas": blas(), "threads": threads()}


def _backends() -> dict[str, Any]:
    from cfgnet.backend import NAMES, get_backend, why_not

    reasons = {name: why_not(name) for name in NAMES if name != "auto"}
    devices = {name: "" if reason else get_backend(name).device for name, reason in reasons.items()}
    usable = {
        name: {"usable": not reason, "why_not": reason, "device": devices[name]} for name, reason in reasons.items()
    }
    return {**usable, "auto": get_backend("auto").name}


def _page(report: dict[str, Any]) -> str:
    machine, numpy, backends = report["machine"], report["numpy"], report["backends"]
    memory = human(machine["memory_free"], "B") if machine["memory_free"] is not None else "unknown"
    rows = [
        ("cfgnet", machine["cfgnet"]),
        ("Python", machine["python"]),
        ("platform", machine["platform"]),
        ("CPU", f"{machine['cpu']}, {_count(machine['cores'], 'core')}"),
        ("free", f"{memory} of memory, {human(machine['disk_free'], 'B')} of disk here"),
    ]
    if numpy:
        own = f"{_count(numpy['threads'], 'thread')} of its own" if numpy["threads"] else "threads unknown"
        rows.append(("BLAS", f"{numpy['blas']}, {own}"))
    packages = report["packages"]
    sections = {"": rows, "needed": [_line(found) for found in packages if not found["extra"]]}
    sections["optional"] = [_line(found) for found in packages if found["extra"] and not _spare(found, packages)]
    if backends:
        names = [name for name in backends if name != "auto"]
        sections["backends"] = [(name, backends[name]["why_not"] or backends[name]["device"]) for name in names]
        sections["backends"].append(("auto", f"takes {backends['auto']}"))
    broken = report["broken"]
    verdict = f"broken: {', '.join(broken)}" if broken else "everything that is needed is there"
    width = max(len(name) for rows in sections.values() for name, _ in rows)
    blocks = [
        "\n".join(([title] if title else []) + [f"  {name.ljust(width)}  {text}" for name, text in rows])
        for title, rows in sections.items()
    ]
    return "\n\n".join([*blocks, verdict])


def _spare(found: dict[str, Any], packages: list[dict[str, Any]]) -> bool:
    """Whether the package is one of CuPy's that is missing, but another is there: one for each version of CUDA."""
    others = [p for p in packages if p["name"].startswith("cupy-") and p["version"]]
    return found["name"].startswith("cupy-") and found["version"] is None and bool(others)


def _line(found: dict[str, Any]) -> tuple[str, str]:
    return found["name"], f"{found['problem']}: {found['remedy']}" if found["problem"] else found["version"]


def _count(number: int, what: str) -> str:
    return f"{number} {what}" + ("" if number == 1 else "s")
