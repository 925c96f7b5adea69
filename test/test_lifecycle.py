"""Start, stop, settings, encodings, and a server without the library preloaded."""

import re
import time

from rinqtest import case
from rinqtest.cluster import Database, Server, SqlError, call_sql
from rinqtest.waiting import wait_until


class NotPreloaded(case.Case):
    """CREATE EXTENSION works; what needs the peer says what is missing."""

    @classmethod
    def setUpClass(cls):
        cls.server = Server(case.scratch(), case.STAGE, name="bare-server", preload=False, environment=case.SERVER_ENVIRONMENT).start()
        cls.server.psql("CREATE EXTENSION rinq")
        cls.db = Database(cls.server, "postgres")

    @classmethod
    def tearDownClass(cls):
        cls.server.stop("immediate")

    def setUp(self):
        self.log_start = self.server.log_mark()

    def tearDown(self):
        self.assertEqual(self.server.crashes(self.log_start), [])

    def test_what_needs_the_peer(self):
        self.db.sql("CREATE FUNCTION h(req rinq_request) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'")
        for sql in (call_sql("x", "x"), "SELECT rinq_listen('x', 'h(rinq_request)')", "SELECT * FROM rinq_peer"):
            try:
                rows = self.db.sql(sql)
            except SqlError as error:
                self.assertSqlState(error, "55000")
                self.assertRegex(error.hint or "", "shared_preload_libraries")
            else:
                # a view that is empty or says "stopped", and a listener that waits for the peer, are fine as well
                self.assertNotIn("rinq_call", sql, rows)
        self.assertSqlState(self.db.error(call_sql("x", "x")), "55000")

    def test_what_does_not(self):
        self.assertEqual(self.db.value("SELECT rinq_from_cbor(rinq_to_cbor('{\"a\": [1, 2.5, null]}'))"), '{"a": [1, 2.5, null]}')
        self.assertIn("0.1.0", self.db.value("SELECT rinq_version()"))
        self.assertSqlState(self.db.error("SELECT rinq_fail('t', 'm')"), "RQ001")

    def test_dump_and_drop(self):
        self.world_scratch = case.scratch()
        self.world_scratch.run([self.server.tool("pg_dump"), "-s", "postgres"], env=self.server.base_environment(), cwd="/")
        self.server.psql("CREATE DATABASE second")
        self.server.psql("CREATE EXTENSION rinq", "second")
        self.server.psql("DROP EXTENSION rinq", "second")
        self.server.psql("DROP DATABASE second")


class Objects(case.Case):
    """What the install script promises."""

    def test_every_object_has_a_comment(self):
        db = self.database()
        rows = db.sql("""SELECT pg_describe_object(d.classid, d.objid, d.objsubid) FROM pg_depend d
            JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
            WHERE e.extname = 'rinq' AND d.deptype = 'e' AND obj_description(d.objid, d.classid::regclass::text) IS NULL
              AND NOT (d.classid = 'pg_type'::regclass AND (SELECT typrelid <> 0 AND typtype = 'c' AND EXISTS (
                SELECT FROM pg_class c WHERE c.oid = typrelid AND c.relkind <> 'c') OR typelem <> 0 FROM pg_type t WHERE t.oid = d.objid))""")
        self.assertEqual(rows, [])

    def test_volatility(self):
        db = self.database()
        rows = dict(db.sql("SELECT proname, provolatile::text || proparallel::text FROM pg_proc WHERE proname LIKE 'rinq%'"))
        self.assertEqual((rows["rinq_to_cbor"], rows["rinq_from_cbor"]), ("is", "is"))
        self.assertEqual(rows["rinq_call"], "vu")

    def test_peer_view(self):
        db = self.database()
        row = db.peer()
        for name in ("database", "pid", "peer_id", "state", "broker", "broker_version", "blocked", "connected_since", "last_error", "reconnects",
                     "calls_sent", "responses_received", "responses_dropped", "requests_received", "requests_rejected", "requests_requeued",
                     "responses_sent"):
            self.assertIn(name, row)
        self.assertEqual((row["database"], row["state"], row["blocked"], row["last_error"], row["reconnects"]),
                         (db.name, "connected", False, None, 0))
        self.assertRegex(row["peer_id"], r"^[0-9A-F]+-[0-9A-F]{4}$")
        self.assertRegex(row["broker"], r"^127\.0\.0\.1:%d/" % self.world.proxy.port)
        self.assertRegex(row["broker_version"], r"^\d+\.\d+")
        self.assertEqual(self.server.value("SELECT backend_type FROM pg_stat_activity WHERE pid = %d" % row["pid"]), "rinq peer")

    def test_processes_in_pg_stat_activity(self):
        db = self.database()
        db.handler("h", "RETURN NULL;")
        db.listen("h_" + db.name, "h")
        db.call("h_" + db.name, "x", timeout=10)
        rows = self.server.psql("SELECT backend_type, count(*) FROM pg_stat_activity WHERE backend_type LIKE 'rinq%' GROUP BY 1")
        counts = {kind: int(count) for kind, count in rows}
        self.assertEqual(counts["rinq launcher"], 1)
        self.assertGreaterEqual(counts["rinq peer"], 1)
        self.assertGreaterEqual(counts["rinq executor"], 1)
        shown = self.server.psql("SELECT query FROM pg_stat_activity WHERE backend_type IN ('rinq launcher', 'rinq peer')")
        self.assertTrue(all(row[0] for row in shown), shown)


