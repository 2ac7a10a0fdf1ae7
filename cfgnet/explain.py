"""Turns pydantic's errors into sentences for the person who wrote the configuration, with a suggestion where possible.

Every error that leaves a `Config` has the type "problem" and a context of `message`, `hint` and `on_key`; its `loc` is
the path in the configuration.
"""

from __future__ import annotations

import difflib
import functools
import re
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, InitErrorDetails, PydanticCustomError

from cfgnet.errors import Problem

Loc = tuple[int | str, ...]

LISTED = 50
"""How many names a message lists."""
ENDS = 10
"""How many steps a message keeps of either end of a way that is too long to be shown."""
ADVISED = 100
"""How many mistakes are told with what may have been meant; behind so many nobody reads on."""

_UNION_TAGS = {"str", "int", "float", "bool", "constrained-int", "constrained-str", "constrained-float"}
_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "finite_number": "a finite number",
    "greater_than": "a number > {gt:g}",
    "greater_than_equal": "a number >= {ge:g}",
    "less_than": "a number < {lt:g}",
    "less_than_equal": "a number <= {le:g}",
    "string_pattern_mismatch": "only letters, digits and _ . -",
    "too_short": "a list of at least {min_length}",
}
_BY_ITSELF = {
    "betas": "the first is momentum, the second momentum2",
    "activation": "it is a layer of its own behind this one, such as {type: ReLU}",
    **dict.fromkeys(
        ("infeatures", "inchannels", "inputshape", "inputdim", "numinput", "ninputs"),
        "leave it out: the size of the input follows from the layers before",
    ),
}
"""What to do about keys of other programs that have no counterpart here; without case and separators."""
_PADS = {"same": "with stride 1 and an odd kernel, (kernel_size - 1) / 2 keeps the size", "valid": "write 0"}
_NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")
_ARITHMETIC = re.compile(r"[\d\s.+*/()-]*\d[\d\s.+*/()-]*")
_YES_NO = {
    "yes": "true",
    "on": "true",
    "y": "true",
    "1": "true",
    "no": "false",
    "off": "false",
    "n": "false",
    "0": "false",
}

