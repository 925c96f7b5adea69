-- foreign servers that say where the broker is: what may be said, by whom, and which of them is used
\set VERBOSITY default
\set SHOW_CONTEXT never
CREATE ROLE regress_rinq_app;
CREATE ROLE regress_rinq_owner;
CREATE ROLE regress_rinq_dba SUPERUSER;

-- options of servers
CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (hots 'a');
CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (host 'a');
CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (something 'else');
CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'a', password 's3cret');
CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS ("Hosts" 'a');
\set VERBOSITY terse
CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (hosts '');
\set VERBOSITY default
CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'a:b');
CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'a:70000');
CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'a,,b');
CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'a', heartbeat 'often');
CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'a', heartbeat '-1');
CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'a', connection_timeout '0');
CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'a', load_balance_hosts 'round');
CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'a', sslmode 'prefer');
CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'a', ssl_min_protocol_version 'SSLv3');
CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'a', sasl_mechanism 'GSSAPI');
CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'a', passfile 'x', password_file 'y');
ALTER FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'a');
CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'a:5671,b,[::1]:5672', vhost 'team', heartbeat '30', connection_timeout '2000',
    load_balance_hosts 'random', sslmode 'verify-full', sslrootcert 'system', sslcert 'c', sslkey 'k', sslcrl 'l', ssl_min_protocol_version 'TLSv1.3',
    sasl_mechanism 'PLAIN', passfile 'p');
ALTER SERVER bus OPTIONS (SET hosts 'x:y');
ALTER SERVER bus OPTIONS (ADD weight '1');
CREATE FOREIGN TABLE nothing (a int) SERVER bus;
IMPORT FOREIGN SCHEMA x FROM SERVER bus INTO public;
DROP SERVER bus;

-- options of user mappings
CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'a');
CREATE USER MAPPING FOR CURRENT_USER SERVER bus OPTIONS (usr 'u');
CREATE USER MAPPING FOR CURRENT_USER SERVER bus OPTIONS (hosts 'b');
CREATE USER MAPPING FOR CURRENT_USER SERVER bus OPTIONS (user '');
CREATE USER MAPPING FOR CURRENT_USER SERVER bus OPTIONS (user 'u', password 's3cret', passfile 'f');
CREATE USER MAPPING FOR CURRENT_USER SERVER bus OPTIONS (user 'u', password 's3cret');
-- whatever is wrong with a password, it is not repeated
SELECT repeat('s3cret', 2000) AS long \gset
ALTER USER MAPPING FOR CURRENT_USER SERVER bus OPTIONS (SET password :'long');
SELECT repeat('s3cret', 250) AS token \gset
ALTER USER MAPPING FOR CURRENT_USER SERVER bus OPTIONS (SET password :'token');
CREATE USER MAPPING FOR PUBLIC SERVER bus OPTIONS (user 'u', passfile '/run/secrets/broker');

-- a prepared transaction would take effect later
BEGIN;
ALTER SERVER bus OPTIONS (ADD vhost 'v');
PREPARE TRANSACTION 'regress_rinq';

-- nobody but superusers may make servers
SELECT has_foreign_data_wrapper_privilege('public', 'rinq', 'USAGE'), has_foreign_data_wrapper_privilege('regress_rinq_app', 'rinq', 'USAGE');
\set VERBOSITY terse
SET ROLE regress_rinq_app;
CREATE SERVER mine FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'evil');
ALTER SERVER bus OPTIONS (SET hosts 'evil');
ALTER SERVER bus OWNER TO regress_rinq_app;
ALTER SERVER bus RENAME TO other;
DROP SERVER bus CASCADE;
CREATE USER MAPPING FOR regress_rinq_app SERVER bus OPTIONS (user 'evil', password 'x');
CREATE USER MAPPING FOR PUBLIC SERVER bus OPTIONS (user 'evil', password 'x');
ALTER USER MAPPING FOR PUBLIC SERVER bus OPTIONS (SET user 'evil');
DROP USER MAPPING FOR PUBLIC SERVER bus;
ALTER FOREIGN DATA WRAPPER rinq NO VALIDATOR;
ALTER FOREIGN DATA WRAPPER rinq OWNER TO regress_rinq_app;
GRANT USAGE ON FOREIGN SERVER bus TO regress_rinq_app;
SELECT rinq_use_server('bus');
SELECT rinq_internal.server_validator('{}', 'pg_foreign_server'::regclass);
SELECT umoptions FROM pg_user_mappings WHERE srvname = 'bus';
SELECT count(*) FROM pg_user_mapping;
RESET ROLE;
-- nor with EXECUTE on all functions
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO regress_rinq_app;
SET ROLE regress_rinq_app;
SELECT rinq_use_server('bus');
SELECT rinq_use_server(NULL);
RESET ROLE;

