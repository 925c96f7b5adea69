"""Several brokers, and names of them: which is tried when, what is said of each, and what a change of the settings does."""

import os
import re
import shutil
import time

from rinqtest import case
from rinqtest.cluster import Database, Server, call_sql, quote
from rinqtest.fakebroker import FakeBroker
from rinqtest.nameserver import NameServer
from rinqtest.proxy import Proxy
from rinqtest.scratch import free_port
from rinqtest.waiting import wait_until


class BrokersCase(case.Case):
    """A server whose settings these tests change, and two ways to one broker, which look like two brokers."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.broker = cls.world.broker
        cls.ways = [Proxy(cls.broker.port), Proxy(cls.broker.port)]
        cls.ports = [way.port for way in cls.ways]
        cls.names = NameServer()
        cls.deaf = NameServer()
        cls.deaf.mute = True
        environment = dict(case.SERVER_ENVIRONMENT or {}, RINQ_NAME_SERVERS=cls.name_servers())
        cls.own = Server(case.scratch(), case.STAGE, name=cls.__name__.lower(), environment=environment,
                         settings={"rinq.amqp_dsn": quote(cls.address(cls.ports)), "rinq.amqp_connection_timeout": "'5s'"}).start()
        cls.server = cls.own
        cls.server.psql("CREATE EXTENSION rinq")
        cls.db = Database(cls.own, "postgres")

    @classmethod
    def name_servers(cls):
        return cls.names.address

    @classmethod
    def tearDownClass(cls):
        cls.own.stop("immediate")
        for thing in cls.ways + [cls.names, cls.deaf]:
            thing.close()

    def setUp(self):
        super().setUp()
        for way in self.ways:
            way.resume()

    @classmethod
    def address(cls, hosts, options="", **login):
        """An address with hosts, of which a number is a port of loopback."""
        hosts = ",".join("127.0.0.1:%d" % host if isinstance(host, int) else host for host in hosts)
        return "amqp://%s:%s@%s/%s" % (login.get("user", cls.broker.user), login.get("password", cls.broker.password), hosts, options)

    def use(self, *hosts, options="", **login):
        self.server.configure(rinq__amqp_dsn=self.address(hosts, options, **login))

    def bounce(self):
        """Have the peer connect anew, with the settings as they are."""
        self.db.sql("SELECT rinq_stop()")
        self.db.sql("SELECT rinq_start()")

    def use_anew(self, *hosts, options="", **login):
        """The same, and the connection, if there is one, is not kept."""
        self.use(*hosts, options=options, **login)
        self.bounce()

    def wait_at(self, host, timeout=15):
        host = "127.0.0.1:%d" % host if isinstance(host, int) else host
        return self.db.wait_peer(lambda row: row["state"] == "connected" and row["broker"] == host + "/", timeout, "the peer to be at " + host)

    def wait_error(self, *parts, state="disconnected", timeout=15):
        return self.db.wait_peer(lambda row: row["state"] == state and all(part in (row["last_error"] or "") for part in parts), timeout,
                                 "%s with %s" % (state, parts))


class Hosts(BrokersCase):
    def test_in_order(self):
        self.use_anew(*self.ports)
        self.wait_at(self.ports[0])
        self.use_anew(*reversed(self.ports))
        self.wait_at(self.ports[1])

    def test_next_one_at_once(self):
        refused = [free_port() for _ in range(3)]
        self.use_anew(*refused, self.ports[1], refused[0])
        start = time.monotonic()
        row = self.wait_at(self.ports[1])
        self.assertLess(time.monotonic() - start, 5)
        # what became of the others shows, and is in the log
        for port in refused:
            self.assertIn("127.0.0.1:%d/: Connection refused" % port, row["last_error"])
        self.server.wait_log(r"Not to others: could not connect to 127.0.0.1:%d/" % refused[0], self.log_start)

    def test_host_in_use_is_lost(self):
        self.use_anew(*self.ports)
        self.wait_at(self.ports[0])
        for lost, next_one in ((0, 1), (1, 0)):
            self.ways[lost].cut()
            # a host that accepts and says nothing would cost the whole time limit, so the other comes first
            self.wait_at(self.ports[next_one])

    def test_calls_fail_and_subscriptions_come_back(self):
        self.use_anew(*self.ports)
        self.wait_at(self.ports[0])
        with self.db.session() as session:
            session.start(call_sql("silent", "x", timeout=60))
            self.ways[0].recording.wait_published("cmd.bal", 1)
            start = time.monotonic()
            self.ways[0].refuse()
            self.ways[0].cut()
            self.assertSqlState(session.finish_error(10), "08006")
        self.wait_at(self.ports[1])
        self.assertLess(time.monotonic() - start, 5)
        self.db.sql("SELECT rinq_execute('anything', 'x')")
        wait_until(lambda: self.db.value("SELECT depth FROM rinq_outbox_status"), lambda depth: depth == "0", description="the outbox to be empty")

    def test_heartbeat_of_the_first_is_lost(self):
        self.use_anew(*self.ports, options="?heartbeat=1&connection_timeout=3000")
        self.wait_at(self.ports[0])
        self.ways[0].silence()
        row = self.wait_at(self.ports[1])
        self.assertNotIn("timed out", row["last_error"])
        self.assertIn("heard nothing from 127.0.0.1:%d/" % self.ports[0], row["last_error"])

    def test_silent_host_has_a_limit(self):
        self.ways[0].silence()
        self.use_anew(*self.ports, options="?connection_timeout=500")
        row = self.wait_at(self.ports[1])
        self.assertIn("timed out after 500 ms", row["last_error"])

    def test_all_down_then_the_last_comes_up(self):
        for way in self.ways:
            way.refuse()
        dead = [free_port() for _ in range(14)]
        self.use_anew(*dead, *self.ports)
        # 16 hosts share the room, and none is left out
        row = self.wait_error(*[str(port) for port in dead + self.ports])
        self.assertEqual(row["last_error"].count(";"), 15)
        warning = self.server.wait_log(r"cannot connect to broker 127.0.0.1:%d,127" % dead[0], self.log_start)
        self.assertTrue(warning)
        self.assertSqlState(self.db.error(call_sql("x", "x")), "08001")
        wait_until(lambda: self.db.value("SELECT next_attempt - last_error_at > '0.4 s' FROM rinq_peer"), lambda value: value == "t",
                   description="the pause to grow")
        self.ways[1].resume()
        self.wait_at(self.ports[1])
        self.assertLess(len(re.findall("cannot connect to broker", self.server.log_since(self.log_start))), 6)

    def test_broker_of_no_use_is_followed_by_the_next(self):
        old = FakeBroker()
        self.addCleanup(old.close)
        old.version = "3.4.0"
        refusing = FakeBroker()
        self.addCleanup(refusing.close)
        # like a node of a cluster that has no majority, after the login
        refusing.reactions["queue.declare"] = lambda connection, event: connection.send(
            0, "connection.close", code=541, text="INTERNAL_ERROR") or True
        self.use_anew(old.port, refusing.port, self.ports[0])
        row = self.wait_at(self.ports[0])
        self.assertIn("RabbitMQ 3.4.0 is too old", row["last_error"])
        self.assertIn("541 INTERNAL_ERROR", row["last_error"])

    def test_random_order(self):
        seen = set()
        self.use_anew(*self.ports, options="?load_balance_hosts=random")
        for _ in range(40):
            self.db.wait_peer()
            seen.add(self.db.peer()["broker"])
            if len(seen) == 2:
                break
            self.bounce()
        self.assertEqual(len(seen), 2)

    def test_duplicates_and_both_families(self):
        self.use_anew("[::1]:%d" % free_port(), self.ports[0], self.ports[0], "localhost:%d" % self.ports[1])
        self.wait_at(self.ports[0])
        self.ways[0].refuse()
        self.ways[0].cut()
        self.wait_at("localhost:%d" % self.ports[1])

    def test_lists_that_are_refused(self):
        self.use_anew(*self.ports)
        before = self.wait_at(self.ports[0])
        for hosts, reason in ((["a", ""], "a host in the list is empty"), (["a"] * 17, "there are more than 16 hosts"), (["a", "b:x"], "the port is not")):
            with self.subTest(hosts):
                self.use(*hosts)
                # PostgreSQL keeps the old value; the peer shows it
                row = self.wait_error("\"rinq.amqp_dsn\" stays what it was", reason, state="connected")
                self.assertEqual(row["peer_id"], before["peer_id"])
        self.use(*self.ports)


class Changes(BrokersCase):
    def test_wrong_settings_keep_the_connection(self):
        self.use_anew(self.ports[0])
        before = self.wait_at(self.ports[0])
        dead = free_port()
        for change, reason in ((lambda: self.use(dead), "could not connect to 127.0.0.1:%d/" % dead),
                               (lambda: self.use(self.ports[1], password="wr0ng"), "ACCESS_REFUSED"),
                               (lambda: self.use("no.such.name"), "could not resolve host \"no.such.name\""),
                               (lambda: self.use(self.ports[1], options="nowhere"), "vhost nowhere not found"),
                               (lambda: self.use(self.ports[1], options="?passfile=/nowhere/at/all"), "could not open file \"/nowhere/at/all\"")):
            with self.subTest(reason):
                change()
                row = self.wait_error(reason, state="connected")
                self.assertEqual(row["peer_id"], before["peer_id"])
                self.assertEqual(row["broker"], "127.0.0.1:%d/" % self.ports[0])
                self.assertSqlState(self.db.error(call_sql("nobody", "x", timeout=0.05)), "RQ003")
        self.server.wait_log("keeps its connection to broker", self.log_start)
        self.assertNoSecret(self.server.log_since(self.log_start), "wr0ng")
        # and what is put right is used, or nothing changes at all
        self.use(self.ports[0])
        self.assertSqlState(self.db.error(call_sql("nobody", "x", timeout=0.3)), "RQ003")
        self.assertEqual(self.db.peer()["peer_id"], before["peer_id"])
        self.use(self.ports[1])
        self.wait_at(self.ports[1])

    def test_broker_of_the_settings_comes_up_later(self):
        self.use_anew(self.ports[0])
        self.wait_at(self.ports[0])
        self.ways[1].refuse()
        self.use(self.ports[1])
        self.wait_error("Connection refused", state="connected")
        self.ways[1].resume()
        self.wait_at(self.ports[1])

    def test_other_hosts_disturb_nothing(self):
        self.use_anew(self.ports[0])
        before = self.wait_at(self.ports[0])
        self.use(self.ports[1], self.ports[0], options="?load_balance_hosts=random")
        self.use(self.ports[1], self.ports[0])
        self.assertSqlState(self.db.error(call_sql("nobody", "x", timeout=0.3)), "RQ003")
        self.assertEqual(self.db.peer()["peer_id"], before["peer_id"])
        # the next connection goes by the new list
        self.ways[0].refuse()
        self.ways[0].cut()
        self.wait_at(self.ports[1])

    def test_changed_while_connecting(self):
        self.ways[0].silence()
        self.use_anew(self.ports[0])
        self.db.wait_peer(lambda row: row["state"] == "connecting" and str(self.ports[0]) in row["broker"], description="the silent host to be tried")
        start = time.monotonic()
        self.use(self.ports[1])
        self.wait_at(self.ports[1])
        self.assertLess(time.monotonic() - start, 4)

    def test_wrong_settings_while_a_change_is_set_up(self):
        """The connection that is in, but without its queues as yet, counts as one: what is wrong with the next settings does not end it."""
        fake = FakeBroker()
        self.addCleanup(fake.close)
        held = []
        fake.reactions["queue.declare"] = lambda connection, event: held.append((connection, event)) or True
        self.use_anew(self.ports[0])
        self.wait_at(self.ports[0])
        self.use(fake.port)
        wait_until(lambda: len(held), lambda count: count >= 4, description="its queues to be declared")
        self.use(self.ports[1], options="?passfile=/nowhere/at/all")
        del fake.reactions["queue.declare"]
        for connection, event in held:
            connection.send(event.channel, "queue.declare-ok", queue=event.queue)
        self.wait_at(fake.port)
        row = self.wait_error("could not open file \"/nowhere/at/all\"", state="connected")
        self.assertEqual(row["broker"], "127.0.0.1:%d/" % fake.port)
        self.use(self.ports[1])
        self.wait_at(self.ports[1])

    def test_changed_while_a_change_is_tried(self):
        self.use_anew(self.ports[0])
        before = self.wait_at(self.ports[0])
        self.ways[1].silence()
        accepted = self.ways[1].accepted
        self.use(self.ports[1])
        wait_until(lambda: self.ways[1].accepted, lambda count: count > accepted, description="the silent host to be tried")
        # the connection in use is lost meanwhile: what the settings say goes on being tried, by itself
        self.use(self.ports[0])
        self.assertSqlState(self.db.error(call_sql("nobody", "x", timeout=0.3)), "RQ003")
        self.assertEqual(self.db.peer()["peer_id"], before["peer_id"])
        self.use(self.ports[1])
        wait_until(lambda: self.ways[1].accepted, lambda count: count > accepted + 1, description="the silent host to be tried again")
        self.ways[0].cut()
        self.db.wait_peer(lambda row: row["state"] != "connected", description="the loss to show")
        self.ways[1].resume()
        self.wait_at(self.ports[1])


class Passwords(BrokersCase):
    def password_file(self, password):
        path = os.path.join(case.scratch().make_folder("tokens", owned=True), "token%d" % len(password))
        with open(path, "w") as file:
            file.write(password + "\n")
        os.chmod(path, 0o600)
        shutil.chown(path, *([case.scratch().user.pw_uid, case.scratch().user.pw_gid] if case.scratch().user is not None else [os.getuid()]))
        return path

    def use_token(self, token):
        self.use_anew(self.ports[0], options="?passfile=" + self.password_file(token))

    def test_long_tokens(self):
        token = os.urandom(750).hex()
        self.broker.ctl("add_user", "token", token)
        self.broker.ctl("set_permissions", "token", ".*", ".*", ".*")
        self.addCleanup(self.broker.ctl, "delete_user", "token")
        # in the address, and in a file that it names
        self.use_anew(self.ports[0], user="token", password=token)
        self.wait_at(self.ports[0])
        self.server.configure(rinq__amqp_dsn="amqp://token@127.0.0.1:%d/?passfile=%s" % (self.ports[1], self.password_file(token)))
        self.wait_at(self.ports[1])
        self.assertNoSecret(self.server.log_since(self.log_start), token)
        # more than the first frame holds beside all that is said of the client
        token = os.urandom(2000).hex()
        self.broker.ctl("change_password", "token", token)
        self.server.configure(rinq__amqp_dsn="amqp://token@127.0.0.1:%d/?passfile=%s" % (self.ports[0], self.password_file(token)))
        self.wait_at(self.ports[0])

    def test_tokens_beyond_the_first_frame(self):
        self.use_anew(self.ports[0])
        version = self.wait_at(self.ports[0])["broker_version"]
        limit = 4096 if tuple(int(part) for part in version.split(".")[:2]) < (4, 1) else 8192
        # what is said of the client makes room, in the end for the demand to be told why a login is refused
        for length, reason, other in ((limit - 300, "ACCESS_REFUSED", "length"), (limit - 130, "ACCESS_REFUSED", "length"),
                                      (limit - 73, "closed the connection without giving a reason", "length"),
                                      (limit - 72, "for the length of the password: the login takes", "ACCESS"),
                                      (8191, "for the length of the password", "ACCESS")):
            with self.subTest(length):
                self.use_token("a" * length)
                self.assertNotIn(other, self.wait_error(reason)["last_error"])

class Names(BrokersCase):
    def test_name_with_several_addresses(self):
        self.names.names["several.test"] = ["127.0.0.%d" % number for number in range(2, 5)] + ["127.0.0.1"]
        self.use_anew("several.test:%d" % self.ports[0])
        self.wait_at("several.test:%d" % self.ports[0])
        self.ways[0].refuse()
        self.ways[0].cut()
        self.wait_error("could not connect to several.test:%d/: Connection refused (the last of 4 addresses)" % self.ports[0])

    def test_answer_with_fifty_addresses(self):
        self.names.names["fifty.test"] = ["127.0.1.%d" % number for number in range(1, 50)] + ["127.0.0.1"]
        self.names.truncated.add("fifty.test")
        self.use_anew("fifty.test:%d" % self.ports[0])
        self.wait_at("fifty.test:%d" % self.ports[0])
        self.assertIn(("fifty.test", "tcp"), self.names.asked)
        self.names.names["many.test"] = ["127.0.1.%d" % number for number in range(1, 200)]
        self.use_anew("many.test:%d" % self.ports[0])
        self.wait_error("the last of 64 addresses")

    def test_both_families(self):
        self.names.names["both.test"] = ["::1", "2001:db8::1", "127.0.0.1"]
        self.use_anew("both.test:%d" % self.ports[0])
        self.wait_at("both.test:%d" % self.ports[0])

    def test_names_of_this_machine_and_addresses(self):
        for host in ("localhost", "127.0.0.1", "[::ffff:127.0.0.1]"):
            with self.subTest(host):
                # a peer that cannot connect goes on asking for the host that it had before
                self.db.sql("SELECT rinq_stop()")
                asked = len(self.names.asked)
                self.use("%s:%d" % (host, self.ports[0]))
                self.db.sql("SELECT rinq_start()")
                self.wait_at("%s:%d" % (host, self.ports[0]))
                self.assertEqual(len(self.names.asked), asked)

    def test_unresolvable_and_good(self):
        self.use_anew("absent.test", "%s" % ("x" * 70 + ".test"), "127.0.0.1:%d" % self.ports[0])
        row = self.wait_at(self.ports[0])
        self.assertIn("could not resolve host \"absent.test\"", row["last_error"])

    def test_silent_name_server_stalls_nothing(self):
        self.names.silent.add("silent.test")
        self.use_anew("127.0.0.1:%d" % self.ports[0])
        self.wait_at(self.ports[0])
        self.db.handler("served", "RETURN req.payload;")
        self.db.listen("served", "served")
        self.assertEqual(self.db.call("served", "x", 1, timeout=10), 1)
        # beside a connection that works: it goes on to work while the name is looked up, in vain
        self.use("silent.test:%d" % self.ports[0], options="?connection_timeout=3000")
        wait_until(lambda: ("silent.test", "udp") in self.names.asked, description="the name server to be asked")
        while "silent.test" not in (self.db.peer()["last_error"] or ""):
            start = time.monotonic()
            self.assertEqual(self.db.call("served", "x", 1, timeout=10), 1)
            self.assertLess(time.monotonic() - start, 2)
        self.wait_error("no name server has answered within 3000 ms", state="connected")
        # and where there is none: whoever asks the peer anything is answered at once, and a stop ends it
        self.ways[0].refuse()
        self.ways[0].cut()
        self.wait_error("no name server has answered within 3000 ms")
        self.use("silent.test:%d" % self.ports[0], options="?connection_timeout=60000")
        self.db.wait_peer(lambda row: row["state"] == "connecting", description="the look-up")
        start = time.monotonic()
        self.assertSqlState(self.db.error(call_sql("served", "x")), "08001")
        self.db.sql("SELECT rinq_stop()")
        self.assertLess(time.monotonic() - start, 3)
        self.db.sql("SELECT rinq_start()")
        self.assertLess(self.db.peer()["longest_turn_cpu"], 500)

    def test_slow_name_server(self):
        self.names.names["slow.test"] = ["127.0.0.1"]
        self.names.delays["slow.test"] = 1.5
        self.use_anew("slow.test:%d" % self.ports[0])
        self.wait_at("slow.test:%d" % self.ports[0])


class SilentNameServer(BrokersCase):
    @classmethod
    def name_servers(cls):
        return cls.deaf.address + "," + cls.names.address

    def test_the_second_name_server_answers(self):
        self.names.names["found.test"] = ["127.0.0.1"]
        self.use_anew("found.test:%d" % self.ports[0])
        self.wait_at("found.test:%d" % self.ports[0])
        self.assertIn(("found.test", "udp"), self.deaf.asked)
