-- policies for commands that have failed: each wrong key or value is named
CREATE FUNCTION retried(req rinq_request) RETURNS jsonb LANGUAGE sql RETURN NULL::jsonb;
SELECT rinq_listen('retries', 'retried(rinq_request)', retry => '{}');
SELECT rinq_listen('retries', 'retried(rinq_request)',
                   retry => '{"attempts": 5, "first_delay": "200 ms", "factor": 2, "max_delay": "5 min", "jitter": 0.2, "calls": true}');
SELECT namespace, retry FROM rinq_listeners;
SELECT rinq_listen('retries', 'retried(rinq_request)', retry => '[]');
SELECT rinq_listen('retries', 'retried(rinq_request)', retry => 'null');
SELECT rinq_listen('retries', 'retried(rinq_request)', retry => '{"attempt": 5}');
SELECT rinq_listen('retries', 'retried(rinq_request)', retry => '{"attempts": 0}');
SELECT rinq_listen('retries', 'retried(rinq_request)', retry => '{"attempts": 2.5}');
SELECT rinq_listen('retries', 'retried(rinq_request)', retry => '{"attempts": "5"}');
SELECT rinq_listen('retries', 'retried(rinq_request)', retry => '{"attempts": 1e300}');
SELECT rinq_listen('retries', 'retried(rinq_request)', retry => '{"attempts": null}');
SELECT rinq_listen('retries', 'retried(rinq_request)', retry => '{"first_delay": 5}');
SELECT rinq_listen('retries', 'retried(rinq_request)', retry => '{"first_delay": "soon"}');
SELECT rinq_listen('retries', 'retried(rinq_request)', retry => '{"first_delay": "-1 s"}');
SELECT rinq_listen('retries', 'retried(rinq_request)', retry => '{"max_delay": "1 year"}');
SELECT rinq_listen('retries', 'retried(rinq_request)', retry => '{"first_delay": "1 hour"}');
SELECT rinq_listen('retries', 'retried(rinq_request)', retry => '{"factor": 0.5}');
SELECT rinq_listen('retries', 'retried(rinq_request)', retry => '{"factor": [2]}');
SELECT rinq_listen('retries', 'retried(rinq_request)', retry => '{"jitter": 1.1}');
SELECT rinq_listen('retries', 'retried(rinq_request)', retry => '{"calls": "yes"}');

-- requests in order
SELECT rinq_listen('retries', 'retried(rinq_request)', order_by => '{}');
SELECT rinq_listen('retries', 'retried(rinq_request)', order_by => '{a,NULL}');
SELECT rinq_listen('retries', 'retried(rinq_request)', order_by => '{{a},{b}}');
SELECT rinq_listen('retries', 'retried(rinq_request)', order_by => ARRAY[repeat('x', 1001)]);
SELECT rinq_listen('retries', 'retried(rinq_request)', order_by => array_fill('x'::text, ARRAY[501]));
CREATE FUNCTION retried_raw(req rinq_raw_request) RETURNS bytea LANGUAGE sql RETURN NULL::bytea;
SELECT rinq_listen('retries', 'retried_raw(rinq_raw_request)', order_by => '{a}');
DROP FUNCTION retried_raw;

-- one that was written by hand keeps the handler from being run
UPDATE rinq_internal.listener SET retry = '{"attempts": -1}' WHERE namespace = 'retries';
SELECT rinq_listen('retries', 'retried(rinq_request)');
SELECT retry IS NULL AS none FROM rinq_listeners WHERE namespace = 'retries';
SELECT rinq_unlisten('retries');
DROP FUNCTION retried;

-- outside of a handler it is an error like others
\set SHOW_CONTEXT never
DO $$ BEGIN PERFORM rinq_retry('1 s', 'busy'); EXCEPTION WHEN SQLSTATE 'RQ010' THEN RAISE NOTICE 'caught: %', SQLERRM; END $$;
SELECT rinq_retry();
SELECT rinq_retry('-1 s');
SELECT rinq_retry('11 years');
SELECT rinq_retry('0', '');

-- what waits, and what was set aside
SELECT rinq_inbox_waiting_retry('58AEE146-191C.45@3#1'), rinq_inbox_waiting_delete('58AEE146-191C.45@3#1'),
       rinq_inbox_dead_letter_retry('58AEE146-191C.45@3#1', now());
