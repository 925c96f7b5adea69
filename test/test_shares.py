"""Executors are shared: no namespace, kind of work or role takes all of them for long."""

from rinqtest import case
from rinqtest.server import quote
from rinqtest.waiting import wait_until


class Shares(case.PeerCase):
    """Four executors, the default; what is slow takes long enough for ten calls to time out behind all of it."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db.handler("fast", "RETURN '1';")
        cls.db.listen("fast", "fast")
        cls.db.sql("CREATE TABLE heard (at timestamptz DEFAULT clock_timestamp())")
        cls.db.sql("CREATE FUNCTION slow(n rinq_notification) RETURNS void LANGUAGE sql AS $$ SELECT pg_sleep(0.1); INSERT INTO heard DEFAULT VALUES $$")
        cls.db.sql("CREATE FUNCTION slow_response(r rinq_response) RETURNS void LANGUAGE sql AS $$ SELECT pg_sleep(0.1) $$")
        cls.db.handler("slow", "PERFORM pg_sleep(coalesce((req.payload->>'s')::float8, 0.1)); RETURN '1';")

    def calls(self, count=10, namespace="fast", timeout="2 s"):
        """Ten at a time; none may time out."""
        pending = [self.db.start("SELECT rinq_call(%s, 'x', timeout => %s)" % (quote(namespace), quote(timeout))) for _ in range(count)]
        for one in pending:
            self.assertEqual(one.result(30), [["1"]])

    def test_notifications(self):
        """300 subscriptions, and one notification to all."""
        self.db.sql("SELECT rinq_subscribe('s' || i, 'news', 'slow(rinq_notification)') FROM generate_series(1, 300) i")
        wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_subscriptions WHERE session IS NOT NULL"), lambda n: n == "300", timeout=30)
        self.db.sql("SELECT rinq_notify_many('news', 'x', '{*}')")
        wait_until(lambda: self.db.value("SELECT count(*) FROM heard"), lambda n: int(n) > 0)
        self.calls()
        self.assertLess(int(self.db.value("SELECT count(*) FROM heard")), 250, "the calls came while notifications waited")
        self.db.sql("SELECT rinq_unsubscribe('s' || i) FROM generate_series(1, 300) i")

    def test_long_notifications(self):
        """They leave one executor to requests, however long they take."""
        self.db.sql("CREATE FUNCTION long(n rinq_notification) RETURNS void LANGUAGE sql AS $$ SELECT pg_sleep(600) $$")
        self.db.sql("SELECT rinq_subscribe('l' || i, 'long', 'long(rinq_notification)') FROM generate_series(1, 10) i")
        wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_subscriptions WHERE session IS NOT NULL"), lambda n: n == "10", timeout=30)
        self.db.sql("SELECT rinq_notify_many('long', 'x', '{*}')")
        running = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rinq executor' AND datname = current_database() AND wait_event = 'PgSleep'"
        wait_until(lambda: self.db.value(running), lambda n: n == "3")
        self.calls()
        self.assertEqual(self.db.value(running), "3")
        self.db.sql("SELECT rinq_unsubscribe('l' || i) FROM generate_series(1, 10) i")
        wait_until(lambda: self.db.value("SELECT count(*) FROM rinq_sessions WHERE 'long' = ANY (listening)"), lambda n: n == "0")
        self.db.sql("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'rinq executor' AND datname = current_database()"
                    " AND wait_event = 'PgSleep'")

    def test_responses(self):
        session = self.db.value("SELECT rinq_session_create()")
        self.db.sql("SELECT rinq_session_on_response(%s, 'slow_response(rinq_response)')" % quote(session))
        self.db.sql("SELECT rinq_call_async('fast', 'x', session => %s) FROM generate_series(1, 100)" % quote(session))
        self.calls()
        running = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'rinq executor' AND datname = current_database() AND wait_event = 'PgSleep'"
        wait_until(lambda: self.db.value(running), lambda n: n == "0")

    def test_requests_of_another_namespace(self):
        self.db.listen("slow", "slow")
        pending = [self.remote.call_async("slow", "x") for _ in range(200)]
        wait_until(lambda: self.db.value("SELECT count(*) FROM pg_stat_activity WHERE query = 'rinq: slow::x' AND datname = current_database()"), lambda n: n == "4")
        self.calls()
        self.db.sql("SELECT rinq_unlisten('slow')")
        self.assertEqual(len(pending), 200)

    def test_roles(self):
        """A role with much to do leaves executors to others, one with little gets one at once."""
        self.db.role("busy")
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_listen, rinq_unlisten TO busy")
        self.db.handler("busy", "PERFORM pg_sleep(0.1); RETURN '1';", role="busy")
        self.db.listen("busy", "busy", role="busy")
        for _ in range(200):
            self.remote.call_async("busy", "x")
        wait_until(lambda: self.db.value("SELECT count(*) FROM pg_stat_activity WHERE query = 'rinq: busy::x' AND datname = current_database()"), lambda n: n == "4",
                   timeout=10)
        self.calls(20)
        self.db.sql("SELECT rinq_unlisten('busy')", role="busy")

    def test_order_and_limits_hold(self):
        """In one namespace with max_concurrent 1, in the order in which they came, whatever else there is."""
        self.db.sql("CREATE TABLE served (id serial, number int)")
        self.db.handler("one", "INSERT INTO served (number) VALUES ((req.payload)::int); RETURN '1';")
        self.db.sql("SELECT rinq_listen('one', 'one(rinq_request)', max_concurrent => 1); SELECT rinq_listen('slow', 'slow(rinq_request)')")
        for i in range(60):
            self.remote.call_async("slow", "x", {"s": 0.02})
            self.remote.call_async("one", "x", i)
        wait_until(lambda: self.db.value("SELECT count(*) FROM served"), lambda n: n == "60", timeout=30)
        self.assertEqual([int(row[0]) for row in self.db.sql("SELECT number FROM served ORDER BY id")], list(range(60)))
        self.db.sql("SELECT rinq_unlisten('one'), rinq_unlisten('slow')")
