"""Payloads in CBOR, untouched; and which form of a function an argument selects."""

import cbor2

from rinqtest import case
from rinqtest.collector import Collector
from rinqtest.peer import Raw

VALUES = ["00", "20", "f6", "f7", "f97e00", "fa7f800000", "c11a514b67b0", "a101636f6e65", "9f0102ff", "5f42010243030405ff", "7f6161ff",
          "d9d9f783010203", "a2616101616102", "f0", "f8ff", "6100", "1bffffffffffffffff"]
MALFORMED = ["", "00 00", "18", "1c", "ff", "61ff", "62c328", "81", "a100", "9f01", "bf01ff", "5f6161ff", "7f5f4101ffff", "c1", "f800",
             "5b7fffffffffffffff", "9b7fffffffffffffff", "81" * 2000 + "00"]


class RawPayloads(case.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.remote = cls.world.peer(prefetch=0)
        cls.remote.serve("raw", lambda request: Raw(request.body))
        cls.remote.serve("bytes", lambda request: Raw(bytes.fromhex(cbor2.loads(request.body))))
        cls.remote.serve("plain", lambda request: request.payload)

    @classmethod
    def tearDownClass(cls):
        cls.remote.close()
        cls.db.drop()

    def test_untouched(self):
        for value in VALUES:
            with self.subTest(value):
                self.assertEqual(self.db.value("SELECT encode(rinq_call_raw('raw', 'x', '\\x%s'::bytea), 'hex')" % value), value)
                self.assertEqual(self.db.value("SELECT encode(rinq_await_raw(id), 'hex') FROM unnest(ARRAY(SELECT rinq_call_async_raw('raw', 'x',"
                                               " '\\x%s'::bytea))) id" % value), value)

    def test_executed(self):
        collector = Collector(self.remote, "raw-ex")
        for value in VALUES:
            self.db.sql("SELECT rinq_execute_raw('raw-ex', 'x', '\\x%s'::bytea)" % value)
        self.assertEqual([request.body.hex() for request in collector.wait(len(VALUES))], VALUES)

    def test_nil(self):
        self.assertEqual(self.db.value("SELECT rinq_call_raw('raw', 'x', NULL::bytea) IS NULL"), "t")
        self.assertEqual(self.db.value("SELECT rinq_call_raw('raw', 'x', ''::bytea) IS NULL"), "t")

    def test_malformed_is_not_sent(self):
        for value in MALFORMED[1:]:
            with self.subTest(value):
                error = self.db.error("SELECT rinq_call_raw('raw', 'x', '\\x%s'::bytea)" % value.replace(" ", ""))
                self.assertIn(error.sqlstate, ("22P03", "22021", "54000"))

    def test_malformed_response(self):
        for value in MALFORMED[1:]:
            with self.subTest(value):
                text = cbor2.dumps(value).hex()
                error = self.db.error("SELECT rinq_call_raw('bytes', 'x', '\\x%s'::bytea)" % text)
                self.assertIn(error.sqlstate, ("22P03", "22021", "54000"))

    def test_unchecked_when_told_so(self):
        with self.db.session() as session:
            session.execute("SET rinq.validate_raw = off")
            self.assertEqual(session.value("SELECT encode(rinq_call_raw('raw', 'x', '\\xffff'::bytea), 'hex')"), "ffff")

    def test_forms(self):
        for arguments, value in (("", None), (", '[1]'", "[1]"), (", NULL", None), (", '[1]'::jsonb", "[1]"),
                                 (", payload => '[1]'", "[1]"), (", timeout => '9 s'", None), (", '[1]', '9 s'", "[1]"),
                                 (", payload => '[1]', timeout => '9 s'", "[1]")):
            with self.subTest(arguments):
                self.assertEqual(self.db.value("SELECT coalesce(rinq_call('plain', 'x'%s)::text, 'nil')" % arguments), value or "nil")
                self.assertEqual(self.db.value("SELECT coalesce(rinq_await(id)::text, 'nil') FROM unnest(ARRAY("
                                               "SELECT rinq_call_async('plain', 'x'%s))) id" % arguments), value or "nil")
        self.assertSqlState(self.db.error("SELECT rinq_call('plain', 'x', 'no json')"), "22P02")
        for kind, function, literal, value in (("jsonb", "rinq_call", "'[1]'", "[1]"), ("unknown", "rinq_call", "'[1]'", "[1]"),
                                               ("bytea", "rinq_call_raw", "'\\x8101'", "\\x8101"), ("unknown", "rinq_call_raw", "'\\x8101'", "\\x8101")):
            with self.db.session() as session:
                session.execute("PREPARE p(%s) AS SELECT %s('plain', 'x', $1)" % (kind, function))
                self.assertEqual(session.value("EXECUTE p(%s)" % literal), value)

    def test_a_name_is_one_function(self):
        """But for the one that takes attributes in several forms: a name is enough to grant it."""
        self.assertEqual(self.db.sql("SELECT proname FROM pg_proc WHERE proname LIKE 'rinq%' GROUP BY 1 HAVING count(*) > 1"), [["rinq_session_update"]])
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_call, rinq_call_raw, rinq_call_async, rinq_execute, rinq_notify, rinq_notify_many, rinq_notify_many_raw TO PUBLIC")

    def test_handler(self):
        self.db.sql("CREATE FUNCTION mirror(req rinq_raw_request) RETURNS bytea LANGUAGE plpgsql AS $$ BEGIN"
                    " IF req.command = 'bad' THEN RETURN '\\xff'; END IF; RETURN req.payload; END $$")
        self.db.sql("SELECT rinq_listen('mirror', 'mirror(rinq_raw_request)')")
        for value in VALUES:
            with self.subTest(value):
                response = self.remote.call_response("mirror", "x", Raw(bytes.fromhex(value)), timeout=10)
                self.assertEqual((response.properties["type"], response.body.hex()), ("s", value))
        self.assertEqual(self.remote.call_response("mirror", "x", timeout=10).body, b"")
        for command, value in [("x", bytes.fromhex(value.replace(" ", ""))) for value in MALFORMED[1:]] + [("bad", b"\x00")]:
            with self.subTest((command, value)):
                response = self.remote.call_response("mirror", command, Raw(value), timeout=10)
                self.assertEqual(response.properties["type"], "e")
                self.assertIn(b"CBOR", response.body)

    def test_what_cannot_be_a_handler(self):
        self.db.sql("CREATE FUNCTION mixed1(req rinq_raw_request) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'")
        self.db.sql("CREATE FUNCTION mixed2(req rinq_request) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea'")
        self.db.sql("CREATE SCHEMA other; CREATE TYPE other.rinq_raw_request AS (payload bytea);"
                    " CREATE FUNCTION forged(req other.rinq_raw_request) RETURNS bytea LANGUAGE sql AS 'SELECT NULL::bytea'")
        for function in ("mixed1(rinq_raw_request)", "mixed2(rinq_request)", "forged(other.rinq_raw_request)"):
            self.assertSqlState(self.db.error("SELECT rinq_listen('odd', '%s')" % function), "42P13")
