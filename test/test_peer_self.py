"""The independent peer and the recorded messages against each other, without the extension."""

import copy
import threading
import unittest

import cbor2
import pika.exceptions

from rinqtest import case, vectors
from rinqtest.broker import Broker
from rinqtest.fakebroker import FakeBroker
from rinqtest.peer import CallTimeout, Failure, MalformedResponse, NoAnswer, Peer, Raw, RemoteError
from rinqtest.proxy import CLIENT, Proxy
from rinqtest.waiting import wait_until
from rinqtest.wire import Field, FrameReader, Reader, content_header_bytes, decode_content_header, table_bytes


def setUpModule():
    global broker, proxy
    broker = case._shared.broker if case._shared is not None else Broker(case.scratch(), "self-broker").start()
    proxy = Proxy(broker.port)


def tearDownModule():
    proxy.close()
    if case._shared is None:
        broker.kill()


def connect(port=None, **options):
    return Peer(port or proxy.port, **dict({"user": broker.user, "password": broker.password}, **options))


def math(request):
    if request.command == "add":
        return request.payload["Left"] + request.payload["Right"]
    if request.command == "echo":
        return request.payload
    if request.command == "nil":
        return None
    if request.command == "fail":
        raise Failure("my-api-error", "the call to fail failed spectacularly!", {"code": 42})
    if request.command == "quiet":
        raise Failure("no-message")
    if request.command == "error":
        raise RuntimeError("unexpected thing happened")
    raise NoAnswer()


class Recorded(unittest.TestCase):
    """The checker knows the recordings, and notices every single deviation from them."""

    def test_recorded_messages_conform(self):
        seen = 0
        for name in vectors.kinds():
            form = vectors.kind(name)
            for sample in form["samples"]:
                message = vectors.Recorded(form["exchange"], sample)
                self.assertEqual(vectors.conforms(message, name), [], (name, sample["recorded"]))
                seen += 1
        self.assertGreater(seen, 40)

    def test_deviations_are_noticed(self):
        for name in vectors.kinds():
            form = vectors.kind(name)
            for sample in form["samples"]:
                message = vectors.Recorded(form["exchange"], sample)
                for spoilt in self.spoil(message, form):
                    self.assertNotEqual(vectors.conforms(spoilt, name), [], vars(spoilt))

    @staticmethod
    def spoil(message, form):
        def variant(**changes):
            other = copy.deepcopy(message)
            for attribute, value in changes.items():
                setattr(other, attribute, value)
            return other
        yield variant(exchange="amq.direct")
        yield variant(properties=dict(message.properties, app_id="rinq"))
        yield variant(headers=dict(message.headers, extra=Field("S", "x")))
        for key, field in message.headers.items():
            for letter in set("Slx") - {field.type}:
                yield variant(headers=dict(message.headers, **{key: Field(letter, field.value)}))
        for key in form["properties"]:
            if not key.endswith("?"):
                yield variant(properties={name: value for name, value in message.properties.items() if name != key})
        for key in form["headers"]:
            if not key.endswith("?"):
                yield variant(headers={name: value for name, value in message.headers.items() if name != key})
        if "expiration" in message.properties:
            yield variant(properties=dict(message.properties, expiration="5000.0"))
            yield variant(properties=dict(message.properties, expiration="500000"))
            yield variant(properties={name: value for name, value in message.properties.items() if name != "expiration"})

    def test_bindings(self):
        form = vectors.kind("call")
        message = vectors.Recorded(form["exchange"], form["samples"][0])
        self.assertEqual(vectors.conforms(message, "call", namespace="math", command="add", trace=None, span=None), [])
        self.assertNotEqual(vectors.conforms(message, "call", command="sub"), [])
        self.assertNotEqual(vectors.conforms(message, "call", trace="a trace"), [])

    def test_session_requests_are_complete(self):
        requests = vectors.load("session-requests")
        self.assertEqual(len(requests), 31)
        for request in requests:
            self.assertIn(request["type"], ("s", "f", "e"))
            if request["type"] == "s" and request["body"]:
                self.assertIsInstance(cbor2.loads(bytes.fromhex(request["body"])), dict)

    def test_field_types_survive_the_codec(self):
        table = {"text": Field("S", "héllo"), "bytes": Field("x", b"\x00\xff"), "long": Field("l", -2 ** 63), "small": Field("I", -1),
                 "flag": Field("t", True), "none": Field("V", None), "list": Field("A", [Field("b", 1), Field("S", "")]),
                 "map": Field("F", {"d": Field("d", 1.5)})}
        self.assertEqual(Reader(table_bytes(table)).table(), table)
        size, properties = decode_content_header(content_header_bytes(7, headers=table, priority=2, type="s", expiration="0"))
        self.assertEqual((size, properties), (7, {"headers": table, "priority": 2, "type": "s", "expiration": "0"}))
        with self.assertRaises(ValueError):
            FrameReader(from_client=True).feed(b"GET / HTTP/1.0\r\n")


