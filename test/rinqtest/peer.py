"""An independent Rinq peer on pika and cbor2.

Written from the description of the protocol alone; it shares no code with the extension, so that a mistake there is not
made here as well.  It serves, calls, notifies, has sessions that are notified, and publishes anything at all, malformed
messages included.  pika's connection lives in a thread of its own; every method may be called from any thread, and every
wait has a deadline.
"""

import concurrent.futures
import itertools
import queue
import re
import secrets
import threading
import time
import traceback

import cbor2
import pika
import pika.data
import pika.exceptions

from .constraint import NAMESPACE, matches, problem
from .waiting import WaitTimeout, wait_until
from .wire import Field, Reader, field_bytes

EXCHANGES = {"cmd.bal": "direct", "cmd.uc": "direct", "cmd.mc": "direct", "cmd.rsp": "topic", "ntf.uc": "direct",
             "ntf.mc": "direct"}
SESSION_ID = re.compile(r"([0-9A-F]+-[0-9A-F]{4})\.(\d+)\Z", re.I)
MESSAGE_ID = re.compile(r"([0-9A-F]+)-([0-9A-F]{4})\.(\d+)@(\d+)#(\d+)\Z", re.I)


# pika chooses and hides field types by the Python type: let a Field carry its own letter both ways

class TypedTable(dict):
    """A decoded table with plain values; .types has the type letter of each."""

    def __init__(self, fields):
        super().__init__((name, field.value) for name, field in fields.items())
        self.types = {name: field.type for name, field in fields.items()}


_encode_value = pika.data.encode_value


def _encode_typed(pieces, value):
    if isinstance(value, Field):
        raw = field_bytes(value)
        pieces.append(raw)
        return len(raw)
    return _encode_value(pieces, value)


def _plain(table):
    def strip(field):
        if field.type == "F":
            return _plain(field.value)
        if field.type == "A":
            return [strip(item) for item in field.value]
        return field.value
    return {name: Field(field.type, strip(field)) for name, field in table.items()}


def _decode_typed(encoded, offset):
    reader = Reader(encoded)
    reader.at = offset
    fields = _plain(reader.table())
    return _Nested(fields), reader.at


class _Nested(TypedTable):
    """pika reads the capabilities inside the server's properties as a plain dict of dicts."""

    def __init__(self, fields):
        super().__init__({name: Field(field.type, {inner: value.value for inner, value in field.value.items()})
                          if field.type == "F" else field for name, field in fields.items()})


pika.data.encode_value = _encode_typed
pika.data.decode_table = _decode_typed


class Failure(Exception):
    """An application-defined failure: raise it in a handler, catch it from a call."""

    def __init__(self, kind, message="", payload=None):
        super().__init__("%s: %s" % (kind, message))
        self.kind = kind
        self.message = message
        self.payload = payload


class RemoteError(Exception):
    """An error response."""


class CallTimeout(Exception):
    """The deadline passed without a response."""


class MalformedResponse(Exception):
    """A response that the protocol does not allow."""


class NoAnswer(Exception):
    """Raise it in a handler to end without an answer."""


class Answered(Exception):
    """Raise it in a handler that has published whatever answer there is itself: the request is acknowledged."""


class Raw(bytes):
    """A payload that is put on the wire as it is."""


def encode(payload):
    """Nil is an empty body."""
    if isinstance(payload, Raw):
        return bytes(payload)
    return b"" if payload is None else cbor2.dumps(payload)


def decode(body):
    return None if not body else cbor2.loads(body)


def now_ms():
    return int(time.time() * 1000)


def typed(headers):
    """Headers with the types of the protocol: text S, whole numbers l, bytes x; a Field keeps its own."""
    letters = {str: "S", int: "l", bytes: "x"}
    return {name: value if isinstance(value, Field) else Field(letters[type(value)], value) for name, value in headers.items()}


