/* Whole tensors through the coder. Each file that includes this is compiled for its own instruction set, and says with
 * CODER(name) what its two functions are called. */
#ifndef SLIMCODEC_CODER_H
#define SLIMCODEC_CODER_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "hot.h"
#include "level.h"
#include "model.h"
#include "predict.h"
#include "quantise.h"
#include "range.h"
#include "slimcodec.h"

static const int64_t FLAGGED_FROM = 8;   /* rows at least this long begin with a flag: all zeros */
static const float SURELY_ZERO = 0.6f;   /* a row of smaller values is left out before the prices are known */

/* Whether a run is to be zeros: levels, or values too small to be worth a level. */
static HOT int run_is_empty(const int32_t *levels, const float *values)
{
    int empty = 1;
    for (int i = 0; i < RUN; i++)
        if (values ? __builtin_fabsf(values[i]) >= SURELY_ZERO : levels[i] != 0) empty = 0;
    return empty;
}

static HOT void skip_run(field *f, course *w, int32_t *levels, int64_t c)
{
    memset(levels + c, 0, RUN * sizeof *levels);
    memset(f->here + c, 0, RUN * sizeof *f->here);
    memset(f->here8 + c, 0, RUN);
    w->left = w->left2 = 0;
    w->trail = 0;
}

static HOT int32_t code_row(const stream *shared, const int inputs, const int guessed, const int decoding,
                            const field *row_of, int64_t r, int32_t state)
{
    const int32_t states = inputs == 1 ? 1 : row_of->tensor->states;
    const float *values = row_of->tensor->values;
    int32_t *levels = row_of->tensor->levels + r * row_of->cols;
    const int choosing = !decoding && values && states == 1;
    course w = start_course(row_of);
    /* Copies, so that the range coder stays in registers, and what the field holds is not loaded again after every store
     * of a byte, which for all that a compiler knows could have changed it. */
    encoder out = decoding ? (encoder){0} : *shared->out;
    decoder in = decoding ? *shared->in : (decoder){0};
    const stream own = {&out, &in, shared->model, shared->lambda}, *z = &own;
    field copy = *row_of, *f = &copy;
    for (int64_t c = 0; c < f->cols;) {
        bit_state *unasked = NULL;
        int32_t any = 0;
        int64_t end = f->cols;
        if (inputs == 1 && c + RUN <= f->cols) {
            end = c + RUN;
            bit_state *state_of_run = &z->model->empty_run[run_context(f, &w, c)];
            if (state_of_run->one < SURE) {
                unasked = state_of_run;
            } else {
                int empty = decoding ? 0 : run_is_empty(levels + c, choosing ? values + r * f->cols + c : NULL);
                if (code_alone(z, decoding, state_of_run, empty, QUICK)) {
                    skip_run(f, &w, levels, c);
                    c = end;
                    continue;
                }
            }
        }
        for (; c < end; c++) {
            prediction p = predict(f, guessed, w.trail, r, c);
            contexts x = contexts_of(z->model, f, &w, &p, r, c, inputs);
            if (choosing) levels[c] = greedy(z, inputs, &x, values[r * f->cols + c]);
            int32_t level = code_level(z, inputs, decoding, &x, states, state, decoding ? 0 : levels[c]);
            if (decoding) levels[c] = level;
            state = state_after(states, state, level);
            adapt(f, c, &p, level);
            advance(f, &w, c, level, p.value);
            any |= level;
        }
        if (unasked) learn(z->model, unasked, any == 0, QUICK);
    }
    if (decoding) *shared->in = in;
    else *shared->out = out;
    return state;
}

/* Whether a row is all zeros: of levels, or of values too small to be worth a level. */
static int empty_row(const field *f, int64_t r)
{
    const slimcodec_tensor *t = f->tensor;
    if (t->values && t->states == 1) {
        const float *values = t->values + r * f->cols;
        for (int64_t c = 0; c < f->cols; c++)
            if (values[c] >= SURELY_ZERO || values[c] <= -SURELY_ZERO) return 0;
    } else {
        for (int64_t c = 0; c < f->cols; c++)
            if (t->levels[r * f->cols + c]) return 0;
    }
    return 1;
}

/* Returns 0, or CORRUPT. */
static HOT int32_t code_field(const stream *z, const int inputs, const int guessed, const int decoding, field *f)
{
    const slimcodec_tensor *t = f->tensor;
    int32_t state = 0;
    for (int64_t r = 0; r < f->rows; r++) {
        begin_row(f, r);
        if (!decoding && inputs > 1 && t->values && t->states == 8) quantise_row(z, inputs, f, r, state);
        int empty = 0;
        if (f->cols >= FLAGGED_FROM) {
            if (!decoding) empty = empty_row(f, r);
            empty = code_alone(z, decoding, &z->model->empty_row[f->after_empty], empty, QUICKER);
        }
        if (empty) {
            memset(f->here, 0, (size_t)f->cols * sizeof *f->here);
            memset(f->here8, 0, (size_t)f->cols);
            memset(t->levels + r * f->cols, 0, (size_t)f->cols * sizeof *t->levels);
        } else {
            state = code_row(z, inputs, guessed, decoding, f, r, state);
            if (decoding && z->in->too_large) return SLIMCODEC_CORRUPT;
        }
        if (r + 1 < f->rows) end_row(f, inputs == 1, r, empty);
    }
    return 0;
}

