"""TLS: a broker is reached through it, and what is wrong with certificates, keys and ports is said."""

import os
import shutil
import socket
import ssl
import subprocess
import threading
import unittest

from rinqtest import case
from rinqtest.broker import Broker
from rinqtest.certificates import Authority, listener
from rinqtest.cluster import World, call_sql
from rinqtest.fakebroker import FakeBroker
from rinqtest.proxy import Proxy
from rinqtest.scratch import free_port
from rinqtest.server import quote
from rinqtest.waiting import wait_until

HOST = "DNS:localhost,IP:127.0.0.1"


class Talker:
    """Says the same to each who connects, and hangs up."""

    def __init__(self, text):
        self._text = text
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            with client:
                client.recv(65536)
                client.sendall(self._text)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def tearDownModule():
    if TlsCase.shared is not None:
        TlsCase.shared.close()


class TlsCase(case.Case):
    """A RabbitMQ that listens with TLS too, and a server that has one database."""

    shared = None

    @classmethod
    def make_world(cls):
        if TlsCase.shared is None:
            TlsCase.shared = TlsCase.start_world()
        return TlsCase.shared

    @classmethod
    def start_world(cls):
        cls.scratch = case.scratch()
        cls.authority = cls.new_authority("tls-authority", "Test Authority")
        cls.others = cls.new_authority("tls-others", "Other Authority")
        cls.own = cls.authority.sign("broker", "broker.test", HOST)
        cls.client = cls.authority.sign("client", Broker.user)
        cls.tls_port = free_port()
        broker = Broker(cls.scratch, name="tls-broker", plugins=("rabbitmq_auth_mechanism_ssl",), rabbit=(
            ("auth_mechanisms", "['PLAIN', 'EXTERNAL']"), ("ssl_cert_login_from", "common_name"), *listener(cls.tls_port, cls.authority, cls.own)))
        return World(case.STAGE, cls.scratch, environment=case.SERVER_ENVIRONMENT, name="tls", broker=broker, proxied=False,
                     settings={"rinq.amqp_dsn": quote(cls.address(broker)), "rinq.amqp_connection_timeout": "'10s'", "rinq.amqp_heartbeat": "5"})

    @classmethod
    def new_authority(cls, folder, name):
        return Authority(cls.scratch.make_folder(folder, owned=True), name, cls.give)

    @classmethod
    def give(cls, path, mode):
        os.chmod(path, mode)
        if cls.scratch.user is not None:
            os.chown(path, cls.scratch.user.pw_uid, cls.scratch.user.pw_gid)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.server.configure(rinq__amqp_dsn=cls.address())
        cls.db = cls.world.database()
        cls.db.handler("echo", "RETURN req.payload;")
        cls.db.listen("echo", "echo")

    @classmethod
    def tearDownClass(cls):
        cls.db.drop()

    @classmethod
    def address(cls, broker=None, host="127.0.0.1", port=None, scheme="amqps", login=None, **options):
        broker = broker or cls.world.broker
        options = dict({"sslrootcert": cls.authority.cert} if scheme == "amqps" else {}, **options)
        return "%s://%s@%s:%d/%s" % (scheme, "%s:%s" % (broker.user, broker.password) if login is None else login, host, port or cls.tls_port,
                                     "".join("%s%s=%s" % ("&" if i else "?", *pair) for i, pair in enumerate(sorted(options.items()))))

    def use(self, **where):
        self.last_error_at = self.db.peer()["last_error_at"]
        self.server.configure(rinq__amqp_dsn=self.address(**where))

    def wait_error(self, pattern):
        """What is wrong is in the view, and in the log; a connection that works is kept meanwhile."""
        row = self.db.wait_peer(lambda row: row["last_error_at"] != self.last_error_at and pattern in (row["last_error"] or ""), description=pattern)
        wait_until(lambda: self.server.log_since(self.log_start), lambda text: row["last_error"] in text, description="the same in the log")
        return row["last_error"]

    def wait_broker(self, fake):
        return self.db.wait_peer(lambda row: row["state"] == "connected" and row["broker"] == "127.0.0.1:%d/" % fake.port)

    def check_calls(self, db=None):
        for size in (1, 16384, 300000):
            self.assertEqual((db or self.db).value("SELECT length(rinq_call('echo', 'hello', to_jsonb(repeat('x', %d)), '20 s') #>> '{}')" % size), str(size))


