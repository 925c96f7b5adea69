#!/usr/bin/python3
"""Compare rinq_to_cbor() and rinq_from_cbor() with independent code.

Numbers, documents and damaged inputs are made at random from a fixed seed
and sent through a server; what comes back is compared with the cbor2
library, with a structure reader of our own, and with what RFC 8949 and
docs/cbor.md say.  The connection is psql's (PGHOST, PGPORT, PGDATABASE...);
the database needs the rinq extension, and the role must be
allowed to create databases (see --no-encodings).

The last line is "N passed, N failed"; the exit status tells the same.
"""

import argparse
import base64
import json
import math
import random
import struct
import subprocess
import sys
from decimal import Decimal, getcontext

import cbor2

sys.setrecursionlimit(10000)
if hasattr(sys, "set_int_max_str_digits"):
    sys.set_int_max_str_digits(0)
getcontext().prec = 200000
getcontext().Emax = 999999
getcontext().Emin = -999999

SETUP = r"""
SET client_encoding = 'UTF8';
SET client_min_messages = 'warning';
CREATE FUNCTION pg_temp.try_decode(b bytea) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  j jsonb;
BEGIN
  j := rinq_from_cbor(b);
  IF rinq_from_cbor(rinq_to_cbor(j)) IS DISTINCT FROM j
     OR j::text::jsonb IS DISTINCT FROM j
     OR pg_column_size(rinq_from_cbor(b)) IS DISTINCT FROM pg_column_size(j::text::jsonb) THEN
    RETURN 'unequal';
  END IF;
  RETURN 'ok ' || j::text;
EXCEPTION WHEN OTHERS THEN
  RETURN SQLSTATE;
END $$;
CREATE FUNCTION pg_temp.try_encode(t text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  j jsonb;
  b bytea;
BEGIN
  j := t::jsonb;
  b := rinq_to_cbor(j);
  IF rinq_from_cbor(b) IS DISTINCT FROM j THEN
    RETURN 'unequal';
  END IF;
  RETURN 'ok ' || encode(b, 'hex');
EXCEPTION WHEN OTHERS THEN
  RETURN SQLSTATE;
END $$;
CREATE TEMP TABLE input (id int, bytes bytea);
"""

REFUSALS = {"22P03", "22023", "22003", "22021", "22P05", "22030", "54000"}


class Score:
    def __init__(self):
        self.passed = 0
        self.failed = 0

    def check(self, good, what):
        if good:
            self.passed += 1
            return
        self.failed += 1
        if self.failed <= 20:
            print("FAILED:", what if len(what) < 600 else what[:600] + "...")


def run_psql(inputs, expression, database=None):
    """Evaluate an SQL expression over `bytes` for each input; returns texts."""
    lines = [SETUP, "COPY input FROM STDIN;"]
    lines += ["%d\t\\\\x%s" % (i, data.hex()) for i, data in enumerate(inputs)]
    lines += ["\\.", "COPY (SELECT encode(convert_to(%s, 'UTF8'), 'hex')"
              " FROM input ORDER BY id) TO STDOUT;" % expression]
    done = subprocess.run(
        ["psql", "-XqAt", "-v", "ON_ERROR_STOP=1"] + ([database] if database else []), input="\n".join(lines) + "\n",
        stdout=subprocess.PIPE, text=True, check=False)
    answers = done.stdout.split("\n")[:-1]
    if done.returncode != 0 or len(answers) != len(inputs):
        sys.exit("psql failed with status %d after %d of %d answers"
                 % (done.returncode, len(answers), len(inputs)))
    return [bytes.fromhex(a).decode() for a in answers]


def decode_all(inputs, database=None):
    return run_psql(inputs, "pg_temp.try_decode(bytes)", database)


def encode_all(texts):
    return run_psql([t.encode() for t in texts],
                    "pg_temp.try_encode(convert_from(bytes, 'UTF8'))")


def load_json(text):
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


def sql(command, database="postgres"):
    subprocess.run(["psql", "-Xq", "-v", "ON_ERROR_STOP=1", "-c", "SET client_min_messages = warning",
                    "-c", command, database], check=True)


# -- a reader of CBOR's structure, from RFC 8949 appendix C ------------------

class Malformed(Exception):
    pass


