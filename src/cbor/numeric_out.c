/*-------------------------------------------------------------------------
 *
 * numeric_out.c
 *	  numeric to CBOR: picks the form and writes it.
 *
 * A number becomes, in this order of preference
 *
 *	- an integer, if it is one and lies in [-2^64, 2^64 - 1];
 *	- a double, if it is the shortest decimal that reads back as that double,
 *	  which is how everybody prints doubles;
 *	- a bignum (tags 2 and 3), if it is an integer;
 *	- a decimal fraction (tag 4).
 *
 * So any number can be read back exactly, and peers that know only integers
 * and floats can read all that they could have written.
 *
 * The digits are taken from the stored form of numeric, which PostgreSQL has
 * not changed since 9.1 and cannot change without breaking pg_upgrade; its
 * own functions would make numbers several times slower than their text.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <float.h>
#include <math.h>

#include "cbor/internal.h"
#include "cbor/numeric_form.h"
#include "miscadmin.h"
#include "port/pg_bitutils.h"

/*
 * From this many trailing zeros on, an integer is written with an exponent:
 * 1e131071 takes 12 bytes as jsonb and would take 54 kB as a bignum.
 */
#define MAX_BIGNUM_ZEROS	1000

/* longest decimals that a double can have as its shortest form */
#define MAX_SHORTEST		UINT64CONST(100000000000000000) /* 10^17 */
/* below this, every fraction in range is the shortest form of some double */
#define ALWAYS_SHORTEST		UINT64CONST(1000000000000000)	/* 10^15 */

/*
 * The digits of a number: sum of digits[i] * 10000^(weight - i), without
 * zeros at either end.
 */
typedef struct NumericView
{
	const int16 *digits;
	int			ndigits;
	int			weight;
	bool		negative;
} NumericView;

static const double power_of_10[] = {
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22
};

#define MAX_EXACT_POWER_OF_10 22

static const uint64 power_of_5[] = {
	UINT64CONST(1), UINT64CONST(5), UINT64CONST(25), UINT64CONST(125),
	UINT64CONST(625), UINT64CONST(3125), UINT64CONST(15625),
	UINT64CONST(78125), UINT64CONST(390625), UINT64CONST(1953125),
	UINT64CONST(9765625), UINT64CONST(48828125), UINT64CONST(244140625),
	UINT64CONST(1220703125), UINT64CONST(6103515625),
	UINT64CONST(30517578125), UINT64CONST(152587890625),
	UINT64CONST(762939453125), UINT64CONST(3814697265625),
	UINT64CONST(19073486328125), UINT64CONST(95367431640625),
	UINT64CONST(476837158203125), UINT64CONST(2384185791015625),
	UINT64CONST(11920928955078125), UINT64CONST(59604644775390625),
	UINT64CONST(298023223876953125), UINT64CONST(1490116119384765625),
	UINT64CONST(7450580596923828125)
};

#define MAX_POWER_OF_5 27

typedef enum Shortest
{
	SHORTEST_NO,
	SHORTEST_YES,
	SHORTEST_UNSURE
} Shortest;

static void
corrupt_numeric(void)
{
	ereport(ERROR,
			(errcode(ERRCODE_DATA_CORRUPTED),
			 errmsg("invalid number in jsonb value")));
}

/*
 * Find the digits of a stored number; avail is what its container grants it.
 */
