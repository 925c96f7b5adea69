"""One message that the broker refuses: it fails, with the broker's words; the others are sent, on the same connection."""

import re

import cbor2

from rinqtest import case
from rinqtest.broker import Broker
from rinqtest.cluster import call_sql
from rinqtest.collector import Collector
from rinqtest.fakebroker import FakeBroker
from rinqtest.peer import RemoteError
from rinqtest.sessions import Owner
from rinqtest.waiting import wait_until

LIMIT = 1 << 20
WORDS = r"message size \d+ is larger than configured max size %d" % LIMIT
BIG = "to_jsonb(repeat('x', 2 << 20))"


class Limited(case.Case):
    """A broker that takes messages of a megabyte at most."""

    @classmethod
    def make_world(cls):
        broker = Broker(case.scratch(), name="limited-broker", rabbit=[("max_message_size", str(LIMIT))])
        return case.new_world("limited", broker=broker)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.addClassCleanup(cls.world.broker.kill)
        cls.addClassCleanup(cls.world.close)
        cls.remote = cls.world.peer(prefetch=0)
        cls.remote.serve("echo", lambda request: request.payload)

    def setUp(self):
        super().setUp()
        # with a connection that has learnt nothing of the broker yet
        self.db = self.database()
        self.before = self.db.peer()

    def assertSamePeer(self):
        now = self.db.peer()
        self.assertEqual((now["peer_id"], now["reconnects"]), (self.before["peer_id"], self.before["reconnects"]))

    def assertNotTaken(self, sql):
        error = self.db.error(sql)
        self.assertSqlState(error, "54000")
        return error.detail

    def closes(self):
        return len(self.recording.events("channel.close", since=self.wire_start))

    def large(self, since=None):
        """Messages over the limit on the wire."""
        return [event for event in self.recording.events("basic.publish", since=since or self.wire_start) if event.size > LIMIT]

    def test_call(self):
        with self.db.session() as other:
            other.start(call_sql("silent", "x", timeout=60))
            self.published("cmd.bal", where=lambda event: event.routing_key == "silent")
            pending = [self.db.start("SELECT count(rinq_call('echo', 'x', to_jsonb(i), '20 s')) FROM generate_series(1, 200) i") for _ in range(4)]
            self.assertRegex(self.assertNotTaken("SELECT rinq_call('echo', 'x', %s, '20 s')" % BIG), WORDS)
            self.assertEqual([one.result()[0][0] for one in pending], ["200"] * 4)
            self.server.psql("SELECT pg_cancel_backend(%d)" % other.pid)
            self.assertSqlState(other.finish_error(), "57014")

        # from now on nothing over the limit is sent at all
        self.assertEqual((len(self.large()), self.closes()), (1, 1))
        for sql in ("SELECT rinq_call('echo', 'x', %s)" % BIG, "SELECT rinq_await(rinq_call_async('echo', 'x', %s))" % BIG):
            self.assertRegex(self.assertNotTaken(sql), str(LIMIT))
        self.assertEqual(len(self.large()), 1)
        self.assertEqual(self.db.value("SELECT length(rinq_call('echo', 'x', to_jsonb(repeat('x', (1 << 20) - 5)), '20 s')::text)"), str(LIMIT - 3))
        self.assertSamePeer()

    def test_call_whose_response_goes_to_a_handler(self):
        self.db.sql("CREATE FUNCTION on_response(r rinq_response) RETURNS void LANGUAGE sql AS ''")
        with self.db.session() as session:
            own = session.value("SELECT rinq_session_create()")
            session.execute("SELECT rinq_session_on_response('%s', 'on_response(rinq_response)')" % own)
            error = session.error("SELECT rinq_call_async('echo', 'x', %s, session => '%s')" % (BIG, own))
            self.assertSqlState(error, "54000")
            self.assertTrue(session.value("SELECT rinq_call_async('echo', 'x', to_jsonb(repeat('x', 500000)), session => '%s')" % own))
        self.assertSamePeer()

    def test_durable(self):
        """It is set aside at once; the others arrive once each, in order."""
        collector = Collector(self.remote, "durable")
        dead = int(self.db.value("SELECT dead FROM rinq_outbox_status"))
        self.db.sql("""SELECT rinq_execute('durable', 'x', to_jsonb(i)) FROM generate_series(1, 300) i;
            BEGIN; SELECT rinq_execute('durable', 'small', '0'); SELECT rinq_execute('durable', 'big', %s);
            SELECT rinq_execute('durable', 'small', '1'); COMMIT;
            SELECT rinq_execute('durable', 'x', to_jsonb(i)) FROM generate_series(301, 600) i""" % BIG)
        collector.wait(602, 20)
        wait_until(lambda: self.db.value("SELECT depth FROM rinq_outbox_status"), lambda depth: depth == "0", description="an empty outbox")
        self.assertEqual([payload for payload in collector.payloads], list(range(1, 301)) + [0, 1] + list(range(301, 601)))
        wait_until(lambda: int(self.db.value("SELECT dead FROM rinq_outbox_status")), lambda count: count == dead + 1, description="the dead letter")
        row = self.db.json("SELECT to_json(d) FROM rinq_outbox_dead_letter d WHERE command = 'big'")
        self.assertEqual(row["attempts"], 1)
        self.assertRegex(row["error"], WORDS)

        # the next one is not even sent
        self.db.sql("SELECT rinq_execute('durable', 'big', %s)" % BIG)
        wait_until(lambda: int(self.db.value("SELECT dead FROM rinq_outbox_status")), lambda count: count == dead + 2, description="the dead letter")
        self.assertEqual((len(self.large()), self.closes()), (1, 1))
        self.assertSamePeer()

    def test_from_memory(self):
        collector = Collector(self.remote, "memory")
        dropped = self.before["messages_dropped"]
        self.db.sql("""SELECT rinq_execute('memory', 'x', to_jsonb(i), durable => false) FROM generate_series(1, 50) i;
            SELECT rinq_execute('memory', 'x', %s, durable => false);
            SELECT rinq_execute('memory', 'x', to_jsonb(i), durable => false) FROM generate_series(51, 100) i""" % BIG)
        collector.wait(100, 20)
        self.assertEqual(collector.payloads, list(range(1, 101)))
        wait_until(lambda: self.db.peer()["messages_dropped"], lambda count: count == dropped + 1, description="the count")
        self.assertRegex(self.db.value("SELECT last_error FROM rinq_outbox_status"), WORDS)
        self.assertSamePeer()

    def test_notification(self):
        session = self.remote.new_session()
        self.remote.listen_notifications("news", session)
        dropped = self.before["messages_dropped"]
        target = self.remote.session_id(session)
        self.db.sql("""SELECT rinq_notify_many('news', 'x', '{*}', to_jsonb(i)) FROM generate_series(1, 50) i;
            SELECT rinq_notify_many('news', 'x', '{*}', %s); SELECT rinq_notify('news', 'x', '%s', %s);
            SELECT rinq_notify('news', 'x', '%s', to_jsonb(i)) FROM generate_series(51, 100) i""" % (BIG, target, BIG, target))
        self.assertEqual([one.payload for one in self.remote.notifications(session, 100)], list(range(1, 101)))
        wait_until(lambda: self.db.peer()["messages_dropped"], lambda count: count == dropped + 2, description="the count")
        self.assertSamePeer()

    def test_response(self):
        self.db.handler("grow", "RETURN to_jsonb(repeat('x', (req.payload #>> '{}')::int));")
        self.db.handler("fail_large", "PERFORM rinq_fail('large', 'm', to_jsonb(repeat('x', 2 << 20))); RETURN NULL;")
        self.db.listen("grow", "grow")
        self.db.listen("fails", "fail_large")
        self.assertEqual(self.remote.call("grow", "x", 1, timeout=20), "x")
        pending = [self.remote.call_async("grow", "x", 100) for _ in range(100)]
        with self.assertRaisesRegex(RemoteError, WORDS):
            self.remote.call("grow", "x", 2 << 20, timeout=20)
        self.assertEqual([len(self.remote.response(message).result()) for message in pending], [100] * 100)
        for namespace in ("grow", "fails"):
            with self.assertRaisesRegex(RemoteError, str(LIMIT)):
                self.remote.call(namespace, "x", 2 << 20, timeout=20)
        self.assertEqual((len(self.large()), self.closes()), (1, 1))
        self.assertEqual(len(self.remote.call("grow", "x", 1000000, timeout=20)), 1000000)
        self.assertSamePeer()

    def test_session_of_another_peer(self):
        owner = Owner(self.remote)
        session, _ = owner.create()
        self.assertRegex(self.assertNotTaken("SELECT rinq_session_update('%s', 'ns', jsonb_build_object('k', repeat('x', 2 << 20)))" % session), WORDS)
        self.assertEqual(self.db.value("SELECT rinq_session_update('%s', 'ns', '{\"k\": \"v\"}')" % session), session + "@1")
        self.assertSamePeer()

    def test_fetch_of_attributes(self):
        """Another peer asks for more than the broker takes."""
        with self.db.session() as session:
            own = session.value("SELECT rinq_session_create()")
            for key in "abc":
                session.execute("SELECT rinq_session_update('%s', 'ns', jsonb_build_object('%s', repeat('x', 700000)))" % (own, key))
            for _ in range(2):
                with self.assertRaisesRegex(RemoteError, str(LIMIT)):
                    self.remote.call_unicast(self.before["peer_id"], "_sess", "fetch",
                                             {"s": int(own.rpartition(".")[2]), "ns": "ns", "k": ["a", "b", "c"]}, timeout=20)
            answer = self.remote.call_unicast(self.before["peer_id"], "_sess", "fetch",
                                              {"s": int(own.rpartition(".")[2]), "ns": "ns", "k": ["a"]}, timeout=20)
            self.assertEqual(len(answer["a"][0]["v"]), 700000)
        self.assertEqual(len(self.large()), 1)
        self.assertSamePeer()


