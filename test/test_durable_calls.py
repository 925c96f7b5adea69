"""Durable calls: sent at commit, answered into the database's mailbox, their outcome handled once, whatever ends in between."""

import collections
import json

from rinqtest import case
from rinqtest.peer import Answered, Failure, NoAnswer
from rinqtest.waiting import wait_until

HANDLER = ("CREATE TABLE outcome (n serial, id text, outcome text, payload jsonb, failure_type text, message text, trace_id text, command text, who name);"
           "CREATE FUNCTION note(r rinq_response) RETURNS void LANGUAGE sql AS $$ INSERT INTO outcome (id, outcome, payload, failure_type, message, trace_id, command, who)"
           " SELECT r.id, r.outcome, r.payload, r.failure_type, r.message, r.trace_id, r.command, current_user $$;")


class DurableCalls(case.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.db.sql(HANDLER)
        cls.remote = cls.world.peer()

    @classmethod
    def tearDownClass(cls):
        cls.remote.close()
        cls.db.drop()

    def outcome(self, call):
        """The row that the handler has written, as a list."""
        query = "SELECT to_jsonb(o) FROM outcome o WHERE id = '%s'" % call
        return json.loads(wait_until(lambda: self.db.value(query), bool, description="the outcome of " + call))

    def refused_before(self, call):
        """What is answered to a call that the broker has refused until now: its next attempt may be a minute away, where the broker's tools are slow."""
        return self.db.value("SELECT (rinq_wait('%s', '2 min')).payload" % call, timeout=150)

    def test_success(self):
        seen = []
        self.remote.serve("dc-ok", lambda request: seen.append(request) or {"sum": request.payload["a"] + 1})
        call = self.db.value("""SELECT rinq_call_durable('dc-ok', 'add', '{"a": 1}', 'note(rinq_response)')""")
        outcome = self.outcome(call)
        self.assertEqual((outcome["outcome"], outcome["payload"], outcome["failure_type"], outcome["message"], outcome["command"], outcome["trace_id"]),
                         ("success", {"sum": 2}, None, None, "add", call))
        self.assertEqual(len(seen), 1)
        self.assertEqual({k: v for k, v in seen[0].properties.items()},
                         {"message_id": call, "reply_to": "u", "delivery_mode": 2, "priority": 1})
        self.assertEqual({name: tuple(field) for name, field in seen[0].headers.items()}, {"n": ("S", "dc-ok"), "c": ("S", "add")})
        wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_durable_calls WHERE id = '%s'" % call), lambda n: n == "0", description="no row")

    def test_failure_and_error(self):
        def fail(request):
            raise Failure("no-stock", "nothing left", {"left": 0})

        def err(request):
            raise RuntimeError("it broke")

        self.remote.serve("dc-fail", fail)
        self.remote.serve("dc-err", err)
        first = self.db.value("SELECT rinq_call_durable('dc-fail', 'x', NULL::jsonb, 'note(rinq_response)')")
        second = self.db.value("SELECT rinq_call_durable('dc-err', 'x', NULL::jsonb, 'note(rinq_response)')")
        outcome = self.outcome(first)
        self.assertEqual((outcome["outcome"], outcome["payload"], outcome["failure_type"], outcome["message"]),
                         ("failure", {"left": 0}, "no-stock", "nothing left"))
        outcome = self.outcome(second)
        self.assertEqual((outcome["outcome"], outcome["payload"], outcome["failure_type"]), ("error", None, None))
        self.assertIn("it broke", outcome["message"])

    def test_result_is_kept(self):
        self.remote.serve("dc-keep", lambda request: request.payload)
        call = self.db.value("SELECT rinq_call_durable('dc-keep', 'x', '[1]'::jsonb)")
        row = self.db.value("SELECT to_jsonb(rinq_wait('%s', '20 s'))" % call)
        self.assertEqual({k: v for k, v in json.loads(row).items() if v is not None},
                         {"id": call, "session": call.partition("@")[0], "namespace": "dc-keep", "command": "x", "outcome": "success", "payload": [1],
                          "trace_id": call})
        self.assertEqual(self.db.value("SELECT outcome || payload::text FROM rinq_result_raw('%s')" % call), "success\\x8101")
        self.assertEqual(self.db.value("SELECT (rinq_result('%s')).payload" % call), "[1]")
        self.assertEqual(self.db.value("SELECT state FROM rinq_durable_calls WHERE id = '%s'" % call), "answered")
        self.assertSqlState(self.db.error("SELECT rinq_result('00000001-0001.1@0#1')"), "42704")

    def test_result_is_not_kept_for_ever(self):
        """Nothing else is due in the database meanwhile, whose end would have old results deleted as well."""
        db = self.database()
        self.addCleanup(self.server.configure, rinq__result_retention=None)
        self.server.configure(rinq__result_retention="1s")
        self.remote.serve("dc-old", lambda request: request.payload)
        calls = []

        def kept():
            calls.append(db.value("SELECT rinq_call_durable('dc-old', 'x')"))
            db.sql("SELECT rinq_wait('%s', '20 s')" % calls[-1])
            return int(db.value("SELECT count(*) FROM rinq_durable_calls"))

        # the processes learn of the setting one after another
        wait_until(kept, lambda count: count < len(calls), 20, "a result to be deleted")

    def test_wait_before_commit(self):
        with self.db.session() as session:
            session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            call = session.value("SELECT rinq_call_durable('dc-late', 'x')")
            self.assertSqlState(session.error("SELECT rinq_wait('%s')" % call), "55000")
            session.execute("ROLLBACK")
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_durable_calls WHERE id = '%s'" % call), "0")
        self.remote.serve("dc-late", lambda request: 7)
        with self.db.session() as session:
            session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
            call = self.db.value("SELECT rinq_call_durable('dc-late', 'x')")
            self.assertEqual(session.value("SELECT (rinq_wait('%s', '20 s')).payload" % call), "7")
            session.execute("COMMIT")

    def test_timeout(self):
        call = self.db.value("SELECT rinq_call_durable('dc-nobody', 'x', NULL::jsonb, 'note(rinq_response)', '300 ms')")
        self.assertEqual(self.outcome(call)["outcome"], "timeout")
        call = self.db.value("SELECT rinq_call_durable('dc-nobody', 'x', timeout => '100 ms')")
        self.assertEqual(self.db.value("SELECT (rinq_wait('%s', '20 s')).outcome" % call), "timeout")
        call = self.db.value("SELECT rinq_call_durable('dc-nobody', 'x')")
        self.assertSqlState(self.db.error("SELECT rinq_wait('%s', '50 ms')" % call), "RQ003")
        self.assertEqual(self.db.value("SELECT rinq_result('%s') IS NULL" % call), "t")

    def test_cancel(self):
        call = self.db.value("SELECT rinq_call_durable('dc-cancel', 'x', NULL::jsonb, 'note(rinq_response)')")
        self.assertEqual(self.db.value("SELECT state FROM rinq_durable_calls WHERE id = '%s'" % call), "waiting")
        self.assertEqual(self.db.value("SELECT rinq_durable_call_cancel('%s')" % call), "t")
        self.assertEqual(self.outcome(call)["outcome"], "cancelled")
        wait_until(lambda: self.db.value("SELECT rinq_durable_call_cancel('%s')" % call), lambda v: v == "f", description="the row to go")
        # the answer comes all the same, and finds no row
        dropped = self.db.peer()["responses_dropped"]
        self.remote.serve("dc-cancel", lambda request: 1)
        wait_until(lambda: self.db.peer()["responses_dropped"], lambda n: int(n) > int(dropped), description="a dropped answer")
        self.assertEqual(self.db.value("SELECT count(*) FROM outcome WHERE id = '%s'" % call), "1")

    def test_answered_twice(self):
        def twice(request):
            for _ in range(2):
                self.remote.publish_raw("cmd.rsp", request.id, b"\x01", {"n": "dc-twice", "c": "x"}, type="s", reply_to="u", correlation_id=request.trace_id)
            return 1

        self.remote.serve("dc-twice", twice)
        dropped = int(self.db.peer()["responses_dropped"])
        call = self.db.value("SELECT rinq_call_durable('dc-twice', 'x', NULL::jsonb, 'note(rinq_response)')")
        self.outcome(call)
        wait_until(lambda: int(self.db.peer()["responses_dropped"]), lambda n: n >= dropped + 2, description="two dropped answers")
        self.assertEqual(self.db.value("SELECT count(*) FROM outcome WHERE id = '%s'" % call), "1")

    def test_malformed_answers(self):
        def bad(request):
            self.remote.publish_raw("cmd.rsp", request.id, b"\x01", {"n": "dc-bad", "c": "x"}, type=request.payload, reply_to="u", correlation_id=request.trace_id)
            raise NoAnswer()

        self.remote.serve("dc-bad", bad)
        for kind in ("f", "z", "ss"):
            call = self.db.value("""SELECT rinq_call_durable('dc-bad', 'x', '"%s"'::jsonb)""" % kind)
            self.assertEqual(self.db.value("SELECT r.outcome || ': ' || r.message FROM rinq_wait('%s', '20 s') r" % call),
                             "error: the response is malformed")

    def test_resend(self):
        seen = []

        def second(request):
            seen.append(request.id)
            if len(seen) < 2:
                raise Answered()
            return len(seen)

        self.remote.serve("dc-again", second)
        call = self.db.value("SELECT rinq_call_durable('dc-again', 'x')")
        wait_until(lambda: len(seen), bool, description="the request")
        wait_until(lambda: self.db.value("SELECT depth FROM rinq_outbox_status"), lambda n: n == "0", description="an empty outbox")
        self.assertEqual(self.db.value("SELECT rinq_durable_call_resend('%s')" % call), "t")
        self.assertEqual(self.db.value("SELECT (rinq_wait('%s', '20 s')).payload" % call), "2")
        self.assertEqual(seen, [call, call])
        self.assertEqual(self.db.value("SELECT rinq_durable_call_resend('%s')" % call), "f")
        self.assertEqual(self.db.value("SELECT asked FROM rinq_durable_calls WHERE id = '%s'" % call), "2")

    def test_resend_by_itself(self):
        seen = []

        def third(request):
            seen.append(request.id)
            if len(seen) < 3:
                raise Answered()
            return len(seen)

        self.remote.serve("dc-self", third)
        call = self.db.value("SELECT rinq_call_durable('dc-self', 'x', resend => '200 ms')")
        self.assertEqual(self.db.value("SELECT (rinq_wait('%s', '20 s')).payload" % call), "3")
        self.assertEqual(set(seen), {call})

    def test_no_resend_while_the_request_waits(self):
        """What still waits in the outbox is not asked again: copies of it would pile up as long as the broker does not take it."""
        self.remote.serve("dc-wait", lambda request: request.payload)
        self.world.broker.ctl("set_policy", "dcwait", "^cmd\\.dc-wait$", '{"max-length":0,"overflow":"reject-publish"}', "--apply-to", "queues")
        call = self.db.value("SELECT rinq_call_durable('dc-wait', 'x', '5'::jsonb, resend => '50 ms')")
        moments = set()
        wait_until(lambda: moments.add(self.db.value("SELECT due FROM rinq_internal.durable_call WHERE id = '%s'" % call)) or len(moments), lambda n: n > 5,
                   description="some looks at the call")
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_outbox WHERE id = '%s'" % call), "1")
        self.assertEqual(self.db.value("SELECT asked FROM rinq_durable_calls WHERE id = '%s'" % call), "1")
        self.world.broker.ctl("clear_policy", "dcwait")
        self.assertEqual(self.refused_before(call), "5")
        wait_until(lambda: self.db.value("SELECT depth FROM rinq_outbox_status"), lambda n: n == "0", 10, "an empty outbox")

    def test_resend_while_the_request_waits(self):
        """A message has one row in the outbox, however often it is asked again by hand."""
        self.remote.serve("dc-once", lambda request: request.payload)
        self.world.broker.ctl("set_policy", "dconce", "^cmd\\.dc-once$", '{"max-length":0,"overflow":"reject-publish"}', "--apply-to", "queues")
        call = self.db.value("WITH c AS (SELECT rinq_call_durable('dc-once', 'x', '5'::jsonb) AS id) SELECT id FROM c")
        for _ in range(3):
            self.assertEqual(self.db.value("SELECT rinq_durable_call_resend('%s')" % call), "t")
        other = self.db.sql("BEGIN; CREATE TEMP TABLE t AS SELECT rinq_call_durable('dc-once', 'x', '6'::jsonb) AS id; SELECT rinq_durable_call_resend(id), id FROM t; COMMIT")[0]
        self.assertEqual(other[0], "t")
        for id in (call, other[1]):
            self.assertEqual(self.db.value("SELECT count(*) FROM rinq_outbox WHERE id = '%s'" % id), "1")
            self.assertEqual(self.db.value("SELECT asked FROM rinq_durable_calls WHERE id = '%s'" % id), "1")
        self.world.broker.ctl("clear_policy", "dconce")
        self.assertEqual(self.refused_before(call), "5")
        self.assertEqual(self.refused_before(other[1]), "6")
        wait_until(lambda: self.db.value("SELECT depth FROM rinq_outbox_status"), lambda n: n == "0", 10, "an empty outbox")

    def test_resend_again_and_again(self):
        """Each time that a call is asked its request is sent, also when the row of the time before is just being removed."""
        seen = collections.Counter()

        def nothing(request):
            seen[request.id] += 1
            raise Answered()

        self.remote.serve("dc-often", nothing)
        calls = [self.db.value("SELECT rinq_call_durable('dc-often', 'x')") for _ in range(4)]
        with self.db.session() as one, self.db.session() as other:
            for _ in range(60):
                for session in (one, other):
                    session.execute("; ".join("SELECT rinq_durable_call_resend('%s')" % call for call in calls))
        wait_until(lambda: self.db.value("SELECT depth FROM rinq_outbox_status"), lambda n: n == "0", 10, "an empty outbox")
        asked = dict(self.db.sql("SELECT id, asked FROM rinq_durable_calls WHERE id IN ('%s')" % "', '".join(calls)))
        wait_until(lambda: {call: str(seen[call]) for call in calls}, lambda times: times == asked, 10, "as many requests as questions: %r" % asked)
        for call in calls:
            self.db.sql("SELECT rinq_durable_call_cancel('%s')" % call)

    def test_locked_rows_and_tables(self):
        """What another transaction has locked of durable calls is left for later; nothing else waits for it."""
        self.remote.serve("dc-locked", lambda request: request.payload)
        self.remote.serve("dc-free", lambda request: request.payload)
        # a row
        with self.db.session() as session:
            slow = self.db.value("SELECT rinq_call_durable('dc-nobody-there', 'x', timeout => '2 s')")
            session.execute("BEGIN; SELECT FROM rinq_internal.durable_call WHERE id = '%s' FOR UPDATE" % slow)
            wait_until(lambda: self.db.value("SELECT now() > deadline FROM rinq_durable_calls WHERE id = '%s'" % slow), lambda v: v == "t", 20, "the deadline")
            call = self.db.value("SELECT rinq_call_durable('dc-free', 'x', '1'::jsonb)")
            self.assertEqual(self.db.value("SELECT (rinq_wait('%s', '20 s')).payload" % call), "1")
            session.execute("ROLLBACK")
        self.assertEqual(self.db.value("SELECT (rinq_wait('%s', '20 s')).outcome" % slow), "timeout")
        # tables: durable calls wait, commands go, and their rows are removed
        for table in ("durable_call", "durable_source", "mailbox"):
            with self.db.session() as session:
                call = self.db.value("SELECT rinq_call_durable('dc-locked', 'x', '2'::jsonb)")
                session.execute("BEGIN; LOCK TABLE rinq_internal.%s" % table)
                self.db.sql("SELECT rinq_execute('dc-free', 'x', '3')")
                wait_until(lambda: self.db.value("SELECT depth FROM rinq_outbox_status"), lambda n: n == "0", 20, "an empty outbox beside " + table)
                session.execute("ROLLBACK")
            self.assertEqual(self.db.value("SELECT (rinq_wait('%s', '20 s')).payload" % call), "2")

    def test_handler_fails(self):
        self.db.sql("CREATE TABLE tries (t timestamptz); CREATE SEQUENCE tried;"
                    "CREATE FUNCTION flaky(r rinq_response) RETURNS void LANGUAGE plpgsql AS $$ BEGIN INSERT INTO tries VALUES (now());"
                    " IF nextval('tried') < 2 THEN RAISE 'not yet'; END IF; END $$;"
                    "CREATE FUNCTION never(r rinq_response) RETURNS void LANGUAGE plpgsql AS $$ BEGIN RAISE 'never'; END $$")
        self.remote.serve("dc-flaky", lambda request: 1)
        call = self.db.value("SELECT rinq_call_durable('dc-flaky', 'x', on_response => 'flaky(rinq_response)')")
        row = json.loads(wait_until(lambda: self.db.value("SELECT to_jsonb(c) FROM rinq_durable_calls c WHERE id = '%s' AND attempts = 1" % call), bool,
                                    description="an attempt"))
        self.assertEqual((row["state"], row["outcome"], row["error"], row["handler"]), ("handling", "success", "not yet", "public.flaky(public.rinq_response)"))
        wait_until(lambda: self.db.value("SELECT count(*) FROM tries"), lambda n: n == "1", description="the second attempt")
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_durable_calls WHERE id = '%s'" % call), "0")

    def fails(self, name, body):
        """A handler that counts its attempts, and fails with what body does; the query that tells their moments."""
        self.db.sql("CREATE TABLE %s_log (at float8); CREATE SEQUENCE %s_seq;"
                    "CREATE FUNCTION %s(r rinq_response) RETURNS void LANGUAGE plpgsql AS $$ DECLARE n int := nextval('%s_seq'); BEGIN"
                    " INSERT INTO %s_log VALUES (n); %s END $$" % (name, name, name, name, name, body))
        return "SELECT last_value FROM %s_seq" % name

    def policy_call(self, name, retry):
        return self.db.value("SELECT rinq_call_durable('dc-policy', 'x', on_response => '%s(rinq_response)', retry => '%s')" % (name, retry))

    def wait_row(self, call, condition):
        query = "SELECT to_jsonb(c) FROM rinq_durable_calls c WHERE id = '%s' AND %s" % (call, condition)
        return json.loads(wait_until(lambda: self.db.value(query), bool, description=condition))

    def check(self):
        return [message for (message,) in self.db.sql("SELECT message FROM rinq_check() WHERE subject = 'durable calls'")]

    def test_handler_with_a_name_in_another_encoding(self):
        """It is found by its name when it was dropped and made again."""
        db = self.database(encoding="LATIN1")
        create = "CREATE FUNCTION \"bestätigt\"(r rinq_response) RETURNS void LANGUAGE sql AS 'INSERT INTO ended VALUES (r.outcome)'"
        db.sql("CREATE TABLE ended (outcome text); " + create)
        call = db.value("SELECT rinq_call_durable('dc-latin-nobody', 'x', on_response => '\"bestätigt\"(rinq_response)')")
        db.sql("DROP FUNCTION \"bestätigt\"(rinq_response); " + create)
        db.sql("SELECT rinq_durable_call_cancel('%s')" % call)
        wait_until(lambda: db.sql("SELECT outcome FROM ended"), lambda rows: rows == [["cancelled"]], 20, "the outcome to be handled")

    def test_policy(self):
        self.remote.serve("dc-policy", lambda request: 1)
        with self.subTest("as many attempts as it says, and not more"):
            count = self.fails("pol_few", "RAISE 'not at all';")
            call = self.policy_call("pol_few", '{"attempts": 3, "first_delay": "20 ms", "factor": 1}')
            row = self.wait_row(call, "state = 'failed'")
            self.assertEqual((row["attempts"], row["error"], row["next_attempt"], row["retry"]["attempts"]), (3, "not at all", None, 3))
            self.assertEqual(self.db.value(count), "3")
            self.assertEqual(self.db.value("SELECT count(*) FROM pol_few_log"), "0", "effects of failed attempts are rolled back")
        with self.subTest("of which rinq_check speaks"):
            self.assertEqual(self.check(), ["the handlers of 1 were given up"])
        with self.subTest("attempts are counted anew after rinq_durable_call_retry"):
            self.assertEqual(self.db.value("SELECT rinq_durable_call_retry('%s')" % call), "t")
            wait_until(lambda: self.db.value(count), lambda n: n == "6", description="three more attempts")
            self.wait_row(call, "state = 'failed' AND attempts = 3")
            self.assertEqual(self.db.value("SELECT rinq_durable_call_cancel('%s')" % call), "t")
            self.assertEqual(self.check(), [])
        with self.subTest("a single attempt"):
            count = self.fails("pol_once", "RAISE 'never again';")
            call = self.policy_call("pol_once", '{"attempts": 1}')
            self.wait_row(call, "state = 'failed' AND attempts = 1")
            self.assertEqual(self.db.value("SELECT rinq_durable_call_cancel('%s')" % call), "t")
            self.assertEqual(self.db.value(count), "1")
        with self.subTest("more attempts than rinq.max_attempts, and success in the last one"):
            count = self.fails("pol_many", "IF n < 8 THEN RAISE 'not yet'; END IF;")
            call = self.policy_call("pol_many", '{"attempts": 8, "first_delay": "1 ms", "max_delay": "10 ms", "jitter": 0}')
            wait_until(lambda: self.db.value("SELECT count(*) FROM pol_many_log"), lambda n: n == "1", description="the eighth attempt")
            self.assertEqual(self.db.value(count), "8")
            self.assertEqual(self.db.value("SELECT count(*) FROM rinq_durable_calls WHERE id = '%s'" % call), "0")
        with self.subTest("the first delay"):
            self.fails("pol_long", "RAISE 'later';")
            call = self.policy_call("pol_long", '{"first_delay": "1 h", "max_delay": "1 d", "jitter": 0}')
            self.wait_row(call, "attempts = 1 AND next_attempt BETWEEN now() + '50 min' AND now() + '61 min'")
        with self.subTest("none any more, since it was cancelled"):
            self.assertEqual(self.db.value("SELECT rinq_durable_call_cancel('%s')" % call), "t")
            self.assertEqual(self.db.value("SELECT count(*) FROM rinq_durable_calls WHERE id = '%s'" % call), "0")
        with self.subTest("none any more, since it has cancelled the call itself"):
            count = self.fails("pol_end", "IF n < 2 THEN RAISE 'not yet'; END IF; PERFORM rinq_durable_call_cancel(r.id);")
            call = self.policy_call("pol_end", '{"attempts": 4, "first_delay": "1 ms", "max_delay": "10 ms"}')
            wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_durable_calls WHERE id = '%s'" % call), lambda n: n == "0", description="no row")
            self.assertEqual([self.db.value(count), self.db.value("SELECT count(*) FROM pol_end_log")], ["2", "1"])

    def test_handler_asks_for_another_attempt(self):
        self.remote.serve("dc-policy", lambda request: 1)
        with self.subTest("at a time of its own"):
            self.fails("ask_time", "PERFORM rinq_retry('2 h', 'closed');")
            call = self.policy_call("ask_time", '{"attempts": 2, "first_delay": "1 ms"}')
            self.assertEqual(self.wait_row(call, "attempts = 1 AND next_attempt > now() + '110 min'")["error"], "closed")
        with self.subTest("which counts"):
            count = self.fails("ask_often", "PERFORM rinq_retry('0', 'busy');")
            call = self.policy_call("ask_often", '{"attempts": 4, "first_delay": "1 h", "max_delay": "1 h"}')
            self.wait_row(call, "state = 'failed' AND attempts = 4")
            self.assertEqual(self.db.value("SELECT rinq_durable_call_cancel('%s')" % call), "t")
            self.assertEqual(self.db.value(count), "4")
        with self.subTest("when the policy says"):
            self.fails("ask_policy", "PERFORM rinq_retry();")
            self.wait_row(self.policy_call("ask_policy", '{"first_delay": "3 h", "max_delay": "1 d"}'), "next_attempt > now() + '2 h'")
        with self.subTest("without a policy"):
            self.fails("ask_bare", "IF n < 2 THEN PERFORM rinq_retry('1 ms'); END IF;")
            self.db.sql("SELECT rinq_call_durable('dc-policy', 'x', on_response => 'ask_bare(rinq_response)')")
            wait_until(lambda: self.db.value("SELECT count(*) FROM ask_bare_log"), lambda n: n == "1", description="the second attempt")

    def test_attempts_without_a_pause(self):
        """A handler that is due again before the peer has heard of the attempt before is not left until that is taken for lost, after 10 s."""
        self.db.sql("CREATE FUNCTION at_once(r rinq_response) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM rinq_retry('0'); END $$")
        self.remote.serve("dc-once-more", lambda request: 1)
        calls = """SELECT rinq_call_durable('dc-once-more', 'x', NULL::jsonb, 'at_once(rinq_response)', retry => '{"attempts": 15}') FROM generate_series(1, 15)"""
        calls = [id for (id,) in self.db.sql(calls)]
        count = "SELECT count(*) FROM rinq_durable_calls WHERE id IN ('%s') AND state = 'failed' AND attempts = 15" % "', '".join(calls)
        self.addCleanup(lambda: [self.db.sql("SELECT rinq_durable_call_cancel('%s')" % call) for call in calls])
        wait_until(lambda: self.db.value(count), lambda n: n == "15", 9, "all attempts")

    def test_bad_policies(self):
        for retry in ('[]', '{"attempts": 0}', '{"attempts": 1.5}', '{"first_delay": 5}', '{"first_delay": "soon"}', '{"factor": 0.5}', '{"jitter": 2}',
                      '{"calls": 1}', '{"tries": 3}', '{"first_delay": "2 s", "max_delay": "1 s"}'):
            for name, payload in (("rinq_call_durable", "NULL::jsonb"), ("rinq_call_durable_raw", "NULL::bytea")):
                error = self.db.error("SELECT %s('a', 'x', %s, 'note(rinq_response)', retry => '%s')" % (name, payload, retry))
                self.assertSqlState(error, "22023", "invalid retry policy")
        self.assertSqlState(self.db.error("SELECT rinq_call_durable('a', 'x', retry => '{}')"), "22023", "needs a handler")

    def test_roles(self):
        self.db.sql("CREATE ROLE dc_user LOGIN; CREATE ROLE dc_other LOGIN; GRANT EXECUTE ON FUNCTION rinq_call_durable,"
                    " rinq_result, rinq_durable_call_cancel TO dc_user, dc_other; GRANT INSERT ON outcome TO dc_user; GRANT EXECUTE ON FUNCTION note(rinq_response) TO dc_user;"
                    " GRANT USAGE ON SEQUENCE outcome_n_seq TO dc_user")
        self.addCleanup(self.db.sql, "DROP OWNED BY dc_user, dc_other; DROP ROLE dc_user, dc_other")
        self.remote.serve("dc-role", lambda request: 1)
        call = self.db.value("SET ROLE dc_user; SELECT rinq_call_durable('dc-role', 'x', NULL::jsonb, 'note(rinq_response)')").split("\n")[-1]
        self.assertEqual(self.outcome(call)["who"], "dc_user")
        call = self.db.value("SET ROLE dc_user; SELECT rinq_call_durable('dc-nobody', 'x')").split("\n")[-1]
        self.assertSqlState(self.db.error("SET ROLE dc_other; SELECT rinq_result('%s')" % call), "42704")
        self.assertEqual(self.db.value("SET ROLE dc_other; SELECT rinq_durable_call_cancel('%s')" % call).split("\n")[-1], "f")
        self.assertEqual(self.db.value("SET ROLE dc_other; SELECT count(*) FROM rinq_durable_calls").split("\n")[-1], "0")
        self.assertEqual(self.db.value("SET ROLE dc_user; SELECT rinq_durable_call_cancel('%s')" % call).split("\n")[-1], "t")
        self.assertEqual(self.db.value("SET ROLE dc_user; SELECT outcome FROM rinq_durable_calls WHERE id = '%s'" % call).split("\n")[-1], "cancelled")

    def test_handler_becomes_another_role(self):
        """As one does that leaves what a caller may see to row-level security: the call ends all the same."""
        self.server.psql("CREATE ROLE dc_becomes")
        self.addCleanup(self.server.psql, "DROP ROLE dc_becomes")
        self.addCleanup(self.db.sql, "DROP FUNCTION becomes; DROP OWNED BY dc_becomes")
        self.remote.serve("dc-becomes", lambda request: None)
        self.db.sql("GRANT INSERT ON outcome TO dc_becomes; GRANT USAGE ON SEQUENCE outcome_n_seq TO dc_becomes;"
                    "CREATE FUNCTION becomes(r rinq_response) RETURNS void LANGUAGE plpgsql AS $$ BEGIN SET LOCAL ROLE dc_becomes; PERFORM note(r); END $$")
        call = self.db.value("SELECT rinq_call_durable('dc-becomes', 'x', NULL::jsonb, 'becomes(rinq_response)')")
        self.assertEqual(self.outcome(call)["who"], "dc_becomes")
        wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_durable_calls WHERE id = '%s'" % call), lambda n: n == "0", description="no row")

    def test_handler_that_only_reads(self):
        """Also in a transaction that may not write, the row of the call is locked before the handler, and deleted after it."""
        self.server.psql("CREATE ROLE dc_reads LOGIN")
        self.addCleanup(self.server.psql, "DROP ROLE dc_reads")
        self.addCleanup(self.db.sql, "DROP FUNCTION reads, stops; DROP OWNED BY dc_reads")
        self.remote.serve("dc-reads", lambda request: None)
        self.db.sql("CREATE FUNCTION reads(r rinq_response) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM 1; END $$;"
                    "CREATE FUNCTION stops(r rinq_response) RETURNS void LANGUAGE plpgsql AS"
                    " $$ BEGIN PERFORM note(r); SET LOCAL transaction_read_only = on; END $$;"
                    "GRANT EXECUTE ON FUNCTION rinq_call_durable, reads(rinq_response) TO dc_reads; ALTER ROLE dc_reads SET default_transaction_read_only = on")
        for role, handler in (("dc_reads", "reads"), ("postgres", "stops")):
            with self.subTest(handler=handler):
                call = self.db.value("SET ROLE %s; SELECT rinq_call_durable('dc-reads', 'x', NULL::jsonb, '%s(rinq_response)')" % (role, handler)).split("\n")[-1]
                wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_durable_calls WHERE id = '%s'" % call), lambda n: n == "0", description="no row")

    def test_dropped_role(self):
        """Nobody can run the handler of a role that was dropped: it is given up, and said so, and the call can be deleted."""
        self.db.sql("CREATE ROLE dc_gone LOGIN; GRANT EXECUTE ON FUNCTION rinq_call_durable, note(rinq_response) TO dc_gone")
        call = self.db.value("SET ROLE dc_gone; SELECT rinq_call_durable('dc-gone', 'x', NULL::jsonb, 'note(rinq_response)')").split("\n")[-1]
        self.db.sql("DROP OWNED BY dc_gone; DROP ROLE dc_gone")
        self.assertEqual(self.db.value("SELECT rinq_durable_call_cancel('%s')" % call), "t")
        row = self.wait_row(call, "state = 'failed'")
        self.assertEqual((row["outcome"], row["error"], row["next_attempt"]), ("cancelled", "the role that has made the call does not exist any more", None))
        self.assertIn("the handlers of 1 were given up", self.check())
        self.assertEqual(self.db.value("SELECT rinq_durable_call_cancel('%s')" % call), "t")
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_durable_calls WHERE id = '%s'" % call), "0")

    def test_bad_arguments(self):
        for statement, state in (("rinq_call_durable('_sess', 'x')", "22023"), ("rinq_call_durable('a', NULL)", "22004"),
                                 ("rinq_call_durable('a', 'x', on_response => 'now()')", "42P13"), ("rinq_call_durable('a', 'x', timeout => '0')", "22023"),
                                 ("rinq_call_durable('a', 'x', resend => '-1 s')", "22023"), ("rinq_call_durable_raw('a', 'x', '\\xff')", "22P03")):
            self.assertSqlState(self.db.error("SELECT " + statement), state)
        self.assertSqlState(self.db.error("SELECT rinq_call_durable('a', 'x', resend => '0')"), "22023", "resend must be positive")
        self.assertEqual(self.db.value("SELECT rinq_durable_call_cancel(NULL) IS NULL"), "t")


class Stuck(case.Case):
    def test_late(self):
        """Calls that nobody ends, since the peer is stopped."""
        db = self.database()
        db.sql(HANDLER)
        db.sql("SELECT rinq_stop(false)")
        check = "SELECT message FROM rinq_check() WHERE subject = 'durable calls'"
        call = db.value("SELECT rinq_call_durable('dc-nobody', 'x', NULL::jsonb, 'note(rinq_response)', '1 ms')")
        self.assertEqual(db.sql(check), [])
        db.sql("ALTER TABLE rinq_internal.durable_call DISABLE TRIGGER guard;"
               "UPDATE rinq_internal.durable_call SET deadline = now() - interval '11 min';"
               "ALTER TABLE rinq_internal.durable_call ENABLE ALWAYS TRIGGER guard")
        self.assertEqual(db.sql(check), [["1 should have ended more than 10 minutes ago, and have no outcome"]])
        db.sql("SELECT rinq_start()")
        wait_until(lambda: db.value("SELECT outcome FROM outcome WHERE id = '%s'" % call), lambda v: v == "timeout", 20, "the outcome")
        wait_until(lambda: db.sql(check), lambda rows: rows == [], 20, "nothing to complain about")


    def test_table_that_is_not_as_it_was_made(self):
        """Which mailbox there is cannot be read then; the peer goes on with the one that it has, on its connection."""
        db = self.database()
        self.peer().serve("dc-table", lambda request: 1)
        call = db.value("SELECT rinq_call_durable('dc-table', 'x')")
        self.assertEqual(db.value("SELECT (rinq_wait('%s', '20 s')).payload" % call), "1")
        row = db.peer()
        for command in ("ALTER TABLE rinq_internal.durable_call ENABLE ROW LEVEL SECURITY", "ALTER TABLE rinq_internal.durable_call DISABLE ROW LEVEL SECURITY"):
            db.sql(command)
            db.sql("SELECT rinq_wait_ready()")
            self.assertEqual((db.peer()["peer_id"], db.peer()["reconnects"]), (row["peer_id"], row["reconnects"]), command)
        call = db.value("SELECT rinq_call_durable('dc-table', 'x')")
        self.assertEqual(db.value("SELECT (rinq_wait('%s', '20 s')).payload" % call), "1")


class NotSent(case.Case):
    @classmethod
    def make_world(cls):
        world = case.new_world("durable", settings={"rinq.retry_delay": "50ms", "rinq.send_attempts": "2", "rinq.mailbox_patience": "500ms"})
        cls.addClassCleanup(world.close)
        return world

    def test_not_sent(self):
        db = self.world.database()
        db.sql(HANDLER)
        self.world.broker.ctl("set_policy", "dcmax", "^cmd\\.dc-full$", '{"max-length":0,"overflow":"reject-publish"}', "--apply-to", "queues")
        call = db.value("SELECT rinq_call_durable('dc-full', 'x', NULL::jsonb, 'note(rinq_response)')")
        outcome = json.loads(wait_until(lambda: db.value("SELECT to_jsonb(o) FROM outcome o WHERE id = '%s'" % call), bool, 30, description="not sent"))
        self.assertEqual(outcome["outcome"], "not sent")
        self.assertIn("refused", outcome["message"])
        self.assertEqual(db.value("SELECT count(*) FROM rinq_outbox_dead_letter"), "0")
        self.assertEqual(db.value("SELECT depth FROM rinq_outbox_status"), "0")

    def test_mailbox_of_another_server(self):
        """What holds the mailbox is another server, as far as the peer can tell: it takes another one, and calls of the old one are not sent."""
        db = self.database()
        db.sql(HANDLER)
        old = db.value("SELECT id FROM rinq_internal.mailbox")
        connection = self.world.broker.connect()
        self.addCleanup(connection.close)
        channel = connection.channel()
        channel.queue_declare(old + ".rsp", durable=True)
        channel.basic_consume(old + ".rsp", lambda *_: None, exclusive=True)
        call = db.value("SELECT rinq_call_durable('dc-new', 'x', NULL::jsonb, 'note(rinq_response)')")
        self.assertTrue(call.startswith(old + "."), call)
        new = wait_until(lambda: db.value("SELECT id FROM rinq_internal.mailbox"), lambda v: v != old, 20, "another mailbox")
        outcome = wait_until(lambda: db.value("SELECT outcome FROM outcome WHERE id = '%s'" % call), bool, 20, "the outcome")
        self.assertEqual(outcome, "not sent")
        self.peer().serve("dc-new", lambda request: 1)
        call = db.value("SELECT rinq_call_durable('dc-new', 'x')")
        self.assertTrue(call.startswith(new + "."), call)
        self.assertEqual(db.value("SELECT (rinq_wait('%s', '20 s')).payload" % call), "1")
