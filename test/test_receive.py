"""Notifications that are forwarded to LISTEN and NOTIFY, or kept until they are fetched."""

import json
import time

import cbor2

from rinqtest import case
from rinqtest.server import quote
from rinqtest.waiting import wait_until


class Receive(case.PeerCase):
    def tearDown(self):
        self.db.sql("SELECT rinq_session_destroy(id) FROM rinq_sessions WHERE pid IS NULL")
        super().tearDown()

    def unicast(self, session, payload=None, kind="x", namespace="news"):
        message = self.remote.next_id()
        self.remote.publish_raw("ntf.uc", "%s.%s" % (namespace, session.rpartition(".")[0]), cbor2.dumps(payload) if not isinstance(payload, bytes) else payload,
                                {"n": namespace, "t": session}, type=kind, message_id=message)
        return message

    def multicast(self, payload=None, namespace="news"):
        message = self.remote.next_id()
        self.remote.publish_raw("ntf.mc", namespace, cbor2.dumps(payload), {"n": namespace, "c": cbor2.dumps({"o": "*"})}, type="m", message_id=message)
        return message

    def create(self):
        return self.db.value("SELECT rinq_session_create()")

    def counter(self, name):
        return int(self.db.value("SELECT notifications_%s FROM rinq_peer" % name))


class Forwarded(Receive):
    """The channel of LISTEN and NOTIFY."""

    def listening(self, channel):
        session = self.create()
        self.db.sql("SELECT rinq_session_listen(%s, 'news', channel => %s)" % (quote(session), quote(channel)))
        return session

    def test_small(self):
        session = self.listening("Some Channel")
        with self.db.session() as listener:
            listener.execute('LISTEN "Some Channel"')
            unicast = self.unicast(session, {"a": [1, "ä"]})
            multicast = self.multicast()
            (channel, first), (_, second) = listener.wait_notifications(2)
        self.assertEqual(channel, "Some Channel")
        self.assertEqual(json.loads(first), {"id": unicast, "source": unicast.partition("#")[0], "target": session, "namespace": "news", "type": "x",
                                             "payload": {"a": [1, "ä"]}, "is_multicast": False, "filter": None, "trace_id": unicast})
        second = json.loads(second)
        self.assertEqual((second["id"], second["is_multicast"], second["filter"], second["payload"]), (multicast, True, "{*}", None))

    def test_large_and_order(self):
        session = self.listening("big")
        with self.db.session() as listener:
            listener.execute("LISTEN big")
            sent = [self.unicast(session, "x" * size) for size in (7000, 8000, 10, 100000, 7700, 20)]
            got = [json.loads(payload) for _, payload in listener.wait_notifications(6)]
        self.assertEqual([n["id"] for n in got], sent)
        self.assertEqual(["stored" in n for n in got], [False, True, False, True, False, False])
        for notification in got:
            if "stored" in notification:
                self.assertEqual({k: notification[k] for k in ("target", "namespace", "type")}, {"target": session, "namespace": "news", "type": "x"})
                self.assertNotIn("payload", notification)
        row = self.db.sql("SELECT id, target, type, payload #>> '{}', is_multicast FROM rinq_stored_notifications WHERE number = %d" % got[3]["stored"])
        self.assertEqual(row, [[sent[3], session, "x", "x" * 100000, "f"]])

    def test_just_fits(self):
        session = self.listening("edge")
        with self.db.session() as listener:
            listener.execute("LISTEN edge")
            self.unicast(session, "")
            overhead = len(listener.wait_notifications(1)[0][1])
            self.unicast(session, "y" * (7990 - overhead))
            self.unicast(session, "y" * (8010 - overhead))
            payloads = [payload for _, payload in listener.wait_notifications(3)]
        self.assertEqual(["stored" in json.loads(payload) for payload in payloads], [False, False, True])
        self.assertGreater(len(payloads[1]), 7980)

    def test_stored_rows_of_others_are_hidden_and_old_ones_go(self):
        reader = self.db.role("reader")
        session = self.listening("gone")
        with self.db.session() as listener:
            listener.execute("LISTEN gone")
            self.unicast(session, "z" * 9000)
            number = json.loads(listener.wait_notifications(1)[0][1])["stored"]
            count = "SELECT count(*) FROM rinq_stored_notifications WHERE number = %d" % number
            self.assertEqual((self.db.value(count), self.db.value(count, role=reader)), ("1", "0"))
            self.assertSqlState(self.db.error("SELECT * FROM rinq_internal.stored_notification", role=reader), "42501")
            self.db.sql("UPDATE rinq_internal.stored_notification SET stored = stored - interval '59 minutes'")
            self.unicast(session, "z" * 9000)
            listener.wait_notifications(2)
            self.assertEqual(self.db.value(count), "1")
            self.db.sql("UPDATE rinq_internal.stored_notification SET stored = stored - interval '2 minutes' WHERE number = %d" % number)
            self.unicast(session, "z" * 9000)
            listener.wait_notifications(3)
            self.assertEqual(self.db.value(count), "0")
        self.db.sql("DROP OWNED BY reader; DROP ROLE reader")

    def test_a_failure_is_logged_and_the_next_one_comes(self):
        session = self.listening("fails")
        self.db.sql("ALTER TABLE rinq_internal.stored_notification RENAME TO elsewhere")
        try:
            with self.db.session() as listener:
                listener.execute("LISTEN fails")
                mark, failed = self.server.log_mark(), self.counter("failed")
                self.unicast(session, "z" * 9000)
                message = self.unicast(session, 1)
                self.assertEqual(json.loads(listener.wait_notifications(1)[0][1])["id"], message)
                self.server.wait_log('table "stored_notification" does not exist', mark)
                self.assertEqual(self.counter("failed"), failed + 1)
        finally:
            self.db.sql("ALTER TABLE rinq_internal.elsewhere RENAME TO stored_notification")


