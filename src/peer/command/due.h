/*-------------------------------------------------------------------------
 *
 * due.h
 *	  When commands that wait in the inbox are due, by namespace.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_COMMAND_DUE_H
#define RINQ_PEER_COMMAND_DUE_H

#include "postgres.h"

#include "peer/topology/namespaces.h"

extern void rinq_inbox_due_at(RinqNamespace * ns, int64 at);
extern void rinq_inbox_due_configured(void);
extern RinqNamespace * rinq_inbox_due_take(int64 *next);

#endif							/* RINQ_PEER_COMMAND_DUE_H */
