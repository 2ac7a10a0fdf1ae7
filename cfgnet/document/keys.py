"""The words of a configuration file that are no settings: they say how the settings are made, and are gone then."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, WithJsonSchema

from cfgnet.part import Config, Names

LOCAL = r"^[A-Za-z0-9_.-]+(/[A-Za-z0-9_.-]+)*$"
"""A name, or several with / between them."""
WORD = r"^[A-Za-z_][A-Za-z0-9_]*$"
"""A name that `${...}` can use."""
COMMON = ("phase", "include", "exclude", "frozen")
"""The settings of a layer that a group or a block has for all its layers."""

ARGS = {"anyOf": [{"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "object"}]}}, {"type": "object"}]}


class Definition(Config):
    """A block: layers under one name, which is then a `type`, with arguments."""

    args: Annotated[Any, WithJsonSchema(ARGS)] = []
    """Names that `${...}` in the layers may use, and the use of the block gives: [num_output, stride: 1], in which one
    without a value must be given, and one with a value may be."""
    inputs: Names = ("input",)
    """What the layers call the tensors that go in."""
    outputs: Names = ()
    """The tensors that come out; by default what the last layer makes that is neither a loss nor a metric."""
    layers: list[Any] = Field(min_length=1)
    """The layers; their names get the name of the use in front, as in NAME/conv1."""


class Page(Config):
    """What a file says of other files, and the blocks that it defines."""

    extends: str | None = Field(default=None, min_length=1)
    """A file, relative to this one, of which this one is a variation: what is said here is laid over it. Mappings are
    merged, everything else is replaced; `layers` may be a mapping, which changes layers by name."""
    include: Names = ()
    """Files, relative to this one, of which mappings such as blocks and vars come in; what is said here goes before."""
    delete: Names = ()
    """What is taken away from other files before this one is laid over them: [solver.lr_policy, layers.pool]."""
    blocks: dict[str, Definition] = {}
    """Blocks by name, which begins with a small letter; each is then a type of layer."""


class Around(Config):
    """How a layer, a block or a group is put in its place."""

    repeat: NonNegativeInt = 1
    """How many times it is there, one behind the other."""
    index: str = Field(default="index", pattern=WORD)
    """By which name `${...}` knows the number of the repetition, which counts from 0."""
    when: bool = True
    """Whether it is there, as in "${index > 0}"."""
    scope: str | None = Field(default=None, pattern=LOCAL)
    """What the names of its layers, and those that parameters are shared by, get in front: SCOPE/conv1."""
    name_scope: str | None = Field(default=None, pattern=LOCAL)
    """What the names of its layers get in front, but for those that have parameters."""
    reuse: bool = False
    """Whether its layers have the parameters of those that the scope already has, of the same names. They are then
    called SCOPE_1/conv1, as in TensorFlow."""


class Use(Config):
    """What every use of a block may say, beside its arguments."""

    name: str = Field(default="", pattern=r"^[A-Za-z0-9_./-]*$")
    """Name of the use; by default that of the block with a number."""
    inputs: Names | None = None
    """Tensors that go in; by default the last output, and for a further input the tensor that is called so."""
    outputs: Names | None = None
    """Tensors that come out; by default the use's name, or NAME/OUTPUT where there are several."""
    param: dict[str, Any] = {}
    """Settings by inner layer and parameter, such as {conv1.weight: {lr_mult: 2}}."""
    share: str | None = None
    """Another use of the block, all of whose parameters are those of this one, too."""


class Group(Config):
    """Several layers, for what is said of all of them at once."""

    layers: list[Any]
    """The layers."""
