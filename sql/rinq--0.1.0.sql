/* rinq: the objects of version 0.1.0 */

-- complain if this file is read by psql, instead of CREATE EXTENSION
\echo Use "CREATE EXTENSION rinq" to load this file. \quit

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

-- src/executor/handler.c builds values of this type, in this order
CREATE TYPE @extschema@.rinq_request AS (
    id @extschema@.rinq_message_id,
    source @extschema@.rinq_revision,
    namespace text,
    command text,
    payload jsonb,
    trace_id text,
    deadline timestamptz,
    is_response_required boolean
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

-- ---------------------------------------------------------------------
-- listeners
-- ---------------------------------------------------------------------

CREATE TABLE @extschema@.rinq_listener (
    namespace text COLLATE "C" PRIMARY KEY
        CHECK (namespace ~ '^[A-Za-z0-9.:-][A-Za-z0-9_.:-]{0,199}$'),
    handler text NOT NULL,
    role regrole NOT NULL,
    owner regrole NOT NULL
);
COMMENT ON TABLE @extschema@.rinq_listener IS
    'Namespaces that this database listens to; written by rinq_listen and rinq_unlisten';
COMMENT ON COLUMN @extschema@.rinq_listener.namespace IS
    'Namespace whose requests are handled';
COMMENT ON COLUMN @extschema@.rinq_listener.handler IS
    'Function that handles them, with its schema and argument type';
COMMENT ON COLUMN @extschema@.rinq_listener.role IS
    'Role that registered the handler, and as which it runs';
COMMENT ON COLUMN @extschema@.rinq_listener.owner IS
    'Owner of the function when it was registered; a function of the same name by anybody else is not run';

CREATE FUNCTION @extschema@.rinq_listener_changed() RETURNS trigger
    AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE;
COMMENT ON FUNCTION @extschema@.rinq_listener_changed() IS
    'Has the peer read the listeners again when the transaction commits';

CREATE TRIGGER rinq_listener_changed
    AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON @extschema@.rinq_listener
    FOR EACH STATEMENT EXECUTE FUNCTION @extschema@.rinq_listener_changed();
COMMENT ON TRIGGER rinq_listener_changed ON @extschema@.rinq_listener IS
    'Makes changes of the listeners effective at commit, however they are made';
ALTER TABLE @extschema@.rinq_listener ENABLE ALWAYS TRIGGER rinq_listener_changed;

SELECT pg_catalog.pg_extension_config_dump('@extschema@.rinq_listener', '');

CREATE FUNCTION @extschema@.rinq_listen(namespace text, handler regprocedure)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.rinq_listen(text, regprocedure) IS
    'Has requests to a namespace handled by a function that takes a rinq_request and returns jsonb, running as the current role; effective at commit';

CREATE FUNCTION @extschema@.rinq_unlisten(namespace text)
    RETURNS boolean AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE;
COMMENT ON FUNCTION @extschema@.rinq_unlisten(text) IS
    'Stops listening to a namespace, effective at commit; false when there was no listener';

-- ---------------------------------------------------------------------
-- calls and failures
-- ---------------------------------------------------------------------

CREATE FUNCTION @extschema@.rinq_call(
    namespace text, command text, payload jsonb DEFAULT NULL, timeout interval DEFAULT NULL)
    RETURNS jsonb AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000;
COMMENT ON FUNCTION @extschema@.rinq_call(text, text, jsonb, interval) IS
    'Calls a command of whichever peer listens to the namespace, waits for its response, and returns the payload';

CREATE FUNCTION @extschema@.rinq_fail(
    type text, message text DEFAULT NULL, payload jsonb DEFAULT NULL)
    RETURNS void AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.rinq_fail(text, text, jsonb) IS
    'Raises an application-defined failure (SQLSTATE RQ001), which in a handler becomes the response';

CREATE FUNCTION @extschema@.rinq_last_failure(
    OUT type text, OUT message text, OUT payload jsonb)
    RETURNS record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL RESTRICTED;
COMMENT ON FUNCTION @extschema@.rinq_last_failure() IS
    'Type, message and payload of the failure that this session raised or received last';

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

CREATE FUNCTION @extschema@.rinq_peer_status(
    OUT pid integer, OUT peer_id text, OUT state text, OUT broker text,
    OUT broker_version text, OUT blocked boolean, OUT connected_since timestamptz,
    OUT last_error text, OUT calls_sent bigint, OUT responses_received bigint,
    OUT responses_dropped bigint, OUT requests_received bigint,
    OUT requests_rejected bigint, OUT requests_requeued bigint,
    OUT requests_expired bigint, OUT responses_sent bigint,
    OUT reconnects bigint)
    RETURNS record AS 'MODULE_PATHNAME' LANGUAGE C VOLATILE PARALLEL SAFE;
COMMENT ON FUNCTION @extschema@.rinq_peer_status() IS
    'State and counters of the peer of this database; see the view rinq_peer';

CREATE VIEW @extschema@.rinq_peer AS
    SELECT pg_catalog.current_database() AS database, s.pid, s.peer_id, s.state, s.broker,
           s.broker_version, s.blocked, s.connected_since, s.last_error, s.reconnects,
           s.calls_sent, s.responses_received, s.responses_dropped, s.requests_received,
           s.requests_rejected, s.requests_requeued, s.requests_expired, s.responses_sent
    FROM @extschema@.rinq_peer_status() s;
COMMENT ON VIEW @extschema@.rinq_peer IS
    'The peer of this database: its process, its place on the network, and what it has done since this server began to serve the database';
COMMENT ON COLUMN @extschema@.rinq_peer.database IS 'Name of this database';
COMMENT ON COLUMN @extschema@.rinq_peer.pid IS 'Process id of the peer, NULL when none runs';
COMMENT ON COLUMN @extschema@.rinq_peer.peer_id IS 'Id of the peer on the network, new with each connection';
COMMENT ON COLUMN @extschema@.rinq_peer.state IS 'stopped, starting, connecting, connected, or disconnected';
COMMENT ON COLUMN @extschema@.rinq_peer.broker IS 'Broker as host:port/vhost';
COMMENT ON COLUMN @extschema@.rinq_peer.broker_version IS 'Version the broker reported';
COMMENT ON COLUMN @extschema@.rinq_peer.blocked IS 'Whether the broker takes no messages for want of memory or disk';
COMMENT ON COLUMN @extschema@.rinq_peer.connected_since IS 'When the current connection was made';
COMMENT ON COLUMN @extschema@.rinq_peer.last_error IS 'What went wrong last';
COMMENT ON COLUMN @extschema@.rinq_peer.reconnects IS 'Connections that were lost';
COMMENT ON COLUMN @extschema@.rinq_peer.calls_sent IS 'Requests sent by calls';
COMMENT ON COLUMN @extschema@.rinq_peer.responses_received IS 'Responses handed to a waiting call';
COMMENT ON COLUMN @extschema@.rinq_peer.responses_dropped IS 'Responses that nobody waited for any more';
COMMENT ON COLUMN @extschema@.rinq_peer.requests_received IS 'Requests that arrived';
COMMENT ON COLUMN @extschema@.rinq_peer.requests_rejected IS 'Requests rejected because they made no sense, or nothing here handles them';
COMMENT ON COLUMN @extschema@.rinq_peer.requests_requeued IS 'Requests given back to the broker unanswered';
COMMENT ON COLUMN @extschema@.rinq_peer.requests_expired IS 'Requests whose deadline passed before they were answered';
COMMENT ON COLUMN @extschema@.rinq_peer.responses_sent IS 'Responses published';

-- ---------------------------------------------------------------------
-- privileges: what sends or listens is granted by hand
-- ---------------------------------------------------------------------

REVOKE ALL ON FUNCTION @extschema@.rinq_call(text, text, jsonb, interval) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.rinq_listen(text, regprocedure) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.rinq_unlisten(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.rinq_listener_changed() FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.rinq_peer_status() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.rinq_peer_status() TO pg_monitor;
GRANT SELECT ON @extschema@.rinq_peer TO pg_monitor;

-- fires the trigger, and so has the peer started when this commits
DELETE FROM @extschema@.rinq_listener;
