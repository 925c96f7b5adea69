"""A throwaway RabbitMQ node: own name, ports, epmd, folders and cookie, loopback only, plugins only when asked for."""

import os
import shutil
import signal
import socket
import subprocess

import pika

from . import plugins as applications
from . import versions
from .scratch import free_port
from .waiting import WaitTimeout, wait_until


def _erlang_table(entries):
    return "[" + ", ".join("{%s, %s}" % pair for pair in entries) + "]"


class Broker:
    """One broker; start() and stop() may alternate, and the port stays the same."""

    user = "rinq"
    vhost = "/"

    def __init__(self, scratch, name="broker", rabbit=(), cluster=(), kernel="", plugins=()):
        """rabbit: (key, Erlang term) pairs for the environment of the application; kernel: arguments for Erlang.

        cluster: nodes that this one joins when it is started for the first time; the first of them has made the cluster.
        """
        self._plugins = plugins
        self.scratch = scratch
        self.name = name
        self.port = free_port()
        self.dist_port = free_port()
        self.ctl_port = free_port()
        self.node = "rinq%d@localhost" % self.port
        self._kernel = kernel
        self._founder = cluster[0] if cluster else self
        if not cluster:
            self.epmd_port = free_port()
            # a password that can be searched for wherever it must not be
            self.password = "s3cret" + os.urandom(6).hex()
            self._cookie = os.urandom(16).hex().upper()
        else:
            self.epmd_port, self.password, self._cookie = self._founder.epmd_port, self._founder.password, self._founder._cookie
        self._rabbit = dict(versions.broker_settings(), **dict(rabbit))
        if cluster:
            self._rabbit["cluster_nodes"] = "{[%s], disc}" % ", ".join("'%s'" % node.node for node in (*cluster, self))
        self._process = None
        self._made = False
        self.frozen = False
        self._epmd = None
        self.folder = scratch.make_folder(name, owned=True)
        for part in ("data", "log"):
            scratch.make_folder(name, part, owned=True)
        self._own_plugins = applications.link_plugins(scratch.make_folder(name, "plugins"), versions.broker_root(), plugins)
        cookie = os.path.join(self.folder, ".erlang.cookie")
        with open(cookie, "w") as file:
            file.write(self._cookie)
        os.chmod(cookie, 0o400)
        if scratch.user is not None:
            os.chown(cookie, scratch.user.pw_uid, scratch.user.pw_gid)
        self._write_configuration()

    def _write_configuration(self):
        # Erlang terms rather than rabbitmq.conf: translating the latter costs seconds at each start
        entries = [("tcp_listeners", '[{"127.0.0.1", %d}]' % self.port), ("vm_memory_high_watermark", "0.6"),
                   ("disk_free_limit", "1000000"), ("default_user", '<<"%s">>' % self.user),
                   ("default_pass", '<<"%s">>' % self.password), *self._rabbit.items()]
        with open(os.path.join(self.folder, "rabbitmq.config"), "w") as file:
            file.write("[{rabbit, %s}].\n" % _erlang_table(entries))
        with open(os.path.join(self.folder, "enabled_plugins"), "w") as file:
            file.write("[%s].\n" % ",".join(self._plugins))

    def dsn(self, port=None, password=None, vhost=""):
        return "amqp://%s:%s@127.0.0.1:%d/%s" % (self.user, password or self.password, port or self.port, vhost)

    def environment(self):
        loopback = "-kernel inet_dist_use_interface {127,0,0,1} " + self._kernel
        keep = {key: os.environ[key] for key in ("PATH", "LANG", "LC_ALL") if key in os.environ}
        keep.update({
            "HOME": self.folder,
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self.dist_port),
            "RABBITMQ_CTL_DIST_PORT_MIN": str(self.ctl_port),
            "RABBITMQ_CTL_DIST_PORT_MAX": str(self.ctl_port),
            "ERL_EPMD_PORT": str(self.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_MNESIA_BASE": os.path.join(self.folder, "data"),
            "RABBITMQ_LOG_BASE": os.path.join(self.folder, "log"),
            "RABBITMQ_CONFIG_FILE": os.path.join(self.folder, "rabbitmq.config"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": os.path.join(self.folder, "none.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": os.path.join(self.folder, "enabled_plugins"),
            "RABBITMQ_PID_FILE": os.path.join(self.folder, "pid"),
            "RABBITMQ_GENERATED_CONFIG_DIR": os.path.join(self.folder, "generated"),
            "RABBITMQ_SCHEMA_DIR": os.path.join(self.folder, "schema"),
            # threads with nothing to do do not spin: the processor belongs to what is tested
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": loopback + " +sbwt none",
            # and one is enough for a command: many spend most of its time with waiting for each other
            "RABBITMQ_CTL_ERL_ARGS": loopback + " +S 1:1 +sbwt none",
            "ERL_CRASH_DUMP": "/dev/null",
        })
        if self._own_plugins:
            keep["RABBITMQ_PLUGINS_DIR"] = os.path.join(self.folder, "plugins")
        return keep

    def _command(self, run, argv, **options):
        """Have run, of the scratch folder, run a program of the broker, where that is installed."""
        if versions.broker_root():
            return run(versions.broker_command(argv, self.folder, self.scratch.identity()), cwd=self.folder, **options)
        return run(argv, unprivileged=True, cwd=self.folder, **options)

    def _spawn(self, argv, **options):
        return self._command(self.scratch.spawn, argv, **options)

    def start(self, timeout=120):
        """Starts it, and again if it hangs: on a busy machine, a node that was just stopped may be in the way of the next one."""
        for patience in (timeout / 3, timeout / 3):
            try:
                return self._start(patience)
            except WaitTimeout:
                self.kill()
                self._forget_half_made()
        return self._start(timeout)

    def _forget_half_made(self):
        """A node that was killed while it made its tables for the first time cannot go on with those."""
        if not self._made:
            shutil.rmtree(os.path.join(self.folder, "data"))
            self.scratch.make_folder(self.name, "data", owned=True)

    def _start_epmd(self):
        if self._epmd is None:
            self._epmd = self._spawn(["epmd", "-port", str(self.epmd_port), "-address", "127.0.0.1"],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _start(self, timeout):
        self._founder._start_epmd()
        with open(os.path.join(self.folder, "log", "console"), "ab") as log:
            self._process = self._spawn([versions.broker_tool("rabbitmq-server")], env=self.environment(), stdout=log, stderr=log)
        wait_until(self._answers, timeout=timeout, description="RabbitMQ to answer\n" + self.log_tail(), interval=0.05)
        self._made = True
        return self

    def _answers(self):
        """The broker speaks AMQP: listeners open last, so that it is ready then."""
        if self._process.poll() is not None:
            raise RuntimeError("RabbitMQ ended with status %s" % self._process.returncode)
        with socket.create_connection(("127.0.0.1", self.port), timeout=2) as probe:
            probe.settimeout(5)
            probe.sendall(b"AMQP\x00\x00\x09\x01")
            return probe.recv(1) == b"\x01"

    @property
    def running(self):
        return self._process is not None and self._process.poll() is None

    def stop(self, timeout=30):
        """An orderly stop, as an administrator would do it."""
        self._finish(signal.SIGTERM, timeout)

    def freeze(self):
        """SIGSTOP: connections stay, and nothing comes any more; kill() ends it."""
        os.killpg(self._process.pid, signal.SIGSTOP)
        self.frozen = True

    def kill(self):
        """kill -9: connections break without a word."""
        self._finish(signal.SIGKILL, 10)

    def _finish(self, number, timeout):
        self.frozen = False
        if self._process is None:
            return
        process, self._process = self._process, None
        if process.poll() is None:
            os.killpg(process.pid, number)
            try:
                process.wait(timeout=timeout)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait(timeout=10)
        self.scratch.forget(process)

    def restart(self, kill=False):
        self.kill() if kill else self.stop()
        return self.start()

    def connect(self, vhost="/"):
        """A connection that shares nothing with any peer, for what an administrator does; to be closed, or used with `with`."""
        return pika.BlockingConnection(pika.ConnectionParameters(
            "127.0.0.1", self.port, vhost, pika.PlainCredentials(self.user, self.password)))

    def ctl(self, *arguments, timeout=180):
        """Run rabbitmqctl against this node; returns what it printed."""
        done = self._command(self.scratch.run, [versions.broker_tool("rabbitmqctl"), "--quiet", "-n", self.node, *arguments],
                             env=self.environment(), timeout=timeout)
        return done.stdout

    def table(self, *arguments):
        """The rows of a rabbitmqctl list command, without its header line."""
        lines = self.ctl(*(arguments + ("--no-table-headers",))).splitlines()
        return [line.split("\t") for line in lines if line]

    def log_tail(self, lines=20):
        text = []
        folder = os.path.join(self.folder, "log")
        for name in sorted(os.listdir(folder)):
            with open(os.path.join(folder, name), errors="replace") as file:
                text += file.read().splitlines()[-lines:]
        return "\n".join(text)