class Scripted(case.Case):
    """Refusals in words that say little, or nothing."""

    @classmethod
    def make_world(cls):
        return case.new_world("scripted", broker=case.shared_world().broker, settings={"rinq.send_attempts": "3", "rinq.retry_delay": "50ms"})

    @classmethod
    def tearDownClass(cls):
        cls.world.close()

    def setUp(self):
        super().setUp()
        self.fake = FakeBroker()
        self.addCleanup(self.fake.close)
        self.server.configure(rinq__amqp_dsn="amqp://x:y@127.0.0.1:%d/" % self.fake.port)
        self.db = self.database()
        self.before = self.db.peer()
        self.closed = set()
        self.taken = []
        self.refusals = 0
        self.fake.on("channel.open", lambda _connection, event: self.closed.discard(event.channel))

    def script(self, refuses, code=406, text="PRECONDITION_FAILED - no", burst=0):
        """Refuse some messages, and ignore what comes on the channel after that; burst holds back the first confirms."""
        held = []

        def publish(connection, event):
            if event.channel in self.closed:
                return True
            if refuses(event):
                self.closed.add(event.channel)
                self.refusals += 1
                return connection.close_channel(event.channel, code, text)
            self.taken.append((event.exchange, event.body, event.headers.get("c")))
            if len(held) < burst and not self.refusals:
                held.append(event)
                return True
            return False
        self.fake.on("basic.publish", publish)

    def bodies(self, exchange):
        return [cbor2.loads(body) for name, body, _ in self.taken if name == exchange and body]

    def assertSamePeer(self):
        now = self.db.peer()
        self.assertEqual((now["peer_id"], now["reconnects"]), (self.before["peer_id"], self.before["reconnects"]))

    def test_one_of_many_durable(self):
        """Nobody can tell which one is meant: they are sent again one by one, and it is found."""
        self.script(lambda event: event.body == cbor2.dumps(7), burst=5)
        self.db.sql("SELECT rinq_execute('ns', 'x', to_jsonb(i)) FROM generate_series(1, 20) i")
        wait_until(lambda: self.db.value("SELECT dead || ' ' || depth FROM rinq_outbox_status"), lambda row: row == "1 0", 20, "all but one to be sent")
        self.assertEqual(set(self.bodies("cmd.bal")), set(range(1, 21)) - {7})
        self.assertEqual(self.db.value("SELECT concat_ws(' ', rinq_from_cbor(payload), error) FROM rinq_outbox_dead_letter"),
                         "7 the broker refused the message: 406 PRECONDITION_FAILED - no")
        self.assertSamePeer()

    def test_several_refused(self):
        self.script(lambda event: event.body in (cbor2.dumps(3), cbor2.dumps(4), cbor2.dumps(20)), burst=9)
        self.db.sql("SELECT rinq_execute('ns', 'x', to_jsonb(i)) FROM generate_series(1, 20) i")
        wait_until(lambda: self.db.value("SELECT dead || ' ' || depth FROM rinq_outbox_status"), lambda row: row == "3 0", 20, "the others to be sent")
        self.assertEqual(set(self.bodies("cmd.bal")), set(range(1, 21)) - {3, 4, 20})
        self.assertSamePeer()

    def test_codes_that_speak_of_the_message(self):
        for code, words in ((311, "CONTENT_TOO_LARGE - no"), (406, "PRECONDITION_FAILED - invalid expiration")):
            with self.subTest(code):
                self.script(lambda event, code=code: event.body == cbor2.dumps(code), code, words)
                self.db.sql("SELECT rinq_execute('ns', 'x', to_jsonb(i)) FROM unnest(ARRAY[1, %d, 2]) i" % code)
                wait_until(lambda: self.db.value("SELECT depth FROM rinq_outbox_status"), lambda depth: depth == "0", 20, "all but one to be sent")
                self.assertEqual(self.db.json("SELECT jsonb_build_array(attempts, error) FROM rinq_outbox_dead_letter WHERE payload = rinq_to_cbor('%d')" % code),
                                 [1, "the broker refused the message: %d %s" % (code, words)])
        self.assertSamePeer()

    def test_codes_that_tell_of_trouble(self):
        """The message is tried again, and the broker takes it in the end; it is the only one on its way."""
        for code, words in ((320, "CONNECTION_FORCED - maintenance"), (403, "ACCESS_REFUSED - access to exchange 'cmd.bal' refused"),
                            (504, "CHANNEL_ERROR - odd"), (506, "RESOURCE_ERROR - full"), (541, "INTERNAL_ERROR - oops")):
            with self.subTest(code):
                self.refusals = 0
                self.script(lambda event, code=code: event.body == cbor2.dumps(code) and self.refusals < 2, code, words)
                self.db.sql("SELECT rinq_execute('ns', 'x', '%d')" % code)
                wait_until(lambda: self.db.value("SELECT depth FROM rinq_outbox_status"), lambda depth: depth == "0", 20, "the message to be sent")
                self.assertIn(code, self.bodies("cmd.bal"))
                self.assertEqual(self.db.value("SELECT dead || ' ' || last_error FROM rinq_outbox_status"),
                                 "0 the broker did not take the message: %d %s" % (code, words))
        self.assertSamePeer()

    def test_trouble_without_end(self):
        self.script(lambda event: event.body == cbor2.dumps("odd"), 541, "INTERNAL_ERROR - oops")
        self.db.sql("SELECT rinq_execute('ns', 'x', '\"odd\"')")
        wait_until(lambda: self.db.value("SELECT dead FROM rinq_outbox_status"), lambda dead: dead == "1", 20, "the dead letter")
        self.assertEqual(self.db.value("SELECT attempts FROM rinq_outbox_dead_letter"), "3")
        self.db.sql("SELECT rinq_execute('ns', 'x', '\"good\"')")
        wait_until(lambda: self.bodies("cmd.bal"), lambda bodies: "good" in bodies, description="the next message")
        self.assertSamePeer()

    def test_size_below_what_is_sure(self):
        """The limit tells which one is meant, also of many on their way."""
        self.script(lambda event: event.size > 1000, text="PRECONDITION_FAILED - message size 5002 larger than max size 1000", burst=100)
        self.db.sql("SELECT rinq_execute('ns', 'x', to_jsonb(i)) FROM generate_series(1, 10) i; SELECT rinq_notify_many('n', 'x', '{*}', to_jsonb(1));"
                    "SELECT rinq_execute('ns', 'x', to_jsonb(repeat('x', 5000))); SELECT rinq_notify_many('n', 'x', '{*}', to_jsonb(repeat('y', 5000)));"
                    "SELECT rinq_notify_many('n', 'x', '{*}', to_jsonb(2))")
        wait_until(lambda: self.db.value("SELECT dead FROM rinq_outbox_status"), lambda dead: dead == "1", description="the dead letter")
        wait_until(lambda: self.bodies("ntf.mc"), lambda bodies: bodies == [1, 2], description="the notifications")
        self.assertEqual(set(self.bodies("cmd.bal")), set(range(1, 11)))
        self.assertSamePeer()

    def test_exchange_without_permission(self):
        self.script(lambda event: event.exchange == "ntf.mc", 403, "ACCESS_REFUSED - access to exchange 'ntf.mc' in vhost '/' refused for user 'x'")
        dropped = self.before["messages_dropped"]
        with self.db.session() as waiting:
            waiting.start(call_sql("silent", "x", timeout=60))
            wait_until(lambda: [1 for name, _, _ in self.taken if name == "cmd.bal"], description="the call")
            self.db.sql("SELECT rinq_notify_many('n', 'x', '{*}', to_jsonb(i)) FROM generate_series(1, 50) i; SELECT rinq_execute('ns', 'x', '1')")
            wait_until(lambda: self.db.peer()["messages_dropped"], lambda count: count == dropped + 50, description="the refused notifications")
            wait_until(lambda: self.bodies("cmd.bal"), lambda bodies: 1 in bodies, description="the command")
            self.server.psql("SELECT pg_cancel_backend(%d)" % waiting.pid)
            self.assertSqlState(waiting.finish_error(), "57014")
        self.assertSamePeer()

    def test_call(self):
        self.script(lambda event: event.body == cbor2.dumps("bad"))
        error = self.db.error(call_sql("ns", "x", "bad", 20))
        self.assertSqlState(error, "54000")
        self.assertEqual(error.detail, "the broker refused the message: 406 PRECONDITION_FAILED - no")
        self.assertSqlState(self.db.error(call_sql("ns", "x", "good", 0.2)), "RQ003")
        self.assertEqual(self.bodies("cmd.bal"), ["good"])
        self.assertSamePeer()

    def test_channel_that_is_closed_for_nothing(self):
        """A few times it is opened again, then the connection is made anew."""
        channel = next(event.channel for event in self.fake.recording.events("confirm.select"))
        for _ in range(3):
            mark = self.fake.recording.mark()
            self.fake.connections[-1].close_channel(channel, 320, "CONNECTION_FORCED - why not")
            self.fake.recording.wait("confirm.select", since=mark, where=lambda event: event.channel == channel)
        self.assertSamePeer()
        self.fake.connections[-1].close_channel(channel, 320, "CONNECTION_FORCED - why not")
        self.db.wait_new_peer(self.before)
        self.assertTrue(re.search("why not", self.server.log_since(self.log_start)))
