/* Linear prediction of a level from earlier rows of its column and from its neighbours.
 *
 * Changes that training makes are close to low rank: a row resembles a mixture of the rows before it. The mixture is
 * learned along the row by normalised least mean squares (Widrow and Hoff 1960; Nagumo and Noda 1967), from what the
 * decoder has too. Weights saturate at 16 bits; sums are modulo 2**32, so their order does not matter.
 */
#ifndef SLIMCODEC_PREDICT_H
#define SLIMCODEC_PREDICT_H

#include <stdint.h>
#include <string.h>

#include "hot.h"
#include "slimcodec.h"

enum {
    WINDOW = 256,     /* earlier rows that predict, in the small preset */
    FAST_WINDOW = 64,
    NEIGHBOURS = 8,
    RATE = 307,       /* Q11: 0.15 of the way to the level */
    MARGIN = 4,       /* zeros on either side of a row */
    CAP = 255,        /* magnitudes count up to here in means */
    LEFT = 219        /* Q12: what a magnitude beside counts, of 7 in all */
};

/* A tensor on its way through the coder. */
typedef struct {
    const slimcodec_tensor *tensor;
    int64_t rows, cols, kernel, window;
    int64_t stride;              /* bytes of history a column */
    int64_t guessed;             /* of them, those with the guess's rows, which come first */
    int64_t active;              /* those in use, in steps of 16 */
    int32_t *here, *up, *up2;    /* levels of this row and of the two before, between margins */
    int8_t *here8, *up8;         /* the first two clipped to a byte, the left margin that of two windows */
    int8_t *history;             /* cols x stride: levels of the last rows in a ring, clipped to a byte */
    uint32_t *power;             /* by column, the sum of squares in history */
    int32_t *column;             /* by column, the mean magnitude, Q12 */
    int32_t *above;              /* by column, see above_of */
    int16_t *weight;             /* of history, stride of them, Q12 */
    int16_t *near_weight;        /* NEIGHBOURS */
    int64_t general;             /* mean magnitude of all, Q16 */
    uint64_t inverse;            /* 2**32 / general in Q12, as the row begins */
    int32_t after_empty;         /* whether the row before was all zeros */
    int32_t *path;               /* of the quantiser: 8 a column */
} field;

/* 4096 / (r + 3) */
static const int32_t column_rate[15] = {1365, 1024, 819, 682, 585, 512, 455, 409, 372, 341, 315, 292, 273, 256, 240};

typedef struct {
    int32_t value;               /* Q8 */
    uint64_t near;               /* NEIGHBOURS levels, a byte each, the first in the lowest */
} prediction;

static HOT int32_t least(int32_t a, int32_t b) { return a < b ? a : b; }
static HOT int32_t magnitude(int32_t v) { return v < 0 ? -v : v; }
static HOT int8_t clip8(int32_t v) { return (int8_t)(v > 127 ? 127 : v < -127 ? -127 : v); }

static HOT int8_t guess8(int32_t guess) { return clip8((guess + 32) >> 6); }

/* Sums of products of weights and levels, and steps of the weights; `n` is a multiple of 16. Written out for AVX2, since
 * compilers widen bytes badly; elsewhere they do well enough. */
#if defined(SLIMCODEC_AVX2)
static HOT __m256i widened(const int8_t *x) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)x)); }
static HOT __m128i widened_near(uint64_t near) { return _mm_cvtepi8_epi16(_mm_cvtsi64_si128((int64_t)near)); }

static HOT int32_t sum_of(__m128i x)
{
    x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0x4e));
    x = _mm_add_epi32(x, _mm_shuffle_epi32(x, 0xb1));
    return _mm_cvtsi128_si32(x);
}

static HOT __m256i products(const int16_t *w, const int8_t *x, const int64_t n)
{
    __m256i sum = _mm256_setzero_si256();
    for (int64_t i = 0; i < n; i += 16)
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_loadu_si256((const __m256i *)(w + i)), widened(x + i)));
    return sum;
}

static HOT int32_t weighted(const int16_t *w, const int8_t *x, int64_t n, const int16_t *near_w, uint64_t near)
{
    __m128i half = _mm_madd_epi16(_mm_loadu_si128((const __m128i *)near_w), widened_near(near));
    if (n) {
        __m256i sum = n == FAST_WINDOW ? products(w, x, FAST_WINDOW) : products(w, x, n); /* one of them unrolled */
        half = _mm_add_epi32(half, _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1)));
    }
    return sum_of(half);
}

static HOT int32_t near_power(uint64_t near)
{
    __m128i x = widened_near(near);
    return sum_of(_mm_madd_epi16(x, x));
}

static HOT void add_scaled(int16_t *w, const int8_t *x, int32_t by, int64_t n)
{
    const __m256i step = _mm256_set1_epi16((int16_t)by);
    for (int64_t i = 0; i < n; i += 16) {
        __m256i *at = (__m256i *)(w + i);
        __m256i change = _mm256_mulhrs_epi16(step, _mm256_slli_epi16(widened(x + i), 8));
        _mm256_storeu_si256(at, _mm256_adds_epi16(_mm256_loadu_si256(at), change));
    }
}

static HOT void add_scaled_near(int16_t *w, uint64_t near, int32_t by)
{
    __m128i change = _mm_mulhrs_epi16(_mm_set1_epi16((int16_t)by), _mm_slli_epi16(widened_near(near), 8));
    _mm_storeu_si128((__m128i *)w, _mm_adds_epi16(_mm_loadu_si128((const __m128i *)w), change));
}
#else
static HOT int32_t near_level(uint64_t near, int i) { return (int8_t)(near >> (8 * i)); }

