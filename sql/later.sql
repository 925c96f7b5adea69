-- messages that are sent later, in order, or but once: what is refused, and what is shown
\set VERBOSITY terse
SELECT rinq_execute('ns', 'x', deliver_after => '1 h', deliver_at => 'tomorrow');
SELECT rinq_execute('ns', 'x', deliver_at => 'infinity');
SELECT rinq_execute('ns', 'x', deliver_after => '11 years');
SELECT rinq_execute('ns', 'x', deliver_after => '178000000 years');
SELECT rinq_execute('ns', 'x', durable => false, deliver_after => '1 h');
SELECT rinq_execute('ns', 'x', durable => false, deliver_at => '-infinity');
SELECT rinq_execute('ns', 'x', durable => false, key => 'k');
SELECT rinq_execute('ns', 'x', durable => false, ordering => 'o');
SELECT rinq_execute('ns', 'x', key => '');
SELECT rinq_execute('ns', 'x', ordering => '');
SELECT rinq_execute('ns', 'x', key => repeat('k', 501));
SELECT rinq_execute_raw('ns', 'x', ordering => repeat('o', 501));
SELECT rinq_execute_raw('ns', 'x', deliver_after => '1 h', timeout => '-1 s');
SELECT rinq_execute_many('ns', 'x', NULL);
SELECT rinq_execute_many('_ns', 'x', '{1}');
SELECT rinq_execute_many('ns', NULL, '{1}');
SELECT rinq_execute_many('ns', 'x', '{1}', deliver_after => '1 h', deliver_at => 'tomorrow');
SELECT rinq_execute_cancel('58AEE146-191C.45@3#1');
SELECT rinq_execute_cancel('nonsense');
SELECT rinq_execute_cancel(NULL);

-- what waits is shown, and gone with the transaction
BEGIN;
SELECT rinq_execute('ns', 'one', '1', deliver_after => '1 h', key => 'k') AS one \gset
SELECT rinq_execute('ns', 'two', '2', '5 min', deliver_at => now() + interval '2 h', ordering => 'o') AS two \gset
SELECT rinq_execute('ns', 'three', '3', ordering => 'o') AS three \gset
SELECT rinq_execute('ns', 'four', key => 'k') = :'one' AS same;
SELECT command, rinq_from_cbor(payload) AS payload, round(extract(epoch FROM deadline - due)) AS timeout, state, due - now() > interval '59 min' AS delayed, key, ordering
FROM rinq_outbox ORDER BY created;
SELECT depth, waiting, next_due - now() < interval '61 min' AS hour FROM rinq_outbox_status;
SELECT rinq_execute_cancel(:'two');
SELECT rinq_execute_cancel(:'two');
SELECT rinq_execute_cancel(:'one');
SELECT rinq_execute('ns', 'four', '4', deliver_after => '1 h', key => 'k') = :'one' AS same;
SELECT command, key, ordering FROM rinq_outbox ORDER BY created;
SELECT count(*) FROM rinq_execute_many('ns', 'many', '{1,null,3}', deliver_after => '1 h');
SELECT count(DISTINCT id) FROM rinq_outbox;
ROLLBACK;
SELECT count(*) FROM rinq_outbox;

-- a time that has passed is at once, however long ago it was
BEGIN;
SELECT rinq_execute('ns', 'x', deliver_after => a) IS NULL AS none FROM unnest('{-1 s,-300000 years,-178000000 years}'::interval[]) a;
SELECT waiting FROM rinq_outbox_status;
ROLLBACK;

-- no function of the reader sees what the view does not show
BEGIN;
SELECT count(rinq_execute('ns', 'secret', deliver_after => '1 h'));
CREATE ROLE later_reader;
GRANT SELECT ON rinq_outbox TO later_reader;
CREATE FUNCTION seen(what text) RETURNS boolean LANGUAGE plpgsql COST 0.0001 AS $$ BEGIN RAISE NOTICE 'seen: %', what; RETURN true; END $$;
SELECT command FROM rinq_outbox WHERE seen(command);
SET LOCAL ROLE later_reader;
SELECT command FROM rinq_outbox WHERE seen(command);
ROLLBACK;

BEGIN READ ONLY;
SELECT rinq_execute('ns', 'x', deliver_after => '1 h');
ROLLBACK;
BEGIN READ ONLY;
SELECT rinq_execute_cancel('58AEE146-191C.45@3#1');
ROLLBACK;
