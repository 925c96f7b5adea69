"""A broker that undoes what a peer does: it is done again, but not as fast as the peer can, and the log stays readable."""

import time

import cbor2

from rinqtest import case
from rinqtest.cluster import call_sql
from rinqtest.fakebroker import FakeBroker
from rinqtest.waiting import wait_until
from rinqtest.wire import METHOD, frame_bytes, message_frames, method_bytes


class Scripted(case.Case):
    @classmethod
    def make_world(cls):
        return case.new_world("loops", broker=case.shared_world().broker, settings={"rinq.redeclare_interval": "300ms"})

    @classmethod
    def tearDownClass(cls):
        cls.world.close()

    def setUp(self):
        super().setUp()
        self.fake = FakeBroker()
        self.addCleanup(self.fake.close)

    def connect(self, wait=True):
        self.server.configure(rinq__amqp_dsn="amqp://x:y@127.0.0.1:%d/" % self.fake.port)
        self.db = self.database(wait=wait)
        self.before = self.db.peer()

    def assertSamePeer(self):
        now = self.db.peer()
        self.assertEqual((now["peer_id"], now["reconnects"]), (self.before["peer_id"], self.before["reconnects"]))


class Loops(Scripted):
    def listen(self):
        self.db.handler("echo", "RETURN req.payload;")
        self.db.listen("ns", "echo")

    def consumes(self, count, timeout=10):
        return self.fake.recording.wait("basic.consume", count, timeout, queue="cmd.ns")

    def assertSlow(self, events):
        """The second time comes at once, the later ones do not."""
        gaps = [later.when - earlier.when for earlier, later in zip(events, events[1:])]
        self.assertLess(gaps[0], 0.9)
        self.assertGreater(min(gaps[1:]), 0.9, gaps)

    def log_lines(self, text):
        return self.server.log_since(self.log_start).count(text)

    def is_command_queue(self, event):
        return event.queue.startswith("cmd.")

    def test_queue_that_vanishes_when_consumed(self):
        def vanished(connection, event):
            if self.is_command_queue(event):
                connection.send(event.channel, "channel.close", code=404, text="NOT_FOUND - no queue 'cmd.ns'", class_id=60, method_id=20)
            return self.is_command_queue(event)
        self.fake.on("basic.consume", vanished)
        self.connect()
        self.listen()
        self.assertSlow(self.consumes(4))
        self.fake.on("basic.consume", lambda _connection, _event: False)
        self.consumes(5)
        self.assertSamePeer()

    def test_consumer_that_is_cancelled(self):
        def cancelled(connection, event):
            if self.is_command_queue(event):
                connection.send(event.channel, "basic.consume-ok", consumer_tag=event.consumer_tag)
                for _ in range(50):
                    connection.send(event.channel, "basic.cancel", consumer_tag=event.consumer_tag, nowait=True)
            return self.is_command_queue(event)
        self.fake.on("basic.consume", cancelled)
        self.connect()
        self.listen()
        self.assertSlow(self.consumes(4))
        self.assertLessEqual(self.log_lines('queue "cmd.ns" was deleted'), 4)
        self.assertSamePeer()

    def test_channel_of_a_namespace_that_is_closed(self):
        def closed(connection, event):
            if self.is_command_queue(event):
                connection.send(event.channel, "basic.consume-ok", consumer_tag=event.consumer_tag)
                connection.close_channel(event.channel, 541, "INTERNAL_ERROR")
            return self.is_command_queue(event)
        self.fake.on("basic.consume", closed)
        self.connect()
        self.listen()
        self.assertSlow(self.consumes(4))
        self.assertSamePeer()

    def test_channel_of_the_peer_that_is_closed(self):
        """A few times it is opened again, then the connection is made anew, later and later."""
        def closed(connection, event):
            if event.queue.endswith(".rsp"):
                connection.send(event.channel, "basic.consume-ok", consumer_tag=event.consumer_tag)
                connection.close_channel(event.channel, 504, "CHANNEL_ERROR - odd")
            return event.queue.endswith(".rsp")
        self.fake.on("basic.consume", closed)
        self.connect(wait=False)
        wait_until(lambda: len(self.fake.connections), lambda count: count >= 4, 20, "three more connections")
        consumes = [event for event in self.fake.recording.events("basic.consume") if event.queue.endswith(".rsp")]
        self.assertLess(len(consumes), 10 * len(self.fake.connections))
        self.assertIn("CHANNEL_ERROR - odd", self.db.peer()["last_error"])
        self.fake.on("basic.consume", lambda _connection, _event: False)
        self.db.wait_peer()

    def test_lost_soon_after_an_outage(self):
        """The long delays of the outage are over when a connection was made: it is made anew at once."""
        refuse = [True] * 5

        def greet(connection, _event):
            if refuse:
                refuse.pop()
                connection.close()
                return True
            return False
        self.fake.on("greeting", greet)
        self.connect()
        start = time.monotonic()
        self.fake.connections[-1].close()
        self.db.wait_new_peer(self.before)
        self.assertLess(time.monotonic() - start, 3)

    def test_blocked_again_and_again(self):
        self.connect()
        blocked = frame_bytes(METHOD, 0, method_bytes("connection.blocked", reason="low on memory"))
        unblocked = frame_bytes(METHOD, 0, method_bytes("connection.unblocked"))
        self.fake.connections[-1].send_raw((blocked + unblocked) * 1000 + blocked)
        self.db.wait_peer(lambda row: row["blocked"], description="the peer to be blocked")
        self.assertLess(self.log_lines("low on memory"), 20)
        self.fake.connections[-1].send_raw(unblocked)
        self.db.wait_peer(lambda row: not row["blocked"], description="the peer to go on")
        self.assertSamePeer()

    def test_exchange_that_cannot_be_declared_again(self):
        """What comes after it is declared nevertheless, in the same round."""
        self.connect()
        refused = set()

        def refuse(connection, event):
            if event.exchange == "cmd.bal" and event.channel not in refused:
                refused.add(event.channel)
                connection.send(event.channel, "channel.close", code=406, text="PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'cmd.bal'",
                                class_id=40, method_id=10)
            return event.channel in refused
        self.fake.on("exchange.declare", refuse)
        self.fake.on("queue.bind", lambda _connection, event: event.channel in refused)
        self.fake.on("channel.open", lambda _connection, event: refused.discard(event.channel))
        opened = self.fake.recording.wait("channel.open", since=self.fake.recording.mark())[0]
        for exchange in ("cmd.rsp", "cmd.uc", "cmd.mc"):
            again = self.fake.recording.wait("queue.bind", since=opened.number, exchange=exchange)[0]
            self.assertEqual(self.fake.recording.events("exchange.declare", since=opened.number, exchange="cmd.bal"),
                             self.fake.recording.events("exchange.declare", since=again.number, exchange="cmd.bal"))
        self.assertSamePeer()


