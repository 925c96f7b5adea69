"""The load: writers of durable messages, some of which fail at first or for ever, callers both ways, notifiers, a subscription that fails at some notifications, and an independent peer that comes back after each fault."""

import collections
import json
import random
import threading

from rinqtest.cluster import SqlError, quote
from rinqtest.peer import Answered, Failure

from .ledger import Account, Answers

# what a call may end with while something is broken on purpose; None is a connection that is gone
TOLERATED = {None, "08000", "08001", "08003", "08006", "RQ003", "55000", "57P01", "57P02", "57P03", "57014", "53400", "53200"}

# how many of a kind may be on their way before no more of them are sent for a while
MOST_RETRIED = 300  # commands that fail at first: each takes several attempts
MOST_ASKED = 300  # durable calls without an answer: each asks again every 2 s, which would keep a service that is behind from ever getting there
MOST_TENANTS = 300  # sources whose attributes are to be read back
MOST_REMOTE = 3000  # commands for the independent peer, which is slower than a database

COMMANDS = ("success", "failure", "error", "nothing")  # of the independent service, by what it answers

# outcomes that are right for each, as they are kept by the handler
RIGHT = {"success": {("success", None)}, "failure": {("failure", "as-ordered")}, "error": {("error", None)}, "nothing": {("timeout", None)}}

SENDER_SQL = """
CREATE TABLE sent (id text, account text, n bigint, size int);
CREATE TABLE heard (n bigint);
CREATE SEQUENCE number;
CREATE FUNCTION post(account text, command text, size int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  n bigint := nextval('number');
BEGIN
  INSERT INTO sent VALUES (rinq_execute('soak.' || account, command, jsonb_build_object('n', n, 'pad', repeat('x', size))), account, n, size);
END $$;
CREATE TABLE answered (id text, outcome text, payload jsonb, failure_type text, n bigint);
CREATE SEQUENCE handler_attempt;
CREATE FUNCTION ask(command text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  n bigint := nextval('number');
BEGIN
  INSERT INTO sent VALUES (rinq_call_durable('soak.service', command, jsonb_build_object('n', n), 'answer(rinq_response)',
                                             timeout => CASE WHEN command = 'nothing' THEN interval '5 s' END, resend => '2 s',
                                             retry => '{"attempts": 1000, "first_delay": "20 ms", "max_delay": "200 ms"}'),
                           'asked, ' || command, n, 0);
END $$;
CREATE FUNCTION answer(r rinq_response) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  attempt bigint := nextval('handler_attempt');
BEGIN
  INSERT INTO answered VALUES (r.id, r.outcome, r.payload, r.failure_type, nextval('number'));
  IF attempt % 13 = 0 THEN PERFORM rinq_retry('50 ms', 'as ordered'); END IF;
  IF attempt % 7 = 0 THEN RAISE 'as ordered'; END IF;
END $$;
CREATE FUNCTION post_from(tenant text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  n bigint := nextval('number');
BEGIN
  INSERT INTO sent VALUES (rinq_execute('soak.tenant', 'x', jsonb_build_object('n', n, 'tenant', tenant),
                                        attributes => jsonb_build_object('auth', jsonb_build_object('tenant', tenant))), 'tenant', n, 0);
END $$;
CREATE TABLE keyed (key text, id text);
CREATE TABLE entity (name text PRIMARY KEY, n bigint DEFAULT 0);
INSERT INTO entity SELECT 'entity ' || i FROM generate_series(1, 5) i;
CREATE FUNCTION post_later(delay interval) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  n bigint := nextval('number');
  id text := rinq_execute('soak.later', 'x', jsonb_build_object('n', n), deliver_after => delay);
BEGIN
  INSERT INTO sent VALUES (id, 'later', n, 0);
  RETURN id;
END $$;
CREATE FUNCTION take_back(taken text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF rinq_execute_cancel(taken) THEN
    DELETE FROM sent WHERE id = taken;
  END IF;
END $$;
CREATE FUNCTION post_ordered(which text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  m bigint;
BEGIN
  UPDATE entity SET n = n + 1 WHERE name = which RETURNING n INTO m;
  INSERT INTO sent VALUES (rinq_execute('soak.ordered', 'x', jsonb_build_object('e', which, 'n', m), ordering => which), 'ordered', m, 0);
END $$;
CREATE FUNCTION post_keyed(which text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  one text := rinq_execute('soak.keyed', 'x', '1', key => which);
BEGIN
  INSERT INTO keyed VALUES (which, one);
  INSERT INTO sent SELECT one, 'keyed', nextval('number'), 0 WHERE NOT EXISTS (SELECT FROM sent s WHERE s.id = one);
END $$;
CREATE FUNCTION tell(account text) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  n bigint := nextval('number');
BEGIN
  INSERT INTO sent VALUES (rinq_notify_many('soak.news', 'tick', '{*}', jsonb_build_object('n', n)), account, n, 0);
END $$;
CREATE TABLE kept (n bigint, attempt int);
CREATE TABLE seen_waiting (n bigint PRIMARY KEY);
CREATE FUNCTION keep(one rinq_notification) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  n bigint := (one.payload->>'n')::bigint;
BEGIN
  INSERT INTO kept VALUES (n, one.attempt);
  IF n % 10 = 0 OR one.attempt <= n % 3 THEN
    IF n % 2 = 0 THEN PERFORM rinq_retry('100 ms', 'as ordered'); END IF;
    RAISE EXCEPTION 'as ordered';
  END IF;
END $$;
CREATE FUNCTION hear(one rinq_notification) RETURNS void LANGUAGE sql AS $$
  INSERT INTO heard VALUES ((one.payload->>'n')::bigint)
$$;
"""

