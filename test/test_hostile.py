"""Random hostile input, always the same from a seed; `make hostile` sends more of it."""

import os
import random

import cbor2
import pika

from rinqtest import case, hostile
from rinqtest.cluster import quote
from rinqtest.fakebroker import FakeBroker
from rinqtest.waiting import wait_until
from rinqtest.wire import Field

SCALE = int(os.environ.get("RINQ_HOSTILE_SCALE", "1"))
SEED = int(os.environ.get("RINQ_HOSTILE_SEED", "1"))
GROWTH = 64 << 20  # of the peer's memory, whatever arrives


def memory_of(pid):
    with open("/proc/%d/status" % pid) as file:
        return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon:"))


class Messages(case.Case):
    """A peer that publishes nonsense to every queue and exchange."""

    EXCHANGES = ("cmd.bal", "cmd.uc", "cmd.mc", "cmd.rsp", "ntf.uc", "ntf.mc", "")

    def setUp(self):
        super().setUp()
        self.db = self.database()
        self.db.handler("echo", "RETURN req.payload;")
        self.db.listen("hostile", "echo")
        self.db.sql("CREATE FUNCTION hear(n rinq_notification) RETURNS void LANGUAGE sql AS 'SELECT'")
        self.db.sql("SELECT rinq_subscribe('s', 'hostile', 'hear(rinq_notification)', '{\"tenant\": \"acme\"}')")
        self.session = self.db.wait_subscription("s")
        self.before = self.db.peer()
        self.own = self.before["peer_id"]
        self.rng = random.Random(SEED)

    def channel(self):
        connection = self.world.broker.connect()
        self.addCleanup(lambda: connection.is_open and connection.close())
        return connection, connection.channel()

    def keys(self):
        short = self.own.partition("-")[2]
        return ("hostile", "hostile." + self.own, self.own, "_sess", short + ".req", short + ".rsp", short + ".ntf", short, "cmd.hostile",
                self.own + ".1@0#1", self.session + "@0#1")

    def publish(self, channel, known):
        headers, properties, body = hostile.message(self.rng, known)
        if self.rng.random() < 0.3:  # a request about a session, in the right form more often than not
            headers.update({"n": Field("S", "_sess"), "c": Field("S", self.rng.choice(("fetch", "update", "clear", "destroy", "")))})
            number = int(self.session.rpartition(".")[2])
            body = cbor2.dumps({self.rng.choice(hostile.KEYS): hostile.value(self.rng), "s": self.rng.choice((number, number, 0, -1, "x")),
                                "r": self.rng.choice((0, 1, 2 ** 32 - 1)), "ns": self.rng.choice(hostile.TEXTS), "k": hostile.value(self.rng)})
        properties.pop("user_id", None)
        channel.basic_publish(self.rng.choice(self.EXCHANGES), self.rng.choice(known), body, pika.BasicProperties(headers=headers or None, **properties))

    def test_messages(self):
        connection, channel = self.channel()
        memory = memory_of(self.before["pid"])
        for _ in range(3000 * SCALE):
            try:
                self.publish(channel, self.keys())
            except pika.exceptions.ChannelClosedByBroker:
                pass  # the broker itself refuses that
            except (UnicodeError, ValueError, TypeError, pika.exceptions.ShortStringTooLong):
                continue  # pika will not send that
            if channel.is_closed:
                channel = connection.channel()
        connection.close()
        remote = self.peer()
        self.assertEqual(remote.call("hostile", "x", [1], timeout=60), [1])
        wait_until(lambda: self.unsettled(), lambda rows: rows == [], 60, "every delivery to be settled", 0.3)
        after = self.db.peer()
        self.assertEqual((after["pid"], after["peer_id"]), (self.before["pid"], self.own))
        self.assertLess(memory_of(after["pid"]) - memory, GROWTH)

    def unsettled(self):
        short = self.own.partition("-")[2]
        rows = self.world.broker.table("list_queues", "name", "messages")
        return [row for row in rows if row[1] != "0" and (row[0].startswith(short + ".") or row[0] == "cmd.hostile")]


class Brokers(case.Case):
    """A broker that says anything at any time: the peer ends the connection, and makes another."""

    AT_ONCE = 8

    @classmethod
    def make_world(cls):
        world = case.new_world("hostile-broker", broker=case.shared_world().broker)
        cls.addClassCleanup(world.close)
        return world

    def test_what_brokers_say(self):
        rng = random.Random(SEED)
        for _ in range(3 * SCALE):
            self.one_round(rng)

    def one_round(self, rng):
        fake = FakeBroker(heartbeat=2)
        self.addCleanup(fake.close)
        self.server.configure(rinq__amqp_dsn="amqp://rinq:x@127.0.0.1:%d/" % fake.port)
        # databases of their own: a peer that keeps failing waits longer and longer
        databases = [self.world.database(wait=False) for _ in range(self.AT_ONCE)]
        before = [database.wait_peer(timeout=30) for database in databases]
        for connection in list(fake.connections):
            for _ in range(rng.randrange(1, 12)):
                connection.send_raw(hostile.frames(rng))
            connection.close()
        for database, old in zip(databases, before):
            new = database.wait_new_peer(old, timeout=30)
            self.assertEqual(new["pid"], old["pid"], "the process must survive")
        for database in databases:
            database.drop()
        fake.close()


class Payloads(case.Case):
    """Damaged CBOR in the conversions: a value or an error with a SQLSTATE of its own, nothing else."""

    def test_payloads(self):
        db = self.database(wait=False)
        rng = random.Random(SEED)
        db.sql("""CREATE FUNCTION try(data bytea) RETURNS text LANGUAGE plpgsql AS $$
            BEGIN PERFORM rinq_from_cbor(data); RETURN 'fine';
            EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$""")
        session = db.session()
        self.addCleanup(session.close)
        for _ in range(SCALE):
            values = ",".join("(%s)" % quote(hostile.body(rng)) for _ in range(5000))
            states = {state for (state,) in session.execute("SELECT DISTINCT try(v) FROM (VALUES %s) t(v)" % values)}
            self.assertIn("fine", states)
            self.assertLessEqual(states, {"fine", "22P03", "22021", "22P05", "22003", "54000", "54001", "22P02", "22023"}, states)