/* The magnitude, Q16, that a class of octave4 begins with; from 1/64 to CAP. */
static int64_t general_of(int32_t start)
{
    int32_t v = start + 8;
    int64_t general = ((((int64_t)4 | (v & 3)) << ((v >> 2) - 2)) - 4) * 256;
    return general < 1024 ? 1024 : general > CAP << 16 ? CAP << 16 : general;
}

/* Everything that a tensor needs lies in one block, which the caller frees; NULL without memory. */
static void *open_field(field *f, const slimcodec_tensor *t, int64_t window, int quantising)
{
    memset(f, 0, sizeof *f);
    f->tensor = t;
    f->rows = t->rows;
    f->cols = t->cols;
    f->kernel = t->kernel;
    f->window = window;
    f->general = general_of(t->start);
    int64_t kept = t->rows - 1 < window ? t->rows - 1 : window; /* no row follows the last one */
    f->guessed = t->guess ? ((t->rows < window ? t->rows : window) + 15) / 16 * 16 : 0;
    f->stride = f->guessed + (kept + 15) / 16 * 16;
    size_t cols = (size_t)t->cols, wide = cols + 2 * MARGIN;
    size_t words = quantising ? 14 : 6; /* a column, besides the margins; its bytes: history and, at most, 6 */
    if (cols > SIZE_MAX / 2 / (words * sizeof(int32_t) + (size_t)f->stride + 6)) return NULL;
    size_t narrow = cols + 2 * (size_t)t->kernel + 2 * MARGIN;
    size_t bytes = (cols + sizeof(int16_t)) * (size_t)f->stride + NEIGHBOURS * sizeof(int16_t) + 2 * narrow;
    int32_t *block = calloc((6 * MARGIN + words * cols) * sizeof *block + bytes, 1);
    if (!block) return NULL;
    int32_t *at = block;
    f->here = at + MARGIN;
    f->up = (at += wide) + MARGIN;
    f->up2 = (at += wide) + MARGIN;
    f->power = (uint32_t *)(at += wide);
    f->column = at += cols;
    f->above = at += cols;
    at += cols;
    if (quantising) {
        f->path = at;
        at += 8 * cols;
    }
    f->weight = (int16_t *)at;
    f->near_weight = f->weight + f->stride;
    f->history = (int8_t *)(f->near_weight + NEIGHBOURS);
    f->here8 = f->history + cols * (size_t)f->stride + 2 * (size_t)t->kernel + MARGIN;
    f->up8 = f->here8 + narrow;
    for (size_t c = 0; c < cols; c++) {
        f->column[c] = (int32_t)(f->general >> 4);
        f->above[c] = above_of(window == FAST_WINDOW, 0, f->column[c]);
    }
    for (int64_t r = 0; t->guess && r < t->rows && r < window; r++) {
        for (size_t c = 0; c < cols; c++) {
            int8_t level = guess8(t->guess[r * t->cols + (int64_t)c]);
            f->history[(int64_t)c * f->stride + r] = level;
            f->power[c] += (uint32_t)(level * level);
        }
    }
    return block;
}

/* All tensors, in either direction. Returns 0, NO_MEMORY or CORRUPT. */
static HOT int32_t code_tensors(const slimcodec_tensor *tensors, int64_t count, int32_t preset, const int decoding,
                                stream *z)
{
    z->model = malloc(sizeof *z->model);
    if (!z->model) return SLIMCODEC_NO_MEMORY;
    model_start(z->model, preset != SLIMCODEC_FAST, !decoding);
    int32_t status = 0;
    for (int64_t i = 0; i < count && !status; i++) {
        const slimcodec_tensor *t = &tensors[i];
        if (t->rows <= 0 || t->cols <= 0) continue;
        if (t->start == 0) {
            memset(t->levels, 0, (size_t)(t->rows * t->cols) * sizeof *t->levels);
            continue;
        }
        field f;
        void *block = open_field(&f, t, preset == SLIMCODEC_FAST ? FAST_WINDOW : WINDOW,
                                 !decoding && t->values && t->states == 8);
        if (!block) {
            status = SLIMCODEC_NO_MEMORY;
        } else if (preset == SLIMCODEC_FAST) {
            status = t->guess ? code_field(z, 1, 1, decoding, &f) : code_field(z, 1, 0, decoding, &f);
        } else {
            status = t->guess ? code_field(z, 6, 1, decoding, &f) : code_field(z, 5, 0, decoding, &f);
        }
        free(block);
    }
    free(z->model);
    return status;
}

int64_t CODER(slimcodec_encode)(const slimcodec_tensor *tensors, int64_t count, int32_t preset, float lambda,
                                uint8_t *out, int64_t capacity)
{
    encoder e;
    if (capacity < 16) return SLIMCODEC_NO_ROOM;
    encoder_start(&e, out, capacity);
    stream z = {&e, NULL, NULL, lambda};
    int32_t status = code_tensors(tensors, count, preset, 0, &z);
    if (status) return status;
    int64_t size = encoder_finish(&e);
    return size < 0 ? SLIMCODEC_NO_ROOM : size;
}

int32_t CODER(slimcodec_decode)(const slimcodec_tensor *tensors, int64_t count, int32_t preset, const uint8_t *data,
                                int64_t size)
{
    decoder d;
    decoder_start(&d, data, size);
    stream z = {NULL, &d, NULL, 0};
    int32_t status = code_tensors(tensors, count, preset, 1, &z);
    if (status) return status;
    return decoder_finished(&d) ? 0 : SLIMCODEC_CORRUPT;
}

#endif
