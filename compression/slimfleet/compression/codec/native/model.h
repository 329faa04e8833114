/* Adaptive probabilities of bits by context, mixed in the logistic domain (after PAQ: Mahoney 2005). */
#ifndef SLIMCODEC_MODEL_H
#define SLIMCODEC_MODEL_H

#include <stdint.h>

#include "hot.h"

enum {
    INPUTS = 6,       /* contexts that are mixed; the last one only with a guess */
    UNARY = 6,        /* indices below this are unary */
    EXPONENTS = 8,    /* bins for the exponents of larger ones */
    QUANTISERS = 2,
    BINS = QUANTISERS * (UNARY + EXPONENTS),
    SIGN_CONTEXTS = 256,
    MIXER_SETS = 4 * QUANTISERS * 16,
    SIGN_SETS = 8,
    RUNS = 48,
    SUFFIXES = 17,    /* exponents are 0..16 */
    SLOW = 255,       /* observations after which a probability forgets: mixed ones, */
    QUICK = 60,       /* those that stand alone, */
    QUICKER = 30,     /* and flags of rows */
    PRICE_SHIFT = 5,
    KNOWN_OCTAVES = 1024
};

/* How many contexts each input has, and where they begin. */
enum { SIZE_0 = 768, SIZE_1 = 64, SIZE_2 = 120, SIZE_3 = 432, SIZE_4 = 384, SIZE_5 = 384 };
static const int32_t first_context[INPUTS] = {
    0, SIZE_0, SIZE_0 + SIZE_1, SIZE_0 + SIZE_1 + SIZE_2, SIZE_0 + SIZE_1 + SIZE_2 + SIZE_3,
    SIZE_0 + SIZE_1 + SIZE_2 + SIZE_3 + SIZE_4,
};
enum { CONTEXTS = SIZE_0 + SIZE_1 + SIZE_2 + SIZE_3 + SIZE_4 + SIZE_5 };

/* The probability of a 1 in 1/65536, and how often it has learned. */
typedef struct {
    uint16_t one, seen;
} bit_state;

typedef struct {
    bit_state index[BINS][CONTEXTS];
    bit_state sign[INPUTS][SIGN_CONTEXTS];
    bit_state empty_row[2], empty_run[RUNS], suffix[SUFFIXES];
    int32_t weight[MIXER_SETS + SIGN_SETS][INPUTS]; /* Q16 */
    int16_t stretch[4096];
    uint16_t rate[SLOW + 1];
    uint8_t octave2[KNOWN_OCTAVES];
    float price[(65536 >> PRICE_SHIFT) + 1]; /* of the encoder: bits by probability */
} model;

/* round(65536 / (1 + exp(-(i - 32) / 4))) */
static const uint16_t logistic[65] = {
    22,    28,    36,    47,    60,    77,    98,    126,   162,   208,   267,   342,   439,
    562,   720,   922,   1179,  1506,  1921,  2446,  3108,  3938,  4971,  6249,  7812,  9702,
    11955, 14595, 17625, 21025, 24743, 28693, 32768, 36843, 40793, 44511, 47911, 50941, 53581,
    55834, 57724, 59287, 60565, 61598, 62428, 63090, 63615, 64030, 64357, 64614, 64816, 64974,
    65097, 65194, 65269, 65328, 65374, 65410, 65438, 65459, 65476, 65489, 65500, 65508, 65514,
};

/* Quarter octaves of (v + 4) / 4, v in Q8: 0 for nothing, 24 for 1.0. */
static HOT int32_t octave4(uint32_t v)
{
    v += 4;
    int32_t e = 31 ^ __builtin_clz(v); /* 31 - clz, in one instruction where there is no lzcnt */
    return (e << 2 | (int32_t)(v >> (e - 2) & 3)) - 8;
}

/* Half octaves, looked up where they are small. */
static HOT int32_t octave2(const model *m, uint32_t v) { return v < KNOWN_OCTAVES ? m->octave2[v] : octave4(v) >> 1; }

