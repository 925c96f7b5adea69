"""The wall clock is stepped, back and forth, while everything works: nothing but timestamps may notice."""

import glob
import os
import re
import time
import unittest

from rinqtest import case
from rinqtest.clock import WallClock
from rinqtest.cluster import World
from rinqtest.collector import Collector
from rinqtest.proxy import BROKER
from rinqtest.waiting import wait_until

HOUR = 3600
STEPS = (-HOUR, HOUR, 0)


class Sources(unittest.TestCase):
    """Who reads the wall clock: clock.c, and those that store or show when something was."""

    ALLOWED = {"amqp/tls_trust.c", "backend/outbox.c", "backend/outbox_rows.c", "backend/outbox_waiting.c", "base/clock.c", "peer/network.c", "peer/process.c",
               "peer/sending/outbox_look.c", "peer/session/sessions.c", "sql/execution.c", "worker/inbox.c", "worker/inbox_due.c", "worker/inbox_failed.c", "worker/inbox_rows.c",
               "worker/notify_bridge.c", "worker/outbox_release.c", "worker/purge.c"}

    def test_readers(self):
        top = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "src")
        readers = set()
        for path in glob.glob(os.path.join(top, "**", "*.[ch]"), recursive=True):
            with open(path) as file:
                if re.search(r"GetCurrentTimestamp|gettimeofday|\btime\(NULL|CLOCK_REALTIME|TimestampDifference", file.read()):
                    readers.add(os.path.relpath(path, top))
        self.assertEqual(readers - self.ALLOWED, set())