class Rabbit(TlsCase):
    def setUp(self):
        super().setUp()
        self.use()
        self.db.sql("SELECT rinq_wait_ready()")  # over the connection that is configured now
        self.before = self.db.wait_peer()

    def test_encrypted(self):
        self.assertRegex(self.before["tls_version"], r"^TLSv1\.[23]$")
        self.assertRegex(self.before["tls_cipher"], "GCM|CHACHA")
        self.assertEqual(self.db.value("SELECT tls_certificate_expires - now() BETWEEN '19 days' AND '20 days' FROM rinq_peer"), "t")
        self.check_calls()
        remote = self.peer()
        remote.serve("there", lambda request: request.payload)
        self.assertEqual(self.db.value(call_sql("there", "hello", [1, 2])), "[1, 2]")

    def test_in_plain_text_nothing_is_shown(self):
        self.use(scheme="amqp", port=self.world.broker.port)
        self.db.wait_new_peer(self.before)
        self.assertEqual(self.db.sql("SELECT tls_version, tls_cipher, tls_certificate_expires FROM rinq_peer"), [[None, None, None]])
        self.assertNotIn("in plain text", self.server.log_since(self.log_start))  # on loopback, that is nobody else's business

    def test_modes(self):
        for options in ({"sslmode": "require", "sslrootcert": ""}, {"sslmode": "verify-ca"}, {"sslmode": "verify-full", "ssl_min_protocol_version": "TLSv1.3"},
                        {"sslmode": "verify-full", "host": "localhost"}):
            with self.subTest(options):
                scheme = {"scheme": "amqp", "sslrootcert": options.pop("sslrootcert", self.authority.cert)}
                self.use(**scheme, **options)
                self.before = self.db.wait_new_peer(self.before)
        for mode in ("require", "verify-ca", "verify-full"):
            with self.subTest(mode):
                self.use(scheme="amqp", sslmode=mode, sslrootcert=self.others.cert)
                self.wait_error("its certificate is signed by unknown authority \"CN=Test Authority\"")

    def test_login_with_a_certificate(self):
        with_it = {"sslcert": self.client.cert, "sslkey": self.client.key}
        self.use(login="ignored:wrong", sasl_mechanism="EXTERNAL", **with_it)
        self.before = self.db.wait_new_peer(self.before)
        self.check_calls()
        stranger = self.authority.sign("stranger", "stranger")
        self.use(sasl_mechanism="EXTERNAL", sslcert=stranger.cert, sslkey=stranger.key)
        self.wait_error("refused the login: 403")
        foreign = self.others.sign("foreign", self.world.broker.user)
        self.use(sasl_mechanism="EXTERNAL", sslcert=foreign.cert, sslkey=foreign.key)
        self.wait_error("the broker refused the client certificate of file \"%s\"" % foreign.cert)

    def test_ports_of_the_other_kind(self):
        self.use(port=self.world.broker.port)
        self.wait_error("the broker does not speak TLS on this port, but AMQP in plain text")
        self.use(scheme="amqp")
        self.wait_error("speaks TLS on this port, and not AMQP in plain text")

    def wait_through(self, proxy):
        """A change of settings before this one may have a new connection as well."""
        self.before = self.db.wait_peer(lambda row: row["state"] == "connected" and row["broker"].endswith(":%d/" % proxy.port))

    def test_one_byte_at_a_time(self):
        proxy = Proxy(self.tls_port, record=False, chunk=1)
        self.addCleanup(proxy.close)
        self.use(port=proxy.port)
        self.wait_through(proxy)
        self.assertEqual(self.db.value(call_sql("echo", "hello", "x" * 2000, 20)), '"%s"' % ("x" * 2000))
        proxy.cut()
        self.server.wait_log("lost its connection to broker 127.0.0.1:%d/" % proxy.port, self.log_start)

    def test_silence_is_noticed(self):
        proxy = Proxy(self.tls_port, record=False)
        self.addCleanup(proxy.close)
        self.use(port=proxy.port, heartbeat=1)
        self.wait_through(proxy)
        proxy.silence()
        self.server.wait_log("heard nothing from 127.0.0.1:%d/ for 2 seconds" % proxy.port, self.log_start)

    def test_reload(self):
        copy, own = self.authority.copy, self.authority
        files = {"sslrootcert": copy(own.cert, "root.pem"), "sslcrl": copy(own.revocations("first.crl"), "list.crl"),
                 "sslcert": copy(self.client.cert, "own.pem"), "sslkey": copy(self.client.key, "own.key")}
        self.use(**files)
        before = self.db.wait_new_peer(self.before)
        begin = self.server.log_mark()

        def reload_keeps():
            mark = self.server.log_mark()
            self.server.configure()
            self.check_calls()
            self.assertEqual(self.db.peer()["peer_id"], before["peer_id"])
            return mark
        reload_keeps()
        renewed = own.sign("renewed", self.world.broker.user)
        copy(renewed.cert, "own.pem")
        self.server.wait_log("does not match the certificate of file", reload_keeps())
        copy(renewed.key, "own.key")
        reload_keeps()
        copy(renewed.key, "own.key", 0o644)
        self.server.wait_log("has group or world access", reload_keeps())
        self.assertNotIn("lost its connection", self.server.log_since(begin))
        copy(renewed.key, "own.key")

        # whom the broker's certificate does not convince any more
        copy(self.others.cert, "root.pem")
        self.server.configure()
        self.wait_error("signed by unknown authority")
        copy(own.cert, "root.pem")
        self.server.configure()
        before = self.db.wait_peer()
        reload_keeps()
        theirs = own.sign("another", "another")
        copy(theirs.cert, "own.pem")
        copy(theirs.key, "own.key")
        mark = self.server.log_mark()
        self.server.configure()
        self.server.wait_log("the client certificate is that of another subject", mark)
        self.db.wait_new_peer(before)

    def test_reload_after_a_change_of_hosts(self):
        """The connection stays when its host has another place in the list, and is judged by the files all the same."""
        root = self.authority.copy(self.authority.cert, "hosts.pem")
        dead = "127.0.0.1:%d" % free_port()
        for at_once in (False, True):
            with self.subTest(at_once):
                self.use(host=dead + ",127.0.0.1", sslrootcert=root)
                before = self.db.wait_new_peer(self.before)
                if not at_once:
                    self.use(sslrootcert=root)
                    self.check_calls()
                    self.assertEqual(self.db.peer()["peer_id"], before["peer_id"])
                self.authority.copy(self.others.cert, "hosts.pem")
                self.use(sslrootcert=root)
                self.wait_error("signed by unknown authority")
                self.authority.copy(self.authority.cert, "hosts.pem")
                self.use()
                self.before = self.db.wait_new_peer(before)

    def test_reload_while_another_connection_is_wanted(self):
        """A connection that stays since the wanted one cannot be made is judged by its own files meanwhile, in that reload and later."""
        copy, own = self.authority.copy, self.authority
        files = {"sslrootcert": copy(own.cert, "wanted.pem"), "sslcert": copy(self.client.cert, "wanted-own.pem"),
                 "sslkey": copy(self.client.key, "wanted-own.key")}
        dead = free_port()
        for at_once in (False, True):
            with self.subTest(at_once):
                self.use(**files)
                before = self.db.wait_new_peer(self.before)
                if not at_once:
                    self.use(port=dead, **files)
                    self.wait_error("Connection refused")
                    # of these, the next connection will tell
                    theirs = own.sign("wanted-other", "another")
                    copy(theirs.cert, "wanted-own.pem")
                    copy(theirs.key, "wanted-own.key", 0o644)
                    mark = self.server.log_mark()
                    self.server.configure()
                    self.server.wait_log("has group or world access", mark)
                    copy(self.client.cert, "wanted-own.pem")
                    copy(self.client.key, "wanted-own.key")
                    self.check_calls()
                    self.assertEqual(self.db.peer()["peer_id"], before["peer_id"])
                mark = self.server.log_mark()
                copy(self.others.cert, "wanted.pem")
                self.use(port=dead, **files)
                self.server.wait_log("signed by unknown authority", mark)
                self.db.wait_peer(lambda row: row["state"] != "connected")
                copy(own.cert, "wanted.pem")
                self.use()
                self.before = self.db.wait_new_peer(before)


