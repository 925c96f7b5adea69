"""A newer PostgreSQL takes over: pg_upgrade, and dumps of an older version that are restored into a newer one.

make check has the PostgreSQL that it tests follow itself; make matrix CELLS=pg_upgrade has each version follow the one before.
"""

from rinqtest import case, objects, versions
from rinqtest.cluster import Database
from rinqtest.collector import Collector
from rinqtest.major import installations
from rinqtest.peer import RemoteError
from rinqtest.server import Server, quote
from rinqtest.sessions import Owner
from rinqtest.waiting import wait_until

ROLE, WATCHER = "upgraded_worker", "upgraded_watcher"
# what users have that goes through the extension, and what it has of theirs
SCHEMA = """
CREATE TABLE orders (id int PRIMARY KEY, tenant text DEFAULT rinq_source_attribute('auth', 'tenant'), who rinq_constraint DEFAULT '{tenant=acme}',
    session rinq_session_id, request rinq_request);
ALTER TABLE orders ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenants ON orders USING (tenant = rinq_source_attribute('auth', 'tenant'));
INSERT INTO orders (id, tenant, request.id, request.payload) VALUES (1, 'acme', '58AEE146-191C.45@3#1', '{"a": [1]}'), (2, 'other', NULL, NULL);
CREATE TRIGGER announce AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION rinq_notify_trigger('announced', 'match=tenant');
CREATE VIEW waiting AS SELECT id, rinq_from_cbor(payload) FROM rinq_outbox;
CREATE TABLE heard (type text);
CREATE FUNCTION hear(n rinq_notification) RETURNS void LANGUAGE sql AS $$ INSERT INTO heard VALUES (n.type) $$;
CREATE FUNCTION handle(req rinq_request) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN
    CASE req.command
        WHEN 'rows' THEN RETURN (SELECT jsonb_agg(id) FROM orders);
        WHEN 'die' THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60);
        ELSE RETURN jsonb_build_object('role', current_user, 'payload', req.payload);
    END CASE;
END $$;
GRANT SELECT ON orders TO {role};
GRANT INSERT, SELECT ON heard TO {role};
GRANT EXECUTE ON FUNCTION rinq_listen, rinq_subscribe, rinq_call TO {role};
GRANT SELECT ON rinq_outbox TO {watcher};
GRANT SELECT (state) ON rinq_peer TO {role};
ALTER DEFAULT PRIVILEGES GRANT EXECUTE ON FUNCTIONS TO {watcher};
SET ROLE {role};
SELECT rinq_listen('upgraded', 'handle(rinq_request)', max_concurrent => 3, deduplicate => true, timeout => '1 minute');
SELECT rinq_listen('upgraded.deadly', 'handle(rinq_request)');
SELECT rinq_subscribe('upgraded', 'upgraded.news', 'hear(rinq_notification)');
""".replace("{role}", ROLE).replace("{watcher}", WATCHER)
# PostgreSQL writes a function's statements with names for columns that have none in the script: so they are once a dump has been read
READ_AGAIN = """
DO $$ DECLARE definition text; BEGIN
    FOR definition IN SELECT pg_get_functiondef(p.oid) FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
        JOIN pg_extension e ON e.oid = d.refobjid WHERE e.extname = 'rinq' AND p.prosqlbody IS NOT NULL
    LOOP EXECUTE definition; END LOOP;
END $$
"""
KEPT = ("SELECT namespace, handler, role, owner, max_concurrent, deduplicate, timeout, problem FROM rinq_listeners",
        "SELECT name, namespace, handler, role, problem FROM rinq_subscriptions",
        "SELECT id, who, tenant, request FROM orders")
# what a dump does not have
KEPT_BY_UPGRADE = (
    "SELECT id, namespace, command, payload, trace_id, deadline FROM rinq_outbox ORDER BY id",
    "SELECT d FROM rinq_outbox_dead_letter d", "SELECT d FROM rinq_inbox_dead_letter d", "SELECT d FROM rinq_inbox_handled d ORDER BY id",
    "SELECT d FROM rinq_inbox_attempt d", "SELECT id FROM rinq_internal.identity")


