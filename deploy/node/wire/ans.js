// Coder 1: the asymmetric numeral system, and its frequency tables. BigInt, since the state has 64 bits.

import { Refused } from './refused.js';

const QUANTILES = 1 << 24;
const LOW = 1n << 32n;

/** What a one-byte code stands for. */
export const weightOf = (code) => (code < 8 ? code : (8 + (code % 8)) * 2 ** ((code >> 3) - 1));

/** The first quantile of each symbol of a table given by its codes, and 2^24 as the end of the last. */
export function quantilesOf(codes) {
  const weights = Array.from(codes, weightOf);
  const sum = weights.reduce((total, weight) => total + weight, 0);
  if (sum === 0) throw new Refused('entropy', 'a frequency table is empty');
  // Weights reach 15 x 2^30: times 2^16, that is within the integers of a double.
  const frequencies = weights.map((weight) => Math.floor((weight * 65536) / sum));
  const largest = weights.indexOf(Math.max(...weights));
  frequencies[largest] += 65536 - frequencies.reduce((total, frequency) => total + frequency, 0);
  const room = QUANTILES - codes.length;
  const starts = [];
  let before = 0;
  for (const [k, frequency] of frequencies.entries()) {
    starts.push(Math.floor((before * room) / 65536) + k);
    before += frequency;
  }
  return [...starts, QUANTILES];
}

/** Of the sign of a level: two equal frequencies. */
export const SIGNS = quantilesOf([1, 1]);

export class AnsReader {
  constructor(bytes) {
    if (bytes.length && bytes[bytes.length - 1] === 0) throw new Refused('entropy', 'the stream ends in a zero byte');
    const padded = new Uint8Array(4 * Math.ceil(bytes.length / 4));
    padded.set(bytes);
    const view = new DataView(padded.buffer);
    this.words = Array.from({ length: padded.length / 4 }, (_, i) => BigInt(view.getUint32(4 * i, true)));
    this.state = 0n;
    while (this.words.length && this.state < LOW) this.pop();
  }

  pop() {
    this.state = (this.state << 32n) | this.words.pop();
  }

  symbol(starts) {
    const quantile = Number(this.state & 0xffffffn);
    let low = 0;
    let high = starts.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (starts[middle] <= quantile) low = middle;
      else high = middle;
    }
    this.state = (this.state >> 24n) * BigInt(starts[low + 1] - starts[low]) + BigInt(quantile - starts[low]);
    if (this.state < LOW && this.words.length) this.pop();
    return low;
  }

  finish() {
    if (this.state !== 0n || this.words.length) throw new Refused('entropy', 'the stream is not what was encoded');
  }
}

/** The reverse: a stack, so what is pushed last is read first. */
export class AnsWriter {
  constructor() {
    this.words = [];
    this.state = 0n;
  }

  push(symbol, starts) {
    const size = BigInt(starts[symbol + 1] - starts[symbol]);
    // The state must stay below 2^64 once the symbol is in it.
    if (this.state >> 40n >= size) {
      this.words.push(Number(this.state & 0xffffffffn));
      this.state >>= 32n;
    }
    this.state = ((this.state / size) << 24n) + BigInt(starts[symbol]) + (this.state % size);
  }

  bytes() {
    const words = [...this.words];
    for (let left = this.state; left; left >>= 32n) words.push(Number(left & 0xffffffffn));
    const bytes = new Uint8Array(4 * words.length);
    const view = new DataView(bytes.buffer);
    words.forEach((word, i) => view.setUint32(4 * i, word, true));
    let end = bytes.length;
    while (end && bytes[end - 1] === 0) end--;
    return bytes.subarray(0, end);
  }
}
