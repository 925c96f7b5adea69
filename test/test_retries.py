"""Commands that fail: tried again by their listener's policy, then set aside; and what is set aside is handled again when somebody says so."""

import json
import os
import re
import signal
import struct
import time

import cbor2
from rinqtest import case, versions
from rinqtest.inbox import QUICK, SLOW, InboxLooks, failing_body
from rinqtest.peer import Failure, Raw, RemoteError
from rinqtest.waiting import wait_until

BODY = failing_body("req.id, req.attempt, req.trace_id", "command", "req") + " RETURN to_jsonb(req.attempt);"


class RetryCase(InboxLooks, case.PeerCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db.sql("CREATE TABLE effects (id text, attempt int, trace text); CREATE SEQUENCE attempts")
        cls.db.handler("handle", BODY)
        cls.db.handler("fine", "INSERT INTO effects VALUES (req.id, req.attempt); RETURN NULL;")
        cls.listen("quick", QUICK)
        cls.listen("none", None)
        cls.listen("once", QUICK, deduplicate="true")
        cls.db.sql("SELECT rinq_wait_ready()")

    @classmethod
    def listen(cls, namespace, policy, handler="handle", **options):
        more = "".join(", %s => %s" % pair for pair in options.items())
        cls.db.sql("SELECT rinq_listen('%s', '%s(rinq_request)', retry => %s%s)"
                   % (namespace, handler, "NULL" if policy is None else "'%s'" % json.dumps(policy), more))

    def setUp(self):
        super().setUp()
        self.db.sql("TRUNCATE effects; ALTER SEQUENCE attempts RESTART; DELETE FROM rinq_internal.inbox_dead_letter; DELETE FROM rinq_internal.inbox_waiting")

    def counters(self):
        row = self.db.peer()
        return row["requests_retried"], row["requests_set_aside"]


class Retries(RetryCase):
    def test_until_it_succeeds(self):
        before = self.counters()
        message = self.remote.execute("quick", "until", 3, trace="why")
        wait_until(self.effects, lambda rows: rows == [(message, 3)])
        self.assertEqual(self.attempts(), 3)
        self.assertEqual(self.db.value("SELECT trace FROM effects"), "why")
        self.settled()
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_inbox_dead_letter"), "0")
        self.assertEqual([after - was for after, was in zip(self.counters(), before)], [2, 0])

    def test_until_it_is_set_aside(self):
        before = self.counters()
        message = self.remote.execute("quick", "until", 9, trace="why")
        row = self.dead(message)
        self.assertEqual((row["attempts"], row["namespace"], row["command"], row["trace_id"]), (3, "quick", "until", "why"))
        self.assertEqual((row["sqlstate"], row["error"], row["detail"], row["hint"]), ("P0001", "not before attempt 9", "the detail", "the hint"))
        self.assertIn("PL/pgSQL function handle(rinq_request)", row["context"])
        self.assertLess(row["first_received"], row["last_attempt"])
        self.assertLessEqual(row["last_attempt"], row["recorded"])
        self.assertEqual((self.effects(), self.attempts()), ([], 3))
        self.settled()
        self.assertEqual([after - was for after, was in zip(self.counters(), before)], [2, 1])

    def test_without_a_policy(self):
        """Set aside at once: errors and failures alike."""
        for command, payload, state, text in (("until", 2, "P0001", "not before attempt 2"), ("fail", None, "RQ001", "sold out"),
                                              ("other", None, "20000", "case not found")):
            row = self.dead(self.remote.execute("none", command, payload))
            self.assertEqual((row["attempts"], row["sqlstate"], row["error"]), (1, state, text))
        self.assertEqual(self.effects(), [])

    def test_handler_that_asks_for_another_attempt(self):
        for namespace in ("quick", "none"):
            self.db.sql("TRUNCATE effects")
            message = self.remote.execute(namespace, "late")
            wait_until(self.effects, lambda rows: rows == [(message, 2)])
        row = self.dead(self.remote.execute("quick", "again"))
        self.assertEqual((row["attempts"], row["error"]), (3, "for ever"))
        row = self.dead(self.remote.execute("none", "again"))
        self.assertEqual(row["attempts"], 5, "rinq.max_attempts")

    def test_handler_that_asks_for_an_attempt_in_months(self):
        """Longer than any timeout may be."""
        self.db.handler("patient", "IF req.attempt = 1 THEN PERFORM rinq_retry('90 days', 'in spring'); END IF; INSERT INTO effects VALUES (req.id, req.attempt); RETURN NULL;")
        self.listen("patient", None, "patient")
        message = self.remote.execute("patient", "x")
        self.waiting(message, where="error = 'in spring' AND due - last_attempt BETWEEN '89 days' AND '91 days'")
        self.db.sql("SELECT rinq_inbox_waiting_retry('%s')" % message)
        wait_until(self.effects, lambda rows: rows == [(message, 2)])

    def test_handler_that_is_not_there(self):
        """Dropped, then made again: the policy covers that."""
        self.db.handler("moving", "INSERT INTO effects VALUES (req.id, req.attempt); RETURN NULL;")
        self.listen("moving", dict(QUICK, attempts=100), "moving")
        self.remote.call("moving", "x", timeout=20)
        self.db.sql("TRUNCATE effects; ALTER FUNCTION moving(rinq_request) RENAME TO moved; DROP FUNCTION moved(rinq_request)")
        message = self.remote.execute("moving", "x")
        row = self.waiting(message)
        self.assertEqual((row["error"], row["sqlstate"]), ("the handler does not exist", "42883"))
        self.db.handler("moved", "INSERT INTO effects VALUES (req.id, req.attempt); RETURN NULL;")
        wait_until(self.effects, lambda rows: [row[0] for row in rows] == [message])
        self.settled()

    def test_policy_that_allows_less_than_there_were(self):
        """What waits is tried once more, as was said when it failed; and what ends it is that attempt's error."""
        for policy in (None, dict(QUICK, attempts=2), QUICK):
            for handler, command in (("fine", "until"), ("handle", "until")):
                self.listen("less", dict(QUICK, attempts=1000))
                self.db.sql("SELECT rinq_wait_ready()")
                message = self.remote.execute("less", command, 1000)
                wait_until(lambda: self.db.value("SELECT attempts FROM rinq_inbox_waiting WHERE id = '%s'" % message), lambda n: n and int(n) > 5)
                self.listen("less", policy, handler)
                if handler == "fine":
                    wait_until(self.effects, lambda rows: [row[0] for row in rows] == [message])
                    self.db.sql("TRUNCATE effects")
                else:
                    self.assertEqual(self.dead(message)["error"], "not before attempt 1000")
                self.settled()

    def test_handler_that_may_not_run(self):
        """The role is gone, for all the listener knows: a caller is told, a command is written down."""
        if not versions.handlers_need_login():
            self.skipTest("handlers of roles without LOGIN run")
        role = self.db.role("leaving")
        self.db.sql("GRANT ALL ON effects TO leaving; GRANT ALL ON SEQUENCE attempts TO leaving;"
                    "GRANT EXECUTE ON FUNCTION rinq_listen TO leaving")
        self.db.sql("SELECT rinq_listen('leaving', 'handle(rinq_request)', retry => '%s')" % json.dumps(dict(QUICK, attempts=2)), role)
        self.assertEqual(self.remote.call("leaving", "ok", timeout=20), 1)
        self.db.sql("ALTER ROLE leaving NOLOGIN; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'leaving'")
        try:
            message = self.remote.execute("leaving", "ok")
            row = self.dead(message, 30)
            self.assertEqual((row["error"], row["attempts"]), ("the handler cannot be run", 2))
            with self.assertRaisesRegex(RemoteError, "the handler cannot be run"):
                self.remote.call("leaving", "ok", timeout=20)
            self.db.sql("ALTER ROLE leaving LOGIN; SELECT rinq_inbox_dead_letter_retry('%s')" % message)
            wait_until(self.effects, lambda rows: message in [row[0] for row in rows], 20)
        finally:
            self.db.sql("SELECT rinq_unlisten('leaving'); DROP OWNED BY leaving; DROP ROLE leaving")

    def test_payload_that_jsonb_cannot_hold(self):
        message = self.remote.next_id()
        payload = cbor2.dumps({"text": "a\0b"})
        self.remote.publish_raw("cmd.bal", "none", payload, {"n": "none", "c": "ok"}, message_id=message)
        row = self.dead(message)
        self.assertEqual((row["sqlstate"], bytes.fromhex(row["payload"][2:])), ("22P05", payload))

    def test_name_that_the_database_cannot_hold(self):
        """No attempt can get it right: set aside at once, with question marks."""
        db = self.database(encoding="LATIN1")
        db.handler("latin", "RETURN NULL;")
        db.sql("SELECT rinq_listen('latin', 'latin(rinq_request)', retry => '%s')" % json.dumps(QUICK))
        db.sql("SELECT rinq_wait_ready()")
        self.remote.execute("latin", "\u65e5")
        wait_until(lambda: db.sql("SELECT kind, attempts, replace(command, '?', '') FROM rinq_inbox_dead_letter"), lambda rows: rows == [["command", "1", ""]], 15)

    def test_calls_are_answered(self):
        """A caller hears of the error, once, and nothing is kept."""
        with self.assertRaisesRegex(RemoteError, "not before attempt 2"):
            self.remote.call("quick", "until", 2, timeout=20)
        self.assertEqual(self.attempts(), 1)
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_inbox_dead_letter"), "0")

    def test_deadline(self):
        """No attempt is made after it."""
        message = self.remote.execute("none", "late", timeout=5)
        wait_until(self.effects, lambda rows: rows == [(message, 2)])
        self.listen("slow", dict(QUICK, first_delay="1 hour", max_delay="1 hour"))
        message = self.remote.execute("slow", "until", 2, timeout=30)
        self.assertEqual(self.dead(message)["attempts"], 1)

    def test_deduplicated(self):
        """One request throughout: a copy that comes meanwhile, or later, is not handled."""
        message = self.remote.execute("once", "gate")
        self.assertEqual(self.dead(message)["attempts"], 3)
        attempts = self.attempts()
        self.remote.publish_raw("cmd.bal", "once", b"", {"n": "once", "c": "gate"}, message_id=message)
        marker = self.remote.execute("once", "until", 2)
        wait_until(self.effects, lambda rows: rows == [(marker, 2)])
        self.assertEqual(self.attempts(), attempts + 2)
        self.assertEqual(self.db.value("SELECT rinq_inbox_dead_letter_retry('%s')" % message), "t")
        wait_until(self.attempts, lambda n: n == attempts + 5)
        self.assertEqual(self.dead(message)["attempts"], 6)


class Waiting(RetryCase):
    """What waits, and what is set aside, until somebody says otherwise."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.listen("slow", SLOW)
        cls.listen("single", SLOW, max_concurrent=1)
        cls.db.sql("SELECT rinq_wait_ready()")

    def test_holds_nothing(self):
        """Neither executor, nor delivery, nor the place of another one."""
        messages = [self.remote.execute("single", "until", 2) for _ in range(5)]
        for message in messages:
            self.waiting(message)
        self.assertEqual(self.remote.call("single", "ok", timeout=20), 1)
        self.assertEqual(self.db.value("SELECT sum(rinq_inbox_waiting_retry(id)::int) FROM rinq_inbox_waiting"), "5")
        wait_until(self.effects, lambda rows: sorted(row[0] for row in rows if row[1] == 2) == sorted(messages))
        self.settled()

    def test_survives_everything(self):
        message = self.remote.execute("slow", "until", 3)
        row = self.waiting(message)
        self.db.sql("SELECT rinq_stop(); SELECT rinq_start(); SELECT rinq_wait_ready()")
        self.assertEqual(self.waiting(message), row)
        self.db.sql("SELECT rinq_inbox_waiting_retry('%s', now() + interval '500 ms')" % message)
        pid = self.db.peer()["pid"]
        self.db.sql("SELECT pg_terminate_backend(%d)" % pid)
        wait_until(lambda: self.waiting(message)["attempts"], lambda n: n == 2, 20)
        self.assertEqual(self.attempts(), 2)
        self.assertEqual(self.db.value("SELECT rinq_inbox_waiting_delete('%s')" % message), "t")
        self.assertEqual(self.db.value("SELECT rinq_inbox_waiting_delete('%s')" % message), "f")
        self.assertEqual(self.db.value("SELECT rinq_inbox_waiting_retry('%s')" % message), "f")

    def test_retried_at_a_time(self):
        message = self.remote.execute("none", "until", 2)
        self.dead(message)
        self.assertEqual(self.db.value("SELECT rinq_inbox_dead_letter_retry('%s', now() + interval '1 hour')" % message), "t")
        self.assertEqual(self.db.value("SELECT rinq_inbox_dead_letter_retry('%s')" % message), "f")
        self.assertEqual(self.waiting(message)["attempts"], 1)
        self.assertEqual(self.effects(), [])
        self.db.sql("SELECT rinq_inbox_waiting_retry('%s')" % message)
        wait_until(self.effects, lambda rows: rows == [(message, 2)])

    def test_many(self):
        messages = [self.remote.execute("none", "until", 2) for _ in range(40)]
        wait_until(lambda: self.db.value("SELECT dead FROM rinq_inbox_status"), lambda n: n == "40")
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_inbox_dead_letter WHERE error LIKE 'not before%'"), "40")
        self.db.sql("SELECT rinq_inbox_dead_letter_retry(id) FROM rinq_inbox_dead_letter WHERE error LIKE 'not before%'")
        wait_until(self.effects, lambda rows: sorted(row[0] for row in rows) == sorted(messages), 20)
        self.settled()
        self.assertEqual(self.db.sql("SELECT waiting, dead FROM rinq_inbox_status"), [["0", "0"]])

    def test_handler_is_the_listener_s(self):
        """Whoever has it tried again: it runs as the role that listens."""
        self.db.sql("CREATE ROLE dba LOGIN; GRANT EXECUTE ON FUNCTION rinq_inbox_dead_letter_retry TO dba; GRANT SELECT ON rinq_inbox_dead_letter TO dba")
        self.addCleanup(self.db.sql, "DROP OWNED BY dba; DROP ROLE dba; DROP TABLE who")
        self.db.sql("CREATE TABLE who (name text)")
        self.db.handler("whoami", "IF req.attempt = 1 THEN RAISE EXCEPTION 'no'; END IF; INSERT INTO who VALUES (session_user); RETURN NULL;")
        self.listen("whoami", None, "whoami")
        message = self.remote.execute("whoami", "x")
        self.dead(message)
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_inbox_dead_letter", "dba"), "1")
        self.assertEqual(self.db.value("SELECT rinq_inbox_dead_letter_retry('%s')" % message, "dba"), "t")
        wait_until(lambda: self.db.value("SELECT name FROM who"), lambda name: name == "postgres")

    def test_retention(self):
        self.addCleanup(self.server.configure, **{"rinq.dead_letter_retention": None})
        self.db.sql("INSERT INTO rinq_internal.inbox_dead_letter (id, digest, source, namespace, command, trace_id, handler, attempts,"
                    " first_received, last_attempt, error, recorded) SELECT '1-0001.1@0#' || i, '', '1-0001.1@0', 'old', 'x', 't', 'h', 1, now(), now(), 'e',"
                    " now() - i * interval '1 hour' FROM generate_series(1, 30000) i")
        self.remote.call("none", "ok", timeout=20)
        self.server.configure(**{"rinq.dead_letter_retention": "100h"})
        self.remote.call("none", "ok", timeout=20)

        def left():
            self.remote.call("none", "ok", timeout=20)
            return int(self.db.value("SELECT count(*) FROM rinq_internal.inbox_dead_letter"))
        wait_until(left, lambda n: n == 99, 90)

    def test_retention_without_requests(self):
        """No executor is there: the outbox worker deletes what is too old, also what was not when it looked first."""
        db = self.database()
        kept = ("inbox_dead_letter", "inbox_attempt", "inbox_handled", "stored_notification")
        settings = ("rinq.dead_letter_retention", "rinq.dedup_retention", "rinq.notification_retention", "rinq.executor_idle_timeout")
        self.addCleanup(self.server.configure, **dict.fromkeys(settings))
        db.sql("INSERT INTO rinq_internal.inbox_dead_letter (id, digest, source, namespace, command, trace_id, handler, attempts, first_received,"
               " last_attempt, error, recorded) VALUES ('1-0001.1@0#1', '', '1-0001.1@0', 'old', 'x', 't', 'h', 1, now(), now(), 'e', now());"
               " INSERT INTO rinq_internal.inbox_attempt VALUES ('1-0001.1@0#1', '', 1, now(), now());"
               " INSERT INTO rinq_internal.inbox_handled VALUES ('1-0001.1@0#1', '', 'old', now());"
               " INSERT INTO rinq_internal.stored_notification (number, role, notification)"
               " VALUES (1, 'postgres', ROW(NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)::rinq_notification)")
        self.server.configure(**dict(zip(settings, ("2s", "2s", "2s", "100ms"))))

        def left():
            return [int(db.value("SELECT count(*) FROM rinq_internal." + table)) for table in kept]
        wait_until(left, lambda counts: counts == [0, 0, 0, 0], 60, "old records to be deleted")
        db.handler("handle", "RAISE 'no';")
        db.sql("SELECT rinq_listen('quiet', 'handle(rinq_request)')")
        db.sql("SELECT rinq_wait_ready()")
        self.remote.execute("quiet", "x")
        wait_until(left, lambda counts: counts[0] == 1, 20, "a dead letter")
        wait_until(left, lambda counts: counts[0] == 0, 60, "it to be deleted")

    def test_what_cannot_be_written_down_is_not_acknowledged(self):
        """The table is locked: the command goes back, and is set aside once that is possible."""
        with self.db.session() as session:
            session.execute("BEGIN; LOCK TABLE rinq_internal.inbox_dead_letter IN ACCESS EXCLUSIVE MODE")
            message = self.remote.execute("none", "until", 5)
            wait_until(self.attempts, lambda n: n >= 1)
            self.server.wait_log("canceling statement due to lock timeout", self.log_start, 15)
            session.execute("ROLLBACK")
        self.assertGreaterEqual(self.dead(message, 30)["attempts"], 2)

    def test_what_cannot_be_written_down_comes_back_later(self):
        """The tables refuse all rows: commands go back, at once and then later and later, and are kept once that is possible."""
        tables = ("inbox_dead_letter", "inbox_waiting")
        for table in tables:
            self.db.sql("ALTER TABLE rinq_internal.%s ADD CONSTRAINT nothing CHECK (attempts < 0) NOT VALID" % table)
        try:
            began, before = time.monotonic(), self.db.peer()["requests_requeued"]
            dead, waits = self.remote.execute("none", "until", 99), self.remote.execute("slow", "until", 99)
            # once at once, and once a second later
            returns = wait_until(lambda: self.db.peer()["requests_requeued"] - before, lambda n: n >= 4, 20)
            self.assertGreaterEqual(time.monotonic() - began, 0.9)
            self.assertLessEqual(returns, 6)
            self.assertEqual(self.attempts(), 2, "none runs again of which is not known whether it is kept")
            self.assertIn("its columns, constraints, defaults or indexes have changed", self.server.log_since(self.log_start))
            self.assertEqual(self.db.sql("SELECT waiting, dead FROM rinq_inbox_status"), [["0", "0"]])
        finally:
            for table in tables:
                self.db.sql("ALTER TABLE rinq_internal.%s DROP CONSTRAINT nothing" % table)
        self.assertEqual(self.dead(dead, 30)["error"], "not before attempt 99")
        self.assertEqual(self.waiting(waits, 30)["error"], "not before attempt 99")
        self.assertEqual(self.attempts(), 4)

    def test_copies(self):
        """A copy of the database does not handle what waits in the original."""
        message = self.remote.execute("slow", "until", 2)
        self.waiting(message)
        self.db.sql("UPDATE rinq_internal.inbox_waiting SET due = now() + interval '1 second'")
        self.server.psql('CREATE DATABASE the_waiting_copy TEMPLATE "%s"' % self.db.name)
        try:
            value = lambda text: self.server.value(text, database="the_waiting_copy")
            value("SELECT rinq_adopt()")
            value("SELECT rinq_unlisten('quick')")
            value("SELECT rinq_wait_ready()")
            wait_until(self.effects, lambda rows: rows == [(message, 2)])
            wait_until(lambda: value("SELECT due < now() FROM rinq_inbox_waiting"), lambda due: due == "t")
            self.assertEqual(value("SELECT count(*) FROM effects"), "0")
            self.assertEqual(value("SELECT rinq_inbox_waiting_retry('%s')" % message), "t")
            wait_until(lambda: value("SELECT count(*) FROM effects"), lambda n: n == "1")
        finally:
            self.server.psql("DROP DATABASE the_waiting_copy")


class Leaving(case.OwnDatabaseCase):
    """What is kept, when the role that listens goes, and when the extension does."""

    def setUp(self):
        super().setUp()
        self.db.sql("CREATE TABLE effects (id text, who text); GRANT ALL ON effects TO PUBLIC")

    def keep(self, role):
        """One command that waits, and one that was set aside."""
        self.db.handler("second", "IF req.attempt = 1 THEN RAISE EXCEPTION 'not yet'; END IF; INSERT INTO effects VALUES (req.id, session_user); RETURN NULL;", role=role)
        self.listen(role)
        waits, dead = self.remote.execute("waits", "x"), self.remote.execute("dead", "x")
        wait_until(lambda: self.db.sql("SELECT waiting, dead FROM rinq_inbox_status"), lambda rows: rows == [["1", "1"]], 20)
        return waits, dead

    def listen(self, role="postgres"):
        self.db.sql("""SELECT rinq_listen('waits', 'second(rinq_request)', retry => '{"first_delay": "1 hour", "max_delay": "1 hour"}'),
                              rinq_listen('dead', 'second(rinq_request)')""", role)

    def test_role(self):
        """No row keeps it from being dropped, and whoever listens next handles what it has left."""
        role = self.db.role("leaver")
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_listen TO leaver")
        waits, dead = self.keep(role)
        self.db.sql("REASSIGN OWNED BY leaver TO postgres; DROP OWNED BY leaver; DROP ROLE leaver")
        self.assertEqual(self.db.sql("SELECT w.id, d.id FROM rinq_inbox_waiting w, rinq_inbox_dead_letter d"), [[waits, dead]])
        self.listen()
        self.assertEqual(self.db.sql("SELECT rinq_inbox_waiting_retry('%s'), rinq_inbox_dead_letter_retry('%s')" % (waits, dead)), [["t", "t"]])
        wait_until(lambda: self.db.sql("SELECT id, who FROM effects"), lambda rows: sorted(rows) == sorted([[waits, "postgres"], [dead, "postgres"]]), 20)

    def test_extension(self):
        """All goes with it, and it says so."""
        self.keep("postgres")
        with self.db.session() as session:
            session.execute("BEGIN; DROP EXTENSION rinq CASCADE; ROLLBACK")
        self.assertEqual(self.db.sql("SELECT waiting, dead FROM rinq_inbox_status"), [["1", "1"]])
        mark = self.server.log_mark()
        self.db.sql("DROP EXTENSION rinq CASCADE")
        self.server.wait_log("1 command waits for its next attempt, and is dropped with rinq", mark)
        self.db.sql("CREATE EXTENSION rinq")
        self.assertEqual(self.db.sql("SELECT waiting, dead FROM rinq_inbox_status"), [["0", "0"]])
        self.keep("postgres")


class Calls(RetryCase):
    """Calls whose listener's policy is for them, too."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.listen("called", dict(QUICK, calls=True))
        cls.listen("patient", dict(SLOW, calls=True))
        cls.db.sql("SELECT rinq_wait_ready()")

    def test_until_it_succeeds(self):
        self.assertEqual(self.remote.call("called", "until", 3, timeout=20), 3)
        self.assertEqual([attempt for _, attempt in self.effects()], [3])
        self.assertEqual(self.remote.call("called", "late", timeout=20), 2)

    def test_until_there_were_enough(self):
        with self.assertRaisesRegex(RemoteError, "not before attempt 9"):
            self.remote.call("called", "until", 9, timeout=20)
        self.assertEqual((self.attempts(), self.effects()), (3, []))
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_inbox_dead_letter"), "0")

    def test_failure_is_an_answer(self):
        with self.assertRaisesRegex(Failure, "sold out"):
            self.remote.call("called", "fail", timeout=20)
        self.assertEqual(self.attempts(), 1)

    def test_within_the_deadline(self):
        """An attempt that would come too late is not waited for."""
        with self.assertRaisesRegex(RemoteError, "not before attempt 2"):
            self.remote.call("patient", "until", 2, timeout=20)


class Ordered(case.PeerCase):
    """rinq_listen(..., order_by => ...): one at a time for each value."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db.sql("CREATE TABLE effects (n serial, customer text, payload jsonb, began timestamptz, ended timestamptz)")
        cls.db.handler("ordered", """
            began := clock_timestamp();
            IF req.command = 'gate' THEN PERFORM pg_advisory_xact_lock_shared(99); END IF;
            IF req.command = 'second' AND req.attempt = 1 THEN PERFORM rinq_retry('0'); END IF;
            PERFORM pg_sleep(0.005);
            INSERT INTO effects (customer, payload, began, ended) VALUES (req.payload #>> '{customer,id}', req.payload, began, clock_timestamp());
            RETURN to_jsonb(req.attempt);""", "began timestamptz;")
        cls.db.sql("SELECT rinq_listen('ordered', 'ordered(rinq_request)', order_by => '{customer,id}')")
        cls.remote.call("ordered", "x", timeout=20)

    def setUp(self):
        super().setUp()
        self.db.sql("TRUNCATE effects; DELETE FROM rinq_internal.inbox_dead_letter")

    def running(self, namespace="ordered"):
        return int(self.db.value("SELECT count(*) FROM pg_stat_activity WHERE query = 'rinq: %s::gate' AND wait_event = 'advisory'" % namespace))

    def payload(self, customer, number=0):
        return {"n": [number, {"id": "decoy"}], "customer": {"name": "x" * number, "id": customer}}

    def test_in_order(self):
        for number in range(20):
            for customer in ("a", "b", 7):
                self.remote.execute("ordered", "second" if number % 7 == 3 else "x", self.payload(customer, number))
        wait_until(lambda: self.db.value("SELECT count(*) FROM effects"), lambda n: n == "60", 30)
        self.assertEqual(self.db.value("SELECT count(*) FROM effects a JOIN effects b ON a.customer = b.customer AND a.n < b.n"
                                       " AND a.began < b.ended AND b.began < a.ended"), "0", "none ran beside another one")
        rows = self.db.sql("SELECT customer, string_agg(payload #>> '{n,0}', ' ' ORDER BY n) FROM effects"
                           " WHERE (payload #>> '{n,0}')::int % 7 <> 3 GROUP BY customer ORDER BY customer")
        expected = " ".join(str(number) for number in range(20) if number % 7 != 3)
        self.assertEqual(rows, [["7", expected], ["a", expected], ["b", expected]])

    def test_path_that_cannot_be_sent(self):
        """Refused at once: the reader could not read the table any more, with the listeners of everybody."""
        db = self.database(encoding="SQL_ASCII")
        db.handler("nothing", "RETURN NULL;")
        for path in ("ARRAY[E'\\xff']", "ARRAY['a', E'\\xff', 'b']"):
            self.assertSqlState(db.error("SELECT rinq_listen('bad', 'nothing(rinq_request)', order_by => %s)" % path), "22021")
        db.listen("good-" + db.name, "nothing")
        db.sql("SELECT rinq_wait_ready('20 s')")

    def test_others_are_not_waited_for(self):
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(99)")
            first = [self.remote.call_async("ordered", "gate", self.payload("slow", number)) for number in range(3)]
            wait_until(self.running, lambda n: n == 1)
            for payload in (self.payload("quick"), self.payload(None), {"customer": 5}, None, [1], self.payload(1.5), self.payload({"slow": 1})):
                self.assertEqual(self.remote.call("ordered", "x", payload, timeout=20), 1)
            self.assertEqual(self.running(), 1)
            for customer in (3, 3.0):
                self.remote.call_async("ordered", "gate", self.payload(customer))
            wait_until(self.running, lambda n: n == 2)
            self.assertEqual(self.remote.call("ordered", "x", self.payload("three"), timeout=20), 1)
            self.assertEqual(self.running(), 2)
        for message in first:
            self.assertEqual(self.remote.response(message, timeout=20).result(), 1)

    def assertSame(self, namespace, payloads):
        """Requests with these payloads wait for each other, and not for another one."""
        self.db.sql("TRUNCATE effects")
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(99)")
            for payload in payloads:
                self.remote.call_async(namespace, "gate", Raw(payload))
            self.remote.call(namespace, "x", None, timeout=20)
            wait_until(lambda: self.running(namespace), bool, 20)
            self.assertEqual(self.running(namespace), 1)
        wait_until(lambda: self.db.value("SELECT count(*) FROM effects"), lambda n: n == str(len(payloads) + 1), 30)

    def test_the_same_value_in_other_forms(self):
        """What is the same value in SQL is the same one here, however other languages have written it, and whatever stands before it."""
        text = cbor2.dumps
        for forms in ([b"\x07", b"\x18\x07", b"\xf9\x47\x00", b"\xfb" + struct.pack(">d", 7), b"\xc2\x41\x07", b"\xc2\x42\x00\x07", b"\xc1\x07", b"\xc6\x07"],
                      [b"\x26", b"\xfb" + struct.pack(">d", -7), b"\xc3\x41\x06"],
                      [text(10**18), b"\xfb" + struct.pack(">d", 1e18), b"\xc2\x48" + struct.pack(">Q", 10**18)],
                      [text("seven"), b"\x7f\x63sev\x62en\xff", b"\xd8\x20" + text("seven"), b"\xc6" + text("seven")]):
            self.assertSame("ordered", [b"\xa1" + text("customer") + b"\xa1" + text("id") + form for form in forms])
        end = b"\xa1" + text("id") + text("x")
        self.assertSame("ordered", [b"\xa1" + text("customer") + end, b"\xa1\x7f\x64cust\x64omer\xff" + end, b"\xa1\xc6" + text("customer") + end,
                                    b"\xa2\x61a" + b"\x81" * 900 + b"\x00" + text("customer") + end, b"\xa2\x61a\xc6\x00" + text("customer") + end])

    def test_elements_and_numbered_keys(self):
        """Paths lead to what they lead to with #>."""
        self.db.sql("SELECT rinq_listen('ordered-path', 'ordered(rinq_request)', order_by => '{lines,-2,7}')")
        self.remote.call("ordered-path", "x", timeout=20)
        last = b"\xa1\x07\x61x"
        self.assertSame("ordered-path", [b"\xa1" + cbor2.dumps("lines") + lines for lines in
                                         (b"\x82" + last + b"\x00", b"\x83\x00" + last + b"\x00", b"\x9f\x80" + last + b"\x80\xff",
                                          b"\x82\xa1\x617\x61x\x00")])

    def test_turns_are_given_on(self):
        """By one whose deadline has passed, whose executor was ended, or that was taken back."""
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(99)")
            late = self.remote.call_async("ordered", "gate", self.payload("x", 1), timeout=0.5)
            waits = self.remote.call_async("ordered", "x", self.payload("x", 2))
            never = self.remote.call_async("ordered", "x", self.payload("x", 3), timeout=0.2)
            self.assertEqual(self.remote.response(waits, timeout=20).result(), 1)
            killed = self.remote.call_async("ordered", "gate", self.payload("x", 4))
            wait_until(self.running, lambda n: n == 1)
            self.db.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'rinq: ordered::gate' AND wait_event = 'advisory'")
        self.assertEqual(self.remote.response(killed, timeout=20).result(), 1)
        self.assertEqual(self.remote.call("ordered", "x", self.payload("x", 5), timeout=20), 1)
        self.assertEqual(self.db.value("SELECT string_agg(payload #>> '{n,0}', ' ' ORDER BY n) FROM effects"), "2 4 5")
        del late, never

    def test_lost_connection(self):
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(99)")
            for number in range(3):
                self.remote.execute("ordered", "gate", self.payload("y", number))
            wait_until(self.running, lambda n: n == 1)
            before = self.db.peer()
            self.world.proxy.cut()
            self.db.wait_new_peer(before)
        wait_until(lambda: self.db.value("SELECT count(DISTINCT payload) FROM effects"), lambda n: n == "3", 30)


class Unfinished(case.OwnDatabaseCase):
    """Responses and notifications whose executor ends in the middle."""

    def setUp(self):
        super().setUp()
        self.db.sql("CREATE TABLE got (n serial, what text); CREATE SEQUENCE starts")
        self.addCleanup(self.server.configure, **{"rinq.max_attempts": None})

    def handler(self, name, argument, what):
        """It ends its process as often as the payload says."""
        self.db.sql("""CREATE FUNCTION %s(r %s) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO got (what) VALUES (%s);
            IF nextval('starts') <= (r.payload #>> '{}')::int THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10); END IF; END $$"""
                    % (name, argument, what))

    def got(self, expected):
        wait_until(lambda: [row[0] for row in self.db.sql("SELECT what FROM got ORDER BY n")], lambda rows: rows == expected, 20)

    def starts(self):
        return int(self.db.value("SELECT last_value FROM starts"))

    def test_notifications(self):
        """In order, all the same; and given up in the end."""
        self.handler("on_news", "rinq_notification", "r.type")
        self.db.sql("SELECT rinq_subscribe('s', 'news', 'on_news(rinq_notification)')")
        self.db.wait_subscription("s")
        self.db.sql("SELECT rinq_notify_many('news', 'first', rinq_all(), '2'), rinq_notify_many('news', 'second', rinq_all(), '0')")
        self.got(["first", "second"])
        self.assertEqual(self.starts(), 4)
        self.server.configure(**{"rinq.max_attempts": "2"})
        failed = self.db.peer()["notifications_failed"]
        self.db.sql("ALTER SEQUENCE starts RESTART")
        self.db.sql("SELECT rinq_notify_many('news', 'bad', rinq_all(), '100'), rinq_notify_many('news', 'third', rinq_all(), '0')")
        self.got(["first", "second", "third"])
        self.assertEqual(self.starts(), 3)
        self.assertEqual(self.db.peer()["notifications_failed"], failed + 1)
        self.server.wait_log("rinq gives up a notification after 2 attempts", self.log_start)

    def test_responses(self):
        self.handler("on_response", "rinq_response", "r.payload #>> '{}'")
        self.remote.serve("echo", lambda request: request.payload)
        session = self.db.value("SELECT rinq_session_create()")
        self.db.sql("SELECT rinq_session_on_response('%s', 'on_response(rinq_response)')" % session)
        self.db.sql("SELECT rinq_call_async('echo', 'x', '1', session => '%s')" % session)
        self.got(["1"])
        self.assertEqual(self.starts(), 2)


class Crashes(case.Case):
    """Processes that are killed at each step; the sums agree."""

    expects_crash = True

    @classmethod
    def make_world(cls):
        return case.new_world("retries")

    @classmethod
    def tearDownClass(cls):
        cls.world.close()

    def setUp(self):
        super().setUp()
        self.db = self.database()
        self.db.sql("CREATE TABLE effects (id text); CREATE SEQUENCE attempts")
        self.db.handler("flaky", """INSERT INTO effects VALUES (req.id); PERFORM nextval('attempts'); PERFORM pg_sleep(0.02);
                        IF req.attempt < (req.payload #>> '{}')::int THEN RAISE EXCEPTION 'not yet'; END IF; RETURN NULL;""")
        self.db.sql("SELECT rinq_listen('flaky', 'flaky(rinq_request)', retry => '{\"attempts\": 6, \"first_delay\": \"100 ms\", \"max_delay\": \"200 ms\"}')")
        self.db.sql("SELECT rinq_wait_ready()")
        self.remote = self.peer()

    def check_sums(self, kill):
        """Each command is handled or set aside in the end, and none is both or neither."""
        good = [self.remote.execute("flaky", "x", 1 + number % 3) for number in range(30)]
        bad = [self.remote.execute("flaky", "x", 99) for _ in range(10)]
        attempts = lambda: int(self.db.value("SELECT last_value FROM attempts"))
        wait_until(attempts, lambda n: n >= 10, 30)
        kill()
        wait_until(lambda: self.db.value("SELECT state FROM rinq_peer"), lambda state: state == "connected", 60)
        self.server.log_mark()
        dead = wait_until(lambda: {row[0] for row in self.db.sql("SELECT id FROM rinq_inbox_dead_letter")}, lambda ids: ids >= set(bad), 60, "the dead letters")
        handled = lambda: [row[0] for row in self.db.sql("SELECT id FROM effects")]
        wait_until(handled, lambda ids: set(ids) | dead >= set(good), 60, "all to be handled")
        wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_inbox_waiting"), lambda n: n == "0", 60)
        self.assertEqual(set(handled()) & set(bad), set())
        self.assertEqual(set(handled()) | dead, set(good) | set(bad))

    def test_kill_executors(self):
        def kill():
            rows = self.db.sql("SELECT pid FROM pg_stat_activity WHERE backend_type = 'rinq executor' AND datname = current_database()")
            self.assertTrue(rows)
            mark = self.server.log_mark()
            os.kill(int(rows[0][0]), signal.SIGKILL)
            self.server.wait_log("all server processes terminated; reinitializing", mark)
            wait_until(lambda: self.server._accepts(), timeout=60)
        self.check_sums(kill)

    def test_kill_postmaster(self):
        def kill():
            self.server.kill()
            self.server.start(timeout=60)
        self.check_sums(kill)

    def test_kill_peer_before_the_acknowledgement(self):
        """The broker delivers again what is kept already: it is acknowledged, and neither handled nor kept twice."""
        self.db.handler("held", "PERFORM pg_advisory_xact_lock_shared(1); RAISE EXCEPTION 'after the gate';")
        self.db.sql("SELECT rinq_listen('waits', 'held(rinq_request)', retry => '{\"first_delay\": \"1 hour\", \"max_delay\": \"1 hour\"}'),"
                    " rinq_listen('dead', 'held(rinq_request)')")
        views = ("rinq_inbox_waiting", "rinq_inbox_dead_letter")
        rows = lambda: [self.db.sql("SELECT id, attempts, last_attempt, error FROM %s" % view) for view in views]
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(1)")
            messages = [self.remote.execute(namespace, "x") for namespace in ("waits", "dead")]
            wait_until(lambda: self.db.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rinq executor' AND wait_event = 'advisory'"),
                       lambda n: n == "2", 20, "both handlers")
            pid = self.db.peer()["pid"]
            os.kill(pid, signal.SIGSTOP)
            gate.execute("SELECT pg_advisory_unlock(1)")
        kept = wait_until(rows, lambda found: [[row[0] for row in table] for table in found] == [[message] for message in messages], 20)
        os.kill(pid, signal.SIGKILL)
        for message in messages:
            again = self.deliveries(2, timeout=60, where=lambda event, message=message: event.properties.get("message_id") == message)[1]
            self.assertEqual(self.recording.wait_settled(again, 30), "ack")
        self.assertEqual(rows(), kept)
        self.assertEqual(len(re.findall("ERROR:  after the gate", self.server.log_since(self.log_start))), 2)