class Message:
    """A received message as pika delivered it, with header types."""

    def __init__(self, method, properties, body):
        self.exchange = method.exchange
        self.routing_key = method.routing_key
        self.redelivered = method.redelivered
        self.delivery_tag = method.delivery_tag
        self.properties = {name: getattr(properties, name) for name in (
            "content_type", "content_encoding", "delivery_mode", "priority", "correlation_id", "reply_to", "expiration",
            "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id") if getattr(properties, name) is not None}
        headers = properties.headers or TypedTable({})
        self.headers = {name: Field(headers.types[name], value) for name, value in headers.items()}
        self.body = body

    def text(self, name):
        """A header that has to be a long string; None when it is missing or of another type."""
        field = self.headers.get(name)
        return field.value if field is not None and field.type == "S" and isinstance(field.value, str) else None


class Request(Message):
    """A command request, as a handler sees it."""

    def __init__(self, method, properties, body):
        super().__init__(method, properties, body)
        self.id = self.properties.get("message_id", "")
        self.source = self.id.partition("#")[0]
        self.trace_id = self.properties.get("correlation_id") or self.id
        self.reply_to = self.properties.get("reply_to", "")
        self.namespace = self.text("n")
        self.command = self.text("c")
        deadline = self.headers.get("dl")
        self.deadline = deadline.value if deadline is not None and deadline.type == "l" else None
        self.well_formed = (MESSAGE_ID.match(self.id) is not None and self.namespace is not None
                            and self.command is not None and self.headers.get("sc", Field("x", b"")).type == "x")

    @property
    def payload(self):
        return decode(self.body)

    @property
    def expired(self):
        return self.deadline is not None and now_ms() > self.deadline


class Notification(Message):
    """A notification; those to many have a constraint, the others a target."""

    def __init__(self, method, properties, body):
        super().__init__(method, properties, body)
        self.id = self.properties.get("message_id", "")
        self.source = self.id.partition("#")[0]
        self.trace_id = self.properties.get("correlation_id") or self.id
        self.type = self.properties.get("type", "")
        self.namespace = self.text("n")
        self.multicast = self.exchange == "ntf.mc"
        self.target = None if self.multicast else self.text("t")
        self.constraint = self._constraint() if self.multicast else None
        self.well_formed = (MESSAGE_ID.match(self.id) is not None and NAMESPACE.match(self.namespace or "") is not None
                            and not self.namespace.startswith("_") and self.headers.get("sc", Field("x", b"")).type == "x"
                            and (self.constraint is not None if self.multicast else SESSION_ID.match(self.target or "") is not None))

    def _constraint(self):
        """The decoded constraint, None when it is missing or not valid."""
        field = self.headers.get("c")
        if field is None or field.type != "x":
            return None
        try:
            constraint = cbor2.loads(field.value)
            return constraint if problem(constraint) is None else None
        except (cbor2.CBORDecodeError, RecursionError):
            return None

    @property
    def payload(self):
        return decode(self.body)


class Response(Message):
    """A response, turned into a value or an exception by result()."""

    def result(self):
        kind = self.properties.get("type")
        if kind == "s":
            return decode(self.body)
        if kind == "f" and self.text("t"):
            raise Failure(self.text("t"), self.text("m") or "", decode(self.body))
        if kind == "e":
            raise RemoteError(self.body.decode("utf-8"))
        raise MalformedResponse("response of type %r" % kind)