RECEIVER_SQL = """
CREATE TABLE handled (account text, id text, n bigint, right_size boolean);
CREATE FUNCTION take(req rinq_request) RETURNS jsonb LANGUAGE plpgsql AS $$
BEGIN
  IF req.command = 'fail' THEN
    RAISE EXCEPTION 'as ordered';
  END IF;
  INSERT INTO handled VALUES (split_part(req.namespace, '.', 2), req.id, (req.payload->>'n')::bigint, length(req.payload->>'pad') >= 0);
  RETURN NULL;
END $$;
CREATE FUNCTION calc(req rinq_request) RETURNS jsonb LANGUAGE sql AS $$
  SELECT jsonb_build_object('n', 2 * (req.payload->>'n')::bigint)
$$;
CREATE FUNCTION take_at_last(req rinq_request) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
  n bigint := (req.payload->>'n')::bigint;
BEGIN
  INSERT INTO handled VALUES ('retried', req.id, n, length(req.payload->>'pad') >= 0);
  IF n % 10 = 0 OR req.attempt <= n % 3 THEN
    IF n % 2 = 0 THEN PERFORM rinq_retry('100 ms', 'as ordered'); END IF;
    RAISE EXCEPTION 'as ordered';
  END IF;
  RETURN NULL;
END $$;
SELECT rinq_listen('soak.retried', 'take_at_last(rinq_request)', deduplicate => true,
                   retry => '{"attempts": 8, "first_delay": "50 ms", "max_delay": "1 s"}');
SELECT rinq_listen('soak.once', 'take(rinq_request)', deduplicate => true);
SELECT rinq_listen('soak.often', 'take(rinq_request)');
SELECT rinq_listen('soak.calc', 'calc(rinq_request)');
"""


class Worker(threading.Thread):
    """Repeats step() until it is told to stop; an exception is a fault's doing, and begin() comes before the next step."""

    def __init__(self, load):
        super().__init__(daemon=True)
        self.load = load
        self.random = random.Random(load.random.random())
        self.stopping = threading.Event()

    def run(self):
        ready = False
        while not self.stopping.is_set():
            try:
                if not ready:
                    self.begin()
                    ready = True
                self.step()
            except Exception as error:
                ready = False
                self.broken(error)
                self.stopping.wait(0.1)
        self.end()

    def begin(self):
        pass

    def end(self):
        pass

    def broken(self, error):
        pass


