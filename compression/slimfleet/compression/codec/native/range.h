/* A binary range coder: a range of 64 bits, probabilities of 16, output in steps of 32 (after Martin 1979). */
#ifndef SLIMCODEC_RANGE_H
#define SLIMCODEC_RANGE_H

#include <stdint.h>

#include "hot.h"

typedef struct {
    uint64_t low, range;
    uint8_t *out;
    int64_t at, capacity;
    int overflow;
} encoder;

typedef struct {
    uint64_t code, range;
    const uint8_t *data;
    int64_t at, size;
    int too_large; /* whether a level was */
} decoder;

static HOT void encoder_start(encoder *e, uint8_t *out, int64_t capacity)
{
    e->low = 0;
    e->range = ~(uint64_t)0;
    e->out = out;
    e->at = 0;
    e->capacity = capacity;
    e->overflow = 0;
}

/* Adds one to the `at` bytes written so far, as a big-endian number. */
static inline void carry(uint8_t *out, int64_t at)
{
    while (at > 0 && ++out[--at] == 0) { }
}

static HOT void encoder_shift(encoder *e)
{
    uint32_t top = (uint32_t)(e->low >> 32);
    if (e->at + 4 > e->capacity) {
        e->overflow = 1; /* go on over what is there; encoder_finish tells */
        e->at = 0;
    }
    for (int i = 0; i < 4; i++) e->out[e->at++] = (uint8_t)(top >> (24 - 8 * i));
    e->low <<= 32;
    e->range <<= 32;
}

/* `one` is the probability of a 1, in 1/65536: 1..65535. */
static HOT void encode_bit(encoder *e, int bit, uint32_t one)
{
    uint64_t bound = (e->range >> 16) * one;
    if (bit) {
        e->range = bound;
    } else {
        uint64_t before = e->low;
        e->low += bound;
        e->range -= bound;
        if (e->low < before) carry(e->out, e->at);
    }
    if (__builtin_expect(e->range >> 32 == 0, 0)) encoder_shift(e);
}

/* Writes the shortest bytes that the decoder, which reads zeros past their end, finds inside the last interval.
 * Returns how many bytes there are in all, or -1 when they do not fit. */
static inline int64_t encoder_finish(encoder *e)
{
    uint64_t last = e->low + (e->range - 1);
    int wraps = last < e->low; /* the interval reaches 2**64 */
    uint64_t value = 0;
    if (wraps) {
        carry(e->out, e->at);
    } else {
        for (int bits = 63; bits >= 0; bits--) {
            uint64_t rest = ((uint64_t)1 << bits) - 1;
            value = (e->low + rest) & ~rest;
            if (value >= e->low && value <= last) break;
        }
    }
    if (e->overflow || e->at + 8 > e->capacity) return -1;
    for (int i = 0; i < 8; i++) e->out[e->at++] = (uint8_t)(value >> (56 - 8 * i));
    while (e->at > 0 && e->out[e->at - 1] == 0) e->at--;
    return e->at;
}

static HOT uint32_t decoder_byte(decoder *d)
{
    uint32_t byte = d->at < d->size ? d->data[d->at] : 0;
    d->at++;
    return byte;
}

static HOT void decoder_start(decoder *d, const uint8_t *data, int64_t size)
{
    d->code = 0;
    d->range = ~(uint64_t)0;
    d->data = data;
    d->at = 0;
    d->size = size;
    d->too_large = 0;
    for (int i = 0; i < 8; i++) d->code = d->code << 8 | decoder_byte(d);
}

static HOT int decode_bit(decoder *d, uint32_t one)
{
    uint64_t bound = (d->range >> 16) * one;
    int bit = d->code < bound;
    if (bit) {
        d->range = bound;
    } else {
        d->code -= bound;
        d->range -= bound;
    }
    if (__builtin_expect(d->range >> 32 == 0, 0)) {
        d->range <<= 32;
        for (int i = 0; i < 4; i++) d->code = d->code << 8 | decoder_byte(d);
    }
    return bit;
}

/* Whether the bytes end as encoder_finish ends them, so that none is without consequence: none unread, no zero at the
 * end, and the number that the last eight bytes make, `value`, the one with the most zero bits of all in the last
 * interval. Those next to it with more are one lowest bit away, on either side, and must lie outside. */
static inline int decoder_finished(const decoder *d)
{
    if (d->size > d->at || (d->size > 0 && d->data[d->size - 1] == 0)) return 0;
    uint64_t value = 0;
    for (int64_t i = d->at - 8; i < d->at; i++) value = value << 8 | (i < d->size ? d->data[i] : 0);
    uint64_t lowest = value & (~value + 1);
    if (d->code >= d->range) return 0; /* outside of every interval, from the first byte on */
    return value == 0 || (lowest > d->code && lowest >= d->range - d->code);
}

#endif
