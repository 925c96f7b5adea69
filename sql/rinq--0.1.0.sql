/* rinq: the objects of version 0.1.0 */

-- complain if this file is read by psql, instead of CREATE EXTENSION
\echo Use "CREATE EXTENSION rinq" to load this file. \quit

-- ---------------------------------------------------------------------
-- a schema for what is the extension's alone
-- ---------------------------------------------------------------------

-- An error if it is there: then somebody else owns it, or what is in it.
-- Nobody needs any privilege on it: users have functions and views.
CREATE SCHEMA rinq_internal;
COMMENT ON SCHEMA rinq_internal IS
    'Tables of the extension rinq, for its own functions and views only; grant nothing here to anybody';

CREATE TABLE rinq_internal.manifest (
    relation text NOT NULL,
    shape text NOT NULL
);
COMMENT ON TABLE rinq_internal.manifest IS
    'What the tables of this schema look like; one that looks different is not used';
COMMENT ON COLUMN rinq_internal.manifest.relation IS 'Name of the table';
COMMENT ON COLUMN rinq_internal.manifest.shape IS 'Its columns, and the number of its defaults, checks and indexes';

CREATE FUNCTION rinq_internal.guard() RETURNS trigger
    AS 'MODULE_PATHNAME', 'rinq_guard' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rinq_internal.guard() IS
    'Refuses what anybody but the owner of a table and superusers writes';

CREATE FUNCTION rinq_internal.keep_local() RETURNS trigger
    AS 'MODULE_PATHNAME', 'rinq_keep_local' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rinq_internal.keep_local() IS
    'Ignores rows that logical replication brings, which mean nothing here';

CREATE FUNCTION rinq_internal.protect_tables() RETURNS void
    AS 'MODULE_PATHNAME', 'rinq_protect_tables' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rinq_internal.protect_tables() IS
    'For the scripts of the extension: gives all tables of this schema their triggers guard and keep_local, and writes the manifest';

CREATE FUNCTION rinq_internal.take_default_privileges() RETURNS void
    AS 'MODULE_PATHNAME', 'rinq_take_default_privileges' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rinq_internal.take_default_privileges() IS
    'For the scripts of the extension: takes away what ALTER DEFAULT PRIVILEGES has granted on its objects';

CREATE FUNCTION rinq_internal.relation_shape(regclass) RETURNS text
    AS 'MODULE_PATHNAME', 'rinq_relation_shape' LANGUAGE C STABLE STRICT;
COMMENT ON FUNCTION rinq_internal.relation_shape(regclass) IS
    'What a table looks like, for the manifest';

CREATE FUNCTION rinq_internal.relation_problem(regclass) RETURNS text
    AS 'MODULE_PATHNAME', 'rinq_relation_problem' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION rinq_internal.relation_problem(regclass) IS
    'What a table carries that is not the extension''s; NULL for nothing';

CREATE FUNCTION rinq_internal.require_own_relation(regclass) RETURNS void
    AS 'MODULE_PATHNAME', 'rinq_require_own_relation' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION rinq_internal.require_own_relation(regclass) IS
    'Raises an error if a table carries anything that is not the extension''s, which would run as its owner';

-- ---------------------------------------------------------------------
-- identifiers
-- ---------------------------------------------------------------------

CREATE FUNCTION @extschema@.rinq_is_session_id(text)
    RETURNS boolean AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_is_session_id(text) IS
    'Whether a text is the text form of a session id';

CREATE FUNCTION @extschema@.rinq_is_revision(text)
    RETURNS boolean AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_is_revision(text) IS
    'Whether a text is the text form of a session at a revision';

CREATE FUNCTION @extschema@.rinq_is_message_id(text)
    RETURNS boolean AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_is_message_id(text) IS
    'Whether a text is the text form of a message id';

CREATE DOMAIN @extschema@.rinq_session_id AS text
    CHECK (@extschema@.rinq_is_session_id(VALUE));
COMMENT ON DOMAIN @extschema@.rinq_session_id IS
    'A session of a peer, such as 58AEE146-191C.45';

CREATE DOMAIN @extschema@.rinq_revision AS text
    CHECK (@extschema@.rinq_is_revision(VALUE));
COMMENT ON DOMAIN @extschema@.rinq_revision IS
    'A session as it was at one revision, such as 58AEE146-191C.45@3';

CREATE DOMAIN @extschema@.rinq_message_id AS text
    CHECK (@extschema@.rinq_is_message_id(VALUE));
COMMENT ON DOMAIN @extschema@.rinq_message_id IS
    'A message, numbered within the revision of the session that sent it, such as 58AEE146-191C.45@3#1';

-- ---------------------------------------------------------------------
-- requests
-- ---------------------------------------------------------------------

-- src/worker/handler.c builds values of this type, in this order
CREATE TYPE @extschema@.rinq_request AS (
    id @extschema@.rinq_message_id,
    source @extschema@.rinq_revision,
    namespace text,
    command text,
    payload jsonb,
    trace_id text,
    deadline timestamptz,
    is_response_required boolean,
    attempt integer,
    first_received timestamptz
);
COMMENT ON TYPE @extschema@.rinq_request IS
    'A command request, as the handler function of its namespace receives it';
COMMENT ON COLUMN @extschema@.rinq_request.id IS
    'Message id of the request';
COMMENT ON COLUMN @extschema@.rinq_request.source IS
    'Session that sent the request, at its revision when it did';
COMMENT ON COLUMN @extschema@.rinq_request.namespace IS
    'Namespace that the request was sent to';
COMMENT ON COLUMN @extschema@.rinq_request.command IS
    'Name of the command; any text, the empty one included';
COMMENT ON COLUMN @extschema@.rinq_request.payload IS
    'Payload of the request, NULL for nil';
COMMENT ON COLUMN @extschema@.rinq_request.trace_id IS
    'Id that the request shares with all messages sent on its behalf';
COMMENT ON COLUMN @extschema@.rinq_request.deadline IS
    'Time after which nobody waits for the response, NULL for none';
COMMENT ON COLUMN @extschema@.rinq_request.is_response_required IS
    'Whether the response is sent to anybody; an executed command has none';
COMMENT ON COLUMN @extschema@.rinq_request.attempt IS
    'Which attempt at the request this is, 1 for the first one, as far as this database knows';
COMMENT ON COLUMN @extschema@.rinq_request.first_received IS
    'When this database received the request first, as far as it knows';

CREATE TYPE @extschema@.rinq_raw_request AS (
    id @extschema@.rinq_message_id,
    source @extschema@.rinq_revision,
    namespace text,
    command text,
    payload bytea,
    trace_id text,
    deadline timestamptz,
    is_response_required boolean,
    attempt integer,
    first_received timestamptz
);
COMMENT ON TYPE @extschema@.rinq_raw_request IS
    'A command request, as a handler function receives it that takes payloads in CBOR';
COMMENT ON COLUMN @extschema@.rinq_raw_request.id IS
    'Message id of the request';
COMMENT ON COLUMN @extschema@.rinq_raw_request.source IS
    'Session that sent the request, at its revision when it did';
COMMENT ON COLUMN @extschema@.rinq_raw_request.namespace IS
    'Namespace that the request was sent to';
COMMENT ON COLUMN @extschema@.rinq_raw_request.command IS
    'Name of the command; any text, the empty one included';
COMMENT ON COLUMN @extschema@.rinq_raw_request.payload IS
    'Payload of the request in CBOR, NULL for nil';
COMMENT ON COLUMN @extschema@.rinq_raw_request.trace_id IS
    'Id that the request shares with all messages sent on its behalf';
COMMENT ON COLUMN @extschema@.rinq_raw_request.deadline IS
    'Time after which nobody waits for the response, NULL for none';
COMMENT ON COLUMN @extschema@.rinq_raw_request.is_response_required IS
    'Whether the response is sent to anybody; an executed command has none';
COMMENT ON COLUMN @extschema@.rinq_raw_request.attempt IS
    'Which attempt at the request this is, 1 for the first one, as far as this database knows';
COMMENT ON COLUMN @extschema@.rinq_raw_request.first_received IS
    'When this database received the request first, as far as it knows';

-- ---------------------------------------------------------------------
-- listeners
-- ---------------------------------------------------------------------

CREATE FUNCTION rinq_internal.this_database() RETURNS text
    AS 'MODULE_PATHNAME', 'rinq_this_database' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION rinq_internal.this_database() IS
    'This server and database, as the origin of an identity';

