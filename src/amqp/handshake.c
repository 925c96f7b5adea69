/*-------------------------------------------------------------------------
 *
 * handshake.c
 *	  Methods of the connection itself: login, tuning, close, blocked.
 *
 *-------------------------------------------------------------------------
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "amqp/connection_internal.h"

#define CODE_ACCESS_REFUSED		403
#define CODE_NOT_ALLOWED		530
#define CODE_INTERNAL_ERROR		541
#define CLASS_QUEUE				50
#define CODE_REPLY_SUCCESS		200

/* More than enough for the fixed parts of connection.start-ok. */
#define START_OK_FIXED			512

/*
 * What these are, apart from the properties: the method, the table with that of
 * the capabilities, mechanism, response and locale.
 */
#define LOGIN_FIXED				(4 + 4 + 18 + 6 + 4 + 6)

/* RabbitMQ's default from 4.1 on; it was the least of the standard before */
#define LOGIN_LIMIT_4_1			8192

/*
 * Send the protocol header: the TCP connection stands, and the client speaks
 * first.
 */
void
rinq_handshake_begin(RinqConn *conn)
{
	static const char greeting[8] = {'A', 'M', 'Q', 'P', 0, 0, 9, 1};

	if (!rinq_out_reserve(conn, sizeof(greeting)))
	{
		rinq_conn_no_memory(conn);
		return;
	}
	memcpy(conn->out + conn->out_end, greeting, sizeof(greeting));
	conn->out_end += sizeof(greeting);
}

/* ---------------- connection.start ---------------- */

/* Keep the product and version out of the server's properties. */
static bool
read_server_properties(RinqConn *conn, RinqBytes table)
{
	RinqReader	r = rinq_reader(table.data, table.len);
	RinqTableEntry entry;
	RinqTableStep step;

	while ((step = rinq_table_next(&r, &entry)) == RINQ_TABLE_ENTRY)
	{
		if (entry.kind != 'S')
			continue;
		if (entry.key.len == 7 && memcmp(entry.key.data, "product", 7) == 0)
			rinq_conn_clean_text(conn, entry.value, conn->server_product,
								 sizeof(conn->server_product));
		else if (entry.key.len == 7 && memcmp(entry.key.data, "version", 7) == 0)
			rinq_conn_clean_text(conn, entry.value, conn->server_version,
								 sizeof(conn->server_version));
	}
	return step == RINQ_TABLE_END;
}

/* Tell whether a name is one of the words in a list separated by blanks. */
static bool
list_contains(RinqBytes list, const char *name)
{
	size_t		len = strlen(name);
	const char *pos = list.data;
	const char *end = list.data + list.len;

	while (pos < end)
	{
		const char *blank = memchr(pos, ' ', (size_t) (end - pos));
		const char *stop = blank != NULL ? blank : end;

		if ((size_t) (stop - pos) == len && memcmp(pos, name, len) == 0)
			return true;
		pos = stop + 1;
	}
	return false;
}

static amqp_table_entry_t
text_entry(const char *key, const char *value)
{
	amqp_table_entry_t entry;

	entry.key = rinq_to_amqp(rinq_bytes_str(key));
	entry.value.kind = AMQP_FIELD_KIND_UTF8;
	entry.value.value.bytes = rinq_to_amqp(rinq_bytes_str(value));
	return entry;
}

static amqp_table_entry_t
capability_entry(const char *key)
{
	amqp_table_entry_t entry;

	entry.key = rinq_to_amqp(rinq_bytes_str(key));
	entry.value.kind = AMQP_FIELD_KIND_BOOLEAN;
	entry.value.value.boolean = 1;
	return entry;
}

/* Return the name of the mechanism to log in by. */
static const char *
sasl_mechanism(const RinqConn *conn)
{
	return conn->sasl_external ? "EXTERNAL" : "PLAIN";
}

/*
 * What connection.start-ok says of this client, the dispensable first: RabbitMQ
 * goes by the last three, and by nothing else.
 */
typedef enum ClientProperty
{
	CLIENT_PRODUCT,
	CLIENT_VERSION,
	CLIENT_CONFIRMS,
	CLIENT_EXCHANGE_BINDINGS,
	CLIENT_NACK,
	CLIENT_AUTH_FAILURE,
	CLIENT_BLOCKED,
	CLIENT_CANCEL,
	NUM_CLIENT_PROPERTIES
} ClientProperty;

