/* Elements of up to eight bytes as planes of bytes, each plane packed to the bits that it needs or entropy-coded. For
 * tensors that have to come back bit for bit: in floats the exponent says little, and the mantissa nearly all. */
#include <stdlib.h>
#include <string.h>

#include "rans.h"
#include "slimcodec.h"

enum {
    BLOCK = 1 << 16,         /* elements that share frequencies */
    SPARSE = 1, DELTA = 2,   /* what a block's first byte says */
    CODED = 0x80             /* of a plane's first byte: entropy-coded */
};

/* Where bytes go, or come from. */
typedef struct {
    uint8_t *at, *end;
} sink;
typedef struct {
    const uint8_t *at, *end;
} source;

/* ---- one plane ---- */

typedef struct {
    int32_t first, last, shift, bits; /* symbols are first + (k << shift), and k has so many bits */
} span;

static span span_of(const uint32_t *histogram)
{
    span s = {0, 0, 0, 0};
    uint32_t apart = 0;
    while (s.first < 255 && !histogram[s.first]) s.first++;
    for (int32_t v = s.first; v < 256; v++) {
        if (!histogram[v]) continue;
        s.last = v;
        apart |= (uint32_t)(v - s.first);
    }
    while (s.shift < 7 && apart && !(apart >> s.shift & 1)) s.shift++;
    while ((s.last - s.first) >> s.shift >> s.bits) s.bits++;
    return s;
}

static void pack_bits(const uint8_t *symbols, int64_t n, span s, uint8_t *out)
{
    uint32_t held = 0;
    int32_t filled = 0;
    for (int64_t i = 0; i < n; i++) {
        held |= (uint32_t)((symbols[i] - s.first) >> s.shift) << filled;
        filled += s.bits;
        if (filled >= 8) {
            *out++ = (uint8_t)held;
            held >>= 8;
            filled -= 8;
        }
    }
    if (filled) *out = (uint8_t)held;
}

/* Whether the symbols are so far from evenly spread that coding them can save more than about 0.1 %. */
static int worth_coding(const uint32_t *histogram, span s, int64_t n)
{
    uint64_t squares = 0;
    for (int32_t v = s.first; v <= s.last; v++) squares += (uint64_t)histogram[v] * histogram[v];
    return s.bits && squares * 50 > (uint64_t)n * (uint64_t)n / ((uint64_t)1 << s.bits) * 51;
}

/* Writes table and stream into `room` (of `most` bytes); returns how many bytes, 0 where that is not below `most`. */
static int64_t code_plane(const uint8_t *symbols, int64_t n, const uint32_t *histogram, span s, uint8_t *room,
                          int64_t most)
{
    rans_table t = {.first = s.first, .shift = s.shift, .count = ((s.last - s.first) >> s.shift) + 1};
    const int32_t lanes = rans_lanes(n);
    const int64_t head = 3 + t.count + 2;
    if (head + (4 << lanes) >= most) return 0;
    room[0] = (uint8_t)(CODED | s.shift << 4 | lanes);
    room[1] = (uint8_t)t.first;
    room[2] = (uint8_t)(t.count - 1);
    for (int32_t k = 0; k < t.count; k++) room[3 + k] = rans_code(histogram[t.first + (k << t.shift)]);
    rans_normalise(&t, room + 3);
    uint8_t *begin = rans_encode(&t, symbols, n, lanes, room + head, room + most);
    if (!begin) return 0;
    const int64_t size = room + most - begin, words = (size - (4 << lanes)) / 2;
    memmove(room + head, begin, (size_t)size);
    room[head - 2] = (uint8_t)words;
    room[head - 1] = (uint8_t)(words >> 8);
    return head + size;
}

