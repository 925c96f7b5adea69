"""A synchronous standby that is behind: nothing is sent of a commit that waits for it, all of it when it has caught up, and the rows are counted right."""

from rinqtest import case
from rinqtest.cluster import Database, SqlError
from rinqtest.collector import Collector
from rinqtest.peer import CallTimeout, RemoteError
from rinqtest.waiting import wait_until

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE datname = '%s' AND wait_event = 'SyncRep'"


class Behind(case.Case):
    @classmethod
    def make_world(cls):
        world = case.new_world("sync-standby", settings={"rinq.outbox_check_interval": "1s", "max_connections": "120"})
        cls.addClassCleanup(world.close)
        return world

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        server = cls.server
        cls.standby = server.make_standby("follower", {
            "primary_conninfo": "'host=%s port=%d user=postgres application_name=follower'" % (server.socket_folder, server.port),
            "max_connections": "130", "rinq.databases": "''"})
        cls.standby.start()
        cls.addClassCleanup(cls.standby.stop)

    def setUp(self):
        super().setUp()
        self.db = self.database()
        self.db.handler("keep", "INSERT INTO kept VALUES (req.payload); RETURN 'true';")
        self.db.sql("CREATE TABLE kept (p jsonb); CREATE TABLE told (id text)")
        self.db.listen("kept-" + self.db.name, "keep")
        self.remote = self.peer(prefetch=0)
        self.ns = "sync-" + self.db.name
        self.collector = Collector(self.remote, self.ns)
        self.db.sql("SELECT rinq_execute('%s', 'x', '\"warm\"')" % self.ns)
        self.collector.wait(1)
        wait_until(self.depth, lambda n: n == 0, 20)
        self.server.configure(synchronous_standby_names="follower")
        self.addCleanup(self.server.configure, synchronous_standby_names=None)
        wait_until(lambda: self.server.value("SELECT sync_state FROM pg_stat_replication"), lambda state: state == "sync", 20)

    def depth(self):
        return int(self.db.value("SELECT depth FROM rinq_outbox_status"))

    def stop_standby(self):
        self.standby.stop()
        self.addCleanup(lambda: self.standby.running or self.standby.start())

    def wait_waiting(self, count):
        wait_until(lambda: int(self.server.value(WAITING % self.db.name)), lambda n: n >= count, 20, "%d commits to wait" % count)

    def mark(self, number):
        """A message that does not wait, and so comes after whatever could have been sent before."""
        before = len(self.collector.ids)
        self.db.sql("SET synchronous_commit = local; SELECT rinq_execute('%s', 'x', '\"mark %d\"')" % (self.ns, number))
        self.collector.wait(before + 1)

    def test_what_is_sent_when(self):
        self.stop_standby()
        durable = self.server.start_psql("SELECT rinq_execute('%s', 'x', '\"durable\"')" % self.ns, self.db.name)
        memory = self.server.start_psql("INSERT INTO told SELECT rinq_execute('%s', 'x', '\"memory\"', durable => false)" % self.ns, self.db.name)
        call = self.remote.call_async("kept-" + self.db.name, "x", 7, timeout=60)
        self.wait_waiting(3)
        self.mark(1)
        self.assertEqual(self.db.value("SELECT count(*) FROM kept"), "0")
        with self.assertRaises(CallTimeout):
            self.remote.response(call, timeout=0.01)
        self.assertEqual(self.collector.payloads, ["warm", "mark 1"])
        self.assertFalse(durable.done or memory.done)
        self.standby.start()
        durable.result()
        memory.result()
        self.assertIs(self.remote.response(call).result(), True)
        self.collector.wait(4)
        self.assertEqual(sorted(self.collector.payloads), ["durable", "mark 1", "memory", "warm"])
        wait_until(self.depth, lambda n: n == 0, 20)

    def test_who_does_not_wait_longer(self):
        """A cancelled wait leaves the transaction committed: it is sent."""
        self.stop_standby()
        durable = self.server.start_psql("SELECT rinq_execute('%s', 'x', '\"durable\"')" % self.ns, self.db.name)
        self.wait_waiting(1)
        self.server.value("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
        durable.result()
        self.collector.wait(2)
        self.assertEqual(self.collector.payloads, ["warm", "durable"])

    def test_copy_is_served(self):
        """Who adopts it without waiting for the standby does not have to wait for its peer either: which mailbox it has is written without."""
        copy = Database(self.server, "copy_" + self.db.name)
        self.addCleanup(copy.drop)
        self.stop_standby()
        with self.server.session() as session:
            session.execute("SET synchronous_commit = local")
            session.execute("CREATE DATABASE %s TEMPLATE %s" % (copy.name, self.db.name))
        copy.sql("SET synchronous_commit = local; SELECT rinq_adopt()")
        copy.wait_peer()

    def test_records_are_removed(self):
        """An executor whose handlers do not wait for the standby does not do so for the removal of what is too old either."""
        self.db.handler("local", "SET LOCAL synchronous_commit = local; RETURN req.payload;")
        namespace = "local-" + self.db.name
        self.db.sql("SELECT rinq_listen('%s', 'local(rinq_request)', deduplicate => true)" % namespace)
        self.stop_standby()
        first = self.remote.execute(namespace, "x", 1)
        handled = "SELECT array_agg(id) FROM rinq_inbox_handled"
        wait_until(lambda: first in (self.db.value(handled) or ""), True.__eq__, 20, "the first request to be handled")
        self.server.configure(rinq__dedup_retention="1s")
        self.addCleanup(self.server.configure, rinq__dedup_retention=None)
        wait_until(lambda: self.remote.call(namespace, "x", 2) and first in (self.db.value(handled) or ""), False.__eq__, 20, "it to be forgotten")
        self.assertEqual(self.server.value(WAITING % self.db.name), "0")

    def is_full(self):
        try:
            self.db.sql("BEGIN; SELECT rinq_execute('nobody-sync', 'x'); ROLLBACK")
        except SqlError as error:
            self.assertSqlState(error, "53400")
            return True
        return False

    def test_limit_of_handlers_is_not_for_the_standby(self):
        """The handler is done: what has no standby yet is not acknowledged because time passes, nor does the peer end its process, as it does with a handler that goes on."""
        namespace = "kept-" + self.db.name
        self.db.sql("SELECT rinq_listen('%s', 'keep(rinq_request)', timeout => '200 ms')" % namespace)
        stubborn = "stubborn-" + self.db.name
        self.db.handler("goes_on", "LOOP BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP;")
        self.db.sql("SELECT rinq_listen('%s', 'goes_on(rinq_request)', timeout => '200 ms')" % stubborn)
        self.assertIs(self.remote.call(namespace, "x", 1), True)
        self.stop_standby()
        call = self.remote.call_async(namespace, "x", 7)
        self.wait_waiting(1)
        with self.assertRaisesRegex(RemoteError, "longer than its limit"):
            self.remote.response(self.remote.call_async(stubborn, "x"), timeout=30).result()
        self.wait_waiting(1)
        self.standby.start()
        self.assertIs(self.remote.response(call, timeout=20).result(), True)

    def test_many_commits_in_doubt(self):
        """More than 64 transactions commit after a count of the rows that they have packed before: the number that rinq.max_outbox is compared with is right soon."""
        count = 70
        self.addCleanup(self.server.configure, rinq__outbox_check_interval="1s", rinq__max_outbox=None)
        self.db.sql("SELECT rinq_execute('nobody-sync', 'warm')")  # the queue is there by the time the broker is silent
        wait_until(self.depth, lambda n: n == 0, 20)
        self.stop_standby()
        waiting = [self.server.start_psql("SELECT rinq_execute('nobody-sync', 'x', '%d')" % n, self.db.name) for n in range(count)]
        self.wait_waiting(count)
        since = self.server.value("SELECT clock_timestamp()")
        self.mark(1)
        wait_until(self.depth, lambda n: n == 0, 20)
        wait_until(lambda: self.server.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rinq outbox' AND datname = '%s'"
                                             " AND query = 'rinq: counting messages' AND query_start > '%s'" % (self.db.name, since)),
                   lambda n: n == "1", 20, "a count of the rows")

        # from now on nothing but their own number gives a reason to count again
        self.server.configure(rinq__outbox_check_interval="1d", rinq__max_outbox=count)
        self.world.proxy.silence("broker")
        self.addCleanup(self.world.proxy.resume)
        self.standby.start()
        for each in waiting:
            each.result()
        wait_until(self.is_full, True.__eq__, 20, "%d rows to be known of" % count)
        self.server.configure(rinq__max_outbox=count + 1)
        wait_until(self.is_full, False.__eq__, 20, "no more than these")
        self.world.proxy.resume()
        wait_until(self.depth, lambda n: n == 0, 40, "an empty outbox")
