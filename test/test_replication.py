"""Logical replication, its origins and modes, and restores: the extension's tables are local, and what happens to them is noticed."""

import subprocess

from rinqtest import case
from rinqtest.cluster import Database, call_sql
from rinqtest.collector import Collector
from rinqtest.waiting import wait_until

OWN_TABLES = "SELECT relname FROM pg_class WHERE relnamespace = 'rinq_internal'::regnamespace AND relkind = 'r' ORDER BY 1"
HANDLER = "CREATE FUNCTION %s(req rinq_request) RETURNS jsonb LANGUAGE sql AS $$ SELECT to_jsonb(current_database()) $$"
DEAD_LETTER = ("INSERT INTO rinq_internal.outbox_dead_letter (seq, id, namespace, command, database, attempts, error, set_aside)"
               " SELECT 1, '58AEE146-191C.45@3#%d', '%s', 'x', oid, 1, 'test', now() FROM pg_database WHERE datname = current_database()")


class Replication(case.Case):
    @classmethod
    def make_world(cls):
        world = case.new_world("replication", settings={
            "wal_level": "logical", "max_prepared_transactions": "10", "max_worker_processes": "48", "max_replication_slots": "8",
            "max_wal_senders": "8", "max_logical_replication_workers": "8", "wal_retrieve_retry_interval": "100ms"})
        cls.addClassCleanup(world.close)
        return world

    def setUp(self):
        super().setUp()
        self.publisher = self.database()
        self.subscriber = self.database()
        for db in (self.publisher, self.subscriber):
            db.sql("CREATE TABLE t (id int PRIMARY KEY, note text)")
            db.sql(HANDLER % "whose")

    def subscribe(self, two_phase=False):
        name = self.subscriber.name
        self.publisher.sql("CREATE PUBLICATION p FOR ALL TABLES")
        self.publisher.sql("SELECT pg_create_logical_replication_slot('%s', 'pgoutput', false, %s)" % (name, two_phase))
        self.addCleanup(self.publisher.sql, "SELECT pg_drop_replication_slot('%s')" % name)
        self.subscriber.sql("CREATE SUBSCRIPTION s CONNECTION 'host=%s port=%d dbname=%s user=postgres' PUBLICATION p"
                            " WITH (create_slot = false, slot_name = '%s', two_phase = %s)"
                            % (self.server.socket_folder, self.server.port, self.publisher.name, name, str(two_phase).lower()))
        self.addCleanup(self.unsubscribe)
        wait_until(lambda: self.subscriber.value("SELECT count(*) FROM pg_subscription_rel WHERE srsubstate <> 'r'"), lambda n: n == "0", 30,
                   "all tables to be copied")

    def unsubscribe(self):
        self.subscriber.sql("ALTER SUBSCRIPTION s DISABLE; ALTER SUBSCRIPTION s SET (slot_name = NONE)")
        self.subscriber.sql("DROP SUBSCRIPTION s")
        wait_until(lambda: self.publisher.value("SELECT active FROM pg_replication_slots WHERE slot_name = '%s'" % self.subscriber.name),
                   lambda active: active == "f")

    def arrives(self, number):
        """What was written before has been applied."""
        self.publisher.sql("INSERT INTO t VALUES (%d, 'sentinel')" % number)
        wait_until(lambda: self.subscriber.value("SELECT count(*) FROM t WHERE id = %d" % number), lambda n: n == "1", 20,
                   "row %d to be replicated" % number)

    def contents(self, db):
        return {table: db.sql("SELECT * FROM rinq_internal.%s x ORDER BY x::text" % table)
                for [table] in db.sql(OWN_TABLES) if table != "stored_notification"}

    def write_everything(self, db):
        """Rows in all tables that replication could bring, some of them changed and deleted again."""
        db.sql("SELECT rinq_listen('theirs', 'whose(rinq_request)'); SELECT rinq_listen('theirs', 'whose(rinq_request)', 3);"
               "SELECT rinq_listen('brief', 'whose(rinq_request)')")
        db.sql("SELECT rinq_unlisten('brief')")
        db.sql("INSERT INTO rinq_internal.inbox_attempt (id, digest, attempts, first, last)"
               " VALUES ('1-0001.1@0#1', sha256('1'), 2, now(), now()), ('1-0001.1@0#2', sha256('2'), 2, now(), now());"
               "UPDATE rinq_internal.inbox_attempt SET attempts = 3; DELETE FROM rinq_internal.inbox_attempt WHERE id = '1-0001.1@0#2'")
        db.sql("INSERT INTO rinq_internal.inbox_dead_letter (id, digest, source, namespace, command, trace_id, handler, attempts, first_received, last_attempt, error, recorded)"
               " VALUES ('1-0001.1@0#1', sha256('1'), 'x', 'retried', 'x', 'x', 'x', 1, now(), now(), 'x', now()), ('1-0001.1@0#2', sha256('2'), 'x', 'x', 'x', 'x', 'x', 1, now(), now(), 'x', now())")
        db.sql("SELECT rinq_inbox_dead_letter_delete('1-0001.1@0#2')")
        for number in range(3):
            db.sql(DEAD_LETTER % (number + 1, "retried"))

    def test_tables_are_local(self):
        collector = Collector(self.peer(prefetch=0), "retried")
        mark = self.server.log_mark()
        self.subscriber.sql("SELECT rinq_listen('theirs', 'whose(rinq_request)', 7)")
        self.subscriber.sql("INSERT INTO rinq_internal.inbox_attempt (id, digest, attempts, first, last)"
                            " VALUES ('1-0001.1@0#9', sha256('9'), 9, '2020-01-01', '2020-01-01')")
        self.write_everything(self.publisher)
        before = self.contents(self.subscriber)
        self.subscribe()
        self.arrives(1)
        self.assertEqual(self.contents(self.subscriber), before)

        # while it is published, all works as before
        for number in range(1, 4):
            self.assertEqual(self.publisher.value("SELECT rinq_outbox_dead_letter_%s('58AEE146-191C.45@3#%d')" % (("delete", "retry")[number % 2], number)), "t")
        self.publisher.sql("SELECT rinq_inbox_dead_letter_retry('1-0001.1@0#1'); DELETE FROM rinq_internal.inbox_attempt")
        self.publisher.sql("SELECT rinq_unlisten('theirs')")
        self.write_everything(self.publisher)
        self.publisher.sql("INSERT INTO rinq_internal.inbox_attempt (id, digest, attempts, first, last) VALUES ('1-0001.1@0#9', sha256('1'), 1, now(), now())")
        self.publisher.sql("UPDATE rinq_internal.inbox_attempt SET attempts = 4; DELETE FROM rinq_internal.inbox_attempt WHERE id = '1-0001.1@0#9'")
        self.publisher.sql("SELECT rinq_execute('retried', 'last', '1')")
        for [table] in self.publisher.sql(OWN_TABLES):
            if table != "stored_notification":
                self.assertSqlState(self.publisher.error("TRUNCATE rinq_internal." + table), "55000", "published")
        self.arrives(2)
        self.assertEqual(self.contents(self.subscriber), before)
        collector.wait(3)
        self.assertEqual(len(collector.requests), 3, "each message is sent once")
        self.assertEqual(self.publisher.sql("SELECT id FROM rinq_inbox_waiting"), [["1-0001.1@0#1"]])
        # PostgreSQL 18 tells of rows that it does not find, and goes on
        self.assertNotRegex(self.server.log_since(mark), "ERROR: .*(duplicate key|[Rr]eplica identity)")
        self.assertEqual(self.subscriber.value("SELECT subenabled FROM pg_subscription"), "t")

    def test_triggers_of_users_in_the_apply_worker(self):
        """What the extension writes at the subscriber is written, though the row that caused it was replicated."""
        self.subscriber.sql("""
            CREATE FUNCTION on_row() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN
              PERFORM public.rinq_execute('applied', NEW.note, to_jsonb(NEW.id));
              PERFORM public.rinq_listen('listened-' || NEW.id, 'public.whose(public.rinq_request)');
              RETURN NULL;
            END $$;
            CREATE TRIGGER on_row AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION on_row();
            ALTER TABLE t ENABLE ALWAYS TRIGGER on_row""")
        collector = Collector(self.peer(prefetch=0), "applied")
        self.subscribe()
        self.arrives(7)
        collector.wait(1)
        self.assertEqual(collector.payloads, [7])
        self.assertEqual(self.publisher.json(call_sql("listened-7", "x", timeout=20)), self.subscriber.name)

    def test_apply_worker_commits_a_prepared_transaction(self):
        self.subscriber.sql("""
            CREATE FUNCTION send() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM public.rinq_execute('two-phase', NEW.note, to_jsonb(NEW.id)); RETURN NULL; END $$;
            CREATE TRIGGER send AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION send();
            ALTER TABLE t ENABLE ALWAYS TRIGGER send""")
        collector = Collector(self.peer(prefetch=0), "two-phase")
        self.subscribe(two_phase=True)
        wait_until(lambda: self.subscriber.value("SELECT subtwophasestate FROM pg_subscription"), lambda state: state == "e")
        for number in (10, 20):
            self.publisher.sql("BEGIN; INSERT INTO t VALUES (%d, 'prepared'); PREPARE TRANSACTION 'x'" % number)
            wait_until(lambda: self.subscriber.value("SELECT count(*) FROM pg_prepared_xacts WHERE database = current_database()"), lambda n: n == "1")
            self.assertNotIn(number, collector.payloads)
            self.publisher.sql("COMMIT PREPARED 'x'")
            wait_until(lambda: collector.payloads, lambda payloads: number in payloads, description="the message of transaction %d" % number)
        self.assertEqual(collector.payloads, [10, 20])


