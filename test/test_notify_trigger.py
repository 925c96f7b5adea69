"""rinq_notify_trigger: notifications about changes of tables."""

import cbor2

from rinqtest import case
from rinqtest.server import quote
from rinqtest.waiting import wait_until


class Trigger(case.PeerCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.target = "%s.%d" % (cls.remote.id, cls.remote.new_session())
        cls.other = "%s.%d" % (cls.remote.id, cls.remote.new_session())

    def setUp(self):
        super().setUp()
        self.db.sql("CREATE TABLE items (id int PRIMARY KEY, name text, session text)")

    def tearDown(self):
        self.db.sql("DROP TABLE IF EXISTS items")
        super().tearDown()

    def trigger(self, when, arguments, table="items"):
        self.db.sql("CREATE TRIGGER tell AFTER %s EXECUTE FUNCTION rinq_notify_trigger(%s)" % (when.replace("ON items", "ON " + table), arguments))

    def all_sent(self, exchange="ntf.mc"):
        """What was published, when everything that was committed before has been."""
        self.db.sql("SELECT rinq_notify_many('end', 'end', '{*}')")
        wait_until(lambda: self.recording.published("ntf.mc", self.wire_start), lambda got: any(m.routing_key == "end" for m in got))
        return [m for m in self.recording.published(exchange, self.wire_start) if m.routing_key != "end"]

    def sent(self, count, exchange="ntf.mc"):
        got = self.all_sent(exchange)
        self.assertEqual(len(got), count, [(m.routing_key, m.properties, m.body[:100]) for m in got])
        return got

    def bodies(self, count, exchange="ntf.mc"):
        return [cbor2.loads(m.body) for m in self.sent(count, exchange)]

    def test_rows(self):
        self.trigger("INSERT OR UPDATE OR DELETE ON items FOR EACH ROW", "'news', 'changed', '{tenant=acme}'")
        self.db.sql("INSERT INTO items VALUES (1, 'one', NULL)")
        self.db.sql("UPDATE items SET name = 'eins'")
        self.db.sql("DELETE FROM items")
        sent = self.sent(3)
        where = {"table": "items", "schema": "public"}
        one, eins = {"id": 1, "name": "one", "session": None}, {"id": 1, "name": "eins", "session": None}
        self.assertEqual([cbor2.loads(m.body) for m in sent], [dict(where, operation="INSERT", new=one), dict(where, operation="UPDATE", new=eins, old=one),
                                                               dict(where, operation="DELETE", old=eins)])
        for message in sent:
            self.assertConforms(message, "notify-many")
            self.assertEqual((message.routing_key, message.properties["type"], cbor2.loads(message.headers["c"].value)),
                             ("news", "changed", {"o": "=", "k": "tenant", "v": "acme"}))

    def test_the_payload_is_what_rinq_notify_sends(self):
        """The same bytes as for the jsonb value, keys in its order."""
        self.trigger("UPDATE ON items FOR EACH ROW", "'news', 'x', '{*}'")
        self.db.sql("INSERT INTO items VALUES (1, 'ä', 'x')")
        self.db.sql("UPDATE items SET id = 100000")
        body = self.sent(1)[0].body
        value = self.db.value("SELECT jsonb_build_object('table', 'items', 'schema', 'public', 'operation', 'UPDATE', 'new', to_jsonb(i),"
                              " 'old', to_jsonb(i) || '{\"id\": 1}') FROM items i")
        self.assertEqual(body.hex(), self.db.value("SELECT encode(rinq_to_cbor(%s), 'hex')" % quote(value)))

    def test_type_and_columns(self):
        self.trigger("INSERT OR UPDATE OR DELETE ON items FOR EACH ROW", "'news', '', '{*}', 'columns=name, id'")
        self.db.sql("INSERT INTO items VALUES (1, 'one', 'x'); UPDATE items SET id = 2; DELETE FROM items")
        self.assertEqual([m.properties["type"] for m in self.sent(3)], ["insert", "update", "delete"])
        self.assertEqual([body.get("new") for body in self.bodies(3)], [{"id": 1, "name": "one"}, {"id": 2, "name": "one"}, None])

    def test_column_names_the_session(self):
        self.trigger("INSERT OR DELETE ON items FOR EACH ROW", "'news', 'x', 'session', 'columns=id'")
        self.db.sql("INSERT INTO items VALUES (1, '', %s), (2, '', NULL), (3, '', %s)" % (quote(self.target), quote(self.other + "@3")))
        self.db.sql("DELETE FROM items WHERE id = 1")
        sent = self.sent(3, "ntf.uc")
        self.assertEqual([(m.headers["t"].value, cbor2.loads(m.body)["operation"]) for m in sent],
                         [(self.target, "INSERT"), (self.other, "INSERT"), (self.target, "DELETE")])
        for bad in ("nonsense", self.remote.id + ".0"):
            self.assertSqlState(self.db.error("INSERT INTO items VALUES (9, '', %s)" % quote(bad)), "22023")
        self.assertEqual(self.db.value("SELECT count(*) FROM items WHERE id = 9"), "0")

    def test_match(self):
        self.trigger("INSERT ON items FOR EACH ROW", "'news', 'x', '{!muted}', 'match=name,session', 'columns=id'")
        self.db.sql("INSERT INTO items VALUES (1, 'acme', NULL)")
        self.assertEqual(cbor2.loads(self.sent(1)[0].headers["c"].value),
                         {"o": "&", "t": [{"o": "=", "k": "muted"}, {"o": "=", "k": "name", "v": "acme"}, {"o": "=", "k": "session"}]})

    SETTINGS = ("SET TimeZone = 'Asia/Kathmandu'; SET DateStyle = 'German'; SET IntervalStyle = 'sql_standard'; SET extra_float_digits = -10;"
                " SET bytea_output = 'escape'; SET search_path = public, pg_temp; SET quote_all_identifiers = on; ")

    TYPED = (("boolean", "true", "true"), ("numeric(10,2)", "1.50", ("1.5", "1.50")), ("numeric(10,2)", "100", ("100", "100.00")), ("numeric", "0.000", ("0", "0.000")),
             ("int", "-7", "-7"), ("bigint", "9007199254740993", "9007199254740993"), ("float8", "0.1::float8 + 0.2::float8", "0.30000000000000004"),
             ("float4", "0.1", "0.1"), ("float8", "'Infinity'", "Infinity"), ("text", "'a b'", "a b"), ("text", "''", ""), ("text", "NULL", ""), ("char(4)", "'ab'", "ab  "),
             ("uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"), ("date", "'2024-02-01'", "2024-02-01"),
             ("timestamp", "'2024-02-01 10:00:00.5'", "2024-02-01T10:00:00.5"), ("timestamptz", "'2024-02-01 10:00:00+02'", "2024-02-01T08:00:00+00:00"),
             ("interval", "'1 day 2 hours'", "1 day 02:00:00"), ("bytea", "'\\xdead'", "\\xdead"), ("jsonb", "'\"x\"'", "x"), ("jsonb", "'null'", ""),
             ("json", "'{\"a\":   1}'", '{"a": 1}'), ("int[]", "'{1,2}'", "[1, 2]"), ("regclass", "'items'", "public.items"), ("regtype", "'int'", "integer"),
             ("daterange", "'[2024-02-01,2024-02-03)'", "[2024-02-01,2024-02-03)"),
             ("tstzrange", "'[2024-02-01 10:00+02,)'", '["2024-02-01 08:00:00+00",)'), ("point", "'(0.1,2)'", "(0.1,2)"))

    def test_match_compares_what_is_in_the_payload(self):
        """The same text whatever the session's settings, for the types that SQL has."""
        for number, (kind, value, expected) in enumerate(self.TYPED):
            self.db.sql("CREATE TABLE t%d (v %s)" % (number, kind))
            self.trigger("INSERT ON items FOR EACH ROW", "'typed', 't%d', '{*}', 'match=v'" % number, "t%d" % number)
        for settings in ("", self.SETTINGS):
            mark = self.recording.mark()
            with self.db.session() as connection:
                connection.execute(settings + "; ".join("INSERT INTO t%d VALUES (%s)" % (n, value) for n, (_, value, _) in enumerate(self.TYPED)))
                shown = connection.execute("SHOW DateStyle")
            self.assertEqual(shown[0][0].partition(",")[0], "German" if settings else "ISO", "the session keeps its settings")
            got = {m.properties["type"]: m for m in self.recording.wait_published("ntf.mc", len(self.TYPED), 10, since=mark, where=lambda m: m.routing_key == "typed")}
            for number, (kind, value, expected) in enumerate(self.TYPED):
                with self.subTest(type=kind, value=value, settings=settings):
                    constraint = cbor2.loads(got["t%d" % number].headers["c"].value)
                    terms = constraint["t"] if constraint["o"] == "|" else [constraint]
                    self.assertEqual(tuple(t.get("v", "") for t in terms), (expected,) if isinstance(expected, str) else expected)
                    sent = cbor2.loads(got["t%d" % number].body)["new"]["v"]
                    if isinstance(sent, str) and kind not in ("jsonb", "json"):
                        self.assertEqual(sent, terms[0].get("v", ""))
        self.db.sql("; ".join("DROP TABLE t%d" % number for number in range(len(self.TYPED))))

    def test_match_is_heard(self):
        """By sessions whose attributes were set as JSON, and in another namespace."""
        self.db.sql("CREATE TABLE priced (id int, active bool, price numeric(10,2), tenant text)")
        self.trigger("INSERT ON items FOR EACH ROW", "'news', 'x', '{*}', 'match=active, price, auth:tenant'", "priced")
        with self.db.session() as connection:
            heard = []
            for price in ("1.5", "1.50", "2"):
                session = connection.value("SELECT rinq_session_create()")
                connection.execute("SELECT rinq_session_update('%s', 'news', '{\"active\": true, \"price\": %s}'::jsonb),"
                                   " rinq_session_update('%s', 'auth', rinq_set('tenant', 'acme')), rinq_session_listen('%s', 'news')" % (session, price, session, session))
                heard.append(session)
            connection.execute("INSERT INTO priced VALUES (1, true, 1.50, 'acme'), (2, true, 1.50, 'other'), (3, false, 1.50, 'acme')")
            rows = [connection.execute("SELECT payload->'new'->>'id' FROM rinq_notifications('%s', '%s')" % (timeout, session))
                    for session, timeout in zip(heard, ("5 s", "5 s", "0"))]
            self.assertEqual(rows, [[["1"]], [["1"]], []])
        self.assertEqual(cbor2.loads(self.recording.published("ntf.mc", self.wire_start)[0].headers["c"].value)["t"][2],
                         {"o": "ns", "v": "auth", "t": [{"o": "=", "k": "tenant", "v": "acme"}]})
        self.db.sql("SELECT rinq_session_destroy(id) FROM rinq_sessions WHERE pid IS NULL; DROP TABLE priced")

    def test_names_fold_by_one_rule(self):
        self.db.sql('CREATE TABLE folded (id int, "Mixed, Case" text, "a:b" text, session text)')
        for arguments, key in (("'news', 'x', '{*}', 'columns=ID'", "id"), ("'news', 'x', '{*}', 'columns= \"Mixed, Case\" '", "Mixed, Case"),
                               ("'news', 'x', '{*}', 'columns=id,ID,\"id\"'", "id"), ("'news', 'x', '{*}', 'match=ID,Auth.Ns:\"a:b\"', 'columns=Id'", "id"),
                               ("'news', 'x', 'SESSION', 'columns=id'", "id"), ("'news', 'x', ' \"session\" ', 'columns=id'", "id")):
            with self.subTest(arguments=arguments):
                mark = self.recording.mark()
                self.trigger("INSERT ON items FOR EACH ROW", arguments, "folded")
                self.db.sql("INSERT INTO folded VALUES (1, 'm', 'c', %s)" % quote(self.target))
                exchange = "ntf.mc" if "{*}" in arguments else "ntf.uc"
                got = self.recording.wait_published(exchange, 1, 10, since=mark)[0]
                self.assertEqual(set(cbor2.loads(got.body)["new"]), {key})
                self.db.sql("DROP TRIGGER tell ON folded")
        for arguments in ("'news', 'x', '\"Session\"'", "'news', 'x', '{*}', 'columns=\"ID\"'", "'news', 'x', '{*}', 'match=\"ID\"'"):
            self.trigger("INSERT ON items FOR EACH ROW", arguments, "folded")
            self.assertSqlState(self.db.error("INSERT INTO folded VALUES (1)"), "42703")
            self.db.sql("DROP TRIGGER tell ON folded")
        for arguments in ("'news', 'x', '{*}', 'columns=\"id'", "'news', 'x', '{*}', 'columns=id,'", "'news', 'x', '{*}', 'match=:id'", "'news', 'x', '{*}', 'match=_x:id'",
                          "'news', 'x', '{*}', 'columns=id name'"):
            self.trigger("INSERT ON items FOR EACH ROW", arguments, "folded")
            self.assertSqlState(self.db.error("INSERT INTO folded VALUES (1)"), "22023")
            self.db.sql("DROP TRIGGER tell ON folded")
        self.db.sql("DROP TABLE folded")

    def test_errors_say_what_they_are_about(self):
        self.db.sql("CREATE SCHEMA \"Odd\"; CREATE TABLE \"Odd\".docs (id int, doc json, body text, session text)")
        trigger = "CREATE TRIGGER tell AFTER INSERT ON \"Odd\".docs %s EXECUTE FUNCTION rinq_notify_trigger(%s)"
        where = 'trigger "tell" on table "Odd".docs'
        insert = "INSERT INTO \"Odd\".docs VALUES (1, %s, %s, %s)"
        null = insert % ("'\"a\\u0000b\"'", "''", "NULL")
        rows, statement = "FOR EACH ROW", "REFERENCING NEW TABLE AS n FOR EACH STATEMENT"
        cases = ((rows, "'news', 'x', '{*}'", null, "22P05", ', column "doc"', "columns="), (statement, "'news', 'x', '{*}'", null, "22P05", ', column "doc"', "columns="),
                 (rows, "'news', 'x', '{*}', 'match=doc', 'columns=id'", null, "22P05", ', column "doc"', None),
                 (rows, "'news', 'x', 'session'", insert % ("'{}'", "''", "'nonsense'"), "22023", ', column "session"', None),
                 (rows, "'news', 'x', '{*}'", insert % ("'{}'", "repeat('x', 40000000)", "NULL"), "54000", "", "columns="),
                 (rows, "'news', 'x', '{*}', 'match=body', 'columns=id'", insert % ("'{}'", "repeat('x', 70000)", "NULL"), "54000", "", None),
                 (rows, "'news', 'x', '{*}', 'columns=gone'", insert % ("'{}'", "''", "NULL"), "42703", "", "renamed or dropped"),
                 (rows, "'news', 'x', 'tenant=acme'", insert % ("'{}'", "''", "NULL"), "42703", "", "{tenant=acme}"),
                 (rows, "'news', 'x', '{*}', 'nonsense'", insert % ("'{}'", "''", "NULL"), "22023", "", "Options"))
        for when, arguments, sql, state, column, hint in cases:
            with self.subTest(arguments=arguments, when=when):
                self.db.sql(trigger % (when, arguments))
                error = self.db.error(sql)
                self.assertSqlState(error, state)
                self.assertEqual(error.text.count(where), 1, error.text)
                self.assertIn(where + column + "\n", error.text)
                self.assertEqual(error.hint and hint in error.hint, hint and True, error.text)
                self.db.sql('DROP TRIGGER tell ON "Odd".docs')
        self.db.sql(trigger % (rows, "'news', 'x', '{*}', 'columns=body'") + '; ALTER TABLE "Odd".docs RENAME body TO contents')
        error = self.db.error(insert % ("'{}'", "''", "NULL"))
        self.assertSqlState(error, "42703", 'column "body" does not exist')
        self.assertIn("renamed or dropped", error.hint)
        self.db.sql('DROP SCHEMA "Odd" CASCADE')
        self.assertIn("in braces", self.db.error("SELECT rinq_notify_many('news', 'x', 'tenant=acme')").hint)

    def test_errors_of_encodings(self):
        """A character without a form in UTF-8 names its column."""
        latin = self.world.database(encoding="SQL_ASCII")
        try:
            latin.sql("CREATE TABLE items (id int, name text); CREATE TRIGGER tell AFTER INSERT ON items FOR EACH ROW"
                      " EXECUTE FUNCTION rinq_notify_trigger('news', 'x', '{*}')")
            error = latin.error("INSERT INTO items VALUES (1, E'a\\377')")
            self.assertSqlState(error, "22021")
            self.assertIn('trigger "tell" on table public.items, column "name"', error.text)
            self.assertIn("columns=", error.hint)
        finally:
            latin.drop()

    def test_statement(self):
        self.trigger("INSERT ON items REFERENCING NEW TABLE AS n FOR EACH STATEMENT", "'news', 'x', '{*}', 'columns=id'")
        self.db.sql("INSERT INTO items SELECT i, 'x', NULL FROM generate_series(1, 100) i")
        self.assertEqual(self.bodies(1), [{"operation": "INSERT", "table": "items", "schema": "public", "part": 1, "last": True,
                                           "new": [{"id": i} for i in range(1, 101)]}])

    def test_statement_with_both_versions(self):
        self.trigger("UPDATE ON items REFERENCING OLD TABLE AS o NEW TABLE AS n FOR EACH STATEMENT", "'news', 'x', '{*}', 'columns=id', 'chunk=1024'")
        self.db.sql("INSERT INTO items SELECT i, 'x', NULL FROM generate_series(1, 1000) i")
        self.db.sql("UPDATE items SET id = -id")
        self.db.sql("UPDATE items SET id = 0 WHERE name = 'none'")
        bodies = [cbor2.loads(m.body) for m in self.all_sent()]
        self.assertGreater(len(bodies), 5)
        self.assertEqual([b["part"] for b in bodies], list(range(1, len(bodies) + 1)))
        self.assertEqual([b["last"] for b in bodies], [False] * (len(bodies) - 1) + [True])
        pairs = [(old["id"], new["id"]) for b in bodies for old, new in zip(b["old"], b["new"], strict=True)]
        self.assertEqual(sorted(pairs), [(i, -i) for i in range(1, 1001)])
        self.assertTrue(all(len(cbor2.dumps(b["new"])) + len(cbor2.dumps(b["old"])) <= 1024 + 10 for b in bodies))

    def test_statement_by_session(self):
        """Neighbours with the same target share a message, and the order is that of the rows."""
        self.trigger("INSERT ON items REFERENCING NEW TABLE AS n FOR EACH STATEMENT", "'news', 'x', 'session', 'columns=id'")
        rows = [(1, self.target), (2, self.target), (3, None), (4, self.target), (5, self.other), (6, self.target)]
        self.db.sql("INSERT INTO items VALUES " + ", ".join("(%d, '', %s)" % (i, quote(s) if s else "NULL") for i, s in rows))
        sent = self.sent(3, "ntf.uc")
        self.assertEqual([(m.headers["t"].value, [row["id"] for row in cbor2.loads(m.body)["new"]]) for m in sent],
                         [(self.target, [1, 2, 4]), (self.other, [5]), (self.target, [6])])

    def test_statement_without_rows(self):
        self.trigger("INSERT OR TRUNCATE ON items FOR EACH STATEMENT", "'news', '', '{*}'")
        self.db.sql("INSERT INTO items VALUES (1); TRUNCATE items")
        self.assertEqual(self.bodies(2), [{"operation": name, "table": "items", "schema": "public"} for name in ("INSERT", "TRUNCATE")])

    def test_rollback(self):
        self.trigger("INSERT ON items FOR EACH ROW", "'news', 'x', '{*}', 'columns=id'")
        with self.db.session() as connection:
            connection.execute("BEGIN; INSERT INTO items VALUES (1); SAVEPOINT s; INSERT INTO items VALUES (2); ROLLBACK TO s; INSERT INTO items VALUES (3); COMMIT")
            connection.execute("BEGIN; INSERT INTO items VALUES (4); ROLLBACK")
            connection.error("INSERT INTO items VALUES (5), (1)")
        self.assertEqual([body["new"]["id"] for body in self.bodies(2)], [1, 3])

    def test_replicated_rows(self):
        """What replication applies was notified of where it came from; unless the trigger is told to fire always."""
        self.trigger("INSERT ON items FOR EACH ROW", "'news', 'x', '{*}', 'columns=id'")
        insert = "SET session_replication_role = replica; INSERT INTO items VALUES (%d)"
        self.db.sql(insert % 1)
        self.db.sql("ALTER TABLE items ENABLE ALWAYS TRIGGER tell")
        self.db.sql(insert % 2)
        self.assertEqual([body["new"]["id"] for body in self.bodies(1)], [2])

    def test_partitions_dropped_columns_and_large_values(self):
        self.db.sql("CREATE TABLE parts (id int, gone int, big text, n numeric GENERATED ALWAYS AS (id * 1.5) STORED) PARTITION BY RANGE (id)")
        self.db.sql("CREATE TABLE low PARTITION OF parts FOR VALUES FROM (0) TO (10); CREATE TABLE high PARTITION OF parts FOR VALUES FROM (10) TO (20);"
                    " ALTER TABLE parts DROP COLUMN gone")
        try:
            self.trigger("INSERT OR UPDATE ON items FOR EACH ROW", "'news', 'x', '{*}'", "parts")
            self.db.sql("INSERT INTO parts (id, big) VALUES (1, repeat(md5('x'), 10000)), (11, 'y')")
            self.db.sql("UPDATE parts SET id = 2 WHERE id = 1")
            bodies = self.bodies(3)
            self.assertEqual([(b["table"], b["new"]["id"], len(b["new"]["big"]), str(b["new"]["n"])) for b in bodies],
                             [("low", 1, 320000, "1.5"), ("high", 11, 1, "16.5"), ("low", 2, 320000, "3")])
            self.assertEqual(set(bodies[0]["new"]), {"id", "big", "n"})
        finally:
            self.db.sql("DROP TABLE parts")

    def test_a_million_rows(self):
        """Many rows go in few messages; row by row, the bound of the send buffer ends the statement."""
        self.trigger("INSERT ON items REFERENCING NEW TABLE AS n FOR EACH STATEMENT", "'many', 'x', '{*}', 'columns=id', 'chunk=1000000'")
        with self.db.session() as connection:
            connection.execute("INSERT INTO items SELECT i, NULL, NULL FROM generate_series(1, 1000000) i", timeout=120)
            resident = int(next(line for line in open("/proc/%d/status" % connection.pid) if line.startswith("VmHWM")).split()[1])
        self.assertLess(resident, 400000)
        ids = [row["id"] for body in [cbor2.loads(m.body) for m in self.all_sent()] for row in body["new"]]
        self.assertEqual(ids, list(range(1, 1000001)))
        self.db.sql("DROP TRIGGER tell ON items; TRUNCATE items")
        self.trigger("INSERT ON items FOR EACH ROW", "'many', 'x', '{*}'")
        self.assertSqlState(self.db.error("INSERT INTO items SELECT i, repeat('x', 200), NULL FROM generate_series(1, 1000000) i"), "53400", "rinq.send_buffer")

    def test_without_a_peer(self):
        self.trigger("INSERT ON items FOR EACH ROW", "'news', 'x', '{*}'")
        self.db.sql("CREATE TABLE quiet (id int)")
        self.trigger("INSERT ON items FOR EACH ROW", "'news', 'x', '{*}', 'only_if_peer'", "quiet")
        self.db.sql("SELECT rinq_stop()")
        try:
            self.assertSqlState(self.db.error("INSERT INTO items VALUES (1)"), "55000")
            self.db.sql("INSERT INTO quiet VALUES (1)")
        finally:
            self.db.sql("SELECT rinq_start()")
            self.db.wait_peer()
        self.db.sql("INSERT INTO quiet VALUES (2)")
        self.assertEqual([body["new"]["id"] for body in self.bodies(1)], [2])
        self.db.sql("DROP TABLE quiet")

    def test_user_without_privileges_on_the_function(self):
        """The trigger fires for whoever may write; to create it takes EXECUTE."""
        self.db.role("writer")
        self.trigger("INSERT ON items FOR EACH ROW", "'news', 'x', '{*}', 'columns=id'")
        self.db.sql("GRANT INSERT ON items TO writer")
        self.db.sql("INSERT INTO items VALUES (1)", role="writer")
        self.assertEqual([body["new"]["id"] for body in self.bodies(1)], [1])
        self.db.sql("CREATE TABLE own (id int)", role="writer")
        self.assertSqlState(self.db.error("CREATE TRIGGER t AFTER INSERT ON own EXECUTE FUNCTION rinq_notify_trigger('a', 'b', '{*}')", role="writer"), "42501")
        self.db.sql("DROP OWNED BY writer; DROP ROLE writer")

    def test_refused(self):
        for arguments, state, text in (("'news', 'x'", "22023", "needs"), ("'_sess', 'x', '{*}'", "22023", "reserved"), ("'news', 'x', '{'", "22P02", "constraint"),
                                       ("'news', 'x', 'nocolumn'", "42703", "nocolumn"), ("'news', 'x', '{*}', 'columns=nocolumn'", "42703", "nocolumn"),
                                       ("'news', 'x', '{*}', 'columns='", "22023", "columns"), ("'news', 'x', '{*}', 'nonsense'", "22023", "option"),
                                       ("'news', 'x', '{*}', 'chunk=12'", "22023", "chunk"), ("'news', 'x', '{*}', 'chunk=abc'", "22023", "chunk"),
                                       ("'news', 'x', '{*}', 'chunk=99999999999999999999'", "22023", "chunk"), ("'news', 'x', 'session', 'match=id'", "22023", "match"),
                                       ("'news', '%s', '{*}'" % ("x" * 256), "54000", "type")):
            with self.subTest(arguments=arguments):
                create = "CREATE TRIGGER tell AFTER INSERT ON items FOR EACH ROW EXECUTE FUNCTION rinq_notify_trigger(%s)" % arguments
                self.assertSqlState(self.db.error("%s; INSERT INTO items VALUES (1)" % create), state, text)
        self.assertSqlState(self.db.error("CREATE TRIGGER tell BEFORE INSERT ON items FOR EACH ROW EXECUTE FUNCTION rinq_notify_trigger('n', 'x', '{*}');"
                                          " INSERT INTO items VALUES (1)"), "39P01", "AFTER")
        self.assertSqlState(self.db.error("CREATE TRIGGER tell AFTER INSERT ON items EXECUTE FUNCTION rinq_notify_trigger('n', 'x', 'session');"
                                          " INSERT INTO items VALUES (1)"), "39P01", "rows")
        self.sent(0)


class Transition(case.PeerCase):
    """Transition tables."""

    def test_transition_table_on_disk(self):
        """Rows of a transition table that was written to disk belong to the slot, until it has the next one."""
        self.db.sql("CREATE TABLE wide (id int, name text); CREATE TRIGGER tell AFTER INSERT ON wide REFERENCING NEW TABLE AS n FOR EACH STATEMENT"
                    " EXECUTE FUNCTION rinq_notify_trigger('wide', 'x', '{*}')")
        self.db.sql("SET work_mem = '64kB'; INSERT INTO wide SELECT i, repeat('x', i % 200) FROM generate_series(1, 10000) i")
        self.db.sql("SELECT rinq_notify_many('end', 'end', '{*}')")
        self.published("ntf.mc", where=lambda m: m.routing_key == "end")
        rows = [row for m in self.recording.published("ntf.mc", self.wire_start) if m.routing_key == "wide" for row in cbor2.loads(m.body)["new"]]
        self.assertEqual(rows == [{"id": i, "name": "x" * (i % 200)} for i in range(1, 10001)], True)
