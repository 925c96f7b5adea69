"""The independent peer calls commands that SQL functions serve."""

import concurrent.futures
import time

import cbor2

from rinqtest import case, vectors
from rinqtest.cluster import call_sql
from rinqtest.peer import CallTimeout, Failure, Raw, RemoteError, now_ms
from rinqtest.waiting import wait_until

HANDLERS = {
    "math": ("", """CASE req.command
        WHEN 'add' THEN RETURN to_jsonb((req.payload->>'Left')::int + (req.payload->>'Right')::int);
        WHEN 'echo' THEN RETURN req.payload;
        WHEN 'nil' THEN RETURN NULL;
        WHEN 'request' THEN RETURN to_jsonb(req) || jsonb_build_object('nil', req.payload IS NULL);
        WHEN 'fail' THEN PERFORM rinq_fail('my-api-error', 'the call to fail failed spectacularly!', '{"code": 42}');
        WHEN 'fail-bare' THEN PERFORM rinq_fail('no-message');
        WHEN 'fail-empty' THEN PERFORM rinq_fail('');
        WHEN 'error' THEN RAISE EXCEPTION 'unexpected thing happened'
          USING DETAIL = 'secret detail', HINT = 'secret hint', TABLE = 'secret_table';
        WHEN 'divide' THEN RETURN to_jsonb(1 / (req.payload->>'by')::int);
        WHEN 'write' THEN INSERT INTO written VALUES (req.payload->>'key'); RETURN 'true';
        WHEN 'write-fail' THEN INSERT INTO written VALUES (req.payload->>'key'); PERFORM rinq_fail('undone');
        WHEN 'write-error' THEN INSERT INTO written VALUES (req.payload->>'key'); RAISE EXCEPTION 'undone';
        WHEN 'late-error' THEN INSERT INTO deferred VALUES (1), (1); RETURN 'true';
        WHEN 'commit' THEN COMMIT; RETURN 'true';
        WHEN 'loop' THEN LOOP PERFORM 1; END LOOP;
        WHEN 'sleep' THEN PERFORM pg_sleep(60); RETURN 'true';
        WHEN 'nap' THEN PERFORM pg_sleep((req.payload #>> '{}')::float); RETURN req.payload;
        WHEN 'make' THEN RETURN to_jsonb(repeat('x', (req.payload #>> '{}')::int));
        WHEN 'size' THEN RETURN to_jsonb(length(req.payload #>> '{}'));
        WHEN 'countdown' THEN
          IF (req.payload #>> '{}')::int = 0 THEN RETURN '[]'; END IF;
          RETURN jsonb_build_array(req.payload) || rinq_call('math', 'countdown', to_jsonb((req.payload #>> '{}')::int - 1));
        WHEN 'forward' THEN RETURN rinq_call(req.payload->>'namespace', req.payload->>'command');
        ELSE PERFORM rinq_fail('unknown-command', 'no such command: ' || req.command);
      END CASE;"""),
}


