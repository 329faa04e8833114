// An assignment: what a device is to do in one round. Nothing in it is taken on trust.

import { Refused } from '../wire/refused.js';
import { parseJson } from './json.js';

const LONGEST = 16384;
const COUNT = 2n ** 53n;

// A field's rule takes what was sent, and gives the value or throws. `or` marks a field with a default.
const integer = (low, high) => (sent) => {
  if (typeof sent !== 'bigint' || sent < low || sent > high) throw new RangeError(`an integer in ${low}..${high}`);
  return high > COUNT ? sent : Number(sent);
};
const number = (low, high, { above = false, below = false } = {}) => (sent) => {
  const value = typeof sent === 'bigint' ? Number(sent) : sent;
  const isIn = typeof value === 'number' && value >= low && value <= high;
  if (!isIn || (above && value === low) || (below && value === high)) throw new RangeError(`a number in ${low}..${high}`);
  return value;
};
const flag = (sent) => {
  if (typeof sent !== 'boolean') throw new RangeError('true or false');
  return sent;
};
const word = (...known) => (sent) => {
  if (!known.includes(sent)) throw new RangeError(known.join(' or '));
  return sent;
};
const text = (longest) => (sent) => {
  if (typeof sent !== 'string' || [...sent].length > longest || /[\p{C}\p{Z}]/u.test(sent.replaceAll(' ', ''))) {
    throw new RangeError(`printable text of at most ${longest} characters`);
  }
  return sent;
};
const optional = (rule) => or(null, (sent) => (sent === null ? null : rule(sent)));
const or = (value, rule) => Object.assign((sent) => rule(sent), { value });

const count = integer(0n, COUNT);
const positive = number(0, Infinity, { above: true });
const notNegative = number(0, Infinity);
const share = number(0, 1);

const PLAN = {
  width: number(0, 1, { above: true }),
  local_steps: integer(1n, 10n ** 6n),
  batch_size: integer(1n, 10n ** 5n),
  nmse: number(0, 1, { below: true }),
  precision: or('float32', word('float32', 'bfloat16')),
  reason: or('', text(500)),
};
const BUDGET = {
  energy_j: optional(notNegative),
  power_w: optional(positive),
  memory_bytes: optional(count),
  deadline_s: optional(notNegative),
  uplink_bytes: optional(count),
  downlink_bytes: optional(count),
};
const TRAINING = {
  learning_rate: positive,
  momentum: or(0.9, number(0, 1, { below: true })),
  proximal: or(0, notNegative),
  rounding: or('deadzone', word('deadzone', 'stochastic')),
  feedback: or(true, flag),
  feedback_decay: or(1, share),
  feedback_max_age: or(1000, count),
  feedback_max_norm: or(4, positive),
  seed: or(0, count),
  held_out: or(0, number(0, 1, { below: true })),
};
const EVALUATION = { examples: integer(1n, 2n ** 20n), energy_j: number(0, 1e6) };
const ASSIGNMENT = {
  round_number: count,
  plan_id: integer(0n, 2n ** 64n - 1n),
  plan: (sent) => fieldsOf(sent, PLAN, 'plan'),
  budget: (sent) => fieldsOf(sent, BUDGET, 'budget'),
  training: (sent) => fieldsOf(sent, TRAINING, 'training'),
  codec_preset: or('small', word('small', 'fast', 'portable')),
  acknowledged_round: optional(count),
  evaluation: optional((sent) => fieldsOf(sent, EVALUATION, 'evaluation')),
};

/** The assignment in a JSON text: plan_id as a BigInt, all other numbers as numbers. Refuses what is not one. */
export function parseAssignment(json) {
  if ([...json].length > LONGEST) throw new Refused('message', `more than ${LONGEST} characters`);
  return fieldsOf(parseJson(json), ASSIGNMENT, 'assignment');
}

function fieldsOf(sent, rules, where) {
  if (sent === null || typeof sent !== 'object' || Array.isArray(sent)) throw new Refused('message', `${where}: no object`);
  for (const name of Object.keys(sent)) {
    if (Object.hasOwn(rules, name)) continue;
    // It may change what is to be done: never to be passed over.
    throw new Refused('message', `${where}.${name} is not known here; it is made for a newer device: update this one`);
  }
  const fields = {};
  for (const [name, rule] of Object.entries(rules)) {
    if (!(name in sent) && !('value' in rule)) throw new Refused('message', `${where}.${name} is missing`);
    try {
      fields[name] = name in sent ? rule(sent[name]) : rule.value;
    } catch (error) {
      if (!(error instanceof RangeError)) throw error;
      throw new Refused('message', `${where}.${name} must be ${error.message}`);
    }
  }
  return fields;
}

/** Most bytes of the update of a model of `schema` (without frozen tensors). */
export function uplinkLimit(assignment, schema) {
  const itemBytes = (dtype) => (dtype === 'bool' ? 1 : Number(/\d+$/.exec(dtype)[0]) / 8);
  const arrays = schema.tensors.reduce(
    (sum, { shape, dtype }) => sum + shape.reduce((product, size) => product * size, 1) * itemBytes(dtype),
    0,
  );
  return assignment.budget.uplink_bytes ?? arrays + 8192;
}
