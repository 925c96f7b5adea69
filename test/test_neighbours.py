"""Other libraries in the same server: with the same names, with the same needs, with manners of their own."""

import itertools
import os
import re
import signal
import subprocess

from rinqtest import case
from rinqtest.cluster import Server, SqlError, World
from rinqtest.server import pg_config
from rinqtest.waiting import wait_until

_numbers = itertools.count(1)

# what librabbitmq, libcbor and c-ares call themselves by: whoever gets here has called the wrong one
_NAMES = ("amqp_decode_method amqp_encode_method amqp_encode_properties init_amqp_pool empty_amqp_pool recycle_amqp_pool"
          " amqp_encode_table amqp_decode_table amqp_pool_alloc amqp_pool_alloc_bytes amqp_decode_properties"
          " cbor_stream_decode cbor_encode_uint cbor_encode_negint cbor_encode_bytestring_start cbor_encode_string_start"
          " cbor_encode_array_start cbor_encode_map_start cbor_encode_tag cbor_encode_bool cbor_encode_null cbor_encode_double"
          " _cbor_load_uint8 _cbor_load_uint16 _cbor_encode_uint8 _cbor_encode_uint"
          " ares_library_init ares_init_options ares_getaddrinfo ares_process_fd ares_timeout ares_cancel ares_destroy").split()

_MODULE = """#include "postgres.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
PG_MODULE_MAGIC;
extern PGDLLEXPORT void _PG_init(void);
"""

# has copies of its own of the functions, which it calls by name, as a library does into which another was copied
_OWN_COPIES = _MODULE + """
#define WRONG(name) int name(void); int name(void) { mine++; return 4711; }
static int mine;
%s
PG_FUNCTION_INFO_V1(neighbour);
extern PGDLLEXPORT Datum neighbour(PG_FUNCTION_ARGS);
Datum neighbour(PG_FUNCTION_ARGS) { int before = mine; int got = amqp_encode_table() + cbor_encode_uint();
    PG_RETURN_INT32(mine == before + 2 ? got / 2 : -1); }
PG_FUNCTION_INFO_V1(trespassers);
extern PGDLLEXPORT Datum trespassers(PG_FUNCTION_ARGS);
Datum trespassers(PG_FUNCTION_ARGS) { PG_RETURN_INT32(mine); }
void _PG_init(void) {}
""" % "\n".join("WRONG(%s)" % name for name in _NAMES)

# is linked to the libraries, which brings them into the space of all names
_LINKED = _MODULE + """
extern const char *amqp_version(void);
extern void *cbor_new_null(void);
PG_FUNCTION_INFO_V1(neighbour);
extern PGDLLEXPORT Datum neighbour(PG_FUNCTION_ARGS);
Datum neighbour(PG_FUNCTION_ARGS) { PG_RETURN_INT32(amqp_version()[0] == '0' && cbor_new_null() != NULL ? 4711 : -1); }
void _PG_init(void) {}
"""

# asks for shared memory without asking those who came before whether they want some, too
_RUDE = _MODULE + """
static void request(void) { RequestAddinShmemSpace(1000); }
void _PG_init(void) { shmem_request_hook = request; }
PG_FUNCTION_INFO_V1(neighbour);
extern PGDLLEXPORT Datum neighbour(PG_FUNCTION_ARGS);
Datum neighbour(PG_FUNCTION_ARGS) { PG_RETURN_INT32(4711); }
"""

# does not let those who came before set theirs up
_RUDER = _MODULE + """
static void startup(void) {}
void _PG_init(void) { shmem_startup_hook = startup; }
"""


# what PostgreSQL looks up by name besides SQL functions: the library and its processes
_ENTRIES = {"_PG_init", "Pg_magic_func"} | {"rinq_%s_main" % name for name in ("launcher", "peer", "reader", "executor", "outbox")}