class Item:
    """One data item: major type, argument or content."""

    def __init__(self, major, value):
        self.major = major
        self.value = value


def read_item(data, pos, allow_break=False):
    if pos >= len(data):
        raise Malformed("end")
    major, info = data[pos] >> 5, data[pos] & 31
    pos += 1
    value = info
    indefinite = False
    if 24 <= info <= 27:
        size = 1 << (info - 24)
        if pos + size > len(data):
            raise Malformed("end")
        value = int.from_bytes(data[pos:pos + size], "big")
        pos += size
    elif info == 31:
        if major in (0, 1, 6):
            raise Malformed("info 31")
        indefinite = True
    elif info > 27:
        raise Malformed("reserved")

    if major == 7:
        if indefinite:
            if not allow_break:
                raise Malformed("break")
            return None, pos
        if info == 24 and value < 32:
            raise Malformed("simple")
        return Item(7, (info, value)), pos
    if major in (0, 1):
        return Item(major, value), pos
    if major == 6:
        content, pos = read_item(data, pos)
        return Item(6, (value, content)), pos
    if major in (2, 3):
        if indefinite:
            chunks = b""
            while True:
                chunk, pos = read_item(data, pos, True)
                if chunk is None:
                    return Item(major, chunks), pos
                if chunk.major != major or not isinstance(chunk.value, bytes) \
                        or chunk.indefinite:
                    raise Malformed("chunk")
                chunks += chunk.value
        if pos + value > len(data):
            raise Malformed("end")
        item = Item(major, data[pos:pos + value])
        item.indefinite = False
        return item, pos + value

    items = []
    if indefinite:
        while True:
            item, pos = read_item(data, pos, True)
            if item is None:
                break
            items.append(item)
        if major == 5 and len(items) % 2:
            raise Malformed("odd")
    else:
        count = value * 2 if major == 5 else value
        if count > len(data) - pos:
            raise Malformed("end")
        for _ in range(count):
            item, pos = read_item(data, pos)
            items.append(item)
    return Item(major, items), pos


Item.indefinite = True


def read_document(data):
    item, pos = read_item(data, 0)
    if pos != len(data):
        raise Malformed("trailing")
    return item


# -- numbers -----------------------------------------------------------------

def random_number(rng):
    """A JSON number of one of many kinds, as text."""
    kind = rng.randrange(18)
    sign = rng.choice(["", "-"])
    if kind == 0:
        return sign + str(rng.randrange(1, 10001))
    if kind == 1:
        return sign + str(rng.randrange(10 ** rng.randrange(1, 23)))
    if kind == 2:
        return sign + str(max(0, 2 ** rng.choice([8, 16, 24, 31, 32, 53, 63, 64, 65, 128])
                              + rng.randrange(-3, 4)))
    if kind == 3:
        return sign + "%d.%02d" % (rng.randrange(100000), rng.randrange(100))
    if kind == 4:
        value = struct.unpack(">d", rng.randbytes(8))[0]
        return repr(value) if value == value and abs(value) != float("inf") else "0.0"
    if kind == 5:
        return sign + repr(rng.random() * 10 ** rng.randrange(-8, 9))
    if kind in (6, 7, 8):
        digits = kind + 9
        return sign + "%.*g" % (digits, rng.random() * 10.0 ** rng.randrange(-30, 31))
    if kind == 9:
        mantissa = list(repr(rng.random()))
        mantissa[-1] = str(rng.randrange(10))
        return sign + "".join(mantissa)
    if kind == 10:
        return sign + "%de%d" % (rng.randrange(10 ** rng.randrange(1, 19)),
                                 rng.randrange(-340, 320))
    if kind == 11:
        return sign + str(rng.getrandbits(rng.choice([60, 70, 130, 500, 1100])))
    if kind == 12:
        return sign + "0." + "".join(rng.choice("0123456789")
                                     for _ in range(rng.randrange(1, 60)))
    if kind == 13:
        return sign + "%d.%s" % (rng.getrandbits(rng.choice([10, 64, 90])),
                                 "".join(rng.choice("0123456789")
                                         for _ in range(rng.randrange(1, 40))))
    if kind == 14:
        return rng.choice(["0", "-0", "0.000", "1.0", "1e3", "1.10", "5e-324", "2e-323",
                           "1e-400", "1.7976931348623157e308", "1e308", "1e309", "1e400",
                           "-18446744073709551616", "18446744073709551615",
                           "18446744073709551616", "-18446744073709551617",
                           "1e-16383", "1e23", "1e1000", "1e1001", "9e15", "9007199254740993"])
    if kind == 15:
        return sign + str(rng.randrange(1, 10000) * 10000 ** rng.randrange(0, 8))
    if kind == 16:
        return sign + repr(2.0 ** rng.randrange(-1074, 1024))
    return sign + "%de%d" % (rng.getrandbits(rng.choice([20, 56, 64, 90])),
                             rng.choice([-100, -40, -25, 18, 30, 300]))


