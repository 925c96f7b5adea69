"""Durable messages when the line is slow, the broker takes none, or memory is short: nothing stands still, and others are not disturbed."""

import statistics
import threading
import time

from rinqtest import case
from rinqtest.collector import Collector
from rinqtest.proxy import CLIENT
from rinqtest.waiting import wait_until

KB = 1000


def size_of(kb):
    """An expression of a payload of about so many kB, with the number of the row i in it."""
    return "jsonb_build_object('i', i, 'x', repeat('x', %d))" % (kb * KB)


class Writers:
    """Sessions that commit one durable message after another, each numbered within its session, until they are told to stop."""

    def __init__(self, db, namespace, sessions, kb):
        self._stop = threading.Event()
        self.written = [0] * sessions
        self._threads = [threading.Thread(target=self._run, args=(db, namespace, n, kb)) for n in range(sessions)]
        for thread in self._threads:
            thread.start()

    def _run(self, db, namespace, number, kb):
        with db.session() as session:
            while not self._stop.is_set():
                session.execute("SELECT rinq_execute('%s', 'w%d', %s) FROM (VALUES (%d)) v(i)" % (namespace, number, size_of(kb), self.written[number]))
                self.written[number] += 1

    def wait(self, count):
        wait_until(lambda: sum(self.written), lambda n: n >= count, 60, "%d messages to be written" % count)

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()


