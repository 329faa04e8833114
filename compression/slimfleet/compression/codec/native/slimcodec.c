#include "slimcodec.h"

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

void slimcodec_tally(const int32_t *levels, const float *values, int64_t size, int32_t top, double *counts,
                     double *sums, double *squares)
{
    /* Sums of small magnitudes are taken in turns, so that no addition waits for the one before. */
    enum { TURNS = 4, SMALL = 16 };
    double small[TURNS][SMALL][3] = {{{0}}};
    for (int64_t i = 0; i < size; i++) {
        int32_t k = least(magnitude(levels[i]), top);
        double value = values[i], along = levels[i] < 0 ? -value : value;
        if (k < SMALL) {
            double *at = small[i % TURNS][k];
            at[0] += 1;
            at[1] += along;
            at[2] += value * value;
        } else {
            counts[k] += 1;
            sums[k] += along;
            squares[k] += value * value;
        }
    }
    for (int32_t k = 0; k < SMALL && k <= top; k++) {
        for (int32_t turn = 0; turn < TURNS; turn++) {
            counts[k] += small[turn][k][0];
            sums[k] += small[turn][k][1];
            squares[k] += small[turn][k][2];
        }
    }
}

uint32_t slimcodec_abi(void) { return SLIMCODEC_ABI; }
