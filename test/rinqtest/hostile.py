"""Input that nobody in his right mind sends, made at random from a seed: messages, CBOR, and what a broker says."""

import cbor2

from .wire import METHOD, METHODS, Field, frame_bytes, message_frames, method_bytes

TEXTS = ("", "x", "_sess", "_", "a" * 255, "é☃", "\x00", "5A1C2D3E-00A1.1@0#1", "5A1C2D3E-00A1.1", "0", "-1", "c", "u", "s", "f", "e")
NUMBERS = (0, 1, -1, 2, 127, 255, 65535, 2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 53, 2 ** 62, 2 ** 63 - 1, -2 ** 63)
HEADERS = ("n", "c", "t", "m", "dl", "sc", "traceparent", "tracestate", "x-death", "")
PROPERTIES = ("message_id", "correlation_id", "reply_to", "expiration", "type", "content_type", "app_id", "priority", "delivery_mode", "timestamp")
KEYS = ("s", "r", "ns", "k", "v", "f", "p", "", 0, 1, None)


def damage(rng, data):
    """Change, cut, repeat or insert some bytes."""
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(len(data) + 1)
        kind = rng.randrange(4)
        if kind == 0 and at < len(data):
            data[at] = rng.choice((0, 0xFF, 0x80, rng.randrange(256)))
        elif kind == 1:
            del data[at:at + rng.randrange(1, 9)]
        elif kind == 2:
            data[at:at] = data[max(0, at - 8):at]
        else:
            data[at:at] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
    return bytes(data)


def value(rng, depth=0):
    """Something that CBOR can hold."""
    kind = rng.randrange(9 if depth < 4 else 6)
    if kind == 0:
        return rng.choice(NUMBERS)
    if kind == 1:
        return rng.choice(TEXTS)
    if kind == 2:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(20)))
    if kind in (3, 4):
        return rng.choice((None, True, False, 0.5, float("inf"), float("nan")))
    if kind == 5:
        return cbor2.CBORTag(rng.randrange(300), rng.choice(TEXTS))
    if kind == 6:
        return [value(rng, depth + 1) for _ in range(rng.randrange(5))]
    return {rng.choice(KEYS): value(rng, depth + 1) for _ in range(rng.randrange(5))}


def constraint(rng, depth=0):
    """Nearly a constraint."""
    operator = rng.choice(("=", "!=", "ns", "and", "or", "!", "*", "!*", "x", ""))
    if depth < 6 and rng.random() < 0.5:
        return [operator] + [constraint(rng, depth + 1) for _ in range(rng.randrange(4))]
    return rng.choice(([operator, rng.choice(TEXTS), rng.choice(TEXTS)], [operator, rng.choice(TEXTS)], {rng.choice(TEXTS): rng.choice(TEXTS)}, value(rng)))


def body(rng):
    data = cbor2.dumps(constraint(rng) if rng.random() < 0.3 else value(rng))
    return damage(rng, data) if rng.random() < 0.5 else data


def field(rng, name):
    """A header value: often of the type that the protocol wants, else of any."""
    if rng.random() < 0.6:
        wanted = {"dl": ("l", rng.choice(NUMBERS)), "sc": ("x", bytes(rng.randrange(9))), "traceparent": ("x", b"00-1-2-3")}
        letter, content = wanted.get(name, ("S", rng.choice(TEXTS)))
        if name == "c" and rng.random() < 0.5:
            letter, content = "x", body(rng)
        return Field(letter, content)
    return rng.choice((Field("S", rng.choice(TEXTS)), Field("x", body(rng)), Field("l", rng.choice(NUMBERS)), Field("t", True), Field("V", None),
                       Field("F", {"a": Field("S", "b")}), Field("A", [Field("l", 1), Field("F", {})])))


def message(rng, known):
    """Headers, properties and body of a message; known are texts that mean something to whom it is sent."""
    headers = {name: field(rng, name) for name in HEADERS if rng.random() < 0.5}
    for name in ("n", "c", "t"):
        if rng.random() < 0.6:
            headers[name] = Field("S", rng.choice(known))
    properties = {}
    for name in PROPERTIES:
        if rng.random() < 0.4:
            number = {"priority": 256, "delivery_mode": 3, "timestamp": 1 << 40}.get(name)
            properties[name] = rng.randrange(1, number) if number else rng.choice(TEXTS + tuple(known))
    if rng.random() < 0.7:
        properties["message_id"] = "%X-%04X.%d@%d#%d" % (rng.getrandbits(32), rng.randrange(1, 65536), rng.randrange(5), rng.randrange(3), rng.randrange(1, 99))
    return headers, properties, body(rng)


_ARGUMENTS = {
    "octet": lambda rng: rng.randrange(256),
    "u16": lambda rng: rng.choice((0, 1, 5, 404, 65535)),
    "u32": lambda rng: rng.choice((0, 1, 4096, 2 ** 32 - 1)),
    "u64": lambda rng: rng.choice((0, 1, 2, 2 ** 63, 2 ** 64 - 1)),
    "short": lambda rng: rng.choice(TEXTS)[:120],
    "long": lambda rng: rng.choice(TEXTS),
    "bit": lambda rng: rng.random() < 0.5,
    "table": lambda rng: {name: field(rng, name) for name in HEADERS[:rng.randrange(5)]},
}


def frames(rng):
    """Some bytes that a broker might send: methods of any kind on any channel, messages, and less than that."""
    channel = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 100, 65535))
    kind = rng.randrange(8)
    if kind == 0:
        data = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 60)))
    elif kind == 1:
        headers, properties, content = message(rng, TEXTS)
        properties.pop("content_type", None)
        data = message_frames(channel, "basic.deliver", {"consumer_tag": rng.choice(TEXTS)[:120], "delivery_tag": rng.randrange(9), "exchange": "cmd.bal",
                                                         "routing_key": "x"}, dict(properties, headers=headers), content)
    else:
        name, fields = METHODS[rng.choice(list(METHODS))]
        data = frame_bytes(METHOD, channel, method_bytes(name, **{key: _ARGUMENTS[kind](rng) for key, kind in fields}))
    return damage(rng, data) if rng.random() < 0.3 else data
