"""Whatever arrives from the network: settled once, counted, and nothing else happens."""

import concurrent.futures
import random
import struct

import cbor2

from rinqtest import case
from rinqtest.cluster import call_sql
from rinqtest.fakebroker import FakeBroker
from rinqtest.peer import Raw, RemoteError, now_ms
from rinqtest.waiting import wait_until
from rinqtest.wire import METHOD, Field, frame_bytes, message_frames, method_bytes

GOOD = "5A1C2D3E-00A1.1@0#1"
# body bytes that no reader may trust
BODIES = {
    "reserved byte": b"\xff",
    "cut integer": b"\x1b\x00",
    "cut text": b"\x65ab",
    "cut map": b"\xa2\x61\x61",
    "huge text length": b"\x7b\x7f\xff\xff\xff\xff\xff\xff\xff",
    "huge array length": b"\x9b\xff\xff\xff\xff\xff\xff\xff\xff",
    "huge map length": b"\xbb\x80\x00\x00\x00\x00\x00\x00\x00\x00",
    "million elements announced": b"\x9a\x00\x0f\x42\x40\x00",
    "never-ending array": b"\x9f\x01",
    "wrong chunk": b"\x7f\x41\x00\xff",
    "trailing byte": b"\x01\x02",
    "duplicate keys": b"\xa2\x61\x61\x01\x61\x61\x02",
    "invalid UTF-8": b"\x62\xc3\x28",
    "surrogate": b"\x63\xed\xa0\x80",
    "NUL in text": b"\x61\x00",
    "deep arrays": b"\x81" * 100000 + b"\x00",
    "deep indefinite maps": b"\xbf\x61\x61" * 50000,
    "bad decimal fraction": b"\xc4\x82\x1b\x7f\xff\xff\xff\xff\xff\xff\xff\x01",
    "bad bignum": b"\xc2\x61\x61",
    "reserved simple value": b"\xf8\x10",
    "reserved additional information": b"\x1c",
}


def field(letter, value):
    return Field(letter, value)


