"""Durable messages through faults: what was committed is received, by id; twice only where a confirm was lost."""

import collections
import os
import signal
import threading

from rinqtest import case
from rinqtest.collector import Collector
from rinqtest.proxy import BROKER
from rinqtest.waiting import wait_until

WINDOW = 8192  # messages that may be published and not yet confirmed and removed


class Stream:
    """Commits one message after another, with its id in a table, until it is told to stop; errors are somebody's fault."""

    def __init__(self, db, namespace):
        self.db = db
        self._sql = "INSERT INTO sent SELECT rinq_execute('%s', 'x', '1')" % namespace
        self._stop = threading.Event()
        self.committed = 0
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._stop.is_set():
            try:
                with self.db.session() as session:
                    while not self._stop.is_set():
                        session.execute(self._sql)
                        self.committed += 1
                        self._stop.wait(0.002)
            except Exception:
                self._stop.wait(0.05)  # the server is away for a moment

    def wait(self, more):
        goal = self.committed + more
        wait_until(lambda: self.committed, lambda n: n >= goal, 30, "%d more commits" % more)

    def stop(self):
        self._stop.set()
        self._thread.join()


class Case(case.Case):
    def database(self, **options):
        db = super().database(**options)
        db.sql("CREATE TABLE sent (id text)")
        return db

    def depth(self, db):
        return int(db.value("SELECT depth FROM rinq_outbox_status"))

    def wait_empty(self, db, timeout=30):
        wait_until(lambda: self.depth(db), lambda n: n == 0, timeout, "an empty outbox")

    def sent(self, db):
        return set((db.value("SELECT string_agg(id, ' ') FROM sent") or "").split())

    def wait_received(self, sent, collector, timeout=30):
        wait_until(lambda: len(sent - set(collector.ids)), lambda missing: missing == 0, timeout, "all of %d messages" % len(sent), 0.2)

    def assertAllReceived(self, db, collector, duplicates=0, timeout=30):
        sent = self.sent(db)
        self.wait_received(sent, collector, timeout)
        self.wait_empty(db, timeout)
        counts = collections.Counter(collector.ids)
        self.assertEqual(set(counts) - sent, set(), "messages that were not committed")
        self.assertLessEqual(sum(counts.values()) - len(counts), duplicates)

    def raw(self):
        """A channel that shares nothing with any peer, for queues as an administrator handles them."""
        connection = self.world.broker.connect()
        self.addCleanup(lambda: connection.is_open and connection.close())
        return connection.channel()

    def relation_sizes(self, db):
        return int(db.value("SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relname ~ '^outbox_[0-3]$'"))


