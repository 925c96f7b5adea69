"""AMQP 0-9-1 on the wire, decoded and encoded with nothing left out.

Client libraries hide what these tests are about: the type letter of each header field, the settlement of each
delivery, the arguments of each declaration.  So this is a small codec of its own, for the methods that a Rinq peer
and its broker exchange.
"""

import struct
from collections import namedtuple

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
FRAME_END = 0xCE

Field = namedtuple("Field", "type value")
Frame = namedtuple("Frame", "kind channel payload")

_NUMBERS = {"b": "b", "B": "B", "s": "h", "u": "H", "I": "i", "i": "I", "l": "q", "L": "q", "f": "f", "d": "d", "T": "Q"}

_METHODS = """
10 10 connection.start version_major:octet version_minor:octet server_properties:table mechanisms:long locales:long
10 11 connection.start-ok client_properties:table mechanism:short response:long locale:short
10 30 connection.tune channel_max:u16 frame_max:u32 heartbeat:u16
10 31 connection.tune-ok channel_max:u16 frame_max:u32 heartbeat:u16
10 40 connection.open vhost:short capabilities:short insist:bit
10 41 connection.open-ok known_hosts:short
10 50 connection.close code:u16 text:short class_id:u16 method_id:u16
10 51 connection.close-ok
10 60 connection.blocked reason:short
10 61 connection.unblocked
20 10 channel.open out_of_band:short
20 11 channel.open-ok channel_id:long
20 20 channel.flow active:bit
20 21 channel.flow-ok active:bit
20 40 channel.close code:u16 text:short class_id:u16 method_id:u16
20 41 channel.close-ok
40 10 exchange.declare ticket:u16 exchange:short type:short passive:bit durable:bit auto_delete:bit internal:bit nowait:bit arguments:table
40 11 exchange.declare-ok
40 20 exchange.delete ticket:u16 exchange:short if_unused:bit nowait:bit
40 21 exchange.delete-ok
50 10 queue.declare ticket:u16 queue:short passive:bit durable:bit exclusive:bit auto_delete:bit nowait:bit arguments:table
50 11 queue.declare-ok queue:short messages:u32 consumers:u32
50 20 queue.bind ticket:u16 queue:short exchange:short routing_key:short nowait:bit arguments:table
50 21 queue.bind-ok
50 30 queue.purge ticket:u16 queue:short nowait:bit
50 31 queue.purge-ok messages:u32
50 40 queue.delete ticket:u16 queue:short if_unused:bit if_empty:bit nowait:bit
50 41 queue.delete-ok messages:u32
50 50 queue.unbind ticket:u16 queue:short exchange:short routing_key:short arguments:table
50 51 queue.unbind-ok
60 10 basic.qos prefetch_size:u32 prefetch_count:u16 global:bit
60 11 basic.qos-ok
60 20 basic.consume ticket:u16 queue:short consumer_tag:short no_local:bit no_ack:bit exclusive:bit nowait:bit arguments:table
60 21 basic.consume-ok consumer_tag:short
60 30 basic.cancel consumer_tag:short nowait:bit
60 31 basic.cancel-ok consumer_tag:short
60 40 basic.publish ticket:u16 exchange:short routing_key:short mandatory:bit immediate:bit
60 50 basic.return code:u16 text:short exchange:short routing_key:short
60 60 basic.deliver consumer_tag:short delivery_tag:u64 redelivered:bit exchange:short routing_key:short
60 70 basic.get ticket:u16 queue:short no_ack:bit
60 71 basic.get-ok delivery_tag:u64 redelivered:bit exchange:short routing_key:short messages:u32
60 72 basic.get-empty cluster_id:short
60 80 basic.ack delivery_tag:u64 multiple:bit
60 90 basic.reject delivery_tag:u64 requeue:bit
60 110 basic.recover requeue:bit
60 111 basic.recover-ok
60 120 basic.nack delivery_tag:u64 multiple:bit requeue:bit
85 10 confirm.select nowait:bit
85 11 confirm.select-ok
"""

METHODS = {}
NUMBERS = {}
for _line in _METHODS.split("\n"):
    if _line:
        _class, _method, _name, *_fields = _line.split()
        METHODS[(int(_class), int(_method))] = (_name, [tuple(field.split(":")) for field in _fields])
        NUMBERS[_name] = (int(_class), int(_method))

WITH_CONTENT = ("basic.publish", "basic.deliver", "basic.return", "basic.get-ok")