class NotTaken(Scripted):
    """Messages that the broker does not take, without a reason."""

    def nack(self, exchange):
        """What is published to the exchange is not taken."""
        counts = {}

        def publish(connection, event):
            counts[event.channel] = counts.get(event.channel, 0) + 1
            if event.exchange != exchange:
                return False
            connection.send(event.channel, "basic.nack", delivery_tag=counts[event.channel], multiple=False)
            return True
        self.fake.on("basic.publish", publish)

    def wait_dropped(self):
        self.db.wait_peer(lambda row: row["messages_dropped"] == self.before["messages_dropped"] + 1, description="the count")

    def test_call(self):
        self.nack("cmd.bal")
        self.connect()
        error = self.db.error(call_sql("ns", "x", 1, 20), timeout=10)
        self.assertSqlState(error, "54000")
        self.assertIn("queue may be full", error.detail)

    def test_notification(self):
        self.nack("ntf.mc")
        self.connect()
        self.db.sql("SELECT rinq_notify_many('n', 'x', '{*}', '1')")
        self.wait_dropped()

    def call_asynchronously(self):
        self.db.sql("CREATE FUNCTION heard(r rinq_response) RETURNS void LANGUAGE sql AS ''")
        with self.db.session() as session:
            own = session.value("SELECT rinq_session_create()")
            session.execute("SELECT rinq_session_on_response('%s', 'heard(rinq_response)')" % own)
            session.execute("SELECT rinq_call_async('ns', 'x', '5', session => '%s')" % own)
            self.wait_dropped()

    def test_asynchronous_call(self):
        """Nobody waits for it, so it is counted."""
        self.nack("cmd.bal")
        self.connect()
        self.call_asynchronously()

    def return_calls(self):
        """The broker has no queue for any call, whatever is declared."""
        def publish(connection, event):
            if event.exchange == "cmd.bal":
                connection.send_raw(message_frames(event.channel, "basic.return", {"code": 312, "text": "NO_ROUTE", "exchange": event.exchange,
                                                                                   "routing_key": event.routing_key}, event.properties, event.body))
            return False
        self.fake.on("basic.publish", publish)

    def test_call_that_is_returned_twice(self):
        """It is declared, bound and sent again once, then it fails at once; the next one likewise."""
        self.return_calls()
        self.connect()
        for number in (1, 2):
            mark = self.fake.recording.mark()
            error = self.db.error(call_sql("ns", "x", number, 60), timeout=10)
            self.assertSqlState(error, "55000")
            self.assertIn("no queue for the request, although it was declared and bound again", error.text)
            sent = self.fake.recording.published("cmd.bal", mark)
            self.assertEqual([event.body for event in sent], [cbor2.dumps(number)] * 2)
            self.assertEqual(len({event.properties["message_id"] for event in sent}), 1)
            self.assertTrue(self.fake.recording.events("queue.bind", since=sent[0].number, queue="cmd.ns"))
        self.assertSamePeer()

    def test_binding_that_routes_nothing(self):
        """The broker has the binding and returns every message, and binding again changes nothing: it has to be unbound first.

        Not at once, since a binding may take a moment to reach the broker's other nodes, and works for others meanwhile.
        """
        dead = {"cmd.ns"}
        self.fake.on("queue.unbind", lambda _connection, event: dead.discard(event.queue))

        def publish(connection, event):
            if "cmd." + event.routing_key in dead:
                connection.send_raw(message_frames(event.channel, "basic.return", {"code": 312, "text": "NO_ROUTE", "exchange": event.exchange,
                                                                                   "routing_key": event.routing_key}, event.properties, event.body))
            return False
        self.fake.on("basic.publish", publish)
        self.connect()
        self.assertSqlState(self.db.error(call_sql("ns", "x", 1, 60)), "55000")
        self.assertFalse(self.fake.recording.events("queue.unbind", queue="cmd.ns"))
        wait_until(lambda: self.db.error(call_sql("ns", "x", 2, 0.2)).sqlstate, lambda state: state == "RQ003", description="a call that is not returned")
        unbound = self.fake.recording.events("queue.unbind", queue="cmd.ns")
        self.assertEqual([(event.exchange, event.routing_key) for event in unbound], [("cmd.bal", "ns")])
        self.assertTrue(self.fake.recording.events("queue.bind", since=unbound[0].number, queue="cmd.ns"))
        self.db.sql("SELECT rinq_execute('ns', 'x')")
        wait_until(lambda: self.db.value("SELECT depth FROM rinq_outbox_status"), lambda depth: depth == "0", description="an empty outbox")
        self.assertSamePeer()

    def test_asynchronous_call_that_is_returned_twice(self):
        self.return_calls()
        self.connect()
        self.call_asynchronously()
        self.assertIn("no queue for the request", self.db.value("SELECT last_error FROM rinq_outbox_status"))
