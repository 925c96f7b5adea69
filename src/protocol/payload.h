/*-------------------------------------------------------------------------
 *
 * protocol/payload.h
 *	  Payloads of messages as SQL sees them: jsonb, or CBOR untouched, with NULL for nil.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_PAYLOAD_H
#define RINQ_PAYLOAD_H

#include "postgres.h"

#include "base/bytes.h"
#include "utils/jsonb.h"

extern RinqBytes rinq_payload_from_jsonb(const Jsonb *json);
extern Jsonb *rinq_payload_to_jsonb(RinqBytes body);

/* convert payloads that SQL sees as the bytes they are */
extern RinqBytes rinq_payload_from_raw(bytea *raw);
extern bytea *rinq_payload_to_raw(RinqBytes body);

extern void rinq_check_payload_size(size_t len);

/* bytes in memory of one's own */
extern RinqBytes rinq_bytes_copy(RinqBytes bytes);
extern RinqBytes rinq_bytea_bytes(bytea *value);
extern bytea *rinq_bytes_to_bytea(RinqBytes bytes);

/* text off the wire, which is UTF-8, as text of this database */
extern char *rinq_text_from_wire(RinqBytes text);
extern Datum rinq_text_datum(RinqBytes text);
extern char *rinq_message_from_wire(RinqBytes text);
extern RinqBytes rinq_text_to_wire(const char *text);

/* text of any origin, made fit for logs and process lists */
#define RINQ_DISPLAY_LEN 128
extern const char *rinq_text_for_display(RinqBytes text, char buf[RINQ_DISPLAY_LEN]);

#endif							/* RINQ_PAYLOAD_H */