# in the order of their flag bits, from bit 15 down
PROPERTIES = (("content_type", "short"), ("content_encoding", "short"), ("headers", "table"), ("delivery_mode", "octet"),
              ("priority", "octet"), ("correlation_id", "short"), ("reply_to", "short"), ("expiration", "short"),
              ("message_id", "short"), ("timestamp", "u64"), ("type", "short"), ("user_id", "short"), ("app_id", "short"),
              ("cluster_id", "short"))

_STRUCTS = {"octet": ">B", "u16": ">H", "u32": ">I", "u64": ">Q"}


def _text(raw):
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return raw


def _raw(text):
    return text if isinstance(text, bytes) else text.encode("utf-8")


class Reader:
    """Reads values off a bytes object, in order."""

    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, count):
        if self.at + count > len(self.data):
            raise ValueError("AMQP value is cut short")
        self.at += count
        return self.data[self.at - count:self.at]

    def number(self, form):
        return struct.unpack(form, self.take(struct.calcsize(form)))[0]

    def short(self):
        return _text(self.take(self.number(">B")))

    def long(self):
        return self.take(self.number(">I"))

    def table(self):
        inner = Reader(self.long())
        found = {}
        while inner.at < len(inner.data):
            name = inner.short()
            if name in found:
                raise ValueError("the same field twice in an AMQP table: %r" % name)
            found[name] = inner.field()
        return found

    def field(self):
        letter = self.take(1).decode("latin-1")
        if letter in _NUMBERS:
            return Field(letter, self.number(">" + _NUMBERS[letter]))
        if letter == "t":
            return Field(letter, bool(self.number(">B")))
        if letter == "S":
            return Field(letter, _text(self.long()))
        if letter == "x":
            return Field(letter, self.long())
        if letter == "D":
            return Field(letter, (self.number(">B"), self.number(">i")))
        if letter == "V":
            return Field(letter, None)
        if letter == "F":
            return Field(letter, self.table())
        if letter == "A":
            inner = Reader(self.long())
            items = []
            while inner.at < len(inner.data):
                items.append(inner.field())
            return Field(letter, items)
        raise ValueError("unknown AMQP field type %r" % letter)

    def value(self, kind):
        if kind == "table":
            return self.table()
        if kind == "short":
            return self.short()
        if kind == "long":
            return self.long()
        return self.number(_STRUCTS[kind])


def field_bytes(field):
    """A Field with its letter; the letter decides, so that wrong ones can be sent on purpose."""
    letter, value = field
    head = letter.encode("latin-1")
    if letter in _NUMBERS:
        return head + struct.pack(">" + _NUMBERS[letter], value)
    if letter == "t":
        return head + struct.pack(">B", int(value))
    if letter in "Sx":
        raw = _raw(value)
        return head + struct.pack(">I", len(raw)) + raw
    if letter == "D":
        return head + struct.pack(">Bi", *value)
    if letter == "V":
        return head
    if letter == "F":
        return head + table_bytes(value)
    if letter == "A":
        inner = b"".join(field_bytes(item) for item in value)
        return head + struct.pack(">I", len(inner)) + inner
    raise ValueError("unknown AMQP field type %r" % letter)


def table_bytes(table):
    inner = b"".join(struct.pack(">B", len(_raw(name))) + _raw(name) + field_bytes(field) for name, field in table.items())
    return struct.pack(">I", len(inner)) + inner


def value_bytes(kind, value):
    if kind == "table":
        return table_bytes(value)
    if kind == "short":
        return struct.pack(">B", len(_raw(value))) + _raw(value)
    if kind == "long":
        return struct.pack(">I", len(_raw(value))) + _raw(value)
    return struct.pack(_STRUCTS[kind], value)


def decode_method(payload):
    """The name and the arguments of a method frame; arguments of methods not listed above stay raw."""
    reader = Reader(payload)
    numbers = (reader.number(">H"), reader.number(">H"))
    if numbers not in METHODS:
        return "method.%d.%d" % numbers, {"raw": payload[4:]}
    name, fields = METHODS[numbers]
    arguments = {}
    bits = 0
    used = 8
    for field, kind in fields:
        if kind == "bit":
            if used == 8:
                bits, used = reader.number(">B"), 0
            arguments[field] = bool(bits >> used & 1)
            used += 1
        else:
            used = 8
            arguments[field] = reader.value(kind)
    return name, arguments


def method_bytes(name, **arguments):
    """The payload of a method frame; what is not given is zero, empty or false."""
    numbers = NUMBERS[name]
    out = [struct.pack(">HH", *numbers)]
    bits = None
    for field, kind in METHODS[numbers][1]:
        if kind == "bit":
            bits = bits or []
            bits.append(bool(arguments.pop(field, False)))
            continue
        if bits:
            out.append(_bit_octet(bits))
            bits = None
        empty = {} if kind == "table" else b"" if kind in ("short", "long") else 0
        out.append(value_bytes(kind, arguments.pop(field, empty)))
    if bits:
        out.append(_bit_octet(bits))
    if arguments:
        raise TypeError("%s has no argument %s" % (name, ", ".join(arguments)))
    return b"".join(out)


