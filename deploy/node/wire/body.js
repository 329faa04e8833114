// The body of a payload: integers, buffers with frozen tensors, weights, each section absent where it is all zeros.

import { readContexts } from './contexts.js';
import { BUFFERS, FLOAT32, INTEGERS, PARTIAL, TABLES, WEIGHTS, checkSchema, checkSize } from './envelope.js';
import { Reader } from './reader.js';
import { Refused } from './refused.js';
import { sizeOf } from './schema.js';
import { readTables } from './tables.js';

const GET = {
  1: (view, at) => BigInt(view.getInt8(at)),
  2: (view, at) => BigInt(view.getInt16(at, true)),
  4: (view, at) => BigInt(view.getInt32(at, true)),
  8: (view, at) => view.getBigInt64(at, true),
};

/** Whether a tensor's dtype holds an integer as it was sent. */
function fits(value, dtype) {
  if (dtype === 'bool') return value === 0n || value === 1n;
  const [, unsigned, bits] = /^(u?)int(\d+)$/.exec(dtype);
  if (unsigned) return bits === '64' || BigInt.asUintN(Number(bits), value) === value;
  return BigInt.asIntN(Number(bits), value) === value;
}

/**
 * What the body of a payload says: `plain` and `values` (name -> typed array; integers are BigInt64Array) of the tensors
 * that are in it as they are, and `levels` with `grid` where the weights are on one. `missing` are names left out.
 */
export function readBody(header, schema) {
  checkSize(header.size, schema);
  checkSchema(header, schema);
  const reader = new Reader(header.body);
  const missing = missingNames(reader, header, schema);
  const there = schema.plain.filter(({ name }) => !missing.has(name));
  const plain = new Map();
  const integers = there.filter(({ kind }) => kind === 'integer');
  const floats = there.filter(({ kind }) => kind !== 'integer');
  readIntegers(header.sections & INTEGERS ? reader : null, integers, plain);
  readFloats(header.sections & BUFFERS ? reader : null, floats, plain);
  const result = { plain, missing, values: new Map(), levels: null, grid: null };
  const { weights } = schema;
  const isThere = header.sections & WEIGHTS;
  if (header.coder === FLOAT32) {
    for (const tensor of weights) {
      const count = sizeOf(tensor);
      result.values.set(tensor.name, isThere ? reader.floats(count) : new Float32Array(count));
    }
  } else if (isThere) {
    Object.assign(result, header.coder === TABLES ? readTables(reader, weights) : readContexts(reader, weights));
  } else {
    result.levels = weights.map((tensor) => new Int32Array(sizeOf(tensor)));
    result.grid = { units: weights.map(() => 1), offsets: [] };
  }
  reader.finish();
  return result;
}

/** Names of the plain tensors that a payload leaves out. */
export function missingNames(reader, header, schema) {
  if (!(header.sections & PARTIAL)) return new Set();
  const there = reader.flags(schema.plain.length);
  return new Set(schema.plain.filter((_, i) => !there[i]).map(({ name }) => name));
}

function readIntegers(reader, tensors, into) {
  const width = reader ? reader.byte() : 1;
  if (!GET[width]) throw new Refused('counts', `integers of ${width} bytes`);
  for (const tensor of tensors) {
    const values = new BigInt64Array(sizeOf(tensor));
    if (reader) reader.numbers(values, width, GET[width]);
    for (const value of values) {
      if (!fits(value, tensor.dtype)) throw new Refused('counts', `${tensor.name} holds what ${tensor.dtype} cannot`);
    }
    into.set(tensor.name, values);
  }
}

function readFloats(reader, tensors, into) {
  const isSingle = reader ? reader.flags(tensors.length) : [];
  tensors.forEach((tensor, i) => {
    const count = sizeOf(tensor);
    const read = () => (isSingle[i] ? reader.floats(count) : reader.halves(count));
    into.set(tensor.name, reader ? read() : new Float32Array(count));
  });
}
