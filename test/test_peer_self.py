"""The independent peer and the recorded messages against each other, without the extension."""

import contextlib
import copy
import io
import threading
import unittest

import cbor2
import pika.exceptions

from rinqtest import case, vectors
from rinqtest.broker import Broker
from rinqtest.constraint import matches, problem
from rinqtest.fakebroker import FakeBroker
from rinqtest.peer import CallTimeout, Failure, MalformedResponse, NoAnswer, Peer, Raw, RemoteError
from rinqtest.proxy import CLIENT, Proxy
from rinqtest.waiting import WaitTimeout, wait_until
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

    def test_no_response_is_requeued_until_the_deadline(self):
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
        # a namespace of this test alone: take() would be given what another suite has left
        self.client.declare_namespace("malformed-responses")
        for properties in ({"type": "x"}, {}, {"type": "f"}):
            waiter = {}

            def call():
                try:
                    self.client.call("malformed-responses", "asks", timeout=30)
                except Exception as error:
                    waiter["error"] = error
            thread = threading.Thread(target=call)
            thread.start()
            request = self.server.take("cmd.malformed-responses")
            self.server.publish_raw("cmd.rsp", request.id, correlation_id=request.id, **properties)
            thread.join(40)
            self.assertIsInstance(waiter.get("error"), MalformedResponse, (properties, waiter, self.client.dropped_responses))

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


