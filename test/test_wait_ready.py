"""rinq_wait_ready: what is committed is served when it returns, and what is missing is named when it does not."""

from rinqtest import case
from rinqtest.cluster import Database
from rinqtest.waiting import wait_until


class Ready(case.PeerCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db.handler("nothing", "RETURN NULL;")

    def consumed(self, namespace):
        """The broker has confirmed that the queue is consumed."""
        return self.recording.events("basic.consume-ok", since=self.wire_start, consumer_tag="cmd." + namespace)

    def subscribe(self, name, namespace):
        self.db.sql("SELECT rinq_subscribe('%s', '%s', 'hear(rinq_notification)')" % (name, namespace))

    def on_channel(self, function):
        with self.world.broker.connect() as connection:
            return function(connection.channel())

    def test_right_after_create_extension(self):
        db = self.database(extension=False)
        db.sql("CREATE EXTENSION rinq")
        db.sql("SELECT rinq_wait_ready()")
        self.assertEqual(db.peer()["state"], "connected")

    def test_listeners_are_consumed_when_it_returns(self):
        for number in range(5):
            namespace = "ready%d.%s" % (number, self.db.name)
            self.db.listen(namespace, "nothing")
            self.db.sql("SELECT rinq_wait_ready()")
            self.assertTrue(self.consumed(namespace), namespace)

    def test_subscriptions_hear_when_it_returns(self):
        self.db.sql("CREATE TABLE heard (payload jsonb)")
        self.db.sql("CREATE FUNCTION hear(n rinq_notification) RETURNS void LANGUAGE sql AS 'INSERT INTO heard VALUES (n.payload)'")
        for number in range(5):
            self.subscribe("s%d" % number, "ready%d" % number)
            self.db.sql("SELECT rinq_wait_ready()")
            self.remote.notify_many("ready%d" % number, "x", {"o": "*"}, number)
        wait_until(lambda: self.db.value("SELECT count(*) FROM heard"), lambda count: count == "5", description="all notifications")

    def test_what_is_missing_is_named(self):
        namespaces = ["odd%d.%s" % (number, self.db.name) for number in range(12)]
        for namespace in namespaces:
            self.on_channel(lambda channel, name="cmd." + namespace: channel.queue_declare(name, durable=True))
        self.db.sql("SELECT rinq_listen('fine.' || current_database(), 'nothing(rinq_request)')")
        self.db.sql("SELECT rinq_listen(n, 'nothing(rinq_request)') FROM unnest('{%s}'::text[]) n" % ",".join(namespaces))
        error = self.db.error("SELECT rinq_wait_ready('700 ms')")
        self.assertSqlState(error, "08001", "the rinq peer of this database is not ready")
        self.assertIn('listeners to "odd0.', error.text)
        self.assertIn("and 2 more", error.text)
        self.assertNotIn("fine.", error.text)
        self.db.sql("SELECT rinq_unlisten(n) FROM unnest('{%s}'::text[]) n" % ",".join(namespaces[1:]))
        self.on_channel(lambda channel: [channel.queue_delete("cmd." + name) for name in namespaces])
        self.db.sql("SELECT rinq_wait_ready('20 s')")
        self.assertTrue(self.consumed(namespaces[0]))

    def test_broker_out_of_reach(self):
        self.world.proxy.refuse()
        self.world.proxy.cut()
        waiting = self.db.start("SELECT rinq_wait_ready('30 s')")
        error = self.db.error("SELECT rinq_wait_ready('300 ms')")
        self.assertSqlState(error, "08001")
        self.assertIn("connection to the broker", error.text)
        self.world.proxy.resume()
        waiting.result(40)

    def test_what_waiting_does_not_mend_is_said_at_once(self):
        self.db.sql("SELECT rinq_stop()")
        error = self.db.error("SELECT rinq_wait_ready('1 h')")
        self.assertSqlState(error, "55000", "was stopped")
        self.db.sql("SELECT rinq_start()")
        self.db.sql("SELECT rinq_wait_ready()")
        copy = Database(self.server, self.db.name + "_copy")
        self.addCleanup(copy.drop)
        self.server.psql('CREATE DATABASE "%s" TEMPLATE "%s"' % (copy.name, self.db.name))
        self.assertSqlState(copy.error("SELECT rinq_wait_ready('1 h')"), "55000", "suspended")
        copy.sql("SELECT rinq_adopt()")
        copy.sql("SELECT rinq_wait_ready()")

    def test_what_is_not_committed_cannot_be_waited_for(self):
        listen = "SELECT rinq_listen('early', 'nothing(rinq_request)'); "
        self.assertSqlState(self.db.error("BEGIN; " + listen + "SELECT rinq_wait_ready()"), "25001", "has not committed")
        self.db.sql("BEGIN; " + listen + "ROLLBACK; SELECT rinq_wait_ready()")

    def test_arguments_and_privileges(self):
        self.assertSqlState(self.db.error("SELECT rinq_wait_ready(NULL)"), "22004")
        self.assertSqlState(self.db.error("SELECT rinq_wait_ready('0')"), "22023")
        role = self.db.role("waiter_" + self.db.name)
        self.addCleanup(self.server.psql, "DROP ROLE " + role)
        self.addCleanup(self.db.sql, "DROP OWNED BY " + role)
        self.assertSqlState(self.db.error("SELECT rinq_wait_ready()", role), "42501")
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_wait_ready TO " + role)
        self.db.sql("BEGIN READ ONLY; SELECT rinq_wait_ready()", role)

    def test_it_holds_no_lock_and_can_be_cancelled(self):
        self.on_channel(lambda channel: channel.queue_declare("cmd.held." + self.db.name, durable=True))
        self.db.listen("held." + self.db.name, "nothing")
        self.addCleanup(self.db.sql, "SELECT rinq_unlisten('held.%s')" % self.db.name)
        waiting = self.db.start("SELECT rinq_wait_ready('1 min')")
        pid = waiting.backend()
        wait_until(lambda: self.db.value("SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s" % pid), lambda kind: kind == "Extension")
        self.assertEqual(self.db.sql("SELECT relation::regclass FROM pg_locks WHERE pid = %s AND locktype <> 'virtualxid'" % pid), [])
        self.db.sql("SELECT pg_cancel_backend(%s)" % pid)
        self.assertSqlState(waiting.error(), "57014")
