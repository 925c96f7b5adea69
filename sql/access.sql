-- what a role cannot do with the extension's relations, although it was given all privileges on them
\set VERBOSITY terse
CREATE ROLE regress_rinq_app;
GRANT ALL ON ALL TABLES IN SCHEMA public TO regress_rinq_app;
GRANT CREATE ON SCHEMA public TO regress_rinq_app;
CREATE FUNCTION handler(req rinq_request) RETURNS jsonb LANGUAGE sql AS 'SELECT req.payload';
CREATE FUNCTION evil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'ran as %', current_user; END $$;

-- triggers on views would run as whoever writes to these
SET ROLE regress_rinq_app;
CREATE TRIGGER e INSTEAD OF DELETE ON rinq_listeners FOR EACH ROW EXECUTE FUNCTION evil();
CREATE TRIGGER e BEFORE UPDATE ON rinq_outbox FOR EACH STATEMENT EXECUTE FUNCTION evil();
CREATE VIEW own_view AS SELECT 1 AS one WHERE EXISTS (SELECT FROM rinq_outbox);
CREATE TRIGGER e INSTEAD OF DELETE ON own_view FOR EACH ROW EXECUTE FUNCTION evil();
DROP TRIGGER e ON own_view;
RESET ROLE;
CREATE TRIGGER e INSTEAD OF DELETE ON rinq_listeners FOR EACH ROW EXECUTE FUNCTION evil();
SELECT tgname FROM pg_trigger WHERE tgrelid IN (SELECT oid FROM pg_class WHERE relname ~ '^rinq_');

-- locks of views are locks of what they read
SET ROLE regress_rinq_app;
CREATE VIEW own_view_of_view AS WITH w AS (SELECT one FROM own_view) SELECT (SELECT min(one) FROM w) AS one;
CREATE VIEW own_view_of_nothing AS SELECT 1 AS one FROM pg_class;
CREATE TABLE own_table (one int);
BEGIN;
LOCK TABLE rinq_outbox;
ROLLBACK;
BEGIN;
LOCK TABLE own_table, own_view_of_view IN ROW SHARE MODE;
ROLLBACK;
DO $$ BEGIN LOCK TABLE rinq_inbox_handled IN SHARE MODE NOWAIT; END $$;
BEGIN;
LOCK TABLE own_view_of_view, rinq_outbox IN ACCESS SHARE MODE;
LOCK TABLE own_table;
LOCK TABLE no_table;
ROLLBACK;
DROP VIEW own_view_of_view, own_view, own_view_of_nothing;
DROP TABLE own_table;
RESET ROLE;
BEGIN;
LOCK TABLE rinq_outbox;
ROLLBACK;
GRANT pg_write_all_data TO regress_rinq_app;
SET ROLE regress_rinq_app;
BEGIN;
LOCK TABLE rinq_internal.listener;
ROLLBACK;
RESET ROLE;

-- nothing is numbered by what such a role can set
SELECT relname FROM pg_class WHERE relnamespace = 'rinq_internal'::regnamespace AND relkind = 'S';

-- a function of the extension is not used for what it is not for
GRANT USAGE ON SCHEMA rinq_internal TO regress_rinq_app;
GRANT ALL ON ALL TABLES IN SCHEMA rinq_internal TO regress_rinq_app;
GRANT ALL ON ALL FUNCTIONS IN SCHEMA rinq_internal TO regress_rinq_app;
SET ROLE regress_rinq_app;
CREATE TRIGGER e BEFORE INSERT ON rinq_internal.listener FOR EACH ROW EXECUTE FUNCTION rinq_internal.listener_changed();
CREATE TRIGGER e BEFORE INSERT ON rinq_internal.outbox_0 FOR EACH ROW EXECUTE FUNCTION rinq_internal.guard();
CREATE TRIGGER e BEFORE INSERT ON rinq_internal.subscription FOR EACH ROW EXECUTE FUNCTION rinq_internal.keep_local();
RESET ROLE;
SELECT rinq_listen('access', 'handler(rinq_request)');
SELECT rinq_execute('access', 'x');
SELECT rinq_unsubscribe('access');
SELECT DISTINCT message FROM rinq_check() WHERE severity = 'error' AND message !~ 'privilege';
DROP TRIGGER e ON rinq_internal.listener;
DROP TRIGGER e ON rinq_internal.outbox_0;
DROP TRIGGER e ON rinq_internal.subscription;