SELECT * FROM rinq_inbox_status;
CREATE ROLE retries_nobody;
SET ROLE retries_nobody;
SELECT * FROM rinq_inbox_waiting;
SELECT * FROM rinq_inbox_status;
SELECT rinq_inbox_waiting_retry('58AEE146-191C.45@3#1');
SELECT rinq_inbox_waiting_delete('58AEE146-191C.45@3#1');
RESET ROLE;
DROP ROLE retries_nobody;

-- the same policies for subscriptions
CREATE FUNCTION told(n rinq_notification) RETURNS void LANGUAGE sql AS '';
SELECT rinq_subscribe('retries', 'retries', 'told(rinq_notification)', retry => '{"attempts": 5, "first_delay": "200 ms", "factor": 2, "max_delay": "5 min", "jitter": 0.2}');
SELECT name, retry FROM rinq_subscriptions;
SELECT rinq_subscribe('retries', 'retries', 'told(rinq_notification)', '{}', '{}');
SELECT retry FROM rinq_subscriptions;
SELECT rinq_subscribe('retries', 'retries', 'told(rinq_notification)', retry => '[]');
SELECT rinq_subscribe('retries', 'retries', 'told(rinq_notification)', retry => 'null');
SELECT rinq_subscribe('retries', 'retries', 'told(rinq_notification)', retry => '{"attempt": 5}');
SELECT rinq_subscribe('retries', 'retries', 'told(rinq_notification)', retry => '{"first_delay": "soon"}');
SELECT rinq_subscribe('retries', 'retries', 'told(rinq_notification)');
SELECT retry IS NULL AS none FROM rinq_subscriptions;
SELECT rinq_unsubscribe('retries');
DROP FUNCTION told;

-- notifications that wait, beside a command of the same id; the name of the subscription says which
INSERT INTO rinq_internal.inbox_dead_letter (id, digest, source, namespace, command, trace_id, handler, attempts, first_received, last_attempt, error, recorded, subscription, target)
SELECT '58AEE146-191C.45@3#1', sha256(x.name::bytea), '58AEE146-191C.45@3', 'retries', x.name, 't', 'h', 1, now(), now(), 'e', now() + x.n * interval '1 second', x.subscription, x.target
FROM (VALUES (1, 'command', NULL, NULL), (2, 'type', 'one', '58AEE146-191C.46'), (3, 'type too', 'two', '58AEE146-191C.47')) x (n, name, subscription, target);
SELECT kind, command, subscription, target, filter FROM rinq_inbox_dead_letter ORDER BY recorded;
SELECT rinq_inbox_dead_letter_retry('58AEE146-191C.45@3#1', 'infinity', 'two'), rinq_inbox_dead_letter_retry('58AEE146-191C.45@3#1', 'infinity', 'three'),
       rinq_inbox_dead_letter_delete('58AEE146-191C.45@3#1', 'two'), rinq_inbox_waiting_delete('58AEE146-191C.45@3#1', 'one');
SELECT kind, command, subscription, target FROM rinq_inbox_waiting;
SELECT waiting, dead FROM rinq_inbox_status;
SELECT message FROM rinq_check() WHERE subject = 'view rinq_inbox_dead_letter' AND message LIKE 'requests and notifications that were set aside: 2, %' IS NOT TRUE;
SELECT rinq_inbox_waiting_retry('58AEE146-191C.45@3#1', 'infinity', 'one'), rinq_inbox_waiting_retry('58AEE146-191C.45@3#1', 'infinity', 'two');
SELECT rinq_inbox_dead_letter_retry('58AEE146-191C.45@3#1', 'infinity');
SELECT kind, command FROM rinq_inbox_waiting ORDER BY command;
SELECT rinq_inbox_waiting_delete('58AEE146-191C.45@3#1'), rinq_inbox_dead_letter_delete('58AEE146-191C.45@3#1'), rinq_inbox_dead_letter_delete('58AEE146-191C.45@3#1');
SELECT waiting, dead FROM rinq_inbox_status;

-- what is tried again is so by whoever commits, and hears of it
BEGIN;
SELECT rinq_inbox_waiting_retry('58AEE146-191C.45@3#1');
PREPARE TRANSACTION 'retries';
