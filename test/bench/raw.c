/*-------------------------------------------------------------------------
 *
 * raw.c
 *	  Round trips between two plain C processes: what the broker and the
 *	  connection layer allow, without PostgreSQL and without Rinq's logic.
 *
 * usage: raw DSN OUTSTANDING COUNT
 *
 * The server process takes requests from one queue, acknowledges each, and
 * publishes a response to the queue of the client, which keeps OUTSTANDING
 * requests under way until COUNT responses have come.  Messages look like Rinq
 * calls and their responses.  A tenth of COUNT is done before, unmeasured.
 * Prints one line of key=value pairs.
 *
 *-------------------------------------------------------------------------
 */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "client.h"

#define BODY_SIZE		100

typedef struct Side
{
	RinqConn   *conn;
	bool		is_server;
	bool		ready;			/* the consumer is registered */
	bool		done;
	char		own_queue[64];
	char		other_queue[64];
	int			outstanding;
	int64_t		warmup;
	int64_t		total;
	int64_t		sent;
	int64_t		received;
	int64_t    *started;		/* by number of request, ns */
	int64_t    *took;
	int64_t		measure_start;
	int64_t		measure_end;
} Side;

static void
send_request(Side *side)
{
	char		body[BODY_SIZE];
	char		id_text[RINQ_MESSAGE_ID_SIZE];
	RinqMessageId id = {{{{0x58AEE146, 0x191C}, 1}, 0}, (uint32_t) side->sent + 1};
	RinqMessage msg = {0};

	memset(body, 'q', sizeof(body));
	msg.message_id = rinq_bytes(id_text, rinq_message_id_format(&id, id_text, sizeof(id_text)));
	msg.reply_to = rinq_bytes_str("c");
	msg.expiration = rinq_bytes_str("5000");
	msg.priority = 1;
	msg.has_priority = true;
	msg.ns = rinq_bytes_str("math");
	msg.command = rinq_bytes_str("add");
	msg.deadline = INT64_C(4000000000000);
	msg.has_deadline = true;
	side->started[side->sent++] = now_ns();
	must(rinq_basic_publish(side->conn, CHANNEL, rinq_bytes_str(""),
							rinq_bytes_str(side->other_queue), false, &msg,
							body, sizeof(body)));
}

static void
send_response(Side *side, const RinqDelivery *request)
{
	RinqMessage msg = {0};

	msg.type = rinq_bytes_str("s");
	msg.correlation_id = request->message.message_id;
	msg.expiration = request->message.expiration;
	msg.deadline = request->message.deadline;
	msg.has_deadline = request->message.has_deadline;
	must(rinq_basic_publish(side->conn, CHANNEL, rinq_bytes_str(""),
							rinq_bytes_str(side->other_queue), false, &msg,
							request->body.data, request->body.len));
}

static void
take_response(Side *side, const RinqDelivery *response)
{
	RinqMessageId id;
	int64_t		now = now_ns();

	if (!rinq_message_id_parse(response->message.correlation_id.data,
							   response->message.correlation_id.len, &id))
		die("response", "bad correlation id");
	if (side->received == side->warmup)
		side->measure_start = now;
	side->took[side->received++] = now - side->started[id.seq - 1];
	if (side->received == side->total)
	{
		side->measure_end = now;
		side->done = true;
	}
	else if (side->sent < side->total)
		send_request(side);
}

static void
on_delivery(void *arg, const RinqDelivery *d)
{
	Side	   *side = arg;

	if (side->is_server)
		send_response(side, d);
	else
		take_response(side, d);
	must(rinq_basic_ack(side->conn, CHANNEL, d->delivery_tag, false));
}

static void
on_reply(void *arg, const RinqReply *reply)
{
	Side	   *side = arg;

	if (reply->kind == RINQ_REQ_BASIC_CONSUME)
		side->ready = true;
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
	Side	   *side = arg;
	RinqBytes	queue = rinq_bytes_str(side->own_queue);

	must(rinq_amqp_channel_open(side->conn, CHANNEL, 0));
	must(rinq_basic_qos(side->conn, CHANNEL, PREFETCH, false, 0));
	must(rinq_queue_declare(side->conn, CHANNEL, queue, false, true, 3, NULL, 0));
	must(rinq_basic_consume(side->conn, CHANNEL, queue, queue, true, 0));
}

