-- what others made beforehand is not used
\set VERBOSITY terse
SET client_min_messages = warning;
CREATE ROLE regress_rinq_owner LOGIN;
DROP EXTENSION rinq;
GRANT CREATE ON SCHEMA public TO regress_rinq_owner;
SET ROLE regress_rinq_owner;

-- functions that take arguments better than those of pg_catalog do, or as many
CREATE FUNCTION public.ran(text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'decoy % ran as %', $1, current_user; END $$;
DO $$
DECLARE
  f record;
BEGIN
  -- each function, and each operator, that is named in what the extension consists of, for all types of its arguments
  FOR f IN
    SELECT DISTINCT p.proname AS name, array_to_string(array(SELECT format_type(t, NULL) FROM unnest(a.types) t), ', ') AS args,
           format_type(p.prorettype, NULL) AS result
    FROM pg_proc p CROSS JOIN LATERAL (VALUES (p.proargtypes::oid[]),
      (array(SELECT CASE t WHEN 'text'::regtype THEN 'name'::regtype WHEN 'oid'::regtype THEN 'regrole'::regtype
                    WHEN 'float8'::regtype THEN 'bigint'::regtype WHEN '"any"'::regtype THEN 'text'::regtype ELSE t END
             FROM unnest(p.proargtypes::oid[]) t)),
      (array(SELECT CASE t WHEN 'name'::regtype THEN 'text'::regtype WHEN 'oid'::regtype THEN 'regprocedure'::regtype ELSE t END
             FROM unnest(p.proargtypes::oid[]) t))) a (types)
    WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f' AND p.provariadic = 0
      AND p.proname IN ('pg_has_role', 'has_function_privilege', 'current_database', 'now', 'octet_length', 'jsonb_typeof', 'set_config',
                        'pg_get_userbyid', 'make_interval', 'format', 'aclexplode', 'acldefault', 'pg_describe_object', 'quote_ident')
      AND NOT 'internal'::regtype = ANY (p.proargtypes)
  LOOP
    BEGIN
      EXECUTE format('CREATE FUNCTION public.%I(%s) RETURNS boolean LANGUAGE sql AS %L', f.name, f.args,
                     format('SELECT public.ran(%L)', f.name));
    EXCEPTION WHEN duplicate_function THEN
    END;
  END LOOP;
  FOR f IN
    SELECT o.name, l AS lefttype, r AS righttype, o.name || ' ' || l || ' ' || r AS label
    FROM unnest('{=,<>,<,<=,>,>=,~,!~,||,+,-,*,/}'::text[]) o(name),
         unnest('{bigint,integer,text,name,interval,timestamptz,oid,regrole,regclass,"\"char\"",jsonb,float8,regprocedure}'::text[]) l,
         unnest('{bigint,integer,text,name,interval,timestamptz,oid,regrole,regclass,"\"char\"",jsonb,float8,regprocedure}'::text[]) r
  LOOP
    EXECUTE format('CREATE OR REPLACE FUNCTION public.op(%s, %s) RETURNS boolean LANGUAGE sql AS %L', f.lefttype, f.righttype,
                   format('SELECT public.ran(%L)', f.label));
    EXECUTE format('CREATE OPERATOR public.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = public.op)', f.name, f.lefttype, f.righttype);
  END LOOP;
END $$;
CREATE AGGREGATE public.count(*) (SFUNC = int8inc, STYPE = bigint);
CREATE AGGREGATE public.min(bigint) (SFUNC = int8smaller, STYPE = bigint);
CREATE AGGREGATE public.sum(bigint) (SFUNC = int8pl, STYPE = bigint);
-- types, domains and tables; in the temporary schema as well
CREATE DOMAIN public.text AS pg_catalog.text CHECK (public.ran('text'));
CREATE DOMAIN public.regclass AS pg_catalog.regclass CHECK (public.ran('regclass'));
CREATE DOMAIN public.jsonb AS pg_catalog.jsonb CHECK (public.ran('jsonb'));
CREATE DOMAIN public.timestamptz AS pg_catalog.timestamptz CHECK (public.ran('timestamptz'));
CREATE TABLE public.pg_extension (extname name);
CREATE TABLE public.pg_database (oid oid, datname name);
CREATE TEMPORARY TABLE pg_class (oid oid, relname name);
CREATE TEMPORARY TABLE pg_database (oid oid, datname name);
CREATE TEMPORARY TABLE listener (namespace pg_catalog.text);
CREATE DOMAIN pg_temp.text AS pg_catalog.text CHECK (public.ran('pg_temp.text'));
-- of the names of the extension's own functions, other argument types
CREATE FUNCTION public.rinq_execute(pg_catalog.text, pg_catalog.text, bytea) RETURNS pg_catalog.text LANGUAGE sql AS $$ SELECT public.ran('rinq_execute')::pg_catalog.text $$;
CREATE FUNCTION public.rinq_outbox_peer_status(integer) RETURNS boolean LANGUAGE sql AS $$ SELECT public.ran('status') $$;
CREATE FUNCTION public.rinq_is_message_id(name) RETURNS boolean LANGUAGE sql AS $$ SELECT public.ran('is_message_id') $$;
RESET ROLE;

CREATE EXTENSION rinq;

-- all that the extension consists of refers to pg_catalog and to itself
WITH RECURSIVE mine (classid, objid) AS (
    SELECT d.classid, d.objid FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
    WHERE e.extname OPERATOR(pg_catalog.=) 'rinq' AND d.deptype OPERATOR(pg_catalog.=) 'e'
      AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
  UNION
    SELECT d.classid, d.objid FROM pg_catalog.pg_depend d JOIN mine m
      ON m.classid OPERATOR(pg_catalog.=) d.refclassid AND m.objid OPERATOR(pg_catalog.=) d.refobjid
    WHERE d.deptype OPERATOR(pg_catalog.=) ANY ('{i,a}'::"char"[])
)
SELECT pg_catalog.pg_describe_object(d.classid, d.objid, d.objsubid) AS object,
       pg_catalog.pg_describe_object(d.refclassid, d.refobjid, d.refobjsubid) AS refers_to
FROM mine m JOIN pg_catalog.pg_depend d ON m.classid OPERATOR(pg_catalog.=) d.classid AND m.objid OPERATOR(pg_catalog.=) d.objid
WHERE NOT EXISTS (SELECT FROM mine o WHERE o.classid OPERATOR(pg_catalog.=) d.refclassid AND o.objid OPERATOR(pg_catalog.=) d.refobjid)
  AND d.deptype OPERATOR(pg_catalog.<>) 'e'
  AND d.refobjid OPERATOR(pg_catalog.>=) 16384::pg_catalog.oid
  AND NOT (d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_namespace'::pg_catalog.regclass
           AND d.refobjid::pg_catalog.regnamespace::pg_catalog.text OPERATOR(pg_catalog.=) 'public');
SELECT p.proname AS binds_late
FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_depend d ON d.objid OPERATOR(pg_catalog.=) p.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'
JOIN pg_catalog.pg_extension e ON e.oid OPERATOR(pg_catalog.=) d.refobjid AND e.extname OPERATOR(pg_catalog.=) 'rinq'
WHERE p.prolang OPERATOR(pg_catalog.=) 14::pg_catalog.oid AND p.prosqlbody IS NULL;

-- and nothing else runs
SET search_path = public, pg_temp, pg_catalog;
CREATE FUNCTION public.decoy_handler(public.rinq_request) RETURNS pg_catalog.jsonb LANGUAGE sql AS 'SELECT NULL::pg_catalog.jsonb';
CREATE FUNCTION public.decoy_handler(public.rinq_notification) RETURNS void LANGUAGE sql AS '';
SELECT public.rinq_listen('decoys'::pg_catalog.text, 'public.decoy_handler(public.rinq_request)'::pg_catalog.regprocedure);
SELECT public.rinq_subscribe('decoys'::pg_catalog.text, 'decoys'::pg_catalog.text, 'public.decoy_handler(public.rinq_notification)'::pg_catalog.regprocedure);
SELECT namespace FROM public.rinq_listeners;
SELECT name FROM public.rinq_subscriptions;
BEGIN;
SELECT public.rinq_execute('decoys'::pg_catalog.text, 'x'::pg_catalog.text, NULL::pg_catalog.jsonb) IS NOT NULL AS sent;
SELECT depth, dead FROM public.rinq_outbox_status;
SELECT namespace FROM public.rinq_outbox;
COMMIT;
INSERT INTO rinq_internal.inbox_dead_letter (id, digest, source, namespace, command, trace_id, handler, attempts, first_received, last_attempt, error, recorded)
VALUES ('58AEE146-191C.45@3#1', '', 'x', 'decoys', 'x', 'x', 'x', 1, '2020-01-01', '2020-01-01', 'x', '2020-01-01');
INSERT INTO rinq_internal.outbox_dead_letter (seq, id, namespace, command, database, attempts, error, set_aside)
VALUES (1, '58AEE146-191C.45@3#1', 'decoys', 'x', 1, 1, 'x', '2020-01-01');
SELECT id FROM public.rinq_inbox_dead_letter;
SELECT id FROM public.rinq_outbox_dead_letter;
SELECT public.rinq_outbox_dead_letter_retry('58AEE146-191C.45@3#1'::public.rinq_message_id);
SELECT public.rinq_outbox_dead_letter_delete('58AEE146-191C.45@3#1'::public.rinq_message_id);
SELECT public.rinq_inbox_dead_letter_retry('58AEE146-191C.45@3#1'::public.rinq_message_id) AS retried;
SELECT id FROM public.rinq_inbox_waiting;
SELECT public.rinq_inbox_waiting_retry('58AEE146-191C.45@3#1'::public.rinq_message_id), public.rinq_inbox_waiting_delete('58AEE146-191C.45@3#1'::public.rinq_message_id);
SELECT public.rinq_inbox_dead_letter_delete('58AEE146-191C.45@3#1'::public.rinq_message_id);
SELECT 1 FROM public.rinq_inbox_attempt, public.rinq_inbox_handled, public.rinq_peer, public.rinq_sessions, public.rinq_session_attributes,
              public.rinq_stored_notifications;
SELECT message FROM public.rinq_check() WHERE severity OPERATOR(pg_catalog.<>) 'warning';
SELECT DISTINCT message FROM public.rinq_check();
SELECT (public.rinq_set('k'::pg_catalog.text, 'v'::pg_catalog.text)).value;
SELECT public.rinq_unlisten('decoys'::pg_catalog.text);
SELECT public.rinq_unsubscribe('decoys'::pg_catalog.text);
RESET search_path;

-- what was sent may not be removed yet, which is warned of
SET client_min_messages = error;
DROP EXTENSION rinq CASCADE;
SET client_min_messages = warning;
DROP OWNED BY regress_rinq_owner CASCADE;
DROP ROLE regress_rinq_owner;
CREATE EXTENSION rinq;
