"""What the documents say of settings, functions, columns, errors, wait events, privileges and log lines, beside what there is."""

import glob
import os
import re

from rinqtest import case
from rinqtest.document import TOP, read
from rinqtest.server import pg_config

SIZES = {"kB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30, "TB": 1 << 40, "ms": 1, "s": 1000, "min": 60000, "h": 3600000, "d": 86400000,
         "day": 86400000, "days": 86400000, "years": 365 * 86400000}
CHANGES = {"sighup": "reload", "postmaster": "server start", "user": "anyone", "superuser": "superuser"}
# neither raised for a client by itself, but taken over, logged, or for what cannot be
NOT_LISTED = {"CONFIG_FILE_ERROR", "DATA_CORRUPTED", "INSUFFICIENT_RESOURCES", "INTERNAL_ERROR", "INVALID_NAME", "OPERATOR_INTERVENTION",
              "T_R_DEADLOCK_DETECTED", "T_R_SERIALIZATION_FAILURE", "TO_CATEGORY", "UNIQUE_VIOLATION"}


def documents():
    return {name: read(name) for name in ["README.md"] + [os.path.relpath(path, TOP) for path in glob.glob(os.path.join(TOP, "docs", "*.md"))]}


def source():
    texts = []
    for path in sorted(glob.glob(os.path.join(TOP, "src", "**", "*.[ch]"), recursive=True)):
        with open(path) as file:
            texts.append(file.read())
    return "\n".join(texts)


def section(name, title):
    return re.search(r"^##+ %s\n(.*?)(?=^##|\Z)" % re.escape(title), read(name), re.M | re.S).group(1)


def rows(text):
    """The rows of a document's tables, as lists of cells."""
    return [[cell.strip() for cell in line.strip("|").replace("\\|", "\0").split("|")] for line in text.splitlines() if line.startswith("| ")]


def amount(text):
    """A value of a table, and the size of its unit; None when it has none."""
    number, _, unit = text.partition(" ")
    return int(number) * SIZES.get(unit, 1), SIZES.get(unit)


def arguments(text):
    """The arguments of a function, one by one, as the documents write types."""
    text = text.replace("timestamp with time zone", "timestamptz").replace("'00:00:00'", "'0'").replace("'00:00:30'", "'30 seconds'")
    text = re.sub(r"(NULL|'[^']*')::[\w.]+(\[\])?", r"\1", re.sub(r"\s+", " ", text))
    return [part.strip() for part in re.split(r",(?![^(\[{]*[)\]}])", text) if part.strip()]


def is_said(said, there):
    """Is this a short form of an argument: with its type or default left out, or its type alone?"""
    plain = there.partition(" DEFAULT")[0]
    return said in (there, plain, plain.partition(" ")[0], plain.partition(" ")[2]) or said.startswith("VARIADIC") and there.startswith("VARIADIC")


