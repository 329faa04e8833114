// The grid of quantised weights: units and offsets, and what a level stands for.

import { Refused } from './refused.js';
import { roundedToHalf } from './reader.js';

const LEAST_UNIT = 2 ** -120;

/** The fields of a grid, with the unit of each tensor in `units`, vector shift included. */
export function readGrid(reader, weights) {
  const how = reader.byte();
  const shift = (how >> 4) & 7;
  if (shift > 3) throw new Refused('grid', `vector shift ${shift}, the limit is 3`);
  const read = reader.floats(how & 0x80 ? 1 : weights.length);
  for (const unit of read) {
    if (!Number.isFinite(unit)) throw new Refused('nonfinite', 'a unit is not finite');
    if (unit < LEAST_UNIT) throw new Refused('grid', 'a unit is zero, negative or too small');
  }
  const offsets = [...reader.shorts(how & 15)];
  // A power of two: the product is exact.
  const units = weights.map(({ shape }, i) => read[how & 0x80 ? 0 : i] * (shape.length < 2 ? 2 ** -shift : 1));
  return { units, offsets };
}

/** What the levels of one tensor stand for, as float32 values of its dtype. */
export function valuesOf(levels, unit, offsets, dtype) {
  const factor = (k) => 256 * k + (offsets.length && k ? offsets[Math.min(k, offsets.length) - 1] : 0);
  let top = 0;
  for (const level of levels) top = Math.max(top, Math.abs(level));
  for (let k = 1; k <= top; k++) {
    if (factor(k) <= 0) throw new Refused('grid', `level ${k} is not positive`);
    if (!Number.isFinite(Math.fround(factor(k) * unit))) throw new Refused('nonfinite', `level ${k} overflows float32`);
  }
  // Factor and unit are exact in float64, so that the one rounding is the page's.
  const result = new Float32Array(levels.length);
  for (let i = 0; i < levels.length; i++) {
    if (levels[i]) result[i] = Math.sign(levels[i]) * factor(Math.abs(levels[i])) * unit;
  }
  return dtype === 'float16' ? result.map((value) => roundedToHalf(Math.min(Math.max(value, -65504), 65504))) : result;
}
