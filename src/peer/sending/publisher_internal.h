/*-------------------------------------------------------------------------
 *
 * publisher_internal.h
 *	  What the files that publish share: the publishing channels, and the
 *	  messages on their way.
 *
 *	publisher.c		publishing, and the life of the channels
 *	unconfirmed.c	messages on their way, until the broker confirms them
 *	again.c		messages that are sent again
 *	returned.c	requests that the broker has no queue for
 *	refused.c	messages for which the broker closes a channel
 *	size_limit.c	how large a message the broker takes
 *
 * Private to these files.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PEER_SENDING_PUBLISH_CHANNEL_H
#define RINQ_PEER_SENDING_PUBLISH_CHANNEL_H

#include "postgres.h"

#include "lib/ilist.h"
#include "peer/sending/publisher.h"

#define RINQ_PUBLISH_CHANNELS 2

/* a message that the broker has not confirmed */
typedef struct RinqUnconfirmed
{
	RinqPublication what;
	Size		body_len;
	char		exchange[8];
	bool		second;			/* the message was returned before */
	bool		done;			/* the message is not on its way any more */
	int64		sent_at;
	RinqBytes	frames;			/* as it was sent; absent when it must not be
								 * sent again */
} RinqUnconfirmed;

/* one that is to be sent again */
typedef struct RinqAgain
{
	dlist_node	node;
	RinqUnconfirmed message;
} RinqAgain;

struct RinqReturnedCall
{
	RinqUnconfirmed message;
};

/* a publishing channel */
typedef struct RinqPublishChannel
{
	uint16		number;
	bool		sure;			/* nothing is given up without a confirm */
	RinqUnconfirmed *window;	/* by delivery tag */
	uint64		next_tag;		/* of the next publish */
	uint64		oldest_tag;		/* that is not confirmed */
	uint64		return_tag;		/* where the last returned message was found */
	Size		bytes;			/* kept of those on their way */
	bool		alone;			/* the one on its way travels alone */
	int64		drain_until;	/* one that has to travel alone waits; 0 is
								 * none */
	dlist_head	again;			/* to be sent before anything else */
	bool		one_by_one;		/* since one of those may be refused */
	int			idle_closes;	/* closes by the broker with nothing on its
								 * way, in a row */
} RinqPublishChannel;

extern RinqPublishChannel rinq_publish_channels[RINQ_PUBLISH_CHANNELS];
extern MemoryContext rinq_publish_context;	/* what is kept of messages */

/* publisher.c */
extern void rinq_publish_channel_open(const RinqPublishChannel *ch);

/* unconfirmed.c */
extern void rinq_unconfirmed_init(void);
extern RinqPublishChannel *rinq_publish_channel_find(uint16 number);
extern RinqPublishChannel *rinq_publish_channel_for(RinqPublishKind kind);
extern RinqUnconfirmed *rinq_unconfirmed_at(RinqPublishChannel *ch, uint64 tag);
extern bool rinq_unconfirmed_none(const RinqPublishChannel *ch);
extern bool rinq_unconfirmed_room(RinqPublishChannel *ch, Size body_len);
extern void rinq_unconfirmed_add(RinqPublishChannel *ch, const RinqUnconfirmed *message);
extern void rinq_unconfirmed_clear(RinqPublishChannel *ch);
extern void rinq_unconfirmed_free_frames(RinqUnconfirmed *message);
extern void rinq_unconfirmed_tell_taken(const RinqPublication * what);
extern void rinq_unconfirmed_tell_refused(const RinqPublication * what, const char *text,
										  bool for_good);

/* again.c */
extern void rinq_again_add(RinqPublishChannel *ch, const RinqUnconfirmed *message);
extern void rinq_again_free(RinqAgain *again);
extern int	rinq_again_take_back(RinqPublishChannel *ch);
extern void rinq_again_send(RinqPublishChannel *ch);

/* size_limit.c */
extern void rinq_size_limit_forget(void);
extern void rinq_size_limit_taken(Size body_len);
extern Size rinq_size_limit_in(const char *text);
extern void rinq_size_limit_learn(Size limit);
extern bool rinq_size_limit_exceeded(Size body_len);
extern bool rinq_size_limit_doubtful(Size body_len);
extern Size rinq_size_limit(void);

#endif							/* RINQ_PEER_SENDING_PUBLISH_CHANNEL_H */
