"""What the functions say on a standby, where nothing can be sent and no peer runs."""

from rinqtest import case


class Standby(case.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.db.handler("nothing", "RETURN NULL;")
        cls.standby = cls.server.make_standby("standby").start()

    @classmethod
    def tearDownClass(cls):
        cls.standby.stop()
        cls.db.drop()

    def error(self, sql):
        with self.standby.session(self.db.name) as session:
            return session.error(sql)

    def test_writing_is_refused_as_in_any_read_only_transaction(self):
        for call in ("rinq_execute('ns', 'x')", "rinq_execute('ns', 'x', '{}'::jsonb, durable => true)", "rinq_listen('ns', 'nothing(rinq_request)')",
                     "rinq_unlisten('ns')", "rinq_unsubscribe('x')"):
            with self.subTest(call=call):
                self.assertSqlState(self.error("SELECT " + call), "25006")

    def test_what_needs_a_peer_says_so(self):
        for call in ("rinq_call('ns', 'x')", "rinq_call_async('ns', 'x')", "rinq_call_many('ns', 'x', '{1}')", "rinq_execute('ns', 'x', durable => false)",
                     "rinq_notify_many('ns', 'x', '{*}')", "rinq_session()", "rinq_session_create()", "rinq_notifications()", "rinq_wait_ready('1 h')"):
            with self.subTest(call=call):
                self.assertSqlState(self.error("SELECT " + call), "55000")

    def test_what_was_not_called_is_not_known(self):
        with self.standby.session(self.db.name) as session:
            self.assertEqual(session.value("SELECT rinq_cancel('58AEE146-191C.45@3#1')"), "f")
            self.assertSqlState(session.error("SELECT rinq_await('58AEE146-191C.45@3#1')"), "42704")
            self.assertEqual(session.execute("SELECT sqlstate FROM rinq_await_all('{58AEE146-191C.45@3#1}')"), [["42704"]])

    def test_views(self):
        with self.standby.session(self.db.name) as session:
            self.assertEqual(session.value("SELECT state FROM rinq_peer"), "stopped")
            for view in ("rinq_listeners", "rinq_subscriptions", "rinq_sessions", "rinq_outbox"):
                self.assertEqual(session.value("SELECT count(*) FROM " + view), "0")
            error = session.error("SELECT * FROM rinq_stored_notifications")
            self.assertSqlState(error, "0A000", "stored notifications cannot be read during recovery")
            self.assertIn("primary", error.hint)
            self.assertEqual(session.value("SELECT rinq_from_cbor(rinq_to_cbor('[1]'))"), "[1]")
