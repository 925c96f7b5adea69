"""Background workers are few: who gets them, how many are used for looking into databases, and what does not end them."""

import glob
import os
import re
import signal

from rinqtest import case, versions
from rinqtest.cluster import World
from rinqtest.waiting import wait_until


class Short(case.Case):
    """One database, busy all the time, and three background workers to share for executors, outbox and reader."""

    @classmethod
    def make_world(cls):
        # the launcher, the peer, and PostgreSQL's logical replication launcher have the other three
        world = World(case.STAGE, case.scratch(), broker=case.shared_world().broker, environment=case.SERVER_ENVIRONMENT, name="short",
                      settings={"max_worker_processes": "6", "rinq.command_workers": "4", "rinq.executor_idle_timeout": "200ms"})
        cls.addClassCleanup(world.close)
        return world

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.class_mark = cls.world.server.log_mark()
        cls.db = cls.world.database()
        cls.db.handler("busy", "PERFORM pg_sleep(0.05); RETURN 'true';")
        cls.db.handler("echo", "RETURN req.payload;")
        cls.db.listen("short-busy", "busy")
        cls.remote = cls.world.peer(prefetch=0)
        cls.remote.call("short-busy", "x", timeout=20)

    def load(self):
        """More requests than the test can see the end of: how fast this process is does not matter, so no executor is ever idle."""
        self.addCleanup(lambda: self.remote.on_channel(lambda channel: channel.queue_purge("cmd.short-busy")))
        for _ in range(600):
            self.remote.execute("short-busy", "x")
        wait_until(lambda: self.db.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rinq executor'"), lambda n: n == "3",
                   description="executors in all places")

    def test_check_says_how_many(self):
        check = "SELECT severity, subject, message, hint FROM rinq_check()"
        self.assertEqual(self.db.sql(check), [["warning", "setting max_worker_processes", "it is 6, and the first served database needs 9",
                                               "Set it to 9, and 6 more for each further database, and restart the server."]])
        self.server.configure(rinq__command_workers="1")
        self.addCleanup(self.server.configure, rinq__command_workers="4")
        wait_until(lambda: self.db.sql(check), lambda rows: rows == [], description="enough of them for one executor")

    def test_outbox_and_reader_get_a_place(self):
        self.load()
        left = []
        state = """SELECT (SELECT depth FROM rinq_outbox_status), (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rinq executor')"""

        def is_sent():
            depth, executors = self.db.sql(state)[0]
            left.append(int(executors))
            return depth == "0"

        self.db.sql("SELECT rinq_execute('short-busy', 'x') FROM generate_series(1, 20)")
        wait_until(is_sent, timeout=5, description="an empty outbox")
        self.assertGreaterEqual(min(left), 1, "executors that left for one worker: %s" % left)
        self.db.listen("short-echo", "echo")
        self.assertEqual(self.remote.call("short-echo", "x", 1, timeout=5), 1)
        # each process says it once a minute, perhaps in an earlier test
        text = self.server.log_since(self.class_mark)
        self.assertRegex(text, r'cannot start a background worker to [a-z ]+ database "%s"' % self.db.name)
        self.assertLessEqual(len(re.findall("cannot start a background worker", text)), 3)

    def test_first_executor_of_another_database(self):
        # its peer and its executor: one place each
        self.load()
        other = self.database()
        other.handler("echo", "RETURN req.payload;")
        other.listen("short-other", "echo")
        self.assertEqual(self.remote.call("short-other", "x", 2, timeout=10), 2)


