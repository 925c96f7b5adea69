/*-------------------------------------------------------------------------
 *
 * numeric_form.h
 *	  The stored form of a numeric: a 16-bit header, for long ones a weight,
 *	  then the digits in base 10000.
 *
 * PostgreSQL has not changed it since 9.1, and cannot without breaking
 * pg_upgrade, but keeps its names to itself.  A short header holds sign, number
 * of decimals and a weight of seven bits in two's complement; a long one, sign
 * and number of decimals.
 *
 *-------------------------------------------------------------------------
 */
#ifndef RINQ_CBOR_NUMERIC_FORM_H
#define RINQ_CBOR_NUMERIC_FORM_H

#define NUM_KIND_MASK		0xC000	/* any header: which of these it is */
#define NUM_LONG_NEGATIVE	0x4000
#define NUM_SHORT			0x8000	/* with any value of the bit below */
#define NUM_SPECIAL			0xC000

#define NUM_LONG_DSCALE_MAX 0x3FFF

#define NUM_SHORT_NEGATIVE	0x2000
#define NUM_SHORT_DSCALE_SHIFT	7
#define NUM_SHORT_DSCALE_MAX	0x3F
#define NUM_SHORT_WEIGHT_MASK	0x007F	/* sign included */
#define NUM_SHORT_WEIGHT_MAX	0x3F
#define NUM_SHORT_WEIGHT_MIN	(-NUM_SHORT_WEIGHT_MAX - 1)

#endif							/* RINQ_CBOR_NUMERIC_FORM_H */
