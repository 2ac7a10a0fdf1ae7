"""From a plan to a description in plain JSON of what PyTorch has to compute, so that no net is written twice.

Three things are said for PyTorch's sake, each of them its fastest form: a BatchNorm and the Scale behind it are one
node; a ReLU may work in place; a tensor is dropped after its last reader, as a local variable would be.
"""

from cfgnet.layer import size

OVERWRITABLE = {"Convolution", "InnerProduct", "BatchNorm", "Scale", "Eltwise", "Pooling"}
"""Layer types whose backward in PyTorch does not need their own output, so that a ReLU may overwrite it."""
SETTINGS = {
    "Convolution": ("group",),
    "Pooling": ("pool", "global_pooling", "round_mode"),
    "InnerProduct": ("axis", "transpose"),
    "ReLU": ("negative_slope",),
    "Dropout": ("dropout_ratio",),
    "BatchNorm": ("eps", "moving_average_fraction"),
    "Scale": ("axis",),
    "LRN": ("local_size", "alpha", "beta", "k"),
    "Eltwise": (),
    "Concat": ("axis",),
    "LSTM": ("num_output",),
    "GRU": ("num_output",),
    "SoftmaxWithLoss": ("axis",),
    "EuclideanLoss": (),
    "Embed": (),
    "PositionalEncoding": (),
    "LayerNorm": ("axis", "eps"),
    "GELU": ("approximate",),
    "MultiHeadAttention": ("num_heads", "causal"),
}
"""The layer types that can be described, with the fields that say what they compute."""
PLAIN = {
    "Pooling": {"round_mode": "CEIL"},
    "InnerProduct": {"transpose": False},
    "ReLU": {"negative_slope": 0.0},
    "BatchNorm": {"use_global_stats": None},
    "Scale": {"num_axes": 1},
    "LRN": {"norm_region": "ACROSS_CHANNELS"},
    "Eltwise": {"operation": "SUM", "coeff": ()},
    "LSTM": {"expose_hidden": False, "reverse": False, "padded": False},
    "GRU": {"expose_hidden": False, "reverse": False, "padded": False, "reset_after": True},
    "SoftmaxWithLoss": {
        "ignore_label": None,
        "normalization": "VALID",
        "class_weights": (),
        "label_smoothing": 0.0,
    },
    "EuclideanLoss": {"normalization": "BATCH_SIZE"},
}
"""Fields that have to be as they are here: the translation knows no other case."""


class UndescribedError(Exception):
    """A layer that the translation to PyTorch does not know."""


def describe(plan, solver):
    """The nodes of a plan in running order, what they read and write, the objective, and the solver."""
    nodes = [node(plan, shaped) for shaped in plan.nodes]
    readers = {name: len(found) for name, found in plan.graph.readers.items()}
    nodes = with_norms_folded(nodes, readers)
    mark_in_place(nodes, readers)
    mark_last_reads(nodes, set(plan.graph.loss_weights))
    return {
        "nodes": nodes,
        "losses": dict(plan.graph.loss_weights),
        "trained": [key for key, slot in plan.slots.items() if slot.trainable],
        "solver": {"lr": solver.base_lr, "momentum": solver.momentum, "weight_decay": solver.weight_decay},
        "choices": sum(map(choices, plan.nodes)),
        "images": any(len(kind.shape) == 4 for kind in plan.graph.inputs.values()),
    }


def choices(shaped):
    """How often a layer takes one of several numbers: in each ReLU its input or 0, in each window of a MAX pooling."""
    layer = shaped.node.layer
    chooses = layer.type_name == "ReLU" or getattr(layer, "pool", "") == "MAX"
    return size(shaped.shapes["y"]) if chooses else 0


def node(plan, shaped):
    """One layer: its type, the fields and the window that matter, its tensors by port, its parameters by name."""
    layer, kind = shaped.node.layer, shaped.node.layer.type_name
    if kind not in SETTINGS:
        raise UndescribedError(
            f"{shaped.name}: PyTorch is not told what a {kind} is; add it to SETTINGS and torch_worker"
        )
    for field, wanted in PLAIN.get(kind, {}).items():
        if getattr(layer, field) != wanted:
            raise UndescribedError(f"{shaped.name}: expected {field} {wanted}, found {getattr(layer, field)}")
    found = {
        "type": kind,
        "name": shaped.name,
        "reads": shaped.node.reads(),
        "outputs": {port: name for port, name in shaped.node.outputs.items() if plan.tensors[name].kind == "float"},
        "params": dict(shaped.params),
        "fields": {field: getattr(layer, field) for field in SETTINGS[kind]},
    }
    if hasattr(layer, "window_over") and not getattr(layer, "global_pooling", False):
        window = layer.window_over(len(plan.tensors[found["reads"][0]].shape) - 2)
        found["window"] = {name: list(getattr(window, name)) for name in ("kernel", "stride", "pad", "dilation")}
    return found


def with_norms_folded(nodes, readers):
    """The nodes, with each BatchNorm that only a Scale behind it reads joined with that Scale."""
    found, after = [], {each["reads"][0]: each for each in nodes if each["type"] == "Scale"}
    folded = set()
    for each in nodes:
        if each["name"] in folded:
            continue
        scale = after.get(each["outputs"].get("y")) if each["type"] == "BatchNorm" else None
        if scale and readers[each["outputs"]["y"]] == 1 and scale["fields"]["axis"] == 1:
            folded.add(scale["name"])
            each = {**each, "outputs": scale["outputs"], "params": {**each["params"], **scale["params"]}}
        found.append(each)
    return found


def mark_in_place(nodes, readers):
    """Says of each ReLU whether it may overwrite its input."""
    producers = {name: each["type"] for each in nodes for name in each["outputs"].values()}
    for each in nodes:
        if each["type"] == "ReLU":
            source = each["reads"][0]
            each["in_place"] = producers.get(source) in OVERWRITABLE and readers[source] == 1


def mark_last_reads(nodes, kept):
    """Says of each node which tensors nobody needs after it; what nobody reads at all is not written."""
    last = {name: each["name"] for each in nodes for name in each["reads"]}
    for each in nodes:
        each["drops"] = [
            name for name in dict.fromkeys(each["reads"]) if last[name] == each["name"] and name not in kept
        ]
        each["outputs"] = {port: name for port, name in each["outputs"].items() if name in last or name in kept}


def has_dropout(description):
    """Whether a net draws random masks, so that two frameworks can agree only without them."""
    return any(each["type"] == "Dropout" for each in description["nodes"])
