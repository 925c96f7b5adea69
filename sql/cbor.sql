--
-- rinq_to_cbor() and rinq_from_cbor(); docs/cbor.md has the rules
--
-- hexadecimal CBOR to jsonb, or the error
CREATE FUNCTION pg_temp.try(hex text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
  msg text;
  detail text;
BEGIN
  RETURN rinq_from_cbor(decode(replace(hex, ' ', ''), 'hex'));
EXCEPTION WHEN OTHERS THEN
  GET STACKED DIAGNOSTICS msg = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
  RETURN concat_ws(': ', SQLSTATE, msg, nullif(detail, ''));
END $$;

-- properties of the functions
SELECT p.oid::regprocedure, provolatile, proisstrict, proparallel
FROM pg_proc p WHERE proname IN ('rinq_to_cbor', 'rinq_from_cbor') ORDER BY proname;
SELECT rinq_to_cbor(NULL) IS NULL AS to_null, rinq_from_cbor(NULL) IS NULL AS from_null;

--
-- jsonb to CBOR
--
SELECT j AS jsonb, left(rinq_to_cbor(j::jsonb)::text, 60) AS cbor, rinq_from_cbor(rinq_to_cbor(j::jsonb)) = j::jsonb AS same
FROM unnest(ARRAY[
  'null', 'true', 'false', '""', '"a"', '[]', '{}', '[[]]', '[{}]', '{"a": []}',
  '[1, [2, 3], {"b": {"c": null}}]', '{"bb": 1, "a": 2, "": 3}',
  -- integers: every width and its limits
  '0', '-0', '-1', '23', '24', '-24', '-25', '255', '256', '-256', '-257', '65535', '65536',
  '-65536', '-65537', '4294967295', '4294967296', '-4294967296', '-4294967297',
  '9007199254740993', '9223372036854775807', '9223372036854775808', '-9223372036854775808',
  '-9223372036854775809', '10000000000000000', '99999999999999999999', '18446744073709551615',
  '-18446744073709551616',
  -- beyond 64 bits
  '18446744073709551616', '-18446744073709551617', '100000000000000000000', '1.5e300', '-1e20',
  '1e23', '340282366920938463463374607431768211456', '1e1000', '1e1001', '-12e131000',
  -- the scale does not count, the value does
  '1.0', '1e3', '0.000', '1.10',
  -- doubles where the shortest decimal of the double is the number
  '0.1', '-0.1', '0.5', '1.5', '3.14', '1e-7', '123456.789', '0.30000000000000004',
  '2.2250738585072014e-308', '5e-324', '1.7976931348623157e308', '9007199254740992.5',
  -- decimal fractions otherwise
  '0.30000000000000003', '0.1000000000000000055511151231257827', '1e-400', '-1e-16383',
  '12345678901234567.89', '-18446744073709551616.5', '2.00000000000000000001'
]) AS j;

-- 23 and 24, 255 and 256 elements and members; long strings
SELECT n, left(rinq_to_cbor(a)::text, 10) AS array, left(rinq_to_cbor(o)::text, 10) AS object,
       left(rinq_to_cbor(s)::text, 12) AS string,
       rinq_from_cbor(rinq_to_cbor(a)) = a AND rinq_from_cbor(rinq_to_cbor(o)) = o
       AND rinq_from_cbor(rinq_to_cbor(s)) = s AS same
FROM (SELECT n, (SELECT jsonb_agg(i) FROM generate_series(1, n) i) AS a,
             (SELECT jsonb_object_agg(i, i) FROM generate_series(1, n) i) AS o,
             to_jsonb(repeat('x', n)) AS s
      FROM unnest(ARRAY[1, 23, 24, 255, 256, 65535, 65536]) AS n) AS t;

-- the stored form is the same that PostgreSQL makes
SELECT count(*) AS documents,
       count(*) FILTER (WHERE jsonb_send(c) <> jsonb_send(j) OR pg_column_size(c) <> pg_column_size(j::text::jsonb)
                        OR jsonb_hash(c) <> jsonb_hash(j)) AS different
FROM (SELECT j, rinq_from_cbor(rinq_to_cbor(j)) AS c
      FROM (SELECT jsonb_build_object('n', i, repeat('k', i % 40), jsonb_agg(k * i), 'd', i * 0.5 + 0.25,
                                      's', repeat('s', i), 'o', jsonb_object_agg('x' || k, ARRAY[k, i])) AS j
            FROM generate_series(1, 70) i, generate_series(1, i) k GROUP BY i) AS made) AS converted;

-- what is too deep for one direction is too deep for the other
SELECT d, rinq_from_cbor(rinq_to_cbor(j)) = j AS same
FROM (SELECT d, (repeat('[', d) || repeat(']', d))::jsonb AS j FROM unnest(ARRAY[1, 999, 1000]) AS d) AS t;
SELECT rinq_to_cbor((repeat('[', 1001) || repeat(']', 1001))::jsonb);
SELECT rinq_to_cbor((repeat('{"a":', 1001) || '1' || repeat('}', 1001))::jsonb);
SELECT pg_temp.try(repeat('81', 1000) || '00') = (repeat('[', 1000) || '0' || repeat(']', 1000)) AS deepest;
SELECT pg_temp.try(repeat('81', 1001) || '00');
SELECT pg_temp.try(repeat('a100', 1001) || '00');
SELECT pg_temp.try(repeat('9f', 100000));
SELECT pg_temp.try(repeat('c6', 100000) || '01') AS many_tags;

-- numbers of any size
SELECT n, rinq_from_cbor(rinq_to_cbor(j)) = j AS same
FROM (SELECT n, n::jsonb AS j
      FROM unnest(ARRAY['1e131071', '-1e131071', '1e-16383', repeat('7', 131072), '0.' || repeat('3', 16383),
                        '-' || repeat('9', 40000) || '.' || repeat('1', 10000), '1' || repeat('0', 1000) || '1']) AS n
     ) AS t (n, j) ORDER BY length(n), n LIMIT 3;
SELECT count(*) FILTER (WHERE rinq_from_cbor(rinq_to_cbor(j)) = j) AS same, count(*) AS "all"
FROM (SELECT n::jsonb AS j
      FROM unnest(ARRAY[repeat('7', 131072), '0.' || repeat('3', 16383),
                        '-' || repeat('9', 40000) || '.' || repeat('1', 10000), '1' || repeat('0', 1000) || '1']) AS n
     ) AS t;

--
-- CBOR to jsonb
--
SELECT hex, left(pg_temp.try(hex), 120) AS result FROM unnest(ARRAY[
  -- integers of all widths, not only of the shortest
  '00', '17', '1818', '1800', '190100', '190001', '1a00010000', '1a00000000', '1b0000000100000000',
  '1b0000000000000000', '1bffffffffffffffff', '20', '37', '3818', '390100', '3a00010000',
  '3b7fffffffffffffff', '3bffffffffffffffff',
  -- floats: half, single, double; minus zero, subnormal, exact and shortest
  'f90000', 'f98000', 'f93c00', 'f93e00', 'f97bff', 'f90001', 'f9c400', 'fa47c35000', 'fa3dcccccd',
  'fb3ff199999999999a', 'fb7e37e43c8800759c', 'fbc010666666666666', 'fb0000000000000001',
  'fb8000000000000000', 'fb43b0000000000000', 'fb4415af1d78b58c40', 'fb44b52d02c7e14af6',
  'f97c00', 'f9fc00', 'f97e00', 'fa7f800000', 'fb7ff8000000000000', 'fbfff0000000000000',
  -- simple values
  'f4', 'f5', 'f6', 'f7', 'e0', 'f3', 'f0', 'f820', 'f8ff', 'f800', 'f81f', 'f8',
  -- bignums
  'c249010000000000000000', 'c349010000000000000000', 'c240', 'c340', 'c2420000', 'c34200ff',
  'c248ffffffffffffffff', 'c348ffffffffffffffff', 'c2490000000000000000ff', 'c25f4101420000ff',
  'c35820 ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff',
  'c201', 'c26161', 'c280', 'c2f6', 'c2c24101', 'c2', 'c2ff',
  -- decimal fractions and bigfloats
  'c48221196ab3', 'c4820001', 'c482032a', 'c48221186e', 'c48220 2a', 'c49f2101ff', 'c48221c249010000000000000000',
  'c48221c349010000000000000000', 'c48221c2420001', 'c4c6822001', 'c482c62001', 'c4821a000f423f00',
  'c4821a000f423f01', 'c4823a000f423f01', 'c482193fff01', 'c482393ffe01', 'c482393fff0a', 'c482393fff01',
  'c4821a0001ffff01', 'c4821a0001fffe0a', 'c4821bffffffffffffffff01', 'c4823bffffffffffffffff01',
  'c5822003', 'c5822103', 'c582200a', 'c5821803 01', 'c58220c249030000000000000000', 'c58219044c01', 'c58219044d01',
  'c5823819 01', 'c5823904 4b01', 'c5823904 4c01',
  'c401', 'c44101', 'c480', 'c48101', 'c483010203', 'c4820161 61', 'c482f93c0001', 'c48201f93c00', 'c482c2410101',
  'c4820180', 'c482c4820101 01', 'c4a10101', 'c482', 'c49f0102', 'c4',
  -- text
  '60', '6161', '6449455446', '62225c', '7f657374726561646d696e67ff', '7fff', '7f60ff', '7f6161 60 6162ff',
  '61ff', '62c328', '61c3', '63eda080', '64f4908080', '62c080', '6100', '636100 62', '7f61c361bcff', '7f6161 6100ff',
  -- bytes are base64url text unless a tag asks for another encoding
  '40', '41ff', '42ffff', '43ffffff', '4401020304', '5f42010243030405ff', '5fff', 'd54401020304', 'd64401020304', 'd6 41ff', 'd7 44 01abcdef',
  'd7 82 41ff a1 4101 d6 41ff', 'd81843010203', 'd6 6161', 'd6 f6',
  -- arrays and maps
  '80', '9fff', '8301 02 03', '9f01 02 03ff', '98190102030405060708090a0b0c0d0e0f101112131415161718181819', '9b0000000000000001 f5',
  '8301 82 02 03 82 04 05', '9f01 82 02 03 9f 04 05ff ff', 'a0', 'bfff', 'a2 6161 01 6162 82 02 03', 'bf 6161 01 6162 9f 02 03ff ff',
  'a3 6363 6363 01 6161 02 6262 62 03', 'b900 01 6161 01',
  -- keys: integers, floats, booleans and bytes become text
  'a101636f6e65', 'a2 01 02 03 04', 'a1 20 01', 'a1 3bffffffffffffffff 01', 'a1 1bffffffffffffffff 01', 'a1 f4 01', 'a1 f5 01', 'a1 f93e00 01',
  'a1 f98000 01', 'a1 fb4415af1d78b58c40 01', 'a1 41ff 01', 'a1 c1 01 02', 'a1 7f61616162ff 01', 'd7 a1 41ff 01',
  'a1 f6 01', 'a1 f7 01', 'a1 80 01', 'a1 a0 01', 'a1 9fff 01', 'a1 f97e00 01', 'a1 c24101 01', 'a1 c4820101 01', 'a1 e0 01',
  -- duplicate keys, also those that only become equal
  'a2 6161 01 6161 02', 'bf 6161 01 6162 02 6161 03ff', 'a2 01 01 6131 02', 'a2 f4 01 6566616c7365 02', '82 01 a2 60 01 60 02',
  -- other tags are ignored
  'c074323031332d30332d32315432303a30343a30305a', 'c11a514b67b0', 'c1fb41d452d9ec200000', 'd82076687474703a2f2f7777772e6578616d706c652e636f6d',
  'd9d9f7 83 01 02 03', 'c6 01', 'd4 01', 'd8ff c0 01', 'dbffffffffffffffff 01', 'c0 ff', 'c6',
  -- damage
  '', '0000', '01 02', '80 80', 'ff', '81ff', '8201ff', 'a1ff', 'a101ff', 'bf01ff', 'bf0102 03ff', '7f01ff', '7f4161ff', '5f6161ff', '7f7fffff', '5f5fffff',
  '7f80ff', '7fc06161ff', '7ff6ff', '7f', '7f6161', '5f', '9f', '9f01', 'bf', 'bf01', 'bf0102', '81', '8201', 'a1', 'a101', '18', '19', '1900', '1a000000', '1b00000000000000',
  'f900', 'fa000000', 'fb00000000000000', '61', '6261', '41', '7801', '5801', 'd8', 'd9d9',
  '1c', '1d', '1e', '1f', '3c', '3f', '5c', '5e', '7c', '9c', 'bc', 'dc', 'df', 'fc', 'fd', 'fe', '821c',
  -- counts and lengths that the input does not have
  '9a ffffffff', '9b ffffffffffffffff', '9b 7fffffffffffffff 00', 'ba 80000000', 'bb 8000000000000000', 'bb ffffffffffffffff 0000', '5b ffffffffffffffff', '7b ffffffffffffffff 61',
  '7a 7fffffff 61', '9a 08000000', '82 9a 08000000 00', 'a2 6161', '84 00 00'
]) WITH ORDINALITY AS input (hex, n) ORDER BY n;

-- text beyond ASCII, whatever the server encoding
SELECT rinq_to_cbor(to_jsonb(convert_from('\xc3bc', 'UTF8'))) AS cbor,
       convert_to(rinq_from_cbor('\x62c3bc') #>> '{}', 'UTF8') AS utf8;
SELECT convert_to(rinq_from_cbor('\x7f62c3bc616162c3bcff') #>> '{}', 'UTF8') AS chunks,
       convert_to(rinq_from_cbor('\xa262c3bc01617a02')::text, 'UTF8') AS keys;

-- truncation at every byte, and one byte too many
WITH document (b) AS (
  SELECT '\xb0 6161 01 6162 1818 6163 190100 6164 1a00010000 6165 1b0000000100000000 6166 3863
           6167 f93c00 6168 fa3fc00000 6169 fb3ff8000000000000 616a c249010000000000000000
           616b c4822118ff 616c 9f0102ff 616d bf616101ff 616e 7f61616162ff 616f 5f41014102ff 6170 d9d9f700'::bytea
)
SELECT left(pg_temp.try(encode(substr(b, 1, n), 'hex')), 5) AS result, count(*), min(n), max(n)
FROM document, generate_series(0, length(b)) AS n GROUP BY 1
UNION ALL
SELECT pg_temp.try(encode(b || '\x00', 'hex')), 1, NULL, NULL FROM document;

-- errors come from a clean statement, too
SELECT rinq_from_cbor('\x8201');
SELECT rinq_from_cbor('\xf97e00');
SELECT rinq_from_cbor('\x62c328');

-- a large document both ways
SELECT rinq_from_cbor(b) = j AS same, length(b) > 1000000 AS large
FROM (SELECT j, rinq_to_cbor(j) AS b
      FROM (SELECT jsonb_object_agg('key ' || i, jsonb_build_array(i, i / 7.0, md5(i::text))) AS j
            FROM generate_series(1, 25000) i) AS made) AS converted;
-- keys in another order than jsonb's
SELECT rinq_from_cbor(('\xb9' || substr(int4send(10000), 3) || string_agg('\x19'::bytea || substr(int4send(i * 7919 % 10000), 3) || '\x01', ''))::bytea)
       = (SELECT jsonb_object_agg(i, 1) FROM generate_series(0, 9999) i) AS same
FROM generate_series(0, 9999) i;