class CallsIn(case.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.db.sql("CREATE TABLE written (key text)")
        cls.db.sql("CREATE TABLE deferred (key int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        for name, (declare, body) in HANDLERS.items():
            cls.db.handler(name, body, declare)
            cls.db.listen(name, name)
        cls.remote = cls.world.peer(prefetch=100)
        cls.remote.call("math", "nil", timeout=20)

    @classmethod
    def tearDownClass(cls):
        cls.remote.close()
        cls.db.drop()

    def counter(self, name):
        return self.db.peer()[name]

    def response(self):
        return self.published("cmd.rsp")[0]

    def request_delivery(self, namespace="math"):
        return self.deliveries(where=lambda event: event.headers.get("n") is not None and event.headers["n"].value == namespace)[0]

    def assertSettled(self, outcome, namespace="math"):
        self.assertEqual(self.recording.wait_settled(self.request_delivery(namespace)), outcome)

    # answers

    def test_success(self):
        response = self.remote.call_response("math", "add", {"Left": 1, "Right": 2})
        self.assertEqual(response.result(), 3)
        delivery = self.request_delivery()
        identity = delivery.properties["message_id"]
        self.assertConforms(self.response(), "response-success", request=identity, trace=identity,
                            deadline=delivery.headers["dl"].value)
        self.assertEqual(self.response().body, b"\x03")
        self.assertSettled("ack")

    def test_null_is_an_empty_success(self):
        self.assertIsNone(self.remote.call("math", "nil"))
        self.assertConforms(self.response(), "response-success")
        self.assertEqual(self.response().body, b"")

    def test_failure(self):
        with self.assertRaises(Failure) as caught:
            self.remote.call("math", "fail")
        self.assertEqual((caught.exception.kind, caught.exception.message, caught.exception.payload),
                         ("my-api-error", "the call to fail failed spectacularly!", {"code": 42}))
        self.assertConforms(self.response(), "response-failure", failure="my-api-error",
                            message="the call to fail failed spectacularly!")
        self.assertSettled("ack")

    def test_failure_without_message(self):
        with self.assertRaises(Failure) as caught:
            self.remote.call("math", "fail-bare")
        self.assertEqual((caught.exception.kind, caught.exception.message, caught.exception.payload), ("no-message", "", None))
        self.assertConforms(self.response(), "response-failure", failure="no-message", message=None)
        self.assertEqual(self.response().body, b"")

    def test_failure_without_type_is_an_error(self):
        with self.assertRaises(RemoteError):
            self.remote.call("math", "fail-empty")
        self.assertSqlState(self.db.error("SELECT rinq_fail('')"), "22023")

    def test_error_tells_its_message_only(self):
        with self.assertRaises(RemoteError) as caught:
            self.remote.call("math", "error")
        self.assertEqual(str(caught.exception), "unexpected thing happened")
        self.assertConforms(self.response(), "response-error")
        self.assertNotIn(b"secret", self.response().body)
        self.assertSettled("ack")
        with self.assertRaisesRegex(RemoteError, "division by zero"):
            self.remote.call("math", "divide", {"by": 0})

    def test_rinq_fail_in_plain_sql(self):
        with self.db.session() as session:
            error = session.error("SELECT rinq_fail('my-type', 'my message', '[1]')")
            self.assertSqlState(error, "RQ001")
            self.assertEqual(error.message, "my message")
            self.assertEqual(session.execute("SELECT * FROM rinq_last_failure()"), [["my-type", "my message", "[1]"]])

    def test_trace_id_comes_back(self):
        self.remote.call("math", "nil", trace="my-trace-id")
        self.assertConforms(self.response(), "response-success", trace="my-trace-id")

    def test_asynchronous(self):
        message = self.remote.call_async("math", "add", {"Left": 7, "Right": 8})
        self.assertEqual(self.remote.response(message).result(), 15)
        self.assertConforms(self.response(), "response-success-async", namespace="math", command="add", request=message, deadline=None,
                            remaining=None, span=None)
        message = self.remote.call_async("math", "fail", timeout=5, trace="async-trace")
        with self.assertRaises(Failure):
            self.remote.response(message).result()
        self.assertConforms(self.published("cmd.rsp", 2)[1], "response-failure-async", request=message, trace="async-trace")
        message = self.remote.call_async("math", "error")
        with self.assertRaises(RemoteError):
            self.remote.response(message).result()
        self.assertConforms(self.published("cmd.rsp", 3)[2], "response-error-async", request=message)

    def test_execute(self):
        message = self.remote.execute("math", "write", {"key": "executed"})
        self.assertSettled("ack")
        self.assertEqual(self.db.value("SELECT count(*) FROM written WHERE key = 'executed'"), "1")
        self.assertEqual(self.recording.published("cmd.rsp", self.wire_start), [], message)

    def test_multicast_and_unicast(self):
        own = self.db.peer()["peer_id"]
        self.assertEqual(self.remote.call_multicast("math", "add", {"Left": 1, "Right": 1}), 2)
        self.assertSettled("ack")
        self.assertEqual(self.remote.call_unicast(own, "math", "add", {"Left": 2, "Right": 2}), 4)
        mark = self.recording.mark()
        self.remote.execute_multicast("math", "write", {"key": "multicast"})
        delivery = self.deliveries(since=mark, exchange="cmd.mc")[0]
        self.assertEqual(self.recording.wait_settled(delivery), "ack")
        self.assertEqual(self.db.value("SELECT count(*) FROM written WHERE key = 'multicast'"), "1")

    def test_multicast_without_response_is_not_requeued(self):
        with self.assertRaises(CallTimeout):
            self.remote.call_multicast("math", "sleep", timeout=0.5)
        delivery = self.deliveries(exchange="cmd.mc")[0]
        self.assertEqual(self.recording.wait_settled(delivery), "reject")

    # what the handler sees

    def test_request_value(self):
        got = self.remote.call("math", "request", {"some": "payload"}, trace="trace-7", timeout=20)
        delivery = self.request_delivery()
        identity = delivery.properties["message_id"]
        self.assertEqual((got["id"], got["source"], got["namespace"], got["command"], got["payload"], got["trace_id"],
                          got["is_response_required"], got["nil"]),
                         (identity, identity.partition("#")[0], "math", "request", {"some": "payload"}, "trace-7", True, False))
        deadline = self.db.value("SELECT (extract(epoch FROM '%s'::timestamptz) * 1000)::bigint" % got["deadline"])
        self.assertEqual(int(deadline), delivery.headers["dl"].value)

    def test_request_value_without_the_optional_parts(self):
        message = self.remote.call_async("math", "request")
        got = self.remote.response(message).result()
        self.assertEqual((got["trace_id"], got["deadline"], got["is_response_required"], got["nil"]), (message, None, True, True))

    def test_payloads(self):
        for payload in (0, -1, 2 ** 64 - 1, -2 ** 64, 1.5, 0.1, True, "", "héllo 水", [1, "two", 3.5, None, True], {}, {"k": {"v": []}}):
            self.assertEqual(self.remote.call("math", "echo", payload), payload)

    def test_recorded_payloads_come_back_equal(self):
        for payload in vectors.load("payloads"):
            body = bytes.fromhex(payload["cbor"])
            value = cbor2.loads(body)
            answer = self.remote.call_response("math", "echo", Raw(body)).body
            if isinstance(value, (bool, int, float, str, type(None))):
                self.assertEqual(cbor2.loads(answer or b"\xf6"), value, payload["about"])
                if not payload["cbor"].startswith("fa") and value is not None:
                    self.assertEqual(answer.hex(), payload["cbor"], payload["about"])

    def test_nested_calls_inherit_trace_and_deadline(self):
        self.remote.serve("inner", lambda request: request.deadline)
        inner = self.remote.call("math", "forward", {"namespace": "inner", "command": "x"}, timeout=3)
        outer = self.request_delivery()
        self.assertLessEqual(inner, outer.headers["dl"].value)
        request = self.published("cmd.bal", where=lambda event: event.routing_key == "inner")[0]
        self.assertConforms(request, "call", namespace="inner", trace=outer.properties["message_id"])
        mark = self.recording.mark()
        self.remote.call("math", "forward", {"namespace": "inner", "command": "x"}, trace="outer-trace")
        request = self.published("cmd.bal", since=mark, where=lambda event: event.routing_key == "inner")[0]
        self.assertConforms(request, "call", trace="outer-trace")

    def test_handler_calls_its_own_namespace(self):
        self.assertEqual(self.remote.call("math", "countdown", 3, timeout=20), [3, 2, 1])

    def test_sql_calls_sql(self):
        self.assertEqual(self.db.call("math", "add", {"Left": 20, "Right": 22}), 42)
        self.assertSqlState(self.db.error(call_sql("math", "fail")), "RQ001", "spectacularly")
        error = self.db.error(call_sql("math", "error"))
        self.assertSqlState(error, "RQ002", "unexpected thing happened")
        self.assertNotIn("secret", error.text)

    # transactions

    def test_commit_comes_before_the_response(self):
        with self.db.session() as session:
            for number in range(20):
                self.assertIs(self.remote.call("math", "write", {"key": "visible-%d" % number}), True)
                self.assertEqual(session.value("SELECT count(*) FROM written WHERE key = 'visible-%d'" % number), "1")

    def test_failed_handlers_leave_nothing(self):
        with self.assertRaises(Failure):
            self.remote.call("math", "write-fail", {"key": "undone"})
        with self.assertRaises(RemoteError):
            self.remote.call("math", "write-error", {"key": "undone"})
        self.assertEqual(self.db.value("SELECT count(*) FROM written WHERE key = 'undone'"), "0")

    def test_error_at_commit_is_an_error_response(self):
        with self.assertRaisesRegex(RemoteError, "duplicate key"):
            self.remote.call("math", "late-error")
        self.assertEqual(self.db.value("SELECT count(*) FROM deferred"), "0")

    def test_handler_cannot_commit(self):
        with self.assertRaisesRegex(RemoteError, "transaction termination"):
            self.remote.call("math", "commit")
        self.assertEqual(self.remote.call("math", "add", {"Left": 1, "Right": 1}), 2)

    # time

    def busy(self):
        return int(self.db.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'rinq executor%' AND datname = current_database()"
                                 " AND state = 'active'"))

    def test_deadline_stops_the_handler(self):
        for command in ("sleep", "loop"):
            with self.subTest(command):
                mark = self.recording.mark()
                start = time.monotonic()
                with self.assertRaises(CallTimeout):
                    self.remote.call("math", command, timeout=0.6)
                wait_until(self.busy, lambda count: count == 0, 3, "the handler to be stopped")
                self.assertLess(time.monotonic() - start, 2)
                delivery = self.deliveries(since=mark, exchange="cmd.bal")[0]
                self.assertIn(self.recording.wait_settled(delivery), ("reject", "ack"))
                self.assertEqual(self.remote.call("math", "add", {"Left": 1, "Right": 1}), 2)
                self.assertEqual([event for event in self.recording.published("cmd.rsp", mark)
                                  if event.routing_key == delivery.properties["message_id"]], [])

    def test_request_past_its_deadline_is_not_answered(self):
        identity = self.remote.next_id()
        self.remote.publish_raw("cmd.bal", "math", b"", {"n": "math", "c": "write", "dl": now_ms() - 1000}, message_id=identity, reply_to="c",
                                priority=1)
        self.assertIn(self.recording.wait_settled(self.request_delivery()), ("reject", "ack"))
        self.assertEqual(self.remote.call("math", "add", {"Left": 1, "Right": 1}), 2)
        self.assertEqual([event.routing_key for event in self.recording.published("cmd.rsp", self.wire_start)
                          if event.routing_key == identity], [])

    def test_requests_run_side_by_side(self):
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            self.remote.call("math", "nil")
            start = time.monotonic()
            answers = list(pool.map(lambda number: self.remote.call("math", "nap", number / 10, timeout=20), (6, 6, 6, 6)))
            self.assertEqual(answers, [0.6] * 4)
            self.assertLess(time.monotonic() - start, 1.8)

    def test_many_requests(self):
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda number: self.remote.call("math", "add", {"Left": number, "Right": 1}, timeout=30), range(500)))
        self.assertEqual(answers, [number + 1 for number in range(500)])

    # sizes

    def test_large_responses_and_requests(self):
        for size in (1000, 200000, 1024 * 1024, 15 * 1024 * 1024):
            self.assertEqual(self.remote.call("math", "make", size, timeout=60), "x" * size)
            self.assertEqual(self.remote.call("math", "size", "x" * size, timeout=60), size)

    def test_response_over_the_limit_is_an_error(self):
        with self.assertRaisesRegex(RemoteError, r"rinq\.max_payload|too large"):
            self.remote.call("math", "make", 16 * 1024 * 1024 + 1, timeout=30)
        self.assertEqual(self.remote.call("math", "add", {"Left": 1, "Right": 1}), 2)

    # bookkeeping

    def test_counters(self):
        before = self.db.peer()
        for _ in range(3):
            self.remote.call("math", "nil")
        self.remote.execute("math", "nil")
        wait_until(lambda: self.counter("requests_received") - before["requests_received"], lambda count: count == 4,
                   description="the requests to be counted")
        after = self.db.peer()
        self.assertEqual(after["responses_sent"] - before["responses_sent"], 3)
        self.assertEqual(after["requests_rejected"], before["requests_rejected"])

    def test_executor_shows_in_pg_stat_activity(self):
        message = self.remote.call_async("math", "nap", 1.5, timeout=10)
        row = wait_until(lambda: self.db.sql("SELECT backend_type, usename, query FROM pg_stat_activity WHERE datname = current_database()"
                                             " AND backend_type LIKE 'rinq executor%' AND state = 'active'"), description="the executor")[0]
        self.assertEqual(row[1], "postgres")
        self.assertIn("math", row[2])
        self.remote.response(message, 10).result()