-- more than one while a dump is restored; so nothing is unique here
CREATE TABLE rinq_internal.identity (
    id uuid NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
    origin text NOT NULL DEFAULT rinq_internal.this_database(),
    created timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE rinq_internal.identity IS
    'What this database is, so that a copy of it can be told from it; see rinq_adopt';
COMMENT ON COLUMN rinq_internal.identity.id IS 'Random number of the database, which its copies have as well';
COMMENT ON COLUMN rinq_internal.identity.origin IS 'Server and database that it belongs to; another one than this where it came with a copy';
COMMENT ON COLUMN rinq_internal.identity.created IS 'When it was made';
INSERT INTO rinq_internal.identity DEFAULT VALUES;
SELECT pg_catalog.pg_extension_config_dump('rinq_internal.identity', '');

CREATE FUNCTION rinq_internal.identity() RETURNS uuid LANGUAGE sql STABLE
BEGIN ATOMIC
    SELECT i.id FROM rinq_internal.identity i
    ORDER BY i.origin OPERATOR(pg_catalog.<>) rinq_internal.this_database(), i.created, i.id LIMIT 1;
END;
COMMENT ON FUNCTION rinq_internal.identity() IS
    'Identity of this database, that listeners and subscriptions are registered under';

CREATE TYPE rinq_internal.role_reference;
COMMENT ON TYPE rinq_internal.role_reference IS
    'A role by its number, which prints as its name; a name that was no role when it was read is nobody';

CREATE FUNCTION rinq_internal.role_reference_in(cstring) RETURNS rinq_internal.role_reference
    AS 'MODULE_PATHNAME', 'rinq_role_reference_in' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION rinq_internal.role_reference_in(cstring) IS 'Reads the name of a role';

CREATE FUNCTION rinq_internal.role_reference_out(rinq_internal.role_reference) RETURNS cstring
    AS 'MODULE_PATHNAME', 'rinq_role_reference_out' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION rinq_internal.role_reference_out(rinq_internal.role_reference) IS 'Writes what a role is called now';

CREATE TYPE rinq_internal.role_reference (
    INPUT = rinq_internal.role_reference_in,
    OUTPUT = rinq_internal.role_reference_out,
    INTERNALLENGTH = 68,
    ALIGNMENT = int4
);

CREATE FUNCTION rinq_internal.role_reference(oid) RETURNS rinq_internal.role_reference
    AS 'MODULE_PATHNAME', 'rinq_role_reference_from_oid' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION rinq_internal.role_reference(oid) IS 'A role of this server';

CREATE FUNCTION rinq_internal.role_oid(rinq_internal.role_reference) RETURNS oid
    AS 'MODULE_PATHNAME', 'rinq_role_reference_oid' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION rinq_internal.role_oid(rinq_internal.role_reference) IS 'Number of a role, 0 for nobody';

CREATE FUNCTION rinq_internal.has_listeners_or_subscriptions() RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE RETURN true;
COMMENT ON FUNCTION rinq_internal.has_listeners_or_subscriptions() IS
    'Granted by the extension to roles that have listeners or subscriptions, so that they cannot be dropped; it does nothing';

CREATE FUNCTION rinq_internal.handler_problem(
    handler text, notifications boolean, role rinq_internal.role_reference, owner rinq_internal.role_reference)
    RETURNS text AS 'MODULE_PATHNAME', 'rinq_handler_problem_text' LANGUAGE C STABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION rinq_internal.handler_problem(
    text, boolean, rinq_internal.role_reference, rinq_internal.role_reference) IS
    'Why a handler of requests, or of notifications, cannot run now; NULL when it can';

CREATE TABLE rinq_internal.listener (
    namespace text COLLATE "C" PRIMARY KEY
        CHECK (namespace OPERATOR(pg_catalog.~) '^[A-Za-z0-9.:-][A-Za-z0-9_.:-]{0,199}$'),
    handler text NOT NULL,
    role rinq_internal.role_reference NOT NULL,
    owner rinq_internal.role_reference NOT NULL,
    max_concurrent integer CHECK (max_concurrent > 0),
    deduplicate boolean NOT NULL DEFAULT false,
    timeout_ms integer CHECK (timeout_ms > 0),
    on_standby boolean NOT NULL DEFAULT false,
    identity uuid NOT NULL DEFAULT rinq_internal.identity(),
    retry jsonb,
    order_by text[]
);
COMMENT ON TABLE rinq_internal.listener IS
    'Namespaces that this database listens to; written by rinq_listen and rinq_unlisten';
COMMENT ON COLUMN rinq_internal.listener.namespace IS
    'Namespace whose requests are handled';
COMMENT ON COLUMN rinq_internal.listener.handler IS
    'Function that handles them, with its schema and argument type';
COMMENT ON COLUMN rinq_internal.listener.role IS
    'Role that registered the handler, and as which it runs';
COMMENT ON COLUMN rinq_internal.listener.owner IS
    'Owner of the function when it was registered; a function of the same name by anybody else is not run';
COMMENT ON COLUMN rinq_internal.listener.max_concurrent IS
    'How many of its requests are handled at the same time, NULL for no limit but that of the executors';
COMMENT ON COLUMN rinq_internal.listener.deduplicate IS
    'Whether a request that was handled already is not handled again when it is delivered again';
COMMENT ON COLUMN rinq_internal.listener.timeout_ms IS
    'How many milliseconds a handler may take for a request, NULL for what rinq.handler_timeout says';
COMMENT ON COLUMN rinq_internal.listener.on_standby IS
    'Whether standbys serve the namespace as well, where rinq.standby is on';
COMMENT ON COLUMN rinq_internal.listener.identity IS
    'Identity of the database when it was registered';
COMMENT ON COLUMN rinq_internal.listener.retry IS
    'How often and when commands that have failed are tried again, NULL for never but when a handler says rinq_retry';
COMMENT ON COLUMN rinq_internal.listener.order_by IS
    'Path of the value in payloads for each of which one request is handled at a time, NULL for none';

CREATE FUNCTION rinq_internal.listener_changed() RETURNS trigger
    AS 'MODULE_PATHNAME', 'rinq_listener_changed' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION rinq_internal.listener_changed() IS
    'Has the peer read listeners and subscriptions again when the transaction commits';

CREATE TRIGGER listener_changed
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON rinq_internal.listener
    FOR EACH STATEMENT EXECUTE FUNCTION rinq_internal.listener_changed();
COMMENT ON TRIGGER listener_changed ON rinq_internal.listener IS
    'Makes changes of the listeners effective at commit, however they are made';
CREATE TRIGGER listener_changed_row
    AFTER INSERT OR UPDATE OR DELETE ON rinq_internal.listener
    FOR EACH ROW EXECUTE FUNCTION rinq_internal.listener_changed();
COMMENT ON TRIGGER listener_changed_row ON rinq_internal.listener IS
    'The same where triggers for statements do not fire';

CREATE FUNCTION rinq_internal.listener_registered() RETURNS trigger
    AS 'MODULE_PATHNAME', 'rinq_listener_registered' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rinq_internal.listener_registered() IS
    'Grants the role of a listener or subscription what keeps it from being dropped';

CREATE TRIGGER listener_registered
    AFTER INSERT OR UPDATE OF role ON rinq_internal.listener
    FOR EACH ROW EXECUTE FUNCTION rinq_internal.listener_registered();
COMMENT ON TRIGGER listener_registered ON rinq_internal.listener IS
    'Keeps the role from being dropped';
ALTER TABLE rinq_internal.listener ENABLE ALWAYS TRIGGER listener_registered;

CREATE TRIGGER listener_changed
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON rinq_internal.identity
    FOR EACH STATEMENT EXECUTE FUNCTION rinq_internal.listener_changed();
COMMENT ON TRIGGER listener_changed ON rinq_internal.identity IS
    'Has it found at commit whether this database is a copy';
ALTER TABLE rinq_internal.identity ENABLE ALWAYS TRIGGER listener_changed;

SELECT pg_catalog.pg_extension_config_dump('rinq_internal.listener', '');

CREATE VIEW @extschema@.rinq_listeners WITH (security_barrier) AS
    SELECT l.namespace, l.handler, rinq_internal.role_oid(l.role)::pg_catalog.regrole AS role,
           rinq_internal.role_oid(l.owner)::pg_catalog.regrole AS owner, l.max_concurrent, l.deduplicate,
           l.timeout_ms OPERATOR(pg_catalog.*) '1 millisecond'::pg_catalog.interval AS timeout, l.on_standby,
           rinq_internal.handler_problem(l.handler, false, l.role, l.owner) AS problem, l.retry, l.order_by
    FROM rinq_internal.listener l
    WHERE pg_catalog.pg_has_role(rinq_internal.role_oid(l.role), 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW @extschema@.rinq_listeners IS
    'Namespaces that this database listens to for roles whose privileges one has; all of them for members of pg_monitor';
COMMENT ON COLUMN @extschema@.rinq_listeners.namespace IS 'Namespace whose requests are handled';
COMMENT ON COLUMN @extschema@.rinq_listeners.handler IS 'Function that handles them, with its schema and argument type';
COMMENT ON COLUMN @extschema@.rinq_listeners.role IS 'Role that registered the handler, and as which it runs';
COMMENT ON COLUMN @extschema@.rinq_listeners.owner IS 'Owner of the function when it was registered; a function of the same name by anybody else is not run';
COMMENT ON COLUMN @extschema@.rinq_listeners.max_concurrent IS 'How many of its requests are handled at the same time, NULL for no limit but that of the executors';
COMMENT ON COLUMN @extschema@.rinq_listeners.deduplicate IS 'Whether a request that was handled already is not handled again when it is delivered again';
COMMENT ON COLUMN @extschema@.rinq_listeners.timeout IS 'How long a handler may take for a request, NULL for what rinq.handler_timeout says';
COMMENT ON COLUMN @extschema@.rinq_listeners.on_standby IS 'Whether standbys serve the namespace as well, where rinq.standby is on';
COMMENT ON COLUMN @extschema@.rinq_listeners.problem IS 'Why its requests cannot be handled now, NULL when they can';
COMMENT ON COLUMN @extschema@.rinq_listeners.retry IS 'How often and when commands that have failed are tried again, NULL for never but when a handler says rinq_retry';
COMMENT ON COLUMN @extschema@.rinq_listeners.order_by IS 'Path of the value in payloads for each of which one request is handled at a time, NULL for none';

CREATE FUNCTION @extschema@.rinq_listen(
    namespace text, handler regprocedure, max_concurrent integer DEFAULT NULL,
    deduplicate boolean DEFAULT false, timeout interval DEFAULT NULL,
    on_standby boolean DEFAULT false, retry jsonb DEFAULT NULL, order_by text[] DEFAULT NULL)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_listen(text, regprocedure, integer, boolean, interval, boolean, jsonb, text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_listen(text, regprocedure, integer, boolean, interval, boolean, jsonb, text[]) IS
    'Has requests to a namespace handled by a function that takes a rinq_request and returns jsonb, or a rinq_raw_request and bytea, running as the current role; effective at commit';

CREATE FUNCTION @extschema@.rinq_unlisten(namespace text)
    RETURNS boolean AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_unlisten(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_unlisten(text) IS
    'Stops listening to a namespace, effective at commit; false when there was no listener';

CREATE FUNCTION @extschema@.rinq_listener_reassign(old_role name, new_role name)
    RETURNS bigint AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_listener_reassign(name, name) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_listener_reassign(name, name) IS
    'Registers the listeners and subscriptions of a role, NULL for roles that were dropped, again: for another role, or for the same one after functions have got other owners; returns their number';

-- ---------------------------------------------------------------------
-- calls and failures
-- ---------------------------------------------------------------------

CREATE FUNCTION @extschema@.rinq_call(
    namespace text, command text, payload jsonb DEFAULT NULL, timeout interval DEFAULT NULL,
    session text DEFAULT NULL)
    RETURNS jsonb AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
REVOKE ALL ON FUNCTION @extschema@.rinq_call(text, text, jsonb, interval, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_call(text, text, jsonb, interval, text) IS
    'Calls a command of whichever peer listens to the namespace, waits for its response, and returns the payload';

CREATE FUNCTION @extschema@.rinq_call_raw(
    namespace text, command text, payload bytea DEFAULT NULL, timeout interval DEFAULT NULL,
    session text DEFAULT NULL)
    RETURNS bytea AS 'MODULE_PATHNAME'
    LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
REVOKE ALL ON FUNCTION @extschema@.rinq_call_raw(text, text, bytea, interval, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_call_raw(text, text, bytea, interval, text) IS
    'Calls a command with a payload in CBOR, and returns the payload of the response in CBOR';

CREATE FUNCTION @extschema@.rinq_call_many(
    namespace text, command text, payloads jsonb[], timeout interval DEFAULT NULL,
    session text DEFAULT NULL,
    OUT ordinality bigint, OUT payload jsonb, OUT sqlstate text, OUT type text, OUT message text)
    RETURNS SETOF record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 ROWS 100;
COMMENT ON FUNCTION @extschema@.rinq_call_many(text, text, jsonb[], interval, text) IS
    'Calls a command once for each payload, all of them side by side, and returns a row for each in the same order: its payload, or the SQLSTATE, type and message of what was wrong';
REVOKE ALL ON FUNCTION @extschema@.rinq_call_many(text, text, jsonb[], interval, text) FROM PUBLIC;

CREATE FUNCTION @extschema@.rinq_call_async(
    namespace text, command text, payload jsonb DEFAULT NULL, timeout interval DEFAULT NULL,
    session text DEFAULT NULL)
    RETURNS @extschema@.rinq_message_id AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
REVOKE ALL ON FUNCTION @extschema@.rinq_call_async(text, text, jsonb, interval, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_call_async(text, text, jsonb, interval, text) IS
    'Calls a command without waiting for the response; returns the message id, for rinq_await';

CREATE FUNCTION @extschema@.rinq_call_async_raw(
    namespace text, command text, payload bytea DEFAULT NULL, timeout interval DEFAULT NULL,
    session text DEFAULT NULL)
    RETURNS @extschema@.rinq_message_id AS 'MODULE_PATHNAME'
    LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100;
REVOKE ALL ON FUNCTION @extschema@.rinq_call_async_raw(text, text, bytea, interval, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_call_async_raw(text, text, bytea, interval, text) IS
    'Calls a command with a payload in CBOR, without waiting for the response';

CREATE FUNCTION @extschema@.rinq_await(
    id @extschema@.rinq_message_id, timeout interval DEFAULT NULL)
    RETURNS jsonb AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
REVOKE ALL ON FUNCTION @extschema@.rinq_await(@extschema@.rinq_message_id, interval) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_await(@extschema@.rinq_message_id, interval) IS
    'Waits for the response to an asynchronous call of this connection, and returns the payload';

CREATE FUNCTION @extschema@.rinq_await_raw(
    id @extschema@.rinq_message_id, timeout interval DEFAULT NULL)
    RETURNS bytea AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
REVOKE ALL ON FUNCTION @extschema@.rinq_await_raw(@extschema@.rinq_message_id, interval) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_await_raw(@extschema@.rinq_message_id, interval) IS
    'Waits for the response to an asynchronous call of this connection, and returns the payload in CBOR';

CREATE FUNCTION @extschema@.rinq_await_response(
    id @extschema@.rinq_message_id, timeout interval DEFAULT NULL,
    OUT payload jsonb, OUT sqlstate text, OUT type text, OUT message text)
    RETURNS record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
COMMENT ON FUNCTION @extschema@.rinq_await_response(@extschema@.rinq_message_id, interval) IS
    'Waits for the response to an asynchronous call of this connection, and returns what came: a payload, or the SQLSTATE, type and message of what rinq_await would raise';
REVOKE ALL ON FUNCTION @extschema@.rinq_await_response(@extschema@.rinq_message_id, interval) FROM PUBLIC;

CREATE FUNCTION @extschema@.rinq_await_all(
    ids @extschema@.rinq_message_id[], timeout interval DEFAULT NULL,
    OUT ordinality bigint, OUT id @extschema@.rinq_message_id, OUT payload jsonb,
    OUT sqlstate text, OUT type text, OUT message text)
    RETURNS SETOF record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000 ROWS 100;
COMMENT ON FUNCTION @extschema@.rinq_await_all(@extschema@.rinq_message_id[], interval) IS
    'Waits until several asynchronous calls of this connection have ended, and returns a row for each in the same order: its payload, or the SQLSTATE, type and message of what was wrong';
REVOKE ALL ON FUNCTION @extschema@.rinq_await_all(@extschema@.rinq_message_id[], interval) FROM PUBLIC;

CREATE FUNCTION @extschema@.rinq_await_any(
    ids @extschema@.rinq_message_id[], timeout interval DEFAULT NULL)
    RETURNS @extschema@.rinq_message_id AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
REVOKE ALL ON FUNCTION @extschema@.rinq_await_any(@extschema@.rinq_message_id[], interval) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_await_any(@extschema@.rinq_message_id[], interval) IS
    'Waits until one of several asynchronous calls has ended, and returns its id; NULL when the timeout has passed';

CREATE FUNCTION @extschema@.rinq_cancel(id @extschema@.rinq_message_id)
    RETURNS boolean AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_cancel(@extschema@.rinq_message_id) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_cancel(@extschema@.rinq_message_id) IS
    'Gives an asynchronous call of this connection up; false when it is not known';

CREATE FUNCTION @extschema@.rinq_fail(
    type text, message text DEFAULT NULL, payload jsonb DEFAULT NULL)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.rinq_fail(text, text, jsonb) IS
    'Raises an application-defined failure (SQLSTATE RQ001), which in a handler becomes the response';

CREATE FUNCTION @extschema@.rinq_retry(after interval DEFAULT NULL, reason text DEFAULT NULL)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.rinq_retry(interval, text) IS
    'Ends a handler by an error (SQLSTATE RQ010), upon which its request is tried again after a time, or when its listener''s policy says';

CREATE FUNCTION @extschema@.rinq_last_failure(
    OUT type text, OUT message text, OUT payload jsonb)
    RETURNS record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.rinq_last_failure() IS
    'Type, message and payload of the failure that this session raised or received last';

CREATE FUNCTION @extschema@.rinq_trace_id()
    RETURNS text AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.rinq_trace_id() IS
    'Trace id that a message sent now would have; NULL when it would be the id of the message itself';

-- ---------------------------------------------------------------------
-- durable messages
-- ---------------------------------------------------------------------

CREATE FUNCTION rinq_internal.outbox_rescan() RETURNS trigger
    AS 'MODULE_PATHNAME', 'rinq_outbox_rescan' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION rinq_internal.outbox_rescan() IS
    'Has rows of the outbox found that were written by hand';

-- src/backend/outbox.c reads and writes these tables, in this order of columns
CREATE TABLE rinq_internal.outbox_0 (
    seq bigint NOT NULL,
    id text NOT NULL,
    namespace text NOT NULL,
    command text NOT NULL,
    payload bytea,
    trace_id text,
    deadline timestamptz,
    database oid NOT NULL,
    span_context bytea,
    traceparent bytea,
    tracestate bytea,
    is_call boolean
);
COMMENT ON COLUMN rinq_internal.outbox_0.seq IS 'Number in the order of sending: microseconds since 2000 when it was written';
COMMENT ON COLUMN rinq_internal.outbox_0.id IS 'Message id';
COMMENT ON COLUMN rinq_internal.outbox_0.namespace IS 'Namespace that the command is sent to';
COMMENT ON COLUMN rinq_internal.outbox_0.command IS 'Name of the command';
COMMENT ON COLUMN rinq_internal.outbox_0.payload IS 'Payload in CBOR, NULL or empty for nil';
COMMENT ON COLUMN rinq_internal.outbox_0.trace_id IS 'Trace id, NULL when it is the message id';
COMMENT ON COLUMN rinq_internal.outbox_0.deadline IS 'Time after which the message is not sent any more, NULL for none';
COMMENT ON COLUMN rinq_internal.outbox_0.database IS 'Database that it was written in';
COMMENT ON COLUMN rinq_internal.outbox_0.span_context IS 'OpenTracing context, NULL for none';
COMMENT ON COLUMN rinq_internal.outbox_0.traceparent IS 'W3C trace context: its traceparent, NULL for none';
COMMENT ON COLUMN rinq_internal.outbox_0.tracestate IS 'W3C trace context: its tracestate, NULL for none';
COMMENT ON COLUMN rinq_internal.outbox_0.is_call IS 'Whether it is a durable call, whose answer is sent to the mailbox; NULL for no';

CREATE TABLE rinq_internal.outbox_1 (LIKE rinq_internal.outbox_0 INCLUDING ALL);
CREATE TABLE rinq_internal.outbox_2 (LIKE rinq_internal.outbox_0 INCLUDING ALL);
CREATE TABLE rinq_internal.outbox_3 (LIKE rinq_internal.outbox_0 INCLUDING ALL);

COMMENT ON TABLE rinq_internal.outbox_0 IS
    'Durable messages that wait to be sent: one of the tables that take turns; see the view rinq_outbox';
CREATE TRIGGER outbox_rescan AFTER INSERT ON rinq_internal.outbox_0
    FOR EACH STATEMENT EXECUTE FUNCTION rinq_internal.outbox_rescan();
COMMENT ON TRIGGER outbox_rescan ON rinq_internal.outbox_0 IS
    'Has rows found that were written by hand';

COMMENT ON TABLE rinq_internal.outbox_1 IS
    'Durable messages that wait to be sent: one of the tables that take turns; see the view rinq_outbox';
CREATE TRIGGER outbox_rescan AFTER INSERT ON rinq_internal.outbox_1
    FOR EACH STATEMENT EXECUTE FUNCTION rinq_internal.outbox_rescan();
COMMENT ON TRIGGER outbox_rescan ON rinq_internal.outbox_1 IS
    'Has rows found that were written by hand';

COMMENT ON TABLE rinq_internal.outbox_2 IS
    'Durable messages that wait to be sent: one of the tables that take turns; see the view rinq_outbox';
CREATE TRIGGER outbox_rescan AFTER INSERT ON rinq_internal.outbox_2
    FOR EACH STATEMENT EXECUTE FUNCTION rinq_internal.outbox_rescan();
COMMENT ON TRIGGER outbox_rescan ON rinq_internal.outbox_2 IS
    'Has rows found that were written by hand';

COMMENT ON TABLE rinq_internal.outbox_3 IS
    'Durable messages that wait to be sent: one of the tables that take turns; see the view rinq_outbox';
CREATE TRIGGER outbox_rescan AFTER INSERT ON rinq_internal.outbox_3
    FOR EACH STATEMENT EXECUTE FUNCTION rinq_internal.outbox_rescan();
COMMENT ON TRIGGER outbox_rescan ON rinq_internal.outbox_3 IS
    'Has rows found that were written by hand';

CREATE TABLE rinq_internal.outbox_dead_letter (
    LIKE rinq_internal.outbox_0 INCLUDING ALL,
    attempts integer NOT NULL,
    error text NOT NULL,
    set_aside timestamptz NOT NULL
);
COMMENT ON TABLE rinq_internal.outbox_dead_letter IS
    'Durable messages that were set aside; see the view rinq_outbox_dead_letter';
COMMENT ON COLUMN rinq_internal.outbox_dead_letter.attempts IS 'How often the message was sent';
COMMENT ON COLUMN rinq_internal.outbox_dead_letter.error IS 'Why it was set aside';
COMMENT ON COLUMN rinq_internal.outbox_dead_letter.set_aside IS 'When it was set aside';

-- src/backend/outbox_waiting.c writes this table, src/worker/outbox_release.c reads it; values of "due" that are no time say what a message waits for:
-- '-infinity' for the outbox worker to look at it, 'infinity' for the one before of its ordering
CREATE TABLE rinq_internal.outbox_waiting (
    LIKE rinq_internal.outbox_0 INCLUDING ALL,
    role oid NOT NULL,
    key text COLLATE "C",
    ordering text COLLATE "C",
    due timestamptz NOT NULL,
    place bigint NOT NULL,
    clock bigint,
    life timestamptz,
    PRIMARY KEY (id)
);
COMMENT ON TABLE rinq_internal.outbox_waiting IS
    'Durable messages that go into the outbox later, at a time or after another one; see the view rinq_outbox';
COMMENT ON COLUMN rinq_internal.outbox_waiting.role IS 'Role that has written it';
COMMENT ON COLUMN rinq_internal.outbox_waiting.key IS 'Its key, NULL for none';
COMMENT ON COLUMN rinq_internal.outbox_waiting.ordering IS 'What it is ordered by, NULL for nothing';
COMMENT ON COLUMN rinq_internal.outbox_waiting.due IS 'When it is looked at: a time, -infinity for now, infinity for when the one before is through';
COMMENT ON COLUMN rinq_internal.outbox_waiting.place IS 'Its place among those of the same ordering: microseconds since 2000 when it was written, or will be due';
COMMENT ON COLUMN rinq_internal.outbox_waiting.clock IS 'When it is delayed by an interval: milliseconds that the wall clock was ahead of the monotonic one, so that a step of the former changes nothing';
COMMENT ON COLUMN rinq_internal.outbox_waiting.life IS 'Since when the server ran then; in another life of it the monotonic clock is another one';
CREATE INDEX outbox_waiting_due ON rinq_internal.outbox_waiting (due, place);
CREATE INDEX outbox_waiting_ordering ON rinq_internal.outbox_waiting (role, ordering, place);

CREATE TABLE rinq_internal.outbox_ordered (
    role oid,
    ordering text COLLATE "C",
    id text NOT NULL,
    database oid NOT NULL,
    PRIMARY KEY (role, ordering)
);
COMMENT ON TABLE rinq_internal.outbox_ordered IS
    'Of each ordering, the message that is in the outbox, or was set aside; those after it wait';
COMMENT ON COLUMN rinq_internal.outbox_ordered.role IS 'Role that has written it';
COMMENT ON COLUMN rinq_internal.outbox_ordered.ordering IS 'What it is ordered by';
COMMENT ON COLUMN rinq_internal.outbox_ordered.id IS 'Message id';
COMMENT ON COLUMN rinq_internal.outbox_ordered.database IS 'Database that it was written in';
CREATE INDEX outbox_ordered_id ON rinq_internal.outbox_ordered (id);

CREATE TABLE rinq_internal.outbox_key (
    role oid,
    namespace text COLLATE "C",
    key text COLLATE "C",
    id text NOT NULL,
    used timestamptz NOT NULL,
    database oid NOT NULL,
    PRIMARY KEY (role, namespace, key)
);
COMMENT ON TABLE rinq_internal.outbox_key IS
    'Keys of durable messages, for as long as rinq.key_retention says';
COMMENT ON COLUMN rinq_internal.outbox_key.role IS 'Role that has used it';
COMMENT ON COLUMN rinq_internal.outbox_key.namespace IS 'Namespace that the message was sent to';
COMMENT ON COLUMN rinq_internal.outbox_key.key IS 'The key';
COMMENT ON COLUMN rinq_internal.outbox_key.id IS 'Message id';
COMMENT ON COLUMN rinq_internal.outbox_key.used IS 'When it was used, or when the message is due';
COMMENT ON COLUMN rinq_internal.outbox_key.database IS 'Database that it was used in';
CREATE INDEX outbox_key_used ON rinq_internal.outbox_key (used);
CREATE INDEX outbox_key_id ON rinq_internal.outbox_key (id);

CREATE FUNCTION rinq_internal.outbox_look() RETURNS trigger
    AS 'MODULE_PATHNAME', 'rinq_outbox_look' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION rinq_internal.outbox_look() IS
    'Has messages that wait looked at, when they were written by hand or may go on';
CREATE TRIGGER outbox_look AFTER INSERT OR UPDATE OR DELETE ON rinq_internal.outbox_waiting
    FOR EACH STATEMENT EXECUTE FUNCTION rinq_internal.outbox_look();
COMMENT ON TRIGGER outbox_look ON rinq_internal.outbox_waiting IS
    'Has messages that wait looked at, when they were written by hand or may go on';

-- The outbox worker waits for no other process: what another transaction has locked is left where it is, however much that is.  Of an ordering, the one with the
-- lowest place goes, and the others are blocked by it; none goes, and none is blocked, while that one is locked.
CREATE FUNCTION rinq_internal.outbox_release(here oid, before timestamptz, most integer, most_bytes bigint)
    RETURNS SETOF rinq_internal.outbox_waiting LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    WITH oldest AS MATERIALIZED (
        SELECT w.id, w.role, w.ordering, w.database, w.due, w.place, pg_catalog.octet_length(w.payload) AS bytes
        FROM rinq_internal.outbox_waiting w
        WHERE w.due OPERATOR(pg_catalog.<=) before
        ORDER BY w.due, w.place LIMIT most FOR UPDATE SKIP LOCKED
    ), candidate AS MATERIALIZED (
        SELECT x.id, x.role, x.ordering, x.ordered
        FROM (SELECT o.id, o.role, o.ordering,
                     o.ordering IS NOT NULL AND o.database OPERATOR(pg_catalog.=) here AS ordered,
                     pg_catalog.sum(o.bytes)
                         OVER (ORDER BY o.due, o.place ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
              FROM oldest o) x
        WHERE x.bytes_before IS NULL OR x.bytes_before OPERATOR(pg_catalog.<) most_bytes
    ), line AS MATERIALIZED (
        SELECT c.role, c.ordering,
               EXISTS (SELECT FROM rinq_internal.outbox_ordered o
                       WHERE o.role OPERATOR(pg_catalog.=) c.role AND o.ordering OPERATOR(pg_catalog.=) c.ordering) AS busy,
               (SELECT w.id FROM rinq_internal.outbox_waiting w
                WHERE w.role OPERATOR(pg_catalog.=) c.role AND w.ordering OPERATOR(pg_catalog.=) c.ordering
                  AND (w.due OPERATOR(pg_catalog.<=) before OR w.due OPERATOR(pg_catalog.=) 'infinity')
                  AND w.database OPERATOR(pg_catalog.=) here
                ORDER BY w.place, w.seq LIMIT 1) AS first
        FROM (SELECT DISTINCT c.role, c.ordering FROM candidate c WHERE c.ordered) c
    ), locked AS MATERIALIZED (
        SELECT w.id FROM rinq_internal.outbox_waiting w
        WHERE w.id OPERATOR(pg_catalog.=) ANY (ARRAY(
            SELECT c.id FROM candidate c UNION SELECT l.first FROM line l WHERE NOT l.busy))
        FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM rinq_internal.outbox_waiting w
        WHERE w.id OPERATOR(pg_catalog.=) ANY (ARRAY(
            SELECT k.id FROM locked k JOIN candidate c ON c.id OPERATOR(pg_catalog.=) k.id WHERE NOT c.ordered
            UNION ALL
            SELECT k.id FROM locked k JOIN line l ON l.first OPERATOR(pg_catalog.=) k.id WHERE NOT l.busy))
        RETURNING w.*
    ), entered AS (
        INSERT INTO rinq_internal.outbox_ordered (role, ordering, id, database)
        SELECT g.role, g.ordering, g.id, g.database FROM gone g
        WHERE g.ordering IS NOT NULL AND g.database OPERATOR(pg_catalog.=) here
    ), blocked AS (
        UPDATE rinq_internal.outbox_waiting w SET due = 'infinity'
        WHERE w.id OPERATOR(pg_catalog.=) ANY (ARRAY(
            SELECT k.id FROM locked k JOIN candidate c ON c.id OPERATOR(pg_catalog.=) k.id AND c.ordered
            JOIN line l ON l.role OPERATOR(pg_catalog.=) c.role AND l.ordering OPERATOR(pg_catalog.=) c.ordering
            WHERE l.busy OR (l.first OPERATOR(pg_catalog.<>) c.id AND EXISTS (
                SELECT FROM locked f WHERE f.id OPERATOR(pg_catalog.=) l.first))))
        RETURNING w.*
    )
    SELECT g.* FROM (SELECT * FROM gone UNION ALL SELECT * FROM blocked) g ORDER BY g.due, g.place;
END;
COMMENT ON FUNCTION rinq_internal.outbox_release(oid, timestamptz, integer, bigint) IS
    'For the outbox worker: takes messages out that may be sent now, and blocks those whose ordering has one under way; returns both, the latter due at infinity';

-- What comes after a message in its ordering is looked at when it is through; the orderings that are locked are left to the next time.
CREATE FUNCTION rinq_internal.outbox_through(ids text[])
    RETURNS SETOF text LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    WITH through AS MATERIALIZED (
        SELECT o.id, (SELECT w.id FROM rinq_internal.outbox_waiting w
                      WHERE w.role OPERATOR(pg_catalog.=) o.role AND w.ordering OPERATOR(pg_catalog.=) o.ordering
                        AND w.due OPERATOR(pg_catalog.=) 'infinity'
                      ORDER BY w.place, w.seq LIMIT 1) AS next
        FROM rinq_internal.outbox_ordered o
        WHERE o.id OPERATOR(pg_catalog.=) ANY (ids)
        FOR UPDATE SKIP LOCKED
    ), locked AS MATERIALIZED (
        SELECT w.id FROM rinq_internal.outbox_waiting w
        WHERE w.id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT t.next FROM through t))
        FOR UPDATE SKIP LOCKED
    ), looked_at AS (
        UPDATE rinq_internal.outbox_waiting w SET due = '-infinity'
        WHERE w.id OPERATOR(pg_catalog.=) ANY (ARRAY(SELECT k.id FROM locked k))
    ), removed AS (
        DELETE FROM rinq_internal.outbox_ordered o
        WHERE o.id OPERATOR(pg_catalog.=) ANY (ARRAY(
            SELECT t.id FROM through t
            WHERE t.next IS NULL OR EXISTS (SELECT FROM locked k WHERE k.id OPERATOR(pg_catalog.=) t.next)))
        RETURNING o.id
    )
    SELECT o.id FROM rinq_internal.outbox_ordered o
    WHERE o.id OPERATOR(pg_catalog.=) ANY (ids) AND NOT EXISTS (SELECT FROM removed r WHERE r.id OPERATOR(pg_catalog.=) o.id);
END;
COMMENT ON FUNCTION rinq_internal.outbox_through(text[]) IS
    'Has the next message looked at of each ordering that one of these was the first of; returns those that it could not do that for now';

CREATE FUNCTION rinq_internal.outbox_mend(here oid) RETURNS bigint LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    DELETE FROM rinq_internal.outbox_ordered o
    WHERE o.id OPERATOR(pg_catalog.=) ANY (ARRAY(
        SELECT x.id FROM rinq_internal.outbox_ordered x
        WHERE x.database OPERATOR(pg_catalog.<>) here OR NOT (
            EXISTS (SELECT FROM rinq_internal.outbox_0 t WHERE t.id OPERATOR(pg_catalog.=) x.id)
            OR EXISTS (SELECT FROM rinq_internal.outbox_1 t WHERE t.id OPERATOR(pg_catalog.=) x.id)
            OR EXISTS (SELECT FROM rinq_internal.outbox_2 t WHERE t.id OPERATOR(pg_catalog.=) x.id)
            OR EXISTS (SELECT FROM rinq_internal.outbox_3 t WHERE t.id OPERATOR(pg_catalog.=) x.id)
            OR EXISTS (SELECT FROM rinq_internal.outbox_dead_letter t WHERE t.id OPERATOR(pg_catalog.=) x.id))
        FOR UPDATE OF x SKIP LOCKED));
    UPDATE rinq_internal.outbox_waiting w SET due = '-infinity'
    WHERE w.id OPERATOR(pg_catalog.=) ANY (ARRAY(
        SELECT x.id FROM rinq_internal.outbox_waiting x
        WHERE (x.database OPERATOR(pg_catalog.<>) here AND x.due OPERATOR(pg_catalog.<>) '-infinity')
           OR (x.due OPERATOR(pg_catalog.=) 'infinity' AND NOT EXISTS (
               SELECT FROM rinq_internal.outbox_ordered o
               WHERE o.role OPERATOR(pg_catalog.=) x.role AND o.ordering OPERATOR(pg_catalog.=) x.ordering))
        FOR UPDATE OF x SKIP LOCKED));
    SELECT pg_catalog.count(*) FROM rinq_internal.outbox_waiting;
END;
COMMENT ON FUNCTION rinq_internal.outbox_mend(oid) IS
    'For the outbox worker that begins: sets right what the last one has left, or a copy of the database brought along; returns how many messages wait';

CREATE FUNCTION rinq_internal.outbox_follow_clock(now_ahead bigint, this_life timestamptz) RETURNS void LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    UPDATE rinq_internal.outbox_waiting w
    SET due = w.due OPERATOR(pg_catalog.+) (interval '1 millisecond' OPERATOR(pg_catalog.*) (now_ahead OPERATOR(pg_catalog.-) w.clock)::pg_catalog.float8),
        deadline = w.deadline OPERATOR(pg_catalog.+) (interval '1 millisecond' OPERATOR(pg_catalog.*) (now_ahead OPERATOR(pg_catalog.-) w.clock)::pg_catalog.float8),
        place = w.place OPERATOR(pg_catalog.+) (1000 OPERATOR(pg_catalog.*) (now_ahead OPERATOR(pg_catalog.-) w.clock)),
        clock = now_ahead
    WHERE w.id OPERATOR(pg_catalog.=) ANY (ARRAY(
        SELECT x.id FROM rinq_internal.outbox_waiting x
        WHERE x.life OPERATOR(pg_catalog.=) this_life AND pg_catalog.abs(x.clock OPERATOR(pg_catalog.-) now_ahead) OPERATOR(pg_catalog.>) 500
          AND pg_catalog.isfinite(x.due)
        FOR UPDATE SKIP LOCKED));
END;
COMMENT ON FUNCTION rinq_internal.outbox_follow_clock(bigint, timestamptz) IS
    'For the outbox worker: has messages that are delayed by an interval go by the wall clock as it is now';

CREATE FUNCTION rinq_internal.outbox_forget_keys(before timestamptz, most integer) RETURNS bigint LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    WITH d AS (
        DELETE FROM rinq_internal.outbox_key k
        USING (SELECT x.role, x.namespace, x.key FROM rinq_internal.outbox_key x
               WHERE x.used OPERATOR(pg_catalog.<) before
               ORDER BY x.used LIMIT most FOR UPDATE SKIP LOCKED) o
        WHERE k.role OPERATOR(pg_catalog.=) o.role AND k.namespace OPERATOR(pg_catalog.=) o.namespace
          AND k.key OPERATOR(pg_catalog.=) o.key
        RETURNING 1
    )
    SELECT pg_catalog.count(*) FROM d;
END;
COMMENT ON FUNCTION rinq_internal.outbox_forget_keys(timestamptz, integer) IS
    'For the outbox worker: forgets keys that were used before a time';

CREATE FUNCTION rinq_internal.outbox_next(OUT due timestamptz, OUT oldest_key timestamptz) LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    SELECT (SELECT pg_catalog.min(w.due) FROM rinq_internal.outbox_waiting w WHERE w.due OPERATOR(pg_catalog.<) 'infinity'),
           (SELECT pg_catalog.min(k.used) FROM rinq_internal.outbox_key k);
END;
COMMENT ON FUNCTION rinq_internal.outbox_next() IS
    'For the outbox worker: when there is something to do next';

-- A function in SQL locks all its tables when it begins.  So those below lock the
-- extension first, and have another one use the tables: DROP EXTENSION locks in
-- that order, too.
CREATE FUNCTION rinq_internal.outbox_dead_letter_retry(id @extschema@.rinq_message_id)
    RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    WITH d AS (
        DELETE FROM rinq_internal.outbox_dead_letter o
        WHERE o.id OPERATOR(pg_catalog.=) outbox_dead_letter_retry.id::pg_catalog.text
        RETURNING o.*
    ), i AS (
        INSERT INTO rinq_internal.outbox_0
            (seq, id, namespace, command, payload, trace_id, deadline, database, span_context, traceparent, tracestate, is_call)
        SELECT d.seq, d.id, d.namespace, d.command, d.payload, d.trace_id, d.deadline,
               (SELECT b.oid FROM pg_catalog.pg_database b
                WHERE b.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()),
               d.span_context, d.traceparent, d.tracestate, d.is_call
        FROM d
        RETURNING 1
    )
    SELECT EXISTS (SELECT FROM i);
END;
COMMENT ON FUNCTION rinq_internal.outbox_dead_letter_retry(@extschema@.rinq_message_id) IS
    'Does what rinq_outbox_dead_letter_retry does, which has locked the extension before its tables';

CREATE FUNCTION @extschema@.rinq_outbox_dead_letter_retry(id @extschema@.rinq_message_id)
    RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT rinq_internal.require_own_relation('rinq_internal.outbox_dead_letter'::regclass);
    SELECT rinq_internal.require_own_relation('rinq_internal.outbox_0'::regclass);
    SELECT rinq_internal.outbox_dead_letter_retry(id);
END;
REVOKE ALL ON FUNCTION @extschema@.rinq_outbox_dead_letter_retry(@extschema@.rinq_message_id) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_outbox_dead_letter_retry(@extschema@.rinq_message_id) IS
    'Has a message sent again that was set aside; false when there is none of this id';

CREATE FUNCTION rinq_internal.outbox_dead_letter_delete(id @extschema@.rinq_message_id)
    RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    WITH d AS (
        DELETE FROM rinq_internal.outbox_dead_letter o
        WHERE o.id OPERATOR(pg_catalog.=) outbox_dead_letter_delete.id::pg_catalog.text
        RETURNING o.id
    ), p AS (
        DELETE FROM rinq_internal.outbox_ordered o USING d
        WHERE o.id OPERATOR(pg_catalog.=) d.id
        RETURNING o.role, o.ordering
    ), n AS (
        UPDATE rinq_internal.outbox_waiting w SET due = '-infinity' FROM p
        WHERE w.id OPERATOR(pg_catalog.=) (
            SELECT x.id FROM rinq_internal.outbox_waiting x
            WHERE x.role OPERATOR(pg_catalog.=) p.role AND x.ordering OPERATOR(pg_catalog.=) p.ordering
              AND x.due OPERATOR(pg_catalog.=) 'infinity'
            ORDER BY x.place, x.seq LIMIT 1)
    )
    SELECT EXISTS (SELECT FROM d);
END;
COMMENT ON FUNCTION rinq_internal.outbox_dead_letter_delete(@extschema@.rinq_message_id) IS
    'Does what rinq_outbox_dead_letter_delete does, which has locked the extension before its tables';

CREATE FUNCTION @extschema@.rinq_outbox_dead_letter_delete(id @extschema@.rinq_message_id)
    RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT rinq_internal.require_own_relation('rinq_internal.outbox_dead_letter'::regclass);
    SELECT rinq_internal.require_own_relation('rinq_internal.outbox_ordered'::regclass);
    SELECT rinq_internal.require_own_relation('rinq_internal.outbox_waiting'::regclass);
    SELECT rinq_internal.outbox_dead_letter_delete(id);
END;
REVOKE ALL ON FUNCTION @extschema@.rinq_outbox_dead_letter_delete(@extschema@.rinq_message_id) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_outbox_dead_letter_delete(@extschema@.rinq_message_id) IS
    'Deletes a message that was set aside; false when there is none of this id';

-- src/backend/outbox_waiting.c calls it, as the owner of the tables; "who" is the current role
CREATE FUNCTION rinq_internal.outbox_waiting_cancel(id text, who oid) RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    WITH d AS (
        DELETE FROM rinq_internal.outbox_waiting w
        WHERE w.id OPERATOR(pg_catalog.=) outbox_waiting_cancel.id
          AND (pg_catalog.pg_has_role(who, w.role, 'USAGE') OR pg_catalog.has_function_privilege(
              who, '@extschema@.rinq_outbox_dead_letter_retry(@extschema@.rinq_message_id)'::pg_catalog.regprocedure, 'EXECUTE'))
        RETURNING w.id, w.role, w.namespace, w.key, w.ordering
    ), k AS (
        DELETE FROM rinq_internal.outbox_key k USING d
        WHERE k.role OPERATOR(pg_catalog.=) d.role AND k.namespace OPERATOR(pg_catalog.=) d.namespace
          AND k.key OPERATOR(pg_catalog.=) d.key AND k.id OPERATOR(pg_catalog.=) d.id
    ), n AS (
        UPDATE rinq_internal.outbox_waiting w SET due = '-infinity' FROM d
        WHERE w.id OPERATOR(pg_catalog.=) (
            SELECT x.id FROM rinq_internal.outbox_waiting x
            WHERE x.role OPERATOR(pg_catalog.=) d.role AND x.ordering OPERATOR(pg_catalog.=) d.ordering
              AND x.due OPERATOR(pg_catalog.=) 'infinity' AND x.id OPERATOR(pg_catalog.<>) d.id
            ORDER BY x.place, x.seq LIMIT 1)
    )
    SELECT EXISTS (SELECT FROM d);
END;
COMMENT ON FUNCTION rinq_internal.outbox_waiting_cancel(text, oid) IS
    'Does what rinq_execute_cancel does, for a role';

CREATE FUNCTION @extschema@.rinq_execute_cancel(id @extschema@.rinq_message_id)
    RETURNS boolean AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_execute_cancel(@extschema@.rinq_message_id) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_execute_cancel(@extschema@.rinq_message_id) IS
    'Takes a message back that waits for its time, or for the one before it; false when it is on its way, was sent, or is not one of the current role';

-- UNION ALL is in a query of its own: where it is the view's whole query, security_barrier does
-- not keep a function of the reader from rows of others
CREATE VIEW @extschema@.rinq_outbox WITH (security_barrier) AS
    SELECT m.id, m.namespace, m.command, m.payload, m.trace_id, m.deadline, m.created, m.state, m.due, m.key, m.ordering
    FROM (
        SELECT o.id, o.namespace, o.command, o.payload, o.trace_id, o.deadline,
               timestamptz '2000-01-01 00:00:00+00' OPERATOR(pg_catalog.+)
                   (o.seq::pg_catalog.float8 OPERATOR(pg_catalog.*) interval '1 microsecond') AS created,
               'sending' AS state, NULL::timestamptz AS due, k.key, r.ordering
        FROM (
            SELECT * FROM rinq_internal.outbox_0
            UNION ALL
            SELECT * FROM rinq_internal.outbox_1
            UNION ALL
            SELECT * FROM rinq_internal.outbox_2
            UNION ALL
            SELECT * FROM rinq_internal.outbox_3
        ) o
        LEFT JOIN rinq_internal.outbox_ordered r ON r.id OPERATOR(pg_catalog.=) o.id
        LEFT JOIN rinq_internal.outbox_key k ON k.id OPERATOR(pg_catalog.=) o.id
        WHERE pg_catalog.has_function_privilege(
            '@extschema@.rinq_outbox_dead_letter_retry(@extschema@.rinq_message_id)'::pg_catalog.regprocedure, 'EXECUTE')
        UNION ALL
        SELECT w.id, w.namespace, w.command, w.payload, w.trace_id, w.deadline,
               timestamptz '2000-01-01 00:00:00+00' OPERATOR(pg_catalog.+)
                   (w.seq::pg_catalog.float8 OPERATOR(pg_catalog.*) interval '1 microsecond'),
               CASE WHEN w.due OPERATOR(pg_catalog.=) 'infinity' THEN 'ordered'
                    WHEN w.due OPERATOR(pg_catalog.>) pg_catalog.now() THEN 'delayed' ELSE 'ready' END,
               CASE WHEN pg_catalog.isfinite(w.due) THEN w.due END, w.key, w.ordering
        FROM rinq_internal.outbox_waiting w
        WHERE pg_catalog.pg_has_role(w.role, 'USAGE') OR pg_catalog.has_function_privilege(
            '@extschema@.rinq_outbox_dead_letter_retry(@extschema@.rinq_message_id)'::pg_catalog.regprocedure, 'EXECUTE')
    ) m;
COMMENT ON VIEW @extschema@.rinq_outbox IS
    'Durable messages that the broker has not confirmed yet; roles that may not execute rinq_outbox_dead_letter_retry see only their own that wait to be sent later';
COMMENT ON COLUMN @extschema@.rinq_outbox.id IS 'Message id';
COMMENT ON COLUMN @extschema@.rinq_outbox.namespace IS 'Namespace that the command is sent to';
COMMENT ON COLUMN @extschema@.rinq_outbox.command IS 'Name of the command';
COMMENT ON COLUMN @extschema@.rinq_outbox.payload IS 'Payload in CBOR, NULL or empty for nil';
COMMENT ON COLUMN @extschema@.rinq_outbox.trace_id IS 'Trace id, NULL when it is the message id';
COMMENT ON COLUMN @extschema@.rinq_outbox.deadline IS 'Time after which the message is not sent any more, NULL for none';
COMMENT ON COLUMN @extschema@.rinq_outbox.created IS 'When the message was written; of one that was delayed or ordered and is being sent, since when it is';
COMMENT ON COLUMN @extschema@.rinq_outbox.state IS 'sending; or before that: delayed, until it is due; ordered, until the one before it is sent; ready, about to be sent';
COMMENT ON COLUMN @extschema@.rinq_outbox.due IS 'When it will be sent, of one that is delayed';
COMMENT ON COLUMN @extschema@.rinq_outbox.key IS 'Its key, NULL for none';
COMMENT ON COLUMN @extschema@.rinq_outbox.ordering IS 'What it is ordered by, NULL for nothing';

CREATE VIEW @extschema@.rinq_outbox_dead_letter WITH (security_barrier) AS
    SELECT o.id, o.namespace, o.command, o.payload, o.trace_id, o.deadline,
           timestamptz '2000-01-01 00:00:00+00' OPERATOR(pg_catalog.+)
               (o.seq::pg_catalog.float8 OPERATOR(pg_catalog.*) interval '1 microsecond') AS created,
           o.attempts, o.error, o.set_aside
    FROM rinq_internal.outbox_dead_letter o
    WHERE pg_catalog.has_function_privilege(
        '@extschema@.rinq_outbox_dead_letter_retry(@extschema@.rinq_message_id)'::pg_catalog.regprocedure, 'EXECUTE');
COMMENT ON VIEW @extschema@.rinq_outbox_dead_letter IS
    'Durable messages that were set aside, for rinq_outbox_dead_letter_retry and rinq_outbox_dead_letter_delete; empty for roles that may not execute the former';
COMMENT ON COLUMN @extschema@.rinq_outbox_dead_letter.id IS 'Message id';
COMMENT ON COLUMN @extschema@.rinq_outbox_dead_letter.namespace IS 'Namespace that the command is sent to';
COMMENT ON COLUMN @extschema@.rinq_outbox_dead_letter.command IS 'Name of the command';
COMMENT ON COLUMN @extschema@.rinq_outbox_dead_letter.payload IS 'Payload in CBOR, NULL or empty for nil';
COMMENT ON COLUMN @extschema@.rinq_outbox_dead_letter.trace_id IS 'Trace id, NULL when it is the message id';
COMMENT ON COLUMN @extschema@.rinq_outbox_dead_letter.deadline IS 'Time after which the message is not sent any more, NULL for none';
COMMENT ON COLUMN @extschema@.rinq_outbox_dead_letter.created IS 'When the message was written';
COMMENT ON COLUMN @extschema@.rinq_outbox_dead_letter.attempts IS 'How often the message was sent';
COMMENT ON COLUMN @extschema@.rinq_outbox_dead_letter.error IS 'Why it was set aside';
COMMENT ON COLUMN @extschema@.rinq_outbox_dead_letter.set_aside IS 'When it was set aside';

CREATE FUNCTION @extschema@.rinq_outbox_peer_status(
    OUT direct boolean, OUT in_flight bigint, OUT retrying bigint, OUT attempts integer,
    OUT last_error text, OUT waits_for text)
    RETURNS record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL SAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_outbox_peer_status() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_outbox_peer_status() IS
    'What the peer knows of durable messages; see the view rinq_outbox_status';

CREATE VIEW @extschema@.rinq_outbox_status AS
    SELECT o.depth, o.oldest, d.dead, s.in_flight, s.retrying, s.attempts, s.last_error, s.direct,
           s.waits_for, w.waiting, w.next_due
    FROM (SELECT pg_catalog.sum(t.depth)::bigint AS depth,
                 timestamptz '2000-01-01 00:00:00+00' OPERATOR(pg_catalog.+)
                     (pg_catalog.min(t.seq)::pg_catalog.float8 OPERATOR(pg_catalog.*) interval '1 microsecond') AS oldest
          FROM (SELECT pg_catalog.count(*) AS depth, pg_catalog.min(o.seq) AS seq FROM rinq_internal.outbox_0 o
                UNION ALL
                SELECT pg_catalog.count(*), pg_catalog.min(o.seq) FROM rinq_internal.outbox_1 o
                UNION ALL
                SELECT pg_catalog.count(*), pg_catalog.min(o.seq) FROM rinq_internal.outbox_2 o
                UNION ALL
                SELECT pg_catalog.count(*), pg_catalog.min(o.seq) FROM rinq_internal.outbox_3 o) t) o,
         (SELECT pg_catalog.count(*) AS dead FROM rinq_internal.outbox_dead_letter) d,
         (SELECT pg_catalog.count(*) AS waiting, pg_catalog.min(w.due) FILTER (WHERE pg_catalog.isfinite(w.due)) AS next_due
          FROM rinq_internal.outbox_waiting w) w,
         @extschema@.rinq_outbox_peer_status() s;
COMMENT ON VIEW @extschema@.rinq_outbox_status IS
    'How many durable messages wait, since when, and why';
COMMENT ON COLUMN @extschema@.rinq_outbox_status.depth IS 'Messages in the outbox';
COMMENT ON COLUMN @extschema@.rinq_outbox_status.oldest IS 'When the oldest of them was written';
COMMENT ON COLUMN @extschema@.rinq_outbox_status.dead IS 'Messages that were set aside';
COMMENT ON COLUMN @extschema@.rinq_outbox_status.in_flight IS 'Messages, also those from memory, that were published and are not confirmed yet';
COMMENT ON COLUMN @extschema@.rinq_outbox_status.retrying IS 'Messages that the broker did not take, or has no usable queue for, and that are sent later';
COMMENT ON COLUMN @extschema@.rinq_outbox_status.attempts IS 'Highest number of failed attempts among them';
COMMENT ON COLUMN @extschema@.rinq_outbox_status.last_error IS 'Why a message was not taken, or not sent, last';
COMMENT ON COLUMN @extschema@.rinq_outbox_status.direct IS 'Whether transactions hand messages over, or they are left for the outbox to be scanned';
COMMENT ON COLUMN @extschema@.rinq_outbox_status.waits_for IS 'Why messages wait of which none has moved for five seconds, NULL when there are none';
COMMENT ON COLUMN @extschema@.rinq_outbox_status.waiting IS 'Messages that wait for their time, or for the one before them; these are not in the outbox yet';
COMMENT ON COLUMN @extschema@.rinq_outbox_status.next_due IS 'When the next of those is due that wait for their time';

CREATE FUNCTION @extschema@.rinq_execute(
    namespace text, command text, payload jsonb DEFAULT NULL, timeout interval DEFAULT NULL,
    durable boolean DEFAULT true, session text DEFAULT NULL, deliver_after interval DEFAULT NULL,
    deliver_at timestamptz DEFAULT NULL, key text DEFAULT NULL, ordering text DEFAULT NULL, attributes jsonb DEFAULT NULL)
    RETURNS @extschema@.rinq_message_id AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_execute(text, text, jsonb, interval, boolean, text, interval, timestamptz, text, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_execute(text, text, jsonb, interval, boolean, text, interval, timestamptz, text, text, jsonb) IS
    'Has a command executed by whichever peer listens to the namespace, when the transaction commits; returns the message id';

CREATE FUNCTION @extschema@.rinq_execute_raw(
    namespace text, command text, payload bytea DEFAULT NULL, timeout interval DEFAULT NULL,
    durable boolean DEFAULT true, session text DEFAULT NULL, deliver_after interval DEFAULT NULL,
    deliver_at timestamptz DEFAULT NULL, key text DEFAULT NULL, ordering text DEFAULT NULL, attributes jsonb DEFAULT NULL)
    RETURNS @extschema@.rinq_message_id AS 'MODULE_PATHNAME'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_execute_raw(text, text, bytea, interval, boolean, text, interval, timestamptz, text, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_execute_raw(text, text, bytea, interval, boolean, text, interval, timestamptz, text, text, jsonb) IS
    'Has a command executed, with a payload in CBOR';

CREATE FUNCTION @extschema@.rinq_execute_many(
    namespace text, command text, payloads jsonb[], timeout interval DEFAULT NULL,
    durable boolean DEFAULT true, session text DEFAULT NULL, deliver_after interval DEFAULT NULL,
    deliver_at timestamptz DEFAULT NULL, ordering text DEFAULT NULL)
    RETURNS SETOF @extschema@.rinq_message_id AS 'MODULE_PATHNAME'
    LANGUAGE C VOLATILE PARALLEL UNSAFE ROWS 100;
REVOKE ALL ON FUNCTION @extschema@.rinq_execute_many(text, text, jsonb[], interval, boolean, text, interval, timestamptz, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_execute_many(text, text, jsonb[], interval, boolean, text, interval, timestamptz, text) IS
    'Has a command executed once for each payload, when the transaction commits; returns the message ids in the same order';

-- ---------------------------------------------------------------------
-- what is recorded of requests
-- ---------------------------------------------------------------------

CREATE TABLE rinq_internal.inbox_handled (
    id text COLLATE "C",
    digest bytea,
    namespace text NOT NULL,
    handled timestamptz NOT NULL,
    payload bytea,
    is_payload_dropped boolean NOT NULL DEFAULT false,
    PRIMARY KEY (id, digest)
);
COMMENT ON TABLE rinq_internal.inbox_handled IS
    'Requests that were handled, of listeners that deduplicate, for as long as rinq.dedup_retention says';
COMMENT ON COLUMN rinq_internal.inbox_handled.id IS 'Message id of the request';
COMMENT ON COLUMN rinq_internal.inbox_handled.namespace IS 'Namespace that the request was sent to';
COMMENT ON COLUMN rinq_internal.inbox_handled.handled IS 'When its handler began';
COMMENT ON COLUMN rinq_internal.inbox_handled.digest IS 'Digest of what it asks for, since anybody can use an id';
COMMENT ON COLUMN rinq_internal.inbox_handled.payload IS 'Payload of its response in CBOR, NULL for nil, for none, and when it was dropped';
COMMENT ON COLUMN rinq_internal.inbox_handled.is_payload_dropped IS 'Whether the payload was dropped, as rinq.dedup_max_size says';
CREATE INDEX inbox_handled_handled ON rinq_internal.inbox_handled (handled);

CREATE TABLE rinq_internal.inbox_attempt (
    id text COLLATE "C",
    digest bytea,
    attempts integer NOT NULL,
    first timestamptz NOT NULL,
    last timestamptz NOT NULL,
    PRIMARY KEY (id, digest)
);
COMMENT ON TABLE rinq_internal.inbox_attempt IS
    'How often requests were attempted that the broker has delivered more than once';
COMMENT ON COLUMN rinq_internal.inbox_attempt.id IS 'Message id of the request';
COMMENT ON COLUMN rinq_internal.inbox_attempt.digest IS 'Digest of what it asks for, since anybody can use an id';
COMMENT ON COLUMN rinq_internal.inbox_attempt.attempts IS 'Attempts so far, the first one included';
COMMENT ON COLUMN rinq_internal.inbox_attempt.first IS 'When the second attempt began';
COMMENT ON COLUMN rinq_internal.inbox_attempt.last IS 'When the last attempt began';
CREATE INDEX inbox_attempt_last ON rinq_internal.inbox_attempt (last);

-- src/worker/inbox_rows.c and inbox_due.c read and write these two tables
CREATE TABLE rinq_internal.inbox_waiting (
    id text COLLATE "C",
    digest bytea,
    source text NOT NULL,
    namespace text NOT NULL,
    command text NOT NULL,
    payload bytea,
    trace_id text NOT NULL,
    deadline timestamptz,
    span_context bytea,
    traceparent bytea,
    tracestate bytea,
    handler text NOT NULL,
    attempts integer NOT NULL,
    first_received timestamptz NOT NULL,
    last_attempt timestamptz NOT NULL,
    sqlstate text,
    error text NOT NULL,
    detail text,
    hint text,
    context text,
    subscription text COLLATE "C",
    target text,
    filter bytea,
    tries integer NOT NULL,
    due timestamptz NOT NULL,
    database oid NOT NULL,
    waits_for text COLLATE "C" NOT NULL GENERATED ALWAYS AS
        (CASE WHEN subscription IS NULL THEN namespace ELSE ' ' OPERATOR(pg_catalog.||) subscription END) STORED,
    PRIMARY KEY (id, digest)
);
COMMENT ON TABLE rinq_internal.inbox_waiting IS
    'Commands and notifications that have failed, or were set aside, and wait for their next attempt; see the view rinq_inbox_waiting';
COMMENT ON COLUMN rinq_internal.inbox_waiting.id IS 'Message id of the request or notification';
COMMENT ON COLUMN rinq_internal.inbox_waiting.digest IS 'Digest of what it asks for, or says and to which subscription, since anybody can use an id';
COMMENT ON COLUMN rinq_internal.inbox_waiting.source IS 'Session that sent it, at its revision when it did';
COMMENT ON COLUMN rinq_internal.inbox_waiting.namespace IS 'Namespace that it was sent in';
COMMENT ON COLUMN rinq_internal.inbox_waiting.command IS 'Name of the command, or type of the notification';
COMMENT ON COLUMN rinq_internal.inbox_waiting.payload IS 'Payload in CBOR, NULL for nil';
COMMENT ON COLUMN rinq_internal.inbox_waiting.trace_id IS 'Its trace id';
COMMENT ON COLUMN rinq_internal.inbox_waiting.deadline IS 'Time after which it is not handled any more, NULL for none';
COMMENT ON COLUMN rinq_internal.inbox_waiting.span_context IS 'OpenTracing context, NULL for none';
COMMENT ON COLUMN rinq_internal.inbox_waiting.traceparent IS 'W3C trace context: its traceparent, NULL for none';
COMMENT ON COLUMN rinq_internal.inbox_waiting.tracestate IS 'W3C trace context: its tracestate, NULL for none';
COMMENT ON COLUMN rinq_internal.inbox_waiting.handler IS 'Function that was to handle it';
COMMENT ON COLUMN rinq_internal.inbox_waiting.attempts IS 'How often it was attempted';
COMMENT ON COLUMN rinq_internal.inbox_waiting.first_received IS 'When this database received it first';
COMMENT ON COLUMN rinq_internal.inbox_waiting.last_attempt IS 'When the last attempt began';
COMMENT ON COLUMN rinq_internal.inbox_waiting.sqlstate IS 'SQLSTATE of the error that ended the last attempt, NULL when the attempt ended its process';
COMMENT ON COLUMN rinq_internal.inbox_waiting.error IS 'Message of that error, or what has happened';
COMMENT ON COLUMN rinq_internal.inbox_waiting.detail IS 'Its detail, NULL for none';
COMMENT ON COLUMN rinq_internal.inbox_waiting.hint IS 'Its hint, NULL for none';
COMMENT ON COLUMN rinq_internal.inbox_waiting.context IS 'Where in the handler it was raised, NULL when that is not known';
COMMENT ON COLUMN rinq_internal.inbox_waiting.subscription IS 'Name of the subscription that is to handle it, NULL for a command';
COMMENT ON COLUMN rinq_internal.inbox_waiting.target IS 'Session that the notification came for, NULL for a command';
COMMENT ON COLUMN rinq_internal.inbox_waiting.filter IS 'Constraint in CBOR of a notification to many, NULL for one to one session and for a command';
COMMENT ON COLUMN rinq_internal.inbox_waiting.tries IS 'Attempts since it was put here, or here again';
COMMENT ON COLUMN rinq_internal.inbox_waiting.due IS 'When the next attempt may begin; while one is under way, when it is taken for dead';
COMMENT ON COLUMN rinq_internal.inbox_waiting.database IS 'Database that it was received in';
COMMENT ON COLUMN rinq_internal.inbox_waiting.waits_for IS 'What it is looked for by: the namespace of a command; the name of the subscription behind a space, with which no namespace begins';
CREATE INDEX inbox_waiting_due ON rinq_internal.inbox_waiting (database, waits_for, due);

CREATE FUNCTION rinq_internal.inbox_due() RETURNS trigger
    AS 'MODULE_PATHNAME', 'rinq_inbox_due' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION rinq_internal.inbox_due() IS
    'Has the peer told at commit when the next of what waits is due';

CREATE TRIGGER inbox_due AFTER INSERT OR UPDATE ON rinq_internal.inbox_waiting
    FOR EACH STATEMENT EXECUTE FUNCTION rinq_internal.inbox_due();
COMMENT ON TRIGGER inbox_due ON rinq_internal.inbox_waiting IS
    'Has the peer told of what administrators have changed';

CREATE TABLE rinq_internal.inbox_dead_letter (
    id text COLLATE "C",
    digest bytea,
    source text NOT NULL,
    namespace text NOT NULL,
    command text NOT NULL,
    payload bytea,
    trace_id text NOT NULL,
    deadline timestamptz,
    span_context bytea,
    traceparent bytea,
    tracestate bytea,
    handler text NOT NULL,
    attempts integer NOT NULL,
    first_received timestamptz NOT NULL,
    last_attempt timestamptz NOT NULL,
    sqlstate text,
    error text NOT NULL,
    detail text,
    hint text,
    context text,
    subscription text COLLATE "C",
    target text,
    filter bytea,
    recorded timestamptz NOT NULL,
    PRIMARY KEY (id, digest)
);
COMMENT ON TABLE rinq_internal.inbox_dead_letter IS
    'What was set aside: commands and notifications that have failed, and requests that were given up after rinq.max_attempts; see the view rinq_inbox_dead_letter';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.id IS 'Message id of the request or notification';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.digest IS 'Digest of what it asks for, or says and to which subscription, since anybody can use an id';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.source IS 'Session that sent it, at its revision when it did';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.namespace IS 'Namespace that it was sent in';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.command IS 'Name of the command, or type of the notification';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.payload IS 'Payload in CBOR, NULL for nil';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.trace_id IS 'Its trace id';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.deadline IS 'Time after which it is not handled any more, NULL for none';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.span_context IS 'OpenTracing context, NULL for none';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.traceparent IS 'W3C trace context: its traceparent, NULL for none';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.tracestate IS 'W3C trace context: its tracestate, NULL for none';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.handler IS 'Function that was to handle it';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.attempts IS 'How often it was attempted';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.first_received IS 'When this database received it first';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.last_attempt IS 'When the last attempt began';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.sqlstate IS 'SQLSTATE of the error that ended the last attempt, NULL when the attempt ended its process';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.error IS 'Message of that error, or what has happened';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.detail IS 'Its detail, NULL for none';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.hint IS 'Its hint, NULL for none';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.context IS 'Where in the handler it was raised, NULL when that is not known';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.subscription IS 'Name of the subscription that is to handle it, NULL for a command';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.target IS 'Session that the notification came for, NULL for a command';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.filter IS 'Constraint in CBOR of a notification to many, NULL for one to one session and for a command';
COMMENT ON COLUMN rinq_internal.inbox_dead_letter.recorded IS 'When it was set aside';
CREATE INDEX inbox_dead_letter_recorded ON rinq_internal.inbox_dead_letter (recorded);

CREATE FUNCTION rinq_internal.inbox_dead_letter_retry(id @extschema@.rinq_message_id, at timestamptz, subscription text)
    RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    WITH d AS (
        DELETE FROM rinq_internal.inbox_dead_letter r
        WHERE r.id OPERATOR(pg_catalog.=) inbox_dead_letter_retry.id::pg_catalog.text
            AND r.digest OPERATOR(pg_catalog.=) (
                SELECT o.digest FROM rinq_internal.inbox_dead_letter o
                WHERE o.id OPERATOR(pg_catalog.=) r.id
                    AND (inbox_dead_letter_retry.subscription IS NULL OR o.subscription OPERATOR(pg_catalog.=) inbox_dead_letter_retry.subscription)
                ORDER BY o.recorded, o.digest LIMIT 1)
        RETURNING r.*
    ), i AS (
        INSERT INTO rinq_internal.inbox_waiting
            (id, digest, source, namespace, command, payload, trace_id, deadline, span_context, traceparent, tracestate, handler, attempts, first_received, last_attempt, sqlstate, error, detail, hint, context, subscription, target, filter, tries, due, database)
        SELECT d.id, d.digest, d.source, d.namespace, d.command, d.payload, d.trace_id, d.deadline, d.span_context, d.traceparent, d.tracestate, d.handler, d.attempts, d.first_received, d.last_attempt, d.sqlstate, d.error, d.detail, d.hint, d.context, d.subscription, d.target, d.filter, 0,
               COALESCE(inbox_dead_letter_retry.at, pg_catalog.now()),
               (SELECT b.oid FROM pg_catalog.pg_database b
                WHERE b.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
        FROM d
        ON CONFLICT (id, digest) DO NOTHING
    )
    SELECT EXISTS (SELECT FROM d);
END;
COMMENT ON FUNCTION rinq_internal.inbox_dead_letter_retry(@extschema@.rinq_message_id, timestamptz, text) IS
    'Does what rinq_inbox_dead_letter_retry does, which has locked the extension before its tables';

CREATE FUNCTION @extschema@.rinq_inbox_dead_letter_retry(id @extschema@.rinq_message_id, at timestamptz DEFAULT NULL, subscription text DEFAULT NULL)
    RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT rinq_internal.require_own_relation('rinq_internal.inbox_dead_letter'::regclass);
    SELECT rinq_internal.require_own_relation('rinq_internal.inbox_waiting'::regclass);
    SELECT rinq_internal.inbox_dead_letter_retry(id, at, subscription);
END;
REVOKE ALL ON FUNCTION @extschema@.rinq_inbox_dead_letter_retry(@extschema@.rinq_message_id, timestamptz, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_inbox_dead_letter_retry(@extschema@.rinq_message_id, timestamptz, text) IS
    'Has a command or notification that was set aside handled again, now or at a time; with the name of a subscription, its notification of this id; false when there is none';

CREATE FUNCTION rinq_internal.inbox_dead_letter_delete(id @extschema@.rinq_message_id, subscription text)
    RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    WITH d AS (
        DELETE FROM rinq_internal.inbox_dead_letter r
        WHERE r.id OPERATOR(pg_catalog.=) inbox_dead_letter_delete.id::pg_catalog.text
            AND r.digest OPERATOR(pg_catalog.=) (
                SELECT o.digest FROM rinq_internal.inbox_dead_letter o
                WHERE o.id OPERATOR(pg_catalog.=) r.id
                    AND (inbox_dead_letter_delete.subscription IS NULL OR o.subscription OPERATOR(pg_catalog.=) inbox_dead_letter_delete.subscription)
                ORDER BY o.recorded, o.digest LIMIT 1)
        RETURNING 1
    )
    SELECT EXISTS (SELECT FROM d);
END;
COMMENT ON FUNCTION rinq_internal.inbox_dead_letter_delete(@extschema@.rinq_message_id, text) IS
    'Does what rinq_inbox_dead_letter_delete does, which has locked the extension before its tables';

CREATE FUNCTION @extschema@.rinq_inbox_dead_letter_delete(id @extschema@.rinq_message_id, subscription text DEFAULT NULL)
    RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT rinq_internal.require_own_relation('rinq_internal.inbox_dead_letter'::regclass);
    SELECT rinq_internal.inbox_dead_letter_delete(id, subscription);
END;
REVOKE ALL ON FUNCTION @extschema@.rinq_inbox_dead_letter_delete(@extschema@.rinq_message_id, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_inbox_dead_letter_delete(@extschema@.rinq_message_id, text) IS
    'Deletes a command or notification that was set aside; with the name of a subscription, its notification of this id; false when there is none';

CREATE FUNCTION rinq_internal.inbox_waiting_retry(id @extschema@.rinq_message_id, at timestamptz, subscription text)
    RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    WITH u AS (
        UPDATE rinq_internal.inbox_waiting w SET due = COALESCE(inbox_waiting_retry.at, pg_catalog.now()),
            database = (SELECT b.oid FROM pg_catalog.pg_database b
                        WHERE b.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
        WHERE w.id OPERATOR(pg_catalog.=) inbox_waiting_retry.id::pg_catalog.text
            AND (inbox_waiting_retry.subscription IS NULL OR w.subscription OPERATOR(pg_catalog.=) inbox_waiting_retry.subscription)
        RETURNING 1
    )
    SELECT EXISTS (SELECT FROM u);
END;
COMMENT ON FUNCTION rinq_internal.inbox_waiting_retry(@extschema@.rinq_message_id, timestamptz, text) IS
    'Does what rinq_inbox_waiting_retry does, which has locked the extension before its tables';

CREATE FUNCTION @extschema@.rinq_inbox_waiting_retry(id @extschema@.rinq_message_id, at timestamptz DEFAULT NULL, subscription text DEFAULT NULL)
    RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT rinq_internal.require_own_relation('rinq_internal.inbox_waiting'::regclass);
    SELECT rinq_internal.inbox_waiting_retry(id, at, subscription);
END;
REVOKE ALL ON FUNCTION @extschema@.rinq_inbox_waiting_retry(@extschema@.rinq_message_id, timestamptz, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_inbox_waiting_retry(@extschema@.rinq_message_id, timestamptz, text) IS
    'Has the next attempt at what waits for it with this id begin now, or at a time; with the name of a subscription, at its notification; false when there is none';

CREATE FUNCTION rinq_internal.inbox_waiting_delete(id @extschema@.rinq_message_id, subscription text)
    RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE
BEGIN ATOMIC
    WITH d AS (
        DELETE FROM rinq_internal.inbox_waiting w
        WHERE w.id OPERATOR(pg_catalog.=) inbox_waiting_delete.id::pg_catalog.text
            AND (inbox_waiting_delete.subscription IS NULL OR w.subscription OPERATOR(pg_catalog.=) inbox_waiting_delete.subscription)
        RETURNING 1
    )
    SELECT EXISTS (SELECT FROM d);
END;
COMMENT ON FUNCTION rinq_internal.inbox_waiting_delete(@extschema@.rinq_message_id, text) IS
    'Does what rinq_inbox_waiting_delete does, which has locked the extension before its tables';

CREATE FUNCTION @extschema@.rinq_inbox_waiting_delete(id @extschema@.rinq_message_id, subscription text DEFAULT NULL)
    RETURNS boolean LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    SELECT rinq_internal.require_own_relation('rinq_internal.inbox_waiting'::regclass);
    SELECT rinq_internal.inbox_waiting_delete(id, subscription);
END;
REVOKE ALL ON FUNCTION @extschema@.rinq_inbox_waiting_delete(@extschema@.rinq_message_id, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_inbox_waiting_delete(@extschema@.rinq_message_id, text) IS
    'Deletes what waits for its next attempt with this id; with the name of a subscription, its notification; false when there is none';

CREATE VIEW @extschema@.rinq_inbox_attempt WITH (security_barrier) AS
    SELECT r.id, r.attempts, r.first, r.last
    FROM rinq_internal.inbox_attempt r
    WHERE pg_catalog.has_function_privilege(
        '@extschema@.rinq_inbox_dead_letter_retry(@extschema@.rinq_message_id, timestamptz, text)'::pg_catalog.regprocedure, 'EXECUTE');
COMMENT ON VIEW @extschema@.rinq_inbox_attempt IS
    'How often requests were attempted that the broker has delivered more than once; empty for roles that may not execute rinq_inbox_dead_letter_retry';
COMMENT ON COLUMN @extschema@.rinq_inbox_attempt.id IS 'Message id of the request';
COMMENT ON COLUMN @extschema@.rinq_inbox_attempt.attempts IS 'Attempts so far, the first one included';
COMMENT ON COLUMN @extschema@.rinq_inbox_attempt.first IS 'When the second attempt began';
COMMENT ON COLUMN @extschema@.rinq_inbox_attempt.last IS 'When the last attempt began';

CREATE VIEW @extschema@.rinq_inbox_handled WITH (security_barrier) AS
    SELECT r.id, r.namespace, r.handled, r.payload, r.is_payload_dropped
    FROM rinq_internal.inbox_handled r
    WHERE pg_catalog.has_function_privilege(
        '@extschema@.rinq_inbox_dead_letter_retry(@extschema@.rinq_message_id, timestamptz, text)'::pg_catalog.regprocedure, 'EXECUTE');
COMMENT ON VIEW @extschema@.rinq_inbox_handled IS
    'Requests that were handled, of listeners that deduplicate, for as long as rinq.dedup_retention says; empty for roles that may not execute rinq_inbox_dead_letter_retry';
COMMENT ON COLUMN @extschema@.rinq_inbox_handled.id IS 'Message id of the request';
COMMENT ON COLUMN @extschema@.rinq_inbox_handled.namespace IS 'Namespace that the request was sent to';
COMMENT ON COLUMN @extschema@.rinq_inbox_handled.handled IS 'When its handler began';
COMMENT ON COLUMN @extschema@.rinq_inbox_handled.payload IS 'Payload of its response in CBOR, NULL for nil, for none, and when it was dropped';
COMMENT ON COLUMN @extschema@.rinq_inbox_handled.is_payload_dropped IS 'Whether the payload was dropped, as rinq.dedup_max_size says';

CREATE VIEW @extschema@.rinq_inbox_waiting WITH (security_barrier) AS
    SELECT r.id, CASE WHEN r.subscription IS NULL THEN 'command' ELSE 'notification' END AS kind,
           r.source, r.namespace, r.command, r.subscription, r.target, r.filter, r.payload, r.trace_id, r.deadline, r.span_context, r.traceparent, r.tracestate, r.handler, r.attempts, r.first_received, r.last_attempt, r.sqlstate, r.error, r.detail, r.hint, r.context, r.due
    FROM rinq_internal.inbox_waiting r
    WHERE pg_catalog.has_function_privilege(
        '@extschema@.rinq_inbox_dead_letter_retry(@extschema@.rinq_message_id, timestamptz, text)'::pg_catalog.regprocedure, 'EXECUTE');
COMMENT ON VIEW @extschema@.rinq_inbox_waiting IS
    'Commands and notifications that wait for their next attempt, for rinq_inbox_waiting_retry and rinq_inbox_waiting_delete; empty for roles that may not execute rinq_inbox_dead_letter_retry';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.id IS 'Message id of the request or notification';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.kind IS 'command or notification';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.source IS 'Session that sent it, at its revision when it did';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.namespace IS 'Namespace that it was sent in';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.command IS 'Name of the command, or type of the notification';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.subscription IS 'Name of the subscription that is to handle it, NULL for a command';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.target IS 'Session that the notification came for, NULL for a command';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.filter IS 'Constraint in CBOR of a notification to many, NULL for one to one session and for a command';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.payload IS 'Payload in CBOR, NULL for nil';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.trace_id IS 'Its trace id';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.deadline IS 'Time after which it is not handled any more, NULL for none';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.span_context IS 'OpenTracing context, NULL for none';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.traceparent IS 'W3C trace context: its traceparent, NULL for none';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.tracestate IS 'W3C trace context: its tracestate, NULL for none';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.handler IS 'Function that was to handle it';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.attempts IS 'How often it was attempted';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.first_received IS 'When this database received it first';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.last_attempt IS 'When the last attempt began';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.sqlstate IS 'SQLSTATE of the error that ended the last attempt, NULL when the attempt ended its process';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.error IS 'Message of that error, or what has happened';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.detail IS 'Its detail, NULL for none';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.hint IS 'Its hint, NULL for none';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.context IS 'Where in the handler it was raised, NULL when that is not known';
COMMENT ON COLUMN @extschema@.rinq_inbox_waiting.due IS 'When the next attempt may begin; while one is under way, when it is taken for dead';

CREATE VIEW @extschema@.rinq_inbox_dead_letter WITH (security_barrier) AS
    SELECT r.id, CASE WHEN r.subscription IS NULL THEN 'command' ELSE 'notification' END AS kind,
           r.source, r.namespace, r.command, r.subscription, r.target, r.filter, r.payload, r.trace_id, r.deadline, r.span_context, r.traceparent, r.tracestate, r.handler, r.attempts, r.first_received, r.last_attempt, r.sqlstate, r.error, r.detail, r.hint, r.context, r.recorded
    FROM rinq_internal.inbox_dead_letter r
    WHERE pg_catalog.has_function_privilege(
        '@extschema@.rinq_inbox_dead_letter_retry(@extschema@.rinq_message_id, timestamptz, text)'::pg_catalog.regprocedure, 'EXECUTE');
COMMENT ON VIEW @extschema@.rinq_inbox_dead_letter IS
    'Requests and notifications that were set aside, for rinq_inbox_dead_letter_retry and rinq_inbox_dead_letter_delete; empty for roles that may not execute the former';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.id IS 'Message id of the request or notification';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.kind IS 'command or notification';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.source IS 'Session that sent it, at its revision when it did';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.namespace IS 'Namespace that it was sent in';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.command IS 'Name of the command, or type of the notification';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.subscription IS 'Name of the subscription that is to handle it, NULL for a command';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.target IS 'Session that the notification came for, NULL for a command';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.filter IS 'Constraint in CBOR of a notification to many, NULL for one to one session and for a command';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.payload IS 'Payload in CBOR, NULL for nil';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.trace_id IS 'Its trace id';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.deadline IS 'Time after which it is not handled any more, NULL for none';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.span_context IS 'OpenTracing context, NULL for none';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.traceparent IS 'W3C trace context: its traceparent, NULL for none';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.tracestate IS 'W3C trace context: its tracestate, NULL for none';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.handler IS 'Function that was to handle it';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.attempts IS 'How often it was attempted';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.first_received IS 'When this database received it first';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.last_attempt IS 'When the last attempt began';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.sqlstate IS 'SQLSTATE of the error that ended the last attempt, NULL when the attempt ended its process';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.error IS 'Message of that error, or what has happened';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.detail IS 'Its detail, NULL for none';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.hint IS 'Its hint, NULL for none';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.context IS 'Where in the handler it was raised, NULL when that is not known';
COMMENT ON COLUMN @extschema@.rinq_inbox_dead_letter.recorded IS 'When it was set aside';

CREATE VIEW @extschema@.rinq_inbox_status AS
    SELECT w.waiting, w.next_due, w.oldest_waiting, d.dead, d.oldest_dead
    FROM (SELECT pg_catalog.count(*) AS waiting, pg_catalog.min(r.due) AS next_due, pg_catalog.min(r.first_received) AS oldest_waiting
          FROM rinq_internal.inbox_waiting r) w,
         (SELECT pg_catalog.count(*) AS dead, pg_catalog.min(r.recorded) AS oldest_dead FROM rinq_internal.inbox_dead_letter r) d;
COMMENT ON VIEW @extschema@.rinq_inbox_status IS
    'How many commands and notifications wait for their next attempt, and how many were set aside';
COMMENT ON COLUMN @extschema@.rinq_inbox_status.waiting IS 'Commands and notifications that wait for their next attempt';
COMMENT ON COLUMN @extschema@.rinq_inbox_status.next_due IS 'When the next of these attempts may begin';
COMMENT ON COLUMN @extschema@.rinq_inbox_status.oldest_waiting IS 'When the oldest of these was received';
COMMENT ON COLUMN @extschema@.rinq_inbox_status.dead IS 'Requests and notifications that were set aside';
COMMENT ON COLUMN @extschema@.rinq_inbox_status.oldest_dead IS 'When the oldest of them was set aside';

-- ---------------------------------------------------------------------
-- sessions
-- ---------------------------------------------------------------------

CREATE TYPE @extschema@.rinq_attribute AS (
    key text,
    value text,
    is_frozen boolean
);
COMMENT ON TYPE @extschema@.rinq_attribute IS
    'An attribute of a session; one that is frozen never changes again';
COMMENT ON COLUMN @extschema@.rinq_attribute.key IS 'Key, any text';
COMMENT ON COLUMN @extschema@.rinq_attribute.value IS 'Value; empty is the same as none';
COMMENT ON COLUMN @extschema@.rinq_attribute.is_frozen IS 'Whether it can be changed no more';

CREATE FUNCTION @extschema@.rinq_set(key text, value text)
    RETURNS @extschema@.rinq_attribute LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ROW(key, value, false)::@extschema@.rinq_attribute;
COMMENT ON FUNCTION @extschema@.rinq_set(text, text) IS
    'An attribute, for rinq_session_update';

CREATE FUNCTION @extschema@.rinq_freeze(key text, value text)
    RETURNS @extschema@.rinq_attribute LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ROW(key, value, true)::@extschema@.rinq_attribute;
COMMENT ON FUNCTION @extschema@.rinq_freeze(text, text) IS
    'An attribute that nobody can change from then on, for rinq_session_update';

CREATE FUNCTION @extschema@.rinq_session()
    RETURNS @extschema@.rinq_session_id AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_session() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_session() IS
    'The session of this connection, which ends with it';

CREATE FUNCTION @extschema@.rinq_session_create()
    RETURNS @extschema@.rinq_session_id AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_session_create() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_session_create() IS
    'Makes a session that lives until it is destroyed, or the peer loses its connection to the broker';

CREATE FUNCTION @extschema@.rinq_session_destroy(session text)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_session_destroy(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_session_destroy(text) IS
    'Destroys a session, or only if it still is at a revision; at once, whatever becomes of the transaction';

CREATE FUNCTION @extschema@.rinq_session_revision(session text)
    RETURNS @extschema@.rinq_revision AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_session_revision(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_session_revision(text) IS
    'The current revision of a session, of whichever peer';

CREATE FUNCTION @extschema@.rinq_session_get(session text, namespace text, key text)
    RETURNS text AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_session_get(text, text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_session_get(text, text, text) IS
    'The value of an attribute of a session, now or at a revision; empty when there is none';

CREATE FUNCTION @extschema@.rinq_session_get_many(session text, namespace text, keys text[])
    RETURNS SETOF @extschema@.rinq_attribute AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_session_get_many(text, text, text[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_session_get_many(text, text, text[]) IS
    'Several attributes of a session, as of the same revision';

CREATE FUNCTION @extschema@.rinq_session_update(
    session text, namespace text, VARIADIC attributes @extschema@.rinq_attribute[])
    RETURNS @extschema@.rinq_revision AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_session_update(text, text, @extschema@.rinq_attribute[]) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_session_update(text, text, @extschema@.rinq_attribute[]) IS
    'Sets attributes of a session, or only if it still is at a revision, and returns the new one; at once, whatever becomes of the transaction';

CREATE FUNCTION @extschema@.rinq_session_update(session text, namespace text, attributes jsonb)
    RETURNS @extschema@.rinq_revision AS 'MODULE_PATHNAME', 'rinq_session_update_jsonb'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_session_update(text, text, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_session_update(text, text, jsonb) IS
    'Sets attributes of a session from an object';

CREATE FUNCTION @extschema@.rinq_session_update(session text, namespace text, attributes text)
    RETURNS @extschema@.rinq_revision AS 'MODULE_PATHNAME', 'rinq_session_update_text'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_session_update(text, text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_session_update(text, text, text) IS
    'Sets attributes of a session from an object in the text form of JSON';

CREATE FUNCTION @extschema@.rinq_session_clear(session text, namespace text)
    RETURNS @extschema@.rinq_revision AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_session_clear(text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_session_clear(text, text) IS
    'Empties all attributes of a session in a namespace, and returns the new revision; at once, whatever becomes of the transaction';

CREATE FUNCTION @extschema@.rinq_source_attribute(namespace text, key text)
    RETURNS text AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL RESTRICTED COST 1000;
COMMENT ON FUNCTION @extschema@.rinq_source_attribute(text, text) IS
    'In a handler, an attribute of the session that sent the request, the same throughout the request; NULL elsewhere';

CREATE TYPE @extschema@.rinq_response AS (
    id @extschema@.rinq_message_id,
    session @extschema@.rinq_session_id,
    namespace text,
    command text,
    outcome text,
    payload jsonb,
    failure_type text,
    message text,
    trace_id text
);
COMMENT ON TYPE @extschema@.rinq_response IS
    'A response to an asynchronous call, as the handler of its session receives it; or the outcome of a durable call';
COMMENT ON COLUMN @extschema@.rinq_response.id IS 'Message id of the call';
COMMENT ON COLUMN @extschema@.rinq_response.session IS 'Session that has made the call';
COMMENT ON COLUMN @extschema@.rinq_response.namespace IS 'Namespace that was called, NULL when the response does not say';
COMMENT ON COLUMN @extschema@.rinq_response.command IS 'Command that was called, NULL when the response does not say';
COMMENT ON COLUMN @extschema@.rinq_response.outcome IS 'success, failure, or error; of a durable call also timeout, not sent, or cancelled';
COMMENT ON COLUMN @extschema@.rinq_response.payload IS 'Payload of a success or failure, NULL for nil';
COMMENT ON COLUMN @extschema@.rinq_response.failure_type IS 'Type of a failure, else NULL';
COMMENT ON COLUMN @extschema@.rinq_response.message IS 'Message of a failure or error, or NULL';
COMMENT ON COLUMN @extschema@.rinq_response.trace_id IS 'Id that the call shares with all messages sent on its behalf';

CREATE FUNCTION @extschema@.rinq_session_on_response(session text, handler regprocedure)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_session_on_response(text, regprocedure) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_session_on_response(text, regprocedure) IS
    'Has responses to asynchronous calls of a session handled by a function that takes a rinq_response, running as the current role; NULL for no longer';

CREATE FUNCTION @extschema@.rinq_list_sessions(
    OUT id @extschema@.rinq_session_id, OUT revision bigint, OUT role oid, OUT pid integer,
    OUT created timestamptz, OUT pending_calls integer, OUT listening text[],
    OUT notifications_buffered integer)
    RETURNS SETOF record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.rinq_list_sessions() IS
    'Sessions of this peer; see the view rinq_sessions';

CREATE VIEW @extschema@.rinq_sessions AS
    SELECT s.id, s.revision, pg_catalog.pg_get_userbyid(s.role) AS role, s.pid, s.created,
           s.pending_calls, s.listening, s.notifications_buffered
    FROM @extschema@.rinq_list_sessions() s;
COMMENT ON VIEW @extschema@.rinq_sessions IS
    'Sessions of this peer that belong to the current role, or to roles it is a member of; all of them for members of pg_monitor';
COMMENT ON COLUMN @extschema@.rinq_sessions.id IS 'Id of the session';
COMMENT ON COLUMN @extschema@.rinq_sessions.revision IS 'Number of its current revision';
COMMENT ON COLUMN @extschema@.rinq_sessions.role IS 'Role that it belongs to';
COMMENT ON COLUMN @extschema@.rinq_sessions.pid IS 'Process that it belongs to, NULL when it lives until it is destroyed';
COMMENT ON COLUMN @extschema@.rinq_sessions.created IS 'When it was made';
COMMENT ON COLUMN @extschema@.rinq_sessions.pending_calls IS 'Calls that wait for their response';
COMMENT ON COLUMN @extschema@.rinq_sessions.listening IS 'Namespaces whose notifications it listens to';
COMMENT ON COLUMN @extschema@.rinq_sessions.notifications_buffered IS 'Notifications that wait for rinq_notifications';

CREATE FUNCTION @extschema@.rinq_list_attributes(
    OUT session @extschema@.rinq_session_id, OUT namespace text, OUT key text, OUT value text,
    OUT is_frozen boolean, OUT created_at bigint, OUT updated_at bigint)
    RETURNS SETOF record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.rinq_list_attributes() IS
    'Attributes of sessions of this peer; see the view rinq_session_attributes';

CREATE VIEW @extschema@.rinq_session_attributes AS
    SELECT a.session, a.namespace, a.key, a.value, a.is_frozen, a.created_at, a.updated_at
    FROM @extschema@.rinq_list_attributes() a;
COMMENT ON VIEW @extschema@.rinq_session_attributes IS
    'Attributes of the sessions that rinq_sessions shows';
COMMENT ON COLUMN @extschema@.rinq_session_attributes.session IS 'Id of the session';
COMMENT ON COLUMN @extschema@.rinq_session_attributes.namespace IS 'Namespace of the attribute';
COMMENT ON COLUMN @extschema@.rinq_session_attributes.key IS 'Key of the attribute';
COMMENT ON COLUMN @extschema@.rinq_session_attributes.value IS 'Its value, empty when it was cleared';
COMMENT ON COLUMN @extschema@.rinq_session_attributes.is_frozen IS 'Whether it can be changed no more';
COMMENT ON COLUMN @extschema@.rinq_session_attributes.created_at IS 'Revision at which it was first set';
COMMENT ON COLUMN @extschema@.rinq_session_attributes.updated_at IS 'Revision at which it was last changed';

-- ---------------------------------------------------------------------
-- durable calls
-- ---------------------------------------------------------------------

CREATE FUNCTION rinq_internal.new_mailbox_id() RETURNS text
    AS 'MODULE_PATHNAME', 'rinq_new_mailbox_id' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rinq_internal.new_mailbox_id() IS
    'Makes up a peer id that no other has, for a mailbox';

CREATE TABLE rinq_internal.mailbox (
    database oid PRIMARY KEY,
    id text COLLATE "C" NOT NULL DEFAULT rinq_internal.new_mailbox_id(),
    created timestamptz NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE rinq_internal.mailbox IS
    'The peer id that answers to durable calls are sent to, and that sessions of durable messages belong to';
COMMENT ON COLUMN rinq_internal.mailbox.database IS 'Database that it was made in; a copy of that has another one';
COMMENT ON COLUMN rinq_internal.mailbox.id IS 'Peer id of the mailbox';
COMMENT ON COLUMN rinq_internal.mailbox.created IS 'When it was made';
INSERT INTO rinq_internal.mailbox (database)
    SELECT b.oid FROM pg_catalog.pg_database b
    WHERE b.datname OPERATOR(pg_catalog.=) pg_catalog.current_database();

CREATE TRIGGER listener_changed
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON rinq_internal.mailbox
    FOR EACH STATEMENT EXECUTE FUNCTION rinq_internal.listener_changed();
COMMENT ON TRIGGER listener_changed ON rinq_internal.mailbox IS
    'Makes another mailbox effective at commit';

-- src/sql/durable_call.c, src/worker/durable_responses.c and src/worker/outcome_handler.c read and write this table
CREATE TABLE rinq_internal.durable_call (
    id text COLLATE "C" PRIMARY KEY,
    role oid NOT NULL,
    namespace text NOT NULL,
    command text NOT NULL,
    payload bytea,
    trace_id text,
    span_context bytea,
    traceparent bytea,
    tracestate bytea,
    created timestamptz NOT NULL,
    deadline timestamptz,
    resend_ms integer CHECK (resend_ms > 0),
    asked integer NOT NULL DEFAULT 1,
    asked_last timestamptz NOT NULL,
    handler text,
    handler_owner oid,
    retry jsonb,
    outcome text,
    answered timestamptz,
    result bytea,
    failure_type text,
    message text,
    attempts integer NOT NULL DEFAULT 0,
    error text,
    due timestamptz
);
COMMENT ON TABLE rinq_internal.durable_call IS
    'Durable calls, until their answer is handled; see the view rinq_durable_calls';
COMMENT ON COLUMN rinq_internal.durable_call.id IS 'Message id of the request';
COMMENT ON COLUMN rinq_internal.durable_call.role IS 'Role that has made the call, and as which its handler runs';
COMMENT ON COLUMN rinq_internal.durable_call.namespace IS 'Namespace that was called';
COMMENT ON COLUMN rinq_internal.durable_call.command IS 'Name of the command';
COMMENT ON COLUMN rinq_internal.durable_call.payload IS 'Payload of the request in CBOR, NULL for nil';
COMMENT ON COLUMN rinq_internal.durable_call.trace_id IS 'Trace id, NULL when it is the message id';
COMMENT ON COLUMN rinq_internal.durable_call.span_context IS 'OpenTracing context, NULL for none';
COMMENT ON COLUMN rinq_internal.durable_call.traceparent IS 'W3C trace context: its traceparent, NULL for none';
COMMENT ON COLUMN rinq_internal.durable_call.tracestate IS 'W3C trace context: its tracestate, NULL for none';
COMMENT ON COLUMN rinq_internal.durable_call.created IS 'When the call was made';
COMMENT ON COLUMN rinq_internal.durable_call.deadline IS 'When it ends without an answer, NULL for never';
COMMENT ON COLUMN rinq_internal.durable_call.resend_ms IS 'Milliseconds without an answer after which it is asked again, NULL for never';
COMMENT ON COLUMN rinq_internal.durable_call.asked IS 'How often it was asked';
COMMENT ON COLUMN rinq_internal.durable_call.asked_last IS 'When it was asked last';
COMMENT ON COLUMN rinq_internal.durable_call.handler IS 'Function that handles the outcome: its number and its name; NULL for none';
COMMENT ON COLUMN rinq_internal.durable_call.handler_owner IS 'Owner of that function when the call was made';
COMMENT ON COLUMN rinq_internal.durable_call.retry IS 'How often and when the handler is tried again when it has failed, NULL for the usual';
COMMENT ON COLUMN rinq_internal.durable_call.outcome IS 'What has become of it, NULL while nothing has';
COMMENT ON COLUMN rinq_internal.durable_call.answered IS 'When that was known';
COMMENT ON COLUMN rinq_internal.durable_call.result IS 'Payload of the answer in CBOR, NULL for nil';
COMMENT ON COLUMN rinq_internal.durable_call.failure_type IS 'Type of a failure, else NULL';
COMMENT ON COLUMN rinq_internal.durable_call.message IS 'Message of a failure or error, or why there is no answer';
COMMENT ON COLUMN rinq_internal.durable_call.attempts IS 'How often the handler was tried and has failed';
COMMENT ON COLUMN rinq_internal.durable_call.error IS 'What the handler has failed with last';
COMMENT ON COLUMN rinq_internal.durable_call.due IS 'When to look at it again, NULL for never';
CREATE INDEX durable_call_due ON rinq_internal.durable_call (due) WHERE due IS NOT NULL;

CREATE TABLE rinq_internal.durable_source (
    session bigint PRIMARY KEY,
    id text NOT NULL,
    role oid NOT NULL,
    attributes jsonb NOT NULL,
    created timestamptz NOT NULL,
    expires timestamptz
);
COMMENT ON TABLE rinq_internal.durable_source IS
    'Sessions of the mailbox, whom durable messages with attributes are from; kept until rinq.source_retention after the message is settled';
COMMENT ON COLUMN rinq_internal.durable_source.session IS 'Number of the session';
COMMENT ON COLUMN rinq_internal.durable_source.id IS 'Id of its message';
COMMENT ON COLUMN rinq_internal.durable_source.role IS 'Role that has sent it';
COMMENT ON COLUMN rinq_internal.durable_source.attributes IS 'Attributes: an object of namespaces, which are objects';
COMMENT ON COLUMN rinq_internal.durable_source.created IS 'When the message was sent';
COMMENT ON COLUMN rinq_internal.durable_source.expires IS 'When the session ends, NULL while its message is not settled';

CREATE FUNCTION @extschema@.rinq_call_durable(
    namespace text, command text, payload jsonb DEFAULT NULL, on_response regprocedure DEFAULT NULL,
    timeout interval DEFAULT NULL, resend interval DEFAULT NULL, attributes jsonb DEFAULT NULL,
    retry jsonb DEFAULT NULL)
    RETURNS @extschema@.rinq_message_id AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_call_durable(text, text, jsonb, regprocedure, interval, interval, jsonb, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_call_durable(text, text, jsonb, regprocedure, interval, interval, jsonb, jsonb) IS
    'Calls a command when the transaction commits; its outcome, whenever that comes, is handled once by a function that takes a rinq_response, running as the current role, or kept for rinq_result; returns the message id';

CREATE FUNCTION @extschema@.rinq_call_durable_raw(
    namespace text, command text, payload bytea DEFAULT NULL, on_response regprocedure DEFAULT NULL,
    timeout interval DEFAULT NULL, resend interval DEFAULT NULL, attributes jsonb DEFAULT NULL,
    retry jsonb DEFAULT NULL)
    RETURNS @extschema@.rinq_message_id AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_call_durable_raw(text, text, bytea, regprocedure, interval, interval, jsonb, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_call_durable_raw(text, text, bytea, regprocedure, interval, interval, jsonb, jsonb) IS
    'Makes a durable call with a payload in CBOR';

CREATE FUNCTION @extschema@.rinq_durable_call_cancel(id @extschema@.rinq_message_id)
    RETURNS boolean AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_durable_call_cancel(@extschema@.rinq_message_id) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_durable_call_cancel(@extschema@.rinq_message_id) IS
    'Ends a durable call that waits for its answer: its outcome is "cancelled"; deletes one whose handler was given up, or waits for another attempt; false when there is none of this id';

CREATE FUNCTION @extschema@.rinq_durable_call_resend(id @extschema@.rinq_message_id)
    RETURNS boolean AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_durable_call_resend(@extschema@.rinq_message_id) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_durable_call_resend(@extschema@.rinq_message_id) IS
    'Asks again with the same id, for a durable call that waits for its answer; false when there is none of this id';

CREATE FUNCTION @extschema@.rinq_durable_call_retry(id @extschema@.rinq_message_id)
    RETURNS boolean AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_durable_call_retry(@extschema@.rinq_message_id) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_durable_call_retry(@extschema@.rinq_message_id) IS
    'Has the handler of a durable call run again that has failed; false when there is none of this id';

CREATE FUNCTION @extschema@.rinq_result(id @extschema@.rinq_message_id)
    RETURNS @extschema@.rinq_response AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_result(@extschema@.rinq_message_id) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_result(@extschema@.rinq_message_id) IS
    'The outcome of a durable call without a handler, NULL while there is none';

CREATE FUNCTION @extschema@.rinq_result_raw(
    id @extschema@.rinq_message_id,
    OUT outcome text, OUT payload bytea, OUT failure_type text, OUT message text)
    RETURNS record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_result_raw(@extschema@.rinq_message_id) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_result_raw(@extschema@.rinq_message_id) IS
    'The outcome of a durable call without a handler, with its payload in CBOR; NULL while there is none';

CREATE FUNCTION @extschema@.rinq_wait(id @extschema@.rinq_message_id, timeout interval DEFAULT NULL)
    RETURNS @extschema@.rinq_response AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
REVOKE ALL ON FUNCTION @extschema@.rinq_wait(@extschema@.rinq_message_id, interval) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_wait(@extschema@.rinq_message_id, interval) IS
    'Waits for the outcome of a durable call without a handler, from whichever connection';

CREATE VIEW @extschema@.rinq_durable_calls WITH (security_barrier) AS
    SELECT c.id, c.role::pg_catalog.regrole AS role, c.namespace, c.command,
           CASE WHEN NOT EXISTS (
                    SELECT FROM rinq_internal.mailbox m
                    JOIN pg_catalog.pg_database b ON b.oid OPERATOR(pg_catalog.=) m.database
                    WHERE b.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
                      AND m.id OPERATOR(pg_catalog.=) pg_catalog.split_part(c.id, '.', 1)) THEN 'abandoned'
                WHEN c.outcome IS NULL THEN 'waiting'
                WHEN c.handler IS NULL THEN 'answered'
                WHEN c.due IS NULL THEN 'failed'
                ELSE 'handling' END AS state,
           c.created, pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) c.created AS age,
           c.deadline, c.asked, c.asked_last, c.outcome, c.answered,
           CASE WHEN c.handler IS NOT NULL THEN
               pg_catalog.regexp_replace(c.handler, '^[0-9]+ ', '') END AS handler,
           c.attempts, c.error,
           CASE WHEN c.outcome IS NOT NULL AND c.handler IS NOT NULL THEN c.due END AS next_attempt,
           c.retry
    FROM rinq_internal.durable_call c
    WHERE pg_catalog.pg_has_role(c.role, 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW @extschema@.rinq_durable_calls IS
    'Durable calls of roles whose privileges one has, until their outcome is handled, or for rinq.result_retention; all of them for members of pg_monitor';
COMMENT ON COLUMN @extschema@.rinq_durable_calls.id IS 'Message id of the request';
COMMENT ON COLUMN @extschema@.rinq_durable_calls.role IS 'Role that has made the call, and as which its handler runs';
COMMENT ON COLUMN @extschema@.rinq_durable_calls.namespace IS 'Namespace that was called';
COMMENT ON COLUMN @extschema@.rinq_durable_calls.command IS 'Name of the command';
COMMENT ON COLUMN @extschema@.rinq_durable_calls.state IS 'waiting for an answer; answered, its outcome being kept; handling, when its handler runs or will; failed, when the handler was given up; or abandoned, since it was made by a database that this one is a copy of';
COMMENT ON COLUMN @extschema@.rinq_durable_calls.created IS 'When the call was made';
COMMENT ON COLUMN @extschema@.rinq_durable_calls.age IS 'How long ago that is';
COMMENT ON COLUMN @extschema@.rinq_durable_calls.deadline IS 'When it ends without an answer, NULL for never';
COMMENT ON COLUMN @extschema@.rinq_durable_calls.asked IS 'How often it was asked';
COMMENT ON COLUMN @extschema@.rinq_durable_calls.asked_last IS 'When it was asked last';
COMMENT ON COLUMN @extschema@.rinq_durable_calls.outcome IS 'success, failure, error, timeout, not sent, or cancelled; NULL while there is none';
COMMENT ON COLUMN @extschema@.rinq_durable_calls.answered IS 'When the outcome was known';
COMMENT ON COLUMN @extschema@.rinq_durable_calls.handler IS 'Function that handles the outcome, NULL for none';
COMMENT ON COLUMN @extschema@.rinq_durable_calls.attempts IS 'How often the handler has failed';
COMMENT ON COLUMN @extschema@.rinq_durable_calls.error IS 'What it has failed with last';
COMMENT ON COLUMN @extschema@.rinq_durable_calls.next_attempt IS 'When the handler runs at the latest, NULL when it does not';
COMMENT ON COLUMN @extschema@.rinq_durable_calls.retry IS 'How often and when the handler is tried again when it has failed, NULL for the usual';

-- ---------------------------------------------------------------------
-- notifications
-- ---------------------------------------------------------------------

CREATE TYPE @extschema@.rinq_constraint;
COMMENT ON TYPE @extschema@.rinq_constraint IS
    'Which sessions a notification is for: a condition on their attributes';

CREATE FUNCTION @extschema@.rinq_constraint_in(cstring)
    RETURNS @extschema@.rinq_constraint AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_constraint_in(cstring) IS 'Reads the text form of a constraint';

CREATE FUNCTION @extschema@.rinq_constraint_out(@extschema@.rinq_constraint)
    RETURNS cstring AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_constraint_out(@extschema@.rinq_constraint) IS 'Writes the text form of a constraint';

CREATE FUNCTION @extschema@.rinq_constraint_recv(internal)
    RETURNS @extschema@.rinq_constraint AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_constraint_recv(internal) IS 'Reads the binary form of a constraint, which is its CBOR';

CREATE FUNCTION @extschema@.rinq_constraint_send(@extschema@.rinq_constraint)
    RETURNS bytea AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_constraint_send(@extschema@.rinq_constraint) IS 'Writes the binary form of a constraint, which is its CBOR';

CREATE TYPE @extschema@.rinq_constraint (
    INPUT = @extschema@.rinq_constraint_in,
    OUTPUT = @extschema@.rinq_constraint_out,
    RECEIVE = @extschema@.rinq_constraint_recv,
    SEND = @extschema@.rinq_constraint_send,
    INTERNALLENGTH = VARIABLE,
    ALIGNMENT = int4,
    STORAGE = extended
);

CREATE FUNCTION @extschema@.rinq_constraint_to_jsonb(@extschema@.rinq_constraint)
    RETURNS jsonb AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_constraint_to_jsonb(@extschema@.rinq_constraint) IS
    'The map that a constraint is sent as';
CREATE CAST (@extschema@.rinq_constraint AS jsonb)
    WITH FUNCTION @extschema@.rinq_constraint_to_jsonb(@extschema@.rinq_constraint);
COMMENT ON CAST (@extschema@.rinq_constraint AS jsonb) IS 'The map that a constraint is sent as';

CREATE FUNCTION @extschema@.rinq_constraint_from_jsonb(jsonb)
    RETURNS @extschema@.rinq_constraint AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_constraint_from_jsonb(jsonb) IS
    'The constraint that is sent as this map';
CREATE CAST (jsonb AS @extschema@.rinq_constraint)
    WITH FUNCTION @extschema@.rinq_constraint_from_jsonb(jsonb);
COMMENT ON CAST (jsonb AS @extschema@.rinq_constraint) IS 'The constraint that is sent as this map';

CREATE FUNCTION @extschema@.rinq_constraint_eq(@extschema@.rinq_constraint, @extschema@.rinq_constraint)
    RETURNS boolean AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_constraint_eq(@extschema@.rinq_constraint, @extschema@.rinq_constraint) IS
    'Whether two constraints are written the same';
CREATE OPERATOR @extschema@.= (
    LEFTARG = @extschema@.rinq_constraint, RIGHTARG = @extschema@.rinq_constraint,
    FUNCTION = @extschema@.rinq_constraint_eq, COMMUTATOR = OPERATOR(@extschema@.=)
);
COMMENT ON OPERATOR @extschema@.= (@extschema@.rinq_constraint, @extschema@.rinq_constraint) IS
    'Whether two constraints are written the same';

CREATE FUNCTION @extschema@.rinq_none()
    RETURNS @extschema@.rinq_constraint AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_none() IS 'Matches every session';

CREATE FUNCTION @extschema@.rinq_all()
    RETURNS @extschema@.rinq_constraint AS 'MODULE_PATHNAME', 'rinq_none' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_all() IS 'Matches every session: the same as rinq_none, which is Rinq''s name for it';

CREATE FUNCTION @extschema@.rinq_equal(key text, value text)
    RETURNS @extschema@.rinq_constraint AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_equal(text, text) IS 'Matches sessions whose attribute has this value';

CREATE FUNCTION @extschema@.rinq_not_equal(key text, value text)
    RETURNS @extschema@.rinq_constraint AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_not_equal(text, text) IS 'Matches sessions whose attribute has another value';

CREATE FUNCTION @extschema@.rinq_empty(key text)
    RETURNS @extschema@.rinq_constraint AS 'MODULE_PATHNAME', 'rinq_equal' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_empty(text) IS 'Matches sessions whose attribute is empty, or missing';

CREATE FUNCTION @extschema@.rinq_not_empty(key text)
    RETURNS @extschema@.rinq_constraint AS 'MODULE_PATHNAME', 'rinq_not_equal' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_not_empty(text) IS 'Matches sessions whose attribute has a value';

CREATE FUNCTION @extschema@.rinq_not(@extschema@.rinq_constraint)
    RETURNS @extschema@.rinq_constraint AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_not(@extschema@.rinq_constraint) IS 'Matches sessions that the constraint does not match';

CREATE FUNCTION @extschema@.rinq_and(VARIADIC @extschema@.rinq_constraint[])
    RETURNS @extschema@.rinq_constraint AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_and(@extschema@.rinq_constraint[]) IS 'Matches sessions that all constraints match';

CREATE FUNCTION @extschema@.rinq_or(VARIADIC @extschema@.rinq_constraint[])
    RETURNS @extschema@.rinq_constraint AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_or(@extschema@.rinq_constraint[]) IS 'Matches sessions that one of the constraints matches';

CREATE FUNCTION @extschema@.rinq_within(namespace text, VARIADIC @extschema@.rinq_constraint[])
    RETURNS @extschema@.rinq_constraint AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_within(text, @extschema@.rinq_constraint[]) IS 'Matches sessions that all constraints match in another namespace than the notification has';

CREATE TYPE @extschema@.rinq_notification AS (
    id @extschema@.rinq_message_id,
    source @extschema@.rinq_revision,
    target @extschema@.rinq_session_id,
    namespace text,
    type text,
    payload jsonb,
    is_multicast boolean,
    filter @extschema@.rinq_constraint,
    trace_id text,
    attempt integer,
    first_received timestamptz
);
COMMENT ON TYPE @extschema@.rinq_notification IS
    'A notification, as the handler of a session that listens receives it';
COMMENT ON COLUMN @extschema@.rinq_notification.id IS 'Message id of the notification';
COMMENT ON COLUMN @extschema@.rinq_notification.source IS 'Session that sent it, at its revision when it did';
COMMENT ON COLUMN @extschema@.rinq_notification.target IS 'Session that it is handled for';
COMMENT ON COLUMN @extschema@.rinq_notification.namespace IS 'Namespace of the notification';
COMMENT ON COLUMN @extschema@.rinq_notification.type IS 'Type of the notification, any text';
COMMENT ON COLUMN @extschema@.rinq_notification.payload IS 'Payload, NULL for nil';
COMMENT ON COLUMN @extschema@.rinq_notification.is_multicast IS 'Whether it was sent to all sessions that match a constraint';
COMMENT ON COLUMN @extschema@.rinq_notification.filter IS 'That constraint, NULL for a notification to one session';
COMMENT ON COLUMN @extschema@.rinq_notification.trace_id IS 'Id that the notification shares with all messages sent on its behalf';
COMMENT ON COLUMN @extschema@.rinq_notification.attempt IS 'Which attempt at handling it this is, from 1 on';
COMMENT ON COLUMN @extschema@.rinq_notification.first_received IS 'When this database received it';

CREATE FUNCTION @extschema@.rinq_session_listen(
    session text, namespace text, handler regprocedure DEFAULT NULL, channel text DEFAULT NULL)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_session_listen(text, text, regprocedure, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_session_listen(text, text, regprocedure, text) IS
    'Has notifications to a session, in a namespace, handled by a function that takes a rinq_notification, running as the current role; or forwarded to a channel of LISTEN and NOTIFY; or, with neither, buffered for rinq_notifications; at once, whatever becomes of the transaction';

-- for everybody to execute, since it is put in the place of rinq_notifications, whose privileges it asks for
CREATE FUNCTION @extschema@.rinq_fetch_notifications(timeout interval, session text, max_rows integer)
    RETURNS SETOF @extschema@.rinq_notification AS 'MODULE_PATHNAME', 'rinq_notifications'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.rinq_fetch_notifications(interval, text, integer) IS
    'Fetches notifications one by one, as they are read; see rinq_notifications';

-- PostgreSQL puts this in the place of a call in FROM, where it would read a function to its end; STABLE is the condition
CREATE FUNCTION @extschema@.rinq_notifications(
    timeout interval DEFAULT '0', session text DEFAULT NULL, max_rows integer DEFAULT NULL)
    RETURNS SETOF @extschema@.rinq_notification LANGUAGE sql STABLE PARALLEL UNSAFE
BEGIN ATOMIC
    WITH f AS MATERIALIZED (SELECT @extschema@.rinq_fetch_notifications(timeout, session, max_rows) AS n)
    SELECT (f.n).* FROM f;
END;
REVOKE ALL ON FUNCTION @extschema@.rinq_notifications(interval, text, integer) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_notifications(interval, text, integer) IS
    'Returns, and forgets, notifications that were buffered for a session, which is the one of this connection if it is NULL; waits for the next one when there is none; those that the statement does not read stay';

CREATE UNLOGGED TABLE rinq_internal.stored_notification (
    number bigint PRIMARY KEY,
    stored timestamptz NOT NULL DEFAULT pg_catalog.now(),
    role regrole NOT NULL,
    notification @extschema@.rinq_notification NOT NULL
);
CREATE INDEX stored_notification_stored ON rinq_internal.stored_notification (stored);
COMMENT ON TABLE rinq_internal.stored_notification IS
    'Notifications that were too long to be forwarded by NOTIFY; see rinq_stored_notifications';
COMMENT ON COLUMN rinq_internal.stored_notification.number IS 'Number that NOTIFY has carried';
COMMENT ON COLUMN rinq_internal.stored_notification.stored IS 'When it was stored; kept for rinq.notification_retention';
COMMENT ON COLUMN rinq_internal.stored_notification.role IS 'Role that had it forwarded';
COMMENT ON COLUMN rinq_internal.stored_notification.notification IS 'The notification';

CREATE FUNCTION @extschema@.rinq_list_stored_notifications(
    OUT number bigint, OUT stored timestamptz, OUT notification @extschema@.rinq_notification)
    RETURNS SETOF record AS 'MODULE_PATHNAME'
    LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.rinq_list_stored_notifications() IS
    'Stored notifications of roles whose privileges one has; see the view rinq_stored_notifications';

CREATE VIEW @extschema@.rinq_stored_notifications AS
    SELECT s.number, s.stored, (s.notification).*
    FROM @extschema@.rinq_list_stored_notifications() s;
COMMENT ON VIEW @extschema@.rinq_stored_notifications IS
    'Notifications that were too long to be forwarded by NOTIFY, of roles whose privileges one has';
COMMENT ON COLUMN @extschema@.rinq_stored_notifications.number IS 'Number that NOTIFY has carried, as "stored"';
COMMENT ON COLUMN @extschema@.rinq_stored_notifications.stored IS 'When it was stored; kept for rinq.notification_retention';
COMMENT ON COLUMN @extschema@.rinq_stored_notifications.id IS 'Message id of the notification';
COMMENT ON COLUMN @extschema@.rinq_stored_notifications.source IS 'Session that sent it, at its revision when it did';
COMMENT ON COLUMN @extschema@.rinq_stored_notifications.target IS 'Session that it was forwarded for';
COMMENT ON COLUMN @extschema@.rinq_stored_notifications.namespace IS 'Namespace of the notification';
COMMENT ON COLUMN @extschema@.rinq_stored_notifications.type IS 'Type of the notification, any text';
COMMENT ON COLUMN @extschema@.rinq_stored_notifications.payload IS 'Payload, NULL for nil';
COMMENT ON COLUMN @extschema@.rinq_stored_notifications.is_multicast IS 'Whether it was sent to all sessions that match a constraint';
COMMENT ON COLUMN @extschema@.rinq_stored_notifications.filter IS 'That constraint, NULL for a notification to one session';
COMMENT ON COLUMN @extschema@.rinq_stored_notifications.trace_id IS 'Id that the notification shares with all messages sent on its behalf';
COMMENT ON COLUMN @extschema@.rinq_stored_notifications.attempt IS 'Which attempt at handling it this was';
COMMENT ON COLUMN @extschema@.rinq_stored_notifications.first_received IS 'When this database received it';

CREATE TABLE rinq_internal.subscription (
    name text COLLATE "C" PRIMARY KEY CHECK (pg_catalog.octet_length(name) OPERATOR(pg_catalog.>=) 1
            AND pg_catalog.octet_length(name) OPERATOR(pg_catalog.<=) 200),
    namespace text NOT NULL
        CHECK (namespace OPERATOR(pg_catalog.~) '^[A-Za-z0-9.:-][A-Za-z0-9_.:-]{0,199}$'),
    handler text NOT NULL,
    role rinq_internal.role_reference NOT NULL,
    owner rinq_internal.role_reference NOT NULL,
    attributes jsonb NOT NULL DEFAULT '{}' CHECK (pg_catalog.jsonb_typeof(attributes) OPERATOR(pg_catalog.=) 'object'),
    identity uuid NOT NULL DEFAULT rinq_internal.identity(),
    retry jsonb
);
COMMENT ON TABLE rinq_internal.subscription IS
    'Durable subscriptions to notifications; written by rinq_subscribe and rinq_unsubscribe';
COMMENT ON COLUMN rinq_internal.subscription.name IS 'Name of the subscription';
COMMENT ON COLUMN rinq_internal.subscription.namespace IS 'Namespace whose notifications are handled';
COMMENT ON COLUMN rinq_internal.subscription.handler IS 'Function that handles them, with its schema and argument type';
COMMENT ON COLUMN rinq_internal.subscription.role IS 'Role that subscribed; its session receives them, and the handler runs as it';
COMMENT ON COLUMN rinq_internal.subscription.owner IS 'Owner of the function when it was registered; a function of the same name by anybody else is not run';
COMMENT ON COLUMN rinq_internal.subscription.attributes IS 'Attributes of the session, in the namespace';
COMMENT ON COLUMN rinq_internal.subscription.identity IS 'Identity of the database when it was registered';
COMMENT ON COLUMN rinq_internal.subscription.retry IS 'Policy for notifications that have failed, NULL when they are not kept but when a handler says rinq_retry';

CREATE TRIGGER listener_changed
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON rinq_internal.subscription
    FOR EACH STATEMENT EXECUTE FUNCTION rinq_internal.listener_changed();
COMMENT ON TRIGGER listener_changed ON rinq_internal.subscription IS
    'Makes changes of the subscriptions effective at commit, however they are made';
CREATE TRIGGER listener_changed_row
    AFTER INSERT OR UPDATE OR DELETE ON rinq_internal.subscription
    FOR EACH ROW EXECUTE FUNCTION rinq_internal.listener_changed();
COMMENT ON TRIGGER listener_changed_row ON rinq_internal.subscription IS
    'The same where triggers for statements do not fire';

CREATE TRIGGER listener_registered
    AFTER INSERT OR UPDATE OF role ON rinq_internal.subscription
    FOR EACH ROW EXECUTE FUNCTION rinq_internal.listener_registered();
COMMENT ON TRIGGER listener_registered ON rinq_internal.subscription IS
    'Keeps the role from being dropped';
ALTER TABLE rinq_internal.subscription ENABLE ALWAYS TRIGGER listener_registered;

SELECT pg_catalog.pg_extension_config_dump('rinq_internal.subscription', '');

CREATE FUNCTION @extschema@.rinq_subscribe(
    name text, namespace text, handler regprocedure, attributes jsonb DEFAULT '{}', retry jsonb DEFAULT NULL)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_subscribe(text, text, regprocedure, jsonb, jsonb) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_subscribe(text, text, regprocedure, jsonb, jsonb) IS
    'Has notifications to a session with these attributes, which the peer makes whenever it connects, handled by a function that takes a rinq_notification, running as the current role; from commit on. Notifications that fail are tried again as retry says, and then set aside; NULL: they are not kept';

CREATE FUNCTION @extschema@.rinq_unsubscribe(name text)
    RETURNS boolean AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_unsubscribe(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_unsubscribe(text) IS
    'Ends a durable subscription, from commit on; false when there was none';

CREATE FUNCTION @extschema@.rinq_list_subscriptions(OUT name text, OUT session @extschema@.rinq_session_id)
    RETURNS SETOF record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.rinq_list_subscriptions() IS
    'Durable subscriptions that have a session; see the view rinq_subscriptions';

CREATE VIEW @extschema@.rinq_subscriptions WITH (security_barrier) AS
    SELECT s.name, s.namespace, s.handler, rinq_internal.role_oid(s.role)::pg_catalog.regrole AS role,
           s.attributes, l.session,
           rinq_internal.handler_problem(s.handler, true, s.role, s.owner) AS problem, s.retry
    FROM rinq_internal.subscription s
    LEFT JOIN @extschema@.rinq_list_subscriptions() l ON l.name OPERATOR(pg_catalog.=) s.name
    WHERE pg_catalog.pg_has_role(rinq_internal.role_oid(s.role), 'USAGE') OR pg_catalog.pg_has_role('pg_monitor', 'USAGE');
COMMENT ON VIEW @extschema@.rinq_subscriptions IS
    'Durable subscriptions of roles whose privileges one has; all of them for members of pg_monitor';
COMMENT ON COLUMN @extschema@.rinq_subscriptions.name IS 'Name of the subscription';
COMMENT ON COLUMN @extschema@.rinq_subscriptions.namespace IS 'Namespace whose notifications are handled';
COMMENT ON COLUMN @extschema@.rinq_subscriptions.handler IS 'Function that handles them';
COMMENT ON COLUMN @extschema@.rinq_subscriptions.role IS 'Role that subscribed, and as which the handler runs';
COMMENT ON COLUMN @extschema@.rinq_subscriptions.attributes IS 'Attributes that the session is made with';
COMMENT ON COLUMN @extschema@.rinq_subscriptions.problem IS 'Why its notifications cannot be handled now, NULL when they can';
COMMENT ON COLUMN @extschema@.rinq_subscriptions.retry IS 'Policy for notifications that have failed, NULL when they are not kept but when a handler says rinq_retry';
COMMENT ON COLUMN @extschema@.rinq_subscriptions.session IS 'Session that receives them now, NULL while there is none, or the broker does not send them yet';

CREATE FUNCTION @extschema@.rinq_session_unlisten(session text, namespace text)
    RETURNS boolean AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_session_unlisten(text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_session_unlisten(text, text) IS
    'Ends that a session listens to notifications in a namespace; false when it did not';

CREATE FUNCTION @extschema@.rinq_notify(
    namespace text, type text, target text, payload jsonb DEFAULT NULL, session text DEFAULT NULL)
    RETURNS @extschema@.rinq_message_id AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_notify(text, text, text, jsonb, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_notify(text, text, text, jsonb, text) IS
    'Notifies one session when the transaction commits; returns the message id';

CREATE FUNCTION @extschema@.rinq_notify_raw(
    namespace text, type text, target text, payload bytea DEFAULT NULL, session text DEFAULT NULL)
    RETURNS @extschema@.rinq_message_id AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_notify_raw(text, text, text, bytea, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_notify_raw(text, text, text, bytea, text) IS
    'Notifies one session when the transaction commits, with a payload in CBOR; returns the message id';

CREATE FUNCTION @extschema@.rinq_notify_trigger()
    RETURNS trigger AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_notify_trigger() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_notify_trigger() IS
    'Trigger function that notifies of changes of a table when the transaction commits; its arguments are a namespace, a type, a constraint or the column that names the session, and options';

CREATE FUNCTION @extschema@.rinq_notify_many(
    namespace text, type text, filter @extschema@.rinq_constraint, payload jsonb DEFAULT NULL, session text DEFAULT NULL)
    RETURNS @extschema@.rinq_message_id AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_notify_many(text, text, @extschema@.rinq_constraint, jsonb, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_notify_many(text, text, @extschema@.rinq_constraint, jsonb, text) IS
    'Notifies all sessions that listen to the namespace and match the constraint when the transaction commits; returns the message id';

CREATE FUNCTION @extschema@.rinq_notify_many_raw(
    namespace text, type text, filter @extschema@.rinq_constraint, payload bytea DEFAULT NULL, session text DEFAULT NULL)
    RETURNS @extschema@.rinq_message_id AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_notify_many_raw(text, text, @extschema@.rinq_constraint, bytea, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_notify_many_raw(text, text, @extschema@.rinq_constraint, bytea, text) IS
    'Notifies all sessions that listen to the namespace and match the constraint when the transaction commits, with a payload in CBOR; returns the message id';

-- ---------------------------------------------------------------------
-- payloads
-- ---------------------------------------------------------------------

CREATE FUNCTION @extschema@.rinq_to_cbor(jsonb)
    RETURNS bytea AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_to_cbor(jsonb) IS
    'Converts a jsonb value to CBOR';

CREATE FUNCTION @extschema@.rinq_from_cbor(bytea)
    RETURNS jsonb AS 'MODULE_PATHNAME' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_from_cbor(bytea) IS
    'Converts one CBOR item to jsonb';

-- ---------------------------------------------------------------------
-- the peer
-- ---------------------------------------------------------------------

CREATE FUNCTION @extschema@.rinq_version()
    RETURNS text AS 'MODULE_PATHNAME' LANGUAGE C STABLE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_version() IS
    'Versions of the loaded library and of the protocol it speaks';

CREATE FUNCTION @extschema@.rinq_stop(graceful boolean DEFAULT true)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_stop(boolean) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_stop(boolean) IS
    'Takes this database off the network until rinq_start or the next start of the server; a graceful stop lets finish what runs';

CREATE FUNCTION @extschema@.rinq_start()
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_start() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_start() IS
    'Has this database be a peer again, after rinq_stop';

CREATE FUNCTION @extschema@.rinq_wait_ready(timeout interval DEFAULT '30 seconds')
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_wait_ready(interval) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_wait_ready(interval) IS
    'Waits until this database is connected to the broker and serves the listeners and subscriptions that are committed; an error says what is missing when the time is over';

CREATE FUNCTION @extschema@.rinq_adopt()
    RETURNS boolean AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_adopt() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_adopt() IS
    'Has this database be a peer although it is a copy of another one, or the server starts suspended; from commit on; false when it was not suspended';

CREATE FUNCTION @extschema@.rinq_peer_status(
    OUT pid integer, OUT peer_id text, OUT state text, OUT broker text,
    OUT broker_version text, OUT blocked boolean, OUT connected_since timestamptz,
    OUT last_error text, OUT calls_sent bigint, OUT responses_received bigint,
    OUT responses_dropped bigint, OUT requests_received bigint,
    OUT requests_rejected bigint, OUT requests_requeued bigint,
    OUT requests_expired bigint, OUT requests_unhandled bigint, OUT responses_sent bigint,
    OUT reconnects bigint, OUT messages_sent bigint, OUT messages_dropped bigint,
    OUT notifications_received bigint, OUT notifications_rejected bigint,
    OUT notifications_dropped bigint, OUT notifications_failed bigint, OUT events_missed bigint,
    OUT requests_retried bigint, OUT requests_set_aside bigint,
    OUT notifications_retried bigint, OUT notifications_set_aside bigint,
    OUT longest_turn double precision, OUT longest_turn_cpu double precision,
    OUT last_error_at timestamptz, OUT next_attempt timestamptz,
    OUT tls_version text, OUT tls_cipher text, OUT tls_certificate_expires timestamptz, OUT server text)
    RETURNS record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL SAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_peer_status() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_peer_status() IS
    'State and counters of the peer of this database; see the view rinq_peer';

CREATE VIEW @extschema@.rinq_peer AS
    SELECT pg_catalog.current_database() AS database, s.pid, s.peer_id, s.state, s.broker,
           s.server, s.broker_version, s.tls_version, s.tls_cipher, s.tls_certificate_expires, s.blocked, s.connected_since, s.last_error, s.last_error_at, s.next_attempt, s.reconnects,
           s.calls_sent, s.responses_received, s.responses_dropped, s.requests_received,
           s.requests_rejected, s.requests_requeued, s.requests_expired, s.requests_unhandled,
           s.requests_retried, s.requests_set_aside, s.responses_sent,
           s.messages_sent, s.messages_dropped, s.notifications_received,
           s.notifications_rejected, s.notifications_dropped, s.notifications_failed,
           s.notifications_retried, s.notifications_set_aside, s.events_missed, s.longest_turn, s.longest_turn_cpu
    FROM @extschema@.rinq_peer_status() s;
COMMENT ON VIEW @extschema@.rinq_peer IS
    'The peer of this database: its process, its place on the network, and what it has done since this server began to serve the database';
COMMENT ON COLUMN @extschema@.rinq_peer.database IS 'Name of this database';
COMMENT ON COLUMN @extschema@.rinq_peer.pid IS 'Process id of the peer, NULL when none runs';
COMMENT ON COLUMN @extschema@.rinq_peer.peer_id IS 'Id of the peer on the network, new with each connection';
COMMENT ON COLUMN @extschema@.rinq_peer.state IS 'stopped, suspended, starting, connecting, connected, disconnected, or stopping';
COMMENT ON COLUMN @extschema@.rinq_peer.broker IS 'Broker as host:port/vhost';
COMMENT ON COLUMN @extschema@.rinq_peer.server IS 'Foreign server that has said where the broker is, NULL when rinq.amqp_dsn has';
COMMENT ON COLUMN @extschema@.rinq_peer.broker_version IS 'Version the broker reported';
COMMENT ON COLUMN @extschema@.rinq_peer.tls_version IS 'Version of TLS of the connection, like TLSv1.3; NULL in plain text, or without a connection';
COMMENT ON COLUMN @extschema@.rinq_peer.tls_cipher IS 'Cipher of the connection; NULL in plain text';
COMMENT ON COLUMN @extschema@.rinq_peer.tls_certificate_expires IS 'Until when the certificate is valid that the broker has shown; NULL in plain text';
COMMENT ON COLUMN @extschema@.rinq_peer.blocked IS 'Whether the broker takes no messages for want of memory or disk';
COMMENT ON COLUMN @extschema@.rinq_peer.connected_since IS 'When the current connection was made';
COMMENT ON COLUMN @extschema@.rinq_peer.last_error IS 'What went wrong last; why it is suspended, when it is';
COMMENT ON COLUMN @extschema@.rinq_peer.last_error_at IS 'When that was';
COMMENT ON COLUMN @extschema@.rinq_peer.next_attempt IS 'When the peer tries to connect again, NULL unless it waits for that';
COMMENT ON COLUMN @extschema@.rinq_peer.reconnects IS 'Connections that were lost';
COMMENT ON COLUMN @extschema@.rinq_peer.calls_sent IS 'Requests sent by calls';
COMMENT ON COLUMN @extschema@.rinq_peer.responses_received IS 'Responses handed to a waiting call';
COMMENT ON COLUMN @extschema@.rinq_peer.responses_dropped IS 'Responses that nobody waited for any more';
COMMENT ON COLUMN @extschema@.rinq_peer.requests_received IS 'Requests that arrived';
COMMENT ON COLUMN @extschema@.rinq_peer.requests_rejected IS 'Requests rejected because they made no sense, or nothing here handles them';
COMMENT ON COLUMN @extschema@.rinq_peer.requests_requeued IS 'Requests given back to the broker unanswered';
COMMENT ON COLUMN @extschema@.rinq_peer.requests_expired IS 'Requests whose deadline passed before they were answered';
COMMENT ON COLUMN @extschema@.rinq_peer.requests_unhandled IS 'Requests that failed before a handler ran';
COMMENT ON COLUMN @extschema@.rinq_peer.requests_retried IS 'Attempts at requests that have failed, or were set aside, for which another one is made';
COMMENT ON COLUMN @extschema@.rinq_peer.requests_set_aside IS 'Requests that were set aside in rinq_inbox_dead_letter';
COMMENT ON COLUMN @extschema@.rinq_peer.responses_sent IS 'Responses published';
COMMENT ON COLUMN @extschema@.rinq_peer.messages_sent IS 'Messages published that transactions have sent';
COMMENT ON COLUMN @extschema@.rinq_peer.messages_dropped IS 'Messages of these that were given up: from memory and not taken or not confirmed, or past their deadline';
COMMENT ON COLUMN @extschema@.rinq_peer.notifications_received IS 'Notifications handed to a session, or buffered for it';
COMMENT ON COLUMN @extschema@.rinq_peer.notifications_rejected IS 'Notifications rejected because they made no sense';
COMMENT ON COLUMN @extschema@.rinq_peer.notifications_dropped IS 'Notifications to sessions that were not handled or fetched: too many waited, or the session ended';
COMMENT ON COLUMN @extschema@.rinq_peer.notifications_failed IS 'Notifications that were lost since their handler raised an error or ended its process, or that could not be forwarded';
COMMENT ON COLUMN @extschema@.rinq_peer.notifications_retried IS 'Attempts at notifications of subscriptions that have failed, and for which another one is made';
COMMENT ON COLUMN @extschema@.rinq_peer.notifications_set_aside IS 'Notifications of subscriptions that were set aside in rinq_inbox_dead_letter';
COMMENT ON COLUMN @extschema@.rinq_peer.events_missed IS 'How often a process had no room to tell the peer that it came or went, so that the peer looked at all of them instead';
COMMENT ON COLUMN @extschema@.rinq_peer.longest_turn IS 'Longest turn of the event loop of the peer in the last minute or two, in milliseconds: how long anything had to wait for everything else';
COMMENT ON COLUMN @extschema@.rinq_peer.longest_turn_cpu IS 'Most processor time of a turn in the last minute or two, in milliseconds: without what other processes of the machine have taken';

-- ---------------------------------------------------------------------
-- where the broker of a database is
-- ---------------------------------------------------------------------

CREATE FUNCTION rinq_internal.server_validator(options text[], catalog oid) RETURNS void
    AS 'MODULE_PATHNAME', 'rinq_server_validator' LANGUAGE C VOLATILE STRICT;
COMMENT ON FUNCTION rinq_internal.server_validator(text[], oid) IS
    'Checks the options of foreign servers that say where the broker of a database is, and of their user mappings';

CREATE FOREIGN DATA WRAPPER rinq VALIDATOR rinq_internal.server_validator;
COMMENT ON FOREIGN DATA WRAPPER rinq IS
    'Its servers say where the broker of this database is; those count that belong to superusers or the owner of the extension. It has no foreign tables';

-- its owner has to be a superuser, and all else may change hands
CREATE FUNCTION rinq_internal.give_wrapper() RETURNS void
    AS 'MODULE_PATHNAME', 'rinq_give_wrapper' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rinq_internal.give_wrapper() IS
    'For the scripts of the extension: has the foreign-data wrapper belong to the bootstrap superuser';
SELECT rinq_internal.give_wrapper();

-- more than one while a dump is restored; so nothing is unique here
CREATE TABLE rinq_internal.chosen_server (
    name text COLLATE "C" NOT NULL
);
COMMENT ON TABLE rinq_internal.chosen_server IS
    'Foreign server that rinq_use_server has chosen; empty when it has not';
COMMENT ON COLUMN rinq_internal.chosen_server.name IS 'Name of the server';

CREATE FUNCTION rinq_internal.server_chosen() RETURNS trigger
    AS 'MODULE_PATHNAME', 'rinq_server_chosen' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION rinq_internal.server_chosen() IS
    'Has the peer read which server was chosen when the transaction commits';

CREATE TRIGGER server_chosen
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON rinq_internal.chosen_server
    FOR EACH STATEMENT EXECUTE FUNCTION rinq_internal.server_chosen();
COMMENT ON TRIGGER server_chosen ON rinq_internal.chosen_server IS
    'Makes the choice of a server effective at commit, however it is made';
CREATE TRIGGER server_chosen_row
    AFTER INSERT OR UPDATE OR DELETE ON rinq_internal.chosen_server
    FOR EACH ROW EXECUTE FUNCTION rinq_internal.server_chosen();
COMMENT ON TRIGGER server_chosen_row ON rinq_internal.chosen_server IS
    'The same where triggers for statements do not fire';

SELECT pg_catalog.pg_extension_config_dump('rinq_internal.chosen_server', '');

CREATE FUNCTION rinq_internal.server_problem() RETURNS text
    AS 'MODULE_PATHNAME', 'rinq_server_problem' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION rinq_internal.server_problem() IS
    'Why the foreign servers do not say where the broker is, NULL when they do or there is none';

CREATE FUNCTION @extschema@.rinq_use_server(name text)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_use_server(text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_use_server(text) IS
    'Chooses the foreign server that says where the broker of this database is, from commit on; NULL for the only one there is. For superusers and the owner of the extension, whatever is granted';

-- ---------------------------------------------------------------------
-- what should not be
-- ---------------------------------------------------------------------

CREATE FUNCTION @extschema@.rinq_check(
    OUT severity text, OUT subject text, OUT message text, OUT hint text)
    RETURNS SETOF record LANGUAGE sql VOLATILE PARALLEL UNSAFE SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp
BEGIN ATOMIC
    WITH extension AS (
        SELECT e.oid, e.extowner, e.extnamespace FROM pg_catalog.pg_extension e
        WHERE e.extname OPERATOR(pg_catalog.=) 'rinq'
    ), own AS (
        SELECT d.classid, d.objid FROM pg_catalog.pg_depend d, extension e
        WHERE d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::regclass
          AND d.refobjid OPERATOR(pg_catalog.=) e.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'
    ), internal AS (
        SELECT n.oid, n.nspname, n.nspacl, n.nspowner FROM pg_catalog.pg_namespace n JOIN own o
          ON o.objid OPERATOR(pg_catalog.=) n.oid AND o.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::regclass
    ), internal_objects AS (
        SELECT 'pg_catalog.pg_namespace'::regclass AS classid, i.oid AS objid, 0 AS objsubid, i.nspacl AS acl, i.nspowner AS owner
        FROM internal i
        UNION ALL
        SELECT 'pg_catalog.pg_class'::regclass, c.oid, 0, c.relacl, c.relowner
        FROM pg_catalog.pg_class c JOIN internal i ON c.relnamespace OPERATOR(pg_catalog.=) i.oid
        UNION ALL
        SELECT 'pg_catalog.pg_class'::regclass, c.oid, a.attnum, a.attacl, c.relowner
        FROM pg_catalog.pg_class c JOIN internal i ON c.relnamespace OPERATOR(pg_catalog.=) i.oid
        JOIN pg_catalog.pg_attribute a ON a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attacl IS NOT NULL
        UNION ALL
        SELECT 'pg_catalog.pg_proc'::regclass, p.oid, 0, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)), p.proowner
        FROM pg_catalog.pg_proc p JOIN internal i ON p.pronamespace OPERATOR(pg_catalog.=) i.oid
    ), user_objects AS (
        SELECT o.classid, o.objid, coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)) AS acl
        FROM own o JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) o.objid
          AND o.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::regclass
        JOIN extension e ON p.pronamespace OPERATOR(pg_catalog.=) e.extnamespace
        UNION ALL
        SELECT o.classid, o.objid, c.relacl
        FROM own o JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) o.objid
          AND o.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::regclass
        JOIN extension e ON c.relnamespace OPERATOR(pg_catalog.=) e.extnamespace
    )
    SELECT 'error', pg_catalog.format('%I.%I', i.nspname, c.relname),
           pg_catalog.format('the table is not used: %s', rinq_internal.relation_problem(c.oid)),
           'Remove what was added, or have the owner of the extension own the table.'
    FROM pg_catalog.pg_class c JOIN internal i ON c.relnamespace OPERATOR(pg_catalog.=) i.oid
    JOIN own o ON o.objid OPERATOR(pg_catalog.=) c.oid AND o.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::regclass
    WHERE c.relkind OPERATOR(pg_catalog.=) 'r' AND rinq_internal.relation_problem(c.oid) IS NOT NULL
    UNION ALL
    SELECT 'error', pg_catalog.pg_describe_object(g.classid, g.objid, g.objsubid),
           pg_catalog.format('%s has the privilege %s',
                             CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0::oid THEN 'everybody'
                                  ELSE pg_catalog.format('role "%s"', pg_catalog.pg_get_userbyid(a.grantee)) END,
                             a.privilege_type),
           'Use REVOKE: nobody needs privileges on what is in the schema rinq_internal, but for a role that runs pg_dump.'
    FROM internal_objects g CROSS JOIN LATERAL pg_catalog.aclexplode(g.acl) a
    WHERE a.grantee OPERATOR(pg_catalog.<>) g.owner
      -- what keeps roles from being dropped, and what the views call
      AND NOT (g.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::regclass AND g.objid OPERATOR(pg_catalog.=) ANY (ARRAY[
          'rinq_internal.has_listeners_or_subscriptions()'::regprocedure::oid,
          'rinq_internal.role_oid(rinq_internal.role_reference)'::regprocedure::oid,
          'rinq_internal.handler_problem(text, boolean, rinq_internal.role_reference, rinq_internal.role_reference)'::regprocedure::oid]))
    UNION ALL
    SELECT 'warning', pg_catalog.pg_describe_object(u.classid, u.objid, 0),
           pg_catalog.format('everybody has the privilege %s', a.privilege_type),
           'Use REVOKE ... FROM PUBLIC, and GRANT to the roles that need it.'
    FROM user_objects u CROSS JOIN LATERAL pg_catalog.aclexplode(u.acl) a
    WHERE a.grantee OPERATOR(pg_catalog.=) 0::oid AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_init_privs p CROSS JOIN LATERAL pg_catalog.aclexplode(p.initprivs) x
        WHERE p.objoid OPERATOR(pg_catalog.=) u.objid AND p.classoid OPERATOR(pg_catalog.=) u.classid
          AND p.objsubid OPERATOR(pg_catalog.=) 0 AND x.grantee OPERATOR(pg_catalog.=) 0::oid
          AND x.privilege_type OPERATOR(pg_catalog.=) a.privilege_type)
      AND (u.classid OPERATOR(pg_catalog.<>) 'pg_catalog.pg_proc'::regclass OR EXISTS (
        SELECT FROM pg_catalog.pg_init_privs p
        WHERE p.objoid OPERATOR(pg_catalog.=) u.objid AND p.classoid OPERATOR(pg_catalog.=) u.classid))
    UNION ALL
    SELECT 'error', pg_catalog.pg_describe_object(o.classid, o.objid, 0),
           'it does not belong to the owner of the extension', 'Use ALTER ... OWNER TO.'
    FROM own o CROSS JOIN extension e
    WHERE e.extowner OPERATOR(pg_catalog.<>) coalesce(
        (SELECT c.relowner FROM pg_catalog.pg_class c
         WHERE c.oid OPERATOR(pg_catalog.=) o.objid AND o.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::regclass),
        (SELECT p.proowner FROM pg_catalog.pg_proc p
         WHERE p.oid OPERATOR(pg_catalog.=) o.objid AND o.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::regclass),
        (SELECT t.typowner FROM pg_catalog.pg_type t
         WHERE t.oid OPERATOR(pg_catalog.=) o.objid AND o.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_type'::regclass
           -- not the types that come with a table or another type, which are members of their own from PostgreSQL 17 on
           AND NOT EXISTS (
               SELECT FROM pg_catalog.pg_depend d
               WHERE d.classid OPERATOR(pg_catalog.=) o.classid AND d.objid OPERATOR(pg_catalog.=) o.objid
                 AND d.deptype OPERATOR(pg_catalog.=) 'i')),
        (SELECT n.nspowner FROM pg_catalog.pg_namespace n
         WHERE n.oid OPERATOR(pg_catalog.=) o.objid AND o.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::regclass),
        e.extowner)
    UNION ALL
    SELECT 'warning', 'extension rinq',
           pg_catalog.format('its owner, role "%s", is not a superuser; what is registered by roles that it may not act as is not run', r.rolname),
           'Use REASSIGN OWNED BY, with a superuser as the new owner.'
    FROM extension e JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) e.extowner WHERE NOT r.rolsuper
    UNION ALL
    SELECT 'error', 'server of the broker', p.problem,
           'The peer makes no new connection as long as this is so. Use ALTER SERVER, ALTER USER MAPPING or rinq_use_server().'
    FROM rinq_internal.server_problem() p (problem) WHERE p.problem IS NOT NULL
    UNION ALL
    SELECT 'warning', pg_catalog.pg_describe_object('pg_catalog.pg_foreign_server'::regclass, s.oid, 0),
           pg_catalog.format('it does not count, since role "%s" is neither a superuser nor the owner of the extension', r.rolname),
           'Drop it, or use ALTER SERVER ... OWNER TO after having looked at its options.'
    FROM own o JOIN pg_catalog.pg_foreign_server s ON s.srvfdw OPERATOR(pg_catalog.=) o.objid
      AND o.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_foreign_data_wrapper'::regclass
    JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) s.srvowner CROSS JOIN extension e
    WHERE NOT r.rolsuper AND r.oid OPERATOR(pg_catalog.<>) e.extowner
    UNION ALL
    SELECT 'warning', pg_catalog.pg_describe_object(o.classid, o.objid, 0),
           pg_catalog.format('%s has the privilege %s',
                             CASE WHEN a.grantee OPERATOR(pg_catalog.=) 0::oid THEN 'everybody'
                                  ELSE pg_catalog.format('role "%s"', pg_catalog.pg_get_userbyid(a.grantee)) END,
                             a.privilege_type),
           'Use REVOKE: the servers that such a role makes do not count.'
    FROM own o JOIN pg_catalog.pg_foreign_data_wrapper w ON w.oid OPERATOR(pg_catalog.=) o.objid
      AND o.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_foreign_data_wrapper'::regclass
    CROSS JOIN LATERAL pg_catalog.aclexplode(w.fdwacl) a CROSS JOIN extension e
    WHERE a.grantee OPERATOR(pg_catalog.<>) ALL (ARRAY[w.fdwowner, e.extowner])
    UNION ALL
    SELECT 'warning', pg_catalog.format('trigger %I on %I.%I', t.tgname, i.nspname, c.relname),
           'it does not always fire, as after a restore with --disable-triggers',
           pg_catalog.format('Use ALTER TABLE %I.%I ENABLE ALWAYS TRIGGER %I.', i.nspname, c.relname, t.tgname)
    FROM pg_catalog.pg_class c JOIN internal i ON c.relnamespace OPERATOR(pg_catalog.=) i.oid
    JOIN pg_catalog.pg_trigger t ON t.tgrelid OPERATOR(pg_catalog.=) c.oid AND NOT t.tgisinternal
      AND t.tgenabled OPERATOR(pg_catalog.<>) 'A'
    JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) t.tgfoid AND p.pronamespace OPERATOR(pg_catalog.=) i.oid
    UNION ALL
    SELECT 'error', pg_catalog.pg_describe_object('pg_catalog.pg_class'::regclass, c.oid, 0),
           pg_catalog.format('it has the trigger "%s", which runs as whoever writes it', t.tgname),
           pg_catalog.format('Use DROP TRIGGER %I ON %s.', t.tgname, c.oid::regclass)
    FROM own o JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) o.objid
      AND o.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::regclass AND c.relkind OPERATOR(pg_catalog.=) 'v'
    JOIN pg_catalog.pg_trigger t ON t.tgrelid OPERATOR(pg_catalog.=) c.oid
    UNION ALL
    SELECT 'error', pg_catalog.format('table %I.%I', i.nspname, c.relname),
           pg_catalog.format('it lacks the trigger "%s"', x.name),
           'Use DROP EXTENSION rinq and CREATE EXTENSION rinq.'
    FROM pg_catalog.pg_class c JOIN internal i ON c.relnamespace OPERATOR(pg_catalog.=) i.oid
    CROSS JOIN (VALUES ('guard'), ('keep_local')) x (name)
    WHERE c.relkind OPERATOR(pg_catalog.=) 'r' AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_trigger t WHERE t.tgrelid OPERATOR(pg_catalog.=) c.oid
          AND t.tgname OPERATOR(pg_catalog.=) x.name)
    UNION ALL
    SELECT 'error', pg_catalog.pg_describe_object(x.classid, x.oid, 0), 'it is in the schema rinq_internal, and not the extension''s',
           'Move or drop it.'
    FROM (SELECT 'pg_catalog.pg_class'::regclass AS classid, c.oid FROM pg_catalog.pg_class c
          JOIN internal i ON c.relnamespace OPERATOR(pg_catalog.=) i.oid
          WHERE c.relkind OPERATOR(pg_catalog.<>) ALL ('{i,I}'::"char"[])
          UNION ALL
          SELECT 'pg_catalog.pg_proc'::regclass, p.oid FROM pg_catalog.pg_proc p
          JOIN internal i ON p.pronamespace OPERATOR(pg_catalog.=) i.oid) x
    WHERE NOT EXISTS (SELECT FROM own o WHERE o.classid OPERATOR(pg_catalog.=) x.classid AND o.objid OPERATOR(pg_catalog.=) x.oid)
    UNION ALL
    SELECT 'warning', pg_catalog.pg_describe_object('pg_catalog.pg_proc'::regclass, p.oid, 0),
           'it has the name of a function of the extension, and may be called in its place', 'Rename or drop it.'
    FROM pg_catalog.pg_proc p JOIN extension e ON p.pronamespace OPERATOR(pg_catalog.=) e.extnamespace
    WHERE EXISTS (SELECT FROM own o JOIN pg_catalog.pg_proc q ON q.oid OPERATOR(pg_catalog.=) o.objid
                  WHERE o.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::regclass AND q.proname OPERATOR(pg_catalog.=) p.proname)
      AND NOT EXISTS (SELECT FROM own o WHERE o.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::regclass
                      AND o.objid OPERATOR(pg_catalog.=) p.oid)
    UNION ALL
    SELECT 'error', pg_catalog.format('table %I.%I', i.nspname, c.relname), 'it may fail to be written while it is published',
           'Use ALTER TABLE ... REPLICA IDENTITY.'
    FROM pg_catalog.pg_class c JOIN internal i ON c.relnamespace OPERATOR(pg_catalog.=) i.oid
    WHERE c.relkind OPERATOR(pg_catalog.=) 'r' AND c.relname OPERATOR(pg_catalog.!~) '^(outbox_[0-9]+|manifest)$'
      AND (c.relreplident OPERATOR(pg_catalog.=) 'n' OR (c.relreplident OPERATOR(pg_catalog.=) 'd' AND NOT EXISTS (
          SELECT FROM pg_catalog.pg_index x WHERE x.indrelid OPERATOR(pg_catalog.=) c.oid AND x.indisprimary)))
    UNION ALL
    SELECT 'warning', 'setting max_worker_processes', pg_catalog.format('it is %s, and the first served database needs %s', w.present, w.needed),
           pg_catalog.format('Set it to %s, and %s more for each further database, and restart the server.', w.needed, w.each_database)
    FROM (SELECT s.present, s.each_database, s.each_database OPERATOR(pg_catalog.+) 2 OPERATOR(pg_catalog.+) s.logical AS needed
          FROM (SELECT pg_catalog.current_setting('max_worker_processes')::pg_catalog.int4 AS present,
                       coalesce(pg_catalog.current_setting('rinq.command_workers', true)::pg_catalog.int4, 4) OPERATOR(pg_catalog.+) 2 AS each_database,
                       (pg_catalog.current_setting('max_logical_replication_workers') OPERATOR(pg_catalog.<>) '0')::pg_catalog.int4 AS logical) s) w
    WHERE w.present OPERATOR(pg_catalog.<) w.needed
    UNION ALL
    SELECT 'warning', 'view rinq_inbox_dead_letter',
           pg_catalog.format('requests%s that were set aside: %s, the oldest one at %s',
                             CASE WHEN pg_catalog.count(t.subscription) OPERATOR(pg_catalog.>) 0 THEN ' and notifications' END,
                             pg_catalog.count(*), pg_catalog.min(t.recorded)),
           'Use rinq_inbox_dead_letter_retry() or rinq_inbox_dead_letter_delete() after having looked at the errors there; rinq.dead_letter_retention deletes old ones.'
    FROM rinq_internal.inbox_dead_letter t HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0
    UNION ALL
    SELECT 'warning', 'view rinq_outbox_dead_letter',
           pg_catalog.format('durable messages that were set aside: %s, the oldest one at %s', pg_catalog.count(*), pg_catalog.min(t.set_aside)),
           'Use rinq_outbox_dead_letter_retry() or rinq_outbox_dead_letter_delete() after having looked at the errors there.'
    FROM rinq_internal.outbox_dead_letter t HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 0
    UNION ALL
    SELECT 'warning', 'durable calls', x.message, x.hint
    FROM (SELECT count(*) FILTER (WHERE c.outcome IS NOT NULL AND c.handler IS NOT NULL AND c.due IS NULL) AS failed,
                 count(*) FILTER (WHERE c.outcome IS NULL AND c.deadline OPERATOR(pg_catalog.<)
                                  (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) interval '10 min')) AS late
          FROM rinq_internal.durable_call c
          WHERE EXISTS (SELECT FROM rinq_internal.mailbox m
                        JOIN pg_catalog.pg_database b ON b.oid OPERATOR(pg_catalog.=) m.database
                        WHERE b.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
                          AND m.id OPERATOR(pg_catalog.=) pg_catalog.split_part(c.id, '.', 1))) n
    CROSS JOIN LATERAL (VALUES
        (n.failed, pg_catalog.format('the handlers of %s were given up', n.failed),
         'Look at rinq_durable_calls, where state is "failed"; mend the handlers, and use rinq_durable_call_retry or rinq_durable_call_cancel.'),
        (n.late, pg_catalog.format('%s should have ended more than 10 minutes ago, and have no outcome', n.late),
         'Nobody ends them while the peer is stopped, or cannot write: look at rinq_peer and the log.')) x (number, message, hint)
    WHERE x.number OPERATOR(pg_catalog.>) 0
    ORDER BY 1, 2, 3;
END;
REVOKE ALL ON FUNCTION @extschema@.rinq_check() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_check() IS
    'Names what makes the extension less safe than it was made: privileges, triggers, owners, foreign servers, and functions that pass for its own; and too few workers, what was set aside, and durable calls that got stuck; no rows when all is well';

-- ---------------------------------------------------------------------
-- privileges: what sends or listens is granted by hand
-- ---------------------------------------------------------------------

ALTER TABLE rinq_internal.outbox_dead_letter REPLICA IDENTITY FULL;
ALTER TABLE rinq_internal.identity REPLICA IDENTITY FULL;
ALTER TABLE rinq_internal.chosen_server REPLICA IDENTITY FULL;
SELECT rinq_internal.protect_tables();
SELECT rinq_internal.take_default_privileges();
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA rinq_internal FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rinq_internal.role_oid(rinq_internal.role_reference),
    rinq_internal.handler_problem(text, boolean, rinq_internal.role_reference, rinq_internal.role_reference) TO PUBLIC;

GRANT EXECUTE ON FUNCTION @extschema@.rinq_check(), @extschema@.rinq_outbox_peer_status() TO pg_monitor;
GRANT SELECT ON @extschema@.rinq_durable_calls, @extschema@.rinq_listeners, @extschema@.rinq_sessions, @extschema@.rinq_session_attributes, @extschema@.rinq_stored_notifications,
    @extschema@.rinq_subscriptions TO PUBLIC;
GRANT SELECT ON @extschema@.rinq_outbox_status, @extschema@.rinq_inbox_status TO pg_monitor;
GRANT EXECUTE ON FUNCTION @extschema@.rinq_peer_status() TO pg_monitor;
GRANT SELECT ON @extschema@.rinq_peer TO pg_monitor;

-- fires the trigger, and so has the peer started when this commits
DELETE FROM rinq_internal.listener;
