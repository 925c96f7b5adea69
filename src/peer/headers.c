/*-------------------------------------------------------------------------
 *
 * headers.c
 *	  Headers that messages of all kinds have, by the same rules.
 *
 * Which messages have them is decided by those who publish; how they are
 * written is amqp/message.c's business.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "peer/headers.h"

/* longest expiration that a broker takes, in ms */
#define MAX_EXPIRATION INT64CONST(4294967295)

/*
 * Set the deadline of a message, 0 for none; the broker drops the message when
 * it has passed.  "expiration" has to live as long as the message.
 */
void
rinq_message_set_deadline(RinqMessage *msg, int64 deadline, char expiration[RINQ_EXPIRATION_SIZE])
{
	if (deadline == 0)
		return;
	snprintf(expiration, RINQ_EXPIRATION_SIZE, INT64_FORMAT,
			 Min(MAX_EXPIRATION, Max(0, deadline - rinq_clock_ms())));
	msg->expiration = rinq_bytes_str(expiration);
	msg->has_deadline = true;
	msg->deadline = rinq_wall_of_clock(deadline);
}

/*
 * Set the trace id of a message whose id is set already.  Without one, the
 * message's own id is its trace id; so one that equals that is left out.
 */
void
rinq_message_set_trace(RinqMessage *msg, RinqBytes trace)
{
	if (trace.len > 0 && !rinq_bytes_equal(trace, msg->message_id))
		msg->correlation_id = trace;
}
