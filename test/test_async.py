"""Asynchronous calls: made now, awaited later, in the same connection."""

import threading
import time

from rinqtest import case
from rinqtest.peer import Failure
from rinqtest.waiting import wait_until


class Async(case.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.remote = cls.world.peer(prefetch=0)
        cls.release = threading.Event()
        cls.remote.serve("aecho", lambda request: request.payload)
        cls.remote.serve("anap", lambda request: time.sleep(0.3) or request.payload)
        cls.remote.serve("afail", lambda request: (_ for _ in ()).throw(Failure("odd", "no way", {"a": 1})))
        cls.remote.serve("await", lambda request: cls.release.wait(20) and request.payload)

    @classmethod
    def tearDownClass(cls):
        cls.release.set()
        cls.remote.close()
        cls.db.drop()

    def test_message(self):
        with self.db.session() as session:
            message = session.value("SELECT rinq_call_async('aecho', 'go', '{\"a\": 1}')")
            request = self.published("cmd.bal", 1, where=lambda m: m.properties.get("message_id") == message)[0]
            self.assertEqual((request.properties["reply_to"], request.properties["priority"]), ("c", 1))
            self.assertEqual(session.value("SELECT rinq_await('%s')" % message), '{"a": 1}')
            self.assertSqlState(session.error("SELECT rinq_await('%s')" % message), "42704")

    def test_fan_out(self):
        start = time.monotonic()
        value = self.db.value("SELECT sum(rinq_await(id)::int) FROM unnest(ARRAY("
                              "SELECT rinq_call_async('anap', 'x', to_jsonb(i)) FROM generate_series(1, 8) i)) AS id")
        self.assertEqual(value, "36")
        self.assertLess(time.monotonic() - start, 8 * 0.3 / 2, "side by side, not one after another")

    def test_forms_of_fan_out(self):
        """However it is written, all calls are made before the first is awaited."""
        calls = "SELECT i, rinq_call_async('anap', 'x', to_jsonb(i)) AS id FROM generate_series(1, 8) i"
        for query in ("SELECT rinq_await(id)::int AS x FROM (%s) s ORDER BY i", "WITH c AS (%s) SELECT rinq_await(id)::int AS x FROM c",
                      "WITH c AS MATERIALIZED (%s) SELECT rinq_await(id)::int AS x FROM c", "SELECT a::int AS x FROM (%s) s, LATERAL rinq_await(s.id) a",
                      "SELECT rinq_await(id)::int AS x FROM (%s OFFSET 0) s WHERE i > 0", "SELECT rinq_await(id)::int AS x FROM (%s) s LIMIT 8",
                      "SELECT rinq_await(id)::int AS x FROM (SELECT * FROM (%s) inside WHERE i < 100) s",
                      "SELECT sum(rinq_await(id)::int) OVER (PARTITION BY i)::int AS x FROM (%s) s",
                      "SELECT rinq_await(id)::int AS x FROM (SELECT * FROM (%s LIMIT 8) t ORDER BY i) s",
                      "SELECT unnest(ARRAY[rinq_await(id)::int]) AS x FROM (%s) s",
                      "SELECT rinq_await(id)::int AS x FROM (%s UNION ALL SELECT 9, rinq_call_async('anap', 'x', '9')) s"):
            start = time.monotonic()
            value = self.db.value("SELECT string_agg(x::text, ',' ORDER BY x) FROM (%s) all_of_it" % (query % calls))
            self.assertTrue(value.startswith("1,2,3,4,5,6,7,8"), value)
            self.assertLess(time.monotonic() - start, 8 * 0.3 / 2, query)
        self.assertEqual(self.db.sql("SELECT i, rinq_await(id) FROM (SELECT i, rinq_call_async('aecho', 'x', to_jsonb(i * 2)) AS id"
                                     " FROM generate_series(1, 50) i) s"), [[str(i), str(i * 2)] for i in range(1, 51)], "in order")
        # in a function, again and again, and for other rows each time
        self.db.sql("""CREATE FUNCTION gather(n int) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN
            RETURN (SELECT sum(rinq_await(id)::int) FROM (SELECT rinq_call_async('aecho', 'x', to_jsonb(i)) AS id FROM generate_series(1, n) i) s); END $$""")
        self.assertEqual(self.db.value("SELECT string_agg(gather(n)::text, ',') FROM generate_series(1, 8) n"), "1,3,6,10,15,21,28,36")
        self.assertEqual(self.db.value("SELECT string_agg((SELECT sum(rinq_await(id)::int) FROM (SELECT rinq_call_async('aecho', 'x', to_jsonb(i)) AS id"
                                       " FROM generate_series(1, n) i) s)::text, ',') FROM generate_series(1, 4) n"), "1,3,6,10")
        plan = "\n".join(row[0] for row in self.db.sql("EXPLAIN (VERBOSE) SELECT rinq_await(id) FROM (%s) s" % calls))
        self.assertIn("RinqGather", plan)
        self.assertNotIn("RinqGather", "\n".join(row[0] for row in self.db.sql("EXPLAIN SELECT id FROM (%s) s" % calls)))

    def test_fan_out_into_a_table(self):
        self.db.sql("CREATE TABLE gathered (x int)")
        self.db.sql("INSERT INTO gathered SELECT rinq_await(id)::int FROM (SELECT rinq_call_async('aecho', 'x', to_jsonb(i)) AS id"
                    " FROM generate_series(1, 20) i) s")
        self.db.sql("UPDATE gathered g SET x = s.y FROM (SELECT x, rinq_await(id)::int AS y FROM (SELECT x, rinq_call_async('aecho', 'x', to_jsonb(x + 1)) AS id"
                    " FROM gathered) c) s WHERE s.x = g.x")
        self.assertEqual(self.db.value("SELECT sum(x) FROM gathered"), "230")
        with self.db.session() as session:
            session.execute("BEGIN; DECLARE c CURSOR FOR SELECT rinq_await(id)::int FROM (SELECT rinq_call_async('aecho', 'x', to_jsonb(i)) AS id"
                            " FROM generate_series(1, 5) i) s")
            self.assertEqual(session.execute("FETCH 2 FROM c"), [["1"], ["2"]])
            self.assertEqual(session.execute("FETCH ALL FROM c"), [["3"], ["4"], ["5"]])

    def test_many(self):
        value = self.db.value("SELECT count(rinq_await(id)) FROM unnest(ARRAY("
                              "SELECT rinq_call_async('aecho', 'x', to_jsonb(i), '20 s') FROM generate_series(1, 200) i)) AS id")
        self.assertEqual(value, "200")

    def test_failures_and_rollback(self):
        with self.db.session() as session:
            session.execute("BEGIN")
            message = session.value("SELECT rinq_call_async('afail', 'x')")
            session.execute("ROLLBACK")
            error = session.error("SELECT rinq_await('%s')" % message)
            self.assertSqlState(error, "RQ001", "no way")
            self.assertEqual(session.value("SELECT payload FROM rinq_last_failure()"), '{"a": 1}')

    def test_timeouts(self):
        with self.db.session() as session:
            message = session.value("SELECT rinq_call_async('silent-a', 'x', NULL, '600 ms')")
            error = session.error("SELECT rinq_await('%s', '50 ms')" % message)
            self.assertSqlState(error, "RQ003", "yet")
            self.assertEqual(session.value("SELECT rinq_await_any(ARRAY['%s']::rinq_message_id[], '50 ms') IS NULL" % message), "t")
            error = session.error("SELECT rinq_await('%s')" % message)
            self.assertSqlState(error, "RQ003", "timed out")
            self.assertSqlState(session.error("SELECT rinq_await('%s')" % message), "42704")

    def test_any_and_cancel(self):
        self.release.clear()
        with self.db.session() as session:
            slow = session.value("SELECT rinq_call_async('await', 'x', '1', '20 s')")
            fast = session.value("SELECT rinq_call_async('aecho', 'x', '2', '20 s')")
            self.assertEqual(session.value("SELECT rinq_await_any(ARRAY['%s', '%s']::rinq_message_id[])" % (slow, fast)), fast)
            self.assertEqual(session.value("SELECT rinq_await('%s')" % fast), "2")
            dropped = self.db.peer()["responses_dropped"]
            self.assertEqual(session.value("SELECT rinq_cancel('%s')" % slow), "t")
            self.assertEqual(session.value("SELECT rinq_cancel('%s')" % slow), "f")
            self.release.set()
            wait_until(lambda: self.db.peer()["responses_dropped"], lambda n: n == dropped + 1)
            self.assertSqlState(session.error("SELECT rinq_await('%s')" % slow), "42704")

    def test_cancelled_query_leaves_the_call(self):
        self.release.clear()
        with self.db.session() as session:
            message = session.value("SELECT rinq_call_async('await', 'x', '7', '20 s')")
            self.assertSqlState(session.error("SET statement_timeout = '100 ms'; SELECT rinq_await('%s')" % message), "57014")
            self.release.set()
            session.execute("RESET statement_timeout")
            self.assertEqual(session.value("SELECT rinq_await('%s')" % message), "7")

    def test_limit_drops_the_oldest_answer(self):
        self.addCleanup(self.server.configure, **{"rinq.max_async_calls": None})
        self.server.configure(**{"rinq.max_async_calls": "2"})
        with self.db.session() as session:
            wait_until(lambda: session.value("SHOW rinq.max_async_calls"), lambda v: v == "2")
            first = session.value("SELECT rinq_call_async('aecho', 'x', '1')")
            second = session.value("SELECT rinq_call_async('silent-b', 'x', '2', '20 s')")
            session.value("SELECT rinq_await_any(ARRAY['%s']::rinq_message_id[])" % first)
            third = session.value("SELECT rinq_call_async('silent-b', 'x', '3', '20 s')")
            self.assertSqlState(session.error("SELECT rinq_await('%s')" % first), "42704")
            error = session.error("SELECT rinq_call_async('silent-b', 'x', '4', '20 s')")
            self.assertSqlState(error, "53400")
            self.assertIn("rinq.max_async_calls", error.detail)
            for message in (second, third):
                self.assertEqual(session.value("SELECT rinq_cancel('%s')" % message), "t")

    def test_ends_with_connection_and_peer(self):
        with self.db.session() as session:
            message = session.value("SELECT rinq_call_async('silent-c', 'x', NULL, '30 s')")
            old = self.db.peer()
            self.db.sql("SELECT pg_terminate_backend(pid) FROM rinq_peer")
            self.assertSqlState(session.error("SELECT rinq_await('%s')" % message), "08006")
            self.db.wait_new_peer(old)
        # no slot is left behind by connections that go
        for _ in range(3):
            self.db.sql("SELECT count(rinq_call_async('silent-c', 'x', NULL, '30 s')) FROM generate_series(1, 250)")
        for _ in range(3):
            self.db.sql("SELECT count(rinq_call_async('silent-c', 'x', NULL, '30 s')) FROM generate_series(1, 250)")
        self.assertEqual(self.db.value("SELECT rinq_call('aecho', 'x', '1')"), "1")