class Between(unittest.TestCase):
    """One peer serves, another calls; all they emit goes through the recording proxy."""

    @classmethod
    def setUpClass(cls):
        cls.server = connect(prefetch=20)
        cls.client = connect()
        cls.server.serve("math", math)

    @classmethod
    def tearDownClass(cls):
        cls.client.close()
        cls.server.close()

    def setUp(self):
        self.start = proxy.recording.mark()

    def tearDown(self):
        self.assertEqual(proxy.trouble, [])

    def only(self, exchange):
        found = proxy.recording.wait_published(exchange, since=self.start)
        self.assertEqual(len(found), 1)
        return found[0]

    def check(self, request_kind, response_kind, trace=None, span=None, **bindings):
        request = self.only("cmd.bal")
        self.assertEqual(vectors.conforms(request, request_kind, namespace="math", trace=trace, span=span), [])
        if response_kind is not None:
            response = self.only("cmd.rsp")
            asynchronous = response_kind.endswith("-async")
            self.assertEqual(vectors.conforms(response, response_kind, request=request.properties["message_id"],
                                              trace=trace or request.properties["message_id"],
                                              **dict({"span": span} if asynchronous else {}, **bindings)), [])
        delivery = proxy.recording.wait("basic.deliver", since=self.start, exchange="cmd.bal")[0]
        self.assertEqual(proxy.recording.wait_settled(delivery), "ack")

    def test_success(self):
        self.assertEqual(self.client.call("math", "add", {"Left": 1, "Right": 2}), 3)
        self.check("call", "response-success")
        self.assertEqual(self.only("cmd.bal").body.hex(), "a2644c6566740165526967687402")
        self.assertEqual(self.only("cmd.rsp").body, b"\x03")

    def test_nil_both_ways(self):
        self.assertIsNone(self.client.call("math", "nil"))
        self.check("call", "response-success")
        self.assertEqual((self.only("cmd.bal").body, self.only("cmd.rsp").body), (b"", b""))

    def test_trace_and_span(self):
        self.assertEqual(self.client.call("math", "add", {"Left": 3, "Right": 4}, trace="my-trace-id", span=b"\x01"), 7)
        self.check("call", "response-success", trace="my-trace-id", span=b"\x01")

    def test_failure(self):
        with self.assertRaises(Failure) as caught:
            self.client.call("math", "fail")
        self.assertEqual((caught.exception.kind, caught.exception.payload), ("my-api-error", {"code": 42}))
        self.check("call", "response-failure", failure="my-api-error", message="the call to fail failed spectacularly!")

    def test_failure_without_message(self):
        with self.assertRaises(Failure) as caught:
            self.client.call("math", "quiet")
        self.assertEqual((caught.exception.kind, caught.exception.message), ("no-message", ""))
        self.check("call", "response-failure", failure="no-message", message=None)

    def test_error(self):
        with self.assertRaisesRegex(RemoteError, "unexpected thing happened"):
            self.client.call("math", "error")
        self.check("call", "response-error")
        self.assertEqual(self.only("cmd.rsp").body, b"unexpected thing happened")

    def test_asynchronous(self):
        message = self.client.call_async("math", "add", {"Left": 7, "Right": 8}, span=b"context")
        self.assertEqual(self.client.response(message).result(), 15)
        self.check("call-async", "response-success-async", span=b"context", deadline=None, remaining=None)

    def test_asynchronous_failure_and_error(self):
        for command, kind, expected in (("fail", "response-failure-async", Failure), ("error", "response-error-async", RemoteError)):
            self.start = proxy.recording.mark()
            message = self.client.call_async("math", command, timeout=5, trace="async-trace")
            with self.assertRaises(expected):
                self.client.response(message).result()
            self.check("call-async", kind, trace="async-trace")

    def test_execute(self):
        before = len(self.server.requests)
        self.client.execute("math", "add", {"Left": 9, "Right": 10})
        wait_until(lambda: len(self.server.requests) > before, description="the request")
        self.check("execute", None)
        self.assertEqual(proxy.recording.published("cmd.rsp", self.start), [])

    def test_unicast_and_multicast(self):
        self.assertEqual(self.client.call_unicast(self.server.id, "math", "add", {"Left": 1, "Right": 1}), 2)
        self.assertEqual(vectors.conforms(self.only("cmd.uc"), "call-unicast", peer=self.server.id, namespace="math"), [])
        self.assertEqual(self.client.call_multicast("math", "add", {"Left": 1, "Right": 1}), 2)

    def test_payloads_round_trip(self):
        for payload in vectors.load("payloads"):
            body = bytes.fromhex(payload["cbor"])
            response = self.client.call_response("math", "echo", Raw(body))
            self.assertEqual(cbor2.loads(response.body or b"\xf6"), cbor2.loads(body), payload["about"])

    def test_no_answer_is_requeued_until_the_deadline(self):
        with self.assertRaises(CallTimeout):
            self.client.call("math", "silence", timeout=0.3)
        deliveries = wait_until(lambda: proxy.recording.events("basic.deliver", since=self.start, exchange="cmd.bal"),
                                description="deliveries")
        self.assertEqual(proxy.recording.wait_settled(deliveries[0]), "requeue")
        wait_until(lambda: self.client.queue_depth("cmd.math") == 0, description="the queue to be empty")

    def test_late_response_is_dropped(self):
        release = threading.Event()
        self.server.serve("slow", lambda request: release.wait(5) and 1)
        with self.assertRaises(CallTimeout):
            self.client.call("slow", "wait", timeout=0.2)
        before = len(self.client.dropped_responses)
        request = proxy.recording.published("cmd.bal", self.start)[0].properties["message_id"]
        self.client.publish_raw("cmd.rsp", request, type="s", correlation_id=request)
        wait_until(lambda: len(self.client.dropped_responses) > before, description="the late response to be dropped")
        release.set()

    def test_malformed_responses(self):
        self.client.declare_namespace("nobody")
        for properties in ({"type": "x"}, {}, {"type": "f"}):
            waiter = {}

            def call():
                try:
                    self.client.call("nobody", "asks", timeout=5)
                except MalformedResponse as error:
                    waiter["error"] = error
            thread = threading.Thread(target=call)
            thread.start()
            request = self.server.take("cmd.nobody")
            self.server.publish_raw("cmd.rsp", request.id, correlation_id=request.id, **properties)
            thread.join(10)
            self.assertIn("error", waiter, properties)

    def test_malformed_requests_are_rejected_once(self):
        good = {"n": "math", "c": "add"}
        identity = self.client.next_id()
        for headers, properties in ((good, {}), (good, {"message_id": "nonsense"}), (dict(good, n=b"math"), {"message_id": identity}),
                                    ({"n": "math"}, {"message_id": identity}), (dict(good, sc="text"), {"message_id": identity})):
            self.start = proxy.recording.mark()
            self.client.publish_raw("cmd.bal", "math", headers=headers, **properties)
            delivery = proxy.recording.wait("basic.deliver", since=self.start, exchange="cmd.bal")[0]
            self.assertEqual(proxy.recording.wait_settled(delivery), "reject", (headers, properties))

    def test_identity_collision(self):
        number = int(self.server.short, 16)
        with connect(randoms=iter([number, number, number ^ 1])) as other:
            self.assertEqual(other.short, "%04X" % (number ^ 1))

    def test_wrong_password(self):
        with self.assertRaises(pika.exceptions.ProbableAuthenticationError):
            connect(password="wrong")