static const RinqConnCallbacks callbacks = {
	.on_open = on_open,.on_reply = on_reply,.on_delivery = on_delivery,
	.on_channel_closed = on_channel_closed
};

static void
turn(Side *side)
{
	turn_loop(side->conn, &side->done);
}

static void
run_server(Side *side, const RinqBroker *dsn, int ready_fd)
{
	/* ends with the client, whatever happens to that */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	side->is_server = true;
	side->conn = connect_to(dsn, &callbacks, side);
	while (!side->ready)
		turn(side);
	if (write(ready_fd, "r", 1) != 1)
		die("server", strerror(errno));
	for (;;)
		turn(side);
}

static void
run_client(Side *side, const RinqBroker *dsn)
{
	side->conn = connect_to(dsn, &callbacks, side);
	while (!side->ready)
		turn(side);
	for (int i = 0; i < side->outstanding; i++)
		send_request(side);
	while (!side->done)
		turn(side);
	rinq_conn_destroy(side->conn);
}

static double
cpu_us(int who)
{
	struct rusage ru;

	getrusage(who, &ru);
	return (ru.ru_utime.tv_sec + ru.ru_stime.tv_sec) * 1e6 +
		ru.ru_utime.tv_usec + ru.ru_stime.tv_usec;
}

static void
report(const Side *side)
{
	int64_t		n = side->total - side->warmup;
	int64_t    *took = side->took + side->warmup;

	qsort(took, (size_t) n, sizeof(*took), compare_times);
	printf("outstanding=%d count=%" PRId64 " p50_us=%.1f p99_us=%.1f rate=%.0f "
		   "client_cpu_us=%.2f server_cpu_us=%.2f\n",
		   side->outstanding, n, took[n / 2] / 1e3, took[n * 99 / 100] / 1e3,
		   (n - 1) * 1e9 / (double) (side->measure_end - side->measure_start),
		   cpu_us(RUSAGE_SELF) / side->total, cpu_us(RUSAGE_CHILDREN) / side->total);
}

int
main(int argc, char **argv)
{
	Side		client = {0};
	Side		server = {0};
	RinqBroker	dsn;
	char		err[256];
	char		byte;
	int			pipefd[2];
	pid_t		pid;

	if (argc != 4 || atoi(argv[2]) < 1 || atoll(argv[3]) < 10)
	{
		fprintf(stderr, "usage: %s DSN OUTSTANDING COUNT\n", argv[0]);
		return 2;
	}
	if (!rinq_broker_parse(argv[1], &dsn, err, sizeof(err)))
		die("address", err);
	client.outstanding = atoi(argv[2]);
	client.warmup = atoll(argv[3]) / 10;
	client.total = atoll(argv[3]) + client.warmup;
	client.started = calloc((size_t) client.total, sizeof(int64_t));
	client.took = calloc((size_t) client.total, sizeof(int64_t));
	if (client.started == NULL || client.took == NULL)
		die("start", "out of memory");
	if (client.outstanding > client.total)
		client.outstanding = (int) client.total;
	snprintf(client.own_queue, sizeof(client.own_queue), "raw.%d.rsp", (int) getpid());
	snprintf(server.own_queue, sizeof(server.own_queue), "raw.%d.req", (int) getpid());
	strcpy(client.other_queue, server.own_queue);
	strcpy(server.other_queue, client.own_queue);

	if (pipe(pipefd) != 0 || (pid = fork()) < 0)
		die("start", strerror(errno));
	if (pid == 0)
	{
		close(pipefd[0]);
		run_server(&server, &dsn, pipefd[1]);
	}
	close(pipefd[1]);
	if (read(pipefd[0], &byte, 1) != 1)
		return 1;				/* the server has said why */
	run_client(&client, &dsn);
	kill(pid, SIGTERM);
	waitpid(pid, NULL, 0);
	report(&client);
	free(client.started);
	free(client.took);
	return 0;
}
