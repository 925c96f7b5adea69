/*-------------------------------------------------------------------------
 *
 * ident_test.c
 *	  Identifiers and namespaces: text forms, strictness, limits.
 *
 *-------------------------------------------------------------------------
 */
#include "base/ident.h"
#include "check.h"

static bool
message_ok(const char *text)
{
	RinqMessageId id;

	return rinq_message_id_parse(text, strlen(text), &id);
}

/* Parses, formats, and compares with the canonical form. */
static void
round_trip(const char *text, const char *canonical)
{
	RinqMessageId id;
	char		buf[RINQ_MESSAGE_ID_SIZE];

	if (!CHECK(rinq_message_id_parse(text, strlen(text), &id)))
		return;
	CHECK_INT(rinq_message_id_format(&id, buf, sizeof(buf)), strlen(canonical));
	CHECK_STR(buf, canonical);
}

static void
test_forms(void)
{
	RinqMessageId id;
	RinqPeerId	peer;
	RinqSessionId session;
	RinqRef		ref;
	char		buf[64];

	CHECK(rinq_message_id_parse("58AEE146-191C.45@3#7", 20, &id));
	CHECK_INT(id.ref.session.peer.clock, 0x58AEE146);
	CHECK_INT(id.ref.session.peer.rand, 0x191C);
	CHECK_INT(id.ref.session.seq, 45);
	CHECK_INT(id.ref.revision, 3);
	CHECK_INT(id.seq, 7);

	CHECK_INT(rinq_peer_short_format(&id.ref.session.peer, buf, sizeof(buf)), 4);
	CHECK_STR(buf, "191C");
	rinq_peer_id_format(&id.ref.session.peer, buf, sizeof(buf));
	CHECK_STR(buf, "58AEE146-191C");
	rinq_session_id_format(&id.ref.session, buf, sizeof(buf));
	CHECK_STR(buf, "58AEE146-191C.45");
	rinq_ref_format(&id.ref, buf, sizeof(buf));
	CHECK_STR(buf, "58AEE146-191C.45@3");

	CHECK(rinq_peer_id_parse("58AEE146-191C", 13, &peer));
	CHECK(rinq_peer_id_equal(&peer, &id.ref.session.peer));
	CHECK(rinq_session_id_parse("58AEE146-191C.45", 16, &session));
	CHECK(rinq_session_id_equal(&session, &id.ref.session));
	CHECK(rinq_ref_parse("58AEE146-191C.45@3", 18, &ref));
	CHECK(rinq_ref_equal(&ref, &id.ref));
	ref.revision++;
	CHECK(!rinq_ref_equal(&ref, &id.ref));
	session.seq++;
	CHECK(!rinq_session_id_equal(&session, &id.ref.session));
	peer.rand++;
	CHECK(!rinq_peer_id_equal(&peer, &id.ref.session.peer));

	/* the zero-session is a session */
	CHECK(rinq_session_id_parse("1-1.0", 5, &session));
	CHECK_INT(session.seq, 0);

	/* small numbers are padded in the second part only */
	round_trip("1-1.0@0#1", "1-0001.0@0#1");
	round_trip("58aee146-191c.45@3#1", "58AEE146-191C.45@3#1");
	round_trip("FFFFFFFFFFFFFFFF-FFFF.4294967295@4294967295#4294967295",
			   "FFFFFFFFFFFFFFFF-FFFF.4294967295@4294967295#4294967295");
	CHECK_INT(strlen("FFFFFFFFFFFFFFFF-FFFF.4294967295@4294967295#4294967295"),
			  RINQ_MESSAGE_ID_MAXLEN);
	CHECK_INT(strlen("FFFFFFFFFFFFFFFF-FFFF.4294967295@4294967295"), RINQ_REF_MAXLEN);
	CHECK_INT(strlen("FFFFFFFFFFFFFFFF-FFFF.4294967295"), RINQ_SESSION_ID_MAXLEN);
	CHECK_INT(strlen("FFFFFFFFFFFFFFFF-FFFF"), RINQ_PEER_ID_MAXLEN);
}

