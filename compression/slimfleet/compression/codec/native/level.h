/* Levels as bits: an index in bins, then a sign. One body for both directions, told apart at compile time. */
#ifndef SLIMCODEC_LEVEL_H
#define SLIMCODEC_LEVEL_H

#include <stdint.h>

#include "context.h"
#include "hot.h"
#include "model.h"
#include "range.h"

typedef struct {
    encoder *out;
    decoder *in;
    model *model;
    float lambda;
} stream;

/* The trellis: the next state by the parity of the index. Odd states have the odd multiples of the step. */
static const uint8_t next_state[8][2] = {{0, 2}, {5, 7}, {1, 3}, {6, 4}, {2, 0}, {4, 6}, {3, 1}, {7, 5}};

static HOT int code_bit(const stream *z, const int decoding, int bit, uint32_t one)
{
    if (decoding) return decode_bit(z->in, one);
    encode_bit(z->out, bit, one);
    return bit;
}

static HOT int code_alone(const stream *z, const int decoding, bit_state *state, int bit, int32_t limit)
{
    bit = code_bit(z, decoding, bit, clipped(state->one));
    learn(z->model, state, bit, limit);
    return bit;
}

static HOT int code_mixed(const stream *z, const int inputs, const int decoding, mixture *x, int bit)
{
    if (inputs == 1) return code_alone(z, decoding, x->state[0], bit, QUICK);
    bit = code_bit(z, decoding, bit, mix(z->model, x, inputs));
    mix_learn(z->model, x, bit, inputs);
    return bit;
}

static HOT mixture index_mixture(model *m, const contexts *x, const int inputs, int32_t bin, int32_t quantiser)
{
    mixture y;
    bit_state *states = m->index[QUANTISERS * bin + quantiser];
    for (int i = 0; i < inputs; i++) y.state[i] = states + first_context[i] + x->index[i];
    y.weight = m->weight[(QUANTISERS * least(bin, 3) + quantiser) * 16 + x->set];
    return y;
}

static HOT mixture sign_mixture(model *m, const contexts *x, const int inputs, int32_t index)
{
    mixture y;
    int32_t size = least(index, 7);
    if (inputs == 1) {
        y.state[0] = &m->sign[0][direction_of(x)];
        return y;
    }
    for (int i = 0; i < inputs; i++) y.state[i] = &m->sign[i][x->sign[i] + (i == 4 ? size * 32 : 0)];
    y.weight = m->weight[MIXER_SETS + size];
    return y;
}

/* Unary below UNARY, then the exponent of what is over in unary, then its other bits. One beyond `most` is only noted:
 * the decoder checks after every row, and until then nothing overflows, since exponents are bounded. */
static HOT int32_t code_index(const stream *z, const int inputs, const int decoding, const contexts *x,
                              int32_t quantiser, int32_t most, int32_t index)
{
    for (int32_t bin = 0; bin < UNARY; bin++) {
        mixture y = index_mixture(z->model, x, inputs, bin, quantiser);
        if (!code_mixed(z, inputs, decoding, &y, index > bin)) return bin;
    }
    uint32_t over = decoding ? 1 : (uint32_t)(index - UNARY + 1);
    int32_t length = 31 ^ __builtin_clz(over), exponent = 0;
    for (; exponent < SUFFIXES - 1; exponent++) {
        mixture y = index_mixture(z->model, x, inputs, UNARY + least(exponent, EXPONENTS - 1), quantiser);
        if (!code_mixed(z, inputs, decoding, &y, length > exponent)) break;
    }
    uint32_t value = 1;
    for (int32_t i = exponent - 1; i >= 0; i--) {
        int bit = (int)(over >> i & 1);
        if (i == exponent - 1) bit = code_alone(z, decoding, &z->model->suffix[exponent], bit, QUICK);
        else bit = code_bit(z, decoding, bit, 32768);
        value = value << 1 | (uint32_t)bit;
    }
    index = UNARY - 1 + (int32_t)value;
    if (decoding && index > most) z->in->too_large = 1;
    return index;
}

static HOT int32_t code_level(const stream *z, const int inputs, const int decoding, const contexts *x,
                              int32_t states, int32_t state, int32_t level)
{
    int32_t quantiser = states == 8 ? state & 1 : 0, m = magnitude(level);
    int32_t index = states == 8 ? (m + quantiser) / 2 : m;
    int32_t most = states == 8 ? (SLIMCODEC_MAX_LEVEL + quantiser) / 2 : SLIMCODEC_MAX_LEVEL;
    index = code_index(z, inputs, decoding, x, quantiser, most, index);
    if (index == 0) return 0;
    mixture y = sign_mixture(z->model, x, inputs, index);
    int negative = code_mixed(z, inputs, decoding, &y, level < 0);
    m = states == 8 ? 2 * index - quantiser : index;
    return negative ? -m : m;
}

static HOT int32_t state_after(int32_t states, int32_t state, int32_t level)
{
    return states == 8 ? next_state[state][((magnitude(level) + (state & 1)) / 2) & 1] : 0;
}

#endif