class Pressure(case.Case):
    @classmethod
    def make_world(cls):
        world = case.new_world("outbox-pressure", settings={"rinq.payload_memory": "8MB", "rinq.send_buffer": "32MB", "rinq.outbox_check_interval": "1s",
                                                            "rinq.retry_delay": "50ms", "rinq.max_payload": "16MB"})
        world.proxy.record = False
        cls.addClassCleanup(world.close)
        return world

    def setUp(self):
        super().setUp()
        self.db = self.database()
        self.remote = self.peer(prefetch=0)

    def status(self, db=None):
        return (db or self.db).json("SELECT to_jsonb(s) FROM rinq_outbox_status s")

    def wait_empty(self, db=None, timeout=60):
        wait_until(lambda: self.status(db), lambda s: s["depth"] == 0, timeout, "an empty outbox")

    def alarm(self, on):
        """The broker tells of its alarm when something is published."""
        if on:
            self.world.broker.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
            self.db.sql("SELECT rinq_execute('alarm', 'told')")
        else:
            self.world.broker.ctl("set_vm_memory_high_watermark", "0.6")
        wait_until(lambda: self.db.peer()["blocked"], lambda blocked: blocked == on, 20, "the alarm")

    def assertInOrder(self, collector, writers):
        """Each session's messages once, and in the order in which it has written them."""
        for number, count in enumerate(writers.written):
            got = [request.payload["i"] for request in collector.requests if request.command == "w%d" % number]
            self.assertEqual(got, list(range(count)), "session %d" % number)

    def backlog(self, namespace, count, kb):
        """Messages that wait when the peer starts."""
        self.db.sql("SELECT rinq_stop()")
        self.db.sql("SELECT count(rinq_execute('%s', 'backlog', %s)) FROM generate_series(0, %d) i" % (namespace, size_of(kb), count - 1))

    def test_slow_line(self):
        """A backlog of large messages goes out slowly, while others are written faster: all of it arrives, and other databases work."""
        other = self.database()
        other.handler("length", "RETURN to_jsonb(length(req.payload::text));")
        other.listen("pressure-length", "length")
        collector = Collector(self.remote, "slow")
        self.backlog("slow", 20, 300)
        self.world.proxy.throttle(2000 * KB, CLIENT)
        self.db.sql("SELECT rinq_start()")
        writers = Writers(self.db, "slow", 4, 20)
        self.addCleanup(writers.stop)
        try:
            writers.wait(600)
            answer = other.value("SELECT rinq_call('pressure-length', 'x', to_jsonb(repeat('x', %d)), '20 s')" % (400 * KB))
            self.assertEqual(int(answer), 400 * KB + 2)
        finally:
            writers.stop()
        self.world.proxy.resume()
        self.wait_empty()
        collector.wait(20 + sum(writers.written), 30)
        self.assertEqual([r.payload["i"] for r in collector.requests if r.command == "backlog"], list(range(20)))
        self.assertInOrder(collector, writers)
        wait_until(self.status, lambda s: s["direct"], 10, "transactions to hand over again")

    def test_several_databases_at_once(self):
        databases = [self.db, self.database(), self.database()]
        collectors = [Collector(self.remote, "several-%d" % n) for n in range(3)]
        self.world.proxy.throttle(3000 * KB, CLIENT)
        writers = [Writers(db, "several-%d" % n, 2, 50) for n, db in enumerate(databases)]
        for each in writers:
            self.addCleanup(each.stop)
        for each in writers:
            each.wait(120)
        for each in writers:
            each.stop()
        self.world.proxy.resume()
        for db, collector, each in zip(databases, collectors, writers):
            self.wait_empty(db)
            collector.wait(sum(each.written), 30)
            self.assertInOrder(collector, each)

    def test_calls_while_catching_up(self):
        """A backlog of small messages is not ahead of calls."""
        self.db.handler("echo", "RETURN req.payload;")
        self.db.listen("pressure-echo", "echo")
        self.db.sql("SELECT rinq_stop()")
        self.db.sql("SELECT count(rinq_execute('catching-up', 'x', to_jsonb(i))) FROM generate_series(1, 30000) i")
        self.db.sql("SELECT rinq_start()")
        self.db.wait_peer()
        times = []
        with self.db.session() as session:
            while not times or session.value("SELECT depth > 2000 FROM rinq_outbox_status") == "t":
                start = time.monotonic()
                session.execute("SELECT rinq_call('pressure-echo', 'x', '1', '20 s')")
                times.append(time.monotonic() - start)
        self.wait_empty()
        self.assertLess(statistics.median(times), 0.2, "%d calls" % len(times))

    def test_alarm_of_the_broker(self):
        """While the broker takes nothing, commits go on, what waits is said, and calls within the server have memory."""
        collector = Collector(self.remote, "alarm")
        self.db.sql("SELECT rinq_execute('alarm', 'first')")
        collector.wait(1)
        self.alarm(True)
        try:
            mark = self.server.log_mark()
            writers = Writers(self.db, "alarm", 2, 50)
            self.addCleanup(writers.stop)
            writers.wait(200)
            writers.stop()
            self.server.wait_log("has messages that have not moved for 5 s: the broker refuses to take messages", mark, 20)
            self.assertIn("refuses to take messages", self.status()["waits_for"])
        finally:
            self.alarm(False)
        self.wait_empty()
        collector.wait(2 + sum(writers.written), 30)
        self.assertInOrder(collector, writers)
        wait_until(self.status, lambda s: s["waits_for"] is None, 10, "nothing to wait")

    def test_no_alarm_after_a_pause(self):
        """What has just begun to wait does not wait since the last time that something moved."""
        wait_until(lambda: self.db.value("SELECT now() - connected_since > '7 s' FROM rinq_peer"), "t".__eq__, 30, "a peer that has nothing to do")
        mark = self.server.log_mark()
        started = time.monotonic()
        self.db.sql("SELECT rinq_start()")
        wait_until(lambda: self.status()["direct"], True.__eq__, 20, "the outbox to be read again")
        log = self.server.log_since(mark)
        if time.monotonic() - started < 5:
            self.assertNotIn("have not moved", log)

    def test_messages_from_memory_beside_durable_ones(self):
        """While there is room for those from memory alone, they are taken, and the durable ones are left to the outbox."""
        collector = Collector(self.remote, "beside")
        self.db.sql("SELECT rinq_execute('beside', 'first')")
        collector.wait(1)
        self.alarm(True)
        try:
            self.db.sql("SELECT count(rinq_execute('beside', 'durable', %s)) FROM generate_series(1, 2) i" % size_of(1200))
            self.db.sql("SELECT count(rinq_execute('beside', 'x', %s, durable => i %% 20 <> 0)) FROM generate_series(1, 3000) i" % size_of(1))
        finally:
            self.alarm(False)
        self.wait_empty()
        collector.wait(1 + 2 + 3000, 30)

    def test_larger_than_what_there_is_room_for(self):
        """A stored message that does not fit any more is set aside, and the others are sent."""
        self.addCleanup(self.server.configure, **{"rinq.max_payload": "16MB"})
        collector = Collector(self.remote, "large")
        self.db.sql("SELECT rinq_stop()")
        large = self.db.value("SELECT rinq_execute('large', 'large', %s) FROM (VALUES (1)) v(i)" % size_of(1500))
        self.db.sql("SELECT rinq_execute('large', 'small', '2')")
        self.server.configure(**{"rinq.max_payload": "1MB"})
        self.db.sql("SELECT rinq_start()")
        collector.wait(1, 20)
        self.assertEqual(collector.payloads, [2])
        dead = wait_until(lambda: self.db.json("SELECT jsonb_agg(d) FROM rinq_outbox_dead_letter d"), description="the other to be set aside")
        self.assertEqual([(row["id"], row["attempts"]) for row in dead], [(large, 0)])
        self.assertIn("rinq.max_payload", dead[0]["error"])
        self.assertEqual(self.status()["depth"], 0)

    def test_payload_memory_made_smaller(self):
        """Messages wait that are larger than a quarter of the memory, and one that is larger than all of it."""
        world = case.new_world("outbox-shrunk", settings={"rinq.payload_memory": "64MB"}, broker=self.world.broker, proxied=False)
        self.addCleanup(world.close)
        db = world.database()
        self.addCleanup(db.drop)
        collector = Collector(self.remote, "shrunk")
        db.sql("SELECT rinq_stop()")
        for kb in (10, 12000, 3000, 1500, 10):
            db.sql("SELECT rinq_execute('shrunk', 'x', %s) FROM (VALUES (%d)) v(i)" % (size_of(kb), kb))
        world.server.configure(reload=False, **{"rinq.payload_memory": "8MB"})
        world.server.restart("fast")
        db.wait_peer()
        collector.wait(3, 30)
        self.assertEqual([payload["i"] for payload in collector.payloads], [10, 1500, 10])
        wait_until(lambda: self.status(db)["dead"], lambda n: n == 2, 20, "the others to be set aside")

    def test_rows_that_make_no_sense(self):
        """A row that somebody has written by hand and that cannot be sent does not stop the others, nor is it tried for ever."""
        collector = Collector(self.remote, "odd-rows")
        self.db.sql("INSERT INTO rinq_internal.outbox_0 (seq, id, namespace, command, database)"
                    " SELECT 1, 'no id', 'odd-rows', 'x', oid FROM pg_database WHERE datname = current_database()")
        self.db.sql("SELECT rinq_execute('odd-rows', 'x', '1')")
        collector.wait(1)
        dead = wait_until(lambda: self.db.json("SELECT jsonb_agg(d) FROM rinq_outbox_dead_letter d"), description="the row to be set aside")
        self.assertIn("not a message id", dead[0]["error"])

    def test_depth_after_scans(self):
        """What rinq.max_outbox is compared with does not drift, however many transactions commit around scans."""
        self.addCleanup(self.server.configure, **{"rinq.max_outbox": None})
        collector = Collector(self.remote, "drift")
        writers = Writers(self.db, "drift", 4, 1)
        self.addCleanup(writers.stop)
        for _ in range(3):
            writers.wait(sum(writers.written) + 40)
            self.world.proxy.cut()
            self.db.wait_peer(timeout=20)
        writers.wait(sum(writers.written) + 40)
        writers.stop()
        self.wait_empty()
        for number, count in enumerate(writers.written):
            wait_until(lambda: set(request.payload["i"] for request in collector.requests if request.command == "w%d" % number),
                       lambda got: got == set(range(count)), 20, "all messages of session %d" % number)
        self.server.configure(**{"rinq.max_outbox": "3"})
        wait_until(lambda: self.db.value("SHOW rinq.max_outbox"), lambda v: v == "3")
        self.db.sql("SELECT count(rinq_execute('drift', 'x')) FROM generate_series(1, 3)")