class Network(Case):
    @classmethod
    def make_world(cls):
        world = case.new_world("outbox", settings={"rinq.retry_delay": "50ms", "rinq.send_attempts": "3"})
        cls.addClassCleanup(world.close)
        return world

    def setUp(self):
        super().setUp()
        if not self.world.broker.running:
            self.world.broker.start()
        self.db = self.database()
        self.remote = self.peer(prefetch=0)

    def test_connection_cut(self):
        collector = Collector(self.remote, "cut")
        stream = Stream(self.db, "cut")
        for _ in range(3):
            stream.wait(50)
            self.world.proxy.cut()
            wait_until(lambda: self.db.peer()["state"], lambda s: s == "connected", 20, "the connection")
        stream.wait(50)
        stream.stop()
        self.assertAllReceived(self.db, collector, duplicates=WINDOW)

    def test_broker_down_at_commit(self):
        self.world.broker.kill()
        wait_until(lambda: self.db.peer()["state"], lambda s: s != "connected", 10, "the loss")
        ids = [self.db.value("SELECT rinq_execute('down', 'x', '%d')" % i) for i in range(20)]
        self.assertEqual(self.depth(self.db), 20)
        self.world.broker.start()
        collector = Collector(self.peer(prefetch=0), "down")
        collector.wait(20, 40)
        self.assertEqual(collector.ids, ids)
        self.wait_empty(self.db)

    def test_broker_restarted_in_a_stream(self):
        """In order: a broker that is killed may forget a queue that was declared just before, with all that it has confirmed."""
        self.db.sql("SELECT rinq_execute('restarted', 'warm')")
        stream = Stream(self.db, "restarted")
        stream.wait(50)
        self.world.broker.restart()
        stream.wait(50)
        stream.stop()
        self.wait_empty(self.db, 60)
        collector = Collector(self.peer(prefetch=0), "restarted")
        self.wait_received(self.sent(self.db), collector)

    def test_confirms_withheld(self):
        collector = Collector(self.remote, "held")
        self.db.sql("INSERT INTO sent SELECT rinq_execute('held', 'x')")
        collector.wait(1)
        self.wait_empty(self.db)
        self.world.proxy.silence(BROKER)
        self.db.sql("INSERT INTO sent SELECT rinq_execute('held', 'x') FROM generate_series(1, 10)")
        collector.wait(11)
        self.assertEqual(self.depth(self.db), 10)
        wait_until(lambda: self.db.value("SELECT in_flight FROM rinq_outbox_status"), lambda n: n == "10")

        # nobody holds anything meanwhile
        self.assertEqual(self.db.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'rinq%' AND xact_start IS NOT NULL"), "0")
        self.assertEqual(self.db.value("SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation WHERE relname ~ '^outbox_[0-3]$'"), "0")
        self.world.proxy.cut()
        self.world.proxy.resume()
        self.assertAllReceived(self.db, collector, duplicates=10)

    def test_nack_retry_and_setting_aside(self):
        channel = self.raw()
        channel.queue_declare("cmd.full", durable=True, arguments={"x-max-priority": 3})
        self.world.broker.ctl("set_policy", "full", "^cmd\\.full$", '{"max-length": 1, "overflow": "reject-publish"}', "--apply-to", "queues")
        self.addCleanup(self.world.broker.ctl, "clear_policy", "full")
        self.db.sql("SELECT rinq_execute('full', 'fits')")
        self.wait_empty(self.db)
        message = self.db.value("SELECT rinq_execute('full', 'refused', '{\"a\": 1}')")
        wait_until(lambda: self.db.value("SELECT dead FROM rinq_outbox_status"), lambda n: n == "1", 20, "the message to be set aside")
        row = self.db.json("SELECT to_json(d) FROM rinq_outbox_dead_letter d")
        self.assertEqual((row["id"], row["command"], row["attempts"]), (message, "refused", 3))
        self.assertIn("refused", row["error"])
        self.assertEqual(self.depth(self.db), 0)

        # others flow all the time, and this one when it is let go
        collector = Collector(self.remote, "others")
        self.db.sql("SELECT rinq_execute('others', 'x')")
        collector.wait(1)
        channel.queue_purge("cmd.full")
        self.assertEqual(self.db.value("SELECT rinq_outbox_dead_letter_retry('%s')" % message), "t")
        self.assertEqual(self.db.value("SELECT rinq_outbox_dead_letter_retry('%s')" % message), "f")
        full = Collector(self.remote, "full")
        full.wait(1)
        self.assertEqual((full.ids, full.payloads), ([message], [{"a": 1}]))
        self.wait_empty(self.db)

    def test_deleting_what_was_set_aside(self):
        channel = self.raw()
        channel.queue_declare("cmd.odd", durable=True)
        message = self.db.value("SELECT rinq_execute('odd', 'x')")
        wait_until(lambda: self.db.value("SELECT dead FROM rinq_outbox_status"), lambda n: n == "1", 20, "the message to be set aside")
        self.assertEqual(self.db.value("SELECT rinq_outbox_dead_letter_delete('%s')" % message), "t")
        self.assertEqual(self.db.value("SELECT dead FROM rinq_outbox_status"), "0")

    def test_queue_deleted(self):
        collector = Collector(self.remote, "gone")
        self.db.sql("SELECT rinq_execute('gone', 'x', '1')")
        collector.wait(1)
        self.wait_empty(self.db)
        self.remote.unserve("gone")
        self.raw().queue_delete("cmd.gone")
        message = self.db.value("SELECT rinq_execute('gone', 'x', '2')")
        self.wait_empty(self.db)
        again = Collector(self.peer(prefetch=0), "gone")
        again.wait(1)
        self.assertEqual(again.ids, [message])

    def test_deadline_passes_while_the_broker_is_away(self):
        self.world.proxy.refuse()
        self.world.proxy.cut()
        wait_until(lambda: self.db.peer()["state"], lambda s: s != "connected", 10, "the loss")
        dropped = self.db.peer()["messages_dropped"]
        self.db.sql("SELECT rinq_execute('late', 'x', '1', '1 ms')")
        message = self.db.value("SELECT rinq_execute('late', 'x', '2')")
        self.world.proxy.resume()
        collector = Collector(self.remote, "late")
        collector.wait(1, 40)
        self.wait_empty(self.db)
        self.assertEqual(collector.ids, [message])
        self.assertEqual(self.db.peer()["messages_dropped"], dropped + 1)

    def test_backlog_arrives_once_and_in_order(self):
        self.world.proxy.refuse()
        self.world.proxy.cut()
        wait_until(lambda: self.db.peer()["state"], lambda s: s != "connected", 10, "the loss")
        count = 20000
        for first in range(0, count, 5000):
            self.db.sql("SELECT count(rinq_execute('backlog', 'x', to_jsonb(i))) FROM generate_series(%d, %d) i" % (first, first + 4999))
        collector = Collector(self.remote, "backlog")
        self.world.proxy.resume()
        stream_start = count
        collector.wait(1, 40)
        for i in range(stream_start, stream_start + 100):
            self.db.sql("SELECT rinq_execute('backlog', 'x', '%d')" % i)
        collector.wait(count + 100, 60)
        self.wait_empty(self.db)
        self.assertEqual(collector.payloads, list(range(count + 100)))


class Processes(Case):
    expects_crash = True

    @classmethod
    def make_world(cls):
        world = case.new_world("outbox-processes")
        cls.addClassCleanup(world.close)
        return world

    def setUp(self):
        super().setUp()
        self.db = self.database()
        self.collector = Collector(self.peer(prefetch=0), self.db.name)
        self.stream = Stream(self.db, self.db.name)
        self.addCleanup(self.stream.stop)
        self.stream.wait(50)

    def finish(self):
        self.stream.wait(50)
        self.stream.stop()
        self.db.wait_peer()
        self.assertAllReceived(self.db, self.collector, duplicates=WINDOW, timeout=40)

    def test_peer_terminated(self):
        for _ in range(3):
            self.db.sql("SELECT pg_terminate_backend(pid) FROM rinq_peer")
            self.stream.wait(20)
            self.db.wait_peer()
        self.finish()

    def test_outbox_worker_terminated(self):
        for _ in range(5):
            wait_until(lambda: self.db.value("SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE backend_type = 'rinq outbox'"
                                             " AND datname = current_database()"), lambda n: n == "1", 10, "a worker to end")
            self.stream.wait(20)
        self.finish()

    def test_crash_restart(self):
        with self.db.session() as session:
            pid = session.value("SELECT pg_backend_pid()")
            mark = self.server.log_mark()
            self.world.scratch.run(["kill", "-9", pid])
            self.server.wait_log("all server processes terminated; reinitializing", mark)
        self.finish()

    def test_immediate_stop(self):
        self.server.restart("immediate")
        self.finish()

    def test_fast_stop(self):
        self.server.restart("fast")
        self.finish()

    def test_tables_are_rewritten(self):
        for command in ("VACUUM FULL rinq_internal.outbox_0", "VACUUM rinq_internal.outbox_0", "BEGIN; LOCK TABLE rinq_internal.outbox_0; COMMIT") * 3:
            self.db.sql(command)
            self.stream.wait(10)
        self.finish()


class Claimed(Case):
    """A server that has an entry in shared memory for one database only."""

    @classmethod
    def make_world(cls):
        world = case.new_world("outbox-claimed", settings={"rinq.max_databases": "1"}, proxied=False)
        cls.addClassCleanup(world.close)
        return world

    def setUp(self):
        self.server.configure(rinq__databases=None)
        super().setUp()

    def test_another_database_has_the_entry_when_a_transaction_commits(self):
        one = self.database()
        two = self.database(wait=False)
        collector = Collector(self.peer(prefetch=0), "claimed")
        with one.session() as session:
            session.execute("BEGIN; SELECT rinq_execute('claimed', 'x', '1'), rinq_execute('claimed', 'x', '2', durable => false)")
            self.server.configure(rinq__databases="nobody")
            one.wait_peer(lambda row: row["state"] == "stopped", description="the entry to be free")
            self.server.configure(rinq__databases=two.name)
            two.wait_peer()
            two.sql("SELECT rinq_execute('claimed', 'x', '3')")
            collector.wait(1)
            session.execute("COMMIT")
        two.sql("SELECT rinq_execute('claimed', 'x', '4')")
        collector.wait(2)
        self.wait_empty(two)
        self.assertEqual(self.depth(one), 1)
        self.server.configure(rinq__databases="nobody")
        two.wait_peer(lambda row: row["state"] == "stopped", description="the entry to be free")
        self.server.configure(rinq__databases=one.name)
        one.wait_peer()
        collector.wait(3)
        self.assertEqual(collector.payloads, [3, 4, 1])
        self.wait_empty(one)

    def stopped_while(self, one, two, pid, then=lambda: None):
        """The entry of one database is wanted for another one while a process is still connected to the first, and held up."""
        os.kill(pid, signal.SIGSTOP)
        try:
            then()
            self.server.configure(rinq__databases=two.name)
            one.wait_peer(lambda row: row["state"] == "stopped", description="the peer to end")
            wait_until(lambda: float(self.server.psql("SELECT extract(epoch FROM clock_timestamp() - state_change) FROM pg_stat_activity"
                                                      " WHERE backend_type = 'rinq launcher'")[0][0]),
                       lambda seconds: seconds > 0.5, description="the launcher to be at rest")
        finally:
            os.kill(pid, signal.SIGCONT)
        two.wait_peer(timeout=5)

    def test_another_database_gets_the_entry_in_the_same_reload(self):
        """Whichever process leaves last, the entry is given on then."""
        one = self.database()
        two = self.database(wait=False)
        remote = self.peer(prefetch=0)
        collector = Collector(remote, "given-on")
        process = "SELECT pid FROM pg_stat_activity WHERE datname = '%s' AND backend_type = 'rinq %s'"
        one.handler("echo", "RETURN req.payload;")
        one.listen("given-echo", "echo")
        self.assertEqual(remote.call("given-echo", "x", 1, timeout=10), 1)
        self.stopped_while(one, two, int(self.server.psql(process % (one.name, "executor"))[0][0]))
        two.sql("SELECT rinq_execute('given-on', 'x', '1')")
        collector.wait(1)
        self.wait_empty(two)
        self.stopped_while(two, one, int(self.server.psql(process % (two.name, "outbox"))[0][0]))
        with one.session() as session:
            session.execute("BEGIN; LOCK TABLE rinq_internal.listener")
            self.server.configure()
            reader = wait_until(lambda: self.server.psql(process % (one.name, "reader")), len, description="a reader that tries again")
            self.stopped_while(one, two, int(reader[0][0]), lambda: session.execute("COMMIT"))


class Space(Case):
    @classmethod
    def make_world(cls):
        world = case.new_world("outbox-space", settings={"rinq.executor_idle_timeout": "1s"}, proxied=False)
        cls.addClassCleanup(world.close)
        return world

    def test_bounded_with_an_old_transaction(self):
        db = self.database()
        with db.session() as old:
            old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            old.execute("SELECT count(*) FROM sent")
            for _ in range(30):
                db.sql("SELECT count(rinq_execute('space', 'x', to_jsonb(repeat('x', 1000)))) FROM generate_series(1, 2000)")
                wait_until(lambda: self.depth(db), lambda n: n < 2000, 30, "the outbox to shrink")
            self.wait_empty(db)
            self.assertLess(self.relation_sizes(db), 48 << 20, "60 MB went through")
            old.execute("COMMIT")
        wait_until(lambda: self.relation_sizes(db), lambda n: n < 1 << 20, 30, "the space to come back")

    def fill(self, db, payload="repeat('x', 1000)", count=5000):
        db.sql("SELECT count(rinq_execute('space', 'x', to_jsonb(%s))) FROM generate_series(1, %d)" % (payload, count))
        self.wait_empty(db)

    def wait_tidying(self, db, times):
        """The outbox worker has tried so often to give space back."""
        seen = set()

        def look():
            seen.update(row[0] for row in db.sql("SELECT query_start FROM pg_stat_activity WHERE backend_type = 'rinq outbox'"
                                                 " AND datname = current_database() AND query = 'rinq: tidying the outbox'"))
            return len(seen)
        wait_until(look, lambda n: n >= times, 30, "%d tries" % times)

    def wait_space(self, db):
        wait_until(lambda: self.relation_sizes(db), lambda n: n < 1 << 20, 15, "the space to come back")

    def test_tables_in_use_when_the_stream_ends(self):
        """Autovacuum, say, locks the tables at every moment at which they could be truncated: they are when it is over, although nothing is sent any more."""
        db = self.database()
        with db.session() as session:
            session.execute("BEGIN; LOCK TABLE rinq_internal.outbox_0, rinq_internal.outbox_1, rinq_internal.outbox_2, rinq_internal.outbox_3"
                            " IN SHARE UPDATE EXCLUSIVE MODE")
            self.fill(db)
            self.wait_tidying(db, 7)
            self.assertGreater(self.relation_sizes(db), 4 << 20)
            session.execute("COMMIT")
            self.wait_space(db)

    def test_worker_ends_before_the_space_is_back(self):
        """Another one is started for that, although nothing is to be sent or removed."""
        db = self.database()
        with db.session() as session:
            session.execute("BEGIN; LOCK TABLE rinq_internal.outbox_0, rinq_internal.outbox_1, rinq_internal.outbox_2, rinq_internal.outbox_3"
                            " IN SHARE UPDATE EXCLUSIVE MODE")
            self.fill(db)
            self.wait_tidying(db, 1)
            db.sql("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE backend_type = 'rinq outbox' AND datname = current_database()")
            session.execute("COMMIT")
            self.wait_space(db)

    def test_space_of_large_values(self):
        db = self.database()
        self.fill(db, "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 20000) i)", 10)
        self.wait_space(db)

    def test_every_table_has_something_in_it(self):
        """There is no empty table to go on with before the others are truncated."""
        db = self.database()
        for table in range(4):
            db.sql("INSERT INTO rinq_internal.outbox_%d (seq, id, namespace, command, database)"
                   " SELECT i, 'odd', 'odd', repeat('x', 1000), 1 FROM generate_series(1, 1000) i; DELETE FROM rinq_internal.outbox_%d" % (table, table))
        self.wait_space(db)

    def test_idle(self):
        self.server.configure(autovacuum="off")     # has transactions of its own
        self.addCleanup(self.server.configure, autovacuum=None)
        db = self.database()
        db.sql("SELECT rinq_execute('idle', 'x')")
        self.wait_empty(db)
        wait_until(lambda: self.server.value("SELECT count(*) FROM pg_stat_activity WHERE datname = '%s'" % db.name), lambda n: n == "0", 20,
                   "everybody to leave")
        count = "SELECT xact_commit FROM pg_stat_database WHERE datname = '%s'" % db.name
        before = wait_until(lambda: (self.server.value(count), self.server.value(count)), lambda pair: pair[0] == pair[1])[0]
        with self.server.session() as session:
            session.execute("SELECT pg_sleep(2)")
        self.assertEqual(self.server.value(count), before)

    def test_copy_of_a_database(self):
        self.world.broker.kill()
        db = self.database(wait=False)
        message = db.value("SELECT rinq_execute('copy', 'x')")
        self.server.psql('CREATE DATABASE "the_copy" TEMPLATE "%s"' % db.name)
        self.addCleanup(self.server.psql, 'DROP DATABASE "the_copy"')
        self.world.broker.start()
        collector = Collector(self.peer(prefetch=0), "copy")
        collector.wait(1, 40)
        self.wait_empty(db)
        self.server.psql("SELECT rinq_adopt()", database="the_copy")
        wait_until(lambda: self.server.value("SELECT string_agg(id, ' ') FROM rinq_outbox_dead_letter", database="the_copy"), lambda ids: ids == message,
                   40, "the copy to set it aside")
        self.assertEqual(collector.ids, [message])

    def test_drop_extension_with_messages(self):
        self.world.broker.kill()
        db = self.database(wait=False)
        db.sql("SELECT rinq_execute('drop', 'x') FROM generate_series(1, 10)")
        self.world.broker.start()
        db.sql("DROP EXTENSION rinq")
        db.sql("CREATE EXTENSION rinq")
        db.wait_peer(timeout=40)
        collector = Collector(self.peer(prefetch=0), "drop")
        message = db.value("SELECT rinq_execute('drop', 'y')")
        wait_until(lambda: collector.ids, lambda ids: message in ids)
