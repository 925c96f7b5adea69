"""What the executor owes its callers and its server: true answers, and to be reachable whatever a handler does.

And what backends leave in shared memory when nobody looks.
"""

import os
import re
import signal

import cbor2
from rinqtest import case
from rinqtest.cluster import call_sql
from rinqtest.peer import CallTimeout, Failure, Raw, RemoteError
from rinqtest.proxy import BROKER
from rinqtest.waiting import wait_until

MEBIBYTE = 1024 * 1024


class Executor(case.PeerCase):
    @classmethod
    def make_world(cls):
        return case.new_world("executor", settings={"rinq.command_workers": "8", "rinq.payload_memory": "8MB", "rinq.max_calls": "16"})

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db.handler("nap", "PERFORM pg_sleep((req.payload #>> '{}')::float8); RETURN to_jsonb(pg_backend_pid());")
        cls.db.listen("nap", "nap")
        cls.remote.serve("fails", lambda request: request.payload())

    def executors(self, db):
        return int(db.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rinq executor' AND datname = current_database()"))

    def check_interrupts(self, db, remote, namespace):
        """Executors that have served the namespace are cancelled at the deadline, cancelled by hand, and leave for DROP DATABASE."""
        for _ in range(self.executors(db)):
            remote.call_async(namespace, "nap", 30, timeout=0.5)

        def napping():
            return int(db.value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'rinq:%nap' AND wait_event = 'PgSleep'"))
        wait_until(napping, lambda n: n > 0)
        wait_until(napping, lambda n: n == 0)
        message = remote.call_async(namespace, "nap", 30)
        pid = wait_until(lambda: db.value("SELECT max(pid) FROM pg_stat_activity WHERE query LIKE 'rinq:%nap' AND wait_event = 'PgSleep'"))
        db.sql("SELECT pg_cancel_backend(%s)" % pid)
        with self.assertRaisesRegex(RemoteError, "user request"):
            remote.response(message, timeout=10).result()
        db.drop(timeout=5)

    def trouble(self, db, namespace, cases):
        """A handler that naps, or raises one of several errors that cannot be sent."""
        db.handler("troubled", "CASE req.command WHEN 'nap' THEN PERFORM pg_sleep((req.payload #>> '{}')::float8); %s END CASE; RETURN NULL;"
                   % " ".join("WHEN %d THEN %s" % pair for pair in enumerate(cases)).replace("WHEN 0", "WHEN '0'").replace("WHEN 1", "WHEN '1'"))
        db.listen(namespace, "troubled")

    # errors that cannot be expressed

    def test_failure_that_grows_on_its_way(self):
        """A byte string becomes base64 on its way through jsonb, and then is too long."""
        db = self.database()
        payload = Raw(cbor2.dumps(bytes(1900000)))

        def fail():
            raise Failure("large", "too large to pass on", payload)
        self.trouble(db, "grows", ["PERFORM rinq_call('fails', 'x', timeout => '20 s');"])
        self.remote.serve("fails", lambda request: fail())
        for _ in range(3):
            with self.assertRaisesRegex(RemoteError, "cannot be sent"):
                self.remote.call("grows", "0", timeout=20)
        self.check_interrupts(db, self.remote, "grows")

    def test_text_that_has_no_form_in_utf8(self):
        db = self.database(encoding="WIN1252")
        self.trouble(db, "win", ["RAISE EXCEPTION '%', convert_from('\\x81', 'WIN1252');",
                                 "PERFORM rinq_fail('x', convert_from('\\x81', 'WIN1252'));"])
        for command in ("0", "1", "0"):
            with self.assertRaises(RemoteError):
                self.remote.call("win", command, timeout=20)
        self.check_interrupts(db, self.remote, "win")

    # answers and commits

    def flood(self, namespace, count, **options):
        messages = [self.remote.call_async(namespace, "x", number, **options) for number in range(count)]
        answered, failed = [], []
        for number, message in enumerate(messages):
            try:
                self.remote.response(message, timeout=60).result()
                answered.append(number)
            except (RemoteError, CallTimeout):
                failed.append(number)
        return answered, failed

    def rows(self, db):
        return sorted(int(row[0]) for row in db.sql("SELECT x FROM effects"))

    def test_responses_that_compete_for_memory(self):
        """What is committed is answered: 16 answers of which four fit at a time."""
        db = self.database()
        db.sql("CREATE TABLE effects (x int)")
        db.handler("large", "INSERT INTO effects VALUES ((req.payload #>> '{}')::int); RETURN to_jsonb(repeat('x', 1900000));")
        for deduplicate in ("false", "true"):
            db.sql("TRUNCATE effects; SELECT rinq_listen('large', 'large(rinq_request)', deduplicate => %s)" % deduplicate)
            answered, failed = self.flood("large", 16, timeout=60)
            self.assertEqual((answered, failed), (list(range(16)), []))
            self.assertEqual(self.rows(db), list(range(16)))

    def test_response_without_memory_is_rolled_back(self):
        db = self.database()
        db.sql("CREATE TABLE effects (x int); SET rinq.default_timeout = '1s'")
        db.handler("large", "INSERT INTO effects VALUES ((req.payload #>> '{}')::int); RETURN to_jsonb(repeat('x', 1900000));")
        db.listen("scarce", "large")
        self.remote.call("scarce", "x", -1, timeout=20)
        db.sql("TRUNCATE effects")
        self.remote.serve("hold", lambda request: "x" * 1900000)
        with db.session() as holder:
            # answers that nobody awaits keep their memory
            holder.execute("SELECT rinq_call_async('hold', 'x', timeout => '60 s') FROM generate_series(1, 4)")
            wait_until(lambda: db.error(call_sql("hold", "x", None, 5)).sqlstate, lambda state: state == "53400")
            with self.assertRaises(CallTimeout):
                self.remote.call("scarce", "x", 1, timeout=0.5)
            without_deadline = self.remote.call_async("scarce", "x", 2)
            with self.assertRaisesRegex(RemoteError, "payload_memory"):
                self.remote.response(without_deadline, timeout=20).result()
            self.assertEqual(self.rows(db), [])
            # nobody waits for the answer of this one, and it needs no memory
            self.remote.execute("scarce", "x", 3)
            wait_until(lambda: self.rows(db), lambda rows: rows == [3])
            waiting = self.remote.call_async("scarce", "x", 4, timeout=30)
            wait_until(lambda: db.value("SELECT count(*) FROM pg_stat_activity WHERE query = 'rinq: scarce::x' AND state = 'active'"), lambda n: n == "1")
        self.assertEqual(len(self.remote.response(waiting, timeout=30).result()), 1900000)
        self.assertEqual(self.rows(db), [3, 4])

    # the log

    def test_handler_ended_by_its_deadline(self):
        with self.assertRaises(CallTimeout):
            self.remote.call("nap", "x", 30, timeout=0.3)
        self.server.wait_log(r"LOG:  rinq ended a handler because the deadline of its request has passed\n.*CONTEXT:.*(\n.*)*nap", self.log_start)
        self.assertNotIn("canceling statement", self.server.log_since(self.log_start))

    def test_handler_ended_by_its_role_s_limit(self):
        db = self.database()
        db.sql("ALTER DATABASE %s SET statement_timeout = '200ms'" % db.name)
        db.handler("limited", "PERFORM pg_sleep(30); RETURN NULL;")
        db.listen("limited", "limited")
        with self.assertRaisesRegex(RemoteError, "statement timeout"):
            self.remote.call("limited", "x", timeout=20)

    def test_errors_before_the_handler(self):
        """Each is counted; so many are logged, and the number of the others."""
        db = self.database()
        db.handler("gone", "RETURN NULL;")
        db.handler("present", "RETURN NULL;")
        db.listen("gone", "gone")
        db.listen("present", "present")
        self.remote.call("present", "x", timeout=20)
        db.sql("DROP FUNCTION gone(rinq_request)")
        before = db.peer()["requests_unhandled"]

        def refused(namespace, payload, pattern):
            with self.assertRaisesRegex(RemoteError, pattern):
                self.remote.call(namespace, "x", payload, timeout=20)
        refused("gone", 1, "does not exist")
        refused("present", Raw(b"\xff"), "")
        refused("present", {"a": "\0"}, "")
        for _ in range(20):
            refused("gone", 1, "does not exist")
        self.assertEqual(db.peer()["requests_unhandled"], before + 23)
        log = self.server.log_since(self.log_start)
        self.assertEqual(len(re.findall(r"ERROR:  ", log)), 10)
        wait_until(lambda: refused("gone", 1, "does not exist") or self.server.log_since(self.log_start),
                   lambda log: "rinq did not log 13 errors" in log or re.search(r"rinq did not log [0-9]+ errors", log), timeout=15)

    # failures of others

    def test_failure_says_which_command_failed(self):
        def fail():
            raise Failure("unknown-item", "no such item", 1)
        self.remote.serve("stock", lambda request: fail())
        error = self.db.error(call_sql("stock", "count"))
        self.assertSqlState(error, "RQ001", "no such item")
        self.assertRegex(error.text, r"Failure type: unknown-item\n.*The failure was raised by the peer that served stock::count\.")
        self.assertEqual(self.db.error("SELECT rinq_fail('mine')").detail, "Failure type: mine")
        self.db.handler("passes_on", "RETURN rinq_call('stock', 'count');")
        self.db.listen("passes.on", "passes_on")
        with self.assertRaises(Failure) as caught:
            self.remote.call("passes.on", "x", timeout=20)
        self.assertEqual((caught.exception.kind, caught.exception.message), ("unknown-item", "no such item"))

    # what backends leave

    def test_calls_of_a_database_that_is_not_served_any_more(self):
        db = self.database()
        calls = "SELECT count(rinq_call_async('nobody', 'x', timeout => '60 s')) FROM generate_series(1, 16)"
        with db.session() as session:
            session.execute(calls)
            self.assertSqlState(db.error(call_sql("nobody", "x")), "53400", "too many calls")
            mark = self.server.log_mark()
            db.sql("DROP EXTENSION rinq")
            self.server.wait_log('for database "%s" stopped' % db.name, mark)
        db.sql("CREATE EXTENSION rinq")
        db.wait_peer()
        with db.session() as session:
            self.assertEqual(session.value(calls), "16")

    def test_more_sessions_than_the_inbox_has_room_for(self):
        """Connections come and go while the peer is stopped: it finds out by itself who is there."""
        db = self.database()
        pid = int(db.peer()["pid"])
        self.addCleanup(os.kill, pid, signal.SIGCONT)
        with db.session() as session:
            os.kill(pid, signal.SIGSTOP)
            session.execute("\n".join(["\\c", "SELECT rinq_session();"] * 600))
            last = session.value("SELECT rinq_session()")
            os.kill(pid, signal.SIGCONT)
            wait_until(lambda: db.sql("SELECT id FROM rinq_sessions"), lambda rows: rows == [[last]], timeout=20)
            self.assertGreater(int(db.peer()["events_missed"]), 0)

    def test_results_told_twice_of_responses_that_wait(self):
        """The inbox runs over while a response waits for room in the connection: it is sent once, when there is room."""
        db, remote = self.database(), self.remote
        pid = int(db.peer()["pid"])
        self.addCleanup(os.kill, pid, signal.SIGCONT)
        db.handler("large", "PERFORM pg_advisory_xact_lock_shared(1); RETURN to_jsonb(repeat('x', 200000));")
        db.listen("large", "large")
        executors = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'rinq executor' AND "
        with db.session() as holder:
            holder.execute("SELECT pg_advisory_lock(1)")
            calls = [remote.call_async("large", "x", None, timeout=60) for _ in range(2)]
            wait_until(lambda: db.value(executors + "wait_event = 'advisory'"), lambda count: int(count) == 2, timeout=20, description="two handlers")
            os.kill(pid, signal.SIGSTOP)
            # the first response is larger than any that the broker has taken: the second one waits until that is confirmed
            self.world.proxy.silence(BROKER)
            holder.execute("SELECT pg_advisory_unlock(1)")
            wait_until(lambda: db.value(executors + "state = 'active'"), lambda count: int(count) == 0, timeout=20, description="their results")
            holder.execute("\n".join(["\\c", "SELECT rinq_session();"] * 600))
        os.kill(pid, signal.SIGCONT)
        wait_until(lambda: int(db.peer()["events_missed"]), timeout=20, description="the inbox to run over")
        for call in calls:
            self.assertEqual(remote.response(call, timeout=20).result(), "x" * 200000)
        self.world.proxy.resume()
        self.assertEqual(remote.response(remote.call_async("large", "x", None, timeout=60), timeout=20).result(), "x" * 200000)
        self.assertEqual(int(db.peer()["pid"]), pid)

    # a limit of the listener's own, and by the setting

    def limited(self, setting=None, body="INSERT INTO effects VALUES (req.command); PERFORM pg_sleep((req.payload #>> '{}')::float8); RETURN req.payload;", **options):
        """A database that naps, or does something else, for at most so long."""
        db = self.database()
        db.sql("CREATE TABLE effects (x text)")
        if setting is not None:
            db.sql("ALTER DATABASE \"%s\" SET rinq.handler_timeout = '%s'" % (db.name, setting))
        db.handler("nap", body)
        db.sql("SELECT rinq_listen('limited', 'nap(rinq_request)'%s)" % "".join(", %s => %s" % option for option in options.items()))
        return db

    def limits_logged(self):
        return self.server.log_since(self.log_start).count("LOG:  rinq ended a handler: the handler took longer than its limit of 200 ms")

    def check_limited(self, db):
        """A call that may wait for long, one without a deadline, and an executed command, which is acknowledged; then another request."""
        for options in ({"timeout": 60}, {}):
            message = self.remote.call_async("limited", "called", 60, **options)
            with self.assertRaisesRegex(RemoteError, "longer than its limit of 200 ms"):
                self.remote.response(message, timeout=20).result()
        self.remote.execute("limited", "executed", 60)
        wait_until(self.limits_logged, lambda n: n == 3, 20, "three ends in the log")
        self.assertEqual(self.remote.call("limited", "next", 0, timeout=20), 0)
        wait_until(lambda: dict(self.world.broker.table("list_queues", "name", "messages"))["cmd.limited"], lambda n: n == "0", 20, "nothing left on the broker")
        self.assertEqual(db.sql("SELECT x FROM effects"), [["next"]])
        self.assertEqual(self.limits_logged(), 3)
        self.assertNotIn("canceling statement", self.server.log_since(self.log_start))

    def test_limit_of_the_listener(self):
        self.check_limited(self.limited(timeout="'200 ms'"))

    def test_limit_by_the_setting(self):
        self.check_limited(self.limited(setting="200ms"))

    def test_limit_of_the_listener_before_the_setting(self):
        self.check_limited(self.limited(setting="1ms", timeout="'200 ms'"))

    def test_deadline_before_the_limit(self):
        self.limited(timeout="'30 s'")
        with self.assertRaises(CallTimeout):
            self.remote.call("limited", "x", 60, timeout=0.3)
        self.server.wait_log("because the deadline of its request has passed", self.log_start)
        self.assertNotIn("longer than its limit", self.server.log_since(self.log_start))

    def test_deadline_of_a_request_that_failed_ends_no_other(self):
        """Listeners with and without a limit share an executor: what was set for one request is not left for the next."""
        self.server.configure(rinq__command_workers="1")
        self.addCleanup(self.server.configure, rinq__command_workers="8")
        db = self.limited(timeout="'30 s'", body="RAISE EXCEPTION 'no';")
        db.handler("free", "PERFORM pg_sleep(1.5); RETURN to_jsonb(pg_backend_pid());")
        db.listen("free", "free")
        pid = self.remote.call("free", "x", timeout=20)
        with self.assertRaisesRegex(RemoteError, "^no$"):
            self.remote.call("limited", "x", timeout=1)
        message = self.remote.call_async("free", "x")
        self.assertEqual(self.remote.response(message, timeout=20).result(), pid)

    def test_limit_counts_for_calls_of_the_handler(self):
        """A handler that waits for an answer is ended by its own limit, and the call that it made has that for a deadline."""
        self.limited(timeout="'200 ms'", body="RETURN rinq_call(req.command, 'x', timeout => '60 s');")
        deadlines = []
        self.remote.serve("outside", lambda request: deadlines.append(request.deadline))
        self.remote.call("limited", "outside", timeout=20)
        self.assertIsNotNone(deadlines[0])
        with self.assertRaisesRegex(RemoteError, "longer than its limit of 200 ms"):
            self.remote.call("limited", "nobody.there", timeout=20)

    def test_limit_counts_for_all_transactions_of_an_attempt(self):
        """A handler that fails by a serialization failure again and again."""
        db = self.limited(timeout="'200 ms'", body="RAISE EXCEPTION 'once more' USING errcode = '40001';")
        started = db.value("SELECT clock_timestamp()")
        message = self.remote.call_async("limited", "x", 0, timeout=60)
        with self.assertRaises(RemoteError):
            self.remote.response(message, timeout=30).result()
        self.assertLess(float(db.value("SELECT extract(epoch FROM clock_timestamp() - '%s')" % started)), 30)

    def test_limit_of_a_handler_that_does_not_end(self):
        """It catches the cancellation: its process ends, and the request is answered and not handled again."""
        db = self.limited(timeout="'200 ms'", body="""IF req.command = 'next' THEN RETURN 1; END IF;
            PERFORM nextval('handled');
            LOOP BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP;""")
        db.sql("CREATE SEQUENCE handled")
        message = self.remote.call_async("limited", "x", 0)
        with self.assertRaisesRegex(RemoteError, "longer than its limit of 200 ms"):
            self.remote.response(message, timeout=60).result()
        self.assertEqual(self.remote.call("limited", "next", 0, timeout=20), 1)
        self.assertEqual(db.value("SELECT last_value FROM handled"), "1")

    def test_limit_of_a_subscription(self):
        """Its handlers have no deadline and no argument for a limit: the setting is theirs, too."""
        db = self.limited(setting="200ms")
        db.sql("""CREATE FUNCTION hear(n rinq_notification) RETURNS void LANGUAGE plpgsql AS $$
            BEGIN INSERT INTO effects VALUES (n.type); PERFORM pg_sleep(CASE n.type WHEN 'long' THEN 60 ELSE 0 END); END $$;
            SELECT rinq_subscribe('heard', 'heard', 'hear(rinq_notification)', '{"kind": "heard"}')""")
        db.wait_subscription("heard")
        for kind in ("long", "short"):
            db.sql("SELECT rinq_notify_many('heard', '%s', '{kind=heard}')" % kind)
        wait_until(lambda: db.sql("SELECT x FROM effects"), lambda rows: rows == [["short"]], 20, "the next one")
        wait_until(self.limits_logged, lambda n: n == 1, 20, "the end in the log")
