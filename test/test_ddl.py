"""Commands that need the database for themselves work on a served one, promptly, idle and busy."""

import threading
import time

from rinqtest import case
from rinqtest.cluster import Database
from rinqtest.server import SqlError
from rinqtest.waiting import wait_until

LIMIT = 2.0


class Ddl(case.Case):
    def setUp(self):
        super().setUp()
        self.db = self.database()
        self.name = self.db.name
        self.serve(self.db)
        # peers of databases that earlier tests dropped may still be leaving
        databases = int(self.server.value("SELECT count(*) FROM pg_database WHERE NOT datistemplate AND datname <> 'postgres'"))
        wait_until(self.peers, lambda count: count <= databases, description="earlier peers to end")

    @staticmethod
    def serve(db):
        db.handler("served", "IF req.command = 'sleep' THEN PERFORM pg_sleep(60); END IF; RETURN to_jsonb(current_database()::text);")
        db.listen("served_" + db.name, "served")

    def works(self, db, namespace=None, timeout=15):
        """A call from outside reaches a handler of this database."""
        with self.world.peer() as remote:
            self.assertEqual(remote.call(namespace or "served_" + self.name, "x", timeout=timeout), db.name)

    def prompt(self, sql, database="postgres"):
        start = time.monotonic()
        self.server.psql(sql, database)
        elapsed = time.monotonic() - start
        self.assertLess(elapsed, LIMIT, sql)

    def make_busy(self):
        """A handler that will not end by itself."""
        self.works(self.db)
        remote = self.peer()
        remote.execute("served_" + self.name, "sleep")
        wait_until(lambda: self.server.value("SELECT count(*) FROM pg_stat_activity WHERE datname = '%s' AND state = 'active'"
                                             " AND backend_type LIKE 'rinq executor%%'" % self.name), lambda count: count == "1",
                   description="the handler to run")
        return remote

    def peers(self):
        return int(self.server.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rinq peer'"))

    # the extension

    def test_create_and_drop_extension(self):
        other = self.database(extension=False)
        before = self.peers()
        for _ in range(3):
            self.prompt("CREATE EXTENSION rinq", other.name)
            other.wait_peer(timeout=5)
            self.assertEqual(self.peers(), before + 1)
            self.prompt("DROP EXTENSION rinq", other.name)
            wait_until(self.peers, lambda count: count == before, 5, "the peer to end")

    def test_drop_extension_when_busy(self):
        self.server.configure(**{"rinq.shutdown_timeout": "300ms"})
        self.addCleanup(self.server.configure, **{"rinq.shutdown_timeout": None})
        remote = self.make_busy()
        before = self.peers()
        self.prompt("DROP EXTENSION rinq CASCADE", self.name)
        wait_until(self.peers, lambda count: count == before - 1, 5, "the peer to end")
        wait_until(lambda: self.server.value("SELECT count(*) FROM pg_stat_activity WHERE datname = '%s' AND backend_type LIKE 'rinq%%'" % self.name),
                   lambda count: count == "0", 5, "the executors to end")
        # the request that was being served is somebody else's now
        remote.serve("served_" + self.name, lambda request: None)
        remote.wait_requests(1)

    def test_create_extension_rolled_back(self):
        other = self.database(extension=False)
        before = self.peers()
        with other.session() as session:
            session.execute("BEGIN")
            session.execute("CREATE EXTENSION rinq")
            session.execute("ROLLBACK")
            session.execute("BEGIN")
            session.execute("CREATE EXTENSION rinq")
            session.execute("DROP EXTENSION rinq")
            session.execute("COMMIT")
        # a peer elsewhere that starts after this one would have started
        third = self.database()
        self.assertEqual(self.peers(), before + 1)
        self.assertEqual(third.peer()["state"], "connected")

    def test_drop_extension_rolled_back(self):
        with self.db.session() as session:
            session.execute("BEGIN")
            session.execute("DROP EXTENSION rinq CASCADE")
            session.execute("ROLLBACK")
        self.db.wait_peer()
        self.works(self.db)

    def test_drop_schema_with_the_extension(self):
        other = self.database(extension=False)
        before = self.peers()
        other.sql("CREATE SCHEMA away")
        other.sql("CREATE EXTENSION rinq SCHEMA away")
        wait_until(self.peers, lambda count: count == before + 1, 5, "the peer to start")
        other.sql("DROP SCHEMA away CASCADE")
        wait_until(self.peers, lambda count: count == before, 5, "the peer to end")

    def test_extension_in_another_schema(self):
        other = self.database(extension=False)
        other.sql("CREATE SCHEMA away")
        other.sql("CREATE EXTENSION rinq SCHEMA away")
        other.sql("CREATE FUNCTION h(req away.rinq_request) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(req.command) $$")
        other.sql("SELECT away.rinq_listen('away', 'h(away.rinq_request)')")
        wait_until(lambda: other.value("SELECT state FROM away.rinq_peer"), lambda state: state == "connected", description="the peer")
        self.assertEqual(other.json("SELECT away.rinq_call('away', 'hello', timeout => '10 s')"), "hello")
        error = other.error("SELECT away.rinq_fail('a', 'b')")
        self.assertSqlState(error, "RQ001")

    def test_maintenance_of_the_listener_table(self):
        for sql in ("VACUUM FULL rinq_internal.listener", "REINDEX TABLE rinq_internal.listener", "ANALYZE rinq_internal.listener"):
            self.prompt(sql, self.name)
            self.works(self.db)
        self.prompt("TRUNCATE rinq_internal.listener", self.name)
        remote = self.peer()
        wait_until(lambda: remote.queue_consumers("cmd.served_" + self.name), lambda count: count == 0, description="the listener to leave")

    def test_lock_on_the_listener_table(self):
        """Nobody waits for a lock on it for ever, and the peer does not stop."""
        self.db.sql("SELECT rinq_wait_ready()")  # what is registered was read before
        with self.db.session() as session:
            session.execute("BEGIN")
            session.execute("LOCK TABLE rinq_internal.listener IN ACCESS EXCLUSIVE MODE")
            self.works(self.db)
            session.execute("COMMIT")
        self.works(self.db)

    def test_tables_are_locked_one_after_the_other_while_they_are_read(self):
        """The reader never waits for one of them while it has another: a command cannot be in a deadlock with it."""
        waits = ("DO $$ BEGIN FOR i IN 1 .. 250 LOOP PERFORM pg_stat_clear_snapshot(); PERFORM pg_sleep(0.002);"
                 " EXIT WHEN EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'rinq reader' AND datname = current_database()"
                 " AND wait_event_type = 'Lock'); END LOOP; END $$")
        with self.db.session() as session:
            for first, second in (("subscription", "listener"), ("identity", "subscription"), ("chosen_server", "identity"), ("manifest", "listener")):
                session.execute("BEGIN; SET LOCAL deadlock_timeout = '1ms'; LOCK TABLE rinq_internal.%s IN ACCESS EXCLUSIVE MODE" % first)
                self.server.configure()
                session.execute("%s; LOCK TABLE rinq_internal.%s IN ACCESS EXCLUSIVE MODE" % (waits, second))
                session.execute("COMMIT")
        self.works(self.db)

    def test_the_reader_waits_for_no_lock_for_long(self):
        """What it waits for in the middle of its reading, a lock on a catalog or on a row, it gives up: a command that waits for it then is in no deadlock."""
        with self.db.session() as session, self.db.session() as other:
            other.execute("BEGIN; SELECT rinq_listen('other_%s', 'served(rinq_request)')" % self.name)
            session.execute("BEGIN; LOCK TABLE pg_catalog.pg_foreign_server IN ACCESS EXCLUSIVE MODE")
            mark = self.server.log_mark()
            other.execute("COMMIT")
            self.server.wait_log("rinq reader .*canceling statement due to lock timeout", mark, 20)
            session.execute("LOCK TABLE rinq_internal.manifest IN ACCESS EXCLUSIVE MODE")
            session.execute("COMMIT")
        self.works(self.db, "other_" + self.name, timeout=30)

    # the database

    def test_drop_database(self):
        self.works(self.db)
        self.prompt('DROP DATABASE "%s"' % self.name)
        self.assertNotRegex(self.server.log_since(self.log_start), "FATAL.*does not exist")

    def test_drop_database_when_busy(self):
        remote = self.make_busy()
        self.prompt('DROP DATABASE "%s"' % self.name)
        remote.serve("served_" + self.name, lambda request: None)
        remote.wait_requests(1)

    def test_drop_database_with_force(self):
        self.make_busy()
        before = self.peers()
        self.prompt('DROP DATABASE "%s" WITH (FORCE)' % self.name)
        wait_until(self.peers, lambda count: count == before - 1, description="the peer to end")
        other = self.database()
        self.assertEqual((self.peers(), other.peer()["state"]), (before, "connected"))

    def test_drop_database_while_connecting(self):
        self.world.proxy.silence()
        try:
            other = self.database(wait=False)
            self.prompt('DROP DATABASE "%s"' % other.name)
        finally:
            self.world.proxy.resume()

    def test_drop_database_when_the_broker_is_silent(self):
        self.works(self.db)
        self.world.proxy.silence()
        self.prompt('DROP DATABASE "%s"' % self.name)

    def test_drop_database_that_fails(self):
        """Another session is connected: the command fails as always, and the peer serves on."""
        with self.db.session():
            start = time.monotonic()
            pending = self.server.start_psql('DROP DATABASE "%s"' % self.name)
            self.assertSqlState(pending.error(20), "55006")
            self.assertLess(time.monotonic() - start, 8)
            self.db.wait_peer()
            self.works(self.db)

    def test_drop_database_by_somebody_else(self):
        """Who may not drop it does not even disturb it."""
        self.server.psql("CREATE ROLE stranger_%s LOGIN" % self.name)
        self.works(self.db)
        pid = self.db.peer()["pid"]
        error = self.server.start_psql('DROP DATABASE "%s"' % self.name, role="stranger_" + self.name).error()
        self.assertSqlState(error, "42501")
        error = self.server.start_psql('ALTER DATABASE "%s" RENAME TO gone' % self.name, role="stranger_" + self.name).error()
        self.assertSqlState(error, "42501")
        self.assertEqual(self.db.peer()["pid"], pid)

    def renamed(self, new):
        self.addCleanup(self.server.psql, 'DROP DATABASE IF EXISTS "%s"' % new)
        db = Database(self.server, new)
        db.wait_peer()
        self.works(db)
        self.assertEqual(db.peer()["database"], new)

    def test_rename_database(self):
        self.works(self.db)
        self.prompt('ALTER DATABASE "%s" RENAME TO "%s_new"' % (self.name, self.name))
        self.renamed(self.name + "_new")

    def test_rename_database_when_busy(self):
        remote = self.make_busy()
        self.prompt('ALTER DATABASE "%s" RENAME TO "%s_busy"' % (self.name, self.name))
        db = Database(self.server, self.name + "_busy")
        self.addCleanup(self.server.psql, 'DROP DATABASE IF EXISTS "%s_busy" WITH (FORCE)' % self.name)
        db.wait_peer()
        del remote

    def test_rename_in_a_transaction(self):
        with self.server.session() as session:
            session.execute("BEGIN")
            session.execute('ALTER DATABASE "%s" RENAME TO "%s_rolled"' % (self.name, self.name))
            session.execute("ROLLBACK")
        self.db.wait_peer()
        self.works(self.db)

    def copied(self, copy):
        self.addCleanup(self.server.psql, 'DROP DATABASE IF EXISTS "%s"' % copy)
        db = Database(self.server, copy)
        db.wait_peer(lambda row: row["state"] == "suspended")
        db.sql("SELECT rinq_adopt()")
        own = db.wait_peer()
        original = self.db.wait_peer()
        self.assertNotEqual(own["peer_id"], original["peer_id"])
        self.assertEqual(db.value("SELECT count(*) FROM rinq_internal.listener"), "1")
        # both serve the namespace now: the copy has the listeners of its original
        with self.world.peer() as remote:
            answers = wait_until(lambda: {remote.call("served_" + self.name, "x", timeout=10) for _ in range(10)},
                                 lambda found: len(found) == 2, description="both to answer")
            self.assertEqual(answers, {self.name, copy})

    def test_databases_in_prepared_transactions(self):
        """As without the extension, whatever database the session is in; it is served again, under its name, when that is committed."""
        self.works(self.db)
        for end in ("ROLLBACK", "COMMIT"):
            for command in ('ALTER DATABASE "%s" CONNECTION LIMIT 50', 'ALTER DATABASE "%s" RENAME TO "%s_prepared"'):
                self.server.psql("BEGIN; %s; PREPARE TRANSACTION 'ddl'" % command.replace("%s", self.name))
                # a worker that comes back waits for the end, like any client; the launcher does not
                self.world.database().drop()
                self.server.psql("%s PREPARED 'ddl'" % end)
            if end == "ROLLBACK":
                self.works(self.db)
        self.renamed(self.name + "_prepared")
        before = self.peers()
        for allowed, peers in (("false", before - 1), ("true", before)):
            self.server.psql('BEGIN; ALTER DATABASE "%s_prepared" ALLOW_CONNECTIONS %s; PREPARE TRANSACTION \'ddl\'' % (self.name, allowed))
            self.server.psql("COMMIT PREPARED 'ddl'")
            wait_until(self.peers, lambda count: count == peers, description="the database to be served or not")

    def test_copy_database(self):
        self.works(self.db)
        self.prompt('CREATE DATABASE "%s_copy" TEMPLATE "%s"' % (self.name, self.name))
        self.copied(self.name + "_copy")

    def test_copy_database_when_busy(self):
        self.make_busy()
        self.prompt('CREATE DATABASE "%s_copy" TEMPLATE "%s"' % (self.name, self.name))
        self.addCleanup(self.server.psql, 'DROP DATABASE IF EXISTS "%s_copy" WITH (FORCE)' % self.name)
        Database(self.server, self.name + "_copy").wait_peer(lambda row: row["state"] == "suspended")
        self.db.wait_peer()

    def test_many_databases_come_and_go(self):
        before = self.peers()
        for number in range(5):
            db = self.world.database("brief%d" % number, wait=False)
            self.prompt('DROP DATABASE "%s"' % db.name)
        wait_until(self.peers, lambda count: count == before, 10, "no peer to be left over")
        self.works(self.db)

    def test_handlers_come_and_go(self):
        """Who looks at the listeners meanwhile reads what there is, and gets no error."""
        errors = set()

        def replace():
            with self.db.session() as session:
                for _ in range(300):
                    session.execute("DROP FUNCTION served(rinq_request)")
                    session.execute("CREATE FUNCTION served(req rinq_request) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'")

        replacing = threading.Thread(target=replace)
        replacing.start()
        with self.db.session() as session:
            while replacing.is_alive():
                try:
                    session.execute("SELECT * FROM rinq_listeners")
                except SqlError as error:
                    errors.add(str(error))
        replacing.join()
        self.assertEqual(sorted(errors)[:3], [])

    # listeners that several sessions change at the same moment

    def waits(self, statement, waiting="1"):
        """A statement waits for a lock of another session, as the only one or one more."""
        wait_until(lambda: self.server.value("SELECT count(*) FROM pg_stat_activity WHERE datname = '%s' AND wait_event_type = 'Lock'"
                                             " AND backend_type = 'client backend'" % self.name), lambda count: count == waiting, description=statement + " to wait")

    def make_roles(self):
        for role in ("rinq_ddl_one", "rinq_ddl_two"):
            self.server.psql("CREATE ROLE %s LOGIN" % role)
            self.addCleanup(self.drop_role, role)
            self.db.sql("GRANT EXECUTE ON FUNCTION rinq_listen, rinq_unlisten TO %s" % role)

    def drop_role(self, role):
        self.db.sql("DELETE FROM rinq_internal.listener; DROP OWNED BY %s; DROP ROLE %s" % (role, role))

    def listener(self, column, namespace):
        return self.db.value("SELECT %s FROM rinq_listeners WHERE namespace = '%s'" % (column, namespace))

    def test_handler_renamed_while_registered(self):
        """A listener follows the function, whichever of the two commits first."""
        for first, second in (("ALTER FUNCTION served RENAME TO renamed", "SELECT rinq_listen('raced', 'served(rinq_request)')"),
                              ("SELECT rinq_listen('raced', 'served(rinq_request)')", "ALTER FUNCTION served RENAME TO renamed")):
            with self.subTest(first), self.db.session() as one, self.db.session() as other:
                one.execute("BEGIN; " + first)
                other.start(second)
                self.waits(second)
                one.execute("COMMIT")
                other.finish()
                self.assertEqual(self.listener("handler ~ 'renamed' AND problem IS NULL", "raced"), "t")
            self.db.sql("SELECT rinq_unlisten('raced'); ALTER FUNCTION renamed RENAME TO served")

    def test_handler_dropped_while_registered(self):
        """It is no handler any more; also for a listener that orders, which asks what it returns."""
        with self.db.session() as one, self.db.session() as other:
            one.execute("BEGIN; DROP FUNCTION served")
            other.start("SELECT rinq_listen('raced', 'served(rinq_request)', order_by => ARRAY['a'])")
            self.waits("rinq_listen")
            one.execute("COMMIT")
            self.assertSqlState(other.finish_error(), "42P13")
        self.assertSqlState(self.db.error("SELECT rinq_listen('raced', 0::regprocedure, order_by => ARRAY['a'])"), "42P13")

    def test_extension_dropped_while_registered(self):
        """Who registers or renames a handler waits for DROP EXTENSION with nothing that this needs, too."""
        # it depends on one of the last objects of the extension, and so is locked before the handler
        self.db.sql("CREATE VIEW kept AS SELECT name FROM rinq_subscriptions")
        for command in ("SELECT rinq_listen('raced', 'served(rinq_request)')", "ALTER FUNCTION served RENAME TO renamed"):
            with self.subTest(command), self.db.session() as reader, self.db.session() as dropper, self.db.session() as other:
                reader.execute("BEGIN; LOCK TABLE kept IN ACCESS SHARE MODE")
                dropper.start("BEGIN; DROP EXTENSION rinq CASCADE")
                self.waits("DROP EXTENSION")
                other.start(command)
                self.waits(command, "2")
                reader.execute("COMMIT")
                dropper.finish()
                dropper.execute("ROLLBACK")
                other.finish()

    def test_unlisten_while_replaced(self):
        """What the own role has put in the place of a listener is removed, and not taken for another's."""
        self.make_roles()
        with self.db.session() as one, self.db.session() as other:
            one.execute("SET ROLE rinq_ddl_one")
            other.execute("SET ROLE rinq_ddl_one")
            one.execute("SELECT rinq_listen('raced', 'served(rinq_request)')")
            one.execute("BEGIN; SELECT rinq_unlisten('raced'); SELECT rinq_listen('raced', 'served(rinq_request)')")
            other.start("SELECT rinq_unlisten('raced')")
            self.waits("rinq_unlisten")
            one.execute("COMMIT")
            other.finish()
        self.assertEqual(self.listener("count(*)", "raced"), "0")

    def test_reassign_while_replaced(self):
        """A namespace that another role has come to serve meanwhile stays that role's."""
        self.make_roles()
        with self.db.session() as one, self.db.session() as other:
            for namespace in ("raced_a", "raced_b"):
                one.execute("SET ROLE rinq_ddl_one; SELECT rinq_listen('%s', 'served(rinq_request)')" % namespace)
            one.execute("BEGIN; SELECT rinq_listen('raced_a', 'served(rinq_request)', 1)")
            other.start("SELECT rinq_listener_reassign('rinq_ddl_one', 'postgres')")
            self.waits("rinq_listener_reassign")
            self.db.sql("SELECT rinq_unlisten('raced_b'); SET ROLE rinq_ddl_two; SELECT rinq_listen('raced_b', 'served(rinq_request)')")
            one.execute("COMMIT")
            self.assertEqual(other.finish(), [["1"]])
        self.assertEqual(self.listener("role", "raced_b"), "rinq_ddl_two")
        self.assertEqual(self.listener("role", "raced_a"), "postgres")

    def test_dump_and_restore(self):
        """The listeners are dumped, and serve again where they are restored."""
        scratch = self.world.scratch
        path = scratch.path("dump-%s.sql" % self.name)
        environment = dict(self.server.base_environment())
        scratch.run([self.server.tool("pg_dump"), "-f", path, self.name], env=environment, cwd="/")
        with open(path) as file:
            text = file.read()
        self.assertIn("served_" + self.name, text)
        self.assertNoSecret(text, self.world.broker.password)
        self.db.drop()
        restored = self.database(extension=False)
        scratch.run([self.server.tool("psql"), "-Xq", "-v", "ON_ERROR_STOP=1", "-d", restored.name, "-f", path], env=environment, cwd="/")
        restored.wait_peer()
        self.works(restored, "served_" + self.name)


class Refused(case.OwnDatabaseCase):
    """Commands that cannot succeed."""

    def test_command_that_cannot_succeed_disturbs_nobody(self):
        starts = self.counting("kept", "PERFORM pg_sleep(1.5); RETURN '1';")
        other = self.database()
        pending = self.remote.call_async("kept", "x", timeout=20)
        wait_until(starts, lambda count: count == 1, description="the handler to run")
        self.server.start_psql('ALTER DATABASE "%s" RENAME TO "%s"' % (self.db.name, other.name), "postgres").error()
        self.db.error('ALTER DATABASE "%s" RENAME TO renamed' % self.db.name)
        self.assertEqual(self.remote.response(pending, 20).result(), 1)
        self.assertEqual(starts(), 1)