def installed_library():
    return os.path.join(case.STAGE or "", pg_config("--pkglibdir").lstrip("/") if case.STAGE else pg_config("--pkglibdir"), "rinq.so")


class Library(case.Case):
    """The library itself, as it was installed."""

    def symbols(self, *options, library=None):
        out = subprocess.run(["nm", "-D", *options, library or installed_library()], check=True, stdout=subprocess.PIPE, text=True).stdout
        return {line.split()[-1] for line in out.splitlines()}

    def wanted_exports(self):
        functions = {row[0] for row in self.database().sql("SELECT prosrc FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang"
                                                           " WHERE l.lanname = 'c' AND p.probin LIKE '%rinq%'")}
        return functions | {"pg_finfo_" + name for name in functions} | _ENTRIES

    def test_exports(self):
        self.assertEqual(self.symbols("--defined-only"), self.wanted_exports())

    def test_a_leak_would_be_seen(self):
        """A function and a variable, which nobody has hidden."""
        path = os.path.join(case.scratch().make_folder("leak", owned=True), "leak")
        with open(path + ".c", "w") as file:
            file.write("int rinq_leaked_main(void) { return 0; } int rinq_leak = 1; static int rinq_hidden(void) { return 1; }"
                       " int (*rinq_used)(void) __attribute__((visibility(\"hidden\"))) = rinq_hidden;")
        subprocess.run(["gcc", "-shared", "-fPIC", "-o", path + ".so", path + ".c"], check=True)
        self.assertEqual(self.symbols("--defined-only", library=path + ".so") - self.wanted_exports(), {"rinq_leaked_main", "rinq_leak"})

    def test_imports(self):
        if case.SERVER_ENVIRONMENT:
            self.skipTest("linked to its libraries for a sanitizer")
        self.assertEqual([name for name in self.symbols("--undefined-only") if re.match(r"_?(amqp|cbor|ares)_|.*_amqp_pool", name)], [])


