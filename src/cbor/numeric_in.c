/*-------------------------------------------------------------------------
 *
 * numeric_in.c
 *	  CBOR numbers to numeric: writes the stored form of numeric directly.
 *
 * See cbor/numeric_out.c for the opposite direction and for why the stored
 * form is handled here at all.  The numbers written are exactly those that
 * numeric_in() makes of the same decimal text.
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include <math.h>

#include "cbor/internal.h"
#include "cbor/numeric_form.h"
#include "common/shortest_dec.h"
#include "miscadmin.h"

/*
 * Decimal exponents and sizes beyond these cannot lead to a numeric, whatever
 * the mantissa; they are refused before any work is put into them.  The
 * limit of binary exponents is ours: it is a little more than doubles have,
 * and keeps a few bytes of input from making thousands of digits.
 */
#define MAX_EXPONENT		200000
#define MAX_BINARY_EXPONENT 1100
#define MAX_BIGNUM_BYTES	65536

#define BASE_16				UINT64CONST(10000000000000000)	/* 10^16 */
#define FIVE_POWER_27		UINT64CONST(7450580596923828125)

/*
 * Write a numeric of the given base 10000 digits, of which the first has the
 * weight `weight`.  Zeros at both ends are left out.  Returns its size,
 * or zero if no numeric can hold the number.
 */
static Size
write_numeric(char *dst, bool negative, const int16 *digits, int n, int weight,
			  int dscale)
{
	char	   *p = dst + VARHDRSZ;
	Size		size;

	while (n > 0 && digits[0] == 0)
	{
		digits++;
		n--;
		weight--;
	}
	while (n > 0 && digits[n - 1] == 0)
		n--;
	if (n == 0)
	{
		weight = 0;
		negative = false;
	}

	/* more decimals than can be shown are fine as long as they are zeros */
	if (dscale > NUM_LONG_DSCALE_MAX)
	{
		int			needed = 0;

		if (n > 0)
		{
			int			last = digits[n - 1];

			needed = 4 * (n - 1 - weight);
			for (; last % 10 == 0; last /= 10)
				needed--;
		}
		if (needed > NUM_LONG_DSCALE_MAX)
			return 0;
		dscale = NUM_LONG_DSCALE_MAX;
	}
	if (weight > PG_INT16_MAX || weight < PG_INT16_MIN)
		return 0;

	if (dscale <= NUM_SHORT_DSCALE_MAX &&
		weight <= NUM_SHORT_WEIGHT_MAX && weight >= NUM_SHORT_WEIGHT_MIN)
	{
		Assert(dscale >= 0);
		*(uint16 *) p = NUM_SHORT | (negative ? NUM_SHORT_NEGATIVE : 0) |
			(dscale << NUM_SHORT_DSCALE_SHIFT) | (weight & NUM_SHORT_WEIGHT_MASK);
		p += sizeof(uint16);
	}
	else
	{
		*(uint16 *) p = (negative ? NUM_LONG_NEGATIVE : 0) | dscale;
		p += sizeof(uint16);
		*(int16 *) p = (int16) weight;
		p += sizeof(int16);
	}

	if (n > 0)
		memcpy(p, digits, n * sizeof(int16));
	size = (p - dst) + n * sizeof(int16);
	SET_VARSIZE(dst, size);
	return size;
}

/*
 * Split an exponent into a power of 10000 and a rest of 0 to 3.
 */
static inline int
split_exponent(int exponent, int *rest)
{
	*rest = exponent & 3;
	return (exponent - *rest) / 4;
}

/*
 * Write mantissa * 10^exponent, to be shown with dscale decimals.  The
 * mantissa must be at most 2^64, and dst must
 * have room for RINQ_NUMERIC_PUT_MAX bytes.
 */