class Notified(unittest.TestCase):
    """One peer notifies sessions of another, whose deliveries go through the recording proxy."""

    def setUp(self):
        self.start = proxy.recording.mark()
        self.sender = connect()
        self.addCleanup(self.sender.close)
        self.receiver = connect()
        self.addCleanup(self.receiver.close)
        self.first, self.second = self.receiver.new_session(), self.receiver.new_session()

    def settled(self, count):
        deliveries = wait_until(lambda: [event for event in proxy.recording.events("basic.deliver", since=self.start)
                                         if event.routing_key.startswith("news") and event.exchange.startswith("ntf.")],
                                lambda found: len(found) >= count, description="%d deliveries" % count)
        return [proxy.recording.wait_settled(delivery) for delivery in deliveries]

    def test_one(self):
        self.receiver.listen_notifications("news", self.first)
        target = self.receiver.session_id(self.first)
        for trace in (None, "why"):
            message = self.sender.notify("news", "flash", target, {"a": 1}, trace=trace)
            got = self.receiver.notifications(self.first)[0]
            sent = proxy.recording.wait_published("ntf.uc", since=self.start)[-1]
            self.assertEqual(vectors.conforms(sent, "notify", peer=self.receiver.id, target=target, trace=trace), [])
            self.assertEqual((got.id, got.namespace, got.type, got.target, got.multicast, got.payload, got.trace_id),
                             (message, "news", "flash", target, False, {"a": 1}, trace or message))

    def test_many(self):
        self.receiver.set_attributes(self.first, "news", foo="bar")
        for session in (self.first, self.second):
            self.receiver.listen_notifications("news", session)
        self.sender.notify_many("news", "some", {"o": "=", "k": "foo", "v": "bar"})
        self.sender.notify_many("news", "all", {"o": "*"})
        self.assertEqual([one.type for one in self.receiver.notifications(self.first, 2)], ["some", "all"])
        self.assertEqual([one.type for one in self.receiver.notifications(self.second)], ["all"])
        for sent in proxy.recording.wait_published("ntf.mc", 2, since=self.start):
            self.assertEqual(vectors.conforms(sent, "notify-many", namespace="news", trace=None), [])

    def test_constraints(self):
        attributes = {"news": {"a": "1", "e": ""}, "other": {"a": "2"}}
        a1, a2, e = {"o": "=", "k": "a", "v": "1"}, {"o": "=", "k": "a", "v": "2"}, {"o": "=", "k": "e"}
        for expected, given in ((True, {"o": "*"}), (True, a1), (False, a2), (True, e), (True, {"o": "=", "k": "missing"}),
                                (False, {"o": "=", "k": "a"}), (False, {"o": "!=", "k": "a", "v": "1"}),
                                (True, {"o": "!=", "k": "a", "v": "2"}), (True, {"o": "!=", "k": "a"}),
                                (False, {"o": "!=", "k": "missing"}), (True, {"o": "=", "v": ""}), (False, {"o": "!", "t": [a1]}),
                                (True, {"o": "!", "t": [a2]}), (True, {"o": "&", "t": [a1, e]}), (False, {"o": "&", "t": [a1, a2]}),
                                (True, {"o": "|", "t": [a2, a1]}), (False, {"o": "|", "t": [a2]}),
                                (True, {"o": "ns", "v": "other", "t": [a2]}), (False, {"o": "ns", "v": "other", "t": [a2, a1]}),
                                (True, {"o": "&", "t": [a1, {"o": "ns", "v": "other", "t": [{"o": "!", "t": [a1]}]}]})):
            self.assertIsNone(problem(given), given)
            self.assertEqual(matches(given, "news", attributes), expected, given)
        nested = {"o": "*"}
        for _ in range(100):
            nested = {"o": "!", "t": [nested]}
        for bad in (nested, [], None, {}, {"o": "?"}, {"o": 1}, {"o": "!"}, {"o": "!", "t": [a1, a1]}, {"o": "&"}, {"o": "|", "t": []},
                    {"o": "ns", "v": "x"}, {"o": "ns", "t": [a1]}, {"o": "ns", "v": "_x", "t": [a1]}, {"o": "ns", "v": "a b", "t": [a1]},
                    {"o": "=", "k": 1}, {"o": "=", "v": b"1"}, {"o": "&", "t": {}}, {"o": "&", "t": [a1, {"o": "?"}]}):
            self.assertIsNotNone(problem(bad), bad)

    def test_bound_while_a_session_listens(self):
        def calls(name):
            return sorted((event.exchange, event.routing_key) for event in proxy.recording.events(name, since=self.start)
                          if event.exchange.startswith("ntf."))
        keys = [("ntf.mc", "news"), ("ntf.uc", "news." + self.receiver.id)]
        self.receiver.listen_notifications("news", self.first)
        self.receiver.listen_notifications("news", self.second)
        self.assertEqual(calls("queue.bind"), keys)
        self.receiver.unlisten_notifications("news", self.first)
        self.assertEqual(calls("queue.unbind"), [])
        self.sender.notify_many("news", "x", {"o": "*"})
        self.receiver.notifications(self.second)
        self.receiver.unlisten_notifications("news", self.second)
        self.assertEqual(calls("queue.unbind"), keys)

    def test_who_does_not_listen(self):
        self.receiver.listen_notifications("news", self.first)
        for session in (self.second, 4000000, 0):
            self.sender.notify("news", "lost", self.receiver.session_id(session))
        self.sender.notify("news", "x", self.receiver.session_id(self.first))
        self.assertEqual([one.type for one in self.receiver.notifications(self.first)], ["x"])
        self.assertEqual(self.settled(4), ["ack"] * 4)
        self.assertEqual(self.receiver.rejected, [])

    def test_malformed_ones_are_rejected(self):
        self.receiver.listen_notifications("news", self.first)
        target, identity = self.receiver.session_id(self.first), self.sender.next_id()
        good, all_of_them = {"n": "news", "t": target}, cbor2.dumps({"o": "*"})
        bad = [("ntf.uc", headers, message) for headers, message in (
            (good, "nonsense"), ({"t": target}, identity), ({"n": "news"}, identity), ({"n": "_sess", "t": target}, identity),
            ({"n": "news", "t": target + ".x"}, identity), (dict(good, t=target.encode()), identity), (dict(good, sc="text"), identity))]
        bad += [("ntf.mc", {"n": "news", "c": constraint}, identity) for constraint in (
            "text", b"", b"\xff", b"\x81" * 5000, cbor2.dumps({"o": "?"}), cbor2.dumps({"o": "!"}))]
        bad += [("ntf.mc", {"n": "news"}, identity), ("ntf.mc", {"c": all_of_them}, identity)]
        for exchange, headers, message in bad:
            self.sender.publish_raw(exchange, "news" if exchange == "ntf.mc" else "news." + self.receiver.id, headers=headers,
                                    type="bad", message_id=message)
        self.sender.notify("news", "good", target)
        self.assertEqual([one.type for one in self.receiver.notifications(self.first)], ["good"])
        self.assertEqual(self.settled(len(bad) + 1), ["reject"] * len(bad) + ["ack"])
        self.assertEqual(len(self.receiver.rejected), len(bad))

    def test_handler(self):
        """It is called in order, and may use the peer; one that fails disturbs nobody."""
        def answer(notification):
            if notification.payload is None:
                raise Failure("not asked for")
            self.receiver.notify("news", "back", notification.source.partition("@")[0], notification.payload, trace=notification.trace_id)
        origin = self.sender.new_session()
        self.sender.listen_notifications("news", origin)
        self.receiver.listen_notifications("news", self.first, answer)
        with contextlib.redirect_stderr(io.StringIO()) as complaints:
            self.sender.notify("news", "x", self.receiver.session_id(self.first))
            wait_until(lambda: "not asked for" in complaints.getvalue(), description="the failure to be shown")
        messages = [self.sender.notify("news", "x", self.receiver.session_id(self.first), i, session=origin) for i in range(50)]
        self.assertEqual([(one.payload, one.trace_id) for one in self.sender.notifications(origin, 50)], list(enumerate(messages)))

    def test_waiting_ends(self):
        self.receiver.listen_notifications("news", self.first)
        with self.assertRaisesRegex(WaitTimeout, "2 notifications, got 1"):
            self.sender.notify("news", "x", self.receiver.session_id(self.first))
            self.receiver.notifications(self.first, 2, timeout=0.5)


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
