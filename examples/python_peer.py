#!/usr/bin/python3
"""A small Rinq peer in Python, to read beside docs/protocol.md.  Needs pika and cbor2.

    examples/python_peer.py amqp://user:password@localhost/vhost

It serves the command greeter::greet, and has one session, which listens to notifications in "orders" and has the attribute tenant=acme
there.  At its start it calls math::add, prints the answer, and notifies all sessions that listen to "news".  It is a beginning, not a
library: one thread, one session that nobody may change, and no reconnecting.
"""
import secrets
import sys
import time

import cbor2
import pika

EXCHANGES = {"cmd.bal": "direct", "cmd.uc": "direct", "cmd.mc": "direct", "cmd.rsp": "topic", "ntf.uc": "direct", "ntf.mc": "direct"}


class Failure(Exception):
    """Failure(type, message, payload): raised by a handler to answer with it, and by call() when it is the answer."""


def encode(payload):
    return b"" if payload is None else cbor2.dumps(payload)  # nil is an empty body


def matches(constraint, attributes, namespace):
    """Does a session with these attributes, (namespace, key) -> value, match a constraint?  A missing attribute is an empty one."""
    operator, terms = constraint["o"], constraint.get("t", [])
    value, wanted = attributes.get((namespace, constraint.get("k", "")), ""), constraint.get("v", "")
    inner = wanted if operator == "ns" else namespace
    found = [matches(term, attributes, inner) for term in terms]
    return {"*": lambda: True, "=": lambda: value == wanted, "!=": lambda: value != wanted, "!": lambda: not found[0],
            "&": lambda: all(found), "ns": lambda: all(found), "|": lambda: any(found)}[operator]()


