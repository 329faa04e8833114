#include "slimcodec.h"

uint32_t slimcodec_abi(void) { return SLIMCODEC_ABI; }
