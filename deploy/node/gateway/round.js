// One round on this device: from the model's bytes to the update and the report.

import { CHANGE, UPDATE, unseal } from '../wire/envelope.js';
import { cutSchema, keptPositions, unpackChannels, within } from '../wire/channels.js';
import { cutSnapshot, decodeChange, decodeModel } from '../wire/model.js';
import { Refused } from '../wire/refused.js';
import { encodeUpdate } from '../wire/update.js';
import { Network } from '../training/network.js';
import { Sgd, difference } from '../training/sgd.js';
import { uplinkLimit } from './assignment.js';

const HELD_AT_MOST = 2;

/** The models that a device holds, so that the next may come as the change of one. In memory: a restart loses them. */
export class Held {
  constructor(schema, groups) {
    this.schema = schema;
    this.groups = groups;
    this.versions = [];
  }

  /** Decode a model and hold it as the version of this round; its tensors, and the schema of their shapes. */
  receive(payload, round) {
    const header = unseal(payload);
    if (header.kind === UPDATE) throw new Refused('header', 'an update in place of a model');
    const kept = keptPositions(this.schema, this.groups, unpackChannels(this.groups, header.side));
    const schema = cutSchema(this.schema, kept);
    const isChange = header.kind === CHANGE;
    const received = isChange
      ? decodeChange(payload, schema, this.base(header.baseVersion, kept))
      : decodeModel(payload, schema);
    if (received.snapshot) {
      const others = this.versions.filter(({ version }) => version !== round);
      const bases = others.filter(({ version }) => isChange && version === header.baseVersion);
      const newest = { version: round, kept, schema, snapshot: received.snapshot };
      this.versions = [newest, ...(bases.length ? bases : others)].slice(0, HELD_AT_MOST);
    }
    return { tensors: received.tensors, schema };
  }

  base(version, kept) {
    const held = this.versions.find((each) => each.version === version);
    if (!held) throw new Refused('stale', `version ${version} is not held here`);
    return cutSnapshot(held.snapshot, held.schema, within(held.kept, kept));
  }
}

/** Train as the assignment says; `examples` are {input, target}, `now` a clock in seconds. Gives update and report. */
export function doRound({ assignment, payload, held, examples, profile, now }) {
  const began = now();
  const { tensors, schema } = held.receive(payload, assignment.round_number);
  const before = new Map([...tensors].map(([name, values]) => [name, values.slice()]));
  const { plan, training, budget } = assignment;
  // What is held out must never be trained on; this device only leaves it alone.
  const trained = examples.slice(0, Math.max(examples.length - Math.floor(examples.length * training.held_out), 1));
  const radioJ = profile.radio_j_per_burst + profile.radio_j_per_byte_down * payload.length;
  const spentJ = () => (now() - began) * profile.train_w + radioJ;
  const memory = process.memoryUsage().rss;
  if (budget.memory_bytes !== null && memory > budget.memory_bytes) {
    throw new Refused('memory_bytes', `${memory} bytes are in use, the budget is ${budget.memory_bytes}`);
  }
  const network = new Network(schema);
  const sgd = new Sgd(training);
  let [steps, loss, stoppedBy] = [0, 0, null];
  while (steps < plan.local_steps) {
    if (budget.deadline_s !== null && now() - began >= budget.deadline_s) stoppedBy = 'deadline_s';
    if (budget.energy_j !== null && spentJ() >= budget.energy_j) stoppedBy = 'energy_j';
    if (stoppedBy) break;
    const places = Array.from({ length: plan.batch_size }, (_, i) => (steps * plan.batch_size + i) % trained.length);
    const found = network.gradients(tensors, places.slice(0, trained.length).map((i) => trained[i]));
    sgd.step(tensors, found.gradients);
    loss += found.loss;
    steps++;
  }
  if (!steps) throw new Refused(stoppedBy, `not one local step fits the budget: ${stoppedBy} binds`);
  const moving = schema.moving;
  const changes = moving.tensors.map((tensor) => {
    const { name } = tensor;
    return [name, difference(tensors.get(name), before.get(name), tensor)];
  });
  const update = encodeUpdate(new Map(changes), moving, {
    nmse: plan.nmse,
    limitBytes: uplinkLimit(assignment, moving),
    baseVersion: assignment.round_number,
    planId: assignment.plan_id,
  });
  const upJ = profile.radio_j_per_byte_up * update.length;
  return {
    update,
    report: {
      spent: {
        energy_j: spentJ() + upJ,
        radio_j: radioJ + upJ,
        time_s: Math.max(now() - began, 1e-6),
        memory_bytes: process.memoryUsage().rss,
        uplink_bytes: update.length,
        downlink_bytes: payload.length,
      },
      source: 'estimated',
      loss: loss / steps,
      examples: trained.length,
      steps,
      stopped_by: stoppedBy,
      startup: { time_s: 0, energy_j: 0 },
    },
  };
}
