"""An executor handles one request after another: nothing that one leaves in the process is found by the next.

Each case leaves something, once in a request that commits and once in one that fails, and then looks. There is one
executor only, so that the same process looks, unless it is one of those things that end it.
"""

from rinqtest import case
from rinqtest.peer import RemoteError

# name: (SQL that leaves something, SQL that looks, what it must find)
STAYS = {
    "setting": ("SET work_mem = '1MB'", "SHOW work_mem", "4MB"),
    "setting by function": ("SELECT set_config('search_path', 'nowhere', false)", "SHOW search_path", '"$user", public'),
    "timeouts": ("SET statement_timeout = 1; SET lock_timeout = 1", "SELECT current_setting('statement_timeout') || current_setting('lock_timeout')", "00"),
    "characteristics": ("SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE",
                        "SELECT current_setting('transaction_read_only') || current_setting('transaction_isolation')", "offread committed"),
    "known custom setting": ("SET app.known = 'acme'", "SELECT current_setting('app.known')", "nobody"),
    "replication role": ("SET session_replication_role = replica", "SHOW session_replication_role", "origin"),
    "synchronous commit": ("SET synchronous_commit = off", "SHOW synchronous_commit", "on"),
    "role": ("SET ROLE {role}", "SELECT current_user::text || current_setting('role')", "postgresnone"),
    "session authorization": ("SET SESSION AUTHORIZATION {role}", "SELECT session_user::text || current_user::text", "postgrespostgres"),
    "session authorization after a change of roles": ("ALTER ROLE {role} CONNECTION LIMIT 100; SET SESSION AUTHORIZATION {role}",
                                                     "SELECT session_user::text || current_user::text", "postgrespostgres"),
    "setting at commit": ("INSERT INTO late VALUES ($$SET work_mem = '1MB'$$)", "SHOW work_mem", "4MB"),
    "setting by function at commit": ("INSERT INTO late VALUES ($$SELECT set_config('search_path', 'nowhere', false)$$)",
                                      "SHOW search_path", '"$user", public'),
    "role at commit": ("INSERT INTO late VALUES ('SET ROLE {role}')", "SELECT current_user::text", "postgres"),
    "session authorization at commit": ("INSERT INTO late VALUES ('SET SESSION AUTHORIZATION {role}')",
                                        "SELECT session_user::text || current_user::text", "postgrespostgres"),
    "prepared statement": ("PREPARE p AS SELECT 1", "SELECT count(*) FROM pg_prepared_statements", "0"),
    "cursor": ("DECLARE c CURSOR WITH HOLD FOR SELECT 1", "SELECT count(*) FROM pg_cursors WHERE is_holdable", "0"),
    "temporary table": ("CREATE TEMP TABLE t (x int)", "SELECT to_regclass('pg_temp.t') IS NULL", "true"),
    "temporary function": ("CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
                           "SELECT to_regprocedure('pg_temp.f()') IS NULL", "true"),
    "temporary type": ("CREATE TYPE pg_temp.e AS ENUM ('a')", "SELECT to_regtype('pg_temp.e') IS NULL", "true"),
    "advisory lock": ("SELECT pg_advisory_lock(4711), pg_advisory_lock_shared(4712)", "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'", "0"),
    "currval": ("SELECT nextval('numbers')", "SELECT value('SELECT currval(''numbers'')')", "55000"),
    "lastval": ("SELECT nextval('numbers')", "SELECT value('SELECT lastval()')", "55000"),
    "seed": ("SELECT setseed(0.5)", "SELECT random() = {seeded}", "false"),
    "replication slot": ("SELECT pg_create_physical_replication_slot('s', true, true)",
                         "SELECT count(*) FROM pg_replication_slots", "0"),
    "trace id": ("SET rinq.trace_id = 'left'", "SELECT rinq_trace_id() = 'left'", "false"),
    "session": ("SELECT kept(rinq_session())", "SELECT rinq_session() = kept()", "false"),
    "session's attributes": ("SELECT kept(rinq_session()), rinq_session_update(rinq_session(), 'ns', '{{\"tenant\": \"acme\"}}'::jsonb)",
                             "SELECT rinq_session_get(rinq_session(), 'ns', 'tenant') || value(format('SELECT rinq_session_get(%L, ''ns'', ''tenant'')', kept()))", "RQ007"),
    "session that listens": ("SELECT kept(rinq_session()), rinq_session_listen(rinq_session(), 'ns')",
                             "SELECT value('SELECT rinq_notifications()')", "55000"),
    "asynchronous call": ("SELECT kept(rinq_call_async('elsewhere', 'x', '1'::jsonb, '20 s'))", "SELECT value(format('SELECT rinq_await(%L)', kept()))", "42704"),
    "asynchronous call to cancel": ("SELECT kept(rinq_call_async('elsewhere', 'x', '1'::jsonb, '20 s'))", "SELECT rinq_cancel(kept())", "false"),
    "failure": ("SELECT value($$SELECT rinq_fail('left')$$)", "SELECT (rinq_last_failure()).type IS NULL", "true"),
}