class Peer:
    def __init__(self, url, attributes):
        self.attributes, self.handlers, self.listeners, self.answers, self.messages = attributes, {}, {}, {}, 0
        self.connection = pika.BlockingConnection(pika.URLParameters(url))
        self.reserve()
        self.channel = self.connection.channel()
        for name, kind in EXCHANGES.items():  # every peer declares all of them, all alike
            self.channel.exchange_declare(name, kind)
        self.channel.queue_bind(self.short + ".req", "cmd.uc", self.id)  # requests to this peer alone: about its session
        self.channel.queue_bind(self.short + ".req", "cmd.mc", "_sess")
        self.channel.queue_bind(self.short + ".rsp", "cmd.rsp", self.id + ".*")  # the routing key is the message id of the request
        for suffix, receive in ((".req", self.on_request), (".rsp", self.on_response), (".ntf", self.on_notification)):
            self.channel.basic_consume(self.short + suffix, receive, exclusive=True, consumer_tag=self.short + suffix)

    def reserve(self):
        """Take an identity: whoever has the exclusive queue named by the second half of the id has the id."""
        while True:
            self.short = "%04X" % (secrets.randbelow(0xFFFF) + 1)
            self.id = "%X-%s" % (int(time.time()), self.short)
            channel = self.connection.channel()
            try:
                for suffix, arguments in (("", None), (".req", {"x-max-priority": 3}), (".rsp", None), (".ntf", None)):
                    channel.queue_declare(self.short + suffix, exclusive=True, arguments=arguments)
                return channel.close()
            except pika.exceptions.ChannelClosedByBroker as error:
                if error.reply_code != 405:  # RESOURCE_LOCKED: somebody else's; try another one
                    raise

    def publish(self, exchange, key, body, headers, deadline=None, **properties):
        if deadline is not None:  # for the other side in "dl"; for the broker, which drops what is too late, in "expiration"
            headers = dict(headers, dl=int(deadline * 1000))
            properties["expiration"] = str(max(int((deadline - time.time()) * 1000), 0))
        self.channel.basic_publish(exchange, key, body, pika.BasicProperties(headers=headers, **properties))

    def message_id(self):
        self.messages += 1
        return "%s.1@1#%d" % (self.id, self.messages)  # session 1 at revision 1, at which its attributes were set

    # calling

    def declare(self, namespace):
        """Callers declare the queue, too, so that their requests wait for somebody who listens."""
        self.channel.queue_declare("cmd." + namespace, durable=True, arguments={"x-max-priority": 3})
        self.channel.queue_bind("cmd." + namespace, "cmd.bal", namespace)

    def call(self, namespace, command, payload=None, timeout=5):
        self.declare(namespace)
        message, deadline = self.message_id(), time.time() + timeout
        self.answers[message] = None
        self.publish("cmd.bal", namespace, encode(payload), {"n": namespace, "c": command}, deadline, message_id=message, reply_to="c", priority=1)
        while self.answers[message] is None and time.time() < deadline:
            self.connection.process_data_events(time_limit=max(deadline - time.time(), 0))
        answer = self.answers.pop(message)
        if answer is None:
            raise TimeoutError("%s::%s" % (namespace, command))
        properties, body = answer
        if properties.type == "e":  # an error: text, no CBOR
            raise RuntimeError(body.decode())
        result = cbor2.loads(body) if body else None
        if properties.type == "f":
            raise Failure(properties.headers["t"], properties.headers.get("m", ""), result)
        return result

    def on_response(self, channel, method, properties, body):
        if method.routing_key not in self.answers:  # nobody waits any more
            return channel.basic_reject(method.delivery_tag, requeue=False)
        self.answers[method.routing_key] = properties, body
        channel.basic_ack(method.delivery_tag)

    # serving

    def serve(self, namespace, handler):
        """handler(command, payload) returns the payload of the answer; it may raise Failure, and anything else is an error."""
        self.handlers[namespace] = handler
        self.declare(namespace)
        self.channel.queue_bind(self.short + ".req", "cmd.mc", namespace)
        self.channel.basic_consume("cmd." + namespace, self.on_request, consumer_tag="cmd." + namespace)

    def on_request(self, channel, method, properties, body):
        headers = properties.headers or {}
        namespace, command = headers.get("n"), headers.get("c")
        deadline = headers["dl"] / 1000 if "dl" in headers else None
        handler = self.on_session_request if namespace == "_sess" else self.handlers.get(namespace)
        late = deadline is not None and time.time() > deadline
        if handler is None or late or not properties.message_id or command is None:
            return channel.basic_reject(method.delivery_tag, requeue=False)
        kind, extra = "s", {}
        try:
            answer = encode(handler(command, cbor2.loads(body) if body else None))
        except Failure as failure:
            kind, (extra["t"], extra["m"], payload) = "f", failure.args
            answer = encode(payload)
        except Exception as error:
            kind, answer = "e", str(error).encode()
        if properties.reply_to == "u":  # asynchronous: the answer says what it answers
            extra.update(n=namespace, c=command)
        if properties.reply_to:  # none: executed, nobody waits for an answer
            self.publish("cmd.rsp", properties.message_id, answer, extra, deadline, type=kind, correlation_id=properties.correlation_id or properties.message_id,
                         reply_to="u" if properties.reply_to == "u" else None)
        channel.basic_ack(method.delivery_tag)

    def on_session_request(self, command, request):
        """Other peers may ask for the attributes of sessions of this one."""
        if request.get("s") != 1:
            raise Failure("not-found", "", None)
        if command != "fetch":
            raise RuntimeError("unknown command")  # a whole peer knows update, clear and destroy
        found = [(key, self.attributes.get((request["ns"], key))) for key in request.get("k", [])]
        return {"r": 1, "a": [{"k": key, "v": value, "cr": 1, "ur": 1} for key, value in found if value is not None]}

    # notifications

    def notify_many(self, namespace, kind, constraint, payload=None):
        self.publish("ntf.mc", namespace, encode(payload), {"n": namespace, "c": cbor2.dumps(constraint)}, message_id=self.message_id(), type=kind)

    def notify(self, namespace, kind, session, payload=None):
        self.publish("ntf.uc", "%s.%s" % (namespace, session.rpartition(".")[0]), encode(payload), {"n": namespace, "t": session},
                     message_id=self.message_id(), type=kind)

    def listen(self, namespace, listener):
        """listener(type, payload) gets the notifications that are for the session of this peer."""
        self.listeners[namespace] = listener
        self.channel.queue_bind(self.short + ".ntf", "ntf.uc", namespace + "." + self.id)
        self.channel.queue_bind(self.short + ".ntf", "ntf.mc", namespace)

    def on_notification(self, channel, method, properties, body):
        namespace, target = properties.headers["n"], properties.headers.get("t")
        if target is None:
            wanted = matches(cbor2.loads(properties.headers["c"]), self.attributes, namespace)
        else:
            wanted = target == self.id + ".1"
        if wanted and namespace in self.listeners:
            self.listeners[namespace](properties.type, cbor2.loads(body) if body else None)
        channel.basic_ack(method.delivery_tag)


def greet(command, payload):
    if command != "greet":
        raise Failure("unknown-command", "a greeter only greets", {"command": command})
    return {"greeting": "Hello, %s!" % payload["name"]}


if __name__ == "__main__":
    peer = Peer(sys.argv[1], {("orders", "tenant"): "acme"})
    peer.serve("greeter", greet)
    peer.listen("orders", lambda kind, payload: print("notified:", kind, payload, flush=True))
    print("session:", peer.id + ".1", flush=True)
    print("math::add answers:", peer.call("math", "add", {"Left": 1, "Right": 2}), flush=True)
    peer.notify_many("news", "flash", {"o": "*"}, {"text": "a peer is here"})
    peer.channel.start_consuming()
