"""A TCP proxy between a peer and its broker that records what crosses it and can spoil the connection."""

import collections
import select
import socket
import struct
import threading
import time

from .waiting import wait_until
from .wire import Assembler, Event, FrameReader

PASS, SILENT, DROP = "pass", "silent", "drop"
CLIENT, BROKER = "client", "broker"


class Recording:
    """The methods that crossed a proxy, in order of completion; a bounded number of them."""

    def __init__(self, limit=50000):
        self._lock = threading.Lock()
        self._events = collections.deque(maxlen=limit)
        self._next = 1

    def add(self, event):
        with self._lock:
            event.number = self._next
            self._next += 1
            self._events.append(event)

    def mark(self):
        """A position to give to events() later."""
        with self._lock:
            return self._next

    def events(self, name=None, sender=None, since=0, **arguments):
        """Recorded events, by name, sender, position and arguments."""
        with self._lock:
            chosen = [event for event in self._events if event.number >= since]
        return [event for event in chosen
                if (name is None or event.name == name) and (sender is None or event.sender == sender)
                and all(event.arguments.get(key) == value for key, value in arguments.items())]

    def wait(self, name=None, count=1, timeout=10, where=None, **selection):
        """Wait until count such events were recorded and return them; where is a predicate on events."""
        def fetch():
            return [event for event in self.events(name, **selection) if where is None or where(event)]
        return wait_until(fetch, lambda found: len(found) >= count, timeout,
                          "%d x %s %r on the wire" % (count, name, selection))

    def published(self, exchange, since=0, where=None, **arguments):
        return [event for event in self.events("basic.publish", CLIENT, since, exchange=exchange, **arguments)
                if where is None or where(event)]

    def wait_published(self, exchange, count=1, timeout=10, **selection):
        return self.wait("basic.publish", count, timeout, sender=CLIENT, exchange=exchange, **selection)

    def settlement(self, delivery):
        """How a recorded delivery was settled: 'ack', 'reject', 'requeue', or None when it was not (yet)."""
        outcome = []
        for event in self.events(sender=CLIENT, since=delivery.number):
            if (event.connection, event.channel) != (delivery.connection, delivery.channel):
                continue
            tag = event.arguments.get("delivery_tag")
            covers = tag == delivery.delivery_tag or (event.arguments.get("multiple") and tag >= delivery.delivery_tag)
            if event.name == "basic.ack" and covers:
                outcome.append("ack")
            elif event.name in ("basic.reject", "basic.nack") and covers:
                outcome.append("requeue" if event.requeue else "reject")
        if len(outcome) > 1:
            raise AssertionError("a delivery was settled %d times: %r" % (len(outcome), outcome))
        return outcome[0] if outcome else None

    def wait_settled(self, delivery, timeout=10):
        return wait_until(lambda: self.settlement(delivery), timeout=timeout, description="settlement of %r" % delivery)


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy, number, client, broker):
        self.proxy = proxy
        self.number = number
        self.sides = {CLIENT: client, BROKER: broker}
        self.open = True
        self.moved = {CLIENT: 0, BROKER: 0}
        for sender in (CLIENT, BROKER):
            threading.Thread(target=self._pump, args=(sender,), daemon=True).start()

    def _pump(self, sender):
        source = self.sides[sender]
        target = self.sides[BROKER if sender == CLIENT else CLIENT]
        frames = FrameReader(sender == CLIENT)
        assembler = Assembler(self.proxy.recording.add, lambda channel, name, arguments: Event(
            0, sender, self.number, channel, name, arguments, time.time()))
        decoding = self.proxy.record
        try:
            while self.open:
                mode = self.proxy.modes[sender]
                if mode == SILENT:
                    with self.proxy.changed:
                        self.proxy.changed.wait_for(lambda: not self.open or self.proxy.modes[sender] != SILENT, 1)
                    continue
                if not select.select([source], [], [], 0.2)[0]:
                    continue
                if self.proxy.modes[sender] == SILENT:
                    continue
                data = source.recv(self._piece(sender))
                if not data:
                    break
                if self.proxy.modes[sender] == DROP:
                    continue
                self._pause(sender, len(data))
                self.moved[sender] += len(data)
                if decoding:
                    try:
                        for frame in frames.feed(data):
                            assembler.add(frame)
                    except ValueError as error:
                        decoding = False
                        self.proxy.trouble.append("%s: %s" % (sender, error))
                target.sendall(data)
        except (OSError, ValueError):  # ValueError: select() on a socket that was closed meanwhile
            pass
        self.close()

    def _piece(self, sender):
        """How much to read at once: of a slow line, what it takes in a short time."""
        rate = self.proxy.rates[sender]
        return max(1, min(self.proxy.chunk, int(rate * 0.02))) if rate else self.proxy.chunk

    def _pause(self, sender, size):
        rate = self.proxy.rates[sender]
        delay = self.proxy.delays[sender] + (size / rate if rate else 0)
        if delay:
            with self.proxy.changed:
                self.proxy.changed.wait_for(lambda: not self.open, delay)

    def close(self, reset=False):
        if not self.open:
            return
        self.open = False
        for side in self.sides.values():
            try:
                if reset:
                    side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            side.close()
        with self.proxy.changed:
            self.proxy.changed.notify_all()
        self.proxy.links.discard(self)


class Proxy:
    """Listens on loopback and forwards to a port; see the methods for what it can spoil."""

    def __init__(self, target_port, record=True, chunk=65536):
        self.target_port = target_port
        self.record = record
        self.chunk = chunk
        self.recording = Recording()
        self.trouble = []
        self.modes = {CLIENT: PASS, BROKER: PASS}
        self.delays = {CLIENT: 0.0, BROKER: 0.0}
        self.rates = {CLIENT: 0, BROKER: 0}
        self.changed = threading.Condition()
        self.links = set()
        self.accepted = 0
        self._listener = None
        self.port = 0
        self._listen()

    def _listen(self):
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener):
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                broker = socket.create_connection(("127.0.0.1", self.target_port), timeout=5)
            except OSError:
                client.close()
                continue
            for side in (client, broker):
                side.settimeout(None)
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.accepted += 1
            self.links.add(_Link(self, self.accepted, client, broker))

    def _set(self, table, value, sender):
        with self.changed:
            for side in (CLIENT, BROKER) if sender is None else (sender,):
                table[side] = value
            self.changed.notify_all()

    def silence(self, sender=None):
        """Stop reading what sender (None: both) sends; nothing is lost, nothing arrives."""
        self._set(self.modes, SILENT, sender)

    def drop(self, sender=None):
        """Read and throw away what sender sends."""
        self._set(self.modes, DROP, sender)

    def resume(self):
        """Forward everything again, without delay, and accept connections."""
        if self._listener is None:
            wait_until(lambda: self._listen() or True, description="the port to listen on again")
        self._set(self.delays, 0.0, None)
        self._set(self.rates, 0, None)
        self._set(self.modes, PASS, None)

    def delay(self, seconds, sender=None):
        """Hold each piece of data back for a while."""
        self._set(self.delays, seconds, sender)

    def throttle(self, rate, sender=None):
        """Let no more than so many bytes through in a second."""
        self._set(self.rates, rate, sender)

    def refuse(self):
        """Let nobody connect, as when there is no broker; connections that exist stay."""
        self._deafen()

    def cut(self, reset=True):
        """Break all connections, with RST or in an orderly way."""
        for link in list(self.links):
            link.close(reset)

    def _deafen(self):
        if self._listener is not None:
            # closing alone would leave the port open until the next connection
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None

    def close(self):
        self._deafen()
        self.cut()
