"""Sessions: in SQL, served to other peers, and those of other peers."""

import concurrent.futures
import contextlib
import random
import threading

import cbor2

from rinqtest import case, vectors
from rinqtest.peer import Failure, RemoteError
from rinqtest.server import SqlError, quote
from rinqtest.sessions import Client, Frozen, Model, Owner, Stale, StaleFetch
from rinqtest.waiting import wait_until

STALE, STALE_FETCH, FROZEN, NOT_FOUND = "RQ004", "RQ005", "RQ006", "RQ007"


def call(function, *arguments):
    return "SELECT %s(%s)" % (function, ", ".join(quote(a) if isinstance(a, str) else a.sql for a in arguments))


class Sql:
    """An argument that is written as it is."""

    def __init__(self, sql):
        self.sql = sql


def attribute(key, value, frozen=False):
    return Sql("rinq_%s(%s, %s)" % ("freeze" if frozen else "set", quote(key), quote(value)))


class Base(case.PeerCase):
    def create(self, **where):
        return self.db.value("SELECT rinq_session_create()", **where)

    def value(self, function, *arguments, **where):
        return self.db.value(call(function, *arguments), **where)

    def refused(self, state, function, *arguments, message=None, **where):
        self.assertSqlState(self.db.error(call(function, *arguments), **where), state, message)

    def update(self, session, namespace, *attributes):
        return self.value("rinq_session_update", session, namespace, *(attribute(*a) for a in attributes))


