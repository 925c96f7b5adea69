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

-- and so is every column of its relations and types
SELECT a.attrelid::regclass AS relation, a.attname
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
LEFT JOIN pg_type t ON t.typrelid = c.oid
JOIN pg_depend d ON (d.classid, d.objid) IN (('pg_class'::regclass, c.oid), ('pg_type'::regclass, t.oid))
JOIN pg_extension e ON e.oid = d.refobjid AND d.deptype = 'e' AND d.refclassid = 'pg_extension'::regclass
WHERE e.extname = 'rinq' AND c.relkind IN ('r', 'v', 'c') AND a.attnum > 0 AND NOT a.attisdropped
  AND col_description(a.attrelid, a.attnum) IS NULL
ORDER BY 1, a.attnum;

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