static void
test_refused(void)
{
	static const char *const bad[] = {
		"", "-", "<malformed>", "0-1.1@0#1", "1-0.1@0#1", "1-1.1@0#0",
		"x-1.1@0#1", "1-x.1@0#1", "1-1.x@0#1", "1-1.1@x#1", "1-1.1@0#x",
		"1-1.1@0#1 ", " 1-1.1@0#1", "1-1.1@0#1#1", "1-1.1@0", "1-1.1", "1-1",
		"+1-1.1@0#1", "1-+1.1@0#1", "1-1.-1@0#1", "1-1.1@-0#1", "0x1-1.1@0#1",
		"1-1.4294967296@0#1", "1-1.1@4294967296#1", "1-1.1@0#4294967296",
		"1-1.1@0#00000000001", "1-10000.1@0#1", "1-00001.1@0#1",
		"10000000000000000-1.1@0#1", "00000000000000001-1.1@0#1",
		"-1.1@0#1", "1-.1@0#1", "1-1.@0#1", "1-1.1@#1", "1-1.1@0#",
		"1-1.1@0#1\n", "1--1.1@0#1", "1-1..1@0#1",
	};
	RinqMessageId id;
	RinqPeerId	peer = {1, 2};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
	{
		if (message_ok(bad[i]))
			printf("accepted: \"%s\"\n", bad[i]);
		CHECK(!message_ok(bad[i]));
	}
	CHECK(!rinq_message_id_parse(NULL, 0, &id));
	CHECK(!rinq_message_id_parse("1-1.1@0#1\0", 10, &id));
	CHECK(rinq_message_id_parse("1-1.1@0#123", 9, &id));	/* the length counts */
	CHECK_INT(id.seq, 1);
	CHECK(!rinq_peer_id_parse("1-1.1", 5, &peer));
	CHECK_INT(peer.rand, 2);	/* untouched */
	CHECK(!rinq_peer_id_parse("1-0", 3, &peer));
}

static void
test_namespaces(void)
{
	char		name[RINQ_NAMESPACE_MAXLEN + 2];
	int			accepted = 0;

	CHECK(rinq_namespace_valid("my-api", 6));
	CHECK(rinq_namespace_valid("A.z:0_9-", 8));
	CHECK(rinq_namespace_valid("_sess", 5));
	CHECK(!rinq_namespace_valid("", 0));
	CHECK(!rinq_namespace_valid(NULL, 0));
	CHECK(!rinq_namespace_valid("a b", 3));
	CHECK(!rinq_namespace_valid("a\n", 2));
	CHECK(!rinq_namespace_valid("a\0b", 3));
	CHECK(!rinq_namespace_valid("\xc3\xa4", 2));
	CHECK(rinq_namespace_reserved("_sess", 5));
	CHECK(!rinq_namespace_reserved("sess_", 5));
	CHECK(!rinq_namespace_reserved("", 0));

	for (int c = 0; c < 256; c++)
	{
		name[0] = (char) c;
		accepted += rinq_namespace_valid(name, 1);
	}
	CHECK_INT(accepted, 26 + 26 + 10 + 4);

	memset(name, 'n', sizeof(name));
	CHECK(rinq_namespace_valid(name, RINQ_NAMESPACE_MAXLEN));
	CHECK(!rinq_namespace_valid(name, RINQ_NAMESPACE_MAXLEN + 1));
}

