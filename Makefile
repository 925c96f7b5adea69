# rinq: makes a PostgreSQL database a peer on a Rinq network.
#
#   make demo    installs what is missing, and shows the main job
#   make check   installs what is missing, and runs every test
#   make matrix CELLS="trixie sid"   runs make check on other Debian releases, in root folders of its own; all of them without CELLS
#   make check-upgrade   of the tests, those of upgrades
#   make bench   measures, beside a raw client of the same broker
#   make soak    runs messages of all kinds under random faults for MINUTES (5), and compares what was sent with what arrived
#   make hostile SCALE=20 SEED=1   sends the peer that much more of the random input that make check sends it
#   make format, make format-check   lays out the C files as pgindent does, or says which are not so; make typedefs first for new types
#   make lint, make lint-deep   says what is wrong with the sources without running them: in seconds, and in minutes
#   make deb, make dist, make rpm, make oci   packages of it, under build/
#   make check-packages   builds them, and uses Debian's from installation to removal in a root folder of its own
#   make, make install, make installcheck   as for any extension

EXTENSION = rinq
MODULE_big = rinq
DATA = $(wildcard sql/rinq--*.sql)

OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c src/*/*/*.c)))
PG_CPPFLAGS = -I$(srcdir)/src

# Nothing is visible but what PostgreSQL looks up by name.
SHLIB_EXPORTS = exports.txt

# The libraries are loaded by the extension itself (src/base/library.h), the very versions that it was compiled for.  LINK_LIBRARIES=1 links
# them as usual, for sanitizers, which do not get along with that; what is in LINK_MORE comes in addition.
ifdef LINK_LIBRARIES
PG_CPPFLAGS += -DRINQ_LINK_LIBRARIES
SHLIB_LINK = -lrabbitmq -lcbor -lcares -lssl -lcrypto $(LINK_MORE)
else
# OpenSSL is linked to the server itself already, and its names carry versions
SHLIB_LINK = -lssl -lcrypto $(LINK_MORE)
endif

# setup comes first: it creates the extension for the others
REGRESS = setup $(filter-out setup,$(sort $(patsubst sql/%.sql,%,$(filter-out $(DATA),$(wildcard sql/*.sql)))))
REGRESS_OPTS = --inputdir=.

EXTRA_CLEAN = exports.txt exports.list test/unit/build test/bench/raw test/bench/execute

# the targets that set up what they need do not need PostgreSQL's makefiles
ifneq ($(filter demo check matrix check-upgrade bench soak hostile format format-check lint lint-deep deb dist rpm oci check-packages,$(MAKECMDGOALS)),)

.PHONY: demo check check-upgrade bench soak hostile
demo check check-upgrade bench soak hostile:
	@test/deps
	@$(ENV_$@) test/$(RUN_$@)

RUN_demo = demo
RUN_check = run
RUN_check-upgrade = run test_upgrade
RUN_bench = bench/run
RUN_soak = soak/run --minutes $(or $(MINUTES),5)
RUN_hostile = run unit cbor_differential test_bad_input test_hostile
ENV_hostile = RINQ_HOSTILE_SCALE=$(or $(SCALE),20) RINQ_HOSTILE_SEED=$(or $(SEED),1) FUZZ="$(or $(SCALE),20)0000 $(or $(SEED),1)"

# as root, who makes what is missing in the root folders, not here
.PHONY: matrix
matrix:
	@test/matrix --write $(if $(FRESH),--fresh) --suites="$(SUITES)" $(CELLS)

.PHONY: format format-check lint lint-deep
format:
	@tools/format
format-check:
	@tools/format --check
lint:
	@tools/lint
lint-deep:
	@tools/lint --deep

.PHONY: deb dist rpm oci check-packages
deb dist rpm oci:
	@tools/package $@
check-packages:
	@test/packages

else

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

soname = $(shell LC_ALL=C objdump -p "$$($(CC) -print-file-name=lib$(1).so)" | sed -n 's/^ *SONAME *//p')
src/amqp/codec.o src/amqp/codec.bc: override CPPFLAGS += -DRINQ_RABBITMQ_SONAME='"$(call soname,rabbitmq)"'
src/cbor/library.o src/cbor/library.bc: override CPPFLAGS += -DRINQ_CBOR_SONAME='"$(call soname,cbor)"'
src/peer/cares.o src/peer/cares.bc: override CPPFLAGS += -DRINQ_CARES_SONAME='"$(call soname,cares)"'

# the functions of SQL, and the entry points of the library and its workers
exports.txt: $(OBJS:.o=.c) src/ipc/worker.h
	{ echo _PG_init; echo Pg_magic_func; sed -n 's/^PG_FUNCTION_INFO_V1(\(.*\));/\1 pg_finfo_\1/p' $(OBJS:.o=.c) | tr ' ' '\n'; \
	  sed -n 's/^extern PGDLLEXPORT void \(rinq_[a-z]*_main\).*/\1/p' src/ipc/worker.h; } > $@

# the names of types for make format, from the debug info of all that is compiled
.PHONY: typedefs
typedefs: all
	@$(MAKE) -s -C test/unit all
	@$(MAKE) -s -C test/bench all
	@tools/typedefs

# committed, so that nobody needs Graphviz (Debian: graphviz) but who changes it
docs/architecture.svg: docs/architecture.dot
	dot -Tsvg $< -o $@

# headers are few, and everything is quick to build
$(OBJS): $(wildcard src/*.h src/*/*.h src/*/*/*.h) rinq.control
# before C23: the headers of PostgreSQL 15 declare functions that take functions as that does not have it any more, and gcc has it by default from 15 on
$(OBJS): override CFLAGS += -std=gnu17 -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers -Wno-cast-function-type

endif