static void
view_numeric(const char *num, Size avail, NumericView *view)
{
	Size		size;
	uint16		header;
	const char *data;

	if (avail < VARHDRSZ + sizeof(uint16) || !VARATT_IS_4B_U(num) ||
		VARSIZE(num) > avail || VARSIZE(num) < VARHDRSZ + sizeof(uint16))
		corrupt_numeric();

	data = VARDATA(num);
	size = VARSIZE(num) - VARHDRSZ - sizeof(uint16);
	header = *(const uint16 *) data;
	data += sizeof(uint16);

	/* JSON has no NaN and no infinities, and jsonb stores none */
	if ((header & NUM_KIND_MASK) == NUM_SPECIAL)
		corrupt_numeric();

	if ((header & NUM_KIND_MASK) == NUM_SHORT)
	{
		view->negative = (header & NUM_SHORT_NEGATIVE) != 0;
		view->weight = header & NUM_SHORT_WEIGHT_MASK;
		if (view->weight > NUM_SHORT_WEIGHT_MAX)
			view->weight -= NUM_SHORT_WEIGHT_MASK + 1;
	}
	else
	{
		if (size < sizeof(int16))
			corrupt_numeric();
		view->negative = (header & NUM_KIND_MASK) == NUM_LONG_NEGATIVE;
		view->weight = *(const int16 *) data;
		data += sizeof(int16);
		size -= sizeof(int16);
	}
	view->digits = (const int16 *) data;
	view->ndigits = size / sizeof(int16);

	while (view->ndigits > 0 && view->digits[0] == 0)
	{
		view->digits++;
		view->ndigits--;
		view->weight--;
	}
	while (view->ndigits > 0 && view->digits[view->ndigits - 1] == 0)
		view->ndigits--;
}

/*
 * Compute m / 10^scale, correctly rounded, and whether m * 10^-scale is the
 * shortest decimal of the result.  The answer holds for m from 10^15 to
 * 10^17 that do not end in zero; scale must be 1 to MAX_POWER_OF_5.
 *
 * The quotient q of m and 5^scale, both shifted to the left end of a word,
 * has at least 63 bits, more than a double's 53.  Distances are measured in
 * units of q's lowest bit: D is the decimal, d the double.
 */
static Shortest
divide_by_power_of_10(uint64 m, int scale, double *result)
{
	int			m_shift = 63 - pg_leftmost_one_pos64(m);
	int			f_shift = 63 - pg_leftmost_one_pos64(power_of_5[scale]);
	uint64		f = power_of_5[scale] << f_shift;
	uint128		wide = (uint128) (m << m_shift) << 63;
	uint64		q = (uint64) (wide / f);
	uint64		rem = (uint64) (wide - (uint128) q * f);
	int			drop = pg_leftmost_one_pos64(q) - 52;	/* 10 or 11 */
	uint64		half = UINT64CONST(1) << (drop - 1);
	uint64		low = q & ((half << 1) - 1);
	uint64		mant = q >> drop;
	int			exponent = drop + f_shift - m_shift - 63 - scale;
	uint64		bits;
	double		step,
				above,
				below_next,
				above_next,
				nearest;
	int			last;

	if (low > half || (low == half && (rem != 0 || (mant & 1))))
		mant++;

	/* 2^52 <= mant <= 2^53: a carry into the exponent is just right */
	bits = ((uint64) (1023 + 52 + exponent) << 52) + (mant - (UINT64CONST(1) << 52));
	memcpy(result, &bits, sizeof(bits));

	/* the doubles around a power of two are not evenly spaced */
	if ((mant & (mant - 1)) == 0)
		return SHORTEST_UNSURE;

	step = (double) q / (double) m; /* one unit of m */
	above = (double) (int64) ((mant << drop) - q) - (double) rem / (double) f;
	last = m % 10;

	/*
	 * D must be the decimal of its length that is nearest to d, and the two
	 * decimals around it that are one digit shorter must lie outside the
	 * interval that rounds to d, half a unit of d on either side.
	 */
	nearest = step / 2 - fabs(above);
	below_next = above + last * step - (double) half;
	above_next = (10 - last) * step - above - (double) half;

	if (fabs(nearest) < 1e-6 || fabs(below_next) < 1e-6 || fabs(above_next) < 1e-6)
		return SHORTEST_UNSURE;
	return nearest > 0 && below_next > 0 && above_next > 0 ? SHORTEST_YES : SHORTEST_NO;
}

/*
 * Tell whether m * 10^exponent is the shortest decimal of a double. m must be
 * below 10^17 and must not end in zero.  The double is stored in *result if
 * so.
 */