class Topology(case.Case):
    """What the extension declares and how it consumes, from its first byte on."""

    def test_from_the_first_byte(self):
        db = self.database()
        own = db.peer()["peer_id"]
        short = own.partition("-")[2]
        db.handler("topo", "RETURN NULL;")
        db.listen("topo", "topo")
        remote = self.peer()
        remote.call("topo", "x", timeout=20)
        bind = self.recording.wait("queue.bind", since=self.wire_start, exchange="cmd.uc", routing_key=own)[0]
        events = [event for event in self.recording.events(sender="client", since=self.wire_start) if event.connection == bind.connection]

        def named(name):
            return [event for event in events if event.name == name]
        properties = named("connection.start-ok")[0].client_properties
        self.assertEqual((properties["product"].type, properties["version"].type), ("S", "S"))
        self.assertIn("rinq", properties["version"].value)
        self.assertEqual({event.exchange: (event.type, event.durable, event.auto_delete, event.internal, event.arguments["arguments"])
                          for event in named("exchange.declare")},
                         {name: (kind, False, False, False, {}) for name, kind in (
                             ("cmd.bal", "direct"), ("cmd.uc", "direct"), ("cmd.mc", "direct"), ("cmd.rsp", "topic"),
                             ("ntf.uc", "direct"), ("ntf.mc", "direct"))})
        queues = {event.queue: (event.durable, event.exclusive, event.auto_delete,
                                {name: field.value for name, field in event.arguments["arguments"].items()}) for event in named("queue.declare")}
        priorities = {"x-max-priority": 3}
        self.assertEqual(queues, {short: (False, True, False, {}), short + ".req": (False, True, False, priorities),
                                  short + ".rsp": (False, True, False, {}), short + ".ntf": (False, True, False, {}),
                                  "cmd.topo": (True, False, False, dict(priorities, **{"x-queue-type": "classic"}))})
        self.assertEqual({(event.queue, event.exchange, event.routing_key) for event in named("queue.bind")},
                         {(short + ".req", "cmd.uc", own), (short + ".req", "cmd.mc", "_sess"), (short + ".req", "cmd.mc", "topo"),
                          (short + ".rsp", "cmd.rsp", own + ".*"), ("cmd.topo", "cmd.bal", "topo")})
        consumers = {event.queue: (event.consumer_tag, event.exclusive, event.no_ack) for event in named("basic.consume")}
        expected = {short + ".req": (short + ".req", True, False), short + ".rsp": (short + ".rsp", True, False),
                    "cmd.topo": ("cmd.topo", False, False)}
        self.assertEqual({name: consumers.get(name) for name in expected}, expected)
        self.assertLessEqual(set(consumers) - set(expected), {short + ".ntf"})
        for consume in named("basic.consume"):
            limits = [event for event in named("basic.qos") if event.channel == consume.channel and event.number < consume.number]
            self.assertTrue(limits, "a prefetch limit before consuming %s" % consume.queue)
            self.assertTrue(all(0 < event.prefetch_count and not event.arguments["global"] for event in limits), limits)

    def test_orderly_stop(self):
        db = self.database()
        short = db.peer()["peer_id"].partition("-")[2]
        connection = self.recording.wait("queue.declare", since=self.wire_start, queue=short)[-1].connection
        db.drop()
        closed = self.recording.wait("connection.close", since=self.wire_start, sender="client",
                                     where=lambda event: event.connection == connection)
        self.assertEqual(closed[0].code, 200)


