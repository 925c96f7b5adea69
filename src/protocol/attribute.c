/*-------------------------------------------------------------------------
 *
 * protocol/attribute.c
 *	  Attributes of sessions: lists of them on their way between processes,
 *	  and the table of a session that belongs to this peer.
 *
 * Here are the rules by which attributes change (section 5 of the protocol).
 * Which revision a change is made at, and whether it is the current one, is
 * known to the session (peer/session/sessions.c).
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "protocol/attribute.h"
#include "protocol/packed.h"
#include "utils/memutils.h"

typedef struct TableEntry
{
	RinqAttributeEntry *entry;	/* the key, too */
	uint32		hash;
	char		status;
} TableEntry;

static inline uint32
hash_entry(const RinqAttributeEntry *entry)
{
	RinqBytes	namespace = rinq_entry_namespace(entry);
	RinqBytes	key = rinq_entry_key(entry);

	return hash_combine(hash_bytes((const unsigned char *) namespace.data, (int) namespace.len),
						hash_bytes((const unsigned char *) key.data, (int) key.len));
}

static inline bool
same_attribute(const RinqAttributeEntry *a, const RinqAttributeEntry *b)
{
	return rinq_bytes_equal(rinq_entry_key(a), rinq_entry_key(b)) &&
		rinq_bytes_equal(rinq_entry_namespace(a), rinq_entry_namespace(b));
}

#define SH_PREFIX entries
#define SH_ELEMENT_TYPE TableEntry
#define SH_KEY_TYPE RinqAttributeEntry *
#define SH_KEY entry
#define SH_HASH_KEY(tb, key) hash_entry(key)
#define SH_EQUAL(tb, a, b) same_attribute((a), (b))
#define SH_STORE_HASH
#define SH_GET_HASH(tb, a) (a)->hash
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

#define FIRST_SIZE 4			/* attributes that a new table has room for */

/* namespace and key that are looked up without allocating memory */
#define PROBE_TEXTS 256

/* what a place in the hash table takes, a few of them being empty */
#define PLACE_BYTES 32

struct RinqAttributeTable
{
	entries_hash *hash;
	Size		size;			/* bytes that its entries take, about */
};

/*
 * Append a list of attributes, for another process.
 */
void
rinq_attributes_pack(StringInfo buf, const RinqAttribute *attributes, int count)
{
	int			i;

	for (i = 0; i < count; i++)
	{
		RinqFields	fields;

		rinq_fields_init(&fields, RINQ_KIND_ATTRIBUTE);
		rinq_put_bytes(&fields, RINQ_ATTRIBUTE_KEY, attributes[i].key);
		rinq_put_bytes(&fields, RINQ_ATTRIBUTE_VALUE, attributes[i].value);
		rinq_put_flag(&fields, RINQ_ATTRIBUTE_FROZEN, attributes[i].frozen);
		rinq_put_uint32(&fields, RINQ_ATTRIBUTE_CREATED, attributes[i].created);
		rinq_put_uint32(&fields, RINQ_ATTRIBUTE_UPDATED, attributes[i].updated);
		rinq_fields_append(buf, &fields);
	}
}

/* Return a text of an attribute, which is empty rather than absent. */
static RinqBytes
get_attribute_text(const RinqFields *fields, int field)
{
	RinqBytes	text = rinq_get_bytes(fields, field);

	return text.data == NULL ? rinq_bytes("", 0) : text;
}

static bool
unpack_attribute(RinqBytes *packed, RinqAttribute *attribute)
{
	RinqFields	fields;

	if (!rinq_fields_read(&fields, RINQ_KIND_ATTRIBUTE, packed))
		return false;
	attribute->key = get_attribute_text(&fields, RINQ_ATTRIBUTE_KEY);
	attribute->value = get_attribute_text(&fields, RINQ_ATTRIBUTE_VALUE);
	attribute->frozen = rinq_get_flag(&fields, RINQ_ATTRIBUTE_FROZEN);
	attribute->created = rinq_get_uint32(&fields, RINQ_ATTRIBUTE_CREATED);
	attribute->updated = rinq_get_uint32(&fields, RINQ_ATTRIBUTE_UPDATED);
	attribute->fetched = 0;
	return true;
}

/*
 * Read such a list; the texts point into it.  False, with none read, when it is
 * none.
 */
