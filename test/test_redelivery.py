"""Requests that come more than once: attempts are counted, and what was handled is not handled again."""

import time

from rinqtest import case
from rinqtest.peer import CallTimeout, Failure, RemoteError
from rinqtest.waiting import wait_until

BODY = """INSERT INTO effects VALUES (req.id);
  CASE req.command
    WHEN 'die' THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10);
    WHEN 'fail' THEN
      IF nextval('tries') < 2 THEN PERFORM rinq_fail('not-yet', 'later', to_jsonb(1)); END IF;
    WHEN 'gate' THEN PERFORM pg_advisory_xact_lock(77);
    ELSE NULL;
  END CASE;
  RETURN to_jsonb(nextval('answers'));"""


class Redelivery(case.PeerCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db.sql("CREATE TABLE effects (id text)")
        cls.db.sql("CREATE SEQUENCE tries")
        cls.db.sql("CREATE SEQUENCE answers")
        cls.db.handler("handle", BODY)
        cls.db.handler("nothing", "INSERT INTO effects VALUES (req.id); RETURN NULL;")
        cls.db.listen("plain", "handle")
        cls.db.sql("SELECT rinq_listen('once', 'handle(rinq_request)', deduplicate => true)")
        cls.db.sql("SELECT rinq_listen('once.nil', 'nothing(rinq_request)', deduplicate => true)")
        for namespace in ("plain", "once", "once.nil"):
            cls.remote.call(namespace, "x", timeout=20)

    @classmethod
    def tearDownClass(cls):
        cls.world.server.configure(**{"rinq.max_attempts": None, "rinq.dedup_retention": None})
        super().tearDownClass()

    def setUp(self):
        super().setUp()
        self.db.sql("TRUNCATE effects")
        self.db.sql("ALTER SEQUENCE tries RESTART")

    def effects(self, message):
        return int(self.db.value("SELECT count(*) FROM effects WHERE id = '%s'" % message))

    def again(self, namespace, command, message=None, payload=None):
        message = self.remote.call_async(namespace, command, payload, message=message)
        return message, self.remote.response(message, timeout=20)

    # attempts

    def test_request_that_ends_its_executor_is_given_up(self):
        self.server.configure(**{"rinq.max_attempts": "2"})
        message = self.remote.call_async("plain", "die", {"a": [1]}, trace="why")
        with self.assertRaisesRegex(RemoteError, "given up after 2 attempts"):
            self.remote.response(message, timeout=30).result()
        self.assertEqual(self.db.value("SELECT attempts FROM rinq_inbox_attempt WHERE id = '%s'" % message), "2")
        self.assertEqual(self.db.value("""SELECT concat_ws(',', namespace, command, rinq_from_cbor(payload), trace_id, attempts,
            handler, source = split_part(id, '#', 1), recorded > now() - interval '1 minute')
            FROM rinq_inbox_dead_letter WHERE id = '%s'""" % message),
            'plain,die,{"a": [1]},why,2,public.handle(public.rinq_request),t,t')

        # the others are served
        self.assertIsInstance(self.remote.call("plain", "x", timeout=20), int)

        # run again once the cause is removed
        self.db.sql("CREATE OR REPLACE FUNCTION handle(req rinq_request) RETURNS jsonb LANGUAGE plpgsql AS "
                    "$$ BEGIN INSERT INTO effects VALUES (req.id || req.command || req.payload || req.trace_id); RETURN NULL; END $$")
        self.assertEqual(self.db.value("SELECT rinq_inbox_dead_letter_retry('%s')" % message), "t")
        wait_until(lambda: self.db.value("SELECT count(*) FROM effects WHERE id = '%sdie{\"a\": [1]}why'" % message), lambda n: n == "1")
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_inbox_dead_letter"), "0")
        self.assertEqual(self.db.value("SELECT rinq_inbox_dead_letter_retry('%s')" % message), "f")
        self.assertEqual(self.db.value("SELECT current_setting('rinq.trace_id')"), "")
        self.db.sql("DROP FUNCTION handle(rinq_request)")
        self.db.handler("handle", BODY)

    def test_given_up_request_is_deleted(self):
        self.server.configure(**{"rinq.max_attempts": "1"})
        message = self.remote.call_async("plain", "die")
        with self.assertRaisesRegex(RemoteError, "given up after 1 attempts"):
            self.remote.response(message, timeout=30).result()
        self.assertEqual(self.db.value("SELECT payload IS NULL FROM rinq_inbox_dead_letter WHERE id = '%s'" % message), "t")
        self.assertEqual(self.db.value("SELECT rinq_inbox_dead_letter_delete('%s')" % message), "t")
        self.assertEqual(self.db.value("SELECT rinq_inbox_dead_letter_delete('%s')" % message), "f")

    def test_attempts_without_limit(self):
        self.server.configure(**{"rinq.max_attempts": "0"})
        message = self.remote.call_async("plain", "die", timeout=4)
        with self.assertRaises(CallTimeout):
            self.remote.response(message, timeout=5)
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_inbox_attempt WHERE id = '%s'" % message), "0")

    def test_bookkeeping_that_fails_does_not_stop_requests(self):
        self.server.configure(**{"rinq.max_attempts": "5"})
        self.db.sql("CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no room'; END $$")
        self.db.sql("CREATE TRIGGER refuse BEFORE INSERT ON rinq_internal.inbox_attempt FOR EACH ROW EXECUTE FUNCTION refuse()")
        self.addCleanup(self.db.sql, "DROP FUNCTION refuse() CASCADE")
        mark = self.server.log_mark()
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(77)")
            message = self.remote.call_async("plain", "gate")
            pid = wait_until(lambda: self.db.value("SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE query = 'rinq: plain::gate'"
                                                   " AND wait_event = 'advisory'"), lambda p: p != "0")
            self.db.sql("SELECT pg_terminate_backend(%s)" % pid)
            self.server.wait_log("is not used, because it is not as rinq made it", mark)
        self.assertIsInstance(self.remote.response(message, timeout=20).result(), int)

    def test_attempts_of_a_role_that_only_reads(self):
        self.server.configure(**{"rinq.max_attempts": "1"})
        self.db.role("only_reads")
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_listen(text, regprocedure, integer, boolean, interval, boolean, jsonb, text[]), rinq_unlisten(text) TO only_reads")
        self.db.handler("end_it", "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10); RETURN NULL;")
        self.db.listen("reads", "end_it", role="only_reads")
        self.db.sql("ALTER ROLE only_reads SET default_transaction_read_only = on")
        self.db.sql("ALTER ROLE only_reads SET default_transaction_isolation = 'serializable'")
        message = self.remote.call_async("reads", "x")
        with self.assertRaisesRegex(RemoteError, "given up after 1 attempts"):
            self.remote.response(message, timeout=30).result()
        self.assertEqual(self.db.value("SELECT rinq_inbox_dead_letter_delete('%s')" % message), "t")
        self.db.sql("SELECT rinq_unlisten('reads')")
        self.db.sql("DROP OWNED BY only_reads; DROP ROLE only_reads")

    # deduplication

    def test_handled_request_is_answered_again(self):
        message, first = self.again("once", "x")
        _, second = self.again("once", "x", message)
        self.assertEqual(first.result(), second.result())
        self.assertEqual(self.effects(message), 1)
        self.assertEqual(self.db.value("SELECT namespace FROM rinq_inbox_handled WHERE id = '%s'" % message), "once")

    def test_nil_is_answered_again(self):
        message, first = self.again("once.nil", "x")
        _, second = self.again("once.nil", "x", message)
        self.assertEqual((first.body, second.body), (b"", b""))
        self.assertEqual(self.effects(message), 1)

    def test_without_deduplication_it_is_handled_again(self):
        message, first = self.again("plain", "x")
        _, second = self.again("plain", "x", message)
        self.assertNotEqual(first.result(), second.result())
        self.assertEqual(self.effects(message), 2)

    def test_failed_request_is_handled_again(self):
        message, first = self.again("once", "fail")
        with self.assertRaises(Failure):
            first.result()
        _, second = self.again("once", "fail", message)
        self.assertIsInstance(second.result(), int)
        self.assertEqual(self.effects(message), 1)

    def test_request_that_is_being_handled(self):
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(77)")
            message = self.remote.call_async("once", "gate")
            self.remote.call_async("once", "gate", message=message)
            wait_until(lambda: self.db.value("SELECT count(*) FROM pg_stat_activity WHERE query = 'rinq: once::gate'"
                                             " AND wait_event_type = 'Lock'"), lambda n: n == "2")
        answers = [self.remote.response(message, timeout=20).result() for _ in range(2)]
        self.assertEqual(answers[0], answers[1])
        self.assertEqual(self.effects(message), 1)

    def test_executor_killed_while_it_handles(self):
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(77)")
            message = self.remote.call_async("once", "gate")
            pid = wait_until(lambda: self.db.value("SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE query = 'rinq: once::gate'"
                                                   " AND wait_event = 'advisory'"), lambda p: p != "0")
            self.db.sql("SELECT pg_terminate_backend(%s)" % pid)
        self.assertIsInstance(self.remote.response(message, timeout=20).result(), int)
        self.assertEqual(self.effects(message), 1)

    def test_old_entries_are_deleted(self):
        message, _ = self.again("once", "x")
        self.server.configure(**{"rinq.dedup_retention": "1"})

        def entries():
            self.remote.call("plain", "x", timeout=20)
            return self.db.value("SELECT count(*) FROM rinq_inbox_handled WHERE id = '%s'" % message)
        wait_until(entries, lambda n: n == "0", timeout=15)
        self.server.configure(**{"rinq.dedup_retention": None})

    # what is a repetition

    def test_request_that_differs_is_no_repetition(self):
        """Anybody can send any id: what is asked for has to be the same as well."""
        self.db.sql("SELECT rinq_listen('once.other', 'handle(rinq_request)', deduplicate => true)")
        message, first = self.again("once", "x", payload={"amount": 1})
        answers = [first.result()]
        for namespace, command, payload in (("once.other", "x", {"amount": 1}), ("once", "y", {"amount": 1}),
                                            ("once", "x", {"amount": 2}), ("once", "x", None)):
            self.remote.call_async(namespace, command, payload, message=message)
            answers.append(self.remote.response(message, timeout=20).result())
        self.assertEqual(len(set(answers)), 5)
        self.assertEqual(self.effects(message), 5)
        _, again = self.again("once", "x", message, {"amount": 1})
        self.assertEqual(again.result(), answers[0])
        self.assertEqual(self.effects(message), 5)

    def test_response_that_is_not_wanted_is_not_kept(self):
        message = self.remote.execute("once", "x")
        wait_until(lambda: self.effects(message), lambda n: n == 1)
        self.assertEqual(self.db.value("SELECT payload IS NULL FROM rinq_inbox_handled WHERE id = '%s'" % message), "t")

    def test_attempts_at_another_request_of_the_same_id(self):
        self.server.configure(**{"rinq.max_attempts": "2"})
        message = self.remote.call_async("plain", "die", 1)
        with self.assertRaisesRegex(RemoteError, "given up after 2 attempts"):
            self.remote.response(message, timeout=30).result()
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(77)")
            self.remote.call_async("plain", "gate", message=message)
            pid = wait_until(lambda: self.db.value("SELECT coalesce(max(pid), 0) FROM pg_stat_activity WHERE query = 'rinq: plain::gate'"
                                                   " AND wait_event = 'advisory'"), lambda p: p != "0")
            self.db.sql("SELECT pg_terminate_backend(%s)" % pid)
        self.assertIsInstance(self.remote.response(message, timeout=20).result(), int)

        # none hides another one, and they are dealt with in the order in which they came
        self.remote.call_async("plain", "die", 2, message=message)
        with self.assertRaisesRegex(RemoteError, "given up after 2 attempts"):
            self.remote.response(message, timeout=30).result()
        payloads = "SELECT string_agg(rinq_from_cbor(payload)::text, ',' ORDER BY recorded) FROM rinq_inbox_dead_letter WHERE id = '%s'" % message
        self.assertEqual(self.db.value(payloads), "1,2")
        self.assertEqual(self.db.value("SELECT rinq_inbox_dead_letter_delete('%s')" % message), "t")
        self.assertEqual(self.db.value(payloads), "2")
        self.db.sql("SELECT rinq_unlisten('plain')")
        self.assertEqual(self.db.value("SELECT rinq_inbox_dead_letter_retry('%s')" % message), "t")
        self.assertIsNone(self.db.value(payloads))
        self.assertEqual(self.db.value("SELECT rinq_inbox_waiting_delete('%s')" % message), "t")
        self.db.listen("plain", "handle")


class Bounds(case.Case):
    """What is remembered of requests is bounded in time, number and size."""

    def setUp(self):
        super().setUp()
        self.db = self.database()
        self.addCleanup(self.server.configure, **{"rinq.dedup_retention": None, "rinq.dedup_max_requests": None, "rinq.dedup_max_size": None})
        self.db.sql("CREATE TABLE effects (id text)")
        self.db.handler("large", "INSERT INTO effects VALUES (req.id); RETURN to_jsonb(req.id || repeat('x', (req.payload #>> '{}')::int));")
        self.db.sql("SELECT rinq_listen('bounded', 'large(rinq_request)', deduplicate => true)")
        self.remote = self.peer()

    def request(self, payload, message=None):
        message = self.remote.call_async("bounded", "x", payload, message=message)
        return message, self.remote.response(message, timeout=20)

    def kept(self, what="count(*)", expected=None):
        return wait_until(lambda: int(self.db.value("SELECT %s FROM rinq_internal.inbox_handled" % what)), expected or (lambda n: True))

    def test_purge_keeps_up(self):
        """One request, and then none: all that is old goes nevertheless."""
        self.db.sql("INSERT INTO rinq_internal.inbox_handled (id, digest, namespace, handled)"
                    " SELECT i, '', 'old', now() - interval '2 days' FROM generate_series(1, 30000) i")
        self.db.sql("INSERT INTO rinq_internal.inbox_attempt (id, digest, attempts, first, last)"
                    " SELECT i, '', 2, now() - interval '2 days', now() - interval '2 days' FROM generate_series(1, 5000) i")
        self.request(1)
        self.kept(expected=lambda n: n == 1)
        wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_internal.inbox_attempt"), lambda n: n == "0")

    def test_number(self):
        self.server.configure(**{"rinq.dedup_max_requests": "20"})
        mark = self.server.log_mark()
        messages = [self.request(1)[0] for _ in range(50)]
        self.kept(expected=lambda n: n <= 20)
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_internal.inbox_handled WHERE id = '%s'" % messages[0]), "0")
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_internal.inbox_handled WHERE id = '%s'" % messages[-1]), "1")
        self.assertEqual(self.server.log_since(mark).count("before \"rinq.dedup_retention\" has passed"), 1)

    def test_size(self):
        """The oldest responses go; that their requests were handled is known."""
        self.server.configure(**{"rinq.dedup_max_size": "1"})
        requests = [self.request(200000) for _ in range(12)]
        self.kept("coalesce(sum(octet_length(payload)), 0)", lambda n: n <= 1048576)
        self.assertEqual(self.kept(), 12)
        self.assertGreaterEqual(self.kept("count(payload)"), 4)
        with self.assertRaisesRegex(RemoteError, "handled before, and its response is not kept"):
            self.request(200000, requests[0][0])[1].result()
        self.assertEqual(self.request(200000, requests[-1][0])[1].result(), requests[-1][1].result())
        self.assertEqual(self.db.value("SELECT count(*) FROM effects"), "12")

    def test_table_that_somebody_has_emptied(self):
        """What is counted is found out anew."""
        self.server.configure(**{"rinq.dedup_max_requests": "20"})
        for _ in range(20):
            self.request(1)
        self.db.sql("TRUNCATE rinq_internal.inbox_handled")
        for _ in range(25):
            self.request(1)
        self.kept(expected=lambda n: 15 <= n <= 20)


class Dying(case.OwnDatabaseCase):
    """Handlers that end their process."""

    def test_handler_that_always_dies(self):
        """Its request does not come again as fast as it can."""
        starts = self.counting("dies", "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10); RETURN NULL;")
        self.remote.execute("dies", "x")
        wait_until(starts, lambda count: count >= 3, timeout=20, description="the third start")
        begin = time.monotonic()
        before = starts()
        wait_until(starts, lambda count: count >= before + 2, timeout=20, description="two more starts")
        self.assertGreater(time.monotonic() - begin, 0.8)
