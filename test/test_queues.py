"""Queues and bindings that others handle: what came from a queue is judged by that queue, and what is missing is made again."""

import time

import pika

from rinqtest import case
from rinqtest.cluster import call_sql
from rinqtest.fakebroker import FakeBroker
from rinqtest.waiting import wait_until

DIES = "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10); RETURN NULL;"


class Case(case.PeerCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db.sql("CREATE TABLE done (id text, x jsonb)")
        cls.db.handler("keep", "INSERT INTO done VALUES (req.id, req.payload); RETURN req.payload;")

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
        with self.world.broker.connect() as connection:
            return function(connection.channel())

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


class Missing(Case):
    """What others delete on the broker."""

    @classmethod
    def make_world(cls):
        return case.new_world("missing", broker=case.shared_world().broker, settings={"rinq.redeclare_interval": "200ms"})

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.world.close()

    def slowly(self):
        """Nothing is declared again by the clock alone."""
        self.server.configure(rinq__redeclare_interval="1h")
        self.addCleanup(self.server.configure, rinq__redeclare_interval="200ms")
        self.db.sql("SELECT pg_sleep(0.3)")

    def unbind(self, queue, exchange, key):
        self.on_channel(lambda channel: channel.queue_unbind(queue, exchange, key))

    def test_binding_of_a_called_namespace(self):
        """A call is returned, its queue is bound again, and it is sent again."""
        self.slowly()
        self.remote.serve("called", lambda request: request.payload)
        self.assertEqual(self.db.call("called", "x", 1, 20), 1)
        self.unbind("cmd.called", "cmd.bal", "called")
        mark = self.recording.mark()
        with self.db.session() as session:
            session.start("SELECT count(rinq_call('called', 'x', to_jsonb(i), '20 s')) FROM generate_series(1, 20) i")
            self.assertEqual(self.db.call("called", "x", 2, 20), 2)
            self.assertEqual(session.finish(), [["20"]])
        self.assertTrue(self.recording.events("basic.return", since=mark))
        sent = [event.properties["message_id"] for event in self.recording.published("cmd.bal", mark)]
        self.assertLessEqual(max(sent.count(message) for message in sent), 2)
        self.assertSamePeer()

    def test_binding_of_a_served_namespace(self):
        """Its own executes show it to the peer that listens."""
        self.slowly()
        self.listen("own")
        self.unbind("cmd.own", "cmd.bal", "own")
        message = self.db.value("SELECT rinq_execute('own', 'x', '1')")
        self.wait_done([message])
        self.unbind("cmd.own", "cmd.bal", "own")
        self.assertEqual(self.db.call("own", "x", 3, 20), 3)
        self.assertSamePeer()

    def test_deleted_queue_of_a_called_namespace(self):
        self.slowly()
        self.assertSqlState(self.db.error(call_sql("gone", "x", 1, 0.3)), "RQ003")
        self.on_channel(lambda channel: channel.queue_delete("cmd.gone"))
        self.assertSqlState(self.db.error(call_sql("gone", "x", 2, 0.5)), "RQ003")
        self.assertEqual(self.on_channel(lambda channel: channel.queue_declare("cmd.gone", passive=True).method.queue), "cmd.gone")
        self.assertSamePeer()

    def test_asynchronous_call_that_is_returned(self):
        self.slowly()
        self.db.sql("CREATE FUNCTION heard(r rinq_response) RETURNS void LANGUAGE sql AS $$ INSERT INTO done VALUES (r.id, r.payload) $$")
        self.remote.serve("async", lambda request: request.payload)
        self.assertEqual(self.db.call("async", "x", 1, 20), 1)
        with self.db.session() as session:
            own = session.value("SELECT rinq_session_create()")
            session.execute("SELECT rinq_session_on_response('%s', 'heard(rinq_response)')" % own)
            self.unbind("cmd.async", "cmd.bal", "async")
            session.execute("SELECT rinq_call_async('async', 'x', '5', session => '%s')" % own)
            wait_until(lambda: self.db.value("SELECT string_agg(x::text, ',') FROM done"), lambda x: x == "5", description="the response")
        self.assertSamePeer()

    def exchange_there(self, name):
        try:
            self.on_channel(lambda channel: channel.exchange_declare(name, passive=True))
        except pika.exceptions.ChannelClosedByBroker as error:
            self.assertEqual(error.reply_code, 404)
            return False
        return True

    def delete_exchange(self, name):
        """With it go all its bindings; wait until somebody has declared it again, which happens when nobody sees it any more.

        An exchange that is declared in the moment in which RabbitMQ 4.3 deletes it may have bindings that exist and route nothing.
        """
        self.server.configure(rinq__redeclare_interval="1h")
        self.db.sql("SELECT pg_sleep(0.3)")
        self.on_channel(lambda channel: channel.exchange_delete(name))
        wait_until(lambda: not self.exchange_there(name), description="the end of exchange " + name)
        self.server.configure(rinq__redeclare_interval="200ms")
        wait_until(lambda: self.exchange_there(name), description="exchange " + name)

    def test_exchanges_of_requests(self):
        """Nothing tells of lost bindings: all is declared again now and then."""
        self.listen("cast")
        own = self.before["peer_id"]
        remote = self.peer()
        self.assertEqual(remote.call("cast", "x", 0, timeout=20), 0)
        for exchange, check in (("cmd.uc", lambda: remote.call_unicast(own, "cast", "x", 1, timeout=0.3) == 1),
                                ("cmd.mc", lambda: remote.call_multicast("cast", "x", 2, timeout=0.3) == 2),
                                ("cmd.bal", lambda: remote.call("cast", "x", 3, timeout=0.3) == 3)):
            self.delete_exchange(exchange)
            wait_until(check, description="the bindings to " + exchange)
        self.assertSamePeer()

    def test_exchange_of_responses(self):
        self.peer().serve("back", lambda request: request.payload)
        self.assertEqual(self.db.call("back", "x", 1, 20), 1)
        self.delete_exchange("cmd.rsp")
        wait_until(lambda: self.db.call("back", "x", 2, 0.3) == 2, description="a response")
        self.assertSamePeer()

    def test_subscription_that_is_deaf(self):
        self.db.sql("CREATE FUNCTION note(n rinq_notification) RETURNS void LANGUAGE sql AS $$ INSERT INTO done VALUES (n.type, n.payload) $$")
        self.db.sql("SELECT rinq_subscribe('deaf', 'deaf', 'note(rinq_notification)')")
        self.addCleanup(self.db.sql, "SELECT rinq_unsubscribe('deaf')")
        session = self.db.wait_subscription("deaf")
        for exchange, send in (("ntf.mc", lambda kind: self.remote.notify_many("deaf", kind, {"o": "*"})),
                               ("ntf.uc", lambda kind: self.remote.notify("deaf", kind, session))):
            self.delete_exchange(exchange)
            wait_until(lambda: send("by " + exchange) and self.done(), lambda done: "by " + exchange in done, description="a notification")
        self.assertSamePeer()

    def test_queue_of_the_peer_deleted(self):
        """The broker cancels the consumer: another identity, with everything."""
        for suffix in (".ntf", ".rsp", ".req"):
            before = self.db.wait_peer()
            self.world.broker.ctl("delete_queue", before["peer_id"].partition("-")[2] + suffix)
            self.db.wait_new_peer(before)
        self.listen("after")
        self.assertEqual(self.db.call("after", "x", 1, 20), 1)


class Silent(case.Case):
    """A broker that does not answer the declaration of a queue, as for one whose node is down, nor what follows on that channel."""

    @classmethod
    def make_world(cls):
        return case.new_world("silent", broker=case.shared_world().broker, settings={"rinq.retry_delay": "50ms"})

    @classmethod
    def tearDownClass(cls):
        cls.world.close()

    def setUp(self):
        super().setUp()
        self.fake = FakeBroker()
        self.addCleanup(self.fake.close)
        self.silent = {}
        self.fake.on("queue.declare", self.declare)
        self.fake.on("queue.bind", lambda _connection, event: event.channel in self.silent)
        self.server.configure(rinq__amqp_dsn="amqp://x:y@127.0.0.1:%d/" % self.fake.port)
        self.db = self.database()
        self.before = self.db.peer()

    def declare(self, _connection, event):
        if event.queue.startswith("cmd.down"):
            self.silent[event.channel] = event.queue
        return event.channel in self.silent

    def requests(self, namespace):
        return self.fake.recording.published("cmd.bal", routing_key=namespace)

    def test_others_do_not_wait(self):
        with self.db.session() as session:
            session.start(call_sql("down.1", "x", timeout=20))
            wait_until(lambda: self.silent, description="the declaration")
            start = time.monotonic()
            errors = [self.db.start(call_sql("up.%d" % i, "x", timeout=2)) for i in range(5)]
            wait_until(lambda: [i for i in range(5) if self.requests("up.%d" % i)], lambda sent: len(sent) == 5, 2, "the requests to others")
            self.assertLess(time.monotonic() - start, 2)
            error = session.finish_error(10)
            self.assertSqlState(error, "55000")
            self.assertIn('has not answered the declaration of queue "cmd.down.1"', error.text)
            self.assertLess(time.monotonic() - start, 5)
            for one in errors:
                self.assertSqlState(one.error(), "RQ003")

        # known by now: at once
        start = time.monotonic()
        self.assertSqlState(self.db.error(call_sql("down.1", "x", timeout=20)), "55000")
        self.assertLess(time.monotonic() - start, 1)
        self.assertSqlState(self.db.error(call_sql("down.2", "x", timeout=1)), "55000")
        self.assertEqual(self.requests("down.1"), [])

        # late is better than never, for the others as for this one
        channel = next(channel for channel, queue in self.silent.items() if queue == "cmd.down.1")
        del self.silent[channel]
        self.fake.connections[-1].send(channel, "queue.declare-ok", queue="cmd.down.1")
        self.fake.connections[-1].send(channel, "queue.bind-ok")
        self.assertSqlState(self.db.error(call_sql("down.1", "x", timeout=0.5)), "RQ003")
        self.assertEqual(len(self.requests("down.1")), 1)
        self.assertEqual(self.db.peer()["peer_id"], self.before["peer_id"])

    def test_refused_at_last(self):
        with self.db.session() as session:
            session.start(call_sql("down", "x", timeout=20))
            wait_until(lambda: self.silent, description="the declaration")
            channel = self.silent.popitem()[0]
            self.fake.connections[-1].close_channel(channel, 404, "NOT_FOUND - home node 'a@b' of durable queue 'cmd.down' in vhost '/' is down or inaccessible")
            error = session.finish_error(5)
            self.assertSqlState(error, "55000")
            self.assertIn("is down or inaccessible", error.text)
        self.assertSqlState(self.db.error(call_sql("up", "x", timeout=0.5)), "RQ003")
        self.assertEqual(self.db.peer()["peer_id"], self.before["peer_id"])

    def test_durable_messages_wait_for_a_queue(self):
        """One whose queue cannot be had waits for as long as that takes, and leaves when it is there: nothing is sent, so there are no attempts."""
        self.server.configure(**{"rinq.send_attempts": "2"})
        self.addCleanup(self.server.configure, **{"rinq.send_attempts": None})
        refused = []

        def refuse(connection, event):
            if event.queue == "cmd.gone" and len(refused) < 3:
                refused.append(event.queue)
                connection.refuse(event, 404, "NOT_FOUND - home node 'a@b' of durable queue 'cmd.gone' in vhost '/' is down or inaccessible")
                return True
            return self.declare(connection, event)

        self.fake.on("queue.declare", refuse)
        ids = [self.db.value("SELECT rinq_execute('gone', 'x', '%d')" % i) for i in range(3)]
        wait_until(lambda: self.requests("gone"), lambda sent: {one.properties["message_id"] for one in sent} >= set(ids), 20, "the commands, once there is a queue")
        self.assertEqual(len(refused), 3)
        self.assertEqual(self.db.value("SELECT dead FROM rinq_outbox_status"), "0")

    def test_what_a_broker_has_refused_is_forgotten_with_the_connection(self):
        """The next answer may be another one: then it is none of the message's attempts."""
        self.server.configure(**{"rinq.send_attempts": "1000"})
        self.addCleanup(self.server.configure, **{"rinq.send_attempts": None})
        answers = [(406, "PRECONDITION_FAILED - no", "channel"), (541, "INTERNAL_ERROR - no", "connection")]

        def refuse(connection, event):
            if event.queue == "cmd.gone" and answers:
                return connection.refuse(event, *answers.pop(0))
            return self.declare(connection, event)

        self.fake.on("queue.declare", refuse)
        last_error = lambda: self.db.value("SELECT last_error FROM rinq_outbox_status")
        self.db.sql("SELECT rinq_execute('gone', 'x')")
        wait_until(last_error, lambda text: text == "the broker refuses the queue of the namespace", 20, "the refusal")
        wait_until(last_error, lambda text: text == "the queue of the namespace cannot be had now", 20, "the connection that was closed")

    def test_executes(self):
        self.db.sql("SELECT rinq_execute('down', 'x', '1'); SELECT rinq_execute('up', 'x', '2')")
        wait_until(lambda: self.requests("up"), timeout=3, description="the command to the other namespace")
        self.db.sql("SELECT rinq_execute('up', 'y', '3')")
        wait_until(lambda: self.requests("up"), lambda sent: len(sent) == 2, 3, "the next one")
        self.assertEqual(self.requests("down"), [])


class Others(case.OwnDatabaseCase):
    """What other clients of the broker take or delete."""

    def test_queue_that_somebody_has_for_himself(self):
        """A namespace that cannot be consumed disturbs no other one, and is tried again when it can."""
        starts = self.counting("fine", "PERFORM pg_sleep(2.5); RETURN req.payload;")
        self.db.handler("taken", "RETURN '1';")
        self.remote.declare_namespace("taken")
        self.remote._do(lambda: self.remote._connection.channel().basic_consume("cmd.taken", lambda *_: None, exclusive=True))
        mark = self.server.log_mark()
        self.db.listen("taken", "taken")
        self.server.wait_log('cannot listen to namespace "taken"', mark)
        pending = [self.remote.call_async("fine", "x", number, timeout=20) for number in range(2)]
        self.assertEqual([self.remote.response(message, 20).result() for message in pending], [0, 1])
        self.assertEqual(starts(), 2)
        self.assertEqual(self.server.log_since(mark).count("cannot listen"), 1)
        self.remote.close()
        other = self.peer()
        self.assertEqual(other.call("taken", "x", timeout=40), 1)

    def test_exchange_deleted(self):
        """The peer makes a new connection, and with it everything that is missing."""
        self.db.handler("exchange", "RETURN '1';")
        self.db.listen("exchange", "exchange")
        self.assertEqual(self.db.call("exchange", "x", timeout=20), 1)
        old = self.db.peer()
        self.remote._do(lambda: self.remote._connection.channel().exchange_delete("cmd.bal"))
        error = self.db.error(call_sql("exchange", "x", timeout=20))
        self.assertSqlState(error, "08006")
        self.db.wait_new_peer(old)
        self.assertEqual(self.db.call("exchange", "x", timeout=20), 1)
