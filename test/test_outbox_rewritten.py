"""Tables of the outbox that somebody rewrites, moves rows in, or locks, while messages are on their way: identity, not place, says which row is whose."""

from rinqtest import case
from rinqtest.collector import Collector
from rinqtest.proxy import CLIENT
from rinqtest.waiting import wait_until

TABLES = ["rinq_internal.outbox_%d" % n for n in range(4)]


class Rewritten(case.Case):
    @classmethod
    def make_world(cls):
        world = case.new_world("outbox-rewritten", settings={"rinq.retry_delay": "300ms", "rinq.outbox_check_interval": "1s"})
        cls.addClassCleanup(world.close)
        return world

    def setUp(self):
        super().setUp()
        self.db = self.database()
        self.remote = self.peer(prefetch=0)

    def status(self):
        return self.db.json("SELECT to_jsonb(s) FROM rinq_outbox_status s")

    def wait_empty(self, timeout=40):
        wait_until(self.status, lambda s: s["depth"] == 0, timeout, "an empty outbox")

    def raw(self):
        """A channel that shares nothing with any peer, for queues as an administrator handles them."""
        connection = self.world.broker.connect()
        self.addCleanup(lambda: connection.is_open and connection.close())
        return connection.channel()

    def in_all_tables(self, statement):
        for table in TABLES:
            self.db.sql(statement.replace("%s", table))

    def table_in_use(self):
        """The one of the outbox's tables that has rows; they take turns."""
        used = [table for table in TABLES if self.db.value("SELECT count(*) FROM %s" % table) != "0"]
        self.assertEqual(len(used), 1, used)
        return used[0]

    def during_a_scan(self, namespace, rewrite, count=12000):
        """A scan stops in the middle, since the line is slow and so many messages are not confirmed; the tables are rewritten; it goes on."""
        collector = Collector(self.remote, namespace)
        self.db.sql("SELECT rinq_execute('%s', 'first', '-1')" % namespace)
        collector.wait(1)
        self.wait_empty()
        self.db.sql("SELECT rinq_stop(false)")
        self.db.sql("SELECT count(rinq_execute('%s', 'x', to_jsonb(i))) FROM generate_series(1, %d) i" % (namespace, count))
        self.db.sql("DELETE FROM %s WHERE seq %% 7 = 3" % self.table_in_use())
        expected = [row[0] for row in self.db.sql("SELECT id FROM rinq_outbox ORDER BY created")]
        self.world.proxy.throttle(50000, CLIENT)
        self.db.sql("SELECT rinq_start()")
        wait_until(self.status, lambda s: s["in_flight"] == 8192, 20, "the scan to be under way")
        rewrite()
        self.world.proxy.resume()
        collector.wait(1 + len(expected), 40)
        self.wait_empty()
        self.assertEqual(collector.ids[1:], expected)

    def test_index_on_a_table_of_the_outbox(self):
        """Nobody would maintain it: nothing is written while it is there."""
        self.db.sql("SELECT rinq_execute('indexed', 'x')")
        for n, table in enumerate(TABLES):
            self.db.sql("CREATE INDEX added_%d ON %s (namespace)" % (n, table))
        self.assertSqlState(self.db.error("SELECT rinq_execute('indexed', 'x')"), "55000", "is not as rinq made it")
        self.db.sql("DROP INDEX " + ", ".join("rinq_internal.added_%d" % n for n in range(len(TABLES))))
        self.db.sql("SELECT rinq_execute('indexed', 'x')")

    def test_index_on_the_table_of_what_is_set_aside(self):
        self.db.sql("CREATE INDEX added ON rinq_internal.outbox_dead_letter (namespace)")
        mark = self.server.log_mark()
        self.db.sql("INSERT INTO rinq_internal.outbox_0 (seq, id, namespace, command, database)"
                    " VALUES (5, '1-0001.1@0#9', 'odd', 'x', 1)")
        self.server.wait_log("cannot set messages aside, because the table .outbox_dead_letter. is not as rinq made it", mark, 20)
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_internal.outbox_dead_letter"), "0")
        self.db.sql("DROP INDEX rinq_internal.added")
        wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_internal.outbox_dead_letter"), lambda n: n == "1", 20, "the row to be set aside")

    def test_extension_is_dropped_while_a_transaction_uses_it(self):
        """The transaction goes on to other tables of the extension; the drop waits for its end, and nobody is a deadlock's victim."""
        drop = None
        with self.db.session() as session:
            session.execute("BEGIN; SELECT rinq_execute('dropped', 'x')")
            drop = self.db.start("DROP EXTENSION rinq CASCADE")
            wait_until(lambda: self.server.value("SELECT count(*) FROM pg_locks WHERE NOT granted"), lambda n: n == "1", 10, "the drop to wait")
            session.execute("SELECT rinq_unlisten('nothing'), rinq_unsubscribe('nothing'); COMMIT")
        drop.result()

    def test_extension_is_dropped_while_its_functions_are_called(self):
        """The drop has the extension, and waits for one of its tables; a function waits for the extension before it has locked any other."""
        for call in ("rinq_outbox_dead_letter_retry('x')", "rinq_outbox_dead_letter_delete('x')", "rinq_inbox_dead_letter_retry('x')",
                     "rinq_inbox_dead_letter_delete('x')", "rinq_unlisten('x')", "rinq_execute('x', 'x')"):
            with self.subTest(call), self.db.session() as holder, self.db.session() as caller:
                call = call.replace("('x')", "('%s')" % self.db.value("SELECT rinq_execute('other', 'x')")) if "letter" in call else call
                holder.execute("BEGIN; LOCK TABLE rinq_internal.subscription IN ACCESS SHARE MODE")
                drop = self.db.start("DROP EXTENSION rinq CASCADE")
                waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = '%s')" % self.db.name
                wait_until(lambda: self.server.value(waiting), lambda n: n == "1", 10, "the drop to wait")
                caller.start("SELECT " + call)
                wait_until(lambda: self.server.value(waiting), lambda n: n == "2", 10, "the call to wait")
                holder.execute("COMMIT")
                drop.result()
                self.assertNotEqual(caller.finish_error().sqlstate, "40P01")
                self.db.sql("CREATE EXTENSION rinq")
                self.db.wait_peer()

    def insert_without_an_id(self):
        self.db.sql("INSERT INTO rinq_internal.outbox_0 (seq, id, namespace, command, database)"
                    " SELECT i, 'odd ' || i, 'odd', 'x', oid FROM pg_database, generate_series(1, 3) i WHERE datname = current_database()")

    def wait_set_aside(self):
        wait_until(self.status, lambda s: (s["depth"], s["dead"]) == (0, 3), 20, "the rows to be set aside")

    def test_rows_without_an_id_while_they_cannot_be_set_aside(self):
        """The scan that finds them is over before they can; nobody else knows of them."""
        with self.db.session() as session:
            session.execute("BEGIN; LOCK TABLE rinq_internal.outbox_dead_letter")
            self.insert_without_an_id()
            wait_until(lambda: self.db.value("SELECT direct FROM rinq_outbox_peer_status()"), lambda direct: direct == "t", 20, "the scan to be over")
            session.execute("COMMIT")
        self.wait_set_aside()

    def test_rows_without_an_id_while_there_is_an_index(self):
        self.db.sql("CREATE FUNCTION refuse(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RAISE ''no''; END'")
        self.db.sql("CREATE INDEX added ON rinq_internal.outbox_dead_letter (refuse(namespace))")
        mark = self.server.log_mark()
        self.insert_without_an_id()
        self.server.wait_log("cannot set messages aside, because the table .outbox_dead_letter. is not as rinq made it", mark, 20)
        wait_until(lambda: self.status()["direct"], description="the scan to be over")
        self.db.sql("DROP INDEX rinq_internal.added")
        self.wait_set_aside()

    def test_row_that_is_moved_all_the_time_with_a_retry_pending(self):
        """It is read where it is in the very snapshot that it is searched for in."""
        self.db.sql("""CREATE PROCEDURE keep_moving() LANGUAGE plpgsql AS $$
            BEGIN
              LOOP
                UPDATE rinq_internal.outbox_0 SET trace_id = 'moved';
                UPDATE rinq_internal.outbox_1 SET trace_id = 'moved';
                UPDATE rinq_internal.outbox_2 SET trace_id = 'moved';
                UPDATE rinq_internal.outbox_3 SET trace_id = 'moved';
                COMMIT;
                EXIT WHEN EXISTS (SELECT FROM stop_moving);
              END LOOP;
            END $$; CREATE TABLE stop_moving (x int)""")
        with self.db.session() as session:
            def move():
                session.start("CALL keep_moving()")
                self.addCleanup(self.db.sql, "INSERT INTO stop_moving VALUES (1)")
            self.with_a_retry_pending("retry-moving", move)
            self.db.sql("INSERT INTO stop_moving VALUES (1)")
            session.finish()

    def test_vacuum_full_during_a_scan(self):
        self.during_a_scan("vacuumed", lambda: self.in_all_tables("VACUUM FULL %s"))

    def test_rewritten_by_alter_table_during_a_scan(self):
        self.during_a_scan("altered", lambda: self.in_all_tables("ALTER TABLE %s SET UNLOGGED; ALTER TABLE %s SET LOGGED"))

    def test_rows_updated_during_a_scan(self):
        """Each row gets another place, in the order in which it is sent or in another one; all arrive."""
        namespace = "updated"
        collector = Collector(self.remote, namespace)
        self.db.sql("SELECT rinq_stop(false)")
        self.db.sql("SELECT count(rinq_execute('%s', 'x', to_jsonb(i))) FROM generate_series(1, 3000) i" % namespace)
        self.world.proxy.refuse()
        self.db.sql("SELECT rinq_start()")
        self.in_all_tables("UPDATE %s SET command = 'y'")
        self.world.proxy.resume()
        collector.wait(1000, 40)
        self.in_all_tables("UPDATE %s SET command = 'z'")
        self.in_all_tables("VACUUM FULL %s")
        wait_until(lambda: set(collector.payloads), lambda got: len(got) == 3000, 40, "all messages")
        self.wait_empty()

    def with_a_retry_pending(self, namespace, move):
        """The broker has refused a message; its row is moved before it is read again."""
        channel = self.raw()
        channel.queue_declare("cmd." + namespace, durable=True, arguments={"x-max-priority": 3})
        policy = '{"max-length": 1, "overflow": "reject-publish"}'
        self.world.broker.ctl("set_policy", namespace, "^cmd\\.%s$" % namespace, policy, "--apply-to", "queues")
        self.addCleanup(self.world.broker.ctl, "clear_policy", namespace)
        self.db.sql("SELECT count(rinq_execute('others', 'x')) FROM generate_series(1, 20)")
        self.db.sql("SELECT rinq_execute('%s', 'fits')" % namespace)
        message = self.db.value("SELECT rinq_execute('%s', 'refused')" % namespace)
        wait_until(self.status, lambda s: s["retrying"] == 1, 20, "the message to be refused")
        move()
        channel.queue_purge("cmd." + namespace)
        self.wait_empty()
        method, properties, _ = wait_until(lambda: channel.basic_get("cmd." + namespace, auto_ack=True), lambda got: got[0] is not None, 20,
                                           "the message")
        self.assertEqual(properties.message_id, message)
        self.assertEqual(self.status()["dead"], 0)

    def test_vacuum_full_with_a_retry_pending(self):
        self.with_a_retry_pending("retry-vacuum", lambda: self.in_all_tables("VACUUM FULL %s"))

    def test_update_with_a_retry_pending(self):
        self.with_a_retry_pending("retry-update", lambda: self.in_all_tables("UPDATE %s SET trace_id = 'moved'"))

    def test_moved_to_another_table_with_a_retry_pending(self):
        def move():
            used = self.table_in_use()
            other = [table for table in TABLES if table != used][-1]
            self.db.sql("WITH m AS (DELETE FROM %s RETURNING *) INSERT INTO %s SELECT * FROM m" % (used, other))
        self.with_a_retry_pending("retry-moved", move)

    def test_rows_that_nobody_told_of(self):
        """Written while triggers do not fire: found by the check that runs now and then."""
        collector = Collector(self.remote, "untold")
        # which is noticed, and has the outbox read; what is written after that is not
        self.db.sql("ALTER TABLE rinq_internal.outbox_1 DISABLE TRIGGER ALL")
        self.db.sql("SELECT rinq_execute('untold', 'x', '1')")
        collector.wait(1)
        self.wait_empty()
        wait_until(lambda: self.status()["direct"], description="the reading to be over")
        mark = self.server.log_mark()
        self.db.sql("INSERT INTO rinq_internal.outbox_1 (seq, id, namespace, command, database)"
                    " SELECT 5, '1-0001.1@0#7', 'untold', 'x', oid FROM pg_database WHERE datname = current_database();"
                    " SELECT rinq_execute('untold', 'x', '2')")
        wait_until(lambda: collector.ids, lambda ids: "1-0001.1@0#7" in ids, 20, "the row to be found")
        self.server.wait_log("reads the outbox again", mark)
        self.wait_empty()

    def test_locked_by_an_administrator(self):
        """Nobody waits in a queue for the lock: messages go out, and their rows are removed when it is released."""
        collector = Collector(self.remote, "locked")
        self.db.sql("SELECT rinq_execute('locked', 'x', '1')")
        collector.wait(1)
        self.wait_empty()
        with self.db.session() as session:
            session.execute("BEGIN")
            session.execute("LOCK TABLE rinq_internal.outbox_2")
            self.db.sql("SELECT count(rinq_execute('locked', 'x', to_jsonb(i))) FROM generate_series(2, 500) i")
            collector.wait(500)
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
            self.assertEqual(self.server.value(waiting), "0")
            wait_until(lambda: self.db.value("SELECT waits_for FROM rinq_outbox_peer_status()"), lambda text: text and "lock" in text, 20, "the lock to be shown")
            session.execute("COMMIT")
        self.wait_empty()
        self.assertEqual(collector.payloads, list(range(1, 501)))

    def test_row_locked_by_an_administrator(self):
        """A row that somebody is changing stays until that has ended; others go."""
        self.world.proxy.refuse()
        self.world.proxy.cut()
        collector = Collector(self.remote, "held-row")
        self.db.sql("SELECT count(rinq_execute('held-row', 'x', to_jsonb(i))) FROM generate_series(1, 50) i")
        with self.db.session() as session:
            session.execute("BEGIN")
            session.execute("UPDATE {0} SET trace_id = 't' WHERE seq = (SELECT max(seq) FROM {0})".format(self.table_in_use()))
            self.world.proxy.resume()
            collector.wait(50, 30)
            wait_until(self.status, lambda s: s["depth"] == 1, 20, "the others to be removed")
            session.execute("COMMIT")
        self.wait_empty()
        self.assertEqual(collector.payloads, list(range(1, 51)))
