/*-------------------------------------------------------------------------
 *
 * rinq.c
 *	  Loading the library: settings, shared memory, hooks, launcher.
 *
 * Loaded at server start it sets everything up.  Loaded later, by the first
 * function called, it can only convert payloads; functions that need the peer
 * then say what is missing (shared.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "ddl.h"
#include "fmgr.h"
#include "guc.h"
#include "shared.h"
#include "worker.h"

PG_MODULE_MAGIC;

extern PGDLLEXPORT void _PG_init(void);

void
_PG_init(void)
{
	rinq_define_settings();
	if (!process_shared_preload_libraries_in_progress)
		return;
	rinq_shared_init();
	rinq_ddl_init();

	/* pg_upgrade must find the server quiet */
	if (!IsBinaryUpgrade)
		rinq_register_launcher();
}