_ELSEWHERE = {
    # Keys. Left what is meant here, right what others call it, without case, separators and a last 1d, 2d or 3d.
    "num_output": "filters outchannels outfeatures outdim units neurons nout channels hiddenunits",
    "kernel_size": "kernel ksize poolsize filtersize window",
    "pad": "padding",
    "stride": "strides",
    "group": "groups",
    "dilation": "dilationrate",
    "pool": "mode method",
    "operation": "op mode",
    "dropout_ratio": "p rate prob ratio",
    "bias_term": "bias usebias",
    "weight_filler": "kernelinitializer weightinit initializer init",
    "bias_filler": "biasinitializer biasinit",
    "negative_slope": "alpha slope",
    "eps": "epsilon",
    "moving_average_fraction": "momentum decay",
    "shape": "dim dims size targetshape",
    "axis": "dim",
    "inputs": "bottom from input inputfrom",
    "outputs": "top output",
    "phase": "include mode",
    "frozen": "freeze trainable",
    "base_lr": "lr learningrate eta",
    "weight_decay": "decay regularization l2",
    "lr_policy": "scheduler lrscheduler schedule policy",
    "momentum": "beta1 b1 rho",
    "momentum2": "beta2 b2",
    "delta": "eps epsilon",
    "rms_decay": "rho alpha smoothing",
    "clip_gradients": "clip gradclip clipnorm clipgradnorm globalclipnorm maxgradnorm",
    "clip_value": "clipvalue clipgradvalue",
    "iter_size": "accumulation gradientaccumulation accumulategradbatches gradaccumsteps",
    "params": "paramgroups paramwisecfg",
    "average": "ema averagedecay emadecay swa",
    "start": "from initial initialvalue begin",
    "end": "to etamin minlr final endlearningrate",
    "warmup": "warmupiters warmupsteps warmupepochs warmupratio warm",
    "period": "t0 tmax firstdecaysteps restart cyclelength",
    "period_mult": "tmult tmul",
    "pct_start": "percentstart warmupfraction",
    "min_lr": "minlearningrate",
    "metric": "monitor",
    "gamma": "lrdecay decayrate",
    "stepsize": "step",
    "stepvalue": "milestones steps boundaries",
    "std": "stddev sigma",
    "solver": "optimizer optim",
    "train": "training trainer",
    "data": "dataset datasets",
    "layers": "layer net network model modules architecture",
    "vars": "variables constants",
    "seed": "randomseed",
    "backend": "device solvermode",
    "max_iter": "iterations iters maxiters maxsteps steps numsteps",
    "epochs": "epoch numepochs maxepochs nepochs",
    "display": "logevery loginterval printevery",
    "test_interval": "evalinterval evalevery valinterval",
    "snapshot": "checkpoint checkpointinterval saveevery",
    "test": "val valid validation eval",
    "batch_size": "batch bs",
    "transform": "transforms preprocess preprocessing",
    "source": "type dataset",
    "path": "file filename root folder",
    "mean_value": "mean",
    "crop_size": "crop",
    "mirror": "flip horizontalflip",
    # Values.
    "AVE": "mean avg average",
    "SUM": "add plus",
    "PROD": "mul multiply product times",
    "cupy": "gpu cuda",
    "numpy": "cpu",
    "float32": "float16 bfloat16 half single float",
    "float64": "double",
    # Types; what follows the name is said, too.
    "Convolution": "convolve convolutional",
    "InnerProduct": "fc affine gemm fulllayer",
    "Pooling, with pool: MAX": "maxpool maxpooling",
    "Pooling, with pool: AVE": "avgpool averagepool averagepooling avgpooling meanpool",
    "Pooling, with pool: MAX and global_pooling: true": "globalmaxpool globalmaxpooling adaptivemaxpool",
    "Pooling, with pool: AVE and global_pooling: true": "globalaveragepooling globalavgpool adaptiveavgpool gap",
    "BatchNorm, with a Scale layer (bias_term: true) behind it": "batchnorm batchnormalization bn",
    "SoftmaxWithLoss": "crossentropy crossentropyloss categoricalcrossentropy sparsecategoricalcrossentropy nllloss "
    "softmaxloss softmaxcrossentropy",
    "BCEWithLogitsLoss": "bcewithlogits bceloss bce binarycrossentropy",
    "MSELoss": "mse meansquarederror squarederror",
    "L1Loss": "mae meanabsoluteerror absoluteerror",
    "KLDivLoss": "kldiv kldivergence kullbackleibler",
    "CTCLoss": "ctc warpctc",
    "TripletMarginLoss": "triplet tripletloss",
    "Concat": "cat concatenate",
    "Slice": "split chunk",
    "Reshape": "view unflatten",
    "xavier": "xavieruniform",
    "glorot_uniform": "glorot",
    "glorot_normal": "xaviernormal",
    "lecun_normal": "lecun selu",
    "msra": "he henormal kaiming kaimingnormal variancescaling",
    "gaussian": "normal randn",
    "truncated_normal": "truncnormal truncnorm",
    "identity": "dirac eye delta",
    "constant": "zeros ones",
    "step": "steplr",
    "multistep": "multisteplr",
    "exp": "exponential exponentiallr",
    "poly": "polynomial polynomialdecay polynomiallr",
    "linear": "linearlr lineardecay",
    "cosine": "cosineannealing cosineannealinglr cosinedecay cosineannealingwarmrestarts sgdr warmrestarts",
    "one_cycle": "onecyclelr superconvergence 1cycle",
    "reduce_on_plateau": "reducelronplateau",
    "Nesterov": "nag",
    "idx": "mnist fashionmnist",
    "npz": "npy numpy",
}
"""What other programs call our keys and types, where similarity would not find it."""


@functools.cache
def _elsewhere() -> dict[str, list[str]]:
    """`_ELSEWHERE` the other way round: what may be meant by each foreign name."""
    found: dict[str, list[str]] = {}
    for ours, others in _ELSEWHERE.items():
        for other in others.split():
            found.setdefault(other, []).append(ours)
    return found