static const char *const property_keys[NUM_CLIENT_PROPERTIES] = {
	[CLIENT_PRODUCT] = "product",
	[CLIENT_VERSION] = "version",
	[CLIENT_CONFIRMS] = "publisher_confirms",
	[CLIENT_EXCHANGE_BINDINGS] = "exchange_exchange_bindings",
	[CLIENT_NACK] = "basic.nack",
	[CLIENT_AUTH_FAILURE] = "authentication_failure_close",
	[CLIENT_BLOCKED] = "connection.blocked",
	[CLIENT_CANCEL] = "consumer_cancel_notify"
};

/* as they have always stood in the table */
static const ClientProperty capability_order[] = {
	CLIENT_CONFIRMS, CLIENT_EXCHANGE_BINDINGS, CLIENT_NACK, CLIENT_CANCEL, CLIENT_BLOCKED, CLIENT_AUTH_FAILURE
};

#define NUM_CAPABILITIES ((int) (sizeof(capability_order) / sizeof(capability_order[0])))

/*
 * Return the size of the first frame's payload that brokers take before they have
 * agreed to more, by their default.
 */
static size_t
login_limit(const RinqConn *conn)
{
	unsigned	major;
	unsigned	minor;

	if (strcmp(conn->server_product, "RabbitMQ") == 0 &&
		sscanf(conn->server_version, "%u.%u", &major, &minor) == 2 &&
		(major > 4 || (major == 4 && minor >= 1)))
		return LOGIN_LIMIT_4_1;
	return RINQ_FRAME_MIN;
}

/* Return the bytes that a property takes in its table. */
static size_t
property_size(const RinqConn *conn, ClientProperty property)
{
	size_t		size = 1 + strlen(property_keys[property]) + 1;

	if (property == CLIENT_PRODUCT)
		return size + 4 + strlen(conn->product);
	if (property == CLIENT_VERSION)
		return size + 4 + strlen(conn->version);
	return size + 1;
}

/*
 * Choose the first property that is sent: all of them are, unless the password is
 * so long that some have to make room for it, and that is enough.
 */
static ClientProperty
first_property(RinqConn *conn, size_t response)
{
	size_t		size = LOGIN_FIXED + response;
	ClientProperty first = CLIENT_PRODUCT;

	for (int i = 0; i < NUM_CLIENT_PROPERTIES; i++)
		size += property_size(conn, (ClientProperty) i);
	conn->login_size = size;
	while (size > login_limit(conn) && first < CLIENT_CANCEL)
		size -= property_size(conn, first++);
	conn->login_oversize = size > login_limit(conn);
	if (conn->login_oversize)
		return CLIENT_PRODUCT;
	conn->login_size = size;
	return first;
}

/* Append connection.start-ok with the given response of the mechanism. */
static bool
put_start_ok(RinqConn *conn, RinqBytes response)
{
	ClientProperty first = first_property(conn, response.len);
	amqp_table_entry_t capabilities[NUM_CAPABILITIES];
	amqp_table_entry_t properties[3];
	amqp_table_t table = {0, capabilities};
	amqp_connection_start_ok_t m;

	m.client_properties.entries = properties;
	m.client_properties.num_entries = 3;
	m.mechanism = rinq_to_amqp(rinq_bytes_str(sasl_mechanism(conn)));
	m.client_properties.num_entries = 0;
	if (first <= CLIENT_PRODUCT)
		properties[m.client_properties.num_entries++] = text_entry("product", conn->product);
	if (first <= CLIENT_VERSION)
		properties[m.client_properties.num_entries++] = text_entry("version", conn->version);
	for (int i = 0; i < NUM_CAPABILITIES; i++)
	{
		if (first <= capability_order[i])
			capabilities[table.num_entries++] = capability_entry(property_keys[capability_order[i]]);
	}
	properties[m.client_properties.num_entries].key = rinq_to_amqp(rinq_bytes_str("capabilities"));
	properties[m.client_properties.num_entries].value.kind = AMQP_FIELD_KIND_TABLE;
	properties[m.client_properties.num_entries++].value.value.table = table;

	m.mechanism = rinq_to_amqp(rinq_bytes_str(sasl_mechanism(conn)));
	m.response = rinq_to_amqp(response);
	m.locale = rinq_to_amqp(rinq_bytes_str("en_US"));
	return rinq_out_method(conn, 0, AMQP_CONNECTION_START_OK_METHOD, &m,
						   START_OK_FIXED + strlen(conn->product) +
						   strlen(conn->version) + response.len);
}

/* Log in with user and password. */
static void
send_password(RinqConn *conn)
{
	size_t		userlen = strlen(conn->user);
	size_t		passlen = strlen(conn->password);
	size_t		len = userlen + passlen + 2;
	char	   *response = malloc(len);
	bool		ok = false;

	if (response != NULL)
	{
		response[0] = '\0';
		memcpy(response + 1, conn->user, userlen);
		response[1 + userlen] = '\0';
		memcpy(response + 2 + userlen, conn->password, passlen);
		ok = put_start_ok(conn, rinq_bytes(response, len));
		explicit_bzero(response, len);
		free(response);
	}
	if (!ok)
		rinq_conn_no_memory(conn);
}

