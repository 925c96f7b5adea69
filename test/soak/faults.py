"""Faults, one after another at random; each is undone, or heals by itself, before the next begins."""

import collections
import os
import random
import signal
import threading

import pika

from rinqtest.cluster import SqlError
from rinqtest.proxy import BROKER, CLIENT
from rinqtest.waiting import WaitTimeout, wait_until

WORKERS = ("launcher", "peer", "command worker", "executor", "outbox worker", "reader")


class Faults:
    """Every method whose name begins with "fault_" is one; its first line says what it does."""

    def __init__(self, load, seed, only=None):
        self.load = load
        self.world = load.world
        self.server = load.world.server
        self.random = random.Random(seed)
        self.counts = collections.Counter()
        self.stopping = threading.Event()
        self.unserved = False
        self.ahead = 0  # seconds that the clock was, at most
        self.kinds = sorted(name[len("fault_"):] for name in dir(self) if name.startswith("fault_"))
        if only:
            self.kinds = [kind for kind in self.kinds if any(word in kind for word in only)]

    def one(self, kind):
        self.counts[kind] += 1
        getattr(self, "fault_" + kind)()

    def pause(self, low, high):
        self.stopping.wait(self.random.uniform(low, high))

    # the network

    def fault_connection_cut(self):
        """Break the connection, with a reset or in order."""
        self.world.proxy.cut(self.random.random() < 0.5)

    def fault_line_silent(self):
        """Let nothing through, one way or both."""
        self.world.proxy.silence(self.random.choice((None, CLIENT, BROKER)))
        self.pause(1, 6)
        self.world.proxy.resume()

    def fault_line_slow(self):
        """Hold each piece of data back."""
        self.world.proxy.delay(self.random.uniform(0.005, 0.1), self.random.choice((None, CLIENT, BROKER)))
        self.pause(2, 6)
        self.world.proxy.resume()

    def fault_line_narrow(self):
        """Let few bytes through in a second."""
        self.world.proxy.throttle(self.random.choice((20000, 100000, 300000)), self.random.choice((None, CLIENT, BROKER)))
        self.pause(2, 6)
        self.world.proxy.resume()

    def fault_line_refused(self):
        """Let nobody connect, and break what is connected."""
        self.world.proxy.refuse()
        self.world.proxy.cut()
        self.pause(1, 4)
        self.world.proxy.resume()

    # the broker

    def fault_broker_restarted(self):
        """Stop the broker in order, and start it again."""
        self.world.broker.stop()
        self.pause(0, 3)
        self.world.broker.start()

    def fault_broker_killed(self):
        """Kill the broker without a word, and start it again."""
        self.world.broker.kill()
        self.pause(0, 2)
        self.world.broker.start()

    def fault_broker_closes_connections(self):
        """Have the administrator close all connections."""
        self.world.broker.ctl("close_all_connections", "soak")

    def fault_broker_out_of_memory(self):
        """Raise the broker's memory alarm, in which it takes no messages."""
        self.world.broker.ctl("set_vm_memory_high_watermark", "0.00001")
        self.pause(1, 5)
        self.world.broker.ctl("set_vm_memory_high_watermark", "0.6")

    def fault_binding_removed(self):
        """Unbind the queue of a namespace, as a careless administrator does."""
        namespace = self.random.choice(("soak.remote", "soak.once", "soak.often", "soak.echo", "soak.calc"))
        self.administrate(lambda channel: channel.queue_unbind("cmd." + namespace, "cmd.bal", namespace))

    def fault_queue_removed(self):
        """Delete a queue of which nothing is promised but answers to calls: what is in others would be lost with them."""
        self.administrate(lambda channel: channel.queue_delete("cmd." + self.random.choice(("soak.echo", "soak.calc"))))

    def fault_exchange_removed(self):
        """Delete an exchange."""
        name = self.random.choice(("cmd.bal", "cmd.rsp", "ntf.mc"))
        self.administrate(lambda channel: channel.exchange_delete(name))
        self.load.service.renew.set()

    def administrate(self, act):
        with self.world.broker.connect() as connection:
            act(connection.channel())

    # processes

    def pids(self, like):
        return [int(pid) for (pid,) in self.server.psql(
            "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'rinq%%%s%%'" % like)]

    def signal_one(self, like, number):
        pids = self.pids(like)
        if pids:
            os.kill(self.random.choice(pids), number)

    def fault_worker_terminated(self):
        """Send SIGTERM to one of the extension's processes."""
        self.signal_one(self.random.choice(WORKERS), signal.SIGTERM)

    def fault_worker_interrupted(self):
        """Send SIGINT to one of the extension's processes."""
        self.signal_one(self.random.choice(WORKERS), signal.SIGINT)

    def fault_worker_killed(self):
        """Kill one of the extension's processes, upon which PostgreSQL restarts all of its own."""
        self.signal_one(self.random.choice(WORKERS), signal.SIGKILL)

    def fault_peer_stopped_for_a_while(self):
        """Have the system not run a peer for some seconds."""
        pids = self.pids("peer")
        if pids:
            pid = self.random.choice(pids)
            os.kill(pid, signal.SIGSTOP)
            self.pause(1, 5)
            os.kill(pid, signal.SIGCONT)

    def fault_backends_terminated(self):
        """Terminate the connections of the load."""
        self.server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'soak%' AND backend_type = 'client backend'")

    # the server

    def fault_server_restarted(self):
        """Stop the server, fast or without any order, and start it again."""
        self.server.restart(self.random.choice(("fast", "immediate")))

    def fault_server_killed(self):
        """Kill the postmaster, and start it again when what it leaves is gone."""
        self.server.kill()
        wait_until(lambda: self.server.start(), timeout=60, description="the server to start after a kill")

    def fault_settings_reloaded(self):
        """Change a setting and reload."""
        self.server.configure(rinq__command_workers=self.random.choice((1, 2, 4)))

    def fault_clock_stepped(self):
        """Set the server's wall clock ahead or back, and right again after a while."""
        seconds = self.random.choice((-3600, -60, 60, 3600))
        self.ahead = max(self.ahead, seconds)
        self.load.clock.step(seconds)
        self.pause(2, 6)
        self.load.clock.step(0)

    # administration

    def database(self):
        return self.random.choice((self.load.sender, self.load.receiver))

    def fault_peer_stopped(self):
        """Take a database off the network, and let it come back."""
        database = self.database()
        database.sql("SELECT rinq_stop(%s)" % self.random.choice(("true", "false")))
        self.pause(0, 3)
        database.sql("SELECT rinq_start()")

    def outbox_tables(self):
        return [name for (name,) in self.load.sender.sql(
            "SELECT c.oid::regclass FROM pg_class c WHERE c.relkind = 'r' AND c.relname ~ '^(rinq_)?outbox_[0-9]$' ORDER BY 1")]

    def fault_outbox_rewritten(self):
        """Rewrite the tables of durable messages."""
        for name in self.outbox_tables():
            self.load.sender.sql("VACUUM FULL " + name)

    def fault_outbox_locked(self):
        """Keep a table of durable messages locked for some seconds."""
        with self.load.sender.session() as session:
            session.execute("BEGIN; LOCK TABLE %s IN ACCESS EXCLUSIVE MODE" % self.random.choice(self.outbox_tables()))
            self.pause(0.5, 3)
            session.execute("ROLLBACK")

    def fault_outbox_vacuumed(self):
        """Hold the lock that autovacuum holds, on all tables of durable messages: none can be truncated."""
        with self.load.sender.session() as session:
            session.execute("BEGIN; LOCK TABLE %s IN SHARE UPDATE EXCLUSIVE MODE" % ", ".join(self.outbox_tables()))
            self.pause(1, 5)
            session.execute("ROLLBACK")

    def fault_dead_letters_locked(self):
        """Keep the table locked that messages are set aside in."""
        with self.load.sender.session() as session:
            session.execute("BEGIN; LOCK TABLE rinq_internal.outbox_dead_letter IN ACCESS EXCLUSIVE MODE")
            self.pause(1, 5)
            session.execute("ROLLBACK")

    def fault_database_not_served(self):
        """Take a database off the list of those that are served, and put it back."""
        self.unserved = True
        self.server.configure(rinq__databases=self.random.choice(("soak_sender", "soak_receiver")))
        self.pause(0.5, 4)
        self.server.configure(rinq__databases=None)

    def fault_databases_made_and_dropped(self):
        """Make a database with the extension, and drop it."""
        name = "passing%d" % self.random.getrandbits(40)
        self.server.psql('CREATE DATABASE "%s"' % name)
        self.server.psql("CREATE EXTENSION rinq", name)
        self.server.psql('DROP DATABASE "%s"' % name)

    # running them

    def run(self, minutes, say, clock):
        """Faults until the time is up; True when all could be undone."""
        end = clock() + 60 * minutes
        bag = []
        while clock() < end and not self.stopping.is_set():
            if not bag:
                bag = list(self.kinds)
                self.random.shuffle(bag)
            kind = bag.pop()
            say(kind.replace("_", " "))
            try:
                self.one(kind)
            except (SqlError, AssertionError, OSError, pika.exceptions.AMQPError, RuntimeError) as error:
                say("  which ended with: %s" % str(error).splitlines()[0][:200])  # the fault before may still be felt
            self.undo()
            self.pause(0.5, 5)

    def undo(self):
        """Whatever a fault that failed half-way may have left."""
        self.world.proxy.resume()
        self.load.clock.step(0)
        if not self.world.broker.running:
            self.world.broker.start()
        if not self.server.running:
            self.server.start(60)
        if self.unserved:
            self.server.configure(rinq__databases=None)
            self.unserved = False
        for database in (self.load.sender, self.load.receiver):
            try:
                wait_until(lambda: database.sql("SELECT rinq_start()") or True, timeout=60, description="rinq_start to succeed")
            except WaitTimeout:
                raise AssertionError("%s cannot be started" % database.name) from None
        self.load.finish_prepared()  # they would keep their locks for ever
