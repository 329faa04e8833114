/* Rate-distortion quantisation, at the prices of the model that will code the result. Encoder only: free to change.
 *
 * With a trellis: the Viterbi algorithm over its states (trellis-coded quantisation, Marcellin and Fischer 1990, in the
 * form of dependent quantisation, Schwarz et al. 2019), with contexts that follow the best path so far. Without: the
 * cheapest of the two nearest levels and zero, one after the other.
 */
#ifndef SLIMCODEC_QUANTISE_H
#define SLIMCODEC_QUANTISE_H

#include <stdint.h>
#include <string.h>

#include "hot.h"
#include "level.h"

enum { PRICED = 4 }; /* bins with prices of their own; above, every further index costs as much as the last */

static const float NEVER = 1e30f;
static const float TOO_SMALL = 0.3f; /* steps, below which only zero is tried */
static const float ROUND_UP = 0.42f; /* far from zero prices hardly differ, and rounding does */

/* Bits that an event of probability p / 65536 costs. */
static HOT float price_of(const stream *z, uint32_t p) { return z->model->price[p >> PRICE_SHIFT]; }

typedef struct {
    float index[PRICED];
    float further;
} prices;

static HOT float price_of_index(const prices *p, int32_t k)
{
    return k < PRICED ? p->index[k] : p->index[PRICED - 1] + p->further * (float)(least(k, 12) - PRICED + 1);
}

static HOT prices price_indices(const stream *z, const int inputs, const contexts *x, int32_t quantiser, int32_t top)
{
    prices p = {{0}, 1};
    float so_far = 0;
    for (int32_t bin = 0; bin <= top && bin < PRICED; bin++) {
        mixture y = index_mixture(z->model, x, inputs, bin, quantiser);
        uint32_t one = inputs == 1 ? clipped(y.state[0]->one) : mix(z->model, &y, inputs);
        p.index[bin] = so_far + price_of(z, 65536 - one);
        p.further = price_of(z, one);
        so_far += p.further;
    }
    return p;
}

static HOT float price_of_sign(const stream *z, const int inputs, const contexts *x, int negative)
{
    mixture y = sign_mixture(z->model, x, inputs, 1);
    uint32_t one = inputs == 1 ? clipped(y.state[0]->one) : mix(z->model, &y, inputs);
    return price_of(z, negative ? one : 65536 - one);
}

/* A finite magnitude that an index can hold. */
static HOT float size_of(float value)
{
    float a = value < 0 ? -value : value;
    return a < SLIMCODEC_MAX_LEVEL - 2 ? a : SLIMCODEC_MAX_LEVEL - 2;
}

static HOT int32_t greedy(const stream *z, const int inputs, const contexts *x, float value)
{
    float a = size_of(value);
    if (a < 0.5f) return 0;
    int32_t low = (int32_t)a, chosen = 0;
    if (low > PRICED) {
        chosen = (int32_t)(a + ROUND_UP);
    } else {
        prices p = price_indices(z, inputs, x, 0, low + 1);
        float sign = price_of_sign(z, inputs, x, value < 0);
        float best = low > 1 ? NEVER : a * a + z->lambda * p.index[0];
        for (int32_t k = low > 1 ? low : 1; k <= low + 1; k++) {
            float d = a - (float)k, total = d * d + z->lambda * (price_of_index(&p, k) + sign);
            if (total < best) {
                best = total;
                chosen = k;
            }
        }
    }
    return value < 0 ? -chosen : chosen;
}

/* The best level of either parity of index under one quantiser. */
typedef struct {
    float cost[2];
    int32_t size[2];
} branch;

static HOT branch branch_of(const stream *z, const int inputs, const contexts *x, int32_t quantiser, float value)
{
    float a = size_of(value);
    branch b = {{NEVER, NEVER}, {0, 0}};
    if (a < TOO_SMALL) {
        prices p = price_indices(z, inputs, x, quantiser, 0);
        b.cost[0] = a * a + z->lambda * p.index[0];
        return b;
    }
    int32_t low = (int32_t)((a + (float)quantiser) * 0.5f);
    prices p = price_indices(z, inputs, x, quantiser, least(low + 1, PRICED - 1));
    float sign = price_of_sign(z, inputs, x, value < 0);
    if (low <= 2) b.cost[0] = a * a + z->lambda * p.index[0];
    for (int32_t k = low ? low : 1; k <= low + 1; k++) {
        int32_t size = 2 * k - quantiser;
        float d = a - (float)size, total = d * d + z->lambda * (price_of_index(&p, k) + sign);
        if (total < b.cost[k & 1]) {
            b.cost[k & 1] = total;
            b.size[k & 1] = size;
        }
    }
    return b;
}

/* next_state the other way round: the state and the parity that lead here, and the other state, by the other parity. */
static const uint8_t from_state[8][3] = {{0, 0, 4}, {2, 0, 6}, {0, 1, 4}, {2, 1, 6},
                                         {3, 1, 5}, {1, 0, 7}, {3, 0, 5}, {1, 1, 7}};

/* Writes the levels of row `r`, whose first element meets state `start`; leaves the field as it was. */
static HOT void quantise_row(const stream *z, const int inputs, field *f, int64_t r, int32_t start)
{
    const float *values = f->tensor->values + r * f->cols;
    int32_t *levels = f->tensor->levels + r * f->cols;
    int16_t near_before[NEIGHBOURS];
    memcpy(near_before, f->near_weight, sizeof near_before);

    course w = start_course(f);
    float cost[8];
    for (int s = 0; s < 8; s++) cost[s] = s == start ? 0 : NEVER;
    for (int64_t c = 0; c < f->cols; c++) {
        prediction p = predict(f, inputs == 6, w.trail, r, c);
        contexts x = contexts_of(z->model, f, &w, &p, r, c, inputs);
        branch b[2] = {branch_of(z, inputs, &x, 0, values[c]), branch_of(z, inputs, &x, 1, values[c])};
        float next[8];
        int32_t *path = f->path + 8 * c;
        for (int32_t to = 0; to < 8; to++) {
            const int32_t s = from_state[to][0], odd = from_state[to][1], s2 = from_state[to][2];
            float total = cost[s] + b[s & 1].cost[odd], total2 = cost[s2] + b[s2 & 1].cost[1 - odd];
            int32_t step = b[s & 1].size[odd] * 8 + s, step2 = b[s2 & 1].size[1 - odd] * 8 + s2;
            next[to] = total2 < total ? total2 : total;
            path[to] = total2 < total ? step2 : step;
        }
        int32_t best = 0;
        for (int32_t s = 1; s < 8; s++)
            if (next[s] < next[best]) best = s;
        for (int32_t s = 0; s < 8; s++) cost[s] = next[s] - next[best]; /* only differences matter */
        int32_t level = values[c] < 0 ? -(path[best] >> 3) : path[best] >> 3;
        adapt(f, c, &p, level);
        advance(f, &w, c, level, p.value);
    }
    int32_t state = 0;
    for (int32_t s = 1; s < 8; s++)
        if (cost[s] < cost[state]) state = s;
    for (int64_t c = f->cols - 1; c >= 0; c--) {
        int32_t step = f->path[8 * c + state];
        levels[c] = values[c] < 0 ? -(step >> 3) : step >> 3;
        state = step & 7;
    }
    memset(f->weight, 0, (size_t)f->stride * sizeof *f->weight);
    memcpy(f->near_weight, near_before, sizeof near_before);
}

#endif
