// Runs the vectors of tests/conformance/: node conformance.js [--updates FOLDER]
//
// Prints how many cases of each document passed, as JSON, and every one that failed; exit code 1 if any did. With
// --updates, what it encodes for encode.json is written to that folder, for the decoder of another client to check.

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { parseAssignment } from './gateway/assignment.js';
import { Held } from './gateway/round.js';
import { Sgd, difference } from './training/sgd.js';
import { unseal } from './wire/envelope.js';
import { valuesOf } from './wire/grid.js';
import { decodeChange, decodeModel, decodeUpdate } from './wire/model.js';
import { roundedToHalf } from './wire/reader.js';
import { Refused } from './wire/refused.js';
import { Schema, sizeOf } from './wire/schema.js';
import { encodeUpdate } from './wire/update.js';

const VECTORS = fileURLToPath(new URL('../../tests/conformance/vectors/', import.meta.url));
const { values: options } = parseArgs({ options: { updates: { type: 'string' } } });

const bytesAt = (path) => readFileSync(join(VECTORS, path));
const document = (name) => JSON.parse(bytesAt(`${name}.json`).toString('utf8'));
const floats = (bits) => new Float32Array(Uint32Array.from(bits).buffer);
const bitsOf = (values) => [...new Uint32Array(Float32Array.from(values).buffer)];
const same = (found, expected) => JSON.stringify(found) === JSON.stringify(expected);

const { schemas, groups, cases: decodable } = document('decode');
const schemaOf = (name) => new Schema(schemas[name]);

/** Decode a payload as its case says: its tensors, and the schema of their shapes. */
function decoded({ schema: name, kind, held }, payload) {
  const schema = schemaOf(name);
  if (kind === 'update') return { tensors: decodeUpdate(payload, schema).tensors, schema };
  const before = held && bytesAt(decodable.find((each) => each.name === held).payload);
  if (groups[name]) {
    const device = new Held(schema, groups[name]);
    if (before) device.receive(before, unseal(before).baseVersion);
    return device.receive(payload);
  }
  // Without groups nobody looks at the side section.
  if (kind === 'model') return { tensors: decodeModel(payload, schema).tensors, schema };
  return { tensors: decodeChange(payload, schema, decodeModel(before, schema).snapshot).tensors, schema };
}

function* decode() {
  for (const each of decodable) {
    const payload = bytesAt(each.payload);
    const { baseVersion, planId, side } = unseal(payload);
    const header = { base_version: baseVersion, plan_id: String(planId), side: Buffer.from(side).toString('hex') };
    let found;
    const reason = reasonOf(() => (found = decoded(each, payload)));
    if (reason) {
      yield [`${each.name}: refused, ${reason}`, false];
      continue;
    }
    const { tensors, schema } = found;
    const of = (isInteger) => schema.tensors.filter(({ kind }) => (kind === 'integer') === isInteger);
    const values = of(false).flatMap(({ name }) => [...tensors.get(name)]);
    const integers = Object.fromEntries(of(true).map(({ name }) => [name, Array.from(tensors.get(name), String)]));
    const isRight =
      same(header, each.header) &&
      Buffer.from(Float32Array.from(values).buffer).equals(bytesAt(each.expected_float32)) &&
      same(integers, each.expected_integers);
    yield [each.name, isRight];
  }
}

/** The reason that something is refused with; null where it is not. */
function reasonOf(attempt) {
  try {
    attempt();
    return null;
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return error.reason;
  }
}

function* refuse() {
  for (const each of document('refuse').cases) {
    const payload = Buffer.concat([Buffer.from(each.payload, 'hex'), Buffer.alloc(each.zeros ?? 0)]);
    const reason = reasonOf(() => decoded(each, payload));
    yield [`${each.name}: ${reason}, not ${each.reason}`, reason === each.reason];
  }
}

function* encode() {
  for (const [number, each] of document('encode').cases.entries()) {
    const schema = schemaOf(each.schema);
    const update = updateOf(each, schema);
    const payload = encodeUpdate(update, schema, {
      nmse: each.nmse,
      limitBytes: each.limit_bytes,
      baseVersion: each.base_version,
      planId: BigInt(each.plan_id),
    });
    if (options.updates) writeFileSync(join(options.updates, `${number}.payload`), payload);
    yield [`${each.name}: ${payload.length} bytes`, isWithin(each, update, decodeUpdate(payload, schema).tensors, schema)];
  }
}

function updateOf(each, schema) {
  const bytes = bytesAt(each.float32);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 0;
  const next = () => view.getFloat32(4 * at++, true);
  return new Map(
    schema.tensors.map((tensor) => [
      tensor.name,
      tensor.kind === 'integer'
        ? BigInt64Array.from(each.integers[tensor.name], BigInt)
        : Float32Array.from({ length: sizeOf(tensor) }, next),
    ]),
  );
}

function isWithin({ nmse }, wanted, found, schema) {
  let [error, energy] = [0, 0];
  for (const { name } of schema.weights) {
    wanted.get(name).forEach((value, i) => {
      error += (value - found.get(name)[i]) ** 2;
      energy += value ** 2;
    });
  }
  const isSame = schema.plain.every(({ name }) => wanted.get(name).every((value, i) => value === found.get(name)[i]));
  return isSame && error <= (nmse + 1e-6) * energy;
}

function* train() {
  const { sgd, differences, levels, halves } = document('train');
  for (const each of sgd) {
    const weight = floats(each.weight);
    const steps = new Sgd(each);
    const after = each.gradients.map((gradient) => {
      steps.step(new Map([['weight', weight]]), new Map([['weight', floats(gradient)]]));
      return bitsOf(weight);
    });
    const apart = after.flat().map((bits, i) => Math.abs(bits - each.expected.flat()[i]));
    yield [`momentum ${each.momentum}, rate ${each.learning_rate}`, apart.every((ulps) => ulps <= each.ulps)];
  }
  for (const each of differences) {
    const isFloat = each.dtype.startsWith('float');
    const [before, after] = [each.before, each.after].map((of) => (isFloat ? floats(of) : BigInt64Array.from(of, BigInt)));
    const found = difference(after, before, each);
    yield [`difference of ${each.kind}, ${each.dtype}`, same(isFloat ? bitsOf(found) : Array.from(found, String), each.expected)];
  }
  for (const { levels: given, unit, offsets, dtype, expected } of levels) {
    yield [`levels in ${dtype}`, same(bitsOf(valuesOf(Int32Array.from(given), floats([unit])[0], offsets, dtype)), expected)];
  }
  for (const { values, expected } of halves) yield ['halves', same(bitsOf(floats(values).map(roundedToHalf)), expected)];
}

function* assign() {
  const { accepted, refused } = document('assign');
  for (const { name, text, fields } of accepted) {
    const found = parseAssignment(text);
    yield [name, same({ ...found, plan_id: String(found.plan_id) }, fields)];
  }
  for (const { name, text, reason } of refused) {
    const found = reasonOf(() => parseAssignment(text));
    yield [`${name}: ${found}, not ${reason}`, found === reason];
  }
}

if (options.updates) mkdirSync(options.updates, { recursive: true });
const passed = {};
for (const [name, run] of Object.entries({ decode, refuse, encode, train, assign })) {
  passed[name] = 0;
  for (const [what, isRight] of run()) {
    if (isRight) passed[name]++;
    else console.error(`${name}: ${what}`);
    if (!isRight) process.exitCode = 1;
  }
}
console.log(JSON.stringify(passed));
