# rinq: makes a PostgreSQL database a peer on a Rinq network.
#
#   make demo    installs what is missing, and shows the main job
#   make check   installs what is missing, and runs every test
#   make bench   measures, beside a raw client of the same broker
#   make, make install, make installcheck   as for any extension

EXTENSION = rinq
MODULE_big = rinq
DATA = $(wildcard sql/rinq--*.sql)

OBJS = $(patsubst %.c,%.o,$(sort $(wildcard src/*.c src/*/*.c)))
PG_CPPFLAGS = -I$(srcdir)/src
SHLIB_LINK = -lrabbitmq -lcbor

# setup comes first: it creates the extension for the others
REGRESS = setup $(filter-out setup,$(sort $(patsubst sql/%.sql,%,$(filter-out $(DATA),$(wildcard sql/*.sql)))))
REGRESS_OPTS = --inputdir=.

EXTRA_CLEAN = test/unit/build test/bench/raw test/bench/execute

# the targets that set up what they need do not need PostgreSQL's makefiles
ifneq ($(filter demo check bench,$(MAKECMDGOALS)),)

.PHONY: demo check bench
demo check bench:
	@test/deps
	@test/$(if $(filter demo,$@),demo,$(if $(filter bench,$@),bench/run,run))

else

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# headers are few, and everything is quick to build
$(OBJS): $(wildcard src/*.h src/*/*.h) rinq.control
$(OBJS): override CFLAGS += -Wextra -Wno-unused-parameter -Wno-sign-compare -Wno-missing-field-initializers -Wno-cast-function-type

endif
