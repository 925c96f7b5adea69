/*-------------------------------------------------------------------------
 *
 * sources.c
 *	  Questions about sessions of the mailbox.
 *
 * Sessions with attributes are rows, which the outbox worker reads: until it
 * has, a question waits.  They never change, so what was read is kept for
 * further questions.  Sessions without attributes need no row.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "base/clock.h"
#include "base/hash_table.h"
#include "guc.h"
#include "lib/ilist.h"
#include "peer/command/delivery.h"
#include "peer/command/server.h"
#include "peer/mailbox/sources.h"
#include "peer/process.h"
#include "peer/sending/outbox_link.h"
#include "peer/session/sess_server.h"
#include "peer/turn.h"
#include "protocol/attribute.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#define HAS_ATTRIBUTES 0x80000000	/* as in backend/durable_sources.h */
#define MAX_KEPT 1000			/* sessions */
#define RETRY_INTERVAL 20		/* ms */

/* a session that was read */
typedef struct Source
{
	uint32		session;		/* hash key */
	RinqAttributeTable *attributes;
} Source;

static HTAB *sources = NULL;
static MemoryContext kept = NULL;

/* questions that wait until their session is read, oldest first */
static dlist_head waiting = DLIST_STATIC_INIT(waiting);

/* those whose session was read, and those whose session is not there: they are
 * answered in slices, since each is as expensive as its body is long */
static dlist_head readable = DLIST_STATIC_INIT(readable);
static dlist_head missing = DLIST_STATIC_INIT(missing);
static bool told;				/* the outbox worker was told to read the
								 * first one's */

/* Forget what was read. */
static void
forget_sources(void)
{
	if (kept == NULL)
		kept = AllocSetContextCreate(TopMemoryContext, "rinq durable sources", ALLOCSET_DEFAULT_SIZES);
	MemoryContextReset(kept);
	sources = rinq_make_hash_table("rinq durable sources", 64, sizeof(uint32), sizeof(Source), kept);
}

/* Read the question; false when it cannot be read. */
static bool
read_question(const RinqInbound * request, RinqSessBody *body)
{
	return rinq_sess_decode(request->body, body);
}

/* Respond to a question about a session that is known; -1: that is not there. */
static void
respond_about(RinqInbound * request, const RinqSessBody *body, RinqAttributeTable *attributes,
			  int64 revision)
{
	StringInfoData response;
	char		type;

	initStringInfo(&response);
	type = rinq_sess_serve_frozen(rinq_get_bytes(&request->fields, RINQ_REQUEST_COMMAND), body,
								  attributes, revision, &response);
	rinq_server_mailbox_respond(request, type, rinq_bytes(response.data, response.len));
	pfree(response.data);
}

/*
 * Respond to a question if all is known that it takes, as it is when the session
 * was looked for and is missing; false when it has to wait.
 */
static bool
respond_if_known(RinqInbound * request, bool is_missing)
{
	MemoryContext context = AllocSetContextCreate(TopMemoryContext, "rinq session request",
												  ALLOCSET_DEFAULT_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	RinqSessBody body;
	Source	   *source = NULL;
	bool		done = true;

	if (rinq_inbound_expired(request) || !rinq_inbound_can_settle(request))
		rinq_inbound_settle(request);
	else if (!read_question(request, &body))
		rinq_server_mailbox_respond(request, 'e', rinq_bytes_str("the payload cannot be read"));
	else if ((body.session & HAS_ATTRIBUTES) == 0)
		respond_about(request, &body, NULL, body.session == 0 ? -1 : 0);
	else if (is_missing)
		respond_about(request, &body, NULL, -1);
	else
	{
		request->session = body.session;
		if (sources != NULL)
			source = hash_search(sources, &body.session, HASH_FIND, NULL);
		done = source != NULL;
		if (done)
			respond_about(request, &body, source->attributes, 1);
	}
	MemoryContextSwitchTo(old);
	MemoryContextDelete(context);
	return done;
}

/*
 * Take a question about a session of the mailbox.
 */
void
rinq_sources_request(const RinqDelivery *delivery)
{
	RinqInbound *request = rinq_server_mailbox_request(delivery);

	if (request != NULL && !respond_if_known(request, false))
		dlist_push_tail(&waiting, &request->node);
}

/* Keep a session that was read. */
static void
keep_source(const RinqSourceRead * read)
{
	RinqBytes	list = rinq_bytes(read->data, read->bytes);
	RinqFields	fields;
	Source	   *source;
	bool		found;

	if (sources == NULL || hash_get_num_entries(sources) >= MAX_KEPT ||
		MemoryContextMemAllocated(kept, true) > (Size) rinq_session_cache * 1024 * 1024)
		forget_sources();
	source = hash_search(sources, &read->session, HASH_ENTER, &found);
	if (found)
		return;
	source->attributes = NULL;
	while (list.len > 0)
	{
		RinqAttribute *attribute;
		int			count;

		if (!rinq_fields_read(&fields, RINQ_KIND_SESSION_ATTRIBUTE, &list) ||
			!rinq_attributes_unpack(rinq_get_bytes(&fields, RINQ_SESSION_ATTRIBUTE_ATTRIBUTE), &attribute, &count) ||
			count != 1)
			elog(ERROR, "corrupt message in rinq's shared memory");
		rinq_attribute_put(&source->attributes, kept,
						   rinq_get_bytes(&fields, RINQ_SESSION_ATTRIBUTE_NAMESPACE), attribute);
		pfree(attribute);
	}
}

/*
 * Take what the outbox worker has read; those who ask about it are answered
 * next.
 */
void
rinq_sources_take(const RinqSourceRead * read)
{
	dlist_mutable_iter iter;

	told = false;
	if (read->found)
		keep_source(read);
	dlist_foreach_modify(iter, &waiting)
	{
		RinqInbound *request = dlist_container(RinqInbound, node, iter.cur);

		if (request->session != read->session)
			continue;
		dlist_delete(&request->node);
		dlist_push_tail(read->found ? &readable : &missing, &request->node);
	}
}

/* Respond to questions, until the slice is over: false. */
static bool
respond_to_all(dlist_head *questions, bool are_missing)
{
	while (!dlist_is_empty(questions))
	{
		RinqInbound *request;

		if (rinq_slice_over())
			return false;
		request = dlist_container(RinqInbound, node, dlist_pop_head_node(questions));
		if (!respond_if_known(request, are_missing))
			dlist_push_tail(&waiting, &request->node);
	}
	return true;
}

/*
 * Have the next outbox worker told, since the one that was has ended.
 */
void
rinq_sources_worker_lost(void)
{
	told = false;
}

/*
 * Respond to questions about what was read, and have the session read that is
 * asked about first.  Returns when to look again, or 0.
 */
int64
rinq_sources_step(void)
{
	RinqInbound *request;
	RinqSourceRead order;

	if (!respond_to_all(&readable, false) || !respond_to_all(&missing, true))
		return rinq_peer.now;
	if (told || dlist_is_empty(&waiting))
		return 0;
	request = dlist_container(RinqInbound, node, dlist_head_node(&waiting));
	if (rinq_inbound_expired(request) || !rinq_inbound_can_settle(request))
	{
		dlist_delete(&request->node);
		rinq_inbound_settle(request);
		return rinq_peer.now;
	}
	memset(&order, 0, sizeof(order));
	order.session = request->session;
	told = rinq_outbox_link_up() && rinq_outbox_tell(RINQ_CHUNK_SOURCE, &order, sizeof(order), 1);
	return told ? 0 : rinq_peer.now + RETRY_INTERVAL;
}
