/*-------------------------------------------------------------------------
 *
 * send.h
 *	  What all functions share that send messages at commit.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_SQL_SEND_H
#define RINQ_SQL_SEND_H

#include "postgres.h"

#include "base/bytes.h"
#include "fmgr.h"
#include "ipc/sendqueue.h"
#include "sql/session_ref.h"

extern RinqDatabase *rinq_send_require_database(bool durable);
extern void rinq_send_inherited(RinqFields *fields);
extern void rinq_send_allocate_id(RinqDatabase *db, RinqMessageId *id);
extern void rinq_send_allocate_id_argument(FunctionCallInfo fcinfo, int n, RinqDatabase *db,
										   RinqMessageId *id);
extern RinqBytes rinq_check_notification_type(const char *type);
extern void rinq_check_notification_target(const RinqSessionRef *session);
extern void rinq_send_notification(RinqDatabase *db, RinqOutbound *message, bool has_id,
								   RinqBytes namespace, RinqBytes type, RinqBytes payload,
								   RinqBytes constraint);

#endif							/* RINQ_SQL_SEND_H */