def _bit_octet(bits):
    return struct.pack(">B", sum(1 << place for place, bit in enumerate(bits) if bit))


def decode_content_header(payload):
    """The size of the body and the properties, headers apart and typed."""
    reader = Reader(payload)
    reader.number(">H")
    reader.number(">H")
    size = reader.number(">Q")
    flags = reader.number(">H")
    properties = {}
    for place, (name, kind) in enumerate(PROPERTIES):
        if flags >> (15 - place) & 1:
            properties[name] = reader.value(kind)
    return size, properties


def content_header_bytes(size, **properties):
    flags = 0
    out = []
    for place, (name, kind) in enumerate(PROPERTIES):
        if name in properties:
            flags |= 1 << (15 - place)
            out.append(value_bytes(kind, properties[name]))
    return struct.pack(">HHQH", 60, 0, size, flags) + b"".join(out)


def frame_bytes(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + bytes([FRAME_END])


def message_frames(channel, name, arguments, properties, body, frame_max=131072):
    """All frames of a method with content."""
    out = [frame_bytes(METHOD, channel, method_bytes(name, **arguments)),
           frame_bytes(HEADER, channel, content_header_bytes(len(body), **properties))]
    room = frame_max - 8
    for start in range(0, len(body), room):
        out.append(frame_bytes(BODY, channel, body[start:start + room]))
    return b"".join(out)


class FrameReader:
    """Cuts a byte stream into frames; a client's stream begins with the protocol header."""

    def __init__(self, from_client):
        self._buffer = bytearray()
        self._header_due = from_client

    def feed(self, data):
        self._buffer += data
        frames = []
        if self._header_due:
            if len(self._buffer) < 8:
                return frames
            if bytes(self._buffer[:8]) != PROTOCOL_HEADER:
                raise ValueError("not an AMQP client: %r" % bytes(self._buffer[:8]))
            del self._buffer[:8]
            self._header_due = False
        start = 0
        while len(self._buffer) - start >= 8:
            kind, channel, size = struct.unpack_from(">BHI", self._buffer, start)
            if len(self._buffer) - start < size + 8:
                break
            if self._buffer[start + 7 + size] != FRAME_END:
                raise ValueError("AMQP frame without its end octet")
            frames.append(Frame(kind, channel, bytes(self._buffer[start + 7:start + 7 + size])))
            start += size + 8
        del self._buffer[:start]
        return frames


class Event:
    """One method that crossed the wire, with its content if it carries any."""

    def __init__(self, number, sender, connection, channel, name, arguments, when):
        self.number = number
        self.sender = sender
        self.connection = connection
        self.channel = channel
        self.name = name
        self.arguments = arguments
        self.when = when
        self.properties = {}
        self.headers = {}
        self.body = b""
        self.size = 0

    def __getattr__(self, name):
        try:
            return self.__dict__["arguments"][name]
        except KeyError:
            raise AttributeError(name) from None

    def __repr__(self):
        text = "%s %d/%d %s %r" % (self.sender, self.connection, self.channel, self.name, self.arguments)
        if self.name in WITH_CONTENT:
            text += " %r %r %r" % (self.properties, self.headers, self.body[:200])
        return text


class Assembler:
    """Turns frames of one direction of one connection into events."""

    def __init__(self, emit, make_event):
        self._emit = emit
        self._make = make_event
        self._open = {}

    def add(self, frame):
        if frame.kind == METHOD:
            name, arguments = decode_method(frame.payload)
            event = self._make(frame.channel, name, arguments)
            if name in WITH_CONTENT:
                self._open[frame.channel] = (event, [])
            else:
                self._emit(event)
        elif frame.kind == HEADER and frame.channel in self._open:
            event, _ = self._open[frame.channel]
            event.size, properties = decode_content_header(frame.payload)
            event.headers = properties.pop("headers", {})
            event.properties = properties
            self._finish(frame.channel)
        elif frame.kind == BODY and frame.channel in self._open:
            self._open[frame.channel][1].append(frame.payload)
            self._finish(frame.channel)
        elif frame.kind == HEARTBEAT:
            self._emit(self._make(frame.channel, "heartbeat", {}))

    def _finish(self, channel):
        event, parts = self._open[channel]
        if sum(len(part) for part in parts) >= event.size:
            event.body = b"".join(parts)
            del self._open[channel]
            self._emit(event)