static int put_plane(sink *out, const uint8_t *symbols, int64_t n)
{
    /* In four, so that equal bytes in a row do not wait for each other. */
    uint32_t histogram[4][256] = {{0}};
    for (int64_t i = 0; i < n; i++) histogram[i & 3][symbols[i]]++;
    for (int32_t v = 0; v < 256; v++)
        histogram[0][v] += histogram[1][v] + histogram[2][v] + histogram[3][v];
    const span s = span_of(histogram[0]);
    const int64_t packed = 2 + (n * s.bits + 7) / 8;
    if (out->end - out->at < packed) return SLIMCODEC_NO_ROOM;
    if (worth_coding(histogram[0], s, n)) {
        int64_t size = code_plane(symbols, n, histogram[0], s, out->at, packed);
        if (size) {
            out->at += size;
            return 0;
        }
    }
    out->at[0] = (uint8_t)(s.shift << 4 | s.bits);
    out->at[1] = (uint8_t)(s.bits < 8 ? s.first : 0);
    if (s.bits < 8) pack_bits(symbols, n, s, out->at + 2);
    else memcpy(out->at + 2, symbols, (size_t)n);
    out->at += packed;
    return 0;
}

static int unpack_bits(source *in, uint8_t *symbols, int64_t n, int32_t first, int32_t shift, int32_t bits)
{
    const int64_t size = (n * bits + 7) / 8;
    if (bits > 8 || in->end - in->at < size) return SLIMCODEC_CORRUPT;
    const uint8_t *at = in->at;
    in->at += size;
    if (bits == 8) {
        if (first || shift) return SLIMCODEC_CORRUPT;
        memcpy(symbols, at, (size_t)n);
        return 0;
    }
    uint32_t held = 0, worst = 0;
    int32_t filled = 0;
    const uint32_t mask = ((uint32_t)1 << bits) - 1;
    for (int64_t i = 0; i < n; i++) {
        if (filled < bits) {
            held |= (uint32_t)*at++ << filled;
            filled += 8;
        }
        const uint32_t value = (uint32_t)first + ((held & mask) << shift);
        worst |= value;
        symbols[i] = (uint8_t)value;
        held >>= bits;
        filled -= bits;
    }
    return worst > 255 || held ? SLIMCODEC_CORRUPT : 0;
}

static int take_plane(source *in, uint8_t *symbols, int64_t n)
{
    if (in->end - in->at < 2) return SLIMCODEC_CORRUPT;
    const int32_t how = in->at[0], first = in->at[1], shift = how >> 4 & 7, low = how & 15;
    in->at += 2;
    if (!(how & CODED)) return unpack_bits(in, symbols, n, first, shift, low);
    rans_table t = {.first = first, .shift = shift};
    if (in->end - in->at < 1) return SLIMCODEC_CORRUPT;
    t.count = *in->at++ + 1;
    if (low > 5 || first + ((t.count - 1) << shift) > 255 || in->end - in->at < t.count + 2) return SLIMCODEC_CORRUPT;
    if (!rans_normalise(&t, in->at)) return SLIMCODEC_CORRUPT;
    in->at += t.count;
    const int64_t size = (4 << low) + 2 * (int64_t)rans_word(in->at);
    in->at += 2;
    rans_slots slots;
    rans_slots_of(&t, &slots);
    if (in->end - in->at < size || !rans_decode(&slots, in->at, size, low, symbols, n)) return SLIMCODEC_CORRUPT;
    in->at += size;
    return 0;
}

/* ---- one block ---- */

/* Memory of a block: its elements as words, their planes, and which of them are not zero. */
typedef struct {
    uint64_t word[BLOCK];
    uint8_t plane[BLOCK];
    uint8_t mask[BLOCK / 8];
} workspace;

static HOT uint64_t load(const uint8_t *data, const int32_t width)
{
    uint64_t word = 0;
    for (int32_t b = 0; b < width; b++) word |= (uint64_t)data[b] << (8 * b);
    return word;
}

static HOT void store(uint8_t *data, uint64_t word, const int32_t width)
{
    for (int32_t b = 0; b < width; b++) data[b] = (uint8_t)(word >> (8 * b));
}