class Spoiling(unittest.TestCase):
    """The proxy and the scripted broker do what the fault tests rely on."""

    def test_silence_and_cut(self):
        own = Proxy(broker.port)
        self.addCleanup(own.close)
        with connect(own.port) as peer, connect(broker.port) as other:
            peer.serve("proxied", lambda request: "ok")
            self.assertEqual(other.call("proxied", "x"), "ok")
            own.silence()
            with self.assertRaises(CallTimeout):
                other.call("proxied", "x", timeout=0.5)
            own.resume()
            wait_until(lambda: other.call("proxied", "x", timeout=2) == "ok", description="an answer after the silence")
            own.cut()
            wait_until(lambda: not peer.connected, description="the peer to notice the cut")

    def test_fake_broker_accepts_a_peer(self):
        fake = FakeBroker(piecewise=7)
        self.addCleanup(fake.close)
        refused = []

        def locked(connection, event):
            if not refused:
                refused.append(event.queue)
                return connection.close_channel(event.channel, 405, "RESOURCE_LOCKED")
            return False
        fake.on("queue.declare", locked)
        with Peer(fake.port) as peer:
            self.assertNotEqual(peer.short, refused[0])
            peer.serve("fake", lambda request: request.payload)
            identity = "5A1C2D3E-00A1.1@0#1"
            fake.connections[-1].deliver("cmd.fake", "cmd.bal", "fake", cbor2.dumps("hi"), message_id=identity, reply_to="c",
                                         headers={"n": Field("S", "fake"), "c": Field("S", "x")})
            answer = fake.recording.wait_published("cmd.rsp")[0]
            self.assertEqual((answer.routing_key, answer.body), (identity, cbor2.dumps("hi")))
            self.assertEqual(len(fake.recording.wait("basic.ack", sender=CLIENT)), 1)
