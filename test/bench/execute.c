/*-------------------------------------------------------------------------
 *
 * execute.c
 *	  One side of executed commands, without PostgreSQL: a consumer that tells
 *	  how old messages are when they come, or a publisher with confirms.
 *
 * usage: execute consume DSN NAMESPACE COUNT
 *		  execute publish DSN NAMESPACE COUNT OUTSTANDING
 *
 * The payload of a message is the time at which it was written, microseconds
 * since the Unix epoch as a CBOR integer.  The consumer prints "ready" when it
 * is; it acknowledges in groups.  The publisher keeps OUTSTANDING persistent
 * messages unconfirmed.  At the end, each prints one line of key=value pairs.
 *
 *-------------------------------------------------------------------------
 */
#include "client.h"

#define ACK_EVERY 100

typedef struct Run
{
	RinqConn   *conn;
	bool		publishes;
	char		queue[256];
	const char *namespace;
	int			outstanding;
	int64_t		total;
	int64_t		sent;
	int64_t		done_count;		/* received, or confirmed */
	int64_t    *took;			/* consumer: ns; publisher: not 0 when
								 * confirmed */
	int64_t		oldest;			/* number of the first that is not confirmed */
	int64_t		first;
	int64_t		last;
	bool		done;
} Run;

static int64_t
epoch_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * INT64_C(1000000) + ts.tv_nsec / 1000;
}

static void
count_one(Run *run)
{
	run->last = now_ns();
	if (run->done_count == 0)
		run->first = run->last;
	run->done = ++run->done_count == run->total;
}

static void
publish_one(Run *run)
{
	unsigned char body[9] = {0x1b};
	char		id_text[RINQ_MESSAGE_ID_SIZE];
	RinqMessageId id = {{{{0x58AEE146, 0x191C}, 1}, 0}, (uint32_t) run->sent + 1};
	RinqMessage msg = {0};
	uint64_t	now = (uint64_t) epoch_us();
	int			i;

	for (i = 8; i > 0; i--, now >>= 8)
		body[i] = (unsigned char) now;
	msg.message_id = rinq_bytes(id_text, rinq_message_id_format(&id, id_text, sizeof(id_text)));
	msg.persistent = true;
	msg.ns = rinq_bytes_str(run->namespace);
	msg.command = rinq_bytes_str("x");
	must(rinq_basic_publish(run->conn, CHANNEL, rinq_bytes_str(""), rinq_bytes_str(run->queue),
							true, &msg, (char *) body, sizeof(body)));
	run->sent++;
}

static void
on_confirm(void *arg, uint16_t channel, uint64_t tag, bool multiple, bool nack)
{
	Run		   *run = arg;
	int64_t		number = multiple ? run->oldest : (int64_t) tag - 1;

	(void) channel;
	if (nack)
		die("confirm", "the broker refused a message");
	for (; number < (int64_t) tag; number++)
	{
		if (run->took[number]++ == 0)
			count_one(run);
	}
	while (run->oldest < run->sent && run->took[run->oldest] != 0)
		run->oldest++;
	while (run->sent < run->total && run->sent - run->done_count < run->outstanding)
		publish_one(run);
}

static void
on_delivery(void *arg, const RinqDelivery *d)
{
	Run		   *run = arg;
	const unsigned char *p = (const unsigned char *) d->body.data;
	uint64_t	then = 0;
	int			i;

	if (d->body.len != 9 || p[0] != 0x1b)
		die("delivery", "the payload is not a time");
	for (i = 1; i < 9; i++)
		then = then << 8 | p[i];
	run->took[run->done_count] = (epoch_us() - (int64_t) then) * 1000;
	count_one(run);
	if (run->done || run->done_count % ACK_EVERY == 0)
		must(rinq_basic_ack(run->conn, CHANNEL, d->delivery_tag, true));
}

static void
on_reply(void *arg, const RinqReply *reply)
{
	Run		   *run = arg;

	if (reply->kind == RINQ_REQ_BASIC_CONSUME)
	{
		puts("ready");
		fflush(stdout);
	}
	else if (reply->kind == RINQ_REQ_CONFIRM_SELECT)
	{
		while (run->sent < run->total && run->sent < run->outstanding)
			publish_one(run);
	}
}

static void
on_channel_closed(void *arg, const RinqAmqpChannelClosed *info)
{
	(void) arg;
	die(info->method, info->text);
}

static void
on_open(void *arg)
{
	Run		   *run = arg;
	RinqBytes	queue = rinq_bytes_str(run->queue);

	must(rinq_amqp_channel_open(run->conn, CHANNEL, 0));
	must(rinq_queue_declare(run->conn, CHANNEL, queue, true, false, 3, "classic", 0));
	if (run->publishes)
		must(rinq_confirm_select(run->conn, CHANNEL, 0));
	else
	{
		must(rinq_basic_qos(run->conn, CHANNEL, PREFETCH, false, 0));
		must(rinq_basic_consume(run->conn, CHANNEL, queue, queue, false, 0));
	}
}

static const RinqConnCallbacks callbacks = {
	.on_open = on_open,.on_reply = on_reply,.on_delivery = on_delivery,
	.on_confirm = on_confirm,.on_channel_closed = on_channel_closed
};

static void
report(const Run *run)
{
	int64_t		p50 = 0;
	int64_t		p99 = 0;

	if (!run->publishes)
	{
		qsort(run->took, (size_t) run->total, sizeof(int64_t), compare_times);
		p50 = run->took[run->total / 2];
		p99 = run->took[run->total * 99 / 100];
	}
	printf("count=%" PRId64 " p50_us=%.1f p99_us=%.1f rate=%.0f\n", run->total, p50 / 1e3,
		   p99 / 1e3, (run->total - 1) * 1e9 / (double) (run->last - run->first + 1));
}

int
main(int argc, char **argv)
{
	Run			run = {0};
	RinqBroker	dsn;
	char		err[256];

	run.publishes = argc == 6 && strcmp(argv[1], "publish") == 0;
	if ((!run.publishes && (argc != 5 || strcmp(argv[1], "consume") != 0)) ||
		atoll(argv[4]) < 10)
	{
		fprintf(stderr, "usage: %s consume DSN NAMESPACE COUNT\n"
				"       %s publish DSN NAMESPACE COUNT OUTSTANDING\n", argv[0], argv[0]);
		return 2;
	}
	if (!rinq_broker_parse(argv[2], &dsn, err, sizeof(err)))
		die("address", err);
	run.namespace = argv[3];
	run.total = atoll(argv[4]);
	run.outstanding = run.publishes ? atoi(argv[5]) : 0;
	run.took = calloc((size_t) run.total, sizeof(int64_t));
	if (run.took == NULL)
		die("start", "out of memory");
	snprintf(run.queue, sizeof(run.queue), "cmd.%s", run.namespace);
	run.conn = connect_to(&dsn, &callbacks, &run);
	while (!run.done)
		turn_loop(run.conn, &run.done);
	rinq_conn_flush(run.conn, now_ms());
	rinq_conn_destroy(run.conn);
	report(&run);
	free(run.took);
	return 0;
}
