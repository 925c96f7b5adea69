/*-------------------------------------------------------------------------
 *
 * rinq.c
 *	  Loading the library: settings, shared memory, hooks, launcher.
 *
 * Loaded at server start it sets everything up.  Loaded later, by the first
 * function called, it can only convert payloads; functions that need the peer
 * then say what is missing (ipc/shared.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "backend/prepared.h"
#include "backend/utility_hook.h"
#include "base/library.h"
#include "fmgr.h"
#include "guc.h"
#include "ipc/shared.h"
#include "ipc/startup.h"
#include "ipc/worker.h"
#include "version.h"

RINQ_MODULE_MAGIC(RINQ_VERSION);

extern PGDLLEXPORT void _PG_init(void);

/*
 * Load the libraries, without which rinq can do nothing at all, and is not
 * loaded itself.
 */
static void
load_libraries(void)
{
	char		error[1024];

	if (!rinq_amqp_load(error, sizeof(error)) || !rinq_cbor_load(error, sizeof(error)) ||
		!rinq_cares_load(error, sizeof(error)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_FILE),
				 errmsg("rinq cannot use a library that it needs"),
				 errdetail_internal("%s", error),
				 errhint("If the library is installed, name \"rinq\" in \"shared_preload_libraries\" before what else uses it.")));
}

void
_PG_init(void)
{
	load_libraries();
	rinq_define_settings();
	if (!process_shared_preload_libraries_in_progress)
		return;
	rinq_shared_init();
	rinq_utility_hook_init();
	rinq_prepared_init();

	/* pg_upgrade must find the server quiet */
	if (!IsBinaryUpgrade)
		rinq_register_launcher();
}