/* Log in; by EXTERNAL, the certificate says who this is. */
static void
send_start_ok(RinqConn *conn)
{
	if (!conn->sasl_external)
		send_password(conn);
	else if (!put_start_ok(conn, rinq_bytes("", 0)))
		rinq_conn_no_memory(conn);
}

/*
 * Handle connection.start.  Its arguments are read by hand: the table of
 * server properties is the one table that comes from a broker in a method, and
 * before it has proved to be one.
 */
static void
handle_start(RinqConn *conn, RinqBytes args)
{
	RinqReader	r = rinq_reader(args.data, args.len);
	uint8_t		major;
	uint8_t		minor;
	RinqBytes	properties;
	RinqBytes	mechanisms;
	RinqBytes	locales;

	if (!rinq_read_u8(&r, &major) || !rinq_read_u8(&r, &minor) ||
		!rinq_read_longstr(&r, &properties) ||
		!rinq_read_longstr(&r, &mechanisms) ||
		!rinq_read_longstr(&r, &locales) ||
		!read_server_properties(conn, properties))
		rinq_conn_protocol_error(conn, "malformed arguments of connection.start");
	else if (major != 0 || minor != 9)
		rinq_conn_protocol_error(conn, "the server speaks AMQP version %u.%u instead of 0.9.1",
								 major, minor);
	else if (!list_contains(mechanisms, sasl_mechanism(conn)))
		rinq_conn_fail(conn, RINQ_CONN_ERR_AUTH,
					   conn->sasl_external ?
					   "%s does not offer login with a certificate (mechanism EXTERNAL, for RabbitMQ plugin rabbitmq_auth_mechanism_ssl)" :
					   "%s does not offer login with a password (mechanism PLAIN)",
					   conn->peer);
	else
	{
		conn->start_seen = true;
		send_start_ok(conn);
	}
}

/* ---------------- connection.tune ---------------- */

/* Return the lesser of two limits where 0 means none. */
static uint32_t
lesser_limit(uint32_t ours, uint32_t theirs)
{
	return theirs == 0 || theirs > ours ? ours : theirs;
}

static bool
put_tune_ok_and_open(RinqConn *conn)
{
	amqp_connection_tune_ok_t tune_ok;
	amqp_connection_open_t open;

	tune_ok.channel_max = conn->channel_max;
	tune_ok.frame_max = conn->frame_max;
	tune_ok.heartbeat = (uint16_t) conn->heartbeat;
	open.virtual_host = rinq_to_amqp(rinq_bytes_str(conn->vhost));
	open.capabilities = RINQ_NO_AMQP_BYTES;
	open.insist = 0;
	return rinq_out_method(conn, 0, AMQP_CONNECTION_TUNE_OK_METHOD, &tune_ok, 8) &&
		rinq_out_method(conn, 0, AMQP_CONNECTION_OPEN_METHOD, &open,
						1 + strlen(conn->vhost) + 2);
}

static void
handle_tune(RinqConn *conn, RinqBytes args)
{
	amqp_connection_tune_t *m = rinq_decode_method(conn, AMQP_CONNECTION_TUNE_METHOD, args);

	if (m == NULL)
		return;
	if (m->frame_max != 0 && m->frame_max < RINQ_FRAME_MIN)
	{
		rinq_conn_protocol_error(conn, "the server wants frames of at most %u bytes",
								 m->frame_max);
		return;
	}
	conn->tune_seen = true;
	conn->frame_max = lesser_limit(RINQ_FRAME_MAX, m->frame_max);
	conn->channel_max = (uint16_t) lesser_limit(RINQ_CONN_MAX_CHANNEL, m->channel_max);
	conn->heartbeat = conn->want_heartbeat < m->heartbeat ?
		conn->want_heartbeat : m->heartbeat;
	if (conn->heartbeat < 0)
		conn->heartbeat = 0;
	if (!put_tune_ok_and_open(conn))
		rinq_conn_no_memory(conn);
}

static void
open_ok(RinqConn *conn)
{
	conn->state = RINQ_CONN_OPEN;
	rinq_conn_forget_credentials(conn);
	if (conn->cb.on_open != NULL)
		conn->cb.on_open(conn->cb_arg);
}

/* ---------------- close and blocked ---------------- */

