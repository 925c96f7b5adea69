"""Notifications of subscriptions with a retry policy: tried again, then set aside; and those of subscriptions without one, which are not."""

import json
import os
import signal

import cbor2

from rinqtest import case, versions
from rinqtest.inbox import QUICK, SLOW, InboxLooks, failing_body
from rinqtest.server import quote
from rinqtest.waiting import wait_until

BODY = failing_body("n.id, n.attempt, n.trace_id, n.target, session_user, n.type, n", "type", "n")


class KeptCase(InboxLooks, case.OwnDatabaseCase):
    def setUp(self):
        super().setUp()
        self.prepare()

    def prepare(self):
        self.db.sql("CREATE TABLE effects (id text, attempt int, trace text, target text, who name, type text, n rinq_notification); CREATE SEQUENCE attempts;"
                    " GRANT ALL ON effects TO PUBLIC; GRANT ALL ON SEQUENCE attempts TO PUBLIC")
        self.define("handle", BODY)

    def define(self, name, body):
        self.db.sql("CREATE OR REPLACE FUNCTION %s(n rinq_notification) RETURNS void LANGUAGE plpgsql AS $$ BEGIN %s END $$" % (name, body))

    def subscribe(self, name, policy, handler="handle", namespace="news", role="postgres", wait=True, attributes="{}"):
        self.db.sql("SELECT rinq_subscribe(%s, %s, '%s(rinq_notification)', %s, retry => %s)"
                    % (quote(name), quote(namespace), handler, quote(attributes), "NULL" if policy is None else quote(json.dumps(policy))), role)
        return self.db.wait_subscription(name) if wait else None

    def notify(self, kind, payload="null", namespace="news", constraint="{*}", trace=None):
        """Send one from SQL, and return its id."""
        with self.db.session() as session:
            if trace is not None:
                session.execute("SET rinq.trace_id = %s" % quote(trace))
            return session.value("SELECT rinq_notify_many(%s, %s, %s, %s)" % (quote(namespace), quote(kind), quote(constraint), quote(str(payload))))

    def counters(self):
        row = self.db.peer()
        return [row[name] for name in ("notifications_retried", "notifications_set_aside", "notifications_failed", "notifications_dropped")]


