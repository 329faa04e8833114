/* The coder for x86-64 processors with AVX2, chosen when it runs: slimcodec.c tests for each extension named here. Not
 * lzcnt: a processor without it computes something else instead of stopping, and older compilers cannot ask for it. */
#include "coders.h"

#if SLIMCODEC_HAS_AVX2
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,bmi,bmi2"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,bmi,bmi2")
#endif

#define SLIMCODEC_AVX2
#define CODER(name) name##_avx2
#include "coder.h"

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif
