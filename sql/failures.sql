-- application-defined failures
\set VERBOSITY terse
SELECT * FROM rinq_last_failure();
SELECT rinq_fail('out-of-stock', 'no more apples', '{"left": 0}');
SELECT * FROM rinq_last_failure();
\set SHOW_CONTEXT never
DO $$
BEGIN
  PERFORM rinq_fail('type-only');
EXCEPTION WHEN SQLSTATE 'RQ001' THEN
  RAISE NOTICE '% / %', SQLERRM, (SELECT f::text FROM rinq_last_failure() f);
END $$;
SELECT * FROM rinq_last_failure();
-- a type is needed
SELECT rinq_fail('');
SELECT rinq_fail(NULL);
SELECT rinq_fail(NULL, 'message');
-- an empty message is like none, JSON's null like no payload
SELECT rinq_fail('t', '', 'null');
SELECT type, message, payload FROM rinq_last_failure();
-- raised again from what was kept
SELECT rinq_fail(type, message, payload) FROM rinq_last_failure();
-- limits
SELECT rinq_fail(repeat('x', 16385));
SELECT rinq_fail('t', repeat('x', 65537));
DO $$
BEGIN
  PERFORM rinq_fail('t', repeat('x', 65536));
EXCEPTION WHEN SQLSTATE 'RQ001' THEN
  RAISE NOTICE '% bytes', length(SQLERRM);
END $$;
SELECT length(message) FROM rinq_last_failure();
