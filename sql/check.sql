-- what should not be, and that it is refused
\set VERBOSITY terse
SELECT * FROM rinq_check();

-- default privileges are taken away
CREATE ROLE regress_rinq_app LOGIN;
DROP EXTENSION rinq;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO regress_rinq_app, PUBLIC;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO regress_rinq_app;
ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO regress_rinq_app;
ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO regress_rinq_app;
ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO regress_rinq_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO regress_rinq_app WITH GRANT OPTION;
CREATE EXTENSION rinq;
SELECT * FROM rinq_check();
SELECT pg_describe_object(d.classid, d.objid, 0), a.privilege_type
FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
LEFT JOIN pg_class c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass
LEFT JOIN pg_proc p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
LEFT JOIN pg_type t ON t.oid = d.objid AND d.classid = 'pg_type'::regclass
LEFT JOIN pg_namespace n ON n.oid = d.objid AND d.classid = 'pg_namespace'::regclass
CROSS JOIN aclexplode(coalesce(c.relacl, p.proacl, t.typacl, n.nspacl)) a
WHERE e.extname = 'rinq' AND a.grantee = 'regress_rinq_app'::regrole;
SELECT c.oid::regclass FROM pg_class c JOIN pg_depend d ON d.objid = c.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'e'
JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'rinq'
CROSS JOIN aclexplode(c.relacl) a WHERE a.grantee = 0 ORDER BY c.relname;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM regress_rinq_app, PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON SEQUENCES FROM regress_rinq_app;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON FUNCTIONS FROM regress_rinq_app;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON TYPES FROM regress_rinq_app;
ALTER DEFAULT PRIVILEGES REVOKE ALL ON SCHEMAS FROM regress_rinq_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON TABLES FROM regress_rinq_app;

-- a schema made beforehand is an error
DROP EXTENSION rinq;
CREATE SCHEMA rinq_internal;
CREATE EXTENSION rinq;
SELECT count(*) FROM pg_class WHERE relname ~ '^rinq_';
DROP SCHEMA rinq_internal;
CREATE EXTENSION rinq;

-- blanket grants reach no table, and show nothing
GRANT ALL ON ALL TABLES IN SCHEMA public TO regress_rinq_app;
GRANT EXECUTE ON FUNCTION rinq_listen, rinq_unlisten, rinq_subscribe TO regress_rinq_app;
CREATE FUNCTION handler(req rinq_request) RETURNS jsonb LANGUAGE sql AS 'SELECT req.payload';
SELECT rinq_listen('not.shown', 'handler(rinq_request)');
INSERT INTO rinq_internal.inbox_dead_letter (id, digest, source, namespace, command, trace_id, handler, attempts, first_received, last_attempt, error, recorded)
VALUES ('58AEE146-191C.45@3#1', '', 'x', 'x', 'x', 'x', 'x', 1, '2020-01-01', '2020-01-01', 'x', '2020-01-01');
INSERT INTO rinq_internal.outbox_dead_letter (seq, id, namespace, command, database, attempts, error, set_aside)
VALUES (1, '58AEE146-191C.45@3#1', 'x', 'x', 1, 1, 'x', '2020-01-01');
SET ROLE regress_rinq_app;
SELECT * FROM rinq_internal.listener;
SELECT count(*) FROM rinq_listeners;
SELECT count(*) FROM rinq_outbox_dead_letter;
SELECT count(*) FROM rinq_inbox_dead_letter;
DELETE FROM rinq_listeners;
RESET ROLE;
SELECT count(*) FROM rinq_listeners;
SELECT id, created, attempts FROM rinq_outbox_dead_letter;
INSERT INTO rinq_internal.inbox_dead_letter (id, digest, source, namespace, command, trace_id, handler, attempts, first_received, last_attempt, error, recorded)
VALUES ('58AEE146-191C.45@3#2', '', 'x', 'x', 'x', 'x', 'x', 1, '2020-01-01', '2020-01-01', 'x', '2019-01-01');
SELECT severity, subject, message, hint FROM rinq_check() WHERE subject ~ 'dead_letter';
SELECT rinq_inbox_dead_letter_delete('58AEE146-191C.45@3#2');
SELECT rinq_outbox_dead_letter_delete('58AEE146-191C.45@3#1'), rinq_outbox_dead_letter_delete('58AEE146-191C.45@3#1');
SELECT rinq_inbox_dead_letter_delete('58AEE146-191C.45@3#1'), rinq_inbox_dead_letter_delete('58AEE146-191C.45@3#1');

