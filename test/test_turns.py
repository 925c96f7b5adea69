"""No turn of the peer's event loop takes long, whatever arrives and however much is stored."""

import random
from concurrent.futures import ThreadPoolExecutor

import cbor2

from rinqtest import case
from rinqtest.constraint import matches
from rinqtest.peer import Failure, Raw
from rinqtest.server import quote
from rinqtest.waiting import wait_until

# ms of processor time; what one kind of work may take is 2 ms, and a step of it is short
LONGEST = 30
# s after which the peer has forgotten a long turn
FORGOTTEN = 150


class Turns(case.PeerCase):
    def setUp(self):
        super().setUp()
        self.before = self.db.peer()

    def tearDown(self):
        self.assertStayed()
        if self.longest() >= LONGEST:
            self.do_again()
            self.assertStayed()
        super().tearDown()

    def assertStayed(self):
        self.assertEqual(self.db.peer()["reconnects"], self.before["reconnects"])

    def longest(self):
        return self.db.peer()["longest_turn_cpu"]

    def make_again(self):
        """What the class has made, if that takes the peer long."""

    def do_again(self):
        """The work, not the machine's business with something else in the middle of it, makes every time a turn long."""
        wait_until(self.longest, lambda longest: longest < LONGEST, timeout=FORGOTTEN)
        self.make_again()
        self.setUp()
        getattr(self, self._testMethodName)()
        self.assertLess(self.longest(), LONGEST)

    def notify(self, constraint, payload=None, namespace="flood"):
        message = self.remote.next_id()
        self.remote.publish_raw("ntf.mc", namespace, cbor2.dumps(payload),
                                {"n": namespace, "c": constraint if isinstance(constraint, bytes) else cbor2.dumps(constraint)}, type="x", message_id=message)
        return message

    def notify_one(self, session, payload=None, namespace="flood"):
        message = self.remote.next_id()
        self.remote.publish_raw("ntf.uc", "%s.%s" % (namespace, session.rpartition(".")[0]), cbor2.dumps(payload), {"n": namespace, "t": session},
                                type="x", message_id=message)
        return message

    def ask(self, command, body):
        """A request about a session; its response."""
        return self.remote.call_unicast(self.session.rpartition(".")[0], "_sess", command, Raw(body) if isinstance(body, bytes) else body, timeout=30)


