"""Durable subscriptions: they outlive connections, restarts and dumps."""

import json
import threading
import time

import cbor2

from rinqtest import case
from rinqtest.inbox import QUICK
from rinqtest.server import processor_ticks, quote
from rinqtest.waiting import wait_until


class Subscriptions(case.Case):
    def setUp(self):
        super().setUp()
        self.db = self.database()
        self.remote = self.peer()
        self.prepare(self.db)

    def prepare(self, db):
        db.sql("CREATE TABLE got (n serial, name text, target text, payload jsonb, role text)")
        db.sql("""CREATE FUNCTION take(r rinq_notification) RETURNS void LANGUAGE sql AS
            $$ INSERT INTO got (name, target, payload, role) VALUES (r.type, r.target, r.payload, current_user) $$""")

    def subscribe(self, name, namespace="news", attributes="{}", role="postgres", db=None, retry="NULL"):
        (db or self.db).sql("SELECT rinq_subscribe(%s, %s, 'take(rinq_notification)', %s, retry => %s)" % (quote(name), quote(namespace), quote(attributes), retry), role)

    def session(self, name, db=None):
        return (db or self.db).wait_subscription(name)

    def unicast(self, session, payload=None, namespace="news"):
        self.remote.publish_raw("ntf.uc", "%s.%s" % (namespace, session.rpartition(".")[0]), cbor2.dumps(payload), {"n": namespace, "t": session},
                                type="u", message_id=self.remote.next_id())

    def multicast(self, constraint, payload=None, namespace="news"):
        self.remote.publish_raw("ntf.mc", namespace, cbor2.dumps(payload), {"n": namespace, "c": cbor2.dumps(constraint)}, type="m",
                                message_id=self.remote.next_id())

    def got(self, count, columns="target, payload", db=None):
        return wait_until(lambda: (db or self.db).sql("SELECT %s FROM got ORDER BY n" % columns), lambda rows: len(rows) >= count)

    def test_receives(self):
        self.subscribe("one", attributes='{"tenant": "acme", "n": 1, "none": null}')
        session = self.session("one")
        self.unicast(session, 1)
        self.multicast({"o": "=", "k": "tenant", "v": "acme"}, 2)
        self.multicast({"o": "=", "k": "tenant", "v": "other"}, 3)
        self.multicast({"o": "&", "t": [{"o": "=", "k": "n", "v": "1"}, {"o": "=", "k": "none"}]}, 4)
        self.assertEqual(self.got(3), [[session, "1"], [session, "2"], [session, "4"]])
        self.assertEqual(self.db.sql("SELECT namespace, key, value FROM rinq_session_attributes WHERE session = %s ORDER BY key" % quote(session))[-2:],
                         [["news", "n", "1"], ["news", "tenant", "acme"]])
        self.assertEqual(self.db.sql("SELECT name, namespace, handler, role, attributes FROM rinq_subscriptions"),
                         [["one", "news", "public.take(public.rinq_notification)", "postgres", '{"n": 1, "none": null, "tenant": "acme"}']])

    def test_reconnect(self):
        for name in ("one", "two"):
            self.subscribe(name, attributes='{"name": "%s"}' % name)
        before = self.session("one")
        for payload in (1, 2):
            old = self.db.peer()
            self.world.proxy.cut()
            self.db.wait_new_peer(old)
            after = self.session("one")
            self.assertNotEqual(after, before)
            self.multicast({"o": "=", "k": "name", "v": "one"}, payload)
            self.assertEqual(self.got(payload)[payload - 1:], [[after, str(payload)]])
            before = after

    def test_killed_peer(self):
        self.subscribe("one")
        old = self.db.peer()
        self.db.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'rinq peer' AND pid = %d" % old["pid"])
        self.db.wait_new_peer(old)
        session = self.session("one")
        self.unicast(session, 5)
        self.assertEqual(self.got(1), [[session, "5"]])

    def test_takes_effect_at_commit(self):
        with self.db.session() as connection:
            connection.execute("BEGIN")
            connection.execute("SELECT rinq_subscribe('undone', 'news', 'take(rinq_notification)')")
            connection.execute("ROLLBACK")
            connection.execute("BEGIN")
            connection.execute("SELECT rinq_subscribe('done', 'news', 'take(rinq_notification)')")
            self.assertEqual(self.db.sql("SELECT * FROM rinq_subscriptions"), [])
            connection.execute("COMMIT")
        self.session("done")
        self.assertEqual(self.db.sql("SELECT name FROM rinq_subscriptions"), [["done"]])

    def test_changed_and_ended(self):
        self.subscribe("one", attributes='{"a": "1"}')
        self.subscribe("stays")
        first, stays = self.session("one"), self.session("stays")
        self.subscribe("one", attributes='{"a": "2"}')
        second = wait_until(lambda: self.session("one"), lambda s: s != first)
        self.assertEqual(self.session("stays"), stays)
        self.multicast({"o": "=", "k": "a", "v": "1"}, 1)
        self.multicast({"o": "=", "k": "a", "v": "2"}, 2)
        self.assertEqual(self.got(1), [[second, "2"]])
        self.assertEqual(self.db.value("SELECT rinq_unsubscribe('one')"), "t")
        self.assertEqual(self.db.value("SELECT rinq_unsubscribe('one')"), "f")
        wait_until(lambda: self.db.sql("SELECT id FROM rinq_sessions WHERE cardinality(listening) > 0"), lambda rows: rows == [[stays]])

    def test_session_stays_with_another_handler(self):
        """And when the function gets another name, or is dropped, if what comes is kept then."""
        self.db.sql("CREATE FUNCTION other(r rinq_notification) RETURNS void LANGUAGE sql AS"
                    " $$ INSERT INTO got (name, payload) VALUES ('other', r.payload) $$")
        self.subscribe("one")
        session = self.session("one")
        for number, change in enumerate(("SELECT rinq_subscribe('one', 'news', 'other(rinq_notification)')", "ALTER FUNCTION other(rinq_notification) RENAME TO another",
                                         "SELECT rinq_subscribe('one', 'news', 'take(rinq_notification)', retry => '%s')" % json.dumps(dict(QUICK, attempts=1000)),
                                         "ALTER FUNCTION take(rinq_notification) RENAME TO taken; DROP FUNCTION taken(rinq_notification)")):
            self.db.sql(change)
            self.db.sql("SELECT rinq_wait_ready()")
            self.assertEqual(self.session("one"), session)
            if number < 3:
                self.unicast(session, number)
                self.assertEqual(self.got(number + 1, "payload")[number:], [[str(number)]])
        self.unicast(session, 3)
        wait_until(lambda: self.db.sql("SELECT target, error FROM rinq_inbox_waiting"), lambda rows: rows == [[session, "the handler does not exist"]])
        self.db.sql("SELECT rinq_subscribe('one', 'news', 'another(rinq_notification)')")
        self.assertEqual(self.got(4, "name, payload")[3:], [["other", "3"]])
        self.assertEqual(self.session("one"), session)

    def test_nothing_is_missed_while_it_changes(self):
        """The broker has to route notifications to the peer at every moment, although this is the only one that listens."""
        self.subscribe("one", retry="'{}'")
        self.session("one")

        def change():
            for number in range(40):
                before = self.session("one")
                self.subscribe("one", attributes='{"n": "%d"}' % number, retry="'{}'")
                wait_until(lambda: self.session("one"), lambda session: session != before)
        changing = threading.Thread(target=change)
        changing.start()
        sent = 0
        while changing.is_alive():
            self.multicast({"o": "!=", "k": "n", "v": "none"}, sent)
            sent += 1
        changing.join()
        wait_until(lambda: int(self.db.value("SELECT count(*) FROM got")), lambda count: count >= sent, description="%d notifications" % sent)
        self.assertEqual(self.db.value("SELECT count(DISTINCT payload) FROM got"), str(sent))

    def test_destroyed_session_is_made_again(self):
        self.subscribe("one")
        first = self.session("one")
        self.db.sql("SELECT rinq_session_destroy(%s)" % quote(first))
        second = wait_until(lambda: self.session("one"), lambda s: s != first)
        self.unicast(second, 1)
        self.assertEqual(self.got(1), [[second, "1"]])

    def test_session_that_was_made_to_listen_otherwise_is_made_again(self):
        self.subscribe("one")
        session = self.session("one")
        for change in ("rinq_session_unlisten(%s, 'news')", "rinq_session_listen(%s, 'news')", "rinq_session_listen(%s, 'news', channel => 'x')"):
            self.db.sql("SELECT " + change % quote(session))
            before, session = session, wait_until(lambda: self.session("one"), lambda s: s != session)
            self.assertEqual(self.db.sql("SELECT FROM rinq_sessions WHERE id = " + quote(before)), [])
        self.unicast(session, 1)
        self.assertEqual(self.got(1), [[session, "1"]])

    def test_rows_that_cannot_be_used_do_not_keep_others_from_it(self):
        self.db.sql("INSERT INTO rinq_internal.subscription SELECT 'big', 'news', 'public.take(public.rinq_notification)', 'postgres', 'postgres',"
                    " jsonb_build_object('x', repeat('x', 70000))")
        self.subscribe("fine")
        self.session("fine")
        self.server.wait_log('"big": its attributes are too large', self.log_start)

    def test_roles(self):
        owner, other = self.db.role("subscriber"), self.db.role("other")
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_subscribe(text, text, regprocedure, jsonb, jsonb), rinq_unsubscribe(text) TO subscriber, other;"
                    " GRANT INSERT ON got TO subscriber; GRANT USAGE ON SEQUENCE got_n_seq TO subscriber")
        self.subscribe("mine", role=owner)
        session = self.session("mine")
        self.unicast(session, 1)
        self.assertEqual(self.got(1, "role"), [["subscriber"]])
        self.assertEqual(self.db.sql("SELECT * FROM rinq_subscriptions", role=other), [])
        self.assertEqual(self.db.sql("SELECT * FROM rinq_list_subscriptions()", role=other), [])
        self.assertEqual(self.db.value("SELECT session FROM rinq_subscriptions", role=owner), session)
        self.assertSqlState(self.db.error("SELECT rinq_subscribe('mine', 'news', 'take(rinq_notification)')", role=other), "42501", "another role")
        self.assertSqlState(self.db.error("SELECT rinq_unsubscribe('mine')", role=other), "42501", "another role")
        self.assertSqlState(self.db.error("INSERT INTO rinq_internal.subscription VALUES ('x', 'x', 'x', 'other', 'other')", role=other), "42501")
        self.db.sql("GRANT USAGE ON SCHEMA rinq_internal TO other; GRANT INSERT ON rinq_internal.subscription TO other")
        self.assertSqlState(self.db.error("INSERT INTO rinq_internal.subscription VALUES ('x', 'x', 'x', 'other', 'other', '{}', gen_random_uuid())", role=other),
                            "42501", "directly")
        self.db.sql("SELECT rinq_unsubscribe('mine')")
        self.db.sql("DROP OWNED BY subscriber, other; DROP ROLE subscriber, other")

    def test_role_that_cannot_log_in_any_more(self):
        self.db.role("leaver")
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_subscribe(text, text, regprocedure, jsonb, jsonb) TO leaver")
        self.subscribe("left", role="leaver")
        self.session("left")
        mark = self.server.log_mark()
        self.db.sql("REVOKE CONNECT ON DATABASE \"%s\" FROM PUBLIC" % self.db.name)
        self.subscribe("fine")
        self.session("fine")
        self.server.wait_log('cannot run the handler of subscription "left"', mark)
        self.assertEqual(self.db.sql("SELECT name, session IS NULL FROM rinq_subscriptions ORDER BY name"), [["fine", "f"], ["left", "t"]])
        self.db.sql("DROP OWNED BY leaver; SELECT rinq_unsubscribe('left'); DROP ROLE leaver")

    def test_dump_and_restore(self):
        self.subscribe("kept", attributes='{"tenant": "ä"}')
        self.session("kept")
        scratch, environment = self.world.scratch, dict(self.server.base_environment())
        path = scratch.path("dump-subscriptions.sql")
        scratch.run([self.server.tool("pg_dump"), "-f", path, self.db.name], env=environment, cwd="/")
        restored = self.database(extension=False)
        scratch.run([self.server.tool("psql"), "-Xq", "-v", "ON_ERROR_STOP=1", "-d", restored.name, "-f", path], env=environment, cwd="/")
        restored.sql("SELECT rinq_adopt()")
        session = self.session("kept", restored)
        self.multicast({"o": "=", "k": "tenant", "v": "ä"}, 9)
        self.assertEqual(self.got(1, db=restored), [[session, "9"]])

    def test_refused_by_the_broker(self):
        """A binding that is refused is an error, and not repeated at once; a subscription's is tried again later."""
        broker = self.world.broker
        broker.ctl("set_permissions", broker.user, ".*", ".*", "^(?!ntf)")
        try:
            session = self.db.value("SELECT rinq_session_create()")
            error = self.db.error("SELECT rinq_session_listen(%s, 'closed')" % quote(session))
            self.assertSqlState(error, "08006", "notifications of namespace .closed.: 403")
            self.subscribe("patient", "closed")
            wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_sessions WHERE 'closed' = ANY (listening)"), lambda n: n == "2")
            self.assertEqual(self.db.sql("SELECT session FROM rinq_subscriptions"), [[None]])
            refused = len(self.recording.events("channel.close", since=self.wire_start))
            self.assertLess(refused, 10)
        finally:
            broker.ctl("set_permissions", broker.user, ".*", ".*", ".*")
        session = self.session("patient")
        self.unicast(session, 1, "closed")
        self.assertEqual(self.got(1), [[session, "1"]])

    def test_refused(self):
        for arguments, state in (("'', 'news', 'take(rinq_notification)'", "22023"), ("repeat('x', 201), 'news', 'take(rinq_notification)'", "22023"),
                                 ("'x', '_sess', 'take(rinq_notification)'", "22023"), ("'x', 'news', 'lower(text)'", "42P13"), ("'x', 'news', NULL", "22004"),
                                 ("NULL, 'news', 'take(rinq_notification)'", "22004"), ("'x', 'news', 'take(rinq_notification)', NULL", "22004"),
                                 ("'x', 'news', 'take(rinq_notification)', '[]'", "22023"),
                                 ("'x', 'news', 'take(rinq_notification)', jsonb_build_object('x', repeat('x', 66000))", "54000")):
            self.assertSqlState(self.db.error("SELECT rinq_subscribe(%s)" % arguments), state)
        self.assertSqlState(self.db.error("SELECT rinq_unsubscribe(NULL)"), "22004")

    def test_does_not_fit(self):
        self.server.configure(**{"rinq.session_memory": "1MB"})
        try:
            filler = self.db.value("SELECT rinq_session_create()")
            self.db.sql("SELECT rinq_session_update(%s, 'x', rinq_set('x', repeat('x', 1000000)))" % quote(filler))
            mark = self.server.log_mark()
            self.db.sql("SELECT rinq_subscribe('big', 'news', 'take(rinq_notification)', jsonb_build_object('x', repeat('x', 60000)))")
            self.server.wait_log('has no session for subscription "big"', mark)
            self.subscribe("small")
            self.session("small")
        finally:
            self.server.configure(**{"rinq.session_memory": "256MB"})
        self.session("big")


class Limits(case.PeerCase):
    """Subscriptions that cannot have what they ask for."""

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
            wait_until(lambda: time.monotonic(), lambda now: now > failed + 5.1)  # subscriptions.c's RETRY_INTERVAL
            before = processor_ticks(pid)
            wait_until(lambda: time.monotonic(), lambda now: now > failed + 6.1)
            self.assertLess(processor_ticks(pid) - before, 30)
        finally:
            self.world.proxy.resume()
            self.server.configure(**{"rinq.session_memory": "256MB"})
            self.db.wait_peer()
