/*-------------------------------------------------------------------------
 *
 * backend/durable_sources.h
 *	  Sessions of the mailbox: whom durable messages are from that have
 *	  attributes.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_BACKEND_DURABLE_SOURCES_H
#define RINQ_BACKEND_DURABLE_SOURCES_H

#include "postgres.h"

#include "base/ident.h"
#include "utils/jsonb.h"

/* numbers of sessions of the mailbox that have attributes have this bit, others not */
#define RINQ_DURABLE_SOURCE_BIT 0x80000000

extern int32 rinq_durable_source_interval(void);
extern void rinq_durable_source_make(const Jsonb *attributes, RinqMessageId *id);

#endif							/* RINQ_BACKEND_DURABLE_SOURCES_H */
