/* The C interface of the native coder: integers on a grid to bytes and back, and the quantiser that knows their price.
 *
 * docs/wire-format.md is the contract of the decoder, which uses integers only: the same bytes give the same levels on
 * every machine. Plain C11 without Python, libm or state between calls, so that the same files build into any client.
 */
#ifndef SLIMCODEC_H
#define SLIMCODEC_H

#include <stdint.h>

#if defined(_WIN32)
#define SLIMCODEC_API __declspec(dllexport)
#else
#define SLIMCODEC_API __attribute__((visibility("default")))
#endif

/* Raised whenever a function below changes its meaning or its arguments; library.py has the same number. */
#define SLIMCODEC_ABI 5

/* Magnitudes of levels are at most this. */
#define SLIMCODEC_MAX_LEVEL 32767

enum { SLIMCODEC_FAST = 0, SLIMCODEC_SMALL = 1 };

enum { SLIMCODEC_INTEGERS = 0, SLIMCODEC_FLOATS = 1 };

enum {
    SLIMCODEC_NO_MEMORY = -1,
    SLIMCODEC_NO_ROOM = -2,  /* the output is too small */
    SLIMCODEC_CORRUPT = -3   /* the bytes cannot be what was encoded */
};

/* A tensor as the coder sees it: a matrix, row by row. */
typedef struct {
    int64_t rows, cols;
    int64_t kernel;       /* elements of a convolution's window, which repeats along a row; 1 where there is none */
    int32_t states;       /* of the trellis: 1 (levels are free) or 8 (levels follow docs/wire-format.md) */
    int32_t start;        /* class of the mean magnitude, at most 63; 0: all levels are zero, nothing is coded */
    int32_t *levels;      /* rows * cols: read by the encoder, written by the decoder and the quantiser */
    float *values;        /* encoder: what to quantise, in steps; NULL to code `levels` as they are */
    const int32_t *guess; /* rows * cols: a guess that both ends know, in levels * 256, within +-2**20; or NULL */
} slimcodec_tensor;

/* Codes `count` tensors into `out`. Those with values are quantised first, at the price of `lambda` squared steps a
 * bit. Returns the number of bytes, or NO_MEMORY or NO_ROOM. */
SLIMCODEC_API int64_t slimcodec_encode(const slimcodec_tensor *tensors, int64_t count, int32_t preset, float lambda,
                                       uint8_t *out, int64_t capacity);

/* Reads back what slimcodec_encode wrote. Whatever the bytes are, it ends in time linear in the elements and stays
 * inside its arrays, and returns 0 only if all levels are within +-SLIMCODEC_MAX_LEVEL and the bytes end where the
 * encoder's would; else NO_MEMORY or CORRUPT. Memory besides: 0.3 MB, and for one tensor at a time 20 bytes a column
 * and a byte for each level of up to 256 rows, twice with a guess. The tensors are not checked: that is the caller's
 * part. */
SLIMCODEC_API int32_t slimcodec_decode(const slimcodec_tensor *tensors, int64_t count, int32_t preset,
                                       const uint8_t *data, int64_t size);

/* The class of the mean magnitude of `levels`, for `start`: 0 where all are zero, else 1..63. */
SLIMCODEC_API int32_t slimcodec_start_class(const int32_t *levels, int64_t size);

/* The same for the levels that `values` (in steps) will have, before they are quantised. */
SLIMCODEC_API int32_t slimcodec_expected_class(const float *values, int64_t size);

/* out[i] = sign(level) * float32((256 * |level| + offset) * unit), offset = offsets[min(|level|, count) - 1]. */
SLIMCODEC_API void slimcodec_dequantise(const int32_t *levels, int64_t size, float unit, const int16_t *offsets,
                                        int32_t count, float *out);

/* For magnitudes 0, 1 .. and from SLIMCODEC_TALLIED - 1 on: how many levels there are, and the sums of r and of r squared,
 * where r is how far weight / step lies beyond its level, away from zero. Adds to `tally`, SLIMCODEC_TALLIED x 3. */
enum { SLIMCODEC_TALLIED = 10 };
SLIMCODEC_API void slimcodec_tally(const int32_t *levels, const float *weights, float step, int64_t size,
                                   double *tally);

/* One trial of a search for a step: quantises the weights of all tensors, one after the other in `weights`, codes them as
 * slimcodec_encode does, and tallies them. Tensors with `values`, which are overwritten, take `step` and the price
 * `lambda`; those without go to the nearest multiple of `fine_step`. Fills in `start`. `tally`, 2 x SLIMCODEC_TALLIED x 3,
 * is overwritten: first of those with values, then of those without. */
SLIMCODEC_API int64_t slimcodec_quantise(slimcodec_tensor *tensors, int64_t count, int32_t preset, float lambda,
                                         const float *weights, float step, float fine_step, uint8_t *out,
                                         int64_t capacity, double *tally);

/* How many of `values` have each exponent and first three bits of the mantissa, and the sums of their squares: adds to
 * `counts` and `squares`, SLIMCODEC_SPREAD numbers each. */
enum { SLIMCODEC_SPREAD = 2048 };
SLIMCODEC_API void slimcodec_spread(const float *values, int64_t size, double *counts, double *squares);

/* Packs `count` elements of `width` bytes (1, 2, 4 or 8, little-endian), integers or floats, by planes. Returns the number
 * of bytes, NO_MEMORY or NO_ROOM. `capacity` needs, for every 2**16 elements begun, 64 bytes and a bit an element besides
 * the elements themselves, for integers twice as much. */
SLIMCODEC_API int64_t slimcodec_pack_planes(const uint8_t *data, int64_t count, int32_t width, int32_t kind,
                                            uint8_t *out, int64_t capacity);

/* Reads back what slimcodec_pack_planes wrote. Whatever the bytes are, it ends in time linear in the elements and stays
 * inside its arrays; returns 0, NO_MEMORY or CORRUPT. Memory besides: 0.6 MB. */
SLIMCODEC_API int32_t slimcodec_unpack_planes(const uint8_t *data, int64_t size, uint8_t *out, int64_t count,
                                              int32_t width, int32_t kind);

SLIMCODEC_API uint32_t slimcodec_abi(void);

#endif