class Kept(KeptCase):
    def test_until_it_succeeds(self):
        session = self.subscribe("s", QUICK)
        before = self.counters()
        id = self.notify("until", 3, trace="why")
        wait_until(self.effects, lambda rows: rows == [(id, 3)])
        self.assertEqual(self.attempts(), 3)
        self.assertEqual(self.db.sql("SELECT trace, target, (n).namespace, (n).is_multicast, (n).filter, (n).payload, (n).first_received < now(), (n).source = %s FROM effects"
                                     % "split_part((n).id, '#', 1)"), [["why", session, "news", "t", "{*}", "3", "t", "t"]])
        self.settled()
        self.assertEqual([after - was for after, was in zip(self.counters(), before)], [2, 0, 0, 0])
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_inbox_dead_letter"), "0")

    def test_until_it_is_set_aside(self):
        session = self.subscribe("s", QUICK)
        before = self.counters()
        id = self.notify("until", 9, trace="why", constraint='{a!=b}')
        row = self.dead(id)
        self.assertEqual([row[name] for name in ("kind", "subscription", "attempts", "namespace", "command", "trace_id", "target", "handler")],
                         ["notification", "s", 3, "news", "until", "why", session, "public.handle(public.rinq_notification)"])
        self.assertEqual([row[name] for name in ("sqlstate", "error", "detail", "hint", "deadline")], ["P0001", "not before attempt 9", "the detail", "the hint", None])
        self.assertIn("PL/pgSQL function handle(rinq_notification)", row["context"])
        self.assertEqual(cbor2.loads(bytes.fromhex(row["payload"][2:])), 9)
        self.assertEqual(self.db.value("SELECT rinq_from_cbor(filter)::rinq_constraint FROM rinq_inbox_dead_letter"), "{a!=b}")
        self.assertEqual((self.effects(), self.attempts()), ([], 3))
        self.settled()
        self.assertEqual([after - was for after, was in zip(self.counters(), before)], [2, 1, 0, 0])
        self.assertEqual(self.db.value("SELECT message LIKE 'requests and notifications that were set aside: 1,%' FROM rinq_check() WHERE subject = 'view rinq_inbox_dead_letter'"), "t")
        self.assertIn("rinq has set a notification aside after attempt 3", self.server.log_since(self.log_start))
        # again, from the beginning of its policy
        self.assertEqual(self.db.value("SELECT rinq_inbox_dead_letter_retry('%s')" % id), "t")
        self.assertEqual(self.dead(id, where="attempts = 6")["error"], "not before attempt 9")
        self.define("handle", "INSERT INTO effects (id, attempt, target) VALUES (n.id, n.attempt, n.target);")
        self.assertEqual(self.db.value("SELECT rinq_inbox_dead_letter_retry('%s', now() + interval '100 ms')" % id), "t")
        wait_until(self.effects, lambda rows: rows == [(id, 7)])

    def test_at_once(self):
        """One attempt is a policy, too; failures and errors are the same."""
        self.subscribe("s", {"attempts": 1})
        for kind, state, text in (("until", "P0001", "not before attempt 2"), ("fail", "RQ001", "sold out"), ("other", "20000", "case not found")):
            row = self.dead(self.notify(kind, 2))
            self.assertEqual((row["attempts"], row["sqlstate"], row["error"]), (1, state, text))
        self.assertEqual(self.effects(), [])

    def test_without_a_policy(self):
        """At most once: a line in the log, and it is counted."""
        self.subscribe("s", None)
        self.assertEqual(self.db.sql("SELECT retry FROM rinq_subscriptions"), [[None]])
        before = self.counters()
        self.notify("until", 2)
        id = self.notify("ok")
        wait_until(self.effects, lambda rows: rows == [(id, 1)])
        self.assertEqual(self.attempts(), 2)
        self.assertEqual([after - was for after, was in zip(self.counters(), before)], [0, 0, 1, 0])
        self.assertIn("not before attempt 2", self.server.log_since(self.log_start))
        self.assertEqual(self.db.sql("SELECT waiting, dead FROM rinq_inbox_status"), [["0", "0"]])

    def test_handler_that_asks_for_another_attempt(self):
        """With a policy and without one; a handler of a session, which no subscription keeps, only has an error."""
        self.subscribe("with", QUICK, namespace="with")
        self.subscribe("without", None, namespace="without")
        for namespace, attempts in (("with", 3), ("without", 5)):
            id = self.notify("late", namespace=namespace)
            wait_until(self.effects, lambda rows: (id, 2) in rows)
            row = self.dead(self.notify("again", namespace=namespace))
            self.assertEqual((row["attempts"], row["error"], row["sqlstate"]), (attempts, "for ever", "RQ010"))
        self.db.sql("SELECT rinq_session_listen(rinq_session_create(), 'plain', 'handle(rinq_notification)')")
        failed = self.db.peer()["notifications_failed"]
        self.notify("late", namespace="plain")
        wait_until(lambda: self.db.peer()["notifications_failed"], lambda n: n == failed + 1)
        self.assertEqual(self.db.value("SELECT dead FROM rinq_inbox_status"), "2")

    def test_two_subscriptions(self):
        """Each has its own: what one fails to handle, the other has handled."""
        self.define("fails", "PERFORM nextval('attempts'); RAISE EXCEPTION 'not this one';")
        for name, handler in (("fails", "fails"), ("fails too", "fails"), ("works", "handle"), ("plain", "handle")):
            self.subscribe(name, None if name == "plain" else {"attempts": 1}, handler)
        id = self.notify("ok")
        wait_until(self.effects, lambda rows: rows == [(id, 1), (id, 1)])
        names = lambda: self.db.sql("SELECT subscription FROM rinq_inbox_dead_letter ORDER BY 1")
        wait_until(names, lambda rows: rows == [["fails"], ["fails too"]])
        self.assertEqual(self.db.value("SELECT rinq_inbox_dead_letter_retry('%s', subscription => 'works')" % id), "f")
        self.assertEqual(self.db.value("SELECT rinq_inbox_dead_letter_retry('%s', 'infinity', 'fails too')" % id), "t")
        self.assertEqual(names(), [["fails"]])
        self.assertEqual(self.waiting(id)["subscription"], "fails too")
        self.assertEqual(self.db.value("SELECT rinq_inbox_waiting_retry('%s', subscription => 'fails')" % id), "f")
        self.assertEqual(self.db.value("SELECT rinq_inbox_waiting_delete('%s', 'fails')" % id), "f")
        self.assertEqual(self.db.value("SELECT rinq_inbox_dead_letter_delete('%s', 'fails too')" % id), "f")
        self.define("fails", "INSERT INTO effects VALUES (n.id, n.attempt, n.trace_id, n.target, session_user);")
        self.assertEqual(self.db.value("SELECT rinq_inbox_waiting_retry('%s', subscription => 'fails too')" % id), "t")
        wait_until(self.effects, lambda rows: rows == [(id, 1), (id, 1), (id, 2)])
        self.assertEqual(self.db.value("SELECT rinq_inbox_dead_letter_delete('%s', 'fails')" % id), "t")
        self.assertEqual(self.db.sql("SELECT waiting, dead FROM rinq_inbox_status"), [["0", "0"]])

    def test_many(self):
        """One after another, while others come; to one session as well, from another peer."""
        session = self.subscribe("s", QUICK)
        ids = [self.notify("until", 1 + number % 4) for number in range(40)]
        for number in range(10):
            ids.append(self.remote.next_id())
            self.remote.publish_raw("ntf.uc", "news.%s" % session.rpartition(".")[0], cbor2.dumps(2), {"n": "news", "t": session},
                                    type="until", message_id=ids[-1])
        bad = {id for number, id in enumerate(ids[:40]) if number % 4 == 3}
        wait_until(lambda: {id for id, _ in self.effects()}, lambda found: found == set(ids) - bad, 30)
        wait_until(lambda: {id for (id,) in self.db.sql("SELECT id FROM rinq_inbox_dead_letter")}, lambda found: found == bad, 30)
        self.assertEqual(len(self.effects()), len(ids) - len(bad))
        self.define("handle", "INSERT INTO effects VALUES (n.id, n.attempt);")
        self.db.sql("SELECT rinq_inbox_dead_letter_retry(id) FROM rinq_inbox_dead_letter WHERE kind = 'notification'")
        wait_until(lambda: len(self.effects()), lambda n: n == len(ids), 30)
        self.settled()