def _folded(name: str) -> str:
    return re.sub(r"[\W_]|[123]d$", "", name.casefold())


def _meant(name: str, choices: Iterable[str]) -> tuple[str, str] | None:
    """The choice that `name` probably stands for, and what to say besides; None if nothing is close."""
    folded = {_folded(choice): choice for choice in reversed(list(choices))}
    wanted = _folded(name)
    for ours in _elsewhere().get(wanted, ()):
        known, comma, more = ours.partition(",")
        if known in folded.values():
            return known, comma + more
    close = [wanted] if wanted in folded else difflib.get_close_matches(wanted, folded, n=1, cutoff=0.65)
    return (folded[close[0]], "") if close else None


def suggest(name: str, choices: Iterable[str]) -> str | None:
    """The choice that `name` was probably meant to be, or None: by spelling, by what others call it, by similarity."""
    found = _meant(name, choices)
    return found[0] if found else None


def did_you_mean(name: str, choices: Iterable[str], otherwise: str = "") -> str:
    """`did you mean 'X'?`, or `otherwise` where nothing is close."""
    found = _meant(name, choices)
    return f"did you mean {found[0]!r}{found[1]}?" if found else otherwise


def listed(what: str, names: Iterable[str]) -> str:
    """`what: a, b, c`, in lines that fit a terminal, and how many more than fit a screen; `none` if there are none."""
    names = list(names)
    more = [f"and {len(names) - LISTED:,} more"] if len(names) > LISTED else []
    text = ", ".join([*names[:LISTED], *more]) or "none"
    return "\n".join(textwrap.wrap(f"{what}: {text}", 100, subsequent_indent="  "))


def instead(told: Sized, name: str, choices: Callable[[], Iterable[str]], what: str = "there are") -> str:
    """What is probably meant by a name, or all that it could be; nothing where so much is `told` that nobody reads on.

    To compare a name with all choices takes time, which would grow with the mistakes and with the choices.
    """
    if len(told) >= ADVISED:
        return ""
    names = list(choices())
    return did_you_mean(name, names, listed(what, names))


def abridged(steps: Sequence[str]) -> Sequence[str]:
    """The steps of a long way, with how many there are between the first and the last ones, if they fill a screen."""
    if len(steps) <= LISTED:
        return steps
    return [*steps[:ENDS], f"... {len(steps) - 2 * ENDS:,} more ...", *steps[-ENDS:]]