/* Base 2, within 0.003. */
static inline float log2_of(float v)
{
    union {
        float f;
        uint32_t u;
    } x = {v};
    float whole = (float)((int32_t)(x.u >> 23) - 127);
    x.u = (x.u & 0x7fffffu) | 0x3f800000u;
    float y = x.f;
    return whole - 2.5417f + y * (4.0703f + y * (-2.0693f + y * (0.6139f - y * 0.0732f)));
}

/* 65536 / (1 + exp(-d / 256)), interpolated. */
static HOT int32_t squash(int32_t d)
{
    if (d < -2047) d = -2047;
    if (d > 2047) d = 2047;
    uint32_t at = (uint32_t)(d + 2048);
    uint32_t i = at >> 6, part = at & 63;
    return (int32_t)((logistic[i] * (64 - part) + logistic[i + 1] * part) >> 6);
}

static inline void fill(bit_state *states, int32_t count)
{
    for (int32_t i = 0; i < count; i++) states[i] = (bit_state){32768, 0};
}

/* What one context alone, that is the fast preset, needs of a new model; the mixers need more, and prices too. */
static inline void model_start(model *m, int mixing, int pricing)
{
    for (int32_t bin = 0; bin < BINS; bin++) fill(m->index[bin], mixing ? CONTEXTS : SIZE_0);
    fill(m->sign[0], mixing ? INPUTS * SIGN_CONTEXTS : SIGN_CONTEXTS);
    fill(m->empty_row, 2);
    fill(m->empty_run, RUNS);
    fill(m->suffix, SUFFIXES);
    for (uint32_t n = 0; n <= SLOW; n++) m->rate[n] = (uint16_t)(655360 / (10 * n + 16));
    if (mixing) {
        for (int32_t s = 0; s < MIXER_SETS + SIGN_SETS; s++)
            for (int32_t i = 0; i < INPUTS; i++) m->weight[s][i] = 19661; /* 0.3 */
        int32_t d = -2047;
        for (int32_t i = 0; i < 4096; i++) {
            while (d < 2047 && squash(d) < 16 * i + 8) d++;
            m->stretch[i] = (int16_t)d;
        }
    }
    for (uint32_t v = 0; v < KNOWN_OCTAVES; v++) m->octave2[v] = (uint8_t)(octave4(v) >> 1);
    for (int32_t i = 0; pricing && i <= 65536 >> PRICE_SHIFT; i++)
        m->price[i] = 16.0f - log2_of(((float)i + 0.5f) * (1 << PRICE_SHIFT));
}

static HOT uint32_t clipped(int32_t one) { return (uint32_t)(one < 32 ? 32 : one > 65504 ? 65504 : one); }

static HOT void learn(const model *m, bit_state *b, int bit, int32_t limit)
{
    int32_t error = (bit ? 65535 : 0) - (int32_t)b->one;
    b->one = (uint16_t)(b->one + ((error * (int32_t)m->rate[b->seen]) >> 16));
    if (b->seen < limit) b->seen++;
}

/* One bit under several contexts: their states, the weights that mix them, and what came of it. */
typedef struct {
    bit_state *state[INPUTS];
    int32_t *weight;
    int32_t stretched[INPUTS];
    int32_t one;
} mixture;

static HOT uint32_t mix(const model *m, mixture *x, const int inputs)
{
    int32_t sum = 0;
    for (int i = 0; i < inputs; i++) {
        x->stretched[i] = m->stretch[x->state[i]->one >> 4];
        sum += (int32_t)(((int64_t)x->weight[i] * x->stretched[i]) >> 8);
    }
    x->one = squash(sum >> 8);
    return clipped(x->one);
}

static HOT void mix_learn(const model *m, mixture *x, int bit, const int inputs)
{
    int32_t error = ((bit ? 65535 : 0) - x->one) >> 4;
    for (int i = 0; i < inputs; i++) {
        int32_t w = x->weight[i] + ((x->stretched[i] * error * 41 + 32768) >> 16);
        x->weight[i] = w > 1 << 20 ? 1 << 20 : w < -(1 << 20) ? -(1 << 20) : w;
        learn(m, x->state[i], bit, SLOW);
    }
}

#endif
