// Weights under coder 2, from bytes to signed levels.

import { FastElements, SmallElements } from './element.js';
import { readGrid } from './grid.js';
import { FastMatrix, SmallMatrix } from './matrix.js';
import { RangeDecoder, States } from './range_decoder.js';
import { Refused } from './refused.js';
import { sizeOf } from './schema.js';

const SMALL = 1;
const TRELLIS = 2;
const GUESSED = 4;

/** Signed levels of each weight tensor, and their grid. */
export function readContexts(reader, weights) {
  const grid = readGrid(reader, weights);
  const how = reader.byte();
  if (how & ~(SMALL | TRELLIS | GUESSED) || (how & (SMALL | TRELLIS)) === TRELLIS) {
    throw new Refused('entropy', `unknown way of coding ${how}`);
  }
  // Made with a reference that both ends know: no model is, and this device keeps none.
  if (how & GUESSED) throw new Refused('stale', 'coded with a guess that is not known here');
  const classes = reader.take(weights.length);
  weights.forEach((tensor, i) => {
    if (classes[i] > 63 || (classes[i] && sizeOf(tensor) === 0)) throw new Refused('entropy', 'a bad start class');
  });
  const decoder = new RangeDecoder(reader.rest());
  const elements = how & SMALL ? new SmallElements(decoder) : new FastElements(decoder);
  // States are made once and kept from tensor to tensor.
  const section = { decoder, elements, empty: new States(2), runs: new States(48) };
  const levels = weights.map((tensor, i) => {
    if (!classes[i]) return new Int32Array(sizeOf(tensor));
    const matrix =
      how & SMALL
        ? new SmallMatrix(section, tensor.shape, classes[i], (how & TRELLIS) !== 0)
        : new FastMatrix(section, tensor.shape, classes[i]);
    return matrix.read();
  });
  decoder.finish();
  return { levels, grid };
}
