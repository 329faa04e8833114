/* A range asymmetric numeral system over bytes (Duda 2013): static frequencies of 12 bits, interleaved states of 32 bits,
 * words of 16 bits. Symbols are `first + (k << shift)`; docs/wire-format.md, section "Planes", is the contract. */
#ifndef SLIMCODEC_RANS_H
#define SLIMCODEC_RANS_H

#include <stdint.h>
#include <string.h>

#include "hot.h"

enum {
    RANS_BITS = 12,
    RANS_TOTAL = 1 << RANS_BITS,
    RANS_LANES = 32,         /* most states side by side */
    RANS_LEAST = 1 << 16     /* every state is at least this between symbols, and exactly this before the first */
};

typedef struct {
    int32_t first, shift, count;
    uint16_t frequency[256], start[256];
} rans_table;

/* Three bits of mantissa: the weight that a code stands for. */
static inline uint64_t rans_weight(uint8_t code)
{
    return code < 8 ? code : (uint64_t)(8 + code % 8) << (code / 8 - 1);
}

/* The largest code that stands for no more than `count`. */
static inline uint8_t rans_code(uint32_t count)
{
    if (count < 8) return (uint8_t)count;
    int32_t top = 31 ^ __builtin_clz(count);
    return (uint8_t)(8 * (top - 2) + (int32_t)(count >> (top - 3)) - 8);
}

/* Frequencies that sum to RANS_TOTAL: 1 for each symbol that occurs, the rest in proportion, what rounding leaves to the
 * first of the largest. Returns 0 where fewer than two symbols occur. */
static inline int rans_normalise(rans_table *t, const uint8_t *codes)
{
    uint64_t sum = 0, largest = 0;
    int32_t used = 0, top = 0, given = 0;
    for (int32_t k = 0; k < t->count; k++) {
        uint64_t weight = rans_weight(codes[k]);
        sum += weight;
        used += weight != 0;
        if (weight > largest) {
            largest = weight;
            top = k;
        }
    }
    if (used < 2) return 0;
    for (int32_t k = 0; k < t->count; k++) {
        uint64_t weight = rans_weight(codes[k]);
        t->frequency[k] = (uint16_t)(weight ? 1 + weight * (uint64_t)(RANS_TOTAL - used) / sum : 0);
        given += t->frequency[k];
    }
    t->frequency[top] = (uint16_t)(t->frequency[top] + RANS_TOTAL - given);
    uint16_t start = 0;
    for (int32_t k = 0; k < t->count; k++) {
        t->start[k] = start;
        start = (uint16_t)(start + t->frequency[k]);
    }
    return 1;
}

/* log2 of the number of states for `n` symbols: a state costs four bytes. */
static inline int32_t rans_lanes(int64_t n)
{
    int32_t lanes = 0;
    while (lanes < 5 && n >> (lanes + 10)) lanes++;
    return lanes;
}

/* Writes the states and the words of `symbols` before `end`; returns where they begin, NULL where they do not fit. */
static inline uint8_t *rans_encode(const rans_table *t, const uint8_t *symbols, int64_t n, int32_t log_lanes,
                                   uint8_t *begin, uint8_t *end)
{
    const int32_t lanes = 1 << log_lanes;
    uint32_t state[RANS_LANES];
    for (int32_t i = 0; i < lanes; i++) state[i] = RANS_LEAST;
    uint8_t *at = end;
    /* x / f is (x * ((2**44 / f) + 1)) >> 44, exactly and within 64 bits, for x < f * 2**20 and f < 2**12. */
    uint64_t inverse[256];
    for (int32_t k = 0; k < t->count; k++)
        inverse[k] = t->frequency[k] ? ((uint64_t)1 << 44) / t->frequency[k] + 1 : 0;
    for (int64_t i = n - 1; i >= 0; i--) {
        const int32_t k = (symbols[i] - t->first) >> t->shift;
        const uint32_t f = t->frequency[k];
        uint32_t x = state[i & (lanes - 1)];
        if (at - begin < 2) return NULL;
        at[-1] = (uint8_t)(x >> 8);
        at[-2] = (uint8_t)x;
        const int full = x >= f << 20; /* no branch, as in the decoder */
        at -= 2 * full;
        x = full ? x >> 16 : x;
        const uint32_t q = (uint32_t)((x * inverse[k]) >> 44);
        state[i & (lanes - 1)] = (q << RANS_BITS) + (x - q * f) + t->start[k];
    }
    if (at - begin < 4 * lanes) return NULL;
    for (int32_t i = lanes - 1; i >= 0; i--)
        for (int32_t b = 3; b >= 0; b--) *--at = (uint8_t)(state[i] >> (8 * b));
    return at;
}

/* By slot: frequency of the symbol that owns it, place of the slot within the symbol's, symbol; 12, 12 and 8 bits. */
typedef struct {
    uint32_t slot[RANS_TOTAL];
} rans_slots;

static inline void rans_slots_of(const rans_table *t, rans_slots *s)
{
    for (int32_t k = 0; k < t->count; k++)
        for (uint32_t j = 0; j < t->frequency[k]; j++)
            s->slot[t->start[k] + j] = (uint32_t)t->frequency[k] << 20 | j << 8 | (uint32_t)(t->first + (k << t->shift));
}

static HOT uint32_t rans_word(const uint8_t *at) { return (uint32_t)at[0] | (uint32_t)at[1] << 8; }

/* Reads `n` symbols from exactly `size` bytes. Returns whether the bytes end as the encoder's do. */
static inline int rans_decode(const rans_slots *table, const uint8_t *data, int64_t size, int32_t log_lanes,
                              uint8_t *symbols, int64_t n)
{
    const int32_t lanes = 1 << log_lanes;
    uint32_t state[RANS_LANES];
    for (int32_t i = 0; i < lanes; i++) state[i] = rans_word(data + 4 * i) | rans_word(data + 4 * i + 2) << 16;
    const uint8_t *at = data + 4 * lanes, *end = data + size;
    int64_t i = 0;
    for (; i + lanes <= n && end - at >= 2 * lanes; i += lanes) {
        for (int32_t k = 0; k < lanes; k++) {
            const uint32_t slot = table->slot[state[k] & (RANS_TOTAL - 1)];
            symbols[i + k] = (uint8_t)slot;
            const uint32_t x = (slot >> 20) * (state[k] >> RANS_BITS) + (slot >> 8 & (RANS_TOTAL - 1));
            const int small = x < RANS_LEAST; /* no branch: nothing foretells it */
            state[k] = small ? x << 16 | rans_word(at) : x;
            at += 2 * small;
        }
    }
    for (; i < n; i++) {
        uint32_t *x = &state[i & (lanes - 1)];
        const uint32_t slot = table->slot[*x & (RANS_TOTAL - 1)];
        symbols[i] = (uint8_t)slot;
        *x = (slot >> 20) * (*x >> RANS_BITS) + (slot >> 8 & (RANS_TOTAL - 1));
        if (*x >= RANS_LEAST) continue;
        if (at == end) return 0;
        *x = *x << 16 | rans_word(at);
        at += 2;
    }
    for (int32_t k = 0; k < lanes; k++)
        if (state[k] != RANS_LEAST) return 0;
    return at == end;
}

#endif
