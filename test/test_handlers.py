"""Handlers in trouble: what the executor does when one cannot finish."""

import concurrent.futures
import time

from rinqtest import case
from rinqtest.peer import CallTimeout, Failure, Raw, RemoteError
from rinqtest.waiting import wait_until

# a sequence counts the tries, since rolling back leaves it alone
BODY = """CASE req.command
    WHEN 'until' THEN
      INSERT INTO effects VALUES (1);
      IF nextval('tries') < (req.payload #>> '{}')::int THEN
        RAISE EXCEPTION 'try again' USING ERRCODE = '40001';
      END IF;
      RETURN req.payload;
    WHEN 'deadlock' THEN
      IF nextval('tries') < 3 THEN RAISE EXCEPTION 'try again' USING ERRCODE = '40P01'; END IF;
      RETURN req.payload;
    WHEN 'other' THEN PERFORM nextval('tries'); RAISE EXCEPTION 'not again' USING ERRCODE = '22012';
    WHEN 'at-commit' THEN INSERT INTO late VALUES (1); RETURN req.payload;
  END CASE;"""


class Handlers(case.PeerCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db.sql("CREATE TABLE effects (x int)")
        cls.db.sql("CREATE TABLE late (x int)")
        cls.db.sql("CREATE SEQUENCE tries")
        cls.db.sql("""CREATE FUNCTION fail_late() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
              IF nextval('tries') < 3 THEN RAISE EXCEPTION 'try again' USING ERRCODE = '40001'; END IF;
              RETURN NULL;
            END $$""")
        cls.db.sql("""CREATE CONSTRAINT TRIGGER t AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION fail_late()""")
        cls.db.handler("trouble", BODY, "")
        cls.db.listen("trouble", "trouble")
        cls.remote.call("trouble", "until", 0, timeout=20)

    def setUp(self):
        super().setUp()
        self.db.sql("ALTER SEQUENCE tries RESTART")
        self.db.sql("TRUNCATE effects, late")

    def tries(self):
        return int(self.db.value("SELECT last_value FROM tries"))

    def test_serialization_failure_is_retried(self):
        self.assertEqual(self.remote.call("trouble", "until", 4, timeout=20), 4)
        self.assertEqual(self.tries(), 4)
        self.assertEqual(int(self.db.value("SELECT count(*) FROM effects")), 1)

    def test_deadlock_is_retried(self):
        self.assertEqual(self.remote.call("trouble", "deadlock", "x", timeout=20), "x")
        self.assertEqual(self.tries(), 3)

    def test_failure_at_commit_is_retried(self):
        self.assertEqual(self.remote.call("trouble", "at-commit", "x", timeout=20), "x")
        self.assertEqual(self.tries(), 3)
        self.assertEqual(int(self.db.value("SELECT count(*) FROM late")), 1)

    def test_other_errors_are_not(self):
        with self.assertRaisesRegex(RemoteError, "not again"):
            self.remote.call("trouble", "other", timeout=20)
        self.assertEqual(self.tries(), 1)

    def test_without_deadline_tries_are_counted(self):
        message = self.remote.call_async("trouble", "until", 1000)
        with self.assertRaisesRegex(RemoteError, "try again"):
            self.remote.response(message, timeout=30).result()
        self.assertEqual(self.tries(), 10)


class Limits(case.Case):
    """At most so many requests of a namespace are handled at the same time."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.db.sql("CREATE TABLE served (n serial, x jsonb)")
        cls.db.handler("gate", "PERFORM pg_advisory_xact_lock_shared(78); INSERT INTO served (x) VALUES (req.payload); RETURN req.payload;")
        cls.db.handler("echo", "RETURN req.payload;")
        cls.db.listen("free", "echo")
        cls.remote = cls.world.peer(prefetch=100)
        cls.remote.call("free", "x", timeout=20)

    @classmethod
    def tearDownClass(cls):
        cls.remote.close()
        cls.db.drop()

    def setUp(self):
        super().setUp()
        self.db.sql("TRUNCATE served RESTART IDENTITY")

    def listen(self, namespace, limit):
        self.db.sql("SELECT rinq_listen('%s', 'gate(rinq_request)', max_concurrent => %s)" % (namespace, limit))
        self.remote.call(namespace, "x", "first", timeout=20)
        self.db.sql("TRUNCATE served RESTART IDENTITY")

    def waiting(self, namespace, count):
        return wait_until(lambda: int(self.db.value("SELECT count(*) FROM pg_stat_activity WHERE query = 'rinq: %s::x'"
                                                    " AND wait_event = 'advisory'" % namespace)), lambda n: n == count)

    def test_limit(self):
        self.listen("two", 2)
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(78)")
            messages = [self.remote.call_async("two", "x", i) for i in range(10)]
            self.waiting("two", 2)
            # they do not starve others, and their number stays
            for i in range(20):
                self.assertEqual(self.remote.call("free", "x", i), i)
            self.waiting("two", 2)
            # a new limit is in effect at once
            self.db.sql("SELECT rinq_listen('two', 'gate(rinq_request)', max_concurrent => 3)")
            self.waiting("two", 3)
        self.assertEqual([self.remote.response(m, timeout=20).result() for m in messages], list(range(10)))

    def test_one_at_a_time_keeps_order(self):
        self.listen("one", 1)
        messages = [self.remote.call_async("one", "x", i) for i in range(100)]
        for message in messages:
            self.remote.response(message, timeout=20).result()
        self.assertEqual(self.db.value("SELECT string_agg(x #>> '{}', ',' ORDER BY n) FROM served"),
                         ",".join(str(i) for i in range(100)))

    def test_deadline_passes_while_it_waits_for_its_turn(self):
        self.listen("late", 1)
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(78)")
            first = self.remote.call_async("late", "x", 1)
            self.waiting("late", 1)
            expired = int(self.db.value("SELECT requests_expired FROM rinq_peer"))
            self.remote.call_async("late", "x", 2, timeout=0.3)
            wait_until(lambda: int(self.db.value("SELECT requests_expired FROM rinq_peer")), lambda n: n == expired + 1)
        self.assertEqual(self.remote.response(first, timeout=20).result(), 1)
        self.assertEqual(self.remote.call("late", "x", 3, timeout=20), 3)
        self.assertEqual(self.db.value("SELECT string_agg(x #>> '{}', ',' ORDER BY n) FROM served"), "1,3")

    def test_unlistening_gives_back_what_waits(self):
        self.listen("left", 1)
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(78)")
            first = self.remote.call_async("left", "x", 1)
            self.waiting("left", 1)
            second = self.remote.call_async("left", "x", 2)
            self.db.sql("SELECT rinq_unlisten('left')")
            wait_until(lambda: self.remote.queue_depth("cmd.left"), lambda n: n == 1)
        self.assertEqual(self.remote.response(first, timeout=20).result(), 1)
        self.db.listen("left", "gate")
        self.assertEqual(self.remote.response(second, timeout=20).result(), 2)

    def test_bad_limit(self):
        for limit in ("0", "-1"):
            self.assertSqlState(self.db.error("SELECT rinq_listen('bad', 'gate(rinq_request)', %s)" % limit), "22023", "max_concurrent")


class Nested(case.Case):
    """Handlers that call back into their own database, with more of them than executors."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.db.handler("inner", "RETURN req.payload;")
        cls.db.handler("outer", "PERFORM pg_sleep(0.05); RETURN rinq_call(req.command, 'x', req.payload, '20s');")
        for namespace, handler in (("nested.inner", "inner"), ("nested.outer", "outer")):
            cls.db.listen(namespace, handler)
        cls.remote = cls.world.peer(prefetch=100)
        cls.other = cls.world.peer(prefetch=100)
        cls.other.serve("nested.between", lambda request: cls.other.call("nested.inner", "x", request.payload, timeout=2))
        cls.remote.call("nested.inner", "x", timeout=20)

    @classmethod
    def tearDownClass(cls):
        cls.other.close()
        cls.remote.close()
        cls.db.drop()

    def flood(self, command, count, timeout, namespace="nested.outer"):
        """How the calls end, all of which are made at the same time."""
        def call(number):
            try:
                return self.remote.call(namespace, command, number, timeout=timeout)
            except (CallTimeout, RemoteError) as error:
                return error
        with concurrent.futures.ThreadPoolExecutor(count) as pool:
            return list(pool.map(call, range(count)))

    def test_full_pool_fails_by_the_deadline(self):
        for command in ("nested.inner", "nested.between"):
            begun = time.monotonic()
            self.flood(command, 12, 1.5)
            self.assertLess(time.monotonic() - begun, 6)
            wait_until(lambda: self.db.value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'rinq: nested%' AND state = 'active'"),
                       lambda n: n == "0")
            self.assertEqual(self.remote.call("nested.outer", command, 7, timeout=20), 7)

    def test_limit_leaves_executors_for_the_inner_calls(self):
        self.db.sql("SELECT rinq_listen('nested.limited', 'outer(rinq_request)', max_concurrent => 2)")
        self.assertEqual(self.flood("nested.inner", 16, 20, "nested.limited"), list(range(16)))


class Unsendable(case.OwnDatabaseCase):
    """What a handler answers, and cannot be sent as it is."""

    def test_error_that_cannot_be_sent(self):
        """It is answered all the same, instead of coming again for ever."""
        db = self.database(encoding="EUC_JP")
        starts = self.counting("unsendable", "RAISE EXCEPTION 'bad %', convert_from('\\xa9a1'::bytea, 'EUC_JP');", db)
        with self.assertRaises(RemoteError):
            self.remote.call("unsendable", "x", timeout=20)
        self.assertEqual(starts(), 1)

    def test_failure_that_grows(self):
        """A failure passed on may be larger in our encoding than it came."""
        body = b"\x9a" + (2 * (1 << 20)).to_bytes(4, "big") + b"\xf9\x2e\x66" * (2 * (1 << 20))
        served = []

        def fail(request):
            served.append(request)
            raise Failure("grow", "m", Raw(body))
        self.remote.serve("grower", fail)
        self.db.handler("relay", "RETURN rinq_call('grower', 'x', NULL, '20 s');")
        self.db.listen("relay", "relay")
        with self.assertRaises(RemoteError):
            self.peer().call("relay", "x", timeout=30)
        self.assertEqual(len(served), 1)
