"""Messages as the reference peer put them on the wire, and a checker for ours.

test/data/messages/<kind>.json describes a kind of message: exchange, routing key, every property, every header with its
AMQP type letter.  "<name>" stands for a value that differs from message to message; a "?" after a key marks what may be
absent.  The samples in each file are recordings of the reference peer with ids and times made equal.
"""

import json
import os
import re

from .wire import Field

FOLDER = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "data")
_HOLE = re.compile(r"<([a-z]+)>")
_PEER = r"[0-9A-F]+-[0-9A-F]{4}"
_MESSAGE = _PEER + r"\.\d+@\d+#[1-9]\d*"
_SHAPES = {"id": _MESSAGE, "request": _MESSAGE, "peer": _PEER, "target": _PEER + r"\.[1-9]\d*", "remaining": r"\d+",
           "namespace": r"[A-Za-z0-9_.:-]+", "failure": r"(?s).+", "message": r"(?s).+", "trace": r"(?s).+"}
_CLOCK_SLACK = 2000
_MISSING = object()


def load(name):
    with open(os.path.join(FOLDER, name + ".json"), encoding="utf-8") as file:
        return json.load(file)


def kinds():
    return sorted(name[:-5] for name in os.listdir(os.path.join(FOLDER, "messages")))


def kind(name):
    return load(os.path.join("messages", name))


class Recorded:
    """A sample in the form that conforms() takes; events of the recording proxy have the same attributes."""

    when = 1500000000.0

    def __init__(self, exchange, sample):
        self.exchange = exchange
        self.routing_key = sample["routing_key"]
        self.properties = dict(sample["properties"])
        self.headers = {name: Field(letter, bytes.fromhex(value) if letter == "x" else value)
                        for name, (letter, value) in sample["headers"].items()}
        self.body = bytes.fromhex(sample["body"])


class _Check:
    def __init__(self, bindings):
        self.bindings = bindings
        self.found = {}
        self.problems = []

    def fail(self, text, *values):
        self.problems.append(text % values)

    def bind(self, where, name, value):
        """A value seen in the place of <name>: as given, as seen before, or at least of the right shape."""
        if name == "deadline" and not isinstance(value, int) or name not in ("deadline", "span", "constraint") and not isinstance(value, str):
            self.fail("%s: %r is no %s", where, value, name)
            return
        if name in ("span", "constraint") and not isinstance(value, bytes):
            self.fail("%s: %r is no byte array", where, value)
            return
        if name in _SHAPES and not re.fullmatch(_SHAPES[name], value):
            self.fail("%s: %r has not the form of a %s", where, value, name)
        for source, known in (("given", self.bindings), ("seen elsewhere", self.found)):
            if name in known and known[name] != value:
                self.fail("%s: %r, but %s %s is %r", where, value, name, source, known[name])
        self.found[name] = value

    def match(self, where, pattern, value):
        holes = _HOLE.findall(pattern) if isinstance(pattern, str) else []
        if not holes:
            if value != pattern or type(value) is not type(pattern):
                self.fail("%s: %r instead of %r", where, value, pattern)
        elif pattern == "<%s>" % holes[0]:
            self.bind(where, holes[0], value)
        else:
            form = re.escape(pattern)
            for hole in holes:
                form = form.replace("<%s>" % hole, "(%s)" % _SHAPES[hole].replace("(?s)", ""))
            found = re.fullmatch(form, value)
            if found is None:
                self.fail("%s: %r does not match %r", where, value, pattern)
            else:
                for hole, part in zip(holes, found.groups()):
                    self.bind(where, hole, part)

    def table(self, what, patterns, values, take):
        values = dict(values)
        for key, pattern in patterns.items():
            optional = key.endswith("?")
            name = key.rstrip("?")
            where = "%s %s" % (what, name)
            hole = self.hole(take(pattern))
            given = self.bindings.get(hole, _MISSING) if hole else _MISSING
            if name not in values:
                if not optional or given is not _MISSING and given is not None:
                    self.fail("%s is missing", where)
                continue
            value = values.pop(name)
            if optional and given is None:
                self.fail("%s is there (%r) and should not be", where, value)
                continue
            yield where, pattern, value
        for name, value in values.items():
            self.fail("%s %s is there (%r) and the kind has none", what, name, value)

    @staticmethod
    def hole(pattern):
        found = _HOLE.findall(pattern) if isinstance(pattern, str) else []
        return found[0] if found else None


def conforms(message, name, /, **bindings):
    """All differences between a message and its kind, as text; an empty list means it conforms.

    A binding fixes the value of a placeholder; None says that the optional property or header must be absent.
    """
    form = kind(name)
    check = _Check(bindings)
    check.match("exchange", form["exchange"], message.exchange)
    check.match("routing key", form["routing_key"], message.routing_key)
    for where, pattern, value in check.table("property", form["properties"], message.properties, lambda pattern: pattern):
        check.match(where, pattern, value)
    for where, (letter, pattern), field in check.table("header", form["headers"], message.headers, lambda pattern: pattern[1]):
        if field.type != letter:
            check.fail("%s has the type %s instead of %s", where, field.type, letter)
        else:
            check.match(where, pattern, field.value)
    found = check.found
    if "trace" in found and not name.startswith("response") and found["trace"] == found.get("id"):
        check.fail("property correlation_id repeats the message id")
    if ("deadline" in found) != ("remaining" in found):
        check.fail("deadline and expiration do not come together")
    elif "deadline" in found and found["remaining"].isdigit():
        expected = message.when * 1000 + int(found["remaining"])
        if abs(found["deadline"] - expected) > _CLOCK_SLACK:
            check.fail("deadline and expiration differ by %d ms", found["deadline"] - expected)
    return check.problems
