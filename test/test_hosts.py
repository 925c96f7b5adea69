"""Hosts whose administrators have decided something: the type of queues, who makes the exchanges."""

import unittest

from rinqtest import case, versions
from rinqtest.cluster import call_sql
from rinqtest.waiting import wait_until

PRIORITIES = {"x-max-priority": 3}
EXCHANGES = (("cmd.uc", "direct"), ("cmd.mc", "direct"), ("cmd.bal", "direct"), ("cmd.rsp", "topic"), ("ntf.uc", "direct"), ("ntf.mc", "direct"))


class HostCase(case.Case):
    """Tests on a virtual host of their own."""

    vhost = None
    host_options = ()
    settings = {}

    @classmethod
    def make_world(cls):
        broker = case.shared_world().broker
        broker.ctl("add_vhost", cls.vhost, *cls.host_options)
        broker.ctl("set_permissions", "-p", cls.vhost, broker.user, ".*", ".*", ".*")
        world = case.new_world("host-" + cls.vhost, broker=broker, proxied=False,
                               settings=dict({"rinq.amqp_dsn": "'%s'" % broker.dsn(vhost=cls.vhost)}, **cls.settings))
        cls.addClassCleanup(broker.ctl, "delete_vhost", cls.vhost)
        cls.addClassCleanup(world.close)
        return world

    def peer(self, **options):
        return super().peer(vhost=self.vhost, **options)

    def on_channel(self, function):
        """Do something to the virtual host as its administrator would."""
        with self.world.broker.connect(self.vhost) as connection:
            return function(connection.channel())

    def queue_types(self):
        return {row[0]: row[1] for row in self.world.broker.table("list_queues", "-p", self.vhost, "name", "type")}

    def assertServes(self, db, namespace):
        """A listener, a call to it, and a durable message to it."""
        db.sql("CREATE TABLE IF NOT EXISTS done (x jsonb)")
        db.handler("keep", "INSERT INTO done VALUES (req.payload); RETURN req.payload;")
        db.listen(namespace, "keep")
        self.assertEqual(db.value(call_sql(namespace, "x", "called", timeout=20)), '"called"')
        db.sql("SELECT rinq_execute('%s', 'x', '\"sent\"')" % namespace)
        wait_until(lambda: db.value("SELECT count(*) FROM done WHERE x = '\"sent\"'"), lambda n: n == "1", 20, "the durable message")


class QuorumHosts(HostCase):
    """Queues are quorum queues there, unless somebody says otherwise; those have no priorities of Rinq's kind."""

    vhost = "quorum"
    host_options = ("--default-queue-type", "quorum")

    def test_of_that_kind(self):
        """What the other tests rest on: who says no type gets a quorum queue."""
        self.on_channel(lambda channel: channel.queue_declare("by.default", durable=True))
        self.assertIn("quorum", self.queue_types()["by.default"])

    def test_namespace(self):
        db = self.database()
        self.assertServes(db, "served")
        self.assertEqual(self.queue_types()["cmd.served"], "rabbit_classic_queue" if self.long_names() else "classic")
        self.assertEqual(db.peer()["last_error"], None)

    def long_names(self):
        return any(name.startswith("rabbit_") for name in self.queue_types().values())

    def test_called_only(self):
        """The queue of a namespace is the caller's to declare."""
        db = self.database()
        db.sql("SELECT rinq_execute('called.only', 'x')")
        wait_until(lambda: db.value("SELECT depth FROM rinq_outbox_status"), lambda n: n == "0", 20, "an empty outbox")
        self.assertIn("classic", self.queue_types()["cmd.called.only"])


