"""Calls through TLS beside calls in plain text: the same broker, database and connections, turn about."""

import os
import statistics

from rinqtest.broker import Broker
from rinqtest.certificates import Authority, listener
from rinqtest.scratch import free_port
from rinqtest.waiting import wait_until

CLIENTS = 16


class Addresses:
    """A broker with both ports."""

    def __init__(self, scratch):
        def give(path, mode):
            os.chmod(path, mode)
            if scratch.user is not None:
                os.chown(path, scratch.user.pw_uid, scratch.user.pw_gid)
        authority = Authority(scratch.make_folder("bench-authority", owned=True), "Benchmark", give)
        port = free_port()
        self.broker = Broker(scratch, name="bench-broker",
                             rabbit=listener(port, authority, authority.sign("broker", "broker", "DNS:localhost,IP:127.0.0.1")))
        self.plain = self.broker.dsn()
        self.tls = "amqps://%s:%s@127.0.0.1:%d/?sslrootcert=%s" % (self.broker.user, self.broker.password, port, authority.cert)


def _switch(database, address, encrypted):
    database.server.configure(rinq__amqp_dsn=address)
    wait_until(lambda: database.peer(), lambda row: row["state"] == "connected" and (row["tls_version"] is not None) == encrypted, 30)
    database.call("bench", "echo", {"warm": "up"}, timeout=30)


def rounds(count, addresses, database, measure):
    """measure(clients) gives a sample; each half round has both, in an order that changes."""
    results = {"plain": [], "tls": []}
    for number in range(2 * count):
        for what in ("plain", "tls") if number % 2 == 0 else ("tls", "plain"):
            _switch(database, getattr(addresses, what), what == "tls")
            results[what].append(measure(CLIENTS))
    results["version"] = database.value("SELECT tls_version || ', ' || tls_cipher FROM rinq_peer") or ""
    _switch(database, addresses.plain, False)
    return results


def report(results):
    rates = {what: statistics.median(sample.rate for sample in results[what]) for what in ("plain", "tls")}
    share = statistics.median(tls.rate / plain.rate for tls, plain in zip(results["tls"], results["plain"]))
    print("\n%-44s %12.0f" % ("calls/s at %d clients, plain text" % CLIENTS, rates["plain"]))
    print("%-44s %12.0f" % ("… with TLS", rates["tls"]))
    print("%-80s %s" % ("TLS: %.2f x the rate in plain text (at least 0.9)" % share, "reached" if share >= 0.9 else "MISSED"))
    return share >= 0.9