class Constraints(Turns):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.make_sessions()

    @classmethod
    def make_sessions(cls):
        cls.db.sql("SELECT count(*) FROM (SELECT rinq_session_listen(s, 'flood') FROM (SELECT rinq_session_create() AS s FROM generate_series(1, 20000)) c) l",
                   timeout=120)
        cls.db.sql("SELECT count(rinq_session_update(id, 'flood', rinq_set('tenant', 'acme'), rinq_set('user', id))) FROM rinq_sessions WHERE pid IS NULL",
                   timeout=120)
        cls.sessions = [row[0] for row in cls.db.sql("SELECT id FROM rinq_sessions WHERE pid IS NULL ORDER BY id LIMIT 3")]

    def make_again(self):
        self.db.sql("SELECT count(rinq_session_destroy(id)) FROM rinq_sessions WHERE pid IS NULL", timeout=120)
        self.make_sessions()

    NEVER = {"o": "!", "t": [{"o": "*"}]}

    def wait_kept(self, session, count):
        wait_until(lambda: self.db.value("SELECT notifications_buffered FROM rinq_sessions WHERE id = " + quote(session)), lambda n: n == str(count), timeout=60)

    def fetch(self, session):
        """All that is kept, page by page."""
        got, rows = [], True
        while rows:
            rows = self.db.sql("SELECT id FROM rinq_notifications('0', %s)" % quote(session))
            got += [row[0] for row in rows]
        return got

    def test_long_ones(self):
        """Each alone costs its length times the sessions, if its terms are evaluated one by one."""
        terms = [{"o": "!=", "k": "k%d" % i, "v": "x"} for i in range(4500)]
        same = [{"o": "!=", "k": "tenant", "v": "%d" % i} for i in range(3500)]
        sent = []
        for i in range(15):
            self.notify({"o": "&", "t": terms + [self.NEVER]})
            self.notify({"o": "|", "t": [{"o": "!", "t": [term]} for term in same[:2500]]})
            self.notify({"o": "&", "t": same + [self.NEVER]})
            sent.append(self.notify_one(self.sessions[0], i))
        self.wait_kept(self.sessions[0], len(sent))
        self.assertEqual(self.fetch(self.sessions[0]), sent)

    def test_sessions_with_many_attributes(self):
        """Long constraints and many attributes: the cost cannot be made less, only spread over turns."""
        pairs = {"k%d" % i: "x" for i in range(3500)}
        sessions = [row[0] for row in self.db.sql("SELECT rinq_session_create() FROM generate_series(1, 30)")]
        self.db.sql("SELECT rinq_session_update(s, 'wide', (SELECT jsonb_object_agg('k' || i, 'x') FROM generate_series(0, 3499) i)),"
                    " rinq_session_listen(s, 'wide') FROM unnest(%s::text[]) s" % quote("{%s}" % ",".join(sessions)))
        before = self.db.peer()["notifications_received"]
        for _ in range(20):
            self.notify({"o": "&", "t": [{"o": "=", "k": key, "v": value} for key, value in pairs.items()]}, namespace="wide")
            self.notify({"o": "&", "t": [{"o": "!=", "k": key, "v": "y"} for key in pairs] + [self.NEVER]}, namespace="wide")
        wait_until(lambda: self.db.peer()["notifications_received"], lambda n: n == before + 20 * len(sessions), timeout=60)
        self.db.sql("SELECT rinq_session_destroy(s) FROM unnest(%s::text[]) s" % quote("{%s}" % ",".join(sessions)))

    def test_that_need_indexes(self):
        """More keys than there are indexes, so that each has one built."""
        for i in range(40):
            self.notify({"o": "&", "t": [{"o": "=", "k": "k%d" % i, "v": "x"}, {"o": "=", "k": "user", "v": "nobody"}]})
            self.notify({"o": "|", "t": [{"o": "=", "k": "k%d" % (i + j), "v": "x"} for j in range(500)]})
        last = self.notify_one(self.sessions[1])
        self.wait_kept(self.sessions[1], 1)
        self.assertEqual(self.fetch(self.sessions[1]), [last])

    def test_order(self):
        """What is for one session is kept in the order in which it came, however long it took to find that out."""
        terms = [{"o": "!=", "k": "tenant", "v": "%d" % i} for i in range(3000)]
        sent = []
        for i in range(10):
            sent.append(self.notify({"o": "&", "t": terms + [{"o": "ns", "v": "flood", "t": [{"o": "=", "k": "user", "v": self.sessions[2]}]}]}))
            sent.append(self.notify_one(self.sessions[2]))
            self.notify({"o": "&", "t": [{"o": "!=", "k": "user", "v": self.sessions[2]}, {"o": "!=", "k": "tenant", "v": "acme"}]})
            sent.append(self.notify({"o": "|", "t": [{"o": "=", "k": "user", "v": self.sessions[2]}]}))
        self.wait_kept(self.sessions[2], len(sent))
        self.assertEqual(self.fetch(self.sessions[2]), sent)

    def test_too_long(self):
        """What SQL refuses, a message must not have either."""
        rejected = "SELECT notifications_rejected FROM rinq_peer"
        before = int(self.db.value(rejected))
        self.notify({"o": "&", "t": [{"o": "!=", "k": "k%d" % i, "v": "x"} for i in range(6500)]})
        wait_until(lambda: self.db.value(rejected), lambda n: int(n) == before + 1)
        self.assertSqlState(self.db.error("SELECT rinq_and(VARIADIC array_agg(rinq_not_equal('k' || i, 'x'))) FROM generate_series(1, 6500) i"), "54000")

    def test_listing(self):
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_sessions WHERE pid IS NULL"), "20000")
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_session_attributes"), "40000")


class Matching(Turns):
    def test_many_comparisons(self):
        """Constraints of more comparisons than sessions have attributes, and of fewer, against a model."""
        seed = random.Random(11)
        keys, values = ["a", "b", "c", "d", ""], ["", "1", "2"]
        attributes = {}
        for _ in range(12):
            session = self.db.value("SELECT rinq_session_create()")
            self.db.sql("SELECT rinq_session_listen(%s, 'flood')" % quote(session))
            attributes[session] = {}
            for namespace in ("flood", "other"):
                chosen = {key: seed.choice(values) for key in seed.sample(keys, seed.randint(0, 5))}
                attributes[session][namespace] = chosen
                self.db.sql("SELECT rinq_session_update(%s, '%s', %s)" % (quote(session), namespace, ", ".join(
                    "rinq_set('%s', '%s')" % item for item in chosen.items()) or "VARIADIC '{}'"))

        def constraint(depth):
            kind = seed.choice(["=", "!="] if depth == 0 else ["&", "|", "!", "ns"])
            if depth == 0:
                return {"o": kind, "k": seed.choice(keys), "v": seed.choice(values)}
            terms = [constraint(depth - 1) for _ in range(1 if kind == "!" else seed.randint(1, 4))]
            return dict({"o": kind, "t": terms}, **({"v": seed.choice(["flood", "other"])} if kind == "ns" else {}))

        expected = []
        for number in range(400):
            one = constraint(seed.randint(1, 4))
            self.notify(one, number)
            expected += [[session, str(number)] for session in attributes if matches(one, "flood", attributes[session])]
        self.notify({"o": "*"}, "end")
        for session in attributes:
            wait_until(lambda: self.db.value("SELECT notifications_buffered FROM rinq_sessions WHERE id = " + quote(session)),
                       lambda n: int(n) == sum(1 for row in expected if row[0] == session) + 1)
        got = self.db.sql("SELECT s, n.payload FROM unnest(%s::text[]) s, rinq_notifications('0', s) n WHERE n.payload <> '\"end\"'"
                          % quote("{%s}" % ",".join(attributes)))
        self.assertEqual(sorted(got), sorted(expected))


