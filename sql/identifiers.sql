-- the identifiers of the protocol as types
\set VERBOSITY terse
SELECT '58AEE146-191C.45'::rinq_session_id, '58aee146-191c.45@3'::rinq_revision,
       '58AEE146-191C.45@3#1'::rinq_message_id;
SELECT '1-0001.0'::rinq_session_id, 'FFFFFFFFFFFFFFFF-FFFF.4294967295@4294967295#4294967295'::rinq_message_id;
SELECT ''::rinq_session_id;
SELECT '58AEE146-191C'::rinq_session_id;
SELECT '58AEE146-191C.45@'::rinq_revision;
SELECT '58AEE146-191C.45@3#1 '::rinq_message_id;
SELECT '58AEE146-191.45'::rinq_session_id;
SELECT '0-191C.1'::rinq_session_id;
SELECT '58AEE146-0000.1'::rinq_session_id;
SELECT '58AEE146-191C.45@3#0'::rinq_message_id;
SELECT '58AEE146-191C.4294967296'::rinq_session_id;