-- USAGE of a server: a mapping of one's own, which is not the one that counts
GRANT USAGE ON FOREIGN SERVER bus TO regress_rinq_app;
SET ROLE regress_rinq_app;
CREATE USER MAPPING FOR regress_rinq_app SERVER bus OPTIONS (user 'evil', password 'x');
CREATE USER MAPPING FOR PUBLIC SERVER bus OPTIONS (user 'evil', password 'x');
ALTER USER MAPPING FOR regress_rinq_app SERVER bus OPTIONS (DROP password, ADD passfile '/etc/passwd');
SELECT usename = current_user AS mine, umoptions FROM pg_user_mappings WHERE srvname = 'bus' ORDER BY 1;
DROP USER MAPPING FOR regress_rinq_app SERVER bus;
RESET ROLE;

-- USAGE of the wrapper: servers of one's own, which do not count
GRANT USAGE ON FOREIGN DATA WRAPPER rinq TO regress_rinq_app;
SET ROLE regress_rinq_app;
CREATE SERVER mine FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'evil', passfile '/etc/passwd');
CREATE SERVER mine FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'evil', sslkey '/etc/passwd');
CREATE SERVER mine FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'evil', sslrootcert 'system', sslmode 'verify-full');
CREATE USER MAPPING FOR PUBLIC SERVER mine OPTIONS (user 'evil', password 'x');
\set VERBOSITY sqlstate
ALTER SERVER mine OWNER TO regress_rinq_dba;
\set VERBOSITY terse
RESET ROLE;
SELECT rinq_use_server('mine');
SELECT rinq_use_server('neither');
SELECT rinq_use_server('bus');
SELECT * FROM rinq_internal.chosen_server;
SELECT severity, subject, message, hint FROM rinq_check() WHERE subject ~ 'server|wrapper';
-- what was chosen is chosen under its new name
ALTER SERVER bus RENAME TO "the Bus";
SELECT * FROM rinq_internal.chosen_server;
ALTER SERVER mine RENAME TO bus;
SELECT * FROM rinq_internal.chosen_server;
-- a server that does not count does not become the chosen one by its name, nor move the choice
BEGIN;
DROP SERVER "the Bus" CASCADE;
ALTER SERVER bus RENAME TO "the Bus";
SET ROLE regress_rinq_app;
ALTER SERVER "the Bus" RENAME TO elsewhere;
RESET ROLE;
SELECT * FROM rinq_internal.chosen_server;
ROLLBACK;
SELECT rinq_use_server(NULL);
SELECT * FROM rinq_internal.chosen_server;
DROP SERVER bus CASCADE;
REVOKE USAGE ON FOREIGN DATA WRAPPER rinq FROM regress_rinq_app;

-- who may use the bus at all
CREATE FUNCTION handler(req rinq_request) RETURNS jsonb LANGUAGE sql AS 'SELECT req.payload';
CREATE FUNCTION on_notification(n rinq_notification) RETURNS void LANGUAGE sql AS '';
CREATE TABLE watched (a int);
GRANT INSERT ON watched TO regress_rinq_app;
REVOKE USAGE ON FOREIGN SERVER "the Bus" FROM regress_rinq_app;
\set VERBOSITY default
SET ROLE regress_rinq_app;
SELECT rinq_call('servers', 'x');
\set VERBOSITY terse
SELECT * FROM rinq_call_many('servers', 'x', '{null}');
SELECT rinq_call_async('servers', 'x');
SELECT rinq_execute('servers', 'x');
SELECT rinq_execute('servers', 'x', durable => false);
SELECT rinq_execute_many('servers', 'x', '{null}');
SELECT rinq_call_durable('servers', 'x');
SELECT rinq_notify('servers', 'x', '58AEE146-191C.45');
SELECT rinq_notify_many('servers', 'x', '{*}');
SELECT rinq_session();
SELECT rinq_session_create();
SELECT rinq_session_listen('58AEE146-191C.45', 'servers');
SELECT * FROM rinq_notifications();
SELECT rinq_listen('servers', 'handler(rinq_request)');
SELECT rinq_subscribe('servers', 'servers', 'on_notification(rinq_notification)');
SELECT rinq_unlisten('servers');
RESET ROLE;
-- a grant, also one by membership, takes effect at once, and so does its end
GRANT USAGE ON FOREIGN SERVER "the Bus" TO regress_rinq_owner;
GRANT regress_rinq_owner TO regress_rinq_app;
SET ROLE regress_rinq_app;
BEGIN;
SELECT count(rinq_execute('servers', 'x'));
ROLLBACK;
RESET ROLE;
REVOKE regress_rinq_owner FROM regress_rinq_app;
SET ROLE regress_rinq_app;
SELECT rinq_execute('servers', 'x');
RESET ROLE;
-- a function of somebody who may
CREATE FUNCTION send() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS $$ SELECT count(rinq_execute('servers', 'x')) $$;
SET ROLE regress_rinq_app;
BEGIN;
SELECT send();
ROLLBACK;
RESET ROLE;
-- whatever the wrapper is called
BEGIN;
ALTER FOREIGN DATA WRAPPER rinq RENAME TO other;
SET ROLE regress_rinq_app;
SELECT rinq_execute('servers', 'x');
ROLLBACK;
-- with a choice among several, the one that was chosen
CREATE SERVER second FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'b');
GRANT USAGE ON FOREIGN SERVER second TO regress_rinq_app;
SET ROLE regress_rinq_app;
SELECT rinq_execute('servers', 'x');
RESET ROLE;
SELECT rinq_use_server('second');
SET ROLE regress_rinq_app;
BEGIN;
SELECT count(rinq_execute('servers', 'x'));
ROLLBACK;
RESET ROLE;
-- the one that was chosen is lost
DROP SERVER second CASCADE;
SET ROLE regress_rinq_app;
SELECT rinq_execute('servers', 'x');
RESET ROLE;
SELECT severity, subject, message, hint FROM rinq_check() WHERE subject ~ 'server|wrapper';
SELECT rinq_use_server(NULL);
-- handlers
ALTER ROLE regress_rinq_app LOGIN;
GRANT USAGE ON FOREIGN SERVER "the Bus" TO regress_rinq_app;
SET ROLE regress_rinq_app;
SELECT rinq_listen('servers', 'handler(rinq_request)');
RESET ROLE;
REVOKE USAGE ON FOREIGN SERVER "the Bus" FROM regress_rinq_app;
SELECT problem FROM rinq_listeners WHERE namespace = 'servers';
SELECT rinq_unlisten('servers');
-- without a server, everything is as before
DROP SERVER "the Bus" CASCADE;
SET ROLE regress_rinq_app;
BEGIN;
SELECT count(rinq_execute('servers', 'x'));
ROLLBACK;
RESET ROLE;

