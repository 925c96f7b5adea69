"""A scripted AMQP server: enough of a broker to see how a peer takes answers that RabbitMQ rarely gives.

Every method of the client is answered in the way of a healthy broker unless a reaction is set for it.  A reaction gets
the connection and the decoded event, may send what it likes, and returns True when the usual answer is to be left out.
"""

import socket
import ssl
import threading
import time

from .proxy import CLIENT, Recording
from .wire import METHOD, NUMBERS, Assembler, Event, Field, FrameReader, frame_bytes, message_frames, method_bytes


class Connection:
    """One accepted client."""

    def __init__(self, broker, number, peer):
        self.broker = broker
        self.number = number
        self.socket = peer
        self.consumers = {}
        self.open = True
        self._deaf = False
        self._closed = threading.Event()
        self._confirms = {}
        self._refused = set()  # channels, 0 for the connection, on which nothing counts until the client has agreed to the end
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, daemon=True).start()

    def send_raw(self, data):
        with self._lock:
            try:
                if self.broker.piecewise:
                    for start in range(0, len(data), self.broker.piecewise):
                        self.socket.sendall(data[start:start + self.broker.piecewise])
                else:
                    self.socket.sendall(data)
            except OSError:
                self.open = False

    def send(self, channel, name, **arguments):
        self.send_raw(frame_bytes(METHOD, channel, method_bytes(name, **arguments)))

    def stop_reading(self):
        """Go on sending only."""
        self._deaf = True

    def close_channel(self, channel, code, text):
        self.send(channel, "channel.close", code=code, text=text)
        return True

    def refuse(self, event, code, text, level="channel"):
        """End the channel, or the connection, because of a method, as RabbitMQ does: what came after it on its way here is not looked at."""
        channel = event.channel if level == "channel" else 0
        class_id, method_id = NUMBERS[event.name]
        self._refused.add(channel)
        self.send(channel, level + ".close", code=code, text=text, class_id=class_id, method_id=method_id)
        return True

    def _is_refused(self, event):
        if event.channel in self._refused and event.name in ("channel.close-ok", "connection.close-ok"):
            self._refused.discard(event.channel)
            return True
        return event.channel in self._refused or 0 in self._refused

    def deliver(self, queue, exchange, routing_key, body=b"", tag=1, **properties):
        """Hand a message to the consumer of a queue; queue may be the end of its name."""
        channel, consumer = next(value for name, value in self.consumers.items() if name.endswith(queue))
        arguments = {"consumer_tag": consumer, "delivery_tag": tag, "exchange": exchange, "routing_key": routing_key}
        self.send_raw(message_frames(channel, "basic.deliver", arguments, properties, body))

    def close(self):
        self._closed.set()
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()

    def _serve(self):
        reader = FrameReader(from_client=True)
        assembler = Assembler(self._react, lambda channel, name, arguments: Event(
            0, CLIENT, self.number, channel, name, arguments, time.time()))
        greeted = False
        try:
            if self.broker.tls is not None:
                self.socket = self.broker.tls.wrap_socket(self.socket, server_side=True)
            while True:
                if self._deaf:
                    self._closed.wait()
                data = self.socket.recv(65536)
                if not data:
                    break
                frames = reader.feed(data)
                if not greeted:
                    greeted = True
                    self._greet()
                for frame in frames:
                    self.broker.largest_frame = max(self.broker.largest_frame, len(frame.payload) + 8)
                    assembler.add(frame)
        except ssl.SSLError as error:
            self.broker.refused.append(str(error))
        except (OSError, ValueError) as error:
            self.broker.trouble.append(str(error))
        self.socket.close()

    def _greet(self):
        reaction = self.broker.reactions.get("greeting")
        if reaction is not None and reaction(self, None):
            return
        capabilities = {name: Field("t", True) for name in (
            "publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify", "connection.blocked",
            "consumer_priorities", "authentication_failure_close", "per_consumer_qos", "direct_reply_to")}
        properties = {"product": Field("S", self.broker.product), "version": Field("S", self.broker.version),
                      "capabilities": Field("F", capabilities)}
        self.send(0, "connection.start", version_minor=9, server_properties=properties, mechanisms=self.broker.mechanisms,
                  locales="en_US")

    def _react(self, event):
        self.broker.recording.add(event)
        if self._is_refused(event):
            return
        if event.name == "basic.publish" and event.channel in self._confirms:
            self._confirms[event.channel] += 1
        reaction = self.broker.reactions.get(event.name)
        if reaction is not None and reaction(self, event):
            return
        answer = getattr(self, "_on_" + event.name.replace(".", "_").replace("-", "_"), None)
        if answer is not None:
            answer(event)

    def _on_connection_start_ok(self, _event):
        self.send(0, "connection.tune", channel_max=self.broker.channel_max, frame_max=self.broker.frame_max,
                  heartbeat=self.broker.heartbeat)

    def _on_connection_open(self, _event):
        self.send(0, "connection.open-ok")

    def _on_connection_close(self, _event):
        self.send(0, "connection.close-ok")

    def _on_channel_open(self, event):
        self._confirms.pop(event.channel, None)
        self.send(event.channel, "channel.open-ok")

    def _on_channel_close(self, event):
        self.send(event.channel, "channel.close-ok")

    def _on_exchange_declare(self, event):
        if not event.nowait:
            self.send(event.channel, "exchange.declare-ok")

    def _on_queue_declare(self, event):
        if not event.nowait:
            self.send(event.channel, "queue.declare-ok", queue=event.queue)

    def _on_queue_bind(self, event):
        if not event.nowait:
            self.send(event.channel, "queue.bind-ok")

    def _on_queue_unbind(self, event):
        self.send(event.channel, "queue.unbind-ok")

    def _on_basic_qos(self, event):
        self.send(event.channel, "basic.qos-ok")

    def _on_basic_consume(self, event):
        self.consumers[event.queue] = (event.channel, event.consumer_tag)
        if not event.nowait:
            self.send(event.channel, "basic.consume-ok", consumer_tag=event.consumer_tag)

    def _on_basic_cancel(self, event):
        if not event.nowait:
            self.send(event.channel, "basic.cancel-ok", consumer_tag=event.consumer_tag)

    def _on_confirm_select(self, event):
        self._confirms[event.channel] = 0
        if not event.nowait:
            self.send(event.channel, "confirm.select-ok")

    def _on_basic_publish(self, event):
        """A reaction that refuses the message, or leaves it unconfirmed, returns True."""
        if event.channel in self._confirms:
            self.send(event.channel, "basic.ack", delivery_tag=self._confirms[event.channel], multiple=False)


class FakeBroker:
    """Listens on loopback; piecewise sends everything in pieces of that many bytes; tls is an SSLContext."""

    def __init__(self, product="RabbitMQ", version="3.10.8", heartbeat=20, frame_max=131072, channel_max=2047, piecewise=0, tls=None,
                 mechanisms="PLAIN AMQPLAIN", host="127.0.0.1"):
        self.tls = tls
        self.mechanisms = mechanisms
        self.refused = []
        self.product = product
        self.version = version
        self.heartbeat = heartbeat
        self.frame_max = frame_max
        self.channel_max = channel_max
        self.piecewise = piecewise
        self.largest_frame = 0
        self.reactions = {}
        self.recording = Recording()
        self.trouble = []
        self.connections = []
        self._listener = socket.create_server((host, 0), backlog=16)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def on(self, name, reaction):
        """Set the reaction to a method ('greeting': to the protocol header)."""
        self.reactions[name] = reaction

    def _accept(self):
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections.append(Connection(self, len(self.connections) + 1, peer))

    def close(self):
        try:
            # closing alone would leave the port open until the next connection
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        for connection in self.connections:
            connection.close()
