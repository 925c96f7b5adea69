"""Who may do what, as whom handlers run, and what nobody may see."""

from rinqtest import case, versions
from rinqtest.cluster import call_sql
from rinqtest.peer import RemoteError
from rinqtest.waiting import wait_until


class Roles(case.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        name = cls.db.name
        cls.plain = cls.db.role("plain_" + name)
        cls.owner = cls.db.role("owner_" + name)
        for function in ("rinq_listen(text, regprocedure, integer, boolean, interval, boolean, jsonb, text[])", "rinq_unlisten(text)", "rinq_call(text, text, jsonb, interval, text)"):
            cls.db.sql("GRANT EXECUTE ON FUNCTION %s TO %s" % (function, cls.owner))
        cls.remote = cls.world.peer()

    @classmethod
    def tearDownClass(cls):
        cls.remote.close()
        cls.db.drop()
        for role in (cls.plain, cls.owner):
            cls.server.psql("DROP ROLE IF EXISTS " + role)

    def as_owner(self, namespace, body, declare=""):
        self.db.handler(namespace, body, declare, role=self.owner)
        self.db.listen(namespace, namespace, role=self.owner)

    # what is refused

    def test_public_may_neither_send_nor_listen(self):
        self.db.handler("plains", "RETURN NULL;", role=self.plain)
        for sql in (call_sql("x", "x"), "SELECT rinq_listen('x', 'plains(rinq_request)')", "SELECT rinq_unlisten('x')",
                    "SELECT * FROM rinq_internal.listener", "INSERT INTO rinq_internal.listener VALUES ('x', 'plains(rinq_request)', 'postgres')",
                    "DELETE FROM rinq_internal.listener", "UPDATE rinq_internal.listener SET role = 'postgres'",
                    "CREATE TRIGGER t AFTER INSERT ON rinq_internal.listener FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()"):
            self.assertSqlState(self.db.error(sql, role=self.plain), "42501")
        self.assertEqual([event for event in self.recording.published("cmd.bal", self.wire_start)], [])

    def test_what_public_may_do(self):
        self.assertEqual(self.db.value("SELECT rinq_from_cbor(rinq_to_cbor('[1]'))", role=self.plain), "[1]")
        self.assertTrue(self.db.value("SELECT rinq_version()", role=self.plain))

    def test_functions_that_send_or_listen_are_not_granted_to_public(self):
        rows = self.db.sql("SELECT p.proname FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass"
                           " AND d.deptype = 'e' JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'rinq'"
                           " WHERE has_function_privilege('public', p.oid, 'EXECUTE') ORDER BY 1")
        allowed = {"rinq_to_cbor", "rinq_from_cbor", "rinq_version", "rinq_fail", "rinq_retry", "rinq_last_failure", "rinq_trace_id", "rinq_set", "rinq_freeze",
                   "rinq_source_attribute", "handler_problem", "role_oid", "rinq_list_sessions", "rinq_list_attributes", "rinq_list_subscriptions",
                   "rinq_none", "rinq_all", "rinq_fetch_notifications", "rinq_list_stored_notifications", "rinq_equal", "rinq_not_equal", "rinq_empty", "rinq_not_empty", "rinq_not", "rinq_and", "rinq_or", "rinq_within",
                   "rinq_constraint_in", "rinq_constraint_out", "rinq_constraint_recv", "rinq_constraint_send", "rinq_constraint_eq",
                   "rinq_constraint_to_jsonb", "rinq_constraint_from_jsonb"}
        self.assertLessEqual({row[0] for row in rows if not row[0].startswith("rinq_is_")}, allowed)

    def test_owner_of_the_grant_may(self):
        self.remote.serve("granted", lambda request: request.payload)
        self.assertEqual(self.db.json(call_sql("granted", "x", [1]), role=self.owner), [1])

    def test_function_of_another_role(self):
        """Neither the role it runs as nor a superuser owns it: it was that role's when it was registered, and that is enough."""
        author, runner = self.db.role("author_of_it"), self.db.role("runner_of_it")
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_listen(text, regprocedure, integer, boolean, interval, boolean, jsonb, text[]), rinq_unlisten(text) TO " + runner)
        self.db.handler("of_author", "RETURN to_jsonb(current_user::text);", role=author)
        self.db.listen("of.author", "of_author", role=runner)
        self.assertEqual(self.remote.call("of.author", "x", timeout=20), runner)
        self.db.sql("DROP FUNCTION of_author(rinq_request)")
        self.db.handler("of_author", "RETURN '\"mine\"';", role=self.plain)
        with self.assertRaisesRegex(RemoteError, "cannot be used"):
            self.remote.call("of.author", "x", timeout=20)
        self.db.sql("SELECT rinq_unlisten('of.author')", role=runner)
        self.db.sql("DROP FUNCTION of_author(rinq_request)")
        self.db.sql("DROP OWNED BY {0}, {1}; DROP ROLE {0}, {1}".format(author, runner))

    def test_handler_without_privilege_cannot_be_registered(self):
        self.db.handler("forbidden", "RETURN NULL;")
        self.db.sql("REVOKE EXECUTE ON FUNCTION forbidden(rinq_request) FROM PUBLIC")
        self.assertSqlState(self.db.error("SELECT rinq_listen('forbidden', 'forbidden(rinq_request)')", role=self.owner), "42501")

    def test_listener_of_another_role(self):
        """Neither replaced nor removed by somebody who is not a member of that role."""
        self.db.handler("mine", "RETURN '1';")
        self.db.listen("mine", "mine")
        self.db.handler("theirs", "RETURN '2';", role=self.owner)
        self.assertSqlState(self.db.error("SELECT rinq_listen('mine', 'theirs(rinq_request)')", role=self.owner), "42501")
        self.assertSqlState(self.db.error("SELECT rinq_unlisten('mine')", role=self.owner), "42501")
        self.assertEqual(self.remote.call("mine", "x", timeout=10), 1)

    def test_role_that_may_not_connect_any_more(self):
        """The caller gets an error, and the handler works again when the role may."""
        role = self.db.role("unwelcome_" + self.db.name)
        self.addCleanup(self.server.psql, "DROP ROLE " + role)
        self.addCleanup(self.db.sql, "DROP OWNED BY " + role)
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_listen(text, regprocedure, integer, boolean, interval, boolean, jsonb, text[]) TO " + role)
        self.db.handler("unwelcome", "RETURN '1';", role=role)
        self.db.listen("unwelcome", "unwelcome", role=role)
        changes = [("REVOKE CONNECT ON DATABASE %s FROM PUBLIC" % self.db.name, "GRANT CONNECT ON DATABASE %s TO PUBLIC" % self.db.name)]
        if versions.handlers_need_login():
            changes.append(("ALTER ROLE %s NOLOGIN" % role, "ALTER ROLE %s LOGIN" % role))
        for forbid, allow in changes:
            self.server.psql(forbid)
            self.server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'rinq executor'")
            with self.assertRaises(RemoteError):
                self.remote.call("unwelcome", "x", timeout=20)
            self.server.psql(allow)

            def answer():
                try:
                    return self.remote.call("unwelcome", "x", timeout=20)
                except RemoteError:
                    return None
            wait_until(answer, lambda value: value == 1, timeout=30, description="the handler to run again")

    # as whom handlers run

    def test_handler_runs_as_the_role_that_registered_it(self):
        self.as_owner("whoami", "RETURN jsonb_build_array(current_user, session_user, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user));")
        self.assertEqual(self.remote.call("whoami", "x", timeout=10), [self.owner, self.owner, False])

    def test_handler_cannot_become_anybody_else(self):
        attempts = ("SET ROLE postgres", "SET SESSION AUTHORIZATION postgres", "SET LOCAL SESSION AUTHORIZATION DEFAULT", "RESET ROLE",
                    "RESET SESSION AUTHORIZATION", "ALTER ROLE %s SUPERUSER" % self.owner, "SELECT passwd FROM pg_shadow",
                    "COPY (SELECT 1) TO PROGRAM 'true'", "LOAD 'rinq'", "ALTER SYSTEM SET work_mem = '1MB'",
                    "SELECT pg_read_file('postgresql.conf')")
        self.as_owner("escape", "BEGIN EXECUTE req.payload #>> '{}'; EXCEPTION WHEN OTHERS THEN NULL; END;"
                                " RETURN jsonb_build_array(current_user, (SELECT rolsuper FROM pg_roles WHERE rolname = current_user));")
        for sql in attempts:
            self.assertEqual(self.remote.call("escape", "x", sql, timeout=10), [self.owner, False], sql)
            self.assertEqual(self.remote.call("escape", "x", "SELECT 1", timeout=10), [self.owner, False], "after " + sql)

    def test_handlers_of_several_roles(self):
        other = self.db.role("other_" + self.db.name)
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_listen(text, regprocedure, integer, boolean, interval, boolean, jsonb, text[]) TO " + other)
        for role in (self.owner, other):
            self.db.handler("as_" + role, "RETURN to_jsonb(current_user::text);", role=role)
            self.db.listen("as_" + role, "as_" + role, role=role)
        for _ in range(3):
            for role in (self.owner, other):
                self.assertEqual(self.remote.call("as_" + role, "x", timeout=10), role)

    def test_temporary_objects_of_one_role_are_not_seen_by_another(self):
        self.as_owner("leaves", "CREATE TEMP TABLE pg_class_shadow (x int); RETURN to_jsonb(pg_my_temp_schema()::int);")
        self.remote.call("leaves", "x", timeout=10)
        self.db.handler("looks", "RETURN to_jsonb(to_regclass('pg_class_shadow') IS NULL);")
        self.db.listen("looks", "looks")
        self.assertIs(self.remote.call("looks", "x", timeout=10), True)

    def test_role_without_login(self):
        """Refused clearly at registration where there is no session of such a role; its handler runs as that role where there is."""
        role = self.db.role("nologin_" + self.db.name, "NOLOGIN")
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_listen(text, regprocedure, integer, boolean, interval, boolean, jsonb, text[]) TO " + role)
        with self.db.session() as session:
            session.execute("SET ROLE " + role)
            session.execute("CREATE FUNCTION quiet(req rinq_request) RETURNS jsonb LANGUAGE sql AS 'SELECT to_jsonb(current_user::text)'")
            if versions.handlers_need_login():
                self.assertSqlState(session.error("SELECT rinq_listen('quiet', 'quiet(rinq_request)')"), "28000", "is not permitted to log in")
                return
            session.execute("SELECT rinq_listen('quiet', 'quiet(rinq_request)')")
        self.assertEqual(self.remote.call("quiet", "x", timeout=10), role)

    def test_role_that_may_not_log_in_any_more(self):
        """From PostgreSQL 17 on that is about clients only: an executor that starts after it serves the role all the same."""
        role = self.db.role("retired_" + self.db.name)
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_listen(text, regprocedure, integer, boolean, interval, boolean, jsonb, text[]) TO " + role)
        self.db.handler("retired", "RETURN to_jsonb(session_user::text);", role=role)
        self.db.listen("retired", "retired", role=role)
        self.server.psql("ALTER ROLE %s NOLOGIN" % role)
        self.server.psql("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE backend_type = 'rinq executor'")
        if versions.handlers_need_login():
            with self.assertRaises(RemoteError):
                self.remote.call("retired", "x", timeout=20)
        else:
            self.assertEqual(self.remote.call("retired", "x", timeout=20), role)

    # what changes after registration

    def test_privilege_revoked(self):
        self.db.handler("revoked", "RETURN '1';")
        self.db.listen("revoked", "revoked", role=self.owner)
        self.assertEqual(self.remote.call("revoked", "x", timeout=10), 1)
        self.db.sql("REVOKE EXECUTE ON FUNCTION revoked(rinq_request) FROM PUBLIC")
        with self.assertRaisesRegex(RemoteError, "(?i)permission|privilege|handler|request"):
            self.remote.call("revoked", "x", timeout=10)
        self.server.wait_log("may not execute|permission denied", self.log_start)
        self.db.sql("GRANT EXECUTE ON FUNCTION revoked(rinq_request) TO PUBLIC")
        self.assertEqual(self.remote.call("revoked", "x", timeout=10), 1)

    def test_role_loses_its_login_or_disappears(self):
        role = self.db.role("leaver_" + self.db.name)
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_listen(text, regprocedure, integer, boolean, interval, boolean, jsonb, text[]) TO " + role)
        self.db.handler("leaver", "RETURN to_jsonb(current_user::text);")
        self.db.listen("leaver", "leaver", role=role)
        self.assertEqual(self.remote.call("leaver", "x", timeout=10), role)
        self.db.sql("DROP OWNED BY " + role)
        error = None
        try:
            self.db.sql("DROP ROLE " + role)
        except Exception as caught:
            error = caught
        if error is None:
            with self.assertRaises(RemoteError):
                self.remote.call("leaver", "x", timeout=10)
            self.server.wait_log("leaver|role", self.log_start)
        self.db.handler("stays", "RETURN '1';")
        self.db.listen("stays", "stays")
        self.assertEqual(self.remote.call("stays", "x", timeout=10), 1)

    def test_search_path_cannot_redirect_a_handler(self):
        """The handler is the function that was registered, whatever appears earlier in a search path later."""
        self.db.handler("pinned", "RETURN '\"original\"';")
        self.db.listen("pinned", "pinned")
        self.db.sql("CREATE SCHEMA earlier")
        self.db.sql("CREATE FUNCTION earlier.pinned(req rinq_request) RETURNS jsonb LANGUAGE sql AS $$ SELECT '\"impostor\"'::jsonb $$")
        self.server.psql("ALTER DATABASE %s SET search_path = earlier, public" % self.db.name)
        try:
            self.db.sql("SELECT rinq_unlisten('another')")
            self.assertEqual(self.remote.call("pinned", "x", timeout=10), "original")
        finally:
            self.server.psql("ALTER DATABASE %s RESET search_path" % self.db.name)

    # what nobody may see

    def test_credentials_are_hidden(self):
        password = self.world.broker.password
        for sql in ("SHOW rinq.amqp_dsn", "SELECT current_setting('rinq.amqp_dsn')"):
            self.assertSqlState(self.db.error(sql, role=self.plain), "42501")
        for role in ("postgres", self.plain, self.owner):
            for sql in ("SELECT * FROM pg_settings WHERE name LIKE 'rinq%'", "SELECT * FROM pg_stat_activity", "SHOW ALL"):
                self.assertNoSecret(str(self.db.sql(sql, role=role)), password)
        self.assertNoSecret(str(self.db.peer()), password)
        self.assertNoSecret(self.server.log_since(), password)
        listing = self.world.scratch.run(["ps", "-eo", "args"], cwd="/").stdout if self.has_ps() else ""
        self.assertNoSecret("\n".join(line for line in listing.splitlines() if "postgres" in line), password)

    @staticmethod
    def has_ps():
        import shutil
        return shutil.which("ps") is not None

    def test_credentials_are_hidden_when_the_setting_is_bad(self):
        mark = self.server.log_mark()
        good = self.world.broker.dsn(self.world.proxy.port)
        peer = self.db.wait_peer()
        try:
            self.server.configure(rinq__amqp_dsn="http://user:t0p-s3cret@nowhere/")
            self.server.wait_log(r"rinq\.amqp_dsn", mark)
            self.assertNoSecret(self.server.log_since(mark), "t0p-s3cret")
        finally:
            self.server.configure(rinq__amqp_dsn=good)
        # the old value stays in force
        self.assertEqual(self.db.peer()["peer_id"], peer["peer_id"])

    def test_settings_cannot_be_set_by_anybody(self):
        for name in ("rinq.amqp_dsn", "rinq.max_payload", "rinq.command_workers"):
            error = self.db.error("SET %s = '1'" % name, role=self.plain)
            self.assertIn(error.sqlstate, ("42501", "55P02"), error.text)
        self.db.sql("SET rinq.default_timeout = '1s'", role=self.plain)

    def test_pg_monitor_sees_the_peer(self):
        self.db.sql("GRANT pg_monitor TO " + self.plain)
        try:
            self.assertEqual(self.db.value("SELECT state FROM rinq_peer", role=self.plain), "connected")
        finally:
            self.db.sql("REVOKE pg_monitor FROM " + self.plain)
        wait_until(lambda: self.db.error("SELECT * FROM rinq_peer", role=self.plain).sqlstate == "42501", description="the refusal")


class Intruders(case.OwnDatabaseCase):
    """What roles try with privileges that they were given."""

    def attacker(self):
        role = self.db.role("attacker_" + self.db.name)
        self.addCleanup(self.server.psql, "DROP ROLE " + role)
        self.addCleanup(self.db.sql, "DROP OWNED BY " + role)
        self.db.sql("GRANT EXECUTE ON FUNCTION rinq_listen(text, regprocedure, integer, boolean, interval, boolean, jsonb, text[]) TO " + role)
        self.db.sql("CREATE SCHEMA own AUTHORIZATION " + role)
        return role

    def test_type_of_the_same_name(self):
        role = self.attacker()
        self.db.sql("CREATE TYPE own.rinq_request AS (id text, source text, namespace text, command text, payload jsonb,"
                    " trace_id text, deadline text, is_response_required text)", role=role)
        self.db.sql("CREATE FUNCTION own.f(r own.rinq_request) RETURNS jsonb LANGUAGE sql AS 'SELECT NULL::jsonb'", role=role)
        self.assertSqlState(self.db.error("SELECT rinq_listen('crash', 'own.f(own.rinq_request)')", role=role), "42P13")

    def test_type_that_was_changed(self):
        """Nobody but a superuser can, but even then the server lives."""
        self.db.handler("changed", "RETURN '1';")
        self.db.listen("changed", "changed")
        self.assertEqual(self.remote.call("changed", "x", timeout=20), 1)
        self.db.sql("ALTER TYPE rinq_request ALTER ATTRIBUTE deadline TYPE text CASCADE")
        with self.assertRaises(RemoteError):
            self.remote.call("changed", "x", timeout=20)
        self.db.sql("ALTER TYPE rinq_request ALTER ATTRIBUTE deadline TYPE timestamptz CASCADE")
        self.assertEqual(self.remote.call("changed", "x", timeout=20), 1)

    def test_listeners_written_directly(self):
        role = self.attacker()
        self.server.psql("GRANT pg_write_all_data, pg_read_all_data TO " + role)
        self.db.sql("GRANT ALL ON rinq_internal.listener TO " + role)
        for sql in ("INSERT INTO rinq_internal.listener VALUES ('evil', 'own.f(public.rinq_request)', 'postgres', 'postgres')",
                    "DELETE FROM rinq_internal.listener", "UPDATE rinq_internal.listener SET role = 'postgres'", "TRUNCATE rinq_internal.listener"):
            self.assertSqlState(self.db.error(sql, role=role), "42501")

    def test_triggers_on_the_tables(self):
        """Nothing of a role that got privileges on everything runs as the owner of the extension, or at all."""
        role = self.attacker()
        self.db.sql("GRANT USAGE ON SCHEMA rinq_internal TO {0}; GRANT ALL ON ALL TABLES IN SCHEMA public, rinq_internal TO {0};"
                    "GRANT ALL ON ALL SEQUENCES IN SCHEMA public, rinq_internal TO {0}; GRANT ALL ON ALL FUNCTIONS IN SCHEMA public TO {0}".format(role))
        self.db.handler("attacked", "RETURN '1';")
        self.db.sql("CREATE FUNCTION attacked_too(n rinq_notification) RETURNS void LANGUAGE sql AS ''")
        self.db.sql("SELECT rinq_listen('attacked', 'attacked(rinq_request)', deduplicate => true)")
        self.assertEqual(self.remote.call("attacked", "x", timeout=20), 1)
        session = self.db.value("SELECT rinq_session_create()")
        self.db.sql("SELECT rinq_session_listen('%s', 'attacked', NULL, 'attacked')" % session)
        self.db.sql("CREATE FUNCTION own.evil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                    " EXECUTE 'ALTER ROLE %s SUPERUSER'; RETURN coalesce(NEW, OLD); END $$" % role, role=role)
        for kind in "rows", "statements":
            self.db.sql("DO $$ DECLARE t regclass; BEGIN FOR t IN SELECT oid FROM pg_class WHERE relnamespace = 'rinq_internal'::regnamespace"
                        " AND relkind = 'r' LOOP EXECUTE format('CREATE TRIGGER %s BEFORE INSERT OR UPDATE OR DELETE ON %%s FOR EACH %s"
                        " EXECUTE FUNCTION own.evil()', t); END LOOP; END $$" % (kind, kind[:-1].upper()), role=role)
        listen = "SELECT rinq_listen('attacked.%s', 'attacked(rinq_request)')"
        for sql in (listen % "x", "SELECT rinq_unlisten('attacked')", "SELECT rinq_subscribe('x', 'x', 'attacked_too(rinq_notification)')",
                    "SELECT rinq_unsubscribe('x')", "SELECT rinq_execute('attacked', 'x')",
                    "SELECT rinq_outbox_dead_letter_retry('1-0001.1@0#1')", "SELECT rinq_outbox_dead_letter_delete('1-0001.1@0#1')",
                    "SELECT rinq_inbox_dead_letter_retry('1-0001.1@0#1')", "SELECT rinq_inbox_dead_letter_delete('1-0001.1@0#1')"):
            self.assertSqlState(self.db.error(sql), "55000", "not as rinq made it")
            self.assertSqlState(self.db.error(sql, role=role), "55000", "not as rinq made it")
        with self.assertRaises(RemoteError):
            self.remote.call("attacked", "x", timeout=20)
        mark = self.server.log_mark()
        self.db.sql("SELECT rinq_notify('attacked', 'x', '%s', to_jsonb(repeat('x', 9000)))" % session)
        self.server.wait_log('table "rinq_internal.stored_notification" is not used', mark)
        self.assertEqual(self.db.value("SELECT rolsuper FROM pg_roles WHERE rolname = '%s'" % role), "f")
        self.assertEqual(int(self.db.value("SELECT count(*) FROM rinq_check() WHERE message ~ 'the trigger'")),
                         int(self.db.value("SELECT count(*) FROM rinq_internal.manifest")))
        self.db.sql("DROP FUNCTION own.evil CASCADE")
        self.assertEqual(self.remote.call("attacked", "x", timeout=20), 1)
        self.db.sql("SELECT rinq_unlisten('attacked'), rinq_session_destroy('%s')" % session)

    def test_name_of_a_dropped_handler(self):
        """Whoever creates a function of that name does not get to run as the role that registered the first."""
        role = self.attacker()
        self.db.sql("GRANT CREATE ON SCHEMA public TO " + role)
        create = "CREATE FUNCTION public.taken_over(req rinq_request) RETURNS jsonb LANGUAGE sql AS 'SELECT to_jsonb(current_user::text)'"
        self.db.sql(create)
        self.db.listen("taken-over", "taken_over")
        self.assertEqual(self.remote.call("taken-over", "x", timeout=20), "postgres")
        self.db.sql("DROP FUNCTION public.taken_over(rinq_request)")
        self.db.sql(create, role=role)
        with self.assertRaises(RemoteError):
            self.remote.call("taken-over", "x", timeout=20)
        # the owner himself may make it anew
        self.db.sql("DROP FUNCTION public.taken_over(rinq_request)", role=role)
        self.db.sql(create)
        self.assertEqual(self.remote.call("taken-over", "x", timeout=20), "postgres")


class SettingsForClients(case.OwnDatabaseCase):
    """ALTER ROLE and ALTER DATABASE ... SET role: clients become another role, and neither workers nor handlers do."""

    def setUp(self):
        super().setUp()
        self.roles = [self.db.role(name + "_" + self.db.name, options) for name, options in
                      (("handling", "LOGIN"), ("other", "LOGIN"), ("dba", "LOGIN SUPERUSER"))]
        self.handling, self.other, self.dba = self.roles
        self.db.sql("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO %s; GRANT %s TO %s;"
                    "CREATE TABLE ended_as (role name, payload jsonb); GRANT INSERT ON ended_as TO PUBLIC" % (self.handling, self.other, self.handling))
        self.db.handler("whoami", "RETURN jsonb_build_array(current_user, session_user);", role=self.handling)
        self.db.sql("CREATE FUNCTION ended(r rinq_response) RETURNS void LANGUAGE sql AS 'INSERT INTO ended_as VALUES (current_user, r.payload)'", self.handling)

    def tearDown(self):
        super().tearDown()
        self.db.drop()
        self.server.psql("; ".join("DROP ROLE " + role for role in self.roles))

    def set_role(self, whose, role):
        self.db.sql("ALTER %s SET role = '%s'" % (whose, role), self.dba)

    def check(self):
        """What was registered and called as a role is handled as that role, whatever it is set to be."""
        self.db.sql("SET role = 'none'; SELECT rinq_listen('whoami', 'whoami(rinq_request)')", self.handling)
        self.assertEqual(self.remote.call("whoami", "x", timeout=20), [self.handling, self.handling])
        self.db.sql("SET role = 'none'; SELECT rinq_call_durable('whoami', 'x', on_response => 'ended(rinq_response)')", self.handling)
        wait_until(lambda: self.db.json("SELECT jsonb_agg(e) FROM ended_as e", self.dba),
                   lambda rows: rows == [{"role": self.handling, "payload": [self.handling, self.handling]}], 20, "the outcome to be handled")

    def test_of_a_role(self):
        self.set_role("ROLE %s IN DATABASE %s" % (self.handling, self.db.name), self.other)
        self.check()

    def test_of_a_database(self):
        """Its owner may do so; what reads the extension's tables is the superuser all the same."""
        self.set_role("ROLE %s IN DATABASE %s" % (self.dba, self.db.name), "none")
        self.set_role("DATABASE " + self.db.name, self.other)
        self.check()


class Lookalikes(case.Case):
    """Objects by the names of those that the extension uses."""

    def test_functions_of_others_in_the_schema(self):
        """A closer match than PostgreSQL's own function must not be what the extension's views call."""
        db = self.database(extension=False)
        db.sql("CREATE FUNCTION public.pg_has_role(regrole, text) RETURNS boolean LANGUAGE sql AS 'SELECT true';"
               "CREATE FUNCTION public.pg_has_role(regrole, name) RETURNS boolean LANGUAGE sql AS 'SELECT true'")
        db.sql("CREATE EXTENSION rinq")
        self.assertEqual(db.sql("DROP FUNCTION public.pg_has_role(regrole, text); DROP FUNCTION public.pg_has_role(regrole, name)"), [])
