// The envelope of every payload: header, side section, body, checksum.

import { Refused } from './refused.js';
import { xxh64 } from './xxh64.js';

export const UPDATE = 0;
export const MODEL = 1;
export const CHANGE = 2;

export const FLOAT32 = 0;
export const TABLES = 1;
export const CONTEXTS = 2;

/** Bits of the field `sections`. */
export const WEIGHTS = 1;
export const BUFFERS = 2;
export const INTEGERS = 4;
export const PARTIAL = 8;

const HEAD = 37;
const OVERHEAD = HEAD + 8;

/** Check the envelope of a payload; its header, and a view of its body. */
export function unseal(payload) {
  const size = payload.length;
  if (size < OVERHEAD) throw new Refused('truncated', `${size} bytes, the least is ${OVERHEAD}`);
  const view = new DataView(payload.buffer, payload.byteOffset, size);
  if (payload[0] !== 0x53 || payload[1] !== 0x46) throw new Refused('magic', 'not a slimfleet payload');
  if (payload[2] !== 1) throw new Refused('version', `format version ${payload[2]}, this end speaks 1`);
  const length = view.getUint32(11, true);
  if (length !== size) throw new Refused('truncated', `${size} bytes, the header says ${length}`);
  if (view.getBigUint64(size - 8, true) !== xxh64(payload.subarray(0, size - 8))) {
    throw new Refused('checksum', 'bytes changed on the way');
  }
  const side = view.getUint16(35, true);
  if (side > size - OVERHEAD) throw new Refused('header', `a side section of ${side} bytes does not fit`);
  if (payload[4] & ~15) throw new Refused('header', `unknown sections ${payload[4]}`);
  const kind = payload[3] >> 4;
  const coder = payload[3] & 15;
  if (kind > CHANGE) throw new Refused('header', `unknown kind ${kind}`);
  if (coder > CONTEXTS) throw new Refused('version', `unknown coder ${coder}`);
  return {
    size,
    kind,
    coder,
    sections: payload[4],
    tensors: view.getUint16(5, true),
    elements: view.getUint32(7, true),
    baseVersion: view.getUint32(15, true),
    digest: Buffer.from(payload.subarray(19, 27)).toString('hex'),
    planId: view.getBigUint64(27, true),
    side: payload.slice(HEAD, HEAD + side),
    body: payload.subarray(HEAD + side, size - 8),
  };
}

/** Refuse what was made for another model. */
export function checkSchema(header, schema) {
  if (header.digest !== schema.digest) {
    throw new Refused('schema', `made for schema ${header.digest}, expected ${schema.digest}`);
  }
  if (header.tensors !== schema.tensors.length || header.elements !== schema.elements) {
    throw new Refused('counts', `${header.tensors} tensors with ${header.elements} elements`);
  }
}

/** Most bytes that a payload of this schema can need: checked before anything else is read. */
export function checkSize(size, schema) {
  const limit =
    OVERHEAD + 65535 + 8 * schema.elements + 5 * schema.tensors.length + Math.ceil(schema.plain.length / 8) + 16 * 1027;
  if (size > limit) throw new Refused('oversized', `${size} bytes, the limit is ${limit}`);
}

/** Assemble the payload of an update. `planId` is a BigInt. */
export function sealUpdate({ coder, sections, body, baseVersion, planId }, schema) {
  const payload = new Uint8Array(OVERHEAD + body.length);
  const view = new DataView(payload.buffer);
  payload.set([0x53, 0x46, 1, (UPDATE << 4) | coder, sections]);
  view.setUint16(5, schema.tensors.length, true);
  view.setUint32(7, schema.elements, true);
  view.setUint32(11, payload.length, true);
  view.setUint32(15, baseVersion, true);
  payload.set(Buffer.from(schema.digest, 'hex'), 19);
  view.setBigUint64(27, planId, true);
  payload.set(body, HEAD);
  view.setBigUint64(payload.length - 8, xxh64(payload.subarray(0, payload.length - 8)), true);
  return payload;
}
