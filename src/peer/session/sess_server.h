/*-------------------------------------------------------------------------
 *
 * sess_server.h
 *	  What other peers ask about sessions of this one.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_SESSION_SESS_SERVER_H
#define RINQ_PEER_SESSION_SESS_SERVER_H

#include "postgres.h"

#include "base/bytes.h"
#include "lib/stringinfo.h"
#include "protocol/sess_message.h"

extern char rinq_sess_serve_frozen(RinqBytes command, const RinqSessBody *body,
								   RinqAttributeTable *table, int64 revision, StringInfo response);
extern char rinq_sess_serve(RinqBytes command, RinqBytes payload, StringInfo response);

#endif							/* RINQ_PEER_SESSION_SESS_SERVER_H */
