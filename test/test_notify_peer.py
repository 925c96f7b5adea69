"""Notifications between SQL and an independent peer, which receives and matches by the protocol's text alone."""

import random

from rinqtest import case
from rinqtest.server import quote
from rinqtest.waiting import wait_until

EVERYBODY = {"o": "*"}


class ToPeer(case.PeerCase):
    """SQL notifies sessions of the independent peer."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.ada, cls.bob, cls.eve = (cls.remote.new_session() for _ in range(3))
        cls.names = {cls.ada: "ada", cls.bob: "bob", cls.eve: "eve"}
        cls.remote.set_attributes(cls.ada, "news", tenant="acme", level="1")
        cls.remote.set_attributes(cls.bob, "news", tenant="acme", level="2", muted="yes")
        cls.remote.set_attributes(cls.eve, "news", tenant="", level="1")
        cls.remote.set_attributes(cls.eve, "auth", user="eve")
        for session in cls.names:
            cls.remote.listen_notifications("news", session)

    def session(self, number):
        return quote(self.remote.session_id(number))

    def until_end(self):
        """What each session got, when everything that was committed before has come."""
        self.db.sql("SELECT rinq_notify_many('news', 'end', rinq_none())")
        got = {}
        for session, name in self.names.items():
            got[name] = []
            while not got[name] or got[name][-1].type != "end":
                got[name] += self.remote.notifications(session)
            got[name].pop()
        return got

    def who_got(self, kind):
        return [name for name, got in self.until_end().items() if [one.type for one in got] == [kind]]

    def test_one(self):
        message = self.db.value("SELECT rinq_notify('news', 'flash', %s, '{\"a\": [1, null]}')" % self.session(self.bob))
        got = self.until_end()
        self.assertEqual((got["ada"], got["eve"]), ([], []))
        [one] = got["bob"]
        self.assertEqual((one.id, one.namespace, one.type, one.target, one.multicast, one.payload, one.trace_id),
                         (message, "news", "flash", self.remote.session_id(self.bob), False, {"a": [1, None]}, message))
        self.assertRegex(one.source, r"^%s\.\d+@0$" % self.db.peer()["peer_id"])

    def test_many(self):
        message = self.db.value("SELECT rinq_notify_many('news', 'all', '{tenant=acme, level=2}', '5'::jsonb)")
        [one] = self.until_end()["bob"]
        self.assertEqual((one.id, one.type, one.target, one.multicast, one.payload), (message, "all", None, True, 5))
        self.assertEqual(one.constraint, {"o": "&", "t": [{"o": "=", "k": "tenant", "v": "acme"}, {"o": "=", "k": "level", "v": "2"}]})

    def test_who_matches(self):
        for which, expected in (("'{*}'", "ada bob eve"), ("'{tenant=acme}'", "ada bob"), ("'{tenant!=acme}'", "eve"), ("'{tenant}'", "ada bob"),
                                ("'{!tenant}'", "eve"), ("'{!muted}'", "ada eve"), ("'{! level=1}'", "bob"), ("'{tenant=acme, level=1}'", "ada"),
                                ("'{muted=yes|level=1}'", "ada bob eve"), ("'{muted=yes|level=3}'", "bob"), ("'{level=3}'", ""),
                                ("'{tenant=acme, {level=2|!muted}}'", "ada bob"), ("auth::{user=eve}", "eve"), ("auth::{!user}", "ada bob"),
                                ("rinq_and(rinq_equal('level', '1'), rinq_not(rinq_within('auth', rinq_not_empty('user'))))", "ada"),
                                ("rinq_or(rinq_empty('tenant'), rinq_not_equal('level', '1'))", "bob eve"),
                                ("rinq_within('auth', rinq_empty('user'), rinq_within('news', rinq_equal('muted', 'yes')))", "bob")):
            with self.subTest(which):
                which = which if which[0] == "'" or which.startswith("rinq_") else quote(which)
                self.db.sql("SELECT rinq_notify_many('news', 'x', %s)" % which)
                self.assertEqual(" ".join(self.who_got("x")), expected)

    def test_who_does_not_listen(self):
        stranger = self.remote.new_session()
        self.remote.listen_notifications("other", stranger)
        self.db.sql("SELECT rinq_notify('news', 'x', %s)" % self.session(stranger))
        self.db.sql("SELECT rinq_notify('other', 'x', %s)" % self.session(self.ada))
        self.db.sql("SELECT rinq_notify_many('other', 'many', rinq_none())")
        self.assertEqual(self.until_end(), {"ada": [], "bob": [], "eve": []})
        self.assertEqual([one.type for one in self.remote.notifications(stranger)], ["many"])
        self.assertEqual(self.remote.rejected, [])

    def test_order(self):
        with self.db.session() as connection:
            for first in range(0, 200, 50):
                connection.execute("SELECT rinq_notify('news', 'x', %s, to_jsonb(i)) FROM generate_series(%d, %d) i"
                                   % (self.session(self.ada), first, first + 49))
        self.assertEqual([one.payload for one in self.remote.notifications(self.ada, 200)], list(range(200)))
        self.db.sql("SELECT CASE i % 2 WHEN 0 THEN rinq_notify('news', 'x', {0}, to_jsonb(i)) ELSE rinq_notify_many('news', 'x', '{{level}}', to_jsonb(i)) END"
                    " FROM generate_series(0, 199) i".format(self.session(self.ada)))
        got = self.until_end()
        self.assertEqual([one.payload for one in got["ada"]], list(range(200)))
        self.assertEqual([one.payload for one in got["bob"]], list(range(1, 200, 2)))

    def test_rolled_back(self):
        notify = "SELECT rinq_notify('news', '{0}', %s), rinq_notify_many('news', '{0}', '{{tenant=acme}}')" % self.session(self.ada)
        undone, kept = notify.format("undone"), notify.format("kept")
        with self.db.session() as connection:
            connection.execute("BEGIN; %s; ROLLBACK" % undone)
            connection.execute("BEGIN; %s; SAVEPOINT s; %s; ROLLBACK TO s; COMMIT" % (kept, undone))
            connection.error("BEGIN; %s; SELECT 1 / 0" % undone)
            connection.execute("COMMIT")
        got = {name: [one.type for one in received] for name, received in self.until_end().items()}
        self.assertEqual(got, {"ada": ["kept", "kept"], "bob": ["kept"], "eve": []})

    def test_a_receiver_sees_the_rows(self):
        self.db.sql("CREATE TABLE seen (id int)")
        self.db.handler("look", "RETURN to_jsonb((SELECT count(*) FROM seen WHERE id = req.payload::text::int));")
        self.db.listen("look", "look")
        session = self.remote.new_session()
        counts = []
        self.remote.listen_notifications("rows", session, lambda one: counts.append(self.remote.call("look", "x", one.payload, timeout=10)))
        for i in range(20):
            self.db.sql("BEGIN; SELECT rinq_notify('rows', 'x', %s, '%d'); INSERT INTO seen VALUES (%d); COMMIT" % (self.session(session), i, i))
        wait_until(lambda: counts, lambda found: len(found) == 20, description="20 answers")
        self.assertEqual(counts, [1] * 20)

    def test_trigger(self):
        where = {"schema": "public", "table": "orders"}
        self.db.sql("CREATE TABLE orders (id int, status text, tenant text, buyer text)")
        self.addCleanup(self.db.sql, "DROP TABLE orders")
        trigger = "CREATE TRIGGER %s AFTER %s ON orders %s EXECUTE FUNCTION rinq_notify_trigger(%s)"
        self.db.sql(trigger % ("to_buyer", "INSERT OR UPDATE", "FOR EACH ROW", "'news', 'yours', 'buyer', 'columns=id,status'"))
        self.db.sql(trigger % ("to_tenant", "DELETE", "FOR EACH ROW", "'news', '', '{!muted}', 'match=tenant', 'columns=id'"))
        self.db.sql(trigger % ("to_all", "INSERT", "REFERENCING NEW TABLE AS n FOR EACH STATEMENT", "'news', 'report', '{level=1}', 'columns=id'"))
        self.db.sql("INSERT INTO orders VALUES (1, 'new', 'acme', {0}), (2, 'new', '', {1}), (3, 'new', 'acme', NULL)".format(
            self.session(self.bob), self.session(self.eve)))
        self.db.sql("BEGIN; UPDATE orders SET status = 'lost'; ROLLBACK")
        self.db.sql("UPDATE orders SET status = 'sent' WHERE id = 1")
        self.db.sql("DELETE FROM orders WHERE id < 3")
        got = {name: [(one.type, one.payload) for one in received] for name, received in self.until_end().items()}
        row = lambda number, status: {"id": number, "status": status}
        report = ("report", dict(where, operation="INSERT", part=1, last=True, new=[{"id": 1}, {"id": 2}, {"id": 3}]))
        self.assertEqual(got["bob"], [("yours", dict(where, operation="INSERT", new=row(1, "new"))),
                                      ("yours", dict(where, operation="UPDATE", new=row(1, "sent"), old=row(1, "new")))])
        self.assertEqual(got["ada"], [report, ("delete", dict(where, operation="DELETE", old={"id": 1}))])
        self.assertEqual(got["eve"], [("yours", dict(where, operation="INSERT", new=row(2, "new"))), report,
                                      ("delete", dict(where, operation="DELETE", old={"id": 2}))])

    def test_a_command_notifies_its_caller(self):
        """By the source of the request, whatever revision it names; the trace goes on."""
        self.db.handler("work", "PERFORM rinq_notify('news', 'progress', req.source, req.payload);"
                                " PERFORM rinq_notify_many('news', 'done', rinq_equal('level', '2')); RETURN 'true';")
        self.db.listen("work", "work")
        caller = self.remote.next_id(self.ada, revision=3)
        self.remote.call_async("work", "x", 1, trace="why", message=caller)
        self.assertIs(self.remote.response(caller, 20).result(), True)
        plain = self.remote.next_id(self.eve)
        self.remote.call_async("work", "x", 2, message=plain)
        self.assertIs(self.remote.response(plain).result(), True)
        got = {name: [(one.type, one.payload, one.trace_id) for one in received] for name, received in self.until_end().items()}
        self.assertEqual(got, {"ada": [("progress", 1, "why")], "bob": [("done", None, "why"), ("done", None, plain)], "eve": [("progress", 2, plain)]})

    def test_payloads(self):
        """As calls have them: numbers of any size, text of any kind, bytes as they are."""
        for value in ("null", "1.5", "-1", "123456789012345678901234567890", '"\u00e4\u20ac\U0001f600"', '[{}, {"": []}]'):
            self.db.sql("SELECT rinq_notify('news', 'x', %s, %s::jsonb)" % (self.session(self.ada), quote(value)))
        self.db.sql("SELECT rinq_notify_raw('news', 'x', %s, '\\xd8184101'::bytea)" % self.session(self.ada))
        self.db.sql("SELECT rinq_notify('news', '\u00e4', %s, to_jsonb(repeat('x', 1000000)))" % self.session(self.ada))
        got = self.remote.notifications(self.ada, 8)
        self.assertEqual([one.payload for one in got[:6]], [None, 1.5, -1, 123456789012345678901234567890, "\u00e4\u20ac\U0001f600", [{}, {"": []}]])
        self.assertEqual(got[6].body.hex(), "d8184101")
        self.assertEqual((got[7].type, got[7].payload), ("\u00e4", "x" * 1000000))


class FromPeer(case.PeerCase):
    """The independent peer notifies sessions and subscriptions of SQL, which notify it back."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.origin = cls.remote.new_session()
        cls.remote.listen_notifications("back", cls.origin)
        cls.db.sql("""CREATE FUNCTION answer(n rinq_notification) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            PERFORM rinq_notify('back', n.type, n.source, jsonb_build_object('target', n.target, 'payload', n.payload, 'filter', n.filter));
            IF n.type = 'fail' THEN RAISE EXCEPTION 'not this one'; END IF; END $$""")
        cls.db.sql("""SELECT rinq_subscribe('acme', 'news', 'answer(rinq_notification)', '{"tenant": "acme", "level": 1}')""")
        cls.subscription = cls.db.wait_subscription("acme")
        cls.session = cls.db.value("SELECT rinq_session_create()")
        cls.db.sql("""SELECT rinq_session_update(%s, 'news', '{"tenant": "other"}'::jsonb)""" % quote(cls.session))
        cls.db.sql("SELECT rinq_session_listen(%s, 'news', 'answer(rinq_notification)')" % quote(cls.session))

    def answers(self, count):
        return [(one.type, one.payload["target"], one.payload["payload"]) for one in self.remote.notifications(self.origin, count)]

    def everything(self):
        """The answers to what was sent before, once both have answered what is sent last."""
        self.remote.notify_many("news", "end", EVERYBODY, session=self.origin)
        got = []
        while len([one for one in got if one[0] == "end"]) < 2:
            got += self.answers(1)
        return [one for one in got if one[0] != "end"]

    def test_one(self):
        for target in (self.session, self.subscription):
            message = self.remote.notify("news", "hello", target, {"a": 1}, session=self.origin, trace="t1")
            [back] = self.remote.notifications(self.origin)
            self.assertEqual((back.type, back.trace_id, back.payload), ("hello", "t1", {"target": target, "payload": {"a": 1}, "filter": None}))
            self.assertNotEqual(back.id, message)
            self.assertEqual(back.target, self.remote.session_id(self.origin))

    def test_trace_of_one_without(self):
        message = self.remote.notify("news", "hello", self.session, session=self.origin)
        self.assertEqual(self.remote.notifications(self.origin)[0].trace_id, message)

    def test_many(self):
        for constraint, expected in (({"o": "=", "k": "tenant", "v": "acme"}, {self.subscription}), (EVERYBODY, {self.session, self.subscription}),
                                     ({"o": "!=", "k": "tenant", "v": "acme"}, {self.session}), ({"o": "=", "k": "level"}, {self.session}),
                                     ({"o": "!", "t": [EVERYBODY]}, set()), ({"o": "ns", "v": "x", "t": [{"o": "!=", "k": "tenant"}]}, set()),
                                     ({"o": "|", "t": [{"o": "=", "k": "level", "v": "1"}, {"o": "=", "k": "tenant", "v": "other"}]},
                                      {self.session, self.subscription})):
            with self.subTest(constraint):
                self.remote.notify_many("news", "m", constraint, 5, session=self.origin)
                self.assertEqual(sorted(self.everything()), sorted(("m", target, 5) for target in expected))

    def test_order(self):
        for i in range(200):
            self.remote.notify("news", "x", self.subscription, i, session=self.origin)
        self.assertEqual(self.answers(200), [("x", self.subscription, i) for i in range(200)])

    def test_failed_handler_sends_nothing(self):
        mark = self.server.log_mark()
        self.remote.notify("news", "fail", self.subscription, session=self.origin)
        self.remote.notify("news", "fine", self.subscription, session=self.origin)
        self.assertEqual(self.answers(1), [("fine", self.subscription, None)])
        self.server.wait_log("not this one", mark)

    def test_back_and_forth(self):
        """Each answer makes the peer's handler notify again; one trace from the first to the last."""
        session = self.remote.new_session()
        traces = []

        def again(notification):
            traces.append(notification.trace_id)
            left = notification.payload["payload"]
            if left > 0:
                self.remote.notify("news", "x", self.subscription, left - 1, session=session, trace=notification.trace_id)
        self.remote.listen_notifications("back", session, again)
        self.addCleanup(self.remote.unlisten_notifications, "back", session)
        first = self.remote.notify("news", "x", self.subscription, 20, session=session)
        self.assertEqual([one.payload["payload"] for one in self.remote.notifications(session, 21)], list(range(20, -1, -1)))
        wait_until(lambda: traces, lambda found: found == [first] * 21)