static HOT void load_block(uint64_t *word, const uint8_t *data, int64_t n, const int32_t width, int32_t kind)
{
    const uint64_t all = ~(uint64_t)0 >> (64 - 8 * width);
    for (int64_t i = 0; i < n; i++) {
        uint64_t w = load(data + i * width, width);
        word[i] = kind == SLIMCODEC_FLOATS ? (w << 1 | w >> (8 * width - 1)) & all : w;
    }
}

static HOT void store_block(const uint64_t *word, uint8_t *data, int64_t n, const int32_t width, int32_t kind)
{
    for (int64_t i = 0; i < n; i++) {
        uint64_t w = word[i];
        store(data + i * width, kind == SLIMCODEC_FLOATS ? w >> 1 | w << (8 * width - 1) : w, width);
    }
}

#define FOR_WIDTH(call, word, data, n, width, kind) \
    switch (width) { \
    case 1: call(word, data, n, 1, kind); break; \
    case 2: call(word, data, n, 2, kind); break; \
    case 4: call(word, data, n, 4, kind); break; \
    default: call(word, data, n, 8, kind); \
    }

/* Moves the words that are not zero to the front, notes in the mask which they are, and returns how many. */
static int64_t gather(workspace *w, int64_t n)
{
    int64_t kept = 0;
    memset(w->mask, 0, (size_t)(n + 7) / 8);
    for (int64_t i = 0; i < n; i++) {
        const uint64_t word = w->word[i];
        w->mask[i / 8] |= (uint8_t)((word != 0) << (i % 8));
        w->word[kept] = word;
        kept += word != 0;
    }
    return kept;
}

/* The other way round. Returns 0 where a word that should not be zero is. */
static int scatter(workspace *w, int64_t n, int64_t kept)
{
    for (int64_t i = n - 1; i >= 0; i--) {
        const int there = w->mask[i / 8] >> (i % 8) & 1;
        if (there && !w->word[kept - 1]) return 0;
        w->word[i] = there ? w->word[--kept] : 0;
    }
    return 1;
}

static int put_words(sink *out, workspace *w, int64_t n, int32_t width, int32_t how)
{
    if (out->end - out->at < 2) return SLIMCODEC_NO_ROOM;
    uint8_t *head = out->at;
    out->at += 2;
    if (how & SPARSE) {
        const int64_t kept = gather(w, n);
        if (put_plane(out, w->mask, (n + 7) / 8)) return SLIMCODEC_NO_ROOM;
        n = kept;
    }
    uint64_t any = 0;
    for (int64_t i = 0; i < n; i++) any |= w->word[i];
    head[0] = (uint8_t)how;
    head[1] = 0;
    for (int32_t p = 0; p < width; p++) {
        if (!(any >> (8 * p) & 255)) continue;
        head[1] |= (uint8_t)(1 << p);
        for (int64_t i = 0; i < n; i++) w->plane[i] = (uint8_t)(w->word[i] >> (8 * p));
        if (put_plane(out, w->plane, n)) return SLIMCODEC_NO_ROOM;
    }
    return 0;
}

/* A mask takes a bit an element and saves a symbol in every plane: it is tried from a zero in eight on. */
static int is_sparse(const workspace *w, int64_t n)
{
    int64_t zeros = 0;
    for (int64_t i = 0; i < n; i++) zeros += w->word[i] == 0;
    return n >= 16 && zeros < n && zeros * 8 >= n;
}

static void difference(workspace *w, int64_t n, int32_t width)
{
    const uint64_t all = ~(uint64_t)0 >> (64 - 8 * width);
    for (int64_t i = n - 1; i > 0; i--) w->word[i] = (w->word[i] - w->word[i - 1]) & all;
}

