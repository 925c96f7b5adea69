/*-------------------------------------------------------------------------
 *
 * hash_table.h
 *	  Making a hash table whose keys are compared byte by byte.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BASE_HASH_TABLE_H
#define RINQ_BASE_HASH_TABLE_H

#include "postgres.h"

#include "utils/hsearch.h"

/*
 * Make a hash table in a memory context, for about "size" entries to begin with.
 * Keys must have no stray bytes between their parts.
 */
static inline HTAB *
rinq_make_hash_table(const char *name, long size, Size keysize, Size entrysize, MemoryContext context)
{
	HASHCTL		ctl;

	Assert(keysize <= entrysize);
	memset(&ctl, 0, sizeof(ctl));
	ctl.keysize = keysize;
	ctl.entrysize = entrysize;
	ctl.hcxt = context;
	return hash_create(name, size, &ctl, HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
}

#endif							/* RINQ_BASE_HASH_TABLE_H */
