// Stochastic gradient descent with momentum in float32, as docs/wire-format.md, section What a device computes, has it.

/** Momentum buffers of one round; a round begins without. */
export class Sgd {
  constructor({ learning_rate: rate, momentum, proximal }) {
    this.rate = Math.fround(rate);
    this.momentum = Math.fround(momentum);
    this.proximal = Math.fround(proximal);
    this.buffers = new Map();
    this.start = new Map();
  }

  /** One step on `weights` in place; `gradients` by the same names. Every operation is rounded to float32. */
  step(weights, gradients) {
    const { fround } = Math;
    for (const [name, gradient] of gradients) {
      const weight = weights.get(name);
      if (!this.start.has(name)) this.start.set(name, Float32Array.from(weight));
      const start = this.start.get(name);
      const pulled = gradient.map((g, i) => fround(g + fround(this.proximal * fround(weight[i] - start[i]))));
      const buffer = this.buffers.get(name);
      // The first step takes the gradient itself, not a share of it.
      const moving = buffer ? buffer.map((b, i) => fround(fround(this.momentum * b) + pulled[i])) : pulled;
      this.buffers.set(name, moving);
      for (let i = 0; i < weight.length; i++) weight[i] = fround(weight[i] - fround(this.rate * moving[i]));
    }
  }
}

const LEAST = 2 ** -24;
const LARGEST = (2 - 2 ** -23) * 2 ** 127;

/** What training has changed of a tensor: the update of it. Integers wrap around in their dtype. */
export function difference(now, before, { dtype, kind }) {
  if (dtype === 'bool') return now.map((value, i) => value ^ before[i]);
  if (kind === 'integer') {
    const bits = Number(/\d+$/.exec(dtype)[0]);
    const wrapped = dtype.startsWith('u') && bits < 64 ? BigInt.asUintN : BigInt.asIntN;
    return now.map((value, i) => wrapped(bits, value - before[i]));
  }
  // A weight that is not finite is refused when it is encoded: training has diverged.
  return now.map((value, i) => (kind === 'buffer' ? moved(value, before[i]) : value - before[i]));
}

/** Of a buffer: finite, and the new value itself where the old one was not finite. */
function moved(now, before) {
  if (!Number.isFinite(now)) return 0;
  if (Number.isFinite(before)) return Math.min(Math.max(now - before, -LARGEST), LARGEST);
  return Math.abs(now) < LEAST ? (now < 0 || Object.is(now, -0) ? -LEAST : LEAST) : now;
}
