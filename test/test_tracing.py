"""Messages that belong together say so: trace ids and span contexts, from request to whatever its handler sends."""

from rinqtest import case
from rinqtest.collector import Collector


class Tracing(case.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.remote = cls.world.peer(prefetch=0)
        cls.db.handler("traced", """CASE req.command
            WHEN 'execute' THEN PERFORM rinq_execute('tr-end', 'x');
            WHEN 'memory' THEN PERFORM rinq_execute('tr-end', 'x', durable => false);
            WHEN 'call' THEN PERFORM rinq_call('tr-end', 'x');
            WHEN 'hop' THEN PERFORM rinq_call('traced', 'call');
            WHEN 'own' THEN SET LOCAL rinq.trace_id = 'of my own'; PERFORM rinq_call('tr-end', 'x');
            WHEN 'log' THEN RAISE LOG 'something to remember';
            WHEN 'error' THEN RAISE EXCEPTION 'something went wrong';
            ELSE NULL;
          END CASE;
          RETURN to_jsonb(rinq_trace_id());""")
        cls.db.listen("traced", "traced")
        cls.collector = Collector(cls.remote, "tr-end")
        cls.remote.call("traced", "warm", timeout=20)

    @classmethod
    def tearDownClass(cls):
        cls.remote.close()
        cls.db.drop()

    def setUp(self):
        super().setUp()
        self.collector.forget()

    def test_inherited_by_everything_sent(self):
        for command in ("execute", "memory", "call", "hop"):
            self.collector.forget()
            value = self.remote.call("traced", command, trace="trace-" + command, span=b"\x00span\xff", timeout=10)
            request = self.collector.wait(1)[0]
            self.assertEqual(value, "trace-" + command)
            self.assertEqual(request.properties["correlation_id"], "trace-" + command)
            self.assertEqual(tuple(request.headers["sc"]), ("x", b"\x00span\xff"))

    def test_w3c_headers(self):
        parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        self.remote.declare_namespace("traced")
        self.remote.publish_raw("cmd.bal", "traced", headers={"n": "traced", "c": "call", "traceparent": parent, "tracestate": "a=1,b=2"},
                                message_id="58AEE146-191C.1@0#1")
        request = self.collector.wait(1)[0]
        self.assertEqual(tuple(request.headers["traceparent"]), ("S", parent))
        self.assertEqual(tuple(request.headers["tracestate"]), ("S", "a=1,b=2"))
        self.assertEqual(request.trace_id, "58AEE146-191C.1@0#1")
        self.assertNotIn("sc", request.headers)

    def test_w3c_header_that_the_database_cannot_express(self):
        """What is passed on is not looked at: it is no reason for a handler to fail."""
        db = self.database(encoding="LATIN1")
        db.handler("latin", "PERFORM rinq_execute('tr-end', 'x'); PERFORM rinq_call('tr-end', 'x'); RETURN 'true';")
        db.listen("latin", "latin")
        self.remote.call("latin", "warm", timeout=20)
        self.collector.wait(2)
        self.collector.forget()
        self.remote.publish_raw("cmd.bal", "latin", headers={"n": "latin", "c": "x", "tracestate": "a=\u20ac"}, message_id="58AEE146-191C.2@0#1")
        for request in self.collector.wait(2):
            self.assertEqual(tuple(request.headers["tracestate"]), ("S", "a=\u20ac"))

    def test_w3c_header_of_another_type(self):
        self.remote.declare_namespace("traced")
        self.remote.publish_raw("cmd.bal", "traced", headers={"n": "traced", "c": "call", "traceparent": 5, "tracestate": b"x"},
                                message_id="58AEE146-191C.1@0#2")
        request = self.collector.wait(1)[0]
        self.assertEqual(set(request.headers), {"n", "c", "dl"})

    def test_setting(self):
        with self.db.session() as session:
            self.assertEqual(session.value("SELECT rinq_trace_id() IS NULL"), "t")
            session.execute("BEGIN")
            session.execute("SET LOCAL rinq.trace_id = 'my transaction'")
            self.assertEqual(session.value("SELECT rinq_trace_id()"), "my transaction")
            session.execute("SELECT rinq_execute('tr-end', 'x')")
            session.execute("COMMIT")
            # which comes first is not said: they go over different channels
            self.collector.wait(1)
            session.execute("SELECT rinq_call('tr-end', 'x')")
        first, second = self.collector.wait(2)
        self.assertEqual(first.properties["correlation_id"], "my transaction")
        self.assertNotIn("correlation_id", second.properties)

    def test_setting_in_a_handler_lasts_for_its_transaction(self):
        self.assertEqual(self.remote.call("traced", "own", trace="theirs", timeout=10), "of my own")
        self.assertEqual(self.collector.wait(1)[0].trace_id, "of my own")
        self.assertEqual(self.remote.call("traced", "none", trace="theirs", timeout=10), "theirs")

    def test_too_long(self):
        self.assertSqlState(self.db.error("SET rinq.trace_id = '%s'" % ("x" * 256)), "22023")

    def test_log(self):
        mark = self.server.log_mark()
        self.remote.call("traced", "log", trace="trace-log", timeout=10)
        with self.assertRaisesRegex(Exception, "^something went wrong$"):
            self.remote.call("traced", "error", trace="trace-error", timeout=10)
        self.server.wait_log(r"rinq request [0-9A-F]+-[0-9A-F]+\.\d+@0#\d+ to traced::log, trace id trace-log", mark)
        self.server.wait_log(r"trace id trace-error", mark)
