// From a payload to tensors: an update, a whole model, or the change of a model that is held.
//
// Tensors are Maps name -> typed array, C order: float tensors Float32Array, whatever their dtype; integers BigInt64Array.
// A snapshot is what a device holds of a version: {levels, units, plain}, weights by name.

import { missingNames, readBody } from './body.js';
import { cut } from './channels.js';
import { CHANGE, MODEL, PARTIAL, UPDATE, WEIGHTS, checkSize, unseal } from './envelope.js';
import { valuesOf } from './grid.js';
import { Reader, roundedToHalf } from './reader.js';
import { Refused } from './refused.js';
import { xxh64 } from './xxh64.js';
import { sizeOf } from './schema.js';

const LARGEST_HELD = 1024;

/** Read an update: its header and tensors. */
export function decodeUpdate(payload, schema) {
  checkSize(payload.length, schema);
  const header = unseal(payload);
  if (header.kind !== UPDATE) throw new Refused('header', 'no update');
  const body = readBody(header, schema);
  for (const [name, values] of body.plain) {
    if (values instanceof Float32Array && !values.every(Number.isFinite)) {
      throw new Refused('nonfinite', `${name} changes by NaN or infinity`);
    }
  }
  return { header, tensors: tensorsOf(body, schema) };
}

/** Read a whole model: header, tensors, and its snapshot; null where no change can build on it. */
export function decodeModel(payload, schema) {
  checkSize(payload.length, schema);
  const header = unseal(payload);
  if (header.kind !== MODEL) throw new Refused('header', 'no whole model');
  const body = readBody(header, schema);
  if (header.sections & PARTIAL) throw new Refused('header', 'a whole model leaves nothing out');
  return { header, tensors: tensorsOf(body, schema), snapshot: snapshotOf(body, schema) };
}

/** Read a change of `base`, a snapshot in the shapes of `schema`. */
export function decodeChange(payload, schema, base) {
  const header = unseal(payload);
  if (header.kind !== CHANGE) throw new Refused('header', 'no change');
  const missing = missingNames(new Reader(header.body), header, schema);
  const kept = schema.plain.filter(({ name }) => missing.has(name)).map(({ name }) => name);
  if (kept.some((name) => !base.plain.has(name)) || header.planId !== fingerprint(base, schema, kept)) {
    throw new Refused('stale', `version ${header.baseVersion}, as it is held here, is not what was changed`);
  }
  const body = readBody(header, schema);
  if (!body.grid || body.grid.offsets.length) throw new Refused('grid', 'a change is in whole steps of a grid');
  schema.weights.forEach(({ name }, i) => {
    const held = base.units.get(name);
    if (!(header.sections & WEIGHTS)) body.grid.units[i] = held;
    if (body.grid.units[i] === held) body.levels[i] = body.levels[i].map((level, j) => level + base.levels.get(name)[j]);
  });
  for (const name of kept) body.plain.set(name, base.plain.get(name));
  const snapshot = snapshotOf(body, schema);
  return { header, tensors: tensorsOf(body, schema), snapshot };
}

/** The part of a snapshot at these places: name -> positions along each dimension. */
export function cutSnapshot(snapshot, schema, places) {
  const shapes = new Map(schema.tensors.map(({ name, shape }) => [name, shape]));
  const each = (tensors) =>
    new Map([...tensors].map(([name, values]) => [name, cut(values, shapes.get(name), places.get(name))]));
  return { levels: each(snapshot.levels), units: snapshot.units, plain: each(snapshot.plain) };
}

function tensorsOf(body, schema) {
  const tensors = new Map();
  let number = 0;
  for (const { name, dtype, kind, ...tensor } of schema.tensors) {
    const isOnGrid = kind === 'weight' && body.levels;
    if (isOnGrid) {
      tensors.set(name, valuesOf(body.levels[number], body.grid.units[number], body.grid.offsets, dtype));
    } else {
      const values = body.plain.get(name) ?? body.values.get(name) ?? zeros(kind, sizeOf(tensor));
      tensors.set(name, kind === 'integer' ? values : asDtype(values, name, dtype, kind));
    }
    if (kind === 'weight') number++;
  }
  return tensors;
}

const zeros = (kind, count) => (kind === 'integer' ? new BigInt64Array(count) : new Float32Array(count));

/** Float values as their dtype holds them. Weights must be finite; what else was finite must stay so. */
function asDtype(values, name, dtype, kind) {
  const cast = dtype === 'float16' ? values.map(roundedToHalf) : values;
  const mustBeFinite = (i) => kind === 'weight' || Number.isFinite(values[i]);
  cast.forEach((value, i) => {
    if (!Number.isFinite(value) && mustBeFinite(i)) throw new Refused('nonfinite', `${name} holds what ${dtype} cannot`);
  });
  return cast;
}

function snapshotOf(body, schema) {
  if (!body.grid || body.grid.offsets.length) return null;
  const [levels, units] = [new Map(), new Map()];
  schema.weights.forEach(({ name }, i) => {
    if (body.levels[i].some((level) => Math.abs(level) > LARGEST_HELD)) {
      throw new Refused('grid', `${name} has levels beyond ${LARGEST_HELD}`);
    }
    levels.set(name, Int16Array.from(body.levels[i]));
    units.set(name, body.grid.units[i]);
  });
  return { levels, units, plain: body.plain };
}

/** XXH64 over units, levels and the plain tensors that are kept. */
function fingerprint({ levels, units, plain }, schema, kept) {
  const parts = schema.weights.flatMap(({ name }) => {
    const isZero = levels.get(name).every((level) => level === 0);
    return [bytesOf(Float32Array.of(isZero ? 0 : units.get(name))), bytesOf(levels.get(name))];
  });
  return xxh64(Buffer.concat([...parts, ...kept.map((name) => bytesOf(plain.get(name)))]));
}

// Every machine that runs Node.js is little-endian.
const bytesOf = (values) => new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
