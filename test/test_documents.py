"""What the documents show of SQL, run as it stands there; first session, cookbook and setting up have suites of their own."""

import glob
import os

from rinqtest import case
from rinqtest.document import TOP, run_session, statements
from rinqtest.waiting import wait_until

ELSEWHERE = ("docs/cookbook.md", "docs/first-session.md", "docs/setup.md")
ON_ORDER = "CREATE FUNCTION on_order(rinq_notification) RETURNS void LANGUAGE sql AS '';"
HANDLERS = "".join("CREATE FUNCTION %s(rinq_request) RETURNS jsonb LANGUAGE sql AS 'SELECT $1.payload';\n" % name
                   for name in ("report", "stock", "ship", "book", "catalogue"))
ROLES = ("app", "worker", "alice", "bob", "team_a")
VHOST = "documents"

# what the readers of a document have already
GIVEN = {
    "README.md": "CREATE ROLE app; CREATE ROLE worker;",
    "docs/brokers.md": "",
    "docs/cbor.md": "",
    "docs/connection.md": "",
    "docs/delivery.md": HANDLERS + ON_ORDER,
    "docs/durable-calls.md": "CREATE FUNCTION stock_reserved(rinq_response) RETURNS void LANGUAGE sql AS '';",
    "docs/notifications.md": "CREATE TABLE orders (id int, status text, tenant text);"
                             + ON_ORDER +
                             "SELECT rinq_session_create() AS session \\gset",
    "docs/operations.md": HANDLERS + "CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN; CREATE ROLE worker LOGIN;"
                          "GRANT EXECUTE ON FUNCTION rinq_listen TO alice, worker;"
                          "SET ROLE alice; SELECT rinq_listen('stock', 'stock(rinq_request)'); RESET ROLE;"
                          "SET ROLE worker; SELECT rinq_listen('report', 'report(rinq_request)'); RESET ROLE;",
    "docs/servers.md": "CREATE ROLE app; CREATE ROLE team_a;",
    "docs/sessions.md": "CREATE TABLE orders (id int, tenant text);",
    "docs/settings.md": "",
    "docs/sql.md": HANDLERS + "CREATE ROLE app; CREATE TABLE orders (id int);"
                   "CREATE TABLE items (item text); INSERT INTO items VALUES ('apple'), ('pear');",
    "docs/standbys.md": HANDLERS,
}
# what they wait for does not come here
SHORTER = ("'30 s'", "'100 ms'")


class Documents(case.Case):
    """On a server and in a virtual host of their own, since they change settings, and send to namespaces that others use."""

    @classmethod
    def make_world(cls):
        broker = case.shared_world().broker
        broker.ctl("add_vhost", VHOST)
        broker.ctl("set_permissions", "--vhost", VHOST, broker.user, ".*", ".*", ".*")
        return case.new_world("documents", broker=broker, start_broker=False, proxied=False, settings={"rinq.amqp_dsn": "'%s'" % broker.dsn(vhost=VHOST)})

    @classmethod
    def tearDownClass(cls):
        cls.world.close()

    def forget(self, database):
        database.drop()
        for role in ROLES:
            self.server.psql("DROP ROLE IF EXISTS " + role)

    def show(self, name, extension=True, database=None, blocks=slice(None)):
        """Run what a document shows, in one connection; the database, and of each block its text and what it has shown."""
        db = self.world.database(database, extension=extension)
        self.addCleanup(self.forget, db)
        found = statements(name)[blocks]
        self.assertTrue(found, name)
        given, *shown = run_session(db, [GIVEN[name]] + [text.replace(*SHORTER) for _, text in found])
        for (line, text), lines in zip([(0, GIVEN[name]), *found], [given, *shown]):
            self.assertFalse([said for said in lines if "ERROR:" in said or "FATAL:" in said], "%s, line %d:\n%s" % (name, line, text))
        return db, [(text, lines) for (_, text), lines in zip(found, shown)]

    def serve(self, namespace, handler):
        remote = self.peer(vhost=VHOST)
        remote.serve(namespace, handler)

    def test_every_document_is_run(self):
        names = ["README.md"] + ["docs/" + os.path.basename(path) for path in glob.glob(os.path.join(TOP, "docs", "*.md"))]
        self.assertEqual(sorted(name for name in names if statements(name)), sorted([*GIVEN, *ELSEWHERE]))

    def test_readme(self):
        _, ((_, shown), *_) = self.show("README.md", extension=False)
        self.assertNotIn("error", " ".join(shown))
        self.assertNotIn("warning", " ".join(shown))

    def test_what_comes_back_is_as_the_comment_says(self):
        for name in ("docs/cbor.md", "docs/sql.md"):
            self.serve("greeter", lambda request: {"greeting": "Hello, %s!" % request.payload["name"]})
            db = self.database()
            text = statements(name)[0][1]
            said = [line.partition("-- ") for line in text.splitlines() if "-- " in line]
            self.assertTrue(said)
            for statement, _, expected in said:
                self.assertEqual(db.value(statement.strip().rstrip(";")), expected, statement)

    def test_brokers(self):
        self.show("docs/brokers.md")
        self.server.psql("ALTER SYSTEM RESET rinq.handler_timeout")

    def test_connection(self):
        db, ((_, shown),) = self.show("docs/connection.md")
        self.assertIn("connected", " ".join(shown))

    def test_cbor(self):
        self.show("docs/cbor.md")

    def test_delivery(self):
        self.show("docs/delivery.md")

    def test_durable_calls(self):
        self.show("docs/durable-calls.md")

    def test_notifications(self):
        db, _ = self.show("docs/notifications.md")
        sent = int(db.peer()["messages_sent"])
        db.sql("INSERT INTO orders VALUES (7, 'new', 'acme')")
        wait_until(lambda: int(db.peer()["messages_sent"]), lambda count: count > sent, description="the trigger's notification")

    def test_operations(self):
        db, _ = self.show("docs/operations.md")
        self.assertEqual(db.sql("SELECT namespace, role FROM rinq_listeners ORDER BY 1"), [["report", "worker"], ["stock", "bob"]])

    def test_servers(self):
        self.show("docs/servers.md", blocks=slice(0, 3))

    def test_servers_of_two_teams(self):
        self.show("docs/servers.md", extension=False, blocks=slice(3, None))

    def test_sessions(self):
        self.serve("orders", lambda request: [])
        self.show("docs/sessions.md")

    def test_settings(self):
        self.show("docs/settings.md")

    def test_sql(self):
        self.serve("greeter", lambda request: {"greeting": "Hello, %s!" % request.payload["name"]})
        self.serve("pricing", lambda request: len(request.payload))
        db, shown = self.show("docs/sql.md", database="shop")
        self.server.psql("ALTER SYSTEM RESET rinq.handler_timeout")
        quotes = [lines for text, lines in shown if "AS quote" in text or "a.payload" in text]
        self.assertEqual(len(quotes), 2)
        for lines in quotes:
            self.assertIn("5", " ".join(lines))
        self.assertEqual(db.value("SELECT try_call('greeter', 'greet', '{\"name\": \"Ada\"}')"), 'answer: {"greeting": "Hello, Ada!"}')
        self.assertTrue(db.value("SELECT try_call('greeter', 'greet', '{}')").startswith("error over there"))
        db.sql("INSERT INTO orders VALUES (7)")

    def test_standbys(self):
        self.show("docs/standbys.md")
