-- settings: units, limits, who may see and change them
\set VERBOSITY terse
SELECT name, context, unit, boot_val FROM pg_settings
WHERE name LIKE 'rinq.%' AND name NOT IN ('rinq.amqp_dsn') ORDER BY name;
SET rinq.default_timeout = '250ms';
SHOW rinq.default_timeout;
-- PostgreSQL's own words for it differ by version
\set VERBOSITY sqlstate
SET rinq.default_timeout = 0;
\set VERBOSITY terse
RESET rinq.default_timeout;
SET rinq.amqp_heartbeat = 5;
SET rinq.max_calls = 5;
SET rinq.no_such_setting = 1;

-- the password is shown nowhere, and a wrong value is not quoted
ALTER SYSTEM SET rinq.amqp_dsn = 'amqp://user:secret@host:port/';
ALTER SYSTEM SET rinq.amqp_dsn = 'http://user:secret@host/';
ALTER SYSTEM SET rinq.amqp_dsn = 'amqps://user:secret@host/?sslmode=disable';
SELECT setting LIKE 'amqp://%' AS shown, setting LIKE '%@%' AS credentials,
       boot_val, reset_val
FROM pg_settings WHERE name = 'rinq.amqp_dsn';

-- the longest timeout is set by superusers
SET rinq.max_timeout = '1min';
SHOW rinq.max_timeout;
RESET rinq.max_timeout;

-- and so is what handlers may take
SET rinq.handler_timeout = '2min';
SHOW rinq.handler_timeout;
RESET rinq.handler_timeout;
\set VERBOSITY sqlstate
SET rinq.handler_timeout = -1;
\set VERBOSITY terse