class Restart(case.Case):
    @classmethod
    def make_world(cls):
        return case.new_world("restarted", broker=case.shared_world().broker)

    @classmethod
    def tearDownClass(cls):
        cls.world.close()

    def test_everything_returns_with_the_server(self):
        databases = [self.database() for _ in range(3)]
        for db in databases:
            db.handler("h", "RETURN to_jsonb(current_database()::text);")
            db.listen("ns." + db.name, "h")
            db.call("ns." + db.name, "x", timeout=10)
        peers = {db.name: db.peer() for db in databases}
        start = time.monotonic()
        self.server.stop("fast")
        self.assertLess(time.monotonic() - start, 5)
        self.server.start()
        remote = self.peer()
        for db in databases:
            self.assertNotEqual(db.wait_peer()["peer_id"], peers[db.name]["peer_id"])
            self.assertEqual(remote.call("ns." + db.name, "x", timeout=15), db.name)

    def test_stop_with_calls_and_handlers(self):
        """A fast stop waits for nobody, and what was not done is given back."""
        self.server.configure(rinq__command_workers="1")
        self.addCleanup(self.server.configure, rinq__command_workers=None)
        db = self.database()
        db.handler("stuck", "PERFORM pg_sleep(60); RETURN NULL;")
        db.listen("stuck", "stuck")
        remote = self.peer()
        remote.declare_namespace("stuck")
        wait_until(lambda: remote.queue_consumers("cmd.stuck"), description="the listener")
        sent = {remote.execute("stuck", "x") for _ in range(6)}
        wait_until(lambda: self.server.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'rinq executor%%' AND state = 'active'"
                                             " AND datname = '%s'" % db.name) == "1", description="one handler to run")
        session = db.session()
        session.start(call_sql("silent", "x", timeout=60))
        self.published("cmd.bal")
        start = time.monotonic()
        self.server.stop("fast")
        self.assertLess(time.monotonic() - start, 8)
        session.process.kill()
        session.process.wait()
        remote.serve("stuck", lambda request: None)
        wait_until(lambda: {request.id for request in remote.requests}, lambda found: found >= sent, 15, "all requests to be done elsewhere")
        self.server.start()

    def test_prefetched_requests_are_given_back_on_unlisten(self):
        self.server.configure(rinq__command_workers="1")
        self.addCleanup(self.server.configure, rinq__command_workers=None)
        db = self.database()
        db.handler("slow", "PERFORM pg_sleep(0.5); RETURN '\"sql\"';")
        db.listen("handed", "slow")
        remote = self.peer()
        remote.declare_namespace("handed")
        wait_until(lambda: remote.queue_consumers("cmd.handed"), description="the listener")
        messages = [remote.call_async("handed", "x", timeout=30) for _ in range(10)]
        self.deliveries(2, where=lambda event: event.routing_key == "handed")
        db.sql("SELECT rinq_unlisten('handed')")
        wait_until(lambda: remote.queue_consumers("cmd.handed"), lambda count: count == 0, description="the listener to leave")
        remote.serve("handed", lambda request: "python")
        answers = [remote.response(message, 20).result() for message in messages]
        self.assertIn("python", answers)
        self.assertEqual(len(answers), 10)

    def test_settings_reload(self):
        db = self.database()
        peer = db.peer()
        self.server.configure(rinq__product="a product of tests")
        self.addCleanup(self.server.configure, rinq__product=None)
        self.world.proxy.cut()
        db.wait_new_peer(peer)
        started = self.recording.wait("connection.start-ok", since=self.wire_start)[-1]
        self.assertEqual(started.client_properties["product"].value, "a product of tests")
        mark = self.server.log_mark()
        self.server.configure(rinq__command_workers="none")
        self.server.wait_log(r"rinq\.command_workers", mark)
        self.server.configure(rinq__command_workers=None)
        self.assertEqual(db.value("SHOW rinq.command_workers"), "4")

    def test_database_list(self):
        one, two = self.database(), self.database()
        self.addCleanup(self.server.configure, rinq__databases=None)
        self.server.configure(rinq__databases=one.name)
        two.wait_peer(lambda row: row["state"] == "stopped", description="the peer to stop")
        self.assertSqlState(two.error(call_sql("x", "x")), "55000")
        self.assertEqual(one.peer()["state"], "connected")
        self.server.configure(rinq__databases="*")
        two.wait_peer()

    def test_database_list_changed_twice(self):
        """A peer that is told to stop and to serve again meanwhile ends up serving."""
        db = self.database()
        db.handler("slow", "PERFORM pg_sleep(60); RETURN NULL;")
        db.listen("slow", "slow")
        remote = self.peer()
        remote.call_async("slow", "x", timeout=30)
        wait_until(lambda: db.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rinq executor' AND state = 'active'"),
                   lambda count: count == "1", description="the handler to run")
        old = db.peer()
        self.addCleanup(self.server.configure, rinq__databases=None)
        self.server.configure(rinq__databases="nobody")
        self.server.configure(rinq__databases="*")
        db.handler("quick", "RETURN '1';")
        db.listen("quick", "quick")
        self.assertEqual(remote.call("quick", "x", timeout=20), 1)
        self.assertTrue(old["peer_id"])

    def test_another_broker(self):
        """A change of the DSN takes effect at once."""
        db = self.database()
        peer = db.peer()
        self.world.broker.ctl("add_vhost", "elsewhere")
        self.world.broker.ctl("set_permissions", "-p", "elsewhere", self.world.broker.user, ".*", ".*", ".*")
        self.addCleanup(self.server.configure, rinq__amqp_dsn=self.world.broker.dsn(self.world.proxy.port))
        self.server.configure(rinq__amqp_dsn=self.world.broker.dsn(self.world.proxy.port, vhost="elsewhere"))
        row = db.wait_new_peer(peer)
        self.assertIn("elsewhere", row["broker"])
        with self.world.peer(vhost="elsewhere") as remote:
            remote.serve("there", lambda request: "here")
            self.assertEqual(db.call("there", "x", timeout=10), "here")

    def test_no_worker_slots_left(self):
        """max_worker_processes is too small: a clear message, and everything else works."""
        self.server.configure(reload=False, max_worker_processes="2")
        self.server.restart()
        try:
            db = self.database(wait=False)
            self.assertIn(db.error(call_sql("x", "x", timeout=1)).sqlstate, ("55000", "08001", "RQ003"))
            self.assertEqual(db.value("SELECT 1"), "1")
        finally:
            self.server.configure(reload=False, max_worker_processes="40")
            self.server.restart()


