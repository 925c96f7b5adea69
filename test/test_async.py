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
        """A subquery in ARRAY, or an aggregate, makes all calls before the first is awaited."""
        calls = "SELECT i AS item, rinq_call_async('anap', 'x', to_jsonb(i)) AS id FROM generate_series(1, 8) i"
        for query in ("SELECT rinq_await(id)::int AS x FROM unnest(ARRAY(SELECT id FROM (%s) c)) AS id",
                      "SELECT rinq_await(c.id)::int AS x FROM unnest(ARRAY(SELECT id FROM (%s) c)) WITH ORDINALITY AS c (id, n) ORDER BY c.n",
                      "SELECT unnest(items) AS item, rinq_await(unnest(ids))::int AS x FROM (SELECT array_agg(item) AS items, array_agg(id) AS ids FROM (%s) c) s",
                      "SELECT payload::int AS x FROM rinq_await_all(ARRAY(SELECT id FROM (%s) c))"):
            start = time.monotonic()
            self.assertEqual(self.db.value("SELECT string_agg(x::text, ',' ORDER BY x) FROM (%s) all_of_it" % (query % calls)), "1,2,3,4,5,6,7,8", query)
            self.assertLess(time.monotonic() - start, 8 * 0.3 / 2, query)
        rows = self.db.sql("SELECT unnest(items) AS item, rinq_await(unnest(ids)) FROM (SELECT array_agg(i ORDER BY i) AS items,"
                           " array_agg(rinq_call_async('aecho', 'x', to_jsonb(i * 2)) ORDER BY i) AS ids FROM generate_series(1, 50) i) s")
        self.assertEqual(rows, [[str(i), str(i * 2)] for i in range(1, 51)], "in order")

    def test_plans_are_postgresqls_own(self):
        query = "SELECT rinq_await(id) FROM (SELECT i, rinq_call_async('aecho', 'x', to_jsonb(i)) AS id FROM generate_series(1, 5) i OFFSET 0) s WHERE i > 1"
        plan = "\n".join(row[0] for row in self.db.sql("EXPLAIN (VERBOSE) " + query))
        self.assertNotIn("Custom Scan", plan)
        self.assertEqual(self.db.sql("LOAD 'auto_explain'; SET auto_explain.log_min_duration = 0; SET auto_explain.log_verbose = on; SET client_min_messages = error; " + query),
                         [["2"], ["3"], ["4"], ["5"]])

    def test_fan_out_into_a_table(self):
        self.db.sql("CREATE TABLE gathered (x int)")
        self.db.sql("INSERT INTO gathered SELECT rinq_await(id)::int FROM unnest(ARRAY(SELECT rinq_call_async('aecho', 'x', to_jsonb(i))"
                    " FROM generate_series(1, 20) i)) AS id")
        self.db.sql("UPDATE gathered g SET x = s.y FROM (SELECT unnest(xs) AS x, rinq_await(unnest(ids))::int AS y FROM (SELECT array_agg(x) AS xs,"
                    " array_agg(rinq_call_async('aecho', 'x', to_jsonb(x + 1))) AS ids FROM gathered) c) s WHERE s.x = g.x")
        self.assertEqual(self.db.value("SELECT sum(x) FROM gathered"), "230")
        self.db.sql("DROP TABLE gathered")

    def test_awaited_twice(self):
        """The same answer, as often as it is asked for, until the transaction ends."""
        with self.db.session() as session:
            made = "SELECT rinq_call_async('%s', 'x', '7')"
            session.execute("BEGIN")
            good, bad = session.value(made % "aecho"), session.value(made % "afail")
            for _ in range(3):
                self.assertEqual(session.value("SELECT rinq_await('%s')" % good), "7")
            self.assertEqual(session.value("SELECT encode(rinq_await_raw('%s'), 'hex')" % good), "07")
            self.assertEqual(session.value("SELECT rinq_await_any(ARRAY['%s']::rinq_message_id[])" % good), good)
            self.assertEqual(session.value("SELECT rinq_cancel('%s')" % good), "f")
            self.assertEqual(session.execute("SELECT id, rinq_await(id) FROM (VALUES ('%s'::rinq_message_id)) v (id), generate_series(1, 2)" % good),
                             [[good, "7"], [good, "7"]])
            for _ in range(2):
                session.execute("SAVEPOINT s")
                self.assertSqlState(session.error("SELECT rinq_await('%s')" % bad), "RQ001", "no way")
                session.execute("ROLLBACK TO s")
            session.execute("COMMIT")
            for message in (good, bad):
                self.assertSqlState(session.error("SELECT rinq_await('%s')" % message), "42704")

    def test_awaited_in_a_row_that_is_checked_again(self):
        self.db.sql("CREATE TABLE stock (id int PRIMARY KEY, n int); INSERT INTO stock VALUES (1, 0), (2, 0)")
        statement = ("UPDATE stock SET n = n + s.y FROM (SELECT k, rinq_await(c)::int AS y FROM unnest(ARRAY[1, 2], ARRAY(SELECT"
                     " rinq_call_async('aecho', 'x', to_jsonb(i)) FROM generate_series(1, 2) i)) AS u (k, c)%s) s WHERE s.k = stock.id")
        for inner in ("", " OFFSET 0"):
            with self.db.session() as first, self.db.session() as second:
                first.execute("BEGIN; UPDATE stock SET n = 10")
                second.start(statement % inner)
                wait_until(lambda: self.db.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE stock%'"),
                           lambda n: n == "1")
                first.execute("COMMIT")
                second.finish()
            self.assertEqual(self.db.sql("SELECT n FROM stock ORDER BY id"), [["11"], ["12"]], inner)
        with self.db.session() as session:
            session.execute("BEGIN; DECLARE c SCROLL CURSOR FOR SELECT rinq_await(id) FROM unnest(ARRAY(SELECT rinq_call_async('aecho', 'x', to_jsonb(i))"
                            " FROM generate_series(1, 3) i)) AS id")
            self.assertEqual(session.execute("FETCH ALL FROM c"), [["1"], ["2"], ["3"]])
            self.assertEqual(session.execute("FETCH BACKWARD ALL FROM c"), [["3"], ["2"], ["1"]])
            self.assertEqual(session.execute("FETCH 2 FROM c"), [["1"], ["2"]])
        self.db.sql("DROP TABLE stock")

    def test_awaited_responses_make_room_first(self):
        self.addCleanup(self.server.configure, **{"rinq.max_async_calls": None})
        self.server.configure(**{"rinq.max_async_calls": "2"})
        with self.db.session() as session:
            wait_until(lambda: session.value("SHOW rinq.max_async_calls"), lambda v: v == "2")
            session.execute("BEGIN")
            kept, awaited = (session.value("SELECT rinq_call_async('aecho', 'x', '%d')" % i) for i in (1, 2))
            session.value("SELECT rinq_await_any(ARRAY['%s']::rinq_message_id[])" % kept)
            self.assertEqual(session.value("SELECT rinq_await('%s')" % awaited), "2")
            third = session.value("SELECT rinq_call_async('aecho', 'x', '3')")
            self.assertEqual(session.execute("SELECT rinq_await('%s'), rinq_await('%s')" % (kept, third)), [["1", "3"]])
            self.assertSqlState(session.error("SELECT rinq_await('%s')" % awaited), "42704")

    MANY = "SELECT ordinality, payload, sqlstate, type, message FROM rinq_call_many(%s)"

    def test_call_many(self):
        start = time.monotonic()
        rows = self.db.sql(self.MANY % "'anap', 'x', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 8) i)")
        self.assertEqual(rows, [[str(i), str(i), None, None, None] for i in range(1, 9)])
        self.assertLess(time.monotonic() - start, 8 * 0.3 / 2, "side by side, not one after another")
        self.assertEqual(self.db.sql(self.MANY % "'aecho', 'x', '{}'"), [])
        self.assertEqual(self.db.sql(self.MANY % "'aecho', 'x', ARRAY[NULL, 'null', '\"a\"']::jsonb[]"),
                         [["1", None, None, None, None], ["2", None, None, None, None], ["3", '"a"', None, None, None]])
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_call_many('aecho', 'x', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 600) i), '20 s') m"
                                       " WHERE m.payload = to_jsonb(m.ordinality)"), "600", "more than may be under way at a time")

    def test_call_many_with_bad_responses(self):
        """One bad answer throws none of the good ones away."""
        def mixed(request):
            if request.payload == 2:
                raise Failure("odd", "no way", {"a": 1})
            if request.payload == 3:
                raise RuntimeError("broken")
            if request.payload == 4:
                time.sleep(1)
            return "bad \0 text" if request.payload == 5 else request.payload

        self.remote.serve("amixed", mixed)
        with self.db.session() as session:
            rows = session.execute(self.MANY % "'amixed', 'x', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 6) i), '500 ms'")
            self.assertEqual([row[0] for row in rows], [str(i) for i in range(1, 7)])
            self.assertEqual((rows[0], rows[5]), (["1", "1", None, None, None], ["6", "6", None, None, None]))
            self.assertEqual(rows[1], ["2", '{"a": 1}', "RQ001", "odd", "no way"])
            self.assertEqual((rows[2][1:4], rows[3][1:4]), ([None, "RQ002", None], [None, "RQ003", None]))
            self.assertIn("timed out", rows[3][4])
            self.assertEqual((rows[4][1], rows[4][2][:2]), (None, "22"), rows[4])
            self.assertEqual(session.value("SELECT 1"), "1")

    def test_call_many_refused(self):
        for arguments, state in (("NULL, 'x', '{}'", "22004"), ("'aecho', NULL, '{}'", "22004"), ("'aecho', 'x', NULL", "22004"), ("'_sess', 'x', '{}'", "22023"),
                                 ("'aecho', 'x', '{1}', '-1 s'", "22023"), ("'aecho', 'x', '{1}', NULL, 'nonsense'", "22023"),
                                 ("'aecho', 'x', ARRAY[to_jsonb(repeat('x', 40000000))]", "54000")):
            self.assertSqlState(self.db.error(self.MANY % arguments), state)
        self.db.role("nosy")
        self.assertSqlState(self.db.error(self.MANY % "'aecho', 'x', '{1}'", role="nosy"), "42501")
        self.db.sql("DROP OWNED BY nosy; DROP ROLE nosy")

    def test_call_many_by_a_session(self):
        with self.db.session() as session:
            made = session.value("SELECT rinq_session_create()")
            self.assertEqual(session.execute("SELECT payload FROM rinq_call_many('aecho', 'x', '{1,2}', NULL, '%s')" % made), [["1"], ["2"]])
            self.assertEqual(len(self.published("cmd.bal", 2, where=lambda m: m.properties["message_id"].startswith(made + "@"))), 2)

    def test_call_many_cancelled_leaves_no_slots(self):
        with self.db.session() as session:
            for _ in range(6):
                self.assertSqlState(session.error("SET statement_timeout = '100 ms'; SELECT * FROM rinq_call_many('silent-e', 'x',"
                                                  " ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 250) i), '20 s')"), "57014")
            session.execute("RESET statement_timeout")
            self.assertEqual(session.value("SELECT count(*) FROM rinq_call_many('aecho', 'x', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 250) i))"
                                           " WHERE sqlstate IS NULL"), "250")

    def test_await_response_and_all(self):
        with self.db.session() as session:
            session.execute("BEGIN")
            calls = [session.value("SELECT rinq_call_async('%s', 'x', '%d', '20 s')" % (namespace, i)) for i, namespace in enumerate(("aecho", "afail", "silent-d"))]
            array = "ARRAY[%s]::rinq_message_id[]" % ", ".join("'%s'" % c for c in calls + ["58AEE146-191C.45@3#1"])
            expected = [["0", None, None, None], ['{"a": 1}', "RQ001", "odd", "no way"]]
            for call, row in zip(calls, expected):
                self.assertEqual(session.execute("SELECT payload, sqlstate, type, message FROM rinq_await_response('%s')" % call), [row])
            for _ in range(2):
                rows = session.execute("SELECT ordinality, id, payload, sqlstate, type, message FROM rinq_await_all(%s, '100 ms')" % array)
                self.assertEqual([row[:2] for row in rows], [[str(n + 1), c] for n, c in enumerate(calls + ["58AEE146-191C.45@3#1"])])
                self.assertEqual([row[2:] for row in rows[:2]], expected)
                self.assertEqual([row[3] for row in rows[2:]], ["RQ003", "42704"])
                self.assertRegex(rows[2][5], "no response to silent-d::x yet")
            self.assertEqual(session.execute("SELECT sqlstate FROM rinq_await_response('%s', '10 ms')" % calls[2]), [["RQ003"]])
            self.assertEqual(session.value("SELECT rinq_cancel('%s')" % calls[2]), "t")
            self.assertSqlState(session.error("SELECT rinq_await_response('%s')" % calls[2]), "42704")

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

    def test_limit_drops_the_oldest_response(self):
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
