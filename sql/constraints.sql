-- constraints: text, CBOR, jsonb
\set VERBOSITY terse
CREATE TABLE built (n serial, c rinq_constraint);
INSERT INTO built (c) VALUES
    (rinq_none()), (rinq_equal('foo', 'bar')), (rinq_not_equal('foo', 'baz')), (rinq_empty('zzz')),
    (rinq_not_empty('foo')), (rinq_not(rinq_equal('foo', 'baz'))),
    (rinq_and(rinq_equal('foo', 'bar'), rinq_equal('n', '1'))),
    (rinq_or(rinq_equal('foo', 'x'), rinq_equal('n', '1'))),
    (rinq_within('ns2', rinq_equal('k', 'v'))),
    (rinq_and(rinq_within('my-api', rinq_or(rinq_equal('foo', 'x'), rinq_not(rinq_empty('n')))), rinq_none())),
    -- what is not in the recorded messages
    (rinq_and(rinq_none())), (rinq_or(rinq_none())), (rinq_not(rinq_not(rinq_none()))),
    (rinq_and(rinq_or(rinq_equal('a', '1'), rinq_equal('b', '2')), rinq_and(rinq_none(), rinq_empty('c')))),
    (rinq_within('a:b', rinq_equal('k', 'v'), rinq_empty('l'))), (rinq_within('n', rinq_and(rinq_none(), rinq_none()))),
    (rinq_within('n', rinq_and(rinq_none()))), (rinq_within('n', rinq_within('m', rinq_none()))),
    (rinq_equal('', '')), (rinq_equal('', 'x')), (rinq_not_equal('', '')), (rinq_equal('a b', '"\{}|,=!*:')), (rinq_equal('ключ', 'значение')),
    (rinq_equal(E'new\nline', E'tab\t')), (rinq_equal('k', NULL)), (rinq_not(rinq_and(rinq_none(), rinq_empty('x'))));
SELECT n, c, encode(substr(rinq_constraint_send(c), 1), 'hex') AS cbor FROM built ORDER BY n;
-- each reads back as it was printed, and as jsonb
SELECT n, c FROM built WHERE NOT c::text::rinq_constraint = c OR NOT c::jsonb::rinq_constraint = c;
SELECT c::jsonb FROM built WHERE n = 10;

-- other ways to write them
SELECT t, t::rinq_constraint AS printed FROM unnest(ARRAY[
    ' { foo = bar } ', '{foo!="baz"}', '{!  foo=bar}', '{! {a=1}}', '{!{a=1,b=2}}', '{"a\"b"=c}', '{a=1,b=2,c=3}', '{{{a}}}', 'ns::{a}',
    '{ns::{a},ns::{b}}', '{a=1|}', '{a=1,}', '{!!a}', '{a=}']) t WHERE t <> '{a=}';

-- and how not to
DO $$
DECLARE t text;
BEGIN
    FOREACH t IN ARRAY ARRAY['', '{', '}', '{}', 'foo', 'foo=bar', '{foo', '{foo=}', '{=x}', '{a,b|c}', '{a b}', '{a}x', '_sess::{a}', 'bad ns::{a}', 'ns::', 'ns::{}',
        '{"a}', '{! }', '{!}', '{a,,b}', '{*=x}', 'ключ::{a}', repeat('{', 100), repeat('! ', 100)] LOOP
        BEGIN
            PERFORM t::rinq_constraint;
            RAISE NOTICE '% was accepted', t;
        EXCEPTION WHEN invalid_text_representation THEN
            DECLARE d text; BEGIN GET STACKED DIAGNOSTICS d = PG_EXCEPTION_DETAIL; RAISE NOTICE '%: %', left(t, 20), d; END;
        END;
    END LOOP;
END $$;
SELECT '{"o": "?"}'::jsonb::rinq_constraint;
SELECT '{"o": "!"}'::jsonb::rinq_constraint;
SELECT '{"o": "!", "t": [{"o": "*"}, {"o": "*"}]}'::jsonb::rinq_constraint;
SELECT '{"o": "&", "t": []}'::jsonb::rinq_constraint;
SELECT '{"o": "|"}'::jsonb::rinq_constraint;
SELECT '{"o": "ns", "v": "_sess", "t": [{"o": "*"}]}'::jsonb::rinq_constraint;
SELECT '{"o": "ns", "t": [{"o": "*"}]}'::jsonb::rinq_constraint;
SELECT '{"o": "=", "k": 1}'::jsonb::rinq_constraint;
SELECT '[]'::jsonb::rinq_constraint;
SELECT '{"o": "*", "x": 1, "k": "ignored"}'::jsonb::rinq_constraint;
SELECT rinq_and(VARIADIC ARRAY[]::rinq_constraint[]);
SELECT rinq_or(rinq_none(), NULL);
SELECT rinq_within('_sess', rinq_none());
SELECT rinq_equal(NULL, 'x');
SELECT rinq_equal('k', repeat('x', 70000));
DO $$
DECLARE c rinq_constraint := rinq_none();
BEGIN
    FOR i IN 1 .. 100 LOOP
        c := rinq_not(c);
        RAISE DEBUG '%', i;
    END LOOP;
END $$;
DROP TABLE built;