class SqlWorker(Worker):
    """A worker with a connection to a database."""

    session = None

    def begin(self):
        self.end()
        self.session = self.database().session()

    def end(self):
        if self.session is not None:
            self.session.close()
            self.session = None

    def database(self):
        return self.load.sender


class Writer(SqlWorker):
    """Commits durable messages in transactions of all shapes, and rolls others back."""

    ACCOUNTS = ("remote", "once", "often", "retried")

    def post(self):
        size = self.random.choice((0, 10, 200, 200, 3000, 60000))
        accounts = [account for account in self.ACCOUNTS if account not in self.load.many]
        return "SELECT post(%s, 'x', %d);" % (quote(self.random.choice(accounts)), size)

    def step(self):
        self.random.choice((self.one, self.one, self.several, self.rolled_back, self.prepared, self.asynchronous))()
        self.stopping.wait(self.load.pause)

    def one(self):
        self.session.execute(self.post())

    def several(self):
        self.session.execute("BEGIN; %s SAVEPOINT a; %s ROLLBACK TO a; %s COMMIT;" % (
            self.post() * self.random.randrange(1, 6), self.post(), self.post()))

    def rolled_back(self):
        self.session.execute("BEGIN; %s ROLLBACK;" % self.post())

    def prepared(self):
        name = quote("soak-%d" % self.random.getrandbits(60))
        self.session.execute("BEGIN; %s PREPARE TRANSACTION %s;" % (self.post(), name))
        self.session.execute("COMMIT PREPARED %s;" % name)

    def asynchronous(self):
        self.session.execute("BEGIN; SET LOCAL synchronous_commit = off; %s COMMIT;" % self.post())


class Pacer(Worker):
    """Holds back what is dear to deal with while many of a kind are not through, however slow the machine is."""

    def step(self):
        retried = int(self.load.sender.value("SELECT count(*) FROM sent WHERE account = 'retried'")) - int(self.load.receiver.value(
            "SELECT (SELECT count(*) FROM handled WHERE account = 'retried') + (SELECT count(*) FROM rinq_inbox_dead_letter)"))
        remote = int(self.load.sender.value("SELECT (SELECT count(*) FROM sent WHERE account = 'remote') - (SELECT count(*) FROM rinq_outbox_dead_letter)"))
        asked = int(self.load.sender.value("SELECT count(*) FROM rinq_durable_calls"))
        found = {"retried": retried > MOST_RETRIED, "remote": remote - len(self.load.accounts["remote"].arrived) > MOST_REMOTE,
                 "asked": asked > MOST_ASKED, "tenant": len(self.load.tenants_to_ask) > MOST_TENANTS}
        self.load.many = {kind for kind, many in found.items() if many}
        self.stopping.wait(0.5)


class LaterWriter(SqlWorker):
    """Commits messages that are delayed, taken back, ordered, or sent twice with one key."""

    def begin(self):
        super().begin()
        self.prefix = "%x" % self.random.getrandbits(60)
        self.keys = 0

    def step(self):
        self.random.choice((self.delayed, self.taken_back, self.ordered, self.ordered, self.keyed))()
        self.stopping.wait(self.load.pause * 2)

    def post(self, most=5000):
        return "SELECT post_later('%d ms')" % self.random.randrange(most)

    def delayed(self):
        self.session.execute("BEGIN; SAVEPOINT a; %s; ROLLBACK TO a; %s; COMMIT" % (self.post(), self.post()))

    def taken_back(self):
        id = self.session.value(self.post(300))
        self.stopping.wait(self.random.random() / 5)
        self.session.execute("SELECT take_back('%s')" % id)

    def ordered(self):
        self.session.execute("SELECT post_ordered('entity %d')" % self.random.randrange(1, 6))

    def keyed(self):
        key = quote("%s %d" % (self.prefix, self.keys - self.random.randrange(3)))
        self.session.execute("SELECT post_keyed(%s)" % key)
        self.keys += 1


