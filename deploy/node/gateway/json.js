// JSON with whole numbers as BigInt: a plan's number has 64 bits, of which JSON.parse would keep 53.

import { Refused } from '../wire/refused.js';

const TOKEN = /[ \t\n\r]*(?:([{}[\],:])|("(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*")|(-?(?:0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?)|(true|false|null))/y;
const DEEPEST = 16;

/** Parse a text. Whole numbers are BigInt, all others numbers; both are finite. */
export function parseJson(text) {
  let at = 0;
  const fail = () => {
    throw new Refused('message', `not JSON at character ${at}`);
  };
  const next = () => {
    TOKEN.lastIndex = at;
    const token = TOKEN.exec(text);
    if (!token) fail();
    at = TOKEN.lastIndex;
    return token;
  };
  const value = ([, sign, string, number, fraction, exponent, word], depth) => {
    if (depth > DEEPEST) fail();
    if (string !== undefined) return JSON.parse(string);
    if (word !== undefined) return JSON.parse(word);
    if (number !== undefined) {
      if (!Number.isFinite(Number(number))) fail();
      return fraction || exponent ? Number(number) : BigInt(number);
    }
    if (sign === '{') return members(depth);
    return sign === '[' ? items(depth) : fail();
  };
  const members = (depth) => {
    const result = Object.create(null);
    let token = next();
    if (token[1] === '}') return result;
    for (;;) {
      if (token[2] === undefined || next()[1] !== ':') fail();
      result[JSON.parse(token[2])] = value(next(), depth + 1);
      const end = next()[1];
      if (end === '}') return result;
      if (end !== ',') fail();
      token = next();
    }
  };
  const items = (depth) => {
    const result = [];
    let token = next();
    if (token[1] === ']') return result;
    for (;;) {
      result.push(value(token, depth + 1));
      const end = next()[1];
      if (end === ']') return result;
      if (end !== ',') fail();
      token = next();
    }
  };
  const result = value(next(), 0);
  if (!/^[ \t\n\r]*$/.test(text.slice(at))) fail();
  return result;
}
