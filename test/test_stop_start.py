"""rinq_stop, rinq_start, and the server's own end: what runs is finished and answered, what waits goes back."""

import threading

from rinqtest import case
from rinqtest.waiting import wait_until

BODY = """INSERT INTO effects VALUES (req.payload #>> '{}');
  CASE req.command
    WHEN 'gate' THEN PERFORM pg_advisory_xact_lock_shared(79);
    WHEN 'nested' THEN RETURN rinq_call('elsewhere', 'slow', req.payload, '20s');
    WHEN 'stop' THEN PERFORM rinq_stop();
    ELSE NULL;
  END CASE;
  RETURN req.payload;"""


class StopStart(case.PeerCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db.sql("CREATE TABLE effects (x text)")
        cls.db.handler("handle", BODY)
        cls.db.sql("SELECT rinq_listen('stop', 'handle(rinq_request)', max_concurrent => 2)")
        cls.remote.call("stop", "x", timeout=20)

    def setUp(self):
        super().setUp()
        self.db.sql("TRUNCATE effects")

    def tearDown(self):
        if not self.server.running:
            self.server.start()
        self.server.configure(**{"rinq.shutdown_timeout": None})
        self.db.sql("SELECT rinq_start()")
        self.db.wait_peer()
        super().tearDown()

    def in_handler(self, count, command="gate"):
        wait_until(lambda: int(self.db.value("SELECT count(*) FROM pg_stat_activity WHERE query = 'rinq: stop::%s'"
                                             " AND state = 'active'" % command)), lambda n: n == count)

    def stopping(self):
        return self.db.wait_peer(lambda row: row["state"] == "stopping", description="the peer to be stopping")

    def effects(self):
        return self.db.value("SELECT string_agg(x, ',' ORDER BY x) FROM effects")

    def test_stop_and_start(self):
        old = self.db.peer()
        self.db.sql("SELECT rinq_stop()")
        row = self.db.peer()
        self.assertEqual((row["state"], row["pid"], row["peer_id"]), ("stopped", None, None))
        self.db.sql("SELECT rinq_stop()")
        error = self.db.error("SELECT rinq_call('stop', 'x')")
        self.assertSqlState(error, "55000", "was stopped")
        self.assertRegex(error.text, "rinq_start")

        # durable messages are taken all the same
        message = self.db.value("SELECT rinq_execute('stop', 'x', '\"later\"')")
        self.assertEqual(self.db.value("SELECT id FROM rinq_outbox"), message)
        self.db.sql("SELECT rinq_start()")
        self.assertNotEqual(self.db.wait_peer()["peer_id"], old["peer_id"])
        self.assertEqual(self.remote.call("stop", "x", 1, timeout=20), 1)
        wait_until(self.effects, lambda e: "later" in e)
        self.db.sql("SELECT rinq_start()")
        self.assertEqual(self.remote.call("stop", "x", 1), 1)

    def test_call_right_after_start(self):
        self.db.sql("SELECT rinq_stop()")
        with self.db.session() as session:
            session.execute("SELECT rinq_start()")
            self.assertEqual(session.value("SELECT rinq_call('stop', 'x', '3', '20s')"), "3")

    def test_graceful_stop_finishes_what_runs(self):
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(79)")
            messages = [self.remote.call_async("stop", "gate", i) for i in range(6)]
            self.in_handler(2)
            stop = self.db.start("SELECT rinq_stop()")
            self.stopping()
            self.assertFalse(stop.done)
            self.assertSqlState(self.db.error("SELECT rinq_call('stop', 'x')"), "08001", "connection")
            wait_until(lambda: self.remote.queue_depth("cmd.stop"), lambda n: n == 4)
        self.assertEqual(sorted(self.remote.response(m, timeout=10).result() for m in messages[:2]), [0, 1])
        stop.result()
        self.assertEqual(self.effects(), "0,1")
        self.assertEqual(self.remote.queue_depth("cmd.stop"), 4)
        self.db.sql("SELECT rinq_start()")
        self.assertEqual([self.remote.response(m, timeout=20).result() for m in messages[2:]], [2, 3, 4, 5])

    def test_handler_that_calls_gets_its_response(self):
        release = threading.Event()
        entered = threading.Event()
        other = self.peer()

        def slow(request):
            entered.set()
            release.wait(20)
            return request.payload
        other.serve("elsewhere", slow)
        message = self.remote.call_async("stop", "nested", 7)
        self.assertTrue(entered.wait(10))
        stop = self.db.start("SELECT rinq_stop()")
        self.stopping()
        release.set()
        self.assertEqual(self.remote.response(message, timeout=10).result(), 7)
        stop.result()

    def test_call_that_waits_gets_its_response(self):
        release = threading.Event()
        other = self.peer()
        other.serve("elsewhere", lambda request: release.wait(20) and request.payload)
        call = self.db.start("SELECT rinq_call('elsewhere', 'slow', '8', '20s')")
        other.wait_requests(where=lambda request: request.payload == 8)
        stop = self.db.start("SELECT rinq_stop()")
        self.stopping()
        release.set()
        self.assertEqual(call.result(), [["8"]])
        stop.result()

    def test_what_does_not_end_in_time_is_rolled_back(self):
        self.server.configure(**{"rinq.shutdown_timeout": "300"})
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(79)")
            message = self.remote.call_async("stop", "gate", "x")
            self.in_handler(1)
            self.db.sql("SELECT rinq_stop()")
            self.assertEqual(self.db.value("SELECT count(*) FROM effects"), "0")
            wait_until(lambda: self.remote.queue_depth("cmd.stop"), lambda n: n == 1)
        self.db.sql("SELECT rinq_start()")
        self.assertEqual(self.remote.response(message, timeout=20).result(), "x")

    def test_stop_at_once(self):
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(79)")
            message = self.remote.call_async("stop", "gate", "x")
            self.in_handler(1)
            graceful = self.db.start("SELECT rinq_stop()")
            self.stopping()
            self.db.sql("SELECT rinq_stop(false)")
            graceful.result()
            self.assertEqual(self.db.value("SELECT count(*) FROM effects"), "0")
        self.db.sql("SELECT rinq_start()")
        self.assertEqual(self.remote.response(message, timeout=20).result(), "x")

    def test_handler_stops_its_own_peer(self):
        self.assertEqual(self.remote.call("stop", "stop", "x", timeout=20), "x")
        self.db.wait_peer(lambda row: row["state"] == "stopped", description="the peer to stop")

    def test_interrupted_stop_goes_on(self):
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(79)")
            message = self.remote.call_async("stop", "gate", "x")
            self.in_handler(1)
            self.assertSqlState(self.db.error("SET statement_timeout = 100; SELECT rinq_stop()"), "57014")
        self.assertEqual(self.remote.response(message, timeout=10).result(), "x")
        self.db.wait_peer(lambda row: row["state"] == "stopped", description="the peer to stop")

    def shutdown(self, mode):
        """The server shuts down while a handler runs, and has its answer sent."""
        release = threading.Event()
        entered = threading.Event()
        other = self.peer()

        def slow(request):
            entered.set()
            release.wait(20)
            return request.payload
        other.serve("elsewhere", slow)
        message = self.remote.call_async("stop", "nested", mode)
        self.assertTrue(entered.wait(10))
        stopper = threading.Thread(target=self.server.stop, args=(mode,))
        mark = self.server.log_mark()
        stopper.start()
        self.server.wait_log("received %s shutdown request" % mode, mark)
        release.set()
        self.assertEqual(self.remote.response(message, timeout=10).result(), mode)
        stopper.join(30)
        self.assertFalse(self.server.running)
        self.server.start()
        self.db.wait_peer()
        self.assertEqual(self.effects(), mode)
        self.assertEqual(self.remote.queue_depth("cmd.stop"), 0)

    def test_fast_shutdown(self):
        self.shutdown("fast")

    def test_smart_shutdown(self):
        self.shutdown("smart")

    def test_shutdown_does_not_wait_for_long(self):
        self.server.configure(**{"rinq.shutdown_timeout": "300"})
        message = self.remote.call_async("stop", "nested", "x")
        self.in_handler(1, "nested")
        self.server.stop("fast")
        self.server.start()
        other = self.peer()
        other.serve("elsewhere", lambda request: request.payload)
        self.assertEqual(self.remote.response(message, timeout=30).result(), "x")
        self.assertEqual(self.effects(), "x")

    def test_started_again_with_the_server(self):
        self.db.sql("SELECT rinq_stop()")
        self.server.restart()
        self.db.wait_peer()

    def test_extension_made_anew_is_not_stopped(self):
        db = self.database()
        db.sql("SELECT rinq_stop()")
        db.sql("DROP EXTENSION rinq")
        db.sql("CREATE EXTENSION rinq")
        db.wait_peer()

    def test_dropped_extension_lets_calls_end(self):
        """The peer stops in order, although the mailbox of durable calls has gone."""
        release = threading.Event()
        self.server.configure(**{"rinq.shutdown_timeout": "60s"})
        other = self.peer()
        other.serve("elsewhere", lambda request: request.command == "once" or release.wait(20) and request.payload)
        db = self.database()
        db.handler("handle", "RETURN NULL;")
        db.listen("dropping", "handle")
        db.sql("SELECT rinq_wait_ready()")
        durable = db.value("SELECT rinq_call_durable('elsewhere', 'once')")
        self.assertEqual(db.value("SELECT (rinq_wait('%s', '20 s')).payload" % durable), "true")
        call = db.start("SELECT rinq_call('elsewhere', 'slow', '9', '20s')")
        other.wait_requests(where=lambda request: request.payload == 9)
        db.sql("DROP EXTENSION rinq CASCADE")
        wait_until(lambda: other.queue_consumers("cmd.dropping"), lambda count: count == 0, description="the peer to serve nothing any more")
        release.set()
        self.assertEqual(call.result(), [["9"]])
        self.assertNotIn("lost its connection", self.server.log_since(self.log_start))

    def test_database_is_dropped_while_stopped(self):
        db = self.database()
        db.sql("SELECT rinq_stop()")
        db.drop()

    def test_terminated_executor_ends_at_once(self):
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(79)")
            message = self.remote.call_async("stop", "gate", "x", timeout=30)
            self.in_handler(1)
            pid = self.db.value("SELECT pid FROM pg_stat_activity WHERE query = 'rinq: stop::gate' AND state = 'active'")
            self.db.sql("SELECT pg_terminate_backend(%s, 5000)" % pid)
            wait_until(lambda: self.db.value("SELECT count(*) FROM pg_stat_activity WHERE pid = %s" % pid), lambda n: n == "0", timeout=5)
        self.assertEqual(self.remote.response(message, timeout=20).result(), "x")
