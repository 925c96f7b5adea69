/*-------------------------------------------------------------------------
 *
 * mailbox_reader.h
 *	  Reading which mailbox a database has.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_WORKER_MAILBOX_READER_H
#define RINQ_WORKER_MAILBOX_READER_H

#include "ipc/listener_config.h"

extern void rinq_mailbox_read(RinqConfig *config);

#endif							/* RINQ_WORKER_MAILBOX_READER_H */
