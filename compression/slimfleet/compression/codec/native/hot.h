/* Functions of the inner loop, which are worth nothing unless they are inlined into it. */
#ifndef SLIMCODEC_HOT_H
#define SLIMCODEC_HOT_H

#define HOT inline __attribute__((always_inline))

#endif