static HOT int32_t weighted(const int16_t *w, const int8_t *x, int64_t n, const int16_t *near_w, uint64_t near)
{
    uint32_t sum = 0;
    for (int64_t i = 0; i < n; i++) sum += (uint32_t)(w[i] * x[i]);
    for (int i = 0; i < NEIGHBOURS; i++) sum += (uint32_t)(near_w[i] * near_level(near, i));
    return (int32_t)sum;
}

static HOT int32_t near_power(uint64_t near)
{
    int32_t sum = 0;
    for (int i = 0; i < NEIGHBOURS; i++) sum += near_level(near, i) * near_level(near, i);
    return sum;
}

static HOT void step_weight(int16_t *w, int32_t x, int32_t by)
{
    int32_t v = *w + ((by * x + 64) >> 7);
    *w = (int16_t)(v > 32767 ? 32767 : v < -32768 ? -32768 : v);
}

static HOT void add_scaled(int16_t *w, const int8_t *x, int32_t by, int64_t n)
{
    for (int64_t i = 0; i < n; i++) step_weight(w + i, x[i], by);
}

static HOT void add_scaled_near(int16_t *w, uint64_t near, int32_t by)
{
    for (int i = 0; i < NEIGHBOURS; i++) step_weight(w + i, near_level(near, i), by);
}
#endif

static HOT uint32_t bytes4(const int8_t *x)
{
    const uint8_t *u = (const uint8_t *)x;
    return (uint32_t)u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
}

/* `trail` holds the levels of this row so far, the last in the lowest byte. */
static HOT prediction predict(const field *f, const int guessed, uint32_t trail, int64_t r, int64_t c)
{
    prediction p;
    uint64_t near = (trail & 0xffff) | (uint64_t)(bytes4(f->up8 + c - 1) & 0x00ff00ffu) << 32;
    if (f->kernel > 1) {
        const int8_t *back = f->here8 - f->kernel, *back2 = back - f->kernel;
        near |= (uint64_t)(uint8_t)back[c] << 16 | (uint64_t)(uint8_t)back2[c] << 24;
    }
    if (guessed) near = near << 8 >> 8 | (uint64_t)(uint8_t)guess8(f->tensor->guess[r * f->cols + c]) << 56;
    p.near = near;
    int64_t active = f->power[c] ? f->active : 0; /* products with zeros are none */
    p.value = weighted(f->weight, f->history + c * f->stride, active, f->near_weight, near) >> 4;
    return p;
}

/* Learns from a level, unless it is zero and was expected to be. */
static HOT void adapt(field *f, int64_t c, const prediction *p, int32_t level)
{
    if (level == 0 && p->value > -128 && p->value < 128) return;
    const int32_t most = 1 << 20, norm = (int32_t)f->power[c] + near_power(p->near);
    int32_t error = level * 256 - p->value;
    error = error > most ? most : error < -most ? -most : error;
    int32_t by = error * RATE / (1 + norm);
    by = by > 32767 ? 32767 : by < -32767 ? -32767 : by;
    add_scaled(f->weight, f->history + c * f->stride, by, f->active);
    add_scaled_near(f->near_weight, p->near, by);
}

static HOT void begin_row(field *f, int64_t r)
{
    f->active = f->guessed + ((r < f->window ? r : f->window) + 15) / 16 * 16;
    memset(f->weight, 0, (size_t)f->stride * sizeof *f->weight);
    f->inverse = ((uint64_t)1 << 32) / (uint64_t)(f->general >> 4);
}

/* What the row before lets a column expect: magnitudes around it, twice the one in the middle; in the fast preset
 * those together with the column's mean, Q12. */
static HOT int32_t above_of(const int fast, int32_t around, int32_t mean)
{
    return fast ? (8 * mean + 16 * LEFT * least(around, 4096)) >> 4 : around;
}

/* Takes the row into history and means, and makes room for the next. Not after the last row, which has no slot in
 * history. */
static HOT void end_row(field *f, const int fast, int64_t r, int empty)
{
    const int32_t *here = f->here, rate = column_rate[r < 14 ? r : 14];
    int64_t sum = 0;
    for (int64_t c = 0; c < f->cols; c++) {
        int32_t capped = least(magnitude(here[c]), CAP), mean = f->column[c];
        mean += ((capped << 12) - mean) * rate >> 12;
        f->column[c] = mean = mean < 16 ? 16 : mean;
        f->above[c] = above_of(fast, magnitude(here[c - 1]) + 2 * magnitude(here[c]) + magnitude(here[c + 1]), mean);
        sum += capped;
    }
    int8_t *cell = f->history + f->guessed + r % f->window;
    const int over_old = r >= f->window;
    for (int64_t c = 0; c < f->cols; c++, cell += f->stride) {
        int32_t now = f->here8[c], old;
        if (!over_old && !now) continue; /* zeros lie there already */
        old = *cell;
        f->power[c] += (uint32_t)(now * now - old * old);
        *cell = (int8_t)now;
    }
    int64_t past = 100 + r * f->cols;
    if (past > 400) past = 400;
    f->general = (f->general * past + sum * 65536) / (past + f->cols);
    if (f->general < 1024) f->general = 1024;
    f->after_empty = empty;
    int32_t *oldest = f->up2;
    f->up2 = f->up;
    f->up = f->here;
    f->here = oldest;
    int8_t *row = f->up8;
    f->up8 = f->here8;
    f->here8 = row;
}

#endif
