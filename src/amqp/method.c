/*-------------------------------------------------------------------------
 *
 * method.c
 *	  The names of methods, and decoding their arguments.
 *
 *-------------------------------------------------------------------------
 */
#include "amqp/connection_internal.h"

/* The methods a broker may name as the cause of an error. */
static const struct
{
	amqp_method_number_t id;
	const char *name;
}			method_names[] =

{
	{AMQP_CONNECTION_START_METHOD, "connection.start"},
	{AMQP_CONNECTION_START_OK_METHOD, "connection.start-ok"},
	{AMQP_CONNECTION_SECURE_METHOD, "connection.secure"},
	{AMQP_CONNECTION_TUNE_METHOD, "connection.tune"},
	{AMQP_CONNECTION_TUNE_OK_METHOD, "connection.tune-ok"},
	{AMQP_CONNECTION_OPEN_METHOD, "connection.open"},
	{AMQP_CONNECTION_OPEN_OK_METHOD, "connection.open-ok"},
	{AMQP_CONNECTION_CLOSE_METHOD, "connection.close"},
	{AMQP_CONNECTION_CLOSE_OK_METHOD, "connection.close-ok"},
	{AMQP_CHANNEL_OPEN_METHOD, "channel.open"},
	{AMQP_CHANNEL_OPEN_OK_METHOD, "channel.open-ok"},
	{AMQP_CHANNEL_CLOSE_METHOD, "channel.close"},
	{AMQP_CHANNEL_CLOSE_OK_METHOD, "channel.close-ok"},
	{AMQP_EXCHANGE_DECLARE_METHOD, "exchange.declare"},
	{AMQP_QUEUE_DECLARE_METHOD, "queue.declare"},
	{AMQP_QUEUE_BIND_METHOD, "queue.bind"},
	{AMQP_QUEUE_UNBIND_METHOD, "queue.unbind"},
	{AMQP_QUEUE_DELETE_METHOD, "queue.delete"},
	{AMQP_BASIC_QOS_METHOD, "basic.qos"},
	{AMQP_BASIC_CONSUME_METHOD, "basic.consume"},
	{AMQP_BASIC_CANCEL_METHOD, "basic.cancel"},
	{AMQP_BASIC_PUBLISH_METHOD, "basic.publish"},
	{AMQP_BASIC_ACK_METHOD, "basic.ack"},
	{AMQP_BASIC_REJECT_METHOD, "basic.reject"},
	{AMQP_BASIC_NACK_METHOD, "basic.nack"},
	{AMQP_CONFIRM_SELECT_METHOD, "confirm.select"},
};

const char *
rinq_method_name(amqp_method_number_t id)
{
	for (size_t i = 0; i < sizeof(method_names) / sizeof(method_names[0]); i++)
	{
		if (method_names[i].id == id)
			return method_names[i].name;
	}
	return "unknown";
}

/*
 * Decodes the arguments of a method.  The result lives until the next call.
 * NULL, and the connection closed, if they are malformed.
 *
 * Must not be used for connection.start, the one method from a broker that
 * carries a table (see table.h).
 */
void *
rinq_decode_method(RinqConn *conn, amqp_method_number_t id, RinqBytes args)
{
	void	   *decoded = NULL;
	int			rc;

	recycle_amqp_pool(&conn->pool);
	rc = amqp_decode_method(id, &conn->pool, rinq_to_amqp(args), &decoded);
	if (rc == AMQP_STATUS_OK && decoded != NULL)
		return decoded;
	if (rc == AMQP_STATUS_NO_MEMORY)
		rinq_conn_no_memory(conn);
	else
		rinq_conn_protocol_error(conn, "malformed arguments of %s",
								 rinq_method_name(id));
	return NULL;
}
