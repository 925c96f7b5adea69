"""What the Python suites share: one world for those that leave it as they found it, and checks after every test."""

import re
import unittest

import cbor2

from . import vectors
from .cluster import World, quote, wait_until
from .proxy import BROKER
from .scratch import Scratch

# set by test/run before the suites are loaded
STAGE = None
SERVER_ENVIRONMENT = None
_scratch = None
_shared = None


def scratch():
    global _scratch
    if _scratch is None:
        _scratch = Scratch()
    return _scratch


def shared_world():
    """The world that most suites use: whoever stops a part of it starts it again."""
    global _shared
    if _shared is None:
        _shared = World(STAGE, scratch(), environment=SERVER_ENVIRONMENT, name="shared")
    return _shared


def new_world(name, **options):
    """A world of one's own, for other settings or for harm that is not undone."""
    return World(options.pop("stage", STAGE), scratch(), environment=SERVER_ENVIRONMENT, name=name, **options)


def close_all():
    global _scratch, _shared
    if _shared is not None:
        _shared.close()
    if _scratch is not None:
        _scratch.close()
    _shared = _scratch = None


class Case(unittest.TestCase):
    """A test against a running server; it fails when the server crashed meanwhile, or told of a broken wire."""

    maxDiff = None
    expects_crash = False
    world = None
    longMessage = True

    @classmethod
    def setUpClass(cls):
        cls.world = cls.make_world()
        cls.server = cls.world.server
        cls.recording = cls.world.recording

    @classmethod
    def make_world(cls):
        return shared_world()

    def setUp(self):
        self.log_start = self.server.log_mark()
        self.wire_start = self.recording.mark() if self.world.proxy is not None else None
        self._peers = []

    def tearDown(self):
        for peer in self._peers:
            peer.close()
        if self.world.proxy is not None:
            self.world.proxy.resume()
        if not self.expects_crash:
            self.assertEqual(self.server.crashes(self.log_start), [], "the server must not crash")
        if self.world.proxy is not None:
            self.assertEqual(self.world.proxy.trouble, [], "what crosses the wire must be AMQP")
        self.assertNoSecret(self.server.log_since(self.log_start), self.world.broker.password)

    def peer(self, **options):
        """An independent peer for this test."""
        peer = self.world.peer(**options)
        self._peers.append(peer)
        return peer

    def database(self, **options):
        """A database for this test alone."""
        database = self.world.database(**options)
        self.addCleanup(database.drop)
        return database

    def deliveries(self, count=1, since=None, where=None, timeout=10, **arguments):
        """What the broker handed to the extension, once there are so many."""
        return self.recording.wait("basic.deliver", count, timeout, where, sender=BROKER, since=since or self.wire_start, **arguments)

    def published(self, exchange, count=1, since=None, where=None, timeout=10):
        """What the extension published to an exchange, once there are so many."""
        return self.recording.wait_published(exchange, count, timeout, since=since or self.wire_start, where=where)

    def assertConforms(self, message, kind, /, **bindings):
        self.assertEqual(vectors.conforms(message, kind, **bindings), [], repr(message))

    def assertSqlState(self, error, state, message=None):
        self.assertEqual(error.sqlstate, state, error.text)
        if message is not None:
            self.assertRegex(error.text, message)

    def assertNoSecret(self, text, secret):
        self.assertIsNone(re.search(re.escape(secret), text), "a secret shows in: " + text[:2000])


class PeerCase(Case):
    """Tests with a database of their own, and an independent peer."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.remote = cls.world.peer(prefetch=100)

    @classmethod
    def tearDownClass(cls):
        cls.remote.close()
        cls.db.drop()


class OwnDatabaseCase(Case):
    """Tests that have a database and an independent peer each."""

    def setUp(self):
        super().setUp()
        self.db = self.database()
        self.remote = self.peer()

    def counting(self, namespace, body, db=None):
        """A handler that counts its starts, whatever becomes of its transaction."""
        db = db or self.db
        db.sql("CREATE SEQUENCE starts")
        db.handler(namespace, "PERFORM nextval('starts'); " + body)
        db.listen(namespace, namespace)
        return lambda: int(db.value("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM starts"))


class ReceivingCase(PeerCase):
    """Sessions that wait for notifications, and an independent peer that sends these, malformed ones included."""

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
        wait_until(lambda: self.db.value("SELECT notifications_buffered FROM rinq_sessions WHERE id = " + quote(session)), lambda n: n == str(count))
