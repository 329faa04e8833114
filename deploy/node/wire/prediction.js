// Coder 2, the prediction of an element from levels before it: normalised least mean squares.

import { clamp } from './range_decoder.js';

const NEAR = 6;

const c8 = (v) => clamp(v, -127, 127);

export class Predictor {
  /** `depth` is how many rows back it looks. */
  constructor(depth) {
    this.depth = depth;
    this.rows = [];
    this.near = new Int32Array(NEAR);
    this.weights = new Int32Array(NEAR);
    this.values = new Int32Array(NEAR);
  }

  startRow() {
    this.near.set(this.weights.subarray(this.weights.length - NEAR));
    // Weights of the history last for one row, those of near levels for the tensor.
    this.weights = new Int32Array(this.rows.length + NEAR);
    this.weights.set(this.near, this.rows.length);
    this.values = new Int32Array(this.rows.length + NEAR);
  }

  endRow(levels) {
    this.rows.push(Int8Array.from(levels, c8));
    if (this.rows.length > this.depth) this.rows.shift();
  }

  /** In levels x 256, from column c of the rows before and from near levels. */
  predict(c, near) {
    const { rows, values, weights } = this;
    for (let i = 0; i < rows.length; i++) values[i] = rows[i][c];
    for (let i = 0; i < NEAR; i++) values[rows.length + i] = c8(near[i]);
    let sum = 0;
    for (let i = 0; i < values.length; i++) sum = (sum + weights[i] * values[i]) | 0;
    return sum >> 4;
  }

  learn(level, prediction) {
    if (level === 0 && prediction > -128 && prediction < 128) return;
    const { values, weights } = this;
    const error = clamp(256 * level - prediction, -(1 << 20), 1 << 20);
    let norm = 0;
    for (const value of values) norm += value * value;
    const by = clamp(Math.trunc((error * 307) / (1 + norm)), -32767, 32767);
    for (let i = 0; i < values.length; i++) {
      weights[i] = clamp(weights[i] + ((by * values[i] + 64) >> 7), -32768, 32767);
    }
  }
}
