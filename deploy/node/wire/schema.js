// The schema of a model: its ordered tensors, {name, shape, dtype, kind}, and the digest that payloads quote.

import { createHash } from 'node:crypto';

export const sizeOf = (tensor) => tensor.shape.reduce((product, size) => product * size, 1);

export class Schema {
  constructor(tensors) {
    this.tensors = tensors;
    this.weights = tensors.filter((tensor) => tensor.kind === 'weight');
    this.plain = tensors.filter((tensor) => tensor.kind !== 'weight');
    this.elements = tensors.reduce((sum, tensor) => sum + sizeOf(tensor), 0);
  }

  /** The first 8 bytes of SHA-256 over a line for each tensor, in hex. */
  get digest() {
    const line = ({ name, shape, dtype, kind }) => `${name}\0${shape.join(',')}\0${dtype}\0${kind}\n`;
    return createHash('sha256').update(this.tensors.map(line).join(''), 'utf8').digest('hex').slice(0, 16);
  }

  /** The schema of an update: what never changes is not in it. */
  get moving() {
    return new Schema(this.tensors.filter((tensor) => tensor.kind !== 'frozen'));
  }
}