class Local(Base):
    """What SQL does with sessions of its own database."""

    def test_revisions(self):
        session = self.create()
        self.assertEqual(self.value("rinq_session_revision", session), session + "@0")
        first = self.update(session, "auth", ("user", "1"), ("tenant", "acme", True))
        self.assertEqual(first, session + "@1")
        second = self.update(first, "auth", ("user", "2"))
        self.assertEqual(second, session + "@2")
        self.assertEqual(self.value("rinq_session_get", session, "auth", "user"), "2")
        self.assertEqual(self.value("rinq_session_get", second, "auth", "tenant"), "acme")
        self.assertEqual(self.value("rinq_session_get", first, "auth", "tenant"), "acme")
        self.assertEqual(self.value("rinq_session_get", session + "@0", "auth", "tenant"), "")
        self.assertEqual(self.value("rinq_session_get", session, "auth", "nothing"), "")
        self.assertEqual(self.value("rinq_session_get", session, "other", "user"), "")
        self.refused(STALE_FETCH, "rinq_session_get", first, "auth", "user", message='attribute "user".*changed since')
        self.refused(STALE, "rinq_session_update", first, "auth", attribute("user", "3"), message="changed since")
        self.refused(STALE, "rinq_session_clear", first, "auth")
        self.refused(STALE, "rinq_session_destroy", first)
        self.refused(FROZEN, "rinq_session_update", session, "auth", attribute("tenant", "x"), message='"tenant".*frozen')
        self.refused(FROZEN, "rinq_session_clear", session, "auth")

        # an update without a change makes a revision; one of nothing does not
        self.assertEqual(self.update(session, "auth", ("user", "2")), session + "@3")
        self.assertEqual(self.value("rinq_session_update", session, "auth", Sql("VARIADIC '{}'::rinq_attribute[]")), session + "@3")
        self.assertEqual(self.value("rinq_session_clear", session, "nothing"), session + "@4")
        self.value("rinq_session_destroy", session)
        for function, arguments in (("rinq_session_revision", ()), ("rinq_session_get", ("a", "k")), ("rinq_session_clear", ("a",)),
                                    ("rinq_session_update", ("a", attribute("k", "v"))), ("rinq_session_destroy", ())):
            self.refused(NOT_FOUND, function, session, *arguments, message="not found")

    def test_forms_of_update(self):
        session = self.create()
        self.value("rinq_session_update", session, "j", Sql("""'{"a": "text", "b": 1.50, "c": true, "d": null, "e": [1, {"x": 2}]}'"""))
        self.value("rinq_session_update", session, "j", Sql("""jsonb_build_object('f', 'g')"""))
        self.assertEqual(self.db.sql("SELECT * FROM rinq_session_get_many(%s, 'j', '{a,b,c,d,e,f,nope}')" % quote(session)),
                         [["a", "text", "f"], ["b", "1.50", "f"], ["c", "true", "f"], ["d", "", "f"], ["e", '[1, {"x": 2}]', "f"],
                          ["f", "g", "f"], ["nope", "", "f"]])
        self.assertEqual(self.db.sql("SELECT * FROM rinq_session_get_many(%s, 'j', '{}')" % quote(session)), [])
        self.refused("22023", "rinq_session_update", session, "j", Sql("'[1]'"))
        self.refused("22P02", "rinq_session_update", session, "j", Sql("'no json'"))

    def test_bad_arguments(self):
        session = self.create()
        self.refused("22023", "rinq_session_revision", "nonsense")
        self.refused("22023", "rinq_session_revision", session + "@x")
        self.refused("22023", "rinq_session_get", session, "_sess", "k", message="reserved")
        self.refused("22023", "rinq_session_get", session, "", "k")
        self.refused("22004", "rinq_session_get", session, "a", Sql("NULL"))
        self.refused("22004", "rinq_session_update", session, "a", Sql("rinq_set(NULL, 'x')"))
        self.refused("22004", "rinq_session_update", session, "a", Sql("VARIADIC NULL::rinq_attribute[]"))
        self.assertEqual(self.value("rinq_session_update", session, "a", Sql("rinq_set('k', NULL)")), session + "@1")
        self.refused(NOT_FOUND, "rinq_session_revision", session.partition(".")[0] + ".4000000000")
        self.refused(NOT_FOUND, "rinq_session_revision", session.partition(".")[0] + ".0")

    def test_texts(self):
        session = self.create()
        for key, value in (("", ""), ("", "empty key"), ("ключ", "значение"), ("😀" * 100, "\n\t\u0001 "), ("k" * 30000, "v" * 30000)):
            self.update(session, "texts", (key, value))
            self.assertEqual(self.db.value("SELECT rinq_session_get(%s, 'texts', %s) = %s" % tuple(map(quote, (session, key, value)))), "t")
        for size in (0, 1000000):
            self.value("rinq_session_update", session, "texts", Sql("rinq_set('big', repeat('x', %d))" % size))
            self.assertEqual(self.db.value("SELECT rinq_session_get(%s, 'texts', 'big') = repeat('x', %d)" % (quote(session), size)), "t")
        many = ["k%d" % i for i in range(2000)]
        self.value("rinq_session_update", session, "many", Sql("(SELECT jsonb_object_agg('k' || i, 'v' || i) FROM generate_series(0, 1999) i)"))
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_session_get_many(%s, 'many', %s) WHERE value = 'v' || substr(key, 2)"
                                       % (quote(session), quote("{%s}" % ",".join(many)))), "2000")
        self.refused("54000", "rinq_session_update", session, "texts", Sql("rinq_set('huge', repeat('x', 20000000))"))

    def test_same_key_twice(self):
        session = self.create()
        self.update(session, "dup", ("a", "1"), ("a", "2"))
        self.assertEqual(self.value("rinq_session_get", session, "dup", "a"), "2")
        self.refused(FROZEN, "rinq_session_update", session, "dup", attribute("b", "1"), attribute("c", "1", True), attribute("c", "2"))
        self.assertEqual(self.value("rinq_session_revision", session), session + "@1")
        self.assertEqual(self.value("rinq_session_get", session, "dup", "b"), "", "a refused update changes nothing")

    def test_memory_limit(self):
        self.server.configure(**{"rinq.session_memory": "1MB"})
        self.addCleanup(lambda: self.server.configure(**{"rinq.session_memory": None}))
        session = self.create()
        wait_until(lambda: self.db.value("SHOW rinq.session_memory"), lambda v: v == "1MB")
        value = Sql("rinq_set('k', repeat('x', 900000))")
        self.value("rinq_session_update", session, "m", value)
        self.refused("53400", "rinq_session_update", session, "m", Sql("rinq_set('l', repeat('x', 900000))"), message="session")
        with self.assertRaisesRegex(RemoteError, "no room"):
            Client(self.remote, session).update(1, "m", ("l", "x" * 900000, False))
        self.value("rinq_session_clear", session, "m")
        self.value("rinq_session_update", session, "m", value)
        self.value("rinq_session_destroy", session)

    def test_not_transactional(self):
        session = self.create()
        with self.db.session() as connection:
            connection.execute("BEGIN")
            connection.execute(call("rinq_session_update", session, "t", attribute("k", "v")))
            connection.execute("ROLLBACK")
        self.assertEqual(self.value("rinq_session_get", session, "t", "k"), "v")

    def test_connection_session(self):
        with self.db.session() as connection:
            session = connection.value("SELECT rinq_session()")
            self.assertEqual(connection.value("SELECT rinq_session()"), session)
            self.assertEqual(connection.value(call("rinq_session_update", session, "c", attribute("k", "v"))), session + "@1")
            # messages carry the revision, and are numbered anew
            self.remote.serve("sessions", lambda request: request.id)
            for number in (1, 2):
                self.assertEqual(connection.value("SELECT rinq_call('sessions', 'x') #>> '{}'"), "%s@1#%d" % (session, number))
            connection.execute(call("rinq_session_update", session, "c", attribute("k", "w")))
            self.assertEqual(connection.value("SELECT rinq_call('sessions', 'x') #>> '{}'"), session + "@2#1")
            client = Client(self.remote, session)
            self.assertEqual(client.revision(), 2)
            self.assertEqual(client.update(2, "c", ("k", "theirs", False)), 3)
            self.assertEqual(connection.value("SELECT rinq_call('sessions', 'x') #>> '{}'"), session + "@3#1")
            pid = connection.value("SELECT pg_backend_pid()")
            self.assertEqual(self.db.value("SELECT pid FROM rinq_sessions WHERE id = %s" % quote(session)), pid)

            # a destroyed one is followed by another
            connection.execute(call("rinq_session_destroy", session))
            other = connection.value("SELECT rinq_session()")
            self.assertNotEqual(other, session)
            self.assertEqual(connection.value("SELECT rinq_call('sessions', 'x') #>> '{}'"), other + "@0#1")
        client = Client(self.remote, other)
        wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_sessions WHERE id = %s" % quote(other)), lambda n: n == "0")
        with self.assertRaisesRegex(Failure, "not-found"):
            client.revision()

    def test_killed_backend(self):
        connection = self.db.session()
        session = connection.value("SELECT rinq_session()")
        self.db.sql("SELECT pg_terminate_backend(%s)" % connection.value("SELECT pg_backend_pid()"))
        wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_sessions WHERE id = %s" % quote(session)), lambda n: n == "0")
        connection.close()

    def test_session_argument(self):
        session = self.create()
        self.update(session, "a", ("k", "v"))
        self.remote.serve("sessions", lambda request: request.id)
        for number in (1, 2):
            self.assertEqual(self.db.value("SELECT rinq_call('sessions', 'x', session => %s) #>> '{}'" % quote(session)),
                             "%s@1#%d" % (session, number))
        with self.db.session() as connection:
            message = connection.value("SELECT rinq_call_async('sessions', 'x', session => %s)" % quote(session))
            self.assertEqual(message, session + "@1#3")
            self.assertEqual(connection.value("SELECT rinq_await(%s) #>> '{}'" % quote(message)), message)
            own = connection.value("SELECT rinq_session()")
            self.assertEqual(connection.value("SELECT rinq_call('sessions', 'x', session => %s) #>> '{}'" % quote(own)), own + "@0#1")
            other = self.db.error("SELECT rinq_call('sessions', 'x', session => %s)" % quote(own))
            self.assertSqlState(other, "53400", "refused")
        for durable in ("true", "false"):
            message = self.db.value("SELECT rinq_execute('sessions', 'x', durable => %s, session => %s)" % (durable, quote(session)))
            self.assertRegex(message, r"^%s@1#[45]$" % session.replace(".", r"\."))
            self.remote.wait_requests(where=lambda r: r.id == message)
        self.refused("22023", "rinq_call", "sessions", "x", Sql("session => '%s@1'" % session))
        self.refused(NOT_FOUND, "rinq_execute", "sessions", "x", Sql("session => '%s.4000000'" % session.partition(".")[0]))

    def test_roles(self):
        names = [self.db.role("s_%s" % name) for name in ("owner", "member", "stranger")]
        self.addCleanup(self.db.sql, "DROP OWNED BY {0}, {1}, {2}; DROP ROLE {0}, {1}, {2}".format(*names))
        self.db.sql("GRANT s_owner TO s_member")
        for name in names:
            self.db.sql("""GRANT EXECUTE ON FUNCTION rinq_session_create(), rinq_session_revision(text), rinq_session_get(text, text, text),
                rinq_session_update(text, text, rinq_attribute[]), rinq_session_destroy(text), rinq_session_clear(text, text),
                rinq_call(text, text, jsonb, interval, text), rinq_session_on_response(text, regprocedure) TO %s""" % name)
        session = self.create(role="s_owner")
        update = ("rinq_session_update", session, "r", attribute("k", "v"))
        self.value(*update, role="s_owner")
        self.value(*update, role="s_member")
        self.value(*update, role="postgres")
        for function, arguments in (("rinq_session_revision", ()), ("rinq_session_get", ("r", "k")), ("rinq_session_clear", ("r",)),
                                    ("rinq_session_update", ("r", attribute("k", "v"))), ("rinq_session_destroy", ())):
            self.refused("42501", function, session, *arguments, role="s_stranger", message="permission denied for session")
        error = self.db.error("SELECT rinq_call('x', 'x', NULL::jsonb, '1s', %s)" % quote(session), role="s_stranger")
        self.assertSqlState(error, "42501")
        count = "SELECT count(*) FROM %s WHERE %s = " + quote(session)
        for view, column in (("rinq_sessions", "id"), ("rinq_session_attributes", "session")):
            seen = [self.db.value(count % (view, column), role=name) for name in names]
            self.assertEqual(seen, ["1", "1", "0"])
        self.db.sql("GRANT pg_monitor TO s_stranger")
        self.assertEqual(self.db.value(count % ("rinq_sessions", "id"), role="s_stranger"), "1")

    def test_views(self):
        session = self.create()
        self.update(session, "v", ("k", "1"), ("f", "2", True))
        self.update(session, "v", ("k", "3"))
        self.value("rinq_session_clear", session, "nothing")
        self.assertEqual(self.db.sql("SELECT revision, role, pid, created > now() - interval '1 minute', pending_calls"
                                     " FROM rinq_sessions WHERE id = %s" % quote(session)), [["3", "postgres", None, "t", "0"]])
        self.assertEqual(self.db.sql("SELECT namespace, key, value, is_frozen, created_at, updated_at FROM rinq_session_attributes"
                                     " WHERE session = %s ORDER BY key" % quote(session)),
                         [["v", "f", "2", "t", "1", "1"], ["v", "k", "3", "f", "1", "2"]])
        created = int(self.db.value("SELECT count(rinq_session_create()) FROM generate_series(1, 1200)"))
        self.assertEqual(created, 1200)
        self.assertGreaterEqual(int(self.db.value("SELECT count(DISTINCT id) FROM rinq_sessions")), 1200)
        self.db.sql("SELECT rinq_session_destroy(id) FROM rinq_sessions WHERE pid IS NULL")
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_sessions WHERE pid IS NULL"), "0")

    def test_pending_calls(self):
        release = threading.Event()
        self.remote.serve("sessions.slow", lambda request: release.wait(20))
        session = self.create()
        waiting = self.db.start("SELECT rinq_call('sessions.slow', 'x', NULL::jsonb, '20s', %s)" % quote(session))
        wait_until(lambda: self.db.value("SELECT pending_calls FROM rinq_sessions WHERE id = %s" % quote(session)), lambda n: n == "1")
        release.set()
        waiting.result()
        self.assertEqual(self.db.value("SELECT pending_calls FROM rinq_sessions WHERE id = %s" % quote(session)), "0")

    def test_reconnect(self):
        db = self.database()
        with db.session() as connection:
            own = connection.value("SELECT rinq_session()")
            session = connection.value("SELECT rinq_session_create()")
            old = db.peer()
            self.world.proxy.cut()
            db.wait_new_peer(old)
            error = connection.error(call("rinq_session_get", session, "a", "k"))
            self.assertSqlState(error, NOT_FOUND, "not found")
            self.assertRegex(error.text, "connected anew")
            other = connection.value("SELECT rinq_session()")
            self.assertNotEqual(other, own)
            self.assertTrue(other.startswith(db.peer()["peer_id"] + "."))
        self.db.wait_peer()

    def test_peer_restart(self):
        db = self.database()
        session = db.value("SELECT rinq_session_create()")
        db.sql("SELECT rinq_stop()")
        self.assertSqlState(db.error(call("rinq_session_revision", session)), "55000")
        self.assertEqual(db.value("SELECT count(*) FROM rinq_sessions"), "0")
        db.sql("SELECT rinq_start()")
        db.wait_peer()
        self.assertSqlState(db.error(call("rinq_session_revision", session)), NOT_FOUND)

    def test_concurrent_updates(self):
        session = self.create()
        client = Client(self.remote, session)
        base = 0

        def from_sql(worker):
            with self.db.session() as connection:
                return [connection.value(call("rinq_session_update", session, "n", attribute("w%d" % worker, str(i)))) for i in range(50)]

        def from_remote(worker):
            made = []
            while len(made) < 20:
                revision = client.revision()
                try:
                    made.append("%s@%d" % (session, client.update(revision, "n", ("r%d" % worker, str(len(made)), False))))
                except Failure as failure:
                    self.assertEqual(failure.kind, "stale")
            return made
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            results = list(pool.map(lambda w: from_sql(w) if w < 4 else from_remote(w), range(6)))
        revisions = sorted(int(r.partition("@")[2]) for made in results for r in made)
        self.assertEqual(revisions, list(range(base + 1, base + 241)))


