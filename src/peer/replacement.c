/*-------------------------------------------------------------------------
 *
 * replacement.c
 *	  A connection in place of the one that works, by settings that have
 *	  changed.
 *
 * The new one logs in beside the old one, which is used until then, and stays
 * when the settings are wrong, or their broker is away.  Then it is tried again,
 * with growing pauses, until the settings say something else.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include "base/backoff.h"
#include "base/clock.h"
#include "peer/attempts.h"
#include "peer/broker.h"
#include "peer/process.h"
#include "peer/replacement.h"

static bool wanted;
static int	round_pause;		/* ms, before the next round */
static int64 next_round;
static char told_obstacle[RINQ_LAST_ERROR_LEN]; /* last one in the log */

/*
 * Begin to look whether the settings name another broker, or another login.
 */
void
rinq_replacement_begin(void)
{
	rinq_replacement_end();
	wanted = true;
	round_pause = 0;
	next_round = 0;
	told_obstacle[0] = '\0';
}

/*
 * Give it up, since it is not wanted any more, or there is no connection.
 */
void
rinq_replacement_end(void)
{
	if (wanted)
		rinq_attempts_end();
	wanted = false;
}

/*
 * Tell whether another connection is wanted, or it is to be found out.
 */
bool
rinq_replacement_wanted(void)
{
	return wanted;
}

/* Keep the connection, since the broker of the settings is of no use now. */
static void
keep_connection(const char *connected_to, const char *obstacle)
{
	rinq_attempts_end();
	round_pause = rinq_backoff_next(round_pause, RINQ_FIRST_PAUSE, RINQ_LAST_PAUSE);
	next_round = rinq_peer.now + round_pause;
	if (rinq_same_but_peers(told_obstacle, obstacle))
		return;
	strlcpy(told_obstacle, obstacle, sizeof(told_obstacle));
	rinq_peer_show_error(obstacle);
	ereport(WARNING,
			(errcode(ERRCODE_CONFIG_FILE_ERROR),
			 errmsg("rinq peer %s for database \"%s\" keeps its connection to broker %s instead of the one that is configured",
					rinq_peer.id_text, NameStr(rinq_peer.db->name), connected_to),
			 errdetail_internal("%s", obstacle),
			 errhint("The peer goes on trying. It cannot connect again after its connection is lost.")));
}

/*
 * Tell whether the connection leads to one of another broker's hosts, with the
 * same options for the rest.
 */
static bool
is_connected_to(const RinqBroker *in_use, const char *connected_to, const RinqBroker *other)
{
	RinqBroker	same = *other;
	bool		listed = rinq_broker_find_host(other, connected_to) >= 0;
	bool		result;

	/* other hosts, and the order, matter to the next connection only */
	same.nhosts = in_use->nhosts;
	memcpy(same.hosts, in_use->hosts, sizeof(same.hosts));
	same.load_balance_random = in_use->load_balance_random;
	result = listed && memcmp(&same, in_use, sizeof(same)) == 0;
	rinq_broker_wipe(&same);
	return result;
}

/*
 * Tell whether the connection is as is wanted.  When only hosts have changed
 * that it has nothing to do with, in_use becomes what the next one needs.
 */
bool
rinq_replacement_adopt(RinqBroker *in_use, const char *connected_to, const RinqBroker *next)
{
	if (!is_connected_to(in_use, connected_to, next))
		return false;
	*in_use = *next;
	return true;
}

/* Begin a round beside the connection, when its broker is another one than is wanted. */
static void
start_round(RinqBroker *in_use, const char *connected_to)
{
	RinqBroker	next;
	char		error[RINQ_LAST_ERROR_LEN];

	if (!rinq_peer_broker(&next, error, sizeof(error)))
		keep_connection(connected_to, error);
	else if (rinq_replacement_adopt(in_use, connected_to, &next))
		rinq_replacement_end();
	else
		rinq_attempts_begin(&next, false);
	rinq_broker_wipe(&next);
}

/*
 * Go on with what is wanted, when it is time; true when another connection is
 * there to be taken.
 */
bool
rinq_replacement_step(RinqBroker *in_use, const char *connected_to, const RinqConnCallbacks *callbacks)
{
	char		obstacle[RINQ_LAST_ERROR_LEN];

	if (!wanted)
		return false;
	if (!rinq_attempts_active() && rinq_peer.now >= next_round)
		start_round(in_use, connected_to);
	if (!rinq_attempts_active())
		return false;
	switch (rinq_attempts_step(callbacks))
	{
		case RINQ_ATTEMPTS_WAIT:
			break;
		case RINQ_ATTEMPTS_CONNECTED:
			return true;
		case RINQ_ATTEMPTS_FAILED:
			(void) rinq_attempts_error(obstacle, sizeof(obstacle));
			keep_connection(connected_to, obstacle);
			break;
	}
	return false;
}

/*
 * Return when the next round is due; 0 when there is none to wait for.
 */
int64
rinq_replacement_next_deadline(void)
{
	return wanted && !rinq_attempts_active() ? Max(next_round, 1) : 0;
}
