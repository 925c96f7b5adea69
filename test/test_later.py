"""Messages that are sent later, in order, or but once: delayed, ordered, and with a key."""

import os
import signal
import time

from rinqtest import case
from rinqtest.cluster import Database, SqlError
from rinqtest.collector import Collector
from rinqtest.proxy import BROKER
from rinqtest.server import processor_ticks
from rinqtest.waiting import wait_until


class Case(case.Case):
    def outbox(self, db, columns="id, state"):
        return [tuple(row) for row in db.sql("SELECT %s FROM rinq_outbox ORDER BY created, id" % columns)]

    def status(self, db, column):
        return db.value("SELECT %s FROM rinq_outbox_status" % column)

    def wait_states(self, db, *states):
        wait_until(lambda: [state for (state,) in db.sql("SELECT state FROM rinq_outbox ORDER BY created, id")], lambda s: s == list(states), 20, "states %r" % (states,))

    def wait_nothing(self, db, timeout=30):
        wait_until(lambda: db.value("SELECT depth + waiting FROM rinq_outbox_status"), lambda n: n == "0", timeout, "an empty outbox")

    def wait_no_worker(self, db):
        wait_until(lambda: db.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rinq outbox' AND datname = current_database()"), lambda n: n == "0", 20,
                   "the outbox worker to leave")

    def refuse_queue(self, name):
        """Have the broker take nothing for a namespace, for as long as the queue of one message is full."""
        connection = self.world.broker.connect()
        self.addCleanup(lambda: connection.is_open and connection.close())
        channel = connection.channel()
        channel.queue_declare("cmd." + name, durable=True, arguments={"x-max-priority": 3})
        self.world.broker.ctl("set_policy", name, "^cmd\\.%s$" % name, '{"max-length": 1, "overflow": "reject-publish"}', "--apply-to", "queues")
        self.addCleanup(self.world.broker.ctl, "clear_policy", name)
        return channel


