// Coder 2 bit by bit: range decoder, bit states, mixing. `range` and `code` have 64 bits, kept as two halves, since BigInt
// would take most of the time.

import { Refused } from './refused.js';

const WORD = 2 ** 32;

export const clamp = (value, low, high) => (value < low ? low : value > high ? high : value);

const LOGISTIC = Array.from({ length: 65 }, (_, i) => Math.round(65536 / (1 + Math.exp(-(i - 32) / 4))));

function squash(d) {
  const t = clamp(d, -2047, 2047) + 2048;
  const f = t & 63;
  return (LOGISTIC[t >> 6] * (64 - f) + LOGISTIC[(t >> 6) + 1] * f) >> 6;
}

const STRETCH = new Int16Array(4096);
for (let j = 0, d = -2047; j < 4096; j++) {
  while (d < 2047 && squash(d) < 16 * j + 8) d++;
  STRETCH[j] = d;
}

const RATE = Array.from({ length: 256 }, (_, n) => Math.floor(655360 / (10 * n + 16)));

/** Bit states of one section, by number. */
export class States {
  constructor(count) {
    this.one = new Uint16Array(count).fill(32768);
    this.seen = new Uint8Array(count);
  }

  learn(state, bit, limit) {
    const one = this.one[state];
    // The product needs 33 bits: `>>` would cut it.
    this.one[state] = one + Math.floor((((bit ? 65535 : 0) - one) * RATE[this.seen[state]]) / 65536);
    if (this.seen[state] < limit) this.seen[state]++;
  }
}

export class RangeDecoder {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
    this.rangeHigh = this.rangeLow = WORD - 1;
    this.codeHigh = this.word();
    this.codeLow = this.word();
    if (this.codeHigh === WORD - 1 && this.codeLow === WORD - 1) throw new Refused('entropy', 'no stream begins so');
  }

  /** The next four bytes, high byte first; those past the end are zeros. */
  word() {
    let word = 0;
    for (let i = 0; i < 4; i++) word = word * 256 + (this.bytes[this.at++] ?? 0);
    return word;
  }

  /** A bit that is 1 with probability p / 65536. */
  bit(p) {
    // bound = (range >> 16) * p
    const upper = this.rangeHigh * p;
    const lower = (upper % 65536) * 65536 + Math.floor(this.rangeLow / 65536) * p;
    const boundHigh = Math.floor(upper / 65536) + (lower >= WORD ? 1 : 0);
    const boundLow = lower % WORD;
    const bit = this.codeHigh < boundHigh || (this.codeHigh === boundHigh && this.codeLow < boundLow) ? 1 : 0;
    if (bit) {
      this.rangeHigh = boundHigh;
      this.rangeLow = boundLow;
    } else {
      [this.codeHigh, this.codeLow] = difference(this.codeHigh, this.codeLow, boundHigh, boundLow);
      [this.rangeHigh, this.rangeLow] = difference(this.rangeHigh, this.rangeLow, boundHigh, boundLow);
    }
    if (this.rangeHigh === 0) {
      [this.rangeHigh, this.rangeLow] = [this.rangeLow, 0];
      [this.codeHigh, this.codeLow] = [this.codeLow, this.word()];
    }
    return bit;
  }

  /** A bit under one state. */
  alone(states, state, limit = 60) {
    const bit = this.bit(clamp(states.one[state], 32, 65504));
    states.learn(state, bit, limit);
    return bit;
  }

  /** A bit under several states: the numbers in `which`. `weights` are those of its mixer, from `first` on. */
  mixed(states, which, weights, first) {
    const stretched = which.map((state) => STRETCH[states.one[state] >> 4]);
    let dot = 0;
    for (let i = 0; i < which.length; i++) dot += (weights[first + i] * stretched[i]) >> 8;
    const mixed = squash(dot >> 8);
    const bit = this.bit(clamp(mixed, 32, 65504));
    const error = ((bit ? 65535 : 0) - mixed) >> 4;
    for (let i = 0; i < which.length; i++) {
      const weight = weights[first + i] + ((stretched[i] * error * 41 + 32768) >> 16);
      weights[first + i] = clamp(weight, -(1 << 20), 1 << 20);
    }
    for (const state of which) states.learn(state, bit, 255);
    return bit;
  }

  /** Refuse a stream that does not end as an encoder would have ended it. */
  finish() {
    const { bytes } = this;
    let last = 0n;
    for (let i = this.at - 8; i < this.at; i++) last = (last << 8n) | BigInt(bytes[i] ?? 0);
    const code = BigInt(this.codeHigh) * BigInt(WORD) + BigInt(this.codeLow);
    const range = BigInt(this.rangeHigh) * BigInt(WORD) + BigInt(this.rangeLow);
    const lowest = last & -last;
    const isUnread = this.at < bytes.length;
    const endsInZero = bytes.length > 0 && bytes[bytes.length - 1] === 0;
    const isLonger = last !== 0n && (lowest <= code || lowest < range - code);
    if (isUnread || endsInZero || code >= range || isLonger) {
      throw new Refused('entropy', 'the stream is not what was encoded');
    }
  }
}

function difference(high, low, lessHigh, lessLow) {
  return low >= lessLow ? [high - lessHigh, low - lessLow] : [high - lessHigh - 1, low - lessLow + WORD];
}
