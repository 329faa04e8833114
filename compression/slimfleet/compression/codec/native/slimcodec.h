/* The C interface of the native coder. Plain C11: no Python headers, no libm, no hidden allocation. */
#ifndef SLIMCODEC_H
#define SLIMCODEC_H

#include <stdint.h>

#if defined(_WIN32)
#define SLIMCODEC_API __declspec(dllexport)
#else
#define SLIMCODEC_API __attribute__((visibility("default")))
#endif

/* Raised whenever a function below changes its meaning or its arguments; library.py has the same number. */
#define SLIMCODEC_ABI 1

SLIMCODEC_API uint32_t slimcodec_abi(void);

#endif
