// Writing an update: plain float32 (coder 0), or integers on one grid under one frequency table (coder 1).
//
// That is not what makes the fewest bytes, only what is short: see "What the encoder does" in docs/wire-format.md.

import { AnsWriter, SIGNS, quantilesOf, weightOf } from './ans.js';
import { BUFFERS, FLOAT32, INTEGERS, TABLES, WEIGHTS, sealUpdate } from './envelope.js';
import { roundedToHalf } from './reader.js';
import { Refused } from './refused.js';

const LARGEST_LEVEL = 1024;
const LEAST_UNIT = 2 ** -120;
const COARSEST = 0.9;

/**
 * The payload of an update: tensors (name -> Float32Array or BigInt64Array) of `schema`, which has no frozen ones.
 *
 * `nmse` is the squared error allowed in the weights, as a share of their squared norm; 0 is none. Where `limitBytes` is
 * too few for it, the error grows. Refuses where the coarsest is still too large, or something is not finite.
 */
export function encodeUpdate(tensors, schema, { nmse, limitBytes, baseVersion, planId }) {
  for (const [name, values] of tensors) {
    if (values instanceof Float32Array && !values.every(Number.isFinite)) throw new Refused('nonfinite', name);
  }
  const seal = (coder, section) => {
    const [plain, sections] = plainSections(tensors, schema);
    const body = Buffer.concat([plain, section ?? new Uint8Array(0)]);
    return sealUpdate({ coder, sections: sections | (section ? WEIGHTS : 0), body, baseVersion, planId }, schema);
  };
  const weights = schema.weights.map(({ name }) => tensors.get(name));
  const dtypes = schema.weights.map(({ dtype }) => dtype);
  if (!weights.some((values) => values.some((value) => value !== 0))) return seal(FLOAT32, null);
  const whole = seal(FLOAT32, Buffer.concat(weights.map(bytesOf)));
  if (nmse === 0 && whole.length <= limitBytes) return whole;
  for (let aim = nmse || 1e-6; aim < COARSEST; aim = Math.min(1.5 * aim, aim + 0.1)) {
    const step = stepFor(weights, dtypes, aim);
    const coded = step === null ? whole : seal(TABLES, tablesSection(weights, step));
    if (coded.length <= limitBytes) return coded.length < whole.length ? coded : whole;
  }
  throw new Refused('uplink_bytes', `no update fits ${limitBytes} bytes`);
}

/** The widest step at which rounding to the nearest stays within an error; null where 1024 levels do not reach it. */
function stepFor(weights, dtypes, nmse) {
  let [energy, largest] = [0, 0];
  for (const values of weights) {
    for (const value of values) {
      energy += value * value;
      largest = Math.max(largest, Math.abs(value));
    }
  }
  const errorAt = (step) => {
    let error = 0;
    weights.forEach((values, i) => {
      const read = dtypes[i] === 'float16' ? roundedToHalf : Math.fround; // as the decoder will have it
      for (const value of values) error += (value - read(256 * level(value, step) * unitOf(step))) ** 2;
    });
    return error / energy;
  };
  let low = Math.max(largest / LARGEST_LEVEL, 256 * LEAST_UNIT);
  if (errorAt(low) > nmse) return null;
  let high = 2 * largest;
  for (let i = 0; i < 20; i++) {
    const middle = Math.sqrt(low * high);
    if (errorAt(middle) <= nmse) low = middle;
    else high = middle;
  }
  return low;
}

const unitOf = (step) => Math.fround(step / 256);

const level = (value, step) =>
  Math.sign(value) * Math.min(Math.round(Math.abs(value) / (256 * unitOf(step))), LARGEST_LEVEL);

function tablesSection(weights, step) {
  const levels = weights.map((values) => Int32Array.from(values, (value) => level(value, step)));
  const isCoded = levels.map((each) => each.some((k) => k !== 0));
  const counts = [];
  levels.forEach((each, i) => {
    if (isCoded[i]) for (const k of each) counts[Math.abs(k)] = (counts[Math.abs(k)] ?? 0) + 1;
  });
  // No level used: the section would be zeros, and is left out.
  if (!isCoded.includes(true)) return null;
  const codes = Array.from(counts, (count) => codeOf(count ?? 0));
  const table = quantilesOf(codes);
  const head = new DataView(new ArrayBuffer(6));
  head.setUint8(0, 0x80); // one unit, no vector shift, no offsets
  head.setFloat32(1, unitOf(step), true);
  head.setUint8(5, 1); // one table
  const numbers = new Uint8Array(Math.ceil(weights.length / 2));
  isCoded.forEach((is, i) => (numbers[i >> 1] |= (is ? 1 : 0) << (4 * (i & 1))));
  const top = codes.length - 1;
  const stream = new AnsWriter();
  // What is pushed last is read first: all backwards, of each tensor the signs before the magnitudes.
  for (const each of levels.filter((_, i) => isCoded[i]).reverse()) {
    for (let i = each.length - 1; i >= 0; i--) if (each[i]) stream.push(each[i] < 0 ? 1 : 0, SIGNS);
    for (let i = each.length - 1; i >= 0; i--) stream.push(Math.abs(each[i]), table);
  }
  return Buffer.concat([new Uint8Array(head.buffer), numbers, Uint8Array.of(top & 255, top >> 8, ...codes), stream.bytes()]);
}

/** The code of the nearest weight; a count of one or more never becomes zero. */
function codeOf(count) {
  let code = 0;
  while (code < 255 && Math.abs(weightOf(code + 1) - count) <= Math.abs(weightOf(code) - count)) code++;
  return code;
}

/** Integers and buffers as bytes, and the bits of their sections. Sections of zeros are left out. */
function plainSections(tensors, schema) {
  const of = (kind) => schema.tensors.filter((tensor) => tensor.kind === kind).map(({ name }) => tensors.get(name));
  const [integers, buffers] = [of('integer'), of('buffer')];
  const parts = [];
  let sections = 0;
  if (integers.some((values) => values.some((value) => value !== 0n))) {
    sections |= INTEGERS;
    parts.push(Uint8Array.of(8), ...integers.map(bytesOf));
  }
  if (buffers.some((values) => values.some((value) => value !== 0))) {
    sections |= BUFFERS;
    const flags = new Uint8Array(Math.ceil(buffers.length / 8));
    buffers.forEach((_, i) => (flags[i >> 3] |= 1 << (i & 7))); // all in float32
    parts.push(flags, ...buffers.map(bytesOf));
  }
  return [Buffer.concat(parts), sections];
}

// Every machine that runs Node.js is little-endian.
const bytesOf = (values) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
