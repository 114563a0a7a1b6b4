/* SPDX-License-Identifier: Apache-2.0 OR GPL-2.0-only OR BSD-2-Clause */
/*
 * Looks up an unwind row in a table of chunks: first those of rows, then those of an index, which for each
 * stretch of 2^shift bytes tells the row at its begin. A map lookup for the index, one or two for the rows,
 * and few steps between them, where a search over all rows would touch a cache line at each. Pure; compiled
 * into BPF and natively (tests). Whoever includes it defines lt_table_chunk(table, index): a pointer to a
 * struct lt_chunk, or null.
 */
#ifndef LOOPTRACE_ROW_TABLE_H
#define LOOPTRACE_ROW_TABLE_H

#include "looptrace.h"

#define LT_NO_ROW (~0ull)

/* The row for `address` of a file, as one word; LT_NO_ROW if it has none. */
static inline __attribute__((always_inline)) __u64 lt_find_row(void *table, const struct lt_row_table *t,
							       __u32 address)
{
	__u32 last = t->rows - 1, low, high, low_chunk, high_chunk, base, at;
	const struct lt_chunk *chunk;
	int i;

	if (!t->rows || address < t->first)
		return LT_NO_ROW;
	/* the row is one of [low, high] */
	at = (address - t->first) >> (t->shift & 31);
	chunk = lt_table_chunk(table, last / LT_ROWS_PER_CHUNK + 1 + at / LT_INDEX_PER_CHUNK);
	at &= LT_INDEX_PER_CHUNK - 1;
	low = chunk ? chunk->index[at] : last;
	at++;
	asm volatile("" : "+r"(at)); /* else the compiler makes a comparison that tells Linux 6.1 nothing */
	high = chunk && at < LT_INDEX_PER_CHUNK ? chunk->index[at] : last;
	low_chunk = low / LT_ROWS_PER_CHUNK;
	high_chunk = high / LT_ROWS_PER_CHUNK;
	for (i = 0; i < 16 && low_chunk < high_chunk; i++) {
		__u32 mid = low_chunk + (high_chunk - low_chunk + 1) / 2;

		chunk = lt_table_chunk(table, mid);
		if (!chunk)
			return LT_NO_ROW;
		if (chunk->rows[0].pc <= address)
			low_chunk = mid;
		else
			high_chunk = mid - 1;
	}
	chunk = lt_table_chunk(table, low_chunk);
	if (!chunk)
		return LT_NO_ROW;
	base = low_chunk * LT_ROWS_PER_CHUNK;
	low = low > base ? low - base : 0;
	high = high < base + LT_ROWS_PER_CHUNK ? high - base : LT_ROWS_PER_CHUNK - 1;
	for (i = 0; i < 9 && low < high; i++) {
		__u32 mid = low + (high - low + 1) / 2;

		if (chunk->rows[mid & (LT_ROWS_PER_CHUNK - 1)].pc <= address)
			low = mid;
		else
			high = mid - 1;
	}
	return *(const __u64 *)&chunk->rows[low & (LT_ROWS_PER_CHUNK - 1)];
}

#endif /* LOOPTRACE_ROW_TABLE_H */