class Refused(KeptCase):
    """Handlers that cannot be run, and payloads that they cannot have."""

    def test_function(self):
        self.define("moving", BODY)
        self.subscribe("s", dict(QUICK, attempts=1000), "moving")
        self.db.sql("ALTER FUNCTION moving(rinq_notification) RENAME TO moved; DROP FUNCTION moved(rinq_notification)")
        id = self.notify("ok")
        row = self.waiting(id)
        self.assertEqual((row["error"], row["sqlstate"]), ("the handler does not exist", "42883"))
        self.define("moved", BODY)
        wait_until(self.effects, lambda rows: [row[0] for row in rows] == [id])
        self.settled()

    def test_payload(self):
        """And a type that this database cannot hold, which no attempt can get right."""
        session = self.subscribe("s", {"attempts": 2, "first_delay": "20 ms", "max_delay": "20 ms"})
        id, payload = self.remote.next_id(), cbor2.dumps({"text": "a\0b"})
        self.remote.publish_raw("ntf.uc", "news.%s" % session.rpartition(".")[0], payload, {"n": "news", "t": session}, type="ok", message_id=id)
        row = self.dead(id)
        self.assertEqual((row["sqlstate"], bytes.fromhex(row["payload"][2:]), row["filter"], row["attempts"]), ("22P05", payload, None, 2))
        latin = self.database(encoding="LATIN1")
        self.db = latin
        self.prepare()
        session = self.subscribe("s", QUICK)
        id = self.remote.next_id()
        self.remote.publish_raw("ntf.uc", "news.%s" % session.rpartition(".")[0], cbor2.dumps(None), {"n": "news", "t": session}, type="日", message_id=id)
        row = self.dead(id)
        self.assertEqual((row["command"].strip("?"), row["attempts"]), ("", 1))

    def test_role(self):
        """It may not log in any more, or connect: what comes is written down, and handled once it may."""
        if not versions.handlers_need_login():
            self.skipTest("handlers of roles without LOGIN run")
        self.db.role("leaving")
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_subscribe TO leaving")
        self.subscribe("s", dict(QUICK, attempts=2), role="leaving")
        wait_until(lambda: self.notify("ok") and self.db.value("SELECT who FROM effects LIMIT 1"), lambda who: who == "leaving")
        self.db.sql("ALTER ROLE leaving NOLOGIN; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'leaving'")
        try:
            id = self.notify("ok")
            row = self.dead(id, 30)
            self.assertEqual((row["error"], row["attempts"]), ("the handler cannot be run", 2))
            self.db.wait_subscription("s")
            self.server.wait_log('cannot run the handler of subscription "s"', self.log_start)
            self.db.sql("ALTER ROLE leaving LOGIN; SELECT rinq_inbox_dead_letter_retry('%s')" % id)
            wait_until(self.effects, lambda rows: id in [row[0] for row in rows], 20)
        finally:
            self.db.sql("SELECT rinq_unsubscribe('s'); DROP OWNED BY leaving; DROP ROLE leaving")