ENDS = {
    "custom setting": ("SET app.tenant = 'acme'", "SELECT current_setting('app.tenant', true) IS NULL", "true"),
    "local custom setting": ("SET LOCAL app.tenant = 'acme'", "SELECT current_setting('app.tenant', true) IS NULL", "true"),
    "custom setting by function": ("SELECT set_config('app.tenant', 'acme', true)", "SELECT current_setting('app.tenant', true) IS NULL", "true"),
    "custom setting of a function": ("SELECT with_setting()", "SELECT current_setting('app.tenant', true) IS NULL", "true"),
    "custom setting at commit": ("INSERT INTO late VALUES ('SET app.tenant = ''acme''')", "SELECT current_setting('app.tenant', true) IS NULL", "true"),
    "replication origin": ("SELECT pg_replication_origin_session_setup('o')", "SELECT pg_replication_origin_session_is_setup()", "false"),
    "backup": ("SELECT pg_backup_start('b', true)", "SELECT value('SELECT pg_backup_stop()')", "55000"),
}


class State(case.PeerCase):
    @classmethod
    def make_world(cls):
        return case.new_world("state", settings={"rinq.command_workers": "1"})

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        db = cls.db
        cls.role = db.role("somebody")
        cls.seeded = db.sql("SELECT setseed(0.5); SELECT random()")[-1][0]
        db.sql("ALTER DATABASE %s SET app.known = 'nobody'" % db.name)
        db.sql("CREATE SEQUENCE numbers; CREATE TABLE kept (id text); CREATE TABLE late (command text);"
               "GRANT ALL ON ALL TABLES IN SCHEMA public TO somebody; SELECT pg_replication_origin_create('o')")
        db.sql("CREATE FUNCTION with_setting() RETURNS void LANGUAGE sql SET app.tenant = 'acme' AS ''")
        # what is to be looked at later is kept outside of the transaction, which may fail
        db.sql("CREATE EXTENSION dblink")
        db.sql("""CREATE FUNCTION kept(id text) RETURNS void LANGUAGE plpgsql AS $$
            BEGIN PERFORM dblink_exec('dbname=' || current_database() || ' host=' || current_setting('unix_socket_directories') || ' port=' || current_setting('port'),
                                      format('DELETE FROM kept; INSERT INTO kept VALUES (%L)', id)); END $$""")
        db.sql("CREATE FUNCTION kept() RETURNS text LANGUAGE sql AS 'SELECT id FROM kept'")
        db.sql("""CREATE FUNCTION value(query text) RETURNS text LANGUAGE plpgsql AS $$
            DECLARE result text; BEGIN EXECUTE query INTO result; RETURN result; EXCEPTION WHEN OTHERS THEN RETURN SQLSTATE; END $$""")
        db.sql("""CREATE FUNCTION run_late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN EXECUTE new.command; RETURN NULL; END $$""")
        db.sql("CREATE CONSTRAINT TRIGGER run_late AFTER INSERT ON late DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION run_late()")
        db.handler("state", """EXECUTE req.payload->>'sql';
            IF req.command = 'fail' THEN RAISE EXCEPTION 'as told'; END IF;
            RETURN to_jsonb(pg_backend_pid());""")
        db.handler("look", "EXECUTE req.payload #>> '{}' INTO result; RETURN jsonb_build_array(result, pg_backend_pid());", "result text;")
        db.listen("state", "state")
        db.listen("look", "look")

    def look(self, sql):
        return self.remote.call("look", "x", sql, timeout=20)

    def leave(self, command, sql):
        try:
            self.remote.call("state", command, {"sql": sql.format(role=self.role)}, timeout=20)
            self.assertEqual(command, "leave")
        except RemoteError as error:
            self.assertEqual(str(error), "as told" if command == "fail" else "")

    def check(self, sql, look, expected, ends):
        for command in ("leave", "fail"):
            pid = self.look("SELECT 1")[1]
            self.leave(command, sql)
            found = self.look(look.replace("{seeded}", self.seeded))
            self.assertEqual(found[0], expected)
            # what fails before its commit does nothing at its commit
            if command == "leave" or "late" not in sql:
                self.assertEqual(found[1] != pid, ends, "whether the executor has ended")


def _add(name, arguments, ends):
    def test(self):
        self.check(*arguments, ends)
    setattr(State, "test_" + "_".join(name.replace("'", "").split()), test)


for _name, _arguments in STAYS.items():
    _add(_name, _arguments, False)
for _name, _arguments in ENDS.items():
    _add(_name, _arguments, True)
