"""docs/setup.md, run as it stands there: the broker's permissions, roles, deployments, errors, and what is left after the extension."""

import re

import pika

from rinqtest import case
from rinqtest.document import commands, only, run_sql, tidy
from rinqtest.peer import Failure
from rinqtest.waiting import wait_until

SETUP = "docs/setup.md"


class LeastPermissions(case.Case):
    """A server whose user of the broker has the permissions of the document, and no others."""

    @classmethod
    def make_world(cls):
        cls.broker = case.shared_world().broker
        cls.allow, cls.narrow = only(SETUP, "The broker", "sh")
        for arguments in commands(cls.allow, "rabbitmqctl"):
            cls.broker.ctl(*arguments)
        cls.broker.ctl("set_permissions", "--vhost", "rinq", cls.broker.user, ".*", ".*", ".*")
        dsn = "'amqp://shop:a%%20long%%20password@127.0.0.1:%d/rinq'" % cls.broker.port
        return case.new_world("least", broker=cls.broker, start_broker=False, settings={"rinq.amqp_dsn": dsn}, proxied=False)

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.remote = cls.world.peer(vhost="rinq")

    @classmethod
    def tearDownClass(cls):
        cls.remote.close()
        cls.world.close()

    def tearDown(self):
        super().tearDown()
        self.assertNoSecret(self.server.log_since(self.log_start), "a long password")

    def queue_exists(self, name):
        with self.broker.connect("rinq") as connection:
            try:
                connection.channel().queue_declare(name, passive=True)
            except pika.exceptions.ChannelClosedByBroker as error:
                self.assertEqual(error.reply_code, 404)
                return False
            return True

    def test_everything_works_with_them_and_no_more_with_fewer(self):
        db, remote = self.db, self.remote
        remote.serve("orders", lambda request: request.payload)
        db.handler("stock_handler", "RETURN req.payload;")
        db.sql("CREATE TABLE heard (payload jsonb)")
        db.sql("CREATE FUNCTION hear(n rinq_notification) RETURNS void LANGUAGE sql AS 'INSERT INTO heard VALUES (n.payload)'")
        db.sql("SELECT rinq_subscribe('x', 'news', 'hear(rinq_notification)')")
        run_sql(db, only(SETUP, "Deployments", "sql")[0])
        self.assertEqual(db.call("orders", "x", 1, timeout=10), 1)
        self.assertEqual(remote.call("stock", "x", 2, timeout=10), 2)
        db.sql("SELECT rinq_execute('orders', 'y')")
        remote.wait_requests(2)
        session = remote.new_session()
        remote.listen_notifications("news", session)
        db.sql("SELECT rinq_notify('news', 'one', '%s', '3')" % remote.session_id(session))
        self.assertEqual(remote.notifications(session)[0].payload, 3)
        remote.notify_many("news", "many", {"o": "*"}, 4)
        wait_until(lambda: db.value("SELECT count(*) FROM heard"), lambda count: count == "1", description="the notification")

        for arguments in commands(self.narrow, "rabbitmqctl"):
            self.broker.ctl(*arguments)
        old = db.peer()
        db.sql("SELECT pg_terminate_backend(pid) FROM rinq_peer")
        db.wait_new_peer(old)
        self.assertEqual(db.call("orders", "x", 5, timeout=10), 5)
        self.assertSqlState(db.error("SELECT rinq_call('elsewhere', 'x')"), "55000")
        error = db.error("SELECT rinq_wait_ready('200 ms')")
        self.assertIn('"stock"', error.text)

        db.sql("DROP EXTENSION rinq CASCADE")
        list_queues, delete = commands(only(SETUP, "Removing it", "sh")[0], "rabbitmqctl")
        self.assertRegex(self.broker.ctl(*list_queues), r"cmd\.stock\s+0\s+0")
        self.broker.ctl(*delete)
        self.assertFalse(self.queue_exists("cmd.stock"))
        self.assertTrue(self.queue_exists("cmd.orders"))