class Peer:
    """A peer that is connected from its construction until close() or kill()."""

    def __init__(self, port, host="127.0.0.1", user="guest", password="guest", vhost="/", product="rinqtest", prefetch=10,
                 heartbeat=60, randoms=None):
        self._parameters = pika.ConnectionParameters(
            host, port, vhost, pika.PlainCredentials(user, password), heartbeat=heartbeat, blocked_connection_timeout=30,
            client_properties={"product": product, "version": "rinqtest/1"})
        self._prefetch = prefetch
        self._randoms = iter(randoms) if randoms is not None else iter(lambda: secrets.randbelow(0xFFFF) + 1, None)
        self._work = queue.Queue()
        self._handlers = {}
        self._waiting = {}
        self._asynchronous = {}
        self._namespaces = set()
        self._lock = threading.Lock()
        self._sessions = itertools.count(1)
        self._session = next(self._sessions)
        self._messages = {}
        self._pool = concurrent.futures.ThreadPoolExecutor(max_workers=32)
        self._one_by_one = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._in_order = set()  # namespaces
        self._listening = {}  # namespace -> {session: handler}
        self._received = {}
        self._attributes = {}  # session -> {namespace: {key: value}}
        self._notified = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._failure = None
        self._closing = False
        self._ready = threading.Event()
        self.requests = []
        self.rejected = []
        self.dropped_responses = []
        self.published = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        if not self._ready.wait(30):
            raise RuntimeError("the peer did not connect")
        if self._failure is not None:
            raise self._failure

    # the connection's thread

    def _run(self):
        try:
            self._connection = pika.BlockingConnection(self._parameters)
            self._reserve()
            self._declare()
        except Exception as error:
            self._failure = error
            self._ready.set()
            return
        self._ready.set()
        try:
            while not self._closing:
                self._connection.process_data_events(time_limit=1)
                while True:
                    try:
                        future, function = self._work.get_nowait()
                    except queue.Empty:
                        break
                    self._carry_out(future, function)
            self._connection.close()
        except Exception as error:
            self._failure = error
        with self._lock:
            waiting = list(self._waiting.values())
        for future in waiting:
            if not future.done():
                future.set_exception(ConnectionError("the peer's connection ended: %r" % self._failure))

    @staticmethod
    def _carry_out(future, function):
        try:
            result = function()
        except Exception as error:
            future.set_exception(error)
            if isinstance(error, pika.exceptions.AMQPConnectionError):
                raise
        else:
            future.set_result(result)

    def _do(self, function, timeout=20):
        """Run function in the connection's thread and return its result."""
        if not self._thread.is_alive():
            raise ConnectionError("the peer's connection ended: %r" % self._failure)
        future = concurrent.futures.Future()
        self._work.put((future, function))
        try:
            self._connection.add_callback_threadsafe(lambda: None)
        except pika.exceptions.ConnectionWrongStateError as error:
            raise ConnectionError(str(error)) from None
        return future.result(timeout)

    def _reserve(self):
        """Take an identity that no other peer on this broker has."""
        clock = int(time.time())
        for _ in range(100):
            number = next(self._randoms)
            short = "%04X" % number
            channel = self._connection.channel()
            try:
                for name in (short, short + ".rsp", short + ".ntf"):
                    channel.queue_declare(name, exclusive=True)
                channel.queue_declare(short + ".req", exclusive=True, arguments={"x-max-priority": 3})
            except pika.exceptions.ChannelClosedByBroker as error:
                if error.reply_code != 405:
                    raise
                continue
            channel.close()
            self.short = short
            self.id = "%X-%s" % (clock, short)
            return
        raise RuntimeError("no free peer identity")

    def _declare(self):
        self._requests = self._connection.channel()
        self._responses = self._connection.channel()
        self._notifications = self._connection.channel()
        self._publishing = self._connection.channel()
        for name, kind in EXCHANGES.items():
            self._requests.exchange_declare(name, kind, durable=False, auto_delete=False, internal=False)
        self._requests.basic_qos(prefetch_count=self._prefetch)
        self._responses.basic_qos(prefetch_count=self._prefetch)
        self._notifications.basic_qos(prefetch_count=self._prefetch)
        own = self.short + ".req"
        self._requests.queue_bind(own, "cmd.uc", self.id)
        self._requests.queue_bind(own, "cmd.mc", "_sess")
        self._requests.basic_consume(own, self._on_request, exclusive=True, consumer_tag=own)
        answers = self.short + ".rsp"
        self._responses.queue_bind(answers, "cmd.rsp", self.id + ".*")
        self._responses.basic_consume(answers, self._on_response, exclusive=True, consumer_tag=answers)
        notified = self.short + ".ntf"
        self._notifications.basic_consume(notified, self._on_notification, exclusive=True, consumer_tag=notified)

    def _declare_namespace(self, namespace):
        if namespace not in self._namespaces:
            self._requests.queue_declare("cmd." + namespace, durable=True, arguments={"x-max-priority": 3})
            self._requests.queue_bind("cmd." + namespace, "cmd.bal", namespace)
            self._namespaces.add(namespace)

    # serving

    def serve(self, namespace, handler, in_order=False):
        """handler(request) returns the payload of the response, or raises Failure, NoAnswer, or anything else (an error).

        in_order: one request after another, as they arrive; else several at a time.
        """
        if not NAMESPACE.match(namespace):
            raise ValueError("bad namespace: %r" % namespace)

        def listen():
            self._declare_namespace(namespace)
            known = namespace in self._handlers
            self._handlers[namespace] = handler
            if in_order:
                self._in_order.add(namespace)
            if not known:
                self._requests.queue_bind(self.short + ".req", "cmd.mc", namespace)
                self._requests.basic_consume("cmd." + namespace, self._on_request, consumer_tag="cmd." + namespace)
        self._do(listen)

    def unserve(self, namespace):
        def leave():
            if self._handlers.pop(namespace, None) is not None:
                self._requests.queue_unbind(self.short + ".req", "cmd.mc", namespace)
                self._requests.basic_cancel("cmd." + namespace)
        self._do(leave)

    def _on_request(self, channel, method, properties, body):
        request = Request(method, properties, body)
        balanced = request.exchange == "cmd.bal"
        if not request.well_formed:
            self.rejected.append(request)
            channel.basic_reject(method.delivery_tag, requeue=False)
            return
        handler = self._handlers.get(request.namespace)
        if handler is None:
            self.rejected.append(request)
            channel.basic_reject(method.delivery_tag, requeue=balanced)
            return
        self.requests.append(request)
        (self._one_by_one if request.namespace in self._in_order else self._pool).submit(self._serve, handler, request)

    def _serve(self, handler, request):
        headers = {}
        properties = {}
        body = b""
        try:
            try:
                body = encode(handler(request))
                properties["type"] = "s"
            except Failure as failure:
                properties["type"] = "f"
                headers["t"] = failure.kind
                if failure.message:
                    headers["m"] = failure.message
                body = encode(failure.payload)
        except NoAnswer:
            self._settle(request, None)
            return
        except Answered:
            self._settle(request, lambda: None)
            return
        except Exception as error:
            properties["type"] = "e"
            body = str(error).encode("utf-8")
        self._settle(request, lambda: self._respond(request, properties, headers, body))

    def _settle(self, request, respond):
        def settle():
            if respond is not None:
                if request.reply_to and not request.expired:
                    respond()
                self._requests.basic_ack(request.delivery_tag)
            else:
                requeue = request.exchange == "cmd.bal" and not request.expired
                self._requests.basic_reject(request.delivery_tag, requeue=requeue)
        try:
            self._do(settle)
        except ConnectionError:
            pass  # the broker gives the request to somebody else

    def _respond(self, request, properties, headers, body):
        properties["correlation_id"] = request.trace_id
        if request.deadline is not None:
            headers["dl"] = request.deadline
            properties["expiration"] = str(max(0, request.deadline - now_ms()))
        if request.reply_to == "u":
            properties["reply_to"] = "u"
            headers["n"] = request.namespace
            headers["c"] = request.command
            if "sc" in request.headers:
                headers["sc"] = request.headers["sc"]
        self._publish("cmd.rsp", request.id, body, headers, properties)

    # calling

    def new_session(self):
        return next(self._sessions)

    def next_id(self, session=None, revision=0):
        reference = "%s.%d@%d" % (self.id, session or self._session, revision)
        with self._lock:
            number = self._messages[reference] = self._messages.get(reference, 0) + 1
        return "%s#%d" % (reference, number)

    def _publish(self, exchange, routing_key, body, headers, properties):
        table = typed(headers)
        self._publishing.basic_publish(exchange, routing_key, body, pika.BasicProperties(headers=table or None, **properties))
        self.published += 1

    def publish_raw(self, exchange, routing_key, body=b"", headers=None, **properties):
        """Put anything on the wire; header values may be Fields of any type."""
        self._do(lambda: self._publish(exchange, routing_key, body, headers or {}, properties))

    def _request(self, exchange, routing_key, namespace, command, payload, properties, timeout, trace, span, before=None):
        message = before or self.next_id()
        headers = {"n": namespace, "c": command}
        properties = dict(properties, message_id=message)
        if timeout is not None:
            headers["dl"] = now_ms() + int(timeout * 1000)
            properties["expiration"] = str(max(0, int(timeout * 1000)))
        if trace is not None and trace != message:
            properties["correlation_id"] = trace
        if span is not None:
            headers["sc"] = span

        def send():
            if exchange == "cmd.bal":
                self._declare_namespace(namespace)
            self._publish(exchange, routing_key, encode(payload), headers, properties)
        self._do(send)
        return message

    def _correlated(self, exchange, routing_key, namespace, command, payload, timeout, trace, span, priority):
        message = self.next_id()
        future = concurrent.futures.Future()
        with self._lock:
            self._waiting[message] = future
        try:
            self._request(exchange, routing_key, namespace, command, payload, {"reply_to": "c", "priority": priority}, timeout,
                          trace, span, before=message)
            return future.result(timeout)
        except concurrent.futures.TimeoutError:
            raise CallTimeout("%s::%s" % (namespace, command)) from None
        finally:
            with self._lock:
                self._waiting.pop(message, None)

    def call_response(self, namespace, command, payload=None, timeout=5.0, trace=None, span=None):
        """A balanced call; the response as it came."""
        return self._correlated("cmd.bal", namespace, namespace, command, payload, timeout, trace, span, 1)

    def call(self, namespace, command, payload=None, timeout=5.0, trace=None, span=None):
        return self.call_response(namespace, command, payload, timeout, trace, span).result()

    def call_unicast(self, peer_id, namespace, command, payload=None, timeout=5.0, trace=None, span=None):
        return self._correlated("cmd.uc", peer_id, namespace, command, payload, timeout, trace, span, 2).result()

    def call_multicast(self, namespace, command, payload=None, timeout=5.0, trace=None, span=None):
        """The first answer out of possibly many."""
        return self._correlated("cmd.mc", namespace, namespace, command, payload, timeout, trace, span, 1).result()

    def call_async(self, namespace, command, payload=None, timeout=None, trace=None, span=None, message=None):
        """Returns the message id; the answer is fetched with response(). With a message id, that message is sent again."""
        message = message or self.next_id()
        self._asynchronous.setdefault(message, queue.Queue())
        return self._request("cmd.bal", namespace, namespace, command, payload, {"reply_to": "u", "priority": 1}, timeout,
                             trace, span, before=message)

    def response(self, message, timeout=5.0):
        """The Response to a call_async()."""
        try:
            return self._asynchronous[message].get(timeout=timeout)
        except queue.Empty:
            raise CallTimeout(message) from None

    def execute(self, namespace, command, payload=None, timeout=None, trace=None, span=None):
        return self._request("cmd.bal", namespace, namespace, command, payload, {"delivery_mode": 2}, timeout, trace, span)

    def execute_multicast(self, namespace, command, payload=None, trace=None, span=None):
        return self._request("cmd.mc", namespace, namespace, command, payload, {}, None, trace, span)

    def _on_response(self, channel, method, properties, body):
        response = Response(method, properties, body)
        if properties.reply_to == "u":
            box = self._asynchronous.get(method.routing_key)
            if box is not None:
                box.put(response)
        else:
            with self._lock:
                box = self._waiting.pop(method.routing_key, None)
            if box is not None:
                box.set_result(response)
        if box is None:
            self.dropped_responses.append(response)
            channel.basic_reject(method.delivery_tag, requeue=False)
        else:
            channel.basic_ack(method.delivery_tag)

    # notifying

    def session_id(self, session):
        return "%s.%d" % (self.id, session)

    def _notify(self, exchange, routing_key, headers, kind, payload, session, trace):
        message = self.next_id(session)
        properties = {"message_id": message, "type": kind}
        if trace is not None and trace != message:
            properties["correlation_id"] = trace
        self.publish_raw(exchange, routing_key, encode(payload), headers, **properties)
        return message

    def notify(self, namespace, kind, target, payload=None, session=None, trace=None):
        """Notify a session, given by its full id."""
        return self._notify("ntf.uc", "%s.%s" % (namespace, target.rpartition(".")[0]), {"n": namespace, "t": target}, kind, payload,
                            session, trace)

    def notify_many(self, namespace, kind, constraint, payload=None, session=None, trace=None):
        """Notify all sessions that match a constraint, given as the map that is sent."""
        return self._notify("ntf.mc", namespace, {"n": namespace, "c": cbor2.dumps(constraint)}, kind, payload, session, trace)

    def set_attributes(self, session, namespace, **attributes):
        """What constraints see of a session of this peer: all that it has in the namespace."""
        self._attributes[session] = dict(self._attributes.get(session, {}), **{namespace: attributes})

    def listen_notifications(self, namespace, session, handler=None):
        """Have a session notified: notifications() returns what it gets, a handler is called with each as well."""
        if not NAMESPACE.match(namespace):
            raise ValueError("bad namespace: %r" % namespace)

        def listen():
            known = namespace in self._listening
            self._received.setdefault(session, queue.Queue())
            self._listening.setdefault(namespace, {})[session] = handler
            if not known:
                for exchange, routing_key in self._notification_keys(namespace):
                    self._notifications.queue_bind(self.short + ".ntf", exchange, routing_key)
        self._do(listen)

    def unlisten_notifications(self, namespace, session):
        def leave():
            sessions = self._listening[namespace]
            del sessions[session]
            if not sessions:
                del self._listening[namespace]
                for exchange, routing_key in self._notification_keys(namespace):
                    self._notifications.queue_unbind(self.short + ".ntf", exchange, routing_key)
        self._do(leave)

    def _notification_keys(self, namespace):
        return ("ntf.uc", "%s.%s" % (namespace, self.id)), ("ntf.mc", namespace)

    def notifications(self, session, count=1, timeout=10.0):
        """Take the next notifications to a session, in the order in which they came."""
        deadline = time.monotonic() + timeout
        taken = []
        try:
            while len(taken) < count:
                taken.append(self._received[session].get(timeout=max(0, deadline - time.monotonic())))
        except queue.Empty:
            raise WaitTimeout("waited %.1f s for %d notifications, got %d: %s"
                              % (timeout, count, len(taken), [(one.type, one.body) for one in taken])) from None
        return taken

    def _on_notification(self, channel, method, properties, body):
        notification = Notification(method, properties, body)
        if not notification.well_formed:
            self.rejected.append(notification)
            channel.basic_reject(method.delivery_tag, requeue=False)
            return
        for session, handler in self._listening.get(notification.namespace, {}).items():
            if self._concerns(notification, session):
                self._received[session].put(notification)
                if handler is not None:
                    self._notified.submit(self._handle, handler, notification)
        channel.basic_ack(method.delivery_tag)

    @staticmethod
    def _handle(handler, notification):
        try:
            handler(notification)
        except Exception:
            traceback.print_exc()  # nobody is answered

    def _concerns(self, notification, session):
        if notification.multicast:
            return matches(notification.constraint, notification.namespace, self._attributes.get(session, {}))
        return notification.target.upper() == self.session_id(session)

    # looking at the broker, and leaving it

    def declare_namespace(self, namespace):
        """What a caller does before its first request."""
        self._do(lambda: self._declare_namespace(namespace))

    def on_channel(self, function):
        """Run function(channel) on a channel of its own: for declaring, deleting and reading queues."""
        def act():
            channel = self._connection.channel()
            try:
                return function(channel)
            finally:
                if channel.is_open:
                    channel.close()
        return self._do(act)

    def queue_depth(self, name):
        """Messages ready in a queue."""
        return self.on_channel(lambda channel: channel.queue_declare(name, passive=True).method.message_count)

    def queue_consumers(self, name):
        return self.on_channel(lambda channel: channel.queue_declare(name, passive=True).method.consumer_count)

    def take(self, name, timeout=5.0):
        """Fetch and acknowledge the next message of a queue."""
        def get(channel):
            method, properties, body = channel.basic_get(name, auto_ack=True)
            return None if method is None else Request(method, properties, body)
        return wait_until(lambda: self.on_channel(get), timeout=timeout, description="a message in " + name)

    def wait_requests(self, count=1, where=None, timeout=10):
        """Requests that were handed to handlers so far, once there are so many."""
        return wait_until(lambda: [request for request in list(self.requests) if where is None or where(request)],
                          lambda found: len(found) >= count, timeout, "%d requests" % count)

    @property
    def connected(self):
        return self._thread.is_alive()

    def close(self):
        """An orderly stop."""
        self._closing = True
        if self._thread.is_alive():
            try:
                self._connection.add_callback_threadsafe(lambda: None)
            except pika.exceptions.ConnectionWrongStateError:
                pass
            self._thread.join(10)
        self._pool.shutdown(wait=False)
        self._one_by_one.shutdown(wait=False)
        self._notified.shutdown(wait=False)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