class Buffered(Receive):
    """rinq_notifications()."""

    FETCH = "SELECT id FROM rinq_notifications(%s, %s)"

    def listening(self, namespace="news"):
        session = self.create()
        self.db.sql("SELECT rinq_session_listen(%s, %s)" % (quote(session), quote(namespace)))
        return session

    def fetch(self, session, timeout="0", connection=None):
        return [row[0] for row in (connection.execute if connection else self.db.sql)(self.FETCH % (quote(timeout), quote(session)))]

    def fetch_all(self, session, count):
        got = []
        while len(got) < count:
            got += self.fetch(session, "10 s")
        return got

    def kept(self, session):
        return int(self.db.value("SELECT notifications_buffered FROM rinq_sessions WHERE id = " + quote(session)))

    def wait_kept(self, session, count):
        wait_until(lambda: self.kept(session), lambda n: n == count)

    def test_own_session(self):
        with self.db.session() as connection:
            session = connection.value("SELECT rinq_session()")
            connection.execute("SELECT rinq_session_listen(rinq_session(), 'news')")
            self.assertEqual(connection.execute("SELECT * FROM rinq_notifications()"), [])
            message = self.unicast(session, {"a": 1})
            self.assertEqual([row[:-1] + [str(row[-1] > "2020").lower()] for row in connection.execute("SELECT * FROM rinq_notifications('10 s')")],
                             [[message, message.partition("#")[0], session, "news", "x", '{"a": 1}', "f", None, message, "1", "true"]])
            multicast = self.multicast([2])
            self.assertEqual(connection.execute("SELECT id, is_multicast, filter, payload FROM rinq_notifications('10 s')"), [[multicast, "t", "{*}", "[2]"]])
            self.assertEqual(connection.execute("SELECT * FROM rinq_notifications('1 ms')"), [])

    def test_order_and_many(self):
        session = self.listening()
        sent = [self.unicast(session, number) for number in range(300)]
        self.assertEqual(self.fetch_all(session, 300), sent)
        sent = [self.unicast(session, "x" * 50000) for _ in range(20)]
        self.wait_kept(session, 20)
        first = self.fetch(session)
        self.assertLess(len(first), 20)
        self.assertEqual(first + self.fetch_all(session, 20 - len(first)), sent)

    def test_several_wait(self):
        session = self.listening()
        connections = [self.db.session() for _ in range(3)]
        try:
            for connection in connections:
                connection.start(self.FETCH % ("'20 s'", quote(session)))
            wait_until(lambda: self.db.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'RinqCallResponse' OR (wait_event = 'Extension' AND query LIKE '%rinq_notifications%' AND pid <> pg_backend_pid())"), lambda n: n == "3")
            sent = [self.unicast(session) for _ in range(3)]
            self.assertEqual(sorted(row[0] for connection in connections for row in connection.finish()), sorted(sent))
        finally:
            for connection in connections:
                connection.close()

    def test_a_receiver_that_never_fetches(self):
        self.server.configure(**{"rinq.notification_buffer": 5})
        try:
            session = self.listening()
            dropped = self.counter("dropped")
            sent = [self.unicast(session) for _ in range(12)]
            wait_until(lambda: self.counter("dropped"), lambda n: n == dropped + 7)
            self.assertEqual(self.kept(session), 5)
            self.assertEqual(self.fetch(session), sent[7:])
        finally:
            self.server.configure(**{"rinq.notification_buffer": 1000})

    def test_memory_is_bounded(self):
        self.server.configure(**{"rinq.notification_memory": "1MB"})
        try:
            session = self.listening()
            dropped = self.counter("dropped")
            sent = [self.unicast(session, "x" * 300000) for _ in range(10)]
            wait_until(lambda: self.counter("dropped"), lambda n: n == dropped + 7)
            self.assertEqual(self.fetch_all(session, 3), sent[7:])
            self.unicast(session, "x" * 2000000)
            wait_until(lambda: self.counter("dropped"), lambda n: n == dropped + 8)
            self.assertEqual(self.fetch(session), [])
        finally:
            self.server.configure(**{"rinq.notification_memory": "64MB"})

    def test_waiting_can_be_cancelled_and_loses_nothing(self):
        session = self.listening()
        with self.db.session() as connection:
            for _ in range(30):
                connection.start("SET statement_timeout = '15ms'; " + self.FETCH % ("'1 min'", quote(session)) + "; RESET statement_timeout")
                message = self.unicast(session)
                got = []
                try:
                    got = [row[0] for row in connection.finish() if row and row[0] == message]
                except Exception as error:
                    self.assertIn("57014", str(error))
                connection.execute("RESET statement_timeout")
                if not got:
                    self.assertEqual(self.fetch(session, "10 s", connection), [message])
        self.assertEqual(self.fetch(session), [])

    def test_one_that_cannot_be_converted(self):
        session = self.listening()
        with self.db.session() as connection:
            first, bad, last = self.unicast(session, 1), self.unicast(session, b"\xff\xff"), self.unicast(session, 3)
            self.wait_kept(session, 3)
            connection.error(self.FETCH % ("'0'", quote(session)))
            self.assertEqual(self.fetch(session, connection=connection), [first, last])
        self.assertNotEqual(bad, first)

    def test_rollback_takes_nothing_back(self):
        session = self.listening()
        self.unicast(session)
        with self.db.session() as connection:
            connection.execute("BEGIN")
            self.assertEqual(len(self.fetch(session, "10 s", connection)), 1)
            connection.execute("ROLLBACK")
            self.assertEqual(self.fetch(session, connection=connection), [])

    def five(self):
        """A session for which five are kept, of types a to e."""
        session = self.listening()
        for kind in "abcde":
            self.unicast(session, ord(kind), kind)
        self.wait_kept(session, 5)
        return session

    def test_what_a_statement_does_not_read_stays(self):
        """Whichever connection fetches next gets it."""
        for argument in ("%s", "(%s || '')::text"):
            session = self.five()
            kept = "rinq_notifications('0', %s)" % argument % quote(session)
            self.assertEqual([self.db.value("SELECT type FROM %s LIMIT 1" % kept) for _ in range(2)], ["a", "b"])
            self.assertEqual(self.db.value("SELECT EXISTS (SELECT FROM %s)" % kept), "t")
            self.assertEqual(self.kept(session), 2, "EXISTS reads one")
            self.assertEqual(self.db.sql("SELECT n.type FROM generate_series(1, 3) i CROSS JOIN (SELECT type FROM %s LIMIT 1) n" % kept), [["d"]] * 3)
            self.assertEqual(self.db.sql("SELECT type FROM %s WHERE type = 'none'" % kept), [], "WHERE reads all")
            self.assertEqual(self.kept(session), 0)

    def test_a_role_needs_one_privilege(self):
        """What stands behind the function asks for the privilege for that."""
        self.db.role("reader2")
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_session_create, rinq_session_listen, rinq_session_destroy TO reader2")
        session = self.db.value("SELECT rinq_session_create()", role="reader2")
        self.db.sql("SELECT rinq_session_listen(%s, 'news')" % quote(session), role="reader2")
        message = self.unicast(session)
        self.wait_kept(session, 1)
        for function in ("rinq_notifications", "rinq_fetch_notifications"):
            self.assertSqlState(self.db.error("SELECT %s('0', %s, 1)" % (function, quote(session)), role="reader2"), "42501", "permission denied for function rinq_notifications")
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_notifications TO reader2")
        self.assertEqual(self.db.sql("SELECT id FROM rinq_notifications('0', %s) LIMIT 1" % quote(session), role="reader2"), [[message]])
        self.db.sql("DROP OWNED BY reader2; DROP ROLE reader2")

    def test_max_rows(self):
        session = self.five()
        rows = "SELECT type FROM rinq_notifications('0', %s, max_rows => %%s)" % quote(session)
        self.assertEqual(self.db.sql(rows % 2 + " WHERE type <> 'a' ORDER BY 1"), [["b"]])
        self.assertEqual(self.kept(session), 3)
        self.assertEqual(self.db.sql("SELECT type, ordinality FROM ROWS FROM (rinq_notifications('0', %s, 1)) WITH ORDINALITY n" % quote(session)), [["c", "1"]])
        self.assertEqual(self.db.sql(rows % 10), [["d"], ["e"]])
        for bad in (0, -1):
            self.assertSqlState(self.db.error(rows % bad), "22023", "max_rows")

    def test_cursors_and_procedures(self):
        session = self.five()
        with self.db.session() as connection:
            connection.execute("BEGIN; DECLARE c CURSOR FOR SELECT type FROM rinq_notifications('0', %s)" % quote(session))
            self.assertEqual(connection.execute("FETCH 2 FROM c"), [["a"], ["b"]])
            connection.execute("CLOSE c; COMMIT")
            self.assertEqual(connection.value("SELECT 1"), "1")
        self.assertEqual(self.kept(session), 3)
        self.db.sql("CREATE OR REPLACE FUNCTION next(s text) RETURNS text LANGUAGE plpgsql AS $$ DECLARE n rinq_notification; BEGIN"
                    " SELECT * INTO n FROM rinq_notifications('0', s); RETURN n.type; END $$")
        self.assertEqual([self.db.value("SELECT next(%s)" % quote(session)) for _ in range(4)], ["c", "d", "e", None])

    def test_a_statement_that_fails_has_read_nothing(self):
        session = self.five()
        with self.db.session() as connection:
            reading = "SELECT 1 / (100 - payload::int) FROM rinq_notifications('0', %s)" % quote(session)
            self.assertSqlState(connection.error(reading), "22012")
            self.assertSqlState(connection.error("BEGIN; SAVEPOINT s; " + reading), "22012")
            connection.execute("ROLLBACK TO s")
            self.assertEqual(connection.execute("SELECT type FROM rinq_notifications('0', %s)" % quote(session)), [[kind] for kind in "abcde"])
            connection.execute("ROLLBACK")
            self.assertEqual(connection.execute("SELECT type FROM rinq_notifications('0', %s)" % quote(session)), [])

    def test_two_readers_in_one_statement(self):
        session = self.five()
        kept = "rinq_notifications('0', %s)" % quote(session)
        self.assertEqual(self.db.sql("SELECT type FROM (SELECT * FROM %s LIMIT 2) a UNION ALL SELECT type FROM %s" % (kept, kept)), [[kind] for kind in "abcde"])

    def test_end_of_the_session(self):
        session = self.listening()
        with self.db.session() as connection:
            connection.start(self.FETCH % ("'20 s'", quote(session)))
            wait_until(lambda: self.db.value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%rinq_notifications%' AND wait_event_type = 'Extension'"), lambda n: n == "1")
            self.db.sql("SELECT rinq_session_destroy(%s)" % quote(session))
            self.assertSqlState(connection.finish_error(), "RQ007")
        dropped = self.counter("dropped")
        session = self.listening()
        self.unicast(session)
        self.wait_kept(session, 1)
        self.db.sql("SELECT rinq_session_destroy(%s)" % quote(session))
        self.assertEqual(self.counter("dropped"), dropped + 1)

    def test_nothing_is_buffered_any_more(self):
        for change in ("rinq_session_unlisten(%s, 'news')", "rinq_session_listen(%s, 'news', channel => 'x')"):
            session = self.listening()
            with self.db.session() as connection:
                connection.start(self.FETCH % ("'20 s'", quote(session)))
                wait_until(lambda: self.db.value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%rinq_notifications%' AND wait_event_type = 'Extension'"), lambda n: n == "1")
                self.db.sql("SELECT " + change % quote(session))
                self.assertSqlState(connection.finish_error(), "55000", "no notifications are buffered")

    def test_connection_lost_while_waiting(self):
        with self.db.session() as connection:
            connection.execute("SELECT rinq_session_listen(rinq_session(), 'news')")
            connection.start("SELECT * FROM rinq_notifications('20 s')")
            wait_until(lambda: self.db.value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%rinq_notifications%' AND wait_event_type = 'Extension'"), lambda n: n == "1")
            old = self.db.peer()
            self.world.proxy.cut()
            self.assertSqlState(connection.finish_error(), "08006")
            self.db.wait_new_peer(old)
            self.assertSqlState(connection.error("SELECT * FROM rinq_notifications('20 s')"), "55000", "no notifications are buffered")

    def test_refused(self):
        session = self.create()
        self.assertSqlState(self.db.error("SELECT rinq_notifications('0', %s)" % quote(session)), "55000", "no notifications are buffered")
        self.assertSqlState(self.db.error("SELECT rinq_notifications('-1 s', %s)" % quote(session)), "22023")
        self.assertSqlState(self.db.error("SELECT rinq_notifications(NULL, %s)" % quote(session)), "22004")
        stranger = self.db.role("stranger")
        self.assertSqlState(self.db.error("SELECT rinq_notifications('0', %s)" % quote(session), role=stranger), "42501")
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_notifications TO stranger")
        self.assertSqlState(self.db.error("SELECT rinq_notifications('0', %s)" % quote(session), role=stranger), "42501", "permission denied for session")
        self.db.sql("DROP OWNED BY stranger; DROP ROLE stranger")

    def test_fetch_elapsed(self):
        session = self.listening()
        start = time.monotonic()
        self.assertEqual(self.fetch(session, "300 ms"), [])
        self.assertGreaterEqual(time.monotonic() - start, 0.3)

    def test_in_a_handler_the_deadline_of_the_request_counts(self):
        session = self.listening()
        self.db.handler("late", "PERFORM rinq_notifications('1 min', %s); RETURN '1';" % quote(session))
        self.db.listen("late", "late")
        caller = self.peer()
        with self.assertRaises(Exception):
            caller.call("late", "x", None, timeout=0.5)
        message = self.unicast(session)
        self.assertEqual(self.fetch(session, "10 s"), [message])


class Waiting(case.ReceivingCase):
    """What waits for one session, in the peer or in a connection."""

    def test_a_constraint_in_a_unicast_means_nothing(self):
        """It was not looked at when it arrived, so it must not become a value."""
        session = self.listening()
        for constraint in (b"\xff", cbor2.dumps({"o": "*"})):
            self.unicast(session, 1, {"c": constraint})
        self.wait_kept(session, 2)
        self.assertEqual(self.db.sql("SELECT is_multicast, filter, payload FROM rinq_notifications('0', %s)" % quote(session)), [["f", None, "1"]] * 2)

    def test_what_waits_for_one_session_outlives_fetches_of_another(self):
        one, two = self.listening(), self.listening()
        sent = [self.unicast(one, 1), self.unicast(one, b"\xff\xff"), self.unicast(one, 3)]
        self.wait_kept(one, 3)
        fetch = "SELECT id FROM rinq_notifications('0', %s)"
        with self.db.session() as connection:
            connection.error(fetch % quote(one))
            self.assertEqual(connection.execute(fetch % quote(two)), [])
            message = self.unicast(two)
            self.wait_kept(two, 1)
            self.assertEqual(connection.execute(fetch % quote(two)), [[message]])
            self.assertEqual(connection.execute(fetch % quote(one)), [[sent[0]], [sent[2]]])

    def test_what_waits_in_a_connection_is_not_for_other_roles(self):
        session = self.listening()
        self.db.role("nosy")
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_notifications TO nosy")
        sent = [self.unicast(session, 1), self.unicast(session, b"\xff\xff")]
        self.wait_kept(session, 2)
        fetch = "SELECT id FROM rinq_notifications('0', %s)" % quote(session)
        with self.db.session() as connection:
            connection.error(fetch)
            connection.execute("SET ROLE nosy")
            self.assertSqlState(connection.error(fetch), "42501", "permission denied for session")
            connection.execute("RESET ROLE")
            self.assertEqual(connection.execute(fetch), [[sent[0]]])
        self.db.sql("DROP OWNED BY nosy; DROP ROLE nosy")

    def test_a_handler_does_not_get_notifications_of_its_source(self):
        """It may use the attributes of the session that sent the request; not what is sent to that, nor send in its name."""
        session = self.listening()
        self.db.role("curious")
        self.db.sql("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO curious")
        self.db.sql("""CREATE FUNCTION take_over(req rinq_request) RETURNS jsonb LANGUAGE plpgsql AS $$
            BEGIN EXECUTE format(req.payload #>> '{}', split_part(req.source, '@', 1)); RETURN '"done"'; EXCEPTION WHEN insufficient_privilege THEN RETURN '"denied"'; END $$""",
                    role="curious")
        self.db.listen("curious", "take_over", role="curious")
        self.unicast(session)
        self.wait_kept(session, 1)
        for statement, outcome in (("SELECT rinq_session_get(%L, 'x', 'y')", "done"), ("SELECT rinq_session_update(%L, 'x', '{\"y\": 1}')", "done"),
                                   ("SELECT rinq_notifications('0', %L)", "denied"), ("SELECT rinq_session_listen(%L, 'news', channel => 'mine')", "denied"),
                                   ("SELECT rinq_session_unlisten(%L, 'news')", "denied"), ("SELECT rinq_session_on_response(%L, NULL)", "denied"),
                                   ("SELECT rinq_notify('news', 'x', %1$L, session => %1$L)", "denied")):
            with self.subTest(statement=statement):
                self.assertEqual(self.db.json("SELECT rinq_call('curious', 'x', to_jsonb(%s::text), session => %s)" % (quote(statement), quote(session))), outcome)
        self.db.sql("SELECT rinq_unlisten('curious'); DROP OWNED BY curious; DROP ROLE curious")

    def test_one_that_has_no_room_drops_no_others(self):
        """Even all those kept before would not make room for it."""
        self.server.configure(**{"rinq.notification_memory": "1MB"})
        try:
            session = self.listening()
            sent = [self.unicast(session, "x" * 300000) for _ in range(2)]
            self.wait_kept(session, 2)
            dropped = "SELECT notifications_dropped FROM rinq_peer"
            before = int(self.db.value(dropped))
            self.unicast(session, "x" * 2000000)
            wait_until(lambda: self.db.value(dropped), lambda n: int(n) > before)
            self.wait_kept(session, 2)
            with self.db.session() as connection:
                fetch = "SELECT id FROM rinq_notifications('0', %s)" % quote(session)
                self.assertEqual(connection.execute(fetch) + connection.execute(fetch), [[message] for message in sent])
        finally:
            self.server.configure(**{"rinq.notification_memory": "64MB"})
