-- creates the extension for the other tests
CREATE EXTENSION rinq;

-- every object of the extension is documented
SELECT pg_catalog.pg_describe_object(d.classid, d.objid, 0) AS uncommented
FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
WHERE e.extname = 'rinq' AND d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
  AND NOT (d.classid = 'pg_type'::regclass
           AND (SELECT typtype = 'c' OR typelem <> 0 FROM pg_type t WHERE t.oid = d.objid)
           AND d.objid <> 'rinq_request'::regtype)
  AND obj_description(d.objid, d.classid::regclass::name) IS NULL
ORDER BY 1;

-- and so is every column of its relations
SELECT a.attrelid::regclass AS relation, a.attname
FROM pg_attribute a
WHERE a.attrelid IN ('rinq_listener'::regclass, 'rinq_peer'::regclass, 'rinq_request'::regclass,
                     'rinq_handled'::regclass, 'rinq_attempt'::regclass, 'rinq_dead_request'::regclass,
                     'rinq_sessions'::regclass, 'rinq_session_attributes'::regclass,
                     'rinq_attribute'::regclass, 'rinq_response'::regclass, 'rinq_notification'::regclass,
                     'rinq_stored_notification'::regclass, 'rinq_stored_notifications'::regclass,
                     'rinq_subscription'::regclass, 'rinq_subscriptions'::regclass)
  AND a.attnum > 0 AND NOT a.attisdropped
  AND col_description(a.attrelid, a.attnum) IS NULL;

-- nothing that sends or listens can be executed by everyone
SELECT p.proname
FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass
JOIN pg_extension e ON e.oid = d.refobjid AND d.deptype = 'e'
WHERE e.extname = 'rinq' AND has_function_privilege('public', p.oid, 'EXECUTE')
ORDER BY 1;

-- what the planner may do with the functions
SELECT p.proname, p.provolatile, p.proparallel, p.proisstrict
FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass
JOIN pg_extension e ON e.oid = d.refobjid AND d.deptype = 'e'
WHERE e.extname = 'rinq' ORDER BY 1;

SELECT rinq_version();