static bool
is_shortest_decimal(uint64 m, int exponent, double *result)
{
	Shortest	verdict = SHORTEST_UNSURE;
	uint64		shortest;
	int			shortest_exponent;

	if (m < ALWAYS_SHORTEST && exponent <= 0 && exponent >= -MAX_EXACT_POWER_OF_10)
	{
		/* both operands are exact, so the result is correctly rounded */
		*result = (double) m / power_of_10[-exponent];
		return true;
	}

	if (exponent < 0 && exponent >= -MAX_POWER_OF_5)
		verdict = divide_by_power_of_10(m, -exponent, result);
	else if (exponent < -400 || exponent > 400)
		return false;
	else
	{
		char		text[40];

		snprintf(text, sizeof(text), UINT64_FORMAT "e%d", m, exponent);
		*result = strtod(text, NULL);
		if (isinf(*result))
			return false;
	}

	/*
	 * Among integers this is not so: 1e23 lies exactly halfway between two
	 * doubles, and PostgreSQL's shortest form of neither is "1e23".
	 */
	if (m < ALWAYS_SHORTEST && exponent < 0 && *result >= DBL_MIN)
		return true;
	if (verdict != SHORTEST_UNSURE)
		return verdict == SHORTEST_YES;

	rinq_shortest_decimal(*result, &shortest, &shortest_exponent);
	return shortest == m && shortest_exponent == exponent;
}

static void
put_double(StringInfo out, double d)
{
	unsigned char *p = rinq_cbor_reserve(out, RINQ_CBOR_HEAD_MAX);

	out->len += cbor_encode_double(d, p, RINQ_CBOR_HEAD_MAX);
}

/*
 * Compute limbs = limbs * factor + addend; returns the new number of limbs.
 */
static int
multiply_add(uint64 *limbs, int n, uint64 factor, uint64 addend)
{
	uint64		carry = addend;

	for (int i = 0; i < n; i++)
	{
		uint128		t = (uint128) limbs[i] * factor + carry;

		limbs[i] = (uint64) t;
		carry = (uint64) (t >> 64);
	}
	if (carry != 0)
		limbs[n++] = carry;
	return n;
}

/*
 * Write an integer of any size: as such if it fits, else as a bignum.
 * Overwrites the limbs.
 */
static void
put_limbs(StringInfo out, uint64 *limbs, int n, bool negative)
{
	unsigned char *p;
	int			top;
	size_t		len;

	/* CBOR's negative numbers count from -1 */
	if (negative)
	{
		for (int i = 0; i < n && limbs[i]-- == 0; i++)
			;
	}
	while (n > 0 && limbs[n - 1] == 0)
		n--;

	if (n <= 1)
	{
		uint64		value = n == 0 ? 0 : limbs[0];

		if (negative)
			rinq_cbor_put_negint(out, value);
		else
			rinq_cbor_put_uint(out, value);
		return;
	}

	top = pg_leftmost_one_pos64(limbs[n - 1]) / 8;	/* the number's highest
													 * byte */
	len = (size_t) (n - 1) * sizeof(uint64) + top + 1;

	p = rinq_cbor_reserve(out, 2 * RINQ_CBOR_HEAD_MAX + len);
	out->len += cbor_encode_tag(negative ? 3 : 2, p, RINQ_CBOR_HEAD_MAX);
	p = (unsigned char *) out->data + out->len;
	out->len += cbor_encode_bytestring_start(len, p, RINQ_CBOR_HEAD_MAX);
	p = (unsigned char *) out->data + out->len;

	for (int shift = top * 8; shift >= 0; shift -= 8)
		*p++ = (unsigned char) (limbs[n - 1] >> shift);
	for (int i = n - 2; i >= 0; i--)
	{
		for (int shift = 56; shift >= 0; shift -= 8)
			*p++ = (unsigned char) (limbs[i] >> shift);
	}
	out->len += len;
}

static const uint64 group_power[] = {
	UINT64CONST(1), UINT64CONST(10000), UINT64CONST(100000000),
	UINT64CONST(1000000000000), UINT64CONST(10000000000000000)
};

/*
 * Write the digits as one integer: `drop` decimal zeros less at the end of
 * the last digit, or `groups` times four zeros more behind it.
 */
