/* The coder for whatever machine the compiler aims at. */
#define CODER(name) name##_any
#include "coders.h"

#include "coder.h"