/* Numbers end before they would carry into the revision, and that is said in time. */
static void
test_positions(void)
{
	uint32_t	revisions[] = {0, 1, 7, 0xFFFFFFFE, 0xFFFFFFFF};

	for (size_t i = 0; i < sizeof(revisions) / sizeof(revisions[0]); i++)
	{
		uint64_t	position = RINQ_POSITION(revisions[i], 1);
		uint64_t	after = 0;
		uint32_t	said = 0;

		CHECK_INT(RINQ_POSITION_REVISION(position), revisions[i]);
		CHECK_INT(RINQ_POSITION_NEXT(position), 1);
		CHECK(rinq_position_advance(position, &after));
		CHECK(after == RINQ_POSITION(revisions[i], 2));

		position = RINQ_POSITION(revisions[i], 0xFFFFFFFD);
		while (rinq_position_advance(position, &after))
		{
			CHECK_INT(RINQ_POSITION_REVISION(after), revisions[i]);
			CHECK_INT(RINQ_POSITION_NEXT(after), RINQ_POSITION_NEXT(position) + 1);
			position = after;
		}
		CHECK(position == RINQ_POSITION(revisions[i], 0xFFFFFFFF));
		CHECK(after == position);

		CHECK(!rinq_position_is_worn(RINQ_POSITION(revisions[i], 1)));
		CHECK(!rinq_position_is_worn(RINQ_POSITION(revisions[i], RINQ_RENUMBER_AT - 1)));
		CHECK(rinq_position_is_worn(RINQ_POSITION(revisions[i], RINQ_RENUMBER_AT)));
		CHECK(!rinq_position_is_worn(RINQ_POSITION(revisions[i], RINQ_RENUMBER_AT + 1)));
		for (uint32_t n = 0xFFFFFFFF; n > 0xFDFFFFFF; n--)
			said += rinq_position_is_worn(RINQ_POSITION(revisions[i], n));
		CHECK_INT(said, 2);
	}
}

/* A reason is the same when it comes again, although the peer has another identity by then. */
static void
test_same_but_peers(void)
{
	static const struct
	{
		const char *a;
		const char *b;
		bool		same;
	}			pairs[] =
	{
		{"", "", true},
		{"", "x", false},
		{"x", "", false},
		{"refused", "refused", true},
		{"refused", "refused it", false},
		{"queue '191C' in vhost '/'", "queue 'A0F7' in vhost '/'", true},
		{"queue '191C.req' in vhost '/'", "queue 'A0F7.req' in vhost '/'", true},
		{"queue \"191C.rsp\": 403", "queue \"A0F7.rsp\": 403", true},
		{"'191C' and '191C'", "'A0F7' and '1234'", true},
		{"queue '191C.req'", "queue 'A0F7.rsp'", false},
		{"queue '191C'", "queue 'A0F7.req'", false},
		{"queue '191C'", "queue \"A0F7\"", false},
		{"queue '191C", "queue 'A0F7", false},
		{"queue '191C'", "queue 'A0F7' of another", false},
		{"queue 191C ", "queue A0F7 ", false},
		{"vhost 'cafe'", "vhost 'beef'", false},
		{"queue 'cmd.orders'", "queue 'cmd.prices'", false},
		{"queue '191CA'", "queue '191CB'", false},
		{"topic '58AEE146-191C.*' in", "topic '6B0854FC-0B0C.*' in", true},
		{"topic '58AEE146-191C.*' in", "topic '16B0854FC-0B0C.*' in", true},
		{"topic '58AEE146-191C.*' in", "topic '0B0C.*' in", true},
		{"topic '58AEE146-191C.*'", "topic '6B0854FC-0B0C.x'", false},
		{"topic '58AEE146-191C-191C'", "topic '6B0854FC-0B0C-191C'", false},
		{"topic '58AEE146-'", "topic '6B0854FC-'", false},
		{"topic '-191C'", "topic '-0B0C'", true},
		{"'", "'", true},
		{"'191", "'192", false},
	};

	for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
	{
		CHECK(rinq_same_but_peers(pairs[i].a, pairs[i].b) == pairs[i].same);
		CHECK(rinq_same_but_peers(pairs[i].b, pairs[i].a) == pairs[i].same);
	}
}

int
main(void)
{
	test_same_but_peers();
	test_positions();
	test_forms();
	test_refused();
	test_namespaces();
	return check_summary();
}
