"""Notifications sent by SQL: at commit, in order, as the reference peer sends them."""

import random

import cbor2

from rinqtest import case
from rinqtest.server import quote
from rinqtest.waiting import wait_until


class Sending(case.PeerCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.target = "%s.%d" % (cls.remote.id, cls.remote.new_session())

    def test_to_a_session(self):
        message = self.db.value("SELECT rinq_notify('news', 'flash', %s, '{\"a\": 1}')" % quote(self.target))
        sent = self.published("ntf.uc", where=lambda m: m.properties.get("message_id") == message)[0]
        self.assertConforms(sent, "notify")
        self.assertEqual(sent.routing_key, "news." + self.remote.id)
        self.assertEqual((sent.properties["type"], sent.headers["n"].value, sent.headers["t"].value), ("flash", "news", self.target))
        self.assertEqual(cbor2.loads(sent.body), {"a": 1})

    def test_to_many(self):
        message = self.db.value("SELECT rinq_notify_many('news', 'all', '{foo=bar, n=1}', '5'::jsonb)")
        sent = self.published("ntf.mc", where=lambda m: m.properties.get("message_id") == message)[0]
        self.assertConforms(sent, "notify-many")
        self.assertEqual((sent.routing_key, sent.headers["c"].type), ("news", "x"))
        self.assertEqual(cbor2.loads(sent.headers["c"].value), {"o": "&", "t": [{"o": "=", "k": "foo", "v": "bar"}, {"o": "=", "k": "n", "v": "1"}]})

    def test_forms_of_payload(self):
        for payload, body in (("NULL::jsonb", ""), ("'null'::jsonb", ""), ("'[1]'", "8101"), ("'\\xf4'::bytea", "f4"), ("'\\x'::bytea", "")):
            function = "rinq_notify_raw" if "bytea" in payload else "rinq_notify"
            message = self.db.value("SELECT %s('news', '', %s, %s)" % (function, quote(self.target), payload))
            sent = self.published("ntf.uc", where=lambda m: m.properties.get("message_id") == message)[0]
            self.assertEqual(sent.body.hex(), body)
        self.assertEqual(self.db.value("SELECT rinq_notify_many('news', 'x', rinq_all()) IS NOT NULL"), "t")
        message = self.db.value("SELECT rinq_notify_many_raw('news', 'x', '{*}', '\\x8101')")
        self.assertEqual(self.published("ntf.mc", where=lambda m: m.properties.get("message_id") == message)[0].body.hex(), "8101")
        self.assertEqual(self.db.value("SELECT rinq_all() = rinq_none()"), "t")

    def test_at_commit_in_order(self):
        with self.db.session() as connection:
            connection.execute("BEGIN")
            notify = "SELECT rinq_notify('order', %s, %s)"
            kept = [connection.value(notify % (quote("1"), quote(self.target)))]
            connection.execute("SAVEPOINT s")
            connection.execute(notify % (quote("undone"), quote(self.target)))
            connection.execute("ROLLBACK TO s")
            kept.append(connection.value("SELECT rinq_notify_many('order', '2', rinq_none())"))
            connection.execute("DO $$ BEGIN BEGIN PERFORM rinq_notify_many('order', 'undone', rinq_none()); RAISE 'x';"
                               " EXCEPTION WHEN OTHERS THEN NULL; END; END $$")
            kept += [connection.value(notify % (quote(str(n)), quote(self.target))) for n in range(3, 6)]
            self.assertEqual(self.recording.published("ntf.uc", self.wire_start), [])
            connection.execute("COMMIT")
            connection.execute("BEGIN; SELECT rinq_notify_many('order', 'undone', rinq_none()); ROLLBACK")
        self.published("ntf.uc", 4)
        ids = [m.properties["message_id"] for m in self.recording.published("ntf.uc", self.wire_start)]
        self.assertEqual(ids, [kept[0]] + kept[2:])
        self.assertEqual([m.properties["message_id"] for m in self.published("ntf.mc", 1)], [kept[1]])

    def test_trace_and_session(self):
        session = self.db.value("SELECT rinq_session_create()")
        message = self.db.value("SET rinq.trace_id = 'why'; SELECT rinq_notify('news', 'x', %s, session => %s)" % (quote(self.target), quote(session)))
        self.assertEqual(message, session + "@0#1")
        sent = self.published("ntf.uc", where=lambda m: m.properties.get("message_id") == message)[0]
        self.assertEqual(sent.properties["correlation_id"], "why")

    def test_in_a_trigger(self):
        self.db.sql("CREATE TABLE orders (id int, target text)")
        self.db.sql("""CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM rinq_notify('orders', TG_OP, NEW.target, to_jsonb(NEW)); RETURN NULL; END $$""")
        self.db.sql("CREATE TRIGGER tell AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION tell()")
        self.db.sql("INSERT INTO orders SELECT i, %s FROM generate_series(1, 500) i" % quote(self.target))
        sent = self.published("ntf.uc", 500)
        self.assertEqual([cbor2.loads(m.body)["id"] for m in sent], list(range(1, 501)))

    def test_refused(self):
        for arguments, state in (("'news', 'x', '%s.0'" % self.remote.id, "22023"), ("'news', 'x', 'nonsense'", "22023"), ("'_sess', 'x', %s" % quote(self.target), "22023"),
                                 ("'news', NULL, %s" % quote(self.target), "22004"), ("'news', 'x', NULL", "22004"), ("'news', repeat('x', 300), %s" % quote(self.target), "54000")):
            self.assertSqlState(self.db.error("SELECT rinq_notify(%s)" % arguments), state)
        self.assertSqlState(self.db.error("SELECT rinq_notify_many('news', 'x', NULL)"), "22004")
        self.assertSqlState(self.db.error("SELECT rinq_notify_many('news', 'x', 'nonsense')"), "22P02")
        self.assertSqlState(self.db.error("BEGIN; SELECT rinq_notify_many('news', 'x', rinq_none()); PREPARE TRANSACTION 'x'"), "0A000")
        self.assertEqual(self.recording.published("ntf.uc", self.wire_start), [])


class Receiving(case.PeerCase):
    """Sessions of SQL that listen, with a function."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db.sql("CREATE TABLE got (n serial, r rinq_notification, role text)")
        cls.db.sql("""CREATE FUNCTION take(r rinq_notification) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            IF r.type = 'fail' THEN RAISE EXCEPTION 'cannot take it'; END IF;
            IF r.type = 'die' THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10); END IF;
            IF r.type = 'gate' THEN PERFORM pg_advisory_xact_lock_shared(81); END IF;
            INSERT INTO got (r, role) VALUES (r, current_user); END $$""")

    def setUp(self):
        super().setUp()
        self.db.sql("TRUNCATE got RESTART IDENTITY")
        self.session = self.listening("news")

    def tearDown(self):
        self.db.sql("SELECT rinq_session_destroy(id) FROM rinq_sessions WHERE pid IS NULL")
        super().tearDown()

    def listening(self, namespace, *attributes):
        session = self.db.value("SELECT rinq_session_create()")
        if attributes:
            self.db.sql("SELECT rinq_session_update(%s, %s, %s)" % (quote(session), quote(namespace), ", ".join(
                "rinq_set(%s, %s)" % (quote(k), quote(v)) for k, v in attributes)))
        self.db.sql("SELECT rinq_session_listen(%s, %s, 'take(rinq_notification)')" % (quote(session), quote(namespace)))
        return session

    def unicast(self, session, kind="x", payload=None, namespace="news", **headers):
        message = self.remote.next_id()
        peer = session.rpartition(".")[0]
        self.remote.publish_raw("ntf.uc", "%s.%s" % (namespace, peer), cbor2.dumps(payload) if payload is not None else b"",
                                dict({"n": namespace, "t": session}, **headers), type=kind, message_id=message)
        return message

    def multicast(self, constraint, kind="x", payload=None, namespace="news", **properties):
        message = self.remote.next_id()
        self.remote.publish_raw("ntf.mc", namespace, cbor2.dumps(payload) if payload is not None else b"",
                                {"n": namespace, "c": cbor2.dumps(constraint) if not isinstance(constraint, bytes) else constraint},
                                type=kind, message_id=message, **properties)
        return message

    def got(self, count, columns="(r).id"):
        return wait_until(lambda: self.db.sql("SELECT %s FROM got ORDER BY n" % columns), lambda rows: len(rows) >= count)

    def counter(self, name):
        return int(self.db.value("SELECT notifications_%s FROM rinq_peer" % name))

    def test_one(self):
        message = self.unicast(self.session, "flash", {"a": 1})
        self.assertEqual(self.got(1, "(r).id, (r).source, (r).target, (r).namespace, (r).type, (r).payload, (r).is_multicast, (r).filter, (r).trace_id, role"),
                         [[message, message.partition("#")[0], self.session, "news", "flash", '{"a": 1}', "f", None, message, "postgres"]])

    def test_many(self):
        others = [self.listening("news", ("foo", "bar")), self.listening("news", ("foo", "bar"), ("n", "1")), self.listening("other", ("foo", "bar"))]
        message = self.multicast({"o": "=", "k": "foo", "v": "bar"}, "m", 5, correlation_id="why")
        rows = self.got(2, "(r).target, (r).id, (r).payload, (r).is_multicast, (r).filter, (r).trace_id")
        self.assertEqual(sorted(row[0] for row in rows), sorted(others[:2]))
        self.assertEqual(rows[0][1:], [message, "5", "t", "{foo=bar}", "why"])
        self.multicast({"o": "*"})
        self.got(5)
        self.assertEqual(len(self.got(5)), 5)

    def test_to_oneself_and_between_databases(self):
        other = self.database()
        first = self.db.value("SELECT rinq_notify('news', 'x', %s)" % quote(self.session))
        self.assertEqual(self.got(1), [[first]])
        second = other.value("SELECT rinq_notify_many('news', 'x', '{*}', '[1]')")
        self.assertEqual(self.got(2), [[first], [second]])

    def test_order(self):
        messages = [self.unicast(self.session, payload=i) for i in range(200)]
        self.assertEqual([row[0] for row in self.got(200)], messages)

    def test_errors_do_not_stop_others(self):
        mark = self.server.log_mark()
        failed = self.counter("failed")
        self.unicast(self.session, "fail")
        self.unicast(self.session, "die")
        message = self.unicast(self.session)
        self.assertEqual(self.got(1), [[message]])
        self.server.wait_log("cannot take it", mark)
        self.assertEqual(self.counter("failed"), failed + 2)

    def test_who_does_not_listen(self):
        before = self.counter("rejected")
        stranger = self.db.value("SELECT rinq_session_create()")
        for target in (stranger, stranger.rpartition(".")[0] + ".4000000"):
            self.unicast(target)
        message = self.unicast(self.session)
        self.assertEqual(self.got(1), [[message]])
        self.assertEqual(self.counter("rejected"), before)
        deliveries = self.deliveries(3, where=lambda e: e.exchange == "ntf.uc")
        self.assertEqual([self.recording.wait_settled(d) for d in deliveries], ["ack"] * 3)

    def test_unlisten_and_destroy(self):
        second = self.listening("news")
        self.db.sql("SELECT rinq_session_listen(%s, 'other', 'take(rinq_notification)')" % quote(second))
        listening = "SELECT listening FROM rinq_sessions WHERE id = "
        self.assertEqual(self.db.value(listening + quote(second)), "{news,other}")
        self.db.sql("SELECT rinq_session_unlisten(%s, 'other')" % quote(second))
        self.assertEqual(self.db.value(listening + quote(second)), "{news}")
        self.assertEqual(self.db.value(listening + quote(self.db.value("SELECT rinq_session_create()"))), "{}")
        self.assertEqual(self.db.value("SELECT rinq_session_unlisten(%s, 'news')" % quote(self.session)), "t")
        self.assertEqual(self.db.value("SELECT rinq_session_unlisten(%s, 'news')" % quote(self.session)), "f")
        self.unicast(self.session)
        message = self.unicast(second)
        self.assertEqual(self.got(1), [[message]])
        queue = self.db.peer()["peer_id"].partition("-")[2] + ".ntf"
        bindings = lambda: [row for row in self.world.broker.table("list_bindings", "source_name", "destination_name", "routing_key")
                            if queue in str(row) and "news" in str(row) and "ntf" in str(row)]
        self.assertTrue(any("ntf.mc" in str(row) for row in bindings()))
        self.db.sql("SELECT rinq_session_destroy(%s)" % quote(second))
        wait_until(lambda: [row for row in bindings() if "ntf." in str(row)], lambda rows: rows == [])

    def test_destroyed_while_some_wait(self):
        dropped = self.counter("dropped")
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(81)")
            self.unicast(self.session, "gate")
            wait_until(lambda: self.db.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'"), lambda n: n == "1")
            for _ in range(5):
                self.unicast(self.session)
            self.deliveries(6, where=lambda e: e.exchange == "ntf.uc")
            self.db.sql("SELECT rinq_session_destroy(%s)" % quote(self.session))
            wait_until(lambda: self.counter("dropped"), lambda n: n == dropped + 5)
        self.assertEqual(len(self.got(1)), 1)

    def test_bad_notifications(self):
        before = self.counter("rejected")
        own = self.session.rpartition(".")[0]
        bad = [{"o": "?"}, {"o": "!"}, {"o": "&"}, {"o": "ns", "v": "_x", "t": [{"o": "*"}]}, [], b"", b"\xff", b"\x81" * 3000]
        for constraint in bad:
            self.multicast(constraint)
        self.unicast(own + ".x")
        for headers in ({"n": "_sess", "t": self.session}, {"t": self.session}, {"n": "news"}, {"n": "news", "t": self.session, "sc": "text"}):
            self.remote.publish_raw("ntf.uc", "news." + own, b"", headers, type="x", message_id=self.remote.next_id())
        self.remote.publish_raw("ntf.uc", "news." + own, b"", {"n": "news", "t": self.session}, type="x", message_id="nonsense")
        self.remote.publish_raw("ntf.mc", "news", b"", {"n": "news", "c": "text"}, type="x", message_id=self.remote.next_id())
        count = len(bad) + 1 + 4 + 1 + 1
        wait_until(lambda: self.counter("rejected"), lambda n: n == before + count)
        deliveries = self.deliveries(count, where=lambda e: e.exchange.startswith("ntf."))
        self.assertEqual({self.recording.wait_settled(d) for d in deliveries}, {"reject"})
        message = self.unicast(self.session)
        self.assertEqual(self.got(1), [[message]])

    def test_matching_against_a_model(self):
        """Thousands of random constraints, against ever other attributes."""
        seed = random.Random(5)
        keys, values, namespaces = "ab", ("", "1", "2"), ("news", "other")
        sessions = [self.db.value("SELECT rinq_session_create()") for _ in range(8)]
        self.db.sql("SELECT " + ", ".join("rinq_session_listen(%s, 'news')" % quote(session) for session in sessions))

        def build(depth):
            kind = seed.randrange(3 if depth == 0 else 7)
            leaf = {"k": seed.choice(keys)}
            value = seed.choice(values)
            if value:
                leaf["v"] = value
            if kind < 3:
                return [{"o": "*"}, dict(leaf, o="="), dict(leaf, o="!=")][kind]
            terms = [build(depth - 1) for _ in range(1 if kind == 3 else seed.randrange(1, 4))]
            return [{"o": "!", "t": terms}, {"o": "&", "t": terms}, {"o": "|", "t": terms}, {"o": "ns", "t": terms, "v": seed.choice(namespaces)}][kind - 3]

        def matches(c, ns, attributes):
            terms = c.get("t", ())
            if c["o"] in ("=", "!="):
                return (attributes[ns, c["k"]] == c.get("v", "")) == (c["o"] == "=")
            if c["o"] == "!":
                return not matches(terms[0], ns, attributes)
            if c["o"] == "|":
                return any(matches(t, ns, attributes) for t in terms)
            return all(matches(t, c["v"] if c["o"] == "ns" else ns, attributes) for t in terms)
        self.server.configure(**{"rinq.notification_buffer": 10000})
        expected, number = [], 0
        for _ in range(10):
            attributes = {}
            for session in sessions:
                attributes[session] = {(ns, k): seed.choice(values) for ns in namespaces for k in keys}
                self.db.sql("SELECT " + ", ".join("rinq_session_update(%s, %s, %s::jsonb)" % (quote(session), quote(ns), quote(
                    "{%s}" % ",".join('"%s": "%s"' % (k, attributes[session][ns, k]) for k in keys))) for ns in namespaces))
            for number in range(number + 1, number + 301):
                constraint = build(3)
                self.multicast(constraint, payload=number)
                expected += [(session, number) for session in sessions if matches(constraint, "news", attributes[session])]
            self.assertEqual(self.recording.wait_settled(self.deliveries(number, where=lambda e: e.exchange == "ntf.mc")[-1]), "ack")
        got = []
        for session in sessions:
            rows = True
            while rows:
                rows = self.db.sql("SELECT target, payload FROM rinq_notifications('0', %s)" % quote(session))
                got += [(target, int(payload)) for target, payload in rows]
        self.server.configure(**{"rinq.notification_buffer": 1000})
        self.assertGreater(len(expected), 5000)
        self.assertEqual(sorted(got), sorted(expected))

    def test_matching_while_attributes_change(self):
        """Equalities are looked up in an index, which has to follow every change."""
        seed = random.Random(6)
        sessions, expected = {}, []
        for number in range(400):
            choice = seed.randrange(10)
            some = seed.choice(sorted(sessions)) if sessions else None
            if choice == 0 or some is None:
                sessions[self.listening("news")] = {}
            elif choice == 1 and len(sessions) > 5:
                self.db.sql("SELECT rinq_session_destroy(%s)" % quote(some))
                del sessions[some]
            elif choice == 2:
                self.db.sql("SELECT rinq_session_clear(%s, 'news')" % quote(some))
                sessions[some] = {}
            elif choice == 3:
                self.db.sql("SELECT rinq_session_unlisten(%s, 'news'), rinq_session_listen(%s, 'news', 'take(rinq_notification)')" % (quote(some), quote(some)))
            elif choice < 7:
                key, value = seed.choice("abc"), seed.choice(("", "1", "2"))
                self.db.sql("SELECT rinq_session_update(%s, 'news', rinq_set(%s, %s))" % (quote(some), quote(key), quote(value)))
                sessions[some][key] = value
            else:
                terms = [(seed.choice("abc"), seed.choice("12")) for _ in range(seed.randrange(1, 4))]
                operator = seed.choice("&|")
                self.multicast({"o": operator, "t": [{"o": "=", "k": k, "v": v} for k, v in terms]}, payload=number)
                self.deliveries(1, where=lambda e: e.exchange == "ntf.mc")
                found = [s for s, attributes in sessions.items() if (all if operator == "&" else any)(attributes.get(k) == v for k, v in terms)]
                expected += [(number, s) for s in found]
                self.got(len(expected), "n")
        self.assertGreater(len(expected), 50)
        self.assertEqual(sorted((int(n), s) for n, s in self.got(len(expected), "((r).payload)::int, (r).target")), sorted(expected))

    def test_more_keys_than_indexes(self):
        sessions = [self.listening("news", *[("k%d" % k, str(n)) for k in range(40)]) for n in range(3)]
        for key in range(40):
            self.multicast({"o": "=", "k": "k%d" % key, "v": "1"}, payload=key)
        self.multicast({"o": "&", "t": [{"o": "=", "k": "k%d" % k, "v": "2"} for k in range(40)]}, payload=100)
        self.multicast({"o": "|", "t": [{"o": "=", "k": "k%d" % k, "v": "0"} for k in range(40)]}, payload=101)
        rows = self.got(42, "((r).payload)::int, (r).target")
        self.assertEqual(sorted((int(n), s) for n, s in rows), [(k, sessions[1]) for k in range(40)] + [(100, sessions[2]), (101, sessions[0])])

    def test_reconnect(self):
        db = self.database()
        db.sql("CREATE FUNCTION take(r rinq_notification) RETURNS void LANGUAGE sql AS ''")
        session = db.value("SELECT rinq_session_create()")
        db.sql("SELECT rinq_session_listen(%s, 'news', 'take(rinq_notification)')" % quote(session))
        old = db.peer()
        self.world.proxy.cut()
        db.wait_new_peer(old)
        self.db.wait_peer()
        self.assertSqlState(db.error("SELECT rinq_session_listen(%s, 'news', 'take(rinq_notification)')" % quote(session)), "RQ007")
        self.session = self.listening("news")
        message = self.unicast(self.session)
        self.assertEqual(self.got(1), [[message]])

    def test_old_one_still_handled_after_reconnect(self):
        db = self.database()
        db.sql("CREATE TABLE got (n serial, type text)")
        db.sql("""CREATE FUNCTION take(r rinq_notification) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            IF r.type LIKE 'gate%' THEN PERFORM pg_advisory_xact_lock_shared(substr(r.type, 5)::int); END IF;
            INSERT INTO got (type) VALUES (r.type); END $$""")
        types = lambda *expected: wait_until(lambda: [row[0] for row in db.sql("SELECT type FROM got ORDER BY n")], lambda rows: rows == list(expected))
        waiting = lambda count: wait_until(lambda: db.value("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"), lambda n: n == str(count))
        create = "SELECT rinq_session_create()"
        listen = lambda session: db.sql("SELECT rinq_session_listen(%s, 'news', 'take(rinq_notification)')" % quote(session))
        numbered = lambda session: int(session.rpartition(".")[2])
        with db.session() as first, db.session() as second:
            first.execute("SELECT pg_advisory_lock(1)")
            second.execute("SELECT pg_advisory_lock(2)")
            for _ in range(20):
                session = db.value(create)
            listen(session)
            for kind in ("gate1", "lost", "lost"):
                self.unicast(session, kind)
            waiting(1)
            old = db.peer()
            self.world.proxy.cut()
            db.wait_new_peer(old)
            self.db.wait_peer()
            successor = db.value(create)
            while numbered(successor) < numbered(session):
                successor = db.value(create)
            self.assertEqual(numbered(successor), numbered(session))
            listen(successor)
            for kind in ("gate2", "next"):
                self.unicast(successor, kind)
            waiting(2)
            first.execute("SELECT pg_advisory_unlock(1)")
            types("gate1")
            other = db.value(create)
            listen(other)
            self.unicast(other, "other")
            types("gate1", "other")
            second.execute("SELECT pg_advisory_unlock(2)")
            types("gate1", "other", "gate2", "next")

    def test_role_that_may_not_connect_any_more(self):
        role = self.db.role("leaver")
        self.db.sql("GRANT INSERT ON got TO leaver; GRANT USAGE ON SEQUENCE got_n_seq TO leaver; GRANT EXECUTE ON FUNCTION rinq_session_create(),"
                    " rinq_session_listen(text, text, regprocedure, text) TO leaver")
        session = self.db.value("SELECT rinq_session_create()", role)
        self.db.sql("SELECT rinq_session_listen(%s, 'news', 'take(rinq_notification)')" % quote(session), role)
        self.unicast(session)
        self.assertEqual(self.got(1, "role"), [["leaver"]])
        self.db.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'rinq executor' AND datname = current_database()")
        self.db.sql('REVOKE CONNECT ON DATABASE "%s" FROM PUBLIC' % self.db.name)
        dropped = self.counter("dropped")
        for _ in range(20):
            self.unicast(session)
        message = self.unicast(self.session)
        self.assertEqual(self.got(2)[1:], [[message]])
        wait_until(lambda: self.counter("dropped"), lambda n: n == dropped + 20, timeout=20)
        self.db.sql('GRANT CONNECT ON DATABASE "%s" TO PUBLIC' % self.db.name)
        self.unicast(session)
        self.assertEqual(self.got(3, "role")[2:], [["leaver"]])
        self.db.sql("DROP OWNED BY leaver; DROP ROLE leaver")

    def test_refused(self):
        self.assertSqlState(self.db.error("SELECT rinq_session_listen(%s, 'news', 'lower(text)')" % quote(self.session)), "42P13", "rinq_notification")
        self.assertSqlState(self.db.error("SELECT rinq_session_listen(%s, '_sess', 'take(rinq_notification)')" % quote(self.session)), "22023")
        self.assertSqlState(self.db.error("SELECT rinq_session_listen(%s, 'news', 'take(rinq_notification)', 'x')" % quote(self.session)), "22023", "together")
        for channel in ("", "x" * 64):
            self.assertSqlState(self.db.error("SELECT rinq_session_listen(%s, 'news', channel => %s)" % (quote(self.session), quote(channel))), "22023", "channel")