class Listening(case.Case):
    """rinq_listen and rinq_unlisten."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.db.handler("one", "RETURN '1';")
        cls.db.handler("two", "RETURN '2';")
        cls.remote = cls.world.peer()

    @classmethod
    def tearDownClass(cls):
        cls.remote.close()
        cls.db.drop()

    def consumers(self, namespace):
        return self.remote.queue_consumers("cmd." + namespace)

    def wait_consumers(self, namespace, count):
        wait_until(lambda: self.consumers(namespace), lambda found: found == count, description="%d consumers of %s" % (count, namespace))

    def test_listen_replace_unlisten(self):
        self.remote.declare_namespace("ns")
        self.db.listen("ns", "one")
        self.assertEqual(self.remote.call("ns", "x", timeout=10), 1)
        self.db.listen("ns", "two")
        wait_until(lambda: self.remote.call("ns", "x"), lambda answer: answer == 2, description="the new handler to answer")
        self.assertEqual(self.db.sql("SELECT namespace, handler::text, role::text FROM rinq_internal.listener WHERE namespace = 'ns'"),
                         [["ns", "public.two(public.rinq_request)", "postgres"]])
        self.assertEqual(self.db.value("SELECT rinq_unlisten('ns')"), "t")
        self.wait_consumers("ns", 0)
        self.assertEqual(self.db.value("SELECT rinq_unlisten('ns')"), "f")
        self.remote.execute("ns", "x")
        wait_until(lambda: self.remote.queue_depth("cmd.ns"), lambda depth: depth == 1, description="the request to wait")
        own = self.db.peer()["peer_id"].partition("-")[2] + ".req"
        self.recording.wait("queue.unbind", since=self.wire_start, queue=own, routing_key="ns")
        self.db.listen("ns", "one")
        wait_until(lambda: self.remote.queue_depth("cmd.ns"), lambda depth: depth == 0, description="the request to be served")
        self.db.sql("SELECT rinq_unlisten('ns')")

    def test_effective_at_commit_only(self):
        for name in ("rolled-back", "committed", "savepoint", "barrier"):
            self.remote.declare_namespace(name)
        listen = "SELECT rinq_listen('%s', 'one(rinq_request)')"
        with self.db.session() as session:
            session.execute("BEGIN")
            session.execute(listen % "committed")
            session.execute("SAVEPOINT s")
            session.execute(listen % "savepoint")
            session.execute("ROLLBACK TO s")
            self.db.listen("barrier", "one")
            self.wait_consumers("barrier", 1)
            self.assertEqual(self.consumers("committed"), 0)
            session.execute("COMMIT")
            self.wait_consumers("committed", 1)
            self.assertEqual(self.consumers("savepoint"), 0)
            session.execute("BEGIN")
            session.execute(listen % "rolled-back")
            session.execute("SELECT rinq_unlisten('committed')")
            session.execute("ROLLBACK")
        self.db.sql("SELECT rinq_unlisten('barrier')")
        self.wait_consumers("barrier", 0)
        self.assertEqual((self.consumers("rolled-back"), self.consumers("committed")), (0, 1))
        self.assertEqual(self.remote.call("committed", "x"), 1)

    def test_what_cannot_be_registered(self):
        self.db.sql("CREATE FUNCTION wrong_argument(i int) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'")
        self.db.sql("CREATE FUNCTION wrong_result(req rinq_request) RETURNS int LANGUAGE sql AS 'SELECT 1'")
        self.db.sql("CREATE FUNCTION a_set(req rinq_request) RETURNS SETOF jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'")
        for name in ("", "_sess", "_x", "a b", "n" * 300):
            self.assertSqlState(self.db.error("SELECT rinq_listen('%s', 'one(rinq_request)')" % name), "22023")
        for function in ("wrong_argument(int)", "wrong_result(rinq_request)", "a_set(rinq_request)"):
            error = self.db.error("SELECT rinq_listen('ns3', '%s')" % function)
            self.assertIn(error.sqlstate[:2], ("22", "42"), error.text)
        self.assertSqlState(self.db.error("SELECT rinq_listen('ns3', 'missing(rinq_request)')"), "42883")
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_internal.listener WHERE namespace = 'ns3'"), "0")

    def test_handler_disappears(self):
        self.db.handler("doomed", "RETURN '1';")
        self.db.listen("doomed", "doomed")
        self.db.listen("steady", "one")
        self.assertEqual(self.remote.call("doomed", "x", timeout=10), 1)
        self.db.sql("DROP FUNCTION doomed(rinq_request)")
        with self.assertRaises(RemoteError):
            self.remote.call("doomed", "x")
        self.server.wait_log("doomed", self.log_start)
        self.assertEqual(self.remote.call("steady", "x"), 1)
        self.db.sql("SELECT rinq_unlisten('doomed')")

    def test_namespace_may_not_exist_twice(self):
        self.db.listen("case", "one")
        self.db.listen("Case", "two")
        self.assertEqual((self.remote.call("case", "x", timeout=10), self.remote.call("Case", "x", timeout=10)), (1, 2))


class Hygiene(case.Case):
    """A request finds nothing that an earlier one left in its executor."""

    def test_next_request_is_clean(self):
        db = self.database()
        db.role("other_%s" % db.name)
        # one that is known before does not end the executor
        db.sql("ALTER DATABASE %s SET app.secret = ''" % db.name)
        db.handler("dirty", """
            PERFORM set_config('search_path', 'nowhere', false), set_config('work_mem', '1MB', false),
                    set_config('statement_timeout', '1', false), set_config('app.secret', 'left', false);
            EXECUTE 'SET SESSION timezone = ''Asia/Tokyo''';
            BEGIN EXECUTE 'SET ROLE other_%s'; EXCEPTION WHEN OTHERS THEN NULL; END;
            CREATE TEMP TABLE leftover (x int);
            PERFORM pg_advisory_lock(4711);
            RETURN to_jsonb(pg_backend_pid());""" % db.name)
        db.handler("clean", """RETURN jsonb_build_object('path', current_setting('search_path'), 'work_mem', current_setting('work_mem'),
            'timeout', current_setting('statement_timeout') = '1ms', 'secret', coalesce(current_setting('app.secret', true), ''),
            'zone', current_setting('timezone'), 'role', current_user, 'temp', to_regclass('pg_temp.leftover') IS NOT NULL,
            'locks', (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()), 'pid', pg_backend_pid());""")
        db.listen("dirty", "dirty")
        db.listen("clean", "clean")
        remote = self.peer()
        before = remote.call("clean", "x", timeout=20)
        shared = False
        for _ in range(5):
            pid = remote.call("dirty", "x", timeout=20)
            after = remote.call("clean", "x", timeout=20)
            shared = shared or pid == after["pid"]
            self.assertEqual(dict(after, pid=0), dict(before, pid=0))
        self.assertTrue(shared, "some request has to run where a dirty one ran before")
        self.assertEqual((before["role"], before["temp"], before["locks"], before["secret"]), ("postgres", False, 0, ""))