def is_half(double):
    """Is Python's shortest decimal of it halfway to the next double?

    Python takes such a decimal if it reads back as the double; PostgreSQL
    does not, and writes more digits.
    """
    distance = abs(Decimal(repr(double)) - Decimal(double)) / Decimal(math.ulp(double))
    step_down = Decimal("0.25") if abs(math.frexp(double)[0]) == 0.5 else Decimal("0.5")
    return distance in (Decimal("0.5"), step_down)


def digits(text):
    return len(Decimal(text).normalize().as_tuple().digits)


def expected_form(value):
    """int, float or other, by the rule of docs/cbor.md."""
    integral = value == value.to_integral_value()
    if integral and -2 ** 64 <= value < 2 ** 64:
        return "int"
    if abs(value) < Decimal("1.8e308"):
        double = float(value)
        if Decimal(repr(double)) == value and double != 0:
            return "bignum" if is_half(double) else "float"
    if not integral:
        return "tag 4"
    zeros = len(str(int(value))) - len(str(int(value)).rstrip("0"))
    return "tag 4" if zeros > 1004 else "bignum" if zeros < 1000 else None


def actual_form(item):
    if item.major in (0, 1):
        return "int"
    if item.major == 7 and item.value[0] == 27:
        return "float"
    if item.major == 6:
        return "bignum" if item.value[0] in (2, 3) else "tag %d" % item.value[0]
    return "?"


def as_decimal(value):
    return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)


def test_numbers_out(rng, score, count):
    """jsonb to CBOR: the form, the value by cbor2, and the way back."""
    arrays = [[random_number(rng) for _ in range(100)] for _ in range(count)]
    answers = encode_all(["[" + ",".join(a) + "]" for a in arrays])
    for texts, answer in zip(arrays, answers):
        score.check(answer.startswith("ok "), "array of numbers: %s: %s" % (answer[:20], texts))
        if not answer.startswith("ok "):
            continue
        data = bytes.fromhex(answer[3:])
        items = read_document(data).value
        values = cbor2.loads(data)
        for text, item, value in zip(texts, items, values):
            number = Decimal(text)
            form = expected_form(number)
            good = as_decimal(value) == number and form in (None, actual_form(item))
            score.check(good, "%s became %r as %s, expected %s"
                        % (text, value, actual_form(item), form))