class Waiting(KeptCase):
    """What waits, through everything."""

    def test_survives_everything(self):
        session = self.subscribe("s", SLOW)
        id = self.notify("until", 3)
        row = self.waiting(id)
        self.assertEqual((row["kind"], row["subscription"], row["attempts"]), ("notification", "s", 1))
        self.db.sql("SELECT rinq_stop(); SELECT rinq_start(); SELECT rinq_wait_ready()")
        self.world.proxy.cut()
        self.db.wait_new_peer(self.db.peer(), 30)
        self.assertEqual(self.waiting(id), row)
        self.db.sql("SELECT rinq_inbox_waiting_retry('%s', now() + interval '300 ms')" % id)
        self.db.sql("SELECT pg_terminate_backend(%d)" % self.db.peer()["pid"])
        row = self.waiting(id, where="attempts = 2")
        self.assertEqual((self.attempts(), row["target"]), (2, session))
        self.assertEqual(self.db.value("SELECT rinq_inbox_waiting_retry('%s')" % id), "t")
        wait_until(self.effects, lambda rows: rows == [(id, 3)], 20)
        self.assertEqual(self.db.value("SELECT target FROM effects"), session)
        self.settled()

    def test_others_pass(self):
        """It holds neither an executor nor the turn of its subscription."""
        self.subscribe("s", SLOW)
        kept = [self.notify("until", 2) for _ in range(5)]
        id = self.notify("ok")
        wait_until(self.effects, lambda rows: rows == [(id, 1)])
        self.assertEqual(self.db.value("SELECT waiting FROM rinq_inbox_status"), "5")
        self.assertEqual(self.db.value("SELECT sum(rinq_inbox_waiting_retry(id)::int) FROM rinq_inbox_waiting"), "5")
        wait_until(self.effects, lambda rows: sorted(row[0] for row in rows if row[1] == 2) == sorted(kept), 20)

    def test_one_at_a_time(self):
        """Attempts at what was kept do not run beside each other, or beside what comes."""
        self.subscribe("s", dict(QUICK, attempts=2))
        running = lambda: int(self.db.value("SELECT count(*) FROM pg_stat_activity WHERE query = 'rinq: news::gate' AND wait_event = 'advisory'"))
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(4711)")
            for _ in range(3):
                self.notify("gate")
            wait_until(running, lambda n: n == 1)
            first = self.notify("ok")
            self.db.sql("INSERT INTO rinq_internal.inbox_waiting (id, digest, source, namespace, command, trace_id, handler, attempts, first_received, last_attempt, error,"
                        " subscription, target, tries, due, database) SELECT '1-0001.1@0#' || i, '', '1-0001.1@0', 'news', 'ok', 't', 'h', 1, now(), now(), 'e', 's', '1-0001.1', 0, now(), d.oid"
                        " FROM pg_database d, generate_series(1, 3) i WHERE d.datname = current_database()")
            wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_inbox_waiting"), lambda n: n == "3")
            self.assertEqual((running(), self.effects()), (1, []))
        wait_until(self.effects, lambda rows: len(rows) == 4, 20)
        wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_inbox_dead_letter"), lambda n: n == "3", 20)
        self.assertIn((first, 1), self.effects())

    def test_backlog(self):
        """However much is due, one is on its way at a time: what comes waits for that one, not for all of them."""
        self.define("handle", "INSERT INTO effects (id, attempt) VALUES (n.id, nextval('attempts'));"
                    " IF currval('attempts') = 20 THEN PERFORM pg_advisory_xact_lock_shared(4711); ELSE PERFORM pg_sleep(0.005); END IF;")
        self.subscribe("s", SLOW)
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(4711)")
            self.db.sql("INSERT INTO rinq_internal.inbox_waiting (id, digest, source, namespace, command, trace_id, handler, attempts, first_received, last_attempt, error,"
                        " subscription, target, tries, due, database) SELECT '1-0001.1@0#' || i, '', '1-0001.1@0', 'news', 'due', 't', 'h', 1, now(), now(), 'e', 's', '1-0001.1', 0, now(), d.oid"
                        " FROM pg_database d, generate_series(1, 60) i WHERE d.datname = current_database()")
            wait_until(lambda: self.db.value("SELECT count(*) FROM pg_stat_activity WHERE query = 'rinq: news::due' AND wait_event = 'advisory'"), lambda n: n == "1", 20)
            received = self.db.peer()["notifications_received"]
            id = self.notify("comes")
            wait_until(lambda: self.db.peer()["notifications_received"], lambda n: n == received + 1)
        wait_until(self.effects, lambda rows: len(rows) == 61, 30)
        self.assertLess(dict(self.effects())[id], 24)

    def test_lost_connection(self):
        """What has come is handled, in its order, although its session has ended; without a policy it is dropped."""
        self.subscribe("kept", {"attempts": 1}, namespace="kept")
        self.subscribe("plain", None, namespace="plain")
        # others have held the executors meanwhile
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(4711)")
            ids = {namespace: [self.notify(kind, namespace=namespace) for kind in ["gate"] + ["ok"] * 5] for namespace in ("kept", "plain")}
            wait_until(lambda: self.db.value("SELECT count(*) FROM pg_stat_activity WHERE query ~ 'rinq: (kept|plain)::gate' AND wait_event = 'advisory'"), lambda n: n == "2")
            wait_until(lambda: self.db.peer()["notifications_received"], lambda n: n == 12)
            before = self.db.peer()
            self.world.proxy.cut()
            self.db.wait_new_peer(before, 30)
            wait_until(lambda: self.db.peer()["notifications_dropped"] - before["notifications_dropped"], lambda n: n == 5)
        wait_until(self.effects, lambda rows: len(rows) == 5, 20)
        self.assertEqual([row[0] for row in self.db.sql("SELECT id FROM effects")], ids["kept"][1:])
        self.assertEqual(self.dead(ids["kept"][0])["error"], "after the gate")

    def test_changed(self):
        """Attempts follow the subscription as it is then: handler, policy, namespace; dropped, it waits for another one of the name."""
        self.subscribe("s", SLOW)
        first, second = self.notify("until", 9), self.notify("until", 9)
        for id in (first, second):
            self.waiting(id)
        self.define("other", "INSERT INTO effects VALUES (n.id, n.attempt, n.trace_id, n.target, session_user, 'other', n);")
        session = self.db.wait_subscription("s")
        self.subscribe("s", QUICK)
        self.db.sql("SELECT rinq_wait_ready()")
        self.assertEqual(self.db.wait_subscription("s"), session, "a policy needs no new session")
        self.db.sql("SELECT rinq_inbox_waiting_retry('%s')" % first)
        self.assertEqual(self.dead(first)["attempts"], 4 - 1)
        self.db.sql("SELECT rinq_unsubscribe('s'); SELECT rinq_inbox_waiting_retry('%s')" % second)
        self.subscribe("t", QUICK)
        id = self.notify("ok")
        wait_until(self.effects, lambda rows: rows == [(id, 1)])
        self.assertEqual(self.waiting(second)["attempts"], 1)
        self.subscribe("s", None, "other", "another")
        wait_until(lambda: self.db.sql("SELECT id, type, (n).namespace FROM effects WHERE attempt > 1"), lambda rows: rows == [[second, "other", "news"]], 20)
        self.settled()

    def test_cannot_be_written_down(self):
        """The table refuses: the peer comes with it again, later and later, and it is kept once that is possible."""
        self.subscribe("s", {"attempts": 1})
        self.db.sql("ALTER TABLE rinq_internal.inbox_dead_letter ADD CONSTRAINT nothing CHECK (attempts < 0) NOT VALID")
        try:
            id = self.notify("until", 99)
            text = "its columns, constraints, defaults or indexes have changed"
            wait_until(lambda: self.server.log_since(self.log_start).count(text), lambda n: n >= 3, 20)
            self.assertEqual(self.attempts(), 1, "it does not run again while it is not known whether it is kept")
        finally:
            self.db.sql("ALTER TABLE rinq_internal.inbox_dead_letter DROP CONSTRAINT nothing")
        self.assertGreaterEqual(self.dead(id, 60)["attempts"], 2)
        self.assertEqual(self.effects(), [])

    def test_attributes_that_cannot_be_sent(self):
        """There is no session then; what waits keeps to its policy, and is handled once there is one again."""
        session = self.subscribe("s", SLOW)
        id = self.notify("until", 3)
        self.waiting(id)
        self.db.sql("UPDATE rinq_internal.subscription SET attributes = jsonb_build_object('x', repeat('x', 70000))")
        self.server.wait_log('"s": its attributes are too large', self.log_start)
        wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_sessions WHERE id = %s" % quote(session)), lambda n: n == "0")
        self.db.sql("SELECT rinq_inbox_waiting_retry('%s')" % id)
        self.assertEqual(self.waiting(id, where="attempts = 2 AND due > now() + interval '1 minute'")["error"], "the handler cannot be run")
        self.db.sql("UPDATE rinq_internal.subscription SET attributes = '{}'")
        self.db.wait_subscription("s")
        self.db.sql("SELECT rinq_inbox_waiting_retry('%s')" % id)
        wait_until(self.effects, lambda rows: rows == [(id, 3)], 20)

    def test_ended_too_often(self):
        """By its handler, which has ended its process at each attempt since it was put here: the row is as the last one has left it."""
        self.subscribe("s", SLOW)
        id = self.notify("until", 2)
        self.waiting(id)
        self.db.sql("UPDATE rinq_internal.inbox_waiting SET tries = 1000, last_attempt = now() - interval '11 s', due = now() - interval '1 s'")
        row = self.dead(id)
        self.assertEqual((row["attempts"], row["sqlstate"]), (2, None))
        self.assertIn("the notification was given up, since its handler has ended its process", row["error"])
        self.assertEqual((self.attempts(), self.effects()), (1, []))

    def test_dumped_and_copied(self):
        """The policy is part of a dump; a copy does not handle what waits in its original."""
        self.subscribe("s", SLOW)
        id = self.notify("until", 2)
        self.waiting(id)
        scratch, environment = self.world.scratch, dict(self.server.base_environment())
        path = scratch.path("dump-kept.sql")
        scratch.run([self.server.tool("pg_dump"), "-f", path, self.db.name], env=environment, cwd="/")
        restored = self.database(extension=False)
        scratch.run([self.server.tool("psql"), "-Xq", "-v", "ON_ERROR_STOP=1", "-d", restored.name, "-f", path], env=environment, cwd="/")
        self.assertEqual(json.loads(restored.value("SELECT retry FROM rinq_internal.subscription")), SLOW)
        self.server.psql('CREATE DATABASE the_kept_copy TEMPLATE "%s"' % self.db.name)
        try:
            value = lambda text: self.server.value(text, database="the_kept_copy")
            value("SELECT rinq_adopt()")
            value("UPDATE rinq_internal.inbox_waiting SET due = now()")
            value("SELECT rinq_wait_ready()")
            self.assertEqual(value("SELECT attempts FROM rinq_inbox_waiting"), "1")
            self.assertEqual(value("SELECT rinq_inbox_waiting_retry('%s')" % id), "t")
            wait_until(lambda: value("SELECT count(*) FROM effects"), lambda n: n == "1")
        finally:
            self.server.psql("DROP DATABASE the_kept_copy")

    def test_dropped_with_the_extension(self):
        self.subscribe("s", SLOW)
        self.waiting(self.notify("until", 2))
        mark = self.server.log_mark()
        self.db.sql("DROP EXTENSION rinq CASCADE; CREATE EXTENSION rinq")
        self.server.wait_log("1 notification waits for its next attempt, and is dropped with rinq", mark)