class Delayed(Case):
    def setUp(self):
        super().setUp()
        self.db = self.database()
        self.remote = self.peer(prefetch=0)

    def test_delay(self):
        """Sent when their time has come, in the order of their times, and not before; what is past is sent at once."""
        collector = Collector(self.remote, "later")
        with self.db.session() as session:
            ids = [session.value("SELECT rinq_execute('later', 'x', '%d', deliver_after => '%d ms')" % (i, delay)) for i, delay in enumerate((1700, 900))]
            at = session.value("SELECT rinq_execute('later', 'x', '2', deliver_at => clock_timestamp() + interval '1.3 s')")
            rows = [tuple(row) for row in session.execute("SELECT id, state, due > now() AND due < now() + interval '2 s' FROM rinq_outbox ORDER BY created, id")]
            status = session.execute("SELECT waiting, depth, next_due > now() FROM rinq_outbox_status")
            past = [session.value("SELECT rinq_execute('later', 'x', '3', %s)" % how) for how in (
                "deliver_at => now() - interval '1 day'", "deliver_at => '-infinity'", "deliver_after => '-1 s'", "deliver_after => '0'")]
        self.assertEqual([row for row in rows if row[0] in ids], [(i, "delayed", "t") for i in ids])
        self.assertEqual(status, [["3", "0", "t"]])
        collector.wait(7)
        self.assertEqual(collector.ids, past + [ids[1], at, ids[0]])
        self.wait_nothing(self.db)

    def test_while_they_wait(self):
        """100,000 of them cost nothing: no worker runs, no statement, no peer that turns."""
        self.server.configure(**{"rinq.executor_idle_timeout": "200ms"})
        self.addCleanup(self.server.configure, **{"rinq.executor_idle_timeout": None})
        self.db.sql("SELECT rinq_execute('later', 'x', '1', deliver_after => '1 h')")
        columns = "namespace, command, payload, deadline, database, role, due, place, clock, life"
        self.db.sql("INSERT INTO rinq_internal.outbox_waiting (seq, id, %s) SELECT seq + i, id || i, %s FROM rinq_internal.outbox_waiting, generate_series(1, 99999) i" % (columns, columns))
        self.wait_no_worker(self.db)
        pid = self.db.peer()["pid"]
        transactions = "SELECT sum(xact_commit) FROM pg_stat_database WHERE datname = current_database()"

        def cost():
            """Of two seconds: commits, with those of the questions, and ticks of the peer's processor time."""
            before, cpu, start = int(self.db.value(transactions)), processor_ticks(pid), time.monotonic()
            wait_until(lambda: time.monotonic() - start > 2, bool, 10)
            return int(self.db.value(transactions)) - before, processor_ticks(pid) - cpu

        # the worker may have one more look at what was written, soon after it has ended
        wait_until(cost, lambda found: found[0] <= 3 and found[1] <= 4, 10, "nothing to go on")
        self.wait_no_worker(self.db)

        # one that is due before all of them is sent when it is
        collector = Collector(self.remote, "sooner")
        message = self.db.value("SELECT rinq_execute('sooner', 'x', deliver_after => '300 ms')")
        collector.wait(1)
        self.assertEqual(collector.ids, [message])
        self.assertEqual(self.status(self.db, "waiting"), "100000")

    def test_cancel(self):
        collector = Collector(self.remote, "back")
        gone = self.db.value("SELECT rinq_execute('back', 'x', '1', deliver_after => '500 ms')")
        kept = self.db.value("SELECT rinq_execute('back', 'x', '2', deliver_after => '600 ms')")
        self.assertEqual(self.db.value("SELECT rinq_execute_cancel('%s')" % gone), "t")
        self.assertEqual(self.db.value("SELECT rinq_execute_cancel('%s')" % gone), "f")
        self.db.sql("BEGIN; SELECT rinq_execute_cancel('%s'); ROLLBACK" % kept)
        collector.wait(1)
        self.assertEqual(collector.ids, [kept])
        self.assertEqual(self.db.value("SELECT rinq_execute_cancel('%s')" % kept), "f")

    def test_cancel_while_it_is_due(self):
        """A row that is locked when its time has come is waited for by nobody: others leave, and it does when it is let go."""
        collector = Collector(self.remote, "locked")
        with self.db.session() as one, self.db.session() as other:
            kept = one.value("SELECT rinq_execute('locked', 'x', '1', deliver_after => '900 ms')")
            gone = other.value("SELECT rinq_execute('locked', 'x', '2', deliver_after => '900 ms')")
            one.execute("BEGIN; SELECT rinq_execute_cancel('%s')" % kept)
            other.execute("BEGIN; SELECT rinq_execute_cancel('%s')" % gone)
            free = self.db.value("SELECT rinq_execute('locked', 'x', '3', deliver_after => '900 ms')")
            collector.wait(1)
            one.execute("ROLLBACK")
            other.execute("COMMIT")
            collector.wait(2)
        self.wait_nothing(self.db)
        self.assertEqual(collector.ids, [free, kept])

    def test_many_locked(self):
        """More rows that are locked than are looked at in one go do not stand in the way of those that are due after them."""
        collector = Collector(self.remote, "behind")
        self.db.sql("SELECT rinq_execute_many('behind', 'x', array_fill('1'::jsonb, ARRAY[600]), deliver_after => '1500 ms')")
        with self.db.session() as session:
            session.execute("BEGIN")
            self.assertEqual(session.value("WITH l AS (SELECT FROM rinq_internal.outbox_waiting FOR UPDATE) SELECT count(*) FROM l"), "600")
            free = self.db.value("SELECT rinq_execute('behind', 'x', '2', deliver_after => '1500 ms')")
            collector.wait(1)
            self.assertEqual(collector.ids, [free])
            session.execute("ROLLBACK")
        collector.wait(601)
        self.wait_nothing(self.db)

    def test_rollback_and_savepoints(self):
        collector = Collector(self.remote, "rolled")
        self.db.sql("BEGIN; SELECT rinq_execute('rolled', 'x', '1', deliver_after => '1 ms', key => 'a'); ROLLBACK")
        with self.db.session() as session:
            session.execute("BEGIN; SAVEPOINT s; SELECT rinq_execute('rolled', 'x', '2', deliver_after => '1 ms', key => 'b'); ROLLBACK TO s")
            message = session.value("SELECT rinq_execute('rolled', 'x', '3', deliver_after => '100 ms', key => 'b')")
            session.execute("COMMIT")
        collector.wait(1)
        self.assertEqual((collector.ids, collector.payloads), ([message], [3]))
        self.wait_nothing(self.db)

    def test_prepared(self):
        collector = Collector(self.remote, "prepared")
        self.db.sql("BEGIN; SELECT rinq_execute('prepared', 'x', '1', deliver_after => '100 ms'); SELECT rinq_execute('prepared', 'x', '2', ordering => 'a');"
                    " PREPARE TRANSACTION 'later'")
        self.db.sql("COMMIT PREPARED 'later'")
        collector.wait(2)
        self.assertEqual(sorted(collector.payloads), [1, 2])

    def test_deadline(self):
        """A timeout counts from when the message is to be sent."""
        collector = Collector(self.remote, "timed")
        message = self.db.value("SELECT rinq_execute('timed', 'x', '1', '10 s', deliver_after => '12 s')")
        self.assertEqual(self.db.value("SELECT abs(extract(epoch FROM deadline - due) - 10) < 0.01 FROM rinq_outbox WHERE id = '%s'" % message), "t")
        self.db.sql("SELECT rinq_execute_cancel('%s')" % message)
        message = self.db.value("SELECT rinq_execute('timed', 'x', '1', '10 s', deliver_after => '300 ms')")
        collector.wait(1)
        self.assertEqual(collector.ids, [message])

    def test_limit(self):
        """Messages that wait count for rinq.max_outbox."""
        self.addCleanup(self.server.configure, **{"rinq.max_outbox": None})
        self.server.configure(**{"rinq.max_outbox": "3"})
        wait_until(lambda: self.db.value("SHOW rinq.max_outbox"), lambda v: v == "3")
        ids = [self.db.value("SELECT rinq_execute('many', 'x', deliver_after => '1 h')") for _ in range(3)]
        for text in ("deliver_after => '1 h'", "ordering => 'a'", "NULL"):
            with self.assertRaises(SqlError) as caught:
                self.db.sql("SELECT rinq_execute('many', 'x', %s)" % text)
            self.assertSqlState(caught.exception, "53400")
        self.db.sql("SELECT rinq_execute_cancel('%s')" % ids[0])
        self.db.sql("SELECT rinq_execute('many', 'x', deliver_after => '1 h')")
        with self.assertRaises(SqlError):
            self.db.sql("SELECT rinq_execute_many('many', 'x', '{1,2}')")

    def test_broker_away(self):
        """What is due while there is no connection stays where it can be cancelled."""
        self.world.proxy.refuse()
        self.addCleanup(self.world.proxy.resume)
        self.world.proxy.cut()
        wait_until(lambda: self.db.peer()["state"], lambda s: s != "connected", 10, "the loss")
        gone, kept = (self.db.value("SELECT rinq_execute('away', 'x', deliver_after => '1 ms')") for _ in range(2))
        wait_until(lambda: sorted(self.outbox(self.db)), lambda rows: rows == sorted([(gone, "ready"), (kept, "ready")]), 10)
        self.assertEqual(self.db.value("SELECT rinq_execute_cancel('%s')" % gone), "t")
        self.world.proxy.resume()
        collector = Collector(self.peer(prefetch=0), "away")
        collector.wait(1, 30)
        self.wait_nothing(self.db)
        self.assertEqual(collector.ids, [kept])

    def test_tables_rewritten_and_locked(self):
        collector = Collector(self.remote, "full")
        ids = [self.db.value("SELECT rinq_execute('full', 'x', deliver_after => '%d ms', ordering => %s)" % (500 + i, ("NULL", "'o'")[i % 2])) for i in range(10)]
        for table in ("outbox_waiting", "outbox_ordered", "outbox_key"):
            self.db.sql("VACUUM FULL rinq_internal.%s" % table)
        with self.db.session() as session:
            session.execute("BEGIN; LOCK TABLE rinq_internal.outbox_waiting")
            other = self.db.value("SELECT rinq_execute('full', 'now')")
            wait_until(lambda: other in collector.ids, bool, 10, "a message that is sent at once")
            session.execute("COMMIT")
        collector.wait(11)
        self.assertEqual(sorted(collector.ids), sorted(ids + [other]))
        self.wait_nothing(self.db)

    def test_copy(self):
        """A copy of the database sets what it has brought along aside, and blocks nothing of its own by it."""
        self.db.value("SELECT rinq_execute('copied', 'x', '1', deliver_after => '1 h', key => 'k')")
        first = self.db.value("SELECT rinq_execute('copied', 'x', '2', ordering => 'o', deliver_after => '1 h')")
        collector = Collector(self.remote, "copied")
        copy = Database(self.server, self.db.name + "_copy")
        self.server.psql('CREATE DATABASE "%s" TEMPLATE "%s"' % (copy.name, self.db.name))
        self.addCleanup(copy.drop)
        copy.sql("SELECT rinq_adopt()")
        wait_until(lambda: copy.value("SELECT dead || ' ' || waiting FROM rinq_outbox_status"), lambda n: n == "2 0", 30, "all to be set aside")
        own = [copy.value("SELECT rinq_execute('copied', 'x', '3', ordering => 'o', key => 'k')"), copy.value("SELECT rinq_execute('copied', 'x', '3', key => 'k')")]
        self.assertEqual(own[0], own[1])
        collector.wait(1)
        self.assertEqual(collector.ids, own[:1])
        self.assertNotEqual(own[0], first)
        self.assertEqual(self.status(self.db, "waiting"), "2")


