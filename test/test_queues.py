"""Queues and bindings that others handle: what came from a queue is judged by that queue, and what is missing is made again."""

import pika

from rinqtest import case
from rinqtest.waiting import wait_until

DIES = "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10); RETURN NULL;"


class Case(case.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.db.sql("CREATE TABLE done (id text, x jsonb)")
        cls.db.handler("keep", "INSERT INTO done VALUES (req.id, req.payload); RETURN req.payload;")
        cls.remote = cls.world.peer(prefetch=100)

    @classmethod
    def tearDownClass(cls):
        cls.remote.close()
        cls.db.drop()

    def setUp(self):
        super().setUp()
        self.db.sql("TRUNCATE done")
        self.before = self.db.peer()

    def listen(self, namespace, handler="keep"):
        self.db.listen(namespace, handler)
        self.addCleanup(self.db.sql, "SELECT rinq_unlisten('%s')" % namespace)
        wait_until(lambda: self.remote.queue_consumers("cmd." + namespace), lambda count: count == 1, description="the consumer")

    def on_channel(self, function):
        """Do something to the broker as an administrator would, from nobody's connection."""
        broker = self.world.broker
        connection = pika.BlockingConnection(pika.ConnectionParameters(
            "127.0.0.1", broker.port, credentials=pika.PlainCredentials(broker.user, broker.password)))
        try:
            return function(connection.channel())
        finally:
            connection.close()

    def publish(self, exchange, key, namespace, payload=b"", **properties):
        message = self.remote.next_id()
        self.remote.publish_raw(exchange, key, payload, {"n": namespace, "c": "x"}, message_id=message, **properties)
        return message

    def done(self):
        return [row[0] for row in self.db.sql("SELECT id FROM done ORDER BY id")]

    def wait_done(self, ids):
        wait_until(self.done, lambda done: done == sorted(ids), description="the handled requests")

    def assertSamePeer(self):
        now = self.db.peer()
        self.assertEqual((now["peer_id"], now["reconnects"]), (self.before["peer_id"], self.before["reconnects"]))


class Arrivals(Case):
    """Requests get into a queue in other ways than by cmd.bal and their namespace."""

    def test_default_exchange(self):
        """As an administrator moves messages back from a dead letter queue."""
        self.listen("moved")
        ids = [self.publish("", "cmd.moved", "moved") for _ in range(20)]
        self.wait_done(ids)
        self.assertEqual(self.db.peer()["requests_rejected"], self.before["requests_rejected"])

    def test_other_binding(self):
        self.listen("bound")
        self.on_channel(lambda channel: channel.queue_bind("cmd.bound", "cmd.bal", "another.key"))
        self.on_channel(lambda channel: channel.exchange_declare("private", "fanout", auto_delete=True))
        self.on_channel(lambda channel: channel.queue_bind("cmd.bound", "private", ""))
        self.wait_done([self.publish("cmd.bal", "another.key", "bound"), self.publish("private", "whatever", "bound")])

    def test_answered_whatever_the_exchange(self):
        self.listen("answers")
        self.publish("", "cmd.answers", "answers", b"\x07", reply_to="c")
        delivery = self.deliveries(exchange="")[0]
        answer = self.published("cmd.rsp", where=lambda event: event.routing_key == delivery.properties["message_id"])[0]
        self.assertEqual((answer.body, answer.properties["type"]), (b"\x07", "s"))

    def test_given_back_when_the_executor_ends(self):
        self.db.sql("CREATE SEQUENCE tries")
        self.db.handler("dies_once", "IF nextval('tries') = 1 THEN %s END IF; INSERT INTO done VALUES (req.id); RETURN NULL;" % DIES)
        self.listen("once", "dies_once")
        message = self.publish("", "cmd.once", "once")
        self.wait_done([message])
        outcomes = [self.recording.wait_settled(delivery) for delivery in self.deliveries(2, exchange="")]
        self.assertEqual(outcomes, ["requeue", "ack"])

    def test_given_back_at_a_stop(self):
        """Nothing is lost that was not started."""
        self.db.handler("slow", "PERFORM pg_sleep(0.1); INSERT INTO done VALUES (req.id); RETURN NULL;")
        self.listen("slow", "slow")
        ids = [self.publish("", "cmd.slow", "slow") for _ in range(20)]
        self.deliveries(4, exchange="")
        self.db.sql("SELECT rinq_stop()")
        self.db.sql("SELECT rinq_start()")
        wait_until(self.done, lambda done: done == sorted(ids), 20, "the handled requests")
        self.db.wait_peer()

    def test_foreign_namespace(self):
        """A request to another namespace is nobody's business in this queue: rejected once, counted and logged."""
        self.listen("mine")
        self.on_channel(lambda channel: channel.queue_bind("cmd.mine", "cmd.bal", "nobody"))
        for exchange, key, namespace in (("cmd.bal", "nobody", "nobody"), ("", "cmd.mine", "nobody"), ("", "cmd.mine", "_sess"),
                                         ("cmd.bal", "mine", "not a namespace"), ("", "cmd.mine", "mine.too")):
            mark, count = self.recording.mark(), self.db.peer()["requests_rejected"]
            self.publish(exchange, key, namespace)
            self.assertEqual(self.recording.wait_settled(self.deliveries(since=mark)[0]), "reject")
            wait_until(lambda: self.db.peer()["requests_rejected"], lambda now: now == count + 1, description="the count")
        self.wait_done([self.publish("cmd.bal", "mine", "mine")])
        self.assertEqual(len(self.deliveries(6)), 6)
        self.server.wait_log("namespace header differs", 0)
        self.assertSamePeer()

    def test_request_nobody_can_handle(self):
        """It comes back later and later, which the log says once; others are served meanwhile."""
        self.server.configure(**{"rinq.max_attempts": "0"})
        self.addCleanup(self.server.configure, **{"rinq.max_attempts": None})
        self.db.handler("dies", "IF req.payload IS NULL THEN %s END IF; INSERT INTO done VALUES (req.id); RETURN NULL;" % DIES)
        self.listen("perishes", "dies")
        message = self.publish("cmd.bal", "perishes", "perishes", delivery_mode=2)
        deliveries = self.deliveries(4, routing_key="perishes", timeout=20)
        gaps = [later.when - earlier.when for earlier, later in zip(deliveries, deliveries[1:])]
        self.assertLess(gaps[0], 0.9)
        self.assertGreater(gaps[1], 0.9)
        self.assertGreater(gaps[2], 1.8 * gaps[1] - 0.5)
        self.wait_done([self.publish("cmd.bal", "perishes", "perishes", b"\x01")])
        self.server.wait_log("gives request %s back" % message, self.log_start)
        self.assertEqual(self.server.log_since(self.log_start).count("gives request %s back" % message), 1)
        self.remote.on_channel(lambda channel: channel.queue_purge("cmd.perishes"))