class MajorCase(case.Case):
    """Tests with servers of several versions, which share a broker."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.installations = installations()
        cls.addClassCleanup(lambda: [installation.close() for installation in cls.installations])
        cls.broker = cls.world.broker
        cls.nowhere = cls.broker.dsn(port=1)

    def setUp(self):
        super().setUp()
        self.remote = self.peer()
        self.owner = Owner(self.remote)

    def start_server(self, installation, name, role=True):
        """Without a broker, until it is told where that is."""
        server = self.make_server(installation, name).start()
        if role:
            server.psql("CREATE ROLE %s LOGIN; CREATE ROLE %s LOGIN" % (ROLE, WATCHER))
        return server

    def make_server(self, installation, name):
        server = Server(self.world.scratch, installation.stage, name=name, command=installation.command, bindir=installation.bindir,
                        settings={"rinq.amqp_dsn": quote(self.nowhere), "rinq.max_attempts": "1", "rinq.send_attempts": "1"})
        self.addCleanup(lambda: server.stop("immediate") if server.running else None)
        return server

    def fill(self, server, name):
        server.psql('CREATE DATABASE "%s"' % name)
        db = Database(server, name)
        db.sql("CREATE EXTENSION rinq")
        db.sql("GRANT USAGE ON SCHEMA public TO %s, %s" % (ROLE, WATCHER))
        db.sql(SCHEMA)
        return db

    def connect(self, db):
        db.server.configure(rinq__amqp_dsn=self.broker.dsn())
        db.wait_peer(timeout=40)

    def kept(self, db, queries=KEPT):
        return [db.sql(query) for query in queries]

    def assertAsFresh(self, db):
        """Each object is as in a new database of the same server that has seen the same."""
        fresh = self.fill(db.server, db.name + "_fresh")
        for one in (fresh, db):
            one.sql(READ_AGAIN)
        made, upgraded = objects.of_extension(fresh), objects.of_extension(db)
        fresh.drop()
        self.assertGreater(len(made), 500)
        self.assertEqual({name: upgraded.get(name) for name in made if upgraded.get(name) != made[name]},
                         {name: made[name] for name in made if upgraded.get(name) != made[name]})
        self.assertEqual(set(upgraded) - set(made), set())

    def rows_of(self, tenant):
        """What a handler sees that is asked from a session of a tenant."""
        session, model = self.owner.create()
        model.update(0, "auth", [("tenant", tenant, False)])
        message = self.remote.call_async("upgraded", "rows", message=self.remote.next_id(int(session.rpartition(".")[2]), 1))
        return self.remote.response(message, timeout=20).result()

    def assertServes(self, db):
        self.assertEqual(self.remote.call("upgraded", "x", {"a": None}, timeout=20), {"role": ROLE, "payload": {"a": None}})
        self.assertEqual(self.rows_of("acme"), [1])
        session = db.wait_subscription("upgraded")
        before = int(db.value("SELECT count(*) FROM heard"))
        self.remote.notify("upgraded.news", "flash", session)
        wait_until(lambda: int(db.value("SELECT count(*) FROM heard")), lambda count: count == before + 1, 20, "the notification")
        db.sql("SELECT count(*) FROM rinq_outbox", role=WATCHER)
        for role, statement in ((WATCHER, "SELECT rinq_call('upgraded', 'x')"), (ROLE, "SELECT * FROM rinq_outbox"), (ROLE, "SELECT rinq_execute('x', 'x')")):
            self.assertSqlState(db.error(statement, role=role), "42501")
        self.assertEqual(db.sql("SELECT * FROM rinq_check() WHERE message !~ 'set aside'"), [])


class PgUpgrade(MajorCase):
    def test_from_each_version_to_the_next(self):
        """Copying files the first time, linking them the second time."""
        server = self.start_server(self.installations[0], "old")
        db = self.fill(server, "upgraded")
        self.leave_traces(db)
        for number, installation in enumerate(self.installations[1:]):
            ids, kept = self.leave_messages(db)
            if not versions.knows_column_marks(installation.command):
                versions.forget_column_marks(server, db.name)
            server.stop()
            server = self.make_server(installation, "new%d" % number).upgrade(server, *(["--link"] if number else []))
            server.start()
            db = Database(server, db.name)
            with self.subTest(version=installation.version):
                self.assertEqual(self.kept(db, KEPT + KEPT_BY_UPGRADE), kept)
                self.assertAsFresh(db)
                ids.append(db.value("SELECT rinq_execute('upgraded.waits', 'after')"))
                self.connect(db)
                self.assertServes(db)
                self.assertArriveOnce(db, ids)
                self.assertTracesServe(db)

    def leave_traces(self, db):
        """Dead letters of both kinds, and a request that is remembered; what makes them is taken away."""
        with self.broker.connect() as connection:
            connection.channel().queue_declare("cmd.upgraded.odd", durable=True)
        self.connect(db)
        self.handled = self.remote.call_async("upgraded", "once", 1)
        self.remote.response(self.handled, timeout=20).result()
        with self.assertRaises(RemoteError):
            self.remote.call("upgraded.deadly", "die", 2, timeout=30)
        for number in range(3):
            db.sql("SELECT rinq_execute('upgraded.odd', 'x', '%d')" % number)
        wait_until(lambda: db.value("SELECT dead FROM rinq_outbox_status"), lambda dead: dead == "3", 30, "the dead letters")
        with self.broker.connect() as connection:
            connection.channel().queue_delete("cmd.upgraded.odd")

    def leave_messages(self, db):
        """Messages that wait, since there is no broker; returns their ids, and all that is to stay."""
        db.server.configure(rinq__amqp_dsn=self.nowhere)
        # the connection that works would be kept
        db.sql("SELECT pg_terminate_backend(pid) FROM rinq_peer")
        db.wait_peer(lambda peer: peer["state"] != "connected", description="the peer to lose its connection")
        ids = [db.value("SELECT rinq_execute('upgraded.waits', 'before', to_jsonb(%d))" % number) for number in range(5)]
        ids += db.value("SELECT string_agg(rinq_execute_raw('upgraded.waits', 'large', rinq_to_cbor(to_jsonb(repeat('x', 100000)))), ' ') FROM generate_series(1, 3)").split()
        db.sql("BEGIN; SELECT rinq_execute('upgraded.waits', 'never'); ROLLBACK")
        return ids, self.kept(db, KEPT + KEPT_BY_UPGRADE)

    def assertArriveOnce(self, db, ids):
        collector = Collector(self.remote, "upgraded.waits")
        collector.wait(len(ids), 30)
        wait_until(lambda: db.value("SELECT depth FROM rinq_outbox_status"), lambda depth: depth == "0", 20, "an empty outbox")
        self.assertEqual(collector.ids, ids)
        self.remote.unserve("upgraded.waits")

    def assertTracesServe(self, db):
        """What was set aside is sent, and what was handled is not handled again."""
        message = db.value("SELECT id FROM rinq_outbox_dead_letter ORDER BY id LIMIT 1")
        db.sql("SELECT rinq_outbox_dead_letter_retry('%s')" % message)
        self.assertArrives("upgraded.odd", message)
        self.assertEqual(db.value("SELECT count(*) FROM rinq_inbox_handled WHERE id = '%s'" % self.handled), "1")
        self.assertEqual(db.value("SELECT rinq_from_cbor(payload) FROM rinq_inbox_dead_letter"), "2")

    def assertArrives(self, namespace, message):
        collector = Collector(self.remote, namespace)
        collector.wait(1, 20)
        self.assertEqual(collector.ids, [message])
        self.remote.unserve(namespace)


class Dumps(MajorCase):
    def test_from_each_version_to_the_later_ones(self):
        """With the programs of the later version, where they know the earlier one; as a script and as an archive."""
        servers = [self.start_server(installation, "dumps%d" % number) for number, installation in enumerate(self.installations)]
        for number, old in enumerate(servers):
            db = self.fill(old, "dumped%d" % number)
            for later in servers[number + 1:]:
                with self.subTest(versions=(old.command, later.command)):
                    self.restore(db, later)

    def restore(self, db, server):
        kept = self.kept(db)
        dumping = server if versions.knows_column_marks(server.command) else db.server
        path = server.scratch.path("dump-" + db.name)
        for options, program in (([], ["psql", "-qX", "-1", "-v", "ON_ERROR_STOP=1", "-f", path]), (["-Fc"], ["pg_restore", "-1", "-e", path])):
            self.run_tool(dumping, db.server, ["pg_dump", *options, "-f", path, db.name])
            name = "restored_" + db.name
            server.psql('CREATE DATABASE "%s"' % name)
            self.run_tool(server, server, [*program, "-d", name])
            restored = Database(server, name)
            self.assertEqual(self.kept(restored), kept)
            self.assertAsFresh(restored)
            self.connect(restored)
            self.assertServes(restored)
            server.configure(rinq__amqp_dsn=self.nowhere)
            restored.drop()

    def run_tool(self, of, at, argv):
        """A program of one server's version, at another server."""
        self.server.scratch.run([of.tool(argv[0]), *argv[1:]], env=at.base_environment(), cwd="/")


del MajorCase