class Encodings(case.Case):
    def exchange(self, encoding, text):
        db = self.database(encoding=encoding)
        remote = self.peer()
        heard = []

        def echo(request):
            heard.append(request.payload)
            return request.payload
        remote.serve("enc." + db.name, echo)
        raw = text.encode({"LATIN1": "latin-1", "WIN1250": "cp1250", "EUC_JP": "euc_jp", "UTF8": "utf-8"}[encoding])
        octets = ", ".join("E'\\\\x%s'" % raw.hex() for _ in range(1))
        value = db.value("SELECT encode(convert_to(rinq_call('enc.%s', 'x', to_jsonb(convert_from(%s::bytea, '%s'))) #>> '{}', '%s'), 'hex')"
                         % (db.name, octets, encoding, encoding))
        self.assertEqual(heard, [text])
        self.assertEqual(value, raw.hex())
        db.handler("h", "RETURN to_jsonb(length(req.payload #>> '{}')) || req.payload;")
        db.listen("in." + db.name, "h")
        self.assertEqual(remote.call("in." + db.name, "x", text, timeout=10), [len(text), text])
        return db, remote

    def test_latin1(self):
        db, remote = self.exchange("LATIN1", "héllo ÿ")
        # text that the database cannot hold is an error, not something else in its place
        remote.serve("kanji." + db.name, lambda request: "水")
        error = db.error(call_sql("kanji." + db.name, "x"))
        self.assertIn(error.sqlstate, ("22P05", "22021", "22P03"), error.text)
        self.assertEqual(db.value("SELECT 1"), "1")

    def test_win1250(self):
        self.exchange("WIN1250", "žluťoučký kůň")

    def test_euc_jp(self):
        self.exchange("EUC_JP", "日本語")

    def test_sql_ascii(self):
        db = self.database(encoding="SQL_ASCII")
        remote = self.peer()
        remote.serve("ascii", lambda request: request.payload)
        self.assertEqual(db.call("ascii", "x", "plain"), "plain")


class Versions(case.Case):
    def test_version(self):
        db = self.database()
        self.assertIn("0.1.0", db.value("SELECT rinq_version()"))
        self.assertEqual(db.value("SELECT extversion FROM pg_extension WHERE extname = 'rinq'"), "0.1.0")

    def test_server_reports_no_noise(self):
        """An idle database with the extension logs one line when its peer connects and one when it stops."""
        mark = self.server.log_mark()
        db = self.database()
        db.drop()
        lines = [line for line in self.server.log_since(mark).splitlines() if re.search(r"\b%s\b" % db.name, line)]
        self.assertLessEqual(len(lines), 3, "\n".join(lines))