def test_numbers_in(rng, score, count):
    """CBOR to jsonb: integers, floats of three widths, bignums, fractions."""
    inputs, expected = [], []
    for _ in range(count * 20):
        kind = rng.randrange(7)
        if kind < 2:
            number = Decimal(random_number(rng))
            if number == number.to_integral_value() and abs(number) < 10 ** 400:
                inputs.append(cbor2.dumps(int(number)))
            else:
                inputs.append(cbor2.dumps(number))
        elif kind == 2:
            value = struct.unpack(">d", rng.randbytes(8))[0]
            inputs.append(b"\xfb" + struct.pack(">d", value))
            number = value
        elif kind == 3:
            raw = rng.randbytes(4)
            number = struct.unpack(">f", raw)[0]
            inputs.append(b"\xfa" + raw)
        elif kind == 4:
            raw = rng.randbytes(2)
            number = struct.unpack(">e", raw)[0]
            inputs.append(b"\xf9" + raw)
        elif kind == 5:
            raw = rng.choice([rng.randbytes(rng.randrange(0, 40)),
                              b"\0" * rng.randrange(4) + b"\xff" * rng.randrange(20)])
            tag = rng.choice([2, 3])
            number = int.from_bytes(raw, "big")
            number = Decimal(number if tag == 2 else -1 - number)
            inputs.append(bytes([0xC0 + tag]) + cbor2.dumps(raw))
        else:
            exponent = rng.randrange(-1100, 1101)
            mantissa = rng.getrandbits(rng.choice([1, 20, 64, 200])) * rng.choice([1, -1])
            number = Decimal(mantissa) * Decimal(2) ** exponent if exponent >= 0 else \
                Decimal(mantissa) / Decimal(2) ** -exponent
            inputs.append(b"\xc5\x82" + cbor2.dumps(exponent) + cbor2.dumps(mantissa))
        expected.append(number)

    for data, number, answer in zip(inputs, expected, decode_all(inputs)):
        if isinstance(number, float):
            if number != number or abs(number) == float("inf"):
                good = answer == "22023"
            else:
                good = answer.startswith("ok ") and float(answer[3:]) == number and \
                    (is_half(number) or digits(answer[3:]) == digits(repr(number)))
        else:
            good = answer.startswith("ok ") and Decimal(answer[3:]) == number
        score.check(good, "%s (%s) became %s" % (data.hex(), number, answer))


# -- documents ---------------------------------------------------------------

def random_text(rng):
    alphabet = rng.choice(["abcxyz_ \"\\/", "äöüßéñ", "日本語テキスト", "😀🎉𝄞", "a\u0001\u001f~\u007f\u0080"])
    return "".join(rng.choice(alphabet) for _ in range(rng.choice([0, 1, 2, 5, 9, 30])))


def random_json(rng, depth=0):
    kind = rng.randrange(8 if depth < 4 else 5)
    if kind == 0:
        return rng.choice([None, True, False])
    if kind in (1, 2):
        return random_text(rng)
    if kind in (3, 4):
        return Decimal(random_number(rng)) if rng.random() < 0.2 else rng.randrange(-1000, 1000)
    size = rng.choice([0, 1, 2, 3, 5, 40]) if depth < 2 else rng.randrange(4)
    if kind in (5, 6):
        return {random_text(rng) + str(i): random_json(rng, depth + 1) for i in range(size)}
    return [random_json(rng, depth + 1) for _ in range(size)]


def to_text(value):
    if isinstance(value, dict):
        return "{" + ",".join(json.dumps(k) + ":" + to_text(v) for k, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(to_text(v) for v in value) + "]"
    if isinstance(value, Decimal):
        return format(value, "f")
    return json.dumps(value)


def same(a, b):
    if isinstance(a, bool) or isinstance(b, bool) or a is None or b is None:
        return a is b
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return isinstance(b, (list, tuple)) and len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, str) or isinstance(b, str):
        return a == b
    return as_decimal(a) == as_decimal(b)


def head(rng, major, value):
    """A head of any width that can hold the value."""
    widths = [w for w, top in ((0, 24), (1, 1 << 8), (2, 1 << 16), (4, 1 << 32), (8, 1 << 64))
              if value < top]
    width = widths[0] if rng.random() < 0.8 else rng.choice(widths)
    if width == 0:
        return bytes([major << 5 | value])
    return bytes([major << 5 | {1: 24, 2: 25, 4: 26, 8: 27}[width]]) + value.to_bytes(width, "big")


def emit_string(rng, major, raw, pieces):
    if rng.random() < 0.8:
        return head(rng, major, len(raw)) + raw
    out = bytes([major << 5 | 31])
    for piece in pieces:
        out += head(rng, major, len(piece)) + piece
    return out + b"\xff"


