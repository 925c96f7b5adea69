-- registering handlers
\set VERBOSITY terse
CREATE FUNCTION handler(req rinq_request) RETURNS jsonb LANGUAGE sql AS 'SELECT req.payload';
CREATE FUNCTION other(req rinq_request) RETURNS jsonb LANGUAGE sql AS 'SELECT req.payload';
SELECT rinq_listen('math', 'handler(rinq_request)');
SELECT namespace, handler, role = current_user::regrole AS mine FROM rinq_listeners;
-- one's own is replaced
SELECT rinq_listen('math', 'other(rinq_request)');
SELECT namespace, handler FROM rinq_internal.listener;
-- not after rollback
BEGIN;
SELECT rinq_listen('rolled.back', 'handler(rinq_request)');
ROLLBACK;
SELECT namespace FROM rinq_internal.listener;
SELECT rinq_unlisten('math'), rinq_unlisten('math'), rinq_unlisten('never');
SELECT count(*) FROM rinq_internal.listener;

-- what is no handler
CREATE FUNCTION wrong_result(req rinq_request) RETURNS text LANGUAGE sql AS 'SELECT ''x''';
CREATE FUNCTION wrong_argument(payload jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT payload';
CREATE FUNCTION wrong_count(req rinq_request, x int) RETURNS jsonb LANGUAGE sql AS 'SELECT req.payload';
CREATE FUNCTION wrong_set(req rinq_request) RETURNS SETOF jsonb LANGUAGE sql AS 'SELECT req.payload';
CREATE PROCEDURE wrong_procedure(req rinq_request) LANGUAGE sql AS 'SELECT 1';
SELECT rinq_listen('x', 'wrong_result(rinq_request)');
SELECT rinq_listen('x', 'wrong_argument(jsonb)');
SELECT rinq_listen('x', 'wrong_count(rinq_request, int)');
SELECT rinq_listen('x', 'wrong_set(rinq_request)');
SELECT rinq_listen('x', 'wrong_procedure(rinq_request)');
SELECT rinq_listen('x', 'absent(rinq_request)');
SELECT rinq_listen('x', NULL);
SELECT rinq_listen('x', 0::oid::regprocedure);

-- what is no namespace
SELECT rinq_listen(n, 'handler(rinq_request)') FROM (VALUES ('')) v(n);
SELECT rinq_listen('_sess', 'handler(rinq_request)');
SELECT rinq_listen('with space', 'handler(rinq_request)');
SELECT rinq_listen(repeat('x', 201), 'handler(rinq_request)');
SELECT rinq_listen(NULL, 'handler(rinq_request)');
SELECT rinq_unlisten('_sess');
SELECT rinq_call('_sess', 'fetch');
SELECT rinq_call('', 'x');
SELECT rinq_call('ü', 'x');
SELECT rinq_call(NULL, 'x');
SELECT rinq_call('x', NULL);
SELECT rinq_call('x', repeat('x', 16385));
SELECT rinq_call('x', 'y', NULL, '0 s');
SELECT rinq_call('x', 'y', NULL, '-1 s');

-- roles
CREATE ROLE regress_rinq_nologin;
CREATE ROLE regress_rinq_login LOGIN;
GRANT EXECUTE ON FUNCTION rinq_listen, rinq_unlisten TO regress_rinq_nologin, regress_rinq_login;
SELECT rinq_listen('taken', 'handler(rinq_request)');
SET ROLE regress_rinq_login;
SELECT rinq_listen('mine', 'handler(rinq_request)');
SELECT rinq_listen('taken', 'handler(rinq_request)');
SELECT rinq_unlisten('taken');
SELECT rinq_call('x', 'y');
SELECT * FROM rinq_internal.listener;
INSERT INTO rinq_internal.listener VALUES ('stolen', 'handler(rinq_request)', 10);
CREATE TRIGGER t BEFORE INSERT ON rinq_internal.listener EXECUTE FUNCTION suppress_redundant_updates_trigger();
SELECT * FROM rinq_peer;
-- PostgreSQL's own words for it differ by version
\set VERBOSITY sqlstate
SHOW rinq.amqp_dsn;
\set VERBOSITY default
SELECT rinq_unlisten('mine');
RESET ROLE;
-- a function the role may not execute
REVOKE EXECUTE ON FUNCTION handler FROM PUBLIC;
SET ROLE regress_rinq_login;
SELECT rinq_listen('mine', 'handler(rinq_request)');
RESET ROLE;
SELECT namespace, role = current_user::regrole AS mine FROM rinq_listeners;
SELECT rinq_unlisten('taken');

-- listening takes effect at commit, so it cannot be prepared
BEGIN;
SELECT rinq_listen('prepared', 'handler(rinq_request)');
PREPARE TRANSACTION 'x';

-- what others own has nothing to do with that
CREATE ROLE listeners_unrelated;
BEGIN;
DROP OWNED BY listeners_unrelated;
PREPARE TRANSACTION 'x';
ROLLBACK PREPARED 'x';
DROP ROLE listeners_unrelated;

-- limits and deduplication
SELECT rinq_listen('limited', 'handler(rinq_request)', 2, true);
SELECT namespace, max_concurrent, deduplicate FROM rinq_internal.listener;
SELECT rinq_listen('limited', 'handler(rinq_request)', deduplicate => NULL);
SELECT namespace, max_concurrent, deduplicate FROM rinq_internal.listener;
SELECT rinq_listen('limited', 'handler(rinq_request)', 0);
SELECT timeout FROM rinq_listeners;
SELECT rinq_listen('limited', 'handler(rinq_request)', timeout => '1.5 s');
SELECT timeout FROM rinq_listeners;
SELECT rinq_listen('limited', 'handler(rinq_request)', 1, false, '1 day 10 us');
SELECT timeout FROM rinq_listeners;
SELECT rinq_listen('limited', 'handler(rinq_request)', timeout => '1 year');
SELECT timeout FROM rinq_listeners;
SELECT rinq_listen('limited', 'handler(rinq_request)', timeout => '10 us');
SELECT timeout FROM rinq_listeners;
SELECT rinq_listen('limited', 'handler(rinq_request)', timeout => '0');
SELECT rinq_listen('limited', 'handler(rinq_request)', timeout => '-1 month');
SELECT count(*) FROM rinq_listeners WHERE timeout = '1 ms';
SELECT rinq_listener_reassign(current_user, current_user);
SELECT count(*) FROM rinq_listeners WHERE timeout = '1 ms';
SELECT rinq_listen('limited', 'handler(rinq_request)');
SELECT timeout FROM rinq_listeners;
SELECT rinq_unlisten('limited');
SELECT NOT rinq_inbox_dead_letter_retry('58AEE146-191C.45@3#1') AS nothing,
       rinq_inbox_dead_letter_delete('58AEE146-191C.45@3#1');

DROP FUNCTION handler, other, wrong_result, wrong_argument, wrong_count, wrong_set;
DROP PROCEDURE wrong_procedure;
DROP OWNED BY regress_rinq_login, regress_rinq_nologin;
DROP ROLE regress_rinq_login, regress_rinq_nologin;
