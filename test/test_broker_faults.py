"""The broker goes away, comes back, falls silent, refuses; the server does not notice and the peer finds its way back."""

import re
import time

from rinqtest import case
from rinqtest.cluster import call_sql
from rinqtest.fakebroker import FakeBroker
from rinqtest.proxy import BROKER, CLIENT
from rinqtest.waiting import wait_until


class Pending:
    """Calls that nobody answers, in sessions of their own."""

    def __init__(self, test, db, count=3, timeout=60):
        self.sessions = [db.session() for _ in range(count)]
        for session in self.sessions:
            test.addCleanup(session.close)
        mark = test.recording.mark()
        for session in self.sessions:
            session.start(call_sql("silent", "x", timeout=timeout))
        test.published("cmd.bal", count, since=mark)

    def errors(self, timeout):
        return [session.finish_error(timeout) for session in self.sessions]


class Faults(case.Case):
    def setUp(self):
        super().setUp()
        if not self.world.broker.running:
            self.world.broker.start()
        self.db = self.database()
        self.db.handler("served", "RETURN req.payload;")
        self.db.listen("served", "served")
        self.db.call("served", "warm", 1, timeout=20)
        self.old = self.db.peer()

    def tearDown(self):
        self.world.proxy.resume()
        if not self.world.broker.running:
            self.world.broker.start()
        super().tearDown()

    def assertWorks(self):
        self.assertEqual(self.db.call("served", "x", [1], timeout=10), [1])

    def assertLost(self, pending, within):
        """All pending calls end at once with 'connection lost', not after their timeout."""
        start = time.monotonic()
        for error in pending.errors(within + 1):
            self.assertSqlState(error, "08006")
        self.assertLess(time.monotonic() - start, within)

    def assertBack(self, timeout=45):
        new = self.db.wait_new_peer(self.old, timeout)
        self.assertGreater(new["reconnects"], self.old["reconnects"])
        self.assertWorks()
        return new

    # the broker goes away

    def test_broker_killed_during_calls(self):
        pending = Pending(self, self.db)
        self.world.broker.kill()
        self.assertLost(pending, 1)
        row = self.db.wait_peer(lambda row: row["state"] != "connected", description="the loss to show")
        self.assertIsNone(row["connected_since"])
        start = time.monotonic()
        self.assertSqlState(self.db.error(call_sql("served", "x")), "08001")
        self.assertLess(time.monotonic() - start, 4)
        # the server goes on as if nothing had happened
        self.assertEqual(self.db.value("SELECT 1"), "1")
        self.db.sql("CREATE TABLE unaffected (x int)")
        wait_until(lambda: self.db.peer()["last_error"], description="the reason to show")
        self.world.broker.start()
        self.assertBack()
        lines = [line for line in self.server.log_since(self.log_start).splitlines() if self.db.name in line and "rinq peer" in line]
        self.assertLess(len(lines), 12, "\n".join(lines))

    def test_broker_restarted_with_requests_waiting(self):
        self.db.sql("CREATE TABLE done (x int)")
        self.db.handler("collect", "INSERT INTO done VALUES ((req.payload #>> '{}')::int); RETURN NULL;")
        with self.world.peer() as remote:
            for number in range(50):
                remote.execute("waiting", "x", number)
            wait_until(lambda: remote.queue_depth("cmd.waiting"), lambda depth: depth == 50, description="the requests to wait")
        self.world.broker.restart()
        self.assertBack()
        self.db.listen("waiting", "collect")
        rows = wait_until(lambda: self.db.sql("SELECT x FROM done ORDER BY x"), lambda rows: len(rows) >= 50, 20, "all requests to be served")
        self.assertEqual(rows, [[str(number)] for number in range(50)])

    def test_calls_in_resume_after_a_restart(self):
        self.world.broker.restart(kill=True)
        self.assertBack()
        remote = self.peer()
        self.assertEqual(remote.call("served", "x", [7], timeout=10), [7])
        own = self.db.peer()["peer_id"]
        self.assertEqual(remote.call_unicast(own, "served", "x", [8]), [8])
        self.assertEqual(remote.call_multicast("served", "x", [9]), [9])

    def test_connection_closed_by_an_administrator(self):
        self.world.broker.ctl("close_all_connections", "maintenance")
        new = self.assertBack()
        self.assertIn("maintenance", new["last_error"] or self.server.log_since(self.log_start))

    # the network between

    def test_tcp_cut(self):
        pending = Pending(self, self.db)
        self.world.proxy.cut(reset=True)
        self.assertLost(pending, 1)
        self.assertBack(10)

    def test_tcp_closed(self):
        pending = Pending(self, self.db)
        self.world.proxy.cut(reset=False)
        self.assertLost(pending, 1)
        self.assertBack(10)

    def test_connections_refused_for_a_while(self):
        self.world.proxy.refuse()
        self.world.proxy.cut()
        self.db.wait_peer(lambda row: row["state"] == "disconnected", description="the peer to be disconnected")
        accepted = self.world.proxy.accepted
        self.assertSqlState(self.db.error(call_sql("served", "x")), "08001")
        self.assertEqual(self.world.proxy.accepted, accepted)
        self.world.proxy.resume()
        self.assertBack()

    def with_heartbeat(self, seconds):
        self.server.configure(rinq__amqp_heartbeat=str(seconds))
        self.addCleanup(self.server.configure, rinq__amqp_heartbeat=None)
        self.world.proxy.cut()
        self.old = self.db.wait_new_peer(self.old)
        tune = self.recording.wait("connection.tune-ok", since=self.wire_start, where=lambda event: event.heartbeat == seconds)
        self.assertTrue(tune)

    def silent(self, spoil):
        """TCP stays open and nothing arrives any more: found out in about two heartbeats, and harmless meanwhile."""
        self.with_heartbeat(1)
        pending = Pending(self, self.db)
        spoil()
        # while it is silent and nobody knows yet, everything else works
        start = time.monotonic()
        self.server.psql("CREATE DATABASE bystander_%s" % self.db.name)
        self.server.psql("DROP DATABASE bystander_%s" % self.db.name)
        self.assertLess(time.monotonic() - start, 2)
        self.assertLost(pending, 5)
        self.world.proxy.resume()
        self.world.proxy.cut()
        self.assertBack(20)

    def test_tcp_silence(self):
        self.silent(self.world.proxy.silence)

    def test_tcp_silence_from_the_broker(self):
        self.silent(lambda: self.world.proxy.silence(BROKER))

    def test_tcp_drop(self):
        self.silent(self.world.proxy.drop)

    def test_heartbeats_keep_an_idle_connection(self):
        self.with_heartbeat(1)
        mark = self.recording.mark()
        self.recording.wait("heartbeat", 5, 15, since=mark, sender=CLIENT)
        self.assertEqual(self.db.peer()["peer_id"], self.old["peer_id"])

    def test_slow_network(self):
        self.world.proxy.delay(0.1)
        self.assertEqual(self.db.call("served", "x", [1], timeout=20), [1])

    def test_large_message_to_a_broker_that_does_not_read(self):
        """Megabytes that cannot be written hold up nobody but their own caller."""
        self.world.proxy.silence(CLIENT)
        with self.db.session() as session:
            session.start("SELECT rinq_call('silent', 'x', to_jsonb(repeat('x', 15000000)), '30 s')")
            start = time.monotonic()
            self.assertSqlState(self.db.error(call_sql("silent", "x", timeout=0.5)), "RQ003")
            self.assertLess(time.monotonic() - start, 2)
            self.server.psql("CREATE DATABASE writer_%s" % self.db.name)
            self.server.psql("DROP DATABASE writer_%s" % self.db.name)
            self.assertLess(time.monotonic() - start, 4)
            self.server.psql("SELECT pg_cancel_backend(%d)" % session.pid)
            self.assertSqlState(session.finish_error(), "57014")
        self.world.proxy.resume()
        self.assertWorks()

    # what the broker says

    def test_broker_blocks_publishers(self):
        self.world.broker.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            error = self.db.error(call_sql("served", "x", timeout=1))
            self.assertSqlState(error, "RQ003")
            self.db.wait_peer(lambda row: row["blocked"], description="the blocking to show")
            self.assertEqual(self.db.value("SELECT 1"), "1")
        finally:
            self.world.broker.ctl("set_vm_memory_high_watermark", "0.6")
        self.db.wait_peer(lambda row: not row["blocked"], description="the blocking to end")
        wait_until(lambda: self.db.call("served", "x", [1], timeout=5) == [1], timeout=20, description="calls to work again")

    def test_queue_deleted_under_its_consumer(self):
        remote = self.peer()
        self.assertEqual(remote.call("served", "x", 1), 1)
        mark = self.recording.mark()
        remote.on_channel(lambda channel: channel.queue_delete("cmd.served"))
        self.recording.wait("basic.consume", since=mark, queue="cmd.served")
        wait_until(lambda: remote.queue_consumers("cmd.served"), lambda count: count == 1, description="the consumer to be back")
        self.assertEqual(remote.call("served", "x", 2), 2)
        self.assertEqual(self.db.call("served", "x", 3), 3)
        self.assertEqual(self.db.peer()["peer_id"], self.old["peer_id"])

    def test_queue_with_other_arguments(self):
        """406 on one namespace: a clear error for its callers, and nothing for the others."""
        remote = self.peer()
        remote.on_channel(lambda channel: channel.queue_declare("cmd.different", durable=True))
        start = time.monotonic()
        error = self.db.error(call_sql("different", "x", timeout=20))
        self.assertLess(time.monotonic() - start, 5)
        self.assertIn("cmd.different", error.text)
        self.assertNotIn(error.sqlstate, ("RQ003", "XX000"))
        self.assertWorks()
        self.db.handler("different", "RETURN NULL;")
        self.db.listen("different", "different")
        self.server.wait_log(r"cmd\.different", self.log_start)
        self.assertWorks()
        self.assertEqual(self.db.peer()["peer_id"], self.old["peer_id"])
        remote.on_channel(lambda channel: channel.queue_delete("cmd.different"))