class Setup(case.Case):
    def roles(self, database, *roles):
        self.addCleanup(lambda: [self.server.psql("DROP ROLE IF EXISTS " + role) for role in roles])
        self.addCleanup(database.drop)

    def test_roles(self):
        db = self.world.database()
        self.roles(db, "shop_gateway", "shop_app", "shop_worker")
        run_sql(db, only(SETUP, "The server", "sql")[1])
        gateway, worker = only(SETUP, "Roles", "sql")
        run_sql(db, gateway)
        run_sql(db, worker)
        db.sql("SELECT rinq_wait_ready()")
        remote = self.peer()
        remote.serve("pricing", lambda request: {"price": 2.5})
        self.assertEqual(db.value("SELECT gateway.price('apple')", "shop_app"), "2.5")
        self.assertSqlState(db.error("SELECT rinq_call('pricing', 'price')", "shop_app"), "42501")
        self.assertSqlState(db.error("SELECT gateway.price('apple')", "shop_worker"), "42501")
        db.sql("INSERT INTO stock VALUES ('apple', 12)")
        self.assertEqual(remote.call("stock", "count", {"item": "apple"}, timeout=10), 12)
        self.assertSqlState(db.error("SELECT rinq_listen('more', 'stock_handler(rinq_request)')", "shop_worker"), "42501")
        self.assertEqual(db.sql("SELECT message FROM rinq_check()"), [])

    def test_catching_all_errors(self):
        db = self.database()
        create, select = only(SETUP, "Catching all errors", "sql")
        expected, = only(SETUP, "Catching all errors", "text")
        run_sql(db, create)
        self.assertEqual(tidy(run_sql(db, select)[0]), tidy(expected))

        def fail(request):
            raise Failure("no")

        def break_down(request):
            raise RuntimeError("no")
        remote = self.peer()
        remote.serve("failing", fail)
        remote.serve("broken", break_down)
        for namespace, caught in (("failing", "RQ: RQ001"), ("broken", "RQ: RQ002")):
            wait_until(lambda ns=namespace: db.value("SELECT tried('%s')" % ns), lambda value, c=caught: value == c, description=caught)
        self.world.proxy.refuse()
        self.world.proxy.cut()
        wait_until(lambda: db.value("SELECT tried('nobody')"), lambda value: value in ("08: 08001", "08: 08006"), description="class 08")
        self.world.proxy.resume()
        db.sql("SELECT rinq_stop()")
        self.assertEqual(db.value("SELECT tried('nobody')"), "not sent: 55000")

    def test_what_goes_with_the_extension(self):
        db = self.world.database()
        self.roles(db, "reader_of_" + db.name)
        db.sql("CREATE ROLE reader_of_%s LOGIN" % db.name)
        db.handler("serve", "RETURN NULL;")
        db.sql("CREATE TABLE rows (tenant text); INSERT INTO rows VALUES ('acme'); ALTER TABLE rows ENABLE ROW LEVEL SECURITY;"
               "CREATE POLICY tenants ON rows USING (tenant = rinq_source_attribute('auth', 'tenant')); GRANT SELECT ON rows TO PUBLIC;"
               "CREATE TRIGGER tell AFTER INSERT ON rows FOR EACH ROW EXECUTE FUNCTION rinq_notify_trigger('rows', 'new', '{*}');"
               "CREATE FUNCTION caller() RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RETURN rinq_call(''x'', ''y''); END'")
        db.sql("SELECT rinq_stop()")
        db.sql("SELECT rinq_execute('nowhere', 'x') FROM generate_series(1, 2)")
        error = db.error("DROP EXTENSION rinq")
        self.assertSqlState(error, "2BP01")
        for dependent in ("function serve", "policy tenants", "trigger tell"):
            self.assertIn(dependent, error.text)
        drop, = only(SETUP, "Removing it", "sql")
        said = run_sql(db, drop)[1]
        self.assertIn("2 durable messages have not been sent, and are dropped with rinq", said)
        self.assertEqual(db.value("SELECT count(*) FROM pg_extension WHERE extname = 'rinq'"), "1")
        said = run_sql(db, "DROP EXTENSION rinq CASCADE;")[1]
        self.assertTrue(re.search("drop cascades to", said), said)
        self.assertEqual(db.value("SELECT count(*) FROM rows", "reader_of_" + db.name), "0")
        self.assertSqlState(db.error("SELECT caller()"), "42883")
        self.assertEqual(db.value("SELECT count(*) FROM pg_namespace WHERE nspname = 'rinq_internal'"), "0")
