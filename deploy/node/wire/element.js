// Coder 2, one element: its contexts, its index and its sign. Names are those of docs/wire-format.md.

import { Refused } from './refused.js';
import { States } from './range_decoder.js';

const BINS = 14;

export function octave(v) {
  const u = v + 4;
  const e = 31 - Math.clz32(u);
  return 4 * e + ((u >> (e - 2)) & 3) - 8;
}

export const halfOf = (prediction) => Math.min(octave(Math.abs(prediction)) >> 1, 15);

function directionOf(prediction) {
  const half = halfOf(prediction);
  return prediction >= 0 ? 16 + half : 15 - half;
}

const sg = (v) => (v > 0 ? 1 : v < 0 ? 2 : 0);

/** Index of an element whose bins `more(bin)` asks for; the digits of a large one come through `suffix(e, isFirst)`. */
function readIndex(more, suffix) {
  for (let bin = 0; bin < 6; bin++) if (!more(bin)) return bin;
  let e = 0;
  while (e < 16 && more(Math.min(6 + e, 13))) e++;
  let v = 1;
  for (let i = 0; i < e; i++) v = 2 * v + suffix(e, i === 0);
  return 5 + v;
}

/** What both presets share. */
class Elements {
  constructor(decoder) {
    this.decoder = decoder;
    this.suffixes = new States(17);
    this.suffix = (e, isFirst) => (isFirst ? decoder.alone(this.suffixes, e) : decoder.bit(32768));
  }

  /** Refuse a magnitude that no encoder writes. */
  signed(magnitude, isNegative) {
    if (magnitude > 32767) throw new Refused('entropy', `level ${magnitude}, the limit is 32767`);
    return isNegative ? -magnitude : magnitude;
  }
}

/** The fast preset: one state a bit. */
export class FastElements extends Elements {
  constructor(decoder) {
    super(decoder);
    this.indices = new States(BINS * 16 * 24);
    this.signs = new States(32);
  }

  read(prediction, blend) {
    const context = halfOf(prediction) * 24 + Math.min(octave(blend >> 4) >> 1, 23);
    const more = (bin) => this.decoder.alone(this.indices, bin * 16 * 24 + context);
    const index = readIndex(more, this.suffix);
    return this.signed(index, index && this.decoder.alone(this.signs, directionOf(prediction)));
  }
}

/** Numbers of contexts of each input. */
const OF_INDEX = [48 * 16, 64, 5 * 24, 6 * 72, 16 * 24];
const OF_SIGN = [32 * 8, 16, 9, 9, 32 * 8];

const startsOf = (sizes) => sizes.map((_, i) => sizes.slice(0, i).reduce((sum, size) => sum + size, 0));
const INDEX_STARTS = startsOf(OF_INDEX);
const SIGN_STARTS = startsOf(OF_SIGN);
const INDICES = OF_INDEX.reduce((sum, size) => sum + size, 0);
const SIGNS = OF_SIGN.reduce((sum, size) => sum + size, 0);
const INPUTS = 5;

/** The small preset: five states a bit, mixed. A guess would be a sixth; no device is sent one. */
export class SmallElements extends Elements {
  constructor(decoder) {
    super(decoder);
    this.indices = new States(BINS * 2 * INDICES);
    this.signs = new States(SIGNS);
    this.indexWeights = new Int32Array(4 * 2 * 12 * INPUTS).fill(19661);
    this.signWeights = new Int32Array(8 * INPUTS).fill(19661);
  }

  /** `e` is what is known before the element is read; `hasTrellis` whether its tensor follows the trellis. */
  read(e, hasTrellis) {
    const { decoder } = this;
    const both = Math.min(octave(e.apart >> 4) >> 1, 23);
    const late = Math.min(Math.floor(octave(e.miss >> 4) / 3), 15);
    const [left, left2, left3] = e.lefts.map(Math.abs);
    const row = Math.min(octave(e.energy >> 4) >> 1, 23);
    const col = Math.min(octave(e.column >> 4) >> 1, 23);
    const contexts = [
      Math.min(octave(Math.abs(e.prediction)), 47) * 16 + late,
      Math.min(octave(e.blend >> 4), 63),
      Math.min(Math.abs(e.up), 4) * 24 + col,
      Math.min(left, 5) * 72 + Math.min(left2, 3) * 18 + Math.min(left3, 2) * 6 + Math.min(Math.floor(row / 3), 5),
      halfOf(e.prediction) * 24 + both,
    ].map((context, input) => INDEX_STARTS[input] + context);
    const more = (bin) => {
      const first = (2 * bin + e.quantiser) * INDICES;
      const mixer = ((Math.min(bin, 3) * 2 + e.quantiser) * 12 + (both >> 1)) * INPUTS;
      return decoder.mixed(this.indices, contexts.map((context) => first + context), this.indexWeights, mixer);
    };
    const index = readIndex(more, this.suffix);
    const isNegative = index && this.readSign(e, index, late);
    return { index, level: this.signed(hasTrellis && index ? 2 * index - e.quantiser : index, isNegative) };
  }

  readSign(e, index, late) {
    const direction = directionOf(e.prediction);
    const contexts = [
      direction * 8 + (late >> 1),
      Math.min((e.drift + 256) >> 5, 15),
      sg(e.up) * 3 + sg(e.up2),
      sg(e.lefts[0]) * 3 + sg(e.back),
      direction + 32 * Math.min(index, 7),
    ].map((context, input) => SIGN_STARTS[input] + context);
    return this.decoder.mixed(this.signs, contexts, this.signWeights, Math.min(index, 7) * INPUTS);
  }
}