static void
put_digits(StringInfo out, const NumericView *view, int drop, int groups)
{
	static const int unit[] = {1, 10, 100, 1000};
	uint64		local[64];
	uint64	   *limbs = local;
	int			n = 0;
	int			i = 0;
	int			plain = view->ndigits - 1;	/* all but the last digit */

	/* four decimal digits are less than 14 bits */
	int			room = (view->ndigits + groups) * 14 / 64 + 3;

	if (room > (int) lengthof(local))
		limbs = palloc(room * sizeof(uint64));

	while (i < plain)
	{
		int			take = Min(4, plain - i);
		uint64		chunk = 0;

		for (int j = 0; j < take; j++)
			chunk = chunk * 10000 + view->digits[i++];
		n = multiply_add(limbs, n, group_power[take], chunk);
		if (n % 64 == 63)
			CHECK_FOR_INTERRUPTS();
	}
	n = multiply_add(limbs, n, 10000 / unit[drop], view->digits[plain] / unit[drop]);

	while (groups > 0)
	{
		int			take = Min(4, groups);

		n = multiply_add(limbs, n, group_power[take], 0);
		groups -= take;
	}

	put_limbs(out, limbs, n, view->negative);
	if (limbs != local)
		pfree(limbs);
}

/*
 * Number of zeros at the end of the last digit; there are at most three,
 * since the digit itself is not zero.
 */
static int
trailing_zeros(const NumericView *view)
{
	int			last = view->digits[view->ndigits - 1];
	int			zeros = 0;

	while (zeros < 3 && last % 10 == 0)
	{
		last /= 10;
		zeros++;
	}
	return zeros;
}

/*
 * Write a number that is no integer of 64 bits: m * 10^exponent, where m are
 * the digits without the `drop` zeros at their end.
 */
static void
put_decimal(StringInfo out, const NumericView *view, int drop, int exponent)
{
	/* five digits are the most that can be below 10^17 */
	if (view->ndigits <= 5)
	{
		static const int unit[] = {1, 10, 100, 1000};
		int			plain = view->ndigits - 1;
		uint64		high = 0;
		uint128		m;
		double		d;

		for (int i = 0; i < plain; i++)
			high = high * 10000 + view->digits[i];
		m = (uint128) high * (10000 / unit[drop]) + view->digits[plain] / unit[drop];

		if (m < MAX_SHORTEST && is_shortest_decimal((uint64) m, exponent, &d))
		{
			put_double(out, view->negative ? -d : d);
			return;
		}
	}

	if (exponent >= 0 && exponent <= MAX_BIGNUM_ZEROS)
		put_digits(out, view, 0, (exponent - drop) / 4);
	else
	{
		unsigned char *p = rinq_cbor_reserve(out, 2 * RINQ_CBOR_HEAD_MAX);

		out->len += cbor_encode_tag(4, p, RINQ_CBOR_HEAD_MAX);
		p = (unsigned char *) out->data + out->len;
		out->len += cbor_encode_array_start(2, p, RINQ_CBOR_HEAD_MAX);
		if (exponent < 0)
			rinq_cbor_put_negint(out, -1 - exponent);
		else
			rinq_cbor_put_uint(out, exponent);
		put_digits(out, view, drop, 0);
	}
}

/*
 * Append a stored number, which the container gives `avail` bytes.
 */
void
rinq_cbor_append_numeric(StringInfo out, const char *num, Size avail)
{
	NumericView view;
	int			drop;

	view_numeric(num, avail, &view);

	if (view.ndigits == 0)
	{
		rinq_cbor_put_uint(out, 0);
		return;
	}

	/* integers of up to five digits, the last ones possibly not stored */
	if (view.weight <= 4 && view.weight >= view.ndigits - 1)
	{
		uint64		high = 0;
		uint128		value;

		for (int i = 0; i <= view.weight && i < 4; i++)
			high = high * 10000 + (i < view.ndigits ? view.digits[i] : 0);
		value = high;
		if (view.weight == 4)
			value = value * 10000 + (view.ndigits == 5 ? view.digits[4] : 0);
		if (view.negative)
			value--;

		if (value <= PG_UINT64_MAX)
		{
			if (view.negative)
				rinq_cbor_put_negint(out, (uint64) value);
			else
				rinq_cbor_put_uint(out, (uint64) value);
			return;
		}
	}

	drop = trailing_zeros(&view);
	put_decimal(out, &view, drop, 4 * (view.weight - (view.ndigits - 1)) + drop);
}