-- nor one that somebody made in the schema of the tables
GRANT CREATE ON SCHEMA rinq_internal TO regress_rinq_app;
SET ROLE regress_rinq_app;
CREATE FUNCTION rinq_internal.keep_local_too() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'ran as %', current_user; END $$;
CREATE TRIGGER e AFTER INSERT ON rinq_internal.listener FOR EACH STATEMENT EXECUTE FUNCTION rinq_internal.keep_local_too();
RESET ROLE;
SELECT rinq_listen('access', 'handler(rinq_request)');
DROP FUNCTION rinq_internal.keep_local_too() CASCADE;
DROP OWNED BY regress_rinq_app;
DROP ROLE regress_rinq_app;
SELECT rinq_listen('access', 'handler(rinq_request)');
SELECT rinq_unlisten('access');
DROP FUNCTION handler, evil;
SELECT * FROM rinq_check();

-- what is attached to a table does not keep others from renaming what is theirs
CREATE ROLE regress_rinq_app;
GRANT USAGE ON SCHEMA rinq_internal TO regress_rinq_app;
GRANT TRIGGER ON ALL TABLES IN SCHEMA rinq_internal TO regress_rinq_app;
CREATE FUNCTION evil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'ran as %', current_user; END $$;
CREATE FUNCTION handler(req rinq_request) RETURNS jsonb LANGUAGE sql AS 'SELECT req.payload';
SELECT rinq_listen('access', 'handler(rinq_request)');
SET ROLE regress_rinq_app;
CREATE TRIGGER e AFTER UPDATE ON rinq_internal.listener FOR EACH ROW EXECUTE FUNCTION evil();
RESET ROLE;
CREATE FUNCTION other() RETURNS int LANGUAGE sql AS 'SELECT 1';
ALTER FUNCTION other RENAME TO another;
ALTER FUNCTION handler RENAME TO handler_too;
DROP TRIGGER e ON rinq_internal.listener;
ALTER FUNCTION handler RENAME TO handler_too;
SELECT handler FROM rinq_listeners;
SELECT rinq_unlisten('access');
DROP OWNED BY regress_rinq_app;
DROP FUNCTION another, handler_too, evil;

-- the owner of the extension, if he is not a superuser, gets no rights of others by writing its tables
DROP EXTENSION rinq;
CREATE ROLE regress_rinq_dba SUPERUSER;
CREATE ROLE regress_rinq_other LOGIN;
CREATE ROLE regress_rinq_member LOGIN;
GRANT regress_rinq_member TO regress_rinq_app;
SET ROLE regress_rinq_dba;
CREATE EXTENSION rinq;
RESET ROLE;
REASSIGN OWNED BY regress_rinq_dba TO regress_rinq_app;
GRANT CREATE ON SCHEMA public TO regress_rinq_app;
SET ROLE regress_rinq_app;
CREATE FUNCTION handler(req rinq_request) RETURNS jsonb LANGUAGE sql AS 'SELECT req.payload';
INSERT INTO rinq_internal.listener (namespace, handler, role, owner) VALUES
  ('access.member', 'public.handler(public.rinq_request)', 'regress_rinq_member', 'regress_rinq_app'),
  ('access.other', 'public.handler(public.rinq_request)', 'regress_rinq_other', 'regress_rinq_app');
RESET ROLE;
SELECT namespace, problem FROM rinq_listeners ORDER BY 1;
SELECT severity, subject, message FROM rinq_check();
DROP EXTENSION rinq CASCADE;
DROP OWNED BY regress_rinq_app, regress_rinq_dba;
DROP ROLE regress_rinq_app, regress_rinq_dba, regress_rinq_other, regress_rinq_member;
CREATE EXTENSION rinq;