def emit(rng, depth=0):
    """Random CBOR and the JSON value it must become."""
    if rng.random() < 0.15:
        tag = rng.choice([0, 1, 6, 11, 20, 24, 32, 55799, 2 ** 32, 2 ** 64 - 1])
        data, value = emit(rng, depth)
        return head(rng, 6, tag) + data, value

    kind = rng.randrange(9 if depth < 4 else 6)
    if kind == 0:
        return rng.choice([(b"\xf6", None), (b"\xf7", None), (b"\xf5", True), (b"\xf4", False)])
    if kind == 1:
        text = random_text(rng)
        return emit_string(rng, 3, text.encode(), [c.encode() for c in text]), text
    if kind == 2:
        raw = rng.randbytes(rng.randrange(12))
        tag = rng.choice([None, 21, 22, 23])
        data = emit_string(rng, 2, raw, [raw[:3], b"", raw[3:]])
        if tag == 22:
            return b"\xd6" + data, base64.b64encode(raw).decode()
        if tag == 23:
            return b"\xd7" + data, base64.b16encode(raw).decode()
        text = base64.urlsafe_b64encode(raw).decode().rstrip("=")
        return (b"\xd5" if tag else b"") + data, text
    if kind in (3, 4):
        value = rng.getrandbits(rng.choice([4, 8, 16, 32, 64]))
        if rng.random() < 0.5:
            return head(rng, 0, value), value
        return head(rng, 1, value), -1 - value
    if kind == 5:
        value = rng.choice([0.5, -2.0, 1e300, 3.14, rng.random()])
        return b"\xfb" + struct.pack(">d", value), value

    size = rng.choice([0, 1, 2, 5, 33]) if depth < 2 else rng.randrange(3)
    indefinite = rng.random() < 0.3
    if kind == 6:
        parts = [emit(rng, depth + 1) for _ in range(size)]
        body = b"".join(p[0] for p in parts)
        value = [p[1] for p in parts]
    else:
        body, value = b"", {}
        for i in range(size):
            key = rng.choice([i, -1 - i, "k%d" % i, random_text(rng) + "#%d" % i])
            data, content = emit(rng, depth + 1)
            if isinstance(key, int):
                body += head(rng, 0, key) if key >= 0 else head(rng, 1, -1 - key)
            else:
                body += emit_string(rng, 3, key.encode(), [key.encode()])
            body += data
            value[str(key)] = content
    major = 4 if kind == 6 else 5
    if indefinite:
        return bytes([major << 5 | 31]) + body + b"\xff", value
    return head(rng, major, size) + body, value


def test_documents(rng, score, count):
    documents = [random_json(rng) for _ in range(count * 5)]
    texts = [to_text(d) for d in documents]
    for text, document, answer in zip(texts, documents, encode_all(texts)):
        good = answer.startswith("ok ") and same(document, cbor2.loads(bytes.fromhex(answer[3:])))
        score.check(good, "%s became %s" % (text, answer))

    made = [emit(rng) for _ in range(count * 10)]
    for (data, value), answer in zip(made, decode_all([m[0] for m in made])):
        good = answer.startswith("ok ") and same(value, load_json(answer[3:]))
        score.check(good, "%s became %s, expected %s" % (data.hex(), answer, value))


# -- damaged inputs ----------------------------------------------------------

