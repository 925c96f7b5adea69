"""Processes of the server end in every way; callers are told at once, requests are not lost, nothing is left behind."""

import os
import signal
import time

from rinqtest import case
from rinqtest.cluster import call_sql
from rinqtest.peer import Answered, RemoteError
from rinqtest.server import processor_ticks
from rinqtest.waiting import wait_until

EXECUTORS = "backend_type LIKE 'rinq executor%%' AND datname = '%s'"


class ProcessCase(case.Case):
    def setUp(self):
        super().setUp()
        self.db = self.database()
        self.db.handler("served", "RETURN req.payload;")
        self.db.listen("served", "served")
        self.db.call("served", "warm", 1, timeout=20)
        self.old = self.db.peer()

    def executors(self, condition="true"):
        return [int(row[0]) for row in self.server.psql("SELECT pid FROM pg_stat_activity WHERE %s AND %s ORDER BY pid" % (
            EXECUTORS % self.db.name, condition))]

    def assertWorks(self):
        self.assertEqual(self.db.call("served", "x", [1], timeout=10), [1])

    def silent_call(self, timeout=60):
        """A session inside a call that nobody answers."""
        session = self.db.session()
        self.addCleanup(session.close)
        mark = self.recording.mark()
        session.start(call_sql("silent", "x", timeout=timeout))
        return session, self.published("cmd.bal", since=mark)[0]


