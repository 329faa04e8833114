/* The contexts of an element: what is known of its magnitude and of its sign. */
#ifndef SLIMCODEC_CONTEXT_H
#define SLIMCODEC_CONTEXT_H

#include <stdint.h>

#include "hot.h"
#include "model.h"
#include "predict.h"

enum {
    RUN = 8,
    SURE = 63488      /* 31/32: zeros at least so probable are coded together */
};

/* What changes along a row. */
typedef struct {
    int32_t energy;              /* mean magnitude in this row, Q12 */
    int32_t miss;                /* mean error of the prediction, Q12 */
    int32_t seen;
    int32_t drift;               /* mean sign, Q8 */
    int32_t left, left2, left3;  /* magnitudes */
    uint32_t trail;              /* the last levels, clipped to bytes, the very last in the lowest */
} course;

typedef struct {
    int32_t index[INPUTS];       /* context of each input, for the bins of the index */
    int32_t sign[INPUTS];
    int32_t set;                 /* of mixer weights */
    int32_t half, ahead;         /* of the prediction: half octave, and whether it is not negative */
} contexts;

/* 8192 / (2 n + 3) */
static const int32_t row_rate[25] = {2730, 1638, 1170, 910, 744, 630, 546, 481, 431, 390, 356, 327, 303, 282, 264,
                                     248, 234, 221, 210, 199, 190, 182, 174, 167, 160};

static HOT int32_t ternary(int32_t v) { return v > 0 ? 1 : v < 0 ? 2 : 0; }

static HOT int32_t direction_of(const contexts *x) { return x->ahead ? 16 + x->half : 15 - x->half; }

static HOT course start_course(const field *f)
{
    return (course){.energy = (int32_t)(f->general >> 4), .miss = (int32_t)(f->general >> 4), .seen = 2};
}

static HOT contexts contexts_of(const model *m, const field *f, const course *w, const prediction *p, int64_t r,
                                int64_t c, const int inputs)
{
    contexts x;
    uint32_t guess = (uint32_t)magnitude(p->value);
    int32_t half = least(octave2(m, guess), 15);
    x.half = half;
    x.ahead = p->value >= 0;
    if (inputs == 1) {
        uint32_t blend = (uint32_t)(f->above[c] + LEFT * (2 * w->left + w->left2));
        x.index[0] = half * 24 + least(octave2(m, blend >> 4), 23);
        x.set = 0;
        return x;
    }
    /* The magnitude to expect: of row and column as if they were independent, and of the neighbourhood. Q12. */
    uint64_t apart = ((uint64_t)w->energy * (uint64_t)f->column[c] >> 16) * f->inverse >> 16;
    if (apart > 1 << 24) apart = 1 << 24;
    uint32_t around = (uint32_t)(2 * w->left + w->left2 + f->above[c]);
    uint32_t blend = (uint32_t)((10 * apart + 6 * (uint64_t)(around * 585)) >> 4);

    const int32_t *here = f->here + c, *up = f->up + c;
    int32_t back = f->kernel > 1 && c >= f->kernel ? here[-f->kernel] : 0;
    int32_t direction = direction_of(&x), miss = least(octave4((uint32_t)(w->miss >> 4)) / 3, 15);
    int32_t row = least(octave4((uint32_t)(w->energy >> 4)) >> 1, 23);
    int32_t column = least(octave4((uint32_t)f->column[c] >> 4) >> 1, 23);
    int32_t both = least(octave4((uint32_t)(apart >> 4)) >> 1, 23);
    x.index[0] = least(octave4(guess), 47) * 16 + miss;
    x.index[1] = least(octave4(blend >> 4), 63);
    x.index[2] = least(magnitude(up[0]), 4) * 24 + column;
    x.index[3] = least(w->left, 5) * 72 + least(w->left2, 3) * 18 + least(w->left3, 2) * 6 + least(row / 3, 5);
    x.index[4] = half * 24 + both;
    x.set = both >> 1;
    x.sign[0] = direction * 8 + (miss >> 1);
    x.sign[1] = least((w->drift + 256) >> 5, 15);
    x.sign[2] = ternary(up[0]) * 3 + ternary(f->up2[c]);
    x.sign[3] = ternary(here[-1]) * 3 + ternary(back);
    x.sign[4] = direction;
    if (inputs == 6) {
        int32_t known = f->tensor->guess[r * f->cols + c];
        int32_t size = least(octave4((uint32_t)least(magnitude(known), 1 << 20)) >> 1, 15);
        x.index[5] = size * 24 + both;
        x.sign[5] = (known >= 0) * 16 + size;
    }
    return x;
}

/* Of the fast preset: which state says whether the next RUN levels are zeros. */
static HOT int32_t run_context(const field *f, const course *w, int64_t c)
{
    int32_t beside = 2 * w->left + w->left2;
    uint32_t sum = (uint32_t)(3 * LEFT * beside);
    for (int i = 0; i < RUN; i++) sum += (uint32_t)f->above[c + i];
    return 2 * least(octave4(sum >> 7) >> 1, RUNS / 2 - 1) + (beside > 0);
}

/* Takes note of a level. */
static HOT void advance(field *f, course *w, int64_t c, int32_t level, int32_t predicted)
{
    int32_t m = magnitude(level);
    w->energy += ((least(m, CAP) << 12) - w->energy) * row_rate[w->seen] >> 12;
    if (w->energy < 16) w->energy = 16;
    if (w->seen < 24) w->seen++;
    int32_t miss = magnitude(level * 256 - predicted);
    w->miss += (least(miss, 1 << 17) * 16 - w->miss) >> 4;
    if (level) w->drift += ((level > 0 ? 256 : -256) - w->drift) >> 3;
    w->left3 = w->left2;
    w->left2 = w->left;
    w->left = m;
    f->here[c] = level;
    f->here8[c] = clip8(level);
    w->trail = w->trail << 8 | (uint8_t)f->here8[c];
}

#endif
