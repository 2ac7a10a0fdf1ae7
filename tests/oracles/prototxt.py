"""Caffe's text format as plain values: a message is a dict of lists, because any field may be repeated."""

import ast
import re

TOKEN = re.compile(
    r"""\s+ | \#[^\n]*
    | (?P<string> "(?:\\.|[^"\\\n])*" | '(?:\\.|[^'\\\n])*')
    | (?P<mark> [{}<>:;,\[\]])
    | (?P<word> [^\s{}<>:;,\[\]"'\#]+)""",
    re.VERBOSE,
)
INTEGER = re.compile(r"[-+]?\d+")
FRACTION = re.compile(r"([-+]?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?)f?", re.IGNORECASE)
CLOSING = {"{": "}", "<": ">", "[": "]"}


def parse(text):
    """The message that `text` holds; ValueError where it is not in the text format."""
    tokens, at = [], 0
    while at < len(text):
        match = TOKEN.match(text, at)
        if not match:
            raise ValueError(f"prototxt: cannot read {text[at : at + 20]!r}")
        if match.lastgroup:
            tokens.append(match.group())
        at = match.end()
    return message(tokens[::-1], None)


def message(tokens, end):
    """Reads fields from the end of `tokens` until the token `end`, which is None for the whole text."""
    fields = {}
    while tokens and tokens[-1] != end:
        name = tokens.pop()
        if name in ",;":
            continue
        token = pop(tokens)
        if token == ":":
            token = pop(tokens)
        fields.setdefault(name, []).extend(values(token, tokens))
    if end and pop(tokens) != end:
        raise AssertionError("unreachable: the loop ends at `end` or without tokens")
    return fields


def values(token, tokens):
    """The value that starts with `token`, or the several of a list."""
    if token == "[":
        found = []
        while (token := pop(tokens)) != "]":
            found += values(token, tokens) if token != "," else []
        return found
    return [message(tokens, CLOSING[token])] if token in CLOSING else [scalar(token)]


def pop(tokens):
    if not tokens:
        raise ValueError("prototxt: the text ends inside a message")
    return tokens.pop()


def scalar(token):
    """A string, number or truth value; every other word is an enum's name and stays text."""
    if token[0] in "\"'":
        return ast.literal_eval(token)
    if INTEGER.fullmatch(token):
        return int(token)
    if number := FRACTION.fullmatch(token):
        return float(number[1])
    return {"true": True, "false": False}.get(token, token)
