// A slimfleet device in Node.js. See README.md.
//
//   node device.js --gateway HOST:PORT --keys FOLDER --model model.json --data data.json --profile device.json

import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Calls } from './gateway/calls.js';
import { Resident } from './gateway/resident.js';
import { Held } from './gateway/round.js';
import { Schema } from './wire/schema.js';

const NEEDED = ['gateway', 'keys', 'model', 'data', 'profile'];
const options = Object.fromEntries([...NEEDED, 'rounds'].map((name) => [name, { type: 'string' }]));
const { values } = parseArgs({ options });
for (const name of NEEDED) {
  if (values[name] === undefined) {
    console.error(`error: --${name} is missing: node device.js ${NEEDED.map((each) => `--${each} …`).join(' ')}`);
    process.exit(2);
  }
}

const read = (path) => JSON.parse(readFileSync(path, 'utf8'));
const { tensors, groups } = read(values.model);
const { inputs, targets } = read(values.data);
const device = {
  held: new Held(new Schema(tensors), groups),
  examples: inputs.map((input, i) => ({ input, target: targets[i] })),
  profile: read(values.profile),
};
const calls = new Calls(values.gateway, values.keys);
const resident = new Resident(calls, device, (line) => console.error(line));
await resident.stay(values.rounds === undefined ? Infinity : Number(values.rounds));
calls.close();
