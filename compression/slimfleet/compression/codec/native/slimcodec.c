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

int64_t slimcodec_encode(const slimcodec_tensor *tensors, int64_t count, int32_t profile, float lambda, uint8_t *out,
                         int64_t capacity)
{
    return CHOOSE(slimcodec_encode)(tensors, count, profile, lambda, out, capacity);
}

int32_t slimcodec_decode(const slimcodec_tensor *tensors, int64_t count, int32_t profile, const uint8_t *data,
                         int64_t size)
{
    return CHOOSE(slimcodec_decode)(tensors, count, profile, data, size);
}

static int32_t class_of(uint64_t sum, int64_t size)
{
    if (sum == 0) return 0;
    int32_t found = octave4((uint32_t)((sum << 8) / (uint64_t)size));
    return found < 1 ? 1 : found > 63 ? 63 : found;
}

int32_t slimcodec_start_class(const int32_t *levels, int64_t size)
{
    uint64_t sum = 0;
    for (int64_t i = 0; i < size; i++) sum += (uint64_t)least(magnitude(levels[i]), CAP);
    return class_of(sum, size);
}

int32_t slimcodec_expected_class(const float *values, int64_t size)
{
    uint64_t sum = 0;
    for (int64_t i = 0; i < size; i++) {
        float a = values[i] < 0 ? -values[i] : values[i];
        sum += (uint64_t)(a < CAP ? (int32_t)(a + 0.35f) : CAP);
    }
    return class_of(sum, size);
}

void slimcodec_dequantise(const int32_t *levels, int64_t size, float unit, const int16_t *offsets, int32_t count,
                          float *out)
{
    for (int64_t i = 0; i < size; i++) {
        int32_t k = magnitude(levels[i]);
        int32_t offset = count && k ? offsets[least(k, count) - 1] : 0;
        int32_t factor = 256 * k + offset;
        out[i] = (float)(levels[i] < 0 ? -factor : factor) * unit;
    }
}

void slimcodec_tally(const int32_t *levels, const float *values, int64_t size, int32_t top, double *counts,
                     double *sums, double *squares)
{
    for (int64_t i = 0; i < size; i++) {
        int32_t k = least(magnitude(levels[i]), top);
        double value = values[i];
        counts[k] += 1;
        sums[k] += levels[i] < 0 ? -value : value;
        squares[k] += value * value;
    }
}

uint32_t slimcodec_abi(void) { return SLIMCODEC_ABI; }
