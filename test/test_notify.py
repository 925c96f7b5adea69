"""Notifications sent by SQL: at commit, in order, as the reference peer sends them."""

import cbor2

from rinqtest import case
from rinqtest.server import quote


class Sending(case.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.remote = cls.world.peer(prefetch=100)
        cls.target = "%s.%d" % (cls.remote.id, cls.remote.new_session())

    @classmethod
    def tearDownClass(cls):
        cls.remote.close()
        cls.db.drop()

    def test_to_a_session(self):
        message = self.db.value("SELECT rinq_notify('news', 'flash', %s, '{\"a\": 1}')" % quote(self.target))
        sent = self.published("ntf.uc", where=lambda m: m.properties.get("message_id") == message)[0]
        self.assertConforms(sent, "notify")
        self.assertEqual(sent.routing_key, "news." + self.remote.id)
        self.assertEqual((sent.properties["type"], sent.headers["n"].value, sent.headers["t"].value), ("flash", "news", self.target))
        self.assertEqual(cbor2.loads(sent.body), {"a": 1})

    def test_to_many(self):
        message = self.db.value("SELECT rinq_notify_many('news', 'all', '{foo=bar, n=1}', '5'::jsonb)")
        sent = self.published("ntf.mc", where=lambda m: m.properties.get("message_id") == message)[0]
        self.assertConforms(sent, "notify-many")
        self.assertEqual((sent.routing_key, sent.headers["c"].type), ("news", "x"))
        self.assertEqual(cbor2.loads(sent.headers["c"].value), {"o": "&", "t": [{"o": "=", "k": "foo", "v": "bar"}, {"o": "=", "k": "n", "v": "1"}]})

    def test_forms_of_payload(self):
        for payload, body in (("NULL::jsonb", ""), ("'null'::jsonb", ""), ("'[1]'", "8101"), ("'\\xf4'::bytea", "f4"), ("'\\x'::bytea", "")):
            message = self.db.value("SELECT rinq_notify('news', '', %s, %s)" % (quote(self.target), payload))
            sent = self.published("ntf.uc", where=lambda m: m.properties.get("message_id") == message)[0]
            self.assertEqual(sent.body.hex(), body)
        self.assertEqual(self.db.value("SELECT rinq_notify_many('news', 'x', rinq_none()) IS NOT NULL"), "t")

    def test_at_commit_in_order(self):
        with self.db.session() as connection:
            connection.execute("BEGIN")
            notify = "SELECT rinq_notify('order', %s, %s)"
            kept = [connection.value(notify % (quote("1"), quote(self.target)))]
            connection.execute("SAVEPOINT s")
            connection.execute(notify % (quote("undone"), quote(self.target)))
            connection.execute("ROLLBACK TO s")
            kept.append(connection.value("SELECT rinq_notify_many('order', '2', rinq_none())"))
            connection.execute("DO $$ BEGIN BEGIN PERFORM rinq_notify_many('order', 'undone', rinq_none()); RAISE 'x';"
                               " EXCEPTION WHEN OTHERS THEN NULL; END; END $$")
            kept += [connection.value(notify % (quote(str(n)), quote(self.target))) for n in range(3, 6)]
            self.assertEqual(self.recording.published("ntf.uc", self.wire_start), [])
            connection.execute("COMMIT")
            connection.execute("BEGIN; SELECT rinq_notify_many('order', 'undone', rinq_none()); ROLLBACK")
        self.published("ntf.uc", 4)
        ids = [m.properties["message_id"] for m in self.recording.published("ntf.uc", self.wire_start)]
        self.assertEqual(ids, [kept[0]] + kept[2:])
        self.assertEqual([m.properties["message_id"] for m in self.published("ntf.mc", 1)], [kept[1]])

    def test_trace_and_session(self):
        session = self.db.value("SELECT rinq_session_create()")
        message = self.db.value("SET rinq.trace_id = 'why'; SELECT rinq_notify('news', 'x', %s, session => %s)" % (quote(self.target), quote(session)))
        self.assertEqual(message, session + "@0#1")
        sent = self.published("ntf.uc", where=lambda m: m.properties.get("message_id") == message)[0]
        self.assertEqual(sent.properties["correlation_id"], "why")

    def test_in_a_trigger(self):
        self.db.sql("CREATE TABLE orders (id int, target text)")
        self.db.sql("""CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM rinq_notify('orders', TG_OP, NEW.target, to_jsonb(NEW)); RETURN NULL; END $$""")
        self.db.sql("CREATE TRIGGER tell AFTER INSERT ON orders FOR EACH ROW EXECUTE FUNCTION tell()")
        self.db.sql("INSERT INTO orders SELECT i, %s FROM generate_series(1, 500) i" % quote(self.target))
        sent = self.published("ntf.uc", 500)
        self.assertEqual([cbor2.loads(m.body)["id"] for m in sent], list(range(1, 501)))

    def test_refused(self):
        for arguments, state in (("'news', 'x', '%s.0'" % self.remote.id, "22023"), ("'news', 'x', 'nonsense'", "22023"), ("'_sess', 'x', %s" % quote(self.target), "22023"),
                                 ("'news', NULL, %s" % quote(self.target), "22004"), ("'news', 'x', NULL", "22004"), ("'news', repeat('x', 300), %s" % quote(self.target), "54000")):
            self.assertSqlState(self.db.error("SELECT rinq_notify(%s)" % arguments), state)
        self.assertSqlState(self.db.error("SELECT rinq_notify_many('news', 'x', NULL)"), "22004")
        self.assertSqlState(self.db.error("SELECT rinq_notify_many('news', 'x', 'nonsense')"), "22P02")
        self.assertSqlState(self.db.error("BEGIN; SELECT rinq_notify_many('news', 'x', rinq_none()); PREPARE TRANSACTION 'x'"), "0A000")
        self.assertEqual(self.recording.published("ntf.uc", self.wire_start), [])
