#!/bin/sh
# Compare rinq_to_cbor() with jsonb::text, and rinq_from_cbor() with
# text::jsonb, on small and large documents.  Connects with psql's defaults
# (PGHOST, PGPORT, PGDATABASE...); the database needs the rinq extension.
#
# Each figure is the median of several rounds in one session; the two
# conversions take turns within a round, so that both meet the same machine.
# The time of an empty loop is subtracted.  Everything is temporary.
#
#   test/bench/cbor.sh [rounds]          default 7

set -eu
rounds=${1:-7}

psql -Xq -v ON_ERROR_STOP=1 -v rounds="$rounds" <<'SQL'
\pset footer off
SET client_min_messages = warning;
SET jit = off;

-- name, document; the large ones are repeated to about 1 MB of text
CREATE TEMP TABLE bench_document AS
WITH part (name, body) AS (
  SELECT 'integers', (SELECT jsonb_agg((random() * 10 ^ (i % 15))::bigint)
                      FROM generate_series(1, 110000) i)
  UNION ALL
  SELECT 'strings', (SELECT jsonb_agg(repeat(md5(i::text), 3)) FROM generate_series(1, 10200) i)
  UNION ALL
  SELECT 'utf-8 strings', (SELECT jsonb_agg(repeat('日本語 äöü ', 5)) FROM generate_series(1, 11500) i)
  UNION ALL
  SELECT 'decimals', (SELECT jsonb_agg(round((random() * 100000)::numeric, 2))
                      FROM generate_series(1, 100000) i)
  UNION ALL
  SELECT '17-digit doubles', (SELECT jsonb_agg(random() * 1000) FROM generate_series(1, 52000) i)
  UNION ALL
  SELECT 'records', (SELECT jsonb_agg(jsonb_build_object(
                       'id', i, 'name', 'name of ' || i, 'price', (i % 1000) / 100.0,
                       'active', i % 2 = 0, 'tags', jsonb_build_array('a', 'b')))
                     FROM generate_series(1, 11500) i)
  UNION ALL
  SELECT 'nested 50 deep', (SELECT jsonb_agg((repeat('{"key": [1, ', 25) || '2' ||
                                              repeat(']}', 25))::jsonb)
                            FROM generate_series(1, 2900) i)
  UNION ALL
  SELECT '30000 keys', (SELECT jsonb_object_agg('key number ' || i, 'value ' || i)
                        FROM generate_series(1, 30000) i)
)
SELECT 0 AS n, 'small record' AS name,
       '{"id": 12345, "name": "Alice Example", "email": "alice@example.org", "age": 42, "tags": ["a", "b"]}'::jsonb AS body,
       20000 AS calls
UNION ALL
SELECT row_number() OVER (), name, body, 10 FROM part;

CREATE FUNCTION pg_temp.bench_time(what text, document jsonb, calls int) RETURNS float8
LANGUAGE plpgsql AS $$
DECLARE
  cbor bytea := rinq_to_cbor(document);
  body jsonb := rinq_from_cbor(cbor);   -- in memory, not compressed
  source text := body::text;
  start timestamptz;
BEGIN
  -- the CASE keeps the planner from doing the work once and for all
  start := clock_timestamp();
  CASE what
    WHEN 'text' THEN EXECUTE 'SELECT sum(octet_length((CASE WHEN i > 0 THEN $1 END)::text))
                              FROM generate_series(1, $2) AS i' USING body, calls;
    WHEN 'to' THEN EXECUTE 'SELECT sum(octet_length(rinq_to_cbor(CASE WHEN i > 0 THEN $1 END)))
                            FROM generate_series(1, $2) AS i' USING body, calls;
    WHEN 'jsonb' THEN EXECUTE 'SELECT sum(pg_column_size((CASE WHEN i > 0 THEN $1 END)::jsonb))
                               FROM generate_series(1, $2) AS i' USING source, calls;
    WHEN 'from' THEN EXECUTE 'SELECT sum(pg_column_size(rinq_from_cbor(CASE WHEN i > 0 THEN $1 END)))
                              FROM generate_series(1, $2) AS i' USING cbor, calls;
    WHEN 'empty' THEN EXECUTE 'SELECT sum(octet_length(CASE WHEN i > 0 THEN $1 END))
                               FROM generate_series(1, $2) AS i' USING source, calls;
  END CASE;
  RETURN extract(epoch FROM clock_timestamp() - start) * 1000000 / calls;
END $$;

CREATE TEMP TABLE bench_time AS
SELECT n, what, percentile_cont(0.5) WITHIN GROUP (ORDER BY us) AS us
FROM (SELECT n, what, pg_temp.bench_time(what, body, calls) AS us
      FROM bench_document, generate_series(0, :rounds) AS round,
           unnest(ARRAY['empty', 'text', 'to', 'jsonb', 'from']) AS what
      ORDER BY n, round, what) AS measured
GROUP BY n, what;

\echo 'medians in microseconds; a ratio below 1 means faster than the text cast'
SELECT d.name AS document,
       octet_length(d.body::text) AS "text bytes",
       octet_length(rinq_to_cbor(d.body)) AS "cbor bytes",
       round((t.us - e.us)::numeric, 2) AS "jsonb::text",
       round((c.us - e.us)::numeric, 2) AS "rinq_to_cbor",
       round(((c.us - e.us) / (t.us - e.us))::numeric, 2) AS ratio,
       round((j.us - e.us)::numeric, 2) AS "text::jsonb",
       round((f.us - e.us)::numeric, 2) AS "rinq_from_cbor",
       round(((f.us - e.us) / (j.us - e.us))::numeric, 2) AS "ratio "
FROM bench_document d
JOIN bench_time e ON e.n = d.n AND e.what = 'empty'
JOIN bench_time t ON t.n = d.n AND t.what = 'text'
JOIN bench_time c ON c.n = d.n AND c.what = 'to'
JOIN bench_time j ON j.n = d.n AND j.what = 'jsonb'
JOIN bench_time f ON f.n = d.n AND f.what = 'from'
ORDER BY d.n;
SQL
