"""Notifications under attack: what the review of receiving, subscriptions and the trigger function has found."""

import os
import time

import cbor2

from rinqtest import case
from rinqtest.server import quote
from rinqtest.waiting import wait_until


class Attack(case.PeerCase):
    def create(self, role=None):
        return self.db.sql("SELECT rinq_session_create()", *([role] if role else []))[0][0]

    def listening(self, role=None):
        session = self.create(role)
        self.db.sql("SELECT rinq_session_listen(%s, 'news')" % quote(session), *([role] if role else []))
        return session

    def unicast(self, session, payload=None, headers=None):
        message = self.remote.next_id()
        self.remote.publish_raw("ntf.uc", "news.%s" % session.rpartition(".")[0], payload if isinstance(payload, bytes) else cbor2.dumps(payload),
                                dict({"n": "news", "t": session}, **(headers or {})), type="x", message_id=message)
        return message

    def wait_kept(self, session, count):
        wait_until(lambda: self.db.value("SELECT notifications_kept FROM rinq_sessions WHERE id = " + quote(session)), lambda n: n == str(count))

    def test_transition_table_on_disk(self):
        """Rows of a transition table that was written to disk belong to the slot, until it has the next one."""
        self.db.sql("CREATE TABLE wide (id int, name text); CREATE TRIGGER tell AFTER INSERT ON wide REFERENCING NEW TABLE AS n FOR EACH STATEMENT"
                    " EXECUTE FUNCTION rinq_notify_trigger('wide', 'x', '{*}')")
        self.db.sql("SET work_mem = '64kB'; INSERT INTO wide SELECT i, repeat('x', i % 200) FROM generate_series(1, 10000) i")
        self.db.sql("SELECT rinq_notify_many('end', 'end', '{*}')")
        self.published("ntf.mc", where=lambda m: m.routing_key == "end")
        rows = [row for m in self.recording.published("ntf.mc", self.wire_start) if m.routing_key == "wide" for row in cbor2.loads(m.body)["new"]]
        self.assertEqual(rows == [{"id": i, "name": "x" * (i % 200)} for i in range(1, 10001)], True)

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

    def test_functions_of_others_in_the_schema(self):
        """A closer match than PostgreSQL's own function must not be what the extension's views call."""
        db = self.database(extension=False)
        db.sql("CREATE FUNCTION public.pg_has_role(regrole, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';"
               "CREATE FUNCTION public.pg_has_role(regrole, name) RETURNS boolean LANGUAGE sql AS 'SELECT true'")
        db.sql("CREATE EXTENSION rinq")
        self.assertEqual(db.sql("DROP FUNCTION public.pg_has_role(regrole, text); DROP FUNCTION public.pg_has_role(regrole, name)"), [])

    def test_attributes_that_cannot_be_sent(self):
        """Refused at once: the reader could not read the table any more."""
        db = self.database(encoding="SQL_ASCII")
        db.sql("CREATE FUNCTION nothing(rinq_notification) RETURNS void LANGUAGE sql AS ''")
        for attributes in (r'{"a": "\xff"}', r'{"\xff": "a"}', r'{"a": ["\xff"]}'):
            self.assertSqlState(db.error("SELECT rinq_subscribe('bad', 'news', 'nothing(rinq_notification)', E%s)" % quote(attributes)), "22021")
        db.sql("SELECT rinq_subscribe('good', 'news', 'nothing(rinq_notification)')")
        wait_until(lambda: db.sql("SELECT name FROM rinq_list_subscriptions()"), lambda rows: rows == [["good"]])

    def test_more_subscriptions_than_memory(self):
        """Listeners are served all the same."""
        self.db.sql("CREATE FUNCTION nothing(rinq_notification) RETURNS void LANGUAGE sql AS ''; SELECT rinq_subscribe('a', 'news', 'nothing(rinq_notification)')")
        self.db.sql("SELECT rinq_subscribe('b' || i, 'news', 'nothing(rinq_notification)', jsonb_build_object('x', repeat('x', 60000))) FROM generate_series(1, 600) i")
        try:
            self.db.handler("pong", "RETURN '1';")
            self.db.listen("pong", "pong")
            self.assertEqual(self.db.call("pong", "x", timeout=50), 1)
            self.assertEqual(self.db.value("SELECT session IS NOT NULL FROM rinq_subscriptions WHERE name = 'a'"), "t")
        finally:
            self.db.sql("SELECT rinq_unsubscribe(name) FROM rinq_subscriptions; SELECT rinq_unlisten('pong'); DROP FUNCTION nothing(rinq_notification)")

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

    def test_without_a_connection_a_session_that_was_not_made_is_not_waited_for(self):
        """The time to try again passes while there is no broker: that must not keep the peer from sleeping."""
        db = self.database()
        db.sql("CREATE FUNCTION nothing(rinq_notification) RETURNS void LANGUAGE sql AS ''")
        self.server.configure(**{"rinq.session_memory": "1MB"})
        try:
            db.sql("SELECT rinq_session_update(rinq_session_create(), 'x', rinq_set('x', repeat('x', 1000000)))")
            mark = self.server.log_mark()
            db.sql("SELECT rinq_subscribe('big', 'news', 'nothing(rinq_notification)', jsonb_build_object('x', repeat('x', 60000)))")
            self.server.wait_log('has no session for subscription "big"', mark)
            failed = time.monotonic()
            pid = db.peer()["pid"]
            self.world.proxy.refuse()
            self.world.proxy.cut()
            wait_until(lambda: time.monotonic(), lambda now: now > failed + 5.1)  # standing.c's RETRY_INTERVAL
            before = self.cpu(pid)
            wait_until(lambda: time.monotonic(), lambda now: now > failed + 6.1)
            self.assertLess(self.cpu(pid) - before, 0.3)
        finally:
            self.world.proxy.resume()
            self.server.configure(**{"rinq.session_memory": "256MB"})
            self.db.wait_peer()

    @staticmethod
    def cpu(pid):
        with open("/proc/%d/stat" % pid) as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