class BadInput(case.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.db.handler("bad", "RETURN req.payload;")
        cls.db.listen("bad", "bad")
        cls.remote = cls.world.peer()
        cls.remote.call("bad", "warm", timeout=20)
        cls.own = cls.db.peer()["peer_id"]

    @classmethod
    def tearDownClass(cls):
        cls.remote.close()
        cls.db.drop()

    def setUp(self):
        super().setUp()
        self.before = self.db.peer()
        self.assertEqual(self.before["peer_id"], self.own)

    def tearDown(self):
        # the peer lives, under the same identity, and serves
        self.assertEqual(self.remote.call("bad", "after", [1]), [1])
        self.assertEqual(self.db.peer()["peer_id"], self.own)
        super().tearDown()

    def send(self, exchange, headers, body=b"", **properties):
        """Publish one request and return how it was settled."""
        key = {"cmd.bal": "bad", "cmd.mc": "bad", "cmd.uc": self.own}[exchange]
        mark = self.recording.mark()
        self.remote.publish_raw(exchange, key, body, headers, **properties)
        delivery = self.deliveries(since=mark, exchange=exchange)[0]
        outcome = self.recording.wait_settled(delivery)
        self.assertEqual(len(self.recording.events("basic.deliver", since=mark, exchange=exchange)), 1, "delivered once")
        return outcome

    def assertRejected(self, headers, body=b"", **properties):
        for exchange in ("cmd.bal", "cmd.mc", "cmd.uc"):
            rejected = self.db.peer()["requests_rejected"]
            self.assertEqual(self.send(exchange, headers, body, **properties), "reject", (exchange, headers, properties))
            wait_until(lambda: self.db.peer()["requests_rejected"], lambda count: count == rejected + 1,
                       description="the rejection to be counted")

    def assertServed(self, headers, body=b"", **properties):
        for exchange in ("cmd.bal", "cmd.mc", "cmd.uc"):
            self.assertEqual(self.send(exchange, headers, body, **properties), "ack", (exchange, headers, properties))

    # headers and properties

    def test_message_ids(self):
        good = {"n": "bad", "c": "x"}
        self.assertRejected(good)
        for identity in ("", "x", "5A1C2D3E-00A1", "5A1C2D3E-00A1.1", "5A1C2D3E-00A1.1@0", "5A1C2D3E-00A1.1@0#", "5A1C2D3E-00A1.1@0#0",
                         "5A1C2D3E-00A1.1@#1", "5A1C2D3E-00A1.@0#1", "5A1C2D3E-0000.1@0#1", "0-00A1.1@0#1", "5A1C2D3E.1@0#1",
                         "5A1C2D3E-00A1.1@0#1 ", " 5A1C2D3E-00A1.1@0#1", "5A1C2D3E-00A1.1@0#1#1", "5A1C2D3E-00A1.1@0#-1",
                         "5A1C2D3E-00A1.1@0#+1", "5A1C2D3E-00A1.4294967296@0#1", "5A1C2D3E-00A1.1@4294967296#1",
                         "5A1C2D3E-00A1.1@0#4294967296", "FFFFFFFFFFFFFFFFF-00A1.1@0#1", "5A1C2D3E-100A1.1@0#1", "G-00A1.1@0#1",
                         "5A1C2D3E-00A1.1@0#1\x00", "\u0665-00A1.1@0#1", "1" * 255, b"\xff\xfe"):
            self.assertRejected(good, message_id=identity)

    def test_message_ids_that_are_good(self):
        for identity in ("5a1c2d3e-00a1.1@0#1", "1-0001.0@0#1", "FFFFFFFFFFFFFFFF-FFFF.4294967295@4294967295#4294967295"):
            self.assertServed({"n": "bad", "c": "x"}, message_id=identity, reply_to="c")

    def test_own_session_ids(self):
        with self.db.session() as session:
            session.execute(call_sql("bad", "x"))
            own = self.published("cmd.bal")[0].properties["message_id"].partition("@")[0]
            self.assertServed({"n": "bad", "c": "x"}, message_id=own + "@0#77", reply_to="c")
            self.assertRejected({"n": "bad", "c": "x"}, message_id=own + "@1#1")
            self.assertRejected({"n": "bad", "c": "x"}, message_id=own + "@99#1")
        self.assertServed({"n": "bad", "c": "x"}, message_id=self.own + ".4000000000@0#1", reply_to="c")

    def test_namespace_and_command_headers(self):
        wrong = [field("x", b"bad"), field("l", 1), field("I", 1), field("t", True), field("V", None), field("F", {}), field("A", []),
                 field("d", 1.5), field("T", 1), field("D", (2, 314))]
        self.assertRejected({"c": "x"}, message_id=GOOD)
        self.assertRejected({"n": "bad"}, message_id=GOOD)
        for value in wrong:
            self.assertRejected({"n": value, "c": "x"}, message_id=GOOD)
            self.assertRejected({"n": "bad", "c": value}, message_id=GOOD)

    def test_span_header(self):
        for value in (field("S", "text"), field("l", 1), field("F", {"a": field("S", "b")}), field("V", None)):
            self.assertRejected({"n": "bad", "c": "x", "sc": value}, message_id=GOOD)
        self.assertServed({"n": "bad", "c": "x", "sc": b""}, message_id=GOOD)
        self.assertServed({"n": "bad", "c": "x", "sc": bytes(range(256))}, message_id=GOOD)

    def test_namespaces_nobody_here_listens_to(self):
        for name in ("other", "_sess", "_x", "", "a b", "n" * 1000):
            for exchange in ("cmd.mc", "cmd.uc"):
                outcome = self.send(exchange, {"n": name, "c": "x"}, message_id=GOOD)
                self.assertIn(outcome, ("reject", "ack") if name == "_sess" else ("reject",), name)

    def test_namespace_that_is_not_the_routing_key(self):
        """Given back it would return at once, for ever."""
        for name in ("other", "_sess", "ba", "badd", ""):
            self.assertEqual(self.send("cmd.bal", {"n": name, "c": "x"}, message_id=GOOD), "reject", name)

    def test_deadline_headers(self):
        for value in (field("S", "soon"), field("I", 1), field("d", 1.5), field("x", b"\x00" * 8), field("V", None), field("t", True)):
            self.assertIn(self.send("cmd.bal", {"n": "bad", "c": "x", "dl": value}, message_id=GOOD, reply_to="c"), ("ack", "reject"))
        for number in (0, -1, -2 ** 63, 1):
            self.assertIn(self.send("cmd.bal", {"n": "bad", "c": "x", "dl": field("l", number)}, message_id=GOOD, reply_to="c"),
                          ("ack", "reject"))
        for number in (2 ** 63 - 1, now_ms() + 10 ** 12, 2 ** 53):
            self.assertEqual(self.send("cmd.bal", {"n": "bad", "c": "x", "dl": field("l", number)}, message_id=GOOD, reply_to="c"), "ack")

    def test_reply_to_and_trace(self):
        for properties in ({"reply_to": "x"}, {"reply_to": "cc"}, {"reply_to": "r" * 255}, {"correlation_id": "t" * 255, "reply_to": "c"},
                           {"correlation_id": b"\xff\xfe", "reply_to": "c"}, {"priority": 255, "reply_to": "c"}, {"delivery_mode": 1},
                           {"type": "s"}, {"content_type": "x" * 255, "content_encoding": "gzip", "app_id": "x", "timestamp": 1}):
            self.assertIn(self.send("cmd.bal", {"n": "bad", "c": "x"}, message_id=GOOD, **properties), ("ack", "reject"), properties)

    def test_extra_headers_do_not_matter(self):
        extra = {"x%d" % number: field("S", "y" * 100) for number in range(200)}
        extra.update({"table": field("F", {"deep": field("F", {"er": field("A", [field("A", [field("V", None)])])})}), "dec": field("D", (1, 5)),
                      "time": field("T", 2 ** 63), "float": field("f", 1.0), "short": field("s", -1), "byte": field("b", -1)})
        self.assertServed(dict(extra, n="bad", c="x"), message_id=GOOD, reply_to="c")

    def test_command_text(self):
        for command in ("", "\u0000", "a\u0000b", b"\xff\xfe", "c" * 100000, "'; DROP TABLE rinq_internal.listener; --", "\u202e\x1b[31m"):
            self.assertIn(self.send("cmd.bal", {"n": "bad", "c": field("S", command)}, message_id=GOOD, reply_to="c"), ("ack", "reject"),
                          repr(command[:20]))

    # bodies

    def test_bodies_as_requests(self):
        for about, body in BODIES.items():
            with self.subTest(about):
                with self.assertRaises(RemoteError):
                    self.remote.call("bad", "x", Raw(body), timeout=10)
                self.assertEqual(self.recording.wait_settled(self.deliveries(exchange="cmd.bal")[-1]), "ack")

    def test_deep_tags(self):
        # whether a reader looks through so many tags or refuses them, it survives
        for body in (b"\xc1" * 100000 + b"\x00", b"\xd9\xd9\xf7" * 100000 + b"\x00"):
            try:
                self.assertEqual(self.remote.call("bad", "x", Raw(body), timeout=10), 0)
            except RemoteError:
                pass

    def test_every_truncation_of_a_body(self):
        whole = cbor2.dumps({"list": [1, -1000, 1.5, "text", b"bytes", None, True, {"a": 2 ** 70}], "é": "x" * 30})
        for length in range(1, len(whole)):
            with self.assertRaises(RemoteError):
                self.remote.call("bad", "x", Raw(whole[:length]), timeout=10)

    def test_random_bodies(self):
        generator = random.Random(20240229)
        for _ in range(300):
            body = generator.randbytes(generator.randrange(1, 60))
            try:
                self.remote.call("bad", "x", Raw(body), timeout=10)
            except RemoteError:
                pass

    def test_bodies_as_responses(self):
        for about, body in BODIES.items():
            with self.subTest(about):
                self.remote.serve("garbage", lambda request: Raw(body))
                error = self.db.error(call_sql("garbage", "x", timeout=10))
                self.assertNotIn(error.sqlstate, (None, "XX000", "RQ003"), error.text)

    def test_response_headers(self):
        for headers in ({"t": field("V", None)}, {"t": field("F", {})}, {"t": "x", "m": field("l", 1)}, {"t": "x", "m": b"bytes"},
                        {"t": field("S", b"\xff")}, {"t": "x", "m": field("S", b"\xff\xfe")}, {"t": "a\u0000b"}, {"t": "x", "m": "a\u0000b"}):
            with self.subTest(str(headers)):
                self.remote.serve("garbage", self.failing(headers))
                error = self.db.error(call_sql("garbage", "x", timeout=10))
                self.assertNotIn(error.sqlstate, (None, "XX000", "RQ003"), error.text)

    def failing(self, headers):
        from rinqtest.peer import Answered

        def handler(request):
            self.remote.publish_raw("cmd.rsp", request.id, b"", headers, correlation_id=request.id, type="f")
            raise Answered()
        return handler

    def test_request_over_the_limit(self):
        rejected = self.db.peer()["requests_rejected"]
        identity = self.remote.next_id()
        self.remote.publish_raw("cmd.bal", "bad", b"\x5a\x01\x00\x00\x01" + bytes(16 * 1024 * 1024 + 1), {"n": "bad", "c": "x"},
                                message_id=identity, reply_to="c")
        outcome = self.recording.wait_settled(self.deliveries(where=lambda event: event.properties.get("message_id") == identity,
                                                              timeout=30)[0], 30)
        if outcome == "ack":
            self.assertEqual(self.published("cmd.rsp", where=lambda event: event.routing_key == identity)[0].properties["type"], "e")
        else:
            self.assertEqual((outcome, self.db.peer()["requests_rejected"]), ("reject", rejected + 1))

    # the log

    def test_flood_of_garbage_does_not_flood_the_log(self):
        rejected = self.db.peer()["requests_rejected"]
        for number in range(1000):
            self.remote.publish_raw("cmd.bal", "bad", b"", {"n": "bad"}, message_id=GOOD)
        wait_until(lambda: self.db.peer()["requests_rejected"], lambda count: count == rejected + 1000, 30, "1000 rejections")
        lines = self.server.log_since(self.log_start).splitlines()
        self.assertLess(len(lines), 50)


class BadFrames(case.Case):
    """A broker that breaks the rules of AMQP itself."""

    @classmethod
    def make_world(cls):
        return case.shared_world()

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()

    @classmethod
    def tearDownClass(cls):
        cls.server.configure(**{"rinq__amqp_dsn": cls.world.broker.dsn(cls.world.proxy.port)})
        cls.world.proxy.cut()
        cls.db.wait_peer()
        cls.db.drop()

    def on_fake(self, fake):
        """Point the extension at a scripted broker; other databases follow, which does no harm."""
        self.addCleanup(fake.close)
        self.server.configure(rinq__amqp_dsn="amqp://x:y@127.0.0.1:%d/" % fake.port)
        self.world.proxy.cut()
        wait_until(lambda: fake.connections, timeout=20, description="the peer to come to the scripted broker")
        return fake

    def test_frames(self):
        spoilt = {
            "random bytes": lambda: random.Random(1).randbytes(4096),
            "frame without its end": lambda: struct.pack(">BHI", METHOD, 0, 4) + b"\x00\x0a\x00\x3d" + b"\x00",
            "frame of 4 GB": lambda: struct.pack(">BHI", METHOD, 0, 0xFFFFFFFF),
            "unknown frame type": lambda: frame_bytes(77, 0, b""),
            "unknown method": lambda: frame_bytes(METHOD, 1, struct.pack(">HH", 60, 999)),
            "empty method": lambda: frame_bytes(METHOD, 1, b""),
            "cut method": lambda: frame_bytes(METHOD, 1, struct.pack(">HH", 60, 60) + b"\x05ab"),
            "unopened channel": lambda: frame_bytes(METHOD, 999, method_bytes("channel.flow", active=True)),
            "header without a method": lambda: frame_bytes(2, 1, bytes(14)),
            "body without a header": lambda: frame_bytes(3, 1, b"x"),
            "a second handshake": lambda: frame_bytes(METHOD, 0, method_bytes("connection.tune", frame_max=1)),
            "delivery for nobody": lambda: message_frames(1, "basic.deliver", {"consumer_tag": "nobody", "delivery_tag": 9}, {}, b"x"),
        }
        fake = self.on_fake(FakeBroker())
        for about, data in spoilt.items():
            with self.subTest(about):
                # a database of its own for each, since a peer that keeps failing waits longer and longer
                database = self.world.database("frames", wait=False)
                first = database.wait_peer(timeout=20)
                own = first["peer_id"].partition("-")[2] + ".req"  # others may have come in the meantime
                connection = wait_until(lambda: [c for c in fake.connections if own in c.consumers], description="its connection")[0]
                connection.send_raw(data())
                connection.close()
                database.wait_new_peer(first)
                database.drop()

    def test_garbage_instead_of_a_handshake(self):
        greetings = [b"HTTP/1.0 400 Bad Request\r\n\r\n", b"AMQP\x00\x00\x09\x01", b"\x00" * 1000, b"",
                     frame_bytes(METHOD, 0, method_bytes("connection.close", code=320, text="go away")),
                     frame_bytes(METHOD, 0, method_bytes("connection.tune"))]
        fake = FakeBroker()
        pending = list(greetings)

        def greet(connection, _event):
            if not pending:
                return False
            connection.send_raw(pending.pop(0))
            connection.close()
            return True
        fake.on("greeting", greet)
        self.on_fake(fake)
        self.db.wait_peer(timeout=30)
        self.assertEqual(pending, [])
        self.assertEqual(self.server.crashes(self.log_start), [])

    def test_a_broker_that_sends_and_never_reads(self):
        """Whatever it wants answered, the answers that wait are bounded; then the connection ends."""
        self.server.configure(rinq__max_payload="256kB")
        self.addCleanup(self.server.configure, rinq__max_payload=None)
        asks = {
            "flow": lambda c: frame_bytes(METHOD, 1, method_bytes("channel.flow", active=True)) * 20000,
            "messages that are rejected": lambda c: message_frames(
                1, "basic.deliver", {"consumer_tag": c.consumers[next(q for q in c.consumers if q.endswith(".req"))][1], "delivery_tag": 9,
                                     "exchange": "cmd.uc", "routing_key": "x"}, {}, b"x") * 5000,
            "notifications that are acknowledged": lambda c: message_frames(
                c.consumers[next(q for q in c.consumers if q.endswith(".ntf"))][0], "basic.deliver",
                {"consumer_tag": "x", "delivery_tag": 9, "exchange": "ntf.mc", "routing_key": "x"},
                {"message_id": "6B0504D4-EF1D.1@0#1", "headers": {"n": Field("S", "news"), "c": Field("x", cbor2.dumps({"o": "*"}))}}, b"") * 5000,
        }
        for about, ask in asks.items():
            with self.subTest(about):
                fake = self.on_fake(FakeBroker())
                database = self.world.database("deaf", wait=False)
                first = database.wait_peer(timeout=20)
                own = first["peer_id"].partition("-")[2] + ".req"
                connection = wait_until(lambda: [c for c in fake.connections if own in c.consumers], description="its connection")[0]
                connection.stop_reading()
                data = ask(connection)
                for _ in range(2000):
                    connection.send_raw(data)
                    if not connection.open:
                        break
                self.assertFalse(connection.open, "the peer must end the connection")
                row = database.wait_new_peer(first)
                self.assertIn("does not read", row["last_error"])
                database.drop()
                fake.close()

    def test_every_split_of_the_stream(self):
        self.on_fake(FakeBroker(piecewise=1))
        self.db.wait_peer(timeout=20)

    def test_small_frames(self):
        fake = self.on_fake(FakeBroker(frame_max=4096))
        self.db.wait_peer(timeout=20)
        self.assertSqlState(self.db.error("SELECT rinq_call('small', 'x', to_jsonb(repeat('x', 100000)), '0.5 s')"), "RQ003")
        request = fake.recording.wait_published("cmd.bal")[0]
        self.assertEqual(len(request.body), 100005)
        self.assertLessEqual(fake.largest_frame, 4096)

    def test_handshake_that_never_ends(self):
        fake = FakeBroker()
        fake.on("connection.open", lambda connection, event: True)
        self.server.configure(rinq__amqp_connection_timeout="500ms")
        self.addCleanup(self.server.configure, rinq__amqp_connection_timeout=None)
        self.on_fake(fake)
        wait_until(lambda: len(fake.connections) >= 2, timeout=15, description="a second attempt after the time-out")
        fake.on("connection.open", lambda connection, event: False)
        self.db.wait_peer(timeout=20)


class Deadlines(case.OwnDatabaseCase):
    """Deadlines that no clock will reach."""

    def raw_call(self, namespace, deadline, payload=b"\x01"):
        message = self.remote.next_id()
        future = self.remote._waiting[message] = concurrent.futures.Future()
        self.remote.publish_raw("cmd.bal", namespace, payload, {"n": namespace, "c": "x", "dl": Field("l", deadline)},
                                message_id=message, reply_to="c")
        return future

    def test_deadlines_in_another_age(self):
        starts = self.counting("far", "PERFORM pg_sleep(1.5); RETURN req.payload;")
        self.remote.declare_namespace("far")
        for deadline in (2 ** 63 - 1, 2 ** 62, 2 ** 53):
            before = starts()
            self.assertEqual(self.raw_call("far", deadline).result(20).result(), 1)
            self.assertEqual(starts(), before + 1)
        self.assertEqual(self.db.peer()["reconnects"], 0)