bool
rinq_attributes_unpack(RinqBytes packed, RinqAttribute **attributes, int *count)
{
	int			size = 16;

	*count = 0;
	*attributes = palloc(size * sizeof(RinqAttribute));
	while (packed.len > 0)
	{
		if (*count == size)
		{
			size *= 2;
			*attributes = repalloc_huge(*attributes, size * sizeof(RinqAttribute));
		}
		if (!unpack_attribute(&packed, &(*attributes)[*count]))
		{
			*count = 0;
			return false;
		}
		(*count)++;
	}
	return true;
}

/* fill in an entry, which has room for the texts */
static void
init_entry(RinqAttributeEntry *entry, RinqBytes namespace, RinqBytes key, RinqBytes value)
{
	char	   *p = entry->data;

	Assert(namespace.len <= PG_UINT16_MAX && key.len <= PG_UINT32_MAX && value.len <= PG_UINT32_MAX);
	entry->namespace_len = (uint16) namespace.len;
	entry->key_len = (uint32) key.len;
	entry->value_len = (uint32) value.len;
	entry->frozen = false;
	entry->created = 0;
	entry->updated = 0;
	entry->fetched = 0;
	if (namespace.len > 0)
		memcpy(p, namespace.data, namespace.len);
	p += namespace.len;
	if (key.len > 0)
		memcpy(p, key.data, key.len);
	p += key.len;
	if (value.len > 0)
		memcpy(p, value.data, value.len);
}

static RinqAttributeEntry *
make_entry(MemoryContext context, RinqBytes namespace, RinqBytes key, RinqBytes value)
{
	RinqAttributeEntry *entry = MemoryContextAllocHuge(context,
													   offsetof(RinqAttributeEntry, data) +
													   namespace.len + key.len + value.len);

	init_entry(entry, namespace, key, value);
	return entry;
}

static Size
size_of(Size texts)
{
	return PLACE_BYTES + offsetof(RinqAttributeEntry, data) + texts;
}

static Size
entry_size(const RinqAttributeEntry *entry)
{
	return size_of((Size) entry->namespace_len + entry->key_len + entry->value_len);
}

/*
 * Return what an attribute takes in a table, in bytes, about.
 */
Size
rinq_attribute_size(RinqBytes namespace, const RinqAttribute *attribute)
{
	return size_of(namespace.len + attribute->key.len + attribute->value.len);
}

/*
 * Return what all attributes of a table take.
 */
Size
rinq_attributes_size(const RinqAttributeTable *table)
{
	return table == NULL ? 0 : table->size;
}

/*
 * Count the attributes of a table, with those that have been emptied.
 */
int
rinq_attributes_count(const RinqAttributeTable *table)
{
	return table == NULL ? 0 : (int) table->hash->members;
}

static TableEntry *
lookup_attribute(RinqAttributeTable *table, RinqBytes namespace, RinqBytes key)
{
	union
	{
		RinqAttributeEntry entry;
		char		room[offsetof(RinqAttributeEntry, data) + PROBE_TEXTS];
	}			small;
	RinqBytes	none = rinq_bytes(NULL, 0);
	RinqAttributeEntry *probe;
	TableEntry *found;

	if (table == NULL || namespace.len > PG_UINT16_MAX)
		return NULL;
	if (namespace.len + key.len <= PROBE_TEXTS)
	{
		init_entry(&small.entry, namespace, key, none);
		return entries_lookup(table->hash, &small.entry);
	}
	probe = make_entry(CurrentMemoryContext, namespace, key, none);
	found = entries_lookup(table->hash, probe);
	pfree(probe);
	return found;
}

/*
 * Find the attribute of this key; false when there has never been one, and
 * then only its key is set.  Its texts point into the table.
 */
bool
rinq_attribute_find(RinqAttributeTable *table, RinqBytes namespace, RinqBytes key,
					RinqAttribute *attribute)
{
	TableEntry *found = lookup_attribute(table, namespace, key);

	memset(attribute, 0, sizeof(*attribute));
	attribute->key = key;
	if (found == NULL)
		return false;
	attribute->value = rinq_entry_value(found->entry);
	attribute->frozen = found->entry->frozen;
	attribute->created = found->entry->created;
	attribute->updated = found->entry->updated;
	attribute->fetched = found->entry->fetched;
	return true;
}

