/* The coder, compiled for each instruction set. All give the same bytes. */
#ifndef SLIMCODEC_CODERS_H
#define SLIMCODEC_CODERS_H

#include "slimcodec.h"

/* 0 on the command line leaves AVX2 out. */
#ifndef SLIMCODEC_HAS_AVX2
#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define SLIMCODEC_HAS_AVX2 1
#else
#define SLIMCODEC_HAS_AVX2 0
#endif
#endif

int64_t slimcodec_encode_any(const slimcodec_tensor *tensors, int64_t count, int32_t preset, float lambda,
                             uint8_t *out, int64_t capacity);
int32_t slimcodec_decode_any(const slimcodec_tensor *tensors, int64_t count, int32_t preset, const uint8_t *data,
                             int64_t size);
#if SLIMCODEC_HAS_AVX2
int64_t slimcodec_encode_avx2(const slimcodec_tensor *tensors, int64_t count, int32_t preset, float lambda,
                              uint8_t *out, int64_t capacity);
int32_t slimcodec_decode_avx2(const slimcodec_tensor *tensors, int64_t count, int32_t preset, const uint8_t *data,
                              int64_t size);
#endif

#endif