class Neighbours(case.Case):
    """Servers that load another library before or after."""

    @classmethod
    def setUpClass(cls):
        cls.folder = case.scratch().make_folder("neighbours", owned=True)
        cls.world = case.shared_world()
        cls.server = cls.world.server
        cls.recording = cls.world.recording

    @classmethod
    def build(cls, name, source, *options):
        path = os.path.join(cls.folder, name)
        with open(path + ".c", "w") as file:
            file.write(source)
        subprocess.run(["gcc", "-shared", "-fPIC", "-w", "-I" + pg_config("--includedir-server"), "-o", path + ".so", path + ".c", *options],
                       check=True)
        return path

    def world_with(self, libraries):
        if case.SERVER_ENVIRONMENT:
            self.skipTest("linked to its libraries for a sanitizer")
        world = World(case.STAGE, case.scratch(), broker=self.world.broker, name="neighbours%d" % next(_numbers), proxied=False,
                      settings={"shared_preload_libraries": "'%s'" % ", ".join(libraries)})
        self.addCleanup(world.close)
        self.server = world.server
        self.log_start = 0
        return world

    def check_both_ways(self, world, library=None):
        """Messages of all kinds go out and come in, and the neighbour's function does what it did before."""
        db = world.database()
        if library is not None:
            db.sql("CREATE FUNCTION neighbour() RETURNS int LANGUAGE c AS '%s', 'neighbour'" % library)
        db.handler("echo", "RETURN jsonb_build_object('got', req.payload);")
        db.listen("neighbours", "echo")
        payload = {"a": [1, -2.5, None, True, "text", {"b": 10 ** 30}]}
        self.assertEqual(db.call("neighbours", "x", payload, timeout=20), {"got": payload})
        db.sql("SELECT rinq_execute('neighbours', 'x', '1')")
        wait_until(lambda: db.value("SELECT depth FROM rinq_outbox_status"), lambda depth: depth == "0", description="an empty outbox")
        if library is not None:
            self.assertEqual(db.value("SELECT neighbour()"), "4711")
        return db

    def test_own_copies_of_the_same_functions(self):
        library = self.build("own_copies", _OWN_COPIES)
        for order in ([library, "rinq"], ["rinq", library]):
            with self.subTest(order=order):
                world = self.world_with(order)
                db = self.check_both_ways(world, library)
                db.sql("CREATE FUNCTION trespassers() RETURNS int LANGUAGE c AS '%s', 'trespassers'" % library)
                self.assertEqual(db.value("SELECT trespassers() FROM rinq_to_cbor('[1, 2.5, \"x\"]')"), "0")

    def test_linked_to_the_same_libraries(self):
        library = self.build("linked", _LINKED, "-lrabbitmq", "-lcbor")
        for order in ([library, "rinq"], ["rinq", library]):
            with self.subTest(order=order):
                self.check_both_ways(self.world_with(order), library)

    def test_both_at_once(self):
        """The libraries were loaded by one neighbour in the company of another that has their names: rinq alone can go first."""
        copies = self.build("own_copies", _OWN_COPIES)
        linked = self.build("linked", _LINKED, "-lrabbitmq", "-lcbor")
        self.check_both_ways(self.world_with(["rinq", copies, linked]), copies)
        server = Server(case.scratch(), case.STAGE, name="neighbours-refused", preload=False,
                        settings={"shared_preload_libraries": "'%s, %s, rinq'" % (copies, linked)})
        done = case.scratch().run([server.tool("postgres"), "-D", server.data], unprivileged=True, check=False, cwd="/", timeout=30)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stdout, r"rinq cannot use a library that it needs[\s\S]*own_copies\.so[\s\S]*before what else uses it")

    def test_one_that_asks_for_memory_in_place_of_all(self):
        library = self.build("rude", _RUDE)
        for order in ([library, "rinq"], ["rinq", library]):
            with self.subTest(order=order):
                world = self.world_with(order)
                self.check_both_ways(world, library)
                self.assertEqual("directly from the operating system" in world.server.log_since(), order[0] == "rinq")

        # it is made anew after a crash
        db = world.database()
        session = db.session()
        os.kill(session.pid, signal.SIGKILL)
        wait_until(lambda: db.peer()["state"] == "connected" and world.server.log_since().count("directly from the operating system") == 2,
                   timeout=20, description="the server to recover")
        self.log_start = world.server.log_mark()
        self.check_both_ways(world, library)

    def test_one_that_starts_up_in_place_of_all(self):
        library = self.build("ruder", _RUDER)
        world = self.world_with(["rinq", library])
        world.server.psql("CREATE EXTENSION rinq")
        with self.assertRaises(SqlError) as caught:
            world.server.psql("SELECT rinq_call('x', 'x')")
        self.assertSqlState(caught.exception, "55000", "could not set up its shared memory")
        self.assertIn("after it", caught.exception.hint)
        world.server.configure(reload=False, shared_preload_libraries="%s, rinq" % library)
        world.server.restart()
        self.assertEqual(world.server.psql("SELECT count(*) FROM rinq_peer"), [["1"]])

    def test_loaded_by_the_first_function_called(self):
        library = self.build("own_copies", _OWN_COPIES)
        world = self.world_with([library])
        world.server.psql("CREATE EXTENSION rinq")
        self.assertEqual(world.server.psql("SELECT rinq_from_cbor(rinq_to_cbor('[1, -1, 2.5, true, null, {}]'))"), [["[1, -1, 2.5, true, null, {}]"]])

    def test_what_postgresql_brings(self):
        names = ["pg_stat_statements", "auto_explain", "rinq"]
        for order in (names, names[::-1]):
            with self.subTest(order=order):
                world = self.world_with(order)
                world.server.configure(auto_explain__log_min_duration="0", auto_explain__log_analyze="on",
                                       auto_explain__log_nested_statements="on")
                self.check_both_ways(world)
