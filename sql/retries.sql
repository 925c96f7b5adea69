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