class Reference(case.Case):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.db = cls.world.database()
        cls.addClassCleanup(cls.db.drop)

    def members(self, catalog, query):
        return self.db.sql(query + " JOIN pg_depend d ON d.objid = o.oid AND d.classid = '%s'::regclass AND d.deptype = 'e'"
                           " JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'rinq'" % catalog)

    def functions(self):
        """By name, the arguments and result of each function for users."""
        found = {}
        for name, schema, args, result in self.members("pg_proc", "SELECT proname, pronamespace::regnamespace, pg_get_function_arguments(o.oid),"
                                                                  " pg_get_function_result(o.oid) FROM pg_proc o"):
            if schema != "rinq_internal":
                found.setdefault(name, []).append((args, result))
        return found

    def relations(self):
        """By name, the columns of each view and type for users."""
        found = {}
        for name, column, kind in self.db.sql(
                "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod) FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"
                " WHERE c.relkind IN ('v', 'c') AND c.relname LIKE 'rinq%' ORDER BY c.relname, a.attnum"):
            found.setdefault(name, []).append((column, kind.replace("timestamp with time zone", "timestamptz")))
        return found

    def test_settings(self):
        there = {row[0]: row[1:] for row in self.db.sql("SELECT name, boot_val, unit, min_val, max_val, context, vartype FROM pg_settings WHERE name LIKE 'rinq.%'")}
        said = {row[0].strip("`"): row[1:] for row in rows(read("docs/settings.md")) if row[0].startswith("`rinq.")}
        self.assertEqual(set(said), set(there))
        for name, (default, limits, change) in said.items():
            boot, unit, least, most, context, kind = there[name]
            self.assertEqual(change.partition(";")[0], CHANGES[context], name)
            if kind != "integer":
                self.assertEqual(default.strip("`").replace("empty", ""), boot or "", name)
                continue
            size = SIZES.get(unit, 1)
            self.assertEqual(amount(default)[0], int(boot) * size, name)
            low, _, high = limits.replace(" …", "…").replace("… ", "…").partition("…")
            (low, low_unit), (high, high_unit) = amount(low), amount(high) if high else (int(most) * size, None)
            self.assertEqual(low * (1 if low_unit else high_unit or 1), int(least) * size, name)
            self.assertEqual(high, int(most) * size // (high_unit or 1) * (high_unit or 1), name)

    def test_functions(self):
        there, found = self.functions(), set()
        for document, text in documents().items():
            text = re.sub(r"\n {8,}", " ", text)
            for name, args, result in re.findall(r"(?:^    |`)(rinq_\w+)\(([^`;\n]*?)\)`? → `?((?:setof )?(?:\([^)]*\)|[\w\[\]]+))", text, re.M):
                self.assertIn(name, there, document)
                said = arguments(args)
                forms = [([one for one in arguments(had) if not one.startswith("OUT ")], had, gives) for had, gives in there[name]]
                fits = [form for form in forms if len(form[0]) == len(said) and all(map(is_said, said, form[0]))]
                self.assertEqual(len(fits), 1, "%s: %s(%s)" % (document, name, args))
                _, had, gives = fits[0]
                if "(" in result:
                    columns = re.findall(r"OUT (.*?)(?=, OUT |$)", had) or arguments(re.match(r"TABLE\((.*)\)", gives).group(1))
                    self.assertEqual(arguments(re.search(r"\((.*)\)", result).group(1)), columns, name)
                else:
                    self.assertEqual(result.replace("setof", "SETOF"), gives.replace("timestamp with time zone", "timestamptz"), name)
                found.add(name)
        self.assertGreaterEqual(len(found), 40)

    def test_every_name_is_explained(self):
        text = "\n".join(documents().values())
        for name in list(self.functions()) + list(self.relations()):
            if not re.match("rinq_(list_|constraint_)", name):
                self.assertRegex(text, r"\b%s\b" % name)

    def test_columns(self):
        there, found = self.relations(), []
        for document, text in documents().items():
            for title in re.findall(r"^##+ (rinq_\w+)$", text, re.M):
                said = [(column, row[1].strip("`")) for row in rows(section(document, title)) if re.fullmatch(r"`[a-z_]+`(, `[a-z_]+`)*", row[0])
                        for column in re.findall(r"`(\w+)`", row[0])]
                if title in there and said:
                    self.assertEqual(sorted(said), sorted(there[title]), title)
                    found.append(title)
        self.assertGreaterEqual(len(found), 3, found)

    def test_errors(self):
        with open(os.path.join(pg_config("--sharedir"), "errcodes.txt")) as file:
            codes = {macro: (code, condition) for code, macro, condition in re.findall(r"^(\w{5})\s+[EWS]\s+ERRCODE_(\w+)[ \t]*(\w*)", file.read(), re.M)}
        said = {row[0]: row[1].strip("`") for row in rows(section("docs/sql.md", "All SQLSTATEs")) if re.fullmatch("[0-9A-Z]{5}", row[0])}
        for name in set(re.findall(r"\bERRCODE_(\w+)", source())) - NOT_LISTED:
            if name.startswith("RINQ_"):
                continue
            code, condition = codes[name]
            if not code.startswith("22") or code in said:
                self.assertEqual(said.get(code), condition, code)
        own = re.findall(r"define ERRCODE_RINQ_\w+\s+MAKE_SQLSTATE\(([^)]*)\)", source())
        self.assertEqual({"".join(re.findall(r"'(.)'", code)) for code in own}, {code for code in said if code.startswith("RQ")})

    def test_wait_events(self):
        self.assertEqual(set(re.findall(r'"(Rinq\w+)"', source())), set(re.findall(r"`(Rinq\w+)`", section("docs/operations.md", "Processes"))))

    def test_privileges(self):
        granted = {}
        for name, public, monitor in self.members("pg_proc", "SELECT proname, has_function_privilege('public', o.oid, 'EXECUTE'),"
                                                             " has_function_privilege('pg_monitor', o.oid, 'EXECUTE') FROM pg_proc o") + self.members(
                "pg_class", "SELECT relname, has_table_privilege('public', o.oid, 'SELECT'), has_table_privilege('pg_monitor', o.oid, 'SELECT') FROM pg_class o"):
            granted[name] = public == "t", monitor == "t"
        said = [(name, *row[1:3]) for row in rows(section("docs/sql.md", "Privileges")) for name in re.findall(r"`(rinq_\w+…?)`", row[0])]
        covered = set()
        for name, public, whom in sorted(said, key=lambda one: "…" in one[0]):
            pattern = re.compile(name.replace("…", ".*"))
            meant = {one for one in granted if pattern.fullmatch(one)} - covered
            for one in meant:
                self.assertEqual(granted[one][0], public == "yes", one)
                self.assertEqual(granted[one][1], public == "yes" or "`pg_monitor` has it" in whom, one)
            covered |= meant
        constraints = {name for name in granted if re.fullmatch(r"rinq_(all|none|and|or|not|equal|not_equal|empty|not_empty|within|constraint\w*)", name)}
        self.assertTrue(all(granted[name][0] for name in constraints))
        self.assertEqual({name for name in granted if name.startswith("rinq_")} - covered - constraints, set())

    def test_log_lines(self):
        """Each line of the table is one that the source can write, and each that the source can write is there."""
        messages = re.sub(r'"\s*\n?\s*"', "", source()).replace('\\"', '"')
        table = section("docs/operations.md", "Log")
        lines = [text for row in rows(table) if row[0] in ("LOG", "WARNING") for text in re.findall(r"`(rinq[^`]*|broker[^`]*)`", row[1])]
        self.assertGreater(len(lines), 30)
        for line in lines:
            for part in re.split(r"\b(?:[A-Z]|ID|CODE|METHOD|PRODUCT VERSION|N ms|5 s)\b|(?:rinq_internal\.)?…|: | (?:request|notification)\b|(?:reason|problem)$"
                                 r"|\bnamespace(?= .N.: problem)|, since ", line):
                self.assertTrue(part.strip(' "') in messages, "%s: %r" % (line, part))
        plain = re.sub("[^a-z]+", " ", table)
        written = re.findall(r'ereport\((?:LOG|WARNING),\s*\((?:errcode\(\w+\),\s*)?errmsg\("((?:[^"\\]|\\.|"\s*")*)"', source())
        self.assertGreater(len(written), 40)
        for message in written:
            for part in re.split(r'%\w+|\\"|"\s*"', message):
                self.assertTrue(re.sub("[^a-z]+", " ", part).strip() in plain, message)
