"""A broker of several nodes, and the one in use goes away: the peer comes back on another, and nothing durable is lost."""

import re
import threading
import time

from rinqtest import case, versions
from rinqtest.broker import Broker
from rinqtest.cluster import call_sql
from rinqtest.fakebroker import FakeBroker
from rinqtest.proxy import Proxy
from rinqtest.waiting import wait_until

# Erlang gives a node up that is silent for about so many seconds
TICKS = "-kernel net_ticktime 8"
BATCH = 30
# on a busy machine a node that joins the others again takes its time
PATIENCE = 180


def make_nodes():
    """The nodes of a cluster, running: as many as are needed so that one of them can be missing."""
    founder = Broker(case.scratch(), "node1", kernel=TICKS)
    nodes = [founder]
    while len(nodes) < versions.broker_nodes(founder):
        nodes.append(Broker(case.scratch(), "node%d" % (len(nodes) + 1), cluster=nodes, kernel=TICKS))
    founder.start()
    starting = [threading.Thread(target=node.start) for node in nodes[1:]]
    for thread in starting:
        thread.start()
    for thread in starting:
        thread.join()
    return nodes


class Outages(case.Case):
    """A peer that knows two nodes, each behind a proxy, and uses the first; queues of namespaces live on the one or the other."""

    @classmethod
    def make_world(cls):
        cls.nodes = make_nodes()
        for node in cls.nodes:
            cls.addClassCleanup(node.kill)
        cls.proxies = [Proxy(node.port, record=False) for node in cls.nodes[:2]]
        hosts = ",".join("127.0.0.1:%d" % proxy.port for proxy in cls.proxies)
        world = case.new_world("cluster", broker=cls.nodes[0], proxied=False, settings={
            "rinq.amqp_dsn": "'amqp://%s:%s@%s/'" % (cls.nodes[0].user, cls.nodes[0].password, hosts), "rinq.amqp_heartbeat": "1"})
        cls.addClassCleanup(world.close)
        return world

    def setUp(self):
        super().setUp()
        for node in self.nodes:
            if node.frozen:
                node.kill()
            if not node.running:
                node.start(PATIENCE)
        for proxy in self.proxies:
            proxy.resume()
        self.db = self.database(wait=False)
        self.old = self.db.wait_peer(timeout=40)
        used = self.node_in_use(self.old)
        self.victim, self.other, self.proxy = self.nodes[used], self.nodes[1 - used], self.proxies[used]
        self.serve_all()

    def serve_all(self):
        """Namespaces of this test alone: of another peer, and of this one, with the queue on the other node and on the one in use; and of nobody."""
        self.service, self.far, self.near, self.stored, self.silent = (
            "%s.%s" % (name, self.db.name) for name in ("service", "far", "near", "stored", "silent"))
        self.sent, self.got = {}, []
        self.remote = self.peer(port=self.other.port)
        self.remote.serve(self.service, self.answer)
        self.remote.declare_namespace(self.far)
        self.db.sql("CREATE TABLE done (ns text, x int); CREATE TABLE heard (x int)")
        self.db.handler("keep", "INSERT INTO done VALUES (req.namespace, (req.payload #>> '{}')::int); RETURN req.payload;")
        for namespace in (self.far, self.near):
            self.db.listen(namespace, "keep")
        self.db.sql("CREATE FUNCTION hear(n rinq_notification) RETURNS void LANGUAGE sql AS $$ INSERT INTO heard VALUES ((n.payload #>> '{}')::int) $$;"
                    "SELECT rinq_subscribe('news', '%s', 'hear(rinq_notification)')" % self.service)
        self.db.sql("SELECT rinq_wait_ready()")

    def node_in_use(self, row):
        port = int(re.search(r":(\d+)/", row["broker"]).group(1))
        return [proxy.port for proxy in self.proxies].index(port)

    def answer(self, request):
        self.got.append(request.payload)
        return request.payload

    def execute(self):
        """A batch of durable messages to each namespace, in one transaction."""
        statements = []
        for namespace in (self.service, self.far, self.near, self.stored):
            first = len(self.sent.setdefault(namespace, []))
            self.sent[namespace] += range(first, first + BATCH)
            statements.append("SELECT rinq_execute('%s', 'x', to_jsonb(i)) FROM generate_series(%d, %d) i" % (namespace, first, first + BATCH - 1))
        self.db.sql("; ".join(statements))

    def arrived(self, namespace):
        """The numbers that have arrived, each once, sorted; those of calls are negative."""
        if namespace == self.service:
            return sorted({x for x in self.got if x >= 0})
        return [int(x) for (x,) in self.db.sql("SELECT DISTINCT x FROM done WHERE ns = '%s' AND x >= 0 ORDER BY x" % namespace)]

    def wait_arrived(self, namespace, timeout=20):
        wait_until(lambda: self.arrived(namespace), lambda found: found == self.sent[namespace], timeout, "all messages to " + namespace)

    def wait_outbox_empty(self, timeout=20):
        wait_until(lambda: self.db.value("SELECT depth FROM rinq_outbox_status"), lambda depth: depth == "0", timeout, "an empty outbox")

    def lose(self, fault, within):
        """The peer loses its node, and its callers learn of it."""
        self.execute()
        self.wait_outbox_empty()
        pending = [self.db.session() for _ in range(2)]
        for session in pending:
            self.addCleanup(session.close)
            session.start(call_sql(self.silent, "x", timeout=60))
        wait_until(lambda: self.remote.queue_depth("cmd." + self.silent), lambda depth: depth == len(pending), description="the calls to be sent")
        start = time.monotonic()
        fault()
        for session in pending:
            self.assertSqlState(session.finish_error(within + 2), "08006")
        self.assertLess(time.monotonic() - start, within)
        self.execute()

    def wait_elsewhere(self, timeout=20):
        """Everything works that does not depend on the lost node."""
        new = self.db.wait_new_peer(self.old, timeout)
        self.assertIs(self.nodes[self.node_in_use(new)], self.other)
        wait_until(lambda: self.db.call(self.service, "x", -1, 2) == -1, description="an answer")
        wait_until(lambda: self.remote.call(self.far, "x", -1, timeout=2) == -1, description="an answer of the listener")

        def notified():
            self.remote.notify_many(self.service, "x", {"o": "*"}, 1)
            return self.db.sql("SELECT 1 FROM heard LIMIT 1")
        wait_until(notified, description="a notification")
        self.execute()
        self.wait_arrived(self.service)
        self.wait_arrived(self.far)

    def assertHomeless(self, namespace):
        """A queue whose node is down: its callers are told soon, and nobody else waits."""
        with self.db.session() as session:
            session.start(call_sql(namespace, "x", timeout=60))
            start = time.monotonic()
            self.assertEqual(self.db.call(self.service, "x", -1, 2), -1)
            error = session.finish_error(10)
            self.assertLess(time.monotonic() - start, 5)
        self.assertSqlState(error, "55000")
        self.assertIn("cmd." + namespace, error.text)

    def assertAllArrives(self):
        """What was stored on the lost node, and what waited for it, which is tried again once a minute at least."""
        self.db.listen(self.stored, "keep")
        for namespace in self.sent:
            self.wait_arrived(namespace, 90)
        self.wait_outbox_empty()
        self.assertEqual(self.remote.call(self.near, "x", -1, timeout=10), -1)

    def test_cut_off(self):
        """The node is well, but not to be reached: its queues are, by the other one."""
        def cut():
            self.proxy.refuse()
            self.proxy.cut()
        self.lose(cut, 1)
        self.wait_elsewhere()
        self.assertAllArrives()

    def test_killed(self):
        self.lose(self.victim.kill, 1)
        self.wait_elsewhere()
        self.assertHomeless(self.near)
        self.victim.start(PATIENCE)
        self.assertAllArrives()

    def test_stopped(self):
        self.lose(self.victim.stop, 5)
        self.wait_elsewhere()

    def test_without_a_sign(self):
        """A frozen node is found out by the peer's heartbeats, and then by Erlang's, on which the other nodes depend."""
        self.lose(self.victim.freeze, 4)
        self.wait_elsewhere(40)


