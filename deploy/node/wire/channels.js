// Channels: a device may get a narrower model. The side section of a model says which channels of each group are in it.
//
// A group is {name, size, least, members}; a member is {tensor, dim, positions}, where `positions` has, for each
// channel, its positions along that dimension of that tensor.

import { Refused } from './refused.js';
import { Schema, sizeOf } from './schema.js';

/** Which channels of each group a side section keeps: name -> sorted numbers. */
export function unpackChannels(groups, side) {
  const total = groups.reduce((sum, group) => sum + group.size, 0);
  if (side.length !== Math.ceil(total / 8)) {
    throw new Refused('channels', `masks of ${side.length} bytes, must be ${Math.ceil(total / 8)}`);
  }
  const bit = (i) => (side[i >> 3] >> (i & 7)) & 1;
  for (let i = total; i < 8 * side.length; i++) {
    if (bit(i)) throw new Refused('channels', `a bit is set behind the last of ${total} channels`);
  }
  const channels = {};
  let start = 0;
  for (const { name, size, least } of groups) {
    const kept = Array.from({ length: size }, (_, i) => i).filter((i) => bit(start + i));
    if (kept.length < least) throw new Refused('channels', `group ${name} keeps ${kept.length}, the least is ${least}`);
    channels[name] = kept;
    start += size;
  }
  return channels;
}

/** For each tensor, the positions kept along each of its dimensions. */
export function keptPositions(schema, groups, channels) {
  const kept = new Map(
    schema.tensors.map(({ name, shape }) => [name, shape.map((size) => Array.from({ length: size }, (_, i) => i))]),
  );
  for (const group of groups) {
    const chosen = new Set(channels[group.name]);
    for (const { tensor, dim, positions } of group.members) {
      const dropped = new Set(positions.flatMap((owned, channel) => (chosen.has(channel) ? [] : owned)));
      const dims = kept.get(tensor);
      dims[dim] = dims[dim].filter((position) => !dropped.has(position));
    }
  }
  return kept;
}

/** The schema of the narrower model. */
export function cutSchema(schema, kept) {
  const shape = (name) => kept.get(name).map((dim) => dim.length);
  return new Schema(schema.tensors.map((tensor) => ({ ...tensor, shape: shape(tensor.name) })));
}

/** The elements of a tensor at these positions along each dimension, C order. */
export function cut(values, shape, dims) {
  const result = new values.constructor(dims.reduce((product, dim) => product * dim.length, 1));
  let at = 0;
  const walk = (depth, start) => {
    if (depth === dims.length) {
      result[at++] = values[start];
      return;
    }
    const stride = sizeOf({ shape: shape.slice(depth + 1) });
    for (const position of dims[depth]) walk(depth + 1, start + position * stride);
  };
  if (result.length) walk(0, 0);
  return result;
}

/** Where `inner` lies within `outer`, both positions in the full model. Refuses where `outer` lacks some of it. */
export function within(outer, inner) {
  const places = new Map();
  for (const [name, dims] of inner) {
    places.set(
      name,
      dims.map((wanted, dim) => {
        const at = new Map(outer.get(name)[dim].map((position, i) => [position, i]));
        return wanted.map((position) => {
          if (!at.has(position)) throw new Refused('stale', 'the model held lacks channels that the new one has');
          return at.get(position);
        });
      }),
    );
  }
  return places;
}