-- a trigger sends for the owner of its table, whoever writes
CREATE SERVER bus FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'a');
CREATE TRIGGER t AFTER INSERT ON watched FOR EACH ROW EXECUTE FUNCTION rinq_notify_trigger('servers', 'x', '{*}');
SET ROLE regress_rinq_app;
BEGIN;
INSERT INTO watched VALUES (1);
ROLLBACK;
RESET ROLE;
ALTER TABLE watched OWNER TO regress_rinq_app;
INSERT INTO watched VALUES (1);

-- one who is no superuser any more, or has nothing any more
CREATE USER MAPPING FOR PUBLIC SERVER bus OPTIONS (user 'u', password 'x');
ALTER SERVER bus OWNER TO regress_rinq_dba;
SELECT rinq_use_server('bus');
SELECT rinq_internal.server_problem();
ALTER ROLE regress_rinq_dba NOSUPERUSER;
SELECT rinq_internal.server_problem();
ALTER ROLE regress_rinq_dba SUPERUSER;
-- his own credentials come before those of PUBLIC
CREATE USER MAPPING FOR regress_rinq_dba SERVER bus OPTIONS (user 'u');
SELECT rinq_internal.server_problem();
DROP USER MAPPING FOR regress_rinq_dba SERVER bus;
DROP USER MAPPING FOR PUBLIC SERVER bus;
SELECT rinq_internal.server_problem();
ALTER SERVER bus OPTIONS (ADD sasl_mechanism 'EXTERNAL');
SELECT rinq_internal.server_problem();
-- what is about encryption is not left out silently
ALTER SERVER bus OPTIONS (DROP sasl_mechanism, ADD ssl_min_protocol_version 'TLSv1.3');
SELECT rinq_internal.server_problem();
ALTER SERVER bus OPTIONS (DROP ssl_min_protocol_version, DROP hosts);
SELECT rinq_internal.server_problem();
DROP OWNED BY regress_rinq_dba CASCADE;
SELECT rinq_internal.server_problem();
SELECT rinq_use_server(NULL);
SELECT rinq_internal.server_problem();
CREATE SERVER one FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'a');
CREATE SERVER two FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'a');
SELECT rinq_internal.server_problem();

-- the owner of the extension, when he is not a superuser, has no files read
DROP TABLE watched;
DROP EXTENSION rinq CASCADE;
SET ROLE regress_rinq_dba;
CREATE EXTENSION rinq;
RESET ROLE;
REASSIGN OWNED BY regress_rinq_dba TO regress_rinq_owner;
GRANT USAGE ON FOREIGN DATA WRAPPER rinq TO regress_rinq_owner;
SET ROLE regress_rinq_owner;
CREATE SERVER mine FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'a');
CREATE SERVER other FOREIGN DATA WRAPPER rinq OPTIONS (hosts 'a');
SELECT rinq_use_server('mine');
CREATE USER MAPPING FOR PUBLIC SERVER mine OPTIONS (user 'u', password 'x');
SELECT rinq_internal.server_problem();
RESET ROLE;
ALTER USER MAPPING FOR PUBLIC SERVER mine OPTIONS (DROP password, ADD passfile '/run/secrets/broker');
SELECT rinq_internal.server_problem();
SET ROLE regress_rinq_owner;
ALTER USER MAPPING FOR PUBLIC SERVER mine OPTIONS (SET user 'v');
RESET ROLE;
SELECT severity, subject, message FROM rinq_check();
DROP EXTENSION rinq CASCADE;
DROP OWNED BY regress_rinq_app, regress_rinq_owner, regress_rinq_dba;
DROP ROLE regress_rinq_app, regress_rinq_owner, regress_rinq_dba;
CREATE EXTENSION rinq;