class Attributes(Turns):
    def setUp(self):
        super().setUp()
        self.session = self.db.value("SELECT rinq_session_create()")
        self.number = int(self.session.rpartition(".")[2])

    def revision(self):
        return int(self.db.value("SELECT rinq_session_revision(%s)" % quote(self.session)).rpartition("@")[2])

    def attributes(self, first, last):
        return [{"k": "k%d" % i, "v": "v"} for i in range(first, last)]

    def fill(self):
        for first in range(0, 10000, 5000):
            self.ask("update", {"s": self.number, "r": self.revision(), "ns": "n", "a": self.attributes(first, first + 5000)})

    def refused(self, command, body):
        with self.assertRaises(Exception) as caught:
            self.ask(command, body)
        return str(caught.exception)

    def test_changes(self):
        self.fill()
        for i in range(100):
            self.ask("clear", {"s": self.number, "r": 2 + 2 * i, "ns": "n" if i % 2 == 0 else "m"})
            self.ask("update", {"s": self.number, "r": 3 + 2 * i, "ns": "n", "a": self.attributes(i, i + 1)})
        self.ask("update", {"s": self.number, "r": self.revision(), "ns": "n", "a": self.attributes(0, 10000)})
        self.ask("fetch", {"s": self.number, "ns": "n", "k": ["k%d" % i for i in range(10000)]})

    def test_bounds(self):
        """The same from the network and from SQL."""
        self.fill()
        revision = self.revision()
        self.assertIn("10000", self.refused("update", {"s": self.number, "r": revision, "ns": "n", "a": self.attributes(9999, 10002)}))
        self.assertSqlState(self.db.error("SELECT rinq_session_update(%s, 'n', rinq_set('new', 'x'))" % quote(self.session)), "53400", "10000")
        self.assertEqual(self.revision(), revision)
        self.ask("update", {"s": self.number, "r": revision, "ns": "n", "a": self.attributes(9998, 10000)})
        self.refused("update", {"s": self.number, "r": revision + 1, "ns": "n", "a": self.attributes(0, 10001)})
        self.refused("fetch", {"s": self.number, "ns": "n", "k": ["x"] * 10001})
        self.assertSqlState(self.db.error("SELECT rinq_session_get_many(%s, 'n', array_agg('k' || i)) FROM generate_series(1, 10001) i" % quote(self.session)),
                            "54000")
        self.assertSqlState(self.db.error("SELECT rinq_session_update(%s, 'n', jsonb_object_agg('k' || i, 'x')) FROM generate_series(1, 10001) i"
                                          % quote(self.session)), "54000")
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_session_get_many(%s, 'n', (SELECT array_agg('k' || i) FROM generate_series(1, 10000) i))"
                                       % quote(self.session)), "10000")

    def test_bodies_that_cost_much(self):
        """Many items in few bytes."""
        head = b"\xa3" + cbor2.dumps("s") + cbor2.dumps(self.number)
        for body in ({"s": self.number, "ns": "n", "k": ["x"] * 1000000},
                     b"\xbf" + (cbor2.dumps("k") + cbor2.dumps(["x"] * 1000)) * 500 + b"\xff",
                     b"\xbf" + (cbor2.dumps("a") + cbor2.dumps([{}] * 1000)) * 500 + b"\xff",
                     head + cbor2.dumps("ns") + b"\x7f" + b"\x60" * 4000000 + b"\xff" + cbor2.dumps("k") + b"\x80",
                     head + cbor2.dumps("zz") + b"\x9f" + b"\xf6" * 4000000 + b"\xff" + cbor2.dumps("k") + b"\x80",
                     head + cbor2.dumps("zz") + b"\xc1" * 4000000 + b"\x00" + cbor2.dumps("k") + b"\x80"):
            self.refused("fetch", body)