class Ordered(Case):
    def setUp(self):
        super().setUp()
        self.db = self.database()
        self.remote = self.peer(prefetch=0)

    def test_order(self):
        """Of each ordering in order, however many transactions write, and all of them once."""
        collector = Collector(self.remote, "order")
        sessions = [self.db.session() for _ in range(4)]
        sent = [[] for _ in sessions]
        for session in sessions:
            self.addCleanup(session.close)
        for _ in range(10):
            for n, session in enumerate(sessions):
                sent[n] += session.value("SELECT string_agg(rinq_execute('order', 'x', jsonb_build_object('o', o), ordering => %d || o), ' ') FROM unnest('{a,b}'::text[]) o, generate_series(1, 2)" % n).split()
        collector.wait(160)
        self.wait_nothing(self.db)
        self.assertEqual(len(set(collector.ids)), 160)
        self.assertEqual(len(collector.ids), 160)
        place = {id: n for n, id in enumerate(id for session in sent for id in session)}
        self.assertEqual(len(place), 160)
        for orderings in {(id_place // 40, one["o"]) for id_place, one in ((place[id], one) for id, one in zip(collector.ids, collector.payloads))}:
            places = [place[id] for id, one in zip(collector.ids, collector.payloads) if (place[id] // 40, one["o"]) == orderings]
            self.assertEqual(places, sorted(places))
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_internal.outbox_ordered"), "0")

    def test_clock_that_was_ahead_before_a_restart(self):
        """What was written then comes first, although its number is that of a later hour."""
        collector = Collector(self.remote, "ahead")
        self.db.sql("SELECT rinq_stop()")
        first = self.db.value("SELECT rinq_execute('ahead', 'x', '1', ordering => 'o')")
        self.db.sql("UPDATE rinq_internal.outbox_waiting SET seq = seq + 3600000000, place = place + 3600000000")
        self.server.restart()
        then = self.db.value("SELECT string_agg(rinq_execute('ahead', 'x', to_jsonb(n), ordering => 'o'), ' ') FROM generate_series(2, 4) n").split()
        self.db.sql("SELECT rinq_start()")
        collector.wait(4)
        self.assertEqual(collector.ids, [first] + then)

    def test_one_at_a_time(self):
        """The next leaves after the confirm of the one before, retries included; other orderings, and those without, are not held up."""
        channel = self.refuse_queue("narrow")
        self.db.sql("SELECT rinq_execute('narrow', 'fits')")
        wait_until(lambda: self.status(self.db, "depth"), lambda n: n == "0")
        first = self.db.value("SELECT rinq_execute('narrow', 'x', '1', ordering => 'o')")
        collector = Collector(self.remote, "wide")
        second = self.db.value("SELECT rinq_execute('wide', 'x', '2', ordering => 'o')")
        others = [self.db.value("SELECT rinq_execute('wide', 'x', '3', %s)" % more) for more in ("ordering => 'p'", "ordering => 'o2'", "NULL")]
        collector.wait(3)
        self.assertEqual(sorted(collector.ids), sorted(others))
        self.wait_states(self.db, *(["sending", "ordered"] if self.outbox(self.db)[0][1] == "sending" else ["ordered", "sending"]))
        row = self.db.sql("SELECT id, ordering FROM rinq_outbox WHERE state = 'ordered'")
        self.assertEqual(row, [[second, "o"]])
        channel.queue_purge("cmd.narrow")
        collector.wait(4, 30)
        self.assertEqual(collector.ids[3], second)
        self.wait_nothing(self.db)
        self.assertNotEqual(first, second)

    def test_set_aside(self):
        """What follows a message that was set aside waits until that is sent again, or deleted."""
        self.server.configure(**{"rinq.send_attempts": "1"})
        self.addCleanup(self.server.configure, **{"rinq.send_attempts": None})
        wait_until(lambda: self.db.value("SHOW rinq.send_attempts"), lambda v: v == "1")
        collector = Collector(self.remote, "after")
        for end in ("retry", "delete"):
            channel = self.refuse_queue("aside" + end)
            self.db.sql("SELECT rinq_execute('aside%s', 'fits')" % end)
            wait_until(lambda: self.status(self.db, "depth"), lambda n: n == "0")
            first = self.db.value("SELECT rinq_execute('aside%s', 'x', '1', ordering => '%s')" % (end, end))
            second = self.db.value("SELECT rinq_execute('after', 'x', '2', ordering => '%s')" % end)
            third = self.db.value("SELECT rinq_execute('after', 'x', '3', ordering => '%s')" % end)
            wait_until(lambda: self.status(self.db, "dead"), lambda n: n == "1", 20, "the message to be set aside")
            self.wait_states(self.db, "ordered", "ordered")
            self.assertEqual(collector.ids, [] if end == "retry" else collector.ids[:2])
            channel.queue_purge("cmd.aside" + end)
            before = len(collector.ids)
            self.assertEqual(self.db.value("SELECT rinq_outbox_dead_letter_%s('%s')" % (end, first)), "t")
            collector.wait(before + 2)
            self.assertEqual(collector.ids[before:], [second, third])
            self.wait_nothing(self.db)

    def test_cancelled_in_the_middle(self):
        channel = self.refuse_queue("middle")
        self.db.sql("SELECT rinq_execute('middle', 'fits')")
        wait_until(lambda: self.status(self.db, "depth"), lambda n: n == "0")
        self.db.sql("SELECT rinq_execute('middle', 'x', '1', ordering => 'o')")
        collector = Collector(self.remote, "rest")
        ids = [self.db.value("SELECT rinq_execute('rest', 'x', '%d', ordering => 'o')" % i) for i in range(4)]
        self.assertEqual(self.db.value("SELECT rinq_execute_cancel('%s')" % ids[0]), "t")
        self.assertEqual(self.db.value("SELECT rinq_execute_cancel('%s')" % ids[2]), "t")
        channel.queue_purge("cmd.middle")
        collector.wait(2, 30)
        self.assertEqual(collector.ids, [ids[1], ids[3]])
        self.wait_nothing(self.db)

    def test_first_is_locked(self):
        """The first of an ordering that another transaction has locked is looked at later and later, and goes when it is free."""
        collector = Collector(self.remote, "first")
        scans = "SELECT idx_scan FROM pg_stat_all_indexes WHERE indexrelname = 'outbox_waiting_due'"
        seen = [int(self.db.value(scans))]
        with self.db.session() as session:
            held = session.value("SELECT rinq_execute('first', 'x', '1', deliver_after => '900 ms', ordering => 'o')")
            self.assertEqual(len(session.execute("BEGIN; SELECT id FROM rinq_internal.outbox_waiting FOR UPDATE")), 1)
            # told once a second at most
            wait_until(lambda: int(self.db.value(scans)), lambda n: n > seen[-1] and (seen.append(n) or len(seen) > 4 and seen[-1] - seen[-3] < 10), 30,
                       "few looks in a second")
            free = self.db.value("SELECT rinq_execute('first', 'x', '2', ordering => 'p')")
            collector.wait(1)
            self.assertEqual(collector.ids, [free])
            session.execute("ROLLBACK")
        collector.wait(2)
        self.assertEqual(collector.ids, [free, held])

    def test_another_worker_removes(self):
        """The next goes also when the outbox worker has left before the confirm: another one removes the row before it looks."""
        self.server.configure(**{"rinq.executor_idle_timeout": "200ms"})
        self.addCleanup(self.server.configure, **{"rinq.executor_idle_timeout": None})
        collector = Collector(self.remote, "left")
        self.db.sql("SELECT rinq_execute('left', 'x', '0')")
        collector.wait(1)
        self.wait_nothing(self.db)
        self.world.proxy.silence(BROKER)
        self.addCleanup(self.world.proxy.resume)
        ids = [self.db.value("SELECT rinq_execute('left', 'x', '%d', ordering => 'o')" % i) for i in (1, 2)]
        collector.wait(2)
        self.wait_states(self.db, "sending", "ordered")
        self.wait_no_worker(self.db)
        self.world.proxy.resume()
        collector.wait(3)
        self.assertEqual(collector.ids[1:], ids)
        self.wait_nothing(self.db)

    def test_with_a_delay(self):
        """A delayed one takes its place when its time has come; those that are written meanwhile go first."""
        collector = Collector(self.remote, "mixed")
        later = self.db.value("SELECT rinq_execute('mixed', 'x', '1', deliver_after => '700 ms', ordering => 'o')")
        sooner = [self.db.value("SELECT rinq_execute('mixed', 'x', '2', ordering => 'o')") for _ in range(3)]
        collector.wait(4)
        self.assertEqual(collector.ids, sooner + [later])

    def test_many(self):
        collector = Collector(self.remote, "set")
        ids = [id for (id,) in self.db.sql("SELECT rinq_execute_many('set', 'x', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 50) i))")]
        collector.wait(50)
        self.assertEqual((collector.ids, collector.payloads), (ids, list(range(1, 51))))
        ids = [id for (id,) in self.db.sql("SELECT * FROM rinq_execute_many('set', 'x', ARRAY['1', NULL, '3']::jsonb[], ordering => 'o')")]
        collector.wait(53)
        self.assertEqual((collector.ids[50:], collector.payloads[50:]), (ids, [1, None, 3]))
        self.assertEqual(self.db.sql("SELECT rinq_execute_many('set', 'x', '{}')"), [])


class Keys(Case):
    def setUp(self):
        super().setUp()
        self.db = self.database()
        self.remote = self.peer(prefetch=0)
        self.once = "once." + self.db.name

    def execute(self, key, more="", role="postgres", namespace=None):
        return self.db.value("SELECT rinq_execute('%s', 'x', '1', key => '%s' %s)" % (namespace or self.once, key, more), role)

    def test_second_use(self):
        collector = Collector(self.remote, self.once)
        first = self.execute("a")
        self.assertEqual([self.execute("a"), self.execute("a", ", deliver_after => '1 s'"), self.execute("a", ", ordering => 'o'")], [first] * 3)
        other = self.execute("b")
        self.assertNotEqual(other, first)
        self.assertNotEqual(self.execute("a", namespace="elsewhere"), first)
        collector.wait(2)
        self.assertEqual(collector.ids, [first, other])
        self.wait_nothing(self.db)
        self.assertEqual(len(collector.ids), 2)

    def test_concurrent_use(self):
        """The second waits for the first one's commit; when that is rolled back, the second is sent."""
        collector = Collector(self.remote, self.once)
        for end in ("COMMIT", "ROLLBACK"):
            with self.db.session() as one:
                one.execute("BEGIN")
                first = one.value("SELECT rinq_execute('%s', 'x', '1', key => '%s')" % (self.once, end))
                second = self.db.start("SELECT rinq_execute('%s', 'x', '1', key => '%s')" % (self.once, end))
                wait_until(lambda: self.db.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"), lambda n: n == "1")
                one.execute(end)
                got = second.result()[0][0]
                self.assertEqual(got == first, end == "COMMIT")
        collector.wait(2)
        self.wait_nothing(self.db)
        self.assertEqual(len(collector.ids), 2)

    def test_third_use(self):
        """Who is told the id of the message that has a key stands in nobody's way."""
        first = self.execute("a")
        with self.db.session() as second, self.db.session() as third:
            execute = "SELECT rinq_execute('%s', 'x', '1', key => 'a')" % self.once
            second.execute("BEGIN")
            self.assertEqual(second.value(execute), first)
            self.assertEqual(third.value("SET statement_timeout = '20s'; " + execute), first)

        # also when both had to wait for the first use
        with self.db.session() as taker, self.db.session() as second, self.db.session() as third:
            execute = "SELECT rinq_execute('%s', 'x', '1', key => 'b')" % self.once
            taker.execute("BEGIN")
            first = taker.value(execute)
            for session in (second, third):
                session.execute("SET statement_timeout = '20s'; BEGIN")
                session.start(execute)
            waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid' AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())"
            wait_until(lambda: self.db.value(waiting), lambda n: n == "2", description="two that wait for the key")
            taker.execute("COMMIT")
            self.assertEqual([session.finish()[0][0] for session in (second, third)], [first, first])

    def test_retention(self):
        self.server.configure(**{"rinq.key_retention": "1s"})
        self.addCleanup(self.server.configure, **{"rinq.key_retention": None})
        wait_until(lambda: self.db.value("SHOW rinq.key_retention"), lambda v: v == "1s")
        first = self.execute("a")
        wait_until(lambda: self.execute("a"), lambda id: id != first, 10)
        waits = self.execute("b", ", deliver_after => '1 h'")
        self.db.sql("UPDATE rinq_internal.outbox_key SET used = used - interval '10 min' WHERE key = 'a'")
        self.assertEqual(self.execute("b"), waits)

        # the outbox worker forgets those that are old
        self.db.sql("SELECT rinq_stop()")
        self.db.sql("SELECT rinq_start()")
        wait_until(lambda: self.db.sql("SELECT key FROM rinq_internal.outbox_key"), lambda rows: rows == [["b"]], 30, "the key to be forgotten")

    def test_many_old_keys(self):
        """However many are too old, they are forgotten one piece after the other."""
        self.db.sql("INSERT INTO rinq_internal.outbox_key SELECT 10, 'once', 'k' || i, 'none', now() - interval '1 year', 0 FROM generate_series(1, 7000) i")
        self.db.sql("SELECT rinq_stop()")
        self.db.sql("SELECT rinq_start()")
        self.execute("a")
        wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_internal.outbox_key"), lambda n: n == "1", 20, "the keys to be forgotten")

    def test_cancelled(self):
        """The key of a message that was cancelled can be used again."""
        first = self.execute("a", ", deliver_after => '1 h'")
        self.assertEqual(self.execute("a"), first)
        self.db.sql("SELECT rinq_execute_cancel('%s')" % first)
        collector = Collector(self.remote, self.once)
        second = self.execute("a")
        collector.wait(1)
        self.assertEqual(collector.ids, [second])

    def test_roles(self):
        """Keys, orderings and messages of one role are nothing to others, but for administrators."""
        for role in ("later_one", "later_other"):
            self.db.role(role)
            self.addCleanup(self.server.psql, "DROP ROLE " + role)
            self.addCleanup(self.db.sql, "DROP OWNED BY " + role)
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_execute, rinq_execute_cancel TO later_one, later_other; GRANT SELECT ON rinq_outbox TO later_one, later_other")
        one = self.execute("a", ", deliver_after => '1 h'", "later_one")
        other = self.execute("a", ", deliver_after => '1 h'", "later_other")
        self.assertNotEqual(one, other)
        self.assertEqual(self.db.sql("SELECT id FROM rinq_outbox", "later_one"), [[one]])
        self.assertEqual(self.db.value("SELECT rinq_execute_cancel('%s')" % one, "later_other"), "f")
        with self.db.session() as session:
            execute = "SELECT rinq_execute('%s', 'x', key => 'k', ordering => 'o')" % self.once
            session.execute("SET ROLE later_one; BEGIN; " + execute)
            collector = Collector(self.remote, self.once)
            got = self.db.value(execute, "later_other")
            collector.wait(1)
            self.assertEqual(collector.ids, [got])
            session.execute("ROLLBACK")
        self.assertEqual(self.db.value("SELECT rinq_execute_cancel('%s')" % one, "later_one"), "t")
        self.assertEqual(self.db.value("SELECT rinq_execute_cancel('%s')" % other), "t")


class Faults(Case):
    """Each message once, in the order of its ordering, whatever ends."""

    expects_crash = True

    @classmethod
    def make_world(cls):
        world = case.new_world("later")
        cls.addClassCleanup(world.close)
        return world

    def setUp(self):
        super().setUp()
        self.db = self.database()
        self.remote = self.peer(prefetch=0)

    def worker(self):
        return self.db.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'rinq outbox' AND datname = current_database()")

    def test_ends(self):
        collector = Collector(self.remote, "ends")
        sent = []
        ends = {"worker": lambda: os.kill(int(self.worker() or 0) or int(self.db.peer()["pid"]), signal.SIGTERM),
                "peer": lambda: os.kill(int(self.db.peer()["pid"]), signal.SIGTERM),
                "connection": self.world.proxy.cut,
                "killed": lambda: os.kill(int(self.db.peer()["pid"]), signal.SIGKILL),
                "server": lambda: self.server.restart()}
        for name, end in ends.items():
            ids = self.db.sql("SELECT rinq_execute('ends', 'x', jsonb_build_object('o', o, 'n', i), ordering => '%s' || o, deliver_after => CASE WHEN o = 3 THEN interval '300 ms' END)"
                              " FROM generate_series(1, 40) i, generate_series(1, 3) o" % name)
            sent += [id for (id,) in ids]
            end()
            wait_until(lambda: self.running(), bool, 30, "the server")
            wait_until(lambda: len(set(collector.ids)), lambda n: n == len(sent), 60, "all messages after the end of " + name)
            self.wait_nothing(self.db)
        self.assertEqual(set(collector.ids), set(sent))
        seen = set()
        order = {}
        place = {id: n for n, id in enumerate(sent)}
        for id, payload in zip(collector.ids, collector.payloads):
            if id in seen:
                continue
            seen.add(id)
            line = (place[id] // 120, payload["o"])
            self.assertEqual(payload["n"], order.get(line, 0) + 1)
            order[line] = payload["n"]

    def running(self):
        try:
            return self.db.value("SELECT 1") == "1"
        except SqlError:
            return False

    def test_found_again_after_a_restart(self):
        ids = [self.db.value("SELECT rinq_execute('again', 'x', deliver_after => '%s')" % delay) for delay in ("1.5 s", "1 h")]
        self.server.restart()
        wait_until(lambda: self.running(), bool, 30, "the server")
        collector = Collector(self.remote, "again")
        collector.wait(1, 30)
        self.assertEqual(collector.ids, ids[:1])
        self.assertEqual(self.status(self.db, "waiting"), "1")

    def test_dropped(self):
        """DROP EXTENSION says how many are lost."""
        self.db.sql("SELECT rinq_execute('gone', 'x', deliver_after => '1 h') FROM generate_series(1, 3)")
        mark = self.server.log_mark()
        self.db.sql("DROP EXTENSION rinq CASCADE")
        self.assertIn("3 durable messages have not been sent", self.server.log_since(mark))