static void
make_attribute_table(RinqAttributeTable **table, MemoryContext context)
{
	if (*table != NULL)
		return;
	*table = MemoryContextAlloc(context, sizeof(RinqAttributeTable));
	(*table)->hash = entries_create(context, FIRST_SIZE, NULL);
	(*table)->size = 0;
}

/* what has to be put back when a later change is refused */
typedef struct Undo
{
	RinqAttributeEntry *current;
	RinqAttributeEntry *previous;	/* NULL: there was none */
} Undo;

static void
roll_back(RinqAttributeTable *table, Undo *undo, int count)
{
	while (count-- > 0)
	{
		if (undo[count].previous == NULL)
			entries_delete(table->hash, undo[count].current);
		else
			entries_lookup(table->hash, undo[count].current)->entry = undo[count].previous;
		pfree(undo[count].current);
	}
}

/*
 * Set attributes, at a revision.  On return, each has the revisions that it
 * was created and updated at.  When it is refused, nothing changes; *frozen_key
 * is the key of one that is frozen, if that is why.
 */
RinqUpdate
rinq_attributes_update(RinqAttributeTable **table, MemoryContext context, RinqBytes namespace,
					   RinqAttribute *attributes, int count, uint32 revision,
					   RinqBytes *frozen_key)
{
	RinqUpdate	refused = RINQ_UPDATE_DONE;
	Undo	   *undo = palloc_extended(Max(count, 1) * sizeof(Undo), MCXT_ALLOC_HUGE);
	int			done = 0;
	int			i;

	for (i = 0; i < count; i++)
	{
		RinqAttribute *a = &attributes[i];
		TableEntry *found = lookup_attribute(*table, namespace, a->key);
		RinqAttributeEntry *old = found == NULL ? NULL : found->entry;
		RinqAttributeEntry *entry;
		bool		existed;

		if (old == NULL ? a->value.len == 0 && !a->frozen :
			old->frozen == a->frozen && rinq_bytes_equal(rinq_entry_value(old), a->value))
			continue;			/* the attribute is what it should be */
		if (old != NULL && old->frozen)
		{
			*frozen_key = a->key;
			refused = RINQ_UPDATE_FROZEN;
		}
		else if (old == NULL && rinq_attributes_count(*table) >= RINQ_MAX_ATTRIBUTES)
			refused = RINQ_UPDATE_TOO_MANY;
		if (refused != RINQ_UPDATE_DONE)
		{
			if (*table != NULL)
				roll_back(*table, undo, done);
			pfree(undo);
			return refused;
		}
		entry = make_entry(context, namespace, a->key, a->value);
		entry->frozen = a->frozen;
		entry->created = old == NULL ? revision : old->created;
		entry->updated = revision;
		make_attribute_table(table, context);
		if (old == NULL)
			found = entries_insert((*table)->hash, entry, &existed);
		found->entry = entry;
		undo[done].current = entry;
		undo[done++].previous = old;
	}
	for (i = 0; i < done; i++)
	{
		(*table)->size += entry_size(undo[i].current);
		if (undo[i].previous == NULL)
			continue;
		(*table)->size -= entry_size(undo[i].previous);
		pfree(undo[i].previous);
	}
	pfree(undo);
	for (i = 0; i < count; i++)
	{
		RinqAttribute now;

		(void) rinq_attribute_find(*table, namespace, attributes[i].key, &now);
		attributes[i].created = now.created;
		attributes[i].updated = now.updated;
	}
	return RINQ_UPDATE_DONE;
}

/*
 * Tell whether an attribute of a namespace is frozen, and has a value.  Then
 * *key is its key.
 */
bool
rinq_attributes_frozen(RinqAttributeTable *table, RinqBytes namespace, RinqBytes *key)
{
	RinqAttributeScan scan;
	const RinqAttributeEntry *entry;

	rinq_attribute_scan_begin(&scan, table);
	while ((entry = rinq_attribute_scan_next(&scan)) != NULL)
	{
		if (entry->frozen && entry->value_len > 0 &&
			rinq_bytes_equal(rinq_entry_namespace(entry), namespace))
		{
			*key = rinq_entry_key(entry);
			return true;
		}
	}
	return false;
}

