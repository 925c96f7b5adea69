"""The recipes of docs/cookbook.md, run as they stand there; and the example peer, against the extension, in both directions."""

import json
import os
import subprocess

import cbor2

from rinqtest import case
from rinqtest.document import EXAMPLES, Program, all_blocks, blocks, only, read, run_session, run_sql, tidy
from rinqtest.peer import Failure
from rinqtest.scratch import free_port
from rinqtest.waiting import wait_until

COOKBOOK = "docs/cookbook.md"


class DocumentCase(case.Case):
    def setUp(self):
        super().setUp()
        self.url = self.world.broker.dsn()

    def program(self, text):
        program = Program.of_text(self.world.scratch, text, self.url)
        self.addCleanup(program.close)
        return program

    def database_without_roles(self, *roles, name=None):
        """A database for a recipe that makes roles."""
        database = self.world.database(name)
        self.addCleanup(lambda: [self.server.psql("DROP ROLE IF EXISTS " + role) for role in roles])
        self.addCleanup(database.drop)
        return database


class Recipes(DocumentCase):
    def test_call_a_service_with_a_fallback(self):
        db = self.database()
        create, select = only(COOKBOOK, "Call a service with a fallback", "sql")
        expected, = only(COOKBOOK, "Call a service with a fallback", "text")
        run_sql(db, create)
        self.assertEqual(tidy(run_sql(db, select)[0]), tidy(expected))

        def price(request):
            if request.payload["item"] == "nothing":
                raise Failure("unknown-item")
            if request.payload["item"] == "broken":
                raise RuntimeError("the service is broken")
            return {"price": 0.3}
        remote = self.peer()
        remote.serve("pricing", price)
        self.assertEqual(db.value("SELECT price('apple')"), "0.3")
        self.assertIsNone(db.value("SELECT price('nothing')"))
        self.assertIsNone(db.value("SELECT price('broken')"))
        remote.unserve("pricing")
        self.assertEqual(db.value("SELECT price('apple')"), "0.3")
        db.sql("SELECT rinq_stop()")
        self.assertEqual(db.value("SELECT price('apple')"), "0.3")

    def test_serve_a_table(self):
        title = "Serve a table to other languages, each tenant its rows"
        db = self.database_without_roles("orders_api")
        serve, = only(COOKBOOK, title, "sql")
        client, = only(COOKBOOK, title, "python")
        expected, = only(COOKBOOK, title, "text")
        run_sql(db, serve)
        self.assertEqual(self.program(client).wait_shown(tidy(expected)), tidy(expected))
        other = self.program(client.replace('"acme"', '"other"')).wait_shown([1, 2])
        self.assertEqual(other, ["{'id': 2}", "[{'id': 2, 'item': 'apple', 'quantity': 2}]"])
        nobody = self.program('from python_peer import Peer\npeer = Peer(URL, {})\nprint(peer.call("orders", "list"))\n').wait_shown([1])
        self.assertEqual(nobody, ["[]"])
        self.assertEqual(db.sql("SELECT tenant, count(*) FROM orders GROUP BY 1 ORDER BY 1"), [["acme", "1"], ["other", "1"]])

    def test_announce_row_changes(self):
        title = "Announce row changes to sessions"
        db = self.database()
        table, subscription, update = only(COOKBOOK, title, "sql")
        client, = only(COOKBOOK, title, "python")
        expected, = only(COOKBOOK, title, "text")
        run_sql(db, table)
        program = self.program(client).wait_ready()
        run_sql(db, subscription)
        run_sql(db, update)
        self.assertEqual(program.wait_shown(tidy(expected)), tidy(expected))
        wait_until(lambda: db.sql("SELECT * FROM heard"), lambda rows: rows == [["changed", '{"id": 7, "status": "shipped"}']], description="the subscription")

    def test_hand_work_to_a_service(self):
        title = "Hand work to a service with the outbox"
        db = self.database()
        work, watch = only(COOKBOOK, title, "sql")
        service, = only(COOKBOOK, title, "python")
        expected, = only(COOKBOOK, title, "text")
        run_sql(db, work)
        self.assertEqual(self.program(service).wait_shown(tidy(expected)), tidy(expected))
        wait_until(lambda: db.value("SELECT depth FROM rinq_outbox_status"), lambda depth: depth == "0", description="an empty outbox")
        run_sql(db, watch)

    def test_fan_out_and_gather(self):
        title = "Fan out and gather"
        db = self.database()
        create, select = only(COOKBOOK, title, "sql")
        service, = only(COOKBOOK, title, "python")
        expected, = only(COOKBOOK, title, "text")
        run_sql(db, create)
        self.program(service).wait_ready()
        self.assertEqual(tidy(run_sql(db, select)[0]), tidy(expected))

    def start_pgbouncer(self, configuration):
        """As the recipe has it, but for the addresses and the password."""
        scratch, port = self.world.scratch, free_port()
        folder = scratch.make_folder("pgbouncer", owned=True)
        for old, new in (("host=127.0.0.1 port=5432", "host=%s port=%d" % (self.server.socket_folder, self.server.port)), ("6432", str(port)),
                         ("scram-sha-256", "trust"), ("/etc/pgbouncer/userlist.txt", os.path.join(folder, "users"))):
            self.assertIn(old, configuration)
            configuration = configuration.replace(old, new)
        for name, text in (("users", '"postgres" ""\n'), ("ini", configuration + "unix_socket_dir =\n")):
            with open(os.path.join(folder, name), "w") as file:
                file.write(text)
        program = "/usr/sbin/pgbouncer" if os.access("/usr/sbin/pgbouncer", os.X_OK) else "pgbouncer"
        process = scratch.spawn([program, os.path.join(folder, "ini")], unprivileged=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(lambda: (process.kill(), process.wait(), scratch.forget(process)))
        return port

    def test_behind_pgbouncer(self):
        title = "Run behind PgBouncer in transaction mode"
        db = self.database_without_roles(name="shop")
        serve, call = only(COOKBOOK, title, "sql")
        expected, = only(COOKBOOK, title, "text")
        configuration, = only(COOKBOOK, title, "ini")
        port = self.start_pgbouncer(configuration)

        def through(text):
            try:
                return tidy(run_sql(db, text, host="127.0.0.1", port=port)[0])
            except AssertionError as error:
                if "Connection refused" not in str(error):
                    raise
                return None
        wait_until(lambda: through("SELECT 1"), lambda shown: shown is not None, description="PgBouncer to answer")
        run_sql(db, serve, host="127.0.0.1", port=port)
        self.assertEqual(through(call), tidy(expected))
        script = self.world.scratch.path("clients.sql")
        with open(script, "w") as file:
            file.write("SELECT 1 / (rinq_call('echo', 'say', to_jsonb(:client_id)) = to_jsonb(:client_id))::int;\n"
                       "SELECT 1 / (current_setting('rinq.default_timeout') = '5s')::int;\n"
                       "SET rinq.default_timeout = '4321 ms';\n")
        clients = subprocess.run([self.server.tool("pgbench"), "-n", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-c", "40", "-j", "2", "-t", "3",
                                  "-f", script, db.name], capture_output=True, text=True, timeout=60, cwd="/", env=self.server.base_environment())
        self.assertEqual(clients.returncode, 0, clients.stderr)
        self.assertIn("120/120", clients.stdout)
        self.assertLessEqual(int(db.value("SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop' AND backend_type = 'client backend'"
                                          " AND pid <> pg_backend_pid()")), 3)

    def test_all_of_them_are_run(self):
        titles = [line[3:] for line in read(COOKBOOK).splitlines() if line.startswith("## ")]
        self.assertEqual(len(titles), 6)
        for title in titles:
            self.assertTrue(blocks(COOKBOOK, title), title)
            self.assertIn("](#%s)" % title.lower().replace(",", "").replace(" ", "-"), read(COOKBOOK))


class FirstSession(DocumentCase):
    """docs/first-session.md, in one connection: each block of text is what the statements before it show."""

    def test_it_is_as_told(self):
        db = self.database()
        self.peer().serve("greeter", lambda request: {"greeting": "Hello, %s!" % request.payload["name"]})
        parts = all_blocks("docs/first-session.md")
        statements = [(text, tidy(after) if kind == "text" else None) for (language, text), (kind, after) in zip(parts, parts[1:] + [("", "")])
                      if language == "sql"]
        shown = run_session(db, [text for text, _ in statements[:-1]])
        for (text, expected), output in zip(statements, shown):
            if expected is not None:
                self.assertEqual(output, expected, text)
        wait_until(lambda: db.value("SELECT count(*) FROM heard"), lambda count: count == "1", description="the notification")
        text, expected = statements[-1]
        self.assertEqual(run_session(db, [text])[0], expected)


class ExamplePeer(DocumentCase):
    """examples/python_peer.py beside the extension."""

    def test_both_directions(self):
        db = self.database()
        db.handler("math", "RETURN to_jsonb((req.payload->>'Left')::int + (req.payload->>'Right')::int);")
        db.listen("math", "math")
        db.sql("CREATE TABLE heard (type text, payload jsonb)")
        db.sql("CREATE FUNCTION hear(n rinq_notification) RETURNS void LANGUAGE sql AS 'INSERT INTO heard VALUES (n.type, n.payload)'")
        db.sql("SELECT rinq_subscribe('news', 'news', 'hear(rinq_notification)')")
        db.sql("SELECT rinq_wait_ready()")
        program = Program([os.path.join(EXAMPLES, "python_peer.py"), self.url])
        self.addCleanup(program.close)
        session = program.wait_shown([1, 2])[0].split()[1]
        self.assertEqual(program.shown()[1], "math::add answers: 3")
        wait_until(lambda: db.sql("SELECT * FROM heard"), lambda rows: rows == [["flash", '{"text": "a peer is here"}']], description="its notification")
        self.assertEqual(db.call("greeter", "greet", {"name": "Ada"}, timeout=10), {"greeting": "Hello, Ada!"})
        failed = db.json("SELECT to_jsonb(m) FROM rinq_call_many('greeter', 'shout', '{1}', '10 s') m")
        self.assertEqual((failed["type"], failed["message"], failed["payload"]), ("unknown-command", "a greeter only greets", {"command": "shout"}))
        wrong = db.error("SELECT rinq_call('greeter', 'greet', '{}', '10 s')")
        self.assertSqlState(wrong, "RQ002")
        self.assertEqual(db.value("SELECT rinq_session_get('%s', 'orders', 'tenant')" % session), "acme")
        asynchronous = "SELECT rinq_await(unnest(ARRAY(SELECT rinq_call_async('greeter', 'greet', '{\"name\": \"Eve\"}', '10 s'))))"
        self.assertEqual(db.json(asynchronous), {"greeting": "Hello, Eve!"})
        for number, notify in enumerate(("rinq_notify('orders', 'one', '%s', '1')" % session, "rinq_notify_many('orders', 'many', '{tenant=other}', '2')",
                                         "rinq_notify_many('orders', 'many', '{tenant=acme, ! tenant=x, {a=b|tenant=acme}}', '3')",
                                         "rinq_notify_many('orders', 'many', 'orders::{tenant!=other}', '4')",
                                         "rinq_notify_many('orders', 'last', '{*}')")):
            db.sql("SELECT " + notify)
        program.wait(lambda lines: "notified: last None" in lines, "the last notification")
        self.assertEqual(program.shown()[2:], ["notified: one 1", "notified: many 3", "notified: many 4", "notified: last None"])
        wait_until(lambda: db.peer()["requests_rejected"], lambda count: count == 0, description="nothing to be rejected")
        self.assertEqual(db.peer()["notifications_rejected"], 0)


class Protocol(case.unittest.TestCase):
    def test_bytes_are_what_is_said(self):
        """In docs/protocol.md, a map that bytes follow is what these bytes say."""
        lines = read("docs/protocol.md").splitlines()
        found = 0
        for said, written in zip(lines, lines[1:]):
            if said.startswith("    {") and written.startswith("    a"):
                self.assertEqual(cbor2.loads(bytes.fromhex(written)), json.loads(said))
                found += 1
        self.assertEqual(found, 2)