# what a peer does while it connects, and how to know it
SETUP = (("channel.open", lambda event: event.channel == 3),
         ("queue.declare", lambda event: event.queue.endswith(".req")),
         ("exchange.declare", lambda event: event.exchange == "cmd.mc"),
         ("queue.bind", lambda event: event.exchange == "cmd.rsp"),
         ("basic.consume", lambda event: event.queue.endswith(".ntf")))
# and for a namespace that it listens to
NAMESPACE = (("queue.declare", lambda event, ns: event.queue == "cmd." + ns),
             ("queue.bind", lambda event, ns: event.exchange == "cmd.bal" and event.routing_key == ns),
             ("queue.bind", lambda event, ns: event.exchange == "cmd.mc" and event.routing_key == ns),
             ("basic.consume", lambda event, ns: event.queue == "cmd." + ns))
WORDS = {403: "ACCESS_REFUSED - access to %s refused for user 'x'", 404: "NOT_FOUND - no %s", 405: "RESOURCE_LOCKED - cannot obtain access to %s",
         406: "PRECONDITION_FAILED - inequivalent arg for %s", 506: "RESOURCE_ERROR - no more of %s", 541: "INTERNAL_ERROR - could not store %s"}


class Refusals(case.Case):
    """What nodes of clusters answer now and then, to each of the steps, for the channel or for the whole connection."""

    @classmethod
    def make_world(cls):
        world = case.new_world("refusals", broker=case.shared_world().broker, proxied=False, settings={"rinq.retry_delay": "'100ms'"})
        cls.addClassCleanup(world.close)
        return world

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.db.handler("echo", "RETURN req.payload;")

    def react(self, method, reaction):
        """A new broker that reacts so to a method."""
        self.fake = FakeBroker()
        self.addCleanup(self.fake.close)
        self.fake.on(method, reaction)

    def refuse(self, step, code, level, times=1):
        """Have a new broker refuse a step so many times; returns what was refused, as it comes."""
        refused = []

        def react(connection, event):
            if len(refused) >= times or not step[1](event):
                return False
            refused.append(event)
            return connection.refuse(event, code, WORDS[code] % "it", level)
        self.react(step[0], react)
        return refused

    def refuse_namespaces(self, step):
        """Have a new broker refuse a step once for each of several namespaces, each with another code; returns those that are still to be refused."""
        waiting = {"bad.%d" % code: code for code in WORDS}

        def react(connection, event):
            for namespace in [namespace for namespace in waiting if step[1](event, namespace)]:
                code = waiting.pop(namespace)
                return connection.refuse(event, code, WORDS[code] % namespace)
            return False
        self.react(step[0], react)
        return waiting

    def connect(self):
        self.server.configure(rinq__amqp_dsn="amqp://x:y@127.0.0.1:%d/" % self.fake.port)

    def is_here(self, row):
        return row["broker"].endswith(":%d/" % self.fake.port)

    def wait_connected(self):
        """To the broker of this test."""
        return self.db.wait_peer(lambda row: row["state"] == "connected" and self.is_here(row))

    def requests(self, namespace):
        """Calls that were sent."""
        return [event for event in self.fake.recording.published("cmd.bal", routing_key=namespace) if "reply_to" in event.properties]

    def assertReaches(self, namespace):
        """A call gets as far as to the broker, which answers none."""
        count = len(self.requests(namespace))
        self.assertSqlState(self.db.error(call_sql(namespace, "x", timeout=0.1)), "RQ003")
        self.assertEqual(len(self.requests(namespace)), count + 1)

    def test_while_connecting(self):
        """It is tried again, and said why."""
        for step in SETUP:
            for code, level in ((403, "channel"), (404, "channel"), (541, "connection"), (506, "connection")):
                with self.subTest(step=step[0], code=code, level=level):
                    refused = self.refuse(step, code, level)
                    self.connect()
                    # of what is consumed the broker says no when the peer is connected already
                    text = "%d %s" % (code, WORDS[code] % "it")
                    self.db.wait_peer(lambda row: row["state"] == "connected" and text in (row["last_error"] or "") and self.is_here(row))
                    self.assertEqual(len(refused), 1)

    def test_on_and_on(self):
        """Attempts become rarer, and callers are told."""
        refused = self.refuse(SETUP[1], 541, "connection", times=4)
        self.connect()
        wait_until(lambda: len(refused), lambda count: count > 1, description="the second attempt")
        error = self.db.error(call_sql("any", "x", timeout=0.2))
        self.assertIn(error.sqlstate, ("08001", "08006"))
        row = self.wait_connected()
        self.assertIn("majority of its cluster", row["last_error"])
        gaps = [later.when - earlier.when for earlier, later in zip(refused, refused[1:])]
        self.assertGreater(gaps[2], gaps[0])

    def test_namespaces(self):
        """Whatever a broker says to one namespace, others are called on the same connection, and it is tried again."""
        namespaces = ["bad.%d" % code for code in WORDS]
        for step in NAMESPACE:
            with self.subTest(step=step[0], number=NAMESPACE.index(step)):
                waiting = self.refuse_namespaces(step)
                self.connect()
                before = self.wait_connected()
                self.db.sql("; ".join("SELECT rinq_listen('%s', 'echo(rinq_request)')" % namespace for namespace in namespaces))
                wait_until(lambda: waiting, lambda left: not left, 20, "the refusals")
                self.assertReaches("good")
                self.db.sql("SELECT rinq_wait_ready('20 s')")
                for namespace in namespaces:
                    self.assertReaches(namespace)
                after = self.db.peer()
                self.assertEqual((after["peer_id"], after["reconnects"]), (before["peer_id"], before["reconnects"]))
                self.assertNoSecondConsumer()
                self.db.sql("; ".join("SELECT rinq_unlisten('%s')" % namespace for namespace in namespaces))

    def assertNoSecondConsumer(self):
        """A broker takes a second consumer of a name for an error of the connection."""
        alive = {}
        for event in self.fake.recording.events():
            if event.name == "basic.consume":
                self.assertNotIn((event.channel, event.consumer_tag), alive)
                alive[event.channel, event.consumer_tag] = True
            elif event.name == "basic.cancel":
                alive.pop((event.channel, event.consumer_tag), None)
            elif event.name == "channel.close-ok":
                alive = {key: True for key in alive if key[0] != event.channel}

    def test_a_namespace_that_costs_the_connection(self):
        """The others have the next connection to themselves; the one that is suspect waits."""
        refused = self.refuse(("queue.declare", lambda event: event.queue == "cmd.bad"), 541, "connection")
        self.connect()
        before = self.wait_connected()
        self.assertSqlState(self.db.error(call_sql("bad", "x", timeout=20)), "08006")
        self.db.wait_new_peer(before)
        error = self.db.error(call_sql("bad", "x", timeout=20))
        self.assertSqlState(error, "55000")
        self.assertIn('closed the connection when queue "cmd.bad" was declared', error.text)
        self.db.sql("SELECT rinq_execute('bad', 'x'), rinq_execute('good', 'x')")
        self.assertReaches("good")
        again = self.fake.recording.wait("queue.declare", 2, 20, queue="cmd.bad")[1]
        self.assertGreater(again.when - refused[0].when, 4.5)
        self.fake.recording.wait_published("cmd.bal", 1, 15, routing_key="bad")
        self.assertReaches("bad")
        wait_until(lambda: self.db.value("SELECT depth FROM rinq_outbox_status"), lambda depth: depth == "0", description="an empty outbox")