/* Integers are tried as differences too, which positions and offsets are made for; the shorter stays. */
static int put_block(sink *out, workspace *w, const uint8_t *data, int64_t n, int32_t width, int32_t kind)
{
    FOR_WIDTH(load_block, w->word, data, n, width, kind)
    sink first = *out;
    if (put_words(&first, w, n, width, is_sparse(w, n) ? SPARSE : 0)) return SLIMCODEC_NO_ROOM;
    if (kind == SLIMCODEC_INTEGERS && width > 1 && n > 1) {
        sink second = first;
        FOR_WIDTH(load_block, w->word, data, n, width, kind)
        difference(w, n, width);
        if (!put_words(&second, w, n, width, DELTA | (is_sparse(w, n) ? SPARSE : 0)) &&
            second.at - first.at < first.at - out->at) {
            memmove(out->at, first.at, (size_t)(second.at - first.at));
            first.at = out->at + (second.at - first.at);
        }
    }
    out->at = first.at;
    return 0;
}

static int take_block(source *in, workspace *w, uint8_t *data, int64_t n, int32_t width, int32_t kind)
{
    if (in->end - in->at < 2) return SLIMCODEC_CORRUPT;
    const int32_t how = in->at[0], planes = in->at[1];
    in->at += 2;
    if (how & ~(SPARSE | DELTA) || planes >> width) return SLIMCODEC_CORRUPT;
    if (how & DELTA && kind != SLIMCODEC_INTEGERS) return SLIMCODEC_CORRUPT;
    int64_t kept = n;
    if (how & SPARSE) {
        if (take_plane(in, w->mask, (n + 7) / 8)) return SLIMCODEC_CORRUPT;
        if (n % 8 && w->mask[n / 8] >> (n % 8)) return SLIMCODEC_CORRUPT;
        kept = 0;
        for (int64_t i = 0; i < (n + 7) / 8; i++) kept += __builtin_popcount(w->mask[i]);
        if (!kept || kept == n) return SLIMCODEC_CORRUPT;
    }
    memset(w->word, 0, (size_t)kept * sizeof *w->word);
    for (int32_t p = 0; p < width; p++) {
        if (!(planes >> p & 1)) continue;
        if (take_plane(in, w->plane, kept)) return SLIMCODEC_CORRUPT;
        for (int64_t i = 0; i < kept; i++) w->word[i] |= (uint64_t)w->plane[i] << (8 * p);
    }
    if (how & SPARSE && !scatter(w, n, kept)) return SLIMCODEC_CORRUPT;
    if (how & DELTA)
        for (int64_t i = 1; i < n; i++) w->word[i] += w->word[i - 1];
    FOR_WIDTH(store_block, w->word, data, n, width, kind)
    return 0;
}

/* ---- all of them ---- */

int64_t slimcodec_pack_planes(const uint8_t *data, int64_t count, int32_t width, int32_t kind, uint8_t *out,
                              int64_t capacity)
{
    workspace *w = malloc(sizeof *w);
    if (!w) return SLIMCODEC_NO_MEMORY;
    sink to = {out, out + capacity};
    int status = 0;
    for (int64_t i = 0; i < count && !status; i += BLOCK)
        status = put_block(&to, w, data + i * width, count - i < BLOCK ? count - i : BLOCK, width, kind);
    free(w);
    return status ? status : to.at - out;
}

int32_t slimcodec_unpack_planes(const uint8_t *data, int64_t size, uint8_t *out, int64_t count, int32_t width,
                                int32_t kind)
{
    workspace *w = malloc(sizeof *w);
    if (!w) return SLIMCODEC_NO_MEMORY;
    source from = {data, data + size};
    int status = 0;
    for (int64_t i = 0; i < count && !status; i += BLOCK)
        status = take_block(&from, w, out + i * width, count - i < BLOCK ? count - i : BLOCK, width, kind);
    free(w);
    return status || from.at != from.end ? SLIMCODEC_CORRUPT : 0;
}
