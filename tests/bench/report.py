"""What a run of the bench found, as Markdown; the same in full is written as JSON."""


def markdown(report):
    """The report: the machine, a table of times, one of memory and start-up, the comparisons, and the extras."""
    machine, results = report["machine"], [each for each in report["workloads"] if each["workers"]]
    parts = [f"# cfgnet beside PyTorch, {report['date']}", about(report), "\n".join([*machine, *devices(results)])]
    if results:
        parts += ["## A training step", times(results), "## Memory and start-up", memory(results)]
    parts += ["## What was compared first", checks(report["workloads"])]
    for title, rows in report.get("extras", {}).items():
        parts += [f"## {title}", table(list(rows[0]), [list(row.values()) for row in rows]) if rows else "none"]
    return "\n\n".join(parts) + "\n"


def about(report):
    """How it was measured, and how quiet the machine was."""
    options = report["options"]
    turns = [result["turns"] for result in report["workloads"] if result["turns"]]
    every, busy, waited = (sum(each.get(key, 0) for each in turns) for key in ("all", "busy", "waited_s"))
    return (
        f"{options['rounds']} rounds of {options['seconds']:g} s of whole training steps (forward, loss, backward, "
        "momentum SGD) in each of the processes, in random order, while the others wait. Milliseconds: the median of "
        "all steps, with the fastest in brackets. Ratios are PyTorch's time by cfgnet's, of medians (of minima): above "
        "1 cfgnet is faster. PyTorch runs eagerly, with fused SGD, in the faster order of memory, with glibc told to "
        "keep freed memory. Feeding is not counted.\n\n"
        f"{busy} of {every} turns began although somebody else used the machine; {waited:.0f} s were spent waiting."
    )


def devices(results):
    """What each kind of process says that it ran on, a line each."""
    found = {name: figures["device"] for result in results for name, figures in result["workers"].items()}
    return [f"- {name}: {device}" for name, device in found.items() if name.startswith("cfgnet")]


def others(result):
    """The workers of cfgnet, and PyTorch's: (name, figures)."""
    workers = result["workers"].items()
    theirs = next(item for item in workers if item[0].startswith("PyTorch"))
    return [item for item in workers if item is not theirs and not item[0].startswith("PyTorch")], theirs


def ratios(ours, theirs):
    """PyTorch's time by ours, of medians and of minima."""
    return theirs["median_ms"] / ours["median_ms"], theirs["min_ms"] / ours["min_ms"]


def times(results):
    names = list(dict.fromkeys(name for result in results for name, _ in others(result)[0]))
    header = ["workload", "batch", "PyTorch", "its order"]
    header += [text for name in names for text in (name, "ratio")]
    rows = []
    for result in results:
        ours, (torch, theirs) = others(result)
        row = [result["name"], str(result["batch_size"]), spent(theirs), torch.removeprefix("PyTorch").strip() or "-"]
        for name in names:
            found = dict(ours).get(name)
            row += [spent(found), "{:.2f} ({:.2f})".format(*ratios(found, theirs))] if found else ["", ""]
        rows.append(row)
    return table(header, rows)


def spent(figures):
    return f"{figures['median_ms']:.3g} ({figures['min_ms']:.3g})"


def memory(results):
    header = [
        "workload",
        "process",
        "peak MB",
        "PyTorch's by it",
        "planned MB",
        "held for it MB",
        "start to first pass s",
    ]
    rows = []
    for result in results:
        ours, (torch, theirs) = others(result)
        for name, found in [(torch, theirs), *ours]:
            planned = megabytes(found["planned_bytes"]) if found["planned_bytes"] else ""
            held = megabytes(found["peak_bytes"] - found["before_bytes"])
            ratio = "" if found is theirs else f"{theirs['peak_bytes'] / found['peak_bytes']:.1f}"
            rows.append([result["name"], name, megabytes(found["peak_bytes"]), ratio, planned, held,
                         f"{found['start_s']:.2f}"])  # fmt: skip
    return table(header, rows)


def megabytes(count):
    return f"{count / 1e6:.3g}" if count < 1e9 else f"{count / 1e6:.0f}"


def checks(results):
    header = ["workload", "process", "loss", "its error", "worst gradient", "its error", "verdict"]
    rows = []
    for result in results:
        for name, found in result["checks"].items():
            rows.append([result["name"], name, f"{found['loss']:.6g}", f"{found['loss_error']:.0e}", found["worst"],
                         f"{found['gradient_error']:.0e}", verdict(result, found)])  # fmt: skip
    note = (
        "All from the same weights and the same batch, against the last of PyTorch's processes. Errors are relative, "
        "of gradients in L2 norm; allowed are 1e-4 for the loss and 1e-3 for each gradient. In a net of millions of "
        "ReLUs and MAX poolings some choice is a tie but for rounding, and comes out differently, which all gradients "
        "before it show: there up to 0.1 is let pass."
    )
    return f"{table(header, rows)}\n\n{note}"


def verdict(result, found):
    """What a comparison came to, in words."""
    if not found["ok"]:
        return "WRONG, not timed"
    text = "equal" if found["gradient_error"] <= 1e-3 else "equal but for flipped choices"
    return text + (", without dropout" if result["dropout"] else "")


def table(header, rows):
    """A table in Markdown, its columns padded, so that it also reads well as it is."""
    rows = [[str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )
