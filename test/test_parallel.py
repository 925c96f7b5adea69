"""What functions with an effect do in a parallel operation: they refuse, in its workers and in its leader."""

from rinqtest import case
from rinqtest.server import SqlError

# all functions in C that roles can call, with NULL for each argument
FUNCTIONS = """
SELECT p.oid::regproc::text, p.proparallel,
       (SELECT coalesce(string_agg(CASE WHEN p.provariadic <> 0 AND n = p.pronargs THEN 'VARIADIC ' ELSE '' END
                                   || 'NULL::' || format_type(t, NULL), ', ' ORDER BY n), '')
        FROM unnest(p.proargtypes::oid[]) WITH ORDINALITY u (t, n))
FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND e.extname = 'rinq'
WHERE p.prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype, 'cstring'::regtype)
  AND NOT p.proargtypes::oid[] && ARRAY['internal'::regtype::oid, 'cstring'::regtype::oid]
  AND (p.prolang = (SELECT oid FROM pg_language WHERE lanname = 'c') OR p.proname = 'rinq_notifications')
  AND p.pronamespace <> 'rinq_internal'::regnamespace
ORDER BY 1, 3"""

WORKER = "SET max_parallel_workers = 8; SET parallel_leader_participation = off"
LEADER = "SET max_parallel_workers = 0; SET parallel_leader_participation = on"


class Parallel(case.PeerCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db.sql("CREATE TABLE numbers AS SELECT i FROM generate_series(1, 1000) i; ANALYZE numbers")

    def setUp(self):
        super().setUp()
        self.connection = self.db.session()
        self.addCleanup(self.connection.close)
        self.connection.execute("SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;"
                                " SET max_parallel_workers_per_gather = 2")

    def wrap(self, statement, returns="boolean", value="true"):
        """A function that its author has marked PARALLEL SAFE, for no good reason."""
        self.connection.execute("CREATE OR REPLACE FUNCTION careless(i int) RETURNS %s LANGUAGE plpgsql PARALLEL SAFE COST 100000"
                                " AS $$ BEGIN %s; RETURN %s; END $$" % (returns, statement, value))

    def run_in(self, mode):
        """Runs the function in a parallel operation; returns the error, or None."""
        self.connection.execute(mode)
        try:
            self.connection.execute("SELECT count(careless(i)) FROM numbers")
        except SqlError as error:
            self.assertEqual("parallel worker" in error.text, mode == WORKER, error.text)
            return error
        return None

    def test_functions_in_sql(self):
        """They write the extension's tables, or look into these."""
        message = "'58AEE146-191C.45@3#1'"
        for call in ("rinq_outbox_dead_letter_delete(%s)", "rinq_outbox_dead_letter_retry(%s)", "rinq_inbox_dead_letter_delete(%s)",
                     "rinq_inbox_dead_letter_retry(%s)", "rinq_inbox_waiting_retry(%s)", "rinq_inbox_waiting_delete(%s)", "rinq_check()"):
            self.wrap("PERFORM " + call.replace("%s", message))
            for mode in (WORKER, LEADER):
                self.assertSqlState(self.run_in(mode), "25000")

    def test_where_it_runs(self):
        """The settings do what the other tests rely on."""
        self.wrap("NULL")
        for mode, launched in ((WORKER, "Workers Launched: 2"), (LEADER, "Workers Launched: 0")):
            self.connection.execute(mode)
            plan = "\n".join(row[0] for row in self.connection.execute("EXPLAIN (ANALYZE) SELECT count(careless(i)) FROM numbers"))
            self.assertIn(launched, plan)
        self.wrap("RAISE EXCEPTION 'oops'")
        for mode in (WORKER, LEADER):
            self.assertSqlState(self.run_in(mode), "P0001")

    def test_every_function(self):
        """What is marked UNSAFE refuses everywhere, what is RESTRICTED refuses in workers, what is SAFE works."""
        seen = {"u": 0, "r": 0, "s": 0}
        for name, marking, arguments in self.db.sql(FUNCTIONS):
            call = "%s(%s)" % (name, arguments)
            seen[marking] += 1
            self.wrap("PERFORM " + call)
            for mode in (WORKER, LEADER):
                with self.subTest(function=call, marking=marking, leader=mode == LEADER):
                    error = self.run_in(mode)
                    refused = error is not None and error.sqlstate == "25000"
                    self.assertEqual(refused, marking == "u" or (marking == "r" and mode == WORKER), "%s: %s" % (call, error and error.text))
        self.assertGreater(min(seen.values()), 1, seen)

    def test_views(self):
        """They can be read in a parallel operation, in its workers and in its leader."""
        self.db.handler("seen", "RETURN NULL;")
        self.db.listen("seen", "seen")
        views = [row[0] for row in self.db.sql("SELECT relname FROM pg_class WHERE relkind = 'v' AND relname LIKE 'rinq%'")]
        self.assertIn("rinq_listeners", views)
        for view in views:
            self.wrap("IF i = 1 THEN PERFORM * FROM %s; END IF" % view)
            for mode in (WORKER, LEADER):
                with self.subTest(view=view, leader=mode == LEADER):
                    error = self.run_in(mode)
                    self.assertIn(error and error.sqlstate, (None, "25000"), error and error.text)
                    if view == "rinq_listeners":
                        self.assertIsNone(error, error and error.text)

    def test_nothing_is_sent(self):
        """With good arguments too, and the statement fails as a whole."""
        target = "%s.%d" % (self.remote.id, self.remote.new_session())
        for call in ("rinq_notify_many('news', 'x', '{*}', to_jsonb(i))", "rinq_notify('news', 'x', '%s', to_jsonb(i))" % target,
                     "rinq_execute('nobody', 'x', to_jsonb(i))", "rinq_execute('nobody', 'x', to_jsonb(i), durable => false)",
                     "rinq_call_async('nobody', 'x', to_jsonb(i))", "rinq_fail('odd')", "rinq_session()"):
            self.wrap("PERFORM " + call)
            for mode in (WORKER, LEADER):
                with self.subTest(call=call, leader=mode == LEADER):
                    error = self.run_in(mode)
                    self.assertSqlState(error, "25000", call.partition("(")[0])
                    self.assertIn("PARALLEL UNSAFE", error.hint)
        self.assertEqual(self.db.value("SELECT count(*) FROM rinq_outbox"), "0")
        self.db.sql("SELECT rinq_notify_many('end', 'x', '{*}')")
        self.published("ntf.mc", where=lambda m: m.routing_key == "end")
        self.assertEqual([m for m in self.recording.published("ntf.mc", self.wire_start) + self.recording.published("ntf.uc", self.wire_start)
                          if m.routing_key.startswith("news")], [])

    def test_called_directly(self):
        """A query that calls such a function itself is not run in parallel."""
        self.connection.execute(WORKER)
        plan = "\n".join(row[0] for row in self.connection.execute("EXPLAIN SELECT count(rinq_notify_many('news', 'x', '{*}', to_jsonb(i))) FROM numbers"))
        self.assertNotIn("Gather", plan)
        self.assertEqual(self.connection.value("SELECT count(rinq_notify_many('news', 'x', '{*}', to_jsonb(i))) FROM numbers"), "1000")