class Served(Base):
    """What other peers are answered about sessions of this one."""

    def test_recorded_cases(self):
        db = self.database()
        session = db.value("SELECT rinq_session_create()")
        self.assertTrue(session.endswith(".1"), session)
        db.sql(call("rinq_session_update", session, "auth", attribute("user", "1"), attribute("tenant", "acme", True)))
        client = Client(self.remote, session)
        cases = vectors.load("session-requests")
        self.assertEqual(len(cases), 31)
        for recorded in cases:
            response = client.raw(recorded["command"], bytes.fromhex(recorded["request"]))
            self.assertEqual((response.properties["type"], response.text("t")), (recorded["type"], recorded.get("failure")), recorded)
            if recorded["type"] == "e" and recorded["about"] != "unknown command":
                self.assertTrue(response.body.decode(), recorded)
            else:
                self.assertEqual(response.body.hex(), recorded["body"], recorded)
            self.assertIsNone(response.text("n"))

    def test_malformed_payloads(self):
        session = self.create()
        client = Client(self.remote, session)
        seed = random.Random(7)
        bodies = [b"\xff", b"\xa1", b"\xa1\x61", b"\x9f", b"\xbf\x61s", b"\xa1\x61s\x20", b"\xa1\x61s\x61x", b"\xa1\x61s\xfb" + b"\x00" * 8,
                  b"\xa1\x61s\x1b" + b"\xff" * 8, b"\xbb" + b"\xff" * 8, b"\xa1\x61a\x9b" + b"\xff" * 8, b"\xa1\x61k\x81\x61\xff",
                  b"\xa1\x62ns\x62\xc3\x28", b"\x81" * 10000, b"\xa1" + b"\x81" * 200 + b"\x00", cbor2.dumps({"s": 1}) + b"\x00",
                  cbor2.dumps({"s": 2 ** 32}), cbor2.dumps({"a": 1}), cbor2.dumps({"a": [1]}), cbor2.dumps({"k": [1]}), cbor2.dumps("x")]
        whole = cbor2.dumps({"s": client.number, "r": 0, "ns": "a", "a": [{"k": "k", "v": "v", "f": True}]})
        for _ in range(300):
            mutated = bytearray(whole)
            for _ in range(seed.randrange(1, 4)):
                mutated[seed.randrange(len(mutated))] = seed.randrange(256)
            bodies.append(bytes(mutated[:seed.randrange(1, len(mutated) + 1)]))
        for number, body in enumerate(bodies):
            response = client.raw("fetch" if number % 2 else "update", body)
            self.assertIn(response.properties["type"], "sfe", body.hex())
            if number < 20:
                self.assertEqual(response.properties["type"], "e" if body != cbor2.dumps({"s": 1}) else "s", body.hex())
        self.assertGreaterEqual(client.revision(), 0)

    def test_lenient_forms(self):
        session = self.create()
        client = Client(self.remote, session)
        number = cbor2.dumps(client.number)
        # of unknown length, in chunks, tagged, with unknown and repeated keys
        body = b"\xbf\x61s" + number + b"\x62ns\x7f\x61a\x61b\xff\x61r\xc1\x00\x61z\x82\x01\x9f\xff\x01\x02\x61a\x9f\xbf\x61k\x41k\x61v\x61v\xff\xff\xff"
        response = client.raw("update", body)
        self.assertEqual(response.properties["type"], "s", response.body)
        self.assertEqual(self.value("rinq_session_get", session, "ab", "k"), "v")

    def test_without_reply(self):
        session = self.create()
        client = Client(self.remote, session)
        body = cbor2.dumps({"s": client.number, "r": 0, "ns": "a", "a": [{"k": "k", "v": "v"}]})
        self.remote.publish_raw("cmd.uc", client.owner, body, {"n": "_sess", "c": "update"}, message_id=self.remote.next_id())
        wait_until(lambda: self.value("rinq_session_get", session, "a", "k"), lambda v: v == "v")

    def test_never_behind_requests(self):
        self.db.handler("block", "PERFORM pg_advisory_xact_lock_shared(80); RETURN NULL;")
        self.db.sql("SELECT rinq_listen('blocked', 'block(rinq_request)')")
        session = self.create()
        client = Client(self.remote, session)
        self.remote.call("blocked", "x", timeout=20)
        with self.db.session() as gate:
            gate.execute("SELECT pg_advisory_lock(80)")
            for _ in range(1000):
                self.remote.execute_multicast("blocked", "x")
            for i in range(100):
                self.assertEqual(client.update(i, "b", ("k", str(i), False)), i + 1)
        self.db.sql("SELECT rinq_unlisten('blocked')")

    def test_executors_are_not_needed(self):
        db = self.database()
        session = db.value("SELECT rinq_session_create()")
        self.assertEqual(Client(self.remote, session).revision(), 0)
        self.assertEqual(db.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rinq executor' AND datname = current_database()"), "0")


class Remote(Base):
    """What SQL does with sessions of other peers."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.owner = Owner(cls.remote)

    def test_operations(self):
        session, model = self.owner.create()
        self.assertEqual(self.value("rinq_session_revision", session), session + "@0")
        self.assertEqual(self.update(session + "@0", "auth", ("user", "1"), ("tenant", "acme", True)), session + "@1")
        self.assertEqual(model.attributes, {("auth", "user"): ["1", False, 1, 1], ("auth", "tenant"): ["acme", True, 1, 1]})
        self.assertEqual(self.update(session, "auth", ("user", "2")), session + "@2")
        self.assertEqual(self.value("rinq_session_get", session, "auth", "user"), "2")
        self.assertEqual(self.value("rinq_session_get", session + "@2", "auth", "user"), "2")
        self.assertEqual(self.value("rinq_session_get", session + "@1", "auth", "tenant"), "acme")
        self.assertEqual(self.value("rinq_session_get", session + "@0", "auth", "tenant"), "")
        self.refused(STALE_FETCH, "rinq_session_get", session + "@1", "auth", "user")
        self.refused(STALE, "rinq_session_update", session + "@1", "auth", attribute("user", "3"))
        self.refused(FROZEN, "rinq_session_update", session, "auth", attribute("tenant", "x"))
        self.refused(FROZEN, "rinq_session_clear", session, "auth")
        self.update(session, "other", ("a", "1"))
        self.assertEqual(self.value("rinq_session_clear", session, "other"), session + "@4")
        self.assertEqual(self.value("rinq_session_get", session, "other", "a"), "")
        self.refused(STALE, "rinq_session_destroy", session + "@1")
        self.value("rinq_session_destroy", session)
        self.refused(NOT_FOUND, "rinq_session_revision", session)

    def test_requests_conform(self):
        session, _ = self.owner.create()
        number = int(session.rpartition(".")[2])
        self.update(session + "@0", "auth", ("role", "admin"), ("tenant", "acme", True))
        self.value("rinq_session_get", session + "@1", "auth", "user-id")
        self.value("rinq_session_clear", session + "@1", "other")
        self.value("rinq_session_revision", session)
        self.value("rinq_session_destroy", session + "@2")
        messages = self.published("cmd.uc", 5)
        self.assertEqual([cbor2.loads(m.body) for m in messages], [
            {"s": number, "r": 0, "ns": "auth", "a": [{"k": "role", "v": "admin"}, {"k": "tenant", "v": "acme", "f": True}]},
            {"s": number, "ns": "auth", "k": ["user-id"]}, {"s": number, "r": 1, "ns": "other"}, {"s": number}, {"s": number, "r": 2}])
        own = self.db.peer()["peer_id"]
        for m in messages:
            self.assertConforms(m, "call-unicast")
        for m, command in zip(messages, ("update", "fetch", "clear", "fetch", "destroy")):
            self.assertRegex(m.properties["message_id"], "^%s.0@0#[0-9]+$" % own)
            self.assertEqual((m.properties["priority"], m.properties["reply_to"], m.routing_key), (2, "c", self.remote.id))
            self.assertEqual((m.headers["n"].value, m.headers["c"].value, m.headers["n"].type, m.headers["dl"].type), ("_sess", command, "S", "l"))

    def test_cache(self):
        session, model = self.owner.create()
        model.update(0, "c", [("frozen", "f", True), ("plain", "p", False)])
        self.assertEqual(self.value("rinq_session_get", session + "@1", "c", "frozen"), "f")
        self.assertEqual(self.value("rinq_session_get", session + "@1", "c", "plain"), "p")
        self.assertEqual(self.value("rinq_session_get", session + "@1", "c", "missing"), "")
        asked = len(self.owner.fetches)
        for _ in range(3):
            self.assertEqual(self.value("rinq_session_get", session + "@1", "c", "frozen"), "f")
            self.assertEqual(self.value("rinq_session_get", session + "@1", "c", "plain"), "p")
            self.assertEqual(self.value("rinq_session_get", session + "@1", "c", "missing"), "")
            self.refused(FROZEN, "rinq_session_update", session + "@1", "c", attribute("frozen", "x"))
        self.assertEqual(len(self.owner.fetches), asked, "all of this is known")
        # only what is not known is asked for
        self.db.sql("SELECT * FROM rinq_session_get_many(%s, 'c', '{frozen,new,plain}')" % quote(session + "@1"))
        self.assertEqual(self.owner.fetches[asked:], [["new"]])
        # at a newer revision, only what is frozen is known
        model.update(1, "c", [("plain", "q", False)])
        self.db.sql("SELECT * FROM rinq_session_get_many(%s, 'c', '{frozen,plain}')" % quote(session + "@2"))
        self.assertEqual(self.owner.fetches[asked + 1:], [["plain"]])
        self.refused(STALE_FETCH, "rinq_session_get", session + "@1", "c", "plain")
        self.refused(STALE, "rinq_session_update", session + "@1", "c", attribute("plain", "x"))
        self.assertEqual(len(self.owner.fetches), asked + 2)

    def test_cache_can_be_turned_off(self):
        self.server.configure(**{"rinq.session_cache": "0"})
        self.addCleanup(lambda: self.server.configure(**{"rinq.session_cache": None}))
        session, model = self.owner.create()
        model.update(0, "c", [("frozen", "f", True)])
        wait_until(lambda: self.db.value("SHOW rinq.session_cache"), lambda v: v == "0")
        asked = len(self.owner.fetches)
        for _ in range(3):
            self.assertEqual(self.value("rinq_session_get", session + "@1", "c", "frozen"), "f")
            self.assertEqual(self.value("rinq_session_get", session + "@1", "c", "missing"), "")
        self.assertEqual(len(self.owner.fetches), asked + 6)

    def test_pruning(self):
        self.server.configure(**{"rinq.prune_interval": "1"})
        self.addCleanup(lambda: self.server.configure(**{"rinq.prune_interval": None}))
        session, model = self.owner.create()
        model.update(0, "c", [("frozen", "f", True)])
        self.value("rinq_session_get", session + "@1", "c", "frozen")
        asked = len(self.owner.fetches)

        def forgotten():
            # asking of a known one would keep it; only the length of the silence counts
            threading.Event().wait(2.5)
            self.value("rinq_session_get", session + "@1", "c", "frozen")
            return len(self.owner.fetches)
        wait_until(forgotten, lambda n: n > asked, timeout=15)

    def test_peer_that_is_gone(self):
        self.refused(NOT_FOUND, "rinq_session_revision", "58AEE146-191C.1")
        self.refused(NOT_FOUND, "rinq_session_update", "58AEE146-191C.1@0", "a", attribute("k", "v"))
        self.refused(NOT_FOUND, "rinq_session_update", "58AEE146-191C.1", "a", attribute("k", "v"))
        self.assertEqual(self.value("rinq_session_get", "58AEE146-191C.1@0", "a", "k"), "", "revision 0 has nothing")

    def test_bad_responses(self):
        other = self.peer()
        session = "%s.%d" % (other.id, other.new_session())
        answers = []
        other._handlers["_sess"] = lambda request: answers[0]()

        def raises(error):
            def act():
                raise error
            return act
        for answer, state in ((raises(RemoteError("no")), "RQ002"), (raises(Failure("odd")), "08P01"), (lambda: [1], "08P01"),
                              (lambda: {"r": -1}, "08P01"), (lambda: {"r": 1, "a": [{"k": "k", "v": 5}]}, "08P01"),
                              (lambda: {"r": 1, "a": [{"k": "other", "v": "v", "cr": 1, "ur": 1}]}, None)):
            answers[:] = [answer]
            if state is None:
                self.assertEqual(self.value("rinq_session_get", session, "a", "k"), "")
            else:
                self.refused(state, "rinq_session_get", session, "a", "k")
        answers[:] = [lambda: threading.Event().wait(1.5)]
        error = self.db.error("SET rinq.default_timeout = '300ms'; " + call("rinq_session_revision", session))
        self.assertSqlState(error, "RQ003", "timed out")

    def test_against_model(self):
        """Random operations on one session by SQL and by its owner: SQL sees what the model says, at every revision."""
        seed = random.Random(11)
        session, model = self.owner.create()
        keys = ["a", "b", "c", "f"]
        history = {}
        with contextlib.ExitStack() as stack:
            connections = [stack.enter_context(self.db.session()) for _ in range(3)]
            for step in range(2000):
                connection = seed.choice(connections)
                revision = max(0, model.revision - seed.choice((0, 0, 0, 1, 2)))
                at = "%s@%d" % (session, revision)
                key = seed.choice(keys)
                action = seed.randrange(10)
                history[model.revision] = dict(model.attributes)
                if action < 2:
                    model.update(model.revision, "m", [(seed.choice("abc"), str(step), False)])
                    continue
                expected = Model()
                expected.revision, expected.attributes = model.revision, dict(model.attributes)
                if action < 7:
                    sql, act = call("rinq_session_get", at, "m", key), lambda: expected.get(revision, "m", key)
                elif action < 9:
                    frozen = key == "f" and seed.randrange(4) == 0
                    value = str(step)
                    sql = call("rinq_session_update", at, "m", attribute(key, value, frozen))

                    def act():
                        expected.update(revision, "m", [(key, value, frozen)])
                        return "%s@%d" % (session, expected.revision)
                else:
                    sql = call("rinq_session_clear", at, "m")

                    def act():
                        expected.clear(revision, "m")
                        return "%s@%d" % (session, expected.revision)
                try:
                    wanted = act()
                except (Stale, StaleFetch, Frozen) as refusal:
                    if type(refusal) is StaleFetch:
                        # the owner does not know any more; who was told then, does
                        wanted = history[revision].get(("m", key), [""])[0]
                        try:
                            self.assertEqual(connection.value(sql), wanted, (step, sql))
                        except SqlError as error:
                            self.assertEqual(error.sqlstate, STALE_FETCH)
                        continue
                    error = connection.error(sql)
                    allowed = {Stale: (STALE,), Frozen: (FROZEN,)}[type(refusal)]
                    # what is stale and frozen at once may be called either
                    self.assertIn(error.sqlstate, allowed + ((FROZEN,) if type(refusal) is Stale else ()), (step, sql))
                    self.assertEqual(model.attributes, expected.attributes)
                    continue
                self.assertEqual(connection.value(sql), wanted, (step, sql))
                self.assertEqual((model.revision, model.attributes), (expected.revision, expected.attributes), (step, sql))


    def test_concurrent_updates(self):
        """Two databases, each with its own cache, and the owner change one session: each success is one revision."""
        other = self.database()
        session, model = self.owner.create()
        turns = threading.Lock()
        update, clear = model.update, model.clear

        def serialised(change):
            def act(*arguments):
                with turns:
                    return change(*arguments)
            return act
        model.update, model.clear = serialised(update), serialised(clear)

        def from_sql(worker):
            db = (self.db, other)[worker % 2]
            with db.session() as connection:
                return [connection.value("SET rinq.default_timeout = '30s'; " + call("rinq_session_update", session, "n", attribute("w%d" % worker, str(i))))
                        for i in range(25)]

        def from_owner(worker):
            made = []
            while len(made) < 25:
                revision = model.revision
                try:
                    model.update(revision, "n", [("o", str(len(made)), False)])
                    made.append("%s@%d" % (session, revision + 1))
                except Stale:
                    pass
            return made
        with concurrent.futures.ThreadPoolExecutor(5) as pool:
            results = list(pool.map(lambda w: from_sql(w) if w < 4 else from_owner(w), range(5)))
        self.assertEqual(sorted(int(r.partition("@")[2]) for made in results for r in made), list(range(1, 126)))
        for db in (self.db, other):
            for worker in range(4):
                self.assertEqual(db.value(call("rinq_session_get", session, "n", "w%d" % worker)), "24")


class Handlers(Base):
    """Sessions in handlers, and responses that go to handlers."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.owner = Owner(cls.remote)
        cls.db.handler("whoami", """CASE req.command
            WHEN 'get' THEN RETURN to_jsonb(rinq_session_get(req.source, 'auth', 'tenant'));
            WHEN 'twice' THEN RETURN to_jsonb(ARRAY[rinq_source_attribute('auth', 'tenant'), rinq_source_attribute('auth', 'tenant'),
                                                    rinq_source_attribute('auth', 'none')]);
            WHEN 'rows' THEN RETURN (SELECT jsonb_agg(x ORDER BY x) FROM protected);
            WHEN 'set' THEN RETURN to_jsonb(rinq_session_update(req.source, 'auth', rinq_set('seen', 'yes')));
            WHEN 'role' THEN RETURN to_jsonb(current_user::text);
          END CASE;""")
        cls.db.sql("CREATE TABLE protected (x int, tenant text)")
        cls.db.sql("INSERT INTO protected VALUES (1, 'acme'), (2, 'other'), (3, 'acme')")
        cls.db.sql("ALTER TABLE protected ENABLE ROW LEVEL SECURITY")
        cls.db.sql("CREATE POLICY p ON protected USING (tenant = rinq_source_attribute('auth', 'tenant'))")
        cls.db.role("reader")
        cls.db.sql("GRANT SELECT ON protected TO reader; GRANT EXECUTE ON FUNCTION rinq_listen(text, regprocedure, integer, boolean, interval, boolean, jsonb, text[]),"
                   " rinq_session_get(text, text, text), rinq_session_update(text, text, rinq_attribute[]) TO reader")
        cls.db.sql("SELECT rinq_listen('who', 'whoami(rinq_request)')", role="reader")
        cls.remote.call("who", "role", timeout=20)

    @classmethod
    def tearDownClass(cls):
        cls.remote.close()
        cls.db.sql("DROP TABLE protected")
        cls.db.drop()
        cls.server.psql("DROP ROLE reader")

    def ask(self, session, command, revision=None):
        number = int(session.rpartition(".")[2])
        revision = self.owner.sessions[number].revision if revision is None else revision
        message = self.remote.call_async("who", command, message=self.remote.next_id(number, revision))
        return self.remote.response(message, timeout=20).result()

    def test_source(self):
        session, model = self.owner.create()
        model.update(0, "auth", [("tenant", "acme", True)])
        self.assertEqual(self.ask(session, "role"), "reader", "a handler runs as the role that registered it")
        self.assertEqual(self.ask(session, "get"), "acme")
        asked = len(self.owner.fetches)
        self.assertEqual(self.ask(session, "twice"), ["acme", "acme", ""])
        self.assertEqual(self.owner.fetches[asked:], [["none"]])
        self.assertEqual(self.ask(session, "set"), session + "@2")
        self.assertEqual(model.attributes["auth", "seen"][0], "yes")

    def test_row_level_security(self):
        session, model = self.owner.create()
        model.update(0, "auth", [("tenant", "acme", False)])
        self.assertEqual(self.ask(session, "rows"), [1, 3])
        model.update(1, "auth", [("tenant", "other", False)])
        self.assertEqual(self.ask(session, "rows"), [2])
        self.assertEqual(self.ask(session, "rows", revision=1), [2], "the value then is not known any more")
        other, _ = self.owner.create()
        self.assertIsNone(self.ask(other, "rows"))
        self.assertEqual(self.db.value("SELECT count(*) FROM protected", role="reader"), "0", "outside of handlers there is no source")

    def test_source_of_ones_own(self):
        """A session of the same database that belongs to another role: its handler may use it, as any peer may."""
        session = self.create()
        self.update(session, "auth", ("tenant", "acme"))
        self.assertEqual(self.db.value("SELECT rinq_call('who', 'get', NULL::jsonb, '20s', %s)" % quote(session)), '"acme"')
        self.assertEqual(self.db.value("SELECT rinq_call('who', 'rows', NULL::jsonb, '20s', %s)" % quote(session)), "[1, 3]")


class Responses(Base):
    """rinq_session_on_response."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db.sql("CREATE TABLE responses (like_it text)")
        cls.db.sql("CREATE TABLE got (r rinq_response, role text)")
        cls.db.sql("""CREATE FUNCTION take(r rinq_response) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
            IF r.payload = '"error"' THEN RAISE EXCEPTION 'cannot take it'; END IF;
            IF r.payload = '"die"' THEN PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(10); END IF;
            INSERT INTO got VALUES (r, current_user); END $$""")

        def serve(request):
            if request.command == "fail":
                raise Failure("no-way", "because", request.payload)
            if request.command == "error":
                raise RuntimeError("went wrong")
            return request.payload
        cls.remote.serve("answers", serve)

    def setUp(self):
        super().setUp()
        self.db.sql("TRUNCATE got")
        self.session = self.create()
        self.value("rinq_session_on_response", self.session, "take(rinq_response)")

    def send(self, command, payload="1"):
        return self.db.value("SELECT rinq_call_async('answers', %s, %s::jsonb, session => %s)" % (quote(command), quote(payload), quote(self.session)))

    def got(self, count=1):
        rows = "SELECT (r).id, (r).session, (r).namespace, (r).command, (r).outcome, (r).payload, (r).failure_type, (r).message FROM got ORDER BY 1"
        return wait_until(lambda: self.db.sql(rows), lambda r: len(r) == count)

    def test_outcomes(self):
        for command, rest in (("echo", ["success", "1", None, None]), ("fail", ["failure", "1", "no-way", "because"]),
                              ("error", ["error", None, None, "went wrong"])):
            self.db.sql("TRUNCATE got")
            message = self.send(command)
            self.assertEqual(self.got(), [[message, self.session, "answers", command] + rest])
        request = self.published("cmd.bal", 3)[0]
        self.assertEqual(request.properties["reply_to"], "u")
        self.assertEqual((request.headers["n"].value, request.headers["c"].value), ("answers", "echo"))

    def test_nobody_can_await_it(self):
        with self.db.session() as connection:
            message = connection.value("SELECT rinq_call_async('answers', 'echo', session => %s)" % quote(self.session))
            self.assertSqlState(connection.error("SELECT rinq_await(%s)" % quote(message)), "42704")
        self.got()

    def test_many(self):
        self.db.sql("SELECT rinq_call_async('answers', 'echo', to_jsonb(i), session => %s) FROM generate_series(1, 200) i" % quote(self.session))
        self.assertEqual(sorted(int(r[5]) for r in self.got(200)), list(range(1, 201)))

    def test_handler_errors(self):
        mark = self.server.log_mark()
        self.send("echo", '"error"')
        self.server.wait_log("cannot take it", mark)
        self.send("echo", '"die"')
        self.send("echo", "2")
        self.assertEqual([r[5] for r in self.got()], ["2"])

    def test_removed_handler(self):
        self.db.sql("SELECT rinq_session_on_response(%s, NULL)" % quote(self.session))
        with self.db.session() as connection:
            self.assertEqual(connection.value("SELECT rinq_await(rinq_call_async('answers', 'echo', '5'::jsonb, session => %s))" % quote(self.session)), "5")

    def test_destroyed_session(self):
        release = threading.Event()
        self.remote.serve("answers.late", lambda request: release.wait(20))
        dropped = int(self.db.value("SELECT responses_dropped FROM rinq_peer"))
        self.db.sql("SELECT rinq_call_async('answers.late', 'x', NULL::jsonb, '20s', %s)" % quote(self.session))
        self.value("rinq_session_destroy", self.session)
        release.set()
        wait_until(lambda: int(self.db.value("SELECT responses_dropped FROM rinq_peer")), lambda n: n == dropped + 1)

    def test_malformed_responses(self):
        message = self.send("echo")
        self.got()
        dropped = int(self.db.value("SELECT responses_dropped FROM rinq_peer"))
        for properties, headers in (({"type": "x"}, {}), ({}, {}), ({"type": "f"}, {})):
            self.remote.publish_raw("cmd.rsp", message, b"", headers, reply_to="u", correlation_id="t", **properties)
        wait_until(lambda: int(self.db.value("SELECT responses_dropped FROM rinq_peer")), lambda n: n == dropped + 3)

    def test_response_without_namespace_and_command(self):
        message = self.send("echo")
        self.got()
        self.remote.publish_raw("cmd.rsp", message, b"\x07", {}, type="s", reply_to="u", correlation_id="t")
        self.assertIn([message, self.session, None, None, "success", "7", None, None], self.got(2))

    def test_refused_handlers(self):
        self.db.handler("of_requests", "RETURN NULL;")
        self.refused("42P13", "rinq_session_on_response", self.session, "of_requests(rinq_request)", message="rinq_response")
        self.refused("42883", "rinq_session_on_response", self.session, "absent(rinq_response)")
        self.refused("22023", "rinq_session_on_response", self.session + "@0", "take(rinq_response)")
        with self.db.session() as connection:
            own = connection.value("SELECT rinq_session()")
            self.assertSqlState(connection.error(call("rinq_session_on_response", own, "take(rinq_response)")), "53400", "refused")

    def test_bytes_on_the_wire(self):
        """Nothing else than the usual crosses it."""
        message = self.send("echo")
        self.got()
        request = self.published("cmd.bal", where=lambda m: m.properties.get("message_id") == message)[0]
        self.assertConforms(request, "call-async")