-- what others have attached to a table is not run
CREATE FUNCTION evil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'ran as %', current_user; END $$;
GRANT USAGE ON SCHEMA rinq_internal TO regress_rinq_app;
GRANT TRIGGER, REFERENCES ON ALL TABLES IN SCHEMA rinq_internal TO regress_rinq_app;
GRANT CREATE ON SCHEMA public TO regress_rinq_app;
SET ROLE regress_rinq_app;
CREATE TRIGGER e BEFORE INSERT OR DELETE ON rinq_internal.listener FOR EACH ROW EXECUTE FUNCTION evil();
CREATE TRIGGER e BEFORE INSERT ON rinq_internal.outbox_0 FOR EACH ROW EXECUTE FUNCTION evil();
CREATE TRIGGER e BEFORE DELETE ON rinq_internal.outbox_dead_letter FOR EACH STATEMENT EXECUTE FUNCTION evil();
CREATE TRIGGER g BEFORE INSERT ON rinq_internal.subscription FOR EACH ROW EXECUTE FUNCTION rinq_internal.guard();
CREATE TABLE points_there (id text, digest bytea, FOREIGN KEY (id, digest) REFERENCES rinq_internal.inbox_dead_letter);
SELECT rinq_listen('x', 'handler(rinq_request)');
SELECT rinq_unlisten('x');
RESET ROLE;
\set VERBOSITY default
SELECT rinq_execute('x', 'y');
\set VERBOSITY terse
SELECT rinq_outbox_dead_letter_delete('58AEE146-191C.45@3#1');
SELECT rinq_outbox_dead_letter_retry('58AEE146-191C.45@3#1');
SELECT rinq_inbox_dead_letter_delete('58AEE146-191C.45@3#1');
SELECT severity, subject, message FROM rinq_check() WHERE message !~ 'TRIGGER|REFERENCES';
SELECT count(*) FROM rinq_check() WHERE message ~ 'TRIGGER|REFERENCES';
DROP TRIGGER e ON rinq_internal.listener;
DROP TRIGGER e ON rinq_internal.outbox_0;
DROP TRIGGER e ON rinq_internal.outbox_dead_letter;
DROP TABLE points_there;
DROP OWNED BY regress_rinq_app;
SELECT * FROM rinq_check();

-- nor what the owner has, by mistake
CREATE FUNCTION value() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'ran as %', current_user; END $$;
ALTER TABLE rinq_internal.listener ADD extra boolean DEFAULT false;
SELECT rinq_unlisten('x');
ALTER TABLE rinq_internal.listener DROP extra;
SELECT rinq_unlisten('x');
DROP EXTENSION rinq CASCADE;
CREATE EXTENSION rinq;
CREATE FUNCTION handler(req rinq_request) RETURNS jsonb LANGUAGE sql AS 'SELECT req.payload';
ALTER TABLE rinq_internal.listener ALTER deduplicate DROP DEFAULT;
SELECT rinq_listen('x', 'handler(rinq_request)');
ALTER TABLE rinq_internal.listener ALTER deduplicate SET DEFAULT false;
ALTER TABLE rinq_internal.listener ADD CONSTRAINT c CHECK (value());
SELECT rinq_listen('x', 'handler(rinq_request)');
ALTER TABLE rinq_internal.listener DROP CONSTRAINT c;
CREATE INDEX i ON rinq_internal.listener ((lower(handler)));
SELECT rinq_listen('x', 'handler(rinq_request)');
DROP INDEX rinq_internal.i;
CREATE RULE r AS ON INSERT TO rinq_internal.listener DO ALSO SELECT value();
SELECT rinq_listen('x', 'handler(rinq_request)');
DROP RULE r ON rinq_internal.listener;
ALTER TABLE rinq_internal.listener ENABLE ROW LEVEL SECURITY;
SELECT rinq_listen('x', 'handler(rinq_request)');
ALTER TABLE rinq_internal.listener DISABLE ROW LEVEL SECURITY;
CREATE TABLE child () INHERITS (rinq_internal.listener);
SELECT rinq_listen('x', 'handler(rinq_request)');
DROP TABLE child;
ALTER TABLE rinq_internal.listener OWNER TO regress_rinq_app;
SELECT rinq_listen('x', 'handler(rinq_request)');
SELECT severity, subject, message FROM rinq_check();
SELECT format('ALTER TABLE rinq_internal.listener OWNER TO %I', current_user) \gexec
SELECT rinq_listen('x', 'handler(rinq_request)');
SELECT rinq_unlisten('x');

-- no privilege is enough to write by hand
GRANT pg_write_all_data, pg_read_all_data TO regress_rinq_app;
SET ROLE regress_rinq_app;
INSERT INTO rinq_internal.outbox_1 (seq, id, namespace, command, database) VALUES (1, '1-0001.1@0#1', 'x', 'x', 1);
INSERT INTO rinq_internal.inbox_handled VALUES ('1-0001.1@0#1', '', 'x', now());
COPY rinq_internal.outbox_1 (seq, id) FROM stdin;
\.
UPDATE rinq_internal.inbox_attempt SET attempts = 0;
DELETE FROM rinq_internal.stored_notification;
DELETE FROM rinq_internal.manifest;
SELECT count(*) FROM rinq_internal.listener;
RESET ROLE;

-- names that may pass for the extension's
CREATE FUNCTION rinq_execute(text, text, bytea) RETURNS text LANGUAGE sql AS 'SELECT ''decoy''';
SELECT * FROM rinq_check();
DROP FUNCTION rinq_execute(text, text, bytea);
DROP FUNCTION evil, value, handler;
DROP ROLE regress_rinq_app;
