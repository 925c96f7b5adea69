"""A name server that answers what it is told to, late, cut short, or not at all."""

import socket
import struct
import threading

from .scratch import random_port

_A, _AAAA = 1, 28
_NXDOMAIN = 3


class NameServer:
    """Answers by UDP and by TCP on one port of loopback.

    names: name to its addresses, IPv4 and IPv6.  Others do not exist.
    silent, truncated: names that are not answered, or by UDP only with the demand to ask by TCP.
    delays: name to seconds.
    asked: each question as (name, "udp" or "tcp").
    """

    def __init__(self, names=None):
        self.names = dict(names or {})
        self.silent = set()
        self.truncated = set()
        self.delays = {}
        self.asked = []
        self.mute = False
        while not self._bind(random_port()):
            pass
        self._tcp.listen()
        self.port = self._tcp.getsockname()[1]
        threading.Thread(target=self._serve_udp, daemon=True).start()
        threading.Thread(target=self._serve_tcp, daemon=True).start()

    def _bind(self, port):
        """Take a port of both kinds; false when one of them is in use."""
        self._tcp = socket.socket()
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            self._tcp.bind(("127.0.0.1", port))
            self._udp.bind(("127.0.0.1", port))
        except OSError:
            self._tcp.close()
            self._udp.close()
            return False
        return True

    @property
    def address(self):
        return "127.0.0.1:%d" % self.port

    def close(self):
        # to end the threads, which wait in there
        self._tcp.shutdown(socket.SHUT_RDWR)
        self._tcp.close()
        self._udp.close()

    def _serve_udp(self):
        while True:
            try:
                query, client = self._udp.recvfrom(4096)
            except OSError:
                return
            self._later(query, "udp", lambda answer, client=client: self._udp.sendto(answer, client))

    def _serve_tcp(self):
        while True:
            try:
                link, _ = self._tcp.accept()
            except OSError:
                return
            threading.Thread(target=self._serve_link, args=(link,), daemon=True).start()

    def _serve_link(self, link):
        file = link.makefile("rb")
        while True:
            head = file.read(2)
            if len(head) < 2:
                link.close()
                return
            query = file.read(struct.unpack(">H", head)[0])
            self._later(query, "tcp", lambda answer: link.sendall(struct.pack(">H", len(answer)) + answer))

    def _later(self, query, how, send):
        name, kind, end = self._question(query)
        self.asked.append((name, how))
        if self.mute or name in self.silent:
            return

        def answer():
            try:
                send(self._answer(query, name, kind, end, how))
            except OSError:
                pass

        if name in self.delays:
            threading.Timer(self.delays[name], answer).start()
        else:
            answer()

    @staticmethod
    def _question(query):
        labels = []
        at = 12
        while query[at]:
            labels.append(query[at + 1:at + 1 + query[at]].decode("latin-1"))
            at += 1 + query[at]
        return ".".join(labels).lower(), struct.unpack(">H", query[at + 1:at + 3])[0], at + 5

    def _answer(self, query, name, kind, end, how):
        flags = 0x8180
        records = []
        if name not in self.names:
            flags |= _NXDOMAIN
        elif how == "udp" and name in self.truncated:
            flags |= 0x0200
        else:
            for address in self.names[name]:
                family = socket.AF_INET6 if ":" in address else socket.AF_INET
                if kind == (_AAAA if family == socket.AF_INET6 else _A):
                    data = socket.inet_pton(family, address)
                    records.append(struct.pack(">HHHIH", 0xC00C, kind, 1, 60, len(data)) + data)
        return query[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0) + query[12:end] + b"".join(records)