/* Ask for an orderly close; if even that fails, the deadline ends it. */
void
rinq_send_connection_close(RinqConn *conn)
{
	amqp_connection_close_t m;

	m.reply_code = CODE_REPLY_SUCCESS;
	m.reply_text = rinq_to_amqp(rinq_bytes_str("goodbye"));
	m.class_id = 0;
	m.method_id = 0;
	(void) rinq_out_method(conn, 0, AMQP_CONNECTION_CLOSE_METHOD, &m, 32);
}

/* Say what there is to know of a reason that a broker's own words do not explain. */
static const char *
explain_code(unsigned code)
{
	return code == CODE_INTERNAL_ERROR ? " (a node says so when it cannot reach the majority of its cluster)" : "";
}

static void
closed_by_broker(RinqConn *conn, RinqBytes args)
{
	amqp_connection_close_t *m = rinq_decode_method(conn, AMQP_CONNECTION_CLOSE_METHOD, args);
	amqp_connection_close_ok_t ok = {.dummy = 0};
	char		text[RINQ_TEXT_SIZE];
	unsigned	code;

	if (m == NULL)
		return;
	code = m->reply_code;
	rinq_conn_clean_text(conn, rinq_from_amqp(m->reply_text), text, sizeof(text));
	conn->declaring_closed = m->class_id == CLASS_QUEUE ||
		(m->class_id == 0 && code == CODE_INTERNAL_ERROR);

	/* a courtesy, for what the socket still takes */
	if (rinq_out_method(conn, 0, AMQP_CONNECTION_CLOSE_OK_METHOD, &ok, 1))
		rinq_out_send(conn);

	if (conn->state == RINQ_CONN_CLOSING)
		rinq_conn_end(conn);
	else if (conn->state == RINQ_CONN_HANDSHAKE &&
			 (code == CODE_ACCESS_REFUSED || code == CODE_NOT_ALLOWED))
		rinq_conn_fail(conn, RINQ_CONN_ERR_AUTH, "%s refused the login: %u %s",
					   conn->peer, code, text);
	else
		rinq_conn_fail(conn, RINQ_CONN_ERR_CLOSED_BY_BROKER,
					   "%s closed the connection: %u %s%s", conn->peer, code, text,
					   explain_code(code));
}

static void
handle_blocked(RinqConn *conn, RinqBytes args)
{
	amqp_connection_blocked_t *m = rinq_decode_method(conn, AMQP_CONNECTION_BLOCKED_METHOD, args);
	char		reason[RINQ_TEXT_SIZE];

	if (m == NULL)
		return;
	rinq_conn_clean_text(conn, rinq_from_amqp(m->reason), reason, sizeof(reason));
	conn->blocked = true;
	if (conn->cb.on_blocked != NULL)
		conn->cb.on_blocked(conn->cb_arg, true, reason);
}

static void
handle_unblocked(RinqConn *conn)
{
	conn->blocked = false;
	if (conn->cb.on_blocked != NULL)
		conn->cb.on_blocked(conn->cb_arg, false, "");
}

/* ---------------- dispatch ---------------- */

static bool
login_method(RinqConn *conn, amqp_method_number_t id, RinqBytes args)
{
	if (id == AMQP_CONNECTION_START_METHOD && !conn->start_seen)
		handle_start(conn, args);
	else if (id == AMQP_CONNECTION_TUNE_METHOD && conn->start_seen && !conn->tune_seen)
		handle_tune(conn, args);
	else if (id == AMQP_CONNECTION_OPEN_OK_METHOD && conn->tune_seen)
		open_ok(conn);
	else
		return false;
	return true;
}

static bool
open_method(RinqConn *conn, amqp_method_number_t id, RinqBytes args)
{
	if (id == AMQP_CONNECTION_BLOCKED_METHOD)
		handle_blocked(conn, args);
	else if (id == AMQP_CONNECTION_UNBLOCKED_METHOD)
		handle_unblocked(conn);
	else
		return false;
	return true;
}

/* Handle a method on channel 0. */
void
rinq_connection_method(RinqConn *conn, amqp_method_number_t id, RinqBytes args)
{
	bool		known = false;

	if (id == AMQP_CONNECTION_CLOSE_METHOD)
	{
		closed_by_broker(conn, args);
		return;
	}
	if (conn->state == RINQ_CONN_CLOSING)
	{
		/* nothing but the reply matters any more */
		if (id == AMQP_CONNECTION_CLOSE_OK_METHOD)
			rinq_conn_end(conn);
		return;
	}
	if (conn->state == RINQ_CONN_HANDSHAKE)
		known = login_method(conn, id, args);
	else if (conn->state == RINQ_CONN_OPEN)
		known = open_method(conn, id, args);
	if (!known)
		rinq_conn_protocol_error(conn, "unexpected method %u.%u on channel 0",
								 (unsigned) (id >> 16), (unsigned) (id & 0xffff));
}
