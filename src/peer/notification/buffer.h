/*-------------------------------------------------------------------------
 *
 * buffer.h
 *	  Notifications that wait in the peer until they are fetched.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_NOTIFICATION_BUFFER_H
#define RINQ_PEER_NOTIFICATION_BUFFER_H

#include "postgres.h"

#include "base/bytes.h"
#include "peer/session/sessions.h"

#define RINQ_NOTHING_BUFFERED "it does not listen to a namespace whose notifications are buffered"

extern bool rinq_buffer_add(RinqSession * session, const RinqFields *fields);
extern void rinq_buffer_fetch(RinqSession * session, uint32 index, bool wait);
extern void rinq_buffer_no_more(RinqSession * session);
extern void rinq_buffer_session_ends(RinqSession * session);

#endif							/* RINQ_PEER_NOTIFICATION_BUFFER_H */
