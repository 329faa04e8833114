// A cursor over received bytes that cannot run past their end.

import { Refused } from './refused.js';

export class Reader {
  constructor(bytes) {
    this.bytes = bytes;
    this.at = 0;
  }

  /** The next bytes, as a view. */
  take(size) {
    const left = this.bytes.length - this.at;
    if (size > left) throw new Refused('counts', `${size} bytes needed where ${left} are left`);
    this.at += size;
    return this.bytes.subarray(this.at - size, this.at);
  }

  byte() {
    return this.take(1)[0];
  }

  /** So many numbers of `size` bytes, each as `get(view, offset)` reads it, into `into`. */
  numbers(into, size, get) {
    const bytes = this.take(size * into.length);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    for (let i = 0; i < into.length; i++) into[i] = get(view, size * i);
    return into;
  }

  floats(count) {
    return this.numbers(new Float32Array(count), 4, (view, at) => view.getFloat32(at, true));
  }

  halves(count) {
    return this.numbers(new Float32Array(count), 2, (view, at) => fromHalf(view.getUint16(at, true)));
  }

  shorts(count) {
    return this.numbers(new Int16Array(count), 2, (view, at) => view.getInt16(at, true));
  }

  /** A bit for each of `count` tensors, lowest first. */
  flags(count) {
    const bytes = this.take(Math.ceil(count / 8));
    const bit = (i) => (bytes[i >> 3] >> (i & 7)) & 1;
    for (let i = count; i < 8 * bytes.length; i++) {
      if (bit(i)) throw new Refused('counts', 'a flag is set for a tensor that is not there');
    }
    return Array.from({ length: count }, (_, i) => bit(i) === 1);
  }

  rest() {
    return this.take(this.bytes.length - this.at);
  }

  finish() {
    const left = this.bytes.length - this.at;
    if (left) throw new Refused('counts', `${left} bytes are left over`);
  }
}

/** The value of a float16. */
export function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  if (exponent === 31) return mantissa ? NaN : sign * Infinity;
  return sign * (exponent ? (1024 + mantissa) * 2 ** (exponent - 25) : mantissa * 2 ** -24);
}

/** The float16 nearest to a number, ties to even, as a number. */
export function roundedToHalf(value) {
  const size = Math.abs(value);
  if (!(size > 0) || size === Infinity) return value;
  const near = Math.floor(Math.log2(size)); // one too large at times, just below a power of two
  const step = 2 ** (Math.max(2 ** near > size ? near - 1 : near, -14) - 10);
  const steps = size / step; // a power of two divides without rounding
  let whole = Math.floor(steps);
  if (steps - whole > 0.5 || (steps - whole === 0.5 && whole % 2)) whole += 1;
  const result = whole * step;
  return Math.sign(value) * (result > 65504 ? Infinity : result);
}
