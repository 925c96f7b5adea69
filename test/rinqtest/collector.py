"""A listener that keeps what it gets."""

from .waiting import wait_until


class Collector:
    """Serves a namespace of an independent peer; what came since, in the order in which it came."""

    def __init__(self, peer, namespace):
        self.peer = peer
        self.namespace = namespace
        self._start = len(peer.requests)
        peer.serve(namespace, lambda request: None)

    @property
    def requests(self):
        return [request for request in self.peer.requests[self._start:] if request.namespace == self.namespace]

    @property
    def ids(self):
        return [request.id for request in self.requests]

    @property
    def payloads(self):
        return [request.payload for request in self.requests]

    def forget(self):
        self._start = len(self.peer.requests)

    def wait(self, count, timeout=10):
        return wait_until(lambda: self.requests, lambda r: len(r) >= count, timeout, "%d requests" % count)