def shown(value: object) -> str:
    """A value as a message shows it: short, and its kind where that could be mistaken."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        plain = 0 < len(value) <= 8 and not any(isinstance(item, dict | list | tuple) for item in value)
        text = f"[{', '.join(map(shown, value))}]" if plain else ""
        return f"the list {text}" if 0 < len(text) <= 60 else f"a list of {len(value)}" if value else "an empty list"
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def problem(message: str, hint: str = "", at: str = "", on_key: bool = False) -> PydanticCustomError:
    """An error to raise in a validator; `at` is a key below the place of the validator."""
    context = {"message": message, "hint": hint, "at": at, "on_key": on_key}
    return PydanticCustomError("problem", "{message}", context)


def explain(error: ValidationError, known: tuple[str, ...]) -> list[InitErrorDetails]:
    """The errors of one model as problems; `known` are the model's own keys.

    A key that is missing because it was misspelt, or stands one level too deep, is not reported a second time.
    """
    items = error.errors(include_url=False)
    excused = {key for item in items if item["type"] == "extra_forbidden" for key in _excused(item, known)}
    details: dict[tuple[Loc, str], InitErrorDetails] = {}
    for item in items:
        if item["type"] == "missing" and item["loc"][-1] in excused:
            continue
        loc, raised = _problem(item, known)
        details.setdefault((loc, str(raised)), InitErrorDetails(type=raised, loc=loc, input=item["input"]))
    return list(details.values())


def _excused(item: ErrorDetails, known: tuple[str, ...]) -> set[str | None]:
    key, value = str(item["loc"][-1]), item["input"]
    inner = {suggest(str(k), known) for k in value} if isinstance(value, Mapping) else set()
    return {suggest(key, known), key.partition(":")[0]} | inner


def _problem(item: ErrorDetails, known: tuple[str, ...]) -> tuple[Loc, PydanticCustomError]:
    loc, kind, value, context = item["loc"], item["type"], item["input"], item.get("ctx", {})
    if kind == "problem":
        at = (context["at"],) if context["at"] else ()
        return (*loc, *at), problem(context["message"], context["hint"], on_key=context["on_key"])
    if kind == "extra_forbidden":
        key = str(loc[-1])
        return loc, problem(f"unknown key {shown(key)}", _about_key(key, value, known), on_key=True)
    if kind == "missing":
        return loc[:-1], problem(f"missing key {str(loc[-1])!r}")
    if kind == "value_error":
        field, colon, rest = str(context["error"]).partition(": ")
        at = (field,) if colon and field in known else ()
        return (*loc, *at), problem(rest if at else str(context["error"]))
    if kind == "literal_error":
        choices = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        message = f"expected {' or '.join(choices)}, got {shown(value)}"
        return loc, problem(message, did_you_mean(value, choices) if isinstance(value, str) else "")
    if len(loc) > 1 and loc[-1] in _UNION_TAGS:
        return loc[:-1], problem(f"{shown(value)} is not a value that this key takes")
    expected = _EXPECTED.get(kind, "another value").format(**context)
    if kind == "string_pattern_mismatch" and "." not in context["pattern"]:
        expected = "a letter, and then only letters, digits and _"
    elif kind == "string_pattern_mismatch" and "/" in context["pattern"]:
        expected += " /"
    return loc, problem(f"expected {expected}, got {shown(value)}", _about_value(kind, value))


def _about_key(key: str, value: Any, known: tuple[str, ...]) -> str:
    """What to do about an unknown key."""
    if key != key.strip():
        return "what looks like a space around it belongs to the key: delete it, or indent with plain spaces"
    first, colon, rest = key.partition(":")
    if colon and (first == "type" or first in known) and value is None:
        return f"a space is missing behind the colon: {first}: {rest}"
    if isinstance(value, Mapping) and key.endswith("_param") and key != "transform_param":
        return f"the keys of {key} stand in the layer itself, without {key}"
    alone = _BY_ITSELF.get(re.sub(r"[\W_]", "", key.casefold()), "")
    return did_you_mean(key, known, alone or listed("known", known))


def _about_value(kind: str, value: Any) -> str:
    """What to do about a value of the wrong type."""
    if kind in ("int_type", "float_type") and isinstance(value, str):
        plain = re.sub(r"(?<=\d)[_,](?=\d{3})", "", value)
        if _NUMBER.fullmatch(value):
            return "remove the quotes to make it a number"
        if _NUMBER.fullmatch(plain):
            return f"write {plain}"
        if kind == "float_type" and _NUMBER.fullmatch(value.replace(",", ".")):
            return f"write {value.replace(',', '.')}"
        if kind == "float_type" and value.endswith("%") and _NUMBER.fullmatch(value[:-1]):
            return f"write {float(value[:-1]) / 100:g}"
        if "#" in value:
            return "a comment needs a space before its #"
        if value.lower() in _PADS:
            return _PADS[value.lower()]
        return f'to compute it, write "${{{value}}}"' if _ARITHMETIC.fullmatch(value) else ""
    if kind in ("int_type", "int_from_float") and isinstance(value, float) and value == value // 1:
        return f"write {int(value)}"
    if kind == "bool_type":
        if isinstance(value, str) and value.lower() in ("true", "false"):
            return "remove the quotes"
        meant = _YES_NO.get(str(value).lower())
        return f"write {meant}" if meant else ""
    if kind == "string_type" and isinstance(value, int | float):
        return f'put it in quotes: "{shown(value)}"'
    return "each item starts with '- '" if kind == "list_type" and isinstance(value, dict) else ""


def problems(error: ValidationError) -> list[Problem]:
    """What is wrong, one by one, without places in a file."""
    return [
        Problem(item["ctx"]["message"], item["ctx"]["hint"], item["loc"], item["ctx"]["on_key"])
        for item in error.errors(include_url=False)
    ]
