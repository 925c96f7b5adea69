"""SQL calls commands that the independent peer serves."""

import concurrent.futures
import os
import signal
import threading
import time

import cbor2

from rinqtest import case, vectors
from rinqtest.cluster import call_sql, quote
from rinqtest.peer import Answered, Failure, NoAnswer, Raw
from rinqtest.waiting import wait_until

MEBIBYTE = 1024 * 1024


class Gate:
    """Holds handlers back until it is opened."""

    def __init__(self):
        self.event = threading.Event()

    def __call__(self, request):
        self.event.wait(60)
        return "released"

    def open(self):
        self.event.set()


class CallsOut(case.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.remote = cls.world.peer(prefetch=200)
        cls.remote.serve("out", cls.handle)

    @classmethod
    def tearDownClass(cls):
        cls.remote.close()
        cls.db.drop()

    @staticmethod
    def handle(request):
        command = request.command
        if command == "echo":
            return request.payload
        if command == "add":
            return request.payload["Left"] + request.payload["Right"]
        if command == "nil":
            return None
        if command == "null":
            return Raw(b"\xf6")
        if command == "fail":
            raise Failure("with-payload", "see payload", {"code": 42})
        if command == "fail-bare":
            raise Failure("no-message")
        if command == "error":
            raise RuntimeError("unexpected thing happened")
        if command == "raw":
            return Raw(bytes.fromhex(request.payload))
        if command == "size":
            return len(request.payload)
        if command == "make":
            return "x" * request.payload
        raise NoAnswer()

    def gate(self, namespace):
        gate = Gate()
        self.remote.serve(namespace, gate)
        self.addCleanup(gate.open)
        return gate

    def answering(self, body, headers, **properties):
        """A handler whose response is put on the wire exactly like this."""
        def handler(request):
            self.remote.publish_raw("cmd.rsp", request.id, body, headers, correlation_id=request.id, **properties)
            raise Answered()
        return handler

    def dropped(self):
        return self.db.peer()["responses_dropped"]

    def request(self):
        return self.published("cmd.bal")[0]

    # what comes back, and what goes out

    def test_success(self):
        self.assertEqual(self.db.call("out", "add", {"Left": 1, "Right": 2}), 3)
        request = self.request()
        self.assertConforms(request, "call", namespace="out", command="add", trace=None, span=None)
        self.assertEqual(request.body.hex(), "a2644c6566740165526967687402")
        own = self.db.peer()["peer_id"]
        self.assertTrue(request.properties["message_id"].startswith(own + "."), own)
        delivery = self.deliveries(routing_key=request.properties["message_id"])[0]
        self.assertEqual(self.recording.wait_settled(delivery), "ack")

    def test_nil_is_null_and_an_empty_body(self):
        self.assertIsNone(self.db.value(call_sql("out", "nil")))
        self.assertEqual(self.request().body, b"")
        self.assertConforms(self.request(), "call", namespace="out", command="nil")
        self.assertIsNone(self.db.value(call_sql("out", "null")))

    def test_payloads(self):
        for payload in (0, -1, 23, 24, 2 ** 63, -2 ** 64, 1.5, 0.1, 1e20, 1.5e-300, True, False, "", "héllo 水 \U0001f600", [], {}, [None, [1, [2]]],
                        {"a": {"b": {"c": [1, 2, 3]}}, "": "empty key"}, "x" * 70000):
            self.assertEqual(self.db.call("out", "echo", payload), payload)

    def test_recorded_payloads_are_understood(self):
        for payload in vectors.load("payloads"):
            body = payload["cbor"]
            value = cbor2.loads(bytes.fromhex(body))
            got = self.db.call("out", "raw", body)
            if isinstance(value, (bool, int, float, str, list, type(None))) or value in ({}, {"k": "v"}):
                self.assertEqual(got, value, payload["about"])
            else:
                self.assertIsNotNone(got, payload["about"])

    def test_command_names_are_any_text(self):
        for name in ("", "with space", "ünïcode", "%s%n", "'; DROP TABLE x; --", "c" * 1000):
            with self.subTest(name=name[:20]):
                remote = []
                self.remote.serve("names", lambda request: remote.append(request.command))
                self.db.call("names", name)
                self.assertEqual(remote, [name])

    def test_failure(self):
        with self.db.session() as session:
            error = session.error(call_sql("out", "fail"))
            self.assertSqlState(error, "RQ001")
            self.assertEqual(error.message, "see payload")
            self.assertIn("with-payload", error.text)
            self.assertEqual(session.execute("SELECT type, message, payload FROM rinq_last_failure()"),
                             [["with-payload", "see payload", '{"code": 42}']])
            error = session.error(call_sql("out", "fail-bare"))
            self.assertSqlState(error, "RQ001", "no-message")
            row = session.execute("SELECT type, message, payload FROM rinq_last_failure()")[0]
            self.assertEqual((row[0], row[1] or "", row[2]), ("no-message", "", None))

    def test_failure_is_caught_in_plpgsql(self):
        self.db.sql("""CREATE FUNCTION caught() RETURNS text LANGUAGE plpgsql AS $$
            DECLARE f record; answer jsonb;
            BEGIN
              BEGIN
                PERFORM rinq_call('out', 'fail');
              EXCEPTION WHEN SQLSTATE 'RQ001' THEN
                SELECT * INTO f FROM rinq_last_failure();
              END;
              answer := rinq_call('out', 'add', '{"Left": 20, "Right": 22}');
              RETURN concat_ws('/', f.type, f.message, f.payload, answer);
            END $$""")
        self.assertEqual(self.db.value("SELECT caught()"), 'with-payload/see payload/{"code": 42}/42')

    def test_remote_error(self):
        error = self.db.error(call_sql("out", "error"))
        self.assertSqlState(error, "RQ002")
        self.assertEqual(error.message, "unexpected thing happened")

    def test_sessions_and_message_numbers(self):
        with self.db.session() as one, self.db.session() as two:
            for session in (one, one, two):
                session.execute(call_sql("out", "nil"))
        ids = [event.properties["message_id"] for event in self.published("cmd.bal", 3)]
        first, second, third = (identity.partition("#") for identity in ids)
        self.assertEqual((first[0], first[2], second[2]), (second[0], "1", "2"))
        self.assertNotEqual(first[0], third[0])
        self.assertEqual(third[2], "1")
        for identity in ids:
            self.assertRegex(identity, r"\.[1-9]\d*@0#")

    def test_namespace_queue_is_declared_by_the_caller(self):
        pending = self.db.start(call_sql("nobody.yet", "work", timeout=20))
        waiting = wait_until(lambda: self.remote.queue_depth("cmd.nobody.yet") == 1, description="the request to wait in its queue")
        self.assertTrue(waiting)
        declared = self.recording.wait("queue.declare", since=self.wire_start, queue="cmd.nobody.yet")[0]
        self.assertEqual((declared.durable, declared.exclusive, declared.auto_delete), (True, False, False))
        self.assertEqual({name: field.value for name, field in declared.arguments["arguments"].items()}, {"x-max-priority": 3, "x-queue-type": "classic"})
        self.remote.serve("nobody.yet", lambda request: "done")
        self.assertEqual(pending.result(), [['"done"']])

    # deadlines

    def test_default_timeout(self):
        with self.db.session() as session:
            session.execute("SET rinq.default_timeout = '1234ms'")
            session.execute(call_sql("out", "nil"))
            session.execute("SET rinq.default_timeout = '20s'")
            session.execute(call_sql("out", "nil", timeout=0.9))
        first, second = self.published("cmd.bal", 2)
        self.assertTrue(1000 <= int(first.properties["expiration"]) <= 1234, first)
        self.assertTrue(700 <= int(second.properties["expiration"]) <= 900, second)

    def test_smallest_of_argument_setting_and_limit(self):
        with self.db.session() as session:
            session.execute("SET rinq.max_timeout = '1234ms'")
            session.execute(call_sql("out", "nil"))
            session.execute(call_sql("out", "nil", timeout=20))
            session.execute(call_sql("out", "nil", timeout=0.9))
            session.execute("SELECT rinq_await(rinq_call_async('out', 'nil', NULL::jsonb, '20s'))")
        expirations = [int(message.properties["expiration"]) for message in self.published("cmd.bal", 4)]
        for expiration, limit in zip(expirations, (1234, 1234, 900, 1234)):
            self.assertTrue(limit - 250 <= expiration <= limit, expirations)
        role = self.db.role("hurried")
        self.addCleanup(self.db.sql, "DROP OWNED BY hurried; DROP ROLE hurried")
        self.assertSqlState(self.db.error("SET rinq.max_timeout = 0", role), "42501")

    def test_timeout_and_late_response(self):
        gate = self.gate("late")
        before = self.dropped()
        start = time.monotonic()
        error = self.db.error(call_sql("late", "x", timeout=0.4))
        elapsed = time.monotonic() - start
        self.assertSqlState(error, "RQ003")
        self.assertTrue(0.4 <= elapsed < 5, elapsed)
        request = self.request().properties["message_id"]
        self.remote.publish_raw("cmd.rsp", request, cbor2.dumps("late"), type="s", correlation_id=request)
        gate.open()
        delivery = self.deliveries(routing_key=request)[0]
        self.assertEqual(self.recording.wait_settled(delivery), "reject")
        wait_until(self.dropped, lambda count: count == before + 1, description="the late answer to be counted")
        self.assertEqual(self.db.call("out", "echo", "after"), "after")

    def test_response_before_the_peer_knows_that_nobody_waits(self):
        """It arrives together with the word that the call was given up, and is dropped, whichever the peer sees first."""
        before = self.db.peer()
        pid = int(before["pid"])
        gate = self.gate("both")
        pending = self.db.start(call_sql("both", "x", timeout=0.7))
        request = self.request().properties["message_id"]
        os.kill(pid, signal.SIGSTOP)
        try:
            self.assertSqlState(pending.error(), "RQ003")
            self.remote.publish_raw("cmd.rsp", request, cbor2.dumps("late"), type="s", correlation_id=request)
            delivery = self.deliveries(routing_key=request)[0]
        finally:
            os.kill(pid, signal.SIGCONT)
        gate.open()
        self.assertEqual(self.recording.wait_settled(delivery), "reject")
        wait_until(self.dropped, lambda count: count == before["responses_dropped"] + 1, description="the late answer to be counted")
        self.assertEqual(self.db.peer()["responses_received"], before["responses_received"])

    def test_duplicate_response(self):
        before = self.dropped()

        def twice(request):
            self.remote.publish_raw("cmd.rsp", request.id, cbor2.dumps(1), type="s", correlation_id=request.id)
            return 1
        self.remote.serve("twice", twice)
        self.assertEqual(self.db.call("twice", "x"), 1)
        wait_until(self.dropped, lambda count: count == before + 1, description="the second answer to be dropped")

    def test_responses_to_no_call(self):
        before = self.dropped()
        own = self.db.peer()["peer_id"]
        strange = [own + ".1@0#999", own + ".4000000000@0#1", own + ".0@0#1", own + ".garbage", own + ".1@0#1@0#1", own + "."]
        for key in strange:
            self.remote.publish_raw("cmd.rsp", key, b"\x01", type="s", correlation_id="x")
            self.remote.publish_raw("cmd.rsp", key, b"\x01", type="s", correlation_id="x", reply_to="u",
                                    headers={"n": "out", "c": "echo"})
        for delivery in self.deliveries(2 * len(strange), exchange="cmd.rsp"):
            self.assertEqual(self.recording.wait_settled(delivery), "reject", delivery.routing_key)
        wait_until(self.dropped, lambda count: count == before + 2 * len(strange), description="all to be counted")
        self.assertEqual(self.db.call("out", "echo", "after"), "after")

    def test_timeouts_that_make_no_sense(self):
        for timeout in (0, -1):
            start = time.monotonic()
            error = self.db.error(call_sql("out", "echo", 1, timeout=timeout))
            self.assertIn(error.sqlstate, ("22023", "RQ003"), error.text)
            self.assertLess(time.monotonic() - start, 5)

    # ending a call early

    def pending_call(self, session, namespace, timeout=30):
        """A session inside a call that the remote peer has received."""
        before = len(self.remote.requests)
        session.start(call_sql(namespace, "x", timeout=timeout))
        wait_until(lambda: len(self.remote.requests) > before, description="the request")

    def test_cancel(self):
        gate = self.gate("cancelled")
        before = self.dropped()
        with self.db.session() as session, self.db.session() as admin:
            self.pending_call(session, "cancelled")
            start = time.monotonic()
            admin.execute("SELECT pg_cancel_backend(%d)" % session.pid)
            self.assertSqlState(session.finish_error(), "57014")
            self.assertLess(time.monotonic() - start, 5, "not when the call times out")
            gate.open()
            wait_until(self.dropped, lambda count: count == before + 1, description="the late answer to be dropped")
            self.assertEqual(session.value(call_sql("out", "echo", 7)), "7")

    def test_statement_timeout(self):
        gate = self.gate("stopped")
        with self.db.session() as session:
            session.execute("SET statement_timeout = '300ms'")
            start = time.monotonic()
            self.pending_call(session, "stopped")
            error = session.finish_error()
            self.assertSqlState(error, "57014", "statement timeout")
            self.assertTrue(0.3 <= time.monotonic() - start < 5)
        gate.open()

    def test_terminate_backend(self):
        gate = self.gate("terminated")
        before = self.dropped()
        with self.db.session() as session, self.db.session() as admin:
            self.pending_call(session, "terminated")
            start = time.monotonic()
            admin.execute("SELECT pg_terminate_backend(%d)" % session.pid)
            self.assertSqlState(session.finish_error(), "57P01")
            self.assertLess(time.monotonic() - start, 5, "not when the call times out")
            gate.open()
            wait_until(self.dropped, lambda count: count == before + 1, description="the late answer to be dropped")

    def test_waiting_shows_in_pg_stat_activity(self):
        gate = self.gate("shown")
        with self.db.session() as session:
            self.pending_call(session, "shown")
            row = self.db.sql("SELECT state, wait_event_type FROM pg_stat_activity WHERE pid = %d" % session.pid)[0]
            self.assertEqual(row, ["active", "Extension"])
            gate.open()
            self.assertEqual(session.finish(), [['"released"']])

    # callers do not disturb each other

    def test_slow_call_delays_nobody(self):
        gate = self.gate("slow")
        with self.db.session() as session:
            self.pending_call(session, "slow")
            start = time.monotonic()
            for number in range(50):
                self.assertEqual(self.db.call("out", "echo", number), number)
            self.assertLess(time.monotonic() - start, 10)
            gate.open()
            self.assertEqual(session.finish(), [['"released"']])

    def test_concurrent_callers_get_their_own_responses(self):
        def caller(number):
            self.db.sql("""DO $$ BEGIN FOR i IN 1..40 LOOP
                IF rinq_call('out', 'echo', to_jsonb(%d + i), '30 s') <> to_jsonb(%d + i) THEN
                  RAISE EXCEPTION 'somebody else''s answer'; END IF; END LOOP; END $$""" % (number * 1000, number * 1000))
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            list(pool.map(caller, range(16)))

    def test_many_callers_wait_at_once(self):
        gate = self.gate("crowd")
        sessions = [self.db.session() for _ in range(30)]
        try:
            for session in sessions:
                session.start(call_sql("crowd", "x", timeout=30))
            wait_until(lambda: len([r for r in self.remote.requests if r.namespace == "crowd"]) == 30, description="30 requests")
            gate.open()
            for session in sessions:
                self.assertEqual(session.finish(), [['"released"']])
        finally:
            for session in sessions:
                session.close()

    # what is refused

    def test_bad_namespaces(self):
        mark = self.recording.mark()
        for name in ("", "_sess", "_x", "a b", "a/b", "é", "a\nb", "*", "n" * 300):
            error = self.db.error(call_sql(name, "x"))
            self.assertSqlState(error, "22023")
        self.assertSqlState(self.db.error("SELECT rinq_call(%s, 'x')" % quote("_sess")), "22023", "(?i)reserved")
        self.assertEqual(self.recording.published("cmd.bal", mark), [])

    def test_null_arguments(self):
        for arguments in ("NULL, 'x'", "'out', NULL"):
            self.assertIn(self.db.error("SELECT rinq_call(%s)" % arguments).sqlstate, ("22004", "22023"))

    def test_malformed_responses(self):
        cases = {
            "unknown type": ({"type": "x"}, {}),
            "no type": ({}, {}),
            "failure without a type": ({"type": "f"}, {}),
            "failure with an empty type": ({"type": "f"}, {"t": ""}),
            "failure type as bytes": ({"type": "f"}, {"t": b"bytes"}),
        }
        for about, (properties, headers) in cases.items():
            with self.subTest(about):
                self.remote.serve("malformed", self.answering(b"", headers, **properties))
                self.assertSqlState(self.db.error(call_sql("malformed", "x", timeout=5)), "08P01")

    def test_undecodable_responses(self):
        for body in ("ff", "1b00", "a2616101616102", "61ff", "9f01", "0102", "c48201", "5b7fffffffffffffff00", "81" * 2000):
            error = self.db.error(call_sql("out", "raw", body))
            self.assertNotIn(error.sqlstate, (None, "XX000", "RQ003"), "%s: %s" % (body[:20], error.text))
        self.assertEqual(self.db.call("out", "echo", "after"), "after")

    def test_error_text_that_is_not_utf8(self):
        self.remote.serve("badtext", self.answering(b"\xff\xfe broken", {}, type="e"))
        self.assertIn(self.db.error(call_sql("badtext", "x")).sqlstate, ("RQ002", "08P01"))
        self.assertEqual(self.db.call("out", "echo", "after"), "after")

    # sizes

    def test_large_payloads(self):
        for size in (100, 4000, 131072, MEBIBYTE, 15 * MEBIBYTE):
            sql = "SELECT rinq_call('out', 'size', to_jsonb(repeat('x', %d)), '60 s')" % size
            self.assertEqual(self.db.value(sql), str(size))
            sql = "SELECT length(rinq_call('out', 'make', to_jsonb(%d), '60 s') #>> '{}')" % size
            self.assertEqual(self.db.value(sql), str(size))

    def test_payload_over_the_limit(self):
        mark = self.recording.mark()
        error = self.db.error("SELECT rinq_call('out', 'size', to_jsonb(repeat('x', %d)))" % (16 * MEBIBYTE + 1))
        self.assertSqlState(error, "54000", "rinq.max_payload")
        self.assertEqual(self.recording.published("cmd.bal", mark), [])
        error = self.db.error("SELECT rinq_call('out', 'make', to_jsonb(%d), '30 s')" % (16 * MEBIBYTE + 1))
        self.assertSqlState(error, "54000", "rinq.max_payload")
        self.assertEqual(self.db.call("out", "echo", "after"), "after")

    # transactions and shapes of use

    def test_call_goes_out_at_once(self):
        with self.db.session() as session:
            session.execute("BEGIN")
            self.assertEqual(session.value(call_sql("out", "echo", 1)), "1")
            session.execute("ROLLBACK")
        self.assertEqual(len(self.published("cmd.bal")), 1)

    def test_explain_sends_nothing(self):
        mark = self.recording.mark()
        self.db.sql("EXPLAIN SELECT rinq_call('out', 'echo')")
        self.db.call("out", "nil")
        self.assertEqual(len(self.recording.published("cmd.bal", mark)), 1)

    def test_call_per_row_and_in_a_cursor(self):
        self.assertEqual(self.db.value("SELECT sum((rinq_call('out', 'echo', to_jsonb(i)) #>> '{}')::int) FROM generate_series(1, 100) i"),
                         "5050")
        with self.db.session() as session:
            session.execute("BEGIN")
            session.execute("DECLARE c CURSOR FOR SELECT rinq_call('out', 'echo', to_jsonb(i)) FROM generate_series(1, 9) i")
            self.assertEqual(session.execute("FETCH 3 FROM c"), [["1"], ["2"], ["3"]])
            session.execute("COMMIT")

    def test_counters(self):
        before = self.db.peer()
        for _ in range(5):
            self.db.call("out", "nil")
        after = self.db.peer()
        self.assertEqual(after["calls_sent"] - before["calls_sent"], 5)
        self.assertEqual(after["responses_received"] - before["responses_received"], 5)
        self.assertEqual(after["responses_dropped"], before["responses_dropped"])


class Limits(case.Case):
    """A server with small limits of its own, on the shared broker."""

    @classmethod
    def make_world(cls):
        return case.new_world("limits", broker=case.shared_world().broker,
                              settings={"rinq.max_calls": "16", "rinq.max_payload": "64", "rinq.payload_memory": "8"})

    @classmethod
    def tearDownClass(cls):
        cls.world.close()

    def test_calls_in_flight(self):
        db = self.database()
        remote = self.peer(prefetch=100)
        gate = Gate()
        remote.serve("limit", gate)
        sessions = [db.session() for _ in range(17)]
        try:
            for session in sessions[:16]:
                session.start(call_sql("limit", "x", timeout=30))
            wait_until(lambda: len(remote.requests) == 16, description="16 calls in flight")
            self.assertSqlState(sessions[16].error(call_sql("limit", "x")), "53400", r"rinq\.max_calls")
            gate.open()
            for session in sessions[:16]:
                self.assertEqual(session.finish(), [['"released"']])
            self.assertEqual(sessions[16].value(call_sql("limit", "x")), '"released"')
        finally:
            gate.open()
            for session in sessions:
                session.close()

    def test_payload_limit_is_exact(self):
        db = self.database()
        remote = self.peer()
        remote.serve("limit", lambda request: len(request.body))
        # the encoding adds three bytes to a text of this length
        self.assertEqual(db.value("SELECT rinq_call('limit', 'x', to_jsonb(repeat('x', 65533)))"), "65536")
        self.assertSqlState(db.error("SELECT rinq_call('limit', 'x', to_jsonb(repeat('x', 65534)))"), "54000", r"rinq\.max_payload")