class DurableCaller(SqlWorker):
    """Makes durable calls, whose outcomes are handled by a function that fails now and then, and executes for tenants."""

    def step(self):
        post = "SELECT 1;" if "asked" in self.load.many else "SELECT ask(%s);" % quote(self.random.choice(COMMANDS))
        tenant = "SELECT 1;" if "tenant" in self.load.many else "SELECT post_from('tenant %d');" % self.random.randrange(1000)
        self.session.execute(self.random.choice((post, post, tenant, "BEGIN; %s %s COMMIT;" % (post, tenant), "BEGIN; %s %s ROLLBACK;" % (post, tenant),
                                                 "BEGIN; SAVEPOINT a; %s ROLLBACK TO a; %s COMMIT;" % (post, post))))
        self.stopping.wait(self.load.pause * 4)


class LargeWriter(SqlWorker):
    """Now and then, a durable message larger than the broker takes, which must be set aside and hold back no other."""

    def step(self):
        self.session.execute("SELECT post('remote', 'large', %d)" % self.load.too_large)
        self.stopping.wait(20)


class Notifier(SqlWorker):
    def step(self):
        self.session.execute("SELECT tell('news')")
        self.stopping.wait(0.05)


class Watcher(SqlWorker):
    """Writes down which notifications are kept: each of them must be handled, or set aside, in the end."""

    def step(self):
        self.session.execute("INSERT INTO seen_waiting SELECT (rinq_from_cbor(payload)->>'n')::bigint FROM rinq_inbox_waiting WHERE subscription = 'soak, kept'"
                             " ON CONFLICT DO NOTHING")
        self.stopping.wait(0.05)


class Caller(SqlWorker):
    """Calls the independent peer."""

    def step(self):
        n = self.random.randrange(1 << 30)
        got = self.session.value("SELECT rinq_call('soak.echo', 'echo', '{\"n\": %d}'::jsonb, '5 s')" % n)
        self.load.calls_out.answer(json.loads(got), {"n": n})
        self.stopping.wait(0.01)

    def broken(self, error):
        self.load.calls_out.error(getattr(error, "sqlstate", type(error).__name__), str(error))


class RemoteCaller(Worker):
    """Calls the SQL functions from the independent peer."""

    def step(self):
        peer = self.load.service.peer
        if peer is None:
            self.stopping.wait(0.1)
            return
        n = self.random.randrange(1 << 30)
        self.load.calls_in.answer(peer.call("soak.calc", "double", {"n": n}, timeout=5), {"n": 2 * n})
        self.stopping.wait(0.01)

    def broken(self, error):
        self.load.calls_in.error(type(error).__name__, str(error))


class Service(Worker):
    """The independent peer: serves, listens, and is made anew whenever its connection has ended."""

    peer = None
    _peer = None

    def __init__(self, load):
        super().__init__(load)
        self.renew = threading.Event()

    def begin(self):
        self.end()
        self.renew.clear()
        peer = self.load.world.peer(prefetch=200)
        self._peer = peer
        peer.serve("soak.remote", self.receive)
        peer.serve("soak.later", lambda request: self.load.accounts["later"].arrive(request.id))
        peer.serve("soak.keyed", lambda request: self.load.accounts["keyed"].arrive(request.id))
        peer.serve("soak.ordered", self.receive_ordered, in_order=True)
        peer.serve("soak.service", self.answer)
        peer.serve("soak.tenant", self.receive_tenant)
        peer.serve("soak.echo", lambda request: request.payload)
        peer.listen_notifications("soak.news", 1, lambda one: self.load.accounts["news, remote"].arrive(one.payload["n"]))
        self.peer = peer

    def receive(self, request):
        payload = request.payload
        self.load.sizes[payload["n"]] = len(payload["pad"])
        self.load.accounts["remote"].arrive(request.id)

    def answer(self, request):
        """What the command names; some requests are answered when they are asked again, or twice."""
        self.load.asked[request.id] += 1
        if request.command == "nothing" or (request.payload["n"] % 5 == 0 and self.load.asked[request.id] == 1):
            raise Answered()
        if request.command == "failure":
            raise Failure("as-ordered", "as ordered", request.payload)
        if request.command == "error":
            raise RuntimeError("as ordered")
        if request.payload["n"] % 4 == 0:
            self._peer.publish_raw("cmd.rsp", request.id, request.body, {"n": request.namespace, "c": request.command}, type="s", reply_to="u",
                                   correlation_id=request.trace_id)
        return request.payload

    def receive_tenant(self, request):
        """Have the source asked about later: handlers do not call."""
        self.load.accounts["tenant"].arrive(request.id)
        self.load.tenants_to_ask.append((request.id, request.source, request.payload["tenant"]))

    def receive_ordered(self, request):
        """The first arrivals of each entity are in order; a message that comes again may come late."""
        entity, n = request.payload["e"], request.payload["n"]
        with self.load.last_of_lock:  # a peer that was closed may still be at one
            last = self.load.last_of.get(entity, 0)
            self.load.accounts["ordered"].arrive(request.id, n <= last + 1)
            self.load.last_of[entity] = max(n, last)

    def step(self):
        if self.renew.is_set() or not self.peer.connected:
            raise ConnectionError("the independent peer is to connect anew")
        del self.peer.requests[:-1]
        self.stopping.wait(0.1)

    def end(self):
        self.peer = None
        if self._peer is not None:
            self._peer.close()
            self.load.world.forget_peer(self._peer)
            self._peer = None


