/*-------------------------------------------------------------------------
 *
 * protocol/attribute.h
 *	  Attributes of sessions: lists of them on their way between processes,
 *	  and the table of a session that belongs to this peer.
 *
 * Texts are in UTF-8, as on the wire.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_ATTRIBUTE_H
#define RINQ_ATTRIBUTE_H

#include "postgres.h"

#include "base/bytes.h"
#include "lib/stringinfo.h"

/* attributes of one session, whatever their namespaces, and those of one operation */
#define RINQ_MAX_ATTRIBUTES 10000

typedef struct RinqAttribute
{
	RinqBytes	key;
	RinqBytes	value;			/* empty: as good as missing */
	bool		frozen;
	uint32		created;		/* at these revisions; 0 is never */
	uint32		updated;
	uint32		fetched;		/* of sessions of other peers: true at this
								 * revision */
} RinqAttribute;

extern void rinq_attributes_pack(StringInfo buf, const RinqAttribute *attributes, int count);
extern bool rinq_attributes_unpack(RinqBytes packed, RinqAttribute **attributes, int *count);

/* a table of attributes by namespace and key; NULL is an empty one */
typedef struct RinqAttributeEntry
{
	uint32		created;
	uint32		updated;
	uint32		fetched;
	uint32		key_len;
	uint32		value_len;
	uint16		namespace_len;
	bool		frozen;
	char		data[FLEXIBLE_ARRAY_MEMBER];	/* namespace, key, value */
} RinqAttributeEntry;

typedef struct RinqAttributeTable RinqAttributeTable;

typedef struct RinqAttributeScan
{
	RinqAttributeTable *table;
	uint32		position;
} RinqAttributeScan;

extern bool rinq_attribute_find(RinqAttributeTable *table, RinqBytes namespace, RinqBytes key,
								RinqAttribute *attribute);
typedef enum RinqUpdate
{
	RINQ_UPDATE_DONE,
	RINQ_UPDATE_FROZEN,			/* one would change that is frozen */
	RINQ_UPDATE_TOO_MANY		/* the session would have more than
								 * RINQ_MAX_ATTRIBUTES */
} RinqUpdate;

extern RinqUpdate rinq_attributes_update(RinqAttributeTable **table, MemoryContext context,
										 RinqBytes namespace, RinqAttribute *attributes,
										 int count, uint32 revision, RinqBytes *frozen_key);
extern bool rinq_attributes_clear(RinqAttributeTable *table, MemoryContext context,
								  RinqBytes namespace, uint32 revision, RinqBytes *frozen_key);
extern void rinq_attribute_put(RinqAttributeTable **table, MemoryContext context,
							   RinqBytes namespace, const RinqAttribute *attribute);
extern void rinq_attribute_remove(RinqAttributeTable *table, RinqBytes namespace, RinqBytes key);
extern void rinq_attributes_remove_namespace(RinqAttributeTable *table, RinqBytes namespace);
extern void rinq_attributes_refetched(RinqAttributeTable *table, uint32 from, uint32 to);
extern bool rinq_attributes_frozen(RinqAttributeTable *table, RinqBytes namespace,
								   RinqBytes *key);
extern Size rinq_attribute_size(RinqBytes namespace, const RinqAttribute *attribute);
extern Size rinq_attributes_size(const RinqAttributeTable *table);
extern int	rinq_attributes_count(const RinqAttributeTable *table);
extern void rinq_attributes_free(RinqAttributeTable *table);
extern void rinq_attribute_scan_begin(RinqAttributeScan *scan, RinqAttributeTable *table);
extern const RinqAttributeEntry *rinq_attribute_scan_next(RinqAttributeScan *scan);

static inline RinqBytes
rinq_entry_namespace(const RinqAttributeEntry *entry)
{
	return rinq_bytes(entry->data, entry->namespace_len);
}

static inline RinqBytes
rinq_entry_key(const RinqAttributeEntry *entry)
{
	return rinq_bytes(entry->data + entry->namespace_len, entry->key_len);
}

static inline RinqBytes
rinq_entry_value(const RinqAttributeEntry *entry)
{
	return rinq_bytes(entry->data + entry->namespace_len + entry->key_len, entry->value_len);
}

#endif							/* RINQ_ATTRIBUTE_H */
