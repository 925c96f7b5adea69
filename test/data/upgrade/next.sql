/* rinq: from the present version to 9.9.0, which was made up to try what an upgrade does */

-- complain if this file is read by psql, instead of ALTER EXTENSION
\echo Use "ALTER EXTENSION rinq UPDATE TO '9.9.0'" to load this file. \quit

-- a column that the library of that version has to have, and a table
ALTER TABLE rinq_internal.listener ADD COLUMN made_up integer NOT NULL DEFAULT 7;
COMMENT ON COLUMN rinq_internal.listener.made_up IS 'Made up, to try an upgrade';

CREATE TABLE rinq_internal.made_up (
    id integer PRIMARY KEY
);
COMMENT ON TABLE rinq_internal.made_up IS 'Made up, to try an upgrade';
COMMENT ON COLUMN rinq_internal.made_up.id IS 'Its only column';
SELECT pg_catalog.pg_extension_config_dump('rinq_internal.made_up', '');

CREATE FUNCTION @extschema@.rinq_made_up() RETURNS text
    AS 'MODULE_PATHNAME', 'rinq_made_up' LANGUAGE C STABLE PARALLEL SAFE;
REVOKE ALL ON FUNCTION @extschema@.rinq_made_up() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.rinq_made_up() IS 'Made up, to try an upgrade';

CREATE VIEW @extschema@.rinq_made_up_rows AS SELECT id FROM rinq_internal.made_up;
COMMENT ON VIEW @extschema@.rinq_made_up_rows IS 'Made up, to try an upgrade';
COMMENT ON COLUMN @extschema@.rinq_made_up_rows.id IS 'Its only column';

SELECT rinq_internal.protect_tables();
SELECT rinq_internal.take_default_privileges();
GRANT SELECT ON @extschema@.rinq_made_up_rows TO pg_monitor;