class Differential(case.Case):
    """Two matchers, written apart, agree on who a notification is for."""

    def test_random_constraints(self):
        seed = random.Random(11)
        db, remote = self.database(), self.peer(prefetch=100)
        keys, values, namespaces = "ab", ("", "1", "2"), ("news", "other")
        pairs = []
        for _ in range(6):
            number, session = remote.new_session(), db.value("SELECT rinq_session_create()")
            for namespace in namespaces:
                attributes = {key: seed.choice(values) for key in keys if seed.random() < 0.8}
                remote.set_attributes(number, namespace, **attributes)
                db.sql("SELECT rinq_session_update(%s, %s, %s)" % (quote(session), quote(namespace), quote(attributes)))
            remote.listen_notifications("news", number)
            db.sql("SELECT rinq_session_listen(%s, 'news')" % quote(session))
            pairs.append((number, session))

        def constraint(depth):
            kind = seed.choice(["*", "=", "!=", "=", "!="] if depth == 0 else ["=", "!=", "!", "&", "|", "ns", "&", "|"])
            if kind in ("=", "!="):
                made = {"o": kind, "k": seed.choice(keys), "v": seed.choice(values)}
                return {name: text for name, text in made.items() if text}
            if kind == "*":
                return {"o": "*"}
            terms = [constraint(depth - 1) for _ in range(1 if kind == "!" else seed.randint(1, 3))]
            return dict({"o": kind, "t": terms}, **({"v": seed.choice(namespaces)} if kind == "ns" else {}))
        constraints = [constraint(i % 4) for i in range(200)]
        for i, one in enumerate(constraints):
            # half of them go through SQL, where they survive their text form
            if i % 2:
                remote.notify_many("news", str(i), one)
            else:
                self.assertEqual(db.json("SELECT %s::rinq_constraint::text::rinq_constraint::jsonb" % quote(one)), one)
        db.sql("; ".join("SELECT rinq_notify_many('news', '%d', %s::rinq_constraint)" % (i, quote(one))
                         for i, one in enumerate(constraints) if i % 2 == 0))
        remote.notify_many("news", "end of the peer's", EVERYBODY)
        db.sql("SELECT rinq_notify_many('news', 'end of SQL''s', '{*}')")

        def of_peer(number):
            types = []
            while len([kind for kind in types if kind.startswith("end")]) < 2:
                types += [one.type for one in remote.notifications(number)]
            return sorted(types)

        def of_sql(session):
            types = []
            while len([kind for kind in types if kind.startswith("end")]) < 2:
                types += [row[0] for row in db.sql("SELECT type FROM rinq_notifications('10 s', %s)" % quote(session))]
            return sorted(types)
        matched = 0
        for number, session in pairs:
            got = of_peer(number)
            self.assertEqual(got, of_sql(session))
            matched += len(got) - 2
        self.assertGreater(matched, 200)
        self.assertLess(matched, 6 * 200 - 200)
