-- sessions: what needs no connection to a broker
\set VERBOSITY terse
SELECT rinq_set('k', 'v'), rinq_freeze('k', 'v'), rinq_set('', NULL);
SELECT (rinq_freeze('k', 'v')).*;
-- outside of handlers there is no source
SELECT rinq_source_attribute('auth', 'tenant') IS NULL AS nothing;
SELECT rinq_source_attribute('_sess', 'tenant');
-- views are empty without a connection
SELECT count(*) FROM rinq_sessions;
SELECT count(*) FROM rinq_session_attributes;
-- arguments are checked first
SELECT rinq_session_get('nonsense', 'a', 'k');
SELECT rinq_session_get('58AEE146-191C.45', 'bad namespace', 'k');
SELECT rinq_session_update('58AEE146-191C.45@x', 'a', rinq_set('k', 'v'));
SELECT rinq_session_update('58AEE146-191C.45', 'a', '[]');
SELECT rinq_session_revision(NULL);
CREATE FUNCTION no_handler(r rinq_request) RETURNS jsonb LANGUAGE sql AS 'SELECT r.payload';
SELECT rinq_session_on_response('58AEE146-191C.45', 'no_handler(rinq_request)');
DROP FUNCTION no_handler;
