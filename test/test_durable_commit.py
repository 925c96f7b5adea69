"""What others are told of is on disk first, whatever synchronous_commit says; and what synchronous replication adds to that."""

from rinqtest import case
from rinqtest.collector import Collector
from rinqtest.waiting import wait_until

# the WAL is written rarely, so that a crash takes back what was not flushed
LAZY = {"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "1GB", "fsync": "on"}


class Crash(case.Case):
    expects_crash = True

    @classmethod
    def make_world(cls):
        world = case.new_world("durable-commit", settings=LAZY)
        cls.addClassCleanup(world.close)
        return world

    def setUp(self):
        super().setUp()
        self.db = self.database()
        self.db.sql("CREATE TABLE t (i int); CREATE TABLE lost (i int)")
        self.db.sql("CHECKPOINT")
        self.remote = self.peer(prefetch=0)

    def crash(self):
        self.server.restart("immediate")
        self.db.wait_peer()

    def rows(self, table="t"):
        return self.db.value("SELECT coalesce(string_agg(i::text, ' ' ORDER BY i), '') FROM " + table)

    def test_without_messages_a_commit_is_lost(self):
        """That the others are not lost shows something, since this one is."""
        self.db.sql("INSERT INTO lost VALUES (1)")
        self.crash()
        self.assertEqual(self.rows("lost"), "")

    def test_message_from_memory(self):
        collector = Collector(self.remote, "lazy-memory")
        self.db.sql("BEGIN; INSERT INTO t VALUES (1); SELECT rinq_execute('lazy-memory', 'x', '1', durable => false); COMMIT")
        collector.wait(1)
        self.crash()
        self.assertEqual(self.rows(), "1")

    def test_durable_message_that_is_confirmed_late(self):
        collector = Collector(self.remote, "lazy-durable")
        self.db.sql("SELECT rinq_execute('lazy-durable', 'warm')")
        collector.wait(1)
        self.world.proxy.silence("broker")
        self.db.sql("BEGIN; INSERT INTO t VALUES (1); SELECT rinq_execute('lazy-durable', 'x', '1'); COMMIT")
        collector.wait(2)
        self.server.stop("immediate")
        self.world.proxy.resume()
        self.server.start()
        self.db.wait_peer()
        self.assertEqual(self.rows(), "1")

    def test_notifications(self):
        with self.db.session() as listener:
            session = listener.value("SELECT rinq_session()")
            self.db.sql("BEGIN; INSERT INTO t VALUES (1); SELECT rinq_notify_many('lazy-news', 'x', '{*}'); COMMIT")
            self.db.sql("BEGIN; INSERT INTO t VALUES (2); SELECT rinq_notify('lazy-news', 'x', '%s'); COMMIT" % session)
        self.published("ntf.uc", 1)
        self.crash()
        self.assertEqual(self.rows(), "1 2")

    def test_what_the_session_has_committed_before(self):
        """A transaction that writes nothing may tell of the one before it."""
        with self.db.session() as session:
            session.execute("INSERT INTO t VALUES (1)")
            session.execute("SELECT rinq_notify_many('lazy-before', 'x', '{*}')")
            self.published("ntf.mc", 1, where=lambda event: event.routing_key == "lazy-before")
        self.crash()
        self.assertEqual(self.rows(), "1")

    def test_handler_that_is_answered(self):
        self.db.handler("lazy_handler", "INSERT INTO t VALUES ((req.payload->>0)::int); SET LOCAL synchronous_commit = off; RETURN 'true';")
        self.db.listen("lazy-handler", "lazy_handler")
        self.db.sql("CHECKPOINT")
        self.assertIs(self.remote.call("lazy-handler", "x", [1], timeout=20), True)
        self.crash()
        self.assertEqual(self.rows(), "1")

    def test_handler_of_an_executed_command(self):
        """It is acknowledged, and so does not come again."""
        self.db.handler("lazy_handler", "INSERT INTO t VALUES ((req.payload->>0)::int); RETURN 'true';")
        self.db.listen("lazy-executed", "lazy_handler")
        self.db.sql("CHECKPOINT")
        self.remote.execute("lazy-executed", "x", [7])
        wait_until(self.rows, lambda rows: rows == "7", 20)
        wait_until(lambda: self.world.broker.table("list_queues", "name", "messages"), lambda rows: ["cmd.lazy-executed", "0"] in rows, 20,
                   "the acknowledgement")
        self.crash()
        self.assertEqual(self.rows(), "7")

    def test_rows_written_by_hand(self):
        collector = Collector(self.remote, "lazy-hand")
        self.db.sql("BEGIN; INSERT INTO t VALUES (1); INSERT INTO rinq_internal.outbox_0 (seq, id, namespace, command, database)"
                    " SELECT 5, '1-0001.1@0#9', 'lazy-hand', 'x', oid FROM pg_database WHERE datname = current_database(); COMMIT")
        collector.wait(1)
        self.crash()
        self.assertEqual(self.rows(), "1")
