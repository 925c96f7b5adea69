"""Commands that are executed when a transaction commits: what is sent, when, and in which order."""

import random

from rinqtest import case
from rinqtest.collector import Collector
from rinqtest.peer import now_ms
from rinqtest.waiting import wait_until


def execute(namespace, payload, durable=True):
    return "SELECT rinq_execute('%s', 'x', '%s'::jsonb%s);" % (namespace, payload, "" if durable else ", durable => false")


class Execute(case.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.db.sql("CREATE TABLE t (i int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        cls.remote = cls.world.peer(prefetch=0)

    @classmethod
    def tearDownClass(cls):
        cls.remote.close()
        cls.db.drop()

    def collect(self, namespace):
        return Collector(self.remote, namespace)

    def assertSent(self, collector, expected, timeout=10):
        """What was sent so far, and nothing else: the last one is sent now."""
        self.db.sql(execute(collector.namespace, '"end"'))
        wait_until(lambda: collector.payloads, lambda p: p[-1:] == ["end"], timeout, "the last message")
        self.assertEqual(collector.payloads, expected + ["end"])

    def wait_empty(self):
        wait_until(lambda: self.db.value("SELECT depth FROM rinq_outbox_status"), lambda n: n == "0", description="an empty outbox")

    def test_durable_message(self):
        collector = self.collect("ex-durable")
        message = self.db.value("SELECT rinq_execute('ex-durable', 'go', '{\"Left\": 1}')")
        request = collector.wait(1)[0]
        self.assertEqual(request.id, message)
        self.assertEqual(request.payload, {"Left": 1})
        self.assertEqual(request.properties, {"message_id": message, "delivery_mode": 2, "priority": 0}
                         if "priority" in request.properties else {"message_id": message, "delivery_mode": 2})
        self.assertEqual({name: tuple(field) for name, field in request.headers.items()}, {"n": ("S", "ex-durable"), "c": ("S", "go")})
        self.assertTrue(message.startswith(self.db.peer()["peer_id"] + "."), message)
        self.wait_empty()

    def test_deadline(self):
        collector = self.collect("ex-deadline")
        before = now_ms()
        self.db.sql("SELECT rinq_execute('ex-deadline', 'go', NULL, '30 s')")
        request = collector.wait(1)[0]
        self.assertEqual(request.body, b"")
        self.assertEqual(request.headers["dl"].type, "l")
        self.assertTrue(before + 30000 <= request.deadline <= now_ms() + 30000)
        self.assertTrue(20000 < int(request.properties["expiration"]) <= 30000)

    def test_forms_of_payloads(self):
        collector = self.collect("ex-forms")
        self.db.sql("SELECT rinq_execute('ex-forms', 'a'); SELECT rinq_execute('ex-forms', 'a', NULL);"
                    "SELECT rinq_execute('ex-forms', 'a', '[1]'::jsonb); SELECT rinq_execute('ex-forms', 'a', payload => '[2]');"
                    "SELECT rinq_execute(command => 'a', namespace => 'ex-forms', durable => false)")
        self.assertSent(collector, [None, None, [1], [2], None])
        self.assertSqlState(self.db.error("SELECT rinq_execute('ex-forms', 'a', 'no json')"), "22P02")

    def test_not_before_commit(self):
        collector = self.collect("ex-commit")
        with self.db.session() as session:
            session.execute("BEGIN")
            first = session.value(execute("ex-commit", 1))
            second = session.value(execute("ex-commit", 2, durable=False))
            self.db.sql(execute("ex-commit", 3))
            collector.wait(1)
            self.assertEqual(collector.payloads, [3])
            session.execute("COMMIT")
            collector.wait(3)
            self.assertEqual(collector.payloads, [3, 1, 2])
            self.assertEqual(collector.ids[1:], [first, second])

    def test_rollbacks(self):
        collector = self.collect("ex-roll")
        self.db.sql("BEGIN; %s %s ROLLBACK" % (execute("ex-roll", 1), execute("ex-roll", 2, False)))
        self.db.sql("BEGIN; %s SAVEPOINT a; %s ROLLBACK TO a; %s RELEASE a; COMMIT"
                    % (execute("ex-roll", 3), execute("ex-roll", 4), execute("ex-roll", 5)))
        self.db.sql("DO $$ BEGIN PERFORM rinq_execute('ex-roll', 'x', '6'::jsonb); BEGIN PERFORM rinq_execute('ex-roll', 'x', '7'::jsonb);"
                    " PERFORM 1/0; EXCEPTION WHEN division_by_zero THEN PERFORM rinq_execute('ex-roll', 'x', '8'::jsonb); END; END $$")
        self.assertSqlState(self.db.error("BEGIN; INSERT INTO t VALUES (1), (1); %s COMMIT" % execute("ex-roll", 9)), "23505")
        self.assertSqlState(self.db.error("BEGIN; %s SELECT 1/0; COMMIT" % execute("ex-roll", 10, False)), "22012")
        self.assertSent(collector, [3, 5, 6, 8])
        self.wait_empty()

    def test_random_savepoints(self):
        collector = self.collect("ex-random")
        expected = []
        seed = random.randrange(1 << 30)
        rng = random.Random(seed)
        number = 0
        for _ in range(30):
            script, stack, sent = ["BEGIN;"], [], []
            for _ in range(rng.randrange(1, 25)):
                action = rng.choice(["send", "send", "memory", "savepoint", "release", "rollback"])
                if action in ("send", "memory"):
                    number += 1
                    script.append(execute("ex-random", number, action == "send"))
                    sent.append(number)
                elif action == "savepoint":
                    stack.append(len(sent))
                    script.append("SAVEPOINT s%d;" % len(stack))
                elif stack and action == "release":
                    level = rng.randrange(len(stack))
                    del stack[level:]
                    script.append("RELEASE s%d;" % (level + 1))
                elif stack:
                    level = rng.randrange(len(stack))
                    del stack[level + 1:]
                    del sent[stack[level]:]
                    script.append("ROLLBACK TO s%d;" % (level + 1))
            commit = rng.random() < 0.8
            script.append("COMMIT;" if commit else "ROLLBACK;")
            self.db.sql("\n".join(script))
            expected += sent if commit else []
        self.db.sql(execute("ex-random", '"end"'))
        wait_until(lambda: collector.payloads, lambda p: p[-1:] == ["end"], description="the last message")
        self.assertEqual(collector.payloads, expected + ["end"], "seed %d" % seed)

    def test_serialization_failure_at_commit(self):
        collector = self.collect("ex-serial")
        self.db.sql("CREATE TABLE IF NOT EXISTS ser (i int); INSERT INTO ser VALUES (1), (2)")
        with self.db.session() as one, self.db.session() as two:
            for session, other in ((one, 1), (two, 2)):
                session.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
                session.execute("SELECT sum(i) FROM ser")
                session.execute("INSERT INTO ser VALUES (%d)" % other)
                session.execute(execute("ex-serial", other))
            one.execute("COMMIT")
            self.assertSqlState(two.error("COMMIT"), "40001")
        self.assertSent(collector, [1])

    def test_receiver_sees_the_rows(self):
        self.db.sql("CREATE TABLE IF NOT EXISTS seen (i int)")
        seen = []
        self.remote.serve("ex-seen", lambda request: seen.append(self.db.value("SELECT count(*) FROM seen WHERE i = %d" % request.payload)))
        for i in range(10):
            self.db.sql("BEGIN; INSERT INTO seen VALUES (%d); %s COMMIT" % (i, execute("ex-seen", i, i % 2 == 0)))
        wait_until(lambda: seen, lambda s: len(s) == 10, description="all messages")
        self.assertEqual(seen, ["1"] * 10)

    def test_read_only_transaction(self):
        collector = self.collect("ex-ro")
        self.assertSqlState(self.db.error("BEGIN READ ONLY; %s COMMIT" % execute("ex-ro", 1)), "25006")
        self.db.sql("BEGIN READ ONLY; %s COMMIT" % execute("ex-ro", 2, False))
        self.assertSent(collector, [2])

    def test_many_in_one_transaction(self):
        # to a peer of its own, which may have to acknowledge them for long
        collector = Collector(self.peer(), "ex-many")
        count = 20000
        for durable in ("true", "false"):
            self.db.sql("SELECT count(rinq_execute('ex-many', 'x', to_jsonb(i), NULL, %s)) FROM generate_series(1, %d) i" % (durable, count))
            wait_until(lambda: collector.payloads, lambda p: len(p) >= count, 60, "all messages")
            self.assertEqual(collector.payloads, list(range(1, count + 1)))
            collector.forget()
        self.wait_empty()

    def test_inherits_the_trace(self):
        collector = self.collect("ex-trace")
        self.db.handler("ex_handler", "PERFORM rinq_execute('ex-trace', 'x'); RETURN 'true';")
        self.db.listen("ex-handler", "ex_handler")
        self.remote.call("ex-handler", "go", trace="my-trace", timeout=20)
        self.assertEqual(collector.wait(1)[0].trace_id, "my-trace")

    def test_limits(self):
        self.addCleanup(self.world.server.configure, **{"rinq.send_buffer": None, "rinq.max_outbox": None})
        self.world.server.configure(**{"rinq.send_buffer": "1MB"})
        wait_until(lambda: self.db.value("SHOW rinq.send_buffer"), lambda v: v == "1MB")
        error = self.db.error("SELECT count(rinq_execute('ex-limit', 'x', to_jsonb(repeat('x', 1000)), NULL, false)) FROM generate_series(1, 2000)")
        self.assertSqlState(error, "53400")
        self.assertIn("rinq.send_buffer", error.detail)

        # durable ones do not need the memory
        collector = self.collect("ex-limit")
        self.db.sql("SELECT count(rinq_execute('ex-limit', 'x', to_jsonb(i), NULL)), 1 FROM generate_series(1, 12000) i")
        collector.wait(12000, 60)
        self.assertEqual(collector.payloads, list(range(1, 12001)))
        self.wait_empty()
        self.world.server.configure(**{"rinq.max_outbox": "10"})
        wait_until(lambda: self.db.value("SHOW rinq.max_outbox"), lambda v: v == "10")
        error = self.db.error("SELECT count(rinq_execute('ex-limit', 'x')) FROM generate_series(1, 11)")
        self.assertSqlState(error, "53400")
        self.assertIn("rinq.max_outbox", error.detail)
        self.assertSqlState(self.db.error("SELECT rinq_execute('ex-limit', 'x', to_jsonb(repeat('x', 40000000)))"), "54000")

    def test_privileges(self):
        self.db.role("ex_nobody")
        self.db.role("ex_user")
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_execute TO ex_user")
        collector = self.collect("ex-role")
        self.assertSqlState(self.db.error(execute("ex-role", 1), role="ex_nobody"), "42501")
        self.db.sql(execute("ex-role", 2), role="ex_user")
        for statement in ("SELECT * FROM rinq_outbox", "SELECT * FROM rinq_internal.outbox_0", "SELECT * FROM rinq_outbox_dead_letter",
                          "DELETE FROM rinq_internal.outbox_0", "SELECT rinq_outbox_dead_letter_retry('1-0001.1@0#1')", "SELECT rinq_outbox_dead_letter_delete('1-0001.1@0#1')",
                          "SELECT * FROM rinq_outbox_status"):
            self.assertSqlState(self.db.error(statement, role="ex_user"), "42501")
        self.assertSent(collector, [2])


class Prepared(case.Case):
    @classmethod
    def make_world(cls):
        world = case.new_world("prepared", settings={"max_prepared_transactions": "5"})
        cls.addClassCleanup(world.close)
        return world

    def test_prepared_transactions(self):
        db = self.database()
        collector = Collector(self.peer(prefetch=0), "ex-2pc")
        db.sql("BEGIN; %s PREPARE TRANSACTION 'a'" % execute("ex-2pc", 1))
        db.sql("BEGIN; %s PREPARE TRANSACTION 'b'" % execute("ex-2pc", 2))
        error = db.error("BEGIN; %s PREPARE TRANSACTION 'c'" % execute("ex-2pc", 3, False))
        self.assertSqlState(error, "0A000")
        db.sql(execute("ex-2pc", 4))
        collector.wait(1)
        self.assertEqual(collector.payloads, [4])
        db.sql("COMMIT PREPARED 'a'")
        collector.wait(2)
        db.sql("ROLLBACK PREPARED 'b'")
        db.sql("BEGIN; %s PREPARE TRANSACTION 'd'" % execute("ex-2pc", 5))
        self.world.server.restart("immediate")
        db.wait_peer()
        db.sql("COMMIT PREPARED 'd'")
        collector.wait(3)
        self.assertEqual(collector.payloads, [4, 1, 5])

    def test_prepared_durable_calls_end_in_time(self):
        db = self.database()
        for name in ("first", "second"):
            db.sql("BEGIN; SELECT rinq_call_durable('ex-2pc-calls', '%s', timeout => '1500 ms'); PREPARE TRANSACTION '%s'" % (name, name))
            db.sql("COMMIT PREPARED '%s'" % name)
            wait_until(lambda: db.value("SELECT outcome FROM rinq_durable_calls WHERE command = '%s'" % name), lambda outcome: outcome in ("timeout", "not sent"),
                       30, "the end of the %s call" % name)
        db.sql("BEGIN; SELECT rinq_call_durable('ex-2pc-calls', 'third'); COMMIT;"
               " BEGIN; SELECT rinq_durable_call_cancel(id) FROM rinq_durable_calls WHERE outcome IS NULL; PREPARE TRANSACTION 'third'")
        db.sql("COMMIT PREPARED 'third'")
        self.assertEqual(db.value("SELECT outcome FROM rinq_durable_calls WHERE command = 'third'"), "cancelled")
