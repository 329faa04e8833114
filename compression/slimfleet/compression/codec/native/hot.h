/* Functions of the inner loop, which are worth nothing unless they are inlined into it; builds whose speed does not
 * matter may define HOT as `inline`, and compile in an eighth of the time. */
#ifndef SLIMCODEC_HOT_H
#define SLIMCODEC_HOT_H

#ifndef HOT
#define HOT inline __attribute__((always_inline))
#endif

#endif
