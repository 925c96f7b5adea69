/*-------------------------------------------------------------------------
 *
 * inbox.h
 *	  Having commands and notifications handled that wait in the inbox for another
 *	  attempt.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_COMMAND_INBOX_H
#define RINQ_PEER_COMMAND_INBOX_H

#include "postgres.h"

extern int64 rinq_inbox_step(void);

#endif							/* RINQ_PEER_COMMAND_INBOX_H */