class Ends(KeptCase):
    """Handlers that end their process."""

    def test_executor(self):
        """It is run again at once, then later and later, and set aside in the end: whether the first attempt was, or one that was kept."""
        self.server.configure(**{"rinq.max_attempts": "2"})
        self.addCleanup(self.server.configure, **{"rinq.max_attempts": None})
        self.subscribe("s", {"attempts": 1})
        self.subscribe("plain", None, namespace="plain")
        id, after = self.notify("die"), self.notify("ok")
        row = self.dead(id, 30)
        self.assertEqual((row["error"], row["attempts"], row["sqlstate"]), ("the notification was given up after 2 attempts", 2, None))
        wait_until(self.effects, lambda rows: rows == [(after, 1)])
        self.notify("die", namespace="plain")
        self.server.wait_log("rinq gives up a notification after 2 attempts", self.log_start, 20)
        self.assertEqual(self.db.value("SELECT dead FROM rinq_inbox_status"), "1")

    def test_limit_that_is_ignored(self):
        """A handler that cannot be ended in order is run again as one that ends its process."""
        self.server.configure(**{"rinq.max_attempts": "1", "rinq.handler_timeout": "100ms"})
        self.addCleanup(self.server.configure, **{"rinq.max_attempts": None, "rinq.handler_timeout": None})
        self.define("stubborn", "LOOP BEGIN PERFORM pg_sleep(10); EXCEPTION WHEN query_canceled THEN NULL; END; END LOOP;")
        self.subscribe("s", {"attempts": 1}, "stubborn")
        self.assertEqual(self.dead(self.notify("x"), 40)["attempts"], 1)


