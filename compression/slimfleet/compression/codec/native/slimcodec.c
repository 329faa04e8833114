#include "slimcodec.h"

#include <string.h>

#include "coders.h"
#include "context.h"

#if SLIMCODEC_HAS_AVX2
static int has_avx2(void)
{
    __builtin_cpu_init();
    /* Every extension that coder_avx2.c is compiled with; "avx2" includes that the system saves the registers. */
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
#define CHOOSE(name) (has_avx2() ? name##_avx2 : name##_any)
#else
#define CHOOSE(name) name##_any
#endif

int64_t slimcodec_encode(const slimcodec_tensor *tensors, int64_t count, int32_t preset, float lambda, uint8_t *out,
                         int64_t capacity)
{
    return CHOOSE(slimcodec_encode)(tensors, count, preset, lambda, out, capacity);
}

int32_t slimcodec_decode(const slimcodec_tensor *tensors, int64_t count, int32_t preset, const uint8_t *data,
                         int64_t size)
{
    return CHOOSE(slimcodec_decode)(tensors, count, preset, data, size);
}

static int32_t class_of(uint64_t sum, int64_t size)
{
    if (sum == 0) return 0;
    int32_t found = octave4((uint32_t)((sum << 8) / (uint64_t)size));
    return found < 1 ? 1 : found > 63 ? 63 : found;
}

/* Sums go in blocks that 32 bits hold, since compilers make vectors of such loops. */
enum { BLOCK = 1 << 20 };

int32_t slimcodec_start_class(const int32_t *levels, int64_t size)
{
    uint64_t sum = 0;
    for (int64_t begin = 0; begin < size; begin += BLOCK) {
        int64_t end = begin + BLOCK < size ? begin + BLOCK : size;
        uint32_t part = 0;
        for (int64_t i = begin; i < end; i++) part += (uint32_t)least(magnitude(levels[i]), CAP);
        sum += part;
    }
    return class_of(sum, size);
}

int32_t slimcodec_expected_class(const float *values, int64_t size)
{
    uint64_t sum = 0;
    for (int64_t begin = 0; begin < size; begin += BLOCK) {
        int64_t end = begin + BLOCK < size ? begin + BLOCK : size;
        uint32_t part = 0;
        for (int64_t i = begin; i < end; i++) {
            float a = __builtin_fabsf(values[i]);
            part += (uint32_t)(int32_t)((a < CAP ? a : CAP) + 0.35f);
        }
        sum += part;
    }
    return class_of(sum, size);
}

static float dequantised(int32_t level, float unit, const int16_t *offsets, int32_t count)
{
    int32_t k = magnitude(level);
    int32_t factor = 256 * k + (count && k ? offsets[least(k, count) - 1] : 0);
    return (float)(level < 0 ? -factor : factor) * unit;
}

void slimcodec_dequantise(const int32_t *levels, int64_t size, float unit, const int16_t *offsets, int32_t count,
                          float *out)
{
    enum { USUAL = 128 };
    float usual[2 * USUAL];
    if (size < 4 * USUAL) {
        for (int64_t i = 0; i < size; i++) out[i] = dequantised(levels[i], unit, offsets, count);
        return;
    }
    for (int32_t k = 0; k < 2 * USUAL; k++) usual[k] = dequantised(k - USUAL, unit, offsets, count);
    for (int64_t i = 0; i < size; i++) {
        uint32_t at = (uint32_t)levels[i] + USUAL;
        out[i] = at < 2 * USUAL ? usual[at] : dequantised(levels[i], unit, offsets, count);
    }
}

void slimcodec_tally(const int32_t *levels, const float *weights, float step, int64_t size, double *tally)
{
    /* Sums are taken in turns, so that no addition waits for the one before. */
    enum { TURNS = 4 };
    double sums[TURNS][SLIMCODEC_TALLIED][3] = {{{0}}};
    for (int64_t i = 0; i < size; i++) {
        int32_t k = magnitude(levels[i]);
        double a = __builtin_fabsf(weights[i] / step), r = a - k;
        if (levels[i] != 0 && (levels[i] < 0) != (weights[i] < 0)) r = -a - k;
        double *at = sums[i % TURNS][least(k, SLIMCODEC_TALLIED - 1)];
        at[0] += 1;
        at[1] += r;
        at[2] += r * r;
    }
    for (int32_t turn = 0; turn < TURNS; turn++)
        for (int32_t k = 0; k < SLIMCODEC_TALLIED; k++)
            for (int32_t j = 0; j < 3; j++) tally[3 * k + j] += sums[turn][k][j];
}

/* The nearest level, ties to even; the least for what is no number. Adding and taking off 1.5 * 2**23 rounds what is far
 * below it to an integer. */
static int32_t nearest(float value)
{
    static const float most = SLIMCODEC_MAX_LEVEL, shift = 12582912.0f;
    float held = value > -most ? (value < most ? value : most) : -most;
    return (int32_t)((held + shift) - shift);
}

int64_t slimcodec_quantise(slimcodec_tensor *tensors, int64_t count, int32_t preset, float lambda,
                           const float *weights, float step, float fine_step, uint8_t *out, int64_t capacity,
                           double *tally)
{
    const float *w = weights;
    for (int64_t i = 0; i < count; i++) {
        slimcodec_tensor *t = &tensors[i];
        int64_t size = t->rows * t->cols;
        if (t->values) {
            for (int64_t j = 0; j < size; j++) t->values[j] = w[j] / step;
            t->start = slimcodec_expected_class(t->values, size);
        } else {
            for (int64_t j = 0; j < size; j++) t->levels[j] = nearest(w[j] / fine_step);
            t->start = slimcodec_start_class(t->levels, size);
        }
        w += size;
    }
    int64_t bytes = slimcodec_encode(tensors, count, preset, lambda, out, capacity);
    if (bytes < 0) return bytes;
    for (int32_t k = 0; k < 2 * 3 * SLIMCODEC_TALLIED; k++) tally[k] = 0;
    for (int64_t i = 0; i < count; i++) {
        const slimcodec_tensor *t = &tensors[i];
        int64_t size = t->rows * t->cols;
        slimcodec_tally(t->levels, weights, t->values ? step : fine_step, size,
                        tally + (t->values ? 0 : 3 * SLIMCODEC_TALLIED));
        weights += size;
    }
    return bytes;
}

void slimcodec_spread(const float *values, int64_t size, double *counts, double *squares)
{
    for (int64_t i = 0; i < size; i++) {
        uint32_t bits;
        memcpy(&bits, values + i, sizeof bits);
        uint32_t at = (bits & 0x7fffffff) >> 20;
        counts[at] += 1;
        squares[at] += (double)values[i] * values[i];
    }
}

uint32_t slimcodec_abi(void) { return SLIMCODEC_ABI; }