class Terminated(ProcessCase):
    """pg_terminate_backend of each kind of process."""

    def terminate(self, pid):
        self.assertEqual(self.server.value("SELECT pg_terminate_backend(%d)" % pid), "t")

    def test_backend_during_a_call(self):
        session, request = self.silent_call()
        dropped = self.db.peer()["responses_dropped"]
        start = time.monotonic()
        self.terminate(session.pid)
        self.assertSqlState(session.finish_error(), "57P01")
        self.assertLess(time.monotonic() - start, 5)
        remote = self.peer()
        identity = request.properties["message_id"]
        remote.publish_raw("cmd.rsp", identity, b"\x01", type="s", correlation_id=identity)
        wait_until(lambda: self.db.peer()["responses_dropped"], lambda count: count == dropped + 1, description="the answer to be dropped")
        self.assertWorks()

    def test_client_killed_during_a_call(self):
        pending = self.db.start(call_sql("silent", "x", timeout=1))
        backend = pending.backend()
        pending.kill_client()
        wait_until(lambda: self.server.psql("SELECT 1 FROM pg_stat_activity WHERE pid = %d" % backend), lambda rows: not rows, 10,
                   "the backend to end")
        self.assertWorks()

    def test_executor_during_a_handler(self):
        """Its request goes back to the broker and is done again."""
        self.db.sql("CREATE SEQUENCE attempts")
        self.db.handler("twice", "IF nextval('attempts') = 1 THEN PERFORM pg_sleep(60); END IF; RETURN to_jsonb(currval('attempts'));")
        self.db.listen("twice", "twice")
        remote = self.peer()
        message = remote.call_async("twice", "x", timeout=30)
        pid = wait_until(lambda: self.executors("state = 'active'"), description="the handler to run")[0]
        requeued = self.db.peer()["requests_requeued"]
        self.terminate(pid)
        self.assertEqual(remote.response(message, 20).result(), 2)
        deliveries = self.deliveries(2, where=lambda event: event.routing_key == "twice")
        self.assertEqual([self.recording.wait_settled(delivery) for delivery in deliveries], ["requeue", "ack"])
        self.assertEqual([delivery.redelivered for delivery in deliveries], [False, True])
        self.assertEqual(self.db.peer()["requests_requeued"], requeued + 1)
        self.assertEqual(self.db.peer()["peer_id"], self.old["peer_id"])

    def test_executor_during_a_multicast_request(self):
        """Such a request is not given back: others had it as well."""
        self.db.handler("sleeper", "PERFORM pg_sleep(60); RETURN NULL;")
        self.db.listen("sleeper", "sleeper")
        remote = self.peer()
        remote.declare_namespace("sleeper")
        wait_until(lambda: remote.queue_consumers("cmd.sleeper"), description="the listener")
        self.recording.wait("queue.bind", since=self.wire_start, exchange="cmd.mc", routing_key="sleeper")
        remote.execute_multicast("sleeper", "x")
        delivery = self.deliveries(exchange="cmd.mc")[0]
        pid = wait_until(lambda: self.executors("state = 'active'"), description="the handler to run")[0]
        self.terminate(pid)
        self.assertEqual(self.recording.wait_settled(delivery), "reject")
        self.assertWorks()

    def test_idle_executor(self):
        for pid in wait_until(self.executors, description="an executor"):
            self.terminate(pid)
        self.assertWorks()

    def test_handler_that_ends_its_own_process(self):
        self.db.handler("suicide", "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(5); RETURN NULL;")
        self.db.listen("suicide", "suicide")
        remote = self.peer()
        remote.call_async("suicide", "x", timeout=1.5)
        deliveries = self.deliveries(2, where=lambda event: event.routing_key == "suicide")
        self.assertEqual(self.recording.wait_settled(deliveries[0]), "requeue")
        self.assertWorks()
        wait_until(lambda: remote.queue_depth("cmd.suicide") == 0 and not self.executors("state = 'active'"),
                   description="the deadline to end it")

    def test_peer_during_calls(self):
        sessions = [self.silent_call()[0] for _ in range(3)]
        start = time.monotonic()
        self.terminate(self.old["pid"])
        for session in sessions:
            self.assertSqlState(session.finish_error(10), "08006")
        self.assertLess(time.monotonic() - start, 5)
        new = self.db.wait_new_peer(self.old)
        self.assertNotEqual(new["pid"], self.old["pid"])
        self.assertWorks()

    def test_peer_during_a_handler(self):
        self.db.sql("CREATE SEQUENCE runs")
        self.db.handler("slow", "PERFORM nextval('runs'); PERFORM pg_sleep(0.5); RETURN '1';")
        self.db.listen("slow", "slow")
        remote = self.peer()
        message = remote.call_async("slow", "x", timeout=30)
        wait_until(lambda: self.executors("state = 'active'"), description="the handler to run")
        self.terminate(self.old["pid"])
        self.db.wait_new_peer(self.old)
        self.assertEqual(remote.response(message, 20).result(), 1)
        self.assertGreaterEqual(int(self.db.value("SELECT last_value FROM runs")), 1)

    def test_peer_again_and_again(self):
        peer = self.old
        for _ in range(4):
            self.terminate(peer["pid"])
            peer = self.db.wait_new_peer(peer, 20)
        self.assertWorks()

    def test_launcher(self):
        pid = int(self.server.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'rinq launcher'"))
        self.terminate(pid)
        wait_until(lambda: self.server.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'rinq launcher' AND pid <> %d" % pid),
                   timeout=15, description="another launcher")
        self.db.wait_peer()
        self.assertWorks()
        other = self.database()
        other.handler("other", "RETURN '1';")
        other.listen("other", "other")
        self.assertEqual(other.call("other", "x", timeout=10), 1)

    def test_cancelled_executor(self):
        """pg_cancel_backend ends one handler, as an error."""
        self.db.handler("cancelled", "PERFORM pg_sleep(60); RETURN NULL;")
        self.db.listen("cancelled", "cancelled")
        remote = self.peer()
        message = remote.call_async("cancelled", "x", timeout=30)
        pid = wait_until(lambda: self.executors("state = 'active'"), description="the handler to run")[0]
        self.server.psql("SELECT pg_cancel_backend(%d)" % pid)
        with self.assertRaises(RemoteError):
            remote.response(message, 10).result()
        self.assertWorks()


class Crashed(ProcessCase):
    """kill -9 restarts the whole server; the peers return by themselves."""

    expects_crash = True

    def assertReturns(self, timeout=30):
        wait_until(lambda: self.server.value("SELECT 1"), timeout=timeout, description="the server to accept connections again")
        self.db.wait_new_peer(self.old, timeout)
        self.assertWorks()

    def test_executor_killed(self):
        self.db.sql("CREATE TABLE killed (x int)")
        self.db.handler("once", "IF EXISTS (SELECT FROM killed) THEN RETURN '\"again\"'; END IF; PERFORM pg_sleep(60); RETURN NULL;")
        self.db.listen("once", "once")
        remote = self.peer()
        message = remote.call_async("once", "x", timeout=60)
        pid = wait_until(lambda: self.executors("state = 'active'"), description="the handler to run")[0]
        self.db.sql("INSERT INTO killed VALUES (1)")
        os.kill(pid, signal.SIGKILL)
        self.server.wait_log("was terminated by signal 9", self.log_start)
        self.assertReturns()
        # what was being served when it happened is done now
        self.assertEqual(remote.response(message, 20).result(), "again")

    def test_peer_killed(self):
        session, _ = self.silent_call()
        os.kill(self.old["pid"], signal.SIGKILL)
        with self.assertRaises(Exception):
            session.finish(10)
        self.server.wait_log("was terminated by signal 9", self.log_start)
        self.assertReturns()

    def test_immediate_stop(self):
        self.server.restart("immediate")
        self.assertReturns()


class NothingLeftBehind(ProcessCase):
    """Long runs, compared before and after."""

    @staticmethod
    def memory(pid):
        """
        Kilobytes that a process has, without pages of files, which become its own when others that have them end; nothing to go by when a
        sanitizer keeps what is freed.
        """
        if case.SERVER_ENVIRONMENT is not None:
            return 0
        with open("/proc/%d/smaps_rollup" % pid) as file:
            return sum(int(line.split()[1]) for line in file if line.startswith("Anonymous:"))

    @staticmethod
    def descriptors(pid):
        return len(os.listdir("/proc/%d/fd" % pid))

    @staticmethod
    def segments(pid):
        with open("/proc/%d/maps" % pid) as file:
            return sum("/dev/shm/PostgreSQL" in line for line in file)

    def measure(self, pids):
        return {name: (self.memory(pid), self.descriptors(pid), self.segments(pid)) for name, pid in pids.items()}

    def loop(self, session, count, statement="PERFORM rinq_call('served', 'x', to_jsonb(i), '20 s');"):
        session.execute("DO $do$ BEGIN FOR i IN 1..%d LOOP %s END LOOP; END $do$" % (count, statement), timeout=200)

    def busiest_executor(self, namespace):
        """The one that has the most to do: another may have been started a moment ago, and has yet to take what it needs."""
        served = [row[0] for row in self.db.sql("SELECT rinq_call('%s', 'x', NULL, '20 s') FROM generate_series(1, 200)" % namespace)]
        return int(max(served, key=served.count))

    def test_ten_thousand_calls(self):
        self.db.handler("whose", "RETURN to_jsonb(pg_backend_pid());")
        self.db.listen("whose", "whose")
        statement = "PERFORM rinq_call('whose', 'x', to_jsonb(i), '20 s');"
        with self.db.session() as session:
            self.loop(session, 2000, statement)
            pids = {"peer": self.old["pid"], "backend": session.pid, "executor": self.busiest_executor("whose")}
            before = self.measure(pids)
            self.loop(session, 10000, statement)
            after = self.measure(pids)
            self.assertEqual(self.db.peer()["pid"], self.old["pid"])
            for name in pids:
                self.assertLess(after[name][0] - before[name][0], 512, "%s: %r then %r" % (name, before, after))
                self.assertEqual(after[name][1:], before[name][1:], "%s: %r then %r" % (name, before, after))

    def test_ten_thousand_refusals_and_timeouts(self):
        """Errors give everything back as well."""
        self.db.handler("failing", "PERFORM rinq_fail('t', 'm', req.payload); RETURN NULL;")
        self.db.listen("failing", "failing")
        attempt = "BEGIN PERFORM rinq_call('%s', 'x', to_jsonb(repeat('x', 2000)), '%s'); EXCEPTION WHEN OTHERS THEN NULL; END;"
        with self.db.session() as session:
            self.loop(session, 500, attempt % ("failing", "20 s"))
            pids = {"peer": self.old["pid"], "backend": session.pid}
            for last in (False, False, True):
                before = self.measure(pids)
                self.loop(session, 3000, attempt % ("failing", "20 s"))
                self.loop(session, 2000, attempt % ("nobody", "1 ms"))
                self.loop(session, 5000, attempt % ("_bad", "1 s"))
                after = self.measure(pids)
                # a broker that gets no processor for a while has the peer keep what is to be sent, which it may do once
                if not last and after["peer"][0] - before["peer"][0] >= 768:
                    continue
                for name in pids:
                    self.assertLess(after[name][0] - before[name][0], 768, "%s: %r then %r" % (name, before, after))
                    self.assertEqual(after[name][1:], before[name][1:], "%s: %r then %r" % (name, before, after))
                break
        self.assertWorks()

    def test_shared_memory_for_payloads_comes_back(self):
        """Many times more than the payload memory passes through it, in calls that succeed, time out and are cancelled."""
        with self.db.session() as session:
            for _ in range(30):
                self.assertEqual(session.value("SELECT length(rinq_call('served', 'x', to_jsonb(repeat('x', 8000000)), '30 s') #>> '{}')"),
                                 "8000000")
            for _ in range(30):
                self.assertSqlState(session.error("SELECT rinq_call('nobody', 'x', to_jsonb(repeat('x', 8000000)), '30 ms')"), "RQ003")
            for _ in range(30):
                session.execute("SET statement_timeout = '60ms'")
                self.assertSqlState(session.error("SELECT rinq_call('nobody', 'x', to_jsonb(repeat('x', 8000000)), '30 s')"), "57014")
                session.execute("RESET statement_timeout")
            self.assertEqual(session.value("SELECT length(rinq_call('served', 'x', to_jsonb(repeat('x', 8000000)), '30 s') #>> '{}')"),
                             "8000000")

    def test_sessions_of_ended_connections(self):
        """Each connection has a session in the peer, which goes with it."""
        for _ in range(20):
            self.db.call("served", "x", 1)
        before = self.memory(self.old["pid"])
        for _ in range(200):
            self.db.call("served", "x", 1)
        self.assertLess(self.memory(self.old["pid"]) - before, 256)

    def test_cancelled_calls(self):
        remote = self.peer(prefetch=500)
        dropped = self.db.peer()["responses_dropped"]
        requests = []

        def hold(request):
            requests.append(request.id)
            raise Answered()
        remote.serve("held", hold)
        with self.db.session() as session:
            session.execute("SET statement_timeout = '5ms'")
            for _ in range(200):
                self.assertSqlState(session.error(call_sql("held", "x", timeout=60)), "57014")
            wait_until(lambda: requests, description="requests")
            for identity in list(requests):
                remote.publish_raw("cmd.rsp", identity, b"\x01", type="s", correlation_id=identity)
            wait_until(lambda: self.db.peer()["responses_dropped"], lambda count: count >= dropped + len(requests),
                       description="all late answers to be dropped")
        self.assertWorks()

    def test_executors_leave_when_idle(self):
        self.server.configure(rinq__executor_idle_timeout="300ms")
        self.addCleanup(self.server.configure, rinq__executor_idle_timeout=None)
        self.assertWorks()
        wait_until(self.executors, lambda pids: pids == [], 15, "idle executors to leave")
        self.assertWorks()

    def test_idle_peer_is_idle(self):
        """Processor time of the idle processes, as the kernel counts it."""
        def ticks():
            return sum(processor_ticks(pid) for pid in [self.old["pid"]] + self.executors())
        before = ticks()
        start = time.monotonic()
        wait_until(lambda: time.monotonic() - start > 2, timeout=5, description="two seconds to pass")
        self.assertLessEqual(ticks() - before, 2)