class OtherBrokers(case.Case):
    """A server of its own, to be pointed at brokers that refuse."""

    @classmethod
    def make_world(cls):
        return case.new_world("refusing", broker=case.shared_world().broker)

    @classmethod
    def tearDownClass(cls):
        cls.world.close()

    def setUp(self):
        super().setUp()
        self.good = self.world.broker.dsn(self.world.proxy.port)

    def point_at(self, dsn):
        """Use another broker from now on, with a database that is new, so that no backoff is left of earlier failures."""
        self.server.configure(rinq__amqp_dsn=dsn)
        self.addCleanup(self.server.configure, rinq__amqp_dsn=self.good)
        return self.database(wait=False)

    def fake(self, **options):
        fake = FakeBroker(**options)
        self.addCleanup(fake.close)
        return fake

    def point_at_fake(self, fake):
        return self.point_at("amqp://x:y@127.0.0.1:%d/" % fake.port)

    def refused(self, db, pattern):
        """The peer does not connect, says why, and says so once."""
        row = db.wait_peer(lambda row: row["last_error"] is not None, description="a reason")
        self.assertRegex(row["last_error"], pattern)
        self.assertNotEqual(row["state"], "connected")
        self.assertSqlState(db.error(call_sql("served", "x")), "08001")
        return row

    def test_wrong_password(self):
        db = self.point_at("amqp://%s:wr0ng-pa55word@127.0.0.1:%d/" % (self.world.broker.user, self.world.proxy.port))
        row = self.refused(db, "(?i)access|refused|authentic|login")
        for _ in range(3):
            attempts = self.world.proxy.accepted
            wait_until(lambda: self.world.proxy.accepted, lambda count: count > attempts, 20, "another attempt")
        log = self.server.log_since(self.log_start)
        for text in (log, str(row), "\n".join(str(part) for part in self.server.psql("SELECT * FROM pg_stat_activity"))):
            self.assertNoSecret(text, "wr0ng-pa55word")
        lines = [line for line in log.splitlines() if "rinq peer" in line and ("WARNING" in line or "LOG:" in line) and db.name in line]
        self.assertLess(len(lines), 5, log)
        self.server.configure(rinq__amqp_dsn=self.good)
        db.wait_peer(timeout=40)

    def test_attempts_become_rarer(self):
        fake = self.fake()
        times = []

        def refuse(connection, _event):
            times.append(time.monotonic())
            connection.close()
            return True
        fake.on("greeting", refuse)
        self.point_at_fake(fake)
        wait_until(lambda: len(times), lambda count: count >= 6, 30, "six attempts")
        gaps = [later - earlier for earlier, later in zip(times, times[1:])]
        self.assertGreater(gaps[4], 2 * gaps[0], gaps)
        self.assertGreater(gaps[0], 0.02, gaps)

    def test_unknown_vhost(self):
        self.refused(self.point_at(self.world.broker.dsn(self.world.proxy.port, vhost="nowhere")), "(?i)vhost|nowhere|access")

    def test_exchange_of_another_kind(self):
        """406 on an exchange: the message names it."""
        broker = self.world.broker
        broker.ctl("add_vhost", "strange")
        broker.ctl("set_permissions", "-p", "strange", broker.user, ".*", ".*", ".*")
        with self.world.peer(vhost="strange") as remote:
            remote.on_channel(lambda channel: channel.exchange_delete("ntf.mc"))
            remote.on_channel(lambda channel: channel.exchange_declare("ntf.mc", "topic"))
        db = self.point_at(broker.dsn(self.world.proxy.port, vhost="strange"))
        self.refused(db, r"ntf\.mc")
        self.server.wait_log(r"ntf\.mc", self.log_start)

    def test_not_permitted_to_declare(self):
        broker = self.world.broker
        broker.ctl("add_vhost", "guarded")
        broker.ctl("set_permissions", "-p", "guarded", broker.user, "^$", ".*", ".*")
        db = self.point_at(broker.dsn(self.world.proxy.port, vhost="guarded"))
        self.refused(db, "(?i)access|refused|permi")

    def test_not_permitted_to_have_queues_of_its_own(self):
        """The reason names another queue each time, by the identity that is tried, and is said once all the same."""
        broker = self.world.broker
        broker.ctl("add_vhost", "nameless")
        broker.ctl("set_permissions", "-p", "nameless", broker.user, r"^(cmd|ntf)\..*", ".*", ".*")
        db = self.point_at(broker.dsn(self.world.proxy.port, vhost="nameless"))
        names = set()

        def another():
            names.add(re.search(r"access to queue '([0-9A-F]{4})", db.peer()["last_error"] or "access to queue '0000").group(1))
            return len(names)
        wait_until(another, lambda count: count >= 4, 60, "the same reason of three identities")
        said = [line for line in self.server.log_since(self.log_start).splitlines() if "cannot connect" in line and '"%s"' % db.name in line]
        self.assertEqual(len(said), 1, said)

    def test_identity_taken(self):
        """405 on each of the four queues in turn: another identity, at once."""
        fake = self.fake()
        refused = []

        def locked(connection, event):
            suffix = event.queue[4:]
            if event.queue[:4] != "cmd." and suffix not in [queue[4:] for queue in refused]:
                refused.append(event.queue)
                return connection.close_channel(event.channel, 405, "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue")
            return False
        fake.on("queue.declare", locked)
        db = self.point_at_fake(fake)
        row = db.wait_peer(timeout=20)
        self.assertEqual(sorted(queue[4:] for queue in refused), ["", ".ntf", ".req", ".rsp"])
        self.assertNotIn(row["peer_id"].partition("-")[2], [queue[:4] for queue in refused])

    def test_identities_differ(self):
        fake = self.fake()
        db = self.point_at_fake(fake)
        seen = set()
        for _ in range(3):
            seen.add(db.wait_peer(lambda row: row["state"] == "connected" and row["peer_id"] not in seen, 20)["peer_id"])
            fake.connections[-1].close()
        self.assertEqual(len(seen), 3)

    def test_old_broker(self):
        self.refused(self.point_at_fake(self.fake(version="3.4.4")), r"3\.4\.4")

    def test_few_channels(self):
        self.refused(self.point_at_fake(self.fake(channel_max=7)), "allows 7 channels for one connection .channel_max., and 8 are needed")

    def test_broker_requests_close(self):
        fake = self.fake()
        fake.on("exchange.declare", lambda connection, event: connection.send(0, "connection.close", code=320, text="CONNECTION_FORCED - bye") or True)
        db = self.point_at_fake(fake)
        self.refused(db, "bye")
        fake.recording.wait("connection.close-ok")
        fake.on("exchange.declare", lambda connection, event: False)
        db.wait_peer(timeout=20)

    def test_response_channel_closed(self):
        """A channel that the broker closes is opened again, or the connection is; either way calls work again."""
        fake = self.fake()
        db = self.point_at_fake(fake)
        db.wait_peer()
        channel = fake.recording.wait("basic.consume", where=lambda event: event.queue.endswith(".rsp"))[-1].channel
        mark = fake.recording.mark()
        fake.connections[-1].close_channel(channel, 404, "NOT_FOUND - no queue 'x'")
        fake.recording.wait("basic.consume", since=mark, where=lambda event: event.queue.endswith(".rsp"))
        db.wait_peer()

    def test_credentials_of_the_setting(self):
        self.assertNoSecret(self.server.value("SHOW rinq.amqp_dsn"), self.world.broker.password)


class Absent(case.Case):
    """The broker is not there when the server starts."""

    @classmethod
    def make_world(cls):
        return case.new_world("absent", broker=case.shared_world().broker)

    @classmethod
    def tearDownClass(cls):
        cls.world.close()

    def test_no_broker_at_start(self):
        self.world.proxy.refuse()
        self.server.restart()
        db = self.database(wait=False)
        row = db.wait_peer(lambda row: row["last_error"] is not None, description="the reason")
        self.assertIn(row["state"], ("disconnected", "connecting"))
        self.assertSqlState(db.error(call_sql("x", "x")), "08001")
        db.handler("early", "RETURN '1';")
        db.listen("early", "early")
        warnings = [line for line in self.server.log_since(self.log_start).splitlines() if "WARNING" in line and db.name in line]
        self.assertLessEqual(len(warnings), 1, warnings)
        self.world.proxy.resume()
        db.wait_peer(timeout=40)
        self.assertEqual(self.peer().call("early", "x", timeout=10), 1)
