"""What an extension has put into a database, object by object, as text that can be compared."""

MEMBERS = "SELECT classid, objid FROM pg_depend WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'" \
          " AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'rinq')"

# each returns the name of an object, and what there is to say of it; OIDs must not show, for they differ; nor must whether privileges that are those of any new
# function are written down, or how PostgreSQL 18 calls what earlier versions have no constraints for, which pg_upgrade does not keep
QUERIES = """
SELECT 'function ' || p.oid::regprocedure, concat_ws(E'\\n', pg_get_functiondef(p.oid), p.proowner::regrole, {acl}(coalesce(p.proacl, acldefault('f', p.proowner))), p.procost, p.prorows)
FROM members m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid WHERE p.prokind IN ('f', 'p', 'w');

SELECT 'relation ' || c.oid::regclass, concat_ws(E'\\n', c.relkind, c.relpersistence, c.relreplident, c.relowner::regrole, c.reloptions::text, {acl}(c.relacl),
    c.relrowsecurity, c.relforcerowsecurity, CASE WHEN c.relkind = 'v' THEN pg_get_viewdef(c.oid) END,
    (SELECT condition FROM unnest((SELECT extconfig FROM pg_extension WHERE extname = 'rinq'),
        (SELECT extcondition FROM pg_extension WHERE extname = 'rinq')) AS u (relation, condition) WHERE relation = c.oid),
    c.oid = ANY ((SELECT extconfig FROM pg_extension WHERE extname = 'rinq')::oid[]))
FROM members m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid;

SELECT 'column ' || c.oid::regclass || '.' || a.attname, concat_ws(E'\\n', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated,
    a.attstorage, {acl}(a.attacl), pg_get_expr(d.adbin, d.adrelid), col_description(c.oid, a.attnum), a.attcollation::regcollation,
    (SELECT count(*) FROM pg_attribute b WHERE b.attrelid = c.oid AND b.attnum BETWEEN 1 AND a.attnum AND NOT b.attisdropped))
FROM members m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum;

SELECT 'index ' || i.indexrelid::regclass, concat_ws(E'\\n', pg_get_indexdef(i.indexrelid), i.indisprimary, i.indisunique, i.indisvalid)
FROM members m JOIN pg_index i ON m.classid = 'pg_class'::regclass AND i.indrelid = m.objid;

SELECT 'constraint ' || coalesce(conrelid::regclass::text, '') || ' ' || coalesce(contypid::regtype::text, '') || ' ' || conname,
    concat_ws(E'\\n', pg_get_constraintdef(oid), obj_description(oid, 'pg_constraint'))
FROM pg_constraint WHERE contype <> 'n' AND (conrelid IN (SELECT objid FROM members WHERE classid = 'pg_class'::regclass)
    OR contypid IN (SELECT objid FROM members WHERE classid = 'pg_type'::regclass));

SELECT 'trigger ' || t.tgrelid::regclass || ' ' || t.tgname, concat_ws(E'\\n', pg_get_triggerdef(t.oid), t.tgenabled, obj_description(t.oid, 'pg_trigger'))
FROM members m JOIN pg_trigger t ON m.classid = 'pg_class'::regclass AND t.tgrelid = m.objid WHERE NOT t.tgisinternal;

SELECT 'type ' || t.oid::regtype, concat_ws(E'\\n', t.typtype, t.typowner::regrole, {acl}(t.typacl), t.typinput, t.typoutput, t.typreceive, t.typsend,
    t.typlen, t.typbyval, t.typalign, t.typstorage, t.typcategory, t.typbasetype::regtype, t.typnotnull, t.typdefault, t.typcollation::regcollation)
FROM members m JOIN pg_type t ON m.classid = 'pg_type'::regclass AND t.oid = m.objid;

SELECT 'attribute ' || t.oid::regtype || '.' || a.attname, concat_ws(E'\\n', format_type(a.atttypid, a.atttypmod), a.attnum, col_description(t.typrelid, a.attnum))
FROM members m JOIN pg_type t ON m.classid = 'pg_type'::regclass AND t.oid = m.objid
    -- row types of tables are members from PostgreSQL 17 on, and are shown as columns
    JOIN pg_class r ON r.oid = t.typrelid AND r.relkind = 'c'
    JOIN pg_attribute a ON a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped;

SELECT 'operator ' || o.oid::regoperator, concat_ws(E'\\n', o.oprowner::regrole, o.oprcode, o.oprcom::regoperator, o.oprnegate::regoperator, o.oprrest, o.oprjoin,
    o.oprcanhash, o.oprcanmerge)
FROM members m JOIN pg_operator o ON m.classid = 'pg_operator'::regclass AND o.oid = m.objid;

SELECT 'cast ' || c.castsource::regtype || ' ' || c.casttarget::regtype, concat_ws(E'\\n', c.castfunc::regprocedure, c.castcontext, c.castmethod)
FROM members m JOIN pg_cast c ON m.classid = 'pg_cast'::regclass AND c.oid = m.objid;

SELECT 'schema ' || n.oid::regnamespace, concat_ws(E'\\n', n.nspowner::regrole, {acl}(n.nspacl))
FROM members m JOIN pg_namespace n ON m.classid = 'pg_namespace'::regclass AND n.oid = m.objid;

SELECT 'comment on ' || i.type || ' ' || i.identity, obj_description(m.objid, m.classid::regclass::name)
FROM members m, pg_identify_object(m.classid, m.objid, 0) i;

SELECT 'initial privileges of ' || i.type || ' ' || i.identity, {acl}(p.initprivs)
FROM pg_init_privs p JOIN members m ON m.classid = p.classoid AND m.objid = p.objoid, pg_identify_object(p.classoid, p.objoid, p.objsubid) i
WHERE NOT EXISTS (SELECT FROM pg_proc f WHERE p.classoid = 'pg_proc'::regclass AND f.oid = p.objoid AND {acl}(p.initprivs) = {acl}(acldefault('f', f.proowner)));

SELECT 'manifest of ' || relation, shape FROM rinq_internal.manifest;

SELECT 'extension', concat_ws(E'\\n', extversion, extrelocatable, extnamespace::regnamespace, extowner::regrole, obj_description(oid, 'pg_extension'))
FROM pg_extension WHERE extname = 'rinq'
"""
SORTED_ACL = "pg_temp.sorted_acl"
PREPARE = "CREATE FUNCTION pg_temp.sorted_acl(acl aclitem[]) RETURNS text LANGUAGE sql AS" \
          " $$ SELECT string_agg(item::text, ' ' ORDER BY item::text) FROM unnest(acl) item $$; SET search_path = pg_catalog;"


def of_extension(database):
    """What there is, by name."""
    found = {}
    with database.session() as session:
        session.execute(PREPARE)
        for query in QUERIES.replace("{acl}", SORTED_ACL).split(";\n"):
            one_line = "SELECT name, replace(text, E'\\n', ' | ') FROM q"
            for name, text in session.execute("WITH members AS (%s), q (name, text) AS (%s) %s" % (MEMBERS, query.strip(), one_line)):
                if name in found:
                    raise AssertionError("two objects are called " + name)
                found[name] = text
    return found