class OtherMachine:
    """A namespace of the network with a scripted broker, at an address that is kept for documents."""

    PROGRAM = "import sys; sys.path.insert(0, %r); from rinqtest.fakebroker import FakeBroker; print(FakeBroker(host='0.0.0.0').port, flush=True); sys.stdin.read()"

    def __init__(self):
        net = os.getpid() % 64 * 4
        self.name = "rinq%d" % os.getpid()
        self.host = "198.51.100.%d" % (net + 2)
        self._broker = None
        try:
            for command in ("ip netns add NAME", "ip link add NAMEa type veth peer name NAMEb netns NAME", "ip address add 198.51.100.%d/30 dev NAMEa" % (net + 1),
                            "ip link set NAMEa up", "ip -n NAME address add %s/30 dev NAMEb" % self.host, "ip -n NAME link set NAMEb up"):
                subprocess.run(command.replace("NAME", self.name).split(), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            self.close()
            raise unittest.SkipTest("no namespaces of the network here: %s" % error)
        self._broker = subprocess.Popen(["ip", "netns", "exec", self.name, "/usr/bin/python3", "-c", self.PROGRAM % os.path.dirname(__file__)],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.port = int(self._broker.stdout.readline())

    def close(self):
        if self._broker is not None:
            self._broker.communicate()
        if shutil.which("ip") is not None:
            subprocess.run(["ip", "netns", "del", self.name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class PlainText(TlsCase):
    def test_warned_of_once(self):
        machine = OtherMachine()
        self.addCleanup(machine.close)
        for number, (options, warnings) in enumerate((({"sslmode": "disable"}, 0), ({}, 1), ({"heartbeat": "7"}, 1))):
            with self.subTest(options):
                self.use(scheme="amqp", host=machine.host, port=machine.port, **options)
                wait_until(lambda: self.server.log_since(self.log_start).count("connected to broker " + machine.host), lambda count: count == number + 1)
                self.assertEqual(self.server.log_since(self.log_start).count("sends password and messages in plain text to broker " + machine.host), warnings)


class Causes(TlsCase):
    """A scripted broker for each: what the message is, in the log and in the view, and that the peer finds its way back."""

    def context(self, certificate):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate.cert, certificate.key)
        return context

    def broker(self, certificate=None, **options):
        context = self.context(certificate or self.own)
        for name, value in options.items():
            setattr(context, name, value)
        fake = FakeBroker(tls=context)
        self.addCleanup(fake.close)
        return fake

    def refused(self, fake, pattern, **options):
        self.use(port=fake.port, **options)
        error = self.wait_error(pattern)
        self.assertIn("127.0.0.1:%d/" % fake.port, error)
        return error

    def test_a_healthy_one(self):
        fake = self.broker()
        self.use(port=fake.port)
        self.assertIsNotNone(self.wait_broker(fake)["tls_version"])

    def test_certificates(self):
        self.refused(self.broker(self.authority.sign("expired", "expired", HOST, -10, -1)), "its certificate has expired: it was valid until 20")
        self.refused(self.broker(self.authority.sign("early", "early", HOST, 1, 10)), "its certificate is not yet valid: it will be from 20")
        other = self.broker(self.authority.sign("other", "other", "DNS:other.example,IP:192.0.2.1"))
        error = self.refused(other, "its certificate is for another host")
        self.assertIn("it names \"other.example\", \"192.0.2.1\", and not \"127.0.0.1\"", error)
        error = self.refused(self.broker(self.authority.sign("as-name", "as-name", "DNS:127.0.0.1")), "its certificate is for another host")
        self.assertIn("it names \"127.0.0.1\", and not \"127.0.0.1\" as an IP address", error)
        self.refused(self.broker(self.others.sign("unknown", "unknown", HOST)), "its certificate is signed by unknown authority \"CN=Other Authority\"")
        self.refused(self.broker(self.own), "is none that the system trusts", sslrootcert="system")
        revoked = self.authority.sign("revoked", "revoked", HOST)
        fake = self.broker(revoked)
        self.use(port=fake.port)
        self.wait_broker(fake)
        self.authority.revoke(revoked)
        self.refused(fake, "its certificate was revoked", sslcrl=self.authority.revocations("revoked.crl"))
        self.use()
        self.db.wait_peer()

    def test_protocols(self):
        self.refused(self.broker(maximum_version=ssl.TLSVersion.TLSv1_2),
                     "no common protocol version: at least TLSv1.3 is demanded here", ssl_min_protocol_version="TLSv1.3")
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            with self.subTest(version):
                fake = self.broker(minimum_version=version, maximum_version=version)
                fake.tls.load_verify_locations(self.authority.cert)
                fake.tls.verify_mode = ssl.CERT_REQUIRED
                self.refused(fake, "the broker demands a client certificate, and sslcert is not given")
                stranger = self.others.sign("stranger", "stranger")
                self.refused(fake, "the broker refused the client certificate of file", sslcert=stranger.cert, sslkey=stranger.key)

    def test_keys(self):
        fake = self.broker()
        other = self.authority.sign("other-key", "other")
        self.refused(fake, "private key file \"%s\" does not match the certificate of file \"%s\"" % (other.key, self.client.cert),
                     sslcert=self.client.cert, sslkey=other.key)
        for mode in (0o640, 0o604, 0o660):
            key = self.authority.copy(self.client.key, "open.key", mode)
            self.refused(fake, "has group or world access", sslcert=self.client.cert, sslkey=key)
        self.refused(fake, "could not open file", sslcert=self.client.cert, sslkey=self.authority.path("absent.key"))
        self.assertEqual(fake.connections[1:], [])

    def test_no_login_with_a_certificate(self):
        self.refused(self.broker(), "does not offer login with a certificate (mechanism EXTERNAL",
                     sasl_mechanism="EXTERNAL", sslcert=self.client.cert, sslkey=self.client.key)

    def test_no_broker_at_all(self):
        self.refused(self.talker(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "the server does not speak TLS on this port")
        self.refused(self.talker(b""), "it closed the connection without a word")
        self.refused(self.talker(b"\x16\x03\x03\x00\x05hello"), "could not agree on TLS")

    def talker(self, text):
        talker = Talker(text)
        self.addCleanup(talker.close)
        return talker
