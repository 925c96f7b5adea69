/*-------------------------------------------------------------------------
 *
 * resolver.c
 *	  Looking up the addresses of a name, without waiting, by c-ares.
 *
 * c-ares reads what the machine says of names, /etc/resolv.conf and /etc/hosts,
 * anew for each look-up, asks the name servers through sockets of its own, and
 * calls back; this file gives the event loop the sockets, and has a limit on
 * the whole.  RINQ_NAME_SERVERS in the server's environment, addresses with
 * ports, separated by commas, takes the place of the machine's name servers.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "compat.h"

#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/time.h>

#include "base/clock.h"
#include "peer/cares.h"
#include "peer/process.h"
#include "peer/resolver.h"

#define FIRST_ANSWER 1000		/* ms until a name server is asked again, or
								 * the next one; twice as long each time */
#define TRIES 4
#define MAX_LOOKUP_SOCKETS 16

static ares_channel channel = NULL;
static char looked_up[NI_MAXHOST];
static int64 limit_at;			/* when the look-up is given up */
static int	limit;				/* ms, what that was */
static bool over_limit;
static bool done;
static int	status;				/* of c-ares, when done */
static RinqAddresses result;
static int	num_sockets;
static RinqSocket open_sockets[MAX_LOOKUP_SOCKETS];

/* ---------------- addresses that need no look-up ---------------- */

static void
add_address(RinqAddresses *to, const struct sockaddr *at, socklen_t len)
{
	if (to->count == RINQ_MAX_ADDRESSES || len > sizeof(to->list[0].at) ||
		(at->sa_family != AF_INET && at->sa_family != AF_INET6))
		return;
	memcpy(&to->list[to->count].at, at, len);
	to->list[to->count].len = len;
	to->count++;
}

/*
 * Tell whether the host is an address already, which no name server is asked
 * for, and take it.
 */
bool
rinq_resolver_literal(const char *host, int port, RinqAddresses *found)
{
	struct addrinfo hints;
	struct addrinfo *list = NULL;
	char		service[16];

	memset(&hints, 0, sizeof(hints));
	hints.ai_socktype = SOCK_STREAM;
	hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
	snprintf(service, sizeof(service), "%d", port);
	found->count = 0;
	if (getaddrinfo(host, service, &hints, &list) != 0)
		return false;
	for (struct addrinfo *it = list; it != NULL; it = it->ai_next)
		add_address(found, it->ai_addr, it->ai_addrlen);
	freeaddrinfo(list);
	return found->count > 0;
}

/* ---------------- what c-ares calls back for ---------------- */

static void
socket_changed(void *arg, ares_socket_t fd, int readable, int writable)
{
	int			i = 0;

	while (i < num_sockets && open_sockets[i].fd != fd)
		i++;
	if (i == num_sockets || (!readable && !writable))
		rinq_peer.sockets_serial++;
	if (!readable && !writable)
	{
		if (i < num_sockets)
			open_sockets[i] = open_sockets[--num_sockets];
		return;
	}
	if (i == num_sockets)
	{
		/* more than there are places: its answer is not waited for */
		if (num_sockets == MAX_LOOKUP_SOCKETS)
			return;
		num_sockets++;
	}
	open_sockets[i].fd = fd;
	open_sockets[i].readable = readable != 0;
	open_sockets[i].writable = writable != 0;
}

static void
lookup_ended(void *arg, int how, int timeouts, struct ares_addrinfo *found)
{
	done = true;
	status = how;
	result.count = 0;
	if (found == NULL)
		return;
	for (struct ares_addrinfo_node *it = found->nodes; it != NULL; it = it->ai_next)
		add_address(&result, it->ai_addr, it->ai_addrlen);
	ares_freeaddrinfo(found);
	if (result.count == 0)
		status = ARES_ENODATA;
}

/* ---------------- a look-up ---------------- */

