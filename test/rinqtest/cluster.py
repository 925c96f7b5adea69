"""A broker, a recording proxy in front of it, and a server whose extension talks through the proxy: one World."""

import itertools
import json

from .broker import Broker
from .peer import Peer
from .proxy import Proxy
from .scratch import Scratch, exit_on_signals
from .server import BuildError, Server, SqlError, build, install, pg_config, quote
from .waiting import WaitTimeout, wait_until

__all__ = ["BuildError", "Database", "Scratch", "Server", "SqlError", "WaitTimeout", "World", "build", "call_sql", "exit_on_signals", "install",
           "pg_config", "quote", "wait_until"]

_numbers = itertools.count(1)


class Database:
    """A database with the extension, and what the tests ask of it."""

    def __init__(self, server, name):
        self.server = server
        self.name = name

    def sql(self, text, role="postgres", timeout=60):
        return self.server.psql(text, self.name, role, timeout)

    def value(self, text, role="postgres", timeout=60):
        rows = self.sql(text, role, timeout)
        return rows[0][0] if rows else None

    def json(self, text, role="postgres", timeout=60):
        """A jsonb result as a Python value; SQL NULL is None as well."""
        value = self.value(text, role, timeout)
        return None if value is None else json.loads(value)

    def error(self, text, role="postgres", timeout=60):
        """The SqlError that the statements must end with."""
        return self.start(text, role).error(timeout)

    def start(self, text, role="postgres"):
        return self.server.start_psql(text, self.name, role)

    def session(self, role="postgres"):
        return self.server.session(self.name, role)

    def call(self, namespace, command, payload=None, timeout=None, role="postgres"):
        """rinq_call as a Python function."""
        return self.json(call_sql(namespace, command, payload, timeout), role)

    def peer(self):
        """The row of rinq_peer as a dict, None when there is none."""
        return self.json("SELECT to_jsonb(p) FROM rinq_peer p")

    def wait_peer(self, predicate=lambda row: row["state"] == "connected", timeout=15, description="the peer to connect"):
        return wait_until(self.peer, lambda row: row is not None and predicate(row), timeout,
                          "%s in %s" % (description, self.name))

    def wait_new_peer(self, old, timeout=15):
        """Connected again, under another id than before."""
        return self.wait_peer(lambda row: row["state"] == "connected" and row["peer_id"] != old["peer_id"], timeout,
                              "the peer to come back with a new id")

    def listen(self, namespace, handler, role="postgres"):
        self.sql("SELECT rinq_listen(%s, %s)" % (quote(namespace), quote(handler + "(rinq_request)")), role)

    def wait_subscription(self, name):
        """The session of a subscription, once notifications reach it."""
        return wait_until(lambda: self.value("SELECT session FROM rinq_subscriptions WHERE name = " + quote(name)), lambda session: session is not None,
                          description="a session for subscription " + name)

    def handler(self, name, body, declare="", role="postgres"):
        """Create a PL/pgSQL handler; body goes between BEGIN and END."""
        self.sql("CREATE FUNCTION %s(req rinq_request) RETURNS jsonb LANGUAGE plpgsql AS $handler$ %s BEGIN %s END $handler$"
                 % (name, "DECLARE " + declare if declare else "", body), role)

    def role(self, name, options="LOGIN"):
        """A role that may use the extension here."""
        self.sql("CREATE ROLE %s %s" % (name, options))
        self.sql("GRANT USAGE, CREATE ON SCHEMA public TO %s" % name)
        return name

    def drop(self, timeout=30):
        self.server.psql('DROP DATABASE IF EXISTS "%s"' % self.name, timeout=timeout)


def call_sql(namespace, command, payload=None, timeout=None):
    """The text of a statement that calls; payload None leaves out the argument, timeout is in seconds."""
    arguments = [quote(namespace), quote(command)]
    if payload is not None or timeout is not None:
        arguments.append("NULL" if payload is None else quote(json.dumps(payload)) + "::jsonb")
    if timeout is not None:
        arguments.append("interval '%s ms'" % int(timeout * 1000))
    return "SELECT rinq_call(%s)" % ", ".join(arguments)


class World:
    """Everything for tests that need the whole chain. stage: see Server; settings go into postgresql.conf.

    Without proxied the extension talks to the broker directly, and nothing is recorded.
    """

    def __init__(self, stage=None, scratch=None, settings=None, broker=None, start_broker=True, environment=None, name="world",
                 proxied=True):
        self.scratch = scratch or Scratch()
        self._owns = scratch is None
        self._own_broker = broker is None
        self.broker = broker or Broker(self.scratch, name=name + "-broker")
        if start_broker and not self.broker.running:
            self.broker.start()
        self.proxy = Proxy(self.broker.port) if proxied else None
        self.recording = self.proxy.recording if proxied else None
        base = {"rinq.amqp_dsn": quote(self.broker.dsn(self.proxy.port if proxied else None)), "rinq.max_databases": "32"}
        base.update(settings or {})
        self.server = Server(self.scratch, stage, name=name + "-server", settings=base, environment=environment).start()
        self._peers = []

    def database(self, name=None, encoding=None, wait=True, extension=True):
        """A new database with the extension, whose peer is connected unless wait is False."""
        name = name or "t%d" % next(_numbers)
        options = " TEMPLATE template0 ENCODING %s LOCALE 'C'" % quote(encoding) if encoding else ""
        self.server.psql('CREATE DATABASE "%s"%s' % (name, options))
        database = Database(self.server, name)
        if extension:
            database.sql("CREATE EXTENSION rinq")
            if wait:
                database.wait_peer()
        return database

    def peer(self, **options):
        """An independent peer, connected straight to the broker; closed with the world at the latest."""
        options = dict({"user": self.broker.user, "password": self.broker.password}, **options)
        peer = Peer(options.pop("port", self.broker.port), **options)
        self._peers.append(peer)
        return peer

    def forget_peer(self, peer):
        """A peer that somebody else has closed."""
        self._peers.remove(peer)

    def close(self):
        for peer in self._peers:
            peer.close()
        if self.proxy is not None:
            self.proxy.close()
        if self._owns:
            self.scratch.close()
        else:
            if self.server.running:
                self.server.stop("immediate")
            if self._own_broker and self.broker.running:
                self.broker.kill()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
