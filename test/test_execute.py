"""Commands that are executed when a transaction commits."""

from rinqtest import case
from rinqtest.waiting import wait_until


class Collector:
    """A listener of the independent peer; what it got, in the order in which it came."""

    def __init__(self, peer, namespace):
        self.peer = peer
        self.namespace = namespace
        peer.serve(namespace, lambda request: None)

    @property
    def requests(self):
        return [request for request in list(self.peer.requests) if request.namespace == self.namespace]

    @property
    def ids(self):
        return [request.id for request in self.requests]

    @property
    def payloads(self):
        return [request.payload for request in self.requests]

    def wait(self, count, timeout=10):
        return wait_until(lambda: self.requests, lambda r: len(r) >= count, timeout, "%d requests" % count)


class Execute(case.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.db.sql("CREATE TABLE t (i int UNIQUE DEFERRABLE INITIALLY DEFERRED)")

    @classmethod
    def tearDownClass(cls):
        cls.db.drop()

    def test_durable(self):
        collector = Collector(self.peer(), "ex1")
        id = self.db.value("SELECT rinq_execute('ex1', 'go', '{\"a\": 1}')")
        collector.wait(1)
        self.assertEqual(collector.ids, [id])
        self.assertEqual(collector.payloads, [{"a": 1}])
        wait_until(lambda: self.db.value("SELECT depth FROM rinq_outbox_status"), lambda n: n == "0")