class Databases(case.Case):
    @classmethod
    def make_world(cls):
        world = World(case.STAGE, case.scratch(), broker=case.shared_world().broker, environment=case.SERVER_ENVIRONMENT, name="databases",
                      proxied=False, settings={"log_min_messages": "'debug1'", "rinq.max_databases": "4"})
        cls.addClassCleanup(world.close)
        world.recording = case.shared_world().recording
        return world

    def tearDown(self):
        self.assertEqual(self.server.crashes(self.log_start), [])

    def readers(self, mark):
        return len(re.findall(r'starting background worker process "rinq reader for database "many', self.server.log_since(mark)))

    def settle(self):
        """One that gets the extension is served at last: the launcher is done with those before."""
        self.number = getattr(self, "number", 0) + 1
        self.world.database(name="settle%d" % self.number).drop()

    def test_each_is_looked_into_once(self):
        db = self.world.database()
        self.settle()
        mark = self.server.log_mark()
        names = ["many%d" % i for i in range(12)]
        for name in names:
            self.server.psql("CREATE DATABASE %s" % name)
        self.settle()
        self.assertLessEqual(self.readers(mark), 2 * len(names))

        mark = self.server.log_mark()
        for _ in range(5):
            self.server.configure()
        for name in names[:6]:
            self.server.psql("DROP DATABASE %s" % name)
        self.settle()
        self.assertEqual(self.readers(mark), 0)

        # one that gets the extension later is noticed, although it was known to have none
        self.server.psql("CREATE EXTENSION rinq", names[-1])
        wait_until(lambda: self.server.psql("SELECT state FROM rinq_peer", names[-1]), lambda rows: rows == [["connected"]], 10, "its peer")
        for name in names[6:]:
            self.server.psql("DROP DATABASE %s" % name)
        self.assertEqual(db.peer()["state"], "connected")

    def test_served_again(self):
        db = self.world.database()
        old = db.wait_peer()
        self.server.configure(rinq__databases="none_of_these")
        wait_until(lambda: (db.peer() or {"state": "stopped"})["state"], lambda state: state == "stopped", 10, "its end")
        self.server.configure(rinq__databases=None)
        db.wait_new_peer(old)

    def test_cancelling_ends_nobody(self):
        db = self.world.database()
        before = db.wait_peer()
        rows = self.server.psql("SELECT pid, backend_type FROM pg_stat_activity WHERE backend_type IN ('rinq launcher', 'rinq peer')")
        self.assertGreaterEqual(len(rows), 2)
        for pid, _ in rows:
            os.kill(int(pid), signal.SIGINT)
        self.assertSqlState(db.error("SELECT rinq_call('nobody', 'x', NULL, '100 ms')"), "RQ003")
        self.assertEqual(self.server.psql("SELECT pid, backend_type FROM pg_stat_activity WHERE backend_type IN ('rinq launcher', 'rinq peer')"), rows)
        self.assertEqual(db.peer()["peer_id"], before["peer_id"])


class Waits(case.PeerCase):
    """What the processes wait for has a name where PostgreSQL lets extensions give names."""

    TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

    def test_workers(self):
        self.db.handler("waits", "RETURN 'true';")
        self.db.listen("waits", "waits")
        self.remote.call("waits", "x", timeout=20)
        for kind in ("launcher", "peer", "executor"):
            expected = list(versions.wait_event("Rinq%sMain" % kind.capitalize()))
            wait_until(lambda: self.server.psql("SELECT wait_event_type, wait_event FROM pg_stat_activity WHERE backend_type = 'rinq %s'" % kind),
                       lambda rows: expected in rows, description="a rinq %s that waits as %r" % (kind, expected))

    def test_documented(self):
        with open(os.path.join(self.TOP, "docs", "operations.md")) as file:
            documented = set(re.findall(r"`(Rinq[A-Z]\w+)`", file.read()))
        names = set()
        for path in glob.glob(os.path.join(self.TOP, "src", "**", "*.c"), recursive=True):
            with open(path) as file:
                text = file.read()
            names.update(re.findall(r'RINQ_WAIT_EVENT\(\w+, "(\w+)"\)', text))
            self.assertNotIn("PG_WAIT_EXTENSION", text, path)
        self.assertEqual(names - documented, set())
        self.assertEqual(documented - names, set())