class PlainHosts(HostCase):
    """Peers that say no type, and this one, declare the same queue."""

    vhost = "plain"

    def declare_plainly(self, namespace):
        self.on_channel(lambda channel: channel.queue_declare("cmd." + namespace, durable=True, arguments=PRIORITIES))

    def test_made_by_another_peer(self):
        self.declare_plainly("theirs")
        self.assertServes(self.database(), "theirs")

    def test_made_here(self):
        self.assertServes(self.database(), "ours")
        self.declare_plainly("ours")

    def test_peers_of_both_kinds(self):
        db, remote = self.database(), self.peer()
        remote.serve("both.ways", lambda request: request.payload)
        self.assertEqual(db.value(call_sql("both.ways", "x", 7)), "7")
        db.handler("echo", "RETURN req.payload;")
        db.listen("from.here", "echo")
        self.assertEqual(remote.call("from.here", "x", 8), 8)


class ReplicatedQueues(HostCase):
    """An administrator has made queues of namespaces beforehand, as quorum queues, and lets the broker take them for classic ones."""

    vhost = "replicated"
    settings = {"rinq.max_attempts": "2"}

    @classmethod
    def setUpClass(cls):
        broker = case.shared_world().broker
        if not versions.broker_takes_quorum_for_classic(broker):
            raise unittest.SkipTest("RabbitMQ before 3.13 has no relaxed redeclaration")
        cls.relax(broker, "true")
        cls.addClassCleanup(cls.relax, broker, "false")
        super().setUpClass()

    @staticmethod
    def relax(broker, value):
        broker.ctl("eval", "application:set_env(rabbit, quorum_relaxed_checks_on_redeclaration, %s)." % value)

    def make_queue(self, namespace):
        def make(channel):
            channel.exchange_declare("cmd.bal", "direct")
            channel.queue_declare("cmd." + namespace, durable=True, arguments={"x-queue-type": "quorum"})
            channel.queue_bind("cmd." + namespace, "cmd.bal", namespace)
        self.on_channel(make)

    def test_works(self):
        self.make_queue("kept.safe")
        db = self.database()
        self.assertServes(db, "kept.safe")
        self.assertIn("quorum", self.queue_types()["cmd.kept.safe"])
        self.assertEqual(db.peer()["last_error"], None)

    def test_attempts(self):
        """A request that ends its executor each time is given up by the peer, before the broker does."""
        self.make_queue("ends.badly")
        db = self.database()
        db.handler("fatal", "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60); RETURN NULL;")
        db.listen("ends.badly", "fatal")
        db.sql("SELECT rinq_execute('ends.badly', 'x')")
        wait_until(lambda: db.value("SELECT count(*) FROM rinq_inbox_dead_letter"), lambda n: n == "1", 60, "the request to be given up")
        wait_until(lambda: dict(self.world.broker.table("list_queues", "-p", self.vhost, "name", "messages"))["cmd.ends.badly"], lambda n: n == "0", 20)


class PassiveExchanges(HostCase):
    """The peer may not declare exchanges: somebody else does."""

    vhost = "passive"
    settings = {"rinq.declare_exchanges": "passive", "rinq.redeclare_interval": "100ms"}

    def setUp(self):
        super().setUp()
        for name, _ in EXCHANGES:
            self.on_channel(lambda channel, name=name: channel.exchange_delete(name))

    def test_made_by_an_administrator(self):
        db = self.database(wait=False)
        wait_until(lambda: db.peer() and db.peer()["last_error"], lambda text: text and "no exchange" in text, 20, "the broker's reason")
        for name, kind in EXCHANGES:
            self.on_channel(lambda channel, name=name, kind=kind: channel.exchange_declare(name, kind))
        db.wait_peer(timeout=60)
        self.assertServes(db, "passive")

    def test_deleted(self):
        """An exchange that goes is spoken of, and not made."""
        db = self.database(wait=False)
        for name, kind in EXCHANGES:
            self.on_channel(lambda channel, name=name, kind=kind: channel.exchange_declare(name, kind))
        db.wait_peer(timeout=60)
        self.on_channel(lambda channel: channel.exchange_delete("ntf.uc"))
        self.server.wait_log("no exchange 'ntf.uc'", self.log_start, 20)
        self.assertNotIn("ntf.uc", [row[0] for row in self.world.broker.table("list_exchanges", "-p", self.vhost, "name")])
        self.assertServes(db, "passive.still")


del HostCase
