// Weights under coder 1, from bytes to signed levels.

import { AnsReader, SIGNS, quantilesOf } from './ans.js';
import { readGrid } from './grid.js';
import { Refused } from './refused.js';
import { sizeOf } from './schema.js';

/** Signed levels of each weight tensor, and their grid. */
export function readTables(reader, weights) {
  const grid = readGrid(reader, weights);
  const count = reader.byte();
  if (count < 1 || count > 15) throw new Refused('entropy', `${count} frequency tables`);
  const pairs = reader.take(Math.ceil(weights.length / 2));
  const numbers = Array.from({ length: 2 * pairs.length }, (_, i) => (pairs[i >> 1] >> (4 * (i & 1))) & 15);
  if (numbers.some((number, i) => number > (i < weights.length ? count : 0))) {
    throw new Refused('entropy', 'a tensor names a frequency table that is not there');
  }
  const tables = Array.from({ length: count }, () => readTable(reader));
  const coded = weights.reduce((sum, tensor, i) => sum + (numbers[i] ? sizeOf(tensor) : 0), 0);
  const stream = reader.rest();
  // A magnitude takes at most 24 bits and its sign one.
  if (stream.length > Math.floor((coded * 25) / 8) + 8) throw new Refused('entropy', 'the stream is too long');
  const ans = new AnsReader(stream);
  const levels = weights.map((tensor, i) => {
    const result = new Int32Array(sizeOf(tensor));
    if (!numbers[i]) return result;
    const table = tables[numbers[i] - 1];
    for (let j = 0; j < result.length; j++) result[j] = ans.symbol(table);
    for (let j = 0; j < result.length; j++) if (result[j] && ans.symbol(SIGNS)) result[j] = -result[j];
    return result;
  });
  ans.finish();
  return { levels, grid };
}

function readTable(reader) {
  const [low, high] = reader.take(2);
  const top = low + 256 * high;
  if (top < 1 || top > 1024) throw new Refused('entropy', `a frequency table up to level ${top}`);
  return quantilesOf(reader.take(top + 1));
}