class Questions(Turns):
    """Questions about sessions of durable messages, which wait until these were read."""

    def test_long_ones(self):
        self.db.sql("""SELECT rinq_execute('turns-nobody', 'x', attributes => '{"a": {"b": 1}}')""")
        mailbox = self.db.value("SELECT id FROM rinq_internal.mailbox")
        wait_until(lambda: self.world.broker.ctl("list_consumers", "queue_name"), lambda queues: mailbox + ".req" in queues, 30, "the mailbox")
        self.assertRefused(mailbox, 0xffffffff, b"\x00")
        received = self.db.peer()["requests_received"]
        with self.db.session() as locker, ThreadPoolExecutor(60) as pool:
            locker.execute("BEGIN; LOCK TABLE rinq_internal.durable_source IN ACCESS EXCLUSIVE MODE")
            asked = [pool.submit(self.assertRefused, mailbox, 0xfffffff0 + n % 2, b"\x99\xff\xff" + b"\xf6" * 65535) for n in range(60)]
            wait_until(lambda: self.db.peer()["requests_received"], lambda n: n >= received + 60, 60)
            locker.execute("ROLLBACK")
            for one in asked:
                one.result()

    def assertRefused(self, mailbox, session, more):
        with self.assertRaises(Failure) as caught:
            self.remote.call_unicast(mailbox, "_sess", "fetch", Raw(b"\xa2" + cbor2.dumps("s") + cbor2.dumps(session) + cbor2.dumps("zz") + more), timeout=60)
        self.assertEqual(caught.exception.kind, "not-found")


class Accounts(case.PeerCase):
    """Notifications that are kept, and sessions, take nothing from each other."""

    def setUp(self):
        super().setUp()
        self.server.configure(**{"rinq.session_memory": "1MB", "rinq.notification_memory": "1MB"})
        self.addCleanup(lambda: self.server.configure(**{"rinq.session_memory": None, "rinq.notification_memory": None}))
        wait_until(lambda: self.db.value("SHOW rinq.notification_memory"), lambda value: value == "1MB")

    def tearDown(self):
        self.db.sql("SELECT rinq_session_destroy(id) FROM rinq_sessions WHERE pid IS NULL")
        super().tearDown()

    def listening(self):
        session = self.db.value("SELECT rinq_session_create()")
        self.db.sql("SELECT rinq_session_listen(%s, 'news')" % quote(session))
        return session

    def notify(self, session, size):
        message = self.remote.next_id()
        self.remote.publish_raw("ntf.uc", "news.%s" % session.rpartition(".")[0], cbor2.dumps("x" * size), {"n": "news", "t": session}, type="x",
                                message_id=message)
        return message

    def kept(self, session):
        return int(self.db.value("SELECT notifications_buffered FROM rinq_sessions WHERE id = " + quote(session)))

    def test_notification_buffer_leave_room_for_sessions(self):
        sessions = [self.listening() for _ in range(20)]
        for session in sessions:
            for _ in range(5):
                self.notify(session, 20000)
        wait_until(lambda: int(self.db.value("SELECT notifications_dropped FROM rinq_peer")), lambda n: n >= 40)
        self.db.sql("SELECT rinq_session_update(rinq_session_create(), 'x', rinq_set('a', repeat('x', 500000)))")

    def test_sessions_leave_room_for_notification_buffer(self):
        session = self.listening()
        self.db.sql("SELECT rinq_session_update(rinq_session_create(), 'x', rinq_set('a', repeat('x', 990000)))")
        self.assertSqlState(self.db.error("SELECT rinq_session_update(rinq_session_create(), 'x', rinq_set('a', repeat('x', 100000)))"), "53400")
        for _ in range(9):
            self.notify(session, 100000)
        wait_until(lambda: self.kept(session), lambda n: n == 9)

    def test_one_that_keeps_much_makes_room(self):
        """A session that nobody fetches from does not stop the others, who keep less."""
        hoarder, other = self.listening(), self.listening()
        sent = [self.notify(hoarder, 100000) for _ in range(10)]
        wait_until(lambda: self.kept(hoarder), lambda n: n == 10)
        mine = [self.notify(other, 100000) for _ in range(3)]
        wait_until(lambda: self.kept(other), lambda n: n == 3)
        fetch = "SELECT id FROM rinq_notifications('0', %s)"
        with self.db.session() as connection:
            self.assertEqual([row[0] for _ in range(3) for row in connection.execute(fetch % quote(other))], mine)
            self.assertEqual([row[0] for _ in range(9) for row in connection.execute(fetch % quote(hoarder))], sent[3:])
