"""Standbys: without rinq.standby, where nothing can be sent and no peer runs; with it, where reads are served; and what promotion changes."""

import collections
import os
import time

from rinqtest import case
from rinqtest.broker import Broker
from rinqtest.cluster import Database
from rinqtest.collector import Collector
from rinqtest.peer import Answered, RemoteError
from rinqtest.waiting import wait_until


class Standby(case.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.db.handler("nothing", "RETURN NULL;")
        cls.standby = cls.server.make_standby("standby").start()

    @classmethod
    def tearDownClass(cls):
        cls.standby.stop()
        cls.db.drop()

    def error(self, sql):
        with self.standby.session(self.db.name) as session:
            return session.error(sql)

    def test_writing_is_refused_as_in_any_read_only_transaction(self):
        for call in ("rinq_execute('ns', 'x')", "rinq_execute('ns', 'x', '{}'::jsonb, durable => true)", "rinq_listen('ns', 'nothing(rinq_request)')",
                     "rinq_unlisten('ns')", "rinq_unsubscribe('x')", "rinq_use_server(NULL)", "rinq_call_durable('ns', 'x')", "rinq_execute_many('ns', 'x', '{1}')",
                     "rinq_execute('ns', 'x', deliver_after => '1 h', ordering => 'o')", "rinq_durable_call_resend('58AEE146-191C.45@3#1')"):
            with self.subTest(call=call):
                self.assertSqlState(self.error("SELECT " + call), "25006")

    def test_what_needs_a_peer_says_so(self):
        for call in ("rinq_call('ns', 'x')", "rinq_call_async('ns', 'x')", "rinq_call_many('ns', 'x', '{1}')", "rinq_execute('ns', 'x', durable => false)",
                     "rinq_notify_many('ns', 'x', '{*}')", "rinq_session()", "rinq_session_create()", "rinq_notifications()", "rinq_wait_ready('1 h')"):
            with self.subTest(call=call):
                self.assertSqlState(self.error("SELECT " + call), "55000")

    def test_what_was_not_called_is_not_known(self):
        with self.standby.session(self.db.name) as session:
            self.assertEqual(session.value("SELECT rinq_cancel('58AEE146-191C.45@3#1')"), "f")
            self.assertSqlState(session.error("SELECT rinq_await('58AEE146-191C.45@3#1')"), "42704")
            self.assertEqual(session.execute("SELECT sqlstate FROM rinq_await_all('{58AEE146-191C.45@3#1}')"), [["42704"]])

    def test_views(self):
        with self.standby.session(self.db.name) as session:
            self.assertEqual(session.value("SELECT state FROM rinq_peer"), "stopped")
            for view in ("rinq_listeners", "rinq_subscriptions", "rinq_sessions", "rinq_outbox"):
                self.assertEqual(session.value("SELECT count(*) FROM " + view), "0")
            error = session.error("SELECT * FROM rinq_stored_notifications")
            self.assertSqlState(error, "0A000", "stored notifications cannot be read during recovery")
            self.assertIn("primary", error.hint)
            self.assertEqual(session.value("SELECT rinq_from_cbor(rinq_to_cbor('[1]'))"), "[1]")


class Following(case.Case):
    """A primary and standbys that serve, each with a name of its own in cluster_name; new ones for each test, with one broker."""

    @classmethod
    def setUpClass(cls):
        cls.broker = Broker(case.scratch(), name=cls.__name__.lower() + "-broker").start()
        cls.addClassCleanup(cls.broker.kill)

    def make_servers(self, standbys, **settings):
        self.world = case.new_world(self.id().rpartition(".")[2], settings={"cluster_name": "'primary'"}, broker=self.broker, proxied=False)
        self.addCleanup(self.world.close)
        self.server = self.world.server
        self.db = self.world.database()
        self.db.handler("who", "RETURN jsonb_build_array(current_setting('cluster_name'), pg_is_in_recovery());")
        self.db.sql("CREATE TABLE kept (p jsonb)")
        self.db.handler("keep", "INSERT INTO kept VALUES (req.payload); RETURN 'true';")
        self.db.sql("SELECT rinq_listen('read', 'who(rinq_request)', on_standby => true), rinq_listen('write', 'keep(rinq_request)', on_standby => true),"
                    " rinq_listen('primary', 'who(rinq_request)')")
        self.standbys = [self.make_standby("standby%d" % n, **settings) for n in range(1, standbys + 1)]
        self.remote = self.world.peer()

    def make_standby(self, name, **settings):
        server = self.server.make_standby("%s-%s" % (self.id().rpartition(".")[2], name), dict({
            "primary_conninfo": "'host=%s port=%d user=postgres'" % (self.server.socket_folder, self.server.port), "rinq.standby": "on",
            "cluster_name": "'%s'" % name}, **settings))
        self.addCleanup(lambda: server.running and server.stop("immediate"))
        return server.start()

    def on(self, server):
        return Database(server, self.db.name)

    def wait_serving(self, namespace, consumers, timeout=20):
        wait_until(lambda: self.remote.queue_consumers("cmd." + namespace), lambda n: n == consumers, timeout, "%d consumers of %s" % (consumers, namespace))

    def setUp(self):
        # the world is made by the test
        self._peers = []

    def tearDown(self):
        self.assertEqual(self.server.crashes(), [])
        for standby in self.standbys:
            self.assertEqual(standby.crashes(), [])


class Serving(Following):
    def test_calls_are_shared_by_all(self):
        self.make_servers(2)
        self.wait_serving("read", 3)
        self.assertEqual(self.remote.queue_consumers("cmd.primary"), 1)
        calls = [self.remote.call_async("read", "who", timeout=60) for _ in range(1000)]
        answers = [self.remote.response(call, timeout=60).result() for call in calls]
        shares = collections.Counter(name for name, _ in answers)
        self.assertEqual(sum(shares.values()), 1000)
        for name in ("primary", "standby1", "standby2"):
            self.assertGreater(shares[name], 100, shares)
        self.assertEqual({name: recovering for name, recovering in answers}, {"primary": False, "standby1": True, "standby2": True})

    def test_what_a_standby_does_and_refuses(self):
        self.make_servers(1)
        standby = self.on(self.standbys[0])
        self.wait_serving("read", 2)
        with self.subTest("it is a peer of its own"):
            self.assertNotEqual(standby.wait_peer()["peer_id"], self.db.peer()["peer_id"])
            self.assertEqual(standby.value("SELECT rinq_wait_ready('10 s')"), "")
        with self.subTest("it calls"):
            self.assertEqual(standby.call("primary", "who"), ["primary", False])
        with self.subTest("it has sessions, which other peers can read and notify"), standby.session() as session:
            self.assertEqual(session.value("SELECT rinq_session_update(rinq_session(), 'auth', '{\"user\": \"ann\"}') IS NULL"), "f")
            session.execute("SELECT rinq_session_listen(rinq_session(), 'news')")
            self.remote.notify("news", "hello", session.value("SELECT rinq_session()"), {"n": 1})
            self.assertEqual(session.value("SELECT payload FROM rinq_notifications('10 s') LIMIT 1"), '{"n": 1}')
            error = session.error("SELECT rinq_session_listen(rinq_session(), 'news', channel => 'here')")
            self.assertSqlState(error, "25006", "channel")
        with self.subTest("it sends from memory, and nothing durable"):
            collector = Collector(self.remote, "elsewhere")
            error = standby.error("SELECT rinq_execute('elsewhere', 'x', '1')")
            self.assertSqlState(error, "25006", "durable")
            self.assertIn("primary", error.hint)
            standby.sql("SELECT rinq_execute('elsewhere', 'x', '1', durable => false)")
            self.assertEqual([request.payload for request in collector.wait(1)], [1])
        with self.subTest("writing is an error for who waits"):
            outcomes = set()
            for number in range(12):
                try:
                    outcomes.add(self.remote.call("write", "keep", number))
                except RemoteError as error:
                    outcomes.add(str(error))
            self.assertEqual(outcomes, {True, "cannot execute INSERT in a read-only transaction"})
        with self.subTest("and left to the primary where no process waits"):
            self.db.sql("DELETE FROM kept")
            for number in range(12):
                self.remote.execute("write", "keep", number)
            wait_until(lambda: self.db.value("SELECT count(DISTINCT p) FROM kept"), lambda n: n == "12", 20, "all commands to be executed")

    def test_failed_commands_are_kept_by_the_primary(self):
        """Whatever a standby finds wrong with a command, it writes nothing down: the command goes back until the primary has it."""
        self.make_servers(1)
        standby = self.on(self.standbys[0])
        self.db.handler("fails", "IF req.command = 'again' THEN PERFORM rinq_retry('0', 'not yet'); END IF; PERFORM rinq_fail('no', 'sold out');")
        self.db.handler("dropped", "RETURN NULL;")
        self.db.sql("""SELECT rinq_listen('fails', 'fails(rinq_request)', on_standby => true, retry => '{"attempts": 3, "first_delay": "20 ms", "max_delay": "20 ms"}'),
                              rinq_listen('dropped', 'dropped(rinq_request)', on_standby => true)""")
        for namespace in ("fails", "dropped"):
            self.wait_serving(namespace, 2)
        self.db.sql("DROP FUNCTION dropped(rinq_request)")
        replayed = "SELECT pg_last_wal_replay_lsn() >= '%s'" % self.server.value("SELECT pg_current_wal_lsn()")
        wait_until(lambda: standby.value(replayed), lambda value: value == "t", 20)
        given_back = standby.peer()["requests_requeued"]
        messages = {self.remote.execute(namespace, command): error for namespace, command, error in
                    (("fails", "x", "sold out"), ("fails", "again", "not yet"), ("dropped", "x", "the handler does not exist")) for _ in range(4)}
        wait_until(lambda: dict(self.db.sql("SELECT id, error FROM rinq_inbox_dead_letter")), lambda rows: rows == messages, 30, "the dead letters")
        self.assertGreater(standby.peer()["requests_requeued"], given_back)
        wait_until(lambda: standby.value("SELECT message FROM rinq_check() WHERE subject = 'view rinq_inbox_dead_letter'"),
                   lambda message: message and message.startswith("requests that were set aside: 12, the oldest one at "), 20, "what the primary has set aside")
        self.assertEqual(standby.peer()["requests_set_aside"] + standby.peer()["requests_retried"], 0)
        log = self.standbys[0].log_since()
        for trouble in ("during recovery", "read-only transaction"):
            self.assertNotIn(trouble, log)

    def test_it_follows_what_is_committed(self):
        self.make_servers(1)
        self.wait_serving("read", 2)
        self.db.sql("SELECT rinq_listen('later', 'who(rinq_request)', on_standby => true)")
        replayed = "SELECT pg_last_wal_replay_lsn() >= '%s'" % self.server.value("SELECT pg_current_wal_lsn()")
        wait_until(lambda: self.standbys[0].value(replayed), lambda value: value == "t", 20)
        self.on(self.standbys[0]).sql("SELECT rinq_wait_ready('20 s')")
        self.assertEqual(self.remote.queue_consumers("cmd.later"), 2, "what was replayed is served when it says so")
        self.db.sql("SELECT rinq_unlisten('read')")
        self.wait_serving("read", 0)
        second = self.world.database()
        second.handler("who", "RETURN '\"second\"';")
        second.sql("SELECT rinq_listen('second', 'who(rinq_request)', on_standby => true)")
        self.wait_serving("second", 2)
        second.drop()
        self.wait_serving("second", 0)
        with self.subTest("an idle standby looks for a promotion, and for no more than was replayed"):
            workers = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rinq %s'"
            self.assertEqual(self.standbys[0].value(workers % "outbox"), "0")
            wait_until(lambda: self.standbys[0].value(workers % "reader"), lambda n: n == "0", description="readers to leave")
            self.assertNotIn("have not moved", self.standbys[0].log_since(), "messages of the primary do not wait for the standby")

    def test_it_finds_a_new_extension(self):
        """In a database that was known to be without one; and on a primary where nothing happens afterwards."""
        self.make_servers(0)
        bare = self.world.database(extension=False)
        self.standbys = [self.make_standby("standby1")]
        self.wait_serving("read", 2)
        wait_until(lambda: self.standbys[0].value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rinq reader'"), lambda n: n == "0",
                   description="all databases to be looked into")
        bare.sql("CREATE EXTENSION rinq")
        bare.handler("who", "RETURN '\"new\"';")
        bare.sql("SELECT rinq_listen('new', 'who(rinq_request)', on_standby => true)")
        self.wait_serving("new", 2, timeout=90)  # a standby that has been up for a while needs up to a minute

    def test_serializable_by_default(self):
        """PostgreSQL has no serializable transactions on a standby: those of the processes are of other kinds, and handlers' the next lower one."""
        self.make_servers(0)
        self.db.sql("ALTER ROLE postgres SET default_transaction_isolation = 'read committed'")
        self.db.role("strict")
        self.db.handler("level", "RETURN jsonb_build_array(current_setting('cluster_name'), current_setting('transaction_isolation'), pg_backend_pid());")
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_listen TO strict")
        self.db.sql("SELECT rinq_listen('level', 'level(rinq_request)', on_standby => true, max_concurrent => 1)", role="strict")
        self.standbys = [self.make_standby("standby1", default_transaction_isolation="serializable")]
        self.wait_serving("level", 2)
        answers = [self.remote.call("level", "x") for _ in range(12)]
        self.assertEqual({(name, level) for name, level, _ in answers}, {("primary", "read committed"), ("standby1", "repeatable read")})
        self.assertEqual(len({pid for name, _, pid in answers if name == "standby1"}), 1, "the executor stays")
        self.assertNotIn("serializable mode", self.standbys[0].log_since())

    def test_suspended_as_the_primary_is(self):
        """Also when the reason is found in the tables alone."""
        self.make_servers(1)
        self.wait_serving("read", 2)
        self.db.sql("SET session_replication_role = replica; UPDATE rinq_internal.listener SET identity = gen_random_uuid() WHERE namespace = 'read'")
        self.db.sql("SELECT rinq_start()")
        for db in (self.db, self.on(self.standbys[0])):
            row = db.wait_peer(lambda row: row["state"] == "suspended", description="to be suspended")
            self.assertIn("another database, which is not known", row["last_error"])
        self.wait_serving("read", 0)
        self.db.sql("SELECT rinq_adopt()")
        self.wait_serving("read", 2)

    def test_tables_that_it_does_not_read(self):
        """That is said once, however often they are looked at."""
        self.make_servers(1)
        own = self.on(self.standbys[0])
        self.wait_serving("read", 2)
        self.db.sql("ALTER TABLE rinq_internal.listener ENABLE ROW LEVEL SECURITY")
        replayed = "SELECT pg_last_wal_replay_lsn() >= '%s'" % self.server.value("SELECT pg_current_wal_lsn()")
        wait_until(lambda: own.value(replayed), lambda value: value == "t", 20)
        for _ in range(3):
            own.sql("SELECT rinq_wait_ready()")
        self.assertEqual(self.remote.queue_consumers("cmd.read"), 0)
        self.assertEqual(self.standbys[0].log_since().count('rinq does not read the table "rinq_internal.listener"'), 1)

    def test_on_standby_contradicts_deduplication(self):
        self.make_servers(0)
        error = self.db.error("SELECT rinq_listen('x', 'who(rinq_request)', deduplicate => true, on_standby => true)")
        self.assertSqlState(error, "22023", "standby")


class Promotion(Following):
    def test_the_outbox_and_the_inbox_go_on(self):
        self.make_servers(1)
        standby = self.standbys[0]
        self.wait_serving("read", 2)
        collector = Collector(self.remote, "elsewhere")
        self.db.sql("SELECT rinq_execute('elsewhere', 'x', to_jsonb(n)) FROM generate_series(1, 50) n")
        collector.wait(50)
        self.db.handler("later", "IF current_setting('cluster_name') = 'primary' THEN RAISE EXCEPTION 'not here'; END IF; INSERT INTO kept VALUES (req.payload); RETURN NULL;")
        self.db.sql("SELECT rinq_listen('later', 'later(rinq_request)', retry => '{\"attempts\": 10000, \"first_delay\": \"200 ms\", \"max_delay\": \"200 ms\"}')")
        self.remote.execute("later", "x", "kept by the former primary")
        wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_inbox_waiting"), lambda n: n == "1", 20, "the command to wait")
        self.db.sql("SELECT rinq_stop(false)")
        self.db.sql("SELECT rinq_execute('elsewhere', 'x', to_jsonb(n)) FROM generate_series(51, 100) n")
        wait_until(lambda: standby.value("SELECT pg_last_wal_replay_lsn() >= '%s'" % self.server.value("SELECT pg_current_wal_lsn()")), lambda v: v == "t", 20)
        self.server.kill()
        own = self.on(standby)
        before = own.peer()["peer_id"]
        with own.session() as waiting:
            waiting.start("SELECT rinq_call('primary', 'who', timeout => '20 s')")
            started = time.monotonic()
            standby.psql("SELECT pg_promote()")
            own.sql("SELECT rinq_wait_ready()")
            took = time.monotonic() - started
            self.assertEqual(self.remote.queue_consumers("cmd.primary"), 1, "all is served when it says so")
            self.assertEqual(waiting.finish(), [['["standby1", false]']])
        self.assertLess(took, 2)
        self.assertEqual(own.peer()["peer_id"], before, "the peer stays")
        wait_until(lambda: own.value("SELECT p FROM kept"), lambda p: p == '"kept by the former primary"', 20, "what waits in the inbox to be handled")
        collector.wait(100, timeout=20)
        own.sql("SELECT rinq_execute('elsewhere', 'x', '101')")
        collector.wait(101)
        self.assertEqual(collector.payloads, list(range(1, 102)))
        wait_until(lambda: own.value("SELECT depth FROM rinq_outbox_status"), lambda n: n == "0", 20)
        self.assertTrue(self.remote.call("write", "keep", 1))

    def test_handlers_that_run_meanwhile(self):
        """They began in transactions that cannot write, and are not set aside for it by the new primary."""
        self.make_servers(1)
        standby = self.standbys[0]
        self.db.handler("slow", "PERFORM pg_advisory_xact_lock_shared(1); INSERT INTO kept VALUES (req.payload); RETURN 'true';")
        self.db.handler("early", "DECLARE began boolean := pg_is_in_recovery(); BEGIN PERFORM pg_advisory_xact_lock_shared(1);"
                        " IF began THEN RAISE 'too early'; END IF; INSERT INTO kept VALUES (req.payload); RETURN 'true'; END;")
        self.db.sql("SELECT rinq_listen('slow', 'slow(rinq_request)', on_standby => true), rinq_listen('early', 'early(rinq_request)', on_standby => true)")
        self.wait_serving("slow", 2)
        self.server.kill()
        self.wait_serving("slow", 1)
        self.wait_serving("early", 1)
        own = self.on(standby)
        with own.session() as holder:
            holder.execute("SELECT pg_advisory_lock(1)")
            self.remote.execute("slow", "x", 1)
            self.remote.execute("early", "x", 2)
            call = self.remote.call_async("slow", "x", 3, timeout=60)
            wait_until(lambda: own.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"), lambda n: n == "3", 20)
            standby.psql("SELECT pg_promote()")
            self.wait_serving("primary", 1)
            holder.execute("SELECT pg_advisory_unlock(1)")
        self.assertTrue(self.remote.response(call, timeout=60).result())
        wait_until(lambda: own.value("SELECT array_agg(p ORDER BY p) FROM kept"), lambda rows: rows == "{1,2,3}", 20)
        self.assertEqual(own.value("SELECT count(*) FROM rinq_inbox_dead_letter"), "0")

    def test_commands_that_had_no_primary(self):
        """The standby gives them back later and later; after its promotion they wait no longer."""
        self.make_servers(1)
        standby = self.standbys[0]
        own = self.on(standby)
        self.wait_serving("write", 2)
        self.server.kill()
        self.wait_serving("write", 1)
        given_back = own.peer()["requests_requeued"]
        self.remote.execute("write", "keep", "given back")
        wait_until(lambda: own.peer()["requests_requeued"], lambda n: n >= given_back + 4, 30, "the command to be given back four times")
        due = time.monotonic() + 8
        standby.psql("SELECT pg_promote()")
        own.sql("SELECT rinq_wait_ready()")
        promoted = time.monotonic()
        wait_until(lambda: own.value("SELECT p FROM kept"), lambda p: p == '"given back"', 60, "the command to be handled")
        if promoted < due - 4:
            self.assertLess(time.monotonic(), due, "the command has waited for its next time")
        self.assertRegex(standby.log_since(), "gives request .* back to the broker again, since it has not succeeded on this standby")

    def test_durable_calls_go_on(self):
        """The mailbox is the primary's, until the standby is promoted; what came meanwhile waits at the broker, and is handled then."""
        self.make_servers(1)
        self.wait_serving("read", 2)
        standby = self.standbys[0]
        own = self.on(standby)
        asked = []

        def ask(request):
            asked.append(request)
            if request.command == "later":
                raise Answered()
            return 1

        self.remote.serve("service", ask)
        self.db.sql("CREATE TABLE outcome (id text, outcome text, payload jsonb, server text);"
                    "CREATE FUNCTION note(r rinq_response) RETURNS void LANGUAGE sql AS $$"
                    " INSERT INTO outcome VALUES (r.id, r.outcome, r.payload, current_setting('cluster_name')) $$")
        handled = self.db.value("SELECT rinq_call_durable('service', 'now', NULL::jsonb, 'note(rinq_response)')")
        kept = self.db.value("SELECT rinq_call_durable('service', 'now')")
        self.assertEqual(self.db.value("SELECT (rinq_wait('%s', '20 s')).payload" % kept), "1")
        call = self.db.value("SELECT rinq_call_durable('service', 'later', NULL::jsonb, 'note(rinq_response)',"
                             """ attributes => '{"auth": {"tenant": "acme"}}')""")
        wait_until(lambda: self.db.value("SELECT count(*) FROM outcome"), lambda n: n == "1", 20, "the first outcome")
        request = wait_until(lambda: [one for one in asked if one.id == call], bool, 20, "the request")[0]
        mailbox = call.partition(".")[0]
        self.db.sql("SELECT rinq_listen('followed', 'who(rinq_request)', on_standby => true)")
        self.wait_serving("followed", 2)  # the standby has read what there is, the calls included
        with self.subTest("a standby leaves the mailbox alone"):
            self.assertEqual([self.remote.queue_consumers(mailbox + suffix) for suffix in (".rsp", ".req")], [1, 1])
            self.assertEqual(own.value("SELECT state FROM rinq_durable_calls WHERE id = '%s'" % call), "waiting")
            for statement in ("rinq_call_durable('service', 'now')", "rinq_durable_call_cancel('%s')" % call, "rinq_durable_call_resend('%s')" % call,
                              "rinq_durable_call_retry('%s')" % call):
                self.assertSqlState(own.error("SELECT " + statement), "25006")
        with self.subTest("also when nobody else has it"):
            self.server.kill()
            wait_until(lambda: [self.remote.queue_consumers(mailbox + suffix) for suffix in (".rsp", ".req")], lambda n: n == [0, 0], 20, "no consumers")
            self.remote.publish_raw("cmd.rsp", request.id, b"\x07", {"n": "service", "c": "later"}, type="s", reply_to="u", correlation_id=request.trace_id)
            wait_until(lambda: self.remote.queue_depth(mailbox + ".rsp"), lambda n: n == 1, 20, "the response at the broker")
            self.assertEqual(own.call("read", "who"), ["standby1", True])
            self.assertEqual(self.remote.queue_depth(mailbox + ".rsp"), 1)
            self.assertEqual(standby.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rinq outbox'"), "0")
        standby.psql("SELECT pg_promote()")
        with self.subTest("the response is handled, once"):
            wait_until(lambda: own.value("SELECT count(*) FROM outcome"), lambda n: n == "2", 20, "the outcome")
            self.assertEqual(own.sql("SELECT outcome, payload, server FROM outcome WHERE id = '%s'" % call), [["success", "7", "standby1"]])
            self.assertEqual(own.sql("SELECT count(*) FROM outcome WHERE id = '%s'" % handled), [["1"]])
            self.assertEqual([self.remote.queue_consumers(mailbox + suffix) for suffix in (".rsp", ".req")], [1, 1])
            self.assertEqual(own.sql("SELECT id, state FROM rinq_durable_calls"), [[kept, "answered"]])
            self.assertEqual(own.value("SELECT (rinq_result('%s')).payload" % kept), "1")
        with self.subTest("and attributes of the old primary's messages are served"):
            got = self.remote.call_unicast(mailbox, "_sess", "fetch", {"s": int(request.source.partition("@")[0].partition(".")[2]), "ns": "auth", "k": ["tenant"]})
            self.assertEqual([(one["k"], one["v"]) for one in got["a"]], [("tenant", "acme")])
        with self.subTest("new calls have the same mailbox"):
            call = own.value("SELECT rinq_call_durable('service', 'now')")
            self.assertTrue(call.startswith(mailbox + "."), call)
            self.assertEqual(own.value("SELECT (rinq_wait('%s', '20 s')).payload" % call), "1")

    def test_a_standby_of_a_standby(self):
        """It follows through the one between, also when that has been promoted."""
        self.make_servers(1)
        middle = self.standbys[0]
        self.standbys.append(self.make_standby("standby2", primary_conninfo="'host=%s port=%d user=postgres'" % (middle.socket_folder, middle.port)))
        self.wait_serving("read", 3)
        self.server.kill()
        middle.psql("SELECT pg_promote()")
        self.on(middle).sql("SELECT rinq_wait_ready()")
        self.assertEqual([self.remote.queue_consumers("cmd." + namespace) for namespace in ("read", "primary")], [2, 1])
        self.on(middle).sql("SELECT rinq_listen('later', 'who(rinq_request)', on_standby => true)")
        self.wait_serving("later", 2, timeout=60)  # it has to connect again, to another timeline
        self.assertEqual({tuple(self.remote.call("later", "who")) for _ in range(10)}, {("standby1", False), ("standby2", True)})

    def test_a_copy_that_is_started_for_itself(self):
        """A base backup without standby.signal cannot be told from the primary after a failover."""
        self.make_servers(0)
        collector = Collector(self.remote, "elsewhere")
        self.db.sql("SELECT rinq_stop(false)")
        self.db.sql("SELECT rinq_execute('elsewhere', 'x', '1')")
        for name, settings, consumers in (("none", {"rinq.databases": "''"}, 0), ("suspended", {"rinq.start_suspended": "on"}, 0), ("twin", {}, 1)):
            with self.subTest(name):
                copy = self.server.make_standby(name, settings)
                os.unlink(os.path.join(copy.data, "standby.signal"))
                self.addCleanup(lambda copy=copy: copy.running and copy.stop("immediate"))
                copy.start()
                database = self.on(copy)
                if consumers == 0:
                    error = database.error("SELECT rinq_wait_ready('20 s')")
                    self.assertSqlState(error, "55000")
                    self.assertEqual(self.remote.queue_consumers("cmd.read"), 0)
                    self.assertEqual(collector.payloads, [])
                    self.assertEqual(database.value("SELECT peer_id FROM rinq_peer"), None)
                else:
                    self.wait_serving("read", consumers)
                    collector.wait(1)
                copy.stop()

    def test_a_copy_that_is_adopted(self):
        """What its original has not sent or handled stays the original's, whenever it came by replay; what was written in the copy itself is the copy's."""
        self.make_servers(0)
        self.db.handler("elsewhere", "IF current_setting('cluster_name') = 'primary' THEN RAISE 'not here'; END IF; INSERT INTO kept VALUES (req.payload); RETURN NULL;")
        copy = self.make_standby("copy", **{"rinq.start_suspended": "on"})
        own = self.on(copy)
        collector = Collector(self.remote, "sent")
        self.db.sql("SELECT rinq_listen('elsewhere', 'elsewhere(rinq_request)', retry => '{\"attempts\": 10000, \"first_delay\": \"50 ms\", \"max_delay\": \"50 ms\"}')")
        self.remote.execute("elsewhere", "x", "received by the original")
        wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_inbox_waiting"), lambda n: n == "1", 20, "the command to wait")
        self.remote.serve("service", lambda request: 1)
        asked = self.db.value("SELECT rinq_call_durable('nobody', 'x')")
        wait_until(lambda: self.remote.queue_depth("cmd.nobody"), lambda n: n == 1, 20, "the call to be sent")
        self.db.sql("SELECT rinq_stop(false)")
        self.db.sql("SELECT rinq_execute('sent', 'x', '\"first\"', ordering => 'o', key => 'k'), rinq_execute('sent', 'x', '\"second\"', ordering => 'o'),"
                    " rinq_execute('sent', 'x', '\"late\"', deliver_after => '1 ms', key => 'l')")
        replayed = "SELECT pg_last_wal_replay_lsn() >= '%s'" % self.server.value("SELECT pg_current_wal_lsn()")
        wait_until(lambda: own.value(replayed), lambda value: value == "t", 20)
        copy.psql("SELECT pg_promote()")
        own.sql("SELECT rinq_execute('sent', 'x', '1', ordering => 'o'), rinq_execute('sent', 'x', '2', ordering => 'o'), rinq_execute('sent', 'x', '3', deliver_after => '1 ms')")
        calls = own.sql("SELECT rinq_call_durable('service', 'x') FROM generate_series(1, 2)")
        self.assertEqual(own.value("SELECT rinq_adopt()"), "t")
        own.sql("SELECT rinq_execute('sent', 'x', '4', key => 'k'), rinq_execute('sent', 'x', '5', key => 'l')")
        own.wait_peer()
        wait_until(lambda: own.value("SELECT dead || ' ' || depth || ' ' || waiting FROM rinq_outbox_status"), lambda n: n == "3 0 0", 20, "what the original has not sent to be set aside")
        self.assertEqual(sorted(request.payload for request in collector.wait(5)), [1, 2, 3, 4, 5])
        self.assertEqual([own.value("SELECT count(*) FROM " + table) for table in ("kept", "rinq_inbox_waiting")], ["0", "1"])
        with self.subTest("the mailbox"):
            for (call,) in calls:
                self.assertEqual(own.value("SELECT (rinq_wait('%s', '20 s')).payload" % call), "1")
            self.assertEqual(len({call.partition(".")[0] for call in [asked] + calls[0] + calls[1]}), 2)
            self.assertEqual(self.remote.queue_consumers(asked.partition(".")[0] + ".rsp"), 0)
            wait_until(lambda: own.value("SELECT state FROM rinq_durable_calls WHERE id = '%s'" % asked), lambda state: state == "abandoned", 20)

    def test_a_former_primary_that_comes_back_as_a_standby(self):
        self.make_servers(1)
        self.wait_serving("read", 2)
        self.server.stop()
        self.standbys[0].psql("SELECT pg_promote()")
        self.wait_serving("primary", 1)
        with open(os.path.join(self.server.data, "standby.signal"), "w"):
            pass
        self.server.settings["primary_conninfo"] = "'host=%s port=%d user=postgres'" % (self.standbys[0].socket_folder, self.standbys[0].port)
        self.server.settings["recovery_target_timeline"] = "'latest'"
        self.server._write_settings()
        self.server.start()
        own = self.on(self.server)
        self.assertSqlState(own.error("SELECT rinq_wait_ready('20 s')"), "55000")
        self.assertEqual(self.remote.queue_consumers("cmd.read"), 1)
        self.assertEqual(self.remote.queue_consumers("cmd.primary"), 1)