Size
rinq_numeric_put(char *dst, bool negative, uint128 mantissa, int exponent, int dscale)
{
	static const int unit[] = {1, 10, 100, 1000};
	int16		digits[6];		/* 2^64 * 1000 < 10000^6 */
	int			first = lengthof(digits);
	int			rest;
	int			weight = split_exponent(exponent, &rest) - 1;
	uint64		low;

	mantissa *= unit[rest];
	if (mantissa >= BASE_16)
	{
		uint64		high = (uint64) (mantissa / BASE_16);

		low = (uint64) (mantissa - (uint128) high * BASE_16);
		for (int i = 0; i < 4; i++, low /= 10000)
			digits[--first] = low % 10000;
		low = high;
	}
	else
		low = (uint64) mantissa;
	for (; low != 0; low /= 10000)
		digits[--first] = low % 10000;

	weight += lengthof(digits) - first;
	return write_numeric(dst, negative, digits + first, lengthof(digits) - first,
						 weight, dscale);
}

/*
 * Find the shortest decimal mantissa * 10^exponent that reads back as d,
 * which must be finite and not negative.  The mantissa ends in no zero.
 */
void
rinq_shortest_decimal(double d, uint64 *mantissa, int *exponent)
{
	char		text[DOUBLE_SHORTEST_DECIMAL_LEN];
	int			len = double_to_shortest_decimal_bufn(d, text);
	uint64		m = 0;
	int			e = 0;
	bool		fraction = false;

	for (int i = 0; i < len; i++)
	{
		if (text[i] >= '0' && text[i] <= '9')
		{
			m = m * 10 + (text[i] - '0');
			if (fraction)
				e--;
		}
		else if (text[i] == '.')
			fraction = true;
		else if (text[i] == 'e')
		{
			bool		minus = text[i + 1] == '-';
			int			value = 0;

			for (i += 2; i < len; i++)
				value = value * 10 + (text[i] - '0');
			e += minus ? -value : value;
		}
	}

	while (m != 0 && m % 10 == 0)
	{
		m /= 10;
		e++;
	}
	*mantissa = m;
	*exponent = m == 0 ? 0 : e;
}

/*
 * Write the shortest decimal of a finite double.  dst must have room for
 * RINQ_NUMERIC_PUT_MAX bytes.
 */
Size
rinq_numeric_put_double(char *dst, double d)
{
	bool		negative = d < 0;
	uint64		m;
	int			exponent;

	d = fabs(d);

	/* integers that a double holds exactly */
	if (d < 9007199254740992.0 && d == (double) (uint64) d)
		return rinq_numeric_put(dst, negative, (uint64) d, 0, 0);

	/*
	 * Up to four decimals: of the decimals with at most 15 digits no two have
	 * the same double, so the one that leads back to d is the shortest.
	 */
	if (d >= 1e-5 && d < 1e10)
	{
		static const double scale[] = {1e1, 1e2, 1e3, 1e4};

		for (int i = 0; i < (int) lengthof(scale); i++)
		{
			m = (uint64) (d * scale[i] + 0.5);
			if (m < UINT64CONST(1000000000000000) && (double) m / scale[i] == d)
				return rinq_numeric_put(dst, negative, m, -(i + 1), i + 1);
		}
	}

	rinq_shortest_decimal(d, &m, &exponent);
	return rinq_numeric_put(dst, negative, m, exponent, exponent < 0 ? -exponent : 0);
}

/*
 * Natural numbers of any size, lowest limb first.
 */
typedef struct BigNumber
{
	uint64	   *limbs;
	int			n;
} BigNumber;

static void
big_multiply_add(BigNumber *big, uint64 factor, uint64 addend)
{
	uint64		carry = addend;

	for (int i = 0; i < big->n; i++)
	{
		uint128		t = (uint128) big->limbs[i] * factor + carry;

		big->limbs[i] = (uint64) t;
		carry = (uint64) (t >> 64);
	}
	if (carry != 0)
		big->limbs[big->n++] = carry;
}

/*
 * Divide by 10^16 in place and return the remainder.
 */
static uint64
big_divide(BigNumber *big)
{
	uint64		rem = 0;

	for (int i = big->n - 1; i >= 0; i--)
	{
		uint128		t = ((uint128) rem << 64) | big->limbs[i];

		big->limbs[i] = (uint64) (t / BASE_16);
		rem = (uint64) (t - (uint128) big->limbs[i] * BASE_16);
	}
	while (big->n > 0 && big->limbs[big->n - 1] == 0)
		big->n--;
	return rem;
}