class Asker(Worker):
    """Reads attributes of sources back; one whose peer does not respond is asked about again."""

    def step(self):
        peer = self.load.service.peer
        if peer is None or not self.load.tenants_to_ask:
            self.stopping.wait(0.1)
            return
        asked = self.load.tenants_to_ask.popleft()
        try:
            self.load.accounts["attributes"].arrive(asked[0], self.ask(peer, asked[1]) == [asked[2]])
        except Exception:
            self.load.tenants_to_ask.append(asked)
            raise

    def ask(self, peer, source):
        """Values of the attribute, or what the failure says."""
        mailbox, _, session = source.partition("@")[0].partition(".")
        try:
            got = peer.call_unicast(mailbox, "_sess", "fetch", {"s": int(session), "ns": "auth", "k": ["tenant"]}, timeout=5)
        except Failure as error:
            return [str(error)]
        return [one["v"] for one in got["a"]]


class Load:
    """All of it, on one world with two databases."""

    def __init__(self, world, seed, writers=3, pause=0.005, clock=None, too_large=None):
        self.world = world
        self.clock = clock
        self.random = random.Random(seed)
        self.pause = pause
        self.too_large = too_large
        self.many = set()
        self.sizes = {}
        self.last_of = {}
        self.last_of_lock = threading.Lock()
        self.keys_used_twice = []
        self.asked = collections.Counter()
        self.tenants_to_ask = collections.deque()
        self.outcomes = collections.Counter()
        self.accounts = {account.name: account for account in (
            Account("remote"), Account("once", at_most_once=True), Account("often"), Account("retried", at_most_once=True),
            Account("later"), Account("ordered"), Account("keyed"), Account("tenant"), Account("attributes"),
            *(Account("asked, " + command, at_most_once=True) for command in COMMANDS),
            Account("news, remote", at_least_once=False, at_most_once=True),
            Account("news, subscription", at_least_once=False, at_most_once=True),
            Account("news, kept", at_least_once=False))}
        self.kept_missing = set()
        self.calls_out = Answers("calls of the peer", TOLERATED | {"ConnectionError", "BrokenPipeError", "RuntimeError"})
        self.calls_in = Answers("calls of SQL functions", {"CallTimeout", "ConnectionError", "ConnectionClosedByBroker", "RemoteError", "TimeoutError", "ChannelWrongStateError"})
        self.sender = world.database("soak_sender")
        self.sender.sql(SENDER_SQL)
        self.sender.sql("SELECT rinq_subscribe('soak', 'soak.news', 'hear(rinq_notification)')")
        self.sender.sql("SELECT rinq_subscribe('soak, kept', 'soak.news', 'keep(rinq_notification)',"
                        " retry => '{\"attempts\": 8, \"first_delay\": \"50 ms\", \"max_delay\": \"1 s\"}')")
        self.sender.wait_subscription("soak")
        self.sender.wait_subscription("soak, kept")
        self.receiver = world.database("soak_receiver")
        self.receiver.sql(RECEIVER_SQL)
        self.service = Service(self)
        self.workers = [self.service] + [Writer(self) for _ in range(writers)] + [LaterWriter(self), LaterWriter(self), DurableCaller(self), Pacer(self), Notifier(self), Watcher(self), Caller(self), RemoteCaller(self)]
        self.askers = [Asker(self) for _ in range(4)]
        if too_large is not None:
            self.workers.append(LargeWriter(self))

    def start(self):
        for worker in self.workers + self.askers:
            worker.start()

    def stop_sending(self):
        for worker in self.workers[1:]:
            worker.stopping.set()
        for worker in self.workers[1:]:
            worker.join(90)

    def close(self):
        self.stop_sending()
        for asker in self.askers:
            asker.stopping.set()
        self.service.stopping.set()
        self.service.join(30)

    def finish_prepared(self):
        """Commit what a fault left prepared: that is a commit, too."""
        for (name,) in self.sender.sql("SELECT gid FROM pg_prepared_xacts WHERE database = 'soak_sender'"):
            try:
                self.sender.sql("COMMIT PREPARED " + quote(name))
            except SqlError as error:
                if error.sqlstate not in ("42704", "55000"):  # its writer was faster
                    raise

    def read_committed(self):
        """What the databases say was committed, handled and set aside."""
        sent = self.sender.sql("SELECT id, account, n, size FROM sent")
        for account in self.accounts.values():
            column = 2 if account.name.startswith("news") else 0
            name = "tenant" if account.name == "attributes" else account.name if account.name.startswith("asked") else account.name.split(",")[0]
            account.committed = {int(row[2]) if column == 2 else row[0] for row in sent if row[1] == name}
        self.read_outcomes()
        self.accounts["remote"].set_aside = {id for (id,) in self.sender.sql("SELECT id FROM rinq_outbox_dead_letter")}
        self.accounts["remote"].wrong = [n for _, account, n, size in sent
                                         if account == "remote" and self.sizes.get(int(n), int(size)) != int(size)]
        self.keys_used_twice = [key for (key,) in self.sender.sql("SELECT key FROM keyed GROUP BY key HAVING count(DISTINCT id) > 1")]
        self.accounts["retried"].set_aside = {id for (id,) in self.receiver.sql("SELECT id FROM rinq_inbox_dead_letter WHERE namespace = 'soak.retried'")}
        for name in ("once", "often"):  # a handler that the administrator ends has failed: nothing else has these set aside
            self.accounts[name].set_aside = {id for (id,) in self.receiver.sql(
                "SELECT id FROM rinq_inbox_dead_letter WHERE namespace = 'soak.%s' AND sqlstate = '57014'" % name)}
        for name in ("once", "often", "retried"):
            self.accounts[name].arrived.clear()
            self.accounts[name].arrived.update(id for (id,) in self.receiver.sql("SELECT id FROM handled WHERE account = " + quote(name)))
        self.accounts["news, subscription"].arrived.clear()
        self.accounts["news, subscription"].arrived.update(int(n) for (n,) in self.sender.sql("SELECT n FROM heard"))
        self.read_kept()

    def read_kept(self):
        """Notifications of the subscription with a policy: what was handled, and set aside, and what was kept and is neither."""
        account = self.accounts["news, kept"]
        account.arrived.clear()
        account.arrived.update(int(n) for (n,) in self.sender.sql("SELECT n FROM kept"))
        account.set_aside = {int(n) for (n,) in self.sender.sql("SELECT rinq_from_cbor(payload)->>'n' FROM rinq_inbox_dead_letter WHERE subscription = 'soak, kept'")}
        self.kept_missing = {int(n) for (n,) in self.sender.sql("SELECT n FROM seen_waiting")} - account.set_aside - set(account.arrived)

    def read_outcomes(self):
        """What handlers of durable calls have kept, by what was asked for."""
        rows = self.sender.sql("SELECT a.id, s.account, a.outcome, a.failure_type, a.payload = jsonb_build_object('n', s.n) FROM answered a LEFT JOIN sent s USING (id)")
        self.outcomes = collections.Counter((row[1], row[2]) for row in rows)
        for command in COMMANDS:
            account = self.accounts["asked, " + command]
            mine = [row for row in rows if row[1] == account.name]
            account.arrived.clear()
            account.arrived.update(row[0] for row in mine)
            account.wrong = [row[0] for row in mine if (row[2], row[3]) not in RIGHT[command] or (row[2] in ("success", "failure") and row[4] != "t")]

    def waiting(self):
        """How many durable calls and messages in an inbox go by the wall clock."""
        query = "SELECT (SELECT count(*) FROM rinq_durable_calls) + (SELECT waiting FROM rinq_inbox_status)"
        return int(self.sender.value(query)) + int(self.receiver.value(query))

    def missing(self):
        """How many messages that must arrive are still to come, those in the outbox included."""
        self.read_committed()
        depth = int(self.sender.value("SELECT depth + waiting FROM rinq_outbox_status"))
        waiting = int(self.sender.value("SELECT waiting FROM rinq_inbox_status"))
        return depth + waiting + len(self.kept_missing) + sum(len(account.missing()) for account in self.accounts.values() if account.at_least_once)

    def outbox_size(self):
        return int(self.sender.value("SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relname ~ '^outbox_[0-3]$'"))

    def problems(self):
        found = [problem for part in list(self.accounts.values()) + [self.calls_out, self.calls_in] for problem in part.problems()]
        for name, database in (("retried", self.receiver), ("once", self.receiver), ("news, kept", self.sender)):
            both = self.accounts[name].set_aside & set(self.accounts[name].arrived)
            if both:
                found.append("%s: %d were handled and set aside, such as %s" % (name, len(both), sorted(both)[0]))
            waiting = database.value("SELECT count(*) FROM rinq_inbox_waiting")
            if waiting != "0":
                found.append("%s: %s still wait" % (name, waiting))
        if self.kept_missing:
            found.append("news, kept: %d were kept and are lost, such as %s" % (len(self.kept_missing), sorted(self.kept_missing)[0]))
        strange = self.accounts["news, kept"].set_aside - self.accounts["news, kept"].committed
        if strange:
            found.append("news, kept: %d were set aside that were never committed" % len(strange))
        again = self.sender.value("SELECT count(*) FROM (SELECT FROM kept JOIN seen_waiting USING (n) GROUP BY n HAVING count(*) > 1) x")
        if again != "0":
            found.append("news, kept: %s were handled more than once although they were kept" % again)
        unfit = self.sender.value("SELECT count(*) FROM kept WHERE n % 10 = 0 OR attempt <= n % 3")
        if unfit != "0":
            found.append("news, kept: %s have effects of attempts that have failed" % unfit)
        unknown = sum(count for (account, _), count in self.outcomes.items() if account is None)
        if unknown:
            found.append("asked: %d outcomes of calls that were not committed" % unknown)
        calls = self.sender.sql("SELECT state, count(*) FROM rinq_durable_calls GROUP BY 1")
        if calls:
            found.append("asked: calls are left: %s" % calls)
        if self.keys_used_twice:
            found.append("keyed: %d keys were used for several messages, such as %s" % (len(self.keys_used_twice), self.keys_used_twice[0]))
        return found

    def lines(self):
        outcomes = ", ".join("%s %s %d" % (account, outcome, count) for (account, outcome), count in sorted(self.outcomes.items(), key=str))
        again = sum(count - 1 for count in self.asked.values())
        return [part.line() for part in list(self.accounts.values()) + [self.calls_out, self.calls_in]] + [
            "outcomes of durable calls: %s" % outcomes, "asked again: %d; attempts of handlers: %s" % (again, self.sender.value("SELECT last_value FROM handler_attempt"))]