static int
open_channel(void)
{
	static bool initialized = false;
	const char *servers = getenv("RINQ_NAME_SERVERS");
	struct ares_options options;
	int			rc;

	if (!initialized)
	{
		rc = ares_library_init(ARES_LIB_INIT_ALL);
		if (rc != ARES_SUCCESS)
			return rc;
		initialized = true;
	}
	memset(&options, 0, sizeof(options));
	options.timeout = FIRST_ANSWER;
	options.tries = TRIES;
	options.sock_state_cb = socket_changed;
	rc = ares_init_options(&channel, &options,
						   ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
	if (rc != ARES_SUCCESS)
		channel = NULL;
	else if (servers != NULL && servers[0] != '\0')
		rc = ares_set_servers_ports_csv(channel, servers);
	return rc;
}

/*
 * Begin to look up a host, which takes the given number of ms at most.
 */
void
rinq_resolver_start(const char *host, int port, int64 wait)
{
	struct ares_addrinfo_hints hints;
	char		service[16];

	rinq_resolver_end();
	strlcpy(looked_up, host, sizeof(looked_up));
	limit = (int) wait;
	limit_at = rinq_peer.now + wait;
	over_limit = false;
	done = false;
	status = open_channel();
	if (status != ARES_SUCCESS)
	{
		done = true;
		return;
	}
	memset(&hints, 0, sizeof(hints));
	hints.ai_family = AF_UNSPEC;
	hints.ai_socktype = SOCK_STREAM;
	hints.ai_flags = ARES_AI_NUMERICSERV;
	snprintf(service, sizeof(service), "%d", port);
	ares_getaddrinfo(channel, host, service, &hints, lookup_ended, NULL);
}

/* Have c-ares read and write what its sockets are ready for, and keep its times. */
static void
process_sockets(void)
{
	struct pollfd polled[MAX_LOOKUP_SOCKETS];
	int			count = num_sockets;

	for (int i = 0; i < count; i++)
	{
		polled[i].fd = open_sockets[i].fd;
		polled[i].events = (open_sockets[i].readable ? POLLIN : 0) | (open_sockets[i].writable ? POLLOUT : 0);
		polled[i].revents = 0;
	}
	if (count > 0 && poll(polled, (nfds_t) count, 0) > 0)
	{
		/* one that is closed meanwhile is not known to c-ares any more */
		for (int i = 0; i < count; i++)
		{
			short		ready = polled[i].revents;

			if (ready != 0)
				ares_process_fd(channel,
								ready & (POLLIN | POLLERR | POLLHUP) ? polled[i].fd : ARES_SOCKET_BAD,
								ready & (POLLOUT | POLLERR | POLLHUP) ? polled[i].fd : ARES_SOCKET_BAD);
		}
	}
	ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

/*
 * Go on with the look-up.  When it is over, return true with the addresses
 * found, or none of them and an error; nothing is left of it then.
 */
bool
rinq_resolver_step(RinqAddresses *found, char *error, size_t size)
{
	if (!done)
		process_sockets();
	if (!done && rinq_peer.now >= limit_at)
	{
		over_limit = true;
		ares_cancel(channel);
	}
	if (!done)
		return false;
	*found = result;
	if (status == ARES_SUCCESS)
		error[0] = '\0';
	else if (over_limit)
		snprintf(error, size, "could not resolve host \"%s\": no name server has answered within %d ms", looked_up, limit);
	else
		snprintf(error, size, "could not resolve host \"%s\": %s", looked_up, ares_strerror(status));
	if (status != ARES_SUCCESS)
		found->count = 0;
	rinq_resolver_end();
	return true;
}

/*
 * Give up the look-up, if there is one.
 */
void
rinq_resolver_end(void)
{
	if (channel != NULL)
		ares_destroy(channel);
	channel = NULL;
	Assert(num_sockets == 0);
	num_sockets = 0;
	result.count = 0;
	done = true;
}

/*
 * Return when the look-up needs a step at the latest.
 */
int64
rinq_resolver_next_deadline(void)
{
	struct timeval next;
	int64		at;

	if (done || ares_timeout(channel, NULL, &next) == NULL)
		return done ? rinq_peer.now : limit_at;

	/* rounded up, so that the step finds the time over */
	at = rinq_clock_ms() + (int64) next.tv_sec * 1000 + next.tv_usec / 1000 + 1;
	return Min(at, limit_at);
}

/*
 * Add the sockets of the look-up to those that are waited for.
 */
void
rinq_resolver_sockets(RinqSockets *sockets)
{
	for (int i = 0; i < num_sockets; i++)
		rinq_add_socket(sockets, open_sockets[i].fd, open_sockets[i].readable, open_sockets[i].writable);
}