static void
big_halve(BigNumber *big)
{
	for (int i = 0; i < big->n; i++)
	{
		uint64		next = i + 1 < big->n ? big->limbs[i + 1] : 0;

		big->limbs[i] = (big->limbs[i] >> 1) | (next << 63);
	}
	if (big->limbs[big->n - 1] == 0)
		big->n--;
}

/*
 * Replace big * 2^exponent by big * 10^result.
 */
static int
big_apply_binary_exponent(BigNumber *big, int exponent)
{
	int			tens;

	for (; exponent >= 32; exponent -= 32)
		big_multiply_add(big, UINT64CONST(1) << 32, 0);
	for (; exponent > 0; exponent--)
		big_multiply_add(big, 2, 0);

	/* m * 2^-k = m * 5^k * 10^-k; with an odd m all k decimals are needed */
	for (; exponent < 0 && (big->limbs[0] & 1) == 0; exponent++)
		big_halve(big);
	tens = exponent;
	for (; exponent <= -27; exponent += 27)
		big_multiply_add(big, FIVE_POWER_27, 0);
	for (; exponent < 0; exponent++)
		big_multiply_add(big, 5, 0);
	return tens;
}

/*
 * Make the numeric m * base^exponent, where base is 10 or 2 and m the
 * integer in `bytes`, highest first, or -1 minus it.  The result is
 * palloc'd, or NULL if no numeric can hold the number.  Takes time proportional to the square of the size.
 */
char *
rinq_numeric_from_fraction(bool negative, const uint8 *bytes, size_t len,
						   int64 exponent, int base)
{
	static const int unit[] = {1, 10, 100, 1000};
	BigNumber	big;
	int			rest;
	int			tens;
	int			weight;
	int			groups;
	int			first;
	int			room;
	int16	   *digits;
	char	   *result;

	while (len > 0 && *bytes == 0)
	{
		bytes++;
		len--;
	}
	if (len == 0 && !negative)
	{
		result = palloc(RINQ_NUMERIC_PUT_MAX);
		(void) rinq_numeric_put(result, false, 0, 0,
								base == 10 && exponent < 0 && exponent >= -NUM_LONG_DSCALE_MAX ?
								(int) -exponent : 0);
		return result;
	}
	if (len > MAX_BIGNUM_BYTES ||
		exponent > (base == 10 ? MAX_EXPONENT : MAX_BINARY_EXPONENT) ||
		exponent < -(base == 10 ? MAX_EXPONENT : MAX_BINARY_EXPONENT))
		return NULL;

	/* room for the number, one more bit, the power, and a factor of 1000 */
	room = len / sizeof(uint64) + 4;
	if (base == 2)
		room += 3 * MAX_BINARY_EXPONENT / 64 + 1;
	big.limbs = palloc0(room * sizeof(uint64));
	big.n = (len + sizeof(uint64) - 1) / sizeof(uint64);
	for (size_t i = 0; i < len; i++)
		big.limbs[i / 8] |= (uint64) bytes[len - 1 - i] << (i % 8 * 8);
	if (negative)
	{
		int			i = 0;

		while (i < big.n && ++big.limbs[i] == 0)
			i++;
		if (i == big.n)
			big.limbs[big.n++] = 1;
	}

	tens = (int) exponent;
	if (base == 2)
		tens = big_apply_binary_exponent(&big, (int) exponent);
	weight = split_exponent(tens, &rest);
	if (rest != 0)
		big_multiply_add(&big, unit[rest], 0);

	/* 64 bits have less than 19.3 decimal digits */
	groups = big.n * 5 + 4;
	digits = palloc(groups * sizeof(int16));
	first = groups;
	while (big.n > 0)
	{
		uint64		low = big_divide(&big);

		for (int i = 0; i < 4; i++, low /= 10000)
			digits[--first] = low % 10000;
		if ((groups - first) % 64 == 0)
			CHECK_FOR_INTERRUPTS();
	}
	weight += groups - first - 1;

	result = palloc(VARHDRSZ + 2 * sizeof(int16) + (groups - first) * sizeof(int16));
	if (write_numeric(result, negative, digits + first, groups - first, weight,
					  tens < 0 ? -tens : 0) == 0)
		return NULL;
	pfree(digits);
	pfree(big.limbs);
	return result;
}
