// Coder 2, one tensor: rows and their flags, runs, expectations, trellis.

import { octave } from './element.js';
import { Predictor } from './prediction.js';
import { clamp } from './range_decoder.js';

/** Trellis states after an even and an odd index. */
const NEXT = [[0, 2], [5, 7], [1, 3], [6, 4], [2, 0], [4, 6], [3, 1], [7, 5]];

const product = (sizes) => sizes.reduce((result, size) => result * size, 1);
const beside = (row, c) => 2 * Math.abs(row[c - 1] ?? 0) + Math.abs(row[c - 2] ?? 0);
const above = (up, c) => 2 * Math.abs(up[c]) + Math.abs(up[c - 1] ?? 0) + Math.abs(up[c + 1] ?? 0);
const sumOf = (values, start, end) => values.subarray(start, end).reduce((sum, value) => sum + value, 0);

class Matrix {
  constructor(section, shape, startClass, depth) {
    this.section = section;
    this.rows = shape.length > 1 ? shape[0] : 1;
    this.columns = product(shape) / this.rows;
    this.k = product(shape.slice(2));
    this.levels = new Int32Array(this.rows * this.columns);
    const v = ((4 + (startClass % 4)) << (((startClass + 8) >> 2) - 2)) - 4;
    this.general = clamp(256 * v, 1024, 255 << 16);
    this.column = new Int32Array(this.columns).fill(this.general >> 4);
    this.predictor = new Predictor(depth);
  }

  read() {
    const none = new Int32Array(this.columns);
    const { decoder, empty } = this.section;
    let afterEmpty = 0;
    for (let r = 0; r < this.rows; r++) {
      const row = this.rowAt(r);
      const [up, up2] = [r > 0 ? this.rowAt(r - 1) : none, r > 1 ? this.rowAt(r - 2) : none];
      afterEmpty = this.columns >= 8 ? decoder.alone(empty, afterEmpty, 30) : 0;
      if (!afterEmpty) {
        this.predictor.startRow();
        this.readRow(row, up, up2);
      }
      this.endRow(r, row);
    }
    return this.levels;
  }

  rowAt(r) {
    return this.levels.subarray(r * this.columns, (r + 1) * this.columns);
  }

  endRow(r, row) {
    this.predictor.endRow(row);
    const past = Math.min(100 + r * this.columns, 400);
    const step = Math.floor(4096 / (Math.min(r, 14) + 3));
    let sum = 0;
    for (let c = 0; c < row.length; c++) {
      const size = Math.min(Math.abs(row[c]), 255);
      sum += size;
      this.column[c] = Math.max(this.column[c] + (((4096 * size - this.column[c]) * step) >> 12), 16);
    }
    this.general = Math.max(Math.floor((this.general * past + 65536 * sum) / (past + this.columns)), 1024);
  }

  predict(row, up, c) {
    const back = (by) => (this.k > 1 ? row[c - by] ?? 0 : 0);
    const near = [row[c - 1] ?? 0, row[c - 2] ?? 0, back(this.k), back(2 * this.k), up[c - 1] ?? 0, up[c + 1] ?? 0];
    return this.predictor.predict(c, near);
  }
}

/** Of the fast preset: zeros may come in runs of eight. */
export class FastMatrix extends Matrix {
  constructor(section, shape, startClass) {
    super(section, shape, startClass, 64);
  }

  readRow(row, up) {
    const { decoder, runs } = this.section;
    const base = this.column.map((column, c) => (8 * column + 3504 * Math.min(above(up, c), 4096)) >> 4);
    const whole = this.columns - (this.columns % 8);
    for (let c = 0; c < whole; c += 8) {
      const near = beside(row, c);
      const sum = 657 * near + sumOf(base, c, c + 8);
      const run = 2 * Math.min(octave(sum >> 7) >> 1, 23) + (near > 0 ? 1 : 0);
      const isSure = runs.one[run] >= 63488;
      if (isSure && decoder.alone(runs, run)) continue;
      this.readElements(row, up, base, c, c + 8);
      if (!isSure) runs.learn(run, row.subarray(c, c + 8).every((level) => level === 0), 60);
    }
    this.readElements(row, up, base, whole, this.columns);
  }

  readElements(row, up, base, start, end) {
    for (let c = start; c < end; c++) {
      const prediction = this.predict(row, up, c);
      row[c] = this.section.elements.read(prediction, base[c] + 219 * beside(row, c));
      this.predictor.learn(row[c], prediction);
    }
  }
}

/** Of the small preset: mixed contexts, and the trellis where the tensor follows it. */
export class SmallMatrix extends Matrix {
  constructor(section, shape, startClass, hasTrellis) {
    super(section, shape, startClass, 256);
    this.hasTrellis = hasTrellis && shape.length > 1;
    this.state = 0;
  }

  readRow(row, up, up2) {
    const inverse = Math.floor(2 ** 32 / (this.general >> 4));
    let energy = this.general >> 4;
    let miss = energy;
    let drift = 0;
    for (let c = 0; c < this.columns; c++) {
      const prediction = this.predict(row, up, c);
      const column = this.column[c];
      // Products of more than 31 bits: exact in a double, and `>>` would cut them.
      const apart = Math.min(Math.floor((Math.floor((energy * column) / 65536) * inverse) / 65536), 2 ** 24);
      const expected = {
        quantiser: this.state & 1, prediction, energy, column, apart, miss, drift,
        blend: (10 * apart + 3510 * (beside(row, c) + above(up, c))) >> 4,
        lefts: [row[c - 1] ?? 0, row[c - 2] ?? 0, row[c - 3] ?? 0],
        up: up[c], up2: up2[c], back: this.k > 1 ? row[c - this.k] ?? 0 : 0,
      };
      const { index, level } = this.section.elements.read(expected, this.hasTrellis);
      row[c] = level;
      if (this.hasTrellis) this.state = NEXT[this.state][index & 1];
      const step = Math.floor(8192 / (2 * Math.min(c + 2, 24) + 3));
      energy = Math.max(energy + (((4096 * Math.min(Math.abs(level), 255) - energy) * step) >> 12), 16);
      miss += (16 * Math.min(Math.abs(256 * level - prediction), 1 << 17) - miss) >> 4;
      if (level) drift += ((level > 0 ? 256 : -256) - drift) >> 3;
      this.predictor.learn(level, prediction);
    }
  }
}