/*
 * Empty all attributes of a namespace, at a revision.  False, with nothing
 * changed, when one of them is frozen and has a value.
 */
bool
rinq_attributes_clear(RinqAttributeTable *table, MemoryContext context, RinqBytes namespace,
					  uint32 revision, RinqBytes *frozen_key)
{
	entries_iterator iter;
	TableEntry *found;

	if (rinq_attributes_frozen(table, namespace, frozen_key))
		return false;
	if (table == NULL)
		return true;
	entries_start_iterate(table->hash, &iter);
	while ((found = entries_iterate(table->hash, &iter)) != NULL)
	{
		RinqAttributeEntry *old = found->entry;

		if (old->value_len == 0 || !rinq_bytes_equal(rinq_entry_namespace(old), namespace))
			continue;
		found->entry = make_entry(context, namespace, rinq_entry_key(old), rinq_bytes(NULL, 0));
		found->entry->created = old->created;
		found->entry->updated = revision;
		table->size -= old->value_len;
		pfree(old);
	}
	return true;
}

/*
 * Put an attribute into a table as it is, in place of what was there.
 */
void
rinq_attribute_put(RinqAttributeTable **table, MemoryContext context, RinqBytes namespace,
				   const RinqAttribute *attribute)
{
	RinqAttributeEntry *entry = make_entry(context, namespace, attribute->key, attribute->value);
	TableEntry *existing;
	bool		existed;

	entry->frozen = attribute->frozen;
	entry->created = attribute->created;
	entry->updated = attribute->updated;
	entry->fetched = attribute->fetched;
	make_attribute_table(table, context);
	existing = entries_insert((*table)->hash, entry, &existed);
	if (existed)
	{
		(*table)->size -= entry_size(existing->entry);
		pfree(existing->entry);
		existing->entry = entry;
	}
	(*table)->size += entry_size(entry);
}

void
rinq_attribute_remove(RinqAttributeTable *table, RinqBytes namespace, RinqBytes key)
{
	TableEntry *found = lookup_attribute(table, namespace, key);
	RinqAttributeEntry *entry;

	if (found == NULL)
		return;
	entry = found->entry;
	table->size -= entry_size(entry);
	entries_delete(table->hash, entry);
	pfree(entry);
}

void
rinq_attributes_remove_namespace(RinqAttributeTable *table, RinqBytes namespace)
{
	entries_iterator iter;
	TableEntry *found;

	if (table == NULL)
		return;
	entries_start_iterate(table->hash, &iter);
	while ((found = entries_iterate(table->hash, &iter)) != NULL)
	{
		RinqAttributeEntry *entry = found->entry;

		if (!rinq_bytes_equal(rinq_entry_namespace(entry), namespace))
			continue;
		table->size -= entry_size(entry);
		entries_delete_item(table->hash, found);
		pfree(entry);
	}
}

/*
 * Have values that were last known to be true at one revision count as true at
 * another.
 */
void
rinq_attributes_refetched(RinqAttributeTable *table, uint32 from, uint32 to)
{
	entries_iterator iter;
	TableEntry *found;

	if (table == NULL)
		return;
	entries_start_iterate(table->hash, &iter);
	while ((found = entries_iterate(table->hash, &iter)) != NULL)
	{
		if (found->entry->fetched == from)
			found->entry->fetched = to;
	}
}

void
rinq_attributes_free(RinqAttributeTable *table)
{
	entries_iterator iter;
	TableEntry *found;

	if (table == NULL)
		return;
	entries_start_iterate(table->hash, &iter);
	while ((found = entries_iterate(table->hash, &iter)) != NULL)
		pfree(found->entry);
	entries_destroy(table->hash);
	pfree(table);
}

/*
 * Walk over a table, which must not change meanwhile.
 */
void
rinq_attribute_scan_begin(RinqAttributeScan *scan, RinqAttributeTable *table)
{
	scan->table = table;
	scan->position = 0;
}

const RinqAttributeEntry *
rinq_attribute_scan_next(RinqAttributeScan *scan)
{
	if (scan->table == NULL)
		return NULL;
	while (scan->position < scan->table->hash->size)
	{
		TableEntry *entry = &scan->table->hash->data[scan->position++];

		if (entry->status == entries_SH_IN_USE)
			return entry->entry;
	}
	return NULL;
}