class Modes(case.PeerCase):
    """session_replication_role, disabled triggers and restores."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db.sql(HANDLER % "whose")

    def served(self, namespace, by=None):
        self.assertEqual(self.remote.call(namespace, "x", timeout=20), (by or self.db).name)

    def test_mode_is_no_origin(self):
        collector = Collector(self.peer(prefetch=0), "mode")
        self.db.sql(DEAD_LETTER % (1, "mode"))
        self.assertEqual(self.db.value("SET session_replication_role = replica; SELECT rinq_outbox_dead_letter_retry('58AEE146-191C.45@3#1')"), "t")
        collector.wait(1)
        self.db.sql("SET session_replication_role = replica; SELECT rinq_listen('mode-listen', 'whose(rinq_request)')")
        self.served("mode-listen")
        self.db.sql("SET session_replication_role = replica; INSERT INTO rinq_internal.listener"
                    " SELECT * FROM json_populate_record(NULL::rinq_internal.listener,"
                    " (SELECT to_jsonb(l) || '{\"namespace\": \"mode-row\"}' FROM rinq_internal.listener l WHERE namespace = 'mode-listen')::json)")
        self.served("mode-row")
        self.db.sql("SELECT rinq_unlisten('mode-listen'); SELECT rinq_unlisten('mode-row')")

    def test_origin_is_no_mode(self):
        self.db.sql("SELECT pg_replication_origin_create('elsewhere')")
        self.addCleanup(self.db.sql, "SELECT pg_replication_origin_drop('elsewhere')")
        self.db.sql("SELECT pg_replication_origin_session_setup('elsewhere'); %s" % (DEAD_LETTER % (2, "x")))
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_outbox_dead_letter"), "0")

    def add_unnoticed(self, namespace):
        """A listener whose row no trigger has seen."""
        self.db.sql("ALTER TABLE rinq_internal.listener DISABLE TRIGGER ALL")
        self.db.sql("INSERT INTO rinq_internal.listener SELECT * FROM json_populate_record(NULL::rinq_internal.listener,"
                    " (SELECT to_jsonb(l) || '{\"namespace\": \"%s\"}' FROM rinq_internal.listener l WHERE namespace = 'pattern')::json)" % namespace)

    def enabled(self):
        return self.db.value("SELECT string_agg(DISTINCT tgenabled::text, '') FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
                             " WHERE c.relnamespace = 'rinq_internal'::regnamespace AND NOT t.tgisinternal")

    def test_configuration_is_read_again(self):
        self.db.sql("SELECT rinq_listen('pattern', 'whose(rinq_request)')")
        self.served("pattern")
        enable = "ALTER TABLE rinq_internal.listener ENABLE TRIGGER ALL"
        self.addCleanup(self.db.sql, enable + "; DELETE FROM rinq_internal.listener")
        for number, action in enumerate((lambda: self.db.sql(enable), lambda: self.db.sql("SELECT rinq_start()"), lambda: self.db.sql("SELECT pg_reload_conf()"),
                                         lambda: (self.db.sql("SELECT rinq_stop()"), self.db.sql("SELECT rinq_start()")))):
            self.add_unnoticed("unnoticed-%d" % number)
            action()
            self.served("unnoticed-%d" % number)
        self.db.sql(enable)
        self.assertEqual(self.enabled(), "A")
        self.assertEqual(self.db.sql("SELECT * FROM rinq_check()"), [])

    def test_outbox_is_read_again(self):
        collector = Collector(self.peer(prefetch=0), "by-hand")
        insert = ("INSERT INTO rinq_internal.outbox_1 (seq, id, namespace, command, database) SELECT %d, '58AEE146-191C.46@3#%d', 'by-hand', 'x', oid"
                  " FROM pg_database WHERE datname = current_database()")
        self.db.sql("ALTER TABLE rinq_internal.outbox_1 DISABLE TRIGGER ALL")
        for number, action in enumerate(("SELECT rinq_start()", "SELECT pg_reload_conf()", "ALTER TABLE rinq_internal.outbox_1 ENABLE TRIGGER ALL"), 1):
            self.db.sql(insert % (number, number))
            self.db.sql(action)
            collector.wait(number)
        self.assertEqual(self.enabled(), "A")

    def restore(self, options, schema, dump_options=()):
        """A database is dumped and restored under another name, after it was dropped."""
        original = self.database()
        if schema != "public":
            original.sql('DROP EXTENSION rinq; CREATE SCHEMA "%s"; CREATE EXTENSION rinq SCHEMA "%s"' % (schema, schema))
        path = 'SET search_path = public, "%s"; ' % schema
        original.sql(path + HANDLER % "public.whose")
        original.sql(path + "SELECT rinq_listen('restored', 'whose(rinq_request)')")
        self.assertEqual(self.remote.call("restored", "x", timeout=20), original.name)
        dump = subprocess.run([self.server.tool("pg_dump"), *dump_options, original.name], check=True, capture_output=True, text=True,
                              env=self.server.base_environment(), cwd="/").stdout
        original.drop()
        copy = Database(self.server, original.name + "_restored")
        self.server.psql('CREATE DATABASE "%s"' % copy.name)
        self.addCleanup(copy.drop)
        if "--data-only" in dump_options:
            copy.sql("CREATE EXTENSION rinq")
            copy.sql(HANDLER % "public.whose")
        subprocess.run(copy.server._psql_command("postgres", copy.name) + ["-v", "ON_ERROR_STOP=1", *options], input=dump, check=True, capture_output=True,
                       text=True, env=self.server.base_environment(), cwd="/")
        return copy

    def assertRestored(self, copy, schema="public"):
        path = 'SET search_path = public, "%s"; ' % schema
        self.served("restored", copy)
        self.assertEqual(copy.value("SELECT string_agg(DISTINCT tgenabled::text, '') FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
                                    " WHERE c.relnamespace = 'rinq_internal'::regnamespace AND NOT t.tgisinternal"), "A")
        self.assertEqual(copy.sql(path + "SELECT namespace FROM rinq_listeners"), [["restored"]])
        self.assertEqual(copy.sql(path + "SELECT * FROM rinq_check()"), [])

    def test_restore(self):
        self.assertRestored(self.restore(["--single-transaction"], "public"))

    def test_restore_in_another_schema(self):
        self.assertRestored(self.restore(["--single-transaction"], "the Bus"), "the Bus")

    def test_restore_with_disabled_triggers(self):
        self.assertRestored(self.restore([], "public", ["--data-only", "--disable-triggers"]))

    def test_dump_by_a_role_that_reads_all(self):
        self.dump("GRANT pg_read_all_data TO dumper")

    def test_dump_by_a_role_that_reads_what_is_dumped(self):
        self.dump("GRANT USAGE ON SCHEMA rinq_internal TO dumper; GRANT SELECT ON rinq_internal.listener, rinq_internal.subscription, rinq_internal.identity,"
                  " rinq_internal.chosen_server TO dumper")

    def dump(self, grant):
        self.db.sql("CREATE ROLE dumper LOGIN; %s; SELECT rinq_listen('dumped', 'whose(rinq_request)')" % grant)
        self.addCleanup(self.db.sql, "DROP OWNED BY dumper; DROP ROLE dumper; SELECT rinq_unlisten('dumped')")
        dump = subprocess.run([self.server.tool("pg_dump"), "-U", "dumper", self.db.name], check=True, capture_output=True, text=True,
                              env=self.server.base_environment(), cwd="/").stdout
        self.assertRegex(dump, r"COPY rinq_internal\.listener [^\n]*\ndumped\t")