def mutate(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        kind = rng.randrange(5)
        pos = rng.randrange(len(data) + 1)
        if kind == 0 and pos < len(data):
            data[pos] = rng.randrange(256)
        elif kind == 1 and pos < len(data):
            data[pos] ^= 1 << rng.randrange(8)
        elif kind == 2:
            data[pos:pos] = bytes([rng.choice([0xFF, 0x9F, 0xBF, 0x5F, 0x7F, 0xC2, 0xC4, 0xF9,
                                               0xBB, 0x9B, 0x7B, 0xE0, 0xF8, 0xA1, 0])])
        elif kind == 3:
            del data[pos:pos + rng.randrange(1, 4)]
        else:
            other = rng.randrange(len(data) + 1)
            data[pos:pos] = data[other:other + rng.randrange(8)]
    return bytes(data)


def test_mutations(rng, score, count):
    inputs = [mutate(rng, emit(rng)[0]) for _ in range(count * 30)]
    inputs += [rng.randbytes(rng.randrange(30)) for _ in range(count * 5)]
    for data, answer in zip(inputs, decode_all(inputs)):
        try:
            read_document(data)
            well_formed = True
        except Malformed:
            well_formed = False
        good = answer in REFUSALS or (well_formed and answer.startswith("ok "))
        score.check(good, "%s (%s) became %s"
                    % (data.hex(), "well-formed" if well_formed else "malformed", answer))


def test_truncation(rng, score, count):
    documents = [emit(rng)[0] for _ in range(count // 4)]
    documents.append(bytes.fromhex(
        "b1" "6161" "01" "6162" "1818" "6163" "190100" "6164" "1a00010000" "6165" "1b0000000100000000"
        "6166" "3863" "6167" "f93c00" "6168" "fa3fc00000" "6169" "fb3ff8000000000000"
        "616a" "c249010000000000000000" "616b" "c4822118ff" "616c" "9f0102ff"
        "616d" "bf616101ff" "616e" "7f61616162ff" "616f" "5f41014102ff" "6170" "d9d9f700"
        "6171" "78186162636465666768696a6b6c6d6e6f707172737475767778"))
    answers = decode_all(documents)
    for data, answer in zip(documents, answers):
        score.check(answer.startswith("ok "), "%s became %s" % (data.hex(), answer))
    prefixes = [d[:n] for d in documents for n in range(min(len(d), 400))]
    extended = [d + b"\xf6" for d in documents]
    for data, answer in zip(prefixes + extended, decode_all(prefixes + extended)):
        score.check(answer == "22P03", "%s became %s" % (data.hex(), answer))


# -- databases with other encodings ------------------------------------------

def test_encodings(rng, score, count, install):
    """What the server encoding has goes both ways, the rest is refused."""
    letters = {"LATIN1": "äöüßéñ", "EUC_JP": "日本語テキスト", "SQL_ASCII": "äö日本😀"}
    name = "rinq_cbor_encoding_test"
    for encoding, alphabet in letters.items():
        sql("DROP DATABASE IF EXISTS %s" % name)
        sql("CREATE DATABASE %s TEMPLATE template0 ENCODING '%s' LC_COLLATE 'C' LC_CTYPE 'C'"
            % (name, encoding))
        try:
            sql(install, name)

            def text():
                return "".join(rng.choice(alphabet + "abc ") for _ in range(rng.randrange(20)))
            documents = [{text(): text(), text() + "x": [text(), {text() + "y": text()}]}
                         for _ in range(count * 2)]
            # a round trip on the server, so that the way back is tested too
            answers = run_psql(
                [cbor2.dumps(d) for d in documents],
                "encode(rinq_to_cbor(rinq_from_cbor(bytes)), 'hex')", name)
            for document, answer in zip(documents, answers):
                score.check(same(document, cbor2.loads(bytes.fromhex(answer))),
                            "%s: %s became %s" % (encoding, document, answer))

            refused = [(b"\x62\xc3\x28", "22021"), (b"\xa1\x62\xc3\x28\x00", "22021"),
                       (b"\x61\x00", "22P05")]
            if encoding != "SQL_ASCII":
                refused += [(cbor2.dumps(t), "22P05") for t in ("😀", {"a": "x😀"}, {"😀": 1})]
            for (data, state), answer in zip(refused, decode_all([r[0] for r in refused], name)):
                score.check(answer == state, "%s: %s became %s" % (encoding, data.hex(), answer))

            if encoding == "SQL_ASCII":
                expression = ("pg_temp.try_encode(to_jsonb(convert_from(bytes, 'SQL_ASCII'))::text)")
                answer = run_psql([b"a\xff"], expression, name)[0]
                score.check(answer == "22021", "invalid text in SQL_ASCII became " + answer)
        finally:
            sql("DROP DATABASE %s" % name)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=250,
                        help="how much to try; 250 takes about ten seconds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--install", default="CREATE EXTENSION rinq",
                        help="what makes the functions in a new database")
    parser.add_argument("--no-encodings", action="store_true",
                        help="do not create databases with other encodings")
    options = parser.parse_args()

    score = Score()
    for test in (test_numbers_out, test_numbers_in, test_documents, test_mutations,
                 test_truncation):
        before = score.passed
        test(random.Random("%s %d" % (test.__name__, options.seed)), score, options.count)
        print("%-18s %7d passed" % (test.__name__[5:], score.passed - before))
    if not options.no_encodings:
        before = score.passed
        test_encodings(random.Random(options.seed), score, options.count, options.install)
        print("%-18s %7d passed" % ("encodings", score.passed - before))
    print("%d passed, %d failed" % (score.passed, score.failed))
    return 1 if score.failed else 0


if __name__ == "__main__":
    sys.exit(main())