class Crashes(KeptCase):
    """The server is killed between attempts: nothing that was kept is lost, and nothing is handled twice."""

    expects_crash = True

    @classmethod
    def make_world(cls):
        return case.new_world("kept")

    @classmethod
    def tearDownClass(cls):
        cls.world.close()

    def test_kill(self):
        self.subscribe("s", {"attempts": 6, "first_delay": "100 ms", "max_delay": "300 ms"})
        good = [self.notify("until", 2 + number % 3) for number in range(30)]
        bad = [self.notify("until", 99) for _ in range(10)]
        # all were handled once, and so are kept
        wait_until(lambda: self.db.peer()["notifications_retried"] + self.db.peer()["notifications_set_aside"] > 0 and self.attempts() >= 40, timeout=30)
        wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_inbox_waiting WHERE attempts = 1 AND due > now() + interval '1 s'"), lambda n: n == "0")
        known = {id for (id,) in self.db.sql("SELECT id FROM rinq_inbox_waiting UNION ALL SELECT id FROM rinq_inbox_dead_letter UNION ALL SELECT id FROM effects")}
        self.server.kill()
        self.server.start(timeout=60)
        handled = lambda: [id for id, _ in self.effects()]
        dead = lambda: {id for (id,) in self.db.sql("SELECT id FROM rinq_inbox_dead_letter")}
        self.settled(60)
        self.assertEqual(known - set(handled()) - dead(), set())
        self.assertEqual(len(handled()), len(set(handled())), "none is handled twice")
        self.assertEqual(set(handled()) & dead(), set())
        self.assertLessEqual(set(handled()), set(good))
        self.assertGreaterEqual(len(known), 30)
        self.assertEqual(dead() & set(bad), known & set(bad))

    def test_kill_executor(self):
        """That restarts the whole server; a handler of what was kept runs again."""
        self.subscribe("s", {"attempts": 3, "first_delay": "100 ms", "max_delay": "100 ms"})
        id = self.notify("until", 2)
        wait_until(self.effects, lambda rows: rows == [(id, 2)], 20)
        self.define("handle", "PERFORM nextval('attempts'); IF n.attempt = 1 THEN RAISE 'kept'; END IF; PERFORM pg_advisory_xact_lock_shared(4711);"
                              " INSERT INTO effects VALUES (n.id, n.attempt);")
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(4711)")
            id = self.notify("x")
            pid = wait_until(lambda: self.db.value("SELECT max(pid) FROM pg_stat_activity WHERE backend_type = 'rinq executor' AND wait_event = 'advisory'"), timeout=20)
            self.assertEqual(self.waiting(id)["attempts"], 2)
            mark = self.server.log_mark()
            os.kill(int(pid), signal.SIGKILL)
            self.server.wait_log("all server processes terminated; reinitializing", mark)
        wait_until(lambda: self.server._accepts(), timeout=60)
        wait_until(self.effects, lambda rows: (id, 3) in rows, 60)
        self.settled(60)