class Steps(case.Case):
    @classmethod
    def make_world(cls):
        cls.clock = WallClock(case.scratch(), case.SERVER_ENVIRONMENT)
        world = World(case.STAGE, case.scratch(), environment=cls.clock.environment, name="clock", settings={
            "rinq.retry_delay": "200ms", "rinq.amqp_heartbeat": "1", "rinq.send_attempts": "100"})
        cls.addClassCleanup(world.close)
        return world

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.db.handler("echo", "RETURN req.payload;")
        # pg_sleep goes by the wall clock itself
        cls.db.handler("slow", "PERFORM pg_advisory_xact_lock_shared(1); RETURN 'true';")
        cls.db.listen("echo", "echo")
        cls.db.listen("slow", "slow")
        cls.remote = cls.world.peer(prefetch=100)
        cls.remote.call("echo", "x", 1, timeout=20)

    def setUp(self):
        super().setUp()
        self.addCleanup(self.clock.step, 0)
        self.before = self.db.wait_peer()

    def assertSameConnection(self):
        after = self.db.peer()
        self.assertEqual((after["state"], after["peer_id"], after["reconnects"]),
                         ("connected", self.before["peer_id"], self.before["reconnects"]))

    def test_the_server_sees_the_steps(self):
        for seconds in STEPS:
            self.clock.step(seconds)
            off = float(self.db.value("SELECT extract(epoch FROM clock_timestamp())")) - time.time()
            self.assertLess(abs(off - seconds), 30)

    def test_connection(self):
        for seconds in STEPS:
            mark = self.recording.mark()
            self.clock.step(seconds)
            self.recording.wait("heartbeat", 2, 10, sender=BROKER, since=mark)
            self.assertEqual(self.db.call("echo", "x", seconds, timeout=5), seconds)
            self.assertSameConnection()

    def test_delayed_messages(self):
        """An interval is one, whatever the wall clock says; a time of the wall clock comes when that says so."""
        collector = Collector(self.remote, "delayed")
        after = self.db.value("SELECT rinq_execute('delayed', 'x', deliver_after => '1500 ms')")
        self.clock.step(-HOUR)
        collector.wait(1, 15)
        self.assertEqual(collector.ids, [after])
        hour = self.db.value("SELECT rinq_execute('delayed', 'x', deliver_after => '1 h')")
        at = self.db.value("SELECT rinq_execute('delayed', 'x', deliver_at => clock_timestamp() + interval '30 min')")
        self.clock.step(0)
        collector.wait(2, 15)
        self.assertEqual(collector.ids, [after, at])
        self.assertEqual(self.db.value("SELECT rinq_execute_cancel('%s')" % hour), "t")

    def test_what_waits_for_a_time(self):
        """Attempts of commands and notifications, and deadlines of durable calls: they come when the wall clock says so, in a few seconds."""
        self.db.sql("CREATE TABLE again (what text); CREATE FUNCTION hear(n rinq_notification) RETURNS void LANGUAGE plpgsql AS"
                    " $$ BEGIN IF n.attempt = 1 THEN RAISE EXCEPTION 'not yet'; END IF; INSERT INTO again VALUES ('notification'); END $$")
        self.db.handler("later", "IF req.attempt = 1 THEN RAISE EXCEPTION 'not yet'; END IF; INSERT INTO again VALUES ('command'); RETURN NULL;")
        policy = '{"first_delay": "30 min", "max_delay": "30 min", "jitter": 0}'
        self.db.sql("SELECT rinq_listen('later', 'later(rinq_request)', retry => '%s'), rinq_subscribe('s', 'clock.news', 'hear(rinq_notification)', retry => '%s')"
                    % (policy, policy))
        self.db.sql("SELECT rinq_wait_ready()")
        call = self.db.value("SELECT rinq_call_durable('clock.nobody', 'x', timeout => '30 min')")
        self.remote.execute("later", "x")
        self.remote.notify_many("clock.news", "x", {"o": "*"})
        wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_inbox_waiting"), lambda count: count == "2", 15, "both to wait")
        self.clock.step(HOUR)
        wait_until(lambda: self.db.sql("SELECT what FROM again ORDER BY 1"), lambda rows: rows == [["command"], ["notification"]], 20, "the second attempts")
        self.assertEqual(self.db.value("SELECT outcome FROM rinq_wait('%s', '20 s')" % call), "timeout")

    def test_reconnect(self):
        for seconds in STEPS:
            old = self.db.wait_peer()
            self.world.proxy.refuse()
            self.world.proxy.cut()
            self.db.wait_peer(lambda row: row["state"] == "disconnected", description="the loss")
            self.clock.step(seconds)
            self.world.proxy.resume()
            self.db.wait_new_peer(old, timeout=5)

    def test_outbox_and_its_retries(self):
        for seconds in STEPS:
            name = "retry%d" % (seconds + HOUR)
            # a queue that others own refuses the message until it is deleted
            self.remote.on_channel(lambda channel, name=name: channel.queue_declare("cmd." + name, durable=True))
            identity = self.db.value("SELECT rinq_execute('%s', 'x')" % name)
            wait_until(lambda: self.db.json("SELECT to_jsonb(s) FROM rinq_outbox_status s"),
                       lambda row: row["retrying"] > 0 or row["last_error"] is not None, description="an attempt that fails")
            self.clock.step(seconds)
            self.remote.on_channel(lambda channel, name=name: channel.queue_delete("cmd." + name))
            collector = Collector(self.remote, name)
            collector.wait(1, 8)
            self.assertEqual(collector.ids[0], identity)
            wait_until(lambda: self.db.value("SELECT depth FROM rinq_outbox_status"), lambda depth: depth == "0", 5, "an empty outbox")
            self.assertSameConnection()

    def wait_for_handler(self):
        wait_until(lambda: self.db.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rinq executor' AND wait_event = 'advisory'"),
                   lambda count: count == "1", description="the handler")

    def test_call_that_is_answered(self):
        for seconds in STEPS:
            with self.db.session() as holder:
                holder.execute("SELECT pg_advisory_lock(1)")
                call = self.db.start("SELECT rinq_call('slow', 'x', NULL, '5 s')")
                self.wait_for_handler()
                self.clock.step(seconds)
                holder.execute("SELECT pg_advisory_unlock(1)")
                self.assertEqual(call.result(), [["true"]])

    def test_call_that_times_out(self):
        self.remote.serve("mute", lambda request: time.sleep(1.5))
        for seconds in STEPS:
            began = time.monotonic()
            call = self.db.start("SELECT rinq_call('mute', 'x', NULL, '1 s')")
            wait_until(lambda: self.db.value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%''mute''%' AND wait_event_type = 'Extension'"
                                             " AND pid <> pg_backend_pid()"),
                       lambda count: count == "1", description="the call")
            self.clock.step(seconds)
            self.assertSqlState(call.error(), "RQ003")
            self.assertLess(time.monotonic() - began, 4)
            self.assertSameConnection()

    def test_handler_that_is_ended_by_its_deadline(self):
        for seconds in STEPS:
            expired = self.db.peer()["requests_expired"]
            with self.db.session() as holder:
                holder.execute("SELECT pg_advisory_lock(1)")
                call = self.db.start("SELECT rinq_call('slow', 'x', NULL, '1 s')")
                self.wait_for_handler()
                self.clock.step(seconds)
                self.assertSqlState(call.error(), "RQ003")
                wait_until(lambda: self.db.peer()["requests_expired"], lambda n: n == expired + 1, 3, "its end")
            # the next request gets the time that it asks for
            self.assertEqual(self.db.call("slow", "x", timeout=5), True)
            self.assertSameConnection()

    def test_handler_with_time_left_is_not_ended(self):
        for seconds in STEPS:
            with self.db.session() as holder:
                holder.execute("SELECT pg_advisory_lock(1)")
                # its own timeouts are set and taken back after the step, which has PostgreSQL look at its clock
                self.db.sql("""CREATE OR REPLACE FUNCTION patient(req rinq_request) RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN
                    PERFORM pg_advisory_xact_lock_shared(1); PERFORM set_config('lock_timeout', '5s', true);
                    PERFORM pg_advisory_xact_lock_shared(2); RETURN 'true'; END $$""")
                self.db.listen("patient", "patient")
                holder.execute("SELECT pg_advisory_lock(2)")
                call = self.db.start("SELECT rinq_call('patient', 'x', NULL, '5 s')")
                self.wait_for_handler()
                self.clock.step(seconds)
                holder.execute("SELECT pg_advisory_unlock(1)")
                wait_until(lambda: self.db.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objid = 2 AND NOT granted"),
                           lambda count: count == "1", description="the second lock")
                holder.execute("SELECT pg_advisory_unlock(2)")
                self.assertEqual(call.result(), [["true"]])

    def test_deadlines_on_the_wire_are_of_the_wall_clock(self):
        for seconds in STEPS:
            self.clock.step(seconds)
            mark = self.recording.mark()
            before = time.time()
            self.assertEqual(self.db.call("echo", "x", 1, timeout=5), 1)
            delivery = self.deliveries(since=mark)[0]
            self.assertLess(abs(delivery.headers["dl"].value / 1000 - seconds - 5 - before), 4)
            self.assertLess(abs(int(delivery.properties["expiration"]) - 5000), 4000)
